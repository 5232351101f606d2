"""CREATE TABLE … AS in Trino: types, the statement's text, and the staging table's log turned into files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import sql
from runtime.delta.commit import DataFile
from runtime.delta.lake import Lake
from runtime.delta.types import Column, type_text
from runtime.errors import ConfigurationError, FailedError
from runtime.export import ctas
from runtime.export.ctas import CtasEngine
from runtime.export.engine import Order, TablePlan
from runtime.trino import Rows, TrinoOptions
from tests.unit.memory_lake import MemoryLake, memory

EXPORT = "0f0e"
LOG = f"{EXPORT}/_delta_log/00000000000000000000.json"
ID, NAME = Column("id", "long", "bigint"), Column("name", "string", "varchar(25)")


def plan_of(*columns: Column, lake: Lake | None = None, **rest: Any) -> TablePlan:
    return TablePlan(schema="sf1", table="fact", lake=lake or memory(), export_id=EXPORT, columns=columns, **rest)


# --- the source ---


def test_a_source_names_server_catalogue_and_schema() -> None:
    server, schema = ctas.parse_source("trino://ann@127.0.0.1:8080/hive/silver%20two", TrinoOptions())
    assert (server.scheme, server.host, server.port, server.user) == ("http", "127.0.0.1", 8080, "ann")
    assert (server.catalog, schema) == ("hive", "silver two")


def test_a_password_goes_over_tls_only() -> None:
    server, _ = ctas.parse_source("trino+https://ann:s3cret@trino.example/hive/silver", TrinoOptions())
    assert (server.scheme, server.password) == ("https", "s3cret")
    with pytest.raises(ConfigurationError, match="over https only"):
        ctas.parse_source("trino://ann:s3cret@trino.example/hive/silver", TrinoOptions())


@pytest.mark.parametrize(
    "url", ["trino://h:8080/hive", "trino://h/a/b/c", "trino:h", "presto://h/a/b", "trino://h/a/b?x=1", "trino:///a/b"]
)
def test_a_source_of_another_form_is_refused_without_its_text(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ctas.parse_source(url, TrinoOptions())
    assert url not in caught.value.message


# --- types ---


@pytest.mark.parametrize(
    ("kind", "delta", "written"),
    [
        ("boolean", "boolean", '"c"'),
        ("tinyint", "tinyint", '"c"'),
        ("smallint", "smallint", '"c"'),
        ("integer", "int", '"c"'),
        ("bigint", "bigint", '"c"'),
        ("real", "float", '"c"'),
        ("double", "double", '"c"'),
        ("decimal(38,10)", "decimal(38,10)", '"c"'),
        ("varbinary", "binary", '"c"'),
        ("date", "date", '"c"'),
        ("varchar", "string", 'CAST("c" AS varchar)'),
        ("varchar(25)", "string", 'CAST("c" AS varchar)'),
        ("char(3)", "string", 'CAST("c" AS varchar)'),
        ("uuid", "string", 'CAST("c" AS varchar)'),
        ("json", "string", 'json_format("c")'),
        ("timestamp(3)", "timestamp", 'CAST("c" AS timestamp(6))'),
        ("timestamp(6)", "timestamp", 'CAST("c" AS timestamp(6))'),
        ("timestamp(6) with time zone", "timestamp", "CAST(at_timezone(\"c\", 'UTC') AS timestamp(6))"),
        ("array(varchar(3))", "array<string>", 'CAST("c" AS array(varchar))'),
        ("map(varchar, decimal(9,2))", "map<string,decimal(9,2)>", 'CAST("c" AS map(varchar, decimal(9, 2)))'),
        (
            'row(a integer, "b ""c" array(timestamp(0)))',
            'struct<a:int,b "c:array<timestamp>>',
            'CAST("c" AS row("a" integer, "b ""c" array(timestamp(6))))',
        ),
    ],
)
def test_each_type_has_one_delta_type_and_one_expression(kind: str, delta: str, written: str) -> None:
    column = ctas.column("c", kind)
    assert (type_text(column.type), ctas.expression(column)) == (delta, written)


@pytest.mark.parametrize(
    "kind",
    [
        "time(3)",
        "timestamp(9)",
        "timestamp(12) with time zone",
        "interval day to second",
        "ipaddress",
        "HyperLogLog",
        "array(json)",
        "array(timestamp(3) with time zone)",
        "row(integer)",
        "map(varchar, time(3))",
        "unknown",
    ],
)
def test_a_type_that_delta_does_not_have_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ctas.column("c", kind)
    assert f"column 'c' has type {kind}" in caught.value.message


# --- the statement ---


def test_the_table_is_written_below_the_target_in_a_folder_of_its_own() -> None:
    plan = plan_of(ID, NAME, partition_by=("name",))
    select = ctas.select_statement(plan, "tpch", [ID, NAME])
    assert select.startswith('SELECT "id" AS "id", CASE WHEN regexp_like(CAST("name" AS varchar), ')
    assert select.endswith(' END AS "name" FROM "tpch"."sf1"."fact"')
    assert ctas.create_statement(plan, ("delta", "goldlake_staging", "export_0f0e"), select) == (
        'CREATE TABLE "delta"."goldlake_staging"."export_0f0e"'
        f" WITH (location = 's3://lake/gold/fact/0f0e', partitioned_by = ARRAY['name']) AS {select}"
    )


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_any_lower_case_name_is_quoted(name: str) -> None:
    column = Column(name, "long", "bigint")
    physical = "col-1"
    select = ctas.select_statement(plan_of(column, physical={name: physical}), "tpch", [column])
    assert f'{sql.identifier(name)} AS "col-1" FROM' in select


def test_names_that_trino_would_fold_are_refused() -> None:
    column = Column("Id", "long", "bigint")
    with pytest.raises(ConfigurationError, match="lower case"):
        ctas.select_statement(plan_of(column), "tpch", [column])


def test_a_column_that_is_gone_or_another_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no column 'id'"):
        ctas.select_statement(plan_of(ID), "tpch", [])
    with pytest.raises(ConfigurationError, match="is string by Trino, and long was planned"):
        ctas.select_statement(plan_of(ID), "tpch", [Column("id", "string", "varchar")])
    at = Column("at", "timestamp_ntz")
    with pytest.raises(ConfigurationError, match="is timestamp by Trino, and timestamp_ntz was planned"):
        ctas.select_statement(plan_of(at), "tpch", [ctas.column("at", "timestamp(6)")])


# --- the staging table's log ---


def log_of(*adds: dict[str, Any]) -> bytes:
    """A log as Trino writes it: a line for each action."""
    others = [{"commitInfo": {"version": 0}}, {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}]
    return "\n".join(json.dumps(action) for action in [*others, *({"add": add} for add in adds)]).encode()


def add_of(path: str, size: int, stats: str, **rest: Any) -> dict[str, Any]:
    return {"path": path, "size": size, "partitionValues": {}, "stats": stats, "dataChange": True, **rest}


def test_adds_become_files_with_trinos_statistics_digit_by_digit() -> None:
    stats = (
        '{"numRecords":2,"minValues":{"id":1,"d":-0.10},'
        '"maxValues":{"id":9007199254740993,"d":1E+2},"nullCount":{"id":0}}'
    )
    plan = plan_of(ID, Column("d", "decimal(38,2)"))
    (file,) = ctas.data_files(plan, log_of(add_of("a%20b", 5, stats)), {"0f0e/a b": 5})
    assert file == DataFile("0f0e/a b", 5, 2, stats)


def test_times_in_statistics_get_the_form_of_deltas_timestamp() -> None:
    bounds = {"at": "2026-01-31T10:00:00.123456"}
    stats = json.dumps({"numRecords": 1, "minValues": bounds, "maxValues": bounds})
    plan = plan_of(Column("at", "timestamp"))
    (file,) = ctas.data_files(plan, log_of(add_of("a", 5, stats)), {"0f0e/a": 5})
    assert json.loads(file.stats) == {
        "numRecords": 1,
        "minValues": {"at": "2026-01-31T10:00:00.123Z"},
        "maxValues": {"at": "2026-01-31T10:00:00.124Z"},
    }


def test_long_texts_in_statistics_are_cut_without_losing_rows() -> None:
    stats = json.dumps({"numRecords": 1, "minValues": {"name": "a" * 40}, "maxValues": {"name": "a" * 40}})
    (file,) = ctas.data_files(plan_of(NAME), log_of(add_of("a", 5, stats)), {"0f0e/a": 5})
    found = json.loads(file.stats)
    assert (found["minValues"]["name"], found["maxValues"]["name"]) == ("a" * 32, "a" * 31 + "b")


def test_bounds_of_nested_columns_are_left_out() -> None:
    stats = '{"numRecords":1,"minValues":{"r":{"a":1}},"maxValues":{"r":{"a":1}}}'
    plan = plan_of(ctas.column("r", "row(a integer)"))
    (file,) = ctas.data_files(plan, log_of(add_of("a", 5, stats)), {"0f0e/a": 5})
    assert json.loads(file.stats) == {"numRecords": 1, "minValues": {}, "maxValues": {}}


def test_partition_values_have_the_columns_own_names() -> None:
    plan = plan_of(ID, NAME, partition_by=("name",), physical={"name": "col-7"})
    adds = [
        add_of("x", 5, '{"numRecords":1}', partitionValues={"col-7": "a/b"}),
        add_of("y", 6, '{"numRecords":2}', partitionValues={"col-7": None}),
        add_of("z", 7, '{"numRecords":3}', partitionValues={"col-7": "_xc3bc"}),
    ]
    files = ctas.data_files(plan, log_of(*adds), {"0f0e/x": 5, "0f0e/y": 6, "0f0e/z": 7})
    assert [dict(file.partition_values) for file in files] == [{"name": "a/b"}, {"name": None}, {"name": "ü"}]


def test_files_without_rows_are_left_out() -> None:
    assert ctas.data_files(plan_of(ID), log_of(add_of("a", 5, '{"numRecords":0}')), {"0f0e/a": 5}) == ()


@pytest.mark.parametrize("listed", [{}, {"0f0e/a": 4}])
def test_a_log_that_does_not_agree_with_the_files_is_refused(listed: Mapping[str, int]) -> None:
    with pytest.raises(FailedError, match="Trino says 5 bytes"):
        ctas.data_files(plan_of(ID), log_of(add_of("a", 5, '{"numRecords":1}')), listed)


@pytest.mark.parametrize("stats", [None, "{}"])
def test_a_file_without_a_row_count_is_refused(stats: str | None) -> None:
    with pytest.raises(FailedError, match="no row count"):
        ctas.data_files(plan_of(ID), log_of(add_of("a", 5, stats or "")), {"0f0e/a": 5})


# --- the engine ---


@dataclass
class FakeTrino:
    """A server that answers DESCRIBE and CREATE TABLE … AS, and keeps what it was asked."""

    lake: MemoryLake
    rows: int = 2
    content: bytes | None = None
    failure: BaseException | None = None
    catalog: str = "tpch"
    asked: list[tuple[str, float | None, Mapping[str, str]]] = field(default_factory=list)

    def run(self, statement: str, *, timeout: float | None = None, properties: Mapping[str, str] | None = None) -> Rows:
        self.asked.append((statement, timeout, dict(properties or {})))
        if statement.startswith("DESCRIBE"):
            return [("id", "bigint", "", "the key"), ("name", "varchar(25)", "", None)]
        if statement.startswith("CREATE TABLE"):
            self.lake.files[f"{EXPORT}/a"] = b"12345"
            if self.content is not None:
                self.lake.files[LOG] = self.content
            if self.failure is not None:
                raise self.failure
            return [(self.rows,)]
        return []

    @property
    def kinds(self) -> list[str]:
        """The statements' first words."""
        return [" ".join(statement.split()[:2]) for statement, _, _ in self.asked]


GOOD = log_of(add_of("a", 5, '{"numRecords":2}'))


def test_columns_come_with_types_and_comments() -> None:
    server = FakeTrino(memory())
    assert ctas.source_columns(server, "sf1", "fact") == (Column("id", "long", "bigint", "the key"), NAME)
    assert server.asked[0][0] == 'DESCRIBE "tpch"."sf1"."fact"'


def test_the_engine_leaves_the_files_and_nothing_in_trino() -> None:
    lake = memory()
    server = FakeTrino(lake, content=GOOD)
    files = CtasEngine(server=server, catalog="delta").stage(plan_of(ID, NAME, lake=lake))
    assert files == (DataFile("0f0e/a", 5, 2, '{"numRecords":2}'),)
    assert list(lake.files) == ["0f0e/a"]
    assert server.kinds[1:] == ["CREATE SCHEMA", "CREATE TABLE", 'CALL "delta".system.unregister_table(schema_name']
    assert server.asked[2][1:] == (
        0.0,
        {"delta.target_max_file_size": "256000000B", "delta.compression_codec": "ZSTD"},
    )


def test_the_sources_own_catalogue_is_written_through_when_no_other_is_named() -> None:
    lake = memory()
    server = FakeTrino(lake, content=GOOD, catalog="delta")
    CtasEngine(server=server).stage(plan_of(ID, NAME, lake=lake))
    assert server.asked[1][0] == 'CREATE SCHEMA IF NOT EXISTS "delta"."goldlake_staging"'


@pytest.mark.parametrize(
    ("server", "error", "message"),
    [
        ({"content": GOOD, "failure": FailedError("no")}, FailedError, "no"),
        ({"content": GOOD, "failure": KeyboardInterrupt("^C")}, KeyboardInterrupt, "C"),
        ({"content": GOOD, "rows": 3}, FailedError, "Trino answered 3 rows"),
        ({"content": None}, FailedError, "is not there"),
    ],
    ids=["refused", "ctrl-c", "rows", "elsewhere"],
)
def test_a_failure_leaves_nothing_behind(server: dict[str, Any], error: type[BaseException], message: str) -> None:
    lake = memory()
    lake.files["another/file"] = b""
    trino = FakeTrino(lake, **server)
    with pytest.raises(error, match=message):
        CtasEngine(server=trino, catalog="delta").stage(plan_of(ID, NAME, lake=lake))
    assert list(lake.files) == ["another/file"]
    assert trino.kinds[-1] == 'CALL "delta".system.unregister_table(schema_name'


def test_what_trino_cannot_write_so_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    server = FakeTrino(memory())
    engine = CtasEngine(server=server)
    at = Column("at", "timestamp")
    for plan, message in (
        (plan_of(ID, lake=Lake.at(str(tmp_path), None)), "writes to S3 only"),
        (plan_of(ID, order_by=(Order("id"),)), "ORDER BY"),
        (plan_of(ID, at, partition_by=("at",)), "no partitions by timestamp"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            engine.stage(plan)
    assert not server.asked
