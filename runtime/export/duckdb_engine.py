"""Engine `duckdb`: COPY to Parquet on this machine, and an upload beside it when the target is in S3.

DuckDB does not write to S3 itself: its httpfs extension, with the postgres extension and delta-rs, would not fit into
the 250 MiB that AWS Lambda has for code and layers. boto3 is there anyway.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from runtime import sql
from runtime.delta import statistics
from runtime.delta.actions import partition_text
from runtime.delta.commit import DataFile
from runtime.delta.types import Column
from runtime.errors import FailedError, GoldlakeError
from runtime.export.engine import DUCKDB, TablePlan
from runtime.export.sources import CATALOG, Reader, translated
from runtime.export.upload import LOOK_SECONDS, Uploads, every

SAY_SECONDS = 5.0
# zstd's level 3, DuckDB's default, took a quarter more time for files 4 percent smaller (bench/export.py's table).
COMPRESSION_LEVEL = "COMPRESSION_LEVEL 1"
_NO_LIMIT = 2**62


@dataclass(frozen=True)
class DuckDBEngine:
    """Writes what a reader's DuckDB has attached."""

    reader: Reader
    say: Callable[[str], None]

    @property
    def name(self) -> str:
        """The engine's name."""
        return DUCKDB

    def stage(self, plan: TablePlan) -> tuple[DataFile, ...]:
        """Write the table's files; see `Engine.stage`."""
        with contextlib.ExitStack() as stack:
            uploads = None
            if plan.lake.aws is None:
                folder = plan.lake.folder(plan.table)
            else:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="goldlake-export-")))
                uploads = Uploads(plan.lake, plan.table, folder)
                stack.callback(uploads.close)
            try:
                with translated(self.reader.source):
                    return self._write(plan, folder, uploads)
            except BaseException:
                self.reader.stop()
                if uploads is not None:
                    uploads.close()
                names = [path.relative_to(folder).as_posix() for path in folder.rglob(f"{plan.export_id}-*.parquet")]
                discard(plan, names if uploads is None else uploads.names())
                raise

    def _write(self, plan: TablePlan, folder: Path, uploads: Uploads | None) -> tuple[DataFile, ...]:
        """Copy and send; return the files that have rows."""
        decimals = any(str(item.type).startswith("decimal(") for item in plan.columns)
        self.reader.read_exactly(decimals=decimals)
        connection = self.reader.connection
        # A Delta table has no row order, and keeping the source's would hold row groups in memory; one that is asked
        # for has to be kept.
        connection.execute(f"SET preserve_insertion_order = {bool(plan.order_by)}")
        progress = _Progress(plan, folder, connection, self.say)

        def watch() -> None:
            if uploads is not None:
                uploads.look()
            progress.show()

        with every(LOOK_SECONDS, watch, connection.interrupt):
            written = connection.execute(copy_statement(plan, folder)).fetchall()
        full = [row for row in written if row[1]]
        empty = [Path(row[0]) for row in written if not row[1]]
        if uploads is not None:
            uploads.finish({_name(row[0], folder): row[2] for row in full})
            discard(plan, [name for name in uploads.names() if folder / name in empty])
        nans = statistics.nan_leaves(connection, [row[0] for row in full]) if _has_floats(plan) else {}
        files = tuple(_data_file(plan, folder, row, nans.get(row[0], frozenset())) for row in full)
        for path in empty:
            path.unlink(missing_ok=True)
        return files


def copy_statement(plan: TablePlan, folder: Path) -> str:
    """Return the COPY of a table.

    DuckDB 1.5.5 takes no file size together with partitions: a partition is one file, or some. Sorted rows go through
    one writer, whose files then follow each other; with one file per thread their ranges would overlap, and no
    statistics could rule a file out. Sorted row groups go to several threads, which put later ones into earlier files;
    behind a limit, whatever its number, one thread takes them in their order.
    """
    select = select_statement(plan)
    options = ["FORMAT parquet", "COMPRESSION zstd", COMPRESSION_LEVEL, "OVERWRITE_OR_IGNORE", "RETURN_STATS"]
    if plan.partition_by:
        names = ", ".join(sql.identifier(plan.physical_name(name)) for name in plan.partition_by)
        options += [f"PARTITION_BY ({names})", "WRITE_PARTITION_COLUMNS false"]
    else:
        options += [f"FILE_SIZE_BYTES {plan.file_bytes}", *([] if plan.order_by else ["PER_THREAD_OUTPUT"])]
        select += f" LIMIT {_NO_LIMIT}" if plan.order_by else ""
    if plan.row_group_rows:
        options.append(f"ROW_GROUP_SIZE {plan.row_group_rows}")
    options.append(f"FILENAME_PATTERN {sql.literal(plan.export_id + '-{i}')}")
    if any(item.mapping_id is not None for item in plan.columns):
        options.append(f"FIELD_IDS {field_ids(plan.columns, plan.partition_by)}")
    return f"COPY ({select}) TO {sql.literal(str(folder))} ({', '.join(options)})"


def select_statement(plan: TablePlan) -> str:
    """Return the SELECT of the rows as they are written, in the order that is asked for."""
    select = ", ".join(item.expression for item in plan.columns)
    text = f"SELECT {select} FROM {relation(plan)}"  # noqa: S608 - quoted by runtime.sql
    if not plan.order_by:
        return text
    # By position: by name it could be the column before its cast, and files are pruned by what is written.
    position = {item.name: number for number, item in enumerate(plan.columns, 1)}
    keys = [f"{position[key.column]} {'DESC' if key.descending else 'ASC'} NULLS LAST" for key in plan.order_by]
    if plan.partition_by:
        keys = [*(str(position[name]) for name in plan.partition_by), *keys]
    return f"{text} ORDER BY {', '.join(keys)}"


def relation(plan: TablePlan) -> str:
    """Return what stands after FROM: the table, with the condition of replace-where."""
    table = sql.qualified(CATALOG, plan.schema, plan.table)
    conditions = [
        "(" + " OR ".join(_equals(plan, name, value) for value in values) + ")"
        for name, values in plan.replace_where.items()
    ]
    return f"{table} WHERE {' AND '.join(conditions)}" if conditions else table


def _equals(plan: TablePlan, name: str, value: str | None) -> str:
    """Return the condition that a column has a value, which is in Delta's text form."""
    column = next(item for item in plan.columns if item.name == name)
    quoted = sql.identifier(name)
    if value is None:
        return f"{quoted} IS NULL"
    written = f"CAST({quoted} AS {column.cast})" if column.cast else quoted
    return f"{written} = CAST({sql.literal(value)} AS {duckdb_type(column)})"


def duckdb_type(column: Column) -> str:
    """Return the DuckDB type of a partition column's values."""
    names = {
        "string": "VARCHAR",
        "byte": "TINYINT",
        "short": "SMALLINT",
        "integer": "INTEGER",
        "long": "BIGINT",
        "timestamp": "TIMESTAMP WITH TIME ZONE",
        "timestamp_ntz": "TIMESTAMP",
    }
    return names.get(str(column.type), str(column.type).upper())


def field_ids(columns: Sequence[Column], partition_by: Sequence[str]) -> str:
    """Return COPY's FIELD_IDS for the columns of a mapped table, which readers by id need in the files."""
    names = [item for item in columns if item.name not in partition_by and item.mapping_id is not None]
    return "{" + ", ".join(f"{sql.literal(item.physical or item.name)}: {item.mapping_id}" for item in names) + "}"


def discard(plan: TablePlan, names: Sequence[str]) -> None:
    """Delete files that no commit refers to, as far as that works: leftovers cost storage only."""
    with contextlib.suppress(GoldlakeError):
        plan.lake.delete(plan.table, names)


# --- what COPY reports ---


def _data_file(plan: TablePlan, folder: Path, row: Sequence[Any], nans: frozenset[int]) -> DataFile:
    """Return a file that COPY wrote; raise FailedError when it has nulls where the contract has none."""
    path, rows, size, _footer, reported, partition = row
    for item in plan.columns:
        nulls = reported.get(sql.identifier(plan.physical_name(item.name)), {}).get("null_count", "0")
        if not item.nullable and nulls != "0":
            raise _null_error(plan, item, nulls)
    if beyond := statistics.beyond_calendar(plan.data_columns, reported):
        raise FailedError(
            f"column {beyond[0]!r} of {plan.schema}.{plan.table} has {beyond[1]}, which is outside the years 1 to 9999:"
            " readers of Delta fail on it, some on the whole table",
            hint="write NULL or a far date within those years in the model",
        )
    stats = statistics.file_stats(plan.data_columns, rows, reported, nans=nans)
    return DataFile(_name(path, folder), size, rows, stats, _partition_values(plan, partition))


def _partition_values(plan: TablePlan, reported: Mapping[str, str | None] | None) -> dict[str, str | None]:
    """Return the partition's values in Delta's text form."""
    values: dict[str, str | None] = {}
    for item in plan.columns:
        if item.name in plan.partition_by:
            text = (reported or {}).get(plan.physical_name(item.name))
            if text is None and not item.nullable:
                raise _null_error(plan, item, "a partition of")
            values[item.name] = partition_value(item, text)
    return {name: values[name] for name in plan.partition_by}


def _null_error(plan: TablePlan, column: Column, nulls: str) -> FailedError:
    return FailedError(
        f"column {column.name!r} of {plan.schema}.{plan.table} has {nulls} nulls, and the contract allows none"
    )


def partition_value(column: Column, text: str | None) -> str | None:
    """Return DuckDB's text of a value in Delta's text form."""
    if text is not None and column.type in ("timestamp", "timestamp_ntz"):
        return partition_text(datetime.fromisoformat(text))
    return text


def _name(path: str, folder: Path) -> str:
    return Path(path).relative_to(folder).as_posix()


def _has_floats(plan: TablePlan) -> bool:
    """Return whether a column is, or holds, a floating-point number."""
    return any(kind in str(item.type) for item in plan.columns for kind in ("float", "double"))


class _Progress:
    """Says from time to time how far COPY is."""

    def __init__(self, plan: TablePlan, folder: Path, connection: Any, say: Callable[[str], None]) -> None:
        self._plan, self._folder, self._connection, self._say = plan, folder, connection, say
        self._next = time.monotonic() + SAY_SECONDS

    def show(self) -> None:
        """Say it when it is time again."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + SAY_SECONDS
        sizes = []
        for path in self._folder.rglob(f"{self._plan.export_id}-*.parquet"):
            with contextlib.suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
        percent = self._connection.query_progress()
        done = f"{percent:.0f} %, " if percent >= 0 else ""
        self._say(f"{self._plan.table}: {done}{sum(sizes):,} bytes in {len(sizes)} files")
