"""Clauses of SELECT, DELETE and MERGE that PostgreSQL has not, and the paths of PartiQL.

Sources: SELECT ("QUALIFY clause", "TOP"), MERGE, "Querying semi-structured data" in the Database Developer Guide.
"""

from __future__ import annotations

from local.redshift.dialect import aliases
from local.redshift.dialect.lexer import unquoted
from local.redshift.dialect.refusal import not_emulated
from local.redshift.dialect.relations import Relation, all_relations, common_tables
from local.redshift.dialect.statement import Statement
from runtime import sql

_SETS = frozenset({"union", "intersect", "except", "minus"})
_COMPARISONS = frozenset({"=", "<>", "!=", "<", ">", "<=", ">="})


_CALLED_FOR = ("qualify", "select", "minus", "#", "exclude", "pivot", "unpivot", "connect")


def translate_query(statement: Statement) -> None:
    """Change what is Redshift's own in the statement's queries, the inner ones first."""
    for index in reversed(statement.places(_CALLED_FOR)):
        word = statement.word(index)
        if word == "qualify" and _is_clause(statement, index):
            _qualify(statement, index)
        elif word == "select" and statement.op(index - 1) != ".":
            if _top(statement, index) > 0:
                _limit(statement, index, _top(statement, index))
            aliases.translate_aliases(statement, index)
        elif word == "minus" and (statement.word(index + 1) in ("select", "all") or statement.op(index + 1) == "("):
            if statement.query_start(index) >= 0:
                statement.replace(index, "except")
        elif statement.kind(index) == "temp":
            _temporary(statement, index)
        elif word == "exclude" and statement.op(index - 1) == "*":
            raise not_emulated("SELECT * EXCLUDE")
        elif word in ("pivot", "unpivot") and statement.op(index + 1) == "(":
            raise not_emulated(word.upper())
        elif word == "connect" and statement.word(index + 1) == "by":
            raise not_emulated("CONNECT BY")


def _is_clause(statement: Statement, index: int) -> bool:
    """Return whether QUALIFY begins a clause here, and is no column's name."""
    if statement.query_start(index) < 0 or statement.op(index - 1) in (".", ",", "("):
        return False
    before = statement.word(index - 1) in ("and", "or", "not", "where", "as", "select", "on", "by", "having")
    return not before and (statement.op(index + 1) in ("(", "-") or statement.kind(index + 1) not in ("op", ""))


def _temporary(statement: Statement, index: int) -> None:
    """`#name`: a temporary table, made by CREATE TABLE or SELECT … INTO."""
    name = sql.identifier(statement.tokens[index].text.lower())
    created = statement.word(index - 1) == "into" and statement.word(0) in ("select", "with")
    statement.replace(index, f"temp {name}" if created else name)


def _set_around(statement: Statement, start: int, end: int) -> bool:
    """Return whether the query from `start` is one side of a UNION or its like; `end` is where its clauses end."""
    before = start - 1
    while statement.word(before) in ("all", "distinct"):
        before -= 1
    return statement.word(before) in _SETS or statement.word(end) in _SETS


def _top(statement: Statement, select: int) -> int:
    """Return the place of TOP behind a SELECT when a number follows it, else 0."""
    for place in (select + 1, select + 2):
        if statement.word(place) == "top" and statement.kind(place + 1) in ("number", "param"):
            return place
        if statement.word(place) not in ("distinct", "all"):
            break
    return 0


def _limit(statement: Statement, select: int, top: int) -> None:
    """SELECT TOP 3 … is SELECT … LIMIT 3, of this side of a UNION."""
    end = statement.clause_end(select, _SETS)
    count = statement.tokens[top + 1].text
    statement.drop(top, top + 2)
    around = _set_around(statement, select, end)
    if around:
        # ORDER BY behind the last side orders the whole.
        end = statement.clause_end(select, _SETS | {"order", "limit", "offset"})
    statement.after(end - 1, f" limit {count}" + (")" if around else ""))
    if around:
        statement.before(select, "(")


def _qualify(statement: Statement, index: int) -> None:
    """QUALIFY condition: an ORDER BY of a function that gives one row where the condition holds, else none.

    PostgreSQL puts the rows of a set-returning function in ORDER BY beside each row of the query, after its window
    functions; so rows that the condition refuses vanish, and the list of columns stays as it is.
    """
    start, end = statement.query_start(index), statement.clause_end(index)
    _expand_aliases(statement, start, index, end)
    condition = f"generate_series(1, ({statement.render(index + 1, end)})::int)"
    statement.drop(index, end)
    around = _set_around(statement, start, end)
    grouped = statement.word(start + 1) == "distinct"
    if statement.words("order", "by", at=end) and not around:
        close = statement.clause_end(end, frozenset({"limit", "offset", "union", "for", "fetch"}))
        if grouped:
            statement.before(end, f"order by {condition}) goldlake_qualified ")
        else:
            statement.after(close - 1, f", {condition}")
    else:
        statement.replace(index, f"order by {condition}" + (")" if around else ""))
        if around:
            statement.before(start, "(")
        if grouped:
            statement.after(index, ") goldlake_qualified")
    if grouped:
        # DISTINCT comes after QUALIFY, in PostgreSQL before ORDER BY.
        statement.replace(start + 1, "distinct * from (select")


def _expand_aliases(statement: Statement, start: int, index: int, end: int) -> None:
    """Put expressions in the place of their aliases, which ORDER BY knows only when they stand alone."""
    known = aliases.of_query(statement, start, index)
    for place, name in aliases.uses(statement, index + 1, end, known):
        statement.replace(place, f"({statement.render(*known[name])})")


def translate_delete(statement: Statement) -> None:
    """DELETE table: FROM may be left out."""
    if statement.word(1) != "from":
        statement.after(0, " from")


def translate_merge(statement: Statement) -> None:
    """MERGE … REMOVE DUPLICATES: rows of the target that match vanish, the source's come in.

    The other forms are PostgreSQL's own.
    """
    end = len(statement)
    if not statement.words("remove", "duplicates", at=end - 2):
        return
    into, using = 2 if statement.word(1) == "into" else 1, statement.find("using")
    condition = statement.find("on", start=using)
    if using < 0 or condition < 0:
        return
    source_end = statement.name_end(using + 1)
    target, source = statement.render(into, using), statement.render(using + 1, source_end)
    statement.whole = (
        f"with goldlake_gone as (delete from {target} using {statement.render(using + 1, condition)} "  # noqa: S608
        f"where {statement.render(condition + 1, end - 2)}) "
        f"insert into {statement.render(into, statement.name_end(into))} select * from {source}"
    )


# PartiQL


def translate_paths(statement: Statement) -> None:
    """Change unnesting (`FROM t, t.items AS i AT n`) and paths (`i.name`, `t.items[0].name`) of SUPER values."""
    found = all_relations(statement)
    unnested = _unnested(statement, found)
    _brackets(statement)
    if statement.word(0) in ("select", "with", "insert", "create", "update", "delete", "explain"):
        _dotted(statement, found, unnested)


def _unnested(statement: Statement, found: list[Relation]) -> dict[str, Relation]:
    """Change the relations that are arrays of an earlier one; return them by alias."""
    unnested: dict[str, Relation] = {}
    known: set[str] = set()
    for relation in found:
        first, _, rest = relation.name.partition(".")
        # Without a dot it is an array only when the name is an unnested element (`t.orders o, o lines` is a table).
        if relation.behind_comma and first in known and rest:
            _unnest(statement, relation, unnested)
            unnested[relation.alias] = relation
        known.add(relation.alias)
    return unnested


def _unnest(statement: Statement, relation: Relation, unnested: dict[str, Relation]) -> None:
    """`t.items AS i AT n` becomes a call that gives elements and their numbers, from 0."""
    value = _path(statement, relation.start, relation.end, unnested)
    alias = relation.end + (statement.word(relation.end) == "as")
    number = ""
    if statement.word(alias + 1) == "at":
        number = f", {statement.tokens[alias + 2].text}"
        statement.drop(alias + 1, alias + 3)
    statement.drop(relation.start, relation.end)
    statement.replace(relation.start, f"pg_catalog.goldlake_unnest({value})")
    if statement.is_name(alias):
        name = statement.tokens[alias].text
        statement.after(alias, f"({name}{number or ', goldlake_index'})")


def _path(statement: Statement, start: int, end: int, unnested: dict[str, Relation]) -> str:
    """Return a path as a column and subscripts: `t.a.b` -> `t.a['b']`, of an unnested alias `i.a` -> `i.i['a']`."""
    first = statement.tokens[start].text
    alias = unquoted(statement.tokens[start])
    if alias in unnested:
        text, index = f"{first}.{first}", start + 1
    else:
        text, index = f"{first}.{statement.tokens[start + 2].text}", start + 3
    while index < end:
        if statement.op(index) == ".":
            text += f"[{sql.literal(unquoted(statement.tokens[index + 1]))}]"
            index += 2
        else:
            text += statement.tokens[index].text
            index += 1
    return text


def _brackets(statement: Statement) -> None:
    """`x[0].name`: a point behind a bracket is another subscript."""
    for index in statement.places(".") if statement.places("]") else ():
        if statement.op(index) == "." and statement.op(index - 1) == "]" and statement.is_name(index + 1):
            place = index
            while statement.op(place) == "." and statement.is_name(place + 1):
                name = sql.literal(unquoted(statement.tokens[place + 1]))
                statement.drop(place, place + 2)
                statement.replace(place, f"[{name}]")
                place += 2


def _dotted(statement: Statement, found: list[Relation], unnested: dict[str, Relation]) -> None:
    """Change names with points: `alias.column.field`, and `element.field` of an unnested alias."""
    if not statement.places("."):
        return
    places = {place for relation in found for place in range(relation.start, relation.end)}
    known = {relation.alias for relation in found} | set(common_tables(statement))
    schemas = {
        relation.name.split(".")[-2] for relation in found if "." in relation.name and relation.alias not in unnested
    }
    on_leader = all(relation.on_leader for relation in found)
    index = 0
    while index < len(statement):
        end = statement.name_end(index)
        if not statement.is_name(index) or index in places or statement.op(index - 1) in (".", "::"):
            index += 1
            continue
        parts, name = (end - index + 1) // 2, unquoted(statement.tokens[index])
        deep = parts > 2 and name in known and name not in schemas
        if (deep or (parts > 1 and name in unnested)) and statement.op(end) not in ("(", "*", "."):
            text = _path(statement, index, end, unnested)
            statement.drop(index, end)
            statement.replace(index, text)
        if deep or name in unnested or (statement.op(end) == "[" and not on_leader):
            _compared(statement, index, end)
        index = end


def _compared(statement: Statement, start: int, end: int) -> None:
    """A literal compared with a path is a SUPER value as well."""
    while statement.op(end) == "[" and end in statement.closes:
        end = statement.closes[end] + 1
        while statement.op(end) == "." and statement.is_name(end + 1):
            end += 2
    literal = end + 1
    if statement.op(end) in _COMPARISONS and statement.kind(literal) in ("string", "number"):
        if statement.op(literal + 1) == "::":
            return
        kind = "::text" if statement.kind(literal) == "string" else ""
        statement.before(literal, "to_jsonb(")
        statement.after(literal, f"{kind})")
