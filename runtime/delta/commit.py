"""The one commit that makes an engine's files the content of a Delta table.

Source of the rules: the Delta protocol (delta-io/delta, PROTOCOL.md: "Add File and Remove File"), and what deltalake
1.6.6 was seen to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from runtime.delta.log import log_rows, open_table, translated
from runtime.delta.types import Column, schema_of
from runtime.errors import ConfigurationError, FailedError, GoldlakeError

if TYPE_CHECKING:
    from deltalake import DeltaTable, Schema
    from deltalake.transaction import AddAction, CommitProperties

# FailedError.code of a commit that is known not to be in the log, so that its files may be deleted.
NOT_COMMITTED = "NotCommitted"
EXPORT_ID = "goldlake.exportId"


@dataclass(frozen=True)
class DataFile:
    """A Parquet file under a table's location: its name, size in bytes, rows and Delta statistics (JSON)."""

    name: str
    size: int
    rows: int
    stats: str


@dataclass(frozen=True)
class Committed:
    """A commit that was read back from the log."""

    version: int
    rows: int
    files: int


def check_writable(table: DeltaTable, location: str) -> None:
    """Raise ConfigurationError for a table of someone else that v0 cannot overwrite rightly."""
    details = table.metadata()
    settings = details.configuration
    obstacles = [
        *(["partition columns " + ", ".join(details.partition_columns)] if details.partition_columns else []),
        *(["column mapping"] if settings.get("delta.columnMapping.mode", "none") != "none" else []),
        *(["appendOnly"] if settings.get("delta.appendOnly") == "true" else []),
        *(["constraints"] if any(name.startswith("delta.constraints.") for name in settings) else []),
    ]
    if obstacles:
        raise ConfigurationError(
            f"the Delta table at {location} has {' and '.join(obstacles)}, which an export does not write",
            hint="export to another location",
        )


def commit(
    location: str,
    columns: Sequence[Column],
    files: Sequence[DataFile],
    *,
    export_id: str,
    options: dict[str, str] | None,
    info: Mapping[str, str],
    written_at_ms: int,
) -> Committed:
    """Make `files` the table's whole content in one commit, and return the commit as read back from the log.

    A missing table is created by the same commit. Otherwise old files are removed and new ones added; a
    changed schema goes into the same commit (deltalake's create_write_transaction adds a metaData action),
    and older versions stay readable with theirs. `info` is kept in the log as commitInfo.

    Raises FailedError with code NOT_COMMITTED when another writer was faster: then nothing of this export
    is in the log. Raises FailedError when the log has not the rows that were written, others as
    `translated` does.
    """
    from deltalake.transaction import AddAction, CommitProperties

    table = open_table(location, options)
    if table is not None:
        check_writable(table, location)
    actions = [AddAction(file.name, file.size, {}, written_at_ms, True, file.stats) for file in files]
    # No retry on a newer version: deltalake 1.6.6 then keeps the other writer's files beside ours. Two
    # exporters that create a table at once both succeeded so, and the table had the rows of both.
    properties = CommitProperties(custom_metadata={**info, EXPORT_ID: export_id}, max_commit_retries=0)
    try:
        with translated(f"commit to {location}"):
            _write(location, table, schema_of(columns), actions, options=options, properties=properties)
    except GoldlakeError as exc:
        # The answer to a commit can be lost on its way, and a retry then sees "already there": the log
        # decides.
        committed = find_commit(location, options, export_id)
        if committed is None and isinstance(exc, FailedError):
            raise _not_committed(location, exc) from exc
        if committed is None:
            raise
    else:
        committed = find_commit(location, options, export_id)
    expected = sum(file.rows for file in files)
    if committed is None or committed.rows != expected or committed.files != len(files):
        raise FailedError(
            f"{expected} rows in {len(files)} files were committed to {location}, and its log has {committed}"
        )
    return committed


def _write(
    location: str,
    table: DeltaTable | None,
    schema: Schema,
    actions: list[AddAction],
    *,
    options: dict[str, str] | None,
    properties: CommitProperties,
) -> None:
    """Send the commit."""
    from deltalake.transaction import create_table_with_add_actions

    if table is None:
        create_table_with_add_actions(
            location, schema, actions, mode="error", storage_options=options, commit_properties=properties
        )
    else:
        table.create_write_transaction([*actions], "overwrite", schema, commit_properties=properties)


def _not_committed(location: str, exc: FailedError) -> FailedError:
    """Return the error for a commit that was refused and that the log does not have."""
    if re.search(r"Failed to commit transaction|already exists", exc.message):
        message = f"another writer changed {location} during this export, of which nothing is in the table"
        return FailedError(message, hint="run the export again", code=NOT_COMMITTED)
    return FailedError(exc.message, code=NOT_COMMITTED)


def find_commit(location: str, options: dict[str, str] | None, export_id: str) -> Committed | None:
    """Return the commit of an export among the table's newest hundred, None when it is not there."""
    newest = open_table(location, options)
    if newest is None:
        return None
    with translated(f"Delta log of {location}"):
        for entry in newest.history(100):
            if entry.get(EXPORT_ID) == export_id:
                newest.load_as_version(int(entry["version"]))
                return Committed(newest.version(), log_rows(newest) or 0, newest.get_add_actions().num_rows)
    return None


def goldlake_version() -> str:
    """Return Goldlake's version; `unknown` where it runs from copied sources, as in a Lambda package."""
    try:
        return metadata.version("goldlake")
    except metadata.PackageNotFoundError:
        return "unknown"
