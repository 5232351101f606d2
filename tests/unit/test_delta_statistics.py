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
GROUP = 2048
HIGHEST = chr(0x10FFFF)


@pytest.fixture(scope="module")
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    with duck.connect() as connection:
        # One thread writes the row groups one after another into one file.
        connection.execute("SET threads = 1")
        yield connection


def statistics(
    engine: duckdb.DuckDBPyConnection, values: Sequence[Any], duckdb_type: str, name: str = "v", *, ntz: bool = False
) -> dict[str, Any]:
    """Write the values with DuckDB and return the Delta statistics, decimals kept exact."""
    item = delta_types.column(name, duckdb_type, ntz=ntz)
    engine.execute(f"CREATE OR REPLACE TABLE written ({sql.identifier(name)} {duckdb_type})")
    engine.executemany("INSERT INTO written VALUES (?)", [[value] for value in values])
    found = written(engine, [item])
    assert found["numRecords"] == len(values)
    if not isinstance(item.type, dict):
        assert found["nullCount"] == {name: sum(value is None for value in values)}
    return found


def written(engine: duckdb.DuckDBPyConnection, columns: Sequence[Column], *, nans: bool = True) -> dict[str, Any]:
    """Write the table `written` in row groups of 2,048 rows and return its file's statistics."""
    select = ", ".join(item.expression for item in columns)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "files"
        ((path, rows, _, _, reported, _),) = engine.execute(
            f"COPY (SELECT {select} FROM written) TO {sql.literal(str(target))}"  # noqa: S608 - quoted
            f" (FORMAT parquet, PER_THREAD_OUTPUT, RETURN_STATS, ROW_GROUP_SIZE {GROUP})"
        ).fetchall()
        leaves = delta_statistics.nan_leaves(engine, [path])[path] if nans else None
    text = delta_statistics.file_stats(columns, rows, reported, nans=leaves)
    found: dict[str, Any] = json.loads(text, parse_float=Decimal)
    return found


def in_groups(engine: duckdb.DuckDBPyConnection, groups: Sequence[Sequence[Any]], duckdb_type: str) -> dict[str, Any]:
    """Write each group's values, over and over, into a row group of its own, and return the statistics."""
    engine.execute(f"CREATE OR REPLACE TABLE written (v {duckdb_type})")
    for values in groups:
        engine.execute(
            "INSERT INTO written SELECT a[1 + i % len(a)]"  # noqa: S608 - a type and a number
            f" FROM (SELECT CAST(? AS {duckdb_type}[]) AS a), range({GROUP}) r(i)",
            # As texts: of a NaN in a list DuckDB's Python client makes a null.
            [[str(value) if isinstance(value, float) else value for value in values]],
        )
    return written(engine, [delta_types.column("v", duckdb_type)])


def grouped(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[list[list[Any]]]:
    """Return up to four row groups of a few values each, some of them null."""
    return st.lists(st.lists(st.one_of(strategy, st.none()), min_size=1, max_size=4), min_size=1, max_size=4)


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


@EXAMPLES
@given(groups=grouped(st.decimals(min_value=-(10**27), max_value=10**27, places=10, allow_nan=False)))
def test_decimals_of_several_row_groups_lie_within_their_bounds(
    engine: duckdb.DuckDBPyConnection, groups: list[list[Decimal | None]]
) -> None:
    low, high = bounds(in_groups(engine, groups, "DECIMAL(38,10)"))
    known = [value for values in groups for value in values if value is not None]
    assert low is None or Decimal(low) <= min(known)
    assert high is None or max(known) <= Decimal(high)
    if all(any(value is not None for value in values) for values in groups):
        assert (Decimal(low), Decimal(high)) == (min(known), max(known))


@EXAMPLES
@given(groups=grouped(st.floats()))
def test_doubles_of_several_row_groups_lie_within_their_bounds_and_not_a_number_anywhere_leaves_none(
    engine: duckdb.DuckDBPyConnection, groups: list[list[float | None]]
) -> None:
    low, high = bounds(in_groups(engine, groups, "DOUBLE"))
    known = [value for values in groups for value in values if value is not None]
    if any(math.isnan(value) for value in known):
        assert (low, high) == (None, None)
    assert low is None or all(float(low) <= value for value in known)
    assert high is None or all(value <= float(high) for value in known)


@EXAMPLES
@given(groups=grouped(texts))
def test_strings_of_several_row_groups_lie_within_their_bounds(
    engine: duckdb.DuckDBPyConnection, groups: list[list[str | None]]
) -> None:
    low, high = bounds(in_groups(engine, groups, "VARCHAR"))
    known = [value for values in groups for value in values if value is not None]
    assert low is None or low <= min(known)
    assert high is None or max(known) <= high


@pytest.mark.parametrize("long", ["é" * 300, HIGHEST * 300, "a" + HIGHEST * 300, "\x7f" * 300, "b" * 20_000])
@pytest.mark.parametrize("order", [1, -1])
def test_a_string_too_long_for_parquets_statistics_lies_within_the_bounds(
    engine: duckdb.DuckDBPyConnection, long: str, order: int
) -> None:
    low, high = bounds(in_groups(engine, [[long], ["a", "m"]][::order], "VARCHAR"))
    assert low is None or low.encode() <= b"a"
    assert high is None or max(long.encode(), b"m") <= high.encode()


@EXAMPLES
@given(groups=grouped(st.dates() | st.sampled_from(["infinity", "-infinity", "0044-03-15 (BC)", "12024-01-01"])))
def test_dates_within_the_years_1_to_9999_lie_within_bounds_that_others_do_not_bend(
    engine: duckdb.DuckDBPyConnection, groups: list[list[Any]]
) -> None:
    low, high = bounds(in_groups(engine, [[None if v is None else str(v) for v in g] for g in groups], "DATE"))
    known = [value for values in groups for value in values if value is not None]
    if any(value in ("-infinity", "0044-03-15 (BC)") for value in known):
        assert low is None
    if any(value in ("infinity", "12024-01-01") for value in known):
        assert high is None
    dates = [value for value in known if isinstance(value, datetime.date)]
    assert low is None or all(datetime.date.fromisoformat(low) <= value for value in dates)
    assert high is None or all(value <= datetime.date.fromisoformat(high) for value in dates)


def test_a_nan_in_an_earlier_row_group_than_the_last_leaves_no_bounds(engine: duckdb.DuckDBPyConnection) -> None:
    assert bounds(in_groups(engine, [[1.0, math.nan], [2.0]], "DOUBLE")) == (None, None)
    assert bounds(in_groups(engine, [[2.0], [1.0, math.nan]], "FLOAT")) == (None, None)
    assert bounds(in_groups(engine, [[1.0, None], [2.0]], "DOUBLE")) == (1, 2)


def test_floats_have_no_bounds_while_nobody_looked_for_nans(engine: duckdb.DuckDBPyConnection) -> None:
    engine.execute("CREATE OR REPLACE TABLE written AS SELECT 1.5::DOUBLE AS v, 1::INTEGER AS w")
    columns = [delta_types.column("v", "DOUBLE"), delta_types.column("w", "INTEGER")]
    assert written(engine, columns, nans=False)["minValues"] == {"w": 1}
    assert written(engine, columns)["minValues"] == {"v": Decimal("1.5"), "w": 1}


def test_nans_are_found_behind_lists_maps_and_structs(engine: duckdb.DuckDBPyConnection) -> None:
    engine.execute(
        "CREATE OR REPLACE TABLE written AS SELECT [1] AS l, MAP {1: {'a': 1, 'b': 2}} AS m,"
        " {'x': 1.5::FLOAT, 'y': 'nan'::DOUBLE} AS s, 2.5::DOUBLE AS f, 'nan'::FLOAT AS g"
    )
    columns = described(engine)
    assert written(engine, columns)["maxValues"] == {"s": {"x": Decimal("1.5")}, "f": Decimal("2.5")}


def test_nans_are_found_in_a_folder_whose_name_is_a_pattern_too(
    engine: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    (tmp_path / "a[b]*?").mkdir()
    files = [str(tmp_path / "a[b]*?" / name) for name in ("nan.parquet", "none.parquet")]
    for file, value in zip(files, ("nan", "1"), strict=True):
        query = f"SELECT {sql.literal(value)}::DOUBLE AS v"
        engine.execute(f"COPY ({query}) TO {sql.literal(file)} (FORMAT parquet)")
    assert delta_statistics.nan_leaves(engine, files) == {files[0]: {0}, files[1]: set()}


def test_looking_for_nans_in_no_files_asks_nothing(engine: duckdb.DuckDBPyConnection) -> None:
    assert delta_statistics.nan_leaves(engine, []) == {}


def described(engine: duckdb.DuckDBPyConnection, *, mapped: bool = False) -> list[Column]:
    """Return the columns of the table `written`."""
    rows = engine.execute("DESCRIBE written").fetchall()
    return [delta_types.column(name, kind, mapped=mapped) for name, kind, *_ in rows]


def test_the_fields_of_structs_are_objects_within(engine: duckdb.DuckDBPyConnection) -> None:
    engine.execute(
        """CREATE OR REPLACE TABLE written AS SELECT * FROM (VALUES
        ({'a': 1, 'b.c"d': {'e': 'x', 'l': [1]}}, 9), (NULL, 8), ({'a': 3, 'b.c"d': NULL}, NULL)) t(s, "s.a")"""
    )
    assert written(engine, described(engine)) == {
        "numRecords": 3,
        "minValues": {"s": {"a": 1, 'b.c"d': {"e": "x"}}, "s.a": 8},
        "maxValues": {"s": {"a": 3, 'b.c"d': {"e": "x"}}, "s.a": 9},
        "nullCount": {"s": {"a": 1, 'b.c"d': {"e": 2}}, "s.a": 1},
    }


structs = st.fixed_dictionaries({"a": st.none() | st.integers(-(2**31), 2**31 - 1), "b": st.none() | texts})


@EXAMPLES
@given(values=st.lists(st.none() | structs, min_size=1, max_size=6))
def test_the_fields_of_structs_lie_within_their_bounds(
    engine: duckdb.DuckDBPyConnection, values: list[dict[str, Any] | None]
) -> None:
    engine.execute("CREATE OR REPLACE TABLE written (v STRUCT(a INTEGER, b VARCHAR))")
    engine.executemany("INSERT INTO written VALUES (?)", [[value] for value in values])
    found = written(engine, described(engine))
    for name in ("a", "b"):
        known = [value[name] for value in values if value is not None and value[name] is not None]
        assert found["nullCount"]["v"][name] == len(values) - len(known)
        low = found["minValues"].get("v", {}).get(name)
        high = found["maxValues"].get("v", {}).get(name)
        assert low is None or low <= min(known)
        assert high is None or max(known) <= high


def test_statistics_have_physical_names_with_column_mapping(engine: duckdb.DuckDBPyConnection) -> None:
    engine.execute("""CREATE OR REPLACE TABLE written AS SELECT 1 AS "a b", {'c d': 2} AS s""")
    columns = described(engine, mapped=True)
    names = iter(["p1", "p2", "p3"])
    fields, _ = delta_types.assign_mapping(delta_types.schema_fields(columns), new_name=lambda: next(names))
    found = written(engine, delta_types.map_columns(columns, fields))
    assert found["minValues"] == {"p1": 1, "p2": {"p3": 2}}


def test_physical_names_can_be_given_for_columns_that_do_not_know_them() -> None:
    reported = {'"p1"': {"min": "1", "max": "2", "null_count": "0"}}
    text = delta_statistics.file_stats([Column("a b", "long")], 1, reported, physical={"a b": "p1"})
    assert json.loads(text)["maxValues"] == {"p1": 2}


def test_the_fields_of_structs_count_among_the_indexed_columns() -> None:
    struct = delta_types.column("s", "STRUCT(a BIGINT, l BIGINT[], b BIGINT)")
    reported = {name: {"min": "1", "max": "2", "null_count": "0"} for name in ('"s"."a"', '"s"."b"', '"t"')}
    columns = [struct, Column("t", "long")]

    def indexed(number: int) -> object:
        return json.loads(delta_statistics.file_stats(columns, 1, reported, indexed=number))["minValues"]

    assert indexed(0) == {}
    assert indexed(2) == {"s": {"a": 1}}
    assert indexed(3) == {"s": {"a": 1, "b": 1}}
    assert indexed(-1) == {"s": {"a": 1, "b": 1}, "t": 1}


def test_a_column_that_was_not_counted_row_by_row_has_no_statistics() -> None:
    reported = {'"a"': {"min": "1", "max": "2", "null_count": "0", "num_values": "2"}}
    assert json.loads(delta_statistics.file_stats([Column("a", "long")], 3, reported))["nullCount"] == {}


@EXAMPLES
@given(values=some(st.datetimes()))
def test_timestamps_kept_without_a_zone_have_bounds_without_one(
    engine: duckdb.DuckDBPyConnection, values: list[datetime.datetime | None]
) -> None:
    known = [value for value in values if value is not None]
    low, high = bounds(statistics(engine, values, "TIMESTAMP", ntz=True))
    assert datetime.datetime.fromisoformat(low) <= min(known)
    assert high is None or max(known) <= datetime.datetime.fromisoformat(high)
    assert len(low) == len("2024-01-01T00:00:00.000")


@pytest.mark.parametrize(
    ("text", "bound"), [(".5", "0.5"), ("-.05", "-0.05"), ("1.50", "1.50"), ("-7", "-7"), ("", None), ("1e5", None)]
)
def test_a_decimal_below_one_gets_the_zero_that_json_asks_for(text: str, bound: str | None) -> None:
    assert delta_statistics.bounds("decimal(3,3)", {"min": text, "max": text}) == (bound, bound)


@EXAMPLES
@given(values=some(st.decimals(min_value=Decimal("-0.999"), max_value=Decimal("0.999"), places=3)))
def test_decimals_below_one_lie_within_their_bounds(
    engine: duckdb.DuckDBPyConnection, values: list[Decimal | None]
) -> None:
    known = [value for value in values if value is not None]
    low, high = bounds(statistics(engine, values, "DECIMAL(3,3)"))
    assert (Decimal(low), Decimal(high)) == (min(known), max(known))


@pytest.mark.parametrize(
    ("kind", "highest"),
    [("UTINYINT", 2**8), ("USMALLINT", 2**16), ("UINTEGER", 2**32), ("UBIGINT", 2**64), ("HUGEINT", 10**38)],
)
def test_wide_and_unsigned_integers_have_exact_bounds(
    engine: duckdb.DuckDBPyConnection, kind: str, highest: int
) -> None:
    assert bounds(statistics(engine, [0, None, highest - 1], kind)) == (0, highest - 1)


def test_enums_have_the_bounds_of_their_texts_and_not_of_their_order(engine: duckdb.DuckDBPyConnection) -> None:
    assert bounds(statistics(engine, ["z", "a"], "ENUM('z', 'a')")) == ("a", "z")


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
