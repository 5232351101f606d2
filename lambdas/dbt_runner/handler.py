"""Handler of the second step: dbt, in this process, against the warehouse.

Lambda's world: /opt is read-only, only /tmp can be written, and /dev/shm does not exist.
"""

from __future__ import annotations

from typing import Any

from lambdas.answers import Answer, Event, answering, project_dir
from lambdas.dbt_runner.event import DbtCommand
from lambdas.dbt_runner.runner import run_dbt
from runtime.aws import Connection
from runtime.warehouse import Warehouse


@answering
def handle(event: Event, context: Any) -> Answer:
    """Run the event's dbt command; see lambdas.dbt_runner.event for the event and run_dbt for the answer."""
    command = DbtCommand.from_event(event)
    aws = Connection.from_environment()
    warehouse = Warehouse.from_environment(aws)
    # dbt reports an unreachable warehouse as one failed model after the other; ask first.
    warehouse.ping(timeout_seconds=60)
    return run_dbt(
        command,
        project=project_dir(),
        warehouse=warehouse,
        aws=aws,
        remaining_seconds=context.get_remaining_time_in_millis() / 1000,
    )
