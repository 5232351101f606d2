"""What an engine is: whoever holds the data writes it as Parquet under the table's location, and says what it wrote.

    engine   holds the data in             writes through
    duckdb   a DuckDB file, or a server    COPY, on this machine; then an upload when the target is in S3
             of PostgreSQL's protocol
    unload   Redshift                      UNLOAD: the cluster writes to S3, nothing passes through this machine
    ctas     Trino                         CREATE TABLE … AS in its Delta Lake connector

No engine commits. A table's files are unreferenced until `runtime.delta.commit` names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from runtime.delta.commit import DataFile
from runtime.delta.lake import Lake
from runtime.delta.types import Column
from runtime.errors import ConfigurationError

DUCKDB, UNLOAD, CTAS = "duckdb", "unload", "ctas"
ENGINES = (DUCKDB, UNLOAD, CTAS)
# A table that takes one machine's network and disk longer than a cluster takes to start its UNLOAD: at 100 MB/s
# through the wire 20 GB are more than three minutes.
UNLOAD_FROM_BYTES = 20_000_000_000


@dataclass(frozen=True)
class Order:
    """One key that rows are sorted by within the table, so that a file's statistics rule it out of a query."""

    column: str
    descending: bool = False


@dataclass(frozen=True, kw_only=True)
class TablePlan:
    """A table that is to be written, looked at but not read.

    `columns` are the source's, in the table's order, with the Delta type that each becomes. `physical` gives the
    name of a column in the Parquet file where it is another one (column mapping). `replace_where` names the
    partitions that alone are written, as the commit takes them: rows outside are an error. `fields` are the Delta
    schema of the table after the commit, JSON-ready. Every file's name begins with `export_id` (below its
    partition folder), so that leftovers can be told apart.
    """

    schema: str
    table: str
    lake: Lake
    export_id: str
    columns: tuple[Column, ...]
    fields: tuple[Mapping[str, Any], ...] = ()
    partition_by: tuple[str, ...] = ()
    order_by: tuple[Order, ...] = ()
    file_bytes: int = 256_000_000
    row_group_rows: int | None = None
    replace_where: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    physical: Mapping[str, str] = field(default_factory=dict)

    @property
    def location(self) -> str:
        """The URL or path of the table."""
        return self.lake.location(self.table)

    @property
    def data_columns(self) -> tuple[Column, ...]:
        """The columns that the Parquet files hold: those of the partitions are in the folders' names and the log."""
        return tuple(item for item in self.columns if item.name not in self.partition_by)

    def physical_name(self, column: str) -> str:
        """Return a column's name in the Parquet files."""
        return self.physical.get(column, column)


class Engine(Protocol):
    """Writes tables as Parquet. One engine serves all tables of an export, one after the other."""

    @property
    def name(self) -> str:
        """The engine's name, one of `ENGINES`."""

    def stage(self, plan: TablePlan) -> tuple[DataFile, ...]:
        """Write the table's rows under its location; return the files that have rows, none for an empty table.

        A file without rows is deleted. On any failure everything of this call is deleted again, as far as that
        works, and one of Goldlake's errors is raised.
        """


@dataclass(frozen=True)
class Choice:
    """An engine and the reason it was chosen for, a sentence for a person."""

    engine: str
    reason: str


def choose_engine(kind: str, target: str, estimated_bytes: int | None, override: str | None = None) -> Choice:
    """Return the engine for a source of a kind (`duckdb`, `postgres`, `redshift`, `trino`) and a target's URL.

    Raises ConfigurationError when `override` asks for an engine that cannot read this source or reach this target.
    """
    possible = {"duckdb": (DUCKDB,), "postgres": (DUCKDB,), "redshift": (DUCKDB, UNLOAD), "trino": (CTAS,)}[kind]
    in_s3 = target.startswith("s3://")
    if override is not None:
        if override not in possible:
            raise ConfigurationError(f"engine {override!r} does not read a {kind} source: {' or '.join(possible)} does")
        if override in (UNLOAD, CTAS) and not in_s3:
            raise ConfigurationError(f"engine {override!r} writes to S3 only, and the target is {target!r}")
        return Choice(override, "asked for")
    if possible == (CTAS,):
        if not in_s3:
            raise ConfigurationError(f"Trino writes to S3 only, and the target is {target!r}")
        return Choice(CTAS, "the source is in Trino")
    if UNLOAD in possible and in_s3 and (estimated_bytes or 0) >= UNLOAD_FROM_BYTES:
        size = f"{(estimated_bytes or 0) / 1e9:.0f} GB"
        return Choice(UNLOAD, f"{size} are more than one machine should read: from 20 GB the cluster writes itself")
    if kind != "redshift":
        return Choice(DUCKDB, f"DuckDB reads a {kind} source")
    if not in_s3:
        return Choice(DUCKDB, "the target is a local folder, which Redshift cannot write to")
    size = "of unknown size" if estimated_bytes is None else f"{estimated_bytes / 1e9:.1f} GB"
    return Choice(DUCKDB, f"{size}: below 20 GB one machine reads faster than UNLOAD starts")
