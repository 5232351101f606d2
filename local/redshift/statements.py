"""Redshift's SQL as words: where statements begin and end, what they name. Nothing here knows the grammar.

Pure functions. `tokens` costs about a microsecond a word, so the gateway asks for it only when a text holds a word
that could matter (session.py).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?\*/)
       |(?P<string>[eE]?'(?:[^'\\]|\\.|'')*')
       |(?P<quoted>"(?:[^"]|"")*")
       |(?P<dollar>\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
       |(?P<word>[^\W\d][\w$]*)
       |(?P<number>\d+(?:\.\d+)?)
       |(?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)

# Of other characters a backslash stays: it means something to COPY's own options, such as NULL AS '\\N'.
_ESCAPES = {"''": "'", "\\'": "'", "\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}
_ESCAPED = re.compile("|".join(map(re.escape, _ESCAPES)))


@dataclass(frozen=True, slots=True)
class Token:
    """A word, name, literal or sign of a statement. `kind` is a group of the pattern above."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The word in lower case, empty for anything else."""
        return self.text.lower() if self.kind == "word" else ""

    @property
    def name(self) -> str | None:
        """The identifier that it is, as the catalogue has it; None for what is none."""
        if self.kind == "word":
            return self.text.lower()
        return self.text[1:-1].replace('""', '"') if self.kind == "quoted" else None

    @property
    def value(self) -> str | None:
        """The text of a literal, None for what is none. A backslash escapes, as in PostgreSQL 8.0."""
        if self.kind != "string" or not self.text.startswith("'"):
            return None
        return _ESCAPED.sub(lambda found: _ESCAPES[found[0]], self.text[1:-1])


def tokens(text: str) -> list[Token]:
    """Return the words of a text, without space and comments."""
    found = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "sign"
        # The inner group of a dollar-quoted body closes last.
        kind = "dollar" if kind == "tag" else kind
        if kind != "space":
            found.append(Token(kind, match[0], match.start(), match.end()))
    return found


def split(text: str) -> list[str]:
    """Return the statements of a text, without their semicolons; empty ones are left out."""
    pieces, start, seen = [], 0, False
    for token in tokens(text):
        if token.text != ";" or token.kind != "sign":
            seen = True
            continue
        if seen:
            pieces.append(text[start : token.start])
        start, seen = token.end, False
    return [*pieces, text[start:]] if seen else pieces


def begins(words: Sequence[Token], *start: str) -> bool:
    """Return whether a statement begins with these words."""
    return len(words) >= len(start) and all(token.word == word for token, word in zip(words, start, strict=False))


def qualified_names(words: Sequence[Token], schemas: Container[str]) -> Iterator[tuple[str, str]]:
    """Give the (schema, table) pairs that stand in the words, for schemas that are asked for."""
    for index in range(len(words) - 2):
        schema = words[index].name
        if schema is not None and schema in schemas and words[index + 1].text == ".":
            table = words[index + 2].name
            if table is not None:
                yield schema, table


def names(words: Sequence[Token]) -> set[str]:
    """Return everything in the words that may be a name."""
    return {name for token in words if (name := token.name) is not None}


def has_outer_limit(words: Sequence[Token]) -> bool:
    """Return whether LIMIT or TOP stands in the outermost SELECT."""
    depth = 0
    for index, token in enumerate(words):
        depth += {"(": 1, ")": -1}.get(token.text, 0) if token.kind == "sign" else 0
        if depth == 0 and token.word == "limit":
            return True
        if depth == 0 and token.word == "top" and index and words[index - 1].word in ("select", "distinct"):
            return True
    return False
