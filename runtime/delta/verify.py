"""Check a Delta table against itself: its log, its files' sizes and footers, and its rows as delta-rs reads them.

What wrote the table has no part in it: the log is read by delta-rs, the footers by our own reader, the rows by
delta-rs' engine.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from runtime import readiness_footer
from runtime.delta.actions import Fields, LogFile, file_name, is_elsewhere
from runtime.delta.lake import Lake, StoredFile
from runtime.delta.log import Snapshot, open_table, translated
from runtime.errors import FailedError, GoldlakeError

if TYPE_CHECKING:
    from deltalake import DeltaTable

SCHEMA = "goldlake.verify/1"
_READERS = 8
# Enough for the footer of most files; a longer one is read in a second request.
_TAIL_BYTES = 64 * 1024
_TRAILER_BYTES = 8
# So many problems of one kind are named; a table can have lost all of its files.
_NAMED = 20
# From the cheapest to read on; any column has all rows.
_CHEAP = ("boolean", "byte", "short", "integer", "date", "long", "float", "double", "timestamp")


@dataclass(frozen=True)
class Verified:
    """What a check found.

    `rows` are those that were read. `log_rows` are the log's, without those that deletion vectors take away; None
    when a file has no row count. `elsewhere` counts the files of another table, which a shallow clone has: their
    sizes and footers are not checked, their rows are read.
    """

    table: str
    location: str
    version: int | None
    files: int
    bytes: int
    log_rows: int | None
    rows: int
    problems: tuple[str, ...]
    elsewhere: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values; its form is named by the key `schema`."""
        return {"schema": SCHEMA, "ok": self.ok, **asdict(self), "problems": list(self.problems)}


def verify(lake: Lake, table: str, *, expected_rows: int | None = None, version: int | None = None) -> Verified:
    """Check the table's newest version, or a given one.

    Every file of the version has to be there with the log's size, with as many rows in its footer as the log
    says, and all rows are read (one column of them). `expected_rows` is what somebody else counted. What is
    wrong is in the report's `problems`.

    Raises FailedError when there is no Delta table or its log cannot be read, and as `runtime.aws.translated`
    does when the store does not answer.
    """
    location = lake.location(table)
    found = open_table(location, lake.storage_options(), version)
    if found is None:
        raise FailedError(f"there is no Delta table at {location}")
    with translated(f"Delta log of {location}"):
        snapshot = Snapshot.of(found)
        files = snapshot.files
        log_rows = None if snapshot.rows is None else snapshot.rows - snapshot.deleted_rows()
    own = tuple(file for file in files if not is_elsewhere(file.path))
    stored = {file.name: file for file in lake.list_files(table)}
    problems = [*_limited(_size_problems(own, stored), "file sizes")]
    rows = 0
    if not problems:
        problems += _limited(_footer_problems(lake, table, own), "footers")
        try:
            rows = scanned_rows(found, snapshot.metadata.fields, snapshot.metadata.partition_columns)
        except GoldlakeError as exc:
            problems.append(exc.message)
        else:
            problems += _row_problems(rows, log_rows, expected_rows)
    size = sum(file.size for file in files)
    return Verified(
        table, location, snapshot.version, len(files), size, log_rows, rows, tuple(problems), len(files) - len(own)
    )


def _size_problems(files: tuple[LogFile, ...], stored: Mapping[str, StoredFile]) -> Iterator[str]:
    """Give the files that are missing or of another size than in the log."""
    for file in files:
        there = stored.get(file_name(file.path))
        if there is None:
            yield f"{file.path} is in the log and not in the store"
        elif there.size != file.size:
            yield f"{file.path} has {there.size} bytes, and {file.size} in the log"


def _footer_problems(lake: Lake, table: str, files: tuple[LogFile, ...]) -> Iterator[str]:
    """Give the files whose footer has other rows than the log."""
    with ThreadPoolExecutor(_READERS) as pool:
        for file, rows in zip(files, pool.map(partial(_footer_rows, lake, table), files), strict=True):
            if isinstance(rows, str):
                yield rows
            elif file.rows is not None and rows != file.rows:
                yield f"{file.path} has {rows} rows, and {file.rows} in the log"


def _footer_rows(lake: Lake, table: str, file: LogFile) -> int | str:
    """Return the rows by a file's footer, or what is wrong with it."""
    name = file_name(file.path)
    tail = lake.read(table, name, start=max(0, file.size - _TAIL_BYTES)) or b""
    if len(tail) < _TRAILER_BYTES or tail[-4:] != b"PAR1":
        return f"{file.path} is no Parquet file"
    length = struct.unpack("<I", tail[-_TRAILER_BYTES:-4])[0] + _TRAILER_BYTES
    if length > min(len(tail), file.size):
        tail = lake.read(table, name, start=max(0, file.size - length)) or b""
    try:
        return readiness_footer.parse(tail[-length:-_TRAILER_BYTES], file.path).rows
    except FailedError as exc:
        return exc.message


def _row_problems(rows: int, log_rows: int | None, expected: int | None) -> Iterator[str]:
    """Give the counts that differ from the rows that were read."""
    if log_rows is not None and log_rows != rows:
        yield f"{rows} rows were read, and the log has {log_rows}"
    if expected is not None and expected != rows:
        yield f"{rows} rows were read, and {expected} were expected"


def scanned_rows(table: DeltaTable, fields: Fields, partition_columns: tuple[str, ...] = ()) -> int:
    """Return the rows of the loaded version as delta-rs' engine reads them, batch by batch.

    One column is read: a count alone the engine would answer from the log. Partition columns are in no file.
    """
    stored = [field for field in fields if field["name"] not in partition_columns]
    cheapest = min(stored, key=lambda field: _cost(field["type"]))
    with translated(f"read {table.table_uri}"):
        return sum(batch.num_rows for batch in table.scan(columns=[cheapest["name"]]))


def _cost(delta_type: Any) -> int:
    return _CHEAP.index(delta_type) if isinstance(delta_type, str) and delta_type in _CHEAP else len(_CHEAP)


def _limited(problems: Iterator[str], what: str) -> Iterator[str]:
    """Give the first problems, and how many more there are."""
    more = 0
    for number, problem in enumerate(problems):
        if number < _NAMED:
            yield problem
        else:
            more += 1
    if more:
        yield f"{more} more problems of {what}"
