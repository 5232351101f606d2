"""Who gets into the local Redshift and how: TLS, temporary logins, what a client sees when the server is killed."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import ssl
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]
import pytest
import redshift_connector

from local.process import free_port
from local.redshift.server import stop_left_behind
from local.redshift.tls import Files
from tests.local.support import REPOSITORY, wait_for

PASSWORD = "Xy7-local only"
# redshift_connector makes its context in a way that Python deprecates.
pytestmark = pytest.mark.filterwarnings(r"ignore:ssl\.(SSLContext|PROTOCOL_TLS):DeprecationWarning")


@dataclass
class Server:
    """A local Redshift as a process of its own."""

    data: Path
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    def start(self) -> Server:
        command = [sys.executable, "-m", "local.redshift", "--data", str(self.data), "--port", str(self.port)]
        environment = os.environ | {"GOLDLAKE_LOCAL_REDSHIFT_PASSWORD": PASSWORD}
        log = self.data.with_suffix(".log")
        with log.open("a") as output:
            offset = output.tell()
            self.process = subprocess.Popen(
                [*command, *self.options], cwd=REPOSITORY, env=environment, stdout=output, stderr=output, text=True
            )
        wait_for(lambda: "ready on" in log.read_text()[offset:] or self.ended, "ready line")
        assert not self.ended, log.read_text()
        return self

    @property
    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    @property
    def authority(self) -> str:
        return str(Files.of(self.data).authority)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(30)

    def connect(self, *, tls: str | None = "verify-full", user: str = "admin", password: str = PASSWORD) -> Any:
        """Open a session with redshift_connector; `tls` is its sslmode, None is without."""
        place = {"host": "127.0.0.1", "port": self.port, "database": "analytics"}
        connection = redshift_connector.connect(
            **place, user=user, password=password, ssl=tls is not None, sslmode=tls or "verify-ca"
        )
        connection.autocommit = True
        return connection

    def query(self, text: str, **login: Any) -> list[list[Any]]:
        with contextlib.closing(self.connect(**login)) as connection:
            cursor = connection.cursor()
            cursor.execute(text)
            return [list(row) for row in cursor.fetchall()] if cursor.description else []

    def refused(self, **login: Any) -> dict[str, str]:
        """Return the server's words to a login that it refuses."""
        # redshift_connector leaves the socket to the garbage collector: that is here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            with pytest.raises(redshift_connector.Error) as caught:
                self.connect(**login)
            words: dict[str, str] = caught.value.args[0]
            del caught
            gc.collect()
        return words


def trusting(server: Server, patch: pytest.MonkeyPatch) -> None:
    """Have redshift_connector trust the server: it looks for authorities where OpenSSL does."""
    patch.setenv("SSL_CERT_FILE", server.authority)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running local Redshift that redshift_connector trusts."""
    server = Server(tmp_path_factory.mktemp("sign-in") / "warehouse").start()
    with pytest.MonkeyPatch.context() as patch:
        trusting(server, patch)
        yield server
    server.signal(signal.SIGTERM)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A running local Redshift that a test may kill."""
    server = Server(tmp_path / "warehouse").start()
    yield server
    if not server.ended:
        server.signal(signal.SIGTERM)
    stop_left_behind(server.data)


# TLS


@pytest.mark.parametrize("mode", [None, "verify-ca", "verify-full"])
def test_redshift_connector_gets_in_with_and_without_tls(server: Server, mode: str | None) -> None:
    assert server.query("select repeat('x', 300000)", tls=mode) == [["x" * 300_000]]


@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-ca", "verify-full"])
def test_libpq_gets_in_in_each_of_its_modes(server: Server, mode: str) -> None:
    login = {"host": "localhost", "port": server.port, "dbname": "analytics", "user": "admin", "password": PASSWORD}
    with contextlib.closing(psycopg2.connect(**login, sslmode=mode, sslrootcert=server.authority)) as connection:
        cursor = connection.cursor()
        cursor.execute("select 1")
        assert cursor.fetchone() == (1,)
        assert connection.info.ssl_in_use is (mode != "disable")


def test_a_client_with_other_authorities_does_not_trust_the_server(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        with pytest.raises(redshift_connector.Error, match="certificate verify failed"):
            server.connect()
        gc.collect()
    assert server.query("select 1", tls=None) == [[1]]


def test_a_hundred_sessions_with_tls_work_at_once(server: Server) -> None:
    with contextlib.ExitStack() as held, ThreadPoolExecutor(20) as pool:
        sessions = list(pool.map(lambda _number: server.connect(), range(100)))
        for session in sessions:
            held.enter_context(contextlib.closing(session))

        def asked(session: Any) -> int:
            cursor = session.cursor()
            cursor.execute("select pg_backend_pid()")
            return int(cursor.fetchone()[0])

        assert len(set(pool.map(asked, sessions))) == 100


def test_a_running_query_is_cancelled_over_tls(server: Server) -> None:
    login = {"host": "localhost", "port": server.port, "dbname": "analytics", "user": "admin", "password": PASSWORD}
    with contextlib.closing(psycopg2.connect(**login, sslmode="require")) as connection:
        cursor = connection.cursor()
        running = "select count(*) from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()"

        def cancel() -> None:
            wait_for(lambda: server.query(running) != [[0]], "running query")
            connection.cancel()

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(psycopg2.extensions.QueryCanceledError):
            cursor.execute("select pg_sleep(60)")
        thread.join(10)
        connection.rollback()
        cursor.execute("select 1")
        assert cursor.fetchone() == (1,)


def test_plain_words_where_tls_was_agreed_harm_nobody_else(server: Server) -> None:
    import socket

    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        plain.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
        assert plain.recv(1) == b"S"
        plain.sendall(b"no handshake at all")
        plain.settimeout(10)
        with contextlib.suppress(OSError, ssl.SSLError):
            while plain.recv(100):
                pass
    assert server.query("select 1") == [[1]]


def test_where_tls_is_required_a_plain_login_is_refused_in_redshifts_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = Server(tmp_path / "warehouse", ("--require-tls",)).start()
    trusting(strict, monkeypatch)
    try:
        assert strict.query("select 1") == [[1]]
        words = strict.refused(tls=None)
        assert words["C"] == "28000"
        assert words["M"] == 'no pg_hba.conf entry for host "127.0.0.1", user "admin", database "analytics", SSL off'
    finally:
        strict.signal(signal.SIGTERM)


# Logins


def test_a_wrong_password_and_an_expired_one_are_told_apart_for_temporary_logins_only(server: Server) -> None:
    for user in ("IAM:ann", "IAMR:runner", "bert"):
        server.query(f"create user \"{user}\" password 'Right-Pass1' valid until '2020-01-01'")
    for user in ("IAM:ann", "IAMR:runner"):
        words = server.refused(user=user, password="Right-Pass1")
        assert (words["S"], words["C"], words["M"]) == ("FATAL", "28000", "IAM Authentication token has expired")
    words = server.refused(user="bert", password="Right-Pass1")
    assert (words["C"], words["M"]) == ("28000", 'password authentication failed for user "bert"')
    server.query("alter user \"IAM:ann\" valid until '2099-01-01'")
    assert server.query("select current_user", user="IAM:ann", password="Right-Pass1") == [["IAM:ann"]]
    words = server.refused(user="IAM:ann", password="Wrong-Pass1")
    assert words["M"] == 'password authentication failed for user "IAM:ann"'


# Killed


def test_a_kill_in_a_transaction_loses_that_transaction_only_and_clients_recover(own: Server) -> None:
    own.query("create table public.kept (a int)", tls=None)
    own.query("insert into public.kept values (1)", tls=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        connection = own.connect(tls=None)
        connection.autocommit = False
        cursor = connection.cursor()
        cursor.execute("insert into public.kept values (2)")
        own.signal(signal.SIGKILL)
        with pytest.raises((redshift_connector.Error, OSError)):
            cursor.execute("select 1")
        with pytest.raises((redshift_connector.Error, OSError)):
            own.connect(tls=None)
        with contextlib.suppress(redshift_connector.Error, OSError):
            connection.close()
        del cursor, connection
        gc.collect()
    own.start()
    assert own.query("select a from public.kept", tls=None) == [[1]]
    own.query("insert into public.kept values (3)", tls=None)
    assert own.query("select a from public.kept order by 1", tls=None) == [[1], [3]]
