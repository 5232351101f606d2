"""Every type through DuckDB's Parquet, our schema and our statistics, read back by two readers that wrote no log."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable, QueryBuilder

from runtime import duck, sql
from runtime.delta import types as delta_types
from runtime.delta.log import log_rows
from tests.local.support_types import (
    MAPPED,
    NESTED,
    SCALARS,
    WITHOUT_ZONE,
    TypeCase,
    make_table,
    plain,
    rows_of,
    select_of,
)

TABLES = {
    "plain": (SCALARS + NESTED, {}),
    "ntz": (WITHOUT_ZONE, {"ntz": True}),
    "mapped": (MAPPED + SCALARS + NESTED, {"mapped": True}),
    "mapped ntz": (MAPPED + WITHOUT_ZONE, {"mapped": True, "ntz": True}),
}


def by_duckdb(location: Path, where: str = "true") -> list[tuple[Any, ...]]:
    """Return the rows as DuckDB's delta extension reads them."""
    with contextlib.closing(duck.connect("delta")) as reader:
        table = f"delta_scan({sql.literal(str(location))})"
        return rows(reader.execute(f"FROM {table} WHERE {where} ORDER BY id").fetchall())


def by_delta_rs(location: Path, where: str = "true") -> list[tuple[Any, ...]]:
    """Return the rows as delta-rs reads them."""
    found = queried(location, f"SELECT * FROM t WHERE {where} ORDER BY id")  # noqa: S608 - our own text
    return rows(list(zip(*(found.column(name).to_pylist() for name in found.schema.names), strict=True)))


def queried(location: Path, statement: str) -> Any:
    """Return the answer of delta-rs' own SQL over the table `t`."""
    return QueryBuilder().register("t", DeltaTable(str(location))).execute(statement).read_all()


def rows(found: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Return rows with values that are equal for all readers."""
    return [tuple(plain(value) for value in row) for row in found]


READERS = {"duckdb": by_duckdb, "delta-rs": by_delta_rs}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("reader", READERS)
def test_values_of_every_type_come_back_equal(tmp_path: Path, table: str, reader: str) -> None:
    cases, options = TABLES[table]
    make_table(tmp_path / "t", cases, **options)
    assert READERS[reader](tmp_path / "t") == rows_of(cases)


def test_the_log_is_one_that_delta_rs_agrees_with(tmp_path: Path) -> None:
    fields = make_table(tmp_path / "t", MAPPED + WITHOUT_ZONE, mapped=True, ntz=True)
    table = DeltaTable(str(tmp_path / "t"))
    assert delta_types.fields_of(table.schema()) == fields
    assert set(table.protocol().reader_features or ()) == {"columnMapping", "timestampNtz"}
    assert log_rows(table) == len(rows_of(MAPPED + WITHOUT_ZONE))


# A condition for each type that has bounds, and how many of four files, a row each, a reader must look into. An
# infinity has no form in Delta's statistics, so the file that has one is read for any condition on its column.
PRUNED = {
    "tiny = 127": 1,
    "big = 9223372036854775807": 1,
    "utiny > 200": 1,
    "ubig > 5": 1,
    "huge < 0": 1,
    "cents = 0.01": 1,
    "rate > 0": 1,
    "wide < 0": 1,
    "twice < 0": 2,
    "day = DATE '1582-10-10'": 1,
    "\"text\" > 'f'": 1,
    "\"text\" = 'Zoë'": 0,
    "size = 'small'": 1,
}


def scanned_by_duckdb(location: Path, where: str) -> int:
    """Return the files that DuckDB reads for a condition, by its own account."""
    with contextlib.closing(duck.connect("delta")) as reader:
        table = f"delta_scan({sql.literal(str(location))})"
        ((_, plan),) = reader.execute(f"EXPLAIN ANALYZE FROM {table} WHERE {where}").fetchall()
    told = re.search(r"Scanning Files:\D*(\d+)/\d+", plan)
    if told is None:
        # With no file left there is no scan to tell of.
        assert "EMPTY_RESULT" in plan or "Total Files Read: 0" in plan, plan
        return 0
    return int(told[1])


def scanned_by_delta_rs(location: Path, where: str) -> int:
    """Return the files that delta-rs hands to its scan for a condition."""
    statement = f"EXPLAIN ANALYZE SELECT * FROM t WHERE {where}"  # noqa: S608 - our own text
    plan = "\n".join(queried(location, statement).column(1).to_pylist())
    return sum(int(number) for number in re.findall(r"files_opened=(\d+)", plan))


@pytest.fixture(scope="module")
def by_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with a file for each row."""
    location = tmp_path_factory.mktemp("rows") / "t"
    make_table(location, SCALARS + NESTED, file_per_row=True)
    return location


@pytest.mark.parametrize("where", PRUNED)
def test_readers_skip_the_files_that_the_statistics_rule_out_and_no_others(by_rows: Path, where: str) -> None:
    assert scanned_by_duckdb(by_rows, where) == PRUNED[where]
    assert scanned_by_delta_rs(by_rows, where) == PRUNED[where]
    with contextlib.closing(duck.connect()) as engine:
        engine.execute(f"CREATE TABLE source AS {select_of(SCALARS + NESTED)}")
        wanted = engine.execute(f"SELECT id FROM source WHERE {where} ORDER BY id").fetchall()  # noqa: S608 - our own
    for reader in READERS.values():
        assert [row[:1] for row in reader(by_rows, where)] == wanted


def test_delta_rs_skips_files_by_times_of_microseconds_beside_bounds_of_milliseconds(by_rows: Path) -> None:
    where = "\"at\" = '1969-12-31 23:59:59.999999+00'"
    assert scanned_by_delta_rs(by_rows, where) == 1
    for reader in READERS.values():
        assert [row[0] for row in reader(by_rows, where)] == [1]


def test_a_nan_is_found_by_readers_that_skip_files(by_rows: Path) -> None:
    for reader in READERS.values():
        assert [row[0] for row in reader(by_rows, "unreal > 5")] == [0]


def test_files_are_skipped_by_physical_names_with_column_mapping(tmp_path: Path) -> None:
    make_table(tmp_path / "t", MAPPED, mapped=True, file_per_row=True)
    where = '"a b" = 5'
    assert scanned_by_duckdb(tmp_path / "t", where) == 1
    for reader in READERS.values():
        assert [row[:2] for row in reader(tmp_path / "t", where)] == [(1, 5)]


@pytest.mark.parametrize("kind", ["DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE"])
def test_an_infinite_day_is_kept_for_duckdb_and_bends_no_bound(tmp_path: Path, kind: str) -> None:
    case = TypeCase("v", kind, ("'infinity'", "'2024-02-29'", "'-infinity'"), (None, None, None))
    make_table(tmp_path / "t", [case])
    stats = DeltaTable(str(tmp_path / "t")).get_add_actions(flatten=True)
    assert [stats.column(f"{bound}.v").to_pylist() for bound in ("min", "max")] == [[None], [None]]
    with contextlib.closing(duck.connect("delta")) as reader:
        table = f"delta_scan({sql.literal(str(tmp_path / 't'))})"
        found = reader.execute(f"SELECT CAST(v AS VARCHAR) FROM {table} ORDER BY id").fetchall()  # noqa: S608 - our own
    assert [text for (text,) in found][::2] == ["infinity", "-infinity"]


def test_a_hugeint_of_39_digits_stops_the_export(tmp_path: Path) -> None:
    case = TypeCase("v", "HUGEINT", ("'170141183460469231731687303715884105727'",), (None,))
    with pytest.raises(duckdb.ConversionException, match="DECIMAL"):
        make_table(tmp_path / "t", [case])
