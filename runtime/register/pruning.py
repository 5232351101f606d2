"""Tables without an entry, and entries without a table: what a lake and its catalogues do not agree on.

An entry is stale when it is of a Delta or Iceberg table below the target and a listing of its location finds neither
log nor metadata. A store that does not answer is an error, never an absence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runtime.aws import translated
from runtime.delta.lake import Lake
from runtime.errors import FailedError
from runtime.glue import table_format
from runtime.parquet import split_location
from runtime.register import lake_tables
from runtime.register.glue_catalogue import GlueCatalogue, entry_location
from runtime.register.lake_tables import DELTA, ICEBERG
from runtime.register.report import StaleEntry, each, normal, same_place
from runtime.register.trino_catalogue import TrinoCatalogue

GLUE = "glue"


def orphans(lake: Lake, glue: GlueCatalogue, s3: Any) -> list[str]:
    """Return the locations of tables right below the target that no entry of the database points to."""
    places = {normal(entry_location(entry)) for entry in glue.entries().values()}
    found = [lake.location(name) for name in lake_tables.discover(lake, s3)]
    return [location for location in found if normal(location) not in places]


def stale(lake: Lake, glue: GlueCatalogue, trinos: Sequence[TrinoCatalogue], s3: Any) -> list[StaleEntry]:
    """Return the entries of Glue's database and of Trino's schemas of the same name whose data is gone."""
    found = _stale_in_glue(lake, glue, s3)
    for trino in trinos:
        found += _stale_in_trino(lake, trino, glue.database, s3)
    return found


def remove(entry: StaleEntry, glue: GlueCatalogue, trinos: Sequence[TrinoCatalogue]) -> None:
    """Remove an entry; one that is gone meanwhile (a Trino on this very Glue) counts as removed."""
    if entry.catalogue == GLUE:
        glue.delete(entry.table)
    for trino in trinos:
        if trino.name == entry.catalogue:
            trino.unregister(glue.database, entry.table)


def _stale_in_glue(lake: Lake, glue: GlueCatalogue, s3: Any) -> list[StaleEntry]:
    candidates = [
        (name, entry_location(entry))
        for name, entry in sorted(glue.entries().items())
        if table_format(entry) in (DELTA, ICEBERG) and is_below(entry_location(entry), lake.root)
    ]
    gone = each(lambda item: _is_gone(item[1], s3), candidates)
    return [StaleEntry(GLUE, name, place) for (name, place), lost in zip(candidates, gone, strict=True) if lost]


def _stale_in_trino(lake: Lake, trino: TrinoCatalogue, schema: str, s3: Any) -> list[StaleEntry]:
    """Return Trino's stale entries; only those are asked about that have no table of their name below the target."""
    there = {name.lower() for name in lake_tables.discover(lake, s3)}
    doubtful = sorted(trino.names(schema) - there)

    def examine(name: str) -> StaleEntry | None:
        try:
            # Otherwise what Trino remembers would speak for the data.
            trino.flush(schema, name)
            place = trino.location(schema, name)
        except FailedError:
            # A view, or a table of another connector: none of ours.
            return None
        if place is None:
            return None
        if place == "":
            # Trino finds no log, and does not say where; ours would lie here.
            place = f"{lake.root}/{name}"
        return StaleEntry(trino.name, name, place) if is_below(place, lake.root) and _is_gone(place, s3) else None

    return [entry for entry in each(examine, doubtful) if entry is not None]


def is_below(location: str, root: str) -> bool:
    """Return whether a location is below another, and not the same."""
    return not same_place(location, root) and normal(location).startswith(normal(root) + "/")


def _is_gone(location: str, s3: Any) -> bool:
    """Return whether a location has neither log nor metadata any more."""
    bucket, prefix = split_location(location)
    for folder in (lake_tables.LOG, lake_tables.METADATA):
        with translated(f"list {location}"):
            if s3.list_objects_v2(Bucket=bucket, Prefix=prefix + folder, MaxKeys=1).get("Contents"):
                return False
    return True
