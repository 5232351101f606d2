"""UNLOAD and COPY of the local Redshift: psycopg (simple protocol), redshift_connector (extended), and the emulator."""

# ruff: noqa: S608 - the statements are the tests' own
from __future__ import annotations

import contextlib
import datetime
import gzip
import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import psutil
import psycopg2  # type: ignore[import-untyped]  # it has no annotations
import pytest
import redshift_connector
from deltalake import DeltaTable, QueryBuilder

from local.platform import Platform
from local.process import free_port
from runtime.aws import Connection
from runtime.secrets import local_default
from tests.local.faulty_proxy import Rule, faulty_proxy
from tests.local.redshift_support import PASSWORD, TRUST, LocalRedshift, role
from tests.local.support import wait_for

ALL_OF_BUCKETS = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "s3:GetBucketLocation"]


@dataclass(frozen=True)
class Place:
    """A warehouse, a bucket and a role that may use it."""

    redshift: LocalRedshift
    aws: Connection
    bucket: str
    role: str

    def unload(self, select: str, name: str, options: str = "FORMAT PARQUET MANIFEST VERBOSE") -> str:
        """Return an UNLOAD statement."""
        quoted = select.replace("'", "''")
        return f"UNLOAD ('{quoted}') TO 's3://{self.bucket}/{name}' IAM_ROLE '{self.role}' {options}"

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements by the simple protocol, each committed; return the rows of the last."""
        with contextlib.closing(self.redshift.simple()) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def keys(self, prefix: str = "") -> list[str]:
        found = self.aws.client("s3").list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for item in found.get("Contents", [])]

    def get(self, key: str) -> bytes:
        return bytes(self.aws.client("s3").get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def put(self, key: str, body: bytes) -> None:
        self.aws.client("s3").put_object(Bucket=self.bucket, Key=key, Body=body)

    def parquet(self, prefix: str, query: str = "SELECT * FROM files") -> list[tuple[Any, ...]]:
        """Return what a query gives of the Parquet files below a prefix."""
        with tempfile.TemporaryDirectory() as folder:
            for key in self.keys(prefix):
                if key.endswith(".parquet"):
                    path = Path(folder, key.removeprefix(prefix).strip("/"))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(self.get(key))
            with duckdb.connect() as connection:
                connection.execute(f"CREATE VIEW files AS FROM read_parquet('{folder}/**/*.parquet')")
                return connection.execute(query).fetchall()


@pytest.fixture
def place(redshift_on_aws: LocalRedshift, aws: Connection) -> Place:
    bucket = f"unload-{uuid.uuid4().hex[:12]}"
    aws.client("s3").create_bucket(Bucket=bucket)
    return Place(redshift_on_aws, aws, bucket, role(aws, ALL_OF_BUCKETS))


def test_every_type_is_written_as_parquet_has_it_and_described_in_the_manifest(place: Place) -> None:
    place.run(
        "drop table if exists typed",
        "create table typed (s smallint, i integer, b bigint, n numeric(12,2), r real, d double precision, o boolean,"
        " day date, at timestamp, z timestamptz, v varchar(20), c char(3))",
        "insert into typed (s) values (2)",
        "insert into typed values (1, 2, 9007199254740993, 12.50, 0.5, 0.1, true, '2024-02-29',"
        " '2024-02-29 12:00:00.123456', '2024-02-29 12:00:00+02', 'Zo\u00eb \"x\", ''y''\n', 'a')",
        place.unload("select * from typed order by s", "t/"),
    )
    assert place.keys("t/") == ["t/0000_part_00.parquet", "t/manifest"]
    first, second = place.parquet("t/")
    moment = datetime.datetime(2024, 2, 29, 12, 0, 0, 123456)  # noqa: DTZ001 - as Redshift's timestamp has none
    expected = (1, 2, 9007199254740993, Decimal("12.50"), 0.5, 0.1, True, datetime.date(2024, 2, 29), moment)
    assert first[:9] == expected
    assert first[9:] == (moment.replace(hour=10, microsecond=0), "Zo\u00eb \"x\", 'y'\n", "a  ")
    assert second == (2, *[None] * 11)
    manifest = json.loads(place.get("t/manifest"))
    size = len(place.get("t/0000_part_00.parquet"))
    url = f"s3://{place.bucket}/t/0000_part_00.parquet"
    assert manifest["entries"] == [{"url": url, "meta": {"content_length": size, "record_count": 2}}]
    assert manifest["meta"] == {"content_length": size, "record_count": 2}
    assert manifest["author"] == {"name": "Amazon Redshift", "version": "1.0.0"}
    elements = {item["name"]: item["type"] for item in manifest["schema"]["elements"]}
    assert elements["n"] == {"base": "numeric", "precision": 12, "scale": 2}
    assert elements["v"] == {"base": "character varying", "max_length": 20}
    assert elements["z"] == {"base": "timestamp with time zone"}


def test_an_unload_sees_its_own_transaction_and_leaves_it_as_it_was(place: Place) -> None:
    with contextlib.closing(place.redshift.simple()) as connection:
        cursor = connection.cursor()
        cursor.execute("drop table if exists own; create table own (a int); insert into own values (1), (2)")
        cursor.execute("set datestyle to 'SQL, DMY'")
        cursor.execute(place.unload("select * from own", "own/"))
        assert cursor.statusmessage == "UNLOAD"
        cursor.execute("select pg_last_unload_count(), current_setting('datestyle'), count(*) from own")
        assert cursor.fetchone() == (2, "SQL, DMY", 2)
        connection.rollback()
        cursor.execute("select to_regclass('own') is null")
    assert place.parquet("own/") == [(1,), (2,)]


def test_a_failed_unload_fails_the_transaction_as_any_statement_does(place: Place) -> None:
    with contextlib.closing(place.redshift.simple()) as connection:
        cursor = connection.cursor()
        cursor.execute("create table gone (a int)")
        with pytest.raises(psycopg2.Error, match="S3ServiceException"):
            cursor.execute(place.unload("select * from gone", "x/").replace(place.bucket, "no-such-bucket"))
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            cursor.execute("select 1")
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            cursor.execute(place.unload("select 1 as a", "x/"))
        connection.rollback()
        cursor.execute("select 1")
        assert cursor.fetchone() == (1,)
        with pytest.raises(psycopg2.errors.UndefinedTable):
            cursor.execute(place.unload("select * from gone", "x/"))


def test_redshift_connector_unloads_twice_by_a_prepared_statement_it_keeps(place: Place) -> None:
    with contextlib.closing(place.redshift.connect()) as connection:
        cursor = connection.cursor()
        statement = place.unload("select 1 as a", "again/", "FORMAT AS PARQUET ALLOWOVERWRITE")
        cursor.execute(statement)
        assert place.parquet("again/") == [(1,)]
        place.aws.client("s3").delete_object(Bucket=place.bucket, Key="again/0000_part_00.parquet")
        cursor.execute(statement)
        assert place.parquet("again/") == [(1,)]
        with pytest.raises(redshift_connector.Error, match="S3ServiceException"):
            cursor.execute(statement.replace(place.bucket, "no-such-bucket"))
        cursor.execute("select pg_last_unload_count()")
        assert cursor.fetchone() == [1]
        connection.autocommit = False
        cursor.execute("create table by_wire (a int)")
        with pytest.raises(redshift_connector.Error, match="not empty"):
            cursor.execute(statement.replace("ALLOWOVERWRITE", ""))
        connection.rollback()
        cursor.execute(statement)
        connection.commit()


def test_a_place_that_is_not_empty_is_refused_overwritten_or_cleaned_as_asked(place: Place) -> None:
    place.put("p/old.parquet", b"old")
    statement = place.unload("select 1 as a", "p/", "PARQUET")
    with pytest.raises(psycopg2.Error, match="Specified unload destination on S3 is not empty"):
        place.run(statement)
    place.run(f"{statement} ALLOWOVERWRITE")
    assert place.keys("p/") == ["p/0000_part_00.parquet", "p/old.parquet"]
    place.run(f"{statement} CLEANPATH")
    assert place.keys("p/") == ["p/0000_part_00.parquet"]


@pytest.mark.parametrize(
    ("select", "options", "words"),
    [
        ("select 1 as a limit 1", "PARQUET", "Limit clause is not supported"),
        ("select time '12:00' as t", "PARQUET", "does not support column t of type time"),
        ("select 1 as a", "PARQUET HEADER", "HEADER option is not supported"),
        ("select 1 as a", "PARQUET PARTITION BY (b)", 'PARTITION BY column "b" does not exist'),
        ("select 1 as a", "PARQUET MAXFILESIZE 1 MB", "MAXFILESIZE must be"),
        ("select 1 as a; drop table x", "PARQUET", "one query"),
        ("select 1 as a", "PARQUET NONSENSE", "syntax error"),
        ("selec 1", "PARQUET", "syntax error"),
    ],
)
def test_what_redshift_refuses_is_refused_before_anything_is_written(
    place: Place, select: str, options: str, words: str
) -> None:
    with pytest.raises(psycopg2.Error, match=re.escape(words)):
        place.run(place.unload(select, "no/", options))
    assert place.keys() == []


def test_a_limit_inside_and_quotes_everywhere_are_fine(place: Place) -> None:
    place.run(place.unload("select * from (select 'it''s \"q\" %' as \"od'd\" limit 1)", "q ü/o'p_".replace("'", "")))
    assert place.keys() == ["q ü/op_0000_part_00.parquet", "q ü/op_manifest"]
    assert place.parquet("q ü/") == [('it\'s "q" %',)]


def test_partitions_become_folders_with_and_without_their_column(place: Place) -> None:
    select = "select 1 as a, 'x/y' as p, date '2024-01-01' as d union all select 2, null, '2024-01-02'"
    place.run(place.unload(select, "by/", "PARQUET PARTITION BY (p, d) MANIFEST VERBOSE"))
    assert place.keys("by/") == [
        "by/manifest",
        "by/p=__HIVE_DEFAULT_PARTITION__/d=2024-01-02/0000_part_00.parquet",
        "by/p=x%2Fy/d=2024-01-01/0000_part_00.parquet",
    ]
    columns = "SELECT column_name FROM (DESCRIBE FROM files)"
    assert place.parquet("by/p=x", "SELECT a FROM files") == [(1,)]
    place.run(place.unload(select, "with/", "PARQUET PARTITION BY (p, d) INCLUDE"))
    assert ("p",) in place.parquet("with/p=x", columns)


def test_text_csv_and_json_are_written_as_the_documentation_shows(place: Place) -> None:
    select = "select 1 as id, 'Crew, \"A\"' as name, true as ok union all select 2, null, false order by 1"
    place.run(
        place.unload(select, "csv/", "CSV HEADER PARALLEL OFF"),
        place.unload(select, "txt/", ""),
        place.unload(select, "json/", "FORMAT JSON"),
        place.unload(select, "gz/", "CSV DELIMITER AS '|' GZIP MANIFEST"),
    )
    assert place.get("csv/000").decode() == 'id,name,ok\n1,"Crew, ""A""",t\n2,,f\n'
    assert place.get("txt/0000_part_00").decode() == '1|Crew, "A"|t\n2||f\n'
    assert [json.loads(line) for line in place.get("json/0000_part_00").splitlines()] == [
        {"id": 1, "name": 'Crew, "A"', "ok": True},
        {"id": 2, "name": None, "ok": False},
    ]
    assert gzip.decompress(place.get("gz/0000_part_00.gz")).decode() == '1|"Crew, ""A"""|t\n2||f\n'
    assert json.loads(place.get("gz/manifest")) == {"entries": [{"url": f"s3://{place.bucket}/gz/0000_part_00.gz"}]}


def test_a_role_without_the_right_to_write_or_that_does_not_trust_redshift_is_refused(
    place: Place, aws: Connection
) -> None:
    statement = place.unload("select 1 as a", "denied/")
    reader = role(aws, ["s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation"])
    with pytest.raises(psycopg2.Error, match="S3ServiceException:Access Denied,Status 403,Error AccessDenied"):
        place.run(statement.replace(place.role, reader))
    stranger = json.loads(json.dumps(TRUST).replace("redshift.", "ec2."))
    for arn in (role(aws, ALL_OF_BUCKETS, stranger), "arn:aws:iam::000000000000:role/none"):
        with pytest.raises(psycopg2.Error, match="Not authorized to get credentials of role"):
            place.run(statement.replace(place.role, arn))
    with pytest.raises(psycopg2.Error, match="Default IAM role is not set"):
        place.run(statement.replace(f"'{place.role}'", "default"))
    assert place.keys() == []


def test_a_large_result_streams_in_bounded_memory_and_is_cut_into_files(place: Place) -> None:
    assert place.redshift.process is not None
    process = psutil.Process(place.redshift.process.pid)
    most, done = [process.memory_info().rss], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            most.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    rows = 200_000
    try:
        place.run(
            f"drop table if exists wide; create table wide as select a, repeat(md5(a::text), 32) as t"
            f" from (select row_number() over () as a from pg_class x, pg_class y, pg_class z limit {rows})",
            place.unload("select * from wide", "large/", "PARQUET MAXFILESIZE 32 MB MANIFEST VERBOSE"),
        )
    finally:
        done.set()
        watcher.join()
    manifest = json.loads(place.get("large/manifest"))
    assert manifest["meta"]["record_count"] == rows
    assert max(most) - most[0] < 1_200 << 20


def test_an_unload_can_be_cancelled_and_the_session_goes_on(place: Place) -> None:
    with contextlib.closing(place.redshift.simple()) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        timer = threading.Timer(1.0, connection.cancel)
        timer.start()
        with pytest.raises(psycopg2.errors.QueryCanceled):
            cursor.execute(place.unload("select pg_sleep(30)::varchar as a", "never/"))
        timer.join()
        cursor.execute("select 1")
        assert cursor.fetchone() == (1,)
    assert place.keys() == []


def test_a_client_that_vanishes_leaves_no_session_and_no_manifest(place: Place) -> None:
    statement = place.unload("select pg_sleep(60)::varchar", "v/")
    code = (
        f"import psycopg2; psycopg2.connect(host='127.0.0.1', port={place.redshift.port}, dbname='analytics',"
        f" user='admin', password={PASSWORD!r}).cursor().execute({statement!r})"
    )
    client = subprocess.Popen([sys.executable, "-c", code])
    running = "select count(*) from pg_stat_activity where query like '%pg_sleep(60)%' and query not like '%activity%'"
    wait_for(lambda: place.run(running) == [(1,)], "running UNLOAD")
    client.kill()
    client.wait()
    wait_for(lambda: place.run(running) == [(0,)], "end of the vanished client's session", 10)
    assert place.keys() == []


def test_a_server_killed_within_an_unload_leaves_no_manifest(aws: Connection, place: Place, tmp_path: Path) -> None:
    own = LocalRedshift(tmp_path / "own", endpoint_url=aws.endpoint_url).start()
    killed = Place(own, aws, place.bucket, place.role)
    broken: list[Exception] = []

    def work() -> None:
        try:
            killed.run(killed.unload("select pg_sleep(60)::varchar as a", "k/"))
        except psycopg2.Error as exc:
            broken.append(exc)

    client = threading.Thread(target=work)
    client.start()
    wait_for(lambda: "pg_sleep" in str(killed.run("select query from pg_stat_activity")), "running UNLOAD")
    own.signal(signal.SIGKILL)
    client.join(20)
    assert len(broken) == 1
    own.start()
    killed.run(killed.unload("select 1 as a", "k/"))
    assert killed.keys("k/") == ["k/0000_part_00.parquet", "k/manifest"]
    own.signal(signal.SIGTERM)


# COPY


def test_what_was_unloaded_is_loaded_again(place: Place) -> None:
    place.run(
        "drop table if exists a; create table a (i int, t varchar(20), d numeric(5,2), at timestamptz)",
        "insert into a values (1, '', 1.5, '2024-01-01 00:00:00+00'), (2, null, null, null)",
        "insert into a values (3, E'x\\n\"y''', -2, null)",
        place.unload("select * from a", "a/"),
        place.unload("select * from a", "c/", "CSV GZIP MANIFEST"),
        "drop table if exists b; create table b (like a)",
        f"copy b from 's3://{place.bucket}/a/0000' iam_role '{place.role}' format as parquet",
    )
    assert place.run("select * from b order by i") == place.run("select * from a order by i")
    place.run(
        "truncate b",
        f"copy b (i, t, d, at) from 's3://{place.bucket}/c/manifest' iam_role '{place.role}' csv gzip manifest",
    )
    assert place.run("select i, d, at from b order by i") == place.run("select i, d, at from a order by i")


def test_a_copy_belongs_to_its_transaction(place: Place) -> None:
    place.put("n/1", b"1|one\n2|\\N\n")
    place.run("drop table if exists n; create table n (i int, t varchar(5))")
    for simple in (True, False):
        with contextlib.closing(place.redshift.simple() if simple else place.redshift.connect()) as connection:
            connection.autocommit = False
            cursor = connection.cursor()
            cursor.execute(f"copy n from 's3://{place.bucket}/n/' iam_role '{place.role}'")
            cursor.execute("select count(*), pg_last_copy_count() from n")
            assert list(cursor.fetchone()) == [2, 2]
            connection.rollback()
            cursor.execute("select count(*) from n")
            assert list(cursor.fetchone()) == [0]
    assert place.run("select count(*) from n") == [(0,)]


def test_options_of_copy_do_what_they_say(place: Place) -> None:
    place.put("o/h.csv", b'id,t\n1,"a,b"\n2,long text\n3,\n')
    place.put("o/j.json", b'{"id": 4, "t": "j", "more": [1]} {"id": 5}\n')
    place.run(
        "drop table if exists o; create table o (id int, t varchar(4))",
        f"copy o from 's3://{place.bucket}/o/h' iam_role '{place.role}' csv ignoreheader 1 truncatecolumns"
        " region 'us-east-1'",
        f"copy o from 's3://{place.bucket}/o/j' iam_role '{place.role}' format json 'auto'",
    )
    assert place.run("select * from o order by 1") == [(1, "a,b"), (2, "long"), (3, ""), (4, "j"), (5, None)]


def test_a_bad_row_fails_the_load_is_recorded_and_may_be_allowed(place: Place) -> None:
    place.put("bad/1.csv", b"1,a\nx,b\n3,c\n")
    place.run("drop table if exists bad; create table bad (id int, t varchar(4))")
    copy = f"copy bad from 's3://{place.bucket}/bad/1.csv' iam_role '{place.role}' csv"
    with pytest.raises(psycopg2.Error, match=r"Load into table 'bad' failed.  Check 'sys_load_error_detail'"):
        place.run(copy)
    found = place.run("select line_number, colname, err_code from stl_load_errors where filename like '%bad/1.csv'")
    assert found == [(2, "id", 1207)]
    place.run(f"{copy} maxerror 1")
    assert place.run("select id from bad order by 1") == [(1,), (3,)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bucket": "no-such-bucket"}, "S3ServiceException"),
        ({"key": "nothing/"}, "The specified S3 prefix 'nothing/' does not exist"),
        ({"table": "missing_table"}, "Cannot COPY into nonexistent table missing_table"),
        ({"options": "parquet"}, "Spectrum Scan Error"),
        ({"options": "avro 'auto'"}, "not emulated: COPY … AVRO"),
    ],
)
def test_a_copy_that_cannot_be_says_why(place: Place, change: dict[str, str], words: str) -> None:
    place.put("w/1", b"1\n")
    place.run("drop table if exists w; create table w (i int)")
    given = {"bucket": place.bucket, "key": "w/", "table": "w", "options": "csv"} | change
    url = f"s3://{given['bucket']}/{given['key']}"
    with pytest.raises(psycopg2.Error, match=re.escape(words)):
        place.run(f"copy {given['table']} from '{url}' iam_role '{place.role}' {given['options']}")


def test_several_statements_of_one_text_are_one_transaction(place: Place) -> None:
    place.run("drop table if exists several; create table several (a int)")
    place.put("s/1", b"7\n")
    copy = f"copy several from 's3://{place.bucket}/s/' iam_role '{place.role}'"
    with pytest.raises(psycopg2.Error, match="division by zero"):
        place.run(f"insert into several values (1); {copy}; select 1 / 0")
    assert place.run(f"insert into several values (1); {copy}; select a from several order by 1") == [(1,), (7,)]


def test_an_s3_that_is_busy_is_reported_in_its_words_and_the_session_goes_on(
    aws: Connection, place: Place, tmp_path: Path
) -> None:
    busy = Rule(r"^PUT .*0000_part", "slow down")
    assert aws.endpoint_url is not None
    with faulty_proxy(int(aws.endpoint_url.rpartition(":")[2]), busy) as (_proxy, url):
        own = LocalRedshift(tmp_path / "own", endpoint_url=url).start()
        through = Place(own, aws, place.bucket, place.role)
        with contextlib.closing(through.redshift.simple()) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            with pytest.raises(psycopg2.Error, match=r"S3ServiceException:.*Status 503,Error SlowDown"):
                cursor.execute(through.unload("select 1 as a", "busy/"))
            assert place.keys() == []
            busy.times = busy.seen
            cursor.execute(through.unload("select 1 as a", "busy/"))
        assert place.keys() == ["busy/0000_part_00.parquet", "busy/manifest"]
        own.signal(signal.SIGTERM)


# The export


def test_goldlake_exports_by_unload_from_the_local_redshift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform(tmp_path / "home")
    platform.up(emulator_port=free_port(), redshift_port=free_port())
    try:
        aws = platform.connection()
        serverless = aws.client("redshift-serverless")
        serverless.create_namespace(namespaceName="gold", dbName="analytics")
        serverless.create_workgroup(workgroupName="gold-wg", namespaceName="gold", baseCapacity=8)
        aws.client("s3").create_bucket(Bucket="gold-lake")
        arn = role(aws, ["s3:PutObject", "s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation"])
        password = local_default("redshift-admin", "password")
        with contextlib.closing(
            psycopg2.connect(
                host="127.0.0.1", port=platform.warehouse_port(), dbname="analytics", user="admin", password=password
            )
        ) as connection:
            connection.cursor().execute(
                "create schema gold; create table gold.fact (id bigint, name varchar(20), day date, pay numeric(9,2));"
                "insert into gold.fact values (1, 'a/b', '2026-01-01', 1.5), (2, null, '2026-01-02', null);"
            )
            connection.commit()
        done = subprocess.run(
            [
                *(
                    str(Path(sys.prefix) / "bin" / "goldlake"),
                    "export",
                    "fact",
                    "--engine",
                    "unload",
                    "--schema",
                    "gold",
                ),
                *("--source", f"redshift://admin@127.0.0.1:{platform.warehouse_port()}/analytics"),
                *("--target", "s3://gold-lake/gold", "--partition-by", "day", "--output", "json"),
                *("--unload-workgroup", "gold-wg", "--unload-role", arn, "--region", "us-east-1"),
                *("--endpoint-url", str(aws.endpoint_url)),
            ],
            env={
                "PATH": str(Path(sys.prefix) / "bin"),
                "PGPASSWORD": password,
                "AWS_ENDPOINT_URL_REDSHIFT_DATA": aws.service_endpoints["redshift-data"],
                "GOLDLAKE_HOME": str(tmp_path / "home"),
                "HOME": str(tmp_path),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        table = DeltaTable("s3://gold-lake/gold/fact", storage_options=aws.storage_options())
        assert sorted(table.get_add_actions(flatten=True).column("num_records").to_pylist()) == [1, 1]
        found = QueryBuilder().register("t", table).execute("SELECT id, name, day, pay FROM t ORDER BY id").read_all()
        rows = list(zip(*(found.column(name).to_pylist() for name in ("id", "name", "day", "pay")), strict=True))
        days = [datetime.date(2026, 1, 1), datetime.date(2026, 1, 2)]
        assert rows == [(1, "a/b", days[0], Decimal("1.50")), (2, None, days[1], None)]
        names = [
            item["Key"].rpartition("/")[2] for item in aws.client("s3").list_objects_v2(Bucket="gold-lake")["Contents"]
        ]
        assert names.count("0000_part_00.parquet") == 2
        assert "manifest" not in names
    finally:
        platform.down()
