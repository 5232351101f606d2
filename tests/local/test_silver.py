"""Sample, load and check against an emulated S3 and Glue."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from arro3.core import Array, DataType, Table
from deltalake import DeltaTable, write_deltalake

from local.process import free_port
from runtime import glue, parquet, readiness
from runtime.aws import Connection
from runtime.errors import ConfigurationError, FailedError, UnreachableError
from runtime.load import load
from runtime.readiness import SourceTable
from runtime.sample import write_sample
from runtime.silver import COMPANIES, JOB_POSTINGS, SILVER_TABLES, SilverTable

UNTIL = datetime(2026, 1, 15, tzinfo=UTC)
SOURCES = [SourceTable(table.database, table.name) for table in SILVER_TABLES]


def objects(aws: Connection, bucket: str) -> dict[str, str]:
    """Return key and ETag of all objects."""
    pages = aws.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {item["Key"]: item["ETag"] for page in pages for item in page.get("Contents", [])}


def rows(aws: Connection, bucket: str, table: SilverTable, tmp_path: Path, columns: str = "*") -> list[tuple[Any, ...]]:
    """Return the rows of all files of a table, file by file."""
    found: list[tuple[Any, ...]] = []
    for file in parquet.list_files(aws, bucket, table.prefix()):
        path = tmp_path / f"{uuid.uuid4().hex}.parquet"
        aws.client("s3").download_file(bucket, file.key, str(path))
        with duckdb.connect() as database:
            found += database.execute(f"SELECT {columns} FROM read_parquet(?)", [str(path)]).fetchall()  # noqa: S608
    return found


def states(report: readiness.ReadinessReport) -> dict[str, str]:
    """Return each table's state."""
    return {table.table: table.state for table in report.tables}


def companies_csv(tmp_path: Path, *ids: str) -> Path:
    """Write a CSV of companies."""
    lines = ["company_id,name,industry,size_band,headquarters,website,updated_at"]
    path = tmp_path / f"companies-{'-'.join(ids)}.csv"
    path.write_text("\n".join([*lines, *(f"{name},N,,,,,2026-01-01" for name in ids)]) + "\n")
    return path


# --- sample ---


def test_a_sample_makes_all_silver_tables_ready(aws: Connection, lake_bucket: str) -> None:
    assert states(readiness.check(aws, SOURCES)) == dict.fromkeys((table.full_name for table in SOURCES), "missing")
    report = write_sample(aws, lake_bucket, rows=1000)
    assert {table.glue for table in report.tables} == {"created"}
    check = readiness.check(aws, SOURCES)
    assert check.exit_code == 0
    assert [table.rows for table in check.tables] == [table.rows for table in report.tables]
    assert check.tables[0].rows == 1000
    assert all(table.exact and table.age_seconds is not None for table in check.tables)


def test_the_same_sample_again_changes_nothing(aws: Connection, lake_bucket: str, tmp_path: Path) -> None:
    write_sample(aws, lake_bucket, rows=500, until=UNTIL)
    before = (set(objects(aws, lake_bucket)), rows(aws, lake_bucket, JOB_POSTINGS, tmp_path))
    again = write_sample(aws, lake_bucket, rows=500, until=UNTIL)
    assert (set(objects(aws, lake_bucket)), rows(aws, lake_bucket, JOB_POSTINGS, tmp_path)) == before
    assert {(table.glue, table.deleted) for table in again.tables} == {("unchanged", 0)}


def test_an_appended_sample_adds_new_postings_and_updates_of_old_ones(
    aws: Connection, lake_bucket: str, tmp_path: Path
) -> None:
    write_sample(aws, lake_bucket, rows=500, until=UNTIL)
    old = set(rows(aws, lake_bucket, JOB_POSTINGS, tmp_path, "job_posting_id"))
    for _ in range(2):
        report = write_sample(aws, lake_bucket, rows=400, seed=2, append=True, until=UNTIL)
        both = rows(aws, lake_bucket, JOB_POSTINGS, tmp_path, "job_posting_id")
        assert len(both) == 900
        assert len(set(both) - old) == 388
    assert "higher seed" in report.warnings[0]
    third = write_sample(aws, lake_bucket, rows=100, seed=3, append=True, until=UNTIL)
    assert third.warnings == ()
    assert len(rows(aws, lake_bucket, JOB_POSTINGS, tmp_path)) == 1000


def test_a_replacing_sample_leaves_no_old_file(aws: Connection, lake_bucket: str) -> None:
    write_sample(aws, lake_bucket, rows=50)
    write_sample(aws, lake_bucket, rows=60, seed=2, append=True)
    report = write_sample(aws, lake_bucket, rows=70)
    assert [table.deleted for table in report.tables] == [2, 2, 2]
    assert set(objects(aws, lake_bucket)) == {f"{table.prefix()}part-seed1-rows70.parquet" for table in SILVER_TABLES}


@pytest.mark.parametrize(("seed", "number"), [(1, 60), (2, 50)])
def test_an_appended_seed_that_is_there_or_lower_is_refused(
    aws: Connection, lake_bucket: str, seed: int, number: int
) -> None:
    write_sample(aws, lake_bucket, rows=50, seed=1)
    write_sample(aws, lake_bucket, rows=50, seed=3, append=True)
    before = objects(aws, lake_bucket)
    with pytest.raises(ConfigurationError, match="higher seed") as caught:
        write_sample(aws, lake_bucket, rows=number, seed=seed, append=True)
    assert caught.value.hint == "--seed 4"
    assert objects(aws, lake_bucket) == before


def test_a_sample_does_not_replace_somebodys_data_unless_forced(
    aws: Connection, lake_bucket: str, tmp_path: Path
) -> None:
    load(aws, lake_bucket, companies_csv(tmp_path, "mine"), COMPANIES)
    before = objects(aws, lake_bucket)
    with pytest.raises(ConfigurationError, match="1 files that are no sample"):
        write_sample(aws, lake_bucket, rows=10)
    assert objects(aws, lake_bucket) == before
    write_sample(aws, lake_bucket, rows=10, append=True)
    assert len(objects(aws, lake_bucket)) == 4
    write_sample(aws, lake_bucket, rows=10, force=True)
    assert len(objects(aws, lake_bucket)) == 3


def test_a_dry_run_of_a_sample_writes_nothing(aws: Connection, lake_bucket: str) -> None:
    said: list[str] = []
    report = write_sample(aws, lake_bucket, rows=100, dry_run=True, progress=said.append)
    assert report.tables[0].rows == 100
    assert report.to_dict()["schema"] == "goldlake.sample/1"
    assert objects(aws, lake_bucket) == {}
    assert glue.get_table(aws, JOB_POSTINGS.database, JOB_POSTINGS.name) is None
    assert said


def test_a_table_that_is_delta_is_refused(aws: Connection, lake_bucket: str, tmp_path: Path) -> None:
    key = f"{COMPANIES.prefix()}_delta_log/00000000000000000000.json"
    aws.client("s3").put_object(Bucket=lake_bucket, Key=key, Body=b"{}")
    with pytest.raises(ConfigurationError, match="Delta table"):
        write_sample(aws, lake_bucket, rows=10)
    with pytest.raises(ConfigurationError, match="Delta table"):
        load(aws, lake_bucket, companies_csv(tmp_path, "a"), COMPANIES)
    assert list(objects(aws, lake_bucket)) == [key]


def test_a_bucket_that_is_not_there_is_told(aws: Connection) -> None:
    with pytest.raises(FailedError) as caught:
        write_sample(aws, "no-such-bucket", rows=10)
    assert caught.value.code == "NoSuchBucket"


def test_an_emulator_that_does_not_run_is_unreachable(tmp_path: Path) -> None:
    nowhere = Connection(f"http://127.0.0.1:{free_port()}", region="us-east-1")
    with pytest.raises(UnreachableError) as caught:
        write_sample(nowhere, "lake", rows=10)
    assert caught.value.exit_code == 2
    with pytest.raises(UnreachableError):
        load(nowhere, "lake", companies_csv(tmp_path, "a"), COMPANIES)
    report = readiness.check(nowhere, SOURCES)
    assert set(states(report).values()) == {"unreachable"}
    assert report.exit_code == 2


# --- load ---


def test_load_replaces_appends_and_replaces_again(aws: Connection, lake_bucket: str, tmp_path: Path) -> None:
    first = load(aws, lake_bucket, companies_csv(tmp_path, "a", "b"), COMPANIES)
    assert (first.rows, first.files, first.deleted, first.glue) == (2, 1, 0, "created")
    assert first.location == f"s3://{lake_bucket}/{COMPANIES.prefix()}"
    second = load(aws, lake_bucket, companies_csv(tmp_path, "c"), COMPANIES, append=True)
    assert (second.deleted, second.glue) == (0, "unchanged")
    assert len(rows(aws, lake_bucket, COMPANIES, tmp_path)) == 3
    third = load(aws, lake_bucket, companies_csv(tmp_path, "d"), COMPANIES)
    assert third.deleted == 2
    assert rows(aws, lake_bucket, COMPANIES, tmp_path, "company_id") == [("d",)]
    assert third.bytes == parquet.list_files(aws, lake_bucket, COMPANIES.prefix())[0].size


def test_a_refused_load_tells_all_faults_and_leaves_the_table_as_it_was(
    aws: Connection, lake_bucket: str, tmp_path: Path
) -> None:
    load(aws, lake_bucket, companies_csv(tmp_path, "a"), COMPANIES)
    before = objects(aws, lake_bucket)
    path = tmp_path / "bad.csv"
    path.write_text("company_id,name,updated_at,more\n,N,x,1\nb,N,,2\n")
    with pytest.raises(ConfigurationError) as caught:
        load(aws, lake_bucket, path, COMPANIES)
    for fault in (
        "columns are missing: industry, size_band, headquarters, website",
        "company_id: 1 null, and none is allowed (row 1)",
        "updated_at: 1 value is no timestamp: 'x' (row 1)",
        "updated_at: 1 null, and none is allowed (row 2)",
    ):
        assert fault in caught.value.message
    assert caught.value.exit_code == 64
    assert objects(aws, lake_bucket) == before


def test_what_was_downloaded_can_be_loaded_again(aws: Connection, lake_bucket: str, tmp_path: Path) -> None:
    write_sample(aws, lake_bucket, rows=300)
    before = rows(aws, lake_bucket, JOB_POSTINGS, tmp_path)
    exported = tmp_path / "exported"
    exported.mkdir()
    for suffix, options in (("csv", "FORMAT csv, HEADER, FORCE_QUOTE *"), ("parquet", "FORMAT parquet")):
        source = tmp_path / "source.parquet"
        key = parquet.list_files(aws, lake_bucket, JOB_POSTINGS.prefix())[0].key
        aws.client("s3").download_file(lake_bucket, key, str(source))
        target = exported / f"postings.{suffix}"
        with duckdb.connect() as database:
            database.execute(f"COPY (SELECT * FROM '{source}') TO '{target}' ({options})")  # noqa: S608
        assert load(aws, lake_bucket, target, JOB_POSTINGS).rows == 300
        assert rows(aws, lake_bucket, JOB_POSTINGS, tmp_path) == before


# --- footers ---


def test_rows_are_counted_by_footers_alone(aws: Connection, lake_bucket: str, tmp_path: Path) -> None:
    path = tmp_path / "wide.parquet"
    with duckdb.connect() as database:
        # Many row groups of many columns: a footer longer than the first request.
        columns = ", ".join(f"i + {number} AS c{number}" for number in range(60))
        query = f"SELECT {columns} FROM range(200000) r(i)"  # noqa: S608 - numbers
        database.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 2048)")
    footer = int.from_bytes(path.read_bytes()[-8:-4], "little")
    assert footer > parquet.TAIL_BYTES
    parquet.upload(aws, lake_bucket, "t/wide 'a'.parquet", path)
    keys = [f"t/{number}.parquet" for number in range(20)]
    with duckdb.connect() as database:
        for number, key in enumerate(keys):
            small = tmp_path / "small.parquet"
            database.execute(f"COPY (FROM range({number})) TO '{small}' (FORMAT parquet)")
            parquet.upload(aws, lake_bucket, key, small)
    counted = parquet.footer_rows(aws, lake_bucket, ["t/wide 'a'.parquet", *keys])
    assert counted == {"t/wide 'a'.parquet": 200_000, **{key: number for number, key in enumerate(keys)}}


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"no parquet at all", b"PAR1" + b"x" * 50 + b"\xff\xff\xff\x7fPAR1", b"PAR1xxxxxx\x06\0\0\0PAR1"],
)
def test_a_corrupt_file_is_told_by_its_key_and_makes_the_table_unreadable(
    aws: Connection, lake_bucket: str, content: bytes
) -> None:
    write_sample(aws, lake_bucket, rows=10)
    key = f"{COMPANIES.prefix()}broken.parquet"
    aws.client("s3").put_object(Bucket=lake_bucket, Key=key, Body=content)
    with pytest.raises(FailedError, match=r"broken\.parquet"):
        parquet.footer_rows(aws, lake_bucket, [key])
    report = readiness.check(aws, SOURCES)
    assert states(report)[COMPANIES.full_name] == "unreadable"
    assert report.exit_code == 1


# --- check ---


def test_a_table_of_zero_rows_is_empty_unless_it_may_be(aws: Connection, lake_bucket: str, tmp_path: Path) -> None:
    load(aws, lake_bucket, companies_csv(tmp_path), COMPANIES)
    assert readiness.check(aws, [SourceTable(COMPANIES.database, COMPANIES.name)]).exit_code == 1
    allowed = readiness.check(aws, [SourceTable(COMPANIES.database, COMPANIES.name, allow_empty=True)])
    assert (allowed.tables[0].state, allowed.tables[0].rows) == ("ready", 0)


def test_a_table_without_files_and_one_in_a_bucket_that_is_gone_are_missing(aws: Connection, lake_bucket: str) -> None:
    write_sample(aws, lake_bucket, rows=10)
    parquet.delete(aws, lake_bucket, list(objects(aws, lake_bucket)))
    assert set(states(readiness.check(aws, SOURCES)).values()) == {"missing"}
    aws.client("s3").delete_bucket(Bucket=lake_bucket)
    assert set(states(readiness.check(aws, SOURCES)).values()) == {"missing"}


def test_the_newest_object_decides_freshness(aws: Connection, lake_bucket: str) -> None:
    write_sample(aws, lake_bucket, rows=10)
    table = SourceTable(COMPANIES.database, COMPANIES.name, error_after=timedelta(hours=1))
    assert readiness.check(aws, [table]).exit_code == 0
    later = readiness.check(aws, [table], now=datetime.now(UTC) + timedelta(hours=2))
    assert later.tables[0].state == "stale"
    assert later.exit_code == 1


def delta_table(aws: Connection, bucket: str, *batches: int) -> SourceTable:
    """Write a Delta table in so many commits, with a Glue entry."""
    location = f"s3://{bucket}/silver/d/t"
    for number in batches:
        data = Table({"a": Array(list(range(number)), type=DataType.int64())})
        write_deltalake(location, data, mode="append", storage_options=aws.storage_options())
    glue.ensure_database(aws, "d")
    entry = {"Name": "t", "StorageDescriptor": {"Location": location}, "Parameters": {"table_type": "delta"}}
    aws.client("glue").create_table(DatabaseName="d", TableInput=entry)
    return SourceTable("d", "t", error_after=timedelta(hours=1))


def test_a_delta_table_is_counted_and_dated_by_its_log(aws: Connection, lake_bucket: str) -> None:
    found = readiness.check(aws, [delta_table(aws, lake_bucket, 3, 4)]).tables[0]
    assert (found.state, found.format, found.rows, found.files, found.version) == ("ready", "delta", 7, 2, 1)
    assert found.age_seconds is not None
    assert found.age_seconds < 600


def test_an_emptied_delta_table_is_empty(aws: Connection, lake_bucket: str) -> None:
    table = delta_table(aws, lake_bucket, 3)
    DeltaTable(f"s3://{lake_bucket}/silver/d/t", storage_options=aws.storage_options()).delete()
    found = readiness.check(aws, [table]).tables[0]
    assert (found.state, found.rows) == ("empty", 0)


def test_a_delta_entry_without_a_log_is_missing_and_one_with_a_broken_log_unreadable(
    aws: Connection, lake_bucket: str
) -> None:
    table = delta_table(aws, lake_bucket)
    assert readiness.check(aws, [table]).tables[0].state == "missing"
    key = "silver/d/t/_delta_log/00000000000000000000.json"
    aws.client("s3").put_object(Bucket=lake_bucket, Key=key, Body=b"garbage")
    found = readiness.check(aws, [table]).tables[0]
    assert found.state == "unreadable"
    assert "\n" not in found.detail


# --- Glue ---


def test_a_glue_entry_is_created_kept_and_corrected(aws: Connection, lake_bucket: str) -> None:
    location = f"s3://{lake_bucket}/x/"
    assert glue.ensure_database(aws, COMPANIES.database) == "created"
    assert glue.ensure_database(aws, COMPANIES.database) == "unchanged"
    assert glue.ensure_parquet_table(aws, COMPANIES, location) == "created"
    assert glue.ensure_parquet_table(aws, COMPANIES, location) == "unchanged"
    assert glue.ensure_parquet_table(aws, COMPANIES, f"s3://{lake_bucket}/y/") == "updated"
    entry = glue.get_table(aws, COMPANIES.database, COMPANIES.name)
    assert entry is not None
    assert entry["StorageDescriptor"]["Location"] == f"s3://{lake_bucket}/y/"
    assert entry["Parameters"]["classification"] == "parquet"
    assert [column["Name"] for column in entry["StorageDescriptor"]["Columns"]] == [
        column.name for column in COMPANIES.columns
    ]


def test_parameters_of_others_survive_a_correction(aws: Connection, lake_bucket: str) -> None:
    glue.ensure_database(aws, COMPANIES.database)
    theirs = {"Name": COMPANIES.name, "Description": "theirs", "Parameters": {"team": "x", "classification": "csv"}}
    aws.client("glue").create_table(DatabaseName=COMPANIES.database, TableInput=theirs)
    assert glue.ensure_parquet_table(aws, COMPANIES, f"s3://{lake_bucket}/x/") == "updated"
    entry = glue.get_table(aws, COMPANIES.database, COMPANIES.name) or {}
    assert entry["Description"] == "theirs"
    assert entry["Parameters"]["team"] == "x"
    assert entry["Parameters"]["classification"] == "parquet"


@pytest.mark.parametrize(
    "entry",
    [{"TableType": "VIRTUAL_VIEW"}, {"Parameters": {"table_type": "DELTA"}}, {"PartitionKeys": [{"Name": "dt"}]}],
)
def test_an_entry_of_another_kind_is_refused_before_anything_is_written(
    aws: Connection, lake_bucket: str, tmp_path: Path, entry: dict[str, Any]
) -> None:
    glue.ensure_database(aws, COMPANIES.database)
    table_input = {"Name": COMPANIES.name, **entry}
    aws.client("glue").create_table(DatabaseName=COMPANIES.database, TableInput=table_input)
    with pytest.raises(ConfigurationError, match="not turned into"):
        load(aws, lake_bucket, companies_csv(tmp_path, "a"), COMPANIES)
    assert objects(aws, lake_bucket) == {}


def test_many_callers_at_once_make_one_table(aws: Connection, lake_bucket: str) -> None:
    clients = [aws.client("glue") for _ in range(8)]

    def make(client: Any) -> tuple[str, str]:
        database = glue.ensure_database(aws, COMPANIES.database, client=client)
        return database, glue.ensure_parquet_table(aws, COMPANIES, f"s3://{lake_bucket}/x/", client=client)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(make, clients))
    assert [table for _, table in outcomes].count("created") == 1
    assert {table for _, table in outcomes} <= {"created", "unchanged"}
