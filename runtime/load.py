"""A user's own Parquet, CSV or JSON-lines files as the content of a silver table.

All files are checked before the first is written, and all faults are told at once. Text (CSV, JSON) is cast
to the table's types; what cannot be cast is a fault, with the value and its row.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from runtime import glue, parquet, sql
from runtime.aws import Connection
from runtime.errors import ConfigurationError
from runtime.silver import Column, SilverTable

if TYPE_CHECKING:
    import duckdb

SCHEMA = "goldlake.load/1"
EXAMPLES = 3
# A wrong file has as many faults as columns; a folder of wrong files should not fill the screen.
MAX_FAULTS = 50
MAX_EXAMPLE_CHARACTERS = 60
DELIMITERS = (",", ";", "\t", "|")
# A description of a posting can be long; DuckDB's own limit is 2 MB.
MAX_CSV_LINE = 16 * 1024 * 1024

Format = Literal["parquet", "csv", "json"]
_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".jsonl.gz": "json",
    ".ndjson.gz": "json",
    ".json.gz": "json",
}


@dataclass(frozen=True)
class LoadReport:
    """What `load` did, or would do when `dry_run`. `bytes` are those of the files written, `deleted` the old
    files that went."""

    table: str
    location: str
    rows: int
    files: int
    bytes: int
    deleted: int
    glue: str
    append: bool
    dry_run: bool
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values under the schema `goldlake.load/1`."""
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True)
class _Source:
    """A file of the user's: what to call it, its format, and a link with a harmless name for DuckDB."""

    name: str
    format: Format
    link: Path

    @property
    def zipped(self) -> bool:
        return self.link.suffix == ".gz"


@dataclass(frozen=True)
class _Field:
    """A column of a source as SQL: its value in the table's type, and whether it could not be cast."""

    column: Column
    given: str
    text: str
    value: str
    bad: str


@dataclass(frozen=True)
class _Reading:
    """How a source is read: the relation, its fields, and its number of rows."""

    source: _Source
    relation: str
    fields: tuple[_Field, ...]
    rows: int


class _Faults:
    """The faults and warnings found so far."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.warnings: list[str] = []

    def add(self, source: _Source, text: str) -> None:
        self.faults.append(f"{source.name}: {text}")

    def warn(self, source: _Source, text: str) -> None:
        self.warnings.append(f"{source.name}: {text}")

    def raise_any(self, table: SilverTable) -> None:
        if not self.faults:
            return
        shown = self.faults[:MAX_FAULTS]
        more = len(self.faults) - len(shown)
        plural = "fault" if len(self.faults) == 1 else "faults"
        lines = [*shown, *([f"and {more} more"] if more else [])]
        raise ConfigurationError(
            f"{len(self.faults)} {plural}, so nothing was written to {table.full_name}:\n"
            + "\n".join(f"  - {line}" for line in lines),
            hint=f"its columns are {', '.join(f'{item.name} {item.type}' for item in table.columns)}",
        )


def load(
    aws: Connection,
    bucket: str,
    path: Path,
    table: SilverTable,
    *,
    append: bool = False,
    dry_run: bool = False,
    progress: Callable[[str], None] | None = None,
) -> LoadReport:
    """Write the file, or all files of the folder, as the silver table's Parquet, with its Glue entry.

    The format is told by the extension: .parquet, .csv, .jsonl, .ndjson, .json (text also with .gz); a folder
    holds one format. Columns are matched by name, whatever the case; columns that the table has not are
    ignored with a warning. CSV is UTF-8 with a header, RFC 4180, split by comma, semicolon, tab or `|`; an
    empty field is null, a quoted empty field an empty text. A time without zone is UTC. Decimals are rounded
    to the column's scale. Nested values become JSON text in a text column.

    Without `append` the table's old files are deleted after the new are written; a reader may for a moment
    see both. A file's key comes from its content, so loading the same file twice adds it once.

    Raises ConfigurationError with all faults (missing columns, values of a wrong type, nulls where none may
    be, unreadable files), before anything is written; and as `runtime.aws.translated` does.
    """
    from runtime.duck import connect

    say = progress or _silent
    with tempfile.TemporaryDirectory(prefix="goldlake-load-") as name, closing(connect()) as database:
        # Row numbers in messages are the file's own only when the order is kept.
        database.execute("SET preserve_insertion_order = true")
        folder = Path(name)
        sources, passed_over = _sources(path, folder)
        found = _Faults()
        found.warnings += [f"{item} is not of a known format: ignored" for item in passed_over]
        readings = []
        for source in sources:
            say(f"checking {source.name}")
            if (reading := _check(database, source, table, found)) is not None:
                readings.append(reading)
        found.raise_any(table)
        return _write(
            aws,
            bucket,
            table,
            database=database,
            readings=readings,
            found=found,
            append=append,
            dry_run=dry_run,
            say=say,
        )


def _write(
    aws: Connection,
    bucket: str,
    table: SilverTable,
    *,
    database: duckdb.DuckDBPyConnection,
    readings: Sequence[_Reading],
    found: _Faults,
    append: bool,
    dry_run: bool,
    say: Callable[[str], None],
) -> LoadReport:
    """Write the checked files and return the report."""
    s3 = aws.client("s3")
    parquet.refuse_delta(aws, bucket, table.prefix(), client=s3)
    present = {file.key for file in parquet.list_files(aws, bucket, table.prefix(), client=s3)}
    location = f"s3://{bucket}/{table.prefix()}"
    # First, for it can refuse: nothing is written then.
    state = "not changed: dry run" if dry_run else _register(aws, table, location)
    keys = _keys(table, readings)
    size = 0
    for key, reading in zip(keys, readings, strict=True):
        if append and key in present:
            found.warn(reading.source, "was loaded before: written again, not added twice")
        converted = reading.source.link.with_suffix(".out")
        _convert(database, reading, converted)
        size += converted.stat().st_size
        if not dry_run:
            say(f"writing {reading.rows:,} rows of {reading.source.name}")
            parquet.upload(aws, bucket, key, converted, client=s3)
        converted.unlink()
    old = [] if append else sorted(present - set(keys))
    if not dry_run:
        parquet.delete(aws, bucket, old, client=s3)
    rows = sum(reading.rows for reading in readings)
    return LoadReport(
        table=table.full_name,
        location=location,
        rows=rows,
        files=len(keys),
        bytes=size,
        deleted=len(old),
        glue=state,
        append=append,
        dry_run=dry_run,
        warnings=tuple(found.warnings),
    )


def _register(aws: Connection, table: SilverTable, location: str) -> str:
    """Make the Glue database and entry; return what happened to the entry."""
    client = aws.client("glue")
    glue.ensure_database(aws, table.database, client=client)
    return glue.ensure_parquet_table(aws, table, location, client=client)


def _silent(_: str) -> None:
    """Tell nobody."""


# --- the files ---


def _sources(path: Path, folder: Path) -> tuple[list[_Source], list[str]]:
    """Return the files to load, linked into `folder`, and the names of files passed over.

    The links spare DuckDB the users' names: in its paths `*`, `[` and `k=v` have a meaning.
    """
    files, passed_over = _files(path)
    formats = Counter(_format(file) for file in files)
    if len(formats) > 1:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(formats.items(), key=str))
        raise ConfigurationError(f"{path} holds files of several formats ({counts}): load one at a time")
    sources = []
    for number, file in enumerate(files):
        link = folder / f"{number}{_suffix(file)}"
        link.symlink_to(file.resolve())
        name = file.name if path == file else str(file.relative_to(path))
        sources.append(_Source(name, _SUFFIXES[_suffix(file)], link))
    return sources, passed_over


def _files(path: Path) -> tuple[list[Path], list[str]]:
    """Return the files of known formats at the path, and the others' names.

    Names that begin with `.` or `_` are passed over in silence, as Hive and Spark do (_SUCCESS).
    """
    if path.is_file():
        if not _suffix(path):
            raise ConfigurationError(f"{path.name} has no known format: allowed are {', '.join(_SUFFIXES)}")
        return [path], []
    if not path.is_dir():
        raise ConfigurationError(f"{path} is neither a file nor a folder")
    if (path / "_delta_log").is_dir():
        raise ConfigurationError(f"{path} is a Delta table: its folder also holds files of older versions")
    everything = sorted(item for item in path.rglob("*") if item.is_file() and not _hidden(item, path))
    known = [item for item in everything if _suffix(item)]
    if not known:
        raise ConfigurationError(f"{path} holds no files of a known format: {', '.join(_SUFFIXES)}")
    return known, [str(item.relative_to(path)) for item in everything if not _suffix(item)]


def _hidden(file: Path, root: Path) -> bool:
    """Return whether a part of the file's path below the root begins with `.` or `_`."""
    return any(part.startswith((".", "_")) for part in file.relative_to(root).parts)


def _suffix(file: Path) -> str:
    """Return the known extension of a file, `` when there is none."""
    lowered = file.name.lower()
    return max((suffix for suffix in _SUFFIXES if lowered.endswith(suffix)), key=len, default="")


def _format(file: Path) -> Format:
    """Return the format of a file with a known extension."""
    return _SUFFIXES[_suffix(file)]


def _keys(table: SilverTable, readings: Sequence[_Reading]) -> list[str]:
    """Return each source's object key, made of its content; equal files within one load are told apart."""
    seen: Counter[str] = Counter()
    keys = []
    for reading in readings:
        with reading.source.link.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()[:16]
        seen[digest] += 1
        copy = f"-{seen[digest]}" if seen[digest] > 1 else ""
        keys.append(f"{table.prefix()}load-{digest}{copy}.parquet")
    return keys


# --- the check ---


def _check(database: duckdb.DuckDBPyConnection, source: _Source, table: SilverTable, found: _Faults) -> _Reading | None:
    """Return how to read the source; None when there is a fault, which `found` then holds."""
    import duckdb

    from runtime.duck import reason

    before = len(found.faults)
    try:
        if source.format != "parquet" and _is_blank(source):
            found.warn(source, "is empty: no rows")
            empty = f"(SELECT 1 WHERE false) AS {sql.identifier('empty')}"
            fields = [_field(column, "CAST(NULL AS VARCHAR)", "VARCHAR") for column in table.columns]
            return _Reading(source, empty, tuple(fields), 0)
        relation, columns = _RELATIONS[source.format](database, source, table)
        fields = _match(source, columns, table, found)
        fields = [field for field in fields if _castable(database, source, relation, field, found)]
        rows = _check_values(database, source, relation, fields, found)
    except duckdb.Error as exc:
        found.add(source, _unreadable(reason(exc), source))
        return None
    except (OSError, EOFError, UnicodeError, csv.Error, zlib.error) as exc:
        found.add(source, f"cannot be read: {exc}".replace(str(source.link), source.name))
        return None
    if len(found.faults) > before:
        return None
    if rows == 0:
        found.warn(source, "has no rows")
    return _Reading(source, relation, tuple(fields), rows)


@dataclass(frozen=True)
class _Given:
    """A column that a source has: its name, its SQL expression, its DuckDB type."""

    name: str
    expression: str
    type: str


def _parquet_relation(database: duckdb.DuckDBPyConnection, source: _Source, _: SilverTable) -> tuple[str, list[_Given]]:
    """Return the relation and columns of a Parquet file."""
    # Older Spark and Impala write text without saying that it is UTF-8.
    relation = f"read_parquet({sql.literal(str(source.link))}, binary_as_string = true, hive_partitioning = false)"
    rows = database.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()  # noqa: S608 - quoted above
    return relation, [_Given(row[0], _name(row[0]), str(row[1])) for row in rows]


def _csv_relation(_: duckdb.DuckDBPyConnection, source: _Source, table: SilverTable) -> tuple[str, list[_Given]]:
    """Return the relation and columns of a CSV file, whose header names the columns."""
    delimiter, header = _header(source, {column.name for column in table.columns})
    # By position: a header may have a name twice, or none.
    names = [f"c{number}" for number in range(len(header))]
    columns = ", ".join(f"{sql.literal(name)}: 'VARCHAR'" for name in names)
    relation = (
        f"read_csv({sql.literal(str(source.link))}, auto_detect = false, header = true,"
        f" columns = {{{columns}}}, delim = {sql.literal(delimiter)}, quote = '\"', escape = '\"',"
        f" allow_quoted_nulls = false, compression = {_compression(source)}, max_line_size = {MAX_CSV_LINE})"
    )
    given = [_Given(title.strip(), sql.identifier(name), "VARCHAR") for title, name in zip(header, names, strict=True)]
    return relation, given


def _header(source: _Source, wanted: set[str]) -> tuple[str, list[str]]:
    """Return the delimiter and the names of a CSV header: the delimiter that yields most known names.

    Raises csv.Error when there is a line break in a name: DuckDB would then mistake the file's line ends.
    """
    headers = {}
    for delimiter in DELIMITERS:
        with _text(source) as content:
            headers[delimiter] = next(csv.reader(content, delimiter=delimiter), [])

    def known(delimiter: str) -> int:
        return len(wanted & {name.strip().lower() for name in headers[delimiter]})

    best = max(DELIMITERS, key=known)
    if any("\n" in name or "\r" in name for name in headers[best]):
        raise csv.Error("a column's name in the header has a line break")
    return best, headers[best]


def _is_blank(source: _Source) -> bool:
    """Return whether a text source has nothing but white space: no header, no object."""
    with _text(source) as content:
        return not any(line.strip() for line in content)


@contextmanager
def _text(source: _Source) -> Iterator[IO[str]]:
    """Open a text source, unzipped, without its byte order mark."""
    if source.zipped:
        with gzip.open(source.link, "rt", encoding="utf-8-sig", newline="") as content:
            yield content
    else:
        with source.link.open(encoding="utf-8-sig", newline="") as content:
            yield content


def _json_relation(database: duckdb.DuckDBPyConnection, source: _Source, _: SilverTable) -> tuple[str, list[_Given]]:
    """Return the relation and columns of JSON objects, one a line (or in one array, for .json).

    Raises csv.Error, as for any text that is not a table, when a line is no object.
    """
    # Lines only, but for .json, which is as often one array.
    form = "auto" if source.link.name.removesuffix(".gz").endswith(".json") else "newline_delimited"
    options = f"{sql.literal(str(source.link))}, format = {sql.literal(form)}, compression = {_compression(source)}"
    objects = f"read_json_objects({options})"
    other = database.execute(
        "SELECT min(number) FROM (SELECT json, row_number() OVER () AS number"  # noqa: S608 - quoted above
        f" FROM {objects}) WHERE json_type(json) <> 'OBJECT'"
    ).fetchone()
    if other and other[0] is not None:
        raise csv.Error(f"row {other[0]} is not a JSON object")
    rows = database.execute(
        f"SELECT DISTINCT unnest(json_keys(json)) AS key FROM {objects} ORDER BY key"  # noqa: S608 - quoted above
    ).fetchall()
    names = [str(row[0]) for row in rows]
    columns = ", ".join(f"{sql.literal(name)}: 'VARCHAR'" for name in _readable(names)) or "'-': 'VARCHAR'"
    return f"read_json({options}, columns = {{{columns}}})", [_Given(name, _name(name), "VARCHAR") for name in names]


def _readable(names: Sequence[str]) -> list[str]:
    """Return the names without those that differ in case only, which DuckDB takes for one column."""
    return list({name.lower(): name for name in names if name and "\x00" not in name}.values())


def _name(name: str) -> str:
    """Return a source's column name as SQL. Unlike Redshift's, DuckDB's names may have any length."""
    return '"' + name.replace('"', '""') + '"'


def _compression(source: _Source) -> str:
    """Return DuckDB's name of the source's compression, as a literal."""
    return sql.literal("gzip" if source.zipped else "uncompressed")


_RELATIONS: dict[
    Format,
    Callable[[duckdb.DuckDBPyConnection, _Source, SilverTable], tuple[str, list[_Given]]],
] = {"parquet": _parquet_relation, "csv": _csv_relation, "json": _json_relation}


def _match(source: _Source, given: Sequence[_Given], table: SilverTable, found: _Faults) -> list[_Field]:
    """Return the fields of the table's columns that the source has; tell of missing, double, other ones."""
    by_name: dict[str, list[_Given]] = {}
    for item in given:
        by_name.setdefault(item.name.lower(), []).append(item)
    fields = []
    missing = []
    for column in table.columns:
        candidates = by_name.pop(column.name, [])
        if not candidates:
            missing.append(column.name)
        elif len(candidates) > 1:
            found.add(source, f"the column {column.name} is there {len(candidates)} times")
        else:
            fields.append(_field(column, candidates[0].expression, candidates[0].type))
    if missing:
        found.add(source, f"columns are missing: {', '.join(missing)}")
    if by_name:
        others = ", ".join(_shown(items[0].name) for items in by_name.values())
        found.warn(source, f"columns that the table has not are ignored: {others}")
    return fields


def _field(column: Column, expression: str, given_type: str) -> _Field:
    """Return the SQL of a column: text for messages, value in the table's type, and whether it is bad."""
    target = _duckdb_type(column.type)
    nested = given_type.endswith("]") or given_type.startswith(("STRUCT", "MAP", "UNION"))
    text = f"CAST({f'to_json({expression})' if nested else expression} AS VARCHAR)"
    if target == "VARCHAR":
        return _Field(column, given_type, text, text, "false")
    # An exporter that quotes every field writes "" for a missing number.
    filled = f"nullif(trim({expression}), '')" if given_type == "VARCHAR" else expression
    # By way of the zoned type: DuckDB's TIMESTAMP drops an offset without a word.
    zoned = target == "TIMESTAMP" and given_type == "VARCHAR"
    value = f"CAST(TRY_CAST({filled} AS TIMESTAMPTZ) AS TIMESTAMP)" if zoned else f"TRY_CAST({filled} AS {target})"
    bad = f"({filled} IS NOT NULL AND {value} IS NULL)"
    return _Field(column, given_type, text, value, bad)


def _duckdb_type(glue_type: str) -> str:
    """Return DuckDB's name of a Glue type. Raises ConfigurationError for one that cannot be loaded."""
    plain = {
        "string": "VARCHAR",
        "bigint": "BIGINT",
        "int": "INTEGER",
        "double": "DOUBLE",
        "boolean": "BOOLEAN",
        "date": "DATE",
        "timestamp": "TIMESTAMP",
    }
    if glue_type in plain:
        return plain[glue_type]
    precision, _, scale = glue_type.removeprefix("decimal(").removesuffix(")").partition(",")
    if not (glue_type.startswith("decimal(") and precision.isdigit() and scale.isdigit()):
        raise ConfigurationError(f"the column type {glue_type!r} cannot be loaded")
    return f"DECIMAL({int(precision)},{int(scale)})"


def _castable(
    database: duckdb.DuckDBPyConnection,
    source: _Source,
    relation: str,
    field: _Field,
    found: _Faults,
) -> bool:
    """Return whether DuckDB knows a cast between the types; a list to a number has none."""
    import duckdb

    try:
        database.execute(f"SELECT {field.value} FROM {relation} LIMIT 0")  # noqa: S608 - quoted by _field
    except (duckdb.BinderException, duckdb.ConversionException):
        found.add(source, f"{field.column.name} has the type {field.given}, which is no {field.column.type}")
        return False
    return True


def _check_values(
    database: duckdb.DuckDBPyConnection,
    source: _Source,
    relation: str,
    fields: Sequence[_Field],
    found: _Faults,
) -> int:
    """Return the number of rows; tell of values that cannot be cast, and nulls where none may be."""
    counts = ["count(*)"]
    for field in fields:
        counts += [f"count_if({field.bad})", f"count_if({field.value} IS NULL AND NOT {field.bad})"]
    row = database.execute(f"SELECT {', '.join(counts)} FROM {relation}").fetchone() or (0,)  # noqa: S608 - by _field
    for number, field in enumerate(fields):
        bad, nulls = row[1 + 2 * number], row[2 + 2 * number]
        if bad:
            examples = _examples(database, relation, field, field.bad)
            shown = ", ".join(f"{_shown(text)} (row {place:,})" for place, text in examples)
            are = "values are" if bad > 1 else "value is"
            found.add(source, f"{field.column.name}: {bad:,} {are} no {field.column.type}: {shown}")
        if nulls and not field.column.nullable:
            examples = _examples(database, relation, field, f"{field.value} IS NULL AND NOT {field.bad}")
            places = ", ".join(f"{place:,}" for place, _ in examples)
            word = "nulls" if nulls > 1 else "null"
            found.add(source, f"{field.column.name}: {nulls:,} {word}, and none is allowed (row {places})")
    return int(row[0])


def _examples(
    database: duckdb.DuckDBPyConnection, relation: str, field: _Field, condition: str
) -> list[tuple[int, Any]]:
    """Return (row number from 1, text) of the first rows for which the condition holds."""
    rows = database.execute(
        f"SELECT number, text FROM (SELECT row_number() OVER () AS number, {field.text} AS text,"  # noqa: S608 - by _field
        f" {condition} AS hit FROM {relation}) WHERE hit ORDER BY number LIMIT {EXAMPLES}"
    ).fetchall()
    return [(int(number), text) for number, text in rows]


def _shown(text: object) -> str:
    """Return a value for a message: quoted, on one line, not too long."""
    shown = repr(text)
    return shown if len(shown) <= MAX_EXAMPLE_CHARACTERS else f"{shown[:MAX_EXAMPLE_CHARACTERS]}…"


def _unreadable(text: str, source: _Source) -> str:
    """Return DuckDB's message about a file without its advice on DuckDB's options."""
    for advice in ("Possible fixes:", "Possible Solution:", "This can happen when"):
        text = text.split(advice, maxsplit=1)[0]
    if "invalid state" in text:
        text = "its line ends are mixed, or a quote is not closed"
    return f"cannot be read: {text.replace(str(source.link), source.name).strip()}"


def _convert(database: duckdb.DuckDBPyConnection, reading: _Reading, target: Path) -> None:
    """Write the source as Parquet with the table's columns."""
    columns = ", ".join(f"{field.value} AS {sql.identifier(field.column.name)}" for field in reading.fields)
    database.execute(
        f"COPY (SELECT {columns} FROM {reading.relation})"  # noqa: S608 - quoted by _field
        f" TO {sql.literal(str(target))} (FORMAT parquet, COMPRESSION zstd)"
    )
