"""Handler of the second step: dbt, in this process, against the warehouse.

Lambda's world: /opt is read-only, only /tmp can be written, and /dev/shm does not exist.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from lambdas.answers import Answer, Event, project_dir
from lambdas.dbt_runner.event import DbtCommand
from lambdas.dbt_runner.runner import BROKEN, BUSY, CODES, REFUSED, UNREACHABLE, Job, run_dbt
from lambdas.dbt_runner.workspace import BusyError, FullError
from runtime.aws import Connection
from runtime.errors import ConfigurationError, GoldlakeError, UnreachableError
from runtime.warehouse import Warehouse

logger = logging.getLogger("goldlake")
_OUTCOMES: tuple[tuple[type[GoldlakeError], str], ...] = (
    (ConfigurationError, REFUSED),
    (BusyError, BUSY),
    (FullError, BROKEN),
    (UnreachableError, UNREACHABLE),
)


def handle(event: Event, context: Any) -> Answer:
    """Run the event's dbt command; see lambdas.dbt_runner.event for the event and run_dbt for the answer."""

    def run() -> Answer:
        command = DbtCommand.from_event(event)
        aws = Connection.from_environment()
        return run_dbt(
            Job(
                command,
                project=project_dir(),
                warehouse=Warehouse.from_environment(aws),
                aws=aws,
                remaining_seconds=context.get_remaining_time_in_millis() / 1000,
                request_id=getattr(context, "aws_request_id", None),
            )
        )

    return answering(run)


def answering(run: Callable[[], Answer]) -> Answer:
    """Return the run's answer; what it could not even start with is an answer of statusCode 2, too."""
    try:
        return run()
    except GoldlakeError as error:
        logger.error("%s: %s", type(error).__name__, error.message)
        outcome = next((name for kind, name in _OUTCOMES if isinstance(error, kind)), BROKEN)
        return {"statusCode": CODES[outcome], "outcome": outcome, "message": error.message}
