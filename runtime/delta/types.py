"""Which Delta types an engine's columns have, and what differs between two schemas.

Source of the rules: the Delta protocol (delta-io/delta, PROTOCOL.md: "Schema Serialization Format").
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime import sql
from runtime.errors import ConfigurationError

if TYPE_CHECKING:
    from deltalake import Schema

DeltaType = str | dict[str, Any]

# Delta without column mapping takes none of these in a column name (Spark's ParquetSchemaConverter refuses
# them).
_BAD_COLUMN = re.compile(r"[ ,;{}()\n\t=]")

_PLAIN: dict[str, str] = {
    "BOOLEAN": "boolean",
    "TINYINT": "byte",
    "SMALLINT": "short",
    "INTEGER": "integer",
    "BIGINT": "long",
    "FLOAT": "float",
    "DOUBLE": "double",
    "VARCHAR": "string",
    "BLOB": "binary",
    "DATE": "date",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
}
# What the SELECT casts, each without loss. A timestamp without zone is taken as UTC: Delta's own type for it
# (timestamp_ntz) asks for reader version 3, which Athena and older Trino servers don't have everywhere.
_CASTS: dict[str, str] = {
    "UTINYINT": "SMALLINT",
    "USMALLINT": "INTEGER",
    "UINTEGER": "BIGINT",
    "UBIGINT": "DECIMAL(20,0)",
    "UUID": "VARCHAR",
    "JSON": "VARCHAR",
    "TIMESTAMP": "TIMESTAMP WITH TIME ZONE",
    "TIMESTAMP_S": "TIMESTAMP WITH TIME ZONE",
    "TIMESTAMP_MS": "TIMESTAMP WITH TIME ZONE",
}


@dataclass(frozen=True)
class Column:
    """A column of an exported table. `cast` is the DuckDB type that the SELECT casts it to, if any."""

    name: str
    type: DeltaType
    cast: str | None = None
    comment: str | None = None

    @property
    def expression(self) -> str:
        """The column in a SELECT list."""
        name = sql.identifier(self.name)
        return f"CAST({name} AS {self.cast}) AS {name}" if self.cast else name


def column(name: str, duckdb_type: str, comment: str | None = None) -> Column:
    """Return how a DuckDB column becomes a Delta one.

    `duckdb_type` is as DESCRIBE prints it. Raises ConfigurationError naming column and type for types that
    Delta does not have (INTERVAL, TIME, HUGEINT, BIT, UNION…) and for names that Delta without column
    mapping refuses.
    """
    if _BAD_COLUMN.search(name):
        raise ConfigurationError(
            f"column {name!r} cannot be exported: Delta column names hold no spaces and none of ,;{{}}()="
        )
    mapped = _map_type(duckdb_type)
    if mapped is None:
        raise ConfigurationError(
            f"column {name!r} has type {duckdb_type}, which Delta Lake does not have",
            hint="cast it in the model, for example to varchar",
        )
    delta_type, source_type = mapped
    return Column(name, delta_type, None if source_type == duckdb_type else source_type, comment)


def _map_type(duckdb_type: str) -> tuple[DeltaType, str] | None:
    """Return the Delta type, and the DuckDB type that is written; None when there is none."""
    if duckdb_type.endswith("[]"):
        element = _map_type(duckdb_type[:-2])
        if element is None:
            return None
        return {"type": "array", "elementType": element[0], "containsNull": True}, f"{element[1]}[]"
    if duckdb_type.startswith("ENUM("):
        return "string", "VARCHAR"
    written = _CASTS.get(duckdb_type, duckdb_type)
    decimal = re.fullmatch(r"DECIMAL\((\d+),\s*(\d+)\)", written)
    if decimal:
        return f"decimal({decimal[1]},{decimal[2]})", written
    plain = _PLAIN.get(written)
    return None if plain is None else (plain, written)


def check_names(columns: Sequence[Column]) -> None:
    """Raise ConfigurationError for columns that differ in case only: Delta's names are case-insensitive."""
    seen: dict[str, str] = {}
    for item in columns:
        other = seen.setdefault(item.name.lower(), item.name)
        if other != item.name:
            raise ConfigurationError(f"columns {other!r} and {item.name!r} differ in case only, which Delta refuses")
    if not columns:
        raise ConfigurationError("a table without columns cannot be exported")


def schema_of(columns: Sequence[Column]) -> Schema:
    """Return the Delta schema; all columns are nullable, comments are kept as field metadata."""
    from deltalake import Schema

    fields = [
        {
            "name": item.name,
            "type": item.type,
            "nullable": True,
            "metadata": {"comment": item.comment} if item.comment else {},
        }
        for item in columns
    ]
    return Schema.from_json(json.dumps({"type": "struct", "fields": fields}))


def type_text(delta_type: DeltaType) -> str:
    """Return a Delta type as Hive writes it: `bigint`, `array<string>`, `struct<a:int>`.

    Glue and Athena take the same spelling (Athena user guide, "Data types in Amazon Athena").
    """
    names = {
        "byte": "tinyint",
        "short": "smallint",
        "integer": "int",
        "long": "bigint",
        "timestamp_ntz": "timestamp",
    }
    if isinstance(delta_type, str):
        return names.get(delta_type, delta_type)
    if delta_type["type"] == "array":
        return f"array<{type_text(delta_type['elementType'])}>"
    if delta_type["type"] == "map":
        return f"map<{type_text(delta_type['keyType'])},{type_text(delta_type['valueType'])}>"
    fields = ",".join(f"{field['name']}:{type_text(field['type'])}" for field in delta_type["fields"])
    return f"struct<{fields}>"


def schema_changes(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what differs between two lists of schema fields, a line each; empty when nothing does."""
    before = {field["name"]: type_text(field["type"]) for field in old}
    after = {field["name"]: type_text(field["type"]) for field in new}
    return [
        *(f"- {name} {kind}" for name, kind in before.items() if name not in after),
        *(f"+ {name} {kind}" for name, kind in after.items() if name not in before),
        *(f"~ {name} {before[name]} -> {kind}" for name, kind in after.items() if before.get(name, kind) != kind),
    ]


def fields_of(schema: Schema) -> list[dict[str, Any]]:
    """Return a Delta schema's fields as its JSON has them."""
    fields: list[dict[str, Any]] = json.loads(schema.to_json())["fields"]
    return fields
