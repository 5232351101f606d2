"""Delta's statistics of a Parquet file, made of those that the engine reported.

Source of the rules: the Delta protocol (delta-io/delta, PROTOCOL.md: "Per-file Statistics").
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from runtime import sql
from runtime.delta.types import Column, DeltaType, physical_name

if TYPE_CHECKING:
    import duckdb

# delta.dataSkippingNumIndexedCols: what Delta's own writers index. More columns make the log long, not the
# reads fast.
INDEXED_COLUMNS = 32
# Delta's own writers cut strings there (delta-io/delta, DataSkippingReader.MAX_STRING_PREFIX_LENGTH).
STRING_PREFIX = 32

_HIGHEST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)

# Members of a JSON object: texts that are JSON already, and objects within.
_Members = dict[str, Any]


def file_stats(
    columns: Sequence[Column],
    rows: int,
    reported: Mapping[str, Mapping[str, str]],
    *,
    physical: Mapping[str, str] | None = None,
    nans: Collection[int] | None = None,
    indexed: int = INDEXED_COLUMNS,
) -> str:
    """Return Delta's statistics (JSON) of a file with `rows` rows.

    `reported` is the `column_statistics` of DuckDB's COPY … RETURN_STATS: a leaf's path in quoted names
    (`"s"."a"`) to texts `min`, `max`, `null_count`, `has_nan`. A bound that cannot be given rightly is left
    out: readers then read the file, while a wrong bound would lose rows silently.

    `columns` are those in the file, in its order, so without partition columns. The names are those in the
    file; `physical` gives them for columns that don't know theirs. A struct's fields are an object within.
    Lists and maps have no statistics: Delta knows no bounds of theirs, and DuckDB counts their elements'
    nulls. `nans` is what `nan_leaves` found: without it floats have no bounds. `indexed` is the table's
    delta.dataSkippingNumIndexedCols, which counts leaves; -1 means all.
    """
    minimum: _Members = {}
    maximum: _Members = {}
    nulls: _Members = {}
    for leaf in islice(_leaves(columns, physical or {}), None if indexed < 0 else indexed):
        found = reported.get(".".join(map(sql.identifier, leaf.path)), {})
        # A leaf that was not counted row by row has none of its numbers right (DuckDB: TIMETZ, INTERVAL).
        if not isinstance(leaf.type, str) or found.get("num_values", str(rows)) != str(rows):
            continue
        if found.get("null_count", "").isdigit():
            _put(nulls, leaf.path, found["null_count"])
        low, high = bounds(leaf.type, found)
        if leaf.type in ("float", "double") and (nans is None or leaf.ordinal in nans):
            low = high = None
        if low is not None:
            _put(minimum, leaf.path, low)
        if high is not None:
            _put(maximum, leaf.path, high)
    # Put together by hand: json.dumps has no way to write a decimal with all its digits as a number.
    return _object({"numRecords": str(rows), "minValues": minimum, "maxValues": maximum, "nullCount": nulls})


def nan_leaves(connection: duckdb.DuckDBPyConnection, files: Sequence[str]) -> dict[str, frozenset[int]]:
    """Return for each Parquet file, by its footer, the ordinals of the float columns that may hold a NaN.

    DuckDB 1.5.5 reports `has_nan` of a file's last row group only, and bounds without the NaNs of all. In the
    footer a row group with a NaN has no bounds.
    """
    found: dict[str, set[int]] = {file: set() for file in files}
    if not files:
        return {}
    # Each a pattern of exactly that name: DuckDB takes `*`, `?` and `[` in a path as a pattern's. No bound parameter:
    # for one, DuckDB's client imports numpy, pandas and pyarrow where they are installed, 90 MB.
    names = ", ".join(sql.literal(re.sub(r"[*?[]", r"[\g<0>]", file)) for file in files)
    rows = connection.execute(
        f"SELECT DISTINCT file_name, column_id FROM parquet_metadata([{names}])"  # noqa: S608 - quoted by runtime.sql
        " WHERE type IN ('FLOAT', 'DOUBLE') AND (stats_min_value IS NULL OR stats_max_value IS NULL)"
        " AND coalesce(stats_null_count, 0) < num_values"
    ).fetchall()
    for file, ordinal in rows:
        found[file].add(ordinal)
    return {file: frozenset(ordinals) for file, ordinals in found.items()}


def beyond_calendar(columns: Sequence[Column], reported: Mapping[str, Mapping[str, str]]) -> tuple[str, str] | None:
    """Return a column and its value that is infinite or outside the years 1 to 9999; None when none is reported.

    SQL's own range ends there, and delta-rs, Trino and Spark fail on what is beyond.
    """
    for leaf in _leaves(columns, {}):
        if leaf.type not in ("date", "timestamp", "timestamp_ntz"):
            continue
        found = reported.get(".".join(map(sql.identifier, leaf.path)), {})
        for text in (found.get("min"), found.get("max")):
            if text is not None and not re.match(r"\d{4}-\d\d-\d\d(?!.*BC)", text, re.ASCII):
                return ".".join(leaf.path), text
    return None


@dataclass(frozen=True)
class _Leaf:
    """A column as statistics count them: a struct's fields each, a list or map as one.

    `ordinal` is the number of its (first) column in the Parquet file.
    """

    path: tuple[str, ...]
    type: DeltaType
    ordinal: int


def _leaves(columns: Sequence[Column], physical: Mapping[str, str]) -> Iterator[_Leaf]:
    """Yield the leaves of all columns in the file's order."""
    ordinal = 0
    for item in columns:
        name = item.physical or physical.get(item.name, item.name)
        for path, delta_type in _paths((name,), item.type):
            yield _Leaf(path, delta_type, ordinal)
            ordinal += _width(delta_type)


def _paths(path: tuple[str, ...], delta_type: DeltaType) -> Iterator[tuple[tuple[str, ...], DeltaType]]:
    """Yield the paths and types of a type's leaves."""
    if isinstance(delta_type, dict) and delta_type["type"] == "struct":
        for field in delta_type["fields"]:
            yield from _paths((*path, physical_name(field)), field["type"])
    else:
        yield path, delta_type


def _width(delta_type: DeltaType) -> int:
    """Return how many columns of a Parquet file a type takes."""
    if isinstance(delta_type, str):
        return 1
    within = [delta_type[part] for part in ("elementType", "keyType", "valueType") if part in delta_type]
    return sum(map(_width, within or [field["type"] for field in delta_type["fields"]]))


def _put(members: _Members, path: tuple[str, ...], text: str) -> None:
    """Set a leaf's text within the objects of its structs."""
    for name in path[:-1]:
        members = members.setdefault(name, {})
    members[path[-1]] = text


def _object(members: _Members) -> str:
    """Return a JSON object of members that are JSON texts already, or objects of such."""
    texts = {name: _object(member) if isinstance(member, dict) else member for name, member in members.items()}
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in texts.items()) + "}"


def bounds(delta_type: str, reported: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return a column's lower and upper bound as JSON texts; None for one without a right form.

    Booleans and binaries have no bounds in Delta. For timestamps and strings see `timestamp_bound`,
    `upper_prefix`. That a float's column has no NaN is `nan_leaves`' to say.
    """
    low, high = reported.get("min"), reported.get("max")
    # NaN is greater than all numbers to Spark and to DuckDB, and DuckDB's bounds leave it out.
    if low is None or high is None or reported.get("has_nan", "false") != "false":
        return None, None
    return _bound(delta_type, low, upper=False), _bound(delta_type, high, upper=True)


def _bound(delta_type: str, text: str, *, upper: bool) -> str | None:
    """Return one bound as JSON text, by the column's type."""
    match delta_type.partition("(")[0]:
        case "byte" | "short" | "integer" | "long" | "decimal":
            return _number(text)
        case "float" | "double":
            return _float(text, delta_type, upper=upper)
        case "date":
            return _date(text)
        case "timestamp" | "timestamp_ntz":
            return timestamp_bound(text, upper=upper, zone="Z" if delta_type == "timestamp" else "")
        case "string":
            bound = upper_prefix(text) if upper else text[:STRING_PREFIX]
            return None if bound is None else json.dumps(bound)
        case _:
            return None


def _number(text: str) -> str | None:
    """Return an integer or decimal as a JSON number with all its digits; DuckDB prints 0.5 as `.5`."""
    found = re.fullmatch(r"(-?)(0|[1-9]\d*|)((?:\.\d+)?)", text, re.ASCII)
    return f"{found[1]}{found[2] or 0}{found[3]}" if found and found[2] + found[3] else None


def _float(text: str, delta_type: str, *, upper: bool) -> str | None:
    """Return a finite float as a JSON number. A zero is -0.0 below and 0.0 above, as Parquet has it."""
    value = float(text)
    if not math.isfinite(value):
        return None
    if delta_type == "float":
        # DuckDB prints the shortest text of a 32-bit float; as a 64-bit one that is another number, and a
        # reader that compares in 64 bits would skip files it must read.
        value = struct.unpack("<f", struct.pack("<f", value))[0]
    return repr(value or (0.0 if upper else -0.0))


def _date(text: str) -> str | None:
    """Return a date of the years 1 to 9999; DuckDB prints others in ways that readers don't know."""
    return json.dumps(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) else None


def timestamp_bound(text: str, *, upper: bool, zone: str = "Z") -> str | None:
    """Return DuckDB's timestamp as a JSON string with milliseconds, None outside years 1 to 9999.

    `zone` is what follows: `Z` for DuckDB's timestamps in UTC, nothing for those without a zone. The protocol
    keeps milliseconds only. Its readers know that an upper bound was cut and add one; rounding it up here is
    right for those too, and for readers that forget.
    """
    offset = r"\+00" if zone else ""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?" + offset, text, re.ASCII):
        return None
    exact = datetime.fromisoformat(text)
    bound = exact.replace(microsecond=exact.microsecond // 1000 * 1000)
    try:
        if upper and bound != exact:
            bound += timedelta(milliseconds=1)
    except OverflowError:
        return None
    return json.dumps(bound.replace(tzinfo=None).isoformat(timespec="milliseconds") + zone)


def upper_prefix(text: str) -> str | None:
    """Return a text of at most 32 characters that is not below `text` nor below any text beginning with it.

    Compared by code point, which is UTF-8's byte order. None when there is none: 32 times the highest code
    point.
    """
    if len(text) <= STRING_PREFIX:
        return text
    for end in range(STRING_PREFIX, 0, -1):
        following = ord(text[end - 1]) + 1
        if following > _HIGHEST:
            continue
        return text[: end - 1] + chr(_SURROGATES.stop if following in _SURROGATES else following)
    return None
