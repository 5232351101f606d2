"""Calls of functions that PostgreSQL reads differently. What needs no other text is a function in shims.sql.

Sources: "SQL functions reference" in the Database Developer Guide, one page a function.
"""

from __future__ import annotations

from collections.abc import Callable

from local.redshift.dialect.refusal import Refused, not_emulated
from local.redshift.dialect.statement import Statement

# "Date parts for date or timestamp functions": what PostgreSQL calls otherwise or not at all.
_PARTS = {
    name: part
    for part, names in {
        "millennium": "mil mils millennia",
        "century": "c cent cents",
        "decade": "decs decades",
        "year": "y yr yrs years",
        "quarter": "qtr qtrs quarters",
        "month": "mon mons months",
        "week": "w weeks",
        "dow": "dayofweek dw weekday",
        "doy": "dayofyear dy yearday",
        "day": "d days",
        "hour": "h hr hrs hours",
        "minute": "m min mins minutes",
        "second": "s sec secs seconds",
        "milliseconds": "ms msec msecs msecond mseconds millisec millisecs millisecon millisecond",
        "microseconds": "microsec microsecs microsecond usecond useconds us usec usecs",
    }.items()
    for name in names.split()
}
# Functions that PostgreSQL has under the same name with another result. The schema is named, so that the name of
# the result's column stays.
_OVERRIDDEN = frozenset({"avg", "concat", "regexp_replace", "regexp_substr"})
_RENAMED = {
    "nvl": "coalesce",
    "array": "jsonb_build_array",
    "object": "jsonb_build_object",
    "json_serialize": '"json_serialize"',
}


def translate_calls(statement: Statement) -> None:
    """Change the calls, inner ones before those around them."""
    for index in reversed(statement.places(_CALLED)):
        word = statement.word(index)
        if not word or (statement.op(index - 1) == "." and statement.word(index - 2) != "pg_catalog"):
            continue
        if word == "sysdate" and statement.op(index + 1) not in ("(", ".") and statement.word(index - 1) != "as":
            statement.replace(index, "sysdate()")
        elif word == "approximate" and statement.word(index + 1) in ("count", "percentile_disc"):
            statement.replace(index, "")
        elif statement.op(index + 1) == "(" and index + 1 in statement.closes:
            _translate_call(statement, index, word)


def _translate_call(statement: Statement, index: int, word: str) -> None:
    """Change one call if it is among those that need it."""
    if word in _OVERRIDDEN and statement.op(index - 1) != "." and not _is_definition(statement, index):
        statement.before(index, "goldlake_local.")
    if word in _RENAMED and not (word == "array" and statement.word(index + 2) in ("select", "with")):
        statement.replace(index, _RENAMED[word])
    handler = _HANDLERS.get(word)
    if handler is not None:
        handler(statement, index, statement.arguments(index + 1))


def _is_definition(statement: Statement, index: int) -> bool:
    """Return whether a name and its bracket define or insert rather than call: `insert into concat (a)`."""
    return statement.word(index - 1) in ("function", "procedure", "table", "into", "view", "exists", "as")


def _date_part(statement: Statement, index: int, arguments: list[tuple[int, int]]) -> None:
    """DATEADD(day, 1, x): the part is a bare word, PostgreSQL's function wants a text."""
    if len(arguments) < 2 or arguments[0][1] - arguments[0][0] != 1:
        return
    place = arguments[0][0]
    token = statement.tokens[place]
    if token.kind == "word":
        statement.replace(place, f"'{_PARTS.get(token.word, token.word)}'")
    elif token.kind == "string" and token.text[1:-1].lower() in _PARTS:
        statement.replace(place, f"'{_PARTS[token.text[1:-1].lower()]}'")


def _extract(statement: Statement, index: int, arguments: list[tuple[int, int]]) -> None:
    """EXTRACT(dayofweek FROM x)."""
    if arguments and statement.word(arguments[0][0]) in _PARTS and statement.word(arguments[0][0] + 1) == "from":
        statement.replace(arguments[0][0], _PARTS[statement.word(arguments[0][0])])


def _nvl2(statement: Statement, index: int, arguments: list[tuple[int, int]]) -> None:
    """NVL2(x, a, b): a when x is not NULL."""
    if len(arguments) != 3:
        raise Refused("function nvl2 takes three arguments", "42883")
    value, then, otherwise = (statement.render(*argument) for argument in arguments)
    _become(statement, index, f"case when ({value}) is not null then {then} else {otherwise} end")


def _decode(statement: Statement, index: int, arguments: list[tuple[int, int]]) -> None:
    """DECODE(x, search, result, …, default): NULL equals NULL here. With two arguments it is another function."""
    if len(arguments) < 3:
        return
    value, *rest = (statement.render(*argument) for argument in arguments)
    default = f" else {rest.pop()}" if len(rest) % 2 else ""
    pairs = zip(rest[::2], rest[1::2], strict=True)
    cases = "".join(f" when ({value}) is not distinct from ({search}) then {result}" for search, result in pairs)
    _become(statement, index, f"case{cases}{default} end")


def _become(statement: Statement, index: int, text: str) -> None:
    """Let a whole call, name and bracket, become another text."""
    statement.drop(index, statement.closes[index + 1] + 1)
    statement.replace(index, text)


def _convert(statement: Statement, index: int, arguments: list[tuple[int, int]]) -> None:
    """CONVERT(type, x) is CAST(x AS type). Three arguments are PostgreSQL's other function."""
    if len(arguments) == 2:
        kind, value = (statement.render(*argument) for argument in arguments)
        _become(statement, index, f"cast({value} as {kind})")


def _within_group(statement: Statement, index: int) -> tuple[int, int, int] | None:
    """Return opening, closing bracket and end of a WITHIN GROUP (ORDER BY …) behind the call; None without."""
    closing = statement.closes[index + 1]
    if not statement.words("within", "group", at=closing + 1) or statement.op(closing + 3) != "(":
        return None
    return closing + 3, statement.closes.get(closing + 3, len(statement) - 1), closing + 1


def _listagg(statement: Statement, index: int, arguments: list[tuple[int, int]]) -> None:
    """LISTAGG(x, ',') WITHIN GROUP (ORDER BY y) [OVER (PARTITION BY z)]: the order goes into the bracket."""
    if not arguments:
        return
    closing = statement.closes[index + 1]
    group = _within_group(statement, index)
    over = (group[1] if group else closing) + 1
    if statement.word(over) == "over":
        _listagg_over(statement, index, group, over)
    elif group:
        order = statement.render(group[0] + 1, group[1])
        statement.drop(group[2], group[1] + 1)
        statement.before(closing, f" {order}")


def _listagg_over(statement: Statement, index: int, group: tuple[int, int, int] | None, over: int) -> None:
    """The order goes into the window, whose frame is the whole partition."""
    if statement.word(index + 2) == "distinct":
        raise not_emulated("LISTAGG(DISTINCT …) OVER")
    if group and statement.op(over + 1) == "(" and over + 1 in statement.closes:
        order = statement.render(group[0] + 1, group[1])
        statement.drop(group[2], group[1] + 1)
        frame = "rows between unbounded preceding and unbounded following"
        statement.before(statement.closes[over + 1], f" {order} {frame}")


def _percentile(statement: Statement, index: int, arguments: list[tuple[int, int]]) -> None:
    """PERCENTILE_CONT(p) WITHIN GROUP (ORDER BY x) OVER (…): PostgreSQL has it without a window only."""
    group = _within_group(statement, index)
    if group is None or len(arguments) != 1 or statement.word(group[1] + 1) != "over":
        return
    share, order = statement.render(*arguments[0]), statement.render(group[0] + 3, group[1])
    if statement.word(group[1] - 1) == "desc":
        share = f"1 - ({share})"
        order = statement.render(group[0] + 3, group[1] - 1)
    elif statement.word(group[1] - 1) == "asc":
        order = statement.render(group[0] + 3, group[1] - 1)
    name = statement.word(index)
    statement.drop(index, group[1] + 1)
    statement.replace(index, f"goldlake_local.{name}({order}, {share})")


def _ratio_to_report(statement: Statement, index: int, arguments: list[tuple[int, int]]) -> None:
    """RATIO_TO_REPORT(x) OVER (…): the share of x in the sum."""
    over = statement.closes[index + 1] + 1
    if len(arguments) == 1 and statement.word(over) == "over" and over + 1 in statement.closes:
        value, window = statement.render(*arguments[0]), statement.render(over + 1, statement.closes[over + 1] + 1)
        statement.drop(index, statement.closes[over + 1] + 1)
        statement.replace(index, f"(({value})::float8 / nullif(sum({value}) over {window}, 0)::float8)")


def _json_path(statement: Statement, index: int, arguments: list[tuple[int, int]]) -> None:
    """JSON_EXTRACT_PATH_TEXT(x, 'a', 'b', true): PostgreSQL takes nothing behind a variadic parameter."""
    if len(arguments) > 3 and statement.word(arguments[-1][0]) in ("true", "false"):
        lenient = statement.word(arguments[-1][0])
        statement.drop(arguments[-2][1], arguments[-1][1])
        statement.before(arguments[1][0], f"{lenient}, ")


def _ignore_nulls(statement: Statement, index: int, arguments: list[tuple[int, int]]) -> None:
    """LAG(x IGNORE NULLS): neither words nor function are in PostgreSQL; RESPECT NULLS is what it does anyway."""
    closing = statement.closes[index + 1]
    for place in range(index, min(closing + 3, len(statement))):
        if statement.words("ignore", "nulls", at=place):
            raise not_emulated("IGNORE NULLS in a window function")
        if statement.words("respect", "nulls", at=place):
            statement.drop(place, place + 2)


_Handler = Callable[[Statement, int, list[tuple[int, int]]], None]
_HANDLERS: dict[str, _Handler] = {
    **dict.fromkeys(("dateadd", "datediff", "date_add", "date_diff", "date_part", "date_trunc"), _date_part),
    "extract": _extract,
    "nvl2": _nvl2,
    "decode": _decode,
    "convert": _convert,
    "listagg": _listagg,
    "percentile_cont": _percentile,
    "percentile_disc": _percentile,
    "ratio_to_report": _ratio_to_report,
    "json_extract_path_text": _json_path,
    **dict.fromkeys(("lag", "lead", "first_value", "last_value", "nth_value"), _ignore_nulls),
}
_CALLED = frozenset({"sysdate", "approximate", *_OVERRIDDEN, *_RENAMED, *_HANDLERS})
