"""Statements that are refused: a block that raises the error, so that transactions end as PostgreSQL ends them."""

from __future__ import annotations

from runtime import sql

NOT_SUPPORTED = "0A000"
SYNTAX_ERROR = "42601"
UNKNOWN_TYPE = "42704"
UNKNOWN_FUNCTION = "42883"
NOT_NULL = "23502"


class Refused(Exception):  # noqa: N818 - an answer, not a fault of the program
    """A statement that Redshift refuses, or that is not emulated; `code` is the SQLSTATE."""

    def __init__(self, message: str, code: str = NOT_SUPPORTED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def not_emulated(what: str) -> Refused:
    """Return the refusal of what Redshift has and the local one does not."""
    return Refused(f"not emulated: {what}")


def block(refused: Refused, parameters: int = 0) -> str:
    """Return the statement that raises the refusal; it takes as many bind parameters as the refused one."""
    message, code = sql.literal(refused.message.replace("\x00", "")), sql.literal(refused.code)
    if parameters:
        values = ", ".join(f"${number}::text" for number in range(1, parameters + 1))
        return f"select pg_catalog.goldlake_refuse({code}, {message}, concat({values}))"
    return f"DO {sql.literal(f'begin raise exception using errcode = {code}, message = {message}; end')}"
