"""The services of the laptop: an AWS emulator, a local Redshift Serverless, and a Trino when asked for."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from local.process import LOOPBACK, PORT_SECONDS, Service, exclusive, free_port, http_answers, port_is_free
from local.redshift.server import psql_binary, stop_left_behind
from local.trino import server as trino
from runtime.aws import DEFAULT_REGION, Connection
from runtime.errors import ConfigurationError, UnreachableError
from runtime.secrets import local_default
from runtime.target import write_atomically
from runtime.warehouse import DEFAULT_DATABASE, DEFAULT_PORT

EMULATOR_PORT = 4566
CONTROL_PORT = 5440
WAREHOUSE_LOGIN = "redshift-admin"
EMULATOR_REQUIREMENTS = Path(__file__).with_name("emulator-requirements.txt")


@dataclass(frozen=True)
class ServiceStatus:
    """How a service is: `running`, `stopped`, `gone` (its process died) or `silent` (it does not answer)."""

    name: str
    state: str
    port: int | None
    pid: int | None
    log: str
    url: str | None = None
    """Where a client of it goes, for a service that has a URL of its own kind."""


class Platform:
    """The local platform in a folder. Each folder has its own processes, ports, logs and data."""

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        self.emulator = Service(
            name="emulator",
            home=self.home,
            default_port=EMULATOR_PORT,
            command=lambda _port: [str(emulator_python()), "-m", "ministack"],
            environment=self._emulator_environment,
            healthy=lambda port: http_answers(f"http://{LOOPBACK}:{port}/_ministack/ready"),
        )
        self.redshift = Service(
            name="redshift",
            home=self.home,
            default_port=DEFAULT_PORT,
            command=self._redshift_command,
            environment=self._redshift_environment,
            healthy=speaks_postgres,
        )
        self.trino = Service(
            name="trino",
            home=self.home,
            default_port=trino.PORT,
            command=self._trino_command,
            environment=lambda _port: _basics(self.home / "trino"),
            healthy=trino.answers_query,
        )

    def up(
        self,
        *,
        emulator_port: int | None = None,
        redshift_port: int | None = None,
        with_trino: bool = False,
        trino_port: int | None = None,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """Start what does not run; a Trino only when asked for, and downloaded first if need be.

        Raises ConfigurationError for a taken port, UnreachableError for a failed start, and as `trino.install` does.
        """
        ensure_emulator_environment(say)
        if with_trino:
            # Before the lock: a download takes its time, and nobody else has to wait for it.
            trino.install(say)
        with exclusive(self.home):
            for folder in ("emulator/tmp", "emulator/state", "emulator/s3"):
                (self.home / folder).mkdir(parents=True, exist_ok=True)
            last = self.emulator.record()
            if last is None or last.process() is None:
                # What a killed emulator left of its unpacked functions, some hundred megabytes.
                shutil.rmtree(self.home / "emulator" / "tmp", ignore_errors=True)
                (self.home / "emulator" / "tmp").mkdir()
            port = self.emulator.start(emulator_port, say)
            if last is not None and last.port != port:
                # It reads the emulator's tables, and was told where that is when it started.
                self.redshift.stop(say)
                # Its catalogues have the old port, too.
                self._stop_trino(say)
            self.redshift.start(redshift_port, say)
            if with_trino:
                self.start_trino(trino_port, say)

    def start_trino(self, port: int | None, say: Callable[[str], None]) -> int:
        """Make sure that the installed Trino runs beside a running emulator and answers queries; return its port.

        The caller holds the platform's lock. Raises as `Service.start` and `trino.wait_until_ready` do.
        """
        trino.allow_open_files()
        # It takes longer than the others and says so: not `start` waits for it, but what comes after.
        launched = replace(self.trino, healthy=lambda _port: True)
        chosen = launched.start(port, lambda line: say(line.replace("listening on", "starting on")))
        trino.wait_until_ready(self.trino, chosen, say)
        say(f"trino: ready, {trino.url(chosen)}")
        return chosen

    def _stop_trino(self, say: Callable[[str], None]) -> None:
        """Stop a Trino that was started; of one that never was nothing is said."""
        if self.trino.record() is not None:
            self.trino.stop(say)

    def down(self, say: Callable[[str], None] = lambda _line: None) -> None:
        """Stop all services; data stays. No process is left."""
        with exclusive(self.home):
            self._stop_trino(say)
            self.redshift.stop(say)
            orphan = stop_left_behind(self.home / "redshift")
            if orphan is not None:
                say(f"redshift: stopped the PostgreSQL of a killed one (pid {orphan})")
            self.emulator.stop(say)

    def reset(self, say: Callable[[str], None] = lambda _line: None) -> None:
        """Stop all services and delete everything they kept, deployments into them included."""
        self.down(say)
        with exclusive(self.home):
            for folder in ("emulator", "redshift", "trino", "stacks", "logs", "run"):
                shutil.rmtree(self.home / folder, ignore_errors=True)
        say(f"data under {self.home} deleted")

    def status(self) -> list[ServiceStatus]:
        """Return how each service is; Trino only when it was started."""
        both = [_status(service) for service in (self.emulator, self.redshift)]
        found = _status(self.trino)
        if found.port is None:
            return both
        return [*both, replace(found, url=trino.url(found.port))]

    def connection(self) -> Connection:
        """Return the connection to the running emulator, and to the control plane of the local Redshift.

        Raises UnreachableError when the emulator does not answer.
        """
        control = f"http://{LOOPBACK}:{self._kept_control_port() or CONTROL_PORT}"
        return Connection(
            endpoint_url=f"http://{LOOPBACK}:{self._running_port(self.emulator)}",
            region=DEFAULT_REGION,
            service_endpoints={"redshift-serverless": control, "redshift-data": control},
        )

    def warehouse_port(self) -> int:
        """Return the port of the running local Redshift. Raises UnreachableError when it does not answer."""
        return self._running_port(self.redshift)

    def control_port(self) -> int:
        """Return the port of the running control plane of Redshift Serverless and its Data API.

        Raises UnreachableError when the local Redshift does not answer.
        """
        self._running_port(self.redshift)
        port = self._kept_control_port()
        if port is None:
            raise UnreachableError("the local redshift has no control plane", hint="goldlake local down, then up")
        return port

    def psql(self) -> tuple[list[str], dict[str, str]]:
        """Return command and environment of a psql on the local Redshift; the password is in the environment only."""
        login = {
            "PGHOST": LOOPBACK,
            "PGPORT": str(self.warehouse_port()),
            "PGDATABASE": DEFAULT_DATABASE,
            "PGUSER": local_default(WAREHOUSE_LOGIN, "username"),
            "PGPASSWORD": local_default(WAREHOUSE_LOGIN, "password"),
            "PGSSLMODE": "disable",
        }
        return [str(psql_binary())], {**os.environ, **login}

    def _running_port(self, service: Service) -> int:
        status = _status(service)
        if status.state != "running" or status.port is None:
            raise UnreachableError(f"the local {service.name} is {status.state}", hint="goldlake local up")
        return status.port

    def _emulator_environment(self, port: int) -> Mapping[str, str]:
        folder = self.home / "emulator"
        return {
            **_basics(folder),
            "GATEWAY_PORT": str(port),
            "BIND_HOST": LOOPBACK,
            "MINISTACK_HOST": "localhost",
            "MINISTACK_REGION": DEFAULT_REGION,
            # IAM policies are evaluated: a missing permission shows here, not in the account.
            "AUTH": "true",
            # Two listeners of its own that would open on every address.
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "PERSIST_STATE": "1",
            "STATE_DIR": str(folder / "state"),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(folder / "s3"),
            "TMPDIR": str(folder / "tmp"),
        }

    def _redshift_command(self, port: int) -> list[str]:
        endpoint = f"http://{LOOPBACK}:{self._emulator_port()}"
        return [
            sys.executable,
            "-m",
            "local.redshift",
            "--data",
            str(self.home / "redshift"),
            "--port",
            str(port),
            "--endpoint-url",
            endpoint,
            "--control-port",
            str(self._choose_control_port(port)),
        ]

    def _trino_command(self, port: int) -> list[str]:
        endpoint = f"http://{LOOPBACK}:{self._emulator_port()}"
        return trino.prepare(trino.installed(), self.home / "trino", port, endpoint)

    def _emulator_port(self) -> int:
        """Return the port of the emulator's last start."""
        emulator = self.emulator.record()
        return emulator.port if emulator else EMULATOR_PORT

    @property
    def _control_port_file(self) -> Path:
        """Where the control plane's port is kept: deployed stacks refer to it, so it stays the same if it can."""
        return self.home / "run" / "redshift-control.port"

    def _kept_control_port(self) -> int | None:
        try:
            return int(self._control_port_file.read_text())
        except (OSError, ValueError):
            return None

    def _choose_control_port(self, warehouse_port: int) -> int:
        """Return the port of last time, or the default beside the warehouse's default, or a free one; keep it."""
        # A warehouse elsewhere says that another platform has the defaults, or is about to.
        port = self._kept_control_port() or (CONTROL_PORT if warehouse_port == DEFAULT_PORT else free_port())
        # A killed process can hold its port for a moment after it is gone.
        deadline = time.monotonic() + PORT_SECONDS
        while not port_is_free(port):
            if time.monotonic() > deadline:
                port = free_port()
                break
            time.sleep(0.1)
        write_atomically(self._control_port_file, str(port))
        return port

    def _redshift_environment(self, _port: int) -> Mapping[str, str]:
        return {
            **_basics(self.home),
            # A folder on the path finds the packages without an installed project, too.
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "GOLDLAKE_LOCAL_REDSHIFT_PASSWORD": local_default(WAREHOUSE_LOGIN, "password"),
        }


def _basics(folder: Path) -> dict[str, str]:
    """Return the environment that every service gets; nothing of the user's own, credentials least of all."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }


def _status(service: Service) -> ServiceStatus:
    record = service.record()
    log = str(service.log_file)
    if record is None:
        return ServiceStatus(service.name, "stopped", None, None, log)
    if record.process() is None:
        return ServiceStatus(service.name, "gone", record.port, record.pid, log)
    state = "running" if service.healthy(record.port) else "silent"
    return ServiceStatus(service.name, state, record.port, record.pid, log)


def speaks_postgres(port: int) -> bool:
    """Return whether a PostgreSQL-protocol server on the loopback port answers a request for TLS."""
    ssl_request = struct.pack("!ii", 8, 80877103)
    try:
        with socket.create_connection((LOOPBACK, port), timeout=2) as connection:
            connection.sendall(ssl_request)
            return connection.recv(1) in (b"N", b"S")
    except OSError:
        return False


def emulator_python() -> Path:
    """Return the interpreter of the emulator's own environment, inside this one."""
    return Path(sys.prefix) / "emulator" / "bin" / "python"


def ensure_emulator_environment(say: Callable[[str], None]) -> None:
    """Make the emulator's environment if it is not there or its requirements changed."""
    python = emulator_python()
    stamp = python.parent.parent / "requirements.txt"
    wanted = EMULATOR_REQUIREMENTS.read_text()
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    if importlib.util.find_spec("uv") is None:
        raise ConfigurationError("the package uv is not installed", hint="pip install -r requirements.txt")
    say("emulator: installing its own environment")
    uv = [sys.executable, "-m", "uv", "--quiet"]
    target = python.parent.parent
    _checked([*uv, "venv", "--clear", "--python", sys.executable, str(target)])
    _checked([*uv, "pip", "install", "--python", str(python), "--requirement", str(EMULATOR_REQUIREMENTS)])
    stamp.write_text(wanted)


def _checked(command: list[str]) -> None:
    with tempfile.TemporaryFile("w+") as errors:
        if subprocess.run(command, stderr=errors, check=False).returncode != 0:
            errors.seek(0)
            raise UnreachableError(f"the emulator's environment cannot be installed: {errors.read().strip()}")
