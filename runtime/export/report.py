"""What an export says about itself."""

from __future__ import annotations

import resource
import sys
from dataclasses import asdict, dataclass
from typing import Any

SCHEMA = "goldlake.export/1"

# TableExport.outcome
EXPORTED, PLANNED, UNCHANGED, EXISTS = "exported", "planned", "unchanged", "exists"


@dataclass(frozen=True)
class TableExport:
    """What became of one table. In a dry run `rows`, `files` and `bytes` are None and `version` is today's.

    `version` is the Delta version that holds the rows, None for a table that is not there yet. `rows` and `files`
    are those of the whole version, `rows_written` and `bytes` those of this export's Parquet files;
    of the files that a merge rewrites `bytes` is not known. `seconds` is the
    time for reading, uploading and committing this table. `outcome` is `exported`, `planned` (a dry run),
    `unchanged` (--if-changed found the same content) or `exists` (mode ignore). `retries` are the commits that
    another writer was faster than.
    """

    table: str
    location: str
    version: int | None
    created: bool
    schema_changes: tuple[str, ...]
    rows: int | None = None
    files: int | None = None
    bytes: int | None = None
    seconds: float = 0.0
    outcome: str = EXPORTED
    mode: str = "overwrite"
    rows_written: int | None = None
    retries: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportReport:
    """The result of an export. `peak_memory_bytes` is the highest resident size of this process so far."""

    source_schema: str
    target: str
    run_id: str
    dry_run: bool
    seconds: float
    peak_memory_bytes: int
    tables: tuple[TableExport, ...]
    source: str = ""
    engine: str = "duckdb"
    engine_reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values; its form is named by the key `schema`."""
        tables = [asdict(item) for item in self.tables]
        sums = {name: sum(table[name] or 0 for table in tables) for name in ("rows", "files", "bytes")}
        return {"schema": SCHEMA, **sums, **asdict(self), "tables": tables}


def peak_memory() -> int:
    """Return the process's highest resident size in bytes; ru_maxrss is in KiB, on macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
