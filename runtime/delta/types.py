"""Which Delta types an engine's columns have, how columns are mapped, and how a table's schema may change.

Source of the rules: the Delta protocol (delta-io/delta, PROTOCOL.md: "Schema Serialization Format", "Column
Mapping", "Timestamp without timezone"). docs/export-types.md has the table of types for people.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from runtime import sql
from runtime.errors import ConfigurationError

if TYPE_CHECKING:
    from deltalake import Schema

DeltaType = str | dict[str, Any]
Field = dict[str, Any]

PHYSICAL_NAME = "delta.columnMapping.physicalName"
MAPPING_ID = "delta.columnMapping.id"
MAX_MAPPING_ID = "delta.columnMapping.maxColumnId"

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
    "TIMESTAMP": "timestamp_ntz",
    "TIMESTAMP WITH TIME ZONE": "timestamp",
}
# What the SELECT casts, each without loss, or with an error that stops the export: a HUGEINT has up to 39
# digits and Delta's widest number 38, and sum() makes a HUGEINT of every BIGINT, so that refusing the type
# would refuse most totals. DuckDB itself would write it as DOUBLE and lose digits.
_CASTS: dict[str, str] = {
    "UTINYINT": "SMALLINT",
    "USMALLINT": "INTEGER",
    "UINTEGER": "BIGINT",
    "UBIGINT": "DECIMAL(20,0)",
    "HUGEINT": "DECIMAL(38,0)",
    "UHUGEINT": "DECIMAL(38,0)",
    "UUID": "VARCHAR",
    "JSON": "VARCHAR",
    "ENUM": "VARCHAR",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
}
_NAMELESS = "a struct whose fields have no names"
_HINTS: dict[str, str] = {
    _NAMELESS: "name them in the model: struct_pack(a := …)",
    "BIGNUM": "cast it in the model to decimal(38, 0) or varchar",
    "GEOMETRY": "export ST_AsWKB(…) as blob or ST_AsText(…) as varchar",
    "INTERVAL": "cast it to varchar in the model, or export its seconds: epoch(…)",
    "NULL": "give the column a type in the model: CAST(NULL AS varchar)",
    "TIMESTAMP_NS": "Delta has microseconds: cast it to timestamp in the model, which cuts the rest",
    "UNION": "export its members as columns of their own",
    "VARIANT": "cast it to json in the model",
}
_HINT = "cast it to varchar in the model"
_TOKEN = re.compile(r"""\s*("(?:[^"]|"")*"|'(?:[^']|'')*'|[(),\[\]]|[^\s"'(),\[\]]+)""")


@dataclass(frozen=True)
class Column:
    """A column of an exported table. `cast` is the DuckDB type that the SELECT casts it to, if any.

    `physical` is its name in the Parquet files of a table with column mapping. There the structs inside
    `type` have their physical names in the fields' metadata.
    """

    name: str
    type: DeltaType
    cast: str | None = None
    comment: str | None = None
    nullable: bool = True
    physical: str | None = None
    mapping_id: int | None = None

    @property
    def expression(self) -> str:
        """The column in a SELECT list, under the name that it has in the Parquet file."""
        name = sql.identifier(self.name)
        value = f"CAST({name} AS {self.cast})" if self.cast else name
        value = _with_physical_names(value, self.type)
        target = sql.identifier(self.physical or self.name)
        return target if value == target else f"{value} AS {target}"


# --- From DuckDB's types to Delta's ---


def column(
    name: str, duckdb_type: str, comment: str | None = None, *, ntz: bool = False, mapped: bool = False
) -> Column:
    """Return how a DuckDB column becomes a Delta one.

    `duckdb_type` is as DESCRIBE prints it. A timestamp without zone is taken as UTC: Delta's own type for it
    (timestamp_ntz) asks for reader version 3, which Athena and older Trino servers don't have everywhere;
    `ntz` asks for it. `mapped` allows any name, for a table with column mapping.

    Raises ConfigurationError naming column and type for types that Delta does not have (INTERVAL, TIME, BIT,
    UNION…), for names that Delta without column mapping refuses, in structs too, and for names that no SQL
    identifier can hold.
    """
    sql.identifier(name)
    if not mapped and needs_mapping(name):
        raise _bad_name(f"column {name!r}")
    try:
        delta_type, written, changed = _Reader(duckdb_type, ntz=ntz, mapped=mapped).read()
    except _UnknownTypeError as exc:
        raise ConfigurationError(
            f"column {name!r} has type {duckdb_type}, and Delta Lake has no type for {exc.kind}", hint=exc.hint
        ) from None
    except ConfigurationError as exc:
        raise ConfigurationError(f"column {name!r}: {exc.message}", hint=exc.hint) from None
    return Column(name, delta_type, written if changed else None, comment)


def needs_mapping(name: str) -> bool:
    """Return whether Delta takes a column of this name only with column mapping."""
    return _BAD_COLUMN.search(name) is not None


def _bad_name(what: str) -> ConfigurationError:
    """Return the error for a name that only column mapping allows."""
    return ConfigurationError(
        f"{what} cannot be exported: Delta column names hold no spaces and none of ,;{{}}()=",
        hint="rename it in the model, or export with column mapping",
    )


class _UnknownTypeError(Exception):
    """A type that Delta has none for; `kind` is the innermost one."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.hint = _HINTS.get(kind, _HINT)


# A Delta type, the DuckDB type that is written, and whether that is another one than was read.
_Read = tuple[DeltaType, str, bool]


class _Reader:
    """Reads one type as DuckDB prints it: `STRUCT("a b" UUID[], c MAP(VARCHAR, ENUM('x', 'y')))`."""

    def __init__(self, text: str, *, ntz: bool, mapped: bool) -> None:
        self._text = text
        self._tokens = [match[1] for match in _TOKEN.finditer(text)]
        self._ntz = ntz
        self._mapped = mapped

    def read(self) -> _Read:
        """Return the whole text's type."""
        found = self._type()
        if self._tokens:
            raise _UnknownTypeError(self._text)
        return found

    def _next(self, expected: str | None = None) -> str:
        """Take a token, which is the expected one."""
        if not self._tokens or (expected is not None and self._tokens[0] != expected):
            raise _UnknownTypeError(self._text)
        return self._tokens.pop(0)

    def _at(self, token: str) -> bool:
        return bool(self._tokens) and self._tokens[0] == token

    def _type(self) -> _Read:
        """Take a type with the brackets behind it: `INTEGER[3][]` is a list of arrays."""
        found = self._unbracketed()
        while self._at("["):
            self._next("[")
            # An array of a fixed size is written as a list: Delta has lists of any size only.
            sized = not self._at("]")
            if sized:
                self._next()
            self._next("]")
            delta_type, written, changed = found
            array = {"type": "array", "elementType": delta_type, "containsNull": True}
            found = (array, f"{written}[]", changed or sized)
        return found

    def _unbracketed(self) -> _Read:
        """Take a type's name and what is in parentheses behind it."""
        words = [self._next()]
        while self._tokens and self._tokens[0] not in ("(", ")", ",", "[", "]"):
            words.append(self._next())
        kind = " ".join(words).strip('"')
        if kind == "STRUCT" and self._at("("):
            return self._struct()
        if kind == "MAP" and self._at("("):
            return self._map()
        return self._scalar(kind, self._arguments())

    def _arguments(self) -> list[str]:
        """Take all that is in parentheses, if there are any."""
        taken: list[str] = []
        depth = 0
        while self._at("(") or depth:
            taken.append(self._next())
            depth += {"(": 1, ")": -1}.get(taken[-1], 0)
        return taken

    def _scalar(self, kind: str, arguments: list[str]) -> _Read:
        """Return a type that holds no other."""
        if kind == "DECIMAL" and len(arguments) == 5:
            written, changed = f"DECIMAL({arguments[1]},{arguments[3]})", False
        else:
            written = _CASTS.get(kind, kind)
            if written == "TIMESTAMP" and not self._ntz:
                written = "TIMESTAMP WITH TIME ZONE"
            changed = written != kind
        if decimal := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", written):
            return f"decimal({decimal[1]},{decimal[2]})", written, changed
        if written not in _PLAIN:
            raise _UnknownTypeError(kind)
        return _PLAIN[written], written, changed

    def _struct(self) -> _Read:
        """Take a struct's fields: its name is read already."""
        fields: list[Field] = []
        parts: list[str] = []
        any_changed = False
        opening = "("
        while not self._at(")"):
            self._next(opening)
            name = self._field_name()
            delta_type, written, changed = self._type()
            fields.append({"name": name, "type": delta_type, "nullable": True, "metadata": {}})
            parts.append(f"{sql.identifier(name)} {written}")
            any_changed = any_changed or changed
            opening = ","
        self._next(")")
        _check_distinct([field["name"] for field in fields], "fields")
        return {"type": "struct", "fields": fields}, f"STRUCT({', '.join(parts)})", any_changed

    def _field_name(self) -> str:
        """Take the name of a struct's field. A struct made by row() has none, which Delta asks for."""
        token = self._next()
        if not self._tokens or self._tokens[0] in (")", ",", "[", "("):
            raise _UnknownTypeError(_NAMELESS)
        name = token[1:-1].replace('""', '"') if token.startswith('"') else token
        if not self._mapped and needs_mapping(name):
            raise _bad_name(f"field {name!r}")
        return name

    def _map(self) -> _Read:
        """Take a map's two types: its name is read already."""
        self._next("(")
        key, key_written, key_changed = self._type()
        self._next(",")
        value, value_written, value_changed = self._type()
        self._next(")")
        found = {"type": "map", "keyType": key, "valueType": value, "valueContainsNull": True}
        return found, f"MAP({key_written}, {value_written})", key_changed or value_changed


def check_names(columns: Sequence[Column]) -> None:
    """Raise ConfigurationError for columns that differ in case only: Delta's names are case-insensitive."""
    _check_distinct([item.name for item in columns], "columns")
    if not columns:
        raise ConfigurationError("a table without columns cannot be exported")


def _check_distinct(names: Sequence[str], what: str) -> None:
    """Raise ConfigurationError for two names that are one to Delta."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            other = seen[name.lower()]
            raise ConfigurationError(f"{what} {other!r} and {name!r} differ in case only, which Delta refuses")
        seen[name.lower()] = name


# --- Schemas ---


def schema_fields(columns: Sequence[Column]) -> list[Field]:
    """Return the fields of a Delta schema, JSON-ready; comments and column mapping are in their metadata."""
    return [
        {
            "name": item.name,
            "type": item.type,
            "nullable": item.nullable,
            "metadata": {
                **({"comment": item.comment} if item.comment else {}),
                **({MAPPING_ID: item.mapping_id} if item.mapping_id is not None else {}),
                **({PHYSICAL_NAME: item.physical} if item.physical is not None else {}),
            },
        }
        for item in columns
    ]


def fields_of(schema: Schema) -> list[Field]:
    """Return a Delta schema's fields as its JSON has them."""
    fields: list[Field] = json.loads(schema.to_json())["fields"]
    return fields


def features_of(fields: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return the table features that the fields ask for, as the protocol names them.

    Both are of readers and writers: `timestampNtz` and `columnMapping`.
    """
    found: set[str] = set()
    for field in _all_fields(fields):
        if PHYSICAL_NAME in field.get("metadata", {}):
            found.add("columnMapping")
        if field["type"] == "timestamp_ntz":
            found.add("timestampNtz")
    return frozenset(found)


def _all_fields(fields: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the fields and those within, elements, keys and values as fields without names."""
    for field in fields:
        yield field
        delta_type = field["type"]
        if isinstance(delta_type, dict):
            parts = [{"type": delta_type[part]} for part in _PARTS if part in delta_type]
            yield from _all_fields(delta_type.get("fields", parts))


_PARTS = ("elementType", "keyType", "valueType")


def type_text(delta_type: DeltaType) -> str:
    """Return a Delta type as Hive writes it: `bigint`, `array<string>`, `struct<a:int>`.

    Glue and Athena take the same spelling (Athena user guide, "Data types in Amazon Athena").
    """
    return _text(delta_type, full=False)


_HIVE_NAMES = {
    "byte": "tinyint",
    "short": "smallint",
    "integer": "int",
    "long": "bigint",
    "timestamp_ntz": "timestamp",
}


def _text(delta_type: DeltaType, *, full: bool = True) -> str:
    """Return a type in Hive's form; with `full` also what Hive has no word for: timestamp_ntz, not null."""
    if isinstance(delta_type, str):
        return delta_type if full and delta_type == "timestamp_ntz" else _HIVE_NAMES.get(delta_type, delta_type)

    def part(name: str, contains_null: bool) -> str:
        return _text(delta_type[name], full=full) + (" not null" if full and not contains_null else "")

    if delta_type["type"] == "array":
        return f"array<{part('elementType', delta_type.get('containsNull', True))}>"
    if delta_type["type"] == "map":
        return f"map<{part('keyType', True)},{part('valueType', delta_type.get('valueContainsNull', True))}>"
    fields = ",".join(f"{field['name']}:{_field_text(field, full=full)}" for field in delta_type["fields"])
    return f"struct<{fields}>"


def schema_changes(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what differs between two lists of schema fields, a line each; empty when nothing does."""
    before = {field["name"]: _field_text(field) for field in old}
    after = {field["name"]: _field_text(field) for field in new}
    return [
        *(f"- {name} {kind}" for name, kind in before.items() if name not in after),
        *(f"+ {name} {kind}" for name, kind in after.items() if name not in before),
        *(f"~ {name} {before[name]} -> {kind}" for name, kind in after.items() if before.get(name, kind) != kind),
    ]


def _field_text(field: Mapping[str, Any], *, full: bool = True) -> str:
    """Return a field's type, and its nullability in full."""
    return _text(field["type"], full=full) + (" not null" if full and not field.get("nullable", True) else "")


# --- A table's schema after a commit that keeps its rows ---


def evolve(existing: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]], *, merge: bool) -> list[Field]:
    """Return the fields that a table has after files with the `wanted` fields were added to it.

    These are the existing ones in their order with all their metadata; with `merge` the new nullable ones
    follow, within structs too, and comments are taken over. All else is refused by ConfigurationError with a
    line for each difference (`+ name type`, `- name type`, `~ name old -> new`): rows of the older files have
    the older types, and no reader may guess.
    """
    lines: list[str] = []
    fields = _evolved(existing, wanted, "", merge, lines)
    if lines:
        raise ConfigurationError(
            "the schema differs from the table's:\n" + "\n".join(f"  {line}" for line in lines),
            hint="new nullable columns are allowed with schema mode merge, any schema with overwrite",
        )
    return fields


def _evolved(
    existing: Sequence[Mapping[str, Any]],
    wanted: Sequence[Mapping[str, Any]],
    path: str,
    merge: bool,
    lines: list[str],
) -> list[Field]:
    """Return the fields after the change, and append what is not allowed to `lines`."""
    by_name = {field["name"].lower(): field for field in wanted}
    known = {field["name"].lower() for field in existing}
    fields: list[Field] = []
    for old in existing:
        new = by_name.get(old["name"].lower())
        if new is None:
            lines.append(f"- {path}{old['name']} {_field_text(old)}")
            continue
        field = dict(old)
        if new["name"] != old["name"]:
            # Parquet's names have a case: a reader would find nothing in the new files.
            lines.append(f"~ {path}{old['name']} {_field_text(old)} -> {new['name']} {_field_text(new)}")
        elif old.get("nullable", True) != new.get("nullable", True) or not _same_kind(old["type"], new["type"]):
            lines.append(f"~ {path}{old['name']} {_field_text(old)} -> {_field_text(new)}")
        else:
            field["type"] = _evolved_type(old["type"], new["type"], f"{path}{old['name']}", merge, lines)
        if merge and new.get("metadata", {}).get("comment"):
            field["metadata"] = {**old.get("metadata", {}), "comment": new["metadata"]["comment"]}
        fields.append(field)
    added = [dict(new) for new in wanted if new["name"].lower() not in known]
    refused = [new for new in added if not merge or not new.get("nullable", True)]
    lines += [f"+ {path}{new['name']} {_field_text(new)}" for new in refused]
    return fields + added


def _same_kind(old: DeltaType, new: DeltaType) -> bool:
    """Return whether two types are equal, or hold others that may be."""
    if isinstance(old, str) or isinstance(new, str):
        return old == new
    flags = ("type", "containsNull", "valueContainsNull")
    return [old.get(flag) for flag in flags] == [new.get(flag) for flag in flags]


def _evolved_type(old: DeltaType, new: DeltaType, path: str, merge: bool, lines: list[str]) -> DeltaType:
    """Return the type after the change; both are of the same kind."""
    if isinstance(old, str) or isinstance(new, str):
        return old
    if old["type"] == "struct":
        return {**old, "fields": _evolved(old["fields"], new["fields"], f"{path}.", merge, lines)}
    changed = dict(old)
    for part in _PARTS:
        if part not in old:
            continue
        where = f"{path}.{part.removesuffix('Type')}"
        if _same_kind(old[part], new[part]):
            changed[part] = _evolved_type(old[part], new[part], where, merge, lines)
        else:
            lines.append(f"~ {where} {_text(old[part])} -> {_text(new[part])}")
    return changed


# --- Column mapping ---


def new_physical_name() -> str:
    """Return a physical name that no other column has, in the form of Delta's own writers."""
    return f"col-{uuid.uuid4()}"


def assign_mapping(
    fields: Sequence[Mapping[str, Any]],
    existing: Sequence[Mapping[str, Any]] = (),
    *,
    max_id: int = 0,
    new_name: Callable[[], str] = new_physical_name,
) -> tuple[list[Field], int]:
    """Return the fields with the ids and physical names of column mapping, and the new maxColumnId.

    Fields that have them keep them; those of `existing`, the table's fields, are taken over by fields of the
    same name and kind of type. `max_id` is the table's delta.columnMapping.maxColumnId: an id is never used
    twice, not even for a column that was dropped. The fields of structs are mapped too, at any depth.
    """
    used = [field.get("metadata", {}).get(MAPPING_ID, 0) for field in _all_fields([*fields, *existing])]
    ids = _Ids(max([max_id, *used]))
    return [_mapped_field(field, existing, ids, new_name) for field in fields], ids.last


class _Ids:
    """The ids of column mapping, counting up."""

    def __init__(self, last: int) -> None:
        self.last = last

    def next(self) -> int:
        self.last += 1
        return self.last


def _mapped_field(
    field: Mapping[str, Any], existing: Sequence[Mapping[str, Any]], ids: _Ids, new_name: Callable[[], str]
) -> Field:
    """Return a field with its mapping, those within it too."""
    old = next((item for item in existing if item["name"].lower() == field["name"].lower()), None)
    if old is not None and not _same_kind(old["type"], field["type"]):
        old = None
    kept = {**(old or {}).get("metadata", {}), **field.get("metadata", {})}
    mapping = {
        MAPPING_ID: kept[MAPPING_ID] if MAPPING_ID in kept else ids.next(),
        PHYSICAL_NAME: kept[PHYSICAL_NAME] if PHYSICAL_NAME in kept else new_name(),
    }
    inner = _mapped_type(field["type"], old["type"] if old else None, ids, new_name)
    return {**field, "type": inner, "metadata": {**field.get("metadata", {}), **mapping}}


def _mapped_type(delta_type: DeltaType, old: DeltaType | None, ids: _Ids, new_name: Callable[[], str]) -> DeltaType:
    """Return a type whose structs' fields are mapped; `old` is the table's type of the same kind."""
    if isinstance(delta_type, str):
        return delta_type
    before = old if isinstance(old, dict) and old["type"] == delta_type["type"] else {}
    if delta_type["type"] == "struct":
        fields = [_mapped_field(field, before.get("fields", ()), ids, new_name) for field in delta_type["fields"]]
        return {**delta_type, "fields": fields}
    parts = {
        part: _mapped_type(delta_type[part], before.get(part), ids, new_name) for part in _PARTS if part in delta_type
    }
    return {**delta_type, **parts}


def map_columns(columns: Sequence[Column], fields: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return the columns with the mapping of a table's fields, so that they are written by physical names."""
    by_name = {field["name"].lower(): field for field in fields}
    mapped = []
    for item in columns:
        field = by_name[item.name.lower()]
        metadata = field.get("metadata", {})
        mapped.append(
            replace(item, type=field["type"], physical=metadata.get(PHYSICAL_NAME), mapping_id=metadata.get(MAPPING_ID))
        )
    return mapped


def physical_name(field: Mapping[str, Any]) -> str:
    """Return the name that a field has in Parquet files."""
    name: str = field.get("metadata", {}).get(PHYSICAL_NAME, field["name"])
    return name


def _with_physical_names(value: str, delta_type: DeltaType, depth: int = 0) -> str:
    """Return SQL for the value with its structs' fields renamed, the value itself when none is mapped.

    DuckDB casts structs by their fields' names, so a renamed one is put together anew; a null struct stays
    null.
    """
    if isinstance(delta_type, str) or "columnMapping" not in features_of([{"type": delta_type}]):
        return value
    if delta_type["type"] == "struct":
        members = ", ".join(
            f"{sql.identifier(physical_name(field))} := "
            + _with_physical_names(f"struct_extract({value}, {sql.literal(field['name'])})", field["type"], depth)
            for field in delta_type["fields"]
        )
        return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({members}) END"
    item = f"item{depth}"
    if delta_type["type"] == "array":
        element = _with_physical_names(item, delta_type["elementType"], depth + 1)
        return f"list_transform({value}, lambda {item}: {element})"
    key = _with_physical_names(f"{item}.key", delta_type["keyType"], depth + 1)
    content = _with_physical_names(f"{item}.value", delta_type["valueType"], depth + 1)
    pair = f"struct_pack(key := {key}, value := {content})"
    return f"map_from_entries(list_transform(map_entries({value}), lambda {item}: {pair}))"
