"""Delta's statistics of a Parquet file, made of those that the engine reported.

Source of the rules: the Delta protocol (delta-io/delta, PROTOCOL.md: "Per-file Statistics").
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from runtime import sql
from runtime.delta.types import Column

# delta.dataSkippingNumIndexedCols: what Delta's own writers index. More columns make the log long, not the
# reads fast.
INDEXED_COLUMNS = 32
# Delta's own writers cut strings there (delta-io/delta, DataSkippingReader.MAX_STRING_PREFIX_LENGTH).
STRING_PREFIX = 32

_HIGHEST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


def file_stats(columns: Sequence[Column], rows: int, reported: Mapping[str, Mapping[str, str]]) -> str:
    """Return Delta's statistics (JSON) of a file with `rows` rows.

    `reported` is the `column_statistics` of DuckDB's COPY … RETURN_STATS: quoted column name to texts
    `min`, `max`, `null_count`, `has_nan`. A bound that cannot be given rightly is left out: readers then
    read the file, while a wrong bound would lose rows silently.
    """
    minimum: dict[str, str] = {}
    maximum: dict[str, str] = {}
    nulls: dict[str, str] = {}
    for item in columns[:INDEXED_COLUMNS]:
        found = reported.get(sql.identifier(item.name))
        if found is None or not isinstance(item.type, str):
            continue
        if found.get("null_count", "").isdigit():
            nulls[item.name] = found["null_count"]
        low, high = bounds(item.type, found)
        minimum.update({item.name: low} if low is not None else {})
        maximum.update({item.name: high} if high is not None else {})
    # Put together by hand: json.dumps has no way to write a decimal with all its digits as a number.
    parts = {"minValues": _object(minimum), "maxValues": _object(maximum), "nullCount": _object(nulls)}
    return _object({"numRecords": str(rows), **parts})


def _object(members: Mapping[str, str]) -> str:
    """Return a JSON object of members that are JSON texts already."""
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in members.items()) + "}"


def bounds(delta_type: str, reported: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return a column's lower and upper bound as JSON texts; None for one without a right form.

    Booleans and binaries have no bounds in Delta. For timestamps and strings see `timestamp_bound`,
    `upper_prefix`.
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
        case "timestamp":
            return timestamp_bound(text, upper=upper)
        case "string":
            bound = upper_prefix(text) if upper else text[:STRING_PREFIX]
            return None if bound is None else json.dumps(bound)
        case _:
            return None


def _number(text: str) -> str | None:
    """Return an integer's or decimal's text when it is a JSON number as it stands."""
    return text if re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", text) else None


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
    return json.dumps(text) if re.fullmatch(r"\d{4}-\d\d-\d\d", text) else None


def timestamp_bound(text: str, *, upper: bool) -> str | None:
    """Return DuckDB's UTC timestamp as a JSON string with milliseconds, None outside years 1 to 9999.

    The protocol keeps milliseconds only. Its readers know that an upper bound was cut and add one; rounding
    it up here is right for those too, and for readers that forget.
    """
    if not re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00", text):
        return None
    exact = datetime.fromisoformat(text)
    bound = exact.replace(microsecond=exact.microsecond // 1000 * 1000)
    try:
        if upper and bound != exact:
            bound += timedelta(milliseconds=1)
    except OverflowError:
        return None
    return json.dumps(bound.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z")


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
