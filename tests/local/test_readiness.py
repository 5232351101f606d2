"""The check against an emulated S3 and Glue, through networks that fail, and under roles that may not."""

from __future__ import annotations

import base64
import json
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import duckdb
import pytest
from arro3.core import Array, DataType, Table
from deltalake import DeltaTable, write_deltalake

from runtime import check_cli, glue, readiness
from runtime.aws import DEFAULT_REGION, Connection
from runtime.cli import app
from runtime.readiness import CheckOptions, SourceTable, TableReadiness
from runtime.readiness_sources import source_from_text
from tests.local.faulty_proxy import Rule, faulty_proxy

# Short limits: a test waits for them.
QUICK = CheckOptions(workers=4, connect_seconds=1, read_seconds=1, attempts=2)


def check(aws: Connection, *tables: SourceTable, options: CheckOptions = QUICK) -> readiness.ReadinessReport:
    return readiness.check(aws, tables, options=options)


def one(aws: Connection, table: SourceTable, options: CheckOptions = QUICK) -> TableReadiness:
    return check(aws, table, options=options).tables[0]


def put_parquet(aws: Connection, bucket: str, key: str, tmp_path: Path, query: str = "SELECT 1 AS id") -> None:
    """Put a Parquet file with the rows of a query."""
    path = tmp_path / "put.parquet"
    with duckdb.connect() as database:
        database.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    aws.client("s3").put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


def put_entry(aws: Connection, name: str, location: str, **entry: Any) -> SourceTable:
    """Make a Glue entry in the database `d`."""
    glue.ensure_database(aws, "d")
    storage = {
        "Location": location,
        "InputFormat": glue.PARQUET_INPUT,
        "Columns": [{"Name": "id", "Type": "int"}],
    }
    aws.client("glue").create_table(DatabaseName="d", TableInput={"Name": name, "StorageDescriptor": storage, **entry})
    return SourceTable("d", name)


def append(aws: Connection, location: str, rows: int, **options: Any) -> None:
    """Append rows to a Delta table in one commit."""
    data = Table({"id": Array(list(range(rows)), type=DataType.int64())})
    write_deltalake(location, data, mode="append", storage_options=aws.storage_options(), **options)


@pytest.fixture
def parquet_table(aws: Connection, lake_bucket: str, tmp_path: Path) -> SourceTable:
    """A table of one Parquet file with one row, under Glue."""
    put_parquet(aws, lake_bucket, "silver/p/a.parquet", tmp_path)
    return put_entry(aws, "p", f"s3://{lake_bucket}/silver/p/")


@pytest.fixture
def delta_table(aws: Connection, lake_bucket: str) -> SourceTable:
    """A Delta table of two commits with 3 rows each, without a Glue entry."""
    for _ in range(2):
        append(aws, f"s3://{lake_bucket}/silver/d", 3)
    return source_from_text(f"delta:s3://{lake_bucket}/silver/d")


# --- Parquet ---


def test_a_parquet_table_is_ready_by_catalogue_and_by_location(
    aws: Connection, lake_bucket: str, parquet_table: SourceTable
) -> None:
    report = check(aws, parquet_table, source_from_text(f"s3://{lake_bucket}/silver/p", columns=("id",)))
    assert [(table.state, table.rows, table.exact) for table in report.tables] == [("ready", 1, True)] * 2
    assert report.exit_code == 0


def test_a_file_without_a_required_column_makes_the_table_unreadable(
    aws: Connection, lake_bucket: str, parquet_table: SourceTable, tmp_path: Path
) -> None:
    wanted = SourceTable("d", "p", columns=("id",))
    assert one(aws, wanted).state == "ready"
    put_parquet(aws, lake_bucket, "silver/p/b.parquet", tmp_path, "SELECT 1 AS renamed")
    found = one(aws, wanted)
    assert (found.state, found.detail) == ("unreadable", "required columns are missing: id")


def test_one_listing_and_one_footer_are_asked_for_unless_all_rows_are_counted(
    aws: Connection, lake_bucket: str, parquet_table: SourceTable, tmp_path: Path
) -> None:
    for number in range(5):
        put_parquet(aws, lake_bucket, f"silver/p/b{number}.parquet", tmp_path)
    with faulty_proxy(port(aws)) as (proxy, url):
        found = one(Connection(url, DEFAULT_REGION), parquet_table)
        assert (found.state, found.rows, found.exact) == ("ready", 1, False)
        assert [line.split("?")[0].rpartition("/")[2] for line in proxy.lines] == ["", lake_bucket, "b4.parquet"]
    counted = one(aws, parquet_table, CheckOptions(count=True))
    assert (counted.rows, counted.files, counted.exact) == (6, 6, True)


def test_forty_tables_of_a_database_are_one_call_to_glue_and_one_listing_each(
    aws: Connection, lake_bucket: str, parquet_table: SourceTable
) -> None:
    tables = [put_entry(aws, f"t{number}", f"s3://{lake_bucket}/silver/p/") for number in range(40)]
    with faulty_proxy(port(aws)) as (proxy, url):
        report = check(Connection(url, DEFAULT_REGION), *tables)
        assert report.exit_code == 0
        assert [table.table for table in report.tables] == [table.full_name for table in tables]
        assert len([line for line in proxy.lines if line.startswith("POST")]) == 1
        assert len([line for line in proxy.lines if "list-type=2" in line]) == 40


# --- Delta ---


def test_a_plain_delta_log_is_a_listing_and_its_commits_and_any_other_is_delta_rs_own(
    aws: Connection, lake_bucket: str, delta_table: SourceTable
) -> None:
    with faulty_proxy(port(aws)) as (proxy, url):
        plain = one(Connection(url, DEFAULT_REGION), delta_table)
        # A set: what a busy machine answers late is asked for again.
        assert len(set(proxy.lines)) == 3
        DeltaTable(delta_table.location or "", storage_options=aws.storage_options()).create_checkpoint()
        by_delta_rs = one(Connection(url, DEFAULT_REGION), delta_table)
        assert len([line for line in proxy.lines if "_last_checkpoint" in line]) > 0
    assert replace(plain, age_seconds=None) == replace(by_delta_rs, age_seconds=None)


def test_a_delta_table_is_told_by_its_log(aws: Connection, lake_bucket: str, delta_table: SourceTable) -> None:
    with faulty_proxy(port(aws)) as (proxy, url):
        found = one(Connection(url, DEFAULT_REGION), delta_table)
        assert not [line for line in proxy.lines if ".parquet" in line]
    assert (found.state, found.rows, found.files, found.version) == ("ready", 6, 2, 1), found
    assert found.location == f"s3://{lake_bucket}/silver/d"
    assert one(aws, source_from_text(f"s3://{lake_bucket}/silver/d", columns=("id", "no"))).state == "unreadable"


def test_a_delta_table_is_told_by_its_checkpoint_when_the_log_before_it_is_gone(
    aws: Connection, lake_bucket: str, delta_table: SourceTable
) -> None:
    location = f"s3://{lake_bucket}/silver/d"
    DeltaTable(location, storage_options=aws.storage_options()).create_checkpoint()
    append(aws, location, 5)
    s3 = aws.client("s3")
    s3.delete_object(Bucket=lake_bucket, Key="silver/d/_delta_log/00000000000000000000.json")
    found = one(aws, delta_table)
    assert (found.state, found.rows, found.version) == ("ready", 11, 2)
    # Without the commits behind it, too: the checkpoint alone is a version.
    s3.delete_object(Bucket=lake_bucket, Key="silver/d/_delta_log/00000000000000000002.json")
    found = one(aws, delta_table)
    assert (found.state, found.rows, found.version) == ("ready", 6, 1)


def broken(log: str, content: bytes) -> Callable[[Any, str], None]:
    def break_it(s3: Any, bucket: str) -> None:
        s3.put_object(Bucket=bucket, Key=f"silver/d/_delta_log/{log}", Body=content)

    return break_it


def without_the_first_commit(s3: Any, bucket: str) -> None:
    s3.delete_object(Bucket=bucket, Key="silver/d/_delta_log/00000000000000000000.json")


@pytest.mark.parametrize(
    "damage",
    [
        broken("00000000000000000001.json", b"garbage"),
        broken("00000000000000000001.json", b'{"add": {"path": 5}}'),
        broken("00000000000000000000.json", b""),
        broken("00000000000000000000.json", b"\xff\xfe\x00"),
        broken("00000000000000000002.json", b'{"protocol":{"minReaderVersion":99,"minWriterVersion":99}}'),
        without_the_first_commit,
    ],
)
def test_a_broken_delta_log_is_unreadable_and_never_ready(
    aws: Connection, lake_bucket: str, delta_table: SourceTable, damage: Callable[[Any, str], None]
) -> None:
    damage(aws.client("s3"), lake_bucket)
    found = one(aws, delta_table)
    assert found.state == "unreadable", found
    assert "\n" not in found.detail


def test_a_broken_checkpoint_is_unreadable(aws: Connection, lake_bucket: str, delta_table: SourceTable) -> None:
    DeltaTable(f"s3://{lake_bucket}/silver/d", storage_options=aws.storage_options()).create_checkpoint()
    name = "00000000000000000001.checkpoint.parquet"
    broken(name, b"PAR1 no more")(aws.client("s3"), lake_bucket)
    assert one(aws, delta_table).state == "unreadable"


def test_what_is_no_delta_table_is_missing(aws: Connection, lake_bucket: str, parquet_table: SourceTable) -> None:
    found = one(aws, source_from_text(f"delta:s3://{lake_bucket}/silver/p"))
    assert (found.state, found.detail) == ("missing", f"no _delta_log in s3://{lake_bucket}/silver/p")
    assert one(aws, source_from_text("delta:s3://no-such-bucket/x")).state == "missing"


def commit(aws: Connection, bucket: str, version: int, *actions: dict[str, Any]) -> None:
    """Write a commit of other writers into the log."""
    text = "\n".join(json.dumps(action) for action in actions)
    aws.client("s3").put_object(Bucket=bucket, Key=f"silver/d/_delta_log/{version:020}.json", Body=text.encode())


def added(aws: Connection, bucket: str, version: int) -> dict[str, Any]:
    """Return the add action of a commit."""
    key = f"silver/d/_delta_log/{version:020}.json"
    lines = aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read().splitlines()
    found: dict[str, Any] = next(json.loads(line)["add"] for line in lines if b'"add"' in line)
    return found


def removed(add: dict[str, Any]) -> dict[str, Any]:
    return {"remove": {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}}


def deletion_vector(*rows: int) -> dict[str, Any]:
    """Return an inline deletion vector (PROTOCOL.md, "Deletion Vector Format"): a 64-bit roaring bitmap in Z85."""
    bitmap = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + b"".join(struct.pack("<H", row) for row in rows)
    content = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    # Z85 and base85 differ in their alphabets only.
    base = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    padded = content + bytes(-len(content) % 4)
    text = base64.b85encode(padded).translate(bytes.maketrans(base, z85)).decode()
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(content), "cardinality": len(rows)}


@pytest.mark.parametrize(("deleted", "state", "rows"), [((0,), "ready", 5), ((0, 1, 2), "ready", 3)])
def test_rows_that_deletion_vectors_take_away_are_not_counted(
    aws: Connection, lake_bucket: str, delta_table: SourceTable, deleted: tuple[int, ...], state: str, rows: int
) -> None:
    add = added(aws, lake_bucket, 0)
    features = ["deletionVectors"]
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}
    changed = {**add, "deletionVector": deletion_vector(*deleted)}
    commit(aws, lake_bucket, 2, {"protocol": protocol}, removed(add), {"add": changed})
    found = one(aws, delta_table)
    assert (found.state, found.rows) == (state, rows)
    other = added(aws, lake_bucket, 1)
    commit(aws, lake_bucket, 3, removed(other), {"add": {**other, "deletionVector": deletion_vector(0, 1, 2)}})
    found = one(aws, delta_table)
    assert (found.state, found.rows) == (("empty", 0) if rows == 3 else ("ready", rows - 3))


def test_a_commit_without_time_and_a_file_without_statistics_are_told_by_what_is_stored(
    aws: Connection, lake_bucket: str, delta_table: SourceTable
) -> None:
    key = "silver/d/_delta_log/00000000000000000000.json"
    s3 = aws.client("s3")
    actions = [json.loads(line) for line in s3.get_object(Bucket=lake_bucket, Key=key)["Body"].read().splitlines()]
    for action in actions:
        action.get("add", {}).pop("stats", None)
    commit(aws, lake_bucket, 0, *actions)
    second = added(aws, lake_bucket, 1)
    commit(aws, lake_bucket, 1, {"add": second})
    found = one(aws, SourceTable("", "", location=delta_table.location, error_after=timedelta(hours=1)))
    assert (found.state, found.rows, found.exact) == ("ready", 3, False)
    assert found.modified is not None
    assert datetime.now(UTC) - found.modified < timedelta(minutes=5)
    # No file has statistics now: their footers are read.
    commit(aws, lake_bucket, 2, removed(second))
    found = one(aws, delta_table)
    assert (found.state, found.rows, found.exact) == ("ready", 3, True)


# --- Iceberg ---


def test_an_iceberg_table_is_told_by_the_metadata_that_glue_points_to(aws: Connection, lake_bucket: str) -> None:
    key = "ice/t/metadata/00001.metadata.json"
    place = {"table_type": "ICEBERG", "metadata_location": f"s3://{lake_bucket}/{key}"}
    table = put_entry(aws, "t", f"s3://{lake_bucket}/ice/t", Parameters=place)
    assert one(aws, table).state == "missing"
    snapshot = {
        "snapshot-id": 7,
        "timestamp-ms": int(time.time() * 1000),
        "summary": {"operation": "append", "total-records": "12", "total-data-files": "2"},
    }
    metadata = {
        "format-version": 2,
        "location": f"s3://{lake_bucket}/ice/t",
        "current-schema-id": 0,
        "schemas": [{"schema-id": 0, "type": "struct", "fields": [{"id": 1, "name": "id"}]}],
        "current-snapshot-id": 7,
        "snapshots": [snapshot],
    }
    aws.client("s3").put_object(Bucket=lake_bucket, Key=key, Body=json.dumps(metadata).encode())
    found = one(aws, SourceTable("d", "t", error_after=timedelta(hours=1), columns=("id",)))
    assert (found.state, found.format, found.rows, found.snapshot) == ("ready", "iceberg", 12, "7")


# --- networks that fail ---


def port(aws: Connection) -> int:
    found = urlsplit(aws.endpoint_url or "").port
    assert found is not None
    return found


@pytest.fixture
def tables(lake_bucket: str, parquet_table: SourceTable, delta_table: SourceTable) -> dict[str, SourceTable]:
    return {"parquet": parquet_table, "delta": delta_table}


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [("parquet", "^POST"), ("parquet", "list-type=2"), ("parquet", r"a\.parquet"), ("delta", "_delta_log")],
)
@pytest.mark.parametrize("fault", ["slow down", "reset"])
def test_a_fault_that_passes_is_tried_again(
    aws: Connection, tables: dict[str, SourceTable], kind: str, pattern: str, fault: Any
) -> None:
    with faulty_proxy(port(aws), Rule(pattern, fault, times=1)) as (proxy, url):
        found = one(Connection(url, DEFAULT_REGION), tables[kind])
    assert (found.state, proxy.rules[0].seen) == ("ready", 1), found.detail


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [("parquet", "^POST"), ("parquet", "list-type=2"), ("parquet", r"a\.parquet"), ("delta", "_delta_log")],
)
@pytest.mark.parametrize("fault", ["slow down", "reset", "delay"])
def test_a_fault_that_stays_is_unreachable_with_exit_2_in_bounded_time(
    aws: Connection, tables: dict[str, SourceTable], kind: str, pattern: str, fault: Any
) -> None:
    started = time.monotonic()
    with faulty_proxy(port(aws), Rule(pattern, fault, seconds=5)) as (proxy, url):
        report = check(Connection(url, DEFAULT_REGION), tables[kind])
        took = time.monotonic() - started
        assert (report.tables[0].state, report.exit_code) == ("unreachable", 2), report.tables[0]
        assert proxy.rules[0].seen == QUICK.attempts
    # Two tries of a second, and the pause between them.
    assert took < 5


def test_a_table_behind_a_fault_does_not_make_the_others_ready_or_unready(
    aws: Connection, tables: dict[str, SourceTable]
) -> None:
    with faulty_proxy(port(aws), Rule("_delta_log/0", "slow down")) as (_, url):
        report = check(Connection(url, DEFAULT_REGION), tables["parquet"], tables["delta"], SourceTable("d", "no"))
    assert [table.state for table in report.tables] == ["ready", "unreachable", "missing"]
    assert report.exit_code == 2


# --- rights ---


def as_role(aws: Connection, name: str, *actions: str) -> Connection:
    """Return a connection under a fresh role that may do these actions on everything."""
    iam = aws.client("iam")
    trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    role = iam.create_role(
        RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    )["Role"]
    if actions:
        grant = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [grant]})
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document)
    keys = aws.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="check")["Credentials"]
    found = Connection(aws.endpoint_url, DEFAULT_REGION)
    # On an emulator a connection has the emulator's own keys; the role's take their place.
    found.__dict__["session"] = boto3.Session(
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
        region_name=DEFAULT_REGION,
    )
    return found


@pytest.mark.parametrize(
    ("actions", "states"),
    [
        ((), ["forbidden", "forbidden", "forbidden"]),
        (("glue:GetTable",), ["forbidden", "forbidden", "missing"]),
        (("glue:GetTable", "s3:ListBucket"), ["forbidden", "forbidden", "missing"]),
        (("glue:GetTable", "s3:ListBucket", "s3:GetObject"), ["ready", "ready", "missing"]),
    ],
)
def test_a_missing_right_is_forbidden_with_exit_2_and_no_more_rights_are_needed(
    aws: Connection,
    tables: dict[str, SourceTable],
    actions: tuple[str, ...],
    states: list[str],
    request: pytest.FixtureRequest,
) -> None:
    role = as_role(aws, f"check-{len(actions)}", *actions)
    report = check(role, tables["parquet"], tables["delta"], SourceTable("d", "no"))
    assert [table.state for table in report.tables] == states, report.tables
    assert report.exit_code == (2 if "forbidden" in states else 1)


def test_many_tables_are_checked_without_the_right_to_list_them(
    aws: Connection, lake_bucket: str, parquet_table: SourceTable
) -> None:
    many = [put_entry(aws, f"t{number}", f"s3://{lake_bucket}/silver/p/") for number in range(12)]
    role = as_role(aws, "check-many", "glue:GetTable", "s3:ListBucket", "s3:GetObject")
    assert check(role, *many).exit_code == 0


def test_refused_keys_are_forbidden(aws: Connection, tables: dict[str, SourceTable]) -> None:
    stranger = Connection(aws.endpoint_url, DEFAULT_REGION)
    stranger.__dict__["session"] = boto3.Session("AKIAUNKNOWN", "x", region_name=DEFAULT_REGION)
    report = check(stranger, *tables.values())
    assert {table.state for table in report.tables} == {"forbidden"}


# --- the command ---


def test_the_command_waits_until_a_loader_has_written(
    aws: Connection,
    lake_bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(app.commands, "check", check_cli.check)
    arguments = ["check", "--endpoint-url", str(aws.endpoint_url), "--table", f"s3://{lake_bucket}/late"]

    def load(_seconds: float) -> None:
        put_parquet(aws, lake_bucket, "late/a.parquet", tmp_path)

    def waiting(look: Any, **options: Any) -> readiness.ReadinessReport:
        return readiness.wait_until_ready(look, **options, sleep=load)

    with pytest.raises(SystemExit) as ended:
        app(arguments)
    assert ended.value.code == 1
    monkeypatch.setattr(check_cli, "wait_until_ready", waiting)
    with pytest.raises(SystemExit) as ended:
        app([*arguments, "--wait", "1m", "--output", "json"])
    assert ended.value.code == 0
    assert f"s3://{lake_bucket}/late/ is missing; waiting up to " in capsys.readouterr().err
