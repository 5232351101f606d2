"""Mode merge: rows of the source replace those of the table that have the same key, and new ones are added.

    DuckDB --(Arrow stream)--> delta-rs: reads the table's files that may have matching rows, writes them anew, commits

The only mode that reads the table; delta-rs does it, since it has to find the rows. What delta-rs cannot write is
refused: tables with column mapping.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runtime import sql
from runtime.delta import log as delta_log
from runtime.delta import types
from runtime.delta.commit import EXPORT_ID, LOG, NOT_COMMITTED, Committed, check_writable, is_ours
from runtime.delta.log import Snapshot, open_table
from runtime.errors import ConfigurationError, FailedError, GoldlakeError
from runtime.export.duckdb_engine import relation, select_statement
from runtime.export.plan import Prepared
from runtime.export.sources import Reader, translated

if TYPE_CHECKING:
    from deltalake import DeltaTable

ATTEMPTS = 5
_SHOWN = 5


def check_keys(reader: Reader, prepared: Prepared) -> None:
    """Raise FailedError when the source has a key twice, or none: which row should win, nobody could say."""
    plan, keys = prepared.plan, prepared.options.unique_key
    names = ", ".join(sql.identifier(name) for name in keys)
    nulls = " OR ".join(f"{sql.identifier(name)} IS NULL" for name in keys)
    with translated(reader.source):
        found = reader.connection.execute(
            f"SELECT {names}, count(*) FROM {relation(plan)} GROUP BY {names}"  # noqa: S608 - quoted by runtime.sql
            f" HAVING count(*) > 1 OR {nulls} LIMIT {_SHOWN}"
        ).fetchall()
    if found:
        shown = ", ".join(str(row[:-1] if len(keys) > 1 else row[0]) for row in found)
        raise FailedError(
            f"{plan.schema}.{plan.table} has keys ({', '.join(keys)}) that are NULL or there more than once, such as"
            f" {shown}: merge cannot say which row wins",
            hint="make the key unique in the model",
        )


def check_target(prepared: Prepared) -> None:
    """Raise ConfigurationError for a table that delta-rs does not merge into rightly."""
    if any(item.physical is not None for item in prepared.plan.columns):
        raise ConfigurationError(
            f"the Delta table at {prepared.plan.location} maps its columns, and delta-rs does not merge into such",
            hint="rename the columns, or use another mode",
        )


def merge(reader: Reader, prepared: Prepared, info: Mapping[str, str]) -> Committed:
    """Merge the source into the table, and return the commit as read back from the log.

    A conflict with another writer is tried again on the newest version, some times. Raises FailedError with code
    NOT_COMMITTED when others were faster each time, or changed the table so that the merge does not fit.
    """
    plan = prepared.plan
    since: int | None = None
    for attempt in range(ATTEMPTS):
        before = _open(prepared)
        since = before.version() if since is None else since
        _check_still_fits(prepared, before)
        try:
            metrics = _merge(reader, prepared, before, info)
        except GoldlakeError as exc:
            # The answer to a commit can be lost on its way: the log decides.
            found = _find(prepared, since)
            if found is not None:
                return _committed(found, 0, retries=attempt)
            if not (isinstance(exc, FailedError) and re.search(r"Failed to commit|conflict", exc.message, re.I)):
                raise
            _pause(attempt)
            continue
        found = _find(prepared, since)
        if found is None:
            raise FailedError(f"the merge into {plan.location} has ended, and its log does not have it")
        done = _committed(found, int(metrics.get("num_source_rows", 0)), retries=attempt)
        _check_rows(prepared, metrics, done)
        return done
    raise FailedError(
        f"other writers changed {plan.location} during each of {ATTEMPTS} merges, of which nothing is in the table",
        hint="run the export again",
        code=NOT_COMMITTED,
    )


def _pause(attempt: int) -> None:
    """Wait for a random time that grows with each attempt, so that writers don't meet again."""
    time.sleep(random.uniform(0, 0.1 * 2**attempt))  # noqa: S311 - keeps no secret


def _merge(reader: Reader, prepared: Prepared, table: DeltaTable, info: Mapping[str, str]) -> dict[str, Any]:
    """Let delta-rs merge; return its metrics."""
    from deltalake import CommitProperties

    plan = prepared.plan
    predicate = " AND ".join(
        f"target.{sql.identifier(name)} = source.{sql.identifier(name)}" for name in prepared.options.unique_key
    )
    rows = reader.connection.sql(select_statement(plan))
    # No retry of its own: deltalake 1.6.6 keeps the other writer's files beside ours when it retries.
    properties = CommitProperties(custom_metadata={**info, EXPORT_ID: plan.export_id}, max_commit_retries=0)
    with translated(reader.source), delta_log.translated(f"merge into {plan.location}"):
        merger = table.merge(
            rows,
            predicate,
            source_alias="source",
            target_alias="target",
            merge_schema=prepared.options.schema_mode == "merge",
            commit_properties=properties,
            streamed_exec=True,
        )
        metrics: dict[str, Any] = merger.when_matched_update_all().when_not_matched_insert_all().execute()
    return metrics


def _open(prepared: Prepared) -> DeltaTable:
    """Return the table's newest version."""
    plan = prepared.plan
    table = open_table(plan.location, plan.lake.storage_options())
    if table is None:
        raise FailedError(f"the Delta table at {plan.location} is gone", code=NOT_COMMITTED)
    return table


def _check_still_fits(prepared: Prepared, table: DeltaTable) -> None:
    """Raise FailedError when another writer changed the table so that the merge does not fit any more.

    deltalake 1.6.6 would leave out a column of the source that the table has lost, and say nothing.
    """
    plan = prepared.plan
    check_writable(table, plan.location)
    with delta_log.translated(f"Delta log of {plan.location}"):
        fields = Snapshot.of(table).metadata.fields
    try:
        types.evolve(fields, plan.fields, merge=prepared.options.schema_mode == "merge")
    except ConfigurationError as exc:
        raise FailedError(
            f"another writer changed {plan.location} during this merge, which changed nothing: {exc.message}",
            hint="run the export again",
            code=NOT_COMMITTED,
        ) from exc


def _find(prepared: Prepared, since: int) -> Snapshot | None:
    """Return the version after `since` that this merge made, None when there is none.

    Not by delta-rs' history, which reads a hundred versions, and holds all threads of Python for that time.
    """
    plan, table = prepared.plan, _open(prepared)
    for version in range(table.version(), since, -1):
        content = plan.lake.read(plan.table, f"{LOG}/{version:020}.json")
        if content is not None and is_ours(content, plan.export_id):
            with delta_log.translated(f"Delta log of {plan.location}"):
                table.load_as_version(version)
                return Snapshot.of(table)
    return None


def _committed(found: Snapshot, rows: int, *, retries: int) -> Committed:
    return Committed(found.version, found.rows, len(found.files), rows, retries=retries)


def _check_rows(prepared: Prepared, metrics: Mapping[str, Any], done: Committed) -> None:
    """Raise FailedError when the log has not the rows that delta-rs counted."""
    table = open_table(prepared.plan.location, prepared.plan.lake.storage_options(), done.version - 1)
    before = None if table is None else Snapshot.of(table).rows
    if before is None or done.rows is None:
        return
    expected = before + int(metrics.get("num_target_rows_inserted", 0))
    if done.rows != expected:
        raise FailedError(f"version {done.version} of {prepared.plan.location} has {done.rows} rows, not {expected}")
