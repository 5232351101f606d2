"""Records of background processes and the choice of ports; no process is started."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.process import LOOPBACK, ProcessRecord, Service, exclusive, free_port, port_is_free
from runtime.errors import ConfigurationError


def this_process(**changes: float) -> ProcessRecord:
    """Return the record of the process that runs the tests."""
    me = psutil.Process()
    return ProcessRecord(**{"pid": me.pid, "started": me.create_time(), "port": 4566, **changes})  # type: ignore[arg-type]


@pytest.fixture
def service(tmp_path: Path) -> Service:
    def never(_port: int) -> list[str]:
        pytest.fail("a process was started")

    return Service("emulator", tmp_path, 4566, never, lambda _port: {}, lambda _port: True)


def write(service: Service, text: str) -> None:
    service.record_file.parent.mkdir(parents=True, exist_ok=True)
    service.record_file.write_text(text)


def described(record: ProcessRecord) -> str:
    return json.dumps({"pid": record.pid, "started": record.started, "port": record.port})


@contextmanager
def listening(address: str = LOOPBACK) -> Iterator[int]:
    """Listen on a port of its own, and yield it."""
    with socket.create_server((address, 0)) as server:
        yield server.getsockname()[1]


# --- records ---


def test_a_live_process_is_found_by_pid_and_start_time() -> None:
    found = this_process().process()
    assert found is not None
    assert found.pid == os.getpid()


@pytest.mark.parametrize("seconds", [-3600, -2, 2, 3600])
def test_a_pid_that_belongs_to_another_process_by_now_is_not_taken_for_ours(seconds: float) -> None:
    started = psutil.Process().create_time() + seconds
    assert this_process(started=started).process() is None


@pytest.mark.parametrize("pid", [2**22 + 1, 2**31 - 1, 2**40, -1])
def test_a_pid_that_no_process_has_is_none(pid: int) -> None:
    # Linux gives no pid above 2**22.
    assert this_process(pid=pid).process() is None


def test_a_zombie_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "status", lambda _self: psutil.STATUS_ZOMBIE)
    assert this_process().process() is None


def test_a_record_is_read_as_it_was_written(service: Service) -> None:
    write(service, described(this_process()))
    assert service.record() == this_process()


def test_no_record_is_none(service: Service) -> None:
    assert service.record() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "5",
        "{}",
        '{"pid": 1}',
        '{"pid": null, "started": 1.0, "port": 4566}',
        '{"pid": "x", "started": 1.0, "port": 4566}',
        '{"pid": 1, "started": null, "port": 4566}',
        '{"pid": 1, "started": 1.0, "port": [4566]}',
    ],
)
def test_an_unreadable_record_counts_as_none(service: Service, text: str) -> None:
    write(service, text)
    assert service.record() is None


_value = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_value | st.fixed_dictionaries({"pid": _value, "started": _value, "port": _value}))
def test_whatever_a_record_file_holds_it_stops_nothing(service: Service, content: object) -> None:
    write(service, json.dumps(content))
    record = service.record()
    assert record is None or record.process() is None or record.pid == int(content["pid"])  # type: ignore[index]


def test_a_service_whose_process_runs_and_answers_is_left_alone(service: Service) -> None:
    write(service, described(this_process(port=4711)))
    said: list[str] = []
    assert service.start(None, said.append) == 4711
    assert said == [f"emulator: already running on 127.0.0.1:4711 (pid {os.getpid()})"]


def test_stopping_what_does_not_run_removes_the_record_and_stops_no_other_process(service: Service) -> None:
    write(service, described(this_process(started=1.0)))
    said: list[str] = []
    service.stop(said.append)
    assert said == ["emulator: not running"]
    assert service.record() is None


def test_the_last_words_of_a_service_are_the_last_line_of_its_log(service: Service) -> None:
    assert service.last_words() == "no output"
    service.log_file.parent.mkdir()
    service.log_file.write_bytes(b"first\nport taken \xff\n\n  \n")
    assert service.last_words() == "port taken \ufffd"


# --- ports ---


@pytest.mark.parametrize("address", [LOOPBACK, "0.0.0.0"])  # noqa: S104 - what another program may do
def test_a_port_that_somebody_listens_on_is_not_free(address: str) -> None:
    with listening(address) as port:
        assert not port_is_free(port)


def test_a_port_is_free_again_after_its_program_has_ended_with_a_connection_open() -> None:
    with listening() as port, socket.create_connection((LOOPBACK, port)):
        pass
    assert port_is_free(port)


def test_a_free_port_can_be_listened_on() -> None:
    port = free_port()
    assert 1024 <= port <= 65535
    assert port_is_free(port)
    socket.create_server((LOOPBACK, port)).close()


def test_a_free_port_is_not_one_that_is_taken() -> None:
    with listening() as taken:
        assert taken not in {free_port() for _ in range(20)}


def test_the_default_port_is_taken_when_it_is_free(service: Service) -> None:
    said: list[str] = []
    usual = free_port()
    assert service._choose_port(None, usual, said.append) == usual
    assert said == []


def test_another_port_is_taken_and_said_when_the_default_is_not_free(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.process.PORT_SECONDS", 0)
    said: list[str] = []
    with listening() as usual:
        chosen = service._choose_port(None, usual, said.append)
        assert chosen != usual
        assert port_is_free(chosen)
    assert said == [f"emulator: port {usual} is taken by another program, using {chosen}"]


def test_a_usual_port_that_a_killed_process_still_holds_is_waited_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    answers = iter([False, False, True])
    monkeypatch.setattr("local.process.port_is_free", lambda _port: next(answers))
    assert service._choose_port(None, 4566, said.append) == 4566
    assert said == []


def test_a_given_port_that_is_taken_is_refused(service: Service) -> None:
    with listening() as given_port, pytest.raises(ConfigurationError, match=f"port {given_port} is taken") as refused:
        service.start(given_port, lambda _line: None)
    assert refused.value.hint == "give another port, or none to have a free one chosen"


def test_a_given_port_that_is_free_is_taken_whatever_the_default(service: Service) -> None:
    port = free_port()
    assert service._choose_port(port, 4566, lambda _line: None) == port


def test_the_port_of_last_time_is_the_usual_one_also_after_a_stop(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[int] = []

    class Child:
        pid = 2**22 + 1

        def poll(self) -> None:
            """It runs."""

    def launch(_command: list[str], **_options: object) -> Child:
        return Child()

    class Started:
        def create_time(self) -> float:
            return 1.0

    monkeypatch.setattr("local.process._STARTED", [])
    monkeypatch.setattr("subprocess.Popen", launch)
    monkeypatch.setattr("psutil.Process", lambda _pid: Started())
    started = Service(
        "emulator",
        service.home,
        free_port(),
        lambda port: [launched.append(port) or "emulator"],  # type: ignore[func-returns-value]
        lambda _port: {},
        lambda _port: True,
    )
    port = free_port()
    started.start(port, lambda _line: None)
    started.record_file.unlink()
    started.start(None, lambda _line: None)
    assert launched == [port, port]


def test_without_a_last_time_the_default_is_the_usual_port(service: Service) -> None:
    assert service._usual_port() == 4566
    service.port_file.parent.mkdir()
    service.port_file.write_text("not a port")
    assert service._usual_port() == 4566


# --- the lock ---


def test_two_commands_at_once_go_one_after_the_other(tmp_path: Path) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with exclusive(tmp_path / "home"):
            order.append("second")

    thread = threading.Thread(target=second)
    with exclusive(tmp_path / "home"):
        thread.start()
        waiting.wait(5)
        thread.join(0.2)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_the_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), exclusive(tmp_path):
        raise RuntimeError
    done = threading.Event()

    def again() -> None:
        with exclusive(tmp_path):
            done.set()

    threading.Thread(target=again, daemon=True).start()
    assert done.wait(5)
