"""Messages of PostgreSQL's protocol 3, as the gateway makes and reads them ("Message Formats" in its manual)."""

from __future__ import annotations

import struct
from dataclasses import dataclass


class RedshiftError(Exception):
    """An error that the client is to get in Redshift's words."""

    def __init__(self, code: str, message: str, detail: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.detail, self.hint = code, message, detail, hint
        self.where = ""


def not_emulated(what: str) -> RedshiftError:
    """Return the error for what the real service has and this one has not."""
    return RedshiftError("0A000", f"not emulated: {what}")


@dataclass(frozen=True)
class Field:
    """A column of a result: its name, and its type's number and modifier in pg_type."""

    name: str
    oid: int
    modifier: int


def message(kind: bytes, body: bytes = b"") -> bytes:
    """Return a protocol message: its kind, its length, its body."""
    return kind + struct.pack("!i", len(body) + 4) + body


def query(text: str) -> bytes:
    """Return a simple Query."""
    return message(b"Q", text.encode("utf-8", "surrogateescape") + b"\x00")


def error(failure: RedshiftError, severity: str = "ERROR") -> bytes:
    """Return an ErrorResponse."""
    fields = {b"S": severity, b"V": severity, b"C": failure.code, b"M": failure.message}
    fields |= {b"D": failure.detail} if failure.detail else {}
    fields |= {b"H": failure.hint} if failure.hint else {}
    body = b"".join(
        name + value.replace("\x00", "").encode("utf-8", "replace") + b"\x00" for name, value in fields.items()
    )
    return message(b"E", body + b"\x00")


def notice(text: str) -> bytes:
    """Return a NoticeResponse of severity INFO."""
    fields = {b"S": "INFO", b"V": "INFO", b"C": "00000", b"M": text}
    return message(b"N", b"".join(name + value.encode() + b"\x00" for name, value in fields.items()) + b"\x00")


def reworded(body: bytes) -> bytes | None:
    """Return the body of an ErrorResponse in Redshift's words where clients go by them, None where they are the same.

    A NULL for a column that takes none: dbt's tests and users' own handlers look for this text. Redshift shows no row.
    """
    fields = {part[:1]: part[1:] for part in body.split(b"\x00") if part}
    if fields.get(b"C") != b"23502" or b"c" not in fields:
        return None
    fields[b"M"] = b"Cannot insert a NULL value into column " + fields[b"c"]
    fields.pop(b"D", None)
    return b"".join(name + value + b"\x00" for name, value in fields.items()) + b"\x00"


def read_error(body: bytes) -> RedshiftError:
    """Return the error in an ErrorResponse."""
    fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in body.split(b"\x00") if part}
    failure = RedshiftError(
        fields.get(b"C", "XX000"), fields.get(b"M", "refused"), fields.get(b"D", ""), fields.get(b"H", "")
    )
    failure.where = fields.get(b"W", "")
    return failure


def read_row(body: bytes) -> list[str | None]:
    """Return the values of a DataRow in text form."""
    (count,), position, values = struct.unpack_from("!h", body), 2, []
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, position)
        position += 4
        values.append(None if length < 0 else body[position : position + length].decode("utf-8", "replace"))
        position += max(length, 0)
    return values


def read_description(body: bytes) -> list[Field]:
    """Return the columns of a RowDescription."""
    (count,), position, fields = struct.unpack_from("!h", body), 2, []
    for _ in range(count):
        end = body.index(b"\x00", position)
        _table, _number, oid, _size, modifier, _form = struct.unpack_from("!ihihih", body, end + 1)
        fields.append(Field(body[position:end].decode("utf-8", "replace"), oid, modifier))
        position = end + 19
    return fields


def command_complete(tag: str) -> bytes:
    """Return a CommandComplete."""
    return message(b"C", tag.encode() + b"\x00")


def ready(status: bytes) -> bytes:
    """Return a ReadyForQuery."""
    return message(b"Z", status)


def raising(failure: RedshiftError) -> str:
    """Return a statement that raises the error in PostgreSQL, so that its transaction fails as with any other."""
    from runtime import sql

    # % in RAISE's format stands for a value, so that the message may hold any.
    options = [f"errcode = {sql.literal(failure.code)}"]
    options += [f"detail = {sql.literal(failure.detail.replace(chr(0), ''))}"] if failure.detail else []
    options += [f"hint = {sql.literal(failure.hint.replace(chr(0), ''))}"] if failure.hint else []
    text = sql.literal(failure.message.replace("\x00", ""))
    block = f"begin raise exception '%', {text} using {', '.join(options)}; end"
    return f"DO {sql.literal(block)}"
