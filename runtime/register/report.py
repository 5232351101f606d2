"""What a registration answers: the states of tables, and how two locations are compared."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

SCHEMA = "goldlake.register/2"

REGISTERED = "registered"
UNCHANGED = "unchanged"
UPDATED = "updated"
REPLACED = "replaced"
NO_DATA_YET = "no data yet"

# Tables that are looked at, or registered, at once: enough to hide the latency, few enough for Glue's limits on
# requests and for a Trino with one node.
AT_ONCE = 8

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class TableRegistration:
    """What became of one table.

    `state` is registered, unchanged, updated (columns, comments or parameters followed the log), replaced (it had
    another location) or "no data yet" (no Delta log; `warning` says so). `trino` is the same for Trino, None without
    it. `rows` are those of Delta version `version`, None when unknown. `format` is delta or iceberg.
    """

    table: str
    location: str
    state: str
    trino: str | None = None
    version: int | None = None
    rows: int | None = None
    warning: str | None = None
    format: str | None = None


@dataclass(frozen=True)
class StaleEntry:
    """An entry of a catalogue (`glue`, or the name of Trino's) whose data is gone."""

    catalogue: str
    table: str
    location: str


@dataclass(frozen=True)
class RegisterReport:
    """The result of a registration; in a dry run the states are those that would be reached.

    `orphans` are locations of tables without an entry, `stale` the entries without data; both are empty when they
    were not asked for. `pruned` says that the stale entries were removed.
    """

    database: str
    target: str
    dry_run: bool
    tables: tuple[TableRegistration, ...]
    orphans: tuple[str, ...] = ()
    stale: tuple[StaleEntry, ...] = ()
    pruned: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values; its form is named by the key `schema`."""
        return {
            "schema": SCHEMA,
            **dataclasses.asdict(self),
            "tables": [dataclasses.asdict(table) for table in self.tables],
            "orphans": list(self.orphans),
            "stale": [dataclasses.asdict(entry) for entry in self.stale],
        }


def same_place(one: str, other: str) -> bool:
    """Return whether two locations are the same: s3a and s3n are s3, a slash at the end does not count."""
    return normal(one) == normal(other)


def normal(location: str) -> str:
    """Return a location in the form that is compared."""
    return re.sub(r"^s3[an]://", "s3://", location).rstrip("/")


def each(function: Callable[[_Item], _Result], items: Iterable[_Item], *, at_once: int = AT_ONCE) -> list[_Result]:
    """Return the function's results in the items' order, so many at once; the first error ends it."""
    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(at_once, len(items))) as pool:
        waiting = [pool.submit(function, item) for item in items]
        try:
            return [future.result() for future in waiting]
        except BaseException:
            # Those that have not begun: there is no sense in 200 time-outs, one after another.
            for future in waiting:
                future.cancel()
            raise
