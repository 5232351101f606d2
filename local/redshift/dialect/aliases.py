"""Names that a query gives to its columns, and their use where PostgreSQL does not know them: QUALIFY and WHERE.

Source: SELECT list, "Usage notes" (lateral alias references): a column of the tables comes before an alias.
"""

from __future__ import annotations

from local.redshift.dialect.lexer import unquoted
from local.redshift.dialect.relations import all_relations
from local.redshift.dialect.statement import Statement
from local.redshift.dialect.words import words

_NO_OPERAND = words(
    """and or not is like ilike similar to in between over then else when case from div collate at distinct all as by
    interval select escape isnull"""
)
_ENDS = words("group having order limit offset union intersect except minus qualify window for fetch")
_SUMMED = frozenset({"over", "sum", "count", "avg", "min", "max", "listagg", "median", "stddev", "variance"})


def of_query(statement: Statement, start: int, stop: int) -> dict[str, tuple[int, int]]:
    """Return the ranges of the expressions by their aliases, of the SELECT at `start`.

    An alias that its own expression mentions is a column of the table too, which comes first: it is left out.
    """
    first = start + 1
    while statement.word(first) in ("distinct", "all"):
        first += 1
    end = statement.find("from", start=start, end=stop, parent=statement.parent[start])
    end = stop if end < 0 else end
    depth = statement.parent[start]
    cuts = [place for place in range(first, end) if statement.op(place) == "," and statement.parent[place] == depth]
    found = {}
    for begin, last in zip([first, *(cut + 1 for cut in cuts)], [*cuts, end], strict=True):
        body = _body_end(statement, begin, last)
        if body > begin:
            alias = unquoted(statement.tokens[last - 1])
            if alias not in {unquoted(statement.tokens[at]) for at in range(begin, body) if statement.is_name(at)}:
                found[alias] = (begin, body)
    return found


def _body_end(statement: Statement, begin: int, last: int) -> int:
    """Return where the expression of a column ends when an alias follows it; `begin` when none does."""
    if last - begin < 2 or not statement.is_name(last - 1) or statement.word(last - 1) == "end":
        return begin
    if statement.word(last - 2) == "as":
        return last - 2
    before = statement.word(last - 2)
    operand = statement.kind(last - 2) in ("quoted", "number", "string", "param") or statement.op(last - 2) in (
        ")",
        "]",
    )
    return last - 1 if operand or (before and before not in _NO_OPERAND) else begin


def uses(statement: Statement, start: int, end: int, aliases: dict[str, tuple[int, int]]) -> list[tuple[int, str]]:
    """Return the places in a range where an alias stands alone."""
    return [
        (place, unquoted(statement.tokens[place]))
        for place in range(start, end)
        if statement.kind(place) in ("word", "quoted")
        and statement.op(place - 1) not in (".", "::")
        and statement.op(place + 1) not in (".", "(")
        and unquoted(statement.tokens[place]) in aliases
    ]


def translate_aliases(statement: Statement, select: int) -> None:
    """Make aliases known in a query's WHERE and in its later columns: hidden by the tables' columns of the same name.

    Aliases come from lateral subqueries; what names one is asked in a subquery over the tables' own columns, at which
    PostgreSQL looks first. Left to PostgreSQL: aliases of aggregates, and `*`, which would show the subquery's columns.
    """
    depth, last = statement.parent[select], statement.clause_end(select, _ENDS)
    source = statement.find("from", start=select, end=last, parent=depth)
    if source < 0:
        return
    where = statement.find("where", start=source, end=last, parent=depth)
    aliases = {
        name: place
        for name, place in of_query(statement, select, source).items()
        if not any(statement.word(index) in _SUMMED for index in range(*place))
    }
    parts = [*_later_columns(statement, select, source, aliases)]
    parts += _conditions(statement, where + 1, last) if 0 < where < last - 1 else []
    parts = [part for part in parts if uses(statement, *part, aliases)]
    if not parts or _has_star(statement, select, source):
        return
    used = {name for part in parts for _place, name in uses(statement, *part, aliases)}
    lateral = "".join(
        f" cross join lateral (select {statement.render(*place)} as {_quoted(name)}) {_quoted(f'goldlake_{name}')}"
        for name, place in aliases.items()
        if name in used
    )
    tables = _tables(statement, select, last)
    for first, end in parts:
        statement.before(first, "(select ")
        statement.after(end - 1, f" from {tables})" if tables else ")")
    statement.after((where if where > 0 else last) - 1, lateral)


def _later_columns(
    statement: Statement, select: int, source: int, aliases: dict[str, tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return the ranges of the aliased columns that stand behind the first alias, without aggregates."""
    columns = sorted(of_query(statement, select, source).values())
    first = min((place[1] for place in aliases.values()), default=source)
    return [
        column
        for column in columns
        if column[0] > first and not any(statement.word(index) in _SUMMED for index in range(*column))
    ]


def _has_star(statement: Statement, select: int, source: int) -> bool:
    """Return whether one of the columns is a bare `*`."""
    depth = statement.parent[select]
    return any(
        statement.parent[place] == depth
        and (statement.op(place - 1) == "," or statement.word(place - 1) in ("select", "distinct", "all"))
        for place in statement.places("*")
        if select < place < source
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _tables(statement: Statement, start: int, end: int) -> str:
    """Return a FROM list of the query's tables, each with the row that is looked at."""
    depth = statement.parent[start]
    names = [_quoted(one.alias) for one in all_relations(statement)
             if start < one.start < end and statement.parent[one.start] == depth]  # fmt: skip
    return ", ".join(f"(select {name}.*) {name}" for name in names)


def _conditions(statement: Statement, start: int, end: int) -> list[tuple[int, int]]:
    """Return the parts of a condition between its outermost ANDs; the whole when there is an OR."""
    depth = statement.parent[start]
    outer = [place for place in range(start, end) if statement.parent[place] == depth]
    if any(statement.word(place) in ("or", "case") for place in outer):
        return [(start, end)]
    parts, first, between = [], start, False
    for place in outer:
        if statement.word(place) == "between":
            between = True
        elif statement.word(place) == "and" and between:
            between = False
        elif statement.word(place) == "and":
            parts.append((first, place))
            first = place + 1
    return [*parts, (first, end)]
