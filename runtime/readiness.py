"""Are the source tables there, not empty, and fresh? Exit 0 ready, 1 not ready, 2 cannot be told.

What to check comes from dbt's sources, or is named table by table (`runtime.readiness_sources`); what a table holds is
found out in `runtime.readiness_tables`. A table is ready when it can be read, has the columns that are declared, has at
least one row unless it may be empty, and is not older than dbt's `freshness.error_after`. Whatever is not understood
counts as not ready, and what may not or cannot be asked is told apart from that: a loader mends the one, an operator
the other.

dbt measures freshness by a column; this check measures it by the time of the newest Parquet object, Delta commit or
Iceberg snapshot, for it runs before the warehouse is woken. A rewrite without new rows therefore looks fresh.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any, get_args

from runtime.aws import Connection
from runtime.errors import EXIT_DONE, EXIT_FAILED, EXIT_UNREACHABLE, ConfigurationError, GoldlakeError
from runtime.readiness_sources import (
    SourceTable,
    duration_text,
    sources_from_manifest,
    sources_from_project,
)
from runtime.readiness_store import CheckOptions, Content, NotReadyTable, State, Store, state_of
from runtime.readiness_tables import Catalogue, find_table, read_catalogue, read_table

__all__ = [
    "CheckOptions",
    "ReadinessReport",
    "SourceTable",
    "State",
    "TableReadiness",
    "check",
    "metrics",
    "sources_from_manifest",
    "sources_from_project",
    "wait_until_ready",
]

SCHEMA = "goldlake.check/1"
METRICS_NAMESPACE = "Goldlake"
STATES: tuple[State, ...] = get_args(State)
_UNTOLD: frozenset[State] = frozenset({"forbidden", "unreachable"})


@dataclass(frozen=True)
class TableReadiness:
    """What was found out about a table.

    `rows` None means not counted; with `exact` False there are at least so many (Iceberg: at most). With `complete`
    False not all files were listed, for enough was known. `modified` is the time of the newest object, commit or
    snapshot, `age_seconds` its age at the check. `version` is Delta's, `snapshot` Iceberg's.
    """

    table: str
    state: State
    detail: str
    format: str | None = None
    location: str | None = None
    rows: int | None = None
    exact: bool = True
    files: int | None = None
    complete: bool = True
    version: int | None = None
    snapshot: str | None = None
    modified: datetime | None = None
    age_seconds: int | None = None
    warning: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `modified` in ISO 8601."""
        return {**asdict(self), "modified": self.modified.isoformat() if self.modified else None}


@dataclass(frozen=True)
class ReadinessReport:
    """The tables' readiness at one time, and how many seconds it took to find out."""

    checked_at: datetime
    tables: tuple[TableReadiness, ...]
    seconds: float = 0.0

    @property
    def ready(self) -> bool:
        """Whether there is at least one table and all are ready."""
        return bool(self.tables) and all(table.state == "ready" for table in self.tables)

    @property
    def exit_code(self) -> int:
        """0 all ready; 2 when a table cannot be told because of a permission or connection; else 1."""
        if any(table.state in _UNTOLD for table in self.tables):
            return EXIT_UNREACHABLE
        return EXIT_DONE if self.ready else EXIT_FAILED

    @property
    def summary(self) -> str:
        """One line for people: how many tables are ready, and which are not."""
        waiting = [f"{table.table} is {table.state}" for table in self.tables if table.state != "ready"]
        ready = len(self.tables) - len(waiting)
        named = [*waiting[:10], *([f"and {len(waiting) - 10} more"] if len(waiting) > 10 else [])]
        return f"{ready} of {len(self.tables)} tables ready" + (f"; {', '.join(named)}" if named else "")

    def count(self, state: State) -> int:
        """Return how many tables are in a state."""
        return sum(table.state == state for table in self.tables)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values under the schema `goldlake.check/1`."""
        return {
            "schema": SCHEMA,
            "checked_at": self.checked_at.isoformat(),
            "ready": self.ready,
            "exit_code": self.exit_code,
            "seconds": self.seconds,
            "tables": [table.to_dict() for table in self.tables],
        }


# --- the check ---


def check(
    aws: Connection,
    tables: Sequence[SourceTable],
    *,
    now: datetime | None = None,
    options: CheckOptions | None = None,
    clients: Mapping[str, Any] | None = None,
) -> ReadinessReport:
    """Return the readiness of each table, in their order; nothing is written.

    Several tables are looked at at once, over one connection pool for each service. A missing permission or connection
    is a state of the table, not an exception; once a table cannot be reached, those that were not begun are not tried,
    for each would wait for the same timeouts. Raises ConfigurationError for an empty list, and for a connection without
    region or credentials profile.
    """
    if not tables:
        raise ConfigurationError("there are no tables to check")
    moment, started = now or datetime.now(UTC), time.monotonic()
    limits = options or CheckOptions()
    # Two sets of threads: a table waits for its footers, and must not hold the thread that would read them.
    with (
        ThreadPoolExecutor(limits.workers, thread_name_prefix="table") as pool,
        ThreadPoolExecutor(limits.workers, thread_name_prefix="footer") as readers,
    ):
        results = _check_all(_store(aws, limits, readers, clients or {}), tables, moment, pool)
    return ReadinessReport(moment, tuple(results), round(time.monotonic() - started, 3))


def _store(aws: Connection, limits: CheckOptions, readers: Executor, given: Mapping[str, Any]) -> Store:
    """Return the clients of a check, made before its threads: a boto3 session is not to be shared among them."""
    s3, catalogue = (given.get(service) or client(aws, service, limits) for service in ("s3", "glue"))
    return Store(aws, limits, s3, catalogue, readers)


def client(aws: Connection, service: str, limits: CheckOptions) -> Any:
    """Return a boto3 client with the check's limits. Tables and footers have their own threads, hence connections."""
    return aws.limited_client(
        service,
        connect_seconds=limits.connect_seconds,
        read_seconds=limits.read_seconds,
        attempts=limits.attempts,
        connections=2 * limits.workers,
    )


def _check_all(store: Store, tables: Sequence[SourceTable], moment: datetime, pool: Executor) -> list[TableReadiness]:
    """Return the tables' readiness, in their order."""
    catalogue = read_catalogue(store, tables, pool)
    down = Event()

    def look(table: SourceTable) -> TableReadiness:
        if down.is_set():
            return TableReadiness(table.full_name, "unreachable", "not tried, since another table could not be reached")
        found = _check_table(store, catalogue, table, moment)
        if found.state == "unreachable":
            down.set()
        return found

    return list(pool.map(look, tables))


def _check_table(store: Store, catalogue: Catalogue, table: SourceTable, now: datetime) -> TableReadiness:
    """Return the readiness of one table."""
    location = table.location
    try:
        place = find_table(store, catalogue, table)
        location = place.location
        content = read_table(store, table, place, now)
    except NotReadyTable as exc:
        return TableReadiness(table.full_name, exc.state, exc.detail, location=location)
    except GoldlakeError as exc:
        state, detail = state_of(exc)
        return TableReadiness(table.full_name, state, detail, location=location)
    return _judged(table, content, now)


def _judged(table: SourceTable, content: Content, now: datetime) -> TableReadiness:
    """Return the table's state by its columns, rows and age."""
    age = now - content.modified if content.modified else None
    state, detail = _verdict(table, content, age)
    warnings = [content.warning] if content.warning else []
    if state == "ready" and table.warn_after is not None and (age is None or age > table.warn_after):
        warnings.append(f"last written {_ago(age)}; expected within {_span(table.warn_after)}")
    return TableReadiness(
        table=table.full_name,
        state=state,
        detail=detail,
        format=content.format,
        location=content.location,
        rows=content.rows,
        exact=content.exact,
        files=content.files,
        complete=content.complete,
        version=content.version,
        snapshot=content.snapshot,
        modified=content.modified,
        age_seconds=int(age.total_seconds()) if age is not None else None,
        warning="; ".join(warnings) or None,
    )


def _verdict(table: SourceTable, content: Content, age: timedelta | None) -> tuple[State, str]:
    """Return the table's state, and why."""
    if missing := [column for column in table.columns if not _has(content.columns, column)]:
        return "unreadable", f"required columns are missing: {', '.join(missing)}"
    if content.rows is None and not table.allow_empty:
        return "unreadable", "the number of rows cannot be told"
    if content.rows is not None and content.rows <= 0 and not table.allow_empty:
        return "empty", f"no rows in {_files(content)}"
    if table.error_after is not None and (age is None or age > table.error_after):
        return "stale", f"last written {_ago(age)}; allowed are {_span(table.error_after)}"
    return "ready", _amount(content)


def _has(columns: frozenset[str], column: str) -> bool:
    """Return whether a table has a column; `a.b`, as some describe a field of a struct, is the column `a`."""
    return column in columns or column.partition(".")[0] in columns


def _amount(content: Content) -> str:
    """Return rows and files as a person says them."""
    if content.rows is None:
        return f"rows not counted, {_files(content)}"
    bound = "" if content.exact else "at most " if content.format == "iceberg" else "at least "
    return f"{bound}{content.rows:,} rows in {_files(content)}"


def _files(content: Content) -> str:
    if content.files is None:
        return "an unknown number of files"
    return f"{'' if content.complete else 'at least '}{content.files:,} files"


def _ago(age: timedelta | None) -> str:
    """Return an age as a person says it."""
    return "at an unknown time" if age is None else f"{_span(max(age, timedelta()))} ago"


def _span(duration: timedelta) -> str:
    """Return a duration in its largest whole unit: `26 h`, `3 d`."""
    minutes = int(duration.total_seconds() // 60)
    if minutes >= 3 * 24 * 60:
        return f"{minutes // (24 * 60)} d"
    return f"{minutes // 60} h" if minutes >= 120 else f"{minutes} min"


# --- waiting ---


def wait_until_ready(
    look: Callable[[], ReadinessReport],
    *,
    wait: timedelta,
    poll: timedelta,
    say: Callable[[str], None] = lambda _line: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> ReadinessReport:
    """Look again and again until all tables are ready or the time is over; return the last report.

    A store that cannot be reached is waited for too. What is forbidden is not: no loader will change that. The last
    look is at the end of the time, however `poll` divides it; `say` gets a line for each that was not the last.
    """
    end = clock() + wait.total_seconds()
    while True:
        report = look()
        left = end - clock()
        if report.ready or report.count("forbidden") or left <= 0:
            return report
        pause = min(poll.total_seconds(), left)
        say(f"{report.summary}; waiting up to {duration_text(timedelta(seconds=max(left, 1)))}")
        sleep(pause)


# --- metrics ---


def metrics(report: ReadinessReport, dimensions: Mapping[str, str]) -> dict[str, Any]:
    """Return the report's numbers in CloudWatch's embedded metric format, ready to be printed as one line of JSON.

    Source: CloudWatch user guide, "Specification: Embedded metric format". A Lambda function's output is read for it;
    no call and no permission is needed. Each value of a dimension is another metric on the bill, so keep them few.
    """
    values: dict[str, float] = {
        "TablesReady": report.count("ready"),
        "TablesNotReady": len(report.tables) - report.count("ready"),
        **{f"Tables{state.capitalize()}": report.count(state) for state in STATES if state != "ready"},
        "Seconds": report.seconds,
    }
    definitions = [{"Name": name, "Unit": "Seconds" if name == "Seconds" else "Count"} for name in values]
    directive = {"Namespace": METRICS_NAMESPACE, "Dimensions": [list(dimensions)], "Metrics": definitions}
    return {
        "_aws": {"Timestamp": int(report.checked_at.timestamp() * 1000), "CloudWatchMetrics": [directive]},
        **dimensions,
        **values,
    }
