"""How a table is exported: what the command says, then the model's meta.goldlake, then the default."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runtime.errors import ConfigurationError
from runtime.export.engine import ENGINES, Order
from runtime.export.models import Model

OVERWRITE, APPEND, ERROR, IGNORE = "overwrite", "append", "error-if-exists", "ignore"
REPLACE_WHERE, MERGE = "replace-where", "merge"
MODES = (OVERWRITE, APPEND, ERROR, IGNORE, REPLACE_WHERE, MERGE)
SCHEMA_MODES = ("strict", "merge", "overwrite")
TIMESTAMPS = ("utc", "ntz")
# Large enough that a scan is not all opening of files, small enough for many readers to share a table.
FILE_SIZE = "256MB"
MIN_FILE_BYTES, MAX_FILE_BYTES = 1_000_000, 1_000_000_000
# DuckDB writes row groups in vectors of 2,048 rows. Above some million rows a group the writers' buffers are all
# the memory.
MIN_GROUP_ROWS, MAX_GROUP_ROWS = 2_048, 5_000_000
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_MODEL_OPTIONS = ("mode", "partition_by", "order_by", "symlink_manifest", "properties", "file_size", "unique_key")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is asked for, for all tables of an export. None and empty mean: as the model says, or the default.

    `replace_where` are conditions `column=value` on partition columns; several of one column are alternatives, an
    empty value is NULL. `schema_mode` is `strict`, `merge` (added nullable columns) or `overwrite`; the default is
    `overwrite` for the mode overwrite, else `strict`. `timestamps` says what a timestamp without zone becomes: `utc`
    an instant, taken as UTC; `ntz` Delta's timestamp_ntz, which asks readers for reader version 3. `if_changed` skips a
    table whose rows and schema are those of the newest commit. `engine` overrides the choice.
    """

    mode: str | None = None
    unique_key: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ()
    order_by: tuple[str, ...] = ()
    replace_where: tuple[str, ...] = ()
    file_size: str | None = None
    row_group_rows: int | None = None
    schema_mode: str | None = None
    timestamps: str = "utc"
    column_mapping: str = "auto"
    properties: Mapping[str, str] = field(default_factory=dict)
    symlink_manifest: bool | None = None
    if_changed: bool = False
    verify: bool = False
    engine: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no table can have."""
        _one_of("mode", self.mode, (None, *MODES))
        _one_of("schema mode", self.schema_mode, (None, *SCHEMA_MODES))
        _one_of("timestamps", self.timestamps, TIMESTAMPS)
        _one_of("column mapping", self.column_mapping, ("auto", "never"))
        _one_of("engine", self.engine, (None, *ENGINES))
        rows = self.row_group_rows
        if rows is not None and not MIN_GROUP_ROWS <= rows <= MAX_GROUP_ROWS:
            raise ConfigurationError(f"row groups of {rows} rows: {MIN_GROUP_ROWS} to {MAX_GROUP_ROWS} are possible")


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What holds for one table."""

    mode: str = OVERWRITE
    unique_key: tuple[str, ...] = ()
    partition_by: tuple[str, ...] = ()
    order_by: tuple[Order, ...] = ()
    replace_where: tuple[str, ...] = ()
    file_bytes: int = 256_000_000
    row_group_rows: int | None = None
    schema_mode: str = "overwrite"
    ntz: bool = False
    mapping: bool = True
    properties: Mapping[str, str] = field(default_factory=dict)
    symlink_manifest: bool = False
    if_changed: bool = False
    verify: bool = False


def table_options(asked: ExportOptions, model: Model | None = None) -> TableOptions:
    """Return what holds for one table. Raises ConfigurationError for options that contradict each other."""
    meta = _meta(model)
    mode = asked.mode or meta.get("mode") or (REPLACE_WHERE if asked.replace_where else OVERWRITE)
    _one_of("mode", mode, MODES)
    keys = asked.unique_key or _names(meta.get("unique_key")) or (model.unique_key if model else ())
    if mode == MERGE and not keys:
        raise ConfigurationError(
            "mode merge needs the columns that identify a row",
            hint="give --unique-key, or unique_key in the model's config together with --manifest",
        )
    if bool(asked.replace_where) != (mode == REPLACE_WHERE):
        raise ConfigurationError(
            f"mode {mode!r} with {len(asked.replace_where)} conditions:"
            " replace-where needs conditions on partition columns, and no other mode takes any",
            hint='--mode replace-where --replace-where "day=2026-01-01"',
        )
    schema_mode = asked.schema_mode or ("overwrite" if mode in (OVERWRITE, ERROR, IGNORE) else "strict")
    if schema_mode == "overwrite" and mode in (APPEND, REPLACE_WHERE, MERGE):
        raise ConfigurationError(f"mode {mode!r} keeps rows of the table, so its schema cannot be overwritten")
    symlinks = asked.symlink_manifest
    order = asked.order_by or _names(meta.get("order_by"))
    return TableOptions(
        mode=mode,
        unique_key=keys,
        partition_by=asked.partition_by or _names(meta.get("partition_by")),
        order_by=tuple(order_key(text) for text in order),
        replace_where=asked.replace_where,
        file_bytes=file_bytes(asked.file_size or str(meta.get("file_size") or FILE_SIZE)),
        row_group_rows=asked.row_group_rows,
        schema_mode=schema_mode,
        ntz=asked.timestamps == "ntz",
        mapping=asked.column_mapping == "auto",
        properties={**_properties(meta.get("properties")), **asked.properties},
        symlink_manifest=bool(meta.get("symlink_manifest") if symlinks is None else symlinks),
        if_changed=asked.if_changed,
        verify=asked.verify,
    )


def file_bytes(text: str) -> int:
    """Return a size such as `256MB` or `128MiB` in bytes; raises ConfigurationError outside 1 MB to 1 GB."""
    found = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]*)\s*", text)
    size = int(found[1]) * _UNITS.get(found[2].upper(), 0) if found else 0
    if not MIN_FILE_BYTES <= size <= MAX_FILE_BYTES:
        raise ConfigurationError(f"file size {text!r}: 1MB to 1GB are possible, 128MB to 512MB are good for readers")
    return size


def order_key(text: str) -> Order:
    """Return the sort key in a text `column`, `column asc` or `column desc`."""
    found = re.fullmatch(r"\s*(.+?)(?:\s+(asc|desc))?\s*", text, re.IGNORECASE)
    if found is None:
        raise ConfigurationError("an empty sort key: --order-by takes column [asc|desc]")
    return Order(found[1], descending=(found[2] or "").lower() == "desc")


def _meta(model: Model | None) -> Mapping[str, Any]:
    """Return the model's meta.goldlake; raises ConfigurationError for an option that does not exist."""
    meta = model.options if model else {}
    unknown = sorted(set(meta) - set(_MODEL_OPTIONS))
    if model and unknown:
        raise ConfigurationError(
            f"meta.goldlake of {model.unique_id} has {', '.join(map(repr, unknown))}:"
            f" it may have {', '.join(_MODEL_OPTIONS)}"
        )
    return meta


def _names(value: object) -> tuple[str, ...]:
    """Return a name or a list of names from dbt's YAML as a tuple."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ConfigurationError(f"{value!r} in meta.goldlake: a column name or a list of them is needed")


def _properties(value: object) -> dict[str, str]:
    """Return table properties from dbt's YAML, whose values may be numbers and truth values."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{value!r} in meta.goldlake: properties are a map of names to values")
    return {str(key): str(item).lower() if isinstance(item, bool) else str(item) for key, item in value.items()}


def _one_of(what: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        names = ", ".join(str(item) for item in allowed if item is not None)
        raise ConfigurationError(f"{what} {value!r} is not known: it is one of {names}")
