"""Registration in the emulator's Glue catalogue; Trino is played by a catalogue in memory."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from local.process import free_port
from runtime import register
from runtime.aws import Connection
from runtime.delta import commit as delta_commit
from runtime.delta import types as delta_types
from runtime.delta.lake import Lake
from runtime.errors import ConfigurationError, FailedError, UnreachableError
from runtime.register import TableRegistration, TrinoCatalog, register_tables


def write_table(lake: Lake, name: str, columns: dict[str, str], rows: int = 0) -> None:
    """Commit a Delta table with that many rows by its log; registration reads no Parquet."""
    files = [delta_commit.DataFile(f"{time.time_ns()}.parquet", 1, rows, f'{{"numRecords":{rows}}}')] if rows else []
    delta_commit.commit(
        lake.location(name),
        [delta_types.column(column, kind, f"the {column}") for column, kind in columns.items()],
        files,
        export_id=str(time.time_ns()),
        options=lake.storage_options(),
        info={},
        written_at_ms=1,
    )


@pytest.fixture
def lake(aws: Connection, lake_bucket: str) -> Lake:
    """A lake with one table of three rows, and no Glue database."""
    lake = Lake.at(f"s3://{lake_bucket}/gold", aws)
    write_table(lake, "fact", {"id": "BIGINT", "Price": "DECIMAL(10,2)", "tags": "VARCHAR[]"}, rows=3)
    return lake


@pytest.fixture
def database(lake_bucket: str) -> str:
    """The name of a database that is not there yet."""
    return f"gold_{lake_bucket.replace('-', '_')}"


def entry(aws: Connection, database: str, table: str = "fact") -> dict[str, Any]:
    """Return Glue's entry."""
    found: dict[str, Any] = aws.client("glue").get_table(DatabaseName=database, Name=table)["Table"]
    return found


def only(aws: Connection, lake: Lake, database: str, **options: Any) -> TableRegistration:
    """Register the table `fact` and return what became of it."""
    (table,) = register_tables(aws, lake.root, ["fact"], database=database, **options).tables
    return table


def test_an_absent_table_is_registered_as_athena_and_trino_read_it(aws: Connection, lake: Lake, database: str) -> None:
    done = only(aws, lake, database)
    assert (done.state, done.version, done.rows) == ("registered", 0, 3)
    found = entry(aws, database)
    location = f"{lake.root}/fact"
    assert found["TableType"] == "EXTERNAL_TABLE"
    assert found["Parameters"]["spark.sql.sources.provider"] == "delta"
    assert "table_type" not in found["Parameters"]
    assert found["StorageDescriptor"]["Location"] == location
    assert found["StorageDescriptor"]["SerdeInfo"]["Parameters"]["path"] == location
    assert found["PartitionKeys"] == []
    assert found["StorageDescriptor"]["Columns"] == [
        {"Name": "id", "Type": "bigint", "Comment": "the id"},
        {"Name": "price", "Type": "decimal(10,2)", "Comment": "the Price"},
        {"Name": "tags", "Type": "array<string>", "Comment": "the tags"},
    ]


def test_the_same_location_again_changes_nothing(aws: Connection, lake: Lake, database: str) -> None:
    only(aws, lake, database)
    before = entry(aws, database)
    assert only(aws, lake, database).state == "unchanged"
    assert entry(aws, database) == before


def test_a_changed_schema_updates_the_columns_and_keeps_the_parameters_of_others(
    aws: Connection, lake: Lake, database: str
) -> None:
    only(aws, lake, database)
    found = entry(aws, database)
    keep = ("Name", "StorageDescriptor", "PartitionKeys", "TableType")
    theirs = {"Owner": "someone", "Parameters": {**found["Parameters"], "team": "gold"}}
    aws.client("glue").update_table(DatabaseName=database, TableInput={**{key: found[key] for key in keep}, **theirs})
    write_table(lake, "fact", {"id": "BIGINT", "name": "VARCHAR"}, rows=5)
    done = only(aws, lake, database)
    assert (done.state, done.version, done.rows) == ("updated", 1, 5)
    found = entry(aws, database)
    assert [column["Name"] for column in found["StorageDescriptor"]["Columns"]] == ["id", "name"]
    assert (found["Parameters"]["team"], found["Owner"]) == ("gold", "someone")


def test_another_location_is_a_failure_and_replace_changes_it(
    aws: Connection, lake: Lake, lake_bucket: str, database: str
) -> None:
    only(aws, lake, database)
    other = Lake.at(f"s3://{lake_bucket}/other", aws)
    write_table(other, "fact", {"id": "INTEGER"}, rows=1)
    with pytest.raises(FailedError, match=r"registered at s3://.*/gold/fact, not at s3://.*/other/fact") as raised:
        only(aws, other, database)
    assert raised.value.hint == "register with --replace to change its location"
    assert entry(aws, database)["StorageDescriptor"]["Location"] == f"{lake.root}/fact"
    done = only(aws, other, database, replace=True)
    assert (done.state, done.rows) == ("replaced", 1)
    assert entry(aws, database)["StorageDescriptor"]["SerdeInfo"]["Parameters"]["path"] == f"{other.root}/fact"


def test_nothing_is_written_when_one_of_the_tables_is_elsewhere(
    aws: Connection, lake: Lake, lake_bucket: str, database: str
) -> None:
    only(aws, lake, database)
    other = Lake.at(f"s3://{lake_bucket}/other", aws)
    write_table(other, "dim", {"id": "INTEGER"})
    write_table(other, "fact", {"id": "INTEGER"})
    with pytest.raises(FailedError):
        register_tables(aws, other.root, ["dim", "fact"], database=database)
    names = [table["Name"] for table in aws.client("glue").get_tables(DatabaseName=database)["TableList"]]
    assert names == ["fact"]


def test_a_location_that_differs_in_scheme_and_slash_only_is_the_same(
    aws: Connection, lake: Lake, database: str
) -> None:
    only(aws, lake, database)
    found = entry(aws, database)
    storage = found["StorageDescriptor"]
    storage["SerdeInfo"]["Parameters"]["path"] = f"{lake.root}/fact/".replace("s3://", "s3a://")
    keep = ("Name", "StorageDescriptor", "PartitionKeys", "TableType", "Parameters")
    aws.client("glue").update_table(DatabaseName=database, TableInput={key: found[key] for key in keep})
    assert only(aws, lake, database).state == "unchanged"


def test_a_table_without_a_log_is_a_warning_and_registers_after_the_first_export(
    aws: Connection, lake: Lake, database: str
) -> None:
    report = register_tables(aws, lake.root, ["later", "fact"], database=database)
    assert [(table.table, table.state) for table in report.tables] == [
        ("later", "no data yet"),
        ("fact", "registered"),
    ]
    assert report.tables[0].warning is not None
    assert "has no _delta_log" in report.tables[0].warning
    write_table(lake, "later", {"id": "BIGINT"})
    (table,) = register_tables(aws, lake.root, ["later"], database=database).tables
    assert (table.state, table.rows, table.warning) == ("registered", 0, None)


def test_a_dry_run_registers_nothing(aws: Connection, lake: Lake, database: str) -> None:
    assert only(aws, lake, database, dry_run=True).state == "registered"
    glue = aws.client("glue")
    with pytest.raises(glue.exceptions.EntityNotFoundException):
        glue.get_database(Name=database)


def test_a_name_with_quotes_is_registered_in_lower_case(aws: Connection, lake: Lake, database: str) -> None:
    write_table(lake, "q\"uo'TÉ", {'a"b.c': "INTEGER"})
    (table,) = register_tables(aws, lake.root, ["q\"uo'TÉ"], database=database).tables
    assert table.state == "registered"
    assert entry(aws, database, "q\"uo'té")["StorageDescriptor"]["Location"] == f"{lake.root}/q\"uo'TÉ"


def test_the_report_is_json_with_a_schema_version(aws: Connection, lake: Lake, database: str) -> None:
    report = json.loads(json.dumps(register_tables(aws, lake.root, ["fact"], database=database).to_dict()))
    assert (report["schema"], report["tables"][0]["rows"]) == ("goldlake.register/1", 3)


def test_a_local_folder_cannot_be_registered(aws: Connection, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs an S3 location"):
        register_tables(aws, str(tmp_path), ["fact"])


# --- Trino ---


@dataclass
class TrinoInMemory:
    """Answers the statements that the registration sends, as Trino 476 was seen to."""

    tables: dict[str, str] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    registered_meanwhile: str | None = None

    def __call__(self, statement: str) -> list[tuple[Any, ...]]:
        self.statements.append(statement)
        if statement.startswith("SHOW CREATE TABLE"):
            name = statement.rsplit('"', 2)[1]
            if name not in self.tables:
                raise FailedError("no such table", code="TABLE_NOT_FOUND")
            return [(f"CREATE TABLE delta.gold.{name} (id bigint)\nWITH (\n   location = '{self.tables[name]}'\n)",)]
        if statement.startswith("SELECT count(*)"):
            return [(self.counts.pop(0) if len(self.counts) > 1 else self.counts[0],)]
        if "register_table(" in statement:
            self._register(statement)
        return [(True,)]

    def _register(self, statement: str) -> None:
        """Register or unregister a table."""
        found = dict(re.findall(r"(\w+) => '([^']*)'", statement))
        if "unregister_table" in statement:
            del self.tables[found["table_name"]]
            return
        if self.registered_meanwhile is not None:
            self.tables[found["table_name"]] = self.registered_meanwhile
            raise FailedError("Table already exists", code="ALREADY_EXISTS")
        self.tables[found["table_name"]] = found["table_location"]


def in_trino(
    memory: TrinoInMemory, monkeypatch: pytest.MonkeyPatch, aws: Connection, lake: Lake, database: str, **more: Any
) -> TableRegistration:
    """Register `fact` in Glue and in the Trino in memory."""
    monkeypatch.setattr(TrinoCatalog, "at", lambda _: TrinoCatalog("delta", memory))
    return only(aws, lake, database, trino_url="http://admin@127.0.0.1:8080/delta", **more)


def test_trino_registers_an_absent_table_and_counts_as_the_log(
    monkeypatch: pytest.MonkeyPatch, aws: Connection, lake: Lake, database: str
) -> None:
    memory = TrinoInMemory(counts=[3])
    assert in_trino(memory, monkeypatch, aws, lake, database).trino == "registered"
    assert memory.tables == {"fact": f"{lake.root}/fact"}
    assert f'CREATE SCHEMA IF NOT EXISTS "delta"."{database}"' in memory.statements
    assert in_trino(memory, monkeypatch, aws, lake, database).trino == "unchanged"


def test_trino_with_another_location_is_a_failure_and_replace_changes_it(
    monkeypatch: pytest.MonkeyPatch, aws: Connection, lake: Lake, database: str
) -> None:
    memory = TrinoInMemory(tables={"fact": "s3://other/fact"}, counts=[3])
    with pytest.raises(FailedError, match=r"Trino has .* at s3://other/fact"):
        in_trino(memory, monkeypatch, aws, lake, database)
    assert in_trino(memory, monkeypatch, aws, lake, database, replace=True).trino == "replaced"
    assert memory.tables == {"fact": f"{lake.root}/fact"}


def test_a_table_that_appears_in_trino_meanwhile_is_as_good_when_its_location_is_the_same(
    monkeypatch: pytest.MonkeyPatch, aws: Connection, lake: Lake, database: str
) -> None:
    same = TrinoInMemory(counts=[3], registered_meanwhile=f"{lake.root}/fact")
    assert in_trino(same, monkeypatch, aws, lake, database).trino == "registered"
    other = TrinoInMemory(counts=[3], registered_meanwhile="s3://other/fact")
    with pytest.raises(FailedError, match="s3://other/fact"):
        in_trino(other, monkeypatch, aws, lake, database)


def test_a_wrong_count_has_one_more_try_without_trinos_cache(
    monkeypatch: pytest.MonkeyPatch, aws: Connection, lake: Lake, database: str
) -> None:
    memory = TrinoInMemory(counts=[2, 3])
    assert in_trino(memory, monkeypatch, aws, lake, database).trino == "registered"
    assert any("flush_metadata_cache" in statement for statement in memory.statements)
    with pytest.raises(FailedError, match="Trino counts 2 rows"):
        in_trino(TrinoInMemory(counts=[2]), monkeypatch, aws, lake, database)


def test_a_dry_run_only_asks_trino(monkeypatch: pytest.MonkeyPatch, aws: Connection, lake: Lake, database: str) -> None:
    memory = TrinoInMemory()
    assert in_trino(memory, monkeypatch, aws, lake, database, dry_run=True).trino == "registered"
    assert all(statement.startswith("SHOW CREATE TABLE") for statement in memory.statements)


def test_a_trino_that_is_away_is_exit_code_2(aws: Connection, lake: Lake, database: str) -> None:
    url = f"http://admin@127.0.0.1:{free_port()}/delta"
    with pytest.raises(UnreachableError) as raised:
        only(aws, lake, database, trino_url=url)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    "url",
    [
        "trino://127.0.0.1/delta",
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8080/delta/gold",
        "http://127.0.0.1:port/delta",
        "http://admin:hidden@127.0.0.1:8080/delta",
    ],
)
def test_an_unusable_trino_url_is_a_usage_error_that_shows_no_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        TrinoCatalog.at(url)
    assert "hidden" not in raised.value.message


def test_a_disabled_procedure_is_named_with_its_property() -> None:
    message = "Failed to execute: register_table procedure is disabled"
    error = register._query_error("Trino", "PERMISSION_DENIED", message)
    assert isinstance(error, ConfigurationError)
    assert error.hint is not None
    assert "delta.register-table-procedure.enabled=true" in error.hint
