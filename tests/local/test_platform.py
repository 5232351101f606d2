"""The local platform as processes: started once, found again, stopped for good, on loopback only."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from local.platform import Platform
from local.process import LOOPBACK, free_port, port_is_free
from runtime.errors import ConfigurationError, FailedError, UnreachableError
from tests.local.support import is_alive, wait_for

GOLDLAKE = str(Path(sys.prefix) / "bin" / "goldlake")


class Said(list[str]):
    """Collects what a platform says."""

    def __call__(self, line: str) -> None:
        self.append(line)

    def has(self, text: str) -> bool:
        return any(text in line for line in self)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A platform of the test's own that is not started yet."""
    made = Platform(tmp_path / "home")
    yield made
    made.down()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that keeps its ports and its data from one test to the next."""
    made = Platform(tmp_path_factory.mktemp("platform") / "home")
    made.up(emulator_port=free_port(), redshift_port=free_port())
    yield made
    made.down()


@pytest.fixture
def running(shared: Platform) -> Platform:
    """The shared platform, running: what the test before has ended is started again."""
    shared.up()
    assert states(shared) == {"emulator": "running", "redshift": "running"}
    return shared


def pid_of(platform: Platform, name: str) -> int:
    record = (platform.emulator if name == "emulator" else platform.redshift).record()
    assert record is not None
    return record.pid


def states(platform: Platform) -> dict[str, str]:
    return {service.name: service.state for service in platform.status()}


def family(platform: Platform) -> list[psutil.Process]:
    """Return the services' processes with all their children, PostgreSQL's among them."""
    postmaster = int((platform.home / "redshift/postgres/postmaster.pid").read_text().splitlines()[0])
    parents = [psutil.Process(pid) for pid in (pid_of(platform, "emulator"), pid_of(platform, "redshift"), postmaster)]
    return [process for parent in parents for process in (parent, *parent.children(recursive=True))]


def test_a_platform_that_was_never_started_is_stopped(platform: Platform) -> None:
    assert states(platform) == {"emulator": "stopped", "redshift": "stopped"}
    with pytest.raises(UnreachableError, match="the local emulator is stopped"):
        platform.connection()


def test_up_starts_both_and_a_second_up_leaves_them_alone(running: Platform) -> None:
    before = [pid_of(running, "emulator"), pid_of(running, "redshift")]
    said = Said()
    running.up(say=said)
    assert [pid_of(running, "emulator"), pid_of(running, "redshift")] == before
    assert said.has("emulator: already running")
    assert said.has("redshift: already running")
    assert running.connection().client("sts").get_caller_identity()["Account"] == "000000000000"


def test_nothing_listens_on_any_address_but_loopback(running: Platform) -> None:
    # An open session makes the emulator start a Lambda worker and PostgreSQL a backend, if ever they would listen.
    listening = [
        connection.laddr
        for process in family(running)
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.ip for address in listening} == {LOOPBACK}
    assert {address.port for address in listening} == {
        running.warehouse_port(),
        running.control_port(),
        int(str(running.connection().endpoint_url).rsplit(":", 1)[1]),
    }


def test_down_leaves_no_process(running: Platform) -> None:
    processes = family(running)
    assert len(processes) > 3
    running.down()
    assert not any(is_alive(process.pid) for process in processes)
    assert states(running) == {"emulator": "stopped", "redshift": "stopped"}


def test_down_stops_the_postgresql_that_a_killed_local_redshift_left_behind(running: Platform) -> None:
    processes = family(running)
    os.kill(pid_of(running, "redshift"), signal.SIGKILL)
    said = Said()
    running.down(said)
    assert said.has("stopped the PostgreSQL of a killed one")
    assert not any(is_alive(process.pid) for process in processes)


def test_down_of_a_platform_that_does_not_run_is_fine(platform: Platform) -> None:
    said = Said()
    platform.down(said)
    assert list(said) == ["redshift: not running", "emulator: not running"]


def test_what_was_put_into_the_emulator_is_there_after_down_and_up(running: Platform) -> None:
    s3 = running.connection().client("s3")
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="note", Body=b"still here")
    running.down()
    running.up()
    assert running.connection().client("s3").get_object(Bucket="kept", Key="note")["Body"].read() == b"still here"


def test_a_killed_emulator_is_said_to_be_gone_and_is_started_anew(running: Platform) -> None:
    killed = pid_of(running, "emulator")
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: not is_alive(killed), "end of the emulator")
    assert states(running)["emulator"] == "gone"
    with pytest.raises(UnreachableError, match="the local emulator is gone"):
        running.connection()
    said = Said()
    running.up(say=said)
    assert said.has(f"emulator: process {killed} of the last start is gone")
    assert states(running) == {"emulator": "running", "redshift": "running"}


def test_a_record_whose_pid_is_another_program_by_now_stops_nothing(platform: Platform) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        platform.emulator.record_file.parent.mkdir(parents=True)
        platform.emulator.record_file.write_text(json.dumps({"pid": bystander.pid, "started": 1.0, "port": 4566}))
        assert states(platform)["emulator"] == "gone"
        platform.down()
        assert is_alive(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()


def test_a_given_port_that_is_taken_is_refused(platform: Platform) -> None:
    with socket.create_server((LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"emulator: port {port} is taken by another program"):
            platform.up(emulator_port=port)
    assert states(platform) == {"emulator": "stopped", "redshift": "stopped"}


def test_a_port_of_last_time_that_is_taken_is_replaced_by_a_free_one(running: Platform) -> None:
    port = running.warehouse_port()
    os.kill(pid_of(running, "redshift"), signal.SIGKILL)
    wait_for(lambda: states(running)["redshift"] == "gone" and port_is_free(port), "end of the local Redshift")
    with socket.create_server((LOOPBACK, port)):
        said = Said()
        running.up(say=said)
        assert said.has(f"redshift: port {port} is taken by another program, using")
        assert running.warehouse_port() != port


def test_the_local_redshift_follows_the_emulator_to_another_port(running: Platform) -> None:
    old = str(running.connection().endpoint_url)
    port = int(old.rsplit(":", 1)[1])
    os.kill(pid_of(running, "emulator"), signal.SIGKILL)
    wait_for(lambda: states(running)["emulator"] == "gone" and port_is_free(port), "end of the emulator")
    with socket.create_server((LOOPBACK, port)):
        running.up()
    new = str(running.connection().endpoint_url)
    assert new != old
    assert new in psutil.Process(pid_of(running, "redshift")).cmdline()


def test_a_service_that_ends_at_once_is_reported_with_its_last_words(platform: Platform) -> None:
    platform.home.mkdir()
    (platform.home / "redshift").write_text("a file where the data directory should be")
    with pytest.raises(FailedError, match="redshift ended at once with exit code") as failed:
        platform.up(emulator_port=free_port(), redshift_port=free_port())
    assert failed.value.hint == f"see {platform.redshift.log_file}"


def test_reset_deletes_the_data(running: Platform) -> None:
    running.connection().client("s3").create_bucket(Bucket="gone-afterwards")
    running.reset()
    assert not (running.home / "emulator").exists()
    assert not (running.home / "redshift").exists()
    running.up(emulator_port=free_port(), redshift_port=free_port())
    assert running.connection().client("s3").list_buckets()["Buckets"] == []


def test_two_ups_at_once_start_one_platform(platform: Platform) -> None:
    environment = {**os.environ, "GOLDLAKE_HOME": str(platform.home)}
    ports = ["--emulator-port", str(free_port()), "--redshift-port", str(free_port())]
    starters = [
        subprocess.Popen([GOLDLAKE, "local", "up", *ports], env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [starter.communicate(timeout=120)[1] for starter in starters]
    assert [starter.returncode for starter in starters] == [0, 0]
    assert sum("already running" in error for error in errors) == 1


def test_status_tells_by_its_exit_code_whether_both_run(running: Platform) -> None:
    def status() -> tuple[int, dict[str, str]]:
        done = subprocess.run(
            [GOLDLAKE, "local", "status", "--output", "json"],
            env={**os.environ, "GOLDLAKE_HOME": str(running.home)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, {item["name"]: item["state"] for item in json.loads(done.stdout)["services"]}

    assert status() == (0, {"emulator": "running", "redshift": "running"})
    running.redshift.stop(lambda _line: None)
    assert status() == (2, {"emulator": "running", "redshift": "stopped"})
