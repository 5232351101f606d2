"""The engine `unload` on an S3 emulator: the SELECT of its UNLOAD is run by DuckDB, which stands in for Redshift.

Files lie as UNLOAD leaves them (a folder for each partition, numbered parts, a verbose manifest) and are committed by
Goldlake; DuckDB's delta extension and delta-rs read them back. That Redshift takes the statement itself is not shown
here.
"""

from __future__ import annotations

import datetime
import json
import re
import time
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, QueryBuilder

from runtime import duck, sql
from runtime.aws import Connection
from runtime.delta import commit as delta_commit
from runtime.delta import log as delta_log
from runtime.delta import types as delta_types
from runtime.delta.commit import Change, Committed
from runtime.delta.lake import Lake
from runtime.delta.types import Column
from runtime.errors import AccessDeniedError, FailedError
from runtime.export import unload
from runtime.export.engine import TablePlan
from runtime.export.unload import DataApi, UnloadEngine
from runtime.query import query

ROLE = "arn:aws:iam::123456789012:role/goldlake-unload"
UTC = datetime.UTC
# Redshift's functions that DuckDB does not have.
MACROS = """
CREATE MACRO json_serialize(value) AS CAST(value AS varchar);
CREATE MACRO to_varbyte(value, form) AS encode(value);
CREATE MACRO from_varbyte(value, form) AS lower(hex(value));
CREATE SCHEMA gold;
"""
# DuckDB's names of types -> information_schema's in Redshift.
NAMES = {"VARCHAR": "character varying", "DOUBLE": "double precision", "FLOAT": "real", "JSON": "super"}
NAMES |= {"TIMESTAMP": "timestamp without time zone", "TIMESTAMP WITH TIME ZONE": "timestamp with time zone"}


@dataclass
class StandIn:
    """The Data API's client, on a DuckDB that has the tables."""

    aws: Connection
    folder: Path
    error: str | None = None
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.duckdb = duck.connect()
        self.duckdb.execute(MACROS)

    def execute_statement(self, **request: Any) -> dict[str, Any]:
        identifier = str(uuid.uuid4())
        statement = request["Sql"]
        self.answers[identifier] = {"Id": identifier, "Status": "FINISHED"}
        if statement.startswith("UNLOAD"):
            self._unload(statement)
            if self.error:
                self.answers[identifier] |= {"Status": "FAILED", "Error": self.error}
        return {"Id": identifier}

    def describe_statement(self, **request: Any) -> dict[str, Any]:
        return self.answers[request["Id"]]

    def get_paginator(self, _: str) -> StandIn:
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        """Give the columns of the only table."""
        rows = self.duckdb.execute("SELECT column_name, data_type FROM duckdb_columns() WHERE schema_name = 'gold'")
        return [{"Records": [self._column(*row) for row in rows.fetchall()]}]

    def _column(self, name: str, kind: str) -> list[dict[str, Any]]:
        decimal = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", kind)
        texts = [name, "numeric" if decimal else NAMES.get(kind, kind.lower())]
        numbers = [None, *map(int, decimal.groups())] if decimal else [None] * 3
        fields: list[dict[str, Any]] = [{"stringValue": text} for text in texts]
        counts: list[dict[str, Any]] = [{"isNull": True} if item is None else {"longValue": item} for item in numbers]
        return fields + counts

    def _unload(self, statement: str) -> None:
        """Write the files of an UNLOAD as Redshift does, and its manifest."""
        parts = re.match(
            r"UNLOAD \(('(?:[^']|'')*')\) TO 's3://([^/]+)/([^']*)'(?:.*PARTITION BY (\(.*?\)))?", statement
        )
        assert parts is not None
        select, bucket, prefix, partitions = parts[1][1:-1].replace("''", "'"), parts[2], parts[3], parts[4]
        folder = self.folder / uuid.uuid4().hex
        by = f", PARTITION_BY {partitions}" if partitions else ", PER_THREAD_OUTPUT"
        written = self.duckdb.execute(
            f"COPY ({select}) TO {sql.literal(str(folder))}"
            f" (FORMAT parquet, RETURN_STATS, FILENAME_PATTERN '0000_part_{{i}}'{by})"
        ).fetchall()
        columns = self.duckdb.execute(f"SELECT column_name, column_type FROM (DESCRIBE {select})").fetchall()  # noqa: S608 - ours
        entries: list[dict[str, Any]] = []
        s3 = self.aws.client("s3")
        for path, rows, size, *_ in written:
            key = prefix + Path(path).relative_to(folder).as_posix()
            s3.put_object(Bucket=bucket, Key=key, Body=Path(path).read_bytes())
            entries.append({"url": f"s3://{bucket}/{key}", "meta": {"content_length": size, "record_count": rows}})
        total = {key: sum(entry["meta"][key] for entry in entries) for key in ("content_length", "record_count")}
        elements = [{"name": name, "type": {"base": NAMES.get(kind, kind.lower())}} for name, kind in columns]
        manifest = {"entries": entries, "schema": {"elements": elements}, "meta": total}
        s3.put_object(Bucket=bucket, Key=f"{prefix}manifest", Body=json.dumps(manifest).encode())


@dataclass(frozen=True)
class Warehouse:
    """A stand-in for Redshift, and a lake to export to."""

    redshift: StandIn
    lake: Lake

    def export(self, *columns: Column, mode: Any = "overwrite", by: tuple[str, ...] = ()) -> Committed:
        """Export gold.fact."""
        plan = TablePlan(
            schema="gold",
            table="fact",
            lake=self.lake,
            export_id=uuid.uuid4().hex,
            columns=columns,
            partition_by=by,
        )
        api = DataApi(client=self.redshift, workgroup="gold", database="analytics")
        files = UnloadEngine(api=api, role=ROLE).stage(plan)
        fields = delta_types.schema_fields(columns)
        change = Change(mode=mode, fields=fields, files=files, export_id=plan.export_id, partition_columns=by)
        return delta_commit.commit(self.lake, "fact", change, written_at_ms=time.time_ns() // 1_000_000)

    def rows(self, where: str = "") -> list[tuple[Any, ...]]:
        """Return the table as DuckDB's delta extension reads it."""
        return list(query(self.lake.aws, self.lake.root, f"FROM gold.fact {where}", limit=None).rows)

    def log(self) -> DeltaTable:
        """Return the table as delta-rs reads it."""
        return DeltaTable(self.lake.location("fact"), storage_options=self.lake.storage_options())

    def leftovers(self) -> set[str]:
        """Return the files that are neither of the log nor in it."""
        names = {file.name for file in self.lake.list_files("fact") if not file.name.startswith("_delta_log/")}
        table = delta_log.open_table(self.lake.location("fact"), self.lake.storage_options())
        committed = set() if table is None else set(table.file_uris())
        return {name for name in names if f"{self.lake.location('fact')}/{name}" not in committed}


@pytest.fixture
def warehouse(aws: Connection, lake_bucket: str, tmp_path: Path) -> Warehouse:
    return Warehouse(StandIn(aws, tmp_path), Lake.at(f"s3://{lake_bucket}/gold", aws))


ID, NAME = Column("id", "long"), Column("name", "string")


def test_rows_that_were_unloaded_are_the_tables_rows(warehouse: Warehouse) -> None:
    warehouse.redshift.duckdb.execute(
        "CREATE TABLE gold.fact AS SELECT i AS id, 'row ''' || i AS name FROM range(10000) t(i)"
    )
    done = warehouse.export(ID, NAME)
    assert (done.rows, done.created) == (10000, True)
    assert warehouse.rows("ORDER BY id") == [(index, f"row '{index}") for index in range(10000)]
    assert sum(warehouse.log().get_add_actions().column("num_records").to_pylist()) == 10000
    assert warehouse.leftovers() == set()


def test_an_overwrite_replaces_the_rows_and_an_append_adds_some(warehouse: Warehouse) -> None:
    warehouse.redshift.duckdb.execute("CREATE TABLE gold.fact AS SELECT CAST(1 AS bigint) AS id, 'a' AS name")
    warehouse.export(ID, NAME)
    assert warehouse.export(ID, NAME, mode="append").rows == 2
    assert warehouse.export(ID, NAME).rows == 1
    assert warehouse.rows() == [(1, "a")]


def test_every_type_comes_back_equal(warehouse: Warehouse) -> None:
    warehouse.redshift.duckdb.execute("""CREATE TABLE gold.fact AS SELECT
        CAST(1 AS smallint) AS small, CAST(2 AS integer) AS whole, CAST(9007199254740993 AS bigint) AS id,
        CAST('12345678901234567890.12' AS decimal(38, 2)) AS price, CAST(0.5 AS float) AS ratio,
        CAST(0.1 AS double) AS score, true AS remote, DATE '2024-02-29' AS day,
        TIMESTAMP '2024-02-29 12:00:00.123456' AS local_at,
        TIMESTAMPTZ '2024-02-29 12:00:00.123456+02' AS at, 'Zoë 日本 ''s''' AS name, CAST('{"a": 1}' AS json) AS doc
        UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL""")
    kinds = ["short", "integer", "long", "decimal(38,2)", "float", "double", "boolean", "date", "timestamp"]
    names = ["small", "whole", "id", "price", "ratio", "score", "remote", "day", "local_at", "at", "name", "doc"]
    columns = [Column(name, kind) for name, kind in zip(names, [*kinds, "timestamp", "string", "string"], strict=True)]
    warehouse.export(*columns)
    moment = datetime.datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)
    expected = (
        *(1, 2, 9007199254740993, Decimal("12345678901234567890.12"), 0.5, 0.1, True, datetime.date(2024, 2, 29)),
        *(moment, moment.replace(hour=10), "Zoë 日本 's'", '{"a": 1}'),
    )
    assert warehouse.rows("ORDER BY id NULLS LAST") == [expected, (None,) * 12]
    # delta-rs' own scan is another reader of Parquet's times without zone.
    scan = (
        QueryBuilder().register("t", warehouse.log()).execute("SELECT local_at, at FROM t WHERE id = 9007199254740993")
    )
    found = scan.read_all()
    assert [found.column(name).to_pylist() for name in ("local_at", "at")] == [[moment], [moment.replace(hour=10)]]


def test_partitions_with_odd_texts_nulls_and_flags_come_back_equal(warehouse: Warehouse) -> None:
    texts = ["NL", "a/b", "a%20b", "with space", "ü=ü", "_x61", "two\nlines", "-", None]
    run = warehouse.redshift.duckdb.execute
    run("CREATE TABLE gold.fact (id bigint, country varchar, remote boolean, day date)")
    rows = [
        (index, text, None if text is None else index % 2 == 0, datetime.date(2026, 1, 1 + index % 2))
        for index, text in enumerate(texts)
    ]
    for row in rows:
        run("INSERT INTO gold.fact VALUES (?, ?, ?, ?)", list(row))
    columns = [ID, Column("country", "string"), Column("remote", "boolean"), Column("day", "date")]
    warehouse.export(*columns, by=("country", "remote", "day"))
    assert warehouse.rows("ORDER BY id") == rows
    found = warehouse.log().get_add_actions(flatten=True).column("partition.country").to_pylist()
    assert sorted(filter(None, found)) == sorted(filter(None, texts))


def test_a_table_without_rows_is_an_empty_table_with_its_schema(warehouse: Warehouse) -> None:
    warehouse.redshift.duckdb.execute("CREATE TABLE gold.fact (id bigint, name varchar)")
    done = warehouse.export(ID, NAME)
    assert (done.rows, done.files) == (0, 0)
    assert warehouse.rows() == []
    assert [item.name for item in warehouse.log().schema().fields] == ["id", "name"]
    assert warehouse.leftovers() == set()


def test_a_failed_unload_leaves_the_old_version_and_no_files(warehouse: Warehouse) -> None:
    warehouse.redshift.duckdb.execute("CREATE TABLE gold.fact AS SELECT CAST(1 AS bigint) AS id, 'a' AS name")
    warehouse.export(ID, NAME)
    warehouse.redshift.error = "ERROR: S3ServiceException:Access Denied,Status 403,Error AccessDenied,Rid 0"
    with pytest.raises(AccessDeniedError):
        warehouse.export(ID, NAME)
    assert warehouse.log().version() == 0
    assert warehouse.rows() == [(1, "a")]
    assert warehouse.leftovers() == set()


def test_a_file_that_changed_after_its_manifest_is_not_committed(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.redshift.duckdb.execute("CREATE TABLE gold.fact AS SELECT CAST(1 AS bigint) AS id, 'a' AS name")
    read = unload.read_manifest

    def changed(content: bytes, where: str) -> unload.Manifest:
        return read(content.replace(b'"content_length": ', b'"content_length": 1'), where)

    monkeypatch.setattr(unload, "read_manifest", changed)
    with pytest.raises(FailedError, match="the manifest says"):
        warehouse.export(ID, NAME)
    assert warehouse.leftovers() == set()
