"""Redshift's tokens. Source: "Literals" and "Names and identifiers" in the SQL reference, PostgreSQL 8.0's lexer."""

from __future__ import annotations

import re
from typing import NamedTuple

from local.redshift.dialect.words import words

# A backslash in a text escapes what follows, as in PostgreSQL before standard_conforming_strings. The SQL reference
# has it so in its examples: the default escape of LIKE is written '\\', a digit in a pattern '\\d'.
_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*)
      | (?P<comment>/\*)
      | (?P<string>[eE]?'(?:[^'\\]|''|\\.)*'(?!'))
      | (?P<bits>[bBxX]'[^']*')
      | (?P<dollar>(?P<tag>\$(?:[A-Za-z_]\w*)?\$).*?(?P=tag))
      | (?P<quoted>"(?:[^"]|"")*")
      | (?P<param>\$\d+)
      | (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<word>[^\W\d][\w$]*)
      | (?P<temp>\#[^\W\d][\w$]*)
      | (?P<op>::|:=|<=|>=|<>|!=|\|\||!?~~?\*?|.)""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")
# After these a `#` begins a temporary table's name; after an operand it is PostgreSQL's and Redshift's XOR.
_BEFORE_NAME = words("from join into table update exists using only on view analyze vacuum truncate like append delete")


class LexError(ValueError):
    """The text ends within a string, a quoted name or a comment."""


class Token(NamedTuple):
    """A word, quoted name, text, number, parameter, temporary name or operator, with its place in the text."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The word in lower case; empty for every other kind."""
        return self.text.lower() if self.kind == "word" else ""


def tokens(text: str) -> list[Token]:
    """Return the tokens without spaces and comments. Raises LexError for a text that does not end properly."""
    found: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match is not None  # noqa: S101 - the last alternative takes any character
        kind = match.lastgroup if match.lastgroup != "tag" else "dollar"
        position = match.end()
        if kind == "space":
            continue
        if kind == "comment":
            position = _end_of_comment(text, position)
            continue
        value = match[0]
        if value in ("'", '"'):
            raise LexError(f"unterminated quoted string at or near {text[match.start() : match.start() + 20]!r}")
        if kind == "temp" and not _begins_name(found):
            value, kind, position = "#", "op", match.start() + 1
        found.append(Token(str(kind), value, match.start(), position))
    return found


def _begins_name(before: list[Token]) -> bool:
    """Return whether a table's name may follow the tokens."""
    return bool(before) and (before[-1].word in _BEFORE_NAME or before[-1].text in (",", "(", "."))


def _end_of_comment(text: str, position: int) -> int:
    """Return the place behind a comment whose opening mark ends at `position`; comments nest."""
    depth = 1
    for mark in _COMMENT_MARK.finditer(text, position):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    raise LexError("unterminated /* comment")


def statements(found: list[Token]) -> list[list[Token]]:
    """Return the tokens of each statement, without the semicolons between them."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in found:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if token.text == ";" and depth <= 0:
            parts.append([])
            depth = 0
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def unquoted(token: Token) -> str:
    """Return the name that a word, a quoted name or a temporary name stands for."""
    if token.kind == "quoted":
        return token.text[1:-1].replace('""', '"')
    return token.text.lower()


def string_value(token: Token) -> str:
    """Return the characters of a text without its quotes; escapes stay as they are."""
    return token.text[token.text.index("'") + 1 : -1].replace("''", "'")
