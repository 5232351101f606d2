"""Registration in a running Trino, whose Delta catalogue reads the emulator's S3."""

from __future__ import annotations

import os
import time
import uuid

import pytest

from runtime import delta
from runtime.aws import Connection
from runtime.delta import Lake
from runtime.errors import FailedError
from runtime.register import TrinoCatalog, register_tables

COMMAND = (
    "TRINO_URL=http://admin@127.0.0.1:8080/delta AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_REGION=us-east-1"
    " .venv/bin/pytest tests/trino -q"
)
pytestmark = pytest.mark.skipif(
    not os.environ.get("TRINO_URL"),
    reason=f"TRINO_URL is not set; with Trino and its S3 running: {COMMAND}",
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


def write_empty(lake: Lake, table: str) -> None:
    """Commit a Delta table without rows."""
    columns = [delta.column("id", "BIGINT"), delta.column("name", "VARCHAR")]
    options = lake.storage_options()
    delta.commit(
        lake.location(table),
        columns,
        [],
        export_id=uuid.uuid4().hex,
        options=options,
        info={},
        written_at_ms=time.time_ns() // 1_000_000,
    )


def register(lake: Lake, schema: str, *, replace: bool = False) -> str | None:
    """Register `fact` and return its state in Trino."""
    assert lake.aws is not None
    url = os.environ["TRINO_URL"]
    report = register_tables(lake.aws, lake.root, ["fact"], database=schema, trino_url=url, replace=replace)
    return report.tables[0].trino


def test_trino_lists_and_counts_a_registered_table(lake: Lake, schema: str) -> None:
    write_empty(lake, "fact")
    # A catalogue on the same Glue has the table already by then.
    assert register(lake, schema) in ("registered", "unchanged")
    assert register(lake, schema) == "unchanged"
    trino = TrinoCatalog.at(os.environ["TRINO_URL"])
    assert trino.count(schema, "fact") == 0
    assert trino.location(schema, "fact") == f"{lake.root}/fact"
    assert trino.run(f'DESCRIBE "{trino.name}"."{schema}"."fact"')[0][:2] == ("id", "bigint")


def test_trino_without_the_log_is_no_data_yet(lake: Lake, schema: str) -> None:
    assert register(lake, schema) == "no data yet"


def test_another_location_is_refused_and_replaced_on_demand(lake: Lake, schema: str) -> None:
    write_empty(lake, "fact")
    register(lake, schema)
    other = Lake(f"{lake.root}-other", lake.aws)
    write_empty(other, "fact")
    with pytest.raises(FailedError):
        register(other, schema)
    assert register(other, schema, replace=True) in ("replaced", "unchanged")
    assert TrinoCatalog.at(os.environ["TRINO_URL"]).location(schema, "fact") == f"{other.root}/fact"
