"""Quoting for SQL text. No other place builds SQL from names or values.

Source of the rules: SQL-92 delimited identifiers and character literals, as PostgreSQL, Redshift,
DuckDB and Trino implement them (a quote inside is doubled). Redshift limits identifiers to 127 bytes.
"""

from __future__ import annotations

from runtime.errors import ConfigurationError

MAX_IDENTIFIER_BYTES = 127


def identifier(name: str) -> str:
    """Return `name` as a quoted SQL identifier.

    Raises ConfigurationError for an empty name, one with a NUL character, or one over 127 bytes in UTF-8.
    """
    if not name or "\x00" in name or len(name.encode("utf-8", "surrogatepass")) > MAX_IDENTIFIER_BYTES:
        raise ConfigurationError(f"{name!r} is not a usable SQL name: 1 to {MAX_IDENTIFIER_BYTES} bytes, without NUL")
    return '"' + name.replace('"', '""') + '"'


def qualified(*names: str) -> str:
    """Return the names joined to one qualified identifier, e.g. `"gold"."dim_company"`."""
    return ".".join(identifier(name) for name in names)


def literal(text: str) -> str:
    """Return `text` as a quoted SQL string literal.

    Meant for places where a statement takes no bind parameters (ATTACH, COPY, SET). A backslash is
    an ordinary character, as PostgreSQL (standard_conforming_strings), DuckDB and Trino have it. Redshift
    takes it as an escape: who writes for Redshift refuses texts with one, as runtime.export.unload does.
    Raises ConfigurationError for a NUL character.
    """
    if "\x00" in text:
        raise ConfigurationError("a SQL text literal cannot hold a NUL character")
    return "'" + text.replace("'", "''") + "'"
