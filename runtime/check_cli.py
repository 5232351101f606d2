"""`goldlake check`: are the tables that dbt reads there, not empty and fresh?"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from runtime.aws import Connection
from runtime.cli import CONTEXT, aws_options, output_option, say, show_json, show_table, stack_option
from runtime.errors import EXIT_DONE, EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE, ConfigurationError
from runtime.readiness import (
    CheckOptions,
    ReadinessReport,
    SourceTable,
    sources_from_manifest,
    sources_from_project,
    wait_until_ready,
)
from runtime.readiness import check as check_tables
from runtime.readiness_sources import TABLE_FORMS, parse_duration, source_from_text
from runtime.target import load_target, target_file

# They mean other things already; 1 is what is replaced.
_TAKEN = (EXIT_DONE, EXIT_UNREACHABLE, EXIT_USAGE)


class Duration(click.ParamType[timedelta]):
    """A duration such as 90s, 10m, 2h, 1d or 1h30m."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> timedelta:
        """Return the duration."""
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(value)
        except ConfigurationError as exc:
            self.fail(exc.message, param, context)


def _free_code(_context: click.Context, _parameter: click.Parameter, value: int | None) -> int | None:
    if value in _TAKEN:
        raise click.BadParameter(f"{value} has a meaning of its own: 0 ready, 2 cannot be reached, 64 usage")
    return value


@click.command(context_settings=CONTEXT)
@stack_option
@aws_options
@click.option(
    "--project",
    type=click.Path(path_type=Path),
    default=Path("dbt_gold"),
    show_default=True,
    help="The dbt project whose sources are checked.",
)
@click.option("--manifest", type=click.Path(path_type=Path), help="dbt's manifest.json to read them from instead.")
@click.option("--table", "tables", multiple=True, metavar="TABLE", help=f"A table to check: {TABLE_FORMS}. Repeatable.")
@click.option("--max-age", type=Duration(), help="How old the tables of --table may be.")
@click.option("--allow-empty", is_flag=True, help="The tables of --table may be empty.")
@click.option("--column", "columns", multiple=True, help="A column that each table of --table must have. Repeatable.")
@click.option("--count", is_flag=True, help="Count all rows, instead of looking whether there is one.")
@click.option("--wait", type=Duration(), help="Look again until all are ready, for so long at most.")
@click.option("--poll", type=Duration(), default="15s", show_default=True, help="Time between two looks of --wait.")
@click.option(
    "--skip-exit-code",
    type=click.IntRange(1, 255),
    callback=_free_code,
    help="Exit with this code instead of 1, as Airflow's skip_on_exit_code has it.",
)
@output_option
@click.pass_context
def check(
    context: click.Context,
    stack: str,
    aws: Connection,
    project: Path,
    manifest: Path | None,
    tables: tuple[str, ...],
    max_age: timedelta | None,
    allow_empty: bool,
    columns: tuple[str, ...],
    count: bool,
    wait: timedelta | None,
    poll: timedelta,
    skip_exit_code: int | None,
    output: str,
) -> int:
    """Are the silver tables there, not empty and fresh?

    The sources of the dbt project say what to check and how old it may be. With --table only the named tables are
    checked, unless --project or --manifest is given as well.

    Exit 0 all are ready, 1 some are missing, empty, stale or unreadable, 2 some cannot be reached or are forbidden, 64
    usage. --wait goes on through 1 and 2, but not where something is forbidden.

    \b
    Examples:
      goldlake check
      goldlake check --wait 10m --poll 15s --output json
      goldlake check --stack dev --manifest target/manifest.json --skip-exit-code 99
      goldlake check --table glue:silver_linkedin.job_postings --max-age 1d
      goldlake check --table s3://lake/landing/events --table delta:s3://lake/gold/dim_company --allow-empty
    """
    _refuse_idle_options(context, tables, wait)
    named = [source_from_text(text, max_age=max_age, allow_empty=allow_empty, columns=columns) for text in tables]
    wanted = [*_sources(context, project, manifest, named=bool(named)), *named]
    connection = _connection(context, stack, aws)

    def look() -> ReadinessReport:
        return check_tables(connection, wanted, options=CheckOptions(count=count))

    report = wait_until_ready(look, wait=wait, poll=poll, say=say) if wait else look()
    _show(report, output)
    failed = EXIT_FAILED if skip_exit_code is None else skip_exit_code
    return failed if report.exit_code == EXIT_FAILED else report.exit_code


def _given(context: click.Context, name: str) -> bool:
    """Return whether an option is on the command line."""
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _refuse_idle_options(context: click.Context, tables: tuple[str, ...], wait: timedelta | None) -> None:
    """Raise UsageError for options that would do nothing: whoever gave them believes otherwise."""
    for name, option in (("max_age", "--max-age"), ("allow_empty", "--allow-empty"), ("columns", "--column")):
        if not tables and _given(context, name):
            raise click.UsageError(f"{option} is about the tables of --table, and there is none", context)
    if wait is None and _given(context, "poll"):
        raise click.UsageError("--poll is the time between the looks of --wait, and there is none", context)
    if _given(context, "manifest") and _given(context, "project"):
        raise click.UsageError("--manifest and --project both say which sources to check: give one", context)


def _sources(context: click.Context, project: Path, manifest: Path | None, *, named: bool) -> list[SourceTable]:
    """Return dbt's sources; none where tables are named and no project is."""
    if manifest is not None:
        return sources_from_manifest(manifest)
    if named and not _given(context, "project"):
        return []
    return sources_from_project(project)


def _connection(context: click.Context, stack: str, aws: Connection) -> Connection:
    """Return the stack's connection; where no stack is named or known, what AWS_* and the options say.

    The command then works in a container that has a role and no deployment.
    """
    if _given(context, "stack") or target_file(stack).is_file():
        return load_target(stack, overrides=aws).connection
    if not context.params["tables"] and not context.params["manifest"]:
        return load_target(stack, overrides=aws).connection
    found = Connection.from_environment()
    return Connection(
        endpoint_url=aws.endpoint_url or found.endpoint_url,
        region=aws.region or found.region,
        profile=aws.profile or found.profile,
    )


def _show(report: ReadinessReport, output: str) -> None:
    if output == "json":
        show_json(report.to_dict())
        return
    columns = ("table", "state", "format", "rows", "detail")
    show_table(columns, [(t.table, t.state, t.format, t.rows, t.detail) for t in report.tables])
    for table in report.tables:
        if table.warning:
            say(f"warning: {table.table}: {table.warning}")
    say(report.summary)
