"""The one commit that makes an engine's files the content of a Delta table, written by Goldlake itself.

Source of the rules: the Delta protocol (delta-io/delta, PROTOCOL.md). A commit is one file of the log, put where
no file of that name is; who puts it first has the version, and nobody sees a part of it. docs/adr/0009 has the
reasons, and what delta-rs is still used for: reading, verifying, checkpoints, merge.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from runtime.delta import actions, protocol, types
from runtime.delta.actions import DataFile, Fields, LogFile, TableMetadata
from runtime.delta.lake import Lake, refuse_unsafe_rename
from runtime.delta.log import Snapshot, open_table, translated
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, GoldlakeError, UnreachableError

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["Change", "Committed", "DataFile", "check_writable", "commit", "goldlake_version", "is_ours"]

Mode = Literal["overwrite", "append", "error", "ignore", "replace-where"]
# FailedError.code (and ConfigurationError's) of a commit that is known not to be in the log, so that its files
# may be deleted.
NOT_COMMITTED = "NotCommitted"
EXPORT_ID = "goldlake.exportId"
# delta.checkpointInterval's value where a table says none.
CHECKPOINT_INTERVAL = 10
LOG = "_delta_log"
_LONGEST_PAUSE = 2.0
# How often a put without an answer is repeated, each time with all of boto3's own repetitions.
_PUTS = 4
# As a partition's value NULL to readers. Hive's name for it, in DuckDB also the folder that NULLs are written to.
_NULL_TEXTS = ("", actions.NULL_PARTITION)


@dataclass(frozen=True)
class Change:
    """What an export wants done to a table.

    `fields` are those of the files, as the schema's JSON has them. `replace_where` names, for the mode of that
    name, values of partition columns (in Delta's text form, None is NULL): the files of those partitions are
    replaced. `schema_mode` "overwrite" lets mode overwrite give the table another schema and other partition
    columns, "merge" lets the others add columns. `properties` are set beside those that the table has.
    `description` None leaves it. `info` is kept in the log as commitInfo.
    """

    mode: Mode
    fields: Fields
    files: Sequence[DataFile]
    export_id: str
    partition_columns: tuple[str, ...] = ()
    replace_where: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    schema_mode: Literal["strict", "merge", "overwrite"] = "strict"
    properties: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None
    info: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """The rows of all files."""
        return sum(file.rows for file in self.files)


@dataclass(frozen=True)
class Committed:
    """A commit that was read back from the log.

    `rows` and `files` are those of the whole version by the log; `rows` is None when a file of another
    writer has no row count. `retries` is how often another writer was faster. `written` is False in mode
    ignore for a table that was there: nothing was committed, and `version` is the table's.
    """

    version: int
    rows: int | None
    files: int
    added_rows: int = 0
    removed_files: int = 0
    created: bool = False
    retries: int = 0
    written: bool = True


@dataclass(frozen=True)
class _Plan:
    """A commit on top of one snapshot, None for a table that is not there."""

    before: Snapshot | None
    version: int
    protocol: protocol.Protocol | None
    metadata: TableMetadata | None
    fields: Fields
    removed: tuple[LogFile, ...]


def check_writable(table: DeltaTable | None, location: str, mode: str = "overwrite") -> None:
    """Raise ConfigurationError for a table with features that an export in this mode would break, by their names.

    To be asked before anything is staged; `commit` asks again. `table` None (there is none) is writable.
    """
    refuse_unsafe_rename(os.environ)
    if table is not None:
        with translated(f"Delta log of {location}"):
            _check_features(Snapshot.of(table), location, mode)


def _check_features(before: Snapshot, location: str, mode: str) -> None:
    """Raise ConfigurationError for features that an export in this mode would break."""
    found = protocol.obstacles(before.protocol, before.metadata.configuration, before.metadata.fields, mode=mode)
    # A remove has to name the vector too, and the rows of the log are not those of the files.
    found += ["deletionVectors"] if before.has_deletion_vectors() else []
    if found:
        raise ConfigurationError(
            f"the Delta table at {location} has {', '.join(found)}, which an export ({mode}) does not write",
            hint="export to another location",
        )


def commit(
    lake: Lake,
    table: str,
    change: Change,
    *,
    written_at_ms: int,
    attempts: int = 100,
    say: Callable[[str], None] | None = None,
) -> Committed:
    """Carry the change out in one commit, and return it as read back from the log.

    A missing table is created by the same commit. When another writer takes the version first, the change is
    planned anew on the newest one, up to `attempts` times: all modes are blind, they read no rows. When an
    answer is lost, the log decides.

    Raises ConfigurationError for what the table does not take; FailedError when the mode is error and the
    table exists, when others were faster each time, and when a winner changed the table so that the change
    does not fit any more. These have the code NOT_COMMITTED: nothing of the change is in the log, and its
    files may be deleted. Raises FailedError without that code when the log has other files than were
    written, and UnreachableError or AccessDeniedError when the store does not answer: then the commit may
    or may not be there.
    """
    refuse_unsafe_rename({**os.environ, **(lake.storage_options() or {})})
    retries = 0
    while True:
        try:
            before = _snapshot(lake, table)
            if before is not None and change.mode == "ignore":
                return Committed(before.version, before.rows, len(before.files), retries=retries, written=False)
            plan = _plan(lake.location(table), before, change)
        except (ConfigurationError, FailedError) as exc:
            raise _refused(exc, lake.location(table), retries) from exc
        if _put(lake, table, plan, change, written_at_ms):
            break
        retries += 1
        if retries >= attempts:
            raise FailedError(
                f"other writers changed {lake.location(table)} {retries} times during this export's commit,"
                " of which nothing is in the table",
                hint="run the export again",
                code=NOT_COMMITTED,
            )
        _pause(retries)
    committed = _read_back(lake, table, plan, change, retries)
    _checkpoint(lake, table, committed.version, plan, say)
    return committed


def _snapshot(lake: Lake, table: str) -> Snapshot | None:
    """Return the table's newest version, None when there is no table."""
    found = open_table(lake.location(table), lake.storage_options())
    if found is None:
        return None
    with translated(f"Delta log of {lake.location(table)}"):
        return Snapshot.of(found)


def _refused(exc: GoldlakeError, location: str, retries: int) -> GoldlakeError:
    """Return the error for a change that the table's newest version does not take."""
    if not retries:
        exc.code = NOT_COMMITTED
        return exc
    message = f"another writer changed {location} during this export, of which nothing is in the table: {exc.message}"
    return FailedError(message, hint=exc.hint or "run the export again", code=NOT_COMMITTED)


def _pause(retries: int) -> None:
    """Wait for a random time that grows with each retry, so that writers don't meet again."""
    time.sleep(random.uniform(0, min(_LONGEST_PAUSE, 0.02 * 2**retries)))  # noqa: S311 - keeps no secret


# --- the plan ---


def _plan(location: str, before: Snapshot | None, change: Change) -> _Plan:
    """Return what the commit has to hold on top of a snapshot. Raises ConfigurationError or FailedError."""
    protocol.check_properties(change.properties)
    _check_partitions(change)
    if len({file.name for file in change.files}) != len(change.files):
        raise ConfigurationError("two files have the same name: one has been written over the other")
    if before is None:
        return _first(change)
    if change.mode == "error":
        raise FailedError(f"the Delta table at {location} exists already", hint="choose the mode overwrite or append")
    _check_features(before, location, change.mode)
    fields = _fields_after(before, change, location)
    configuration = {**before.metadata.configuration, **change.properties}
    configuration |= protocol.mapped_configuration(before.metadata.configuration, before.metadata.fields, fields)
    after = replace(
        before.metadata,
        fields=fields,
        partition_columns=_partitions_after(before, change, location),
        configuration=configuration,
        description=before.metadata.description if change.description is None else change.description,
    )
    raised = before.protocol.with_features(types.features_of(fields))
    return _Plan(
        before,
        before.version + 1,
        None if raised == before.protocol else raised,
        None if after == before.metadata else after,
        fields,
        _removed(before, change),
    )


def _first(change: Change) -> _Plan:
    """Return the plan of a new table's first version."""
    configuration = {**change.properties, **protocol.mapped_configuration({}, (), change.fields)}
    details = TableMetadata(
        str(uuid.uuid4()),
        change.fields,
        change.partition_columns,
        configuration,
        description=change.description,
        created_ms=time.time_ns() // 1_000_000,
    )
    return _Plan(None, 0, protocol.new_protocol(types.features_of(change.fields)), details, change.fields, ())


def _fields_after(before: Snapshot, change: Change, location: str) -> Fields:
    """Return the table's fields after the commit."""
    if change.mode == "overwrite" and change.schema_mode == "overwrite":
        return change.fields
    if list(before.metadata.fields) == list(change.fields):
        return before.metadata.fields
    try:
        return types.evolve(before.metadata.fields, change.fields, merge=change.schema_mode == "merge")
    except ConfigurationError as exc:
        raise ConfigurationError(f"the Delta table at {location}: {exc.message}", hint=exc.hint) from exc


def _partitions_after(before: Snapshot, change: Change, location: str) -> tuple[str, ...]:
    """Return the partition columns after the commit: only an overwrite of the schema changes them."""
    if change.partition_columns != before.metadata.partition_columns and (
        change.mode != "overwrite" or change.schema_mode != "overwrite"
    ):
        has, wanted = (
            ", ".join(names) or "none" for names in (before.metadata.partition_columns, change.partition_columns)
        )
        raise ConfigurationError(
            f"the Delta table at {location} has the partition columns {has}, and the export {wanted}",
            hint="an overwrite with schema mode overwrite changes them",
        )
    return change.partition_columns


def _check_partitions(change: Change) -> None:
    """Raise ConfigurationError for partition columns and values that a Delta table cannot have."""
    names = [item["name"] for item in change.fields]
    unknown = [name for name in (*change.partition_columns, *change.replace_where) if name not in names]
    if unknown or len(set(change.partition_columns)) == len(names):
        raise ConfigurationError(
            f"partition columns {', '.join(change.partition_columns)}: they have to be some of the columns"
            f" {', '.join(names)}, and not all"
        )
    outside = [name for name in change.replace_where if name not in change.partition_columns]
    if outside or bool(change.replace_where) != (change.mode == "replace-where"):
        raise ConfigurationError(
            f"replace-where names {', '.join(change.replace_where) or 'nothing'}: it takes values of partition"
            f" columns ({', '.join(change.partition_columns) or 'there are none'}), and only it does"
        )
    for file in change.files:
        if set(file.partition_values) != set(change.partition_columns):
            raise ConfigurationError(f"file {file.name} has no value for each partition column, or values for others")
        text = next((value for value in file.partition_values.values() if value in _NULL_TEXTS), None)
        if text is not None:
            raise ConfigurationError(
                f"file {file.name}: {text or 'an empty text'} as a partition's value is NULL to"
                f" {'some' if text else 'all'} readers of Delta",
                hint="write NULL or another text in the model, or partition by another column",
            )
        _stored_values(file, change)
        if not _is_replaced(file.partition_values, change):
            raise ConfigurationError(
                f"file {file.name} is of a partition that replace-where does not name: {dict(file.partition_values)}"
            )


def _stored_values(file: DataFile, change: Change) -> DataFile:
    """Return the file with its partition's values as readers take them. Raises ConfigurationError for others."""
    kinds = {item["name"]: item["type"] for item in change.fields}
    try:
        values = {name: actions.stored_partition(kinds[name], value) for name, value in file.partition_values.items()}
    except (ValueError, TypeError, AttributeError) as exc:
        raise ConfigurationError(
            f"file {file.name}: {dict(file.partition_values)} are no values of the partition columns: {exc}"
        ) from exc
    return replace(file, partition_values=values)


def _is_replaced(values: Mapping[str, str | None], change: Change) -> bool:
    """Return whether a partition is among those that the change replaces; without replace-where all are."""
    kinds = {item["name"]: item["type"] for item in change.fields}
    return all(
        actions.same_partition(kinds[name], values.get(name))
        in [actions.same_partition(kinds[name], value) for value in allowed]
        for name, allowed in change.replace_where.items()
    )


def _removed(before: Snapshot, change: Change) -> tuple[LogFile, ...]:
    """Return the files that the commit takes out of the table."""
    if change.mode == "append":
        return ()
    removed = tuple(file for file in before.files if _is_replaced(file.partition_values, change))
    names = {actions.log_path(file.name) for file in change.files}
    again = [file.path for file in removed if file.path in names]
    if again:
        # Removed and added in one commit, a file is there for some readers and gone for others.
        raise ConfigurationError(f"file {again[0]} is in the Delta table at {before.table.table_uri} already")
    elsewhere = [file.path for file in removed if actions.is_elsewhere(file.path)]
    if elsewhere:
        raise ConfigurationError(
            f"the Delta table at {before.table.table_uri} is a shallow clone: it has files of another table"
            f" ({elsewhere[0]})",
            hint="export to another location",
        )
    return removed


# --- the write ---


def _content(plan: _Plan, change: Change, written_at_ms: int) -> bytes:
    """Return the log file's content."""
    now = time.time_ns() // 1_000_000
    after = protocol.physical_names(plan.fields)
    earlier = protocol.physical_names(plan.before.metadata.fields if plan.before else ())
    info = actions.commit_info(
        "CREATE TABLE AS SELECT" if plan.before is None else "WRITE",
        {
            "mode": "Append" if change.mode == "append" else "Overwrite",
            "partitionBy": json.dumps(change.partition_columns),
            **({"predicate": _predicate(change)} if change.replace_where else {}),
        },
        {
            "numFiles": len(change.files),
            "numOutputRows": change.rows,
            "numOutputBytes": sum(file.size for file in change.files),
            "numRemovedFiles": len(plan.removed),
        },
        engine=f"goldlake/{goldlake_version()}",
        now_ms=now,
        blind_append=change.mode == "append",
        extras={**change.info, EXPORT_ID: change.export_id},
    )
    return actions.commit_content(
        info,
        plan.protocol,
        plan.metadata,
        (actions.remove(file, earlier, now) for file in plan.removed),
        (actions.add(_stored_values(file, change), after, written_at_ms) for file in change.files),
    )


def _predicate(change: Change) -> str:
    """Return what replace-where replaces, for a person who reads the log."""
    return json.dumps({name: list(values) for name, values in change.replace_where.items()}, ensure_ascii=False)


def _put(lake: Lake, table: str, plan: _Plan, change: Change, written_at_ms: int) -> bool:
    """Put the version's file; return whether it is ours, False when another writer's was there first.

    An answer can be lost after the file was written, and a repeated put (boto3 repeats it too) then finds
    its own file there: the file's content decides. Repeating is safe at any time: a put that is still on
    its way writes the same file, or is refused.
    """
    content = _content(plan, change, written_at_ms)
    name = f"{LOG}/{plan.version:020}.json"
    may_be_there = False
    for attempt in range(1, _PUTS + 1):
        try:
            if lake.put_new(table, name, content):
                return True
        except AccessDeniedError:
            raise
        except UnreachableError as exc:
            lost: GoldlakeError = exc
            may_be_there = True
        except FailedError as exc:
            lost = exc
        else:
            lost = UnreachableError(f"{lake.location(table)}/{name} is said to be there, and cannot be read")
            may_be_there = True
        found = _read(lake, table, name)
        if found is not None:
            return is_ours(found, change.export_id)
        if not may_be_there:
            lost.code = NOT_COMMITTED
            raise lost
        if attempt < _PUTS:
            _pause(attempt)
    raise lost


def _read(lake: Lake, table: str, name: str) -> bytes | None:
    """Return a log file, None when it is not there or the store does not answer."""
    try:
        return lake.read(table, name)
    except UnreachableError:
        return None


def is_ours(content: bytes, export_id: str) -> bool:
    """Return whether a log file is of this export."""
    for line in content.splitlines():
        found: dict[str, Any] = json.loads(line).get("commitInfo") or {}
        if found:
            return found.get(EXPORT_ID) == export_id
    return False


# --- afterwards ---


def _read_back(lake: Lake, table: str, plan: _Plan, change: Change, retries: int) -> Committed:
    """Return the commit as delta-rs reads it; raise FailedError when the version has other files than it should."""
    location = lake.location(table)
    found = open_table(location, lake.storage_options(), plan.version)
    if found is None:
        raise FailedError(f"version {plan.version} of {location} was committed, and its log has no table")
    with translated(f"Delta log of {location}"):
        now = Snapshot.of(found)
        has = {file.path: file.rows for file in now.files}
    expected = {} if plan.before is None else {file.path: file.rows for file in plan.before.files}
    for file in plan.removed:
        del expected[file.path]
    expected |= {actions.log_path(file.name): file.rows for file in change.files}
    if has != expected or len(now.files) != len(expected):
        raise FailedError(
            f"version {plan.version} of {location} should have {len(expected)} files, {change.rows} rows of them"
            f" of this export, and its log has {len(now.files)} files with {now.rows} rows"
        )
    return Committed(
        plan.version, now.rows, len(now.files), change.rows, len(plan.removed), plan.before is None, retries
    )


def _checkpoint(lake: Lake, table: str, version: int, plan: _Plan, say: Callable[[str], None] | None) -> None:
    """Write a checkpoint when the table's interval asks for one at this version. A failure only says so.

    Readers that come without one read more log files, that is all.
    """
    details = plan.metadata or (plan.before.metadata if plan.before else None)
    text = details.configuration.get("delta.checkpointInterval", "") if details else ""
    interval = int(text) if text.isdigit() and int(text) else CHECKPOINT_INTERVAL
    supported = plan.before.protocol.supported if plan.before else frozenset()
    if version == 0 or version % interval or "v2Checkpoint" in supported:
        return
    location = lake.location(table)
    try:
        at = open_table(location, lake.storage_options(), version)
        with translated(f"checkpoint of {location}"):
            if at is not None:
                at.create_checkpoint()
    except GoldlakeError as exc:
        if say:
            say(f"{table}: version {version} is committed, and its checkpoint was not written: {exc.message}")


def goldlake_version() -> str:
    """Return Goldlake's version; `unknown` where it runs from copied sources, as in a Lambda package."""
    try:
        return metadata.version("goldlake")
    except metadata.PackageNotFoundError:
        return "unknown"
