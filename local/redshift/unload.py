"""UNLOAD: a query's rows, run in the client's own session and transaction, as files in S3.

    client's session --COPY (query) TO STDOUT--> a file on disk --DuckDB--> Parquet, CSV or JSON --boto3--> S3

The way over a file keeps memory bounded and lets DuckDB write real types. The manifest comes last: an UNLOAD that is
killed leaves files without one. Source: Redshift database developer guide, "UNLOAD" and "UNLOAD examples".
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.redshift import options, statements
from local.redshift.roles import s3_errors
from local.redshift.statements import Token
from local.redshift.wire import Field, RedshiftError, not_emulated
from runtime import sql
from runtime.duck import reason

if TYPE_CHECKING:
    import duckdb

    from local.redshift.director import Director
    from local.redshift.session import Session

_DEFAULT_BYTES = 6_200 << 20
_PARQUET_STEP = 32 << 20
_NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"
# The columns' order in a file of values that PostgreSQL wrote.
_READ_OPTIONS = (
    "header = false, auto_detect = false, delim = ',', quote = '\"', escape = '\"', nullstr = '',"
    " allow_quoted_nulls = false, parallel = false, new_line = '\\n', max_line_size = 134217728,"
    " buffer_size = 268435456"
)
# pg_type.oid -> the type's name in Redshift, DuckDB's type.
_TYPES: dict[int, tuple[str, str]] = {
    16: ("boolean", "BOOLEAN"),
    18: ("character", "VARCHAR"),
    19: ("character varying", "VARCHAR"),
    20: ("bigint", "BIGINT"),
    21: ("smallint", "SMALLINT"),
    23: ("integer", "INTEGER"),
    25: ("character varying", "VARCHAR"),
    26: ("integer", "INTEGER"),
    114: ("super", "JSON"),
    700: ("real", "REAL"),
    701: ("double precision", "DOUBLE"),
    705: ("character varying", "VARCHAR"),
    1042: ("character", "VARCHAR"),
    1043: ("character varying", "VARCHAR"),
    1082: ("date", "DATE"),
    1083: ("time without time zone", "TIME"),
    1114: ("timestamp without time zone", "TIMESTAMP"),
    1184: ("timestamp with time zone", "TIMESTAMPTZ"),
    1266: ("time with time zone", "VARCHAR"),
    1700: ("numeric", "DECIMAL"),
    3802: ("super", "JSON"),
    17: ("binary varying", "VARCHAR"),
    1186: ("interval day to second", "VARCHAR"),
}
_NOT_IN_PARQUET = frozenset({17, 1083, 1186, 1266})
_ENDINGS = {"gzip": ".gz", "zstd": ".zst", "bzip2": ".bz2"}


@dataclass(frozen=True)
class Column:
    """A column of the query: its name, Redshift's type as a manifest has it, DuckDB's type."""

    name: str
    base: str
    duckdb: str
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    oid: int = 0

    @property
    def manifest(self) -> dict[str, Any]:
        """The column in a verbose manifest."""
        kind: dict[str, Any] = {"base": self.base}
        kind |= {"max_length": self.length} if self.length is not None else {}
        kind |= {"precision": self.precision, "scale": self.scale} if self.precision is not None else {}
        return {"name": self.name, "type": kind}


@dataclass(frozen=True)
class Unload:
    """An UNLOAD as it was written."""

    director: Director = field(repr=False)
    select: str
    url: str
    role: str
    format: str = "text"
    region: str | None = None
    partition_by: tuple[str, ...] = ()
    include: bool = False
    manifest: bool = False
    verbose: bool = False
    header: bool = False
    delimiter: str | None = None
    compression: str | None = None
    add_quotes: bool = False
    null_as: str | None = None
    overwrite: bool = False
    clean: bool = False
    parallel: bool = True
    file_bytes: int = _DEFAULT_BYTES
    extension: str | None = None

    async def run(self, session: Session) -> str:
        """Write the rows of the query to S3; return the command's tag."""
        await self.director.prepare(self.select)
        query = self.director.rewritten(self.select)
        columns = [_column(item) for item in await session.describe(query)]
        self._check(columns)
        s3 = await asyncio.to_thread(self._client)
        there = await asyncio.to_thread(self._place_checked, s3)
        with tempfile.TemporaryDirectory(prefix="goldlake-unload-") as name:
            folder = Path(name)
            await self._spool(session, query, folder / "rows.csv")
            written = await _in_thread(lambda: self._converted(columns, folder))
            rows = sum(item.rows for item in written)
            await _in_thread(lambda: self._stored(s3, columns, written, there))
        await session.ask(f"select set_config('goldlake.last_unload_count', '{rows}', false)")
        return "UNLOAD"

    def _check(self, columns: Sequence[Column]) -> None:
        """Raise for what UNLOAD does not write."""
        if not columns:
            raise RedshiftError("42601", "UNLOAD needs a query that returns columns")
        names = [column.name for column in columns]
        if self.format == "parquet":
            for column in columns:
                if column.oid in _NOT_IN_PARQUET or (column.base == "super" and column.name in self.partition_by):
                    raise RedshiftError(
                        "0A000", f"UNLOAD to PARQUET does not support column {column.name} of type {column.base}"
                    )
            doubled = {item for item in names if [other.lower() for other in names].count(item.lower()) > 1}
            if doubled:
                raise RedshiftError("42701", f'column "{min(doubled)}" specified more than once')
        for name in self.partition_by:
            if name not in names:
                raise RedshiftError("42703", f'PARTITION BY column "{name}" does not exist in the UNLOAD query')
        if self.partition_by and len(self.partition_by) == len(columns) and not self.include:
            raise RedshiftError("0A000", "UNLOAD with PARTITION BY of all columns needs INCLUDE")

    def _client(self) -> Any:
        return self.director.roles.client(self.role, "s3", self.region)

    def _place_checked(self, s3: Any) -> list[str]:
        """Return the keys that are in the place already and are to go; raises when there are any that are not."""
        bucket, prefix = options.bucket_and_key(self.url)
        with s3_errors(self.url):
            s3.get_bucket_location(Bucket=bucket)
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            there = [item["Key"] for page in pages for item in page.get("Contents", [])]
        if there and not self.overwrite and not self.clean:
            raise RedshiftError(
                "XX000",
                "Specified unload destination on S3 is not empty. Consider using a different bucket / prefix, manually"
                " removing the target files in S3, or using the ALLOWOVERWRITE option.",
            )
        return there if self.clean else []

    async def _spool(self, session: Session, query: str, path: Path) -> None:
        """Write the rows into a file as text that says what is NULL; times as ISO and in UTC, whatever the session."""
        before = await session.ask(
            "select current_setting('datestyle'), current_setting('timezone'), current_setting('extra_float_digits')"
        )
        await session.ask(
            "set local datestyle to 'ISO'; set local timezone to 'UTC'; set local extra_float_digits to 1"
        )
        with path.open("wb") as file:

            async def sink(pieces: list[bytes]) -> None:
                await asyncio.to_thread(file.writelines, pieces)

            copy = f"COPY ({query}\n) TO STDOUT (FORMAT csv, FORCE_QUOTE *, ENCODING 'UTF8')"
            await session.copy_out(copy, sink)
        await session.ask(_settings(*(sql.literal(str(value)) for value in before[0])))

    def _converted(self, columns: Sequence[Column], folder: Path) -> list[Written]:
        """Turn the file of values into files of the format; return them with where they go."""
        import duckdb

        rows = folder / "rows.csv"
        with duckdb.connect(
            config={"threads": "2", "memory_limit": "1GB", "temp_directory": str(folder / "spill")}
        ) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET preserve_insertion_order = true")
            try:
                return _Writer(self, connection, columns, rows, folder).written()
            except duckdb.Error as exc:
                raise RedshiftError("XX000", f"UNLOAD could not write its files: {reason(exc)}") from exc

    def _stored(self, s3: Any, columns: Sequence[Column], written: Sequence[Written], gone: Sequence[str]) -> None:
        """Remove what CLEANPATH says, store the files, and the manifest last."""
        bucket, prefix = options.bucket_and_key(self.url)
        names = {f"{prefix}{item.name}" for item in written}
        with s3_errors(self.url):
            for key in gone:
                if key not in names:
                    s3.delete_object(Bucket=bucket, Key=key)
            for item in written:
                s3.upload_file(str(item.path), bucket, f"{prefix}{item.name}")
                item.path.unlink()
            if self.manifest:
                content = json.dumps(self._manifest(bucket, prefix, columns, written), indent=2)
                s3.put_object(Bucket=bucket, Key=f"{prefix}manifest", Body=content.encode())

    def _manifest(
        self, bucket: str, prefix: str, columns: Sequence[Column], written: Sequence[Written]
    ) -> dict[str, Any]:
        entries: list[dict[str, Any]] = [{"url": f"s3://{bucket}/{prefix}{item.name}"} for item in written]
        metas = [{"content_length": item.size, "record_count": item.rows} for item in written]
        if self.verbose or self.format == "parquet":
            entries = [entry | {"meta": meta} for entry, meta in zip(entries, metas, strict=True)]
        if not self.verbose:
            return {"entries": entries}
        shown = [column for column in columns if self.include or column.name not in self.partition_by]
        shown += [column for column in columns if not self.include and column.name in self.partition_by]
        return {
            "entries": entries,
            "schema": {"elements": [column.manifest for column in shown]},
            "meta": {key: sum(meta[key] for meta in metas) for key in ("content_length", "record_count")},
            "author": {"name": "Amazon Redshift", "version": "1.0.0"},
        }


@dataclass(frozen=True)
class Written:
    """A file that is ready to be stored: where it is, its name behind the prefix, its bytes and rows."""

    path: Path
    name: str
    size: int
    rows: int


@dataclass(frozen=True)
class _Writer:
    """Writes the files of an UNLOAD with DuckDB."""

    unload: Unload
    connection: duckdb.DuckDBPyConnection
    columns: Sequence[Column]
    rows: Path
    folder: Path

    def written(self) -> list[Written]:
        """Return all files; one without rows when the query gave none, as Redshift does for text."""
        columns = [self._with_scale(index, column) for index, column in enumerate(self.columns)]
        out = self.folder / "out"
        out.mkdir()
        kinds = ", ".join(f"'c{index}': {sql.literal(column.duckdb)}" for index, column in enumerate(columns))
        source = f"read_csv({sql.literal(str(self.rows))}, columns = {{{kinds}}}, {_READ_OPTIONS})"
        if self.unload.partition_by:
            return self._partitioned(columns, source, out)
        return self._sliced(columns, source, out, "")

    def _with_scale(self, index: int, column: Column) -> Column:
        """Return the column; a number without scale (of an expression) gets the least that holds its values."""
        if column.duckdb != "DECIMAL" or column.precision is not None:
            return column
        names = ", ".join(f"'c{number}': 'VARCHAR'" for number in range(len(self.columns)))
        query = (
            f"SELECT max(length(split_part(c{index}, '.', 2))), bool_or(c{index} IN ('NaN', 'Infinity', '-Infinity'))"  # noqa: S608
            f" FROM read_csv({sql.literal(str(self.rows))}, columns = {{{names}}}, {_READ_OPTIONS})"
        )
        row = self.connection.execute(query).fetchone()
        scale = min(int((row and row[0]) or 0), 37)
        return replace(column, duckdb=f"DECIMAL(38,{scale})", precision=38, scale=scale)

    def _partitioned(self, columns: Sequence[Column], source: str, out: Path) -> list[Written]:
        """Write the files of each partition into a folder of its own."""
        by = [self._number(name) for name in self.unload.partition_by]
        keys = ", ".join(f"c{index}" for index in by)
        self.connection.execute(f"CREATE TABLE goldlake_rows AS SELECT * FROM {source}")  # noqa: S608 - ours
        texts = ", ".join(f"c{index}::VARCHAR" for index in by)
        groups = self.connection.execute(
            f"SELECT DISTINCT {keys}, {texts} FROM goldlake_rows ORDER BY {keys}"  # noqa: S608 - ours
        ).fetchall()
        written = []
        for number, group in enumerate(groups):
            values = group[len(by) :]
            folders = [f"{columns[index].name}={_folder(text)}" for index, text in zip(by, values, strict=True)]
            condition = " AND ".join(
                f"c{index}::VARCHAR IS NOT DISTINCT FROM {'NULL' if text is None else sql.literal(text)}"
                for index, text in zip(by, values, strict=True)
            )
            target = out / str(number)
            target.mkdir()
            chosen = f"(SELECT * FROM goldlake_rows WHERE {condition})"  # noqa: S608 - ours and quoted
            written += self._sliced(columns, chosen, target, "/".join(folders) + "/")
        return written

    def _number(self, name: str) -> int:
        return next(index for index, column in enumerate(self.columns) if column.name == name)

    def _sliced(self, columns: Sequence[Column], source: str, out: Path, before: str) -> list[Written]:
        """Write one slice's files, no larger than MAXFILESIZE says."""
        unload = self.unload
        hidden = () if unload.include else unload.partition_by
        shown = [(index, column) for index, column in enumerate(columns) if column.name not in hidden]
        items = [
            f"{_written_as(index, column, unload.format)} AS {sql.identifier(column.name)}" for index, column in shown
        ]
        select = f"SELECT {', '.join(items)} FROM {source}"  # noqa: S608 - quoted above
        target = out / "part"
        size = unload.file_bytes
        if unload.format == "parquet":
            size = max(size // _PARQUET_STEP * _PARQUET_STEP, _PARQUET_STEP)
            form = "FORMAT parquet, COMPRESSION snappy"
        else:
            form = self._text_form()
        # One file; for a size DuckDB writes a folder. It does not count the rows of text files, which are not cut.
        whole = unload.file_bytes >= _DEFAULT_BYTES or unload.format != "parquet"
        cut = "" if whole else f", FILE_SIZE_BYTES {size}, FILENAME_PATTERN 'part_{{i}}'"
        self.connection.execute(f"COPY ({select}) TO {sql.literal(str(target))} ({form}{cut})")
        found = [target] if whole else sorted(target.iterdir(), key=lambda path: _natural(path.name))
        files = [(path, self._rows(path, source)) for path in found]
        if len(files) > 1:
            files = [item for item in files if item[1]] or files[:1]
        return [
            Written(path, f"{before}{self._name(number)}", path.stat().st_size, rows)
            for number, (path, rows) in enumerate(files)
        ]

    def _rows(self, path: Path, source: str) -> int:
        """Return how many rows a file has; `source` is all of them, for formats that do not say."""
        name = sql.literal(str(path))
        if self.unload.format == "parquet":
            query = f"SELECT sum(num_rows) FROM parquet_file_metadata({name})"  # noqa: S608 - quoted
        else:
            query = f"SELECT count(*) FROM {source}"  # noqa: S608 - quoted
        row = self.connection.execute(query).fetchone()
        return int((row and row[0]) or 0)

    @property
    def _delimiter(self) -> str:
        return self.unload.delimiter or ("," if self.unload.format == "csv" else "|")

    def _name(self, number: int) -> str:
        """Return a file's name behind the prefix."""
        unload = self.unload
        ending = ".parquet" if unload.format == "parquet" else _ENDINGS.get(unload.compression or "", "")
        if unload.extension is not None:
            ending = f".{unload.extension}"
        return f"0000_part_{number:02d}{ending}" if unload.parallel else f"{number:03d}{ending}"

    def _text_form(self) -> str:
        unload = self.unload
        if unload.compression == "bzip2":
            raise not_emulated("UNLOAD … BZIP2")
        packed = f", COMPRESSION {unload.compression}" if unload.compression else ""
        if unload.format == "json":
            return f"FORMAT json{packed}"
        header = "true" if unload.header else "false"
        if unload.format == "csv" or unload.add_quotes:
            quoted = ", FORCE_QUOTE *" if unload.add_quotes else ""
            quote = f"QUOTE '\"', ESCAPE '\"'{quoted}"
        else:
            quote = "QUOTE '', ESCAPE ''"
        null = sql.literal(unload.null_as or "")
        return f"FORMAT csv, HEADER {header}, DELIMITER {sql.literal(self._delimiter)}, NULLSTR {null}, {quote}{packed}"


def _written_as(index: int, column: Column, form: str) -> str:
    """Return the expression that a column is written as; texts as Redshift prints them."""
    name = f"c{index}"
    if column.duckdb == "TIMESTAMPTZ":
        # "Only the timestamp values are unloaded. The time zone information is not": UTC is what the session has.
        return f"({name} AT TIME ZONE 'UTC')" if form == "parquet" else f"strftime({name}, '%Y-%m-%d %H:%M:%S+00')"
    if column.duckdb == "BOOLEAN" and form in ("text", "csv"):
        return f"CASE WHEN {name} THEN 't' WHEN NOT {name} THEN 'f' END"
    return name


def _column(described: Field) -> Column:
    """Return a column of the query; raises for a type that Redshift does not have."""
    found = _TYPES.get(described.oid)
    if found is None:
        raise RedshiftError("0A000", f"column {described.name} has a type that Redshift does not have")
    base, duckdb = found
    modifier = described.modifier
    if described.oid == 1700:
        if modifier < 4:
            return Column(described.name, base, duckdb, oid=described.oid)
        precision, scale = (modifier - 4) >> 16, (modifier - 4) & 0x7FF
        if precision > 38:
            raise RedshiftError("0A000", f"column {described.name}: a numeric has 38 digits at most")
        return Column(
            described.name, base, f"DECIMAL({precision},{scale})", precision=precision, scale=scale, oid=described.oid
        )
    length = None
    if base.startswith("character"):
        length = modifier - 4 if modifier >= 4 else {18: 1, 19: 64, 705: 256}.get(described.oid, 65535)
    return Column(described.name, base, duckdb, length=length, oid=described.oid)


def _settings(style: str, zone: str, digits: str) -> str:
    """Return the statement that sets how values are written, until the transaction ends."""
    return f"set local datestyle to {style}; set local timezone to {zone}; set local extra_float_digits to {digits}"


def _folder(text: str | None) -> str:
    """Return the name of a partition's folder: what Hive escapes is escaped."""
    if text is None:
        return _NULL_FOLDER
    return re.sub(
        r'[\x00-\x1f"#%\'*/:=?\\\x7f{\[\]^]', lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text
    )


def _natural(name: str) -> tuple[int, str]:
    found = re.search(r"\d+", name)
    return (int(found[0]) if found else 0, name)


async def _in_thread(act: Any) -> Any:
    """Run in a thread; a cancelled one is waited for, since it works on files that are about to be removed."""
    work = asyncio.ensure_future(asyncio.to_thread(act))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise


def parsed(text: str, tokens: Sequence[Token], director: Director) -> Unload:
    """Return the UNLOAD that a statement is. Raises RedshiftError for what is wrong or not emulated in it."""
    del text
    words = options.Words.of(tokens)
    words.expect("unload", "(")
    token = words.take()
    select = token.text[2:-2] if token.kind == "dollar" and token.text.startswith("$$") else token.value
    if select is None:
        raise words.error(token)
    words.expect(")", "to")
    unload = Unload(director, select, words.literal(), "")
    while words.rest:
        unload = _with_option(unload, words)
    if not unload.role:
        raise RedshiftError("42601", "UNLOAD needs IAM_ROLE: other credentials are not emulated")
    options.bucket_and_key(unload.url)
    if len(statements.split(select)) != 1:
        raise RedshiftError("42601", "UNLOAD takes one query")
    if statements.has_outer_limit(statements.tokens(select)):
        raise RedshiftError("0A000", "Limit clause is not supported", hint="nest it: SELECT * FROM (SELECT … LIMIT …)")
    _check_options(unload)
    return unload


def _check_options(unload: Unload) -> None:
    if unload.overwrite and unload.clean:
        raise RedshiftError("42601", "ALLOWOVERWRITE and CLEANPATH cannot be used together")
    if unload.clean and unload.url.count("/") < 3:
        raise RedshiftError("42601", "CLEANPATH needs a path below the bucket")
    if unload.format == "parquet":
        given = {
            "DELIMITER": unload.delimiter,
            "HEADER": unload.header,
            "ADDQUOTES": unload.add_quotes,
            "NULL AS": unload.null_as,
            str(unload.compression).upper(): unload.compression,
        }
        for name, value in given.items():
            if value:
                raise RedshiftError("0A000", f"{name} option is not supported for UNLOAD to PARQUET")
    if unload.format == "json" and (unload.header or unload.delimiter or unload.add_quotes or unload.null_as):
        raise RedshiftError("0A000", "HEADER, DELIMITER, ADDQUOTES and NULL AS are not supported for UNLOAD to JSON")
    if unload.header and unload.partition_by:
        raise RedshiftError("0A000", "HEADER with PARTITION BY is not supported")
    if not (5 << 20) <= unload.file_bytes <= _DEFAULT_BYTES:
        raise RedshiftError("22023", "MAXFILESIZE must be between 5 MB and 6.2 GB")


def _with_option(unload: Unload, words: options.Words) -> Unload:  # noqa: PLR0911, PLR0912 - one line an option
    """Return the UNLOAD with the option that comes next."""
    token = words.take()
    match token.word:
        case "iam_role":
            return replace(unload, role=options.role(words))
        case "format":
            words.skip("as")
            return unload
        case "parquet" | "json":
            return replace(unload, format=token.word)
        case "csv":
            return replace(unload, format="csv")
        case "partition":
            words.expect("by")
            names = tuple(words.names())
            return replace(unload, partition_by=names, include=words.skip("include"))
        case "manifest":
            return replace(unload, manifest=True, verbose=words.skip("verbose"))
        case "header":
            return replace(unload, header=True)
        case "delimiter":
            return replace(unload, delimiter=words.literal("as").replace("\\t", "\t"))
        case "null":
            return replace(unload, null_as=words.literal("as"))
        case "gzip" | "zstd" | "bzip2":
            return replace(unload, compression=token.word)
        case "addquotes":
            return replace(unload, add_quotes=True)
        case "escape":
            raise not_emulated("UNLOAD … ESCAPE")
        case "allowoverwrite":
            return replace(unload, overwrite=True)
        case "cleanpath":
            return replace(unload, clean=True)
        case "parallel":
            word = words.peek()
            if word in ("on", "true", "off", "false"):
                words.take()
            return replace(unload, parallel=word not in ("off", "false"))
        case "maxfilesize":
            words.skip("as")
            return replace(unload, file_bytes=words.bytes())
        case "rowgroupsize":
            words.skip("as")
            words.bytes()
            return unload
        case "region":
            return replace(unload, region=words.literal("as"))
        case "extension":
            return replace(unload, extension=words.literal())
        case "encrypted" | "auto":
            return unload
        case "kms_key_id":
            words.literal("as")
            return unload
        case "credentials" | "access_key_id" | "secret_access_key" | "session_token" | "fixedwidth" | "iceberg":
            raise not_emulated(f"UNLOAD … {token.text.upper()}")
    raise words.error(token)


__all__ = ["Column", "Unload", "Written", "parsed"]
