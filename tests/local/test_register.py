"""Registration in the emulator's Glue catalogue; Trino is played by a catalogue in memory."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner

from local.process import free_port
from runtime.aws import Connection
from runtime.delta import commit as delta_commit
from runtime.delta import types as delta_types
from runtime.delta.lake import Lake
from runtime.errors import ConfigurationError, FailedError, UnreachableError
from runtime.register import StaleEntry, TableRegistration, TrinoCatalogue, audit, prune, register_tables
from runtime.register_cli import register as register_command
from runtime.trino import TrinoOptions, TrinoServer


def write_table(lake: Lake, name: str, columns: dict[str, str], rows: int = 0, description: str | None = None) -> None:
    """Commit a Delta table with that many rows by its log; registration reads no Parquet."""
    files = [delta_commit.DataFile(f"{time.time_ns()}.parquet", 1, rows, f'{{"numRecords":{rows}}}')] if rows else []
    fields = delta_types.schema_fields(
        [delta_types.column(column, kind, f"the {column}") for column, kind in columns.items()]
    )
    change = delta_commit.Change(
        "overwrite", fields, files, uuid.uuid4().hex, schema_mode="overwrite", description=description
    )
    delta_commit.commit(lake, name, change, written_at_ms=1)


def write_iceberg(aws: Connection, lake: Lake, name: str, *versions: int) -> None:
    """Put the metadata files of an Iceberg table; registration reads nothing else."""
    for version in versions:
        metadata = {
            "format-version": 2,
            "location": lake.location(name),
            "current-schema-id": 0,
            "schemas": [{"schema-id": 0, "fields": [{"id": 1, "name": "Id", "type": "long", "doc": "the id"}]}],
            "current-snapshot-id": 7,
            "snapshots": [{"snapshot-id": 7, "summary": {"total-records": str(version)}}],
        }
        key = lake.key(name, f"metadata/{version:05}-{uuid.uuid4()}.metadata.json")
        aws.client("s3").put_object(Bucket=lake.bucket, Key=key, Body=json.dumps(metadata).encode())


def wipe(aws: Connection, lake: Lake, name: str) -> None:
    """Delete all objects of a table."""
    s3 = aws.client("s3")
    for item in s3.list_objects_v2(Bucket=lake.bucket, Prefix=lake.key(name, "") + "/")["Contents"]:
        s3.delete_object(Bucket=lake.bucket, Key=item["Key"])


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
    assert (report["schema"], report["tables"][0]["rows"]) == ("goldlake.register/2", 3)


def test_a_local_folder_cannot_be_registered(aws: Connection, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs an S3 location"):
        register_tables(aws, str(tmp_path), ["fact"])


def test_a_changed_comment_of_the_table_is_followed(aws: Connection, lake: Lake, database: str) -> None:
    write_table(lake, "fact", {"id": "BIGINT"}, 1, description="before")
    only(aws, lake, database)
    assert entry(aws, database)["Description"] == "before"
    write_table(lake, "fact", {"id": "BIGINT"}, 1, description="after")
    assert only(aws, lake, database).state == "updated"
    assert entry(aws, database)["Description"] == "after"


def test_without_names_all_tables_below_the_target_are_registered(aws: Connection, lake: Lake, database: str) -> None:
    write_table(lake, "dim", {"id": "BIGINT"})
    write_iceberg(aws, lake, "ice", 1)
    aws.client("s3").put_object(Bucket=lake.bucket, Key=lake.key("notes", "readme.txt"), Body=b"no table")
    report = register_tables(aws, lake.root, None, database=database)
    assert {table.table: (table.state, table.format) for table in report.tables} == {
        "dim": ("registered", "delta"),
        "fact": ("registered", "delta"),
        "ice": ("registered", "iceberg"),
    }
    assert {table.state for table in register_tables(aws, lake.root, None, database=database).tables} == {"unchanged"}


def test_tables_that_differ_in_case_only_are_refused(aws: Connection, lake: Lake, database: str) -> None:
    with pytest.raises(ConfigurationError, match="differ in case only"):
        register_tables(aws, lake.root, ["fact", "FACT"], database=database)


# --- Iceberg ---


def test_an_iceberg_table_is_registered_with_its_newest_metadata_file(
    aws: Connection, lake: Lake, database: str
) -> None:
    write_iceberg(aws, lake, "ice", 2, 10, 9)
    (table,) = register_tables(aws, lake.root, ["ice"], database=database).tables
    assert (table.state, table.format, table.rows) == ("registered", "iceberg", 10)
    found = entry(aws, database, "ice")
    assert found["Parameters"]["table_type"] == "ICEBERG"
    assert "/metadata/00010-" in found["Parameters"]["metadata_location"]
    assert found["StorageDescriptor"]["Location"] == f"{lake.root}/ice"
    assert found["StorageDescriptor"]["Columns"] == [{"Name": "id", "Type": "bigint", "Comment": "the id"}]


def test_a_newer_metadata_file_is_pointed_to_on_demand_only(aws: Connection, lake: Lake, database: str) -> None:
    write_iceberg(aws, lake, "ice", 1)
    register_tables(aws, lake.root, ["ice"], database=database)
    write_iceberg(aws, lake, "ice", 2)
    (table,) = register_tables(aws, lake.root, ["ice"], database=database).tables
    assert table.state == "unchanged"
    assert "the newest is" in str(table.warning)
    (table,) = register_tables(aws, lake.root, ["ice"], database=database, replace=True).tables
    assert table.state == "updated"
    assert "/metadata/00002-" in entry(aws, database, "ice")["Parameters"]["metadata_location"]


# --- orphans, and entries without data ---


def test_data_without_entry_and_entries_without_data_are_reported_and_the_latter_removed(
    aws: Connection, lake: Lake, database: str
) -> None:
    write_table(lake, "gone", {"id": "BIGINT"})
    register_tables(aws, lake.root, ["fact", "gone"], database=database)
    aws.client("glue").create_table(
        DatabaseName=database,
        TableInput={"Name": "plain", "StorageDescriptor": {"Location": f"{lake.root}/plain", "Columns": []}},
    )
    write_table(lake, "new", {"id": "BIGINT"})
    wipe(aws, lake, "gone")
    orphans, stale = audit(aws, lake.root, database=database)
    assert orphans == (f"{lake.root}/new",)
    # An entry of another format is none of ours.
    assert stale == (StaleEntry("glue", "gone", f"{lake.root}/gone"),)
    assert prune(aws, lake.root, stale, database=database) == stale
    names = [table["Name"] for table in aws.client("glue").get_tables(DatabaseName=database)["TableList"]]
    assert sorted(names) == ["fact", "plain"]


def test_an_entry_whose_data_came_back_before_the_answer_is_kept(aws: Connection, lake: Lake, database: str) -> None:
    register_tables(aws, lake.root, ["fact"], database=database)
    wipe(aws, lake, "fact")
    _, stale = audit(aws, lake.root, database=database)
    write_table(lake, "fact", {"id": "BIGINT"})
    assert prune(aws, lake.root, stale, database=database) == ()
    assert entry(aws, database)["Name"] == "fact"


def test_a_bucket_that_is_gone_is_an_error_and_no_reason_to_remove_entries(
    aws: Connection, lake: Lake, database: str
) -> None:
    register_tables(aws, lake.root, ["fact"], database=database)
    wipe(aws, lake, "fact")
    aws.client("s3").delete_bucket(Bucket=lake.bucket)
    try:
        with pytest.raises(FailedError):
            audit(aws, lake.root, database=database)
    finally:
        aws.client("s3").create_bucket(Bucket=lake.bucket)


# --- the command ---


def test_the_command_needs_no_stack_with_target_and_database(aws: Connection, lake: Lake, database: str) -> None:
    place = ["--target", lake.root, "--database", database, "--output", "json"]
    account = ["--endpoint-url", str(aws.endpoint_url), "--region", str(aws.region)]
    ended = CliRunner().invoke(register_command, ["--all", *place, *account], catch_exceptions=False)
    report = json.loads(ended.stdout)
    assert (ended.exit_code, report["schema"]) == (0, "goldlake.register/2")
    assert [(table["table"], table["state"]) for table in report["tables"]] == [("fact", "registered")]
    wipe(aws, lake, "fact")
    ended = CliRunner().invoke(register_command, ["fact", *place, *account], catch_exceptions=False)
    assert json.loads(ended.stdout)["tables"][0]["state"] == "no data yet"
    ended = CliRunner().invoke(register_command, ["--prune", "--dry-run", *place, *account], catch_exceptions=False)
    assert [item["table"] for item in json.loads(ended.stdout)["stale"]] == ["fact"]
    assert entry(aws, database)["Name"] == "fact"
    ended = CliRunner().invoke(register_command, ["--prune", "--yes", *place, *account], catch_exceptions=False)
    assert json.loads(ended.stdout)["pruned"] is True
    assert audit(aws, lake.root, database=database) == ((), ())


# --- Trino ---


@dataclass
class TrinoInMemory:
    """A catalogue with a metastore of its own, which sees every table as its log is."""

    tables: set[str] = field(default_factory=set)
    statements: list[str] = field(default_factory=list)

    def __call__(self, statement: str) -> list[tuple[Any, ...]]:
        self.statements.append(statement)
        if "information_schema" in statement:
            return [(name,) for name in self.tables]
        if "register_table(" in statement:
            if "table_name => ''" in statement:
                raise FailedError("no name", code="INVALID_PROCEDURE_ARGUMENT")
            self.tables.add("fact")
        return []


def test_what_trino_was_seen_to_have_is_kept_in_glue_and_asked_by_name_only(
    monkeypatch: pytest.MonkeyPatch, aws: Connection, lake: Lake, database: str
) -> None:
    memory = TrinoInMemory()
    monkeypatch.setattr(TrinoServer, "run", lambda _self, statement: memory(statement))
    monkeypatch.setattr("runtime.register.trino_ensure.agrees", lambda *_: True)
    url = "http://admin@trino:8080/delta"
    assert only(aws, lake, database, trino_url=url).trino == "registered"
    assert "goldlake.trino.trino:8080.delta" in entry(aws, database)["Parameters"]
    before = len(memory.statements)
    assert only(aws, lake, database, trino_url=url).trino == "unchanged"
    assert len(memory.statements) == before + 1
    # A new version is looked at closely, once.
    write_table(lake, "fact", {"id": "BIGINT"}, rows=4)
    only(aws, lake, database, trino_url=url)
    assert len(memory.statements) == before + 3
    only(aws, lake, database, trino_url=url)
    assert len(memory.statements) == before + 4


def test_a_trino_that_is_away_is_exit_code_2(aws: Connection, lake: Lake, database: str) -> None:
    url = f"http://admin@127.0.0.1:{free_port()}/delta"
    with pytest.raises(UnreachableError) as raised:
        only(aws, lake, database, trino_url=url)
    assert raised.value.exit_code == 2


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_trino_that_does_not_answer_is_given_up_within_the_time_out(silent_port: int) -> None:
    trino = TrinoCatalogue.at(f"http://me@127.0.0.1:{silent_port}/delta", TrinoOptions(timeout=0.5))
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"within 0\.5 s") as raised:
        trino.names("gold")
    assert time.monotonic() - started < 3
    assert raised.value.exit_code == 2


class SlowTrino(BaseHTTPRequestHandler):
    """A Trino whose metastore is down: it says that it is still planning until `down` is said, if ever."""

    polls_until_error: int | None = None
    seen: ClassVar[list[str]] = []

    def answer(self) -> None:
        self.seen.append(self.command)
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        here = f"http://{self.headers['Host']}/v1/statement/executing/1"
        body: dict[str, Any] = {"id": "1", "infoUri": here, "nextUri": here, "stats": {"state": "PLANNING"}}
        if self.polls_until_error is not None and self.seen.count("GET") >= self.polls_until_error:
            error = {"errorName": "HIVE_METASTORE_ERROR", "errorType": "EXTERNAL", "message": "Failed connecting"}
            body = {**body, "nextUri": None, "error": error}
        content = json.dumps(body).encode()
        self.send_response(204 if self.command == "DELETE" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(0 if self.command == "DELETE" else len(content)))
        self.end_headers()
        if self.command != "DELETE":
            self.wfile.write(content)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the base class's names

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def slow_trino(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a Trino that is planning for ever."""
    monkeypatch.setattr(SlowTrino, "seen", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowTrino) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://me@127.0.0.1:{server.server_address[1]}/delta"
        server.shutdown()
        thread.join()


def test_a_statement_that_takes_too_long_is_given_up_and_cancelled(slow_trino: str) -> None:
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"within 0\.5 s"):
        TrinoServer.at(slow_trino, TrinoOptions(timeout=0.5)).run("SHOW SCHEMAS")
    assert time.monotonic() - started < 3
    assert SlowTrino.seen[-1] == "DELETE"


def test_a_metastore_that_is_down_is_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, slow_trino: str, aws: Connection, lake: Lake, database: str
) -> None:
    monkeypatch.setattr(SlowTrino, "polls_until_error", 3)
    with pytest.raises(UnreachableError, match="Failed connecting") as raised:
        only(aws, lake, database, trino_url=slow_trino)
    assert (raised.value.exit_code, raised.value.code) == (2, "HIVE_METASTORE_ERROR")
