"""Start the deployed pipeline, follow it, and verify what it left."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime import sql
from runtime.aws import translated
from runtime.delta.log import log_rows, open_table
from runtime.errors import EXIT_DONE, EXIT_FAILED, EXIT_UNREACHABLE, FailedError, UnreachableError
from runtime.glue import get_table
from runtime.target import Target
from runtime.warehouse import LOOPBACK_HOSTS

POLL_SECONDS = 0.5
# A poll that fails is tried again for so long: an emulator that was killed does not come back, a network may.
PATIENCE_SECONDS = 10
_LAST_EVENTS = ("ExecutionSucceeded", "ExecutionFailed", "ExecutionTimedOut", "ExecutionAborted")


@dataclass(frozen=True)
class StepResult:
    """How one step of the pipeline went. `rows` is what the step counted, if it counts rows."""

    step: str
    result: str
    seconds: float
    rows: int | None
    message: str


@dataclass(frozen=True)
class TableCount:
    """A gold table's rows in the three places where it is. `warehouse_rows` None: not to be reached from here."""

    table: str
    warehouse_rows: int | None
    delta_rows: int
    delta_version: int
    catalogue_rows: int

    @property
    def agrees(self) -> bool:
        """Whether all places that could be asked hold the same number of rows."""
        asked = (self.warehouse_rows, self.delta_rows, self.catalogue_rows)
        return len({rows for rows in asked if rows is not None}) == 1


@dataclass(frozen=True)
class RunReport:
    """How a run of the pipeline ended: `done`, `skipped`, `failed` or `unreachable`."""

    run_id: str
    outcome: str
    message: str
    steps: tuple[StepResult, ...]
    tables: tuple[TableCount, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 done, 1 skipped or failed, 2 infrastructure could not be reached."""
        return {"done": EXIT_DONE, "unreachable": EXIT_UNREACHABLE}.get(self.outcome, EXIT_FAILED)

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON output."""
        return {
            "schema": "goldlake.run/1",
            "run_id": self.run_id,
            "outcome": self.outcome,
            "message": self.message,
            "steps": [vars(step) for step in self.steps],
            "tables": [{**vars(table), "agrees": table.agrees} for table in self.tables],
        }


def run(
    target: Target,
    *,
    full_refresh: bool = False,
    on_step: Callable[[str, StepResult | None], None] = lambda _name, _result: None,
) -> RunReport:
    """Run the pipeline once and return how it went; counts are verified when it is done.

    `full_refresh` has dbt build incremental models anew, which silver data that was replaced needs.

    `on_step(name, None)` is called when a step starts, `on_step(name, result)` when it has ended. Raises FailedError
    when another run is under way or counts disagree, UnreachableError when AWS stops answering.
    """
    # Asked for first: a stack without them fails before anything starts, not after the run.
    machine, _gold, _database = target.state_machine_arn, target.gold_location, target.output("lake_gold_database")
    states = target.connection.client("stepfunctions")
    with translated("start the pipeline"):
        running = states.list_executions(stateMachineArn=machine, statusFilter="RUNNING", maxResults=1)["executions"]
        if running:
            raise FailedError(
                f"run {running[0]['name']} of this pipeline is under way: two at once would build the same tables",
                hint="wait until it has ended",
            )
        options = json.dumps({"full_refresh": True} if full_refresh else {})
        run_id = f"run-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"
        arn = states.start_execution(stateMachineArn=machine, name=run_id, input=options)["executionArn"]
    steps, execution = _follow(states, arn, on_step)
    report = _report(run_id, steps, execution)
    if report.outcome != "done":
        return report
    exported = json.loads(execution["output"])["export"]["answer"]["table_names"]
    tables = tuple(count_everywhere(target, exported))
    wrong = [table.table for table in tables if not table.agrees]
    if wrong:
        return RunReport(run_id, "failed", f"row counts disagree for {', '.join(wrong)}", report.steps, tables)
    return RunReport(run_id, report.outcome, report.message, report.steps, tables)


def _follow(
    states: Any, arn: str, on_step: Callable[[str, StepResult | None], None]
) -> tuple[list[StepResult], dict[str, Any]]:
    """Poll the execution until it ends; return its steps and its description."""
    steps: list[StepResult] = []
    started: dict[str, Any] = {}
    seen = 0
    ended = 0.0
    last_answer = time.monotonic()
    while True:
        try:
            with translated(f"execution {arn}"):
                execution = states.describe_execution(executionArn=arn)
                events = _history(states, arn)
        except UnreachableError:
            if time.monotonic() - last_answer > PATIENCE_SECONDS:
                raise
            time.sleep(POLL_SECONDS)
            continue
        last_answer = time.monotonic()
        for event in events[seen:]:
            if event["type"] == "TaskStateEntered":
                name = event["stateEnteredEventDetails"]["name"].lower()
                started[name] = event["timestamp"]
                on_step(name, None)
            elif event["type"] == "TaskStateExited":
                details = event["stateExitedEventDetails"]
                name = details["name"].lower()
                seconds = (event["timestamp"] - started[name]).total_seconds()
                steps.append(_step_result(name, seconds, json.loads(details["output"])))
                on_step(name, steps[-1])
        seen = len(events)
        if execution["status"] != "RUNNING":
            # The history is eventually consistent: the last steps may come a moment after the status.
            complete = bool(events) and events[-1]["type"] in _LAST_EVENTS
            ended = ended or time.monotonic()
            if complete or time.monotonic() - ended > PATIENCE_SECONDS:
                return steps, execution
        time.sleep(POLL_SECONDS)


def _history(states: Any, arn: str) -> list[dict[str, Any]]:
    """Return all events of an execution so far, oldest first."""
    events: list[dict[str, Any]] = []
    token: dict[str, str] = {}
    while True:
        page = states.get_execution_history(executionArn=arn, maxResults=1000, **token)
        events += page["events"]
        if not page.get("nextToken"):
            return events
        token = {"nextToken": page["nextToken"]}


def _step_result(name: str, seconds: float, state: dict[str, Any]) -> StepResult:
    """Return how a step went, from the execution's state behind it; one that crashed has left an error there."""
    if name not in state:
        error = state.get("error") or {}
        message = f"{error.get('Error', 'no answer')}: {error.get('Cause', '')}"
        return StepResult(name, "crashed", round(seconds, 3), None, message)
    answer = state[name]["answer"]
    # The build says more than its code: deadline, refused, busy.
    words = {0: "ok", 1: "not ready" if name == "check" else "failed"}
    said = answer.get("outcome", words.get(answer["statusCode"], "unreachable"))
    result = "ok" if answer["statusCode"] == 0 else said
    tables = answer.get("report", {}).get("tables", [])
    counted = [table["rows"] for table in tables if table.get("rows") is not None]
    return StepResult(name, result, round(seconds, 3), sum(counted) if counted else None, answer["message"])


def _report(run_id: str, steps: Sequence[StepResult], execution: dict[str, Any]) -> RunReport:
    """Return the report of an execution that has ended."""
    last = steps[-1].message if steps else ""
    if execution["status"] == "SUCCEEDED":
        outcome = json.loads(execution["output"])["outcome"]
        message = f"skipped: not ready. {last}" if outcome == "skipped" else last
        return RunReport(run_id, outcome, message, tuple(steps))
    unreachable = execution.get("error") == "Unreachable"
    message = execution.get("cause") or f"the execution is {execution['status']}"
    return RunReport(run_id, "unreachable" if unreachable else "failed", message, tuple(steps))


def count_everywhere(target: Target, tables: Sequence[str]) -> list[TableCount]:
    """Return each gold table's rows in the warehouse, in the Delta log and behind its catalogue entry.

    The warehouse is asked only when it listens on loopback: from elsewhere its network does not let us in,
    and the export has compared its count with the log already.
    """
    in_warehouse = _warehouse_counts(target, tables)
    counts = []
    for table in tables:
        rows, version = _delta_count(target, f"{target.gold_location}/{table}")
        entry = get_table(target.connection, target.output("lake_gold_database"), table)
        if entry is None:
            raise FailedError(f"gold table {table} is not in the catalogue")
        location = entry["StorageDescriptor"]["Location"]
        catalogue_rows, _version = _delta_count(target, location)
        counts.append(TableCount(table, in_warehouse.get(table), rows, version, catalogue_rows))
    return counts


def _delta_count(target: Target, location: str) -> tuple[int, int]:
    """Return rows and version of a Delta table, from its log."""
    table = open_table(location, target.connection.storage_options())
    rows = None if table is None else log_rows(table)
    if table is None or rows is None:
        raise FailedError(f"{location} has no Delta log with row counts")
    return rows, table.version()


def _warehouse_counts(target: Target, tables: Sequence[str]) -> dict[str, int]:
    if target.output("transform_warehouse_host") not in LOOPBACK_HOSTS:
        return {}
    connection = target.warehouse().connect(timeout_seconds=30)
    try:
        cursor = connection.cursor()
        counts = {}
        for table in tables:
            cursor.execute(f"select count(*) from {sql.qualified('gold', table)}")  # noqa: S608 - quoted
            counts[table] = int(cursor.fetchone()[0])
        return counts
    finally:
        connection.close()
