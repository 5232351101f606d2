"""Which tables a statement reads or writes, under which names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from local.redshift.dialect.lexer import unquoted
from local.redshift.dialect.statement import Statement
from local.redshift.dialect.words import words

# In `extract(day from x)` and its like FROM begins no list of tables.
_FUNCTIONS_WITH_FROM = frozenset({"extract", "trim", "substring", "overlay", "position", "btrim", "ltrim", "rtrim"})
_INTRODUCE = frozenset({"from", "join", "into", "update", "using", "table"})
_NO_ALIAS = words(
    """on using where group order limit having union intersect except minus join left right inner outer full cross
    natural set values select qualify as with when returning offset fetch for default lateral tablesample remove then
    window start connect pivot unpivot and or not overriding"""
)
# Views over data of the compute nodes; what begins with pg_ lies on the leader node.
_LEADER_PREFIXES = ("pg_", "information_schema.", "pg_catalog.pg_")


@dataclass(frozen=True)
class Relation:
    """A table in a FROM clause or its like: its place, its name as PostgreSQL compares it, and its alias."""

    start: int
    end: int
    name: str
    alias: str
    behind_comma: bool = False

    @property
    def on_leader(self) -> bool:
        """Whether it is in the catalogue of the leader node."""
        return self.name.startswith(_LEADER_PREFIXES)


def relations(statement: Statement) -> list[Relation]:
    """Return the relations of the statement, common table expressions excepted."""
    expressions = set(common_tables(statement))
    return [relation for relation in all_relations(statement) if relation.name not in expressions]


def common_tables(statement: Statement) -> Iterator[str]:
    """Yield the names of common table expressions."""
    for index in range(len(statement)) if statement.places(("with",)) else ():
        if not statement.is_name(index) or (
            statement.word(index - 1) not in ("with", "recursive") and (statement.op(index - 1) != ",")
        ):
            continue
        end = index + 1
        if statement.op(end) == "(" and end in statement.closes:
            end = statement.closes[end] + 1
        if statement.word(end) == "as" and (
            statement.op(end + 1) == "(" or statement.word(end + 1) in ("materialized", "not")
        ):
            yield unquoted(statement.tokens[index])


def all_relations(statement: Statement) -> list[Relation]:
    """Return all that stands where a table's name may stand, in the order of the text."""
    found: list[Relation] = []
    for index in statement.places(_INTRODUCE):
        if statement.op(index - 1) != "." and _begins_tables(statement, index):
            found += _list_of(statement, index + 1)
    return found


def _begins_tables(statement: Statement, index: int) -> bool:
    """Return whether FROM, JOIN, … at this place is followed by a table."""
    word = statement.word(index)
    if word == "from":
        opening = statement.parent[index]
        in_function = opening > 0 and statement.word(opening - 1) in _FUNCTIONS_WITH_FROM
        has_query = statement.query_start(index) > opening or statement.word(index - 1) == "delete"
        return (
            has_query
            and not (in_function and statement.query_start(index) < 0)
            and (statement.word(index - 1) != "distinct" or statement.word(index - 2) not in ("is", "not"))
        )
    if word == "using":
        return statement.op(index + 1) != "(" or statement.word(index + 2) == "select"
    return not (word == "update" and statement.word(index - 1) in ("for", "then", "on", "do"))


def _list_of(statement: Statement, index: int) -> Iterator[Relation]:
    """Yield the tables of a list that begins at `index`: names, subqueries between them passed over."""
    comma = False
    while index < len(statement):
        while statement.word(index) in ("only", "lateral", "if", "not", "exists", "table"):
            index += 1
        start = index
        if statement.op(index) == "(" and index in statement.closes:
            end, name = statement.closes[index] + 1, ""
        elif statement.is_name(index) and statement.word(index) not in ("select", "values"):
            end = statement.name_end(index)
            name = ".".join(unquoted(statement.tokens[place]) for place in range(index, end, 2))
            while comma and statement.op(end) == "[" and end in statement.closes:
                end = statement.name_end(statement.closes[end])
                end = end + 1 if statement.op(end) == "." else end
        else:
            return
        called = (
            bool(name) and statement.op(end) == "(" and statement.word(start - 1) not in ("into", "table", "exists")
        )
        if called:
            end = statement.closes.get(end, end) + 1
        after, alias = _alias(statement, end)
        if name and not called:
            yield Relation(start, end, name, alias or name.rsplit(".", 1)[-1], comma)
        elif alias:
            yield Relation(start, end, "", alias, comma)
        if statement.op(after) != ",":
            return
        index, comma = after + 1, True


def _alias(statement: Statement, index: int) -> tuple[int, str]:
    """Return the place behind an alias and the alias, empty without one."""
    if statement.word(index) == "as":
        index += 1
    if not statement.is_name(index) or statement.word(index) in _NO_ALIAS or statement.kind(index) == "temp":
        return index, ""
    alias = unquoted(statement.tokens[index])
    index += 1
    if statement.op(index) == "(" and index in statement.closes:
        index = statement.closes[index] + 1
    if statement.word(index) == "at" and statement.is_name(index + 1):
        index += 2
    return index, alias
