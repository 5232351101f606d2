"""Background processes with a record of pid, port and log: started once, found again, stopped for good."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from runtime.errors import ConfigurationError, FailedError, UnreachableError
from runtime.target import write_atomically

LOOPBACK = "127.0.0.1"
START_SECONDS = 60
# The services outlive the command that starts them. Python warns when the handle of a live process is
# thrown away, so handles are kept for as long as this process lives.
_STARTED: list[subprocess.Popen[bytes]] = []
STOP_SECONDS = 20
PORT_SECONDS = 2


@dataclass(frozen=True)
class ProcessRecord:
    """What is kept of a running service. Pid and start time together name a process: pids are used again."""

    pid: int
    started: float
    port: int

    def process(self) -> psutil.Process | None:
        """Return the live process, or None when it is gone or its pid belongs to another by now."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, ValueError, OverflowError):
            # ValueError and OverflowError: no number that a process can have.
            return None
        return process if same else None


@dataclass(frozen=True)
class Service:
    """A background service of the local platform."""

    name: str
    home: Path
    """The platform's folder: records under run/, logs under logs/."""
    default_port: int
    command: Callable[[int], Sequence[str]]
    """The command line for a port."""
    environment: Callable[[int], Mapping[str, str]]
    """The whole environment of the process for a port; nothing is inherited."""
    healthy: Callable[[int], bool]

    @property
    def record_file(self) -> Path:
        """Where pid, start time and port are kept."""
        return self.home / "run" / f"{self.name}.json"

    @property
    def port_file(self) -> Path:
        """Where the port of the last start is kept; it outlives the record."""
        return self.home / "run" / f"{self.name}.port"

    @property
    def log_file(self) -> Path:
        """Where the service's output goes."""
        return self.home / "logs" / f"{self.name}.log"

    def record(self) -> ProcessRecord | None:
        """Return the record of the last start, or None. An unreadable record counts as none."""
        try:
            kept = json.loads(self.record_file.read_text())
            return ProcessRecord(pid=int(kept["pid"]), started=float(kept["started"]), port=int(kept["port"]))
        except (OSError, ValueError, TypeError, KeyError, OverflowError):
            return None

    def start(self, port: int | None, say: Callable[[str], None]) -> int:
        """Make sure that the service runs and answers; return its port.

        `port` None means the port of last time, or the default, or a free one when that is taken. Raises
        ConfigurationError when a given port is taken, UnreachableError when the service does not come up.
        """
        known = self.record()
        if known is not None:
            process = known.process()
            if process is None:
                say(f"{self.name}: process {known.pid} of the last start is gone; starting anew")
            elif port in (None, known.port) and self.healthy(known.port):
                say(f"{self.name}: already running on {LOOPBACK}:{known.port} (pid {known.pid})")
                return known.port
            else:
                reason = "does not answer" if port in (None, known.port) else f"is on port {known.port}"
                say(f"{self.name}: process {known.pid} {reason}; starting it again")
                stop_process(process)
        chosen = self._choose_port(port, self._usual_port(), say)
        self._launch(chosen)
        say(f"{self.name}: listening on {LOOPBACK}:{chosen}")
        return chosen

    def stop(self, say: Callable[[str], None]) -> None:
        """Stop the service with all its children; the record goes, the port is remembered."""
        known = self.record()
        process = known.process() if known else None
        if process is None:
            say(f"{self.name}: not running")
        else:
            stop_process(process)
            say(f"{self.name}: stopped (pid {process.pid})")
        _collect_ended()
        self.record_file.unlink(missing_ok=True)

    def _usual_port(self) -> int:
        """Return the port of last time, or the default: deployed stacks refer to it."""
        known = self.record()
        if known is not None:
            return known.port
        try:
            return int(self.port_file.read_text())
        except (OSError, ValueError):
            return self.default_port

    def _choose_port(self, given: int | None, usual: int, say: Callable[[str], None]) -> int:
        if given is not None:
            if not port_is_free(given):
                raise ConfigurationError(
                    f"{self.name}: port {given} is taken by another program",
                    hint="give another port, or none to have a free one chosen",
                )
            return given
        # A killed process can hold its port for a moment after it is gone, until its last thread has ended.
        deadline = time.monotonic() + PORT_SECONDS
        while not port_is_free(usual):
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        else:
            return usual
        free = free_port()
        say(f"{self.name}: port {usual} is taken by another program, using {free}")
        return free

    def _launch(self, port: int) -> None:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            child = subprocess.Popen(
                list(self.command(port)),
                env=dict(self.environment(port)),
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _STARTED.append(child)
        started = psutil.Process(child.pid).create_time()
        record = ProcessRecord(pid=child.pid, started=started, port=port)
        write_atomically(self.record_file, json.dumps(asdict(record)))
        write_atomically(self.port_file, str(port))
        deadline = time.monotonic() + START_SECONDS
        while not self.healthy(port):
            code = child.poll()
            if code is not None:
                self.record_file.unlink(missing_ok=True)
                raise FailedError(
                    f"{self.name} ended at once with exit code {code}: {self.last_words()}",
                    hint=f"see {self.log_file}",
                )
            if time.monotonic() > deadline:
                stop_process(psutil.Process(child.pid))
                self.record_file.unlink(missing_ok=True)
                raise UnreachableError(
                    f"{self.name} did not answer on port {port} within {START_SECONDS} s",
                    hint=f"see {self.log_file}",
                )
            time.sleep(0.1)

    def last_words(self) -> str:
        """Return the last line of the service's log."""
        try:
            lines = [line for line in self.log_file.read_text(errors="replace").splitlines() if line.strip()]
        except OSError:
            lines = []
        return lines[-1].strip() if lines else "no output"


def _collect_ended() -> None:
    """Take note of services that have ended, so that neither a zombie nor a warning is left of them."""
    _STARTED[:] = [child for child in _STARTED if child.poll() is None]


def stop_process(process: psutil.Process) -> None:
    """Stop a process and all its children: first by SIGTERM, after 20 s by SIGKILL. Gone processes are fine."""
    try:
        family = [*process.children(recursive=True), process]
        process.terminate()
    except psutil.NoSuchProcess:
        return
    # The parent first: it stops its own children in order. What it leaves behind is ended then.
    _gone, alive = psutil.wait_procs([process], timeout=STOP_SECONDS)
    for survivor in [*alive, *(child for child in family if child != process)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            survivor.kill()
    psutil.wait_procs(family, timeout=5)


def port_is_free(port: int) -> bool:
    """Return whether a program could listen on the loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def http_answers(url: str) -> bool:
    """Return whether an HTTP server answers 200 there."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own http URL on loopback
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@contextlib.contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Hold the platform's lock, so that two `up`, `down` or `deploy` at once go one after the other."""
    home.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
