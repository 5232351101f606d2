"""dbt itself, in this process: started, listened to, and stopped before the time limit."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runtime.errors import GoldlakeError
from runtime.warehouse import Warehouse

# dbt ends its queries itself when it is interrupted, one after the other and with a lock that a `drop … cascade` may
# hold. After so many seconds we end them; after twice as many dbt is interrupted once more, whatever it waits for.
PATIENCE_SECONDS = 5.0


class DeadlineError(KeyboardInterrupt):
    """The time limit is near. dbt cancels its queries on KeyboardInterrupt, and on no other exception."""


@dataclass
class Run:
    """What is known of a run of dbt, also of one that was stopped."""

    success: bool = False
    result: Any = None
    problem: str = ""
    stopped: bool = False
    chosen: list[str] | None = None
    """The nodes that dbt had selected, None before it had. Ephemeral models are not built, so they are not here."""
    task: Any = None
    """dbt's own task, None before it had selected nodes."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds of parse and run."""

    def write_results(self, path: Path) -> None:
        """Write the results of the nodes that had ended: dbt does not when something beside the nodes fails."""
        ended = getattr(self.task, "node_results", None)
        if ended:
            now = datetime.now(UTC).replace(tzinfo=None)
            elapsed = time.time() - self.task.started_at
            self.task.get_result(results=ended, elapsed_time=elapsed, generated_at=now).write(str(path))


def run(arguments: list[str], *, seconds: float, warehouse: Warehouse, on_event: Callable[[Any], None]) -> Run:
    """Run dbt with these arguments for so many seconds at most; `on_event` gets dbt's events, from many threads."""
    from dbt.cli.main import dbtRunner

    begin = time.monotonic()
    parsed: list[float] = []

    def hear(event: Any) -> None:
        # The first word after the parse; `dbt debug` and commands that fail before have none.
        if event.info.name == "FoundStats":
            parsed.append(time.monotonic())
        on_event(event)

    found = Run()
    try:
        stopping = _deadline(seconds, lambda: cancel_queries(warehouse))
        with _log_closed(), stopping, _chosen_nodes(found), _single_statements():
            outcome = dbtRunner(callbacks=[hear]).invoke(arguments)
    except DeadlineError:
        found.stopped = True
    else:
        # dbt catches whatever is raised inside it, and hands it back.
        found.stopped = isinstance(outcome.exception, DeadlineError)
        found.success = bool(outcome.success)
        found.result = outcome.result
        found.problem = str(outcome.exception) if outcome.exception and not found.stopped else ""
    ended = time.monotonic()
    middle = parsed[0] if parsed else begin
    found.timings = {"parse": middle - begin, "run": ended - middle}
    return found


@contextlib.contextmanager
def _log_closed() -> Iterator[None]:
    """Close dbt's log file and forget its listeners behind the block; dbt itself leaves that to the process's end."""
    from dbt_common.events.event_manager_client import cleanup_event_logger, get_event_manager

    try:
        yield
    finally:
        for logger in get_event_manager().loggers:
            python_logger: logging.Logger | None = getattr(logger, "_python_logger", None)
            if python_logger is None:
                continue
            for handler in list(python_logger.handlers):
                # Not the standard output's, which is not dbt's to close.
                if isinstance(handler, logging.FileHandler):
                    python_logger.removeHandler(handler)
                    handler.close()
        cleanup_event_logger()


@contextlib.contextmanager
def _chosen_nodes(found: Run) -> Iterator[None]:
    """Keep which nodes dbt selects. No event tells it, and when dbt is interrupted its results do not either."""
    from dbt.task.runnable import GraphRunnableTask

    original = GraphRunnableTask._runtime_initialize

    def initialize(task: Any) -> None:
        original(task)
        found.task = task
        found.chosen = [
            node.unique_id for node in task._flattened_nodes or () if not getattr(node, "is_ephemeral_model", False)
        ]

    GraphRunnableTask._runtime_initialize = initialize
    try:
        yield
    finally:
        GraphRunnableTask._runtime_initialize = original


@contextlib.contextmanager
def _single_statements() -> Iterator[None]:
    """Spare texts of one statement, nearly all, the parser with which dbt-redshift looks for a second one.

    It takes two fifths of a build's processor time. A text in which a semicolon stands before the end goes through it.
    """
    import sqlparse

    original = sqlparse.split

    def split(sql: str, encoding: str | None = None, strip_semicolon: bool = False) -> list[str]:
        alone = sql.strip()
        if alone and ";" not in alone[:-1] and not strip_semicolon:
            return [alone]
        return original(sql, encoding, strip_semicolon)

    sqlparse.split = split
    try:
        yield
    finally:
        sqlparse.split = original


@contextlib.contextmanager
def _deadline(seconds: float, cancel: Callable[[], None]) -> Iterator[None]:
    """Raise DeadlineError in the block after so many seconds, and see that it ends.

    Only the main thread can be told.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over, left = threading.Event(), threading.Event()

    def stop(_signal: int, _frame: Any) -> None:
        over.set()
        raise DeadlineError

    def watch() -> None:
        over.wait()
        if not left.wait(PATIENCE_SECONDS):
            cancel()

    watcher = threading.Thread(target=watch, name="deadline", daemon=True)
    previous = signal.signal(signal.SIGALRM, stop)
    watcher.start()
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), 2 * PATIENCE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        left.set()
        over.set()
        watcher.join()


def cancel_queries(warehouse: Warehouse) -> None:
    """End the sessions that dbt has in the warehouse, from a session of our own. Redshift lets a user end their own."""
    from dbt.adapters.factory import FACTORY

    sessions = {
        connection.backend_pid
        for adapter in list(FACTORY.adapters.values())
        for connection in list(adapter.connections.thread_connections.values())
        if getattr(connection, "backend_pid", None)
    }
    with contextlib.suppress(GoldlakeError), contextlib.closing(warehouse.connect(5)) as own:
        cursor = own.cursor()
        for session in sorted(sessions):
            cursor.execute("select pg_terminate_backend(%s)", (session,))
