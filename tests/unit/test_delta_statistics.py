"""Delta's statistics from DuckDB's: what a reader skips by them must not hold a row it wants."""

from __future__ import annotations

import datetime
import json
import math
import struct
import tempfile
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import duck, sql
from runtime.delta import statistics as delta_statistics
from runtime.delta import types as delta_types
from runtime.delta.types import Column

EXAMPLES = settings(max_examples=40, deadline=None)
HIGHEST = chr(0x10FFFF)


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duck.connect()
    yield connection
    connection.close()


def statistics(
    engine: duckdb.DuckDBPyConnection, values: Sequence[Any], duckdb_type: str, name: str = "v"
) -> dict[str, Any]:
    """Write the values with DuckDB and return the Delta statistics, decimals kept exact."""
    item = delta_types.column(name, duckdb_type)
    quoted = sql.identifier(name)
    engine.execute(f"CREATE OR REPLACE TABLE written ({quoted} {duckdb_type})")
    engine.executemany("INSERT INTO written VALUES (?)", [[value] for value in values])
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "files"
        ((_, rows, _, _, reported, _),) = engine.execute(
            f"COPY (SELECT {item.expression} FROM written) TO {sql.literal(str(target))}"  # noqa: S608 - quoted
            " (FORMAT parquet, PER_THREAD_OUTPUT, RETURN_STATS)"
        ).fetchall()
    found: dict[str, Any] = json.loads(delta_statistics.file_stats([item], rows, reported), parse_float=Decimal)
    assert found["numRecords"] == len(values)
    assert found["nullCount"] == {name: sum(value is None for value in values)}
    return found


def bounds(found: dict[str, Any], name: str = "v") -> tuple[Any, Any]:
    """Return the lower and upper bound; None for one that is left out."""
    return found["minValues"].get(name), found["maxValues"].get(name)


def some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Return lists with at least one value, some of them null."""
    return st.lists(st.one_of(strategy, st.none()), min_size=1, max_size=8).filter(
        lambda values: any(value is not None for value in values)
    )


@EXAMPLES
@given(values=some(st.integers(-(2**63), 2**63 - 1)))
def test_bounds_of_bigints_are_the_least_and_the_greatest_as_numbers(
    engine: duckdb.DuckDBPyConnection, values: list[int | None]
) -> None:
    known = [value for value in values if value is not None]
    assert bounds(statistics(engine, values, "BIGINT")) == (min(known), max(known))


@EXAMPLES
@given(values=some(st.decimals(min_value=-(10**27), max_value=10**27, places=10, allow_nan=False)))
def test_decimals_keep_all_their_digits(engine: duckdb.DuckDBPyConnection, values: list[Decimal | None]) -> None:
    known = [value for value in values if value is not None]
    low, high = bounds(statistics(engine, values, "DECIMAL(38,10)"))
    assert (Decimal(low), Decimal(high)) == (min(known), max(known))


@EXAMPLES
@given(values=some(st.floats()))
def test_doubles_lie_within_their_bounds_and_not_a_number_has_none(
    engine: duckdb.DuckDBPyConnection, values: list[float | None]
) -> None:
    known = [value for value in values if value is not None]
    low, high = bounds(statistics(engine, values, "DOUBLE"))
    if any(math.isnan(value) for value in known):
        assert (low, high) == (None, None)
    assert low is None or all(float(low) <= value for value in known)
    assert high is None or all(value <= float(high) for value in known)


@EXAMPLES
@given(values=some(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_single_floats_lie_within_bounds_that_are_read_as_doubles(
    engine: duckdb.DuckDBPyConnection, values: list[float | None]
) -> None:
    known = [value for value in values if value is not None]
    low, high = bounds(statistics(engine, values, "FLOAT"))
    assert (float(low), float(high)) == (min(known), max(known))


def test_a_single_float_is_not_given_in_its_shortest_form() -> None:
    tenth = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    reported = {"min": "0.1", "max": "0.1", "has_nan": "false"}
    assert delta_statistics.bounds("float", reported) == (repr(tenth), repr(tenth))


def test_a_zero_bound_includes_the_zero_of_the_other_sign() -> None:
    assert delta_statistics.bounds("double", {"min": "0.0", "max": "-0.0", "has_nan": "false"}) == ("-0.0", "0.0")


@EXAMPLES
@given(values=some(st.dates()))
def test_dates_are_written_as_iso_dates(engine: duckdb.DuckDBPyConnection, values: list[datetime.date | None]) -> None:
    known = [value for value in values if value is not None]
    assert bounds(statistics(engine, values, "DATE")) == (min(known).isoformat(), max(known).isoformat())


@EXAMPLES
@given(values=some(st.datetimes(timezones=st.just(datetime.UTC))))
def test_timestamps_lie_within_bounds_of_whole_milliseconds(
    engine: duckdb.DuckDBPyConnection, values: list[datetime.datetime | None]
) -> None:
    known = [value for value in values if value is not None]
    low, high = bounds(statistics(engine, values, "TIMESTAMP WITH TIME ZONE"))
    assert min(known) - datetime.datetime.fromisoformat(low) < datetime.timedelta(milliseconds=1)
    assert datetime.datetime.fromisoformat(low) <= min(known)
    assert high is None or max(known) <= datetime.datetime.fromisoformat(high)
    assert low.endswith("Z")
    assert len(low) == len("2024-01-01T00:00:00.000Z")


@EXAMPLES
@given(values=some(st.datetimes()))
def test_timestamps_without_a_zone_count_as_utc(
    engine: duckdb.DuckDBPyConnection, values: list[datetime.datetime | None]
) -> None:
    known = [value for value in values if value is not None]
    low, _ = bounds(statistics(engine, values, "TIMESTAMP"))
    assert datetime.datetime.fromisoformat(low).replace(tzinfo=None) <= min(known)


def test_an_upper_timestamp_after_the_last_millisecond_of_9999_is_left_out() -> None:
    assert delta_statistics.timestamp_bound("9999-12-31 23:59:59.999999+00", upper=True) is None
    assert delta_statistics.timestamp_bound("9999-12-31 23:59:59.999+00", upper=True) == '"9999-12-31T23:59:59.999Z"'


@pytest.mark.parametrize("text", ["infinity", "-infinity", "0044-03-15 (BC) 00:00:00+00", "12024-01-01 00:00:00+00"])
def test_timestamps_that_iso_has_no_form_for_are_left_out(text: str) -> None:
    assert delta_statistics.timestamp_bound(text, upper=False) is None


@pytest.mark.parametrize("text", ["infinity", "-infinity", "0044-03-15 (BC)", "12024-01-01"])
def test_dates_that_iso_has_no_form_for_are_left_out(text: str) -> None:
    assert delta_statistics.bounds("date", {"min": text, "max": text}) == (None, None)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
long_texts = st.builds(
    lambda begin, end: begin * 20 + end, st.text(st.sampled_from("aé日𐀀" + HIGHEST), max_size=16), texts
)


@EXAMPLES
@given(values=some(st.one_of(texts, long_texts)))
def test_strings_lie_within_bounds_of_at_most_32_characters(
    engine: duckdb.DuckDBPyConnection, values: list[str | None]
) -> None:
    known = [value for value in values if value is not None]
    low, high = bounds(statistics(engine, values, "VARCHAR"))
    assert low is None or (len(low) <= 32 and low <= min(known))
    assert high is None or (len(high) <= 32 and max(known) <= high)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60), more=texts)
def test_an_upper_prefix_is_above_all_texts_that_begin_so(text: str, more: str) -> None:
    bound = delta_statistics.upper_prefix(text)
    if bound is None:
        assert text[:32] == HIGHEST * 32
        return
    assert text <= bound
    bound.encode("utf-8")
    if len(text) > 32:
        assert (text + more).encode() <= bound.encode()


def test_an_upper_prefix_steps_over_the_surrogates_and_past_the_highest_character() -> None:
    assert delta_statistics.upper_prefix("a" * 31 + "\ud7ff" + "x") == "a" * 31 + "\ue000"
    assert delta_statistics.upper_prefix("a" * 31 + HIGHEST + "x") == "a" * 30 + "b"
    assert delta_statistics.upper_prefix(HIGHEST * 33) is None
    assert delta_statistics.upper_prefix("a" * 32) == "a" * 32


@pytest.mark.parametrize("name", ["a.b", 'c"d', "été", '"', '"a"."b"', "it's"])
def test_columns_are_found_by_the_names_that_duckdb_reports(engine: duckdb.DuckDBPyConnection, name: str) -> None:
    assert bounds(statistics(engine, [1, 2], "INTEGER", name), name) == (1, 2)


@pytest.mark.parametrize(("kind", "value"), [("BOOLEAN", True), ("BLOB", b"\x00\xff")])
def test_booleans_and_binaries_have_null_counts_only(
    engine: duckdb.DuckDBPyConnection, kind: str, value: object
) -> None:
    assert bounds(statistics(engine, [value, None], kind)) == (None, None)


def test_a_column_of_nulls_has_a_null_count_only(engine: duckdb.DuckDBPyConnection) -> None:
    assert bounds(statistics(engine, [None, None], "INTEGER")) == (None, None)


def test_a_column_that_duckdb_reports_nothing_of_is_left_out() -> None:
    found = json.loads(
        delta_statistics.file_stats([Column("a", "long"), Column("b", "long")], 3, {'"b"': {"null_count": "1"}})
    )
    assert found == {"numRecords": 3, "minValues": {}, "maxValues": {}, "nullCount": {"b": 1}}


def test_only_the_first_32_columns_are_indexed() -> None:
    columns = [Column(f"c{number}", "long") for number in range(40)]
    reported = {f'"c{number}"': {"min": "1", "max": "2", "null_count": "0"} for number in range(40)}
    assert len(json.loads(delta_statistics.file_stats(columns, 1, reported))["minValues"]) == 32


def test_arrays_have_no_statistics() -> None:
    reported = {'"a"."element"': {"min": "1", "max": "2", "null_count": "0"}}
    found = json.loads(delta_statistics.file_stats([delta_types.column("a", "INTEGER[]")], 1, reported))
    assert found["nullCount"] == {}
