"""The options of UNLOAD and COPY, read word by word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from local.redshift.statements import Token
from local.redshift.wire import RedshiftError, not_emulated

_UNITS = {"mb": 1 << 20, "gb": 1 << 30}


@dataclass
class Words:
    """What is left of a statement."""

    rest: list[Token]

    @classmethod
    def of(cls, words: Sequence[Token]) -> Words:
        """Return all words."""
        return cls(list(words))

    def peek(self) -> str:
        """Return the next word in lower case, or the next sign."""
        return (self.rest[0].word or self.rest[0].text) if self.rest else ""

    def take(self) -> Token:
        """Return the next word and go on."""
        if not self.rest:
            raise RedshiftError("42601", "syntax error at end of input")
        return self.rest.pop(0)

    def skip(self, *wanted: str) -> bool:
        """Go over these words if they are next; return whether they were."""
        if [token.word or token.text for token in self.rest[: len(wanted)]] == list(wanted):
            del self.rest[: len(wanted)]
            return True
        return False

    def expect(self, *wanted: str) -> None:
        """Go over these words, which must be next."""
        if not self.skip(*wanted):
            raise self.error()

    def literal(self, *before: str) -> str:
        """Return the text literal that is next, after an optional word."""
        for word in before:
            self.skip(word)
        token = self.take()
        if token.value is None:
            raise self.error(token)
        return token.value

    def number(self) -> float:
        """Return the number that is next."""
        token = self.take()
        if token.kind != "number":
            raise self.error(token)
        return float(token.text)

    def names(self) -> list[str]:
        """Return the identifiers of a list in brackets."""
        self.expect("(")
        found = []
        while not self.skip(")"):
            token = self.take()
            if token.name is not None:
                found.append(token.name)
            elif token.text != ",":
                raise self.error(token)
        return found

    def bytes(self) -> int:
        """Return a size: a number, with MB (the default) or GB."""
        size = self.number()
        unit = self.peek()
        if unit in _UNITS:
            self.take()
        return int(size * _UNITS.get(unit, 1 << 20))

    def error(self, token: Token | None = None) -> RedshiftError:
        """Return the error for a word that is not understood."""
        found = token or (self.rest[0] if self.rest else None)
        return RedshiftError("42601", f'syntax error at or near "{found.text}"' if found else "syntax error")


def role(words: Words) -> str:
    """Return what IAM_ROLE says."""
    token = words.take()
    if token.word == "default":
        return "default"
    if not token.value:
        raise words.error(token)
    if token.value.lower() == "session":
        raise not_emulated("IAM_ROLE 'SESSION'")
    return token.value


def bucket_and_key(url: str) -> tuple[str, str]:
    """Return bucket and key prefix of an s3:// location."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket:
        raise RedshiftError("XX000", f"The S3 path {url!r} is not valid: it has the form s3://bucket/prefix")
    return bucket, key
