"""What a run may use of this machine: its folder, its environment, its locks. Nothing is left for the next run.

A warm function is the same process again, with the same /tmp. All runs of one machine share the folder, so one at a
time has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing.context
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.errors import FailedError
from runtime.warehouse import Warehouse

# Lambda gives 512 MB of /tmp. A log of dbt is cut at LOG_BYTES and kept once; artifacts and compiled SQL of some
# hundred nodes take some 20 MB.
NEEDED_BYTES = 64_000_000
LOG_BYTES = 10_000_000
# dbt checks by itself whether its parse still fits: version, variables, profile and environment.
_KEPT = "partial_parse.msgpack"


class BusyError(FailedError):
    """Another run has the folder."""


class FullError(FailedError):
    """The temporary folder has too little room."""


@dataclass(frozen=True)
class Workspace:
    """The folders of one run, below the temporary folder."""

    root: Path

    @property
    def target(self) -> Path:
        """Where dbt writes its artifacts."""
        return self.root / "target"

    @property
    def logs(self) -> Path:
        """Where dbt writes its log."""
        return self.root / "logs"

    @property
    def state(self) -> Path:
        """Where artifacts of an earlier run are put, to compare with."""
        return self.root / "state"

    @property
    def previous(self) -> Path:
        """Where the results of the run that is retried are put."""
        return self.root / "previous"


@contextlib.contextmanager
def workspace() -> Iterator[Workspace]:
    """Yield an empty workspace that nobody else uses.

    Raises BusyError when another run of this machine has it, FullError when /tmp is nearly full.
    """
    temporary = Path(tempfile.gettempdir())
    root = temporary / "dbt"
    root.mkdir(exist_ok=True)
    with (root / "lock").open("w") as lock:
        try:
            # The kernel lets go of it with the process, however that ends.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                "another dbt run is under way here: two at once would build the same tables", hint="wait for its end"
            ) from None
        made = Workspace(root)
        _clean(made)
        free = shutil.disk_usage(temporary).free
        if free < NEEDED_BYTES:
            raise FullError(
                f"{temporary} has {free // 1_000_000} MB left and dbt needs {NEEDED_BYTES // 1_000_000} MB: "
                "something else has filled it"
            )
        try:
            yield made
        finally:
            _clean(made)


def _clean(space: Workspace) -> None:
    """Remove what a run left, but dbt's parse, which makes the next run's start short."""
    for folder in (space.logs, space.state, space.previous):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    space.target.mkdir(exist_ok=True)
    for path in space.target.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != _KEPT:
            path.unlink()


def replace_process_locks() -> None:
    """Make multiprocessing's locks thread locks.

    dbt creates process locks and uses them between threads only. A process lock is a POSIX semaphore in /dev/shm, which
    Lambda does not have: OSError 38 (dbt-core#2992).
    """
    context: Any = multiprocessing.context.BaseContext
    context.Lock = lambda _self: threading.Lock()
    context.RLock = lambda _self: threading.RLock()


@contextlib.contextmanager
def environment(project: Path, warehouse: Warehouse) -> Iterator[None]:
    """Set the variables that the profile reads; afterwards the environment is as it was, without the password."""
    before = dict(os.environ)
    profiles = Path(os.environ.get("DBT_PROFILES_DIR") or project)
    os.environ.update(
        {
            "DBT_PROFILES_DIR": str(profiles if (profiles / "profiles.yml").is_file() else project),
            "REDSHIFT_HOST": warehouse.host,
            "REDSHIFT_PORT": str(warehouse.port),
            "REDSHIFT_DATABASE": warehouse.database,
            "REDSHIFT_USER": warehouse.user,
            # Against the authorities that come with redshift_connector (Amazon's), and with the host's name checked.
            "REDSHIFT_SSLMODE": "verify-full" if warehouse.ssl else "disable",
            # dbt keeps values of variables with this prefix out of its logs and artifacts.
            "DBT_ENV_SECRET_REDSHIFT_PASSWORD": warehouse.password,
        }
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
