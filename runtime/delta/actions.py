"""The actions of one Delta commit, as JSON lines.

Source of the rules: the Delta protocol (delta-io/delta, PROTOCOL.md: "Actions", "Partition Value Serialization").
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any
from urllib.parse import quote, unquote

from runtime.delta.protocol import Protocol, schema_string

Fields = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class DataFile:
    """A Parquet file under a table's location: its name, size in bytes, rows and Delta statistics (JSON).

    `name` is its path below the location as the store has it, with folders; the log's form of it is made
    here. `partition_values` has a value for each of the table's partition columns, by their names, in
    Delta's text form; None is NULL.
    """

    name: str
    size: int
    rows: int
    stats: str
    partition_values: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class LogFile:
    """A file that a version of the table has: `path` is the log's own text, percent-encoded as it is there."""

    path: str
    size: int
    rows: int | None
    partition_values: Mapping[str, str | None]


@dataclass(frozen=True)
class TableMetadata:
    """A table's metaData action."""

    id: str
    fields: Fields
    partition_columns: tuple[str, ...] = ()
    configuration: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    description: str | None = None
    created_ms: int | None = None

    @property
    def action(self) -> dict[str, Any]:
        """The content of the metaData action."""
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": schema_string(self.fields),
            "partitionColumns": list(self.partition_columns),
            "configuration": dict(self.configuration),
            "createdTime": self.created_ms,
        }


def log_path(name: str) -> str:
    """Return a file's name as the log has it: a relative URI (RFC 2396), percent-encoded as UTF-8.

    All but letters, digits and `-._~/=` is encoded. That is more than the RFC asks for, and what no reader
    takes for something else: a colon in a first folder is a scheme, a plus is a space to some.
    """
    return quote(name, safe="/=")


def file_name(path: str) -> str:
    """Return the name that the store has for a file's path in the log."""
    return unquote(path)


def is_elsewhere(path: str) -> bool:
    """Return whether a file's path in the log is absolute, as those of a shallow clone are."""
    return "://" in path or path.startswith(("/", "file:"))


# What Hive escapes in the name of a partition's folder (apache/hive, FileUtils.escapePathName).
_ESCAPED = frozenset("\"#%'*/:=?\\\x7f{[]^" + "".join(map(chr, range(1, 32))))
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def partition_folder(columns: Sequence[str], values: Mapping[str, str | None]) -> str:
    """Return the folder of a partition as Hive and its readers name it: `day=2024-02-29/name=a%2Fb`; empty for none.

    It is a convention: readers of Delta take the values from the log.
    """
    return "/".join(f"{_escaped(name)}={_escaped(values[name] or NULL_PARTITION)}" for name in columns)


def _escaped(text: str) -> str:
    return "".join(f"%{ord(letter):02X}" if letter in _ESCAPED else letter for letter in text)


def add(file: DataFile, physical: Mapping[str, str], written_at_ms: int) -> dict[str, Any]:
    """Return the action that makes a file part of the table."""
    return {
        "add": {
            "path": log_path(file.name),
            "partitionValues": _physical(file.partition_values, physical),
            "size": file.size,
            "modificationTime": written_at_ms,
            "dataChange": True,
            "stats": file.stats,
        }
    }


def remove(file: LogFile, physical: Mapping[str, str], now_ms: int) -> dict[str, Any]:
    """Return the action that takes a file out of the table. `path` has to be the log's, to the letter."""
    return {
        "remove": {
            "path": file.path,
            "deletionTimestamp": now_ms,
            "dataChange": True,
            "extendedFileMetadata": True,
            "partitionValues": _physical(file.partition_values, physical),
            "size": file.size,
        }
    }


def _physical(values: Mapping[str, str | None], physical: Mapping[str, str]) -> dict[str, str | None]:
    return {physical.get(name, name): value for name, value in values.items()}


def commit_info(
    operation: str,
    parameters: Mapping[str, Any],
    metrics: Mapping[str, int],
    *,
    engine: str,
    now_ms: int,
    blind_append: bool,
    extras: Mapping[str, str],
) -> dict[str, Any]:
    """Return the action that says who did what; Delta's readers know its values as strings."""
    known = {
        "timestamp": now_ms,
        "operation": operation,
        "operationParameters": {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()
        },
        "operationMetrics": {name: str(value) for name, value in metrics.items()},
        "engineInfo": engine,
        "isBlindAppend": blind_append,
    }
    return {"commitInfo": {**extras, **known}}


def commit_content(
    info: dict[str, Any],
    protocol: Protocol | None,
    metadata: TableMetadata | None,
    removed: Iterable[dict[str, Any]],
    added: Iterable[dict[str, Any]],
) -> bytes:
    """Return the log file's content: one action a line, commitInfo first; None for what stays as it is."""
    lines = [
        info,
        *([{"protocol": protocol.action}] if protocol else []),
        *([{"metaData": metadata.action}] if metadata else []),
        *removed,
        *added,
    ]
    return "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines).encode()


# --- partition values ---


def partition_text(value: object) -> str | None:
    """Return a partition column's value in Delta's text form; None for NULL."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    # Delta's form of a binary has a character for each byte.
    return value.decode("latin-1") if isinstance(value, bytes) else format(value, _FORMATS.get(type(value), ""))


# A decimal never with an exponent; others as str() has them: 2024-02-29, 2024-02-29 12:00:00.5, 1.5.
_FORMATS: dict[type, str] = {Decimal: "f"}


def same_partition(delta_type: str, text: str | None) -> object:
    """Return what two texts of the same partition value have in common: engines write `1.50` and `1.5`.

    A text that is not of the type's form stands for itself.
    """
    if not text:
        return None
    try:
        return _PARSERS.get(delta_type.partition("(")[0], str)(text)
    except (ValueError, ArithmeticError):
        return text


def stored_partition(delta_type: str, text: str | None) -> str | None:
    """Return a partition's value as readers take it: one that they cannot parse makes the whole table unreadable.

    delta-rs' kernel refuses a decimal with fewer digits than the column's scale. Raises ValueError for a text
    that is no value of the type.
    """
    if text is None:
        return None
    name, _, size = delta_type.partition("(")
    if name == "decimal":
        scale = Decimal(1).scaleb(-int(size.rstrip(")").partition(",")[2]))
        try:
            exact = Decimal(text)
            stored = exact.quantize(scale, context=Context(prec=40, traps=[Inexact, InvalidOperation]))
        except ArithmeticError as exc:
            raise ValueError(f"{text!r} is no {delta_type}") from exc
        return f"{stored:f}"
    value = _PARSERS.get(name, str)(text)
    if name == "boolean" and value not in ("true", "false"):
        raise ValueError(f"{text!r} is no boolean")
    return str(value) if name in ("byte", "short", "integer", "long", "boolean", "date") else text


def _moment(text: str) -> datetime:
    """Return a timestamp; without a zone the protocol means the writer's own, and Goldlake's is UTC."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


_PARSERS: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(("byte", "short", "integer", "long"), int),
    **dict.fromkeys(("float", "double"), float),
    **dict.fromkeys(("timestamp", "timestamp_ntz"), _moment),
    "decimal": Decimal,
    "boolean": str.lower,
    "date": date.fromisoformat,
}
