"""Every type through DuckDB's Parquet, our schema and our statistics, read back by a real Trino.

What the tables hold is in tests/local/support_types.py, and tests/local/test_export_types.py has DuckDB and delta-rs
read the same.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from trino import dbapi

from runtime import sql
from runtime.aws import Connection
from runtime.delta.lake import Lake
from runtime.register import TrinoCatalogue, register_tables
from runtime.trino import TrinoServer
from tests.local.support_types import MAPPED, NESTED, SCALARS, UTC, WITHOUT_ZONE, TypeCase, make_table, plain

TABLES = {
    "plain": (SCALARS + NESTED, {}),
    "ntz": (WITHOUT_ZONE, {"ntz": True}),
    "mapped": (MAPPED + SCALARS + NESTED, {"mapped": True}),
    "mapped ntz": (MAPPED + WITHOUT_ZONE, {"mapped": True, "ntz": True}),
}

INFO = {"commitInfo": {"timestamp": 1_700_000_000_000, "operation": "WRITE", "operationParameters": {}}}


@pytest.fixture
def schema() -> str:
    """The name of a schema that is not there yet."""
    return f"gold_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def trino() -> TrinoCatalogue:
    """The catalogue under test."""
    return TrinoCatalogue.at(os.environ["TRINO_URL"])


def registered(folder: Path, trino: TrinoCatalogue, schema: str, cases: Sequence[TypeCase], **options: bool) -> str:
    """Send a table of these cases to the emulator and register it; return its name in Trino."""
    aws = Connection.from_environment()
    bucket = f"lake-{uuid.uuid4().hex[:12]}"
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=bucket)
    make_table(folder / "t", cases, **options)
    # Trino's "$history", which registration asks for the version, has the commits that say what they are.
    log = folder / "t" / "_delta_log" / f"{0:020}.json"
    log.write_text(f"{json.dumps(INFO)}\n{log.read_text(encoding='utf-8')}", encoding="utf-8")
    for path in (path for path in (folder / "t").rglob("*") if path.is_file()):
        s3.put_object(Bucket=bucket, Key=f"gold/{path.relative_to(folder).as_posix()}", Body=path.read_bytes())
    lake = Lake.at(f"s3://{bucket}/gold", aws)
    register_tables(aws, lake.root, ["t"], database=schema, trino_url=os.environ["TRINO_URL"])
    return sql.qualified(trino.name, schema, "t")


def told(value: Any) -> Any:
    """Return a value of Trino's client as `plain` takes it: a row becomes a map of its fields."""
    if isinstance(value, tuple):
        return {name: told(item) for name, item in zip(value.__annotations__["names"], value, strict=True)}
    if isinstance(value, list):
        return [told(item) for item in value]
    return {key: told(item) for key, item in value.items()} if isinstance(value, dict) else value


def lowered(value: Any) -> Any:
    """Return a value with the names of fields as Trino has them."""
    if isinstance(value, list):
        return [lowered(item) for item in value]
    if isinstance(value, Mapping):
        return {key.lower() if isinstance(key, str) else key: lowered(item) for key, item in value.items()}
    return value


def in_milliseconds(case: TypeCase) -> bool:
    """Return whether a column has instants, of which Trino's Delta connector keeps milliseconds, rounded.

    The last microsecond of the year 9999 is in the year 10000 then, which no Python value can be.
    """
    return any(isinstance(value, datetime.datetime) and value.tzinfo is not None for value in case.expected)


def selected(case: TypeCase) -> str:
    """Return what is asked for a column. A REAL comes as a short text, so it becomes a DOUBLE, which is exact."""
    quoted = sql.identifier(case.name)
    if in_milliseconds(case):
        return f"date_diff('millisecond', TIMESTAMP '1970-01-01 00:00:00 UTC', {quoted})"
    return f"CAST({quoted} AS double)" if case.duckdb_type == "FLOAT" else quoted


def expected(case: TypeCase) -> list[Any]:
    """Return the values that Trino is to find for that, without the nulls at the end of short columns."""
    if in_milliseconds(case):
        half = datetime.timedelta(microseconds=500)
        epoch, whole = datetime.datetime(1970, 1, 1, tzinfo=UTC), datetime.timedelta(milliseconds=1)
        return [None if value is None else (value - epoch + half) // whole for value in case.expected]
    return [plain(lowered(value)) for value in case.expected]


@pytest.mark.parametrize("table", TABLES)
def test_trino_reads_equal_values_of_every_type(tmp_path: Path, trino: TrinoCatalogue, schema: str, table: str) -> None:
    cases, options = TABLES[table]
    name = registered(tmp_path, trino, schema, cases, **options)
    columns = ", ".join(selected(case) for case in cases)
    rows = trino.run(f"SELECT {columns} FROM {name} ORDER BY id")  # noqa: S608 - quoted by runtime.sql
    found = {case.name: [plain(told(row[number])) for row in rows] for number, case in enumerate(cases)}
    assert found == {case.name: expected(case) + [None] * (len(rows) - len(case.expected)) for case in cases}
    assert len(rows) == max(len(case.values) for case in cases)


# A condition for each type that has bounds, how many of four files, a row each, Trino must look into, and the rows
# that it is to find. It takes no bounds from before the calendar reform of 1582, none that are infinite, and none of a
# decimal's last digits; NaN is greater than nothing.
PRUNED = {
    "tiny = 127": (1, [2]),
    "big = 9223372036854775807": (1, [2]),
    "utiny > 200": (1, [2]),
    "ubig > 5": (1, [2]),
    "huge < 0": (1, [0]),
    "cents = 0.01": (1, [1]),
    "rate > 0": (1, [0]),
    "wide < 0": (2, [0]),
    "twice < 0": (2, [2]),
    "unreal > 5": (1, []),
    "day = DATE '9999-12-31'": (3, [2]),
    "day = DATE '1582-10-10'": (2, [1]),
    "at = TIMESTAMP '1970-01-01 00:00:00 UTC'": (2, [1]),
    "second > TIMESTAMP '2024-01-01 00:00:00 UTC'": (1, [0]),
    "\"text\" > 'f'": (1, [2]),
    "\"text\" = 'Zoë'": (0, []),
    "size = 'small'": (1, [1]),
}


def test_trino_skips_the_files_that_the_statistics_rule_out_and_no_others(
    tmp_path: Path, trino: TrinoCatalogue, schema: str
) -> None:
    name = registered(tmp_path, trino, schema, SCALARS + NESTED, file_per_row=True)
    assert {where: scanned(name, where) for where in PRUNED} == PRUNED


def test_trino_skips_files_by_physical_names_with_column_mapping(
    tmp_path: Path, trino: TrinoCatalogue, schema: str
) -> None:
    name = registered(tmp_path, trino, schema, MAPPED, mapped=True, file_per_row=True)
    assert scanned(name, '"a b" = 5') == (1, [1])


def scanned(name: str, where: str) -> tuple[int, list[int]]:
    """Return how many files Trino reads for a condition, by its own account, and the rows' ids."""
    server = TrinoServer.at(os.environ["TRINO_URL"])
    connection = dbapi.connect(host=server.host, port=server.port or 8080, user=server.user)
    with contextlib.closing(connection), contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(f"SELECT id FROM {name} WHERE {where}")  # noqa: S608 - our own texts
        ids = sorted(row[0] for row in cursor.fetchall())
        # A query of one stage, without a sort: a split is a small file. With no file left there is one of nothing.
        assert not cursor.stats["rootStage"]["subStages"]
        return cursor.stats["totalSplits"] if cursor.stats["physicalInputBytes"] else 0, ids
