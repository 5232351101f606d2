"""Delete the files under a table's location that no version needs: what killed and refused exports left there.

Source of the rules: the Delta protocol (delta-io/delta, PROTOCOL.md: "Add File and Remove File" on tombstones,
"Data Files", "VACUUM Protocol Check").
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from runtime.delta import protocol
from runtime.delta.actions import file_name
from runtime.delta.lake import Lake, StoredFile
from runtime.delta.log import Snapshot, open_table, translated
from runtime.errors import ConfigurationError, FailedError

SCHEMA = "goldlake.vacuum/1"
# delta.deletedFileRetentionDuration and delta.logRetentionDuration where a table says nothing.
DELETED_FILE_RETENTION = timedelta(days=7)
LOG_RETENTION = timedelta(days=30)
_UNITS = {
    "microsecond": timedelta(microseconds=1),
    "millisecond": timedelta(milliseconds=1),
    "second": timedelta(seconds=1),
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}
_COMMIT_FILE = re.compile(r"_delta_log/\d{20}\.json")
_EXPORT_FOLDER = re.compile(r"[0-9a-f]{32}/")
# What `Lake` writes beside a file in a local folder, and a kill leaves there.
_BESIDE = re.compile(r"(?:.*/)?\.[^/]+\.[0-9a-f]{32}\.tmp")


@dataclass(frozen=True)
class Vacuumed:
    """What was deleted, or would be in a dry run: names below the location, and their bytes.

    `kept` is how many unreferenced files stay since they are young, or belong to a version whose time has not
    come.
    """

    table: str
    location: str
    version: int
    dry_run: bool
    retention_hours: float
    files: tuple[str, ...]
    bytes: int
    kept: int

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values; its form is named by the key `schema`."""
        return {"schema": SCHEMA, **asdict(self), "files": list(self.files)}


def vacuum(
    lake: Lake,
    table: str,
    *,
    retention_hours: float = 168,
    dry_run: bool = True,
    say: Callable[[str], None] | None = None,
) -> Vacuumed:
    """Delete the Parquet files that the newest version does not name, older than the retention.

    A file that an earlier version had is deleted when that was removed longer ago than the retention and the
    table's own delta.deletedFileRetentionDuration (a week by default). A file that no version named is
    deleted when it is older than the retention: shorter than the longest export, and that export loses its
    files before it commits them. Nothing is deleted in `_delta_log` and other folders with `_` or `.` in
    front (partitions apart), nor what is not a Parquet file, half-written files of our own apart.

    Raises ConfigurationError for a retention below zero, for tables with features that may need files in
    other ways, and for a table whose log is kept shorter than its files; FailedError when there is no table.
    """
    if not 0 <= retention_hours < float("inf"):
        raise ConfigurationError(f"retention of {retention_hours} hours: it has to be 0 or more")
    # Listed before the log is read: what is committed in between is then referenced, or not in the list.
    listed = list(lake.list_files(table))
    location = lake.location(table)
    found = open_table(location, lake.storage_options())
    if found is None:
        raise FailedError(f"there is no Delta table at {location}")
    with translated(f"Delta log of {location}"):
        snapshot = Snapshot.of(found)
        referenced = {file_name(file.path) for file in snapshot.files}
    _check_features(snapshot, location)
    now = datetime.now(UTC)
    retention = timedelta(hours=retention_hours)
    tombstones = max(retention, _retention(snapshot.metadata.configuration, location))
    candidates = [
        file for file in listed if file.name not in referenced and _is_data(file, snapshot.metadata.partition_columns)
    ]
    needed = _removed_since(lake, table, listed, now - tombstones)
    deleted = [file for file in candidates if file.name not in needed and file.modified <= now - retention]
    names = tuple(file.name for file in deleted)
    if names and not dry_run:
        lake.delete(table, names)
    report = Vacuumed(
        table,
        location,
        snapshot.version,
        dry_run,
        retention_hours,
        names,
        sum(file.size for file in deleted),
        len(candidates) - len(deleted),
    )
    if say:
        verb = "would be deleted" if dry_run else "deleted"
        say(f"{table}: {len(names)} files, {report.bytes:,} bytes {verb}; {report.kept} unreferenced ones stay")
    return report


def _check_features(snapshot: Snapshot, location: str) -> None:
    """Raise ConfigurationError for features that are not known here: they may name files in other ways."""
    # The rest of what an overwrite would break is no matter here, so the mode and properties are the mildest.
    found = protocol.obstacles(snapshot.protocol, {}, (), mode="append")
    if found:
        raise ConfigurationError(f"the Delta table at {location} has {', '.join(found)}, which vacuum does not know")


def _retention(configuration: Mapping[str, str], location: str) -> timedelta:
    """Return how long the table keeps removed files. Raises ConfigurationError when its log is kept shorter.

    When a file was removed is read from the log's commits: those that log cleanup took say nothing.
    """
    files = _duration(configuration, "delta.deletedFileRetentionDuration", DELETED_FILE_RETENTION)
    log = _duration(configuration, "delta.logRetentionDuration", LOG_RETENTION)
    if log < files:
        raise ConfigurationError(
            f"the Delta table at {location} keeps its log for {log} and removed files for {files}: which ones are"
            " still needed cannot be known",
            hint="make delta.logRetentionDuration at least delta.deletedFileRetentionDuration",
        )
    return files


def _duration(configuration: Mapping[str, str], name: str, default: timedelta) -> timedelta:
    """Return a property like `interval 7 days` or `interval 1 week 12 hours`."""
    text = configuration.get(name)
    if text is None:
        return default
    words = re.fullmatch(r"\s*(?:interval\s+)?((?:\d+\s+[a-z]+\s*)+)", text.lower())
    parts = re.findall(r"(\d+)\s+([a-z]+?)s?\b", words[1]) if words else []
    if not parts or any(unit not in _UNITS for _, unit in parts):
        raise ConfigurationError(f"{name} is {text!r}: expected a form like `interval 7 days`")
    return sum((int(count) * _UNITS[unit] for count, unit in parts), timedelta())


def _is_data(file: StoredFile, partition_columns: Iterable[str]) -> bool:
    """Return whether a file is one of the kind that exports write, in a place where they write.

    Redshift and Trino write into a folder named by the export's id: what a killed export leaves there has names of
    all kinds, a manifest or a log of Trino's own among them.
    """
    if _EXPORT_FOLDER.match(file.name) or _BESIDE.fullmatch(file.name):
        return True
    *folders, name = file.name.split("/")
    partitions = tuple(f"{column}=" for column in partition_columns)
    hidden = (part for part in folders if part.startswith(("_", ".")) and not part.startswith(partitions))
    return name.endswith(".parquet") and not name.startswith(("_", ".")) and not any(True for _ in hidden)


def _removed_since(lake: Lake, table: str, listed: Iterable[StoredFile], cutoff: datetime) -> set[str]:
    """Return the names of the files that commits removed since then: readers of older versions may need them."""
    removed: set[str] = set()
    for file in listed:
        # A commit's file is not older than the removal that it tells of.
        if not _COMMIT_FILE.fullmatch(file.name) or file.modified < cutoff:
            continue
        for line in (lake.read(table, file.name) or b"").splitlines():
            found = json.loads(line).get("remove")
            if found:
                removed.add(file_name(found["path"]))
    return removed
