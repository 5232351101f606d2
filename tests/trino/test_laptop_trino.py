"""The laptop's Trino as a process: loopback only, started once, started anew when it died, on the emulator."""

from __future__ import annotations

import os
import signal
import uuid
from typing import Any

import psutil
import pytest
import trino

from local.platform import Platform
from local.process import LOOPBACK
from local.trino.server import USER
from runtime.aws import DEFAULT_REGION, Connection
from tests.local.support import is_alive, wait_for


@pytest.fixture(autouse=True)
def _catalog() -> None:
    """These tests are about the server: once is enough, whatever the catalogue."""


@pytest.fixture
def platform(own_trino: Platform | None) -> Platform:
    """The platform whose Trino runs."""
    if own_trino is None:
        pytest.skip("TRINO_URL names a Trino that is not the laptop's own")
    return own_trino


def pid_and_port(platform: Platform) -> tuple[int, int]:
    record = platform.trino.record()
    assert record is not None
    return record.pid, record.port


def query(platform: Platform, statement: str) -> Any:
    """Return the rows of a statement."""
    connection = trino.dbapi.connect(host=LOOPBACK, port=pid_and_port(platform)[1], user=USER)
    return connection.cursor().execute(statement).fetchall()


def start_again(platform: Platform) -> list[str]:
    """Start Trino as `goldlake local up --with trino` does; return what was said."""
    said: list[str] = []
    platform.start_trino(None, said.append)
    return said


def test_it_listens_on_loopback_only(platform: Platform) -> None:
    pid, port = pid_and_port(platform)
    process = psutil.Process(pid)
    sockets = [found for each in (process, *process.children(True)) for found in each.net_connections(kind="inet")]
    listening = {found.laddr for found in sockets if found.status == psutil.CONN_LISTEN}
    # Java's sockets are of IPv6, which writes an address of IPv4 in its own way.
    assert {(address.ip.removeprefix("::ffff:"), address.port) for address in listening} == {(LOOPBACK, port)}


def test_status_shows_it_with_its_url(platform: Platform) -> None:
    pid, port = pid_and_port(platform)
    (found,) = [service for service in platform.status() if service.name == "trino"]
    assert (found.state, found.pid, found.url) == ("running", pid, f"http://goldlake@127.0.0.1:{port}/delta")


def test_a_second_start_leaves_it_alone(platform: Platform) -> None:
    before = pid_and_port(platform)
    said = start_again(platform)
    assert pid_and_port(platform) == before
    assert f"trino: already running on {LOOPBACK}:{before[1]} (pid {before[0]})" in said


@pytest.mark.parametrize("catalog", ["delta", "delta_file", "iceberg"])
def test_a_table_is_written_to_the_emulator_and_read_back(platform: Platform, catalog: str) -> None:
    emulator = platform.emulator.record()
    assert emulator is not None
    s3 = Connection(f"http://{LOOPBACK}:{emulator.port}", DEFAULT_REGION).client("s3")
    bucket = f"lake-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    schema = f'"{catalog}"."s_{uuid.uuid4().hex[:8]}"'
    query(platform, f"CREATE SCHEMA {schema} WITH (location = 's3://{bucket}/gold')")
    query(platform, f"CREATE TABLE {schema}.nation AS TABLE tpch.tiny.nation")
    assert len(query(platform, f"TABLE {schema}.nation")) == 25
    assert s3.list_objects_v2(Bucket=bucket, Prefix="gold/nation")["KeyCount"] > 1


def test_a_killed_one_is_said_to_be_gone_and_is_started_anew_on_its_port(platform: Platform) -> None:
    pid, port = pid_and_port(platform)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid), "end of Trino")
    assert {service.name: service.state for service in platform.status()}["trino"] == "gone"
    said = start_again(platform)
    assert f"trino: process {pid} of the last start is gone; starting anew" in said
    assert pid_and_port(platform)[1] == port
    assert query(platform, "SELECT count(*) FROM tpch.tiny.region") == [[5]]


def test_stopping_it_leaves_no_process(platform: Platform) -> None:
    pid, _port = pid_and_port(platform)
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    platform.trino.stop(lambda _line: None)
    assert not any(is_alive(member.pid) for member in family)
    assert [service.name for service in platform.status()] == ["emulator", "redshift"]
    # The tests after this one find it as it was.
    start_again(platform)
