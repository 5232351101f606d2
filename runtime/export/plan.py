"""What will be done with each table: everything that can be refused is refused here, before a row is read."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from runtime import duck, sql
from runtime.delta import commit as delta_commit
from runtime.delta import protocol
from runtime.delta import types as delta_types
from runtime.delta.lake import Lake
from runtime.delta.log import Snapshot, open_table, translated
from runtime.delta.types import Column
from runtime.errors import ConfigurationError, FailedError
from runtime.export import duckdb_engine, options
from runtime.export.engine import TablePlan
from runtime.export.models import Model
from runtime.export.options import TableOptions
from runtime.export.sources import SourceReader

# What has a text form that all readers of Delta agree on. Not floats: NaN, -0.0 and digits are written in many ways.
_PARTITION_TYPES = ("string", "byte", "short", "integer", "long", "boolean", "date", "timestamp", "timestamp_ntz")
_NULL = ("", "__HIVE_DEFAULT_PARTITION__")
_MAPPING_MODE = "delta.columnMapping.mode"


@dataclass(frozen=True)
class Prepared:
    """A table with its options, its plan, and its newest version (None: there is no table yet)."""

    plan: TablePlan
    options: TableOptions
    before: Snapshot | None
    schema_changes: tuple[str, ...] = ()
    description: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def version(self) -> int | None:
        """The table's newest version."""
        return None if self.before is None else self.before.version


def prepare(
    reader: SourceReader, lake: Lake, schema: str, table: str, wanted: TableOptions, model: Model | None = None
) -> Prepared:
    """Return what will be done with a table. Raises ConfigurationError for what cannot be exported."""
    try:
        return _prepare(reader, lake, schema, table, wanted, model)
    except ConfigurationError as exc:
        raise ConfigurationError(f"table {schema}.{table}: {exc.message}", hint=exc.hint) from exc


def _prepare(
    reader: SourceReader, lake: Lake, schema: str, table: str, wanted: TableOptions, model: Model | None
) -> Prepared:
    """Look at source and target, and decide."""
    location = lake.location(table)
    sql.qualified(schema, table)
    protocol.check_properties(wanted.properties)
    before = _snapshot(lake, location, wanted.mode)
    columns = _columns(reader, schema, table, wanted, model, before)
    _check_names(wanted, columns)
    partition_by = wanted.partition_by or (before.metadata.partition_columns if before else ())
    _check_partitions(partition_by, columns)
    fields = _mapped(columns, before, wanted)
    mapped = any(delta_types.PHYSICAL_NAME in field["metadata"] for field in fields)
    if mapped:
        columns = tuple(delta_types.map_columns(columns, fields))
    plan = TablePlan(
        schema=schema,
        table=table,
        lake=lake,
        export_id=uuid.uuid4().hex,
        columns=columns,
        fields=tuple(fields),
        partition_by=partition_by,
        order_by=wanted.order_by,
        file_bytes=wanted.file_bytes,
        row_group_rows=wanted.row_group_rows,
        replace_where=_conditions(wanted.replace_where, columns, partition_by),
        physical={item.name: item.physical for item in columns if item.physical},
    )
    _check_partitioning(before, plan, wanted)
    changes = _schema_changes(before, fields, wanted)
    description = (model.description if model else None) or reader.comment(schema, table)
    return Prepared(plan, wanted, before, changes, description, _notes(plan, wanted, mapped=mapped))


def _snapshot(lake: Lake, location: str, mode: str) -> Snapshot | None:
    """Return the table's newest version, checked for what an export in this mode would break."""
    found = open_table(location, lake.storage_options())
    if found is None:
        delta_commit.check_writable(None, location)
        return None
    if mode == options.ERROR:
        raise FailedError(f"the Delta table at {location} exists already", hint="choose the mode overwrite or append")
    if mode != options.IGNORE:
        delta_commit.check_writable(found, location, "overwrite" if mode == options.MERGE else mode)
    with translated(f"Delta log of {location}"):
        return Snapshot.of(found)


# --- columns ---


def _columns(
    reader: SourceReader, schema: str, table: str, wanted: TableOptions, model: Model | None, before: Snapshot | None
) -> tuple[Column, ...]:
    """Return the source's columns as Delta's, with what the model says of them."""
    allowed = wanted.mapping or _is_mapped(before)
    source = reader.columns(schema, table, ntz=wanted.ntz, mapped=allowed)
    declared = {name.lower(): item for name, item in (model.columns if model else {}).items()}
    kept = {} if before is None or wanted.schema_mode == "overwrite" else _not_null_fields(before)
    columns = []
    for item in source:
        said = declared.get(item.name.lower())
        comment = (said.description if said else None) or item.comment
        # Of nested values COPY reports no nulls, so nothing could be promised; and of other engines' none at all.
        strict = item.name in kept or bool(model and model.contract and said and said.not_null and reader.counts_nulls)
        columns.append(replace(item, comment=comment, nullable=not strict or not isinstance(item.type, str)))
    delta_types.check_names(columns)
    if model is not None and model.contract:
        _check_contract(reader, model, columns)
    return tuple(columns)


def _not_null_fields(before: Snapshot) -> set[str]:
    return {str(field["name"]) for field in before.metadata.fields if not field.get("nullable", True)}


def _check_contract(reader: SourceReader, model: Model, columns: Sequence[Column]) -> None:
    """Raise ConfigurationError when the table is not what the model's contract says."""
    has = {item.name.lower(): item for item in columns}
    lines = [f"- {name} {item.data_type or ''}" for name, item in model.columns.items() if name.lower() not in has]
    said = {name.lower(): item for name, item in model.columns.items()}
    lines += [f"+ {item.name} {_type(item)}" for name, item in has.items() if name not in said]
    for name, item in has.items():
        wanted = said[name].data_type if name in said else None
        expected = reader.declared(item, wanted) if wanted else None
        if expected is not None and expected.type != item.type:
            lines.append(f"~ {item.name} {wanted} -> {_type(item)}")
    if lines:
        raise ConfigurationError(
            f"it is not what the contract of {model.unique_id} says:\n" + "\n".join(f"  {line}" for line in lines),
            hint="dbt build makes the table anew, or correct the model's columns",
        )


def _type(column: Column) -> str:
    return delta_types.type_text(column.type)


def _mapped(columns: Sequence[Column], before: Snapshot | None, wanted: TableOptions) -> list[dict[str, Any]]:
    """Return the fields of the files, with column mapping where the table has it or a name needs it."""
    fields = delta_types.schema_fields(columns)
    names = [field["name"] for field in protocol.all_fields(fields)]
    if not _is_mapped(before) and not any(delta_types.needs_mapping(name) for name in names):
        return fields
    if before is None:
        return delta_types.assign_mapping(fields)[0]
    if not _is_mapped(before) and wanted.mode != options.OVERWRITE:
        raise ConfigurationError(
            "a name needs column mapping, which the table does not have",
            hint="an overwrite gives it to the table, or rename the column in the model",
        )
    existing = before.metadata.fields if _is_mapped(before) else _with_own_names(before.metadata.fields)
    last = int(before.metadata.configuration.get(delta_types.MAX_MAPPING_ID, "0"))
    return delta_types.assign_mapping(fields, existing, max_id=last)[0]


def _is_mapped(before: Snapshot | None) -> bool:
    return before is not None and before.metadata.configuration.get(_MAPPING_MODE, "none") != "none"


def _with_own_names(fields: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return fields of a table without mapping as a mapped one has them: files of old versions have these names."""
    return [
        {**field, "metadata": {**field.get("metadata", {}), delta_types.PHYSICAL_NAME: field["name"]}}
        for field in fields
    ]


def _schema_changes(
    before: Snapshot | None, fields: Sequence[Mapping[str, Any]], wanted: TableOptions
) -> tuple[str, ...]:
    """Return what the commit changes of the schema. Raises ConfigurationError for a change that is not allowed."""
    if before is None or wanted.mode == options.IGNORE:
        return ()
    after: Sequence[Mapping[str, Any]] = fields
    if wanted.schema_mode != "overwrite":
        after = delta_types.evolve(before.metadata.fields, fields, merge=wanted.schema_mode == "merge")
    return tuple(delta_types.schema_changes(before.metadata.fields, after))


# --- partitions ---


def _check_names(wanted: TableOptions, columns: Sequence[Column]) -> None:
    """Raise ConfigurationError for names that SQL cannot have, and options that name columns that are not there."""
    names = {item.name for item in columns}
    sql.qualified(*names)
    for what, given in (
        ("--partition-by", wanted.partition_by),
        ("--order-by", tuple(key.column for key in wanted.order_by)),
        ("--unique-key", wanted.unique_key if wanted.mode == options.MERGE else ()),
    ):
        missing = [name for name in given if name not in names]
        if missing:
            listed = ", ".join(item.name for item in columns)
            raise ConfigurationError(f"{what} names {', '.join(map(repr, missing))}: its columns are {listed}")
        if len(set(given)) != len(given):
            raise ConfigurationError(f"{what} names a column twice: {', '.join(given)}")


def _check_partitions(partition_by: Sequence[str], columns: Sequence[Column]) -> None:
    """Raise ConfigurationError for partition columns that Delta's readers do not agree on."""
    types = {item.name: item.type for item in columns}
    for name in partition_by:
        kind = types.get(name)
        if kind is None:
            raise ConfigurationError(f"the table is partitioned by {name!r}, which the source does not have")
        if not isinstance(kind, str) or not kind.startswith((*_PARTITION_TYPES, "decimal(")):
            raise ConfigurationError(
                f"partition column {name!r} is of type {delta_types.type_text(kind)}:"
                " whole numbers, decimals, dates, timestamps, truth values and text can be one"
            )
    if partition_by and len(partition_by) == len(columns):
        raise ConfigurationError("all columns are partition columns: the files would have none")


def _check_partitioning(before: Snapshot | None, plan: TablePlan, wanted: TableOptions) -> None:
    """Raise ConfigurationError when the table has other partition columns, and keeps rows."""
    if before is None or wanted.mode == options.IGNORE or before.metadata.partition_columns == plan.partition_by:
        return
    if wanted.mode == options.OVERWRITE and wanted.schema_mode == "overwrite":
        return
    has = ", ".join(before.metadata.partition_columns) or "nothing"
    raise ConfigurationError(
        f"the table is partitioned by {has}, not by {', '.join(plan.partition_by) or 'nothing'}",
        hint="an overwrite changes that",
    )


def _conditions(
    texts: Sequence[str], columns: Sequence[Column], partition_by: Sequence[str]
) -> dict[str, tuple[str | None, ...]]:
    """Return the partitions that replace-where names, their values as Delta writes them."""
    found: dict[str, tuple[str | None, ...]] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        name = name.strip()
        if not sign or name not in partition_by:
            listed = ", ".join(partition_by) or "there are none"
            raise ConfigurationError(
                f"--replace-where {text!r}: it takes column=value with a partition column ({listed})"
            )
        column = next(item for item in columns if item.name == name)
        found[name] = (*found.get(name, ()), _value(column, value))
    return found


def _value(column: Column, text: str) -> str | None:
    """Return a partition's value in Delta's text form, None for NULL."""
    import duckdb

    if text in _NULL:
        return None
    if column.type == "string":
        return text
    kind = duckdb_engine.duckdb_type(column)
    try:
        with contextlib.closing(duck.connect()) as connection:
            found = connection.execute(f"SELECT CAST(CAST({sql.literal(text)} AS {kind}) AS VARCHAR)").fetchone()
        value = str(found[0]) if found else ""
        # DuckDB rounds, and would name another partition.
        is_number = kind.endswith("INT") or kind == "INTEGER" or kind.startswith("DECIMAL")
        is_value = not is_number or Decimal(text.strip()) == Decimal(value)
    except (duckdb.Error, InvalidOperation):
        is_value = False
    if not is_value:
        raise ConfigurationError(f"--replace-where: {text!r} is no value of column {column.name!r} ({kind})")
    return duckdb_engine.partition_value(column, value)


def _notes(plan: TablePlan, wanted: TableOptions, *, mapped: bool) -> tuple[str, ...]:
    """Return what a person should know of the way that was chosen."""
    return (
        *(["merge reads the table and rewrites the files that have matching rows"] if wanted.mode == "merge" else []),
        *(["columns are mapped: readers need reader version 2 of Delta"] if mapped else []),
    )


# --- the newest commit ---


def newest_info(prepared: Prepared) -> dict[str, Any]:
    """Return the commitInfo of the table's newest version, empty when it cannot be told."""
    if prepared.version is None:
        return {}
    plan = prepared.plan
    content = plan.lake.read(plan.table, f"_delta_log/{prepared.version:020}.json") or b""
    for line in content.splitlines():
        found = json.loads(line).get("commitInfo")
        if isinstance(found, dict):
            return found
    return {}
