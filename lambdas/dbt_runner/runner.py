"""dbt in this process: prepared for Lambda, stopped before the time limit, its results as data."""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing.context
import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lambdas.dbt_runner.event import DbtCommand
from runtime.aws import Connection, translated
from runtime.errors import GoldlakeError, UnreachableError
from runtime.settings import ARTIFACTS_LOCATION
from runtime.warehouse import Warehouse

# Time that is kept for cancelling queries, uploading artifacts and answering.
RESERVE_SECONDS = 20
STDOUT_CHARACTERS = 4000
STDERR_CHARACTERS = 2000
ARTIFACTS = ("run_results.json", "manifest.json")

logger = logging.getLogger("goldlake")


class DeadlineError(KeyboardInterrupt):
    """The time limit is near. dbt cancels its queries on KeyboardInterrupt, and on no other exception."""


def run_dbt(
    command: DbtCommand,
    *,
    project: Path,
    warehouse: Warehouse,
    aws: Connection,
    remaining_seconds: float,
) -> dict[str, Any]:
    """Run dbt and return the answer.

    `{statusCode: 0|1|2, message, command, stdout, stderr, results, seconds, artifacts}`: stdout is the last
    4,000 characters, stderr the last 2,000, `results` has one object per node with unique_id, status, seconds,
    rows and message; `artifacts` is the s3:// URL of dbt's artifacts, or None. 1 means that a node failed or that the
    time was up, 2 that the warehouse went away.
    """
    replace_process_locks()
    work = Path(tempfile.gettempdir()) / "dbt"
    work.mkdir(exist_ok=True)
    _prepare_environment(project, warehouse)
    started = time.monotonic()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        success, results, problem = _invoke(command, project, work, remaining_seconds)
    # dbt keeps the password out of its logs, not out of what a driver says. Before texts are cut, lest a part remain.
    stdout, problem, results = without((output.getvalue(), problem, results), warehouse.password)
    answer = {
        "statusCode": 0 if success else 1,
        "message": _message(command, success, results, problem),
        "command": command.command,
        "stdout": stdout[-STDOUT_CHARACTERS:],
        "stderr": problem[-STDERR_CHARACTERS:],
        "results": results,
        "seconds": round(time.monotonic() - started, 3),
        "artifacts": _upload_artifacts(aws, work / "target", command.run_id or uuid.uuid4().hex),
    }
    logger.info("dbt %s: %s", command.command, answer["message"])
    if not success:
        try:
            warehouse.ping()
        except UnreachableError as gone:
            return {**answer, "statusCode": 2, "message": gone.message}
    return answer


def without(value: Any, secret: str) -> Any:
    """Return texts, at any depth of lists and objects, with the secret replaced by asterisks."""
    if isinstance(value, str):
        return value.replace(secret, "*****") if secret else value
    if isinstance(value, dict):
        return {key: without(item, secret) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without(item, secret) for item in value]
    return value


def replace_process_locks() -> None:
    """Make multiprocessing's locks thread locks.

    dbt creates process locks and uses them between threads only. A process lock is a POSIX semaphore in /dev/shm, which
    Lambda does not have: OSError 38 (dbt-core#2992).
    """
    context: Any = multiprocessing.context.BaseContext
    context.Lock = lambda _self: threading.Lock()
    context.RLock = lambda _self: threading.RLock()


def _prepare_environment(project: Path, warehouse: Warehouse) -> None:
    """Set the variables that the profile reads."""
    profiles = Path(os.environ.get("DBT_PROFILES_DIR") or project)
    os.environ.update(
        {
            "DBT_PROFILES_DIR": str(profiles if (profiles / "profiles.yml").is_file() else project),
            "REDSHIFT_HOST": warehouse.host,
            "REDSHIFT_PORT": str(warehouse.port),
            "REDSHIFT_DATABASE": warehouse.database,
            "REDSHIFT_USER": warehouse.user,
            "REDSHIFT_SSLMODE": "verify-full" if warehouse.ssl else "disable",
            # dbt keeps values of variables with this prefix out of its logs and artifacts.
            "DBT_ENV_SECRET_REDSHIFT_PASSWORD": warehouse.password,
        }
    )


def _invoke(
    command: DbtCommand, project: Path, work: Path, remaining_seconds: float
) -> tuple[bool, list[dict[str, Any]], str]:
    """Run dbt; return whether all went well, the nodes' results, and what went wrong besides the nodes."""
    # Takes two seconds: only after the event has been checked.
    from dbt.cli.main import dbtRunner

    folders = [
        "--project-dir",
        str(project),
        "--target-path",
        str(work / "target"),
        "--log-path",
        str(work / "logs"),
    ]
    arguments = [*command.arguments(), *folders, "--target", "redshift", "--no-use-colors"]
    for name in ARTIFACTS:
        # A warm function still has those of the run before.
        (work / "target" / name).unlink(missing_ok=True)
    stopped = f"stopped {RESERVE_SECONDS} s before the function's time limit"
    try:
        with _deadline(remaining_seconds - RESERVE_SECONDS):
            outcome = dbtRunner().invoke(arguments)
    except DeadlineError:
        return False, [], stopped
    # dbt catches whatever is raised inside it, and hands it back.
    if isinstance(outcome.exception, DeadlineError):
        return False, [], stopped
    problem = str(outcome.exception) if outcome.exception else ""
    return bool(outcome.success), _node_results(outcome.result), problem


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise DeadlineError in the block after so many seconds. Only the main thread can be told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: Any) -> None:
        raise DeadlineError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _node_results(result: Any) -> list[dict[str, Any]]:
    """Return dbt's results as plain data; commands without nodes (debug) have none."""
    return [
        {
            "unique_id": node.node.unique_id,
            "status": str(node.status),
            "seconds": round(node.execution_time, 3),
            "rows": (node.adapter_response or {}).get("rows_affected"),
            "message": node.message,
        }
        for node in getattr(result, "results", None) or []
        if getattr(node, "node", None) is not None
    ]


def _message(command: DbtCommand, success: bool, results: list[dict[str, Any]], problem: str) -> str:
    if success:
        return f"dbt {command.command}: {len(results)} nodes done"
    failed = [node for node in results if node["status"] in ("error", "fail", "runtime error")]
    if failed:
        first = failed[0]
        text = (first["message"] or "").strip().splitlines()
        return (
            f"dbt {command.command}: {len(failed)} of {len(results)} nodes failed, "
            f"first {first['unique_id']}: {' '.join(line.strip() for line in text[:3])}"
        )
    return f"dbt {command.command} failed: {problem.strip().splitlines()[0] if problem.strip() else 'see its log'}"


def _upload_artifacts(aws: Connection, target: Path, run_id: str) -> str | None:
    """Put dbt's artifacts under ARTIFACTS_LOCATION/<run id>/; return the URL, or None when there is nothing to put."""
    location = os.environ.get(ARTIFACTS_LOCATION)
    found = [target / name for name in ARTIFACTS if (target / name).is_file()]
    if not location or not found:
        return None
    url = urlsplit(location)
    prefix = f"{url.path.strip('/')}/{run_id}".lstrip("/")
    try:
        with translated("dbt's artifacts"):
            for file in found:
                # put_object, for upload_file hides the service's error code in an exception of its own.
                aws.client("s3").put_object(Bucket=url.netloc, Key=f"{prefix}/{file.name}", Body=file.read_bytes())
    except GoldlakeError as error:
        # The models are built; that their record could not be kept must not make the run a failure.
        logger.warning("artifacts are not kept: %s", error.message)
        return None
    return f"s3://{url.netloc}/{prefix}"
