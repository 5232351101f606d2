"""A Delta table with a column for every type and its extreme values, for the tests of one reader after another."""

from __future__ import annotations

import datetime
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from runtime import duck, sql
from runtime.delta import statistics as delta_statistics
from runtime.delta import types as delta_types
from runtime.delta.types import Column

UTC = datetime.UTC


@dataclass(frozen=True)
class TypeCase:
    """A column: its name, DuckDB type, values as SQL texts, and the Python values that a reader gives for them."""

    name: str
    duckdb_type: str
    values: tuple[str, ...]
    expected: tuple[Any, ...]


def _case(name: str, duckdb_type: str, *pairs: tuple[str, Any]) -> TypeCase:
    """Return a case of pairs of SQL text and Python value; every case has a null too."""
    values, expected = zip(*pairs, ("NULL", None), strict=True)
    return TypeCase(name, duckdb_type, values, expected)


def _whole(name: str, duckdb_type: str, low: int, high: int, kind: type[int] | type[Decimal] = int) -> TypeCase:
    """Return a case of an integer type with its extremes."""
    return _case(name, duckdb_type, (f"'{low}'", kind(low)), ("0", kind(0)), (f"'{high}'", kind(high)))


_KEY = "00000000-0000-0000-0000-00000000000a"
_TEXT = "Zoë 日本 \"q\" 's' 🜚"
_FIRST = datetime.datetime(1, 1, 1, tzinfo=UTC)
_LAST = datetime.datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)

SCALARS = (
    _case("truth", "BOOLEAN", ("true", True), ("false", False)),
    _whole("tiny", "TINYINT", -(2**7), 2**7 - 1),
    _whole("small", "SMALLINT", -(2**15), 2**15 - 1),
    _whole("whole", "INTEGER", -(2**31), 2**31 - 1),
    _whole("big", "BIGINT", -(2**63), 2**63 - 1),
    _whole("utiny", "UTINYINT", 0, 2**8 - 1),
    _whole("usmall", "USMALLINT", 0, 2**16 - 1),
    _whole("uwhole", "UINTEGER", 0, 2**32 - 1),
    _whole("ubig", "UBIGINT", 0, 2**64 - 1, Decimal),
    _whole("huge", "HUGEINT", -(10**38) + 1, 10**38 - 1, Decimal),
    _whole("uhuge", "UHUGEINT", 0, 10**38 - 1, Decimal),
    _case(
        "single", "FLOAT", ("0.1", 0.10000000149011612), ("'-inf'", -math.inf), ("3.4028235e38", 3.4028234663852886e38)
    ),
    _case("twice", "DOUBLE", ("0.1", 0.1), ("'inf'", math.inf), ("-1.7976931348623157e308", -1.7976931348623157e308)),
    _case("unreal", "DOUBLE", ("'nan'", math.nan), ("'-0.0'", -0.0), ("1", 1.0)),
    _case("cents", "DECIMAL(4,2)", ("-99.99", Decimal("-99.99")), ("0.01", Decimal("0.01"))),
    _case("rate", "DECIMAL(3,3)", ("0.001", Decimal("0.001")), ("-0.999", Decimal("-0.999"))),
    _case("money", "DECIMAL(18,2)", ("'9999999999999999.99'", Decimal("9999999999999999.99")), ("0", Decimal("0.00"))),
    _case(
        "wide",
        "DECIMAL(38,10)",
        ("'-9999999999999999999999999999.9999999999'", Decimal("-9999999999999999999999999999.9999999999")),
        ("'9999999999999999999999999999.9999999999'", Decimal("9999999999999999999999999999.9999999999")),
    ),
    _case(
        "day",
        "DATE",
        ("'0001-01-01'", datetime.date.min),
        ("'1582-10-10'", datetime.date(1582, 10, 10)),
        ("'9999-12-31'", datetime.date.max),
    ),
    _case(
        "at",
        "TIMESTAMP WITH TIME ZONE",
        ("'0001-01-01 00:00:00+00'", _FIRST),
        ("'1969-12-31 23:59:59.999999+00'", datetime.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)),
        ("'9999-12-31 23:59:59.999999+00'", _LAST),
    ),
    _case(
        "moment",
        "TIMESTAMP",
        ("'0001-01-01'", _FIRST),
        ("'9999-12-31 23:59:59.999999'", _LAST),
    ),
    _case("second", "TIMESTAMP_S", ("'2024-02-29 12:00:01'", datetime.datetime(2024, 2, 29, 12, 0, 1, 0, UTC))),
    _case("millis", "TIMESTAMP_MS", ("'1900-01-01 00:00:00.123'", datetime.datetime(1900, 1, 1, 0, 0, 0, 123000, UTC))),
    _case("text", "VARCHAR", ("''", ""), (sql.literal(_TEXT), _TEXT), ("repeat('é', 100)", "é" * 100)),
    _case("raw", "BLOB", (r"'\x00\xFF'", b"\x00\xff"), ("''", b"")),
    _case("key", "UUID", (f"'{_KEY}'", _KEY)),
    _case("size", "ENUM('small', 'it''s (large)')", ("'it''s (large)'", "it's (large)"), ("'small'", "small")),
    _case("doc", "JSON", ("""'{"a": [1, null]}'""", '{"a": [1, null]}'), ("'null'", "null")),
)
NESTED = (
    _case("numbers", "INTEGER[]", ("[1, NULL, 3]", [1, None, 3]), ("[]", [])),
    _case("keys", "UUID[]", (f"['{_KEY}', NULL]", [_KEY, None])),
    _case("pair", "UTINYINT[2]", ("[1, 255]", [1, 255])),
    _case("grid", "INTEGER[2][]", ("[[1, 2], NULL]", [[1, 2], None])),
    _case("moments", "TIMESTAMP[]", ("['2024-01-01']", [datetime.datetime(2024, 1, 1, tzinfo=UTC)])),
    _case(
        "place",
        'STRUCT(city VARCHAR, "Größe" HUGEINT, "in" STRUCT(tags UUID[], "d" DATE))',
        (
            f"{{'city': 'Zürich', 'Größe': 5, 'in': {{'tags': ['{_KEY}'], 'd': '2024-02-29'}}}}",
            {"city": "Zürich", "Größe": Decimal(5), "in": {"tags": [_KEY], "d": datetime.date(2024, 2, 29)}},
        ),
        ("{'city': NULL, 'Größe': NULL, 'in': NULL}", {"city": None, "Größe": None, "in": None}),
    ),
    _case("people", "STRUCT(a INTEGER, b VARCHAR)[]", ("[{'a': 1, 'b': NULL}, NULL]", [{"a": 1, "b": None}, None])),
    _case("counts", "MAP(VARCHAR, UTINYINT)", ("MAP {'a': 1, 'ü': NULL}", {"a": 1, "ü": None}), ("MAP {}", {})),
    _case("deep", "MAP(INTEGER, STRUCT(x INTEGER[]))", ("MAP {1: {'x': [2, NULL]}}", {1: {"x": [2, None]}})),
)
# Only for tables that were asked to keep timestamps without a zone.
WITHOUT_ZONE = (
    _case(
        "moment",
        "TIMESTAMP",
        ("'0001-01-01'", _FIRST.replace(tzinfo=None)),
        ("'9999-12-31 23:59:59.999999'", _LAST.replace(tzinfo=None)),
    ),
    _case("second", "TIMESTAMP_S", ("'2024-02-29 12:00:01'", datetime.datetime.fromisoformat("2024-02-29T12:00:01"))),
    _case("moments", "TIMESTAMP[]", ("['2024-01-01']", [datetime.datetime.fromisoformat("2024-01-01")])),
)
# Only for tables with column mapping.
MAPPED = (
    _case("a b", "INTEGER", ("1", 1), ("5", 5)),
    _case("x,y;{}()=\t", "VARCHAR", ("'v'", "v")),
    _case('q"u.o', 'STRUCT("c d" INTEGER, e UUID)', (f"{{'c d': 1, 'e': '{_KEY}'}}", {"c d": 1, "e": _KEY})),
    _case("list of", 'STRUCT("c d" INTEGER)[]', ("[{'c d': 1}, NULL]", [{"c d": 1}, None])),
    _case("map of", 'MAP(VARCHAR, STRUCT("c d" INTEGER))', ("MAP {'k': {'c d': 1}}", {"k": {"c d": 1}})),
)


def select_of(cases: Sequence[TypeCase]) -> str:
    """Return a SELECT of a table with a column `id` and one for each case; short columns end in nulls."""
    height = max(len(case.values) for case in cases)
    rows = []
    for number in range(height):
        items = [
            f"CAST({case.values[number] if number < len(case.values) else 'NULL'} AS {case.duckdb_type})"
            f" AS {sql.identifier(case.name)}"
            for case in cases
        ]
        rows.append(f"SELECT {number} AS id, {', '.join(items)}")
    return " UNION ALL ".join(rows)


def rows_of(cases: Sequence[TypeCase]) -> list[tuple[Any, ...]]:
    """Return the rows that a reader finds, ordered by id, as `plain` has them."""
    height = max(len(case.expected) for case in cases)
    return [
        (number, *(plain(case.expected[number]) if number < len(case.expected) else None for case in cases))
        for number in range(height)
    ]


def plain(value: Any) -> Any:
    """Return a value in a form that is equal for equal values of all readers.

    Times with a zone become UTC, NaN and negative zero become texts, and structs and maps lists of pairs.
    """
    if isinstance(value, float) and (math.isnan(value) or repr(value) == "-0.0"):
        return repr(value)
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return [[plain(name), plain(item)] for name, item in value.items()]
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


def make_table(
    folder: Path, cases: Sequence[TypeCase], *, ntz: bool = False, mapped: bool = False, file_per_row: bool = False
) -> list[dict[str, Any]]:
    """Write the cases as a Delta table into a local folder, which can be sent to a store as it is.

    DuckDB writes the files; schema, statistics and column mapping are those of an export, and the log is
    written out here, so that it is the same whatever commits it. Returns the schema's fields.
    """
    with duck.connect() as engine:
        engine.execute(f"CREATE TABLE source AS {select_of(cases)}")
        columns = [
            delta_types.column(name, kind, ntz=ntz, mapped=mapped)
            for name, kind, *_ in engine.execute("DESCRIBE source").fetchall()
        ]
        fields = delta_types.schema_fields(columns)
        configuration = {}
        if mapped:
            fields, last = delta_types.assign_mapping(fields)
            columns = delta_types.map_columns(columns, fields)
            configuration = {"delta.columnMapping.mode": "name", delta_types.MAX_MAPPING_ID: str(last)}
        conditions = [f"id = {number}" for number in range(len(rows_of(cases)))] if file_per_row else ["true"]
        added = [_write(engine, columns, condition, folder) for condition in conditions]
    (folder / "_delta_log").mkdir(parents=True)
    actions = [_protocol(delta_types.features_of(fields)), _metadata(fields, configuration), *added]
    log = "".join(json.dumps(action) + "\n" for action in actions)
    (folder / "_delta_log" / f"{0:020}.json").write_text(log, encoding="utf-8")
    return fields


def _write(engine: Any, columns: Sequence[Column], condition: str, folder: Path) -> dict[str, Any]:
    """Write the rows that a condition selects, and return the add action of their file."""
    path = folder / f"{uuid.uuid4().hex}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    items = ", ".join(item.expression for item in columns)
    ((_, rows, size, _, reported, _),) = engine.execute(
        f"COPY (SELECT {items} FROM source WHERE {condition}) TO {sql.literal(str(path))}"  # noqa: S608 - quoted
        " (FORMAT parquet, RETURN_STATS)"
    ).fetchall()
    nans = delta_statistics.nan_leaves(engine, [str(path)])[str(path)]
    stats = delta_statistics.file_stats(columns, rows, reported, nans=nans)
    return {
        "add": {
            "path": path.name,
            "partitionValues": {},
            "size": size,
            "modificationTime": 0,
            "dataChange": True,
            "stats": stats,
        }
    }


def _protocol(features: frozenset[str]) -> dict[str, Any]:
    """Return the protocol action that the features ask for."""
    if not features:
        return {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}
    named = sorted(features)
    versions = {"minReaderVersion": 3, "minWriterVersion": 7}
    return {"protocol": {**versions, "readerFeatures": named, "writerFeatures": named}}


def _metadata(fields: list[dict[str, Any]], configuration: Mapping[str, str]) -> dict[str, Any]:
    """Return the metaData action."""
    return {
        "metaData": {
            "id": str(uuid.uuid4()),
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps({"type": "struct", "fields": fields}),
            "partitionColumns": [],
            "configuration": dict(configuration),
            "createdTime": 0,
        }
    }
