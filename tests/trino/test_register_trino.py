"""Registration in a running Trino, whose Delta catalogue reads the emulator's S3.

Its etc/catalog/delta.properties, tried with Trino 476, for an emulator at http://127.0.0.1:4566:

    connector.name=delta_lake
    hive.metastore=glue
    hive.metastore.glue.endpoint-url=http://127.0.0.1:4566
    hive.metastore.glue.region=us-east-1
    hive.metastore.glue.aws-access-key=test
    hive.metastore.glue.aws-secret-key=test
    fs.native-s3.enabled=true
    s3.endpoint=http://127.0.0.1:4566
    s3.region=us-east-1
    s3.path-style-access=true
    s3.aws-access-key=test
    s3.aws-secret-key=test
    delta.register-table-procedure.enabled=true
    delta.metastore.store-table-metadata=true

With a metastore of its own (`hive.metastore=file` and `hive.metastore.catalog.dir=s3://<bucket>/<folder>` in place
of the Glue lines) the tests see the other half: tables that Trino does not share with Glue.
`hive.metastore-cache-ttl` stays at its default, 0s: with a cache Trino does not see new schemas for a while.
"""

from __future__ import annotations

import os
import time
import uuid

import pytest

from runtime.aws import Connection
from runtime.delta import commit as delta_commit
from runtime.delta import types as delta_types
from runtime.delta.lake import Lake
from runtime.errors import FailedError
from runtime.register import TrinoCatalog, register_tables

COMMAND = (
    "TRINO_URL=http://admin@127.0.0.1:8080/delta AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_REGION=us-east-1"
    " .venv/bin/pytest tests/trino -q"
)
pytestmark = pytest.mark.skipif(
    not os.environ.get("TRINO_URL"),
    reason=f"TRINO_URL is not set; with an emulator and a Trino as this file's first lines say: {COMMAND}",
)


@pytest.fixture
def lake() -> Lake:
    """A lake in a fresh bucket of the S3 that Trino reads."""
    aws = Connection.from_environment()
    bucket = f"lake-{uuid.uuid4().hex[:12]}"
    aws.client("s3").create_bucket(Bucket=bucket)
    return Lake.at(f"s3://{bucket}/gold", aws)


@pytest.fixture
def schema() -> str:
    """The name of a schema that is not there yet."""
    return f"gold_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def trino() -> TrinoCatalog:
    """The catalogue under test."""
    return TrinoCatalog.at(os.environ["TRINO_URL"])


def write_empty(lake: Lake, table: str, *names: str) -> None:
    """Commit a Delta table without rows, with a column `id` and text columns of these names."""
    columns = [delta_types.column("id", "BIGINT"), *(delta_types.column(name, "VARCHAR") for name in names)]
    options = lake.storage_options()
    delta_commit.commit(
        lake.location(table),
        columns,
        [],
        export_id=uuid.uuid4().hex,
        options=options,
        info={},
        written_at_ms=time.time_ns() // 1_000_000,
    )


def wipe(lake: Lake, table: str) -> None:
    """Delete all objects of a table."""
    assert lake.aws is not None
    s3 = lake.aws.client("s3")
    for item in s3.list_objects_v2(Bucket=lake.bucket, Prefix=lake.key(table, "") + "/")["Contents"]:
        s3.delete_object(Bucket=lake.bucket, Key=item["Key"])


def columns_in(trino: TrinoCatalog, schema: str) -> dict[str, str]:
    """Return names and types of the columns of `fact` as Trino has them."""
    return {row[0]: row[1] for row in trino.run(f'DESCRIBE "{trino.name}"."{schema}"."fact"')}


def register(lake: Lake, schema: str, *, replace: bool = False) -> str | None:
    """Register `fact` and return its state in Trino."""
    assert lake.aws is not None
    url = os.environ["TRINO_URL"]
    report = register_tables(lake.aws, lake.root, ["fact"], database=schema, trino_url=url, replace=replace)
    return report.tables[0].trino


def test_trino_lists_and_counts_a_registered_table(lake: Lake, schema: str, trino: TrinoCatalog) -> None:
    write_empty(lake, "fact", "name")
    # A catalogue on the same Glue has the table already by then.
    assert register(lake, schema) in ("registered", "unchanged")
    assert register(lake, schema) == "unchanged"
    assert trino.count(schema, "fact") == 0
    assert trino.location(schema, "fact") == f"{lake.root}/fact"
    assert columns_in(trino, schema) == {"id": "bigint", "name": "varchar"}


def test_trino_reads_what_was_registered_in_glue_only(lake: Lake, schema: str, trino: TrinoCatalog) -> None:
    assert lake.aws is not None
    write_empty(lake, "fact", "name")
    register_tables(lake.aws, lake.root, ["fact"], database=schema)
    if trino.location(schema, "fact") is None:
        pytest.skip("this Trino catalogue has a metastore of its own, not the emulator's Glue")
    assert trino.count(schema, "fact") == 0
    assert columns_in(trino, schema) == {"id": "bigint", "name": "varchar"}


def test_trino_without_the_log_is_no_data_yet(lake: Lake, schema: str) -> None:
    assert register(lake, schema) == "no data yet"


def test_another_location_is_refused_and_replaced_on_demand(lake: Lake, schema: str, trino: TrinoCatalog) -> None:
    write_empty(lake, "fact")
    register(lake, schema)
    other = Lake(f"{lake.root}-other", lake.aws)
    write_empty(other, "fact", "name")
    with pytest.raises(FailedError):
        register(other, schema)
    assert register(other, schema, replace=True) in ("replaced", "unchanged")
    assert trino.location(schema, "fact") == f"{other.root}/fact"
    assert list(columns_in(trino, schema)) == ["id", "name"]


def test_a_location_that_was_wiped_and_written_anew_is_read_anew(lake: Lake, schema: str, trino: TrinoCatalog) -> None:
    write_empty(lake, "fact", "before")
    register(lake, schema)
    assert list(columns_in(trino, schema)) == ["id", "before"]
    wipe(lake, "fact")
    # The same version and count, so that only the columns tell.
    write_empty(lake, "fact", "after")
    assert register(lake, schema) == "unchanged"
    assert list(columns_in(trino, schema)) == ["id", "after"]


def test_a_log_that_trino_missed_meanwhile_is_found_when_it_is_back(
    lake: Lake, schema: str, trino: TrinoCatalog
) -> None:
    write_empty(lake, "fact")
    register(lake, schema)
    wipe(lake, "fact")
    trino.flush(schema, "fact")
    assert trino.location(schema, "fact") == ""
    write_empty(lake, "fact")
    assert register(lake, schema) == "unchanged"


def test_a_table_whose_log_is_gone_is_replaced_on_demand(lake: Lake, schema: str, trino: TrinoCatalog) -> None:
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
