"""Export gold tables to Delta Lake: the engine writes Parquet, one commit makes it the table.

    warehouse --(postgres extension, one snapshot)--> DuckDB --COPY--> Parquet --upload--> S3 --commit-->
    Delta log

All tables are read and uploaded before the first commit, so a failure on the way leaves every table at its
old version; only unreferenced files can remain. The commits then follow each other within milliseconds,
each atomic for its table: Delta has no transaction over several tables.

DuckDB does not write to S3 itself: its httpfs extension, with the postgres extension and delta-rs, would
not fit into the 250 MiB that AWS Lambda has for code and layers. boto3 is there anyway.
"""

from __future__ import annotations

import contextlib
import re
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime import aws as aws_errors
from runtime import duck, sql
from runtime.aws import Connection
from runtime.delta import commit as delta_commit
from runtime.delta import log as delta_log
from runtime.delta import statistics as delta_statistics
from runtime.delta import types as delta_types
from runtime.delta.commit import DataFile
from runtime.delta.lake import Lake
from runtime.delta.types import Column
from runtime.errors import (
    AccessDeniedError,
    ConfigurationError,
    FailedError,
    GoldlakeError,
    NotReadyError,
    UnreachableError,
)
from runtime.warehouse import Warehouse

if TYPE_CHECKING:
    import duckdb

SCHEMA = "goldlake.export/1"
# Large enough that a scan is not all opening of files, small enough for many readers to share a table.
FILE_SIZE = "256MB"
UPLOADS_AT_ONCE = 4
# An idle Redshift Serverless workgroup wakes up at the first connection, and takes its time.
CONNECT_SECONDS = 300

_DATABASE = "warehouse"


@dataclass(frozen=True)
class TableExport:
    """What became of one table. In a dry run `rows`, `files` and `bytes` are None and `version` is today's.

    `version` is the Delta version that holds the rows, None for a table that is not there yet. `bytes` are
    those of its Parquet files. `seconds` is the time for reading, uploading and committing this table.
    """

    table: str
    location: str
    version: int | None
    created: bool
    schema_changes: tuple[str, ...]
    rows: int | None = None
    files: int | None = None
    bytes: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class ExportReport:
    """The result of an export. `peak_memory_bytes` is the highest resident size of this process so far."""

    source_schema: str
    target: str
    run_id: str
    dry_run: bool
    seconds: float
    peak_memory_bytes: int
    tables: tuple[TableExport, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values; its form is named by the key `schema`."""
        rows = sum(table.rows or 0 for table in self.tables)
        return {
            "schema": SCHEMA,
            "rows": rows,
            **asdict(self),
            "tables": [asdict(item) for item in self.tables],
        }


@dataclass(frozen=True)
class _Plan:
    """A table to export, looked at but not read."""

    table: str
    location: str
    columns: tuple[Column, ...]
    version: int | None
    schema_changes: tuple[str, ...]


@dataclass(frozen=True)
class _Staged:
    """A table whose files lie under its location, unreferenced until the commit."""

    plan: _Plan
    export_id: str
    files: tuple[DataFile, ...]
    seconds: float

    @property
    def rows(self) -> int:
        """The rows in all files."""
        return sum(file.rows for file in self.files)


def export_tables(
    warehouse: Warehouse,
    aws: Connection | None,
    target: str,
    *,
    schema: str = "gold",
    tables: Sequence[str] | None = None,
    run_id: str | None = None,
    dry_run: bool = False,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Overwrite the Delta table `<target>/<table>` with each table of the schema; return what was done.

    `target` is `s3://bucket/prefix` or a local folder. `tables` None means all base tables of the schema.
    All are read in one snapshot (repeatable read). A missing Delta table is created; a changed schema is
    written with the same commit and listed in the report. `dry_run` reads catalogue and Delta logs only.
    `run_id` is kept in the log.

    Raises ConfigurationError for unknown tables, names and types that Delta does not have and Delta tables
    with features that an overwrite would break; NotReadyError for a schema without tables; UnreachableError
    when warehouse or S3 does not answer; FailedError when another writer was faster or the log has other
    rows than were written.
    """
    started = time.perf_counter()
    say = progress or _silent
    lake = Lake.at(target, aws)
    run = run_id or str(uuid.uuid4())
    with snapshot(warehouse) as connection, _translated(warehouse):
        names = _tables(connection, schema, tables)
        plans = [_plan(connection, lake, schema, name) for name in names]
        staged = [] if dry_run else _stage_all(connection, lake, schema, plans, say)
    if dry_run:
        done = [_planned(plan) for plan in plans]
    else:
        source = f"{warehouse.host}:{warehouse.port}/{warehouse.database}/{schema}"
        done = _commit_all(lake, staged, {"goldlake.runId": run, "goldlake.source": source}, say)
    seconds = round(time.perf_counter() - started, 3)
    return ExportReport(schema, lake.root, run, dry_run, seconds, _peak_memory(), tuple(done))


# --- the warehouse ---


@contextlib.contextmanager
def snapshot(warehouse: Warehouse) -> Iterator[duckdb.DuckDBPyConnection]:
    """Give a DuckDB connection with the warehouse attached read-only as `warehouse`, in one transaction.

    On PostgreSQL the parallel readers share the first one's exported snapshot; for Redshift (recognised by
    its version()) the extension reads with one connection and plain SELECTs, and all isolation is
    serializable. Raises UnreachableError when the warehouse does not answer or refuses the login.
    """
    connection = duck.connect("postgres_scanner")
    try:
        with _translated(warehouse):
            _attach(connection, warehouse)
            connection.execute("BEGIN TRANSACTION")
        yield connection
    finally:
        _close(connection)


def _attach(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse) -> None:
    """Attach the warehouse, the password in a DuckDB secret: a connection string shows up in errors."""
    import duckdb

    login = {
        "HOST": warehouse.host,
        "PORT": str(warehouse.port),
        "DATABASE": warehouse.database,
        "USER": warehouse.user,
        "PASSWORD": warehouse.password,
    }
    values = ", ".join(f"{key} {sql.literal(value)}" for key, value in login.items())
    try:
        connection.execute(f"CREATE SECRET warehouse_login (TYPE postgres, {values})")
    except duckdb.Error:
        # Without its cause: that one can show the statement.
        raise ConfigurationError("the warehouse's login cannot be handed to DuckDB") from None
    connection.execute(
        f"ATTACH {sql.literal(_connection_options(warehouse))} AS {_DATABASE}"
        " (TYPE postgres, SECRET warehouse_login, READ_ONLY, ISOLATION_LEVEL 'REPEATABLE READ')"
    )


def _connection_options(warehouse: Warehouse) -> str:
    """Return libpq's options besides the login.

    With TLS the server's certificate is checked, as redshift_connector does by default (verify-ca). libpq
    has no list of authorities of its own in DuckDB's build; botocore's, which is Mozilla's, has Amazon's
    roots.
    """
    options = f"connect_timeout={CONNECT_SECONDS} application_name=goldlake-export"
    if not warehouse.ssl:
        return f"{options} sslmode=disable"
    import botocore

    authorities = Path(botocore.__file__).with_name("cacert.pem")
    return f"{options} sslmode=verify-ca sslrootcert='{authorities}'"


def _close(connection: duckdb.DuckDBPyConnection) -> None:
    """End the transaction and close: left to the interpreter's end, a dead server aborts Python."""
    import duckdb

    with contextlib.suppress(duckdb.Error):
        connection.execute("ROLLBACK")
    with contextlib.suppress(duckdb.Error):
        connection.close()


def _tables(connection: duckdb.DuckDBPyConnection, schema: str, wanted: Sequence[str] | None) -> list[str]:
    """Return the tables to export, sorted: the wanted ones, which may be views too, or all base tables."""
    rows = connection.execute(
        "SELECT table_name, table_type FROM warehouse.information_schema.tables WHERE table_schema = ?",
        [schema],
    ).fetchall()
    base = sorted(name for name, kind in rows if kind == "BASE TABLE")
    if wanted is None:
        if not base:
            raise NotReadyError(f"schema {schema!r} has no tables, or none that this user may see")
        return base
    missing = sorted(set(wanted) - {name for name, _ in rows})
    if missing:
        names = ", ".join(map(repr, missing))
        raise ConfigurationError(f"schema {schema!r} has no table {names}; it has {', '.join(base) or 'none'}")
    return sorted(set(wanted))


def _plan(connection: duckdb.DuckDBPyConnection, lake: Lake, schema: str, table: str) -> _Plan:
    """Return what will be done with a table. Raises ConfigurationError for what cannot be exported."""
    try:
        columns = tuple(_columns(connection, schema, table))
        delta_types.check_names(columns)
        location = lake.location(table)
    except ConfigurationError as exc:
        raise ConfigurationError(f"table {schema}.{table}: {exc.message}", hint=exc.hint) from exc
    existing = delta_log.open_table(location, lake.storage_options())
    if existing is None:
        return _Plan(table, location, columns, None, ())
    delta_commit.check_writable(existing, location)
    old, new = delta_types.fields_of(existing.schema()), delta_types.fields_of(delta_types.schema_of(columns))
    return _Plan(table, location, columns, existing.version(), tuple(delta_types.schema_changes(old, new)))


def _columns(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> list[Column]:
    """Return the table's columns with their Delta types."""
    described = connection.execute(
        "SELECT column_name, data_type, comment FROM duckdb_columns()"
        " WHERE database_name = ? AND schema_name = ? AND table_name = ? ORDER BY column_index",
        [_DATABASE, schema, table],
    ).fetchall()
    unbounded = _unbounded_numerics(connection, schema, table)
    for name, kind, _ in described:
        if name in unbounded and "DOUBLE" in kind:
            raise ConfigurationError(
                f"column {name!r} is numeric without precision, or with more than 38 digits:"
                " Delta has no exact type for it",
                hint="give the model's column a precision, numeric(18, 2), or cast it to double precision",
            )
    return [delta_types.column(name, kind, comment) for name, kind, comment in described]


def _unbounded_numerics(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> set[str]:
    """Return the columns whose numbers DuckDB would read as DOUBLE, losing digits."""
    rows = connection.execute(
        "SELECT column_name FROM warehouse.information_schema.columns"
        " WHERE table_schema = ? AND table_name = ? AND (udt_name = '_numeric' OR (data_type = 'numeric'"
        " AND coalesce(CAST(numeric_precision AS INTEGER), 1000) > 38))",
        [schema, table],
    ).fetchall()
    return {name for (name,) in rows}


# --- Parquet files ---


def _stage_all(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    schema: str,
    plans: Sequence[_Plan],
    say: Callable[[str], None],
) -> list[_Staged]:
    """Write the files of all tables under their locations; on a failure remove them again."""
    staged: list[_Staged] = []
    try:
        for plan in plans:
            staged.append(_stage(connection, lake, schema, plan))
            size = sum(file.size for file in staged[-1].files)
            say(f"{plan.table}: {staged[-1].rows:,} rows, {size:,} bytes in {staged[-1].seconds:.1f} s")
    except BaseException:
        for item in staged:
            _discard(lake, item.plan.table, [file.name for file in item.files])
        raise
    return staged


def _stage(connection: duckdb.DuckDBPyConnection, lake: Lake, schema: str, plan: _Plan) -> _Staged:
    """Write one table's files under its location, by names that no other export uses."""
    started = time.perf_counter()
    export_id = uuid.uuid4().hex
    with contextlib.ExitStack() as stack:
        if lake.aws is None:
            folder = Path(plan.location)
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="goldlake-export-")))
        try:
            files = _copy(connection, plan, schema, folder, export_id)
            if lake.aws is not None:
                _upload(lake, plan.table, folder, files)
        except BaseException:
            _discard(lake, plan.table, [path.name for path in folder.glob(f"{export_id}-*.parquet")])
            raise
    return _Staged(plan, export_id, files, time.perf_counter() - started)


def _copy(
    connection: duckdb.DuckDBPyConnection, plan: _Plan, schema: str, folder: Path, export_id: str
) -> tuple[DataFile, ...]:
    """Let DuckDB write the table as Parquet into the folder; return the files that have rows."""
    # PostgreSQL's numeric has a NaN. DuckDB's postgres extension 1.5.5 reads it as 0 from the binary protocol and
    # refuses it in the text one, which takes half as long again.
    decimals = any(str(item.type).startswith("decimal(") for item in plan.columns)
    connection.execute(f"SET pg_use_text_protocol = {decimals}")
    select = ", ".join(item.expression for item in plan.columns)
    source = sql.qualified(_DATABASE, schema, plan.table)
    written = connection.execute(
        f"COPY (SELECT {select} FROM {source}) TO {sql.literal(str(folder))}"  # noqa: S608 - quoted by runtime.sql
        " (FORMAT parquet, COMPRESSION zstd, PER_THREAD_OUTPUT, OVERWRITE_OR_IGNORE, RETURN_STATS,"
        f" FILE_SIZE_BYTES {sql.literal(FILE_SIZE)}, FILENAME_PATTERN {sql.literal(export_id + '-{i}')})"
    ).fetchall()
    files = []
    for path, rows, size, _, statistics, _ in written:
        if rows == 0:
            Path(path).unlink()
            continue
        files.append(DataFile(Path(path).name, size, rows, delta_statistics.file_stats(plan.columns, rows, statistics)))
    return tuple(files)


def _upload(lake: Lake, table: str, folder: Path, files: Sequence[DataFile]) -> None:
    """Send the files to the table's location, a few at once. Raises as `runtime.aws.translated` does."""
    from boto3.s3.transfer import TransferConfig

    if lake.aws is None or not files:
        return
    client = lake.aws.client("s3")
    transfer = TransferConfig(max_concurrency=2)

    def send(file: DataFile) -> None:
        # upload_fileobj, for upload_file hides the service's error code in an exception of its own.
        with (
            aws_errors.translated(f"upload to {lake.location(table)}"),
            (folder / file.name).open("rb") as content,
        ):
            client.upload_fileobj(content, lake.bucket, lake.key(table, file.name), Config=transfer)

    with ThreadPoolExecutor(max_workers=UPLOADS_AT_ONCE) as pool:
        for _ in pool.map(send, files):
            pass


def _discard(lake: Lake, table: str, names: Sequence[str]) -> None:
    """Delete files that no commit refers to, as far as that works: leftovers cost storage only."""
    for name in names:
        if lake.aws is None:
            with contextlib.suppress(OSError):
                (Path(lake.location(table)) / name).unlink()
            continue
        with contextlib.suppress(GoldlakeError), aws_errors.translated("clean up"):
            lake.aws.client("s3").delete_object(Bucket=lake.bucket, Key=lake.key(table, name))


# --- commits ---


def _commit_all(
    lake: Lake, staged: Sequence[_Staged], info: dict[str, str], say: Callable[[str], None]
) -> list[TableExport]:
    """Commit table after table. A failure's hint names the tables that have their new version."""
    done: list[TableExport] = []
    for index, item in enumerate(staged):
        try:
            done.append(_commit(lake, item, info))
        except BaseException as exc:
            safe = isinstance(exc, GoldlakeError) and exc.code == delta_commit.NOT_COMMITTED
            # A commit of unknown outcome may refer to its files; those of the tables after it were never
            # named.
            for other in staged[index if safe else index + 1 :]:
                _discard(lake, other.plan.table, [file.name for file in other.files])
            if isinstance(exc, GoldlakeError) and done:
                new = ", ".join(table.table for table in done)
                exc.hint = f"{exc.hint or 'run the export again'} (already at their new version: {new})"
            raise
        say(f"{item.plan.table}: version {done[-1].version}")
    return done


def _commit(lake: Lake, item: _Staged, info: dict[str, str]) -> TableExport:
    """Make the staged files the table's content."""
    started = time.perf_counter()
    committed = delta_commit.commit(
        item.plan.location,
        item.plan.columns,
        item.files,
        export_id=item.export_id,
        options=lake.storage_options(),
        info={**info, "goldlake.version": delta_commit.goldlake_version(), "goldlake.rows": str(item.rows)},
        written_at_ms=time.time_ns() // 1_000_000,
    )
    return replace(
        _planned(item.plan),
        version=committed.version,
        rows=committed.rows,
        files=committed.files,
        bytes=sum(file.size for file in item.files),
        seconds=round(item.seconds + time.perf_counter() - started, 3),
    )


def _planned(plan: _Plan) -> TableExport:
    """Return the report's line of a table that is not exported yet."""
    return TableExport(plan.table, plan.location, plan.version, plan.version is None, plan.schema_changes)


# --- edges ---


@contextlib.contextmanager
def _translated(warehouse: Warehouse) -> Iterator[None]:
    """Raise what DuckDB and the file system raise as Goldlake's errors, without the password."""
    import duckdb

    try:
        yield
    except (duckdb.Error, OSError) as exc:
        text = duck.reason(exc)
        if warehouse.password:
            text = text.replace(warehouse.password, "***")
        cause = None if warehouse.password and warehouse.password in str(exc) else exc
        raise _goldlake_error(warehouse, text) from cause


def _goldlake_error(warehouse: Warehouse, text: str) -> GoldlakeError:
    """Return the error for DuckDB's message, which holds PostgreSQL's."""
    where = f"warehouse {warehouse.host}:{warehouse.port}/{warehouse.database} as {warehouse.user!r}"
    if re.search(r"permission denied for (table|schema|relation|view)", text):
        return AccessDeniedError(f"{where}: {text}", hint="grant the user SELECT on the table")
    if re.search(r"Unable to connect|connection to server|closed the connection|terminating connection|SSL", text):
        return UnreachableError(f"{where} cannot be reached: {text}")
    if re.search(r"No space left|Out of Memory", text, re.IGNORECASE):
        hint = "give the function or machine more memory and temporary storage, or export fewer tables at once"
        return FailedError(f"export from {where}: {text}", hint=hint)
    return FailedError(f"export from {where}: {text}")


def _peak_memory() -> int:
    """Return the process's highest resident size in bytes; ru_maxrss is in KiB, on macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _silent(_: str) -> None:
    """Take a progress message and show it to nobody."""
