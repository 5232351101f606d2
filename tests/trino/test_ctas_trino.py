"""CREATE TABLE … AS in a running Trino, committed by Goldlake, read back by readers that are not the writer.

conftest.py says which Trino. Views, for types that no Delta table has, are in its catalogue `iceberg`.
"""

from __future__ import annotations

import datetime
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from deltalake import DeltaTable

from runtime import sql
from runtime.delta import commit as delta_commit
from runtime.delta import types as delta_types
from runtime.delta.commit import Change, Committed
from runtime.delta.lake import Lake
from runtime.errors import ConfigurationError, FailedError
from runtime.export import ctas
from runtime.export.ctas import CtasEngine
from runtime.export.engine import TablePlan
from runtime.query import query
from runtime.trino import TrinoServer

TYPED = """
SELECT true AS flag, TINYINT '1' AS tiny, SMALLINT '2' AS small, 3 AS whole, BIGINT '9007199254740993' AS id,
    REAL '0.1' AS ratio, DOUBLE '0.1' AS score, DECIMAL '12345678901234567890123456.78' AS price,
    CAST('abc' AS char(5)) AS code, 'Zoë 日本 "q" ''s''' AS name, X'00ff' AS raw, DATE '2024-02-29' AS day,
    TIMESTAMP '2024-02-29 12:00:00.123456' AS local_at,
    TIMESTAMP '2024-02-29 12:00:00.123456 +02:00' AS at,
    UUID '00000000-0000-0000-0000-000000000001' AS key, JSON '{"a": [1]}' AS doc,
    ARRAY['a', NULL] AS tags, MAP(ARRAY['x'], ARRAY[DECIMAL '1.50']) AS prices,
    CAST(ROW(1, TIMESTAMP '2024-02-29 12:00:00.123456') AS ROW(a integer, seen timestamp(6))) AS nested
"""


@pytest.fixture
def trino() -> TrinoServer:
    """A server with its Delta catalogue."""
    return TrinoServer.at(os.environ["TRINO_URL"])


@pytest.fixture
def tpch() -> TrinoServer:
    """The same server with the catalogue of sample data."""
    return TrinoServer.at(os.environ["TRINO_URL"].rpartition("/")[0] + "/tpch")


@dataclass(frozen=True)
class Views:
    """A schema for views, and the server with its catalogue."""

    server: TrinoServer
    schema: str

    def create(self, name: str, query: str) -> None:
        """Create a view."""
        self.server.run(f"CREATE VIEW {sql.qualified(self.server.catalog, self.schema, name)} AS {query}")


@pytest.fixture
def silver() -> Views:
    """A schema for views in the catalogue `iceberg`."""
    server = TrinoServer.at(os.environ["TRINO_URL"].rpartition("/")[0] + "/iceberg")
    views = Views(server, f"silver_{uuid.uuid4().hex[:8]}")
    try:
        server.run(f"CREATE SCHEMA {sql.qualified(server.catalog, views.schema)}")
    except ConfigurationError as exc:
        pytest.skip(exc.message)
    return views


@dataclass(frozen=True)
class Exporter:
    """Stages tables through Trino and commits them."""

    lake: Lake
    catalog: str

    def export(
        self, server: TrinoServer, schema: str, table: str, *, mode: Any = "overwrite", by: Sequence[str] = ()
    ) -> Committed:
        """Export a table, partitioned `by` columns."""
        columns = ctas.source_columns(server, schema, table)
        plan = TablePlan(
            schema=schema,
            table=table,
            lake=self.lake,
            export_id=uuid.uuid4().hex,
            columns=columns,
            partition_by=tuple(by),
        )
        change = Change(
            mode=mode,
            fields=delta_types.schema_fields(columns),
            files=CtasEngine(server=server, catalog=self.catalog).stage(plan),
            export_id=plan.export_id,
            partition_columns=tuple(by),
        )
        return delta_commit.commit(self.lake, table, change, written_at_ms=time.time_ns() // 1_000_000)


@pytest.fixture
def exporter(lake: Lake, trino: TrinoServer) -> Exporter:
    """Writes through the catalogue under test."""
    return Exporter(lake, trino.catalog)


def staged_tables(trino: TrinoServer) -> list[Any]:
    """Return what is left in the staging schema."""
    return trino.run(f"SHOW TABLES FROM {sql.qualified(trino.catalog, ctas.STAGING_SCHEMA)}")


def log_of(lake: Lake, table: str) -> DeltaTable:
    """Return the table as delta-rs reads it."""
    return DeltaTable(lake.location(table), storage_options=lake.storage_options())


def register(trino: TrinoServer, lake: Lake, schema: str, table: str) -> None:
    """Make the table known to Trino."""
    trino.run(f"CREATE SCHEMA IF NOT EXISTS {sql.qualified(trino.catalog, schema)}")
    trino.run(
        f"CALL {sql.identifier(trino.catalog)}.system.register_table(schema_name => {sql.literal(schema)},"
        f" table_name => {sql.literal(table)}, table_location => {sql.literal(lake.location(table))})"
    )


def rows_of(lake: Lake, table: str, where: str = "") -> list[tuple[Any, ...]]:
    """Return the table's rows as DuckDB's delta extension reads them."""
    return list(query(lake.aws, lake.root, f'FROM gold."{table}" {where}', limit=None).rows)


def test_trino_writes_and_others_read_the_same_rows(exporter: Exporter, tpch: TrinoServer, trino: TrinoServer) -> None:
    done = exporter.export(tpch, "tiny", "orders")
    assert (done.rows, done.created) == (15000, True)
    assert log_of(exporter.lake, "orders").version() == 0
    found = rows_of(exporter.lake, "orders", "ORDER BY orderkey")
    expected = tpch.run("SELECT * FROM tpch.tiny.orders ORDER BY orderkey")
    assert [row[:3] for row in found] == [row[:3] for row in expected]
    assert staged_tables(trino) == []


def test_the_log_has_partitions_rows_and_bounds(exporter: Exporter, tpch: TrinoServer) -> None:
    exporter.export(tpch, "tiny", "nation", by=["regionkey"])
    table = log_of(exporter.lake, "nation")
    assert table.metadata().partition_columns == ["regionkey"]
    actions = table.get_add_actions(flatten=True)
    assert sorted(actions.column("partition.regionkey").to_pylist()) == [0, 1, 2, 3, 4]
    assert actions.column("num_records").to_pylist() == [5] * 5
    assert min(actions.column("min.nationkey").to_pylist()) == 0
    assert len(rows_of(exporter.lake, "nation", "WHERE regionkey = 3")) == 5


def test_every_mode_of_the_commit_is_there(exporter: Exporter, tpch: TrinoServer) -> None:
    assert exporter.export(tpch, "tiny", "region", mode="error").rows == 5
    assert exporter.export(tpch, "tiny", "region", mode="append").rows == 10
    ignored = exporter.export(tpch, "tiny", "region", mode="ignore")
    assert (ignored.rows, ignored.written) == (10, False)
    assert exporter.export(tpch, "tiny", "region", mode="overwrite").rows == 5
    with pytest.raises((FailedError, ConfigurationError)):
        exporter.export(tpch, "tiny", "region", mode="error")


def test_every_type_comes_back_equal(exporter: Exporter, silver: Views, trino: TrinoServer) -> None:
    silver.create("typed", TYPED)
    exporter.export(silver.server, silver.schema, "typed")
    moment = datetime.datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=datetime.UTC)
    (row,) = rows_of(exporter.lake, "typed")
    assert row == (
        *(True, 1, 2, 3, 9007199254740993),
        *(pytest.approx(0.1, rel=1e-6), 0.1, Decimal("12345678901234567890123456.78")),
        *("abc  ", "Zoë 日本 \"q\" 's'", b"\x00\xff", datetime.date(2024, 2, 29)),
        # Without zone it is taken as UTC; with one it is the same moment, to the microsecond.
        moment,
        moment.replace(hour=10),
        *("00000000-0000-0000-0000-000000000001", '{"a":[1]}'),
        *(["a", None], {"x": Decimal("1.50")}, {"a": 1, "seen": moment}),
    )
    assert log_of(exporter.lake, "typed").protocol().min_reader_version == 1
    # Trino itself reads them through the table's own log as well, times to the millisecond as it does.
    gold = f"gold_{silver.schema}"
    register(trino, exporter.lake, gold, "typed")
    (again,) = trino.run(f"TABLE {sql.qualified(trino.catalog, gold, 'typed')}")
    assert again[4:12] == (row[4], again[5], *row[6:12])
    assert again[12:14] == (moment.replace(microsecond=123000), moment.replace(hour=10, microsecond=123000))


def test_a_view_without_rows_is_an_empty_table_with_its_schema(exporter: Exporter, silver: Views) -> None:
    silver.create("none", "SELECT 1 AS id WHERE false")
    done = exporter.export(silver.server, silver.schema, "none")
    assert (done.rows, done.files) == (0, 0)
    assert rows_of(exporter.lake, "none") == []
    names = [file.name for file in exporter.lake.list_files("none") if not file.name.startswith("_delta_log/")]
    assert names == []


def test_odd_partition_values_are_those_of_the_rows(exporter: Exporter, silver: Views) -> None:
    values = ["plain", "a/b", "a%20b", "with space", "ü=ü", "__HIVE_DEFAULT_PARTITION__", "_x61", "two\n", "+"]
    rows = ", ".join(f"({index}, {sql.literal(value)})" for index, value in enumerate(values))
    silver.create("odd", f"SELECT * FROM (VALUES {rows}, ({len(values)}, NULL)) AS t (id, kind)")  # noqa: S608 - texts above
    exporter.export(silver.server, silver.schema, "odd", by=["kind"])
    assert rows_of(exporter.lake, "odd", "ORDER BY id") == list(enumerate([*values, None]))
    actions = log_of(exporter.lake, "odd").get_add_actions(flatten=True)
    assert sorted(filter(None, actions.column("partition.kind").to_pylist())) == sorted(values)


def test_a_refused_query_leaves_nothing_behind(exporter: Exporter, silver: Views, trino: TrinoServer) -> None:
    silver.create("bad", "SELECT 1 / (x - 1) AS id FROM (VALUES 1) AS t (x)")
    with pytest.raises(FailedError, match="DIVISION_BY_ZERO"):
        exporter.export(silver.server, silver.schema, "bad")
    assert list(exporter.lake.list_files("bad")) == []
    assert staged_tables(trino) == []


def test_a_catalogue_that_is_no_delta_one_is_refused(lake: Lake, tpch: TrinoServer) -> None:
    with pytest.raises((ConfigurationError, FailedError)):
        Exporter(lake, "tpch").export(tpch, "tiny", "region")
    assert list(lake.list_files("region")) == []


def test_tables_of_a_schema_are_listed_with_their_kind(tpch: TrinoServer, silver: Views) -> None:
    silver.create("v", "SELECT 1 AS id")
    assert ctas.source_tables(silver.server, silver.schema) == {"v": False}
    assert ctas.source_tables(tpch, "tiny")["nation"] is True
    assert ctas.source_tables(tpch, "nowhere") == {}
