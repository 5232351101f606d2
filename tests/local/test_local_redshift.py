"""The local Redshift as a process: who gets in, what stays, how it stops, how it mirrors Glue."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest
import redshift_connector

from local.process import free_port
from runtime.aws import Connection
from tests.local.support import is_alive, wait_for

REPOSITORY = Path(__file__).parents[2]
PASSWORD = "Xy7-local only"


@dataclass
class LocalRedshift:
    """A local Redshift as a process of its own, started and stopped by the test."""

    data: Path
    endpoint_url: str | None = None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    @property
    def log(self) -> str:
        path = self.data.with_suffix(".log")
        return path.read_text() if path.exists() else ""

    @property
    def postmaster(self) -> int:
        return int((self.data / "postgres" / "postmaster.pid").read_text().splitlines()[0])

    def start(self) -> LocalRedshift:
        command = [sys.executable, "-m", "local.redshift", "--data", str(self.data), "--port", str(self.port)]
        if self.endpoint_url:
            command += ["--endpoint-url", self.endpoint_url]
        environment = os.environ | {"GOLDLAKE_LOCAL_REDSHIFT_PASSWORD": PASSWORD}
        with self.data.with_suffix(".log").open("a") as log:
            offset = log.tell()
            self.process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log, text=True)
        wait_for(lambda: "ready on" in self.log[offset:] or self.exited, "ready line")
        return self

    @property
    def exited(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def connect(self, user: str = "admin", password: str = PASSWORD) -> Any:
        connection = redshift_connector.connect(
            host="127.0.0.1", port=self.port, database="analytics", user=user, password=password, ssl=False
        )
        connection.autocommit = True
        return connection

    def query(self, statement: str) -> list[list[Any]]:
        """Return the rows of a statement, run in a connection of its own."""
        with contextlib.closing(self.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(statement)
            return [list(row) for row in cursor.fetchall()] if cursor.description else []


def refusal(server: LocalRedshift, user: str = "admin", password: str = PASSWORD) -> str:
    """Return the server's words to a login that it refuses.

    redshift_connector leaves the socket of a refused login to the garbage collector: that is here, not in a
    later test.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(redshift_connector.Error) as caught:
            server.connect(user, password)
        words = str(caught.value)
        del caught
        gc.collect()
    return words


@pytest.fixture
def redshift(tmp_path: Path) -> Iterator[LocalRedshift]:
    """A running local Redshift of the test's own."""
    server = LocalRedshift(tmp_path / "warehouse").start()
    yield server
    if not server.exited:
        server.signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedshift]:
    """A running local Redshift for tests that leave it as it was."""
    server = LocalRedshift(tmp_path_factory.mktemp("shared") / "warehouse").start()
    yield server
    server.signal(signal.SIGTERM)


def test_the_administrator_gets_in_and_sees_redshifts_version(shared: LocalRedshift) -> None:
    with contextlib.closing(shared.connect()) as connection:
        statuses = dict(connection.parameter_statuses)
    assert statuses[b"server_version"] == b"8.0.2"
    assert "Redshift 1.0" in shared.query("select version()")[0][0]


@pytest.mark.parametrize(("user", "password"), [("admin", "wrong"), ("admin", ""), ("postgres", ""), ("nobody", "x")])
def test_wrong_passwords_and_the_superuser_of_the_socket_are_refused(
    shared: LocalRedshift, user: str, password: str
) -> None:
    assert "'C': '28" in refusal(shared, user, password)


def test_it_listens_on_loopback_only(shared: LocalRedshift) -> None:
    assert shared.process is not None
    processes = [psutil.Process(shared.process.pid), psutil.Process(shared.postmaster)]
    listening = [
        (connection.laddr.ip, connection.laddr.port)
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == [("127.0.0.1", shared.port)]


def test_the_password_is_in_no_argument_list_log_or_file(shared: LocalRedshift) -> None:
    assert shared.process is not None
    assert PASSWORD not in " ".join(psutil.Process(shared.process.pid).cmdline())
    assert PASSWORD not in shared.log
    assert PASSWORD not in (shared.data / "postgres" / "log").read_text()


def test_what_dbt_redshift_reads_from_the_catalogue_is_there(shared: LocalRedshift) -> None:
    late_binding = (
        "select * from pg_get_late_binding_view_cols() "
        "cols(view_schema name, view_name name, col_name name, col_type varchar, col_num int)"
    )
    assert shared.query(late_binding) == []
    for name in ("external_schemas", "external_tables", "external_columns", "table_info", "redshift_columns"):
        shared.query("select * from pg_catalog.svv_" + name)  # noqa: S608 - names from the line above
    [[now]] = shared.query("select getdate()")
    assert abs(now.timestamp() - time.time()) < 86400


def test_external_schemas_exist_before_glue_has_any_table(shared: LocalRedshift) -> None:
    rows = shared.query("select schemaname, databasename from svv_external_schemas order by 1")
    assert rows == [
        ["silver_ai", "silver_ai_enrichment"],
        ["silver_companies", "silver_companies"],
        ["silver_linkedin", "silver_linkedin"],
    ]


def test_a_hundred_sessions_work_at_once_and_a_large_result_passes_whole(shared: LocalRedshift) -> None:
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(contextlib.closing(shared.connect())) for _ in range(100)]
        for session in sessions:
            session.cursor().execute("select 1")
    [[text]] = shared.query("select repeat('ab', 4000000)")
    assert len(text) == 8_000_000


def test_a_running_query_can_be_cancelled_through_the_gateway(shared: LocalRedshift) -> None:
    with contextlib.closing(shared.connect()) as connection:
        cursor = connection.cursor()
        process, key = connection._backend_key_data[:4], connection._backend_key_data[4:]
        request = (16).to_bytes(4, "big") + (80877102).to_bytes(4, "big") + process + key
        cursor.execute("set statement_timeout to 20000")

        def cancel() -> None:
            time.sleep(0.5)
            with socket.create_connection(("127.0.0.1", shared.port)) as other:
                other.sendall(request)
                assert other.recv(1) == b""

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(redshift_connector.Error, match="57014"):
            cursor.execute("select pg_sleep(15)")
        thread.join()


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x08\x00\x02\x00\x00", b"\x00\x00\x00\x04abcd"]
)
def test_a_client_that_speaks_another_protocol_gets_an_error_and_the_next_is_served(
    shared: LocalRedshift, junk: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as client:
        client.sendall(junk)
        assert client.recv(1) == b"E"
    assert shared.query("select 1") == [[1]]


def test_encryption_is_declined_so_that_clients_that_prefer_it_go_on_without(shared: LocalRedshift) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as client:
        for code in (80877104, 80877103):
            client.sendall((8).to_bytes(4, "big") + code.to_bytes(4, "big"))
            assert client.recv(1) == b"N"


def test_duckdb_attaches_it_and_reads_a_table(shared: LocalRedshift) -> None:
    import duckdb_extension_postgres_scanner as package

    [extension] = Path(str(package.__file__)).parent.rglob("*.duckdb_extension")
    shared.query("create table public.numbers as select 1 as a, 'x'::varchar as b, 1.50::numeric(12,2) as c")
    with duckdb.connect() as connection:
        connection.execute(f"LOAD '{extension}'")
        connection.execute(
            f"ATTACH 'host=127.0.0.1 port={shared.port} user=admin password=''{PASSWORD}'' dbname=analytics' "
            "AS pg (TYPE postgres, READ_ONLY)"
        )
        rows = connection.execute("select a, b, c::varchar from pg.public.numbers").fetchall()
    assert rows == [(1, "x", "1.50")]


def test_a_stop_signal_ends_sessions_and_leaves_no_process(redshift: LocalRedshift) -> None:
    postmaster = redshift.postmaster
    open_session = redshift.connect()
    started = time.monotonic()
    assert redshift.signal(signal.SIGTERM) == 0
    assert time.monotonic() - started < 10
    assert not is_alive(postmaster)
    assert not (redshift.data / "postgres" / "postmaster.pid").exists()
    with pytest.raises(redshift_connector.Error):
        open_session.cursor().execute("select 1")
    open_session._usock.close()  # its own close says goodbye to the server first


def test_data_stays_over_a_restart(redshift: LocalRedshift) -> None:
    redshift.query("create table public.kept as select 42 as answer")
    redshift.signal(signal.SIGINT)
    redshift.start()
    assert redshift.query("select answer from public.kept") == [[42]]


def test_it_starts_again_after_being_killed_and_after_its_postgresql_was_killed_too(
    redshift: LocalRedshift,
) -> None:
    redshift.query("create table public.kept as select 42 as answer")
    first = redshift.postmaster
    redshift.signal(signal.SIGKILL)
    assert is_alive(first)
    redshift.start()
    assert redshift.query("select answer from public.kept") == [[42]]

    postmaster = redshift.postmaster
    redshift.signal(signal.SIGKILL)
    os.kill(postmaster, signal.SIGKILL)
    wait_for(lambda: not is_alive(postmaster), "end of PostgreSQL")
    redshift.start()
    assert redshift.query("select answer from public.kept") == [[42]]
    last = redshift.postmaster
    assert redshift.signal(signal.SIGTERM) == 0
    assert not is_alive(last)


def test_a_pid_file_that_names_a_stranger_is_no_obstacle(redshift: LocalRedshift) -> None:
    pid_file = redshift.data / "postgres" / "postmaster.pid"
    text = pid_file.read_text().replace(str(redshift.postmaster), str(os.getpid()), 1)
    redshift.signal(signal.SIGTERM)
    pid_file.write_text(text)
    redshift.start()
    assert redshift.query("select 1") == [[1]]
    assert redshift.postmaster != os.getpid()


def test_without_postgresql_clients_get_a_clear_error(redshift: LocalRedshift) -> None:
    postmaster = redshift.postmaster
    os.kill(postmaster, signal.SIGKILL)
    wait_for(lambda: not is_alive(postmaster), "end of PostgreSQL")
    assert "PostgreSQL does not answer" in refusal(redshift)


def test_a_second_server_on_the_same_directory_or_port_is_refused(shared: LocalRedshift, tmp_path: Path) -> None:
    same_directory = LocalRedshift(shared.data)
    same_port = LocalRedshift(tmp_path / "other", port=shared.port)
    for server in (same_directory.start(), same_port.start()):
        assert server.process is not None
        assert server.process.wait(30) == 64
    assert shared.query("select 1") == [[1]]


# External tables


BUCKET = "lake"


@dataclass
class Lake:
    """The emulator's Glue catalogue and lake bucket, as the tests change them."""

    aws: Connection

    def put_table(
        self, database: str, name: str, columns: dict[str, str], partitions: dict[str, str] | None = None
    ) -> None:
        """Create the Glue table, or give it other columns."""
        glue = self.aws.client("glue")
        with contextlib.suppress(glue.exceptions.AlreadyExistsException):
            glue.create_database(DatabaseInput={"Name": database})
        described = {
            "Name": name,
            "TableType": "EXTERNAL_TABLE",
            "StorageDescriptor": {
                "Location": f"s3://{BUCKET}/silver/{database}/{name}/",
                "Columns": [{"Name": column, "Type": kind} for column, kind in columns.items()],
            },
            "PartitionKeys": [{"Name": column, "Type": kind} for column, kind in (partitions or {}).items()],
        }
        try:
            glue.create_table(DatabaseName=database, TableInput=described)
        except glue.exceptions.AlreadyExistsException:
            glue.update_table(DatabaseName=database, TableInput=described)

    def drop_table(self, database: str, name: str) -> None:
        self.aws.client("glue").delete_table(DatabaseName=database, Name=name)

    def put_rows(self, key: str, query: str) -> None:
        """Write the result of a DuckDB query as a Parquet object."""
        s3 = self.aws.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
            duckdb.sql(f"COPY ({query}) TO '{file.name}' (FORMAT parquet)")
            s3.put_object(Bucket=BUCKET, Key=f"silver/{key}", Body=Path(file.name).read_bytes())


@pytest.fixture
def lake(aws: Connection) -> Lake:
    """An empty lake."""
    request = urllib.request.Request(f"{aws.endpoint_url}/_ministack/reset", method="POST")  # noqa: S310
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310 - a loopback URL of our own
    return Lake(aws)


@pytest.fixture
def mirrored(lake: Lake, tmp_path: Path) -> Iterator[LocalRedshift]:
    """A running local Redshift that mirrors the lake."""
    server = LocalRedshift(tmp_path / "warehouse", endpoint_url=lake.aws.endpoint_url).start()
    yield server
    if not server.exited:
        server.signal(signal.SIGTERM)


def eventually(server: LocalRedshift, statement: str, rows: list[list[Any]]) -> None:
    """Wait until the statement gives the rows: the mirror looks at the lake every two seconds at most."""

    def same() -> bool:
        try:
            return server.query(statement) == rows
        except redshift_connector.ProgrammingError:
            return False  # the table is not there yet

    wait_for(same, f"{rows} from {statement}\n{server.log}", 20)


def test_external_tables_appear_follow_the_lake_and_go(lake: Lake, mirrored: LocalRedshift) -> None:
    lake.put_table("silver_ai_enrichment", "job_enrichment", {"job_posting_id": "string", "remote_score": "double"})
    lake.put_rows("silver_ai_enrichment/job_enrichment/1.parquet", "select 'a' as job_posting_id, 0.5 as remote_score")
    statement = "select job_posting_id, remote_score from silver_ai.job_enrichment order by 1"
    eventually(mirrored, statement, [["a", 0.5]])
    assert mirrored.query("select tablename from svv_external_tables") == [["job_enrichment"]]

    lake.put_rows("silver_ai_enrichment/job_enrichment/2.parquet", "select 'b' as job_posting_id")
    eventually(mirrored, statement, [["a", 0.5], ["b", None]])

    lake.put_table("silver_ai_enrichment", "job_enrichment", {"job_posting_id": "string", "model": "string"})
    eventually(
        mirrored,
        "select job_posting_id, model from silver_ai.job_enrichment order by 1",
        [["a", None], ["b", None]],
    )
    # Redshift lists external columns apart; dbt-redshift adds both lists.
    external = "select columnname from svv_external_columns where schemaname = 'silver_ai' order by 1"
    plain = "select column_name from information_schema.columns where table_schema = 'silver_ai'"
    assert mirrored.query(external) == [["job_posting_id"], ["model"]]
    assert mirrored.query(plain) == []

    lake.drop_table("silver_ai_enrichment", "job_enrichment")
    eventually(mirrored, "select count(*) from svv_external_tables", [[0]])


def test_types_partitions_and_zoned_timestamps_come_through(lake: Lake, mirrored: LocalRedshift) -> None:
    columns = {
        "id": "bigint",
        "pay": "decimal(12,2)",
        "at": "timestamp",
        "on_day": "date",
        "ok": "boolean",
        "tags": "array<string>",
    }
    lake.put_table("silver_linkedin", "typed", columns, {"country": "string"})
    rows = (
        "select 1 as id, 12.50::decimal(12,2) as pay, make_timestamptz(1700000000000000) as at, "
        "date '2023-11-14' as on_day, true as ok, ['x'] as tags"
    )
    lake.put_rows("silver_linkedin/typed/country=AT/part.parquet", rows)
    lake.put_rows("silver_linkedin/typed/country=AT/_hidden/part.parquet", rows)
    eventually(
        mirrored,
        "select id, pay::varchar, at::varchar, on_day::varchar, ok, country from silver_linkedin.typed",
        [[1, "12.50", "2023-11-14 22:13:20", "2023-11-14", True, "AT"]],
    )
    assert "column 'tags' of type 'array<string>' is skipped" in mirrored.log


def test_a_broken_or_hostile_table_harms_no_other(lake: Lake, mirrored: LocalRedshift) -> None:
    hostile = 'x"; drop schema gold; --'
    lake.put_table("silver_companies", "aaa_broken", {"a": "string"})
    s3 = lake.aws.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="silver/silver_companies/aaa_broken/1.parquet", Body=b"no parquet")
    lake.put_table("silver_companies", "hostile", {hostile: "string", "ctid": "string"})
    lake.put_table("silver_companies", "delta", {"a": "string"})
    s3.put_object(Bucket=BUCKET, Key="silver/silver_companies/delta/_delta_log/0.json", Body=b"{}")
    lake.put_table("silver_companies", "no_columns", {"a": "struct<b:int>"})
    lake.put_table("silver_companies", "zz_good", {hostile: "string"})
    lake.put_rows("silver_companies/zz_good/1.parquet", """select 'fine' as "x""; drop schema gold; --" """)
    eventually(mirrored, "select * from silver_companies.zz_good", [["fine"]])
    assert mirrored.query("select tablename from svv_external_tables") == [["zz_good"]]
    assert mirrored.log.count("aaa_broken keeps its last state") == 1


def test_a_session_that_reads_the_old_rows_does_not_stop_new_ones(lake: Lake, mirrored: LocalRedshift) -> None:
    lake.put_table("silver_companies", "companies", {"name": "string"})
    lake.put_rows("silver_companies/companies/1.parquet", "select 'old' as name")
    statement = "select name from silver_companies.companies"
    eventually(mirrored, statement, [["old"]])
    with contextlib.closing(mirrored.connect()) as reader:
        reader.autocommit = False
        cursor = reader.cursor()
        cursor.execute(statement)
        lake.put_rows("silver_companies/companies/1.parquet", "select 'new' as name")
        eventually(mirrored, statement, [["new"]])


def test_who_may_use_an_external_schema_may_read_its_tables(lake: Lake, mirrored: LocalRedshift) -> None:
    lake.put_table("silver_companies", "companies", {"name": "string"})
    lake.put_rows("silver_companies/companies/1.parquet", "select 'a' as name")
    mirrored.query("create user reader password 'Reader12345'")
    eventually(mirrored, "select name from silver_companies.companies", [["a"]])
    statement = "select name from silver_companies.companies"
    with contextlib.closing(mirrored.connect("reader", "Reader12345")) as connection:
        cursor = connection.cursor()
        with pytest.raises(redshift_connector.Error, match="42501"):
            cursor.execute(statement)
    mirrored.query("grant usage on schema silver_companies to reader")
    with contextlib.closing(mirrored.connect("reader", "Reader12345")) as connection:
        connection.cursor().execute(statement)


def test_without_the_emulator_the_last_state_is_served_and_one_line_says_so(
    lake: Lake, mirrored: LocalRedshift
) -> None:
    lake.put_table("silver_companies", "companies", {"name": "string"})
    lake.put_rows("silver_companies/companies/1.parquet", "select 'kept' as name")
    eventually(mirrored, "select name from silver_companies.companies", [["kept"]])
    mirrored.signal(signal.SIGTERM)

    mirrored.endpoint_url = f"http://127.0.0.1:{free_port()}"
    mirrored.start()
    for _ in range(3):
        assert mirrored.query("select name from silver_companies.companies") == [["kept"]]
        time.sleep(1.1)
    assert mirrored.log.count("external tables keep their last state") == 1


def test_a_restart_does_not_load_again_what_has_not_changed(lake: Lake, mirrored: LocalRedshift) -> None:
    lake.put_table("silver_companies", "companies", {"name": "string"})
    lake.put_rows("silver_companies/companies/1.parquet", "select 'kept' as name")
    eventually(mirrored, "select name from silver_companies.companies", [["kept"]])
    mirrored.signal(signal.SIGTERM)
    mirrored.start()
    assert mirrored.query("select name from silver_companies.companies") == [["kept"]]
    assert mirrored.log.count("loaded external table silver_companies.companies") == 1
