"""`goldlake transform`: the dbt runner without Lambda, for work that takes longer than its 900 seconds."""

from __future__ import annotations

import json
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import click

from lambdas.dbt_runner.event import COMMANDS, DEFAULT_TARGET
from runtime.aws import Connection
from runtime.cli import CONTEXT, aws_options, output_option, say, show_json, show_table
from runtime.errors import EXIT_USAGE, ConfigurationError

# "Without a limit"; the timer takes seconds.
_A_YEAR = 365 * 24 * 3600.0


@click.command("transform", context_settings=CONTEXT)
@click.argument("command", type=click.Choice(COMMANDS), default="build")
@click.option("--select", "-s", multiple=True, help="Nodes, in dbt's selection syntax; repeat for more.")
@click.option("--exclude", multiple=True, help="Nodes to leave out; repeat for more.")
@click.option("--selector", help="A selector of selectors.yml.")
@click.option("--state", help="Run whose artifacts `state:modified` compares with.  [default: latest]")
@click.option("--vars", "variables", metavar="JSON", help="dbt's variables.")
@click.option("--full-refresh", is_flag=True, help="Build incremental models anew.")
@click.option("--threads", type=int, help="Nodes at once.  [default: the profile's]")
@click.option("--target", default=DEFAULT_TARGET, show_default=True, help="Target of the profile.")
@click.option("--operation", help="Macro for run-operation, one of DBT_OPERATIONS.")
@click.option("--args", "operation_args", metavar="JSON", help="The macro's arguments.")
@click.option("--run-id", help="Id for the artifacts; for retry, that of the run to go on with.")
@click.option("--event", "given", metavar="JSON", help="The function's event instead of the options above.")
@click.option("--deadline", type=click.FloatRange(min=0.1), help="Stop after so many seconds.  [default: never]")
@click.option("--project", type=click.Path(path_type=Path), help="The dbt project.  [default: DBT_PROJECT_DIR]")
@aws_options
@output_option
def transform(given: str | None, deadline: float | None, project: Path | None, output: str, **rest: Any) -> None:
    """Run dbt against the warehouse as the function does, with no time limit.

    Reads the function's environment variables (REDSHIFT_HOST, REDSHIFT_WORKGROUP or REDSHIFT_SECRET,
    ARTIFACTS_LOCATION) and prints the function's answer. Exit codes: 0 done, 1 a node failed or the deadline
    came, 2 dbt could not do its work, 64 the command cannot be accepted.

    \b
    Examples:
      goldlake transform build
      goldlake transform build --select dim_company+ --deadline 3600
      goldlake transform retry --run-id run-20260105T050000-ab12cd
      goldlake transform --event '{"command": "test", "threads": 2}' --output json
    """
    from lambdas.answers import project_dir
    from lambdas.dbt_runner.event import DbtCommand
    from lambdas.dbt_runner.handler import answering
    from lambdas.dbt_runner.runner import REFUSED, RESERVE_SECONDS, Job, run_dbt
    from runtime.warehouse import Warehouse

    aws = rest.pop("aws")
    if aws == Connection():
        aws = Connection.from_environment()
    event = _object("event", given) if given else _event(rest)
    event.setdefault("run_id", f"run-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}")
    remaining = _A_YEAR if deadline is None else deadline + RESERVE_SECONDS

    def run() -> dict[str, Any]:
        command = DbtCommand.from_event(event)
        folder = (project or project_dir()).resolve()
        if not (folder / "dbt_project.yml").is_file():
            raise ConfigurationError(f"no dbt project in {folder}")
        warehouse = Warehouse.from_environment(aws)
        return run_dbt(Job(command, folder, warehouse, aws, remaining, write=sys.stderr.write))

    answer = answering(run)
    if output == "json":
        show_json({"schema": "goldlake.transform/1", **answer})
    else:
        say(answer["message"])
        rows = [(r["unique_id"], r["status"], r["seconds"], r["rows"]) for r in answer.get("results", [])]
        show_table(("node", "status", "seconds", "rows"), rows)
    sys.exit(EXIT_USAGE if answer["outcome"] == REFUSED else answer["statusCode"])


def _event(options: dict[str, Any]) -> dict[str, Any]:
    """Return the event that the options stand for."""
    variables, arguments = options.pop("variables"), options.pop("operation_args")
    event = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items() if value}
    if variables:
        event["vars"] = _object("vars", variables)
    if arguments:
        event["args"] = _object("args", arguments)
    return event


def _object(option: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"--{option} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"--{option} = {text}: a JSON object is needed")
    return value
