"""SQL over Delta tables on the S3 emulator and in a folder."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from local.process import free_port
from runtime import duck, sql
from runtime.aws import Connection
from runtime.delta import commit as delta_commit
from runtime.delta import types as delta_types
from runtime.delta.lake import Lake
from runtime.errors import ConfigurationError, FailedError, GoldlakeError, UnreachableError
from runtime.query import QueryResult, delta_tables, query


def write_table(lake: Lake, name: str, select: str, folder: Path) -> None:
    """Write a Delta table of one file with the rows of a SELECT with the column `id`."""
    source = folder / "part.parquet"
    connection = duck.connect()
    (rows,) = connection.execute(f"COPY ({select}) TO {sql.literal(str(source))} (FORMAT parquet)").fetchone() or (0,)
    connection.close()
    if lake.aws is None:
        Path(lake.location(name)).mkdir(parents=True)
        (Path(lake.location(name)) / source.name).write_bytes(source.read_bytes())
    else:
        key = lake.key(name, source.name)
        lake.aws.client("s3").upload_file(str(source), lake.bucket, key)
    file = delta_commit.DataFile(source.name, source.stat().st_size, rows, f'{{"numRecords":{rows}}}')
    fields = delta_types.schema_fields([delta_types.column("id", "BIGINT")])
    delta_commit.commit(lake, name, delta_commit.Change("overwrite", fields, [file], name), written_at_ms=1)


@pytest.fixture
def target(aws: Connection, lake_bucket: str, tmp_path: Path) -> str:
    """A prefix with two Delta tables, and Parquet files that are none."""
    lake = Lake.at(f"s3://{lake_bucket}/gold", aws)
    write_table(lake, "fact", "SELECT i AS id FROM range(5) r(i)", tmp_path)
    write_table(lake, "q\"uo't", "SELECT 7::BIGINT AS id", tmp_path)
    aws.client("s3").put_object(Bucket=lake_bucket, Key="gold/plain/x.parquet", Body=b"")
    return lake.root


def test_each_delta_table_is_a_view_in_schema_gold(aws: Connection, target: str) -> None:
    result = query(aws, target, 'SELECT count(*) AS n, max(q.id) AS m FROM gold.fact, gold."q""uo\'t" q')
    assert result == QueryResult(("n", "m"), ((5, 7),))


def test_a_table_is_found_without_its_schema_too(aws: Connection, target: str) -> None:
    assert query(aws, target, "SELECT sum(id) FROM fact WHERE id > 2").rows == ((7,),)


def test_folders_without_a_delta_log_are_no_tables(aws: Connection, target: str) -> None:
    assert delta_tables(Lake.at(target, aws)) == ["fact", "q\"uo't"]


def test_a_bucket_without_a_prefix_can_be_queried(aws: Connection, lake_bucket: str, tmp_path: Path) -> None:
    write_table(Lake.at(f"s3://{lake_bucket}", aws), "top", "SELECT 1::BIGINT AS id", tmp_path)
    assert query(aws, f"s3://{lake_bucket}", "FROM top").rows == ((1,),)


def test_a_local_folder_can_be_queried_without_a_connection(tmp_path: Path) -> None:
    write_table(Lake.at(str(tmp_path / "lake"), None), "fact", "SELECT 1::BIGINT AS id", tmp_path)
    assert query(None, str(tmp_path / "lake"), "FROM fact").rows == ((1,),)


def test_more_rows_than_the_limit_are_cut_and_said_so(aws: Connection, target: str) -> None:
    cut = query(aws, target, "FROM fact ORDER BY id", limit=2)
    assert (cut.rows, cut.truncated) == (((0,), (1,)), True)
    assert not query(aws, target, "FROM fact", limit=5).truncated
    assert len(query(aws, target, "FROM fact", limit=None).rows) == 5


@pytest.mark.parametrize("statement", ["SELEC 1", "FROM missing", "SELECT nope FROM fact", "SELECT 1; SELECT 2", ""])
def test_sql_that_cannot_be_run_is_a_usage_error(aws: Connection, target: str, statement: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        query(aws, target, statement)
    assert raised.value.exit_code == 64


def test_a_missing_bucket_is_a_failure_with_its_code(aws: Connection) -> None:
    with pytest.raises(FailedError) as raised:
        query(aws, "s3://nowhere-at-all/gold", "SELECT 1")
    assert raised.value.code == "NoSuchBucket"


def test_a_store_that_is_away_is_exit_code_2() -> None:
    away = Connection(f"http://127.0.0.1:{free_port()}", region="us-east-1")
    with pytest.raises(UnreachableError) as raised:
        query(away, "s3://lake/gold", "SELECT 1")
    assert raised.value.exit_code == 2


def test_keys_are_in_no_error(aws: Connection, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret holds what breaks careless quoting, and the emulator takes any key."""
    secret = "s3cr'et\\key\"x"
    options = {**aws.storage_options(), "AWS_SECRET_ACCESS_KEY": secret}
    monkeypatch.setattr(Connection, "storage_options", lambda _: options)
    for statement in ("FROM fact; SELEC", "FROM missing", "FROM read_parquet('s3://nowhere-at-all/x.parquet')"):
        with pytest.raises(GoldlakeError) as raised:
            query(aws, target, statement)
        assert secret not in "".join(traceback.format_exception(raised.value))
    listed = query(aws, target, "FROM duckdb_secrets()")
    assert secret not in repr(listed)
