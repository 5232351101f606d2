"""The local Redshift as a process: who gets in, what stays, how it stops. External tables are in test_spectrum.py."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import duckdb
import psutil
import pytest
import redshift_connector

from tests.local.redshift_support import PASSWORD, LocalRedshift
from tests.local.support import is_alive, wait_for

REPOSITORY = Path(__file__).parents[2]


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


def test_without_an_emulator_there_are_no_external_schemas(shared: LocalRedshift) -> None:
    assert shared.query("select schemaname from svv_external_schemas") == []


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


def test_gssapi_is_declined_and_tls_is_taken_up_when_asked_for(shared: LocalRedshift) -> None:
    with socket.create_connection(("127.0.0.1", shared.port), timeout=10) as client:
        for code, answer in ((80877104, b"N"), (80877103, b"S")):
            client.sendall((8).to_bytes(4, "big") + code.to_bytes(4, "big"))
            assert client.recv(1) == answer


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
