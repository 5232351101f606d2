"""Delta tables whose files an engine has written: schema, file statistics and the one commit.

An engine has written Parquet files under the table's location. This module says which Delta types the
engine's columns have, turns the statistics it reported into Delta's, and commits the files in one
transaction.

Sources of the rules: the Delta protocol (delta-io/delta, PROTOCOL.md: "Schema Serialization Format",
"Per-file Statistics", "Add File and Remove File"), and what deltalake 1.6.6 was seen to do.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import sql
from runtime.aws import Connection
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, GoldlakeError, UnreachableError

if TYPE_CHECKING:
    from deltalake import DeltaTable, Schema
    from deltalake.transaction import AddAction, CommitProperties

DeltaType = str | dict[str, Any]

# delta.dataSkippingNumIndexedCols: what Delta's own writers index. More columns make the log long, not the
# reads fast.
INDEXED_COLUMNS = 32
# Delta's own writers cut strings there (delta-io/delta, DataSkippingReader.MAX_STRING_PREFIX_LENGTH).
STRING_PREFIX = 32
# FailedError.code of a commit that is known not to be in the log, so that its files may be deleted.
NOT_COMMITTED = "NotCommitted"
EXPORT_ID = "goldlake.exportId"

_HIGHEST = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)
# Delta without column mapping takes none of these in a column name (Spark's ParquetSchemaConverter refuses
# them).
_BAD_COLUMN = re.compile(r"[ ,;{}()\n\t=]")
# As part of a location: `/` and `\` are folders to somebody, and delta-rs reads `#`, `?` and `%` as URL
# syntax and then commits to another place than the files', or to none.
_BAD_TABLE = re.compile(r"[/\\#?%\x00-\x1f\x7f]")

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
class Lake:
    """Where Delta tables lie: an S3 prefix or a local folder; table `t` is at `<root>/t`."""

    root: str
    aws: Connection | None = None

    @classmethod
    def at(cls, target: str, aws: Connection | None) -> Lake:
        """Return the lake at `s3://bucket/prefix` or at a local folder.

        Raises ConfigurationError for another scheme, for characters that delta-rs takes as URL syntax, and
        for S3 without a connection.
        """
        if "://" not in target:
            return cls(str(Path(target).resolve()))
        if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/\\#?%\x00-\x1f]+)*/?", target):
            raise ConfigurationError(f"target {target!r} is not an S3 URL (s3://bucket/prefix) or a local folder")
        if aws is None:
            raise ConfigurationError(f"target {target!r} is in S3, and no AWS connection is given")
        return cls(target.rstrip("/"), aws)

    @property
    def bucket(self) -> str:
        """The bucket's name; empty for a local folder."""
        return self.root.removeprefix("s3://").partition("/")[0] if self.aws else ""

    @property
    def prefix(self) -> str:
        """The keys' beginning below the bucket, without slashes at its ends; empty for a whole bucket."""
        return self.root.removeprefix("s3://").partition("/")[2] if self.aws else ""

    def location(self, table: str) -> str:
        """Return the URL or path of a table; raises ConfigurationError for a name that cannot be in one."""
        if not table or table in (".", "..") or _BAD_TABLE.search(table):
            raise ConfigurationError(
                f"table name {table!r} cannot be part of a location: it may hold none of / \\ # ? %"
            )
        return f"{self.root}/{table}"

    def key(self, table: str, name: str) -> str:
        """Return the S3 key of one of the table's files."""
        return "/".join(part for part in (self.prefix, table, name) if part)

    def storage_options(self) -> dict[str, str] | None:
        """Return delta-rs' options: None for a local folder.

        delta-rs would try for three minutes; a caller with a deadline wants to know earlier.
        """
        if self.aws is None:
            return None
        return {
            **self.aws.storage_options(),
            "max_retries": "5",
            "retry_timeout": "60s",
            "connect_timeout": "5s",
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


@dataclass(frozen=True)
class DataFile:
    """A Parquet file under a table's location: its name, size in bytes, rows and Delta statistics (JSON)."""

    name: str
    size: int
    rows: int
    stats: str


@dataclass(frozen=True)
class Committed:
    """A commit that was read back from the log."""

    version: int
    rows: int
    files: int


# --- types ---


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


# --- statistics ---


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


# --- the log ---


def open_table(location: str, options: dict[str, str] | None, version: int | None = None) -> DeltaTable | None:
    """Return the table at a location, None when there is no Delta log. Raises as `translated` does."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    with translated(f"Delta table {location}"):
        try:
            return DeltaTable(location, version=version, storage_options=options)
        except TableNotFoundError:
            return None


def log_rows(table: DeltaTable) -> int | None:
    """Return the rows of the loaded version by its add actions; None when a file has no row count."""
    counts = table.get_add_actions().column("num_records").to_pylist()
    return None if None in counts else sum(counts)


def check_writable(table: DeltaTable, location: str) -> None:
    """Raise ConfigurationError for a table of someone else that v0 cannot overwrite rightly."""
    details = table.metadata()
    settings = details.configuration
    obstacles = [
        *(["partition columns " + ", ".join(details.partition_columns)] if details.partition_columns else []),
        *(["column mapping"] if settings.get("delta.columnMapping.mode", "none") != "none" else []),
        *(["appendOnly"] if settings.get("delta.appendOnly") == "true" else []),
        *(["constraints"] if any(name.startswith("delta.constraints.") for name in settings) else []),
    ]
    if obstacles:
        raise ConfigurationError(
            f"the Delta table at {location} has {' and '.join(obstacles)}, which an export does not write",
            hint="export to another location",
        )


def commit(
    location: str,
    columns: Sequence[Column],
    files: Sequence[DataFile],
    *,
    export_id: str,
    options: dict[str, str] | None,
    info: Mapping[str, str],
    written_at_ms: int,
) -> Committed:
    """Make `files` the table's whole content in one commit, and return the commit as read back from the log.

    A missing table is created by the same commit. Otherwise old files are removed and new ones added; a
    changed schema goes into the same commit (deltalake's create_write_transaction adds a metaData action),
    and older versions stay readable with theirs. `info` is kept in the log as commitInfo.

    Raises FailedError with code NOT_COMMITTED when another writer was faster: then nothing of this export
    is in the log. Raises FailedError when the log has not the rows that were written, others as
    `translated` does.
    """
    from deltalake.transaction import AddAction, CommitProperties

    table = open_table(location, options)
    if table is not None:
        check_writable(table, location)
    actions = [AddAction(file.name, file.size, {}, written_at_ms, True, file.stats) for file in files]
    # No retry on a newer version: deltalake 1.6.6 then keeps the other writer's files beside ours. Two
    # exporters that create a table at once both succeeded so, and the table had the rows of both.
    properties = CommitProperties(custom_metadata={**info, EXPORT_ID: export_id}, max_commit_retries=0)
    try:
        with translated(f"commit to {location}"):
            _write(location, table, schema_of(columns), actions, options=options, properties=properties)
    except GoldlakeError as exc:
        # The answer to a commit can be lost on its way, and a retry then sees "already there": the log
        # decides.
        committed = find_commit(location, options, export_id)
        if committed is None and isinstance(exc, FailedError):
            raise _not_committed(location, exc) from exc
        if committed is None:
            raise
    else:
        committed = find_commit(location, options, export_id)
    expected = sum(file.rows for file in files)
    if committed is None or committed.rows != expected or committed.files != len(files):
        raise FailedError(
            f"{expected} rows in {len(files)} files were committed to {location}, and its log has {committed}"
        )
    return committed


def _write(
    location: str,
    table: DeltaTable | None,
    schema: Schema,
    actions: list[AddAction],
    *,
    options: dict[str, str] | None,
    properties: CommitProperties,
) -> None:
    """Send the commit."""
    from deltalake.transaction import create_table_with_add_actions

    if table is None:
        create_table_with_add_actions(
            location, schema, actions, mode="error", storage_options=options, commit_properties=properties
        )
    else:
        table.create_write_transaction([*actions], "overwrite", schema, commit_properties=properties)


def _not_committed(location: str, exc: FailedError) -> FailedError:
    """Return the error for a commit that was refused and that the log does not have."""
    if re.search(r"Failed to commit transaction|already exists", exc.message):
        message = f"another writer changed {location} during this export, of which nothing is in the table"
        return FailedError(message, hint="run the export again", code=NOT_COMMITTED)
    return FailedError(exc.message, code=NOT_COMMITTED)


def find_commit(location: str, options: dict[str, str] | None, export_id: str) -> Committed | None:
    """Return the commit of an export among the table's newest hundred, None when it is not there."""
    newest = open_table(location, options)
    if newest is None:
        return None
    with translated(f"Delta log of {location}"):
        for entry in newest.history(100):
            if entry.get(EXPORT_ID) == export_id:
                newest.load_as_version(int(entry["version"]))
                return Committed(newest.version(), log_rows(newest) or 0, newest.get_add_actions().num_rows)
    return None


def goldlake_version() -> str:
    """Return Goldlake's version; `unknown` where it runs from copied sources, as in a Lambda package."""
    try:
        return metadata.version("goldlake")
    except metadata.PackageNotFoundError:
        return "unknown"


@contextlib.contextmanager
def translated(action: str) -> Iterator[None]:
    """Raise what delta-rs raises inside the block as Goldlake's errors; `action` says what was tried.

    Connections and 5xx become UnreachableError, 401 and 403 AccessDeniedError, all else FailedError.
    """
    from deltalake.exceptions import DeltaError

    try:
        yield
    except (DeltaError, OSError) as exc:
        raise _goldlake_error(action, str(exc)) from exc


def _goldlake_error(action: str, text: str) -> GoldlakeError:
    """Return the error for delta-rs' text, which is all that it gives; S3's own answer is in it."""
    answer = re.search(r"<Code>(\w+)</Code>\s*<Message>(.*?)</Message>", text, re.DOTALL)
    code = answer[1] if answer else None
    message = f"{action}: {answer[2]} ({code})" if answer else f"{action}: {_one_line(text)}"
    if re.search(r"\b40[13] (Forbidden|Unauthorized)|AccessDenied|SignatureDoesNotMatch|InvalidAccessKeyId", text):
        return AccessDeniedError(message, code=code)
    if re.search(r"error sending request|\b50[0234] |\b429 |SlowDown|timed out|dns error", text):
        return UnreachableError(message, code=code)
    return FailedError(message, code=code)


def _one_line(text: str) -> str:
    """Return delta-rs' message without colours, stack trace and line breaks, at most 400 characters."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", re.split(r"\n\s+0: ", text)[0])
    return " ".join(plain.split()).replace(" ↳", ":")[:400]
