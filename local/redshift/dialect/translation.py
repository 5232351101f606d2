"""From a message's text to PostgreSQL's: statement by statement, each with the rules that its words call for."""

from __future__ import annotations

import re

from local.redshift.dialect import commands, ddl, functions, queries, strictness, types
from local.redshift.dialect.lexer import LexError, Token, statements, tokens
from local.redshift.dialect.refusal import SYNTAX_ERROR, Refused, block
from local.redshift.dialect.statement import Statement

# What clients send most, and what needs nothing: not even to be read.
_PLAIN = re.compile(r"\s*(?:(?:begin|commit|rollback|end|abort|select\s+1)\s*;?\s*)?", re.IGNORECASE)
_NO_PASSWORD = re.compile(r"\bpassword\s+disable\b", re.IGNORECASE)
# PostgreSQL reads \u in an escaped text as a character of Unicode, 8.0 and Redshift as the letter.
_UNICODE_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\([uU])")


def translate(text: str, *, strict: bool = False) -> str:
    """Return the text as PostgreSQL is to run it; text that needs no change comes back as it is.

    A statement that Redshift refuses (`strict`), or that is not emulated, becomes one that raises the error.
    Pure: nothing is asked of the database. A text that ends within a string or comment is PostgreSQL's to refuse.
    """
    if _PLAIN.fullmatch(text):
        return text
    try:
        found = tokens(text)
    except LexError as exc:
        return block(Refused(str(exc), SYNTAX_ERROR)) if strict else text
    pieces, position = [], 0
    for part in statements(found):
        translated = _translated(Statement(text, part), strict=strict)
        if translated is not None:
            pieces += [text[position : part[0].start], translated]
            position = part[-1].end
    return "".join(pieces) + text[position:]


def _translated(statement: Statement, *, strict: bool) -> str | None:
    """Return the statement's new text, None when it stays as it is."""
    try:
        commands.refuse_what_is_not_emulated(statement)
        if strict:
            strictness.check(statement)
        _apply(statement, strict=strict)
    except Refused as refused:
        return block(refused, _parameters(statement))
    if not statement.changed:
        return None
    return statement.whole if statement.whole is not None else statement.render()


def _parameters(statement: Statement) -> int:
    """Return the highest number of a bind parameter."""
    return max((int(token.text[1:]) for token in statement.tokens if token.kind == "param"), default=0)


def _apply(statement: Statement, *, strict: bool) -> None:
    """Apply the rules for all statements, then those for the command."""
    _strings(statement, strict=strict)
    functions.translate_calls(statement)
    for index in types.cast_types(statement):
        types.translate_type(statement, index, strict=strict)
    queries.translate_query(statement)
    queries.translate_paths(statement)
    _command(statement, strict)


def _command(statement: Statement, strict: bool) -> None:
    """Apply the rules for the statement's first words."""
    first, second = statement.word(0), statement.word(1)
    if first in ("create", "alter", "drop") and second in ("user", "role"):
        (commands.translate_user if second == "user" else commands.translate_role)(statement)
    elif first == "create":
        ddl.translate_create(statement, strict)
    elif first == "alter" and second == "table":
        ddl.translate_alter_table(statement, strict)
    elif first in ("set", "reset"):
        commands.translate_set(statement)
    elif first in _COMMANDS:
        _COMMANDS[first](statement)


_COMMANDS = {
    "show": commands.translate_show,
    "grant": commands.translate_grant,
    "revoke": commands.translate_grant,
    "vacuum": commands.translate_vacuum,
    "analyze": commands.translate_analyze,
    "analyse": commands.translate_analyze,
    "cancel": commands.translate_cancel,
    "refresh": commands.translate_refresh,
    "delete": queries.translate_delete,
    "merge": queries.translate_merge,
}


def _strings(statement: Statement, *, strict: bool) -> None:
    """Mark texts with a backslash as escaped; translate the bodies of procedures."""
    procedure = statement.word(0) == "create" and statement.find("procedure", end=4) > 0
    for index, token in enumerate(statement.tokens):
        if token.kind == "string" and "\\" in token.text:
            literal = token.text if token.text[0] in "eE" else f"E{token.text}"
            statement.replace(index, _UNICODE_ESCAPE.sub(r"\1\2", literal))
        elif token.kind == "number" and statement.word(index + 1) and statement.tokens[index + 1].start == token.end:
            # `THEN 4WHEN`, as a driver writes it, was a number and a word for PostgreSQL 8.0.
            statement.after(index, " ")
        elif token.kind == "dollar" and procedure:
            statement.replace(index, _body(token))


def _body(token: Token) -> str:
    """Return a procedure's body with what its statements call; its statements' own rules are not applied."""
    tag = token.text[: token.text.index("$", 1) + 1]
    body = _NO_PASSWORD.sub("PASSWORD NULL", token.text[len(tag) : -len(tag)])
    try:
        found = tokens(body)
    except LexError:
        return f"{tag}{body}{tag}"
    statement = Statement(body, found)
    if found:
        _strings(statement, strict=False)
        functions.translate_calls(statement)
        for index in types.cast_types(statement):
            types.translate_type(statement, index)
        queries.translate_query(statement)
        body = body[: found[0].start] + statement.render() + body[found[-1].end :]
    return f"{tag}{body}{tag}"
