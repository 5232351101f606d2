"""The symlink manifest of a Delta table: lists of files for engines that read no Delta log (Redshift Spectrum).

delta-rs writes one too (DeltaTable.generate), but 1.6.6 leaves the manifests of partitions that are gone, and writes
none for a table without files: Spectrum would go on to show their old rows.

Sources: Amazon Redshift developer guide, "Creating external tables for data managed in Delta Lake" (what
Spectrum reads, and that each partition has a manifest of its own), and delta-io's documentation, "Presto, Trino,
and Athena to Delta Lake integration using manifests".
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime.delta.actions import LogFile, file_name, partition_folder
from runtime.delta.lake import Lake
from runtime.delta.log import Snapshot, open_table, translated
from runtime.errors import ConfigurationError, FailedError

FOLDER = "_symlink_format_manifest"


@dataclass(frozen=True)
class Manifest:
    """What was written: the version, and the manifests' names below the location; `removed` are stale ones."""

    version: int
    names: tuple[str, ...]
    removed: tuple[str, ...]


def write_symlink_manifest(lake: Lake, table: str) -> Manifest:
    """Write the newest version's manifests and remove those of partitions that it does not have.

    A manifest is replaced at once, but a table with partitions has several: a reader can find one partition
    new and another old. Raises FailedError when there is no table, and ConfigurationError for tables whose
    files cannot be read without the log (column mapping, deletion vectors).
    """
    location = lake.location(table)
    found = open_table(location, lake.storage_options())
    if found is None:
        raise FailedError(f"there is no Delta table at {location}")
    with translated(f"Delta log of {location}"):
        snapshot = Snapshot.of(found)
        contents = manifests(location, snapshot.metadata.partition_columns, snapshot.files)
        obstacles = ["deletionVectors"] if snapshot.has_deletion_vectors() else []
    if snapshot.metadata.configuration.get("delta.columnMapping.mode", "none") != "none":
        obstacles.append("columnMapping")
    if obstacles:
        raise ConfigurationError(
            f"the Delta table at {location} has {', '.join(obstacles)}: its files cannot be read by a list of them"
        )
    for name, content in contents.items():
        lake.put(table, name, content.encode())
    stale = [file.name for file in lake.list_files(table, f"{FOLDER}/") if file.name not in contents]
    if stale:
        lake.delete(table, stale)
    return Manifest(snapshot.version, tuple(contents), tuple(stale))


def manifests(location: str, partition_columns: tuple[str, ...], files: tuple[LogFile, ...]) -> dict[str, str]:
    """Return the manifests' names and texts: a file's URL a line, one manifest for each partition.

    A table without partitions always has one, be it empty.
    """
    lines: dict[str, list[str]] = {} if partition_columns else {f"{FOLDER}/manifest": []}
    for file in files:
        folder = partition_folder(partition_columns, file.partition_values)
        name = "/".join(part for part in (FOLDER, folder, "manifest") if part)
        lines.setdefault(name, []).append(f"{location}/{file_name(file.path)}\n")
    return {name: "".join(sorted(texts)) for name, texts in sorted(lines.items())}
