"""The `goldlake` command.

Results go to standard output, progress and errors to standard error. Exit codes: 0 done, 1 the answer is no,
2 infrastructure cannot be reached, 64 usage or configuration.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import click

from runtime.aws import Connection
from runtime.errors import EXIT_USAGE, GoldlakeError, UnreachableError
from runtime.target import Target, load_target

COMMAND_GROUP = "goldlake.commands"
DEFAULT_STACK = "localstack"
# Of every group and command that can be called by itself, too: click keeps the first answer to what -h is.
CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

_Function = TypeVar("_Function", bound=Callable[..., Any])


class GoldlakeGroup(click.Group):
    """The command group: finds the commands that other packages add, and turns errors into exit codes."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Return all commands, those of other packages included."""
        return sorted({*super().list_commands(context), *_added_commands()})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Return a command; one of another package is imported only when it is used."""
        own = super().get_command(context, name)
        if own is not None or name not in _added_commands():
            return own
        command: click.Command = _added_commands()[name].load()
        return command

    def main(self, args: Sequence[str] | None = None, *_: Any, **options: Any) -> Any:
        """Run a command and exit with its code."""
        options["standalone_mode"] = False
        try:
            with _sigterm_as_interrupt() as terminated:
                code = super().main(args, **options)
        except GoldlakeError as error:
            _complain(error.message, error.hint)
            sys.exit(error.exit_code)
        except click.UsageError as error:
            if error.ctx and error.message == error.ctx.get_help():
                # A group without a command.
                click.echo(error.message, err=True)
                sys.exit(EXIT_USAGE)
            hint = f"{error.ctx.command_path} --help" if error.ctx else None
            _complain(error.format_message(), hint)
            # click's own code for usage errors is 2, which means "cannot be reached" here.
            sys.exit(EXIT_USAGE)
        except click.ClickException as error:
            _complain(error.format_message(), None)
            sys.exit(EXIT_USAGE)
        except (click.Abort, KeyboardInterrupt):
            _complain("terminated" if terminated else "interrupted", None)
            sys.exit(143 if terminated else 130)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, context: click.Context) -> Any:
        """Run the command. A reader of our output that has gone (`goldlake … | head`) ends it well.

        Here and not in `main`, because click's own makes exit code 1 of it.
        """
        try:
            return super().invoke(context)
        except BrokenPipeError as error:
            if not _reader_is_gone():
                raise UnreachableError(f"a connection broke: {error}") from error
            # What is left in the buffer would fail again when the interpreter ends.
            with contextlib.suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return context.exit(0)


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[list[int]]:
    """Take SIGTERM, which `docker stop` and `kill` send, as Ctrl-C: what cleans up then does so now too.

    Gives a list that is not empty when it came.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def end(number: int, _frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def _reader_is_gone() -> bool:
    """Return whether standard output is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _descriptor, event in poll.poll(0))
    except OSError:
        return False


@cache
def _added_commands() -> dict[str, Any]:
    return {entry.name: entry for entry in entry_points(group=COMMAND_GROUP)}


def _complain(message: str, hint: str | None) -> None:
    click.echo(f"goldlake: {message}", err=True)
    if hint:
        click.echo(f"  try: {hint}", err=True)


def say(line: str) -> None:
    """Print a line of progress."""
    click.echo(line, err=True)


def show_json(result: dict[str, Any]) -> None:
    """Print a result as JSON."""
    click.echo(json.dumps(result, indent=2, ensure_ascii=False, default=str))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print a result as a table; numbers to the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], int | float) or row[index] is None for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    # Without a terminal there is no width to fit: 120 keeps lines whole in logs and pipes.
    console = Console(width=None if sys.stdout.isatty() else 120)
    with console.capture() as text:
        console.print(table)
    # rich's own printing ends the process with 1 when the reader of a pipe has gone.
    click.echo(text.get(), nl=False)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def output_option(function: _Function) -> _Function:
    """Add --output text|json, as the argument `output`."""
    forms = click.Choice(["text", "json"])
    option = click.option("--output", type=forms, default="text", show_default=True, help="Form of the result.")
    return option(function)


def report_option(function: _Function) -> _Function:
    """Add --output text|json|markdown, also as --format, as the argument `output`; markdown is for a comment."""
    forms = click.Choice(["text", "json", "markdown"])
    words = "Form of the result; markdown is for the comment of a pull request."
    option = click.option("--format", "--output", "output", type=forms, default="text", show_default=True, help=words)
    return option(function)


def aws_options(function: _Function) -> _Function:
    """Add --endpoint-url, --region and --profile, as the AWS CLI has them, as the argument `aws`."""
    import functools

    @functools.wraps(function)
    def command(*args: Any, endpoint_url: str | None, region: str | None, profile: str | None, **rest: Any) -> Any:
        return function(*args, aws=Connection(endpoint_url, region, profile), **rest)

    for option in (
        click.option("--profile", help="AWS profile."),
        click.option("--region", help="AWS region."),
        click.option("--endpoint-url", help="AWS endpoint; by default that of the stack, or of the environment."),
    ):
        command = option(command)
    return command  # type: ignore[return-value] # wraps() keeps the signature, and no type checker sees that


def stack_option(function: _Function) -> _Function:
    """Add --stack, as the argument `stack`."""
    return click.option("--stack", default=DEFAULT_STACK, show_default=True, help="The deployed stack.")(function)


def dry_run_option(function: _Function) -> _Function:
    """Add --dry-run, as the argument `dry_run`."""
    return click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")(function)


@click.group(cls=GoldlakeGroup, context_settings=CONTEXT)
@click.version_option(package_name="goldlake")
def app() -> None:
    """A serverless gold layer on AWS, and the same code end to end on a laptop.

    \b
    On a laptop:   goldlake local up
                   goldlake layers build
                   goldlake deploy --stack localstack
                   goldlake secrets seed
                   goldlake sample --rows 5000
                   goldlake run

    Exit codes: 0 done, 1 the answer is no, 2 infrastructure cannot be reached, 64 usage or configuration.
    """


@app.command()
@stack_option
@aws_options
@click.option("--rows", default=5000, show_default=True, help="Job postings to make, 1 to 5,000,000.")
@click.option("--seed", default=1, show_default=True, help="Another seed makes other postings.")
@click.option("--append", is_flag=True, help="Add to the tables instead of replacing them.")
@click.option("--force", is_flag=True, help="Replace files that no sample wrote, too.")
@dry_run_option
@output_option
def sample(
    stack: str, aws: Connection, rows: int, seed: int, append: bool, force: bool, dry_run: bool, output: str
) -> None:
    """Put sample job postings into the three silver tables.

    The same rows and seed make the same data on a day. Awkward values are included on purpose.

    \b
    Examples:
      goldlake sample --rows 5000
      goldlake sample --rows 500 --seed 2 --append
    """
    from runtime.sample import write_sample

    target = load_target(stack, overrides=aws)
    report = write_sample(
        target.connection,
        target.silver_bucket,
        rows=rows,
        seed=seed,
        append=append,
        force=force,
        dry_run=dry_run,
        progress=say,
    )
    if output == "json":
        show_json(report.to_dict())
    else:
        for warning in report.warnings:
            say(f"warning: {warning}")
        show_table(
            ("table", "rows", "catalogue", "location"), [(t.table, t.rows, t.glue, t.location) for t in report.tables]
        )


@app.command()
@stack_option
@aws_options
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--table", required=True, help="The silver table, <Glue database>.<table>.")
@click.option("--append", is_flag=True, help="Add to the table instead of replacing it.")
@dry_run_option
@output_option
def load(stack: str, aws: Connection, path: Path, table: str, append: bool, dry_run: bool, output: str) -> None:
    """Put your own data into a silver table: a Parquet, CSV or JSON-lines file, or a folder of them.

    Text is cast to the table's column types. Data that does not fit is refused with all its faults, and nothing is
    written.

    \b
    Example:
      goldlake load postings.csv --table silver_linkedin.job_postings
    """
    from runtime.load import load as load_files
    from runtime.silver import silver_table

    declared = silver_table(table)
    target = load_target(stack, overrides=aws)
    report = load_files(
        target.connection, target.silver_bucket, path, declared, append=append, dry_run=dry_run, progress=say
    )
    if output == "json":
        show_json(report.to_dict())
    else:
        for warning in report.warnings:
            say(f"warning: {warning}")
        show_table(
            ("table", "rows", "files", "location"),
            [(report.table, report.rows, report.files, report.location)],
        )


@app.command()
@stack_option
@aws_options
@click.argument("sql")
@click.option("--limit", default=100, show_default=True, help="Rows to show at most.")
@output_option
def query(stack: str, aws: Connection, sql: str, limit: int, output: str) -> None:
    """Query the exported gold tables with DuckDB.

    \b
    Example:
      goldlake query "select count(*) from gold.fact_job_posting"
    """
    from runtime.query import query as run_query

    target = load_target(stack, overrides=aws)
    result = run_query(target.connection, target.gold_location, sql, limit=limit)
    if output == "json":
        show_json({"schema": "goldlake.query/1", "columns": result.columns, "rows": result.rows})
    else:
        show_table(result.columns, result.rows)


@app.command()
@stack_option
@aws_options
@click.option("--full-refresh", is_flag=True, help="Build incremental models anew, after silver data was replaced.")
@output_option
def run(stack: str, aws: Connection, full_refresh: bool, output: str) -> int:
    """Run the deployed pipeline: check, dbt build, export, register; then compare row counts.

    Exit 0 done, 1 skipped (silver tables are not ready) or failed, 2 infrastructure cannot be reached.
    """
    from runtime.pipeline import run as run_pipeline
    from runtime.progress import Steps

    target: Target = load_target(stack, overrides=aws)
    with Steps() as steps:
        report = run_pipeline(target, full_refresh=full_refresh, on_step=steps.update)
    if output == "json":
        show_json(report.to_dict())
    else:
        show_table(
            ("step", "result", "seconds", "rows", "message"),
            [(s.step, s.result, s.seconds, s.rows, s.message) for s in report.steps],
        )
        if report.tables:
            columns = ("gold table", "warehouse", "Delta log", "catalogue", "Delta version")
            show_table(
                columns,
                [(t.table, t.warehouse_rows, t.delta_rows, t.catalogue_rows, t.delta_version) for t in report.tables],
            )
    if report.exit_code:
        _complain(report.message, None)
    return report.exit_code
