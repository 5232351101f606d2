"""What the current version of a Delta table holds, by its log alone.

Source: the Delta protocol (delta-io/delta, PROTOCOL.md: "Deletion Vectors", "Commit Provenance Information").
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runtime import parquet
from runtime.aws import translated
from runtime.delta.actions import file_name
from runtime.errors import FailedError
from runtime.readiness_log import simple_log, stated_time
from runtime.readiness_parquet import count_rows
from runtime.readiness_store import Content, NotReadyTable, Store

if TYPE_CHECKING:
    from deltalake import DeltaTable

# commitInfo is the first action of most writers; a commit of thousands of files need not be read for it.
_COMMIT_BYTES = 64 * 1024


def read_delta(store: Store, bucket: str, prefix: str) -> Content:
    """Return what the current version of a Delta table holds, by its log.

    Raises NotReadyTable, or as `runtime.aws.translated` does.
    """
    location = f"s3://{bucket}/{prefix.rstrip('/')}"
    simple = simple_log(store, bucket, prefix)
    if simple is None:
        return _by_delta_rs(store, bucket, prefix, location)
    return Content(
        "delta",
        location,
        simple.rows,
        simple.files,
        simple.modified,
        simple.columns,
        version=simple.version,
    )


def _by_delta_rs(store: Store, bucket: str, prefix: str, location: str) -> Content:
    from runtime.delta import log as delta_log

    table = delta_log.open_table(location, store.delta_options())
    if table is None:
        if parquet.has_delta_log(store.aws, bucket, prefix, client=store.s3):
            raise NotReadyTable("unreadable", f"the Delta log of {location} has no readable version")
        raise NotReadyTable("missing", f"no _delta_log in {location}")
    with delta_log.translated(f"Delta table {location}"):
        paths = table.get_add_actions().column("path").to_pylist()
        rows, deleted = delta_log.log_rows(table), _deleted_rows(table)
        known = table.count()
        columns = frozenset(item.name.lower() for item in table.schema().fields)
    exact = rows is not None
    if rows is None and known > deleted and not store.options.count:
        rows = known
    elif rows is None:
        # A writer without statistics: the files know.
        rows, exact = count_rows(store, bucket, [_key(bucket, prefix, path) for path in paths]), True
    modified = _commit_time(store, bucket, prefix, table)
    return Content(
        "delta", location, rows - deleted, len(paths), modified, columns, exact=exact, version=table.version()
    )


def _key(bucket: str, prefix: str, path: str) -> str:
    """Return a file's key by its path in the log.

    Not by DeltaTable.file_uris: in S3 it leaves blanks and letters outside ASCII percent-encoded, and so names keys
    that are not there.
    """
    name = file_name(path)
    return name.removeprefix(f"s3://{bucket}/") if "://" in name else f"{prefix}{name}"


def _deleted_rows(table: DeltaTable) -> int:
    """Return how many of the files' rows deletion vectors take away: a file's row count includes them."""
    if "deletionVectors" not in (table.protocol().reader_features or []):
        return 0
    masks = (mask for batch in table.deletion_vectors() for mask in batch.column("selection_vector").to_pylist())
    return sum(mask.count(False) for mask in masks)


def _commit_time(store: Store, bucket: str, prefix: str, table: DeltaTable) -> datetime | None:
    """Return when the current version was committed: by its commitInfo, else by its file's time in the store.

    Where the commit's file is cleaned up, the newest data file's time is the nearest that the checkpoint knows. Not by
    DeltaTable.history, which holds the interpreter's lock during its two requests, so that every other table waits.
    """
    key = f"{prefix}_delta_log/{table.version():020}.json"
    try:
        with translated(f"read s3://{bucket}/{key}"):
            answer = store.s3.get_object(Bucket=bucket, Key=key, Range=f"bytes=0-{_COMMIT_BYTES - 1}")
            content: bytes = answer["Body"].read()
    except FailedError:
        times = table.get_add_actions().column("modification_time").to_pylist()
        return datetime.fromtimestamp(max(times) / 1000, UTC) if times else None
    stored: datetime = answer["LastModified"]
    return stated_time(content) or stored
