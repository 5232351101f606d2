"""Helpers of the tests that start processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from runtime.warehouse import Warehouse

REPOSITORY = Path(__file__).parents[2]
# With what breaks careless quoting: in connection strings, in SQL, in a regular expression.
PASSWORD = "corr'ect \\horse $1.*"


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Return the condition's first true value; fail the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    pytest.fail(f"no {what} within {seconds} s")


def is_alive(pid: int) -> bool:
    """Return whether the process runs; one that ended and was not yet reaped by its parent does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Gold:
    """A PostgreSQL with an empty schema `gold`, and the login that exports from it."""

    server: Any
    warehouse: Warehouse

    def run(self, statements: str) -> None:
        """Run SQL as the owner."""
        self.server.psql(statements)
