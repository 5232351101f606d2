"""Where a table is, by Glue or by its location, and the reader of its kind; no row is read.

Source: the Glue API (GetTables).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from runtime import glue, parquet
from runtime.aws import translated
from runtime.errors import AccessDeniedError, FailedError, UnreachableError
from runtime.readiness_delta import read_delta
from runtime.readiness_iceberg import read_iceberg
from runtime.readiness_parquet import Listing, read_parquet
from runtime.readiness_sources import SourceTable
from runtime.readiness_store import Content, NotReadyTable, Store

# From so many tables of one database, its list is asked for (100 a page) instead of each table.
LISTED_TABLES = 8
_SYMLINK_FOLDER = "_symlink_format_manifest/"


@dataclass(frozen=True)
class Catalogue:
    """What Glue has said about the tables so far; of a database that could not be asked, why."""

    entries: Mapping[tuple[str, str], Mapping[str, Any]]
    failed: Mapping[str, UnreachableError]

    def entry(self, store: Store, table: SourceTable) -> Mapping[str, Any]:
        """Return the table's entry. Raises NotReadyTable when there is none, and as `translated` does."""
        if error := self.failed.get(table.database):
            raise error
        # A list leaves out what Lake Formation hides, so that only the table's own call says that it is not there.
        entry = self.entries.get((table.database, table.name)) or glue.get_table(
            store.aws, table.database, table.name, client=store.glue
        )
        if entry is None:
            raise NotReadyTable("missing", f"no table {table.full_name} in the Glue catalogue")
        return entry


def read_catalogue(store: Store, tables: Sequence[SourceTable], pool: Executor) -> Catalogue:
    """Return the entries of databases of which many tables are wanted, asked for by the page."""
    wanted: dict[str, set[str]] = {}
    for table in tables:
        if table.location is None:
            wanted.setdefault(table.database, set()).add(table.name)
    listed = {database: names for database, names in wanted.items() if len(names) >= LISTED_TABLES}
    entries: dict[tuple[str, str], Mapping[str, Any]] = {}
    failed: dict[str, UnreachableError] = {}
    answers = pool.map(lambda item: _list_database(store, *item), listed.items())
    for database, answer in zip(listed, answers, strict=True):
        if isinstance(answer, UnreachableError):
            failed[database] = answer
        else:
            entries.update({(database, name): entry for name, entry in answer.items()})
    return Catalogue(entries, failed)


def _list_database(store: Store, database: str, names: set[str]) -> dict[str, Mapping[str, Any]] | UnreachableError:
    """Return the wanted entries of a database, with no more calls than one for each table would be."""
    found: dict[str, Mapping[str, Any]] = {}
    more: dict[str, str] = {}
    try:
        for _ in names:
            with translated(f"list Glue tables of {database}"):
                answer = store.glue.get_tables(DatabaseName=database, MaxResults=100, **more)
            found.update({entry["Name"]: entry for entry in answer["TableList"] if entry["Name"] in names})
            if len(found) == len(names) or not answer.get("NextToken"):
                break
            more = {"NextToken": answer["NextToken"]}
    except (AccessDeniedError, FailedError):
        # The right to list is not needed, and a database that is not there is said by each table.
        return found
    except UnreachableError as exc:
        return exc
    return found


# --- one table ---


@dataclass(frozen=True)
class Place:
    """Where a table is: its location, its kind if that is known, and its Glue entry, empty without one."""

    location: str
    kind: str | None
    entry: Mapping[str, Any] = field(repr=False)


def find_table(store: Store, catalogue: Catalogue, table: SourceTable) -> Place:
    """Return where a table is. Raises NotReadyTable, or as `runtime.aws.translated` does."""
    if table.location is not None:
        return Place(table.location, "delta" if table.delta else None, {})
    entry = catalogue.entry(store, table)
    kind = glue.table_format(entry)
    if kind == "view":
        raise NotReadyTable("unreadable", "the Glue entry is of the kind view, which is not checked")
    location = _metadata_location(entry) if kind == "iceberg" else _location(entry)
    if not location:
        what = "metadata_location" if kind == "iceberg" else "location"
        raise NotReadyTable("unreadable", f"the Glue entry of kind {kind} has no {what}")
    return Place(location, kind, entry)


def _location(entry: Mapping[str, Any]) -> str:
    return str((entry.get("StorageDescriptor") or {}).get("Location") or "")


def _metadata_location(entry: Mapping[str, Any]) -> str:
    parameters = {key.lower(): str(value) for key, value in (entry.get("Parameters") or {}).items()}
    return parameters.get("metadata_location", "")


def read_table(store: Store, table: SourceTable, place: Place, now: datetime) -> Content:
    """Return what a table holds: Iceberg, Delta if there is a log, else Parquet files.

    Raises NotReadyTable, or as `runtime.aws.translated` does.
    """
    if place.kind == "iceberg":
        return read_iceberg(store, place.location)
    # Spectrum's entry of a Delta table leads to the manifest inside it.
    root = place.location.rstrip("/") + "/"
    bucket, prefix = parquet.split_location(root.removesuffix(_SYMLINK_FOLDER))
    if place.kind == "delta":
        return read_delta(store, bucket, prefix)
    listing = Listing(store, bucket, prefix)
    listing.read_on()
    if listing.has_delta_log():
        return read_delta(store, bucket, prefix)
    if place.kind not in ("parquet", None):
        raise NotReadyTable("unreadable", f"the format is {place.kind}: expected Parquet, Delta or Iceberg")
    return read_parquet(store, listing, table, place.entry, now)
