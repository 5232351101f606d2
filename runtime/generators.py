"""How the values of secrets are made: one class for each kind of generator, and its form in secrets.yml."""

from __future__ import annotations

import base64
import hashlib
import secrets
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as checked

from runtime.errors import ConfigurationError

Place = tuple[str, str]
"""A secret's name and a key's."""
Lookup = Callable[[str, str], str]
"""Gives the value of another secret's key."""

MIN_PASSWORD, MAX_PASSWORD = 8, 4096
_LETTERS_AND_DIGITS = string.ascii_letters + string.digits
STRICT = ConfigDict(extra="forbid")
Text = Annotated[str, Field(strict=True, min_length=1)]
_Count = Annotated[int, Field(strict=True, ge=0)]


def place_of(text: str) -> Place:
    """Return secret and key of `secret.key`; a secret's name has no dot, a key's may. Raises ValueError."""
    secret, _dot, key = text.partition(".")
    if not secret or not key:
        raise ValueError(f"{text!r} does not name a key as secret.key")
    return secret, key


def _stream(secret: str, key: str, length: int) -> bytes:
    """Return bytes that are the same on every machine."""
    return hashlib.shake_256(f"goldlake-local:{secret}:{key}".encode()).digest(length)


class Generator(ABC):
    """How a value is made. `generate` makes a new one, `local` one for development, the same on every machine.

    The value of a laptop's default is known to everyone: it protects nothing.
    """

    kind: ClassVar[str]
    is_random: ClassVar[bool] = False
    """Whether not even `local` gives the same value twice: it has to be kept."""
    rotates: ClassVar[bool] = True
    """Whether it can make another value; a text that is given, or made of others, cannot."""

    @property
    def sources(self) -> tuple[Place, ...]:
        """The keys whose values this one is made of."""
        return ()

    @abstractmethod
    def generate(self, lookup: Lookup) -> str:
        """Return a new value; `lookup` gives those of the sources."""

    @abstractmethod
    def local(self, secret: str, key: str, lookup: Lookup) -> str:
        """Return the default of `secret.key` for local development; `lookup` gives those of the sources."""


@checked(frozen=True, config=STRICT)
class Fixed(Generator):
    """The text itself; `repr` leaves it out."""

    kind: ClassVar[str] = "fixed"
    rotates: ClassVar[bool] = False
    text: Text = field(repr=False)

    def generate(self, lookup: Lookup) -> str:
        return self.text

    def local(self, secret: str, key: str, lookup: Lookup) -> str:
        return self.text


@checked(frozen=True, config=STRICT)
class Derived(Generator):
    """Letters and digits out of the names of secret and key: for local development only."""

    kind: ClassVar[str] = "derived"
    length: Annotated[int, Field(strict=True, ge=1, le=MAX_PASSWORD)]

    def generate(self, lookup: Lookup) -> str:
        raise ConfigurationError("a derived value is for local development only: everyone can derive it")

    def local(self, secret: str, key: str, lookup: Lookup) -> str:
        return "".join(
            _LETTERS_AND_DIGITS[byte % len(_LETTERS_AND_DIGITS)] for byte in _stream(secret, key, self.length)
        )


@checked(frozen=True, config=STRICT)
class Password(Generator):
    """Characters of ASCII: letters, digits and, when any are given, symbols; so many of each kind at least."""

    kind: ClassVar[str] = "password"
    length: Annotated[int, Field(strict=True, ge=MIN_PASSWORD, le=MAX_PASSWORD)] = 32
    min_upper: _Count = 1
    min_lower: _Count = 1
    min_digits: _Count = 1
    min_symbols: _Count = 0
    symbols: Annotated[str, Field(strict=True)] = ""

    @model_validator(mode="after")
    def _can_be_kept(self) -> Password:
        if self.min_upper + self.min_lower + self.min_digits + self.min_symbols > self.length:
            raise ValueError(f"the rules ask for more characters than the length {self.length}")
        if self.min_symbols and not self.symbols:
            raise ValueError("min_symbols needs symbols, the ones that may be taken")
        if not set(self.symbols) <= set(string.punctuation):
            raise ValueError("symbols are ASCII punctuation only")
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError("a symbol is given twice")
        return self

    def generate(self, lookup: Lookup) -> str:
        return self._compose(secrets.randbelow)

    def local(self, secret: str, key: str, lookup: Lookup) -> str:
        # Eight bytes for each of the two choices that a character takes; what modulo bends is nothing here.
        stream = iter(_stream(secret, key, 16 * self.length))

        def pick(below: int) -> int:
            return int.from_bytes(bytes(next(stream) for _ in range(8)), "big") % below

        return self._compose(pick)

    def _compose(self, pick: Callable[[int], int]) -> str:
        """Return a password; `pick(n)` gives a number from 0 to n - 1."""
        alphabets = (string.ascii_uppercase, string.ascii_lowercase, string.digits, self.symbols)
        needed = (self.min_upper, self.min_lower, self.min_digits, self.min_symbols)
        wanted = [alphabet for alphabet, count in zip(alphabets, needed, strict=True) for _ in range(count)]
        wanted += ["".join(alphabets)] * (self.length - len(wanted))
        characters = [alphabet[pick(len(alphabet))] for alphabet in wanted]
        # Fisher-Yates: the needed ones do not stand at the front.
        for last in range(len(characters) - 1, 0, -1):
            other = pick(last + 1)
            characters[last], characters[other] = characters[other], characters[last]
        return "".join(characters)


@checked(frozen=True, config=STRICT)
class Fernet(Generator):
    """A key as the Fernet specification has it: 32 bytes in URL-safe base64, 44 characters."""

    kind: ClassVar[str] = "fernet"

    def generate(self, lookup: Lookup) -> str:
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()

    def local(self, secret: str, key: str, lookup: Lookup) -> str:
        return base64.urlsafe_b64encode(_stream(secret, key, 32)).decode()


@checked(frozen=True, config=STRICT)
class Token(Generator):
    """So many bytes, in hexadecimal."""

    kind: ClassVar[str] = "token"
    size: Annotated[int, Field(strict=True, ge=16, le=1024)] = 32

    def generate(self, lookup: Lookup) -> str:
        return secrets.token_hex(self.size)

    def local(self, secret: str, key: str, lookup: Lookup) -> str:
        return _stream(secret, key, self.size).hex()


@checked(frozen=True, config=STRICT)
class Rsa(Generator):
    """A private RSA key in PEM (PKCS #8). A laptop's is random, too: the seeder keeps the one that is there."""

    kind: ClassVar[str] = "rsa"
    is_random: ClassVar[bool] = True
    bits: Literal[2048, 3072, 4096] = 3072

    def generate(self, lookup: Lookup) -> str:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        made = rsa.generate_private_key(public_exponent=65537, key_size=self.bits)
        return made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    def local(self, secret: str, key: str, lookup: Lookup) -> str:
        return self.generate(lookup)


@checked(frozen=True, config=STRICT)
class From(Generator):
    """The value of another key."""

    kind: ClassVar[str] = "from"
    rotates: ClassVar[bool] = False
    source: Text

    @model_validator(mode="after")
    def _names_a_key(self) -> From:
        place_of(self.source)
        return self

    @property
    def sources(self) -> tuple[Place, ...]:
        return (place_of(self.source),)

    def generate(self, lookup: Lookup) -> str:
        return lookup(*place_of(self.source))

    def local(self, secret: str, key: str, lookup: Lookup) -> str:
        return self.generate(lookup)


@checked(frozen=True, config=STRICT)
class Template(Generator):
    """A text with {secret.key} in it, or {secret.key:url} to have the value percent-encoded; {{ and }} are braces."""

    kind: ClassVar[str] = "template"
    rotates: ClassVar[bool] = False
    text: Text

    @model_validator(mode="after")
    def _can_be_filled_in(self) -> Template:
        if not self.sources:
            raise ValueError("a template names at least one key as {secret.key}")
        return self

    def _parts(self) -> Iterator[tuple[str, Place | None, bool]]:
        """Yield pieces of text, each with the key that follows it and whether it is percent-encoded."""
        for literal, name, form, conversion in string.Formatter().parse(self.text):
            if name is not None and (conversion or form not in {"", "url"}):
                raise ValueError(f"{{{name}}} takes no form but {{{name}:url}}")
            yield literal, None if name is None else place_of(name), form == "url"

    @property
    def sources(self) -> tuple[Place, ...]:
        return tuple(dict.fromkeys(place for _literal, place, _encoded in self._parts() if place))

    def generate(self, lookup: Lookup) -> str:
        text = ""
        for literal, place, encoded in self._parts():
            value = lookup(*place) if place else ""
            text += literal + (quote(value, safe="") if encoded else value)
        return text

    def local(self, secret: str, key: str, lookup: Lookup) -> str:
        return self.generate(lookup)


# What `{fixed: text}` is short for: `{fixed: {text: text}}`.
_SHORT = {
    "fixed": "text",
    "derived": "length",
    "password": "length",
    "fernet": None,
    "token": "size",
    "rsa": "bits",
    "from": "source",
    "template": "text",
}


def _spelled_out(kind: str) -> BeforeValidator:
    """Return the validator that turns the short form of a generator into its options."""
    option = _SHORT[kind]

    def spell_out(value: Any) -> Any:
        if value is None:
            return {}
        return value if option is None or isinstance(value, Mapping) else {option: value}

    return BeforeValidator(spell_out)


class GeneratorEntry(BaseModel):
    """One generator in the file: `{kind: options}`, or `kind` alone where the options have defaults."""

    model_config = STRICT
    fixed: Annotated[Fixed, _spelled_out("fixed")] | None = None
    derived: Annotated[Derived, _spelled_out("derived")] | None = None
    password: Annotated[Password, _spelled_out("password")] | None = None
    fernet: Annotated[Fernet, _spelled_out("fernet")] | None = None
    token: Annotated[Token, _spelled_out("token")] | None = None
    rsa: Annotated[Rsa, _spelled_out("rsa")] | None = None
    source: Annotated[From, _spelled_out("from")] | None = Field(default=None, alias="from")
    template: Annotated[Template, _spelled_out("template")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_one(cls, value: Any) -> Any:
        entry = {value: {}} if isinstance(value, str) else value
        if not isinstance(entry, Mapping) or len(entry) != 1:
            raise ValueError(f"one generator is expected: {', '.join(_SHORT)}")
        (kind,) = entry
        if kind not in _SHORT:
            raise ValueError(f"there is no generator {kind!r}; there are {', '.join(_SHORT)}")
        return {kind: {} if entry[kind] is None else entry[kind]}

    def made(self) -> Generator:
        """Return the generator."""
        found: Generator = next(made for _name, made in self if made is not None)
        return found
