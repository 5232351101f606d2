"""Export gold tables to Delta Lake: the engine writes Parquet, one commit makes it the table.

    DuckDB file, or a server's snapshot --> engine --> Parquet under the table's location --> one commit --> Delta log

All tables are written before the first commit, so a failure on the way leaves every table at its old version; only
unreferenced files can remain, which `goldlake vacuum` removes. The commits then follow each other within milliseconds,
each atomic for its table: Delta has no transaction over several tables. docs/export.md is the page for users.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.aws import Connection
from runtime.delta.commit import goldlake_version
from runtime.delta.lake import Lake
from runtime.errors import ConfigurationError
from runtime.export import sources, steps
from runtime.export.duckdb_engine import DuckDBEngine
from runtime.export.engine import CTAS, UNLOAD, Choice, Engine, choose_engine
from runtime.export.models import Manifest, read_manifest
from runtime.export.options import ExportOptions, table_options
from runtime.export.plan import Prepared, prepare
from runtime.export.report import SCHEMA, ExportReport, TableExport, peak_memory
from runtime.export.selection import Selection, choose_tables
from runtime.export.sources import Reader, Server, Source, SourceReader, TrinoReader, parse_source
from runtime.warehouse import Warehouse

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "SCHEMA",
    "Engines",
    "ExportOptions",
    "ExportReport",
    "Manifest",
    "Selection",
    "TableExport",
    "export_tables",
    "parse_source",
    "read_manifest",
    "snapshot",
]


@dataclass(frozen=True)
class Engines:
    """What the engines besides DuckDB need: a function that makes one, None where it is not set up.

    `unload_bytes(schema, tables)` estimates what an UNLOAD would write, None when it is not known.
    """

    unload: Callable[[], Engine] | None = None
    unload_bytes: Callable[[str, Sequence[str]], int | None] | None = None
    staging_catalog: str | None = None


def export_tables(
    source: Warehouse | Source,
    aws: Connection | None,
    target: str,
    *,
    schema: str = "gold",
    tables: Sequence[str] | None = None,
    selection: Selection | None = None,
    options: ExportOptions | None = None,
    manifest: Manifest | None = None,
    engines: Engines | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write tables of a schema to the Delta tables `<target>/<table>`; return what was done.

    `target` is `s3://bucket/prefix` or a local folder. `tables` are names and globs, None means all tables of the
    schema (views only when named); `selection` is dbt's. All are read in one snapshot. Without `options` each table is
    overwritten: a missing one is created, a changed schema is written with the same commit and listed in the report.
    `manifest` gives contracts, descriptions, keys and per-model options. `dry_run` reads catalogue and Delta logs only.
    `run_id` is kept in the log.

    Raises ConfigurationError for unknown tables, for names, types and options that cannot be, and for Delta tables with
    features that an export would break; NotReadyError for a schema without tables; UnreachableError when source or S3
    does not answer; FailedError when other writers were faster each time, or the log has other rows than were written.
    """
    started = time.perf_counter()
    say = progress or _silent
    place = Server(source, "redshift") if isinstance(source, Warehouse) else source
    asked = options or ExportOptions()
    lake = Lake.at(target, aws)
    run = run_id or str(uuid.uuid4())
    with sources.open_source(place) as reader:
        with sources.translated(place):
            names = choose_tables(schema, reader.tables(schema), tables, selection, manifest)
            prepared = [_prepare(reader, lake, schema, name, asked, manifest) for name in names]
        choice, engine = _engine(reader, lake, schema, names, asked.engine, engines or Engines(), say)
        if dry_run:
            done = [steps.would_be(item) for item in prepared]
        else:
            staged = steps.stage_all(reader, engine(), prepared, say)
            done = steps.commit_all(reader, staged, _info(run, f"{place.label}/{schema}", choice, manifest), say)
    seconds = round(time.perf_counter() - started, 3)
    return ExportReport(
        schema,
        lake.root,
        run,
        dry_run,
        seconds,
        peak_memory(),
        tuple(done),
        source=place.label,
        engine=choice.engine,
        engine_reason=choice.reason,
    )


@contextmanager
def snapshot(warehouse: Warehouse) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a DuckDB connection with the warehouse attached read-only as `warehouse`, in one transaction."""
    with sources.open_source(Server(warehouse, "redshift")) as reader:
        if isinstance(reader, Reader):
            yield reader.connection


def _prepare(
    reader: SourceReader, lake: Lake, schema: str, table: str, asked: ExportOptions, manifest: Manifest | None
) -> Prepared:
    """Return what will be done with a table."""
    model = manifest.model(schema, table) if manifest else None
    try:
        wanted = table_options(asked, model)
    except ConfigurationError as exc:
        raise ConfigurationError(f"table {schema}.{table}: {exc.message}", hint=exc.hint) from exc
    return prepare(reader, lake, schema, table, wanted, model)


def _engine(
    reader: SourceReader,
    lake: Lake,
    schema: str,
    names: Sequence[str],
    override: str | None,
    engines: Engines,
    say: Callable[[str], None],
) -> tuple[Choice, Callable[[], Engine]]:
    """Choose the engine and say why; return it with a function that makes it."""
    kind = reader.source.kind
    size = None
    if kind == "redshift" and engines.unload is None:
        # Without a role that Redshift writes with, there is nothing to choose.
        if override == UNLOAD:
            raise ConfigurationError(
                "engine 'unload' needs a workgroup and a role that Redshift writes to S3 with",
                hint="give --unload-workgroup and --unload-role",
            )
        kind = "postgres"
    elif kind == "redshift" and override is None and engines.unload_bytes is not None:
        size = engines.unload_bytes(schema, names)
    choice = choose_engine(kind, lake.root, size, override)
    say(f"engine {choice.engine}: {choice.reason}")
    if choice.engine == UNLOAD and engines.unload is not None:
        return choice, engines.unload
    if choice.engine == CTAS and isinstance(reader, TrinoReader):
        from runtime.export.ctas import CtasEngine

        trino = reader
        return choice, lambda: CtasEngine(server=trino.server, catalog=engines.staging_catalog)
    if not isinstance(reader, Reader):
        raise ConfigurationError(f"engine {choice.engine!r} does not read {reader.source.label}")
    attached = reader
    return choice, lambda: DuckDBEngine(attached, say)


def _info(run: str, source: str, choice: Choice, manifest: Manifest | None) -> dict[str, str]:
    """Return what the log keeps of this run."""
    invocation = manifest.invocation_id if manifest else None
    return {
        "goldlake.runId": run,
        "goldlake.source": source,
        "goldlake.version": goldlake_version(),
        "goldlake.engine": choice.engine,
        **({"goldlake.dbtInvocationId": invocation} if invocation else {}),
    }


def _silent(_: str) -> None:
    """Take a progress message and show it to nobody."""
