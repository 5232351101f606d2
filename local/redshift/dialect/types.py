"""Type names: where they stand, and which PostgreSQL reads differently. Source: "Data types" in the SQL reference."""

from __future__ import annotations

from collections.abc import Iterator

from local.redshift.dialect.refusal import UNKNOWN_TYPE, Refused, not_emulated
from local.redshift.dialect.statement import Statement
from local.redshift.dialect.words import words

_NOT_EMULATED = frozenset({"geometry", "geography", "hllsketch"})
# "Unsupported PostgreSQL data types", and types that came to PostgreSQL after 8.0.
UNSUPPORTED = words(
    """serial bigserial smallserial serial4 serial8 serial2 money json jsonb uuid xml bytea inet cidr macaddr macaddr8
    box circle line lseg path point polygon tsvector tsquery hstore ltree citext int4range int8range numrange tsrange
    tstzrange daterange pg_lsn bit"""
)
_DEFAULT_DECIMAL = frozenset({"decimal", "numeric", "dec"})
_DEFAULT_TEXT = frozenset({"varchar", "nvarchar", "text"})
_LONGEST = {"varchar": "65535", "nvarchar": "65535", "char": "4096", "nchar": "4096", "character": "4096"}
_NOT_COLUMNS = frozenset({"constraint", "primary", "unique", "foreign", "check", "like", "exclude"})


def column_items(statement: Statement, opening: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of the columns in a CREATE TABLE's bracket: name, type, attributes."""
    for start, end in statement.arguments(opening):
        if end - start > 1 and statement.word(start) not in _NOT_COLUMNS and statement.is_name(start):
            yield start, end


def cast_types(statement: Statement) -> Iterator[int]:
    """Yield the places of the types in casts: behind `::`, and in CAST(x AS type)."""
    for index in statement.places(("::", "cast")):
        if statement.op(index) == "::":
            yield index + 1
        elif statement.word(index) == "cast" and statement.op(index + 1) == "(" and index + 1 in statement.closes:
            closing = statement.closes[index + 1]
            for place in range(closing - 1, index, -1):
                if statement.parent[place] == index + 1 and statement.word(place) == "as":
                    yield place + 1
                    break


def translate_type(statement: Statement, index: int, *, column: str | None = None, strict: bool = False) -> None:
    """Change a type's name; `column` names the column that is defined, None is a cast."""
    word = statement.word(index)
    bracket = statement.op(index + 1) == "("
    if word in _NOT_EMULATED:
        raise not_emulated(f"type {word}")
    if strict:
        _refuse_unsupported(statement, index, word, column)
    if word in _DEFAULT_DECIMAL and not bracket:
        # A decimal without precision has 18 digits and none behind the point, PostgreSQL's has all it is given.
        statement.after(index, "(18,0)")
    elif word in _LONGEST and bracket and statement.word(index + 2) == "max":
        statement.replace(index + 2, _LONGEST[word])
    elif word in _DEFAULT_TEXT and column is not None and not bracket:
        statement.replace(index, "varchar(256)")
    elif statement.words("character", "varying", at=index) and column is not None and statement.op(index + 2) != "(":
        statement.after(index + 1, "(256)")
    if word in ("varbyte", "varbinary") or statement.words("binary", "varying", at=index):
        _translate_varbyte(statement, index)
    if word == "nvarchar" and (bracket or column is None):
        statement.replace(index, "varchar")


def _translate_varbyte(statement: Statement, index: int) -> None:
    """VARBYTE(64): a domain takes no length."""
    last = index + 1 if statement.word(index) == "binary" else index
    if statement.op(last + 1) == "(":
        statement.drop(last + 1, statement.closes[last + 1] + 1)
    statement.drop(index, last + 1)
    statement.replace(index, "varbyte")


def _refuse_unsupported(statement: Statement, index: int, word: str, column: str | None) -> None:
    """Refuse types that Redshift does not have."""
    end = statement.name_end(index)
    if statement.op(end) == "(":
        end = statement.closes.get(end, end) + 1
    array = statement.op(end) == "[" and statement.op(end + 1) in ("]", "") and statement.op(end + 2) != "]"
    array = array and (statement.op(end + 1) == "]" or column is not None)
    if column is None:
        # Arrays and their kin are on the leader node, for catalogue queries.
        if word in UNSUPPORTED and word not in ("bytea", "bit", "path", "line", "point", "box", "circle", "polygon"):
            raise Refused(f'type "{word}" does not exist', UNKNOWN_TYPE)
    elif word in UNSUPPORTED or array or statement.word(end) == "array":
        raise Refused(f'Column "{column}" has unsupported type "{word}{"[]" if array else ""}".')
