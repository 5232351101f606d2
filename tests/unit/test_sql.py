"""Names and texts come back from an engine as they went in, whatever is in them."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import sql
from runtime.errors import ConfigurationError

# No lone surrogates, which are no text to any engine, and no NUL, which is refused.
TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
NAMES = TEXTS.filter(lambda text: 0 < len(text.encode()) <= sql.MAX_IDENTIFIER_BYTES)


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@given(text=TEXTS)
def test_a_literal_comes_back_as_its_text(database: duckdb.DuckDBPyConnection, text: str) -> None:
    assert database.execute(f"SELECT {sql.literal(text)}").fetchall() == [(text,)]


@given(name=NAMES)
def test_an_identifier_names_a_column(database: duckdb.DuckDBPyConnection, name: str) -> None:
    description = database.execute(f"SELECT 1 AS {sql.identifier(name)}").description
    assert [column[0] for column in description or []] == [name]


@given(schema=NAMES, table=NAMES)
def test_a_qualified_name_leads_to_its_table(database: duckdb.DuckDBPyConnection, schema: str, table: str) -> None:
    database.execute("BEGIN")
    try:
        database.execute(f"CREATE SCHEMA IF NOT EXISTS {sql.identifier(schema)}")
        database.execute(f"CREATE TABLE {sql.qualified(schema, table)} (a int)")
        query = "SELECT table_schema, table_name FROM information_schema.tables"
        found = database.execute(query).fetchall()
    finally:
        # The next pair finds an empty database; opening one for each is what would take the time.
        database.execute("ROLLBACK")
    # DuckDB keeps the case of names and compares without it: schema Main is its own main.
    assert [(left.lower(), right) for left, right in found] == [(schema.lower(), table)]


@given(before=TEXTS, after=TEXTS)
def test_a_nul_is_refused_in_texts_and_names(before: str, after: str) -> None:
    for quote in (sql.literal, sql.identifier):
        with pytest.raises(ConfigurationError):
            quote(f"{before}\x00{after}")


@pytest.mark.parametrize("name", ["", "x" * 128, "é" * 64, "\ud800"])
def test_an_empty_too_long_or_impossible_name_is_refused_or_quoted(name: str) -> None:
    if name == "\ud800":
        assert sql.identifier(name) == '"\ud800"'
    else:
        with pytest.raises(ConfigurationError, match="1 to 127 bytes"):
            sql.identifier(name)


def test_the_limit_counts_bytes() -> None:
    assert sql.identifier("é" * 63 + "x") == f'"{"é" * 63}x"'
