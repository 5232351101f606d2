"""COPY from S3: files read by DuckDB, loaded in the client's own session and transaction.

    S3 --boto3--> files --DuckDB--> text values on disk --COPY … FROM STDIN--> client's session

PostgreSQL turns texts into values, so that its types decide what is a valid one. Source: Redshift database developer
guide, "COPY", "Data conversion parameters", "COPY from columnar data formats".
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.redshift import options
from local.redshift.roles import s3_errors
from local.redshift.statements import Token
from local.redshift.wire import Field, RedshiftError, not_emulated
from runtime import sql
from runtime.duck import reason

if TYPE_CHECKING:
    from local.redshift.director import Director
    from local.redshift.session import Session

# pg_type.oid of texts: an empty field is an empty text to them, and NULL to all others.
_TEXTS = frozenset({18, 19, 25, 1042, 1043})
_FEED_BYTES = 1 << 18
_NO_MEANING = ("compupdate", "statupdate", "acceptinvchars", "acceptanydate", "ignoreallerrors")
_AUTOMATIC = frozenset({"auto", "auto ignorecase"})
# SQLSTATE of what a value can be wrong in -> Redshift's number and words.
_REASONS = {
    "22001": (1204, "String length exceeds DDL length"),
    "22P02": (1207, "Invalid digit, or invalid value for the column's type"),
    "22003": (1216, "Numeric value is out of range"),
    "22007": (1205, "Invalid Date Format - length must be 10 or more"),
    "22008": (1206, "Invalid timestamp format or value [YYYY-MM-DD HH24:MI:SS]"),
    "23502": (1213, "Missing data for not-null field"),
    "22P04": (1202, "Extra column(s) found"),
}


class LoadError(RedshiftError):
    """A row that cannot be loaded: what the table of load errors gets."""

    def __init__(self, table: str, number: int, text: str, file: str, line: int = 0, column: str = "") -> None:
        # Redshift Serverless has this view; a cluster names stl_load_errors in its place, which is here, too.
        super().__init__(
            "XX000", f"Load into table '{table}' failed.  Check 'sys_load_error_detail' system table for details."
        )
        self.table, self.number, self.text, self.file, self.line, self.column = table, number, text, file, line, column


@dataclass(frozen=True)
class Copy:
    """A COPY as it was written."""

    director: Director = field(repr=False)
    table: tuple[str, ...]
    columns: tuple[str, ...]
    url: str
    role: str = ""
    format: str = "text"
    json_option: str = "auto"
    delimiter: str | None = None
    quote: str = '"'
    header_lines: int = 0
    compression: str | None = None
    manifest: bool = False
    region: str | None = None
    null_as: str = "\\N"
    empty_as_null: bool = False
    blanks_as_null: bool = False
    truncate: bool = False
    fill: bool = False
    trim: bool = False
    remove_quotes: bool = False
    max_errors: int = 0

    async def run(self, session: Session) -> str:
        """Load the files; return the command's tag."""
        name = sql.qualified(*self.table)
        fields = await self._fields(session, name)
        with tempfile.TemporaryDirectory(prefix="goldlake-copy-") as folder:
            files = await asyncio.to_thread(self._downloaded, Path(folder))
            try:
                values = await _finished(
                    asyncio.to_thread(self._values, fields, [path for path, _url in files], Path(folder))
                )
                rows = await self._loaded(session, name, fields, values, files)
            except LoadError as failure:
                await self._record(session, failure)
                raise
        await session.ask(f"select set_config('goldlake.last_copy_count', '{rows}', false)")
        session.inform(f"Load into table '{self.table[-1]}' completed, {rows} record(s) loaded successfully.")
        return "COPY"

    async def _fields(self, session: Session, name: str) -> list[Field]:
        """Return the target's columns in the order of the file."""
        listed = ", ".join(map(sql.identifier, self.columns)) or "*"
        try:
            return await session.describe(f"SELECT {listed} FROM {name}")  # noqa: S608 - quoted
        except RedshiftError as exc:
            if exc.code == "42P01":
                raise RedshiftError("XX000", f"Cannot COPY into nonexistent table {self.table[-1]}") from exc
            raise

    # Reading S3

    def _downloaded(self, folder: Path) -> list[tuple[Path, str]]:
        """Fetch the files; return where they are, and their names in S3."""
        s3 = self.director.roles.client(self.role, "s3", self.region)
        files = []
        with s3_errors(self.url):
            for number, (bucket, key) in enumerate(self._objects(s3)):
                path = folder / f"{number:06d}{_ending(self.compression)}"
                s3.download_file(bucket, key, str(path))
                files.append((path, f"s3://{bucket}/{key}"))
        return files

    def _objects(self, s3: Any) -> list[tuple[str, str]]:
        bucket, prefix = options.bucket_and_key(self.url)
        if not self.manifest:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            found = [
                item["Key"] for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")
            ]
            if not found:
                raise RedshiftError("XX000", f"The specified S3 prefix '{prefix}' does not exist")
            return [(bucket, key) for key in found]
        try:
            content = s3.get_object(Bucket=bucket, Key=prefix)["Body"].read()
        except s3.exceptions.NoSuchKey:
            raise RedshiftError("XX000", f"The specified S3 prefix '{prefix}' does not exist") from None
        try:
            entries = json.loads(content)["entries"]
            urls = [(str(item["url"]), bool(item.get("mandatory", False))) for item in entries]
        except (ValueError, KeyError, TypeError) as exc:
            raise RedshiftError("XX000", f"Manifest file is not in correct json format: {self.url}") from exc
        return self._listed(s3, urls)

    def _listed(self, s3: Any, urls: Sequence[tuple[str, bool]]) -> list[tuple[str, str]]:
        """Return the files of a manifest that are there; a mandatory one must be."""
        from botocore.exceptions import ClientError

        found = []
        for url, mandatory in urls:
            place = options.bucket_and_key(url)
            try:
                s3.head_object(Bucket=place[0], Key=place[1])
            except ClientError as exc:
                if exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 404:
                    raise
                # Files of a columnar format are read by Spectrum, which does not leave any out.
                if mandatory or self.format == "parquet":
                    raise RedshiftError("XX000", f"Mandatory url is not present in manifest file: {url}") from exc
                continue
            found.append(place)
        if not found:
            raise RedshiftError("XX000", f"No files of the manifest {self.url} were found")
        return found

    # Reading files

    def _values(self, fields: Sequence[Field], files: Sequence[Path], folder: Path) -> Path:
        """Write all values as text into one file, with NULL apart from the empty text."""
        import duckdb

        target = folder / "values.csv"
        config: dict[str, Any] = {"threads": "2", "memory_limit": "1GB", "temp_directory": str(folder / "spill")}
        with duckdb.connect(config=config) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            source, names = self._source(connection, fields, [str(path) for path in files])
            items = [self._item(item, name) for item, name in zip(fields, names, strict=True)]
            # The file's name first: an error tells in which one the row stood.
            select = f"SELECT {', '.join(items)} FROM {source}"  # noqa: S608 - quoted by runtime.sql
            try:
                connection.execute(
                    f"COPY ({select}) TO {sql.literal(str(target))}"
                    " (FORMAT csv, HEADER false, DELIMITER ',', QUOTE '\"', ESCAPE '\"', NULLSTR '', FORCE_QUOTE *)"
                )
            except duckdb.Error as exc:
                text = reason(exc)
                line = re.search(r"[Ll]ine:? (\d+)", text)
                wrong = "Extra column(s) found" if "Expected Number of Columns" in text else "Delimiter not found"
                if "JSON" in text:
                    wrong = "Invalid JSONPath format or invalid JSON"
                raise LoadError(
                    self.table[-1], 1202, f"{wrong}: {text[:80]}", self.url, int(line[1]) if line else 0
                ) from exc
        return target

    def _source(self, connection: Any, fields: Sequence[Field], files: Sequence[str]) -> tuple[str, list[str]]:
        """Return DuckDB's words for reading the files, and the names in them of the target's columns."""
        listed = "[" + ", ".join(map(sql.literal, files)) + "]"
        if self.format == "parquet":
            import duckdb

            source = f"read_parquet({listed}, hive_partitioning = false)"
            try:
                found = [str(row[0]) for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]  # noqa: S608
            except duckdb.Error as exc:
                raise RedshiftError(
                    "XX000", "Spectrum Scan Error", detail=f"File is not a valid Parquet file: {reason(exc)}"
                ) from exc
            if len(found) != len(fields):
                raise RedshiftError(
                    "XX000",
                    "Unmatched number of columns between table and file."
                    f" Table columns: {len(fields)}, Data columns: {len(found)}",
                )
            return source, found
        if self.format == "json":
            kinds = ", ".join(f"{sql.literal(item.name)}: 'VARCHAR'" for item in fields)
            packed = f", compression = '{self.compression}'" if self.compression else ""
            return (
                f"read_json({listed}, format = 'unstructured', columns = {{{kinds}}}{packed})",
                [item.name for item in fields],
            )
        names = [f"c{index}" for index in range(len(fields))]
        kinds = ", ".join(f"'{name}': 'VARCHAR'" for name in names)
        return f"read_csv({listed}, columns = {{{kinds}}}, {self._text_options()})", names

    def _text_options(self) -> str:
        quoted = self.format == "csv" or self.remove_quotes
        quote = (
            f"quote = {sql.literal(self.quote)}, escape = {sql.literal(self.quote)}"
            if quoted
            else "quote = '', escape = ''"
        )
        delimiter = self.delimiter or ("," if self.format == "csv" else "|")
        packed = f", compression = '{self.compression}'" if self.compression else ""
        return (
            f"header = false, auto_detect = false, delim = {sql.literal(delimiter)}, {quote},"
            f" skip = {self.header_lines}, nullstr = {sql.literal(self.null_as)},"
            " allow_quoted_nulls = false, parallel = false, ignore_errors = false, max_line_size = 4194304,"
            f" null_padding = {'true' if self.fill else 'false'}{packed}"
        )

    def _item(self, item: Field, name: str) -> str:
        """Return the expression of a column's text."""
        value = sql.identifier(name)
        if self.format == "parquet":
            return f"CAST({value} AS VARCHAR)"
        text = value
        if item.oid not in _TEXTS:
            text = f"NULLIF(trim({value}), '')"
        elif self.blanks_as_null:
            text = f"NULLIF({value}, repeat(' ', length({value})))"
        elif self.empty_as_null:
            text = f"NULLIF({value}, '')"
        if self.trim and item.oid in _TEXTS:
            text = f"rtrim({text})"
        if self.truncate and item.oid in (1042, 1043) and item.modifier >= 4:
            text = f"left({text}, {item.modifier - 4})"
        return text

    # Loading

    async def _loaded(
        self, session: Session, name: str, fields: Sequence[Field], values: Path, files: Sequence[tuple[Path, str]]
    ) -> int:
        """Load the values; return how many rows the table got."""
        listed = ", ".join(sql.identifier(item.name) for item in fields)
        lenient = f", ON_ERROR ignore, REJECT_LIMIT {self.max_errors}" if self.max_errors else ""
        statement = f"COPY {name} ({listed}) FROM STDIN (FORMAT csv{lenient})"
        try:
            tag = await session.copy_in(statement, _pieces(values))
        except RedshiftError as exc:
            if exc.code in _REASONS or exc.code == "22P04":
                number, text = _REASONS[exc.code]
                where = re.search(r"line (\d+)(?:, column ([^:]+))?", exc.where)
                raise LoadError(
                    self.table[-1],
                    number,
                    f"{text}: {exc.message}",
                    files[0][1] if len(files) == 1 else self.url,
                    int(where[1]) + self.header_lines if where else 0,
                    (where[2] or "") if where else "",
                ) from exc
            raise
        return int(tag.rpartition(" ")[2] or 0)

    async def _record(self, session: Session, failure: LoadError) -> None:
        """Keep the error, whatever becomes of the client's transaction."""
        who = await self._who(session)
        values = [who[0], who[1], self.director.database.name, failure.table, failure.file, str(failure.line)]
        values += [failure.column, str(failure.number), failure.text]
        quoted = [sql.literal(value.replace("\x00", "")) for value in values]
        await self.director.database.link.rows(
            "insert into goldlake_local.load_error (user_name, session_pid, database_name, table_name, file_name,"  # noqa: S608
            " line_number, column_name, error_code, error_message, at)"
            f" values ({', '.join(quoted)}, now() at time zone 'UTC')"
        )

    @staticmethod
    async def _who(session: Session) -> tuple[str, str]:
        return session.user, str(session.process)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    """Give a file piece by piece."""
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _FEED_BYTES):
            yield piece


async def _finished(work: Any) -> Any:
    """Wait for work in a thread, also when cancelled: its files are about to be removed."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _ending(compression: str | None) -> str:
    return {"gzip": ".gz", "zstd": ".zst"}.get(compression or "", "")


def parsed(tokens: Sequence[Token], director: Director) -> Copy | None:
    """Return the COPY that a statement is, None for one that is PostgreSQL's (FROM STDIN, TO STDOUT)."""
    words = options.Words.of(tokens)
    words.expect("copy")
    if words.peek() == "(":
        return None
    names = []
    while True:
        name = words.take().name
        if name is None:
            return None
        names.append(name)
        if not words.skip("."):
            break
    columns = tuple(words.names()) if words.peek() == "(" else ()
    if not words.skip("from") or not words.rest or words.rest[0].value is None:
        return None
    url = words.literal()
    if not url.startswith("s3://"):
        raise not_emulated(f"COPY FROM {url.partition(':')[0]}")
    options.bucket_and_key(url)
    copy = Copy(director, tuple(names), columns, url)
    while words.rest:
        copy = _with_option(copy, words)
    if not copy.role:
        raise RedshiftError("42601", "COPY needs IAM_ROLE: other credentials are not emulated")
    if copy.format == "json" and copy.json_option not in _AUTOMATIC:
        raise not_emulated(f"COPY … JSON {copy.json_option!r}")
    return copy


def _with_option(copy: Copy, words: options.Words) -> Copy:  # noqa: PLR0911, PLR0912 - one line an option
    """Return the COPY with the option that comes next."""
    token = words.take()
    match token.word:
        case "iam_role":
            return replace(copy, role=options.role(words))
        case "format":
            words.skip("as")
            return copy
        case "parquet" | "csv":
            return replace(copy, format=token.word)
        case "json":
            words.skip("as")
            given = words.literal() if words.rest and words.rest[0].value is not None else "auto"
            return replace(copy, format="json", json_option=given)
        case "quote":
            return replace(copy, quote=words.literal("as"))
        case "delimiter":
            return replace(copy, delimiter=words.literal("as").replace("\\t", "\t"))
        case "ignoreheader":
            words.skip("as")
            return replace(copy, header_lines=int(words.number()))
        case "gzip" | "zstd":
            return replace(copy, compression=token.word)
        case "manifest":
            return replace(copy, manifest=True)
        case "region":
            return replace(copy, region=words.literal("as"))
        case "null":
            return replace(copy, null_as=words.literal("as"))
        case "emptyasnull":
            return replace(copy, empty_as_null=True)
        case "blanksasnull":
            return replace(copy, blanks_as_null=True)
        case "truncatecolumns":
            return replace(copy, truncate=True)
        case "trimblanks":
            return replace(copy, trim=True)
        case "removequotes":
            return replace(copy, remove_quotes=True)
        case "fillrecord":
            return replace(copy, fill=True)
        case "maxerror":
            words.skip("as")
            return replace(copy, max_errors=int(words.number()))
        case "dateformat" | "timeformat":
            if words.literal("as").lower() not in ("auto", "yyyy-mm-dd", "yyyy-mm-dd hh:mi:ss"):
                raise not_emulated(f"COPY … {token.text.upper()} with a format of its own")
            return copy
        case word if word in _NO_MEANING:
            if words.peek() in ("on", "off", "true", "false", "preset"):
                words.take()
            return copy
        case "encoding":
            if words.literal("as").lower() != "utf8":
                raise not_emulated("COPY … ENCODING other than UTF8")
            return copy
        case "" | "from" | "to":
            raise words.error(token)
    raise not_emulated(f"COPY … {token.text.upper()}")


__all__ = ["Copy", "LoadError", "parsed"]
