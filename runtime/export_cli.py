"""`goldlake export` and `goldlake vacuum`."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runtime.aws import Connection
from runtime.cli import CONTEXT, aws_options, dry_run_option, output_option, say, show_json, show_table, stack_option
from runtime.errors import EXIT_DONE, EXIT_FAILED, ConfigurationError, FailedError
from runtime.target import Target, load_target

if TYPE_CHECKING:
    from runtime.delta.lake import Lake
    from runtime.delta.verify import Verified
    from runtime.export import Engines, ExportOptions, ExportReport
    from runtime.export.sources import Source

_Function = TypeVar("_Function", bound=Callable[..., Any])

_MODES = ("overwrite", "append", "error-if-exists", "ignore", "replace-where", "merge")
_COLUMNS = ("table", "outcome", "rows", "files", "bytes", "version", "seconds", "location")


def _options(*options: Callable[[_Function], _Function]) -> Callable[[_Function], _Function]:
    """Return a decorator that adds click's options in this order."""

    def add(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return add


_where_from = _options(
    click.option(
        "--source",
        metavar="URL",
        help="duckdb:///gold.duckdb, postgresql://user@host:port/database (password: PGPASSWORD), redshift://… or"
        " trino://user@host:port/catalogue/schema; the stack's warehouse by default.",
    ),
    click.option(
        "--source-secret", metavar="ID", help="Secrets Manager entry with the source's username and password."
    ),
    click.option("--schema", help="The source's schema.  [default: gold]"),
    click.option("--select", multiple=True, metavar="SPEC", help="dbt's selection: dim_*, tag:x, +model; repeatable."),
    click.option("--exclude", multiple=True, metavar="SPEC", help="Tables that are left out, in the same syntax."),
    click.option(
        "--manifest",
        type=click.Path(path_type=Path, dir_okay=False),
        help="dbt's target/manifest.json: contracts, descriptions, keys, meta.goldlake, and what --select means.",
    ),
)
_how = _options(
    click.option("--mode", type=click.Choice(_MODES), help="What becomes of the table.  [default: overwrite]"),
    click.option("--unique-key", multiple=True, metavar="COLUMN", help="What identifies a row, for merge; repeatable."),
    click.option("--replace-where", multiple=True, metavar="COLUMN=VALUE", help="Partitions to replace; repeatable."),
    click.option("--schema-mode", type=click.Choice(["strict", "merge", "overwrite"]), help="Allowed changes."),
    click.option("--partition-by", multiple=True, metavar="COLUMN", help="Partition column; repeatable."),
    click.option("--order-by", multiple=True, metavar="COLUMN [desc]", help="Sort the rows, so that statistics prune."),
    click.option("--file-size", metavar="SIZE", help="Target size of a file, 1MB to 1GB.  [default: 256MB]"),
    click.option("--row-group-rows", type=int, metavar="N", help="Rows of a row group.  [default: 122880]"),
    click.option("--property", "properties", multiple=True, metavar="NAME=VALUE", help="Delta property; repeatable."),
    click.option("--timestamps", type=click.Choice(["utc", "ntz"]), default="utc", show_default=True,
                 help="What a timestamp without zone becomes."),
    click.option("--column-mapping", type=click.Choice(["auto", "never"]), default="auto", show_default=True,
                 help="Map columns when a name needs it, or refuse such names."),
    click.option("--symlink-manifest/--no-symlink-manifest", default=None, help="Write the manifest for Spectrum."),
    click.option("--if-changed", is_flag=True, help="Skip tables whose rows are those of the newest commit."),
)  # fmt: skip
_engine_options = _options(
    click.option("--engine", type=click.Choice(["duckdb", "unload", "ctas"]), help="Who writes; chosen by default."),
    click.option("--unload-workgroup", metavar="NAME", help="Redshift Serverless workgroup for UNLOAD."),
    click.option("--unload-role", metavar="ARN", help="Role that Redshift writes to S3 with."),
    click.option("--unload-secret", metavar="ARN", help="Login for the Data API; the caller's identity by default."),
    click.option(
        "--staging-catalog", metavar="NAME", help="Trino's Delta catalogue for CTAS; the source's by default."
    ),
)


@click.command(context_settings=CONTEXT)
@stack_option
@aws_options
@click.argument("tables", nargs=-1)
@click.option("--target", "location", metavar="PLACE", help="s3://bucket/prefix or a folder; the stack's by default.")
@_where_from
@_how
@_engine_options
@click.option("--verify", is_flag=True, help="Export nothing: check the tables at the target.")
@click.option("--verify-written", is_flag=True, help="Check each new version: files, footers and a scan of its rows.")
@dry_run_option
@output_option
def export(
    stack: str,
    aws: Connection,
    tables: tuple[str, ...],
    location: str | None,
    source: str | None,
    source_secret: str | None,
    verify: bool,
    verify_written: bool,
    dry_run: bool,
    output: str,
    **asked: Any,
) -> int:
    """Export tables to Delta Lake: from the stack's warehouse, a DuckDB file, PostgreSQL, Redshift or Trino.

    TABLES are names and globs ('dim_*'); all tables of the schema by default. Table f becomes <target>/f, written in
    one commit: readers see the old version or the new one. With --source and --target no deployed stack is needed.

    \b
    Examples:
      goldlake export
      goldlake export dim_company --target ./gold
      goldlake export f --source duckdb:///gold.duckdb --schema gold --target s3://lake/gold
      goldlake export 'dim_*' --source duckdb:///gold.duckdb --target s3://lake/gold --if-changed
      goldlake export --select tag:daily --manifest target/manifest.json
      goldlake export f --partition-by day --mode replace-where --replace-where day=2026-01-01
      goldlake export f --mode merge --unique-key id
      goldlake export f --verify --target s3://lake/gold

    Exit codes: 0 done, 1 failed or found wrong, 2 source or store cannot be reached, 64 usage.
    """
    if verify:
        given = sorted(name for name, value in asked.items() if value not in (None, (), False, "utc", "auto"))
        if given or source or verify_written:
            raise ConfigurationError("--verify writes nothing and goes with TABLES and --target only")
        return _verify(_lake(stack, aws, location), tables, output)
    report = _export(
        stack, aws, tables, location, source, source_secret, verify=verify_written, dry_run=dry_run, **asked
    )
    if output == "json":
        show_json(report.to_dict())
    else:
        for note in dict.fromkeys(f"{t.table}: {text}" for t in report.tables for text in t.notes):
            say(note)
        for change in (f"{t.table}: schema {text}" for t in report.tables for text in t.schema_changes):
            say(change)
        show_table(_COLUMNS, [tuple(getattr(t, c) for c in _COLUMNS) for t in report.tables])
    return EXIT_DONE


def _export(
    stack: str,
    aws: Connection,
    tables: Sequence[str],
    location: str | None,
    url: str | None,
    secret: str | None,
    *,
    verify: bool,
    dry_run: bool,
    **asked: Any,
) -> ExportReport:
    """Carry out what the command asks for."""
    from runtime.export import Selection, export_tables, read_manifest

    selection = Selection(asked.pop("select"), asked.pop("exclude"))
    path = asked.pop("manifest")
    manifest = read_manifest(path) if path else None
    schema = asked.pop("schema")
    unload = {name: asked.pop(f"unload_{name}") for name in ("workgroup", "role", "secret")}
    staging = asked.pop("staging_catalog")
    options = _export_options(verify=verify, **asked)
    target = None if url and location else _deployed(stack, aws)
    connection = target.connection if target else _own_connection(aws)
    found, schema = _source(url, connection, secret, schema, target)
    return export_tables(
        found,
        connection,
        location or _stack(target).gold_location,
        schema=schema,
        tables=list(tables) or None,
        selection=selection,
        options=options,
        manifest=manifest,
        engines=_engines(connection, found, staging, **unload),
        dry_run=dry_run,
        progress=say,
    )


def _source(
    url: str | None, connection: Connection, secret: str | None, schema: str | None, target: Target | None
) -> tuple[Source, str]:
    """Return the source and its schema."""
    from runtime.export.sources import Server, TrinoCatalog, parse_source

    if url is None:
        if secret:
            raise ConfigurationError("--source-secret goes with --source: the stack knows its warehouse's login")
        return Server(_stack(target).warehouse(), "redshift"), schema or "gold"
    found = parse_source(url, connection, secret_id=secret)
    named = found.schema if isinstance(found, TrinoCatalog) else "gold"
    return found, schema or named


def _deployed(stack: str, aws: Connection) -> Target:
    """Return the stack that source or target are taken from."""
    try:
        return load_target(stack, overrides=aws)
    except ConfigurationError as exc:
        exc.hint = f"{exc.hint}; with both --source and --target no stack is needed".removeprefix("None; ")
        raise


def _stack(target: Target | None) -> Target:
    """Return the stack, which was loaded unless source and target are given."""
    if target is None:
        raise ConfigurationError("neither a stack nor --source and --target are given")
    return target


def _own_connection(aws: Connection) -> Connection:
    """Return the connection without a stack: the options, then AWS's variables, then the AWS chain."""
    found = Connection.from_environment()
    return Connection(aws.endpoint_url or found.endpoint_url, aws.region or found.region, aws.profile or found.profile)


def _export_options(**asked: Any) -> ExportOptions:
    """Return the options of `export_tables`."""
    from runtime.export import ExportOptions

    pairs = [text.partition("=") for text in asked.pop("properties")]
    wrong = [name for name, sign, _ in pairs if not sign or not name.strip()]
    if wrong:
        raise ConfigurationError(f"--property {wrong[0]!r}: it takes name=value")
    asked |= {name: _split(asked[name]) for name in ("unique_key", "partition_by", "order_by")}
    return ExportOptions(properties={name.strip(): value.strip() for name, _, value in pairs}, **asked)


def _split(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the names in `a,b` and in repeated options."""
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


def _engines(
    connection: Connection,
    source: Source,
    staging: str | None,
    *,
    workgroup: str | None,
    role: str | None,
    secret: str | None,
) -> Engines:
    """Return what the engines besides DuckDB need."""
    from runtime.export import Engines
    from runtime.export.sources import Server

    if not workgroup and not role:
        return Engines(staging_catalog=staging)
    if not workgroup or not role or not isinstance(source, Server):
        raise ConfigurationError("UNLOAD needs --unload-workgroup, --unload-role and a Redshift source")
    from runtime.export.unload import DataApi, UnloadEngine, estimated_bytes

    api = DataApi(
        client=connection.client("redshift-data"),
        workgroup=workgroup,
        database=source.warehouse.database,
        secret_arn=secret,
    )

    def size(schema: str, tables: Sequence[str]) -> int | None:
        sizes = [estimated_bytes(api, schema, table, f"size-{table}") for table in tables]
        known = [item for item in sizes if item is not None]
        return sum(known) if known else None

    return Engines(lambda: UnloadEngine(api=api, role=role, region=connection.region), size, staging)


# --- looking after tables ---


def _lake(stack: str, aws: Connection, location: str | None) -> Lake:
    """Return the lake at a place; the stack is asked only when none is given."""
    from runtime.delta.lake import Lake

    if location is not None:
        return Lake.at(location, _own_connection(aws))
    target = load_target(stack, overrides=aws)
    return Lake.at(target.gold_location, target.connection)


def _tables(lake: Lake, wanted: Sequence[str]) -> list[str]:
    """Return the Delta tables of a lake that names and globs mean; all by default."""
    from runtime.query import delta_tables

    there = delta_tables(lake)
    missing = [name for name in wanted if not any(fnmatch.fnmatchcase(table, name) for table in there)]
    if missing:
        listed = ", ".join(there) or "none"
        raise ConfigurationError(f"{lake.root} has no Delta table {', '.join(map(repr, missing))}; it has {listed}")
    return [table for table in there if not wanted or any(fnmatch.fnmatchcase(table, name) for name in wanted)]


def _verify(lake: Lake, tables: Sequence[str], output: str) -> int:
    """Check tables without writing anything; return the exit code."""
    names = _tables(lake, tables)
    if not names:
        raise ConfigurationError(f"{lake.root} has no Delta tables")
    found = [_verified(lake, name) for name in names]
    if output == "json":
        reports = [item.to_dict() for item in found]
        show_json({"schema": "goldlake.verify/1", "ok": all(item.ok for item in found), "tables": reports})
    else:
        for item in found:
            for problem in item.problems:
                say(f"{item.table}: {problem}")
        rows = [(v.table, "right" if v.ok else "wrong", v.rows, v.files, v.bytes, v.version, v.location) for v in found]
        show_table(("table", "result", "rows", "files", "bytes", "version", "location"), rows)
    return EXIT_DONE if all(item.ok for item in found) else EXIT_FAILED


def _verified(lake: Lake, table: str) -> Verified:
    """Check a table; a log that cannot be read is one of the things that may be wrong with it."""
    from runtime.delta.verify import Verified, verify

    try:
        return verify(lake, table)
    except FailedError as exc:
        return Verified(table, lake.location(table), None, 0, 0, None, 0, (exc.message,))


@click.command(context_settings=CONTEXT)
@stack_option
@aws_options
@click.argument("tables", nargs=-1)
@click.option("--target", "location", metavar="PLACE", help="s3://bucket/prefix or a folder; the stack's by default.")
@click.option(
    "--retention-hours", type=click.FloatRange(min=0), default=168.0, show_default=True, help="Younger files are kept."
)
@click.option("--yes", is_flag=True, help="Delete; otherwise only say what would be deleted.")
@output_option
def vacuum(
    stack: str,
    aws: Connection,
    tables: tuple[str, ...],
    location: str | None,
    retention_hours: float,
    yes: bool,
    output: str,
) -> None:
    """Delete the files that no version of a table needs any more: leftovers of killed exports, and old versions'.

    A dry run by default. A file that the newest version names is never deleted, nor one that is younger than the
    retention: keep that longer than the longest export takes, and than the longest query.

    \b
    Examples:
      goldlake vacuum
      goldlake vacuum 'fact_*' --target s3://lake/gold --retention-hours 168 --yes
    """
    from runtime.delta.vacuum import vacuum as remove

    if yes and retention_hours < 1 and sys.stdin.isatty():
        click.confirm(f"files younger than an hour can be of an export that runs; go on at {location}?", abort=True)
    lake = _lake(stack, aws, location)
    done = [
        remove(lake, name, retention_hours=retention_hours, dry_run=not yes, say=say) for name in _tables(lake, tables)
    ]
    if output == "json":
        show_json({"schema": "goldlake.vacuum/1", "dry_run": not yes, "tables": [item.to_dict() for item in done]})
        return
    show_table(
        ("table", "deleted" if yes else "to delete", "bytes", "kept", "version"),
        [(item.table, len(item.files), item.bytes, item.kept, item.version) for item in done],
    )
    if not yes:
        say("nothing was deleted: add --yes")
