"""The fingerprint of a table's content: equal for equal rows in any order, another for all else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.delta import types as delta_types
from runtime.export.fingerprint import fingerprint

TYPES = {
    "n": "BIGINT",
    "f": "DOUBLE",
    "t": "VARCHAR",
    "l": "VARCHAR[]",
    "s": "STRUCT(a INTEGER, b VARCHAR)",
    "m": "MAP(VARCHAR, INTEGER)",
}
COLUMNS = [delta_types.column(name, kind) for name, kind in TYPES.items()]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=5)
ROW = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(),
    st.none() | TEXTS,
    st.none() | st.lists(st.none() | TEXTS, max_size=3),
    st.none() | st.fixed_dictionaries({"a": st.none() | st.integers(0, 9), "b": st.none() | TEXTS}),
    st.none() | st.dictionaries(TEXTS, st.none() | st.integers(0, 9), max_size=2),
)
Row = tuple[Any, ...]


@cache
def database() -> duckdb.DuckDBPyConnection:
    """Return one database for all examples: opening one for each is what would take the time."""
    connection = duckdb.connect(config={"threads": 1})
    connection.execute(f"CREATE TABLE t ({', '.join(f'{name} {kind}' for name, kind in TYPES.items())})")
    return connection


def of(rows: Sequence[Row], **shape: Any) -> str:
    """Return the fingerprint of a table with these rows."""
    database().execute("TRUNCATE t")
    if rows:
        # A dictionary becomes a struct, which is no map: its keys and values go in as two lists.
        values = [
            [*row[:5], *(([*row[5]], [*row[5].values()]) if row[5] is not None else (None, None))] for row in rows
        ]
        statement = "INSERT INTO t SELECT ?, ?, ?, ?, ?, map(?::VARCHAR[], ?::INTEGER[])"
        database().executemany(statement, values)
    return fingerprint(database(), "t", COLUMNS, shape)


@settings(max_examples=20, deadline=None)
@given(st.lists(ROW, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: list[Row], random: Any) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert of(rows) == of(shuffled)


@settings(max_examples=20, deadline=None)
@given(st.lists(ROW, max_size=4), ROW)
def test_one_row_more_is_another_fingerprint_even_of_a_row_that_is_there(rows: list[Row], row: Row) -> None:
    assert len({of(rows), of([*rows, row]), of([*rows, row, row])}) == 3


@settings(max_examples=20, deadline=None)
@given(ROW, st.integers(0, 5), ROW)
def test_another_value_is_another_fingerprint(row: Row, position: int, other: Row) -> None:
    changed = (*row[:position], other[position], *row[position + 1 :])
    same = row[position] == other[position] or (
        position == 1 and None not in (row[1], other[1]) and math.isnan(row[1]) and math.isnan(other[1])
    )
    assert (of([row]) == of([changed])) is same


def test_values_that_are_equal_in_sql_are_no_change() -> None:
    zero, nan = (1, 0.0, *[None] * 4), (1, math.nan, *[None] * 4)
    assert of([zero]) == of([(1, -0.0, *[None] * 4)])
    assert of([nan]) == of([(1, -math.nan, *[None] * 4)])
    assert of([zero]) != of([nan])


def test_values_that_change_places_between_rows_are_a_change() -> None:
    one, two = (1, None, "a", *[None] * 3), (2, None, "b", *[None] * 3)
    swapped = [(1, None, "b", *[None] * 3), (2, None, "a", *[None] * 3)]
    assert of([one, two]) != of(swapped)


@pytest.mark.parametrize(("one", "other"), [(None, []), ([None], ["NULL"]), (["a, b"], ["a", "b"]), ([""], [])])
def test_lists_that_are_much_alike_are_told_apart(one: list[str] | None, other: list[str]) -> None:
    assert of([(1, None, None, one, None, None)]) != of([(1, None, None, other, None, None)])


def test_a_null_struct_is_not_a_struct_of_nulls() -> None:
    assert of([(1, None, None, None, None, None)]) != of([(1, None, None, None, {"a": None, "b": None}, None)])


def test_another_shape_is_another_fingerprint() -> None:
    assert of([]) == of([])
    assert of([]) != of([], partition_by=["day"])


@pytest.mark.parametrize(("one", "other"), [((None, "a"), ("a", None)), (("ab", "c"), ("a", "bc"))])
def test_values_do_not_run_into_their_neighbours(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    columns = [delta_types.column(name, "VARCHAR") for name in ("x", "y")]
    found = []
    for row in (one, other):
        with duckdb.connect() as connection:
            connection.execute("CREATE TABLE t (x VARCHAR, y VARCHAR)")
            connection.execute("INSERT INTO t VALUES (?, ?)", list(row))
            found.append(fingerprint(connection, "t", columns, {}))
    assert found[0] != found[1]
