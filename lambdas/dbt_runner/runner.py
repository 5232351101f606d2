"""One run of dbt from the command to the answer: prepared for Lambda, stopped in time, its results as data."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambdas import shipped_parse
from lambdas.dbt_runner import artifacts, engine, imports, logs, results
from lambdas.dbt_runner.event import DbtCommand
from lambdas.dbt_runner.workspace import LOG_BYTES, Workspace, environment, replace_process_locks, workspace
from runtime.aws import Connection
from runtime.errors import EXIT_DONE, EXIT_FAILED, EXIT_UNREACHABLE, UnreachableError
from runtime.warehouse import LOOPBACK_HOSTS, Warehouse

# Time that is kept for cancelling queries, uploading artifacts and answering.
RESERVE_SECONDS = 20
# An idle workgroup resumes within a minute mostly. On loopback nothing sleeps, but the first connection of a run waits
# until the local warehouse has copied what is new in silver.
WAKE_SECONDS = 120.0
LOOPBACK_WAKE_SECONDS = 15.0
STDOUT_CHARACTERS = 4000
STDERR_CHARACTERS = 2000

# How a run ended, and the statusCode: 1 is a failure that dbt handled, 2 means that it could not do its work at all.
DONE, FAILED, DEADLINE = "done", "failed", "deadline"
REFUSED, BUSY, BROKEN, UNREACHABLE = "refused", "busy", "broken", "unreachable"
CODES = {
    DONE: EXIT_DONE,
    FAILED: EXIT_FAILED,
    DEADLINE: EXIT_FAILED,
    REFUSED: EXIT_UNREACHABLE,
    BUSY: EXIT_UNREACHABLE,
    BROKEN: EXIT_UNREACHABLE,
    UNREACHABLE: EXIT_UNREACHABLE,
}
# Commands whose manifest and results are what later runs compare with.
_BUILDING = ("build", "run")
# What `dbt retry` can go on with, by dbt's own names (dbt.task.retry.TASK_DICT).
_RETRYABLE = {
    "build": "build",
    "compile": "compile",
    "docs": "generate",
    "retry": "build",
    "run": "run",
    "seed": "seed",
    "snapshot": "snapshot",
    "test": "test",
}

logger = logging.getLogger("goldlake")


@dataclass(frozen=True)
class Job:
    """A command and what it is run with."""

    command: DbtCommand
    project: Path
    warehouse: Warehouse
    aws: Connection
    remaining_seconds: float
    request_id: str | None = None
    write: logs.Write | None = None
    """Where lines of the log go; standard output without it."""


def run_dbt(job: Job) -> dict[str, Any]:
    """Run dbt and return the answer.

    `{statusCode, outcome, message, command, run_id, stdout, stderr, results, results_left_out, totals, remaining,
    timings, seconds, artifacts}`: `outcome` is one of the keys of CODES; stdout is the last 4,000 characters, stderr
    the last 2,000; `results` has one object per node with unique_id, status, seconds, rows and message; `remaining`
    names the nodes that the time did not suffice for, which `retry` goes on with; `timings` has the seconds of import,
    parse, connect and run; `artifacts` is the s3:// URL of dbt's artifacts, or None.

    Raises UnreachableError when the warehouse does not answer before dbt starts, BusyError when another run is under
    way here, FullError without room in /tmp, ConfigurationError when there is nothing to retry or to compare with.
    """
    replace_process_locks()
    began = time.monotonic()
    # One that resumes gets up to half of the time; the other half is for work.
    remote = job.warehouse.host not in LOOPBACK_HOSTS
    patience = min(WAKE_SECONDS if remote else LOOPBACK_WAKE_SECONDS, job.remaining_seconds / 2)
    with imports.loading() as imported:
        waiting = time.monotonic()
        wake(job.warehouse, patience)
        connecting = time.monotonic() - waiting
    run_id = job.command.run_id or uuid.uuid4().hex
    with workspace() as space, environment(job.project, job.warehouse):
        return _run(job, space, run_id, began, {"import": imported.seconds, "connect": connecting})


def wake(warehouse: Warehouse, patience: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Connect until the warehouse answers, with pauses of 1, 2, 4, 8 … seconds; an idle workgroup takes its time.

    dbt reports an unreachable warehouse as one failed model after the other; so it is asked first. Raises
    UnreachableError when the patience is over, and at once when the warehouse answers that we may not come in.
    """
    end = time.monotonic() + patience
    pause = 1.0
    while True:
        try:
            warehouse.ping(timeout_seconds=max(int(end - time.monotonic()), 1))
            return
        except UnreachableError as error:
            if _is_refusal(error.__cause__) or time.monotonic() + pause > end:
                raise
            logger.info("%s; trying again in %.0f s", error.message, pause)
        sleep(pause)
        pause = min(pause * 2, 16)


def _is_refusal(error: BaseException | None) -> bool:
    """Return whether the server itself said no: wrong password (class 28), no such database (3D000)."""
    first = error.args[0] if error is not None and error.args else None
    return isinstance(first, dict) and str(first.get("C", "")).startswith(("28", "3D"))


def _run(job: Job, space: Workspace, run_id: str, began: float, start: dict[str, float]) -> dict[str, Any]:
    command, secret = job.command, job.warehouse.password
    before = _before(job, space)
    stdout = sys.stdout
    write = job.write or stdout.write

    def log(event: Any) -> None:
        line = logs.of_event(event, job.request_id)
        if line:
            write(without(line, secret))

    output = io.StringIO()
    seconds = job.remaining_seconds - (time.monotonic() - began) - RESERVE_SECONDS
    with contextlib.redirect_stdout(output):
        found = engine.run(_arguments(job, space), seconds=seconds, warehouse=job.warehouse, on_event=log)
    remaining = _record(job, space, found, before)
    outcome = _outcome(found, remaining)
    nodes = results.node_results(found.result)
    if found.stopped or (found.problem and not nodes):
        # dbt hands back nothing then; what was written is all there is.
        nodes = results.from_file(results.read(space.target) or {"results": []})
    message = _message(job, outcome, nodes, found, remaining)
    if outcome in (FAILED, BROKEN):
        try:
            job.warehouse.ping()
        except UnreachableError as gone:
            outcome, message = UNREACHABLE, gone.message
    kept = artifacts.upload(
        job.aws, space, run_id, latest=outcome == DONE and command.command in _BUILDING, secret=secret
    )
    timings = {**start, **found.timings}
    # dbt keeps the password out of its logs, not out of what a driver says. Before texts are cut, lest a part remain.
    shown, left_out = results.bounded(without(nodes, secret))
    answer = {
        "statusCode": CODES[outcome],
        "outcome": outcome,
        "message": without(message, secret),
        "command": command.command,
        "run_id": run_id,
        "stdout": without(output.getvalue(), secret)[-STDOUT_CHARACTERS:],
        "stderr": without(found.problem, secret)[-STDERR_CHARACTERS:],
        "results": shown,
        "results_left_out": left_out,
        "totals": results.totals(nodes),
        "remaining": remaining,
        "timings": {name: round(value, 3) for name, value in timings.items()},
        "seconds": round(time.monotonic() - began, 3),
        "artifacts": kept,
    }
    level = "INFO" if outcome == DONE else "ERROR"
    write(logs.line(answer["message"], level=level, function_request_id=job.request_id, run_id=run_id))
    write(logs.metrics(answer))
    return answer


def _before(job: Job, space: Workspace) -> dict[str, Any] | None:
    """Fetch what the command compares or goes on with; return the results of the run that is retried."""
    if job.command.state:
        artifacts.download(job.aws, job.command.state, space.state, needed="manifest.json")
    if job.command.command != "retry":
        return None
    artifacts.download(job.aws, job.command.run_id or "", space.previous, needed=results.FILE)
    before = results.read(space.previous)
    if before is not None:
        arguments = before["args"]
        # Paths of the machine that the first run was on; dbt refuses a parse that is not there.
        for name in ("partial_parse_file_path", "state"):
            arguments.pop(name, None)
        parse = shipped_parse.options(job.project, variables=bool(arguments.get("vars")))
        if parse:
            arguments["partial_parse_file_path"] = parse[-1]
        results.write(space.previous, before)
    return before


def _arguments(job: Job, space: Workspace) -> list[str]:
    """Return dbt's whole command line. An option here wins over the project's flags and over the environment."""
    command = job.command
    arguments = [
        *command.arguments(),
        *("--project-dir", str(job.project)),
        # An option of the commands that write artifacts, which `debug` does not.
        *(() if command.command == "debug" else ("--target-path", str(space.target))),
        *("--log-path", str(space.logs)),
        *("--log-file-max-bytes", str(LOG_BYTES)),
        *("--target", command.target),
        "--no-use-colors",
        # Subnets without internet: nothing may call home, in a project of somebody else's neither.
        "--no-send-anonymous-usage-stats",
    ]
    if command.command == "retry":
        return [*arguments, "--state", str(space.previous)]
    if command.command == "debug":
        # Otherwise dbt looks for git as well, which only `deps` needs and Lambda's runtimes do not have.
        return [*arguments, "--connection"]
    if command.state:
        arguments += ["--state", str(space.state)]
    return [*arguments, *shipped_parse.options(job.project, variables=bool(command.vars))]


def _record(job: Job, space: Workspace, found: engine.Run, before: dict[str, Any] | None) -> list[str]:
    """Complete the results on disk, so that the next retry knows everything; return the nodes that remain."""
    command = job.command
    now, remaining = results.read(space.target), list[str]()
    if (found.stopped or found.problem) and found.chosen and command.command in _RETRYABLE:
        if now is None:
            found.write_results(space.target / results.FILE)
            now = results.read(space.target)
        which = before["args"]["which"] if before else _RETRYABLE[command.command]
        now = now or results.never_begun(which, command.vars, full_refresh=command.full_refresh)
        now, remaining = results.completed(now, found.chosen)
    if now is not None and before is not None:
        now = results.merged(before, now)
    if now is not None:
        results.write(space.target, now)
    return remaining


def _outcome(found: engine.Run, remaining: list[str]) -> str:
    if found.stopped:
        # Nothing to go on with means that even dbt's start took too long: another try would end the same.
        return DEADLINE if remaining else FAILED
    if found.success:
        return DONE
    return BROKEN if found.problem else FAILED


def without(value: Any, secret: str) -> Any:
    """Return texts, at any depth of lists and objects, with the secret replaced by asterisks."""
    if isinstance(value, str):
        # Within a line of JSON it stands as JSON writes it.
        return value.replace(secret, "*****").replace(json.dumps(secret)[1:-1], "*****") if secret else value
    if isinstance(value, dict):
        return {key: without(item, secret) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without(item, secret) for item in value]
    return value


def _message(job: Job, outcome: str, nodes: list[results.Result], found: engine.Run, remaining: list[str]) -> str:
    done = f"dbt {job.command.command}"
    failed = [node for node in nodes if node["status"] in ("error", "fail", "runtime error", "partial success")]
    if outcome == DONE:
        return f"{done}: {len(nodes)} nodes done"
    if found.stopped:
        # What `--deadline` says, or the function's limit without the reserve.
        when = f"stopped at its deadline of {round(max(job.remaining_seconds - RESERVE_SECONDS, 0), 1):g} s"
        if outcome != DEADLINE:
            return f"{done} failed: {when}, before dbt had chosen its nodes: it needs more time than that"
        more = f"; {len(failed)} failed" if failed else ""
        return f"{done}: {when}, {len(remaining)} nodes remain, first {remaining[0]}{more}; retry goes on with them"
    if failed:
        text = (failed[0]["message"] or "").strip().splitlines()
        return (
            f"{done}: {len(failed)} of {len(nodes)} nodes failed, "
            f"first {failed[0]['unique_id']}: {' '.join(line.strip() for line in text[:3])}"
        )
    return f"{done} failed: {found.problem.strip().splitlines()[0] if found.problem.strip() else 'see its log'}"
