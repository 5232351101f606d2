"""The catalogue of secrets: which there are, their keys, how values are made, and who gets them under which names.

secrets.yml beside this file is the only place where secrets are declared. The program that makes their entries, the
seeder and the fetcher all read it here.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass as checked

from runtime.errors import ConfigurationError

CATALOGUE = Path(__file__).with_name("secrets.yml")
SecretKind = Literal["json", "text", "binary"]
Place = tuple[str, str]
"""A secret's name and a key's."""
Lookup = Callable[[str, str], str]
"""Gives the value of another secret's key."""

MIN_PASSWORD, MAX_PASSWORD = 8, 4096
_LETTERS_AND_DIGITS = string.ascii_letters + string.digits
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_STRICT = ConfigDict(extra="forbid")
_Text = Annotated[str, Field(strict=True, min_length=1)]
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


@checked(frozen=True, config=_STRICT)
class Fixed(Generator):
    """The text itself; `repr` leaves it out."""

    kind: ClassVar[str] = "fixed"
    rotates: ClassVar[bool] = False
    text: _Text = field(repr=False)

    def generate(self, lookup: Lookup) -> str:
        return self.text

    def local(self, secret: str, key: str, lookup: Lookup) -> str:
        return self.text


@checked(frozen=True, config=_STRICT)
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


@checked(frozen=True, config=_STRICT)
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


@checked(frozen=True, config=_STRICT)
class Fernet(Generator):
    """A key as the Fernet specification has it: 32 bytes in URL-safe base64, 44 characters."""

    kind: ClassVar[str] = "fernet"

    def generate(self, lookup: Lookup) -> str:
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()

    def local(self, secret: str, key: str, lookup: Lookup) -> str:
        return base64.urlsafe_b64encode(_stream(secret, key, 32)).decode()


@checked(frozen=True, config=_STRICT)
class Token(Generator):
    """So many bytes, in hexadecimal."""

    kind: ClassVar[str] = "token"
    size: Annotated[int, Field(strict=True, ge=16, le=1024)] = 32

    def generate(self, lookup: Lookup) -> str:
        return secrets.token_hex(self.size)

    def local(self, secret: str, key: str, lookup: Lookup) -> str:
        return _stream(secret, key, self.size).hex()


@checked(frozen=True, config=_STRICT)
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


@checked(frozen=True, config=_STRICT)
class From(Generator):
    """The value of another key."""

    kind: ClassVar[str] = "from"
    rotates: ClassVar[bool] = False
    source: _Text

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


@checked(frozen=True, config=_STRICT)
class Template(Generator):
    """A text with {secret.key} in it, or {secret.key:url} to have the value percent-encoded; {{ and }} are braces."""

    kind: ClassVar[str] = "template"
    rotates: ClassVar[bool] = False
    text: _Text

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


@dataclass(frozen=True)
class Key:
    """One value of a secret."""

    name: str
    env: str
    """Its environment variable; empty when that is the name in upper case."""
    local: Generator
    """How the default for local development is made."""
    generate: Generator | None
    """How a value is made elsewhere. None: an operator has to give it."""

    @property
    def sources(self) -> tuple[Place, ...]:
        """The keys whose values this one is made of."""
        return tuple(dict.fromkeys((*self.local.sources, *(self.generate.sources if self.generate else ()))))


@dataclass(frozen=True)
class Secret:
    """One entry of Secrets Manager."""

    name: str
    """The second part of the entry's id, `<prefix>/<name>`."""
    description: str
    profiles: tuple[str, ...]
    """Who gets its keys."""
    keys: Mapping[str, Key]
    kind: SecretKind = "json"
    """json: an object of the keys; text: the one key's value itself; binary: the bytes whose base64 that value is."""


@dataclass(frozen=True)
class Catalogue:
    """All that secrets.yml declares, in its order."""

    profiles: tuple[str, ...]
    secrets: Mapping[str, Secret]

    def of_profile(self, name: str) -> list[Secret]:
        """Return the secrets that a profile gets. Raises ConfigurationError for a profile that is not declared."""
        if name not in self.profiles:
            raise ConfigurationError(f"there is no profile {name!r}; there are {', '.join(self.profiles)}")
        return [secret for secret in self.secrets.values() if name in secret.profiles]

    def variables(self, profile: str) -> dict[str, Place]:
        """Return what a profile's environment variables are made of: the variable's name -> (secret, key).

        A key's variable is its `env`, else its name in upper case. Where two secrets of the profile would give the same
        name, those that have no `env` take their secret's name, see `qualified_name`.
        """
        names = _variables(self.of_profile(profile))
        return {name: places[0] for name, places in names.items()}

    def places(self) -> Iterator[tuple[Place, Key]]:
        """Yield every key with its place."""
        for secret in self.secrets.values():
            for key in secret.keys.values():
                yield (secret.name, key.name), key

    def key(self, place: Place) -> Key:
        """Return the key at a place. Raises ConfigurationError when there is none."""
        secret = self.secrets.get(place[0])
        if secret is None or place[1] not in secret.keys:
            raise ConfigurationError(f"the catalogue has no key {place[0]}.{place[1]}")
        return secret.keys[place[1]]

    def local_default(self, secret: str, key: str) -> str:
        """Return a key's value for local development. It is the same on every machine unless its generator is random.

        It protects nothing. Raises ConfigurationError when there is no such key.
        """
        return self.key((secret, key)).local.local(secret, key, self.local_default)


def variable_of(key: Key) -> str:
    """Return the key's own environment variable."""
    return key.env or key.name.upper()


def qualified_name(secret: str, variable: str) -> str:
    """Return the variable with its secret's name in it.

    POSTGRES_USER of postgres-airflow is POSTGRES_AIRFLOW_USER: the first word of both is not said twice. Others are
    `<SECRET>_<VARIABLE>`.
    """
    words = secret.upper().replace("-", "_")
    first = words.split("_")[0] + "_"
    return f"{words}_{variable.removeprefix(first)}"


def _variables(found: Sequence[Secret]) -> dict[str, list[Place]]:
    """Return each variable with the keys that would give it; more than one is a fault."""
    own: dict[str, list[str]] = {}
    for secret in found:
        for key in secret.keys.values():
            own.setdefault(variable_of(key), []).append(secret.name)
    names: dict[str, list[Place]] = {}
    for secret in found:
        for key in secret.keys.values():
            name = variable_of(key)
            # What the catalogue says in so many words is what the reader of the variable looks for.
            shared = len(set(own[name])) > 1 and not key.env
            names.setdefault(qualified_name(secret.name, name) if shared else name, []).append((secret.name, key.name))
    return names


def load_catalogue(path: Path | None = None) -> Catalogue:
    """Return the catalogue in a file, by default the project's own.

    Raises ConfigurationError with every fault and its place in the file; those between entries (a source that is not
    there, a cycle, two keys with one variable) are looked for when each entry is sound by itself.
    """
    file = path or CATALOGUE
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{file} cannot be read: {exc}") from exc
    except yaml.YAMLError as exc:
        raise ConfigurationError(f"{file} is no readable YAML: {_yaml_fault(exc)}") from None
    try:
        declared = _File.model_validate(content)
    except ValidationError as exc:
        raise _refused(file, [_fault(fault) for fault in exc.errors(include_input=False, include_url=False)]) from None
    made = Catalogue(
        tuple(declared.profiles),
        MappingProxyType({name: entry.made(name) for name, entry in declared.secrets.items()}),
    )
    faults = list(_faults_between(made))
    if faults:
        raise _refused(file, faults)
    return made


def _refused(file: Path, faults: Sequence[str]) -> ConfigurationError:
    lines = "".join(f"\n  {fault}" for fault in faults)
    return ConfigurationError(f"{file.name} has {len(faults)} fault{'s' if len(faults) > 1 else ''}:{lines}")


def _fault(fault: Any) -> str:
    """Return pydantic's fault as one line; the value, which may be a secret's, is left out."""
    path = ".".join(str(part) for part in fault["loc"]) or "the file"
    return f"{path}: {fault['msg'].removeprefix('Value error, ')}"


def _yaml_fault(fault: yaml.YAMLError) -> str:
    """Return what is wrong and where; PyYAML's own text quotes the line."""
    mark = getattr(fault, "problem_mark", None)
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{getattr(fault, 'problem', None) or type(fault).__name__}{where}"


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is there twice; YAML forbids it, and PyYAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _value in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _spelled_out(kind: str) -> BeforeValidator:
    """Return the validator that turns the short form of a generator into its options."""
    option = _SHORT[kind]

    def spell_out(value: Any) -> Any:
        if value is None:
            return {}
        return value if option is None or isinstance(value, Mapping) else {option: value}

    return BeforeValidator(spell_out)


class _GeneratorEntry(BaseModel):
    """One generator: `{kind: options}`, or `kind` alone where the options have defaults."""

    model_config = _STRICT
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


class _KeyEntry(BaseModel):
    model_config = _STRICT
    env: Annotated[str, Field(strict=True, pattern=rf"^{_VARIABLE.pattern}$")] = ""
    local: _GeneratorEntry | None = None
    generate: _GeneratorEntry | None = None

    @model_validator(mode="after")
    def _has_a_default(self) -> _KeyEntry:
        if self.local is None and self.generate is None:
            raise ValueError("local or generate is needed: how the value is made")
        if self.generate is not None and self.generate.derived is not None:
            raise ValueError("generate cannot be derived: everyone can derive that value")
        return self

    def made(self, name: str) -> Key:
        local, generate = self.local or self.generate, self.generate
        assert local is not None  # noqa: S101 - refused above
        return Key(name, self.env, local.made(), generate.made() if generate else None)


class _SecretEntry(BaseModel):
    model_config = _STRICT
    description: _Text
    profiles: list[_Text]
    kind: SecretKind = "json"
    keys: Annotated[dict[_Text, _KeyEntry], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_sound(self) -> _SecretEntry:
        if self.kind != "json" and len(self.keys) > 1:
            raise ValueError(f"a secret of kind {self.kind} has one key, its whole value")
        wrong = [
            name
            for name, key in self.keys.items()
            if not key.env and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name.upper())
        ]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} cannot be an environment variable: give it an `env`")
        if len(set(self.profiles)) < len(self.profiles):
            raise ValueError("a profile is named twice")
        return self

    def made(self, name: str) -> Secret:
        keys = {key: entry.made(key) for key, entry in self.keys.items()}
        return Secret(name, self.description, tuple(self.profiles), MappingProxyType(keys), self.kind)


# Secrets Manager takes more; a dot parts secret and key in `secret.key`, and the rest would be no variable's name.
_Name = Annotated[str, Field(strict=True, pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]


class _File(BaseModel):
    model_config = _STRICT
    version: Literal[1]
    profiles: Annotated[list[_Name], Field(min_length=1)]
    secrets: Annotated[dict[_Name, _SecretEntry], Field(min_length=1)]


def _faults_between(catalogue: Catalogue) -> Iterator[str]:
    """Yield what is wrong between entries that are sound by themselves."""
    for secret in catalogue.secrets.values():
        for profile in secret.profiles:
            if profile not in catalogue.profiles:
                yield f"secrets.{secret.name}.profiles: there is no profile {profile!r}"
    missing = False
    for (secret_name, key_name), key in catalogue.places():
        for source in key.sources:
            if source[0] not in catalogue.secrets or source[1] not in catalogue.secrets[source[0]].keys:
                missing = True
                yield f"secrets.{secret_name}.keys.{key_name}: its source {'.'.join(source)} is not in the catalogue"
    if not missing:
        yield from _cycles(catalogue)
    for profile in catalogue.profiles:
        for variable, places in _variables(catalogue.of_profile(profile)).items():
            if len(places) > 1:
                both = " and ".join(".".join(place) for place in places)
                yield f"profiles.{profile}: {both} would both be {variable}; give one an `env`"


def _cycles(catalogue: Catalogue) -> Iterator[str]:
    """Yield every cycle of sources once, by the names on it."""
    sources = {place: key.sources for place, key in catalogue.places()}
    done: set[Place] = set()

    def follow(place: Place, path: tuple[Place, ...]) -> Iterator[str]:
        if place in path:
            names = [".".join(on) for on in (*path[path.index(place) :], place)]
            yield f"secrets.{place[0]}.keys.{place[1]}: its value is made of itself: {' <- '.join(names)}"
        elif place not in done:
            for source in sources[place]:
                yield from follow(source, (*path, place))
            done.add(place)

    for start in sources:
        yield from follow(start, ())
