"""Engine `unload`: Redshift writes a table as Parquet under its Delta location, and nothing passes through here.

    DataApi.run(UNLOAD … MANIFEST VERBOSE) --> s3://<location>/<export id>/[partition folders/]0000_part_00.parquet
                                               s3://<location>/<export id>/manifest
    manifest + listing --> DataFiles, for the commit

Sources of the rules: Redshift database developer guide, "UNLOAD", "UNLOAD examples" (form of the manifest),
"Unloading semistructured data"; Redshift Data API reference. What they leave open is not relied on:

* The Parquet type of a timestamp is not documented. INT96 and INT64 without zone are both read as UTC by readers of
  Delta's `timestamp`, so that is what timestamps become; `timestamp_ntz` is refused.
* How odd characters are escaped in partition folders is not documented. So odd texts never get there: the SELECT
  writes them as hexadecimal digits (`partition_expression`), and `partition_value` reads them back.
* Redshift takes a backslash in a text literal as an escape, or not, depending on a setting: no literal has one.

Every UNLOAD is a statement, and so a snapshot, of its own: tables of one export may be some seconds apart.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from runtime import aws as aws_errors
from runtime import sql
from runtime.delta.commit import DataFile
from runtime.delta.types import Column
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, GoldlakeError, UnreachableError
from runtime.export import engine
from runtime.export.engine import TablePlan

# Redshift Data API, "Considerations when calling the Data API": a statement's text is 100 KB at most, and runs 24 h.
MAX_STATEMENT_BYTES = 100_000
# The service's limit is 24 h; a table that takes longer than this is stuck behind a lock, or wants more RPUs.
DEADLINE_SECONDS = 4 * 3600.0
FIRST_POLL_SECONDS = 0.25
LONGEST_POLL_SECONDS = 5.0
# A cancelled UNLOAD's slices go on until they notice; only then can their files be deleted.
CANCEL_SECONDS = 60.0
# Answers to DescribeStatement that may be missing in a row: a statement of an hour outlives a throttled minute.
POLLS_LOST = 5
# UNLOAD, MAXFILESIZE: 5 MB to 6.2 GB, and for Parquet rounded down to a multiple of 32 MB.
FILE_MEGABYTES = range(32, 6201)
MANIFEST = "manifest"
TIMED_OUT = "TimedOut"

_ENDED = ("FINISHED", "FAILED", "ABORTED")
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+(,arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+)*")
# What Hive and whoever follows it name the folder of NULL.
_NULL_FOLDER = "__HIVE_DEFAULT_PARTITION__"
# A text that is a folder's name as it stands, everywhere; all others are written in hexadecimal behind this sign.
_PLAIN_TEXT = "^[A-Za-z0-9][A-Za-z0-9._-]*$"
HEXADECIMAL = "_x"

# information_schema's data_type -> Delta's type. What is not here is refused by name.
_TYPES: dict[str, str] = {
    "boolean": "boolean",
    "smallint": "short",
    "integer": "integer",
    "bigint": "long",
    "real": "float",
    "double precision": "double",
    "date": "date",
    "character": "string",
    "character varying": "string",
    "text": "string",
    "super": "string",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamp",
}
_REFUSED: dict[str, str] = {
    "binary varying": "UNLOAD writes VARBYTE to text files only",
    "varbyte": "UNLOAD writes VARBYTE to text files only",
    "geometry": "UNLOAD writes GEOMETRY to text files only",
    "geography": "UNLOAD writes GEOGRAPHY to text files only",
    "hllsketch": "UNLOAD writes HLLSKETCH to text files only",
    "time without time zone": "Delta has no type for a time of day",
    "time with time zone": "Delta has no type for a time of day",
    "interval year to month": "Delta has no type for an interval",
    "interval day to second": "Delta has no type for an interval",
}
# Delta types of partition columns -> what their folder's name is made of.
_PARTITION_TEXTS: dict[str, str] = {
    "short": r"-?\d+",
    "integer": r"-?\d+",
    "long": r"-?\d+",
    "decimal": r"-?\d+(\.\d+)?",
    "date": r"\d{4}-\d\d-\d\d",
    "boolean": r"true|false",
}


# --- the Data API ---


@dataclass(frozen=True, kw_only=True)
class DataApi:
    """A workgroup's database behind the Redshift Data API (`client`: boto3's `redshift-data`).

    Without `secret_arn` the caller's IAM identity signs in, as the database user IAMR:<role>. `sleep` and `clock` are
    there for tests.
    """

    client: Any
    workgroup: str
    database: str
    secret_arn: str | None = None
    deadline_seconds: float = DEADLINE_SECONDS
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    @property
    def where(self) -> str:
        """The database, as messages name it."""
        return f"workgroup {self.workgroup}, database {self.database}"

    def run(self, statement: str, token: str) -> Mapping[str, Any]:
        """Run one statement to its end; return DescribeStatement's answer.

        `token` (with the text) makes a repeated request the same statement and not a second one. A statement that is
        given up (deadline, Ctrl-C, service away) is cancelled, and its end awaited. Raises FailedError with code
        TIMED_OUT after the deadline, what `statement_error` says of a failed one, and as `runtime.aws.translated`.
        """
        size = len(statement.encode())
        if size > MAX_STATEMENT_BYTES:
            raise ConfigurationError(
                f"the statement has {size} bytes, and the Redshift Data API takes {MAX_STATEMENT_BYTES} at most",
                hint="export the table with --engine duckdb, or fewer columns of it",
            )
        end = self.clock() + self.deadline_seconds
        identifier = self._start(statement, token, end)
        try:
            answer = self._wait(identifier, end)
        except BaseException:
            self._cancel(identifier)
            raise
        if answer["Status"] != "FINISHED":
            raise statement_error(self.where, str(answer["Status"]), str(answer.get("Error") or ""))
        return answer

    def rows(self, statement: str, token: str) -> list[tuple[Any, ...]]:
        """Run a query and return its rows: str, int, float, bool or None."""
        identifier = self.run(statement, token)["Id"]
        with aws_errors.translated(f"result from {self.where}"):
            pages = self.client.get_paginator("get_statement_result").paginate(Id=identifier)
            return [tuple(_field(item) for item in record) for page in pages for record in page["Records"]]

    def _start(self, statement: str, token: str, end: float) -> str:
        """Send the statement, and again while the service has too many (500 active ones, shared by the account)."""
        login = {"SecretArn": self.secret_arn} if self.secret_arn else {}
        digest = hashlib.sha256(statement.encode()).hexdigest()[:16]
        for delay in _delays():
            try:
                with aws_errors.translated(f"statement for {self.where}"):
                    answer = self.client.execute_statement(
                        WorkgroupName=self.workgroup,
                        Database=self.database,
                        Sql=statement,
                        StatementName="goldlake-export",
                        ClientToken=f"{token}-{digest}",
                        **login,
                    )
                return str(answer["Id"])
            except FailedError as exc:
                busy = exc.code in ("ActiveStatementsExceededException", "ActiveSessionsExceededException")
                if not busy or self.clock() + delay > end:
                    raise
            self.sleep(delay)
        raise AssertionError("delays have no end")

    def _wait(self, identifier: str, end: float) -> Mapping[str, Any]:
        """Return the description of the statement when it has ended."""
        lost = 0
        for delay in _delays():
            try:
                with aws_errors.translated(f"statement {identifier} of {self.where}"):
                    answer: Mapping[str, Any] = self.client.describe_statement(Id=identifier)
            except UnreachableError as exc:
                lost += 1
                if lost > POLLS_LOST or isinstance(exc, AccessDeniedError):
                    raise
            else:
                lost = 0
                if answer["Status"] in _ENDED:
                    return answer
            if self.clock() + delay > end:
                raise FailedError(
                    f"statement {identifier} of {self.where} has not ended within {self.deadline_seconds:g} s",
                    hint="look whether it waits for a lock or in a queue, or give the workgroup more RPUs",
                    code=TIMED_OUT,
                )
            self.sleep(delay)
        raise AssertionError("delays have no end")

    def _cancel(self, identifier: str) -> None:
        """Cancel a statement and wait until it has ended, as far as that works: why we gave up counts more."""
        end = self.clock() + CANCEL_SECONDS
        with contextlib.suppress(GoldlakeError):
            with contextlib.suppress(FailedError), aws_errors.translated("cancel"):
                self.client.cancel_statement(Id=identifier)
            self._wait(identifier, end)


def _delays() -> Iterator[float]:
    """Give the seconds to wait between questions: a quarter of a second, growing to five."""
    delay = FIRST_POLL_SECONDS
    while True:
        yield delay
        delay = min(delay * 1.5, LONGEST_POLL_SECONDS)


def _field(item: Mapping[str, Any]) -> Any:
    """Return the value of a field of a result."""
    return None if item.get("isNull") else next(iter(item.values()))


def statement_error(where: str, status: str, text: str) -> GoldlakeError:
    """Return the error for a statement that failed; the service gives Redshift's message and no SQL state."""
    message = f"{where}: {' '.join(text.split()) or status.lower()}"
    if re.search(r"S3ServiceException:\s*Access ?Denied|Error AccessDenied", text):
        hint = "the role of UNLOAD needs s3:PutObject and s3:GetObject below the gold prefix, and s3:ListBucket"
        return AccessDeniedError(message, hint=hint, code="AccessDenied")
    if re.search(
        r"not authorized to (assume|get credentials of)|not authorized to perform: sts:AssumeRole", text, re.I
    ):
        hint = "attach the role to the namespace, and let redshift-serverless and redshift assume it"
        return AccessDeniedError(message, hint=hint, code="AssumeRole")
    if re.search(r"permission denied for", text):
        hint = "grant the user USAGE on the schema and SELECT on the table"
        return AccessDeniedError(message, hint=hint, code="42501")
    if re.search(r"S3ServiceException:.*(SlowDown|InternalError|ServiceUnavailable|Status 50\d)", text):
        return UnreachableError(message, hint="run the export again", code="S3ServiceException")
    if status == "ABORTED":
        hint = "somebody cancelled it, or a limit of the workgroup did (max_query_execution_time, usage limit)"
        return FailedError(message, hint=hint, code=status)
    return FailedError(message, code=status)


# --- types and SQL ---


@dataclass(frozen=True)
class RedshiftColumn:
    """A column as Redshift's information_schema has it."""

    name: str
    type: str
    length: int | None = None
    precision: int | None = None
    scale: int | None = None


def delta_type(source: RedshiftColumn) -> str:
    """Return the Delta type that a column becomes by UNLOAD; ConfigurationError naming those that it cannot be."""
    if source.type in ("numeric", "decimal") and source.precision:
        return f"decimal({source.precision},{source.scale or 0})"
    found = _TYPES.get(source.type)
    if found is None:
        reason = _REFUSED.get(source.type, "UNLOAD to Parquet is not known to write it")
        raise ConfigurationError(
            f"column {source.name!r} has type {source.type}: {reason}",
            hint="cast it in the model, or export the table with --engine duckdb",
        )
    return found


def expression(source: RedshiftColumn) -> str:
    """Return the SELECT's expression for a column, without alias."""
    name = sql.identifier(source.name)
    match source.type:
        case "timestamp with time zone":
            # "Only the timestamp values are unloaded": which zone's is said here, not by the session's setting.
            return f"{name} AT TIME ZONE 'UTC'"
        case "super":
            # As text of our own making: Parquet's JSON type is a binary to some readers.
            return f"JSON_SERIALIZE({name})"
        case "character" if source.length:
            # Padded, as the type says and as it comes over the wire: both engines write the same.
            return f"RPAD({name}, {source.length})"
        case _:
            return name


def partition_expression(source: RedshiftColumn) -> str:
    """Return the expression for a partition column, whose value becomes a folder's name.

    Texts other than letters, digits, dots and dashes become `_x` and the hexadecimal digits of their UTF-8.
    """
    value = expression(source)
    match delta_type(source).partition("(")[0]:
        case "string":
            digits = f"FROM_VARBYTE(TO_VARBYTE({value}, 'utf8'), 'hex')"
            return (
                f"CASE WHEN {value} ~ {sql.literal(_PLAIN_TEXT)} THEN {value}"
                f" WHEN {value} IS NOT NULL THEN {sql.literal(HEXADECIMAL)} || {digits} END"
            )
        case "boolean":
            return f"CASE WHEN {value} THEN 'true' WHEN NOT {value} THEN 'false' END"
        case kind if kind in _PARTITION_TEXTS:
            return value
        case kind:
            raise ConfigurationError(
                f"column {source.name!r} of type {source.type} cannot partition an UNLOAD: integers, decimals, dates,"
                " booleans and texts can",
                hint=f"partition by a date, or export with --engine duckdb ({kind})",
            )


def select_statement(plan: TablePlan, sources: Mapping[str, RedshiftColumn]) -> str:
    """Return the SELECT of an UNLOAD: the plan's columns by their physical names, cast where Redshift's types need it.

    Raises ConfigurationError for a column that is gone, has become another type or that UNLOAD cannot write, and for
    names with a backslash.
    """
    items = []
    for column in plan.columns:
        source = sources.get(column.name)
        if source is None:
            raise ConfigurationError(f"{plan.schema}.{plan.table} has no column {column.name!r}")
        _check_type(column, source)
        value = partition_expression(source) if column.name in plan.partition_by else expression(source)
        items.append(f"{value} AS {sql.identifier(plan.physical_name(column.name))}")
    # An expression cannot hide behind a column's own name here: output names come first in ORDER BY.
    keys = [
        f"{sql.identifier(plan.physical_name(key.column))}{' DESC' if key.descending else ''}" for key in plan.order_by
    ]
    order = f" ORDER BY {', '.join(keys)}" if keys else ""
    table = sql.qualified(plan.schema, plan.table)
    return _without_backslash(f"SELECT {', '.join(items)} FROM {table}{order}")  # noqa: S608 - quoted by runtime.sql


def _check_type(column: Column, source: RedshiftColumn) -> None:
    """Raise ConfigurationError unless UNLOAD writes the column as the type that the plan has for it."""
    written = delta_type(source)
    if column.type == "timestamp_ntz":
        raise ConfigurationError(
            f"column {column.name!r} is to be timestamp_ntz: which Parquet type UNLOAD gives a timestamp is not"
            " documented, and one of the two is always a time in UTC",
            hint="export it as timestamp (UTC), or with --engine duckdb",
        )
    if column.type != written:
        raise ConfigurationError(
            f"column {column.name!r} of type {source.type} is {written} by UNLOAD, and {column.type} was planned",
            hint="export the table with --engine duckdb",
        )


def _without_backslash(text: str) -> str:
    """Return the text; ConfigurationError when it has a backslash, which Redshift may take as an escape."""
    if "\\" in text:
        raise ConfigurationError(
            "a name with a backslash cannot be unloaded: Redshift may take it as an escape in UNLOAD's text",
            hint="rename the column or table, or export it with --engine duckdb",
        )
    return text


def unload_statement(
    select: str,
    prefix: str,
    role: str,
    *,
    partition_by: Sequence[str] = (),
    file_bytes: int = 256_000_000,
    region: str | None = None,
    kms_key: str | None = None,
) -> str:
    """Return the UNLOAD of a SELECT to an S3 prefix that ends in a slash.

    `region` is needed where the bucket is not in the workgroup's, `kms_key` where its policy asks for one. Raises
    ConfigurationError for what is no role's ARN (several, by commas, are a chain).
    """
    if not _ROLE.fullmatch(role):
        raise ConfigurationError(
            f"UNLOAD needs the ARN of a role (arn:aws:iam::<account>:role/<name>) that may write the target: {role!r}",
            hint="name a role of the namespace with --unload-role, or export with --engine duckdb",
        )
    megabytes = min(max(file_bytes // 1_000_000, FILE_MEGABYTES.start), FILE_MEGABYTES.stop - 1)
    names = ", ".join(sql.identifier(name) for name in partition_by)
    options = [
        "FORMAT PARQUET",
        *([f"PARTITION BY ({names})"] if names else []),
        "MANIFEST VERBOSE",
        f"MAXFILESIZE {megabytes} MB",
        *([f"REGION {sql.literal(region)}"] if region else []),
        *([f"KMS_KEY_ID {sql.literal(kms_key)} ENCRYPTED"] if kms_key else []),
    ]
    head = f"UNLOAD ({sql.literal(select)}) TO {sql.literal(prefix)} IAM_ROLE {sql.literal(role)}"
    return _without_backslash(f"{head} {' '.join(options)}")


def source_columns(api: DataApi, schema: str, table: str, token: str) -> dict[str, RedshiftColumn]:
    """Return a table's columns by name, as Redshift has them now."""
    statement = (
        "SELECT CAST(column_name AS varchar(128)), CAST(data_type AS varchar(64)),"  # noqa: S608 - quoted by runtime.sql
        " CAST(character_maximum_length AS integer), CAST(numeric_precision AS integer), CAST(numeric_scale AS integer)"
        " FROM information_schema.columns"
        f" WHERE table_schema = {sql.literal(schema)} AND table_name = {sql.literal(table)}"
    )
    return {row[0]: RedshiftColumn(*row) for row in api.rows(_without_backslash(statement), token)}


def estimated_bytes(api: DataApi, schema: str, tables: Sequence[str], token: str) -> int | None:
    """Return the tables' size in Redshift's storage, for `engine.choose_engine`; None when it is not known.

    svv_table_info counts blocks of 1 MB, leaves empty tables and views out, and shows itself to superusers and those
    with a grant only.
    """
    names = ", ".join(map(sql.literal, tables))
    statement = (
        'SELECT CAST(SUM("size") AS bigint) FROM svv_table_info'  # noqa: S608 - quoted by runtime.sql
        f' WHERE "schema" = {sql.literal(schema)} AND "table" IN ({names})'
    )
    try:
        ((blocks,),) = api.rows(_without_backslash(statement), token)
    except (AccessDeniedError, FailedError):
        return None
    return None if blocks is None else int(blocks) << 20


# --- the manifest ---


@dataclass(frozen=True)
class ManifestEntry:
    """A file that UNLOAD wrote: its URL, size in bytes and rows."""

    url: str
    size: int
    rows: int


@dataclass(frozen=True)
class Manifest:
    """What UNLOAD … MANIFEST VERBOSE says that it wrote. `columns` are the names in the files, in their order."""

    entries: tuple[ManifestEntry, ...]
    columns: tuple[str, ...]

    @property
    def rows(self) -> int:
        """The rows in all files."""
        return sum(entry.rows for entry in self.entries)


def read_manifest(content: bytes, where: str) -> Manifest:
    """Return the manifest; FailedError naming `where` when it is of another form or its sums do not hold."""
    try:
        found = json.loads(content)
        entries = tuple(
            ManifestEntry(str(item["url"]), int(item["meta"]["content_length"]), int(item["meta"]["record_count"]))
            for item in found["entries"]
        )
        columns = tuple(str(item["name"]) for item in found["schema"]["elements"])
        total = (int(found["meta"]["content_length"]), int(found["meta"]["record_count"]))
    except (ValueError, KeyError, TypeError) as exc:
        raise FailedError(f"{where} is not a manifest of UNLOAD … MANIFEST VERBOSE: {exc!r}") from exc
    manifest = Manifest(entries, columns)
    counted = (sum(entry.size for entry in entries), manifest.rows)
    if counted != total:
        raise FailedError(f"{where}: its files have {counted} bytes and rows, and it says {total} for all of them")
    return manifest


def data_files(plan: TablePlan, manifest: Manifest, listed: Mapping[str, int]) -> tuple[DataFile, ...]:
    """Return the files of a manifest that have rows, as the commit takes them.

    `listed` are names, relative to the table's location, and sizes of the files that are there. Raises FailedError
    when the two do not agree, and when the files' columns are others than the plan's.
    """
    _check_columns(plan, manifest)
    sizes = dict(listed)
    files = []
    for entry in manifest.entries:
        name = _name(plan, entry.url, sizes)
        size = sizes.pop(name, None)
        if size != entry.size:
            there = "is not there" if size is None else f"has {size}"
            raise FailedError(f"{plan.location}/{name}: the manifest says {entry.size} bytes, and the file {there}")
        if entry.rows:
            values = partition_values(plan, name)
            # Redshift reports no minima and maxima; a row count alone still answers count(*).
            stats = json.dumps({"numRecords": entry.rows})
            files.append(DataFile(name, entry.size, entry.rows, stats, partition_values=values))
    if sizes:
        raise FailedError(f"{plan.location}: files of this UNLOAD are not in its manifest: {', '.join(sorted(sizes))}")
    return tuple(files)


def _name(plan: TablePlan, url: str, sizes: Mapping[str, int]) -> str:
    """Return a file's name relative to the table's location, as S3 has it; the manifest's may be URL-encoded."""
    begin = f"{plan.location}/{plan.export_id}/"
    if not url.startswith(begin):
        raise FailedError(f"the manifest names {url}, which is not below {begin}")
    name = url.removeprefix(f"{plan.location}/")
    return name if name in sizes else unquote(name)


def _check_columns(plan: TablePlan, manifest: Manifest) -> None:
    """Raise FailedError unless the files have the plan's columns: readers find them by their exact names."""
    folders = {plan.physical_name(name) for name in plan.partition_by}
    written = [name for name in manifest.columns if name not in folders]
    planned = [plan.physical_name(column.name) for column in plan.data_columns]
    if written != planned:
        raise FailedError(
            f"{plan.location}: UNLOAD wrote the columns {', '.join(written)} in place of {', '.join(planned)}",
            hint="set enable_case_sensitive_identifier=true for the workgroup, or name columns in lower case",
        )


def partition_values(plan: TablePlan, name: str) -> dict[str, str | None]:
    """Return partition column -> value (as Delta's log has it; None is NULL) of a file below the export's folder.

    Raises FailedError for folders that are not the plan's and values that are not of their column's type. Which
    partitions may be written is the commit's to say.
    """
    folders = name.removeprefix(f"{plan.export_id}/").split("/")[:-1]
    columns = {column.name: column for column in plan.columns}
    found: dict[str, str | None] = {}
    for column, folder in zip(plan.partition_by, folders, strict=False):
        key, sign, text = folder.partition("=")
        if not sign or unquote(key).lower() != plan.physical_name(column).lower():
            break
        found[column] = partition_value(columns[column], unquote(text))
    if len(found) != len(plan.partition_by) or len(folders) != len(plan.partition_by):
        raise FailedError(
            f"{plan.location}/{name} is not in folders of the partition columns {', '.join(plan.partition_by) or '-'}"
        )
    return found


def partition_value(column: Column, text: str) -> str | None:
    """Return the value that a folder's text stands for; see `partition_expression`."""
    if text == _NULL_FOLDER:
        return None
    if column.type == "string":
        return from_hexadecimal(column.name, text)
    form = _PARTITION_TEXTS.get(str(column.type).partition("(")[0])
    if form is None or not re.fullmatch(form, text):
        raise FailedError(f"partition column {column.name!r} of type {column.type} has the folder {text!r}")
    return text


def from_hexadecimal(name: str, text: str) -> str:
    """Return a partition's text, which is in hexadecimal when it begins with the sign for that."""
    if not text.startswith(HEXADECIMAL):
        return text
    try:
        return bytes.fromhex(text.removeprefix(HEXADECIMAL)).decode()
    except ValueError as exc:
        raise FailedError(f"partition column {name!r} has the folder {text!r}, which is not hexadecimal") from exc


# --- the engine ---


@dataclass(frozen=True, kw_only=True)
class UnloadEngine:
    """Redshift as an engine: one UNLOAD for a table. `role` is what Redshift writes to S3 with."""

    api: DataApi
    role: str
    region: str | None = None
    kms_key: str | None = None

    @property
    def name(self) -> str:
        """The engine's name."""
        return engine.UNLOAD

    def stage(self, plan: TablePlan) -> tuple[DataFile, ...]:
        """Let Redshift write the table's rows under its location; return the files that have rows.

        A failure deletes whatever is below the export's folder, after the statement has ended. Raises as `DataApi.run`
        does, and FailedError when manifest and files do not agree.
        """
        if plan.lake.aws is None:
            raise ConfigurationError(f"Redshift writes to S3 only, and the target is {plan.lake.root!r}")
        if not plan.data_columns:
            raise ConfigurationError(f"{plan.schema}.{plan.table}: all columns are partitions, and no file is without")
        sources = source_columns(self.api, plan.schema, plan.table, plan.export_id)
        statement = unload_statement(
            select_statement(plan, sources),
            f"{plan.location}/{plan.export_id}/",
            self.role,
            partition_by=[plan.physical_name(name) for name in plan.partition_by],
            file_bytes=plan.file_bytes,
            region=self.region,
            kms_key=self.kms_key,
        )
        try:
            answer = self.api.run(statement, plan.export_id)
            return _staged(plan, answer.get("ResultRows"))
        except BaseException:
            discard(plan)
            raise


def _staged(plan: TablePlan, result_rows: int | None) -> tuple[DataFile, ...]:
    """Return the files that an UNLOAD has left, and delete those that the table does not need."""
    listed = {file.name: file.size for file in plan.lake.list_files(plan.table, f"{plan.export_id}/")}
    name = f"{plan.export_id}/{MANIFEST}"
    content = plan.lake.read(plan.table, name)
    if content is None:
        # Whether a query without rows gets a manifest is not documented.
        if result_rows == 0 and not listed:
            return ()
        raise FailedError(f"UNLOAD has ended, and its manifest {plan.location}/{name} is not there")
    listed.pop(name, None)
    files = data_files(plan, read_manifest(content, f"{plan.location}/{name}"), listed)
    plan.lake.delete(plan.table, sorted({name, *listed} - {file.name for file in files}))
    return files


def discard(plan: TablePlan) -> None:
    """Delete everything below the export's folder, as far as that works: leftovers cost storage only."""
    with contextlib.suppress(GoldlakeError):
        plan.lake.delete(plan.table, [file.name for file in plan.lake.list_files(plan.table, f"{plan.export_id}/")])
