"""Engine `ctas`: Trino writes a table as Parquet under its Delta location, by CREATE TABLE … AS.

    CREATE TABLE <delta catalogue>.goldlake_staging.export_<id>
        WITH (location = '<location>/<export id>', partitioned_by = …) AS SELECT …
    _delta_log/0 of that table --> DataFiles with Trino's statistics, for the commit
    unregister_table, delete that log: the files stay, and belong to nobody until the commit

Trino does not write the table itself, but one of its own below it, that nobody else knows. So modes, schema changes,
partial overwrites, properties and the commit's conflicts are Goldlake's, as with every engine, and the table needs no
entry in Trino beforehand: CREATE TABLE refuses a location that has a Delta log, and CREATE OR REPLACE and INSERT want
the table registered.

Source of the rules: Trino 476, Delta Lake connector ("Type mapping", "Schema and table management") and the SQL
language's types.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from runtime import sql
from runtime.delta import statistics as delta_statistics
from runtime.delta import types as delta_types
from runtime.delta.commit import DataFile
from runtime.delta.types import Column, DeltaType
from runtime.errors import ConfigurationError, FailedError, GoldlakeError
from runtime.export import engine
from runtime.export.engine import TablePlan
from runtime.export.unload import HEXADECIMAL, from_hexadecimal
from runtime.trino import Rows, TrinoOptions, TrinoServer

STAGING_SCHEMA = "goldlake_staging"
SOURCE_FORM = "a Trino source has the form trino[+https]://user[:password]@host:port/catalogue/schema"
# A statement of hours is no fault: Trino's own query.max-execution-time is the limit.
NO_TIMEOUT = 0.0
# Digits of a second that Delta's timestamps have.
MICROSECONDS = 6
# Texts that are a partition's value as they stand. `$` would be good for a line break at the end too.
_PLAIN_TEXT = r"^[A-Za-z0-9][A-Za-z0-9._-]*\z"

_PLAIN: dict[str, DeltaType] = {
    "boolean": "boolean",
    "tinyint": "byte",
    "smallint": "short",
    "integer": "integer",
    "bigint": "long",
    "real": "float",
    "double": "double",
    "varchar": "string",
    "varbinary": "binary",
    "date": "date",
}
_HINTS: dict[str, str] = {
    "char": "cast it to varchar in a view: Trino's connector has no char",
    "json": "inside another type it has no text: cast it to varchar in a view",
    "uuid": "inside another type it has no text: cast it to varchar in a view",
    "timestamp": "Delta has microseconds: cast it to timestamp(6) in a view, which rounds the rest",
}


class Server(Protocol):
    """What is needed of `runtime.trino.TrinoServer`."""

    @property
    def catalog(self) -> str:
        """The catalogue that the source is in."""

    def run(self, statement: str, *, timeout: float | None = None, properties: Mapping[str, str] | None = None) -> Rows:
        """Run one statement and return its rows."""


def parse_source(url: str, options: TrinoOptions | None = None) -> tuple[TrinoServer, str]:
    """Return server (with the source's catalogue) and schema of `trino://user@host:port/catalogue/schema`.

    `trino+https://` is with TLS, which a password or token needs. Raises ConfigurationError for another form; the
    message never holds the URL, which may hold a password.
    """
    scheme, separator, rest = url.partition("://")
    schemes = {"trino": "http", "trino+https": "https"}
    try:
        parts = [part for part in urlsplit(f"http://{rest}").path.split("/") if part]
    except ValueError:
        raise ConfigurationError(SOURCE_FORM) from None
    if not separator or scheme not in schemes or len(parts) != 2 or "?" in rest or "#" in rest:
        raise ConfigurationError(SOURCE_FORM)
    place = rest.rstrip("/").rpartition("/")[0]
    return TrinoServer.at(f"{schemes[scheme]}://{place}", options), unquote(parts[1])


def source_tables(server: Server, schema: str) -> dict[str, bool]:
    """Return the schema's tables and views by name, each with whether it is a table; none for no such schema."""
    rows = server.run(
        f"SELECT table_name, table_type = 'BASE TABLE' FROM {sql.qualified(server.catalog)}.information_schema.tables"  # noqa: S608 - quoted
        f" WHERE table_schema = {sql.literal(schema)}"
    )
    return {str(name): bool(is_table) for name, is_table in rows}


def source_columns(server: Server, schema: str, table: str) -> tuple[Column, ...]:
    """Return the table's columns with the Delta types that they become, and their comments."""
    rows = server.run(f"DESCRIBE {sql.qualified(server.catalog, schema, table)}")
    return tuple(column(str(name), str(kind), str(comment or "") or None) for name, kind, _, comment in rows)


# --- types ---


def column(name: str, trino_type: str, comment: str | None = None) -> Column:
    """Return how a Trino column becomes a Delta one; `cast` is the source's type, which `expression` goes by.

    `trino_type` is as DESCRIBE prints it. Raises ConfigurationError naming column and type for those that Delta, or
    Trino's connector for it, does not have.
    """
    found = _top_level(_trino_type(trino_type))
    if found is None:
        raise ConfigurationError(
            f"column {name!r} has type {trino_type}, which cannot be exported",
            hint=next((hint for part, hint in _HINTS.items() if part in trino_type), "cast it to varchar in a view"),
        )
    return Column(name, found, trino_type, comment)


def expression(source: Column) -> str:
    """Return the SELECT's expression for a column of `column`, without alias.

    Timestamps are written as Parquet's microseconds without zone, in UTC: as a type with zone the connector keeps
    milliseconds only. Readers of Delta's `timestamp` take them as UTC.
    """
    name = sql.identifier(source.name)
    kind = _trino_type(source.cast or "")
    match kind.name:
        case "json":
            return f"json_format({name})"
        case "timestamp" if kind.zoned:
            return f"CAST(at_timezone({name}, 'UTC') AS timestamp(6))"
        case "uuid" | "char" | "timestamp" | "varchar" | "array" | "map" | "row":
            return f"CAST({name} AS {_written(kind)})"
        case _:
            return name


def partition_expression(source: Column) -> str:
    """Return the expression for a partition column.

    Trino refuses texts that are not ASCII (HIVE_INVALID_PARTITION_VALUE), so odd ones are written as UNLOAD's are: `_x`
    and the hexadecimal digits of their UTF-8.
    """
    value = expression(source)
    if source.type != "string":
        return value
    digits = f"lower(to_hex(to_utf8({value})))"
    return (
        f"CASE WHEN regexp_like({value}, {sql.literal(_PLAIN_TEXT)}) THEN {value}"
        f" WHEN {value} IS NOT NULL THEN {sql.literal(HEXADECIMAL)} || {digits} END"
    )


@dataclass(frozen=True)
class _Type:
    """A Trino type: its name, numbers in brackets, and the types inside, by field name for a row."""

    name: str
    numbers: tuple[int, ...] = ()
    inside: tuple[tuple[str, _Type], ...] = ()
    zoned: bool = False

    @property
    def digits(self) -> int:
        """A timestamp's digits of a second; 3 when it does not say."""
        return self.numbers[0] if self.numbers else 3


def _trino_type(text: str) -> _Type:
    """Return a type's parts. A type that is not known keeps its text as its name."""
    parsed = re.fullmatch(r"(array|map|row)\((.*)\)", text, re.DOTALL)
    if parsed:
        parts = _split(parsed[2])
        if parsed[1] == "row":
            fields = tuple(_row_field(part) for part in parts)
            return _Type("row", inside=fields) if all(name for name, _ in fields) else _Type(text)
        return _Type(parsed[1], inside=tuple(("", _trino_type(part)) for part in parts))
    stamp = re.fullmatch(r"timestamp(?:\((\d+)\))?( with time zone)?", text)
    if stamp:
        return _Type("timestamp", (int(stamp[1]),) if stamp[1] else (), zoned=bool(stamp[2]))
    plain = re.fullmatch(r"(\w+)(?:\((\d+(?:,\s*\d+)*)\))?", text)
    if plain is None:
        return _Type(text)
    return _Type(plain[1], tuple(int(number) for number in plain[2].split(",")) if plain[2] else ())


def _split(text: str) -> list[str]:
    """Return the parts between the commas that are in no brackets and no quotes."""
    parts, depth, quoted, start = [], 0, False, 0
    for index, sign in enumerate(text):
        quoted ^= sign == '"'
        depth += 0 if quoted else (sign == "(") - (sign == ")")
        if sign == "," and not depth and not quoted:
            parts.append(text[start:index].strip())
            start = index + 1
    return [*parts, text[start:].strip()]


def _row_field(text: str) -> tuple[str, _Type]:
    """Return a row's field, `name type` or `"name" type`; an empty name for one that has none."""
    parsed = re.match(r'(?:"((?:[^"]|"")*)"|(\w+))\s+', text)
    if parsed is None:
        return "", _trino_type(text)
    return (parsed[1] or parsed[2] or "").replace('""', '"'), _trino_type(text[parsed.end() :])


def _top_level(kind: _Type) -> DeltaType | None:
    """Return the Delta type of a column's type; None when there is none."""
    match kind.name:
        case "json" | "uuid" | "char":
            return "string"
        case "timestamp":
            return "timestamp" if kind.digits <= MICROSECONDS else None
        case _:
            return _delta_type(kind)


def _delta_type(kind: _Type) -> DeltaType | None:
    """Return the Delta type of a type that may stand inside others; None when there is none."""
    match kind.name:
        case "decimal" if len(kind.numbers) == len(("precision", "scale")):
            return f"decimal({kind.numbers[0]},{kind.numbers[1]})"
        case "timestamp":
            # One with zone is another moment's text when it is cast inside an array.
            return None if kind.zoned else _top_level(kind)
        case "array" | "map" | "row":
            return _nested_type(kind)
        case _:
            return _PLAIN.get(kind.name)


def _nested_type(kind: _Type) -> DeltaType | None:
    """Return the Delta type of an array, map or row; None when a type inside has none."""
    inside = [(name, _delta_type(item)) for name, item in kind.inside]
    types = [found for _, found in inside]
    if None in types:
        return None
    if kind.name == "array":
        return {"type": "array", "elementType": types[0], "containsNull": True}
    if kind.name == "map":
        return {"type": "map", "keyType": types[0], "valueType": types[1], "valueContainsNull": True}
    fields = [{"name": name, "type": found, "nullable": True, "metadata": {}} for name, found in inside]
    return {"type": "struct", "fields": fields}


def _written(kind: _Type) -> str:
    """Return the Trino type that the SELECT casts to."""
    if kind.name in ("uuid", "char", "varchar"):
        return "varchar"
    if kind.name == "timestamp":
        return "timestamp(6)"
    inside = [f"{sql.identifier(name)} {_written(item)}" if name else _written(item) for name, item in kind.inside]
    numbers = ", ".join(map(str, kind.numbers))
    return f"{kind.name}({', '.join(inside) or numbers})" if inside or numbers else kind.name


# --- SQL ---


def select_statement(plan: TablePlan, catalog: str, sources: Sequence[Column]) -> str:
    """Return the SELECT: the plan's columns by their physical names, cast to what the connector writes.

    Raises ConfigurationError for a column that is gone or has become another type, and for names that Trino would
    write in lower case, where readers do not find them.
    """
    by_name = {source.name: source for source in sources}
    items = []
    for item in plan.columns:
        source, physical = by_name.get(item.name), plan.physical_name(item.name)
        if source is None:
            raise ConfigurationError(f"{plan.schema}.{plan.table} has no column {item.name!r}")
        if _text(item.type) != _text(source.type):
            raise ConfigurationError(
                f"column {item.name!r} of type {source.cast} is {_text(source.type)} by Trino, and {_text(item.type)}"
                " was planned"
            )
        if physical != physical.lower() or "physicalName" in json.dumps(item.type):
            raise ConfigurationError(
                f"column {item.name!r} is {physical!r} in the table's files: Trino writes names in lower case,"
                " and structs by their own names",
                hint="export to another location, or from another engine",
            )
        value = partition_expression(source) if item.name in plan.partition_by else expression(source)
        items.append(f"{value} AS {sql.identifier(physical)}")
    table = sql.qualified(catalog, plan.schema, plan.table)
    return f"SELECT {', '.join(items)} FROM {table}"  # noqa: S608 - quoted by runtime.sql


def _text(delta_type: DeltaType) -> str:
    """Return a type's text; of timestamps the kind is told apart, which Hive's spelling does not."""
    return delta_type if isinstance(delta_type, str) else delta_types.type_text(delta_type)


def create_statement(plan: TablePlan, staging: Sequence[str], select: str) -> str:
    """Return the CREATE TABLE … AS that writes below the table's location, in a folder of the export's own."""
    properties = [f"location = {sql.literal(f'{plan.location}/{plan.export_id}')}"]
    if plan.partition_by:
        names = ", ".join(sql.literal(plan.physical_name(name)) for name in plan.partition_by)
        properties.append(f"partitioned_by = ARRAY[{names}]")
    return f"CREATE TABLE {sql.qualified(*staging)} WITH ({', '.join(properties)}) AS {select}"


# --- the staging table's log ---


def data_files(plan: TablePlan, log: bytes, listed: Mapping[str, int]) -> tuple[DataFile, ...]:
    """Return the files with rows that the staging table's one commit adds, named relative to the plan's table.

    `listed` are names, relative to the plan's location, and sizes of the files that are there. Raises FailedError when
    the two do not agree.
    """
    actions = [json.loads(line, parse_float=_Number, parse_int=_Number) for line in log.decode().splitlines() if line]
    files = []
    for add in (action["add"] for action in actions if "add" in action):
        name, size = f"{plan.export_id}/{unquote(add['path'])}", int(add["size"].text)
        if listed.get(name) != size or "deletionVector" in add:
            raise FailedError(f"{plan.location}/{name}: Trino says {size} bytes, and there are {listed.get(name)}")
        rows, stats = _statistics(plan, add.get("stats"), name)
        if rows:
            values = _partition_values(plan, add.get("partitionValues", {}))
            files.append(DataFile(name, size, rows, stats, partition_values=values))
    return tuple(files)


def _partition_values(plan: TablePlan, written: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return a file's partition values by the columns' own names, texts as they were before `partition_expression`."""
    kinds = {column.name: column.type for column in plan.columns}
    found = {name: written[plan.physical_name(name)] for name in plan.partition_by}
    return {
        name: from_hexadecimal(name, value) if value is not None and kinds[name] == "string" else value
        for name, value in found.items()
    }


@dataclass(frozen=True)
class _Number:
    """A JSON number as it was written: a float would lose a decimal's digits."""

    text: str


def _statistics(plan: TablePlan, text: str | None, name: str) -> tuple[int, str]:
    """Return rows and statistics of a file, timestamps in the form of Delta's `timestamp`."""
    stats = json.loads(text or "{}", parse_float=_Number, parse_int=_Number)
    if "numRecords" not in stats:
        raise FailedError(f"{plan.location}/{name}: Trino gives no row count in the log")
    kinds = {plan.physical_name(column.name): column.type for column in plan.data_columns}
    for side in {"minValues", "maxValues"} & set(stats):
        bounds = {key: _bound(kinds.get(key), value, side) for key, value in stats[side].items()}
        stats[side] = {key: value for key, value in bounds.items() if value is not None}
    return int(stats["numRecords"].text), _json(stats)


def _bound(kind: DeltaType | None, value: Any, side: str) -> Any:
    """Return a bound as it goes into the log; None leaves it out, and readers then read the file.

    A nested one is left out: times inside would need their form changed too.
    """
    if kind is None or not isinstance(kind, str):
        return None
    upper = side == "maxValues"
    if kind == "string":
        return delta_statistics.upper_prefix(value) if upper else value[: delta_statistics.STRING_PREFIX]
    if kind != "timestamp":
        return value
    try:
        moment = datetime.fromisoformat(str(value)).replace(tzinfo=None)
    except ValueError:
        return None
    found = delta_statistics.timestamp_bound(f"{moment.isoformat(sep=' ')}+00", upper=upper)
    return None if found is None else json.loads(found)


def _json(value: Any) -> str:
    """Return a value as JSON, numbers as they were written."""
    if isinstance(value, _Number):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    return json.dumps(value)


# --- the engine ---


@dataclass(frozen=True, kw_only=True)
class CtasEngine:
    """Trino as an engine: one CREATE TABLE … AS for a table.

    `server` has the source's catalogue. `catalog` is one of Trino's Delta Lake connector that writes to the target's
    S3, the source's own when it is not given; `staging_schema` is made there when it is missing.
    """

    server: Server
    catalog: str | None = None
    staging_schema: str = STAGING_SCHEMA

    @property
    def name(self) -> str:
        """The engine's name."""
        return engine.CTAS

    def stage(self, plan: TablePlan) -> tuple[DataFile, ...]:
        """Let Trino write the table's rows under its location; return the files that have rows.

        A failure drops the staging table's entry and deletes whatever is below the export's folder. Raises as
        `TrinoServer.run` does, ConfigurationError for what Trino cannot write so, and FailedError when Trino's count,
        its log and the files do not agree.
        """
        _check(plan)
        staging = (self.catalog or self.server.catalog, self.staging_schema, f"export_{plan.export_id}")
        sources = source_columns(self.server, plan.schema, plan.table)
        statement = create_statement(plan, staging, select_statement(plan, self.server.catalog, sources))
        self.server.run(f"CREATE SCHEMA IF NOT EXISTS {sql.qualified(*staging[:2])}")
        try:
            answer = self.server.run(statement, timeout=NO_TIMEOUT, properties=_session(staging[0], plan))
            files = _staged(plan, int(answer[0][0]))
            self._forget(staging)
        except BaseException:
            with contextlib.suppress(GoldlakeError):
                self._forget(staging)
            _delete(plan, keep=())
            raise
        _delete(plan, keep=[file.name for file in files])
        return files

    def _forget(self, staging: Sequence[str]) -> None:
        """Drop the staging table's entry; its files stay."""
        catalog, schema, table = staging
        self.server.run(
            f"CALL {sql.identifier(catalog)}.system.unregister_table("
            f"schema_name => {sql.literal(schema)}, table_name => {sql.literal(table)})"
        )


def _check(plan: TablePlan) -> None:
    """Raise ConfigurationError for a plan that Trino cannot carry out."""
    if plan.lake.aws is None:
        raise ConfigurationError(f"Trino writes to S3 only, and the target is {plan.lake.root!r}")
    if plan.order_by:
        raise ConfigurationError(
            f"{plan.schema}.{plan.table}: Trino does not keep an ORDER BY when it writes a table",
            hint="leave --order-by out, or export with another engine",
        )
    for item in plan.columns:
        if item.name in plan.partition_by and item.type == "timestamp":
            raise ConfigurationError(
                f"column {item.name!r}: Trino writes no partitions by timestamp that are UTC for all"
            )


def _session(catalog: str, plan: TablePlan) -> dict[str, str]:
    """Return the session's properties: the size of files, and their compression."""
    return {f"{catalog}.target_max_file_size": f"{plan.file_bytes}B", f"{catalog}.compression_codec": "ZSTD"}


def _staged(plan: TablePlan, rows: int) -> tuple[DataFile, ...]:
    """Return the files that the statement has left; FailedError unless they have the rows that Trino answered."""
    listed = {file.name: file.size for file in plan.lake.list_files(plan.table, f"{plan.export_id}/")}
    name = f"{plan.export_id}/_delta_log/{0:020}.json"
    log = plan.lake.read(plan.table, name)
    if log is None:
        raise FailedError(
            f"Trino has written {rows} rows, and {plan.location}/{name} is not there",
            hint="the catalogue has to write to the S3 that the target is in",
        )
    files = data_files(plan, log, listed)
    if sum(file.rows for file in files) != rows:
        raise FailedError(f"Trino answered {rows} rows for {plan.location}, and its log has {files}")
    return files


def _delete(plan: TablePlan, *, keep: Sequence[str]) -> None:
    """Delete what is below the export's folder but for some files, as far as that works: it costs storage only."""
    with contextlib.suppress(GoldlakeError):
        listed = [file.name for file in plan.lake.list_files(plan.table, f"{plan.export_id}/")]
        plan.lake.delete(plan.table, [name for name in listed if name not in set(keep)])
