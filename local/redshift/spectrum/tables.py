"""What a table of the Glue catalogue is: its columns, its format, and which of the objects hold its rows.

Pure functions. Sources: Redshift database developer guide, "CREATE EXTERNAL TABLE", "Data files for queries in
Amazon Redshift Spectrum", "Creating external tables for data managed in Delta Lake".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

# PostgreSQL cuts longer names off; Redshift allows 127.
MAX_NAME_BYTES = 63
PARQUET, CSV, TEXT, JSON, SYMLINK = "parquet", "csv", "text", "json", "symlink"
_NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"

_TYPES = {
    "string": "VARCHAR",
    "boolean": "BOOLEAN",
    "tinyint": "SMALLINT",
    "smallint": "SMALLINT",
    "int": "INTEGER",
    "integer": "INTEGER",
    "bigint": "BIGINT",
    "float": "REAL",
    "double": "DOUBLE",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "binary": "BLOB",
}
_SHOWN_TYPES = {
    "string": "varchar(65535)",
    "tinyint": "smallint",
    "int": "integer",
    "float": "real",
    "double": "double precision",
    "binary": "varbyte",
}
# Parts of the names of serialisation libraries and input formats.
_FORMATS = (
    ("symlinktextinputformat", SYMLINK),
    ("parquet", PARQUET),
    ("opencsvserde", CSV),
    ("jsonserde", JSON),
    ("lazysimpleserde", TEXT),
)


@dataclass(frozen=True)
class ExternalColumn:
    """A column. `type` is Glue's, `duckdb` DuckDB's name of it: None for a type that is not emulated."""

    name: str
    type: str
    duckdb: str | None
    is_key: bool = False


@dataclass(frozen=True)
class StoredObject:
    """An object in S3."""

    bucket: str
    key: str
    etag: str
    size: int

    @property
    def url(self) -> str:
        """Where it is."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class Part:
    """A partition, or the whole of a table that has none: its values by column, and its place."""

    location: str
    values: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class ExternalTable:
    """A Glue table as it is now. `format` is None for one that is not emulated; `described` is for svv_external_*."""

    schema: str
    name: str
    location: str
    columns: tuple[ExternalColumn, ...]
    format: str | None
    options: Mapping[str, str]
    described: Mapping[str, Any]

    @property
    def usable(self) -> tuple[ExternalColumn, ...]:
        """The columns that can be shown, partition keys last."""
        return tuple(column for column in self.columns if column.duckdb is not None and usable_name(column.name))

    @property
    def keys(self) -> tuple[str, ...]:
        """The partition keys."""
        return tuple(column.name for column in self.columns if column.is_key)

    @property
    def columns_fingerprint(self) -> str:
        """What changes when the table must be created anew: names and types as JSON."""
        return json.dumps([[column.name, column.duckdb] for column in self.usable])

    def content_fingerprint(self, contents: Iterable[tuple[Part, Iterable[StoredObject]]]) -> str:
        """Return what changes when the rows must be loaded anew."""
        found = sorted(
            [part.location, sorted(part.values.items()), sorted([item.url, item.etag, item.size] for item in objects)]
            for part, objects in contents
        )
        return _digest([self.columns_fingerprint, self.location, self.format, sorted(self.options.items()), found])


def external_table(schema: str, described: Mapping[str, Any]) -> ExternalTable:
    """Return the table that a Glue description stands for."""
    storage = described.get("StorageDescriptor") or {}
    serde = storage.get("SerdeInfo") or {}
    library = str(serde.get("SerializationLibrary") or "")
    parameters = {str(key): str(value) for key, value in (described.get("Parameters") or {}).items()}
    options = parameters | {str(key): str(value) for key, value in (serde.get("Parameters") or {}).items()}
    columns = [*_columns(storage.get("Columns")), *_columns(described.get("PartitionKeys"), is_key=True)]
    return ExternalTable(
        schema,
        str(described["Name"]),
        str(storage.get("Location") or ""),
        tuple(columns),
        _format(str(storage.get("InputFormat") or ""), library, parameters),
        {name: options[name] for name in sorted(options) if name in _OPTIONS},
        {
            "input_format": str(storage.get("InputFormat") or ""),
            "output_format": str(storage.get("OutputFormat") or ""),
            "library": library,
            "serde": serde.get("Parameters") or {},
            "parameters": parameters,
            "columns": [[column.name, redshift_type(column.type), column.is_key] for column in columns],
        },
    )


_OPTIONS = frozenset(
    {
        "field.delim",
        "separatorChar",
        "quoteChar",
        "escapeChar",
        "escape.delim",
        "skip.header.line.count",
        "serialization.null.format",
    }
)


def _columns(described: Iterable[Mapping[str, Any]] | None, *, is_key: bool = False) -> list[ExternalColumn]:
    found = [(str(column["Name"]), str(column.get("Type") or "")) for column in described or ()]
    return [ExternalColumn(name, kind, duckdb_type(kind), is_key) for name, kind in found]


def _format(input_format: str, library: str, parameters: Mapping[str, str]) -> str | None:
    """Return the format, None for one that is not emulated. A table that says nothing is taken for Parquet."""
    if parameters.get("table_type", "").upper() == "ICEBERG":
        return None
    text = f"{input_format} {library}".lower()
    if not text.strip():
        return PARQUET
    return next((found for part, found in _FORMATS if part in text), None)


def duckdb_type(glue_type: str) -> str | None:
    """Return DuckDB's type for a Glue (Hive) type, None for one that is not emulated (nested types)."""
    text = glue_type.strip().lower()
    if text in _TYPES:
        return _TYPES[text]
    if re.fullmatch(r"(var)?char\(\d{1,5}\)", text):
        return "VARCHAR"
    decimal = re.fullmatch(r"decimal(?:\((\d{1,2})(?:\s*,\s*(\d{1,2}))?\))?", text)
    if decimal is None:
        return None
    # Hive's defaults: decimal is decimal(10,0).
    precision, scale = int(decimal[1] or 10), int(decimal[2] or 0)
    return f"DECIMAL({precision},{scale})" if 1 <= precision <= 38 and scale <= precision else None


def redshift_type(glue_type: str) -> str:
    """Return the type as svv_external_columns shows it, in the words that dbt-redshift reads and casts to."""
    text = glue_type.strip().lower()
    if text.startswith("decimal"):
        return text.replace("decimal", "numeric", 1).replace(" ", "")
    return _SHOWN_TYPES.get(text, text)


def usable_name(name: str) -> bool:
    """Return whether PostgreSQL can hold the name whole."""
    return 0 < len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES and "\x00" not in name


def bucket_and_prefix(location: str) -> tuple[str, str] | None:
    """Return bucket and key prefix (with its slash) of an s3:// location, None for any other location."""
    parts = urlsplit(location.replace("?", "%3F").replace("#", "%23"))
    if parts.scheme not in ("s3", "s3a", "s3n") or not parts.netloc:
        return None
    prefix = parts.path.replace("%3F", "?").replace("%23", "#").strip("/")
    return parts.netloc, f"{prefix}/" if prefix else ""


def is_data(item: StoredObject, prefix: str) -> bool:
    """Return whether an object holds rows: nothing hidden by `.` or `_` or a mark of a copy `~`, nothing empty."""
    parts = item.key.removeprefix(prefix).split("/")
    return item.size > 0 and not any(part.startswith((".", "_", "#")) or part.endswith("~") for part in parts)


def partition_value(text: str) -> str | None:
    """Return the value that a partition's text stands for."""
    return None if text == _NULL_FOLDER else text


def manifest_entries(text: str) -> list[str]:
    """Return the files that a symlink manifest names, as s3:// locations."""
    return [unquote(line.strip()) for line in text.splitlines() if line.strip()]


def _digest(value: object) -> str:
    """Return a fingerprint of a JSON-able value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
