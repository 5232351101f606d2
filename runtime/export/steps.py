"""The two halves of an export: all tables are staged before the first is committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from runtime.delta import commit as delta_commit
from runtime.delta.commit import Change, Committed, DataFile
from runtime.delta.lake import Lake
from runtime.errors import ConfigurationError, FailedError, GoldlakeError
from runtime.export import duckdb_engine, fingerprint, options, report
from runtime.export import merge as merging
from runtime.export.engine import Engine
from runtime.export.plan import Prepared, newest_info
from runtime.export.report import TableExport
from runtime.export.sources import Reader, SourceReader, translated

_CHANGES: dict[str, delta_commit.Mode] = {
    options.OVERWRITE: "overwrite",
    options.APPEND: "append",
    options.ERROR: "error",
    options.IGNORE: "ignore",
    options.REPLACE_WHERE: "replace-where",
}


@dataclass(frozen=True)
class Staged:
    """A table whose files lie under its location, unreferenced until the commit. `skipped` says why there are none."""

    prepared: Prepared
    files: tuple[DataFile, ...] = ()
    seconds: float = 0.0
    fingerprint: str | None = None
    skipped: str | None = None

    @property
    def merges(self) -> bool:
        """Whether rows are merged into a table that is there; a new table just gets its files."""
        return self.prepared.options.mode == options.MERGE and self.prepared.before is not None

    @property
    def rows(self) -> int:
        """The rows in all files."""
        return sum(file.rows for file in self.files)


def stage_all(
    reader: SourceReader, engine: Engine, tables: Sequence[Prepared], say: Callable[[str], None]
) -> list[Staged]:
    """Write the files of all tables under their locations; on a failure remove them again."""
    staged: list[Staged] = []
    try:
        for prepared in tables:
            item = stage(reader, engine, prepared)
            staged.append(item)
            if item.skipped:
                say(f"{prepared.plan.table}: {item.skipped}, nothing is written")
            elif not item.merges:
                size = sum(file.size for file in item.files)
                say(f"{prepared.plan.table}: {item.rows:,} rows, {size:,} bytes in {item.seconds:.1f} s")
    except BaseException:
        for item in staged:
            discard(item)
        raise
    return staged


def stage(reader: SourceReader, engine: Engine, prepared: Prepared) -> Staged:
    """Write one table's files, unless there is nothing to do."""
    started = time.perf_counter()
    wanted = prepared.options
    if wanted.mode == options.IGNORE and prepared.before is not None:
        return Staged(prepared, skipped=report.EXISTS)
    print_now = _fingerprint(reader, prepared) if wanted.if_changed else None
    if print_now is not None and newest_info(prepared).get(fingerprint.KEY) == print_now:
        return Staged(prepared, seconds=time.perf_counter() - started, skipped=report.UNCHANGED)
    if wanted.mode == options.MERGE:
        duckdb_reader = _duckdb(reader, "mode merge")
        merging.check_target(prepared)
        merging.check_keys(duckdb_reader, prepared)
    item = Staged(prepared, (), 0.0, print_now)
    files = () if item.merges else engine.stage(prepared.plan)
    return Staged(prepared, files, time.perf_counter() - started, print_now)


def _fingerprint(reader: SourceReader, prepared: Prepared) -> str:
    """Return the fingerprint of what would be written."""
    plan = prepared.plan
    shape = {
        "columns": [(item.name, item.type, item.comment, item.nullable) for item in plan.columns],
        "partition_by": plan.partition_by,
        "order_by": [(key.column, key.descending) for key in plan.order_by],
        "where": plan.replace_where,
        "properties": dict(prepared.options.properties),
        "description": prepared.description,
    }
    duckdb_reader = _duckdb(reader, "--if-changed")
    with translated(reader.source):
        return fingerprint.fingerprint(duckdb_reader.connection, duckdb_engine.relation(plan), plan.columns, shape)


def _duckdb(reader: SourceReader, what: str) -> Reader:
    """Return a source that DuckDB reads; raise ConfigurationError for another."""
    if not isinstance(reader, Reader):
        raise ConfigurationError(f"{what} needs a source that DuckDB reads, and this is {reader.source.label}")
    return reader


def discard(item: Staged) -> None:
    """Delete a staged table's files."""
    duckdb_engine.discard(item.prepared.plan, [file.name for file in item.files])


# --- commits ---


def commit_all(
    reader: SourceReader, staged: Sequence[Staged], info: Mapping[str, str], say: Callable[[str], None]
) -> list[TableExport]:
    """Commit table after table. A failure's hint names the tables that have their new version."""
    done: list[TableExport] = []
    for index, item in enumerate(staged):
        try:
            done.append(_commit(reader, item, info, say))
        except BaseException as exc:
            safe = isinstance(exc, GoldlakeError) and exc.code == delta_commit.NOT_COMMITTED
            # A commit of unknown outcome may refer to its files; those of the tables after it were never named.
            for other in staged[index if safe else index + 1 :]:
                discard(other)
            new = ", ".join(table.table for table in done if table.outcome == report.EXPORTED)
            if isinstance(exc, GoldlakeError) and new:
                exc.hint = f"{exc.hint or 'run the export again'} (already at their new version: {new})"
            raise
        if done[-1].outcome == report.EXPORTED:
            say(f"{item.prepared.plan.table}: version {done[-1].version}")
    return done


def _commit(reader: SourceReader, item: Staged, info: Mapping[str, str], say: Callable[[str], None]) -> TableExport:
    """Make the staged files the table's content, or part of it."""
    started = time.perf_counter()
    if item.skipped:
        before = item.prepared.before
        known_rows = {} if before is None else {"rows": before.rows, "files": len(before.files)}
        return planned(item.prepared, outcome=item.skipped, seconds=round(item.seconds, 3), **known_rows)
    known = {**info, **({fingerprint.KEY: item.fingerprint} if item.fingerprint else {})}
    if item.merges:
        committed = merging.merge(_duckdb(reader, "mode merge"), item.prepared, known)
    else:
        known["goldlake.rows"] = str(item.rows)
        committed = _put(item, known, say)
    if not committed.written:
        discard(item)
        return planned(item.prepared, outcome=report.EXISTS, version=committed.version)
    _afterwards(item.prepared, committed, say)
    return planned(
        item.prepared,
        outcome=report.EXPORTED,
        version=committed.version,
        created=committed.created,
        rows=committed.rows,
        files=committed.files,
        bytes=None if item.merges else sum(file.size for file in item.files),
        seconds=round(item.seconds + time.perf_counter() - started, 3),
        rows_written=committed.added_rows,
        retries=committed.retries,
    )


def _put(item: Staged, info: Mapping[str, str], say: Callable[[str], None]) -> Committed:
    """Put the one commit of a table."""
    plan, wanted = item.prepared.plan, item.prepared.options
    change = Change(
        # A merge into a table that is not there makes it; one that comes into being meanwhile is a conflict.
        mode=_CHANGES.get(wanted.mode, "error"),
        fields=plan.fields,
        files=item.files,
        export_id=plan.export_id,
        partition_columns=plan.partition_by,
        replace_where=plan.replace_where,
        schema_mode=_schema_mode(wanted),
        properties=wanted.properties,
        description=item.prepared.description,
        info=info,
    )
    return delta_commit.commit(plan.lake, plan.table, change, written_at_ms=time.time_ns() // 1_000_000, say=say)


def _schema_mode(wanted: options.TableOptions) -> Literal["strict", "merge", "overwrite"]:
    """Return the schema mode as the commit has it."""
    modes: dict[str, Literal["strict", "merge", "overwrite"]] = {"merge": "merge", "overwrite": "overwrite"}
    return modes.get(wanted.schema_mode, "strict")


def _afterwards(prepared: Prepared, committed: Committed, say: Callable[[str], None]) -> None:
    """Do what is asked for after a commit. The table has its new version whatever happens here."""
    plan, wanted = prepared.plan, prepared.options
    if wanted.symlink_manifest:
        from runtime.delta.manifest import write_symlink_manifest

        write_symlink_manifest(plan.lake, plan.table)
        say(f"{plan.table}: symlink manifest written")
    if wanted.verify:
        verify_table(plan.lake, plan.table, committed)


def verify_table(lake: Lake, table: str, committed: Committed) -> None:
    """Raise FailedError unless the new version's files are there and have the rows of the log."""
    from runtime.delta.verify import verify

    found = verify(lake, table, expected_rows=committed.rows, version=committed.version)
    if not found.ok:
        raise FailedError(f"version {committed.version} of {lake.location(table)}: {'; '.join(found.problems)}")


def would_be(prepared: Prepared) -> TableExport:
    """Return the report's line of a table in a dry run."""
    stays = prepared.options.mode == options.IGNORE and prepared.before is not None
    return planned(prepared, outcome=report.EXISTS if stays else report.PLANNED)


def planned(prepared: Prepared, *, outcome: str = report.PLANNED, **known: object) -> TableExport:
    """Return the report's line of a table, with what is known of it."""
    plan = prepared.plan
    values: dict[str, object] = {
        "version": prepared.version,
        "created": prepared.version is None,
        **known,
    }
    return TableExport(
        table=plan.table,
        location=plan.location,
        schema_changes=prepared.schema_changes,
        outcome=outcome,
        mode=prepared.options.mode,
        notes=prepared.notes,
        **values,  # type: ignore[arg-type] # the report's own names, by keyword
    )
