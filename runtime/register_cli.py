"""`goldlake register`: tables of the lake into the Glue catalogue, and into Trino when one is named."""

from __future__ import annotations

import dataclasses
import os
import re
from typing import TYPE_CHECKING, Any

import click

from runtime.aws import Connection
from runtime.cli import (
    CONTEXT,
    DEFAULT_STACK,
    aws_options,
    dry_run_option,
    output_option,
    say,
    show_json,
    show_table,
)
from runtime.errors import ConfigurationError, FailedError
from runtime.target import load_target
from runtime.trino import CA_VARIABLE, DEFAULT_TIMEOUT, TOKEN_VARIABLE, TrinoOptions

if TYPE_CHECKING:
    from runtime.register import RegisterReport


def _trino_options(function: Any) -> Any:
    """Add the options about Trino, as the arguments `trino_url`, `iceberg_trino_url` and `options`."""
    import functools

    @functools.wraps(function)
    def command(
        *args: Any,
        timeout: float,
        ca_file: str | None,
        insecure: bool,
        client_tags: tuple[str, ...],
        source: str,
        **rest: Any,
    ) -> Any:
        given = {"ca_file": ca_file} if ca_file else {}
        options = TrinoOptions.from_environment(
            timeout=timeout, verify=not insecure, client_tags=client_tags, source=source, **given
        )
        return function(*args, options=options, **rest)

    for option in (
        click.option("--trino-source", "source", default="goldlake", show_default=True, help="Source of our queries."),
        click.option("--trino-tag", "client_tags", multiple=True, help="Client tag of our queries. Repeatable."),
        click.option("--trino-insecure", "insecure", is_flag=True, help="Check no certificate."),
        click.option("--trino-ca-file", "ca_file", help=f"PEM file of the authorities, also from {CA_VARIABLE}."),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=DEFAULT_TIMEOUT,
            show_default=True,
            help="Seconds that one statement, or one request to AWS, may take.",
        ),
        click.option(
            "--iceberg-trino-url",
            help="Catalogue for Iceberg tables: such a URL, or the name of another catalogue on --trino-url's server.",
        ),
        click.option(
            "--trino-url",
            envvar="TRINO_URL",
            help="Trino to register in as well, http[s]://user[:password]@host:port/catalog. A JWT comes from "
            f"{TOKEN_VARIABLE}.",
        ),
    ):
        command = option(command)
    return command


@click.command("register", context_settings=CONTEXT)
@click.argument("tables", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All Delta and Iceberg tables right below the target.")
@click.option("--stack", default=DEFAULT_STACK, show_default=True, help="The deployed stack.")
@click.option("--target", "location", help="Where the tables lie, s3://…; the stack's gold location by default.")
@click.option("--database", help="Glue database and Trino schema; the stack's gold database by default.")
@aws_options
@click.option("--replace", is_flag=True, help="Move an entry that points to another location.")
@click.option("--verify", is_flag=True, help="Look closely at all tables in Trino, not only at changed ones.")
@click.option("--orphans", "report_only", is_flag=True, help="Only report data without entry and entries without data.")
@click.option("--prune", is_flag=True, help="Remove entries whose data is gone, after asking.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_trino_options
@dry_run_option
@output_option
def register(
    tables: tuple[str, ...],
    every: bool,
    stack: str,
    location: str | None,
    database: str | None,
    aws: Connection,
    replace: bool,
    verify: bool,
    report_only: bool,
    prune: bool,
    yes: bool,
    trino_url: str | None,
    iceberg_trino_url: str | None,
    options: TrinoOptions,
    dry_run: bool,
    output: str,
) -> None:
    """Register tables in the Glue catalogue, and in Trino when TRINO_URL is set.

    Absent: registered. Same location: left, its columns and comments brought up to the log's. Another location: an
    error, or moved with --replace. No data yet: a warning, so this may run before the first export.

    With --target and --database no stack is needed. --prune and --orphans alone register nothing.

    Exit 0 done, 1 registered elsewhere or not read back, 2 AWS, Trino or its metastore does not answer, 64 usage, or a
    Trino that cannot register tables.

    \b
    Examples:
      goldlake register dim_company fact_job_posting
      goldlake register --all --dry-run
      goldlake register --all --target s3://lake/gold --database gold
      goldlake register --all --trino-url https://etl@trino.example.org:8443/delta --trino-ca-file ca.pem
      goldlake register --all --iceberg-trino-url iceberg
      goldlake register --prune --dry-run
    """
    from runtime.register import RegisterReport

    if tables and every:
        raise click.UsageError("--all and names of tables: one of them says what to register")
    if not (tables or every or prune or report_only):
        raise click.MissingParameter(param_hint="'TABLES'", param_type="argument")
    connection, root, name = _place(stack, aws, location, database)
    places: dict[str, Any] = {
        "database": name,
        "trino_url": trino_url,
        "iceberg_trino_url": _iceberg_url(trino_url, iceberg_trino_url),
        "trino_options": options,
    }
    report = RegisterReport(name, root, dry_run, ())
    if (tables or every) and not report_only:
        from runtime.register import register_tables

        names = None if every else list(tables)
        report = register_tables(connection, root, names, replace=replace, verify=verify, dry_run=dry_run, **places)
    if prune or report_only:
        report = _audited(
            report, connection, places, prune=prune and not report_only, yes=yes, say_all=output == "text"
        )
    _show(report, output)
    if output == "text" and (prune or report_only) and not (report.orphans or report.stale):
        say("lake and catalogue agree: no data without an entry, no entry without data")


def _place(stack: str, aws: Connection, location: str | None, database: str | None) -> tuple[Connection, str, str]:
    """Return connection, target and database; with the latter two given no stack is asked."""
    if location and database:
        found = Connection.from_environment()
        connection = Connection(
            endpoint_url=aws.endpoint_url or found.endpoint_url,
            region=aws.region or found.region,
            profile=aws.profile or found.profile,
        )
        return connection, location, database
    target = load_target(stack, overrides=aws)
    return target.connection, location or target.gold_location, database or target.output("lake_gold_database")


def _iceberg_url(trino_url: str | None, iceberg: str | None) -> str | None:
    """Return the URL of the catalogue for Iceberg tables, which may be named by its name only."""
    if not iceberg or "://" in iceberg:
        return iceberg
    if not trino_url:
        raise ConfigurationError(
            f"--iceberg-trino-url {iceberg} is a catalogue's name, and no --trino-url says on which server"
        )
    return re.sub(r"/[^/]*/?$", "", trino_url) + f"/{iceberg}"


def _audited(
    report: RegisterReport, connection: Connection, places: dict[str, Any], *, prune: bool, yes: bool, say_all: bool
) -> RegisterReport:
    """Return the report with what lake and catalogues do not agree on; remove stale entries after asking."""
    from runtime import register as registration

    orphans, stale = registration.audit(connection, report.target, **places)
    report = dataclasses.replace(report, orphans=orphans, stale=stale)
    if not (prune and stale) or report.dry_run:
        return report
    if not yes:
        if not os.isatty(0):
            raise FailedError(f"{len(stale)} entries would be removed, and nobody can be asked", hint="--prune --yes")
        for entry in stale:
            say(f"{entry.catalogue}: {entry.table}, whose data was at {entry.location}")
        click.confirm(f"Remove these {len(stale)} entries? No data is touched.", abort=True, err=True)
    removed = registration.prune(connection, report.target, stale, **places)
    if say_all:
        say(f"{len(removed)} entries removed")
    return dataclasses.replace(report, stale=removed, pruned=True)


def _show(report: RegisterReport, output: str) -> None:
    if output == "json":
        show_json(report.to_dict())
        return
    for table in report.tables:
        if table.warning:
            say(f"warning: {table.warning}")
    columns = ("table", "state", "Trino", "format", "version", "rows", "location")
    if report.tables:
        rows = [(t.table, t.state, t.trino, t.format, t.version, t.rows, t.location) for t in report.tables]
        show_table(columns, rows, "Dry run" if report.dry_run else None)
    if report.stale:
        title = "Removed entries" if report.pruned else "Entries without data"
        stale = [(e.catalogue, e.table, e.location) for e in report.stale]
        show_table(("catalogue", "table", "location"), stale, title)
    if report.orphans:
        show_table(("location",), [(place,) for place in report.orphans], "Data without an entry")
