"""Stands in for Spectrum: tables of the Glue catalogue, mirrored into PostgreSQL tables of the same name.

Real external tables read the lake at each query. The mirror compares Glue and S3 with what it loaded last,
before a new connection gets in, and loads anew what changed; so a query sees the lake as it was when its
session began.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from local.redshift.server import DATABASE, SUPERUSER, Postgres, run_sql, socket_port
from runtime import sql
from runtime.aws import Connection, translated
from runtime.duck import reason
from runtime.errors import GoldlakeError, UnreachableError
from runtime.silver import SILVER_TABLES

if TYPE_CHECKING:
    import duckdb

LOG = logging.getLogger(__name__)

SCHEMAS = {table.database: table.schema for table in SILVER_TABLES}
"""Glue database -> schema of the warehouse, as the external schemas on AWS have it."""

_SECONDS_BETWEEN_CHECKS = 2.0
# A connection waits this long for changed tables to be loaded, then goes on with what is there.
_PATIENCE_SECONDS = 120.0
# PostgreSQL cuts longer names off; Redshift allows 127.
_MAX_NAME_BYTES = 63

_TYPES = {
    "string": "VARCHAR",
    "boolean": "BOOLEAN",
    "tinyint": "SMALLINT",
    "smallint": "SMALLINT",
    "int": "INTEGER",
    "integer": "INTEGER",
    "bigint": "BIGINT",
    "float": "REAL",
    "double": "DOUBLE",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
    "binary": "BLOB",
}


@dataclass(frozen=True)
class ExternalColumn:
    """A column of a mirrored table; `type` is DuckDB's name of the type."""

    name: str
    type: str


@dataclass(frozen=True)
class StoredObject:
    """An object in S3."""

    key: str
    etag: str
    size: int


@dataclass(frozen=True)
class ExternalTable:
    """A Glue table as it is now: where it is shown, its usable columns, its objects."""

    schema: str
    name: str
    location: str
    columns: tuple[ExternalColumn, ...]
    objects: tuple[StoredObject, ...]

    @property
    def columns_fingerprint(self) -> str:
        """What changes when the table must be created anew."""
        return _digest([[column.name, column.type] for column in self.columns])

    @property
    def content_fingerprint(self) -> str:
        """What changes when the rows must be loaded anew."""
        objects = sorted([item.key, item.etag, item.size] for item in self.objects)
        return _digest([self.columns_fingerprint, self.location, objects])


def duckdb_type(glue_type: str) -> str | None:
    """Return DuckDB's type for a Glue (Hive) type, None for one that is not mirrored (nested types)."""
    text = glue_type.strip().lower()
    if text in _TYPES:
        return _TYPES[text]
    if re.fullmatch(r"(var)?char\(\d{1,5}\)", text):
        return "VARCHAR"
    decimal = re.fullmatch(r"decimal(?:\((\d{1,2})(?:\s*,\s*(\d{1,2}))?\))?", text)
    if decimal is None:
        return None
    # Hive's defaults: decimal is decimal(10,0).
    precision, scale = int(decimal[1] or 10), int(decimal[2] or 0)
    return f"DECIMAL({precision},{scale})" if 1 <= precision <= 38 and scale <= precision else None


def usable_name(name: str) -> bool:
    """Return whether PostgreSQL can hold the name whole."""
    return 0 < len(name.encode("utf-8", "surrogatepass")) <= _MAX_NAME_BYTES and "\x00" not in name


def bucket_and_prefix(location: str) -> tuple[str, str] | None:
    """Return bucket and key prefix (with its slash) of an s3:// location, None for any other location."""
    parts = urlsplit(location)
    if parts.scheme not in ("s3", "s3a", "s3n") or not parts.netloc:
        return None
    prefix = parts.path.strip("/")
    return parts.netloc, f"{prefix}/" if prefix else ""


def local_name(prefix: str, key: str, index: int) -> Path:
    """Return a relative path for a downloaded object: its partition directories (`day=1`) and a number.

    Nothing else of the key is used, so no key can name a place outside the directory.
    """
    partitions = [part for part in key.removeprefix(prefix).split("/")[:-1] if "=" in part and "\x00" not in part]
    return Path(*partitions, f"{index:06d}.parquet")


def ensure_schemas(postgres: Postgres) -> None:
    """Create the external schemas where they are missing, whatever Glue holds.

    Who may use such a schema may read all its tables, as on Redshift.
    """
    statements = ["set client_min_messages = warning;"]
    for database, schema in SCHEMAS.items():
        name = sql.identifier(schema)
        values = f"{sql.literal(schema)}, {sql.literal(database)}"
        statements += [
            f"create schema if not exists {name};",
            f"alter default privileges in schema {name} grant select on tables to public;",
            f"insert into goldlake_local.external_schema values ({values})"  # noqa: S608 - quoted above
            " on conflict (schema_name) do update set glue_database = excluded.glue_database;",
        ]
    run_sql(postgres, "\n".join(statements))


class Mirror:
    """Keeps the external schemas of the local Redshift equal to the Glue catalogue at `aws`."""

    def __init__(self, aws: Connection, postgres: Postgres, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._glue = aws.client("glue")
        self._s3 = aws.client("s3")
        self._postgres = postgres
        self._clock = clock
        self._lock = threading.Lock()
        self._checked: float | None = None
        self._unreachable = False
        # Tables that could not be loaded, with the fingerprint that failed: tried again when it changes.
        self._failed: dict[tuple[str, str], str] = {}
        self._warned: set[str] = set()
        self._loaded = self._read_state()

    async def refresh_soon(self) -> None:
        """Refresh in a thread, and wait for it, but not for ever: the connection matters more."""
        work = asyncio.ensure_future(asyncio.to_thread(self.refresh))
        done, _ = await asyncio.wait({work}, timeout=_PATIENCE_SECONDS)
        if not done:
            LOG.warning("external tables are still being loaded; the connection goes on with their last state")
            return
        work.result()

    def refresh(self) -> None:
        """Bring all external tables up to date, unless that was checked within the last two seconds.

        Raises nothing for an emulator or a table that cannot be read: that is logged, once for each cause,
        and the last state stays.
        """
        with self._lock:
            if self._checked is not None and self._clock() - self._checked < _SECONDS_BETWEEN_CHECKS:
                return
            try:
                current = self._current_tables()
            except GoldlakeError as exc:
                self._note_unreachable(exc)
            else:
                if self._unreachable:
                    LOG.info("the Glue catalogue answers again")
                self._unreachable = False
                self._apply(current)
            finally:
                self._checked = self._clock()

    def _note_unreachable(self, exc: GoldlakeError) -> None:
        if not self._unreachable:
            LOG.warning("external tables keep their last state: %s", exc.message)
        self._unreachable = True

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            LOG.warning("%s", text)

    # Reading Glue and S3

    def _current_tables(self) -> dict[tuple[str, str], ExternalTable]:
        """Return the tables of all Glue databases of ours, by schema and name."""
        found = {}
        for database, schema in SCHEMAS.items():
            for described in self._glue_tables(database):
                table = self._external_table(schema, described)
                if table is not None:
                    found[table.schema, table.name] = table
        return found

    def _glue_tables(self, database: str) -> list[dict[str, Any]]:
        """Return the Glue tables of a database, none when there is no such database."""
        with translated(f"Glue database {database}"):
            try:
                pages = self._glue.get_paginator("get_tables").paginate(DatabaseName=database)
                return [table for page in pages for table in page["TableList"]]
            except self._glue.exceptions.EntityNotFoundException:
                return []

    def _external_table(self, schema: str, described: dict[str, Any]) -> ExternalTable | None:
        """Return the table that a Glue description stands for, None for views and what cannot be mirrored."""
        name = str(described["Name"])
        storage = described.get("StorageDescriptor") or {}
        location = str(storage.get("Location") or "")
        place = bucket_and_prefix(location)
        if place is None or not usable_name(name):
            if described.get("TableType") != "VIRTUAL_VIEW":
                self._warn_once(f"{schema}.{name!r} is not mirrored: its name or location {location!r} is unusable")
            return None
        columns = self._columns(f"{schema}.{name}", storage.get("Columns") or [])
        columns += self._columns(f"{schema}.{name}", described.get("PartitionKeys") or [])
        if not columns:
            self._warn_once(f"{schema}.{name} is not mirrored: it has no usable column")
            return None
        objects = self._objects(*place)
        if any("/_delta_log/" in f"/{item.key}" for item in objects):
            self._warn_once(f"{schema}.{name} is not mirrored: {location} holds a Delta table, not plain Parquet")
            return None
        data = tuple(item for item in objects if _is_data(item, place[1]))
        return ExternalTable(schema, name, location, tuple(columns), data)

    def _columns(self, table: str, described: list[dict[str, Any]]) -> list[ExternalColumn]:
        """Return the usable columns; the others are named in the log."""
        columns = []
        for column in described:
            name, glue_type = str(column["Name"]), str(column.get("Type") or "")
            mirrored = duckdb_type(glue_type)
            if mirrored is None or not usable_name(name):
                self._warn_once(f"{table}: column {name!r} of type {glue_type!r} is skipped: unsupported")
            else:
                columns.append(ExternalColumn(name, mirrored))
        return columns

    def _objects(self, bucket: str, prefix: str) -> list[StoredObject]:
        """Return all objects under the prefix; none when the bucket does not exist yet."""
        with translated(f"s3://{bucket}/{prefix}"):
            try:
                pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
                return [
                    StoredObject(item["Key"], item["ETag"], item["Size"])
                    for page in pages
                    for item in page.get("Contents", [])
                ]
            except self._s3.exceptions.NoSuchBucket:
                return []

    # Writing PostgreSQL

    def _read_state(self) -> dict[tuple[str, str], tuple[str, str]]:
        """Return columns' and content's fingerprints of the tables loaded by an earlier process."""
        rows = run_sql(
            self._postgres,
            "select json_build_array(schema_name, table_name, columns_fingerprint, content_fingerprint)"
            " from goldlake_local.external_table",
        )
        state = {}
        for row in rows.splitlines():
            schema, table, columns, content = json.loads(row)
            state[schema, table] = (columns, content)
        return state

    def _apply(self, current: dict[tuple[str, str], ExternalTable]) -> None:
        """Drop what is gone and load what changed; each table in a transaction of its own."""
        gone = self._loaded.keys() - current.keys()
        changed = [
            table
            for key, table in current.items()
            if table.content_fingerprint not in (self._loaded.get(key, ("", ""))[1], self._failed.get(key))
        ]
        if not gone and not changed:
            return
        try:
            with _duckdb(self._postgres) as connection:
                for schema, name in sorted(gone):
                    self._drop(connection, schema, name)
                for table in changed:
                    self._load(connection, table)
        except UnreachableError as exc:
            LOG.warning("external tables keep their last state: %s", exc.message)

    def _drop(self, connection: duckdb.DuckDBPyConnection, schema: str, name: str) -> None:
        import duckdb

        try:
            with _transaction(connection):
                connection.execute(f"DROP TABLE IF EXISTS {_target(schema, name)}")
                _forget(connection, schema, name)
        except duckdb.Error as exc:
            self._warn_once(f"{schema}.{name} is gone from Glue and could not be dropped: {reason(exc)}")
            return
        del self._loaded[schema, name]
        LOG.info("dropped external table %s.%s: it is gone from Glue", schema, name)

    def _load(self, connection: duckdb.DuckDBPyConnection, table: ExternalTable) -> None:
        """Load a table anew, or log why that failed and leave it as it was."""
        import duckdb

        key = (table.schema, table.name)
        started = self._clock()
        try:
            with tempfile.TemporaryDirectory(prefix="goldlake-external-") as directory:
                files = self._download(table, Path(directory))
                rows = self._replace(connection, table, files)
        except (duckdb.Error, GoldlakeError, OSError) as exc:
            if not isinstance(exc, UnreachableError):
                self._failed[key] = table.content_fingerprint
            LOG.warning("external table %s.%s keeps its last state: %s", table.schema, table.name, reason(exc))
            return
        self._failed.pop(key, None)
        self._loaded[key] = (table.columns_fingerprint, table.content_fingerprint)
        LOG.info(
            "loaded external table %s.%s: %d rows of %d objects in %.1f s",
            *(table.schema, table.name, rows, len(files), self._clock() - started),
        )

    def _download(self, table: ExternalTable, directory: Path) -> list[str]:
        """Fetch the table's objects; return the paths of the files."""
        place = bucket_and_prefix(table.location)
        assert place is not None  # noqa: S101 - an ExternalTable has an S3 location
        bucket, prefix = place
        files = []
        for index, item in enumerate(table.objects):
            path = directory / local_name(prefix, item.key, index)
            path.parent.mkdir(parents=True, exist_ok=True)
            with translated(f"s3://{bucket}/{item.key}"):
                self._s3.download_file(bucket, item.key, str(path))
            files.append(str(path))
        return files

    def _replace(self, connection: duckdb.DuckDBPyConnection, table: ExternalTable, files: list[str]) -> int:
        """Replace the rows, and the table when its columns changed, in one transaction; return the new count.

        DELETE and not TRUNCATE: a session that reads the old rows neither waits nor makes us wait.
        """
        target = _target(table.schema, table.name)
        same_columns = self._loaded.get((table.schema, table.name), ("",))[0] == table.columns_fingerprint
        with _transaction(connection):
            if same_columns:
                connection.execute(f"DELETE FROM {target}")  # noqa: S608 - quoted by _target
            else:
                columns = ", ".join(f"{sql.identifier(column.name)} {column.type}" for column in table.columns)
                connection.execute(f"DROP TABLE IF EXISTS {target}")
                connection.execute(f"CREATE TABLE {target} ({columns})")
            rows = _insert(connection, target, table.columns, files) if files else 0
            _forget(connection, table.schema, table.name)
            connection.execute(
                "INSERT INTO pg.goldlake_local.external_table VALUES (?, ?, ?, ?, ?)",
                [
                    table.schema,
                    table.name,
                    table.location,
                    table.columns_fingerprint,
                    table.content_fingerprint,
                ],
            )
        return rows


def _is_data(item: StoredObject, prefix: str) -> bool:
    """Return whether an object holds rows: Hive's rule, nothing hidden by `_` or `.`, and nothing empty."""
    parts = item.key.removeprefix(prefix).split("/")
    return item.size > 0 and not any(part.startswith(("_", ".")) for part in parts)


def _insert(
    connection: duckdb.DuckDBPyConnection, target: str, columns: tuple[ExternalColumn, ...], files: list[str]
) -> int:
    """Copy the files' rows into the table; a column that no file has is NULL. Return the number of rows."""
    source = "read_parquet(?, union_by_name = true, hive_partitioning = true, hive_types_autocast = false)"
    described = connection.execute(f"DESCRIBE SELECT * FROM {source}", [files]).fetchall()  # noqa: S608 - a constant
    present = {str(row[0]).lower(): str(row[0]) for row in described}
    values = []
    for column in columns:
        found = present.get(column.name.lower())
        values.append(f"CAST({sql.identifier(found) if found else 'NULL'} AS {column.type})")
    names = ", ".join(sql.identifier(column.name) for column in columns)
    statement = f"INSERT INTO {target} ({names}) SELECT {', '.join(values)} FROM {source}"  # noqa: S608 - quoted above
    row = connection.execute(statement, [files]).fetchone()
    return int(row[0]) if row else 0


def _forget(connection: duckdb.DuckDBPyConnection, schema: str, name: str) -> None:
    """Remove what is stored about a table."""
    connection.execute(
        "DELETE FROM pg.goldlake_local.external_table WHERE schema_name = ? AND table_name = ?",
        [schema, name],
    )


def _target(schema: str, name: str) -> str:
    """Return the table's quoted name in the attached database."""
    return sql.qualified("pg", schema, name)


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit what the block does, in PostgreSQL too, or roll it back."""
    connection.execute("BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    """Roll back; DuckDB has done so itself when COMMIT failed, and says then that there is no transaction."""
    import duckdb

    try:
        connection.execute("ROLLBACK")
    except duckdb.TransactionException:
        return


@contextmanager
def _duckdb(postgres: Postgres) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a DuckDB with the warehouse attached as `pg` over its socket.

    Raises UnreachableError when PostgreSQL does not answer.
    """
    import duckdb

    # A lock held by an idle session must not keep new connections waiting: the load fails and is tried again.
    options = "-c lock_timeout=5s"
    target = (
        f"host='{postgres.socket.parent}' port={socket_port(postgres.socket)} user={SUPERUSER} "
        f"dbname={DATABASE} options='{options}'"
    )
    # Not runtime.duck.connect: without persistent secrets the postgres extension refuses to ATTACH
    # ("Unknown secret storage found: 'local_file'").
    with duckdb.connect(config={"threads": "2", "memory_limit": "1GB"}) as connection:
        connection.execute(f"LOAD {sql.literal(str(_extension()))}")
        # Zoned timestamps become plain ones in UTC, whatever the laptop's zone.
        connection.execute("SET TimeZone = 'UTC'")
        try:
            connection.execute(f"ATTACH {sql.literal(target)} AS pg (TYPE postgres)")
        except duckdb.Error as exc:
            raise UnreachableError(f"PostgreSQL cannot be attached on {postgres.socket}: {reason(exc)}") from exc
        yield connection


def _extension() -> Path:
    """Return the postgres extension that is installed as a Python package; DuckDB would download it."""
    import duckdb_extension_postgres_scanner as package

    return next(Path(str(package.__file__)).parent.rglob("postgres_scanner.duckdb_extension"))


def _digest(value: object) -> str:
    """Return a fingerprint of a JSON-able value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
