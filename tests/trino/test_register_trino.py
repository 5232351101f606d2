"""Registration in a running Trino, whose Delta catalogue reads the emulator's S3.

Which Trino, and which of its catalogues, is in conftest.py: one that shares the emulator's Glue and one with a
metastore of its own, so that the tests see both halves.
"""

from __future__ import annotations

import os
import time
import uuid

import pytest
from arro3.core import Array, DataType, Table
from deltalake import write_deltalake

from runtime import sql
from runtime.delta import commit as delta_commit
from runtime.delta import types as delta_types
from runtime.delta.lake import Lake
from runtime.errors import ConfigurationError, FailedError
from runtime.register import TrinoCatalogue, audit, prune, register_tables
from runtime.register.lake_tables import LakeTable, newest_metadata
from runtime.trino import Rows, TrinoServer


@pytest.fixture
def schema() -> str:
    """The name of a schema that is not there yet."""
    return f"gold_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def trino() -> TrinoCatalogue:
    """The catalogue under test."""
    return TrinoCatalogue.at(os.environ["TRINO_URL"])


def write_empty(lake: Lake, table: str, *names: str) -> None:
    """Commit a Delta table without rows, with a column `id` and text columns of these names."""
    columns = [delta_types.column("id", "BIGINT"), *(delta_types.column(name, "VARCHAR") for name in names)]
    fields = delta_types.schema_fields(columns)
    change = delta_commit.Change("overwrite", fields, [], uuid.uuid4().hex, schema_mode="overwrite")
    delta_commit.commit(lake, table, change, written_at_ms=time.time_ns() // 1_000_000)


def write_rows(lake: Lake, table: str, rows: int, description: str | None = None) -> None:
    """Append rows to a Delta table, by another writer than ours."""
    content = Table({"id": Array(list(range(rows)), type=DataType.int64())})
    write_deltalake(
        lake.location(table),
        content,
        mode="append",
        description=description,
        storage_options=lake.storage_options(),
    )


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is sent to Trino."""
    sent: list[str] = []
    run = TrinoServer.run

    def recorded(self: TrinoServer, statement: str) -> Rows:
        sent.append(statement)
        return run(self, statement)

    monkeypatch.setattr(TrinoServer, "run", recorded)
    return sent


def wipe(lake: Lake, table: str) -> None:
    """Delete all objects of a table."""
    assert lake.aws is not None
    s3 = lake.aws.client("s3")
    for item in s3.list_objects_v2(Bucket=lake.bucket, Prefix=lake.key(table, "") + "/")["Contents"]:
        s3.delete_object(Bucket=lake.bucket, Key=item["Key"])


def columns_in(trino: TrinoCatalogue, schema: str) -> dict[str, str]:
    """Return names and types of the columns of `fact` as Trino has them."""
    return {row[0]: row[1] for row in trino.run(f'DESCRIBE "{trino.name}"."{schema}"."fact"')}


def rows_of(trino: TrinoCatalogue, schema: str, table: str) -> Rows:
    """Return a table's rows in order."""
    return trino.run(f"SELECT * FROM {sql.qualified(trino.name, schema, table)} ORDER BY 1")  # noqa: S608 - as quoted


def register(lake: Lake, schema: str, *, replace: bool = False) -> str | None:
    """Register `fact` and return its state in Trino."""
    assert lake.aws is not None
    url = os.environ["TRINO_URL"]
    report = register_tables(lake.aws, lake.root, ["fact"], database=schema, trino_url=url, replace=replace)
    return report.tables[0].trino


def test_trino_lists_and_counts_a_registered_table(lake: Lake, schema: str, trino: TrinoCatalogue) -> None:
    write_empty(lake, "fact", "name")
    # A catalogue on the same Glue has the table already by then.
    assert register(lake, schema) in ("registered", "unchanged")
    assert register(lake, schema) == "unchanged"
    assert trino.count(schema, "fact") == 0
    assert trino.location(schema, "fact") == f"{lake.root}/fact"
    assert columns_in(trino, schema) == {"id": "bigint", "name": "varchar"}


def test_trino_reads_what_was_registered_in_glue_only(lake: Lake, schema: str, trino: TrinoCatalogue) -> None:
    assert lake.aws is not None
    write_empty(lake, "fact", "name")
    register_tables(lake.aws, lake.root, ["fact"], database=schema)
    if trino.location(schema, "fact") is None:
        pytest.skip("this Trino catalogue has a metastore of its own, not the emulator's Glue")
    assert trino.count(schema, "fact") == 0
    assert columns_in(trino, schema) == {"id": "bigint", "name": "varchar"}


def test_trino_without_the_log_is_no_data_yet(lake: Lake, schema: str) -> None:
    assert register(lake, schema) == "no data yet"


def test_another_location_is_refused_and_replaced_on_demand(lake: Lake, schema: str, trino: TrinoCatalogue) -> None:
    write_empty(lake, "fact")
    register(lake, schema)
    other = Lake(f"{lake.root}-other", lake.aws)
    write_empty(other, "fact", "name")
    with pytest.raises(FailedError):
        register(other, schema)
    assert register(other, schema, replace=True) in ("replaced", "unchanged")
    assert trino.location(schema, "fact") == f"{other.root}/fact"
    assert list(columns_in(trino, schema)) == ["id", "name"]


def test_a_location_that_was_wiped_and_written_anew_is_read_anew(
    lake: Lake, schema: str, trino: TrinoCatalogue
) -> None:
    write_empty(lake, "fact", "before")
    register(lake, schema)
    assert list(columns_in(trino, schema)) == ["id", "before"]
    wipe(lake, "fact")
    # The same version and count, so that only the columns tell.
    write_empty(lake, "fact", "after")
    assert register(lake, schema) == "unchanged"
    assert list(columns_in(trino, schema)) == ["id", "after"]


def test_a_log_that_trino_missed_meanwhile_is_found_when_it_is_back(
    lake: Lake, schema: str, trino: TrinoCatalogue
) -> None:
    write_empty(lake, "fact")
    register(lake, schema)
    wipe(lake, "fact")
    trino.flush(schema, "fact")
    assert trino.location(schema, "fact") == ""
    write_empty(lake, "fact")
    assert register(lake, schema) == "unchanged"


def test_a_table_whose_log_is_gone_is_replaced_on_demand(lake: Lake, schema: str, trino: TrinoCatalogue) -> None:
    write_empty(lake, "fact")
    register(lake, schema)
    wipe(lake, "fact")
    trino.flush(schema, "fact")
    other = Lake(f"{lake.root}-other", lake.aws)
    write_empty(other, "fact")
    with pytest.raises(FailedError):
        register(other, schema)
    assert register(other, schema, replace=True) in ("replaced", "unchanged")
    assert trino.location(schema, "fact") == f"{other.root}/fact"


def test_a_re_run_without_changes_takes_one_statement_whatever_the_number_of_tables(
    lake: Lake, schema: str, statements: list[str]
) -> None:
    assert lake.aws is not None
    for number in range(12):
        write_rows(lake, f"t{number}", 3)
    url = os.environ["TRINO_URL"]
    register_tables(lake.aws, lake.root, None, database=schema, trino_url=url)
    statements.clear()
    again = register_tables(lake.aws, lake.root, None, database=schema, trino_url=url)
    assert {table.trino for table in again.tables} == {"unchanged"}
    assert len(statements) == 1
    # A close look at all of them is two.
    statements.clear()
    register_tables(lake.aws, lake.root, None, database=schema, trino_url=url, verify=True)
    assert len(statements) == 3


def test_an_append_of_another_writer_is_seen_in_one_look(
    lake: Lake, schema: str, trino: TrinoCatalogue, statements: list[str]
) -> None:
    write_rows(lake, "fact", 3)
    register(lake, schema)
    write_rows(lake, "fact", 4)
    statements.clear()
    assert register(lake, schema) == "unchanged"
    assert len(statements) == 2
    assert trino.count(schema, "fact") == 7


def test_files_that_trino_remembers_of_a_wiped_location_are_forgotten(
    lake: Lake, schema: str, trino: TrinoCatalogue
) -> None:
    write_rows(lake, "fact", 3)
    register(lake, schema)
    assert rows_of(trino, schema, "fact") == [(0,), (1,), (2,)]
    wipe(lake, "fact")
    write_rows(lake, "fact", 5)
    assert register(lake, schema) == "unchanged"
    assert rows_of(trino, schema, "fact") == [(0,), (1,), (2,), (3,), (4,)]


def test_the_logs_comment_is_shown_by_trino(lake: Lake, schema: str, trino: TrinoCatalogue) -> None:
    write_rows(lake, "fact", 3, description="one row a day")
    register(lake, schema)
    (row,) = trino.run(f'SHOW CREATE TABLE "{trino.name}"."{schema}"."fact"')
    assert "COMMENT 'one row a day'" in row[0]


def test_the_schema_is_made_with_the_lakes_location(lake: Lake, schema: str, trino: TrinoCatalogue) -> None:
    write_rows(lake, "fact", 3)
    register(lake, schema)
    (row,) = trino.run(f'SHOW CREATE SCHEMA "{trino.name}"."{schema}"')
    assert f"location = '{lake.root}'" in row[0]


def test_entries_whose_data_is_gone_are_found_in_trino_too_and_removed(
    lake: Lake, schema: str, trino: TrinoCatalogue
) -> None:
    assert lake.aws is not None
    write_rows(lake, "fact", 3)
    write_rows(lake, "gone", 3)
    url = os.environ["TRINO_URL"]
    register_tables(lake.aws, lake.root, None, database=schema, trino_url=url)
    wipe(lake, "gone")
    _, stale = audit(lake.aws, lake.root, database=schema, trino_url=url)
    assert {(entry.catalogue, entry.table) for entry in stale} == {("glue", "gone"), (trino.name, "gone")}
    prune(lake.aws, lake.root, stale, database=schema, trino_url=url)
    assert trino.names(schema) == {"fact"}
    assert audit(lake.aws, lake.root, database=schema, trino_url=url) == ((), ())


def test_files_in_folders_of_partitions_are_recognised(lake: Lake, schema: str) -> None:
    assert lake.aws is not None
    values = ("a b", "ü%", "x/y", "q'=:+#", None, "100%25")
    for number, value in enumerate(values):
        content = Table({"k": Array([value], type=DataType.utf8()), "id": Array([1], type=DataType.int64())})
        location, options = lake.location(f"t{number}"), lake.storage_options()
        write_deltalake(location, content, partition_by=["k"], storage_options=options)
    url = os.environ["TRINO_URL"]
    for _ in range(2):
        report = register_tables(lake.aws, lake.root, None, database=schema, trino_url=url, verify=True)
    assert {table.trino for table in report.tables} == {"unchanged"}


def other_catalogue(name: str) -> str:
    """Return the URL of another catalogue of the server under test; skip where it has none of this name."""
    server = os.environ["TRINO_URL"].rpartition("/")[0]
    found = TrinoCatalogue.at(f"{server}/system").run("SHOW CATALOGS")
    if (name,) not in found:
        pytest.skip(f"this Trino has no catalogue {name}")
    return f"{server}/{name}"


def test_a_catalogue_of_another_connector_is_said_to_be_one(lake: Lake, schema: str) -> None:
    assert lake.aws is not None
    write_rows(lake, "fact", 3)
    for name, connector in (("tpch", "tpch"), ("iceberg", "iceberg")):
        with pytest.raises(ConfigurationError, match=f"of the connector {connector}, not of delta_lake"):
            TrinoCatalogue.at(other_catalogue(name)).check_usable(schema)


@pytest.fixture
def iceberg(schema: str, lake: Lake) -> TrinoCatalogue:
    """The catalogue of the Iceberg connector, with a table `ice` that no catalogue knows any more."""
    trino = TrinoCatalogue.at(other_catalogue("iceberg"), kind="iceberg")
    trino.ensure_schema(schema, lake.root)
    trino.run(
        f'CREATE TABLE "{trino.name}"."{schema}".ice WITH (location = \'{lake.root}/ice\')'
        " AS SELECT 1 AS id, 'a' AS name"
    )
    trino.unregister(schema, "ice")
    assert trino.names(schema) == set()
    return trino


def test_an_iceberg_table_is_registered_and_read(lake: Lake, schema: str, iceberg: TrinoCatalogue) -> None:
    assert lake.aws is not None
    url = other_catalogue("iceberg")
    (table,) = register_tables(lake.aws, lake.root, None, database=schema, iceberg_trino_url=url).tables
    # A catalogue on the same Glue has the table already by then.
    assert (table.format, table.trino in ("registered", "unchanged"), table.rows) == ("iceberg", True, 1)
    assert rows_of(iceberg, schema, "ice") == [(1, "a")]
    (table,) = register_tables(lake.aws, lake.root, None, database=schema, iceberg_trino_url=url).tables
    assert (table.state, table.trino) == ("unchanged", "unchanged")


def test_an_iceberg_table_is_registered_by_trinos_procedure(lake: Lake, schema: str, iceberg: TrinoCatalogue) -> None:
    assert lake.aws is not None
    table = register_tables(lake.aws, lake.root, None, database=schema, dry_run=True).tables[0]
    metadata = newest_metadata(lake, "ice", lake.aws.client("s3"))
    iceberg.check_usable(schema)
    iceberg.register(schema, LakeTable("ice", table.location, "iceberg", metadata_location=f"s3://x/{metadata}"))
    assert iceberg.count(schema, "ice") == 1
