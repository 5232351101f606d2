"""What a check of tables works with: its limits, the clients, and the answers about one table."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from runtime.aws import Connection
from runtime.errors import AccessDeniedError, GoldlakeError, UnreachableError

State = Literal["ready", "missing", "empty", "stale", "unreadable", "forbidden", "unreachable"]


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """How to check. `workers` tables are looked at at once; the times are limits of one request.

    `count` reads every footer, so that the rows of Parquet tables are exact.
    """

    workers: int = 16
    connect_seconds: float = 5
    read_seconds: float = 10
    attempts: int = 3
    count: bool = False


@dataclass(frozen=True)
class Content:
    """What a table holds.

    `rows` None: it cannot be told; unless `exact` there are at least so many (Iceberg: at most). `complete` says that
    all files were listed, `modified` is the time of the newest object, commit or snapshot. `columns` are the top-level
    ones, in lower case. `version` is Delta's, `snapshot` Iceberg's id as text: it has more digits than a JSON number
    keeps everywhere.
    """

    format: str
    location: str
    rows: int | None
    files: int | None
    modified: datetime | None
    columns: frozenset[str]
    exact: bool = True
    complete: bool = True
    version: int | None = None
    snapshot: str | None = None
    warning: str | None = None


class NotReadyTable(Exception):  # noqa: N818 - an answer, not an error: it never leaves the check
    """A state that ends the check of a table."""

    def __init__(self, state: State, detail: str) -> None:
        super().__init__(detail)
        self.state = state
        self.detail = detail


@dataclass(frozen=True)
class Store:
    """Where tables are looked for: clients made once for all of them, and the threads that read footers."""

    aws: Connection
    options: CheckOptions
    s3: Any = field(repr=False)
    glue: Any = field(repr=False)
    readers: Executor = field(repr=False)

    def delta_options(self) -> dict[str, str]:
        """Return delta-rs' options with the limits of the other clients; its own are three minutes and ten tries."""
        limits = self.options
        return {
            **self.aws.storage_options(),
            "connect_timeout": _milliseconds(limits.connect_seconds),
            "timeout": _milliseconds(limits.read_seconds),
            "max_retries": str(limits.attempts - 1),
            "retry_timeout": _milliseconds(limits.attempts * (limits.connect_seconds + limits.read_seconds)),
        }


def _milliseconds(seconds: float) -> str:
    """Return a duration as delta-rs reads it: it takes no fractions."""
    return f"{round(seconds * 1000)}ms"


def state_of(error: GoldlakeError) -> tuple[State, str]:
    """Return the state that an error means."""
    if isinstance(error, AccessDeniedError):
        return "forbidden", error.message
    if isinstance(error, UnreachableError):
        return "unreachable", error.message
    return ("missing" if error.code == "NoSuchBucket" else "unreadable"), error.message
