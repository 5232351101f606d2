"""Brings PostgreSQL's copy of an external table up to date with Glue and S3, and only where something changed.

An unchanged table costs a call to Glue, one listing, and one byte of one object: the role may have lost a right. Rows
are replaced by DELETE and INSERT in one transaction: a session that reads the old ones neither waits nor makes us
wait. Everything here runs in threads; per table one at a time (director.py).
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.redshift.roles import Roles, s3_errors, scan_error, spectrum_errors
from local.redshift.server import SUPERUSER, Postgres, socket_port
from local.redshift.spectrum import tables
from local.redshift.spectrum.tables import ExternalColumn, ExternalTable, Part, StoredObject
from local.redshift.wire import RedshiftError, not_emulated
from runtime import sql
from runtime.duck import reason

if TYPE_CHECKING:
    import duckdb

LOG = logging.getLogger(__name__)

_LOCK_TIMEOUT = "3s"


@dataclass(frozen=True)
class ExternalSchema:
    """A schema that shows a Glue database, as CREATE EXTERNAL SCHEMA made it."""

    name: str
    database: str
    role: str
    region: str | None


@dataclass(frozen=True)
class Loaded:
    """What the copy of a table was loaded from."""

    columns: str
    content: str


Contents = list[tuple[Part, list[StoredObject]]]


class Lake:
    """The external tables of one database of the warehouse."""

    def __init__(self, postgres: Postgres, database: str, roles: Roles) -> None:
        self._postgres, self._database, self._roles = postgres, database, roles

    def refresh(self, schema: ExternalSchema, name: str, loaded: Loaded | None) -> None:
        """Bring the rows of a table up to date. Raises RedshiftError when they cannot be had."""
        found = self._glue_table(schema, name)
        if found is None:
            if loaded is not None:
                self._drop(schema, name)
            return
        if found.described["parameters"].get("presto_view") or not found.location:
            raise not_emulated(f"{schema.name}.{name}: a view of the data catalogue")
        what = f"{schema.name}.{name}"
        if found.format is None:
            raise not_emulated(f"{what}: the format {found.described['library'] or found.described['input_format']}")
        if not found.usable:
            raise not_emulated(f"{what}: it has no column of a type that is emulated")
        with spectrum_errors(what):
            contents = self._contents(schema, found)
            self._check_readable(schema, contents)
        content = found.content_fingerprint(contents)
        if loaded is not None and loaded.content == content:
            return
        self._load(schema, found, contents, content, loaded)

    def describe(self, schema: ExternalSchema, known: dict[str, Loaded]) -> None:
        """Bring the list of a schema's tables up to date, without their rows."""
        with spectrum_errors(schema.name):
            glue = self._roles.client(schema.role, "glue", schema.region)
            try:
                pages = list(glue.get_paginator("get_tables").paginate(DatabaseName=schema.database))
            except glue.exceptions.EntityNotFoundException:
                pages = []
        found = [tables.external_table(schema.name, item) for page in pages for item in page["TableList"]]
        new = [table for table in found if self._is_new(table, known.get(table.name))]
        gone = known.keys() - {table.name for table in found}
        if not new and not gone:
            return
        with _duckdb(self._postgres, self._database) as connection:
            for name in sorted(gone):
                with _helpful():
                    self._drop_within(connection, schema.name, name)
            for table in new:
                with _helpful():
                    self._shell(connection, table, known.get(table.name))

    @staticmethod
    def _is_new(table: ExternalTable, loaded: Loaded | None) -> bool:
        if not table.usable or not tables.usable_name(table.name) or table.format is None:
            return False
        return loaded is None or loaded.columns != table.columns_fingerprint

    # Reading Glue and S3

    def _glue_table(self, schema: ExternalSchema, name: str) -> ExternalTable | None:
        """Return the table, None when Glue has no such table or database."""
        with spectrum_errors(f"{schema.name}.{name}"):
            glue = self._roles.client(schema.role, "glue", schema.region)
            try:
                found = glue.get_table(DatabaseName=schema.database, Name=name)["Table"]
            except glue.exceptions.EntityNotFoundException:
                return None
        return tables.external_table(schema.name, found)

    def _contents(self, schema: ExternalSchema, table: ExternalTable) -> Contents:
        """Return the objects that hold the table's rows, by partition."""
        parts = self._parts(schema, table)
        s3 = self._roles.client(schema.role, "s3", schema.region)
        if table.format == tables.SYMLINK:
            return [(part, _linked(s3, part.location)) for part in parts]
        contents: Contents = []
        for part in parts:
            place = _place(part.location)
            objects = _listed(s3, *place)
            if any("/_delta_log/" in f"/{item.key}" for item in objects):
                raise scan_error(
                    "this is a Delta table, and Glue says it is plain files: rows that were deleted would come back."
                    " Point the Glue table to its _symlink_format_manifest",
                    part.location,
                )
            contents.append((part, [item for item in objects if tables.is_data(item, place[1])]))
        return contents

    def _parts(self, schema: ExternalSchema, table: ExternalTable) -> list[Part]:
        """Return the partitions that Glue knows: a folder that was not added as one is not read."""
        if not table.keys:
            return [Part(table.location)]
        glue = self._roles.client(schema.role, "glue", schema.region)
        pages = glue.get_paginator("get_partitions").paginate(DatabaseName=schema.database, TableName=table.name)
        return [
            Part(
                str(item["StorageDescriptor"]["Location"]),
                dict(zip(table.keys, map(tables.partition_value, item["Values"]), strict=True)),
            )
            for page in pages
            for item in page["Partitions"]
        ]

    def _check_readable(self, schema: ExternalSchema, contents: Contents) -> None:
        """Read a byte: what was loaded before must not be shown to a role that may no longer read it."""
        first = next((item for _part, objects in contents for item in objects), None)
        if first is not None:
            s3 = self._roles.client(schema.role, "s3", schema.region)
            s3.get_object(Bucket=first.bucket, Key=first.key, Range="bytes=0-0")["Body"].read()

    # Writing PostgreSQL

    def _load(
        self, schema: ExternalSchema, table: ExternalTable, contents: Contents, content: str, loaded: Loaded | None
    ) -> None:
        """Load a table's rows anew."""
        import duckdb

        started = time.monotonic()
        what = f"{schema.name}.{table.name}"
        try:
            with tempfile.TemporaryDirectory(prefix="goldlake-external-") as directory:
                files = self._downloaded(schema, contents, Path(directory))
                with _duckdb(self._postgres, self._database) as connection:
                    rows = _replaced(connection, table, files, content, loaded)
        except duckdb.Error as exc:
            raise _load_error(exc, what) from exc
        LOG.info("loaded external table %s: %d rows in %.1f s", what, rows, time.monotonic() - started)

    def _downloaded(self, schema: ExternalSchema, contents: Contents, directory: Path) -> list[tuple[Part, list[str]]]:
        """Fetch all objects; return the files by partition. Nothing of a key is in a file's name but its ending."""
        s3 = self._roles.client(schema.role, "s3", schema.region)
        files, number = [], 0
        for part, objects in contents:
            names = []
            for item in objects:
                ending = "".join(end for end in (".gz", ".zst", ".bz2") if item.key.lower().endswith(end))
                path = directory / f"{number:06d}{ending}"
                number += 1
                with spectrum_errors(item.url):
                    s3.download_file(item.bucket, item.key, str(path))
                names.append(str(path))
            files.append((part, names))
        return files

    def _shell(self, connection: duckdb.DuckDBPyConnection, table: ExternalTable, loaded: Loaded | None) -> None:
        """Create the table without rows, so that the catalogue has it."""
        with _transaction(connection):
            _shaped(connection, table, loaded)
            _remember(connection, table, "")

    def _drop(self, schema: ExternalSchema, name: str) -> None:
        import duckdb

        try:
            with _duckdb(self._postgres, self._database) as connection:
                self._drop_within(connection, schema.name, name)
        except duckdb.Error as exc:
            LOG.warning("%s.%s is gone from Glue and could not be dropped: %s", schema.name, name, reason(exc))
            raise RedshiftError("42P01", f'relation "{schema.name}.{name}" does not exist') from exc

    @staticmethod
    def _drop_within(connection: duckdb.DuckDBPyConnection, schema: str, name: str) -> None:
        with _transaction(connection):
            connection.execute(f"DROP TABLE IF EXISTS {sql.qualified('pg', schema, name)}")
            _forget(connection, schema, name)
        LOG.info("dropped external table %s.%s: it is gone from Glue", schema, name)


@contextmanager
def _helpful() -> Iterator[None]:
    """Around what helps the catalogue: what fails is logged, and told when the table is queried."""
    import duckdb

    try:
        yield
    except (duckdb.Error, RedshiftError) as exc:
        LOG.warning("the list of external tables is behind: %s", reason(exc))


def _load_error(exc: Exception, what: str) -> RedshiftError:
    """Return the error for files that could not be read, or a table that could not be changed."""
    text = reason(exc)
    if "depend" in text and "DROP" in text.upper():
        return RedshiftError(
            "2BP01",
            f"the columns of external table {what} have changed, and views depend on them",
            hint="drop and create the views again, with NO SCHEMA BINDING",
        )
    if "lock timeout" in text:
        return RedshiftError("55P03", f"the columns of external table {what} have changed while a transaction reads it")
    return scan_error(text, what)


# S3


def _place(location: str) -> tuple[str, str]:
    place = tables.bucket_and_prefix(location)
    if place is None:
        raise scan_error(f"Invalid S3 URI: {location}", location)
    return place


def _listed(s3: Any, bucket: str, prefix: str) -> list[StoredObject]:
    """Return all objects under the prefix."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [
        StoredObject(bucket, item["Key"], item["ETag"], item["Size"])
        for page in pages
        for item in page.get("Contents", [])
    ]


def _linked(s3: Any, location: str) -> list[StoredObject]:
    """Return the files that the manifests of a Delta table, or of its partition, name; all must be there."""
    bucket, prefix = _place(location)
    manifests = [item for item in _listed(s3, bucket, prefix) if "/." not in f"/{item.key}"]
    if not manifests:
        raise scan_error(f"Delta Lake manifest {location} was not found", location)
    names = []
    for item in manifests:
        text = s3.get_object(Bucket=bucket, Key=item.key)["Body"].read().decode()
        names += tables.manifest_entries(text)
    wanted: dict[str, str] = {}
    for name in names:
        place = tables.bucket_and_prefix(name)
        if place is None:
            raise scan_error(f"Invalid S3 URI: {name}", location)
        if place[0] != bucket:
            raise scan_error(
                f"Delta Lake manifest in bucket {bucket} cannot contain entries in bucket {place[0]}", location
            )
        wanted[place[1].rstrip("/")] = name
    there: dict[str, StoredObject] = {}
    for folder in {key.rpartition("/")[0] for key in wanted}:
        there |= {item.key: item for item in _listed(s3, bucket, f"{folder}/" if folder else "")}
    for key, name in wanted.items():
        if key not in there:
            raise scan_error(f"File {name} listed in Delta Lake manifest {location} was not found", location)
    return [there[key] for key in sorted(wanted)]


# DuckDB


def _replaced(
    connection: duckdb.DuckDBPyConnection,
    table: ExternalTable,
    files: list[tuple[Part, list[str]]],
    content: str,
    loaded: Loaded | None,
) -> int:
    """Replace the rows, and the table when its columns changed, in one transaction; return the new count."""
    with _transaction(connection):
        _shaped(connection, table, loaded)
        connection.execute(f"DELETE FROM {_target(table)}")  # noqa: S608 - quoted by _target
        rows = sum(_inserted(connection, table, part, names) for part, names in files if names)
        _remember(connection, table, content)
    return rows


def _shaped(connection: duckdb.DuckDBPyConnection, table: ExternalTable, loaded: Loaded | None) -> None:
    """Create the table unless it is there with these columns; new last columns are added to it."""
    wanted = [(column.name, str(column.duckdb)) for column in table.usable]
    have = [tuple(item) for item in json.loads(loaded.columns)] if loaded is not None else None
    if have == wanted:
        return
    if have and wanted[: len(have)] == have:
        for name, kind in wanted[len(have) :]:
            connection.execute(f"ALTER TABLE {_target(table)} ADD COLUMN {sql.identifier(name)} {kind}")
        return
    columns = ", ".join(f"{sql.identifier(name)} {kind}" for name, kind in wanted)
    connection.execute(f"DROP TABLE IF EXISTS {_target(table)}")
    connection.execute(f"CREATE TABLE {_target(table)} ({columns})")


def _inserted(connection: duckdb.DuckDBPyConnection, table: ExternalTable, part: Part, files: Sequence[str]) -> int:
    """Copy a partition's rows into the table; a column that no file has is NULL. Return the number of rows."""
    source, present, lenient = _source(connection, table, files)
    values = []
    for column in table.usable:
        if column.is_key:
            value = part.values.get(column.name)
            text = "NULL" if value is None else sql.literal(value)
        else:
            found = present.get(column.name.lower())
            text = sql.identifier(found) if found else "NULL"
        cast = "TRY_CAST" if lenient else "CAST"
        values.append(f"{cast}({text} AS {column.duckdb})")
    names = ", ".join(sql.identifier(column.name) for column in table.usable)
    statement = f"INSERT INTO {_target(table)} ({names}) SELECT {', '.join(values)} FROM {source}"  # noqa: S608 - quoted
    row = connection.execute(statement).fetchone()
    return int(row[0]) if row else 0


def _source(
    connection: duckdb.DuckDBPyConnection, table: ExternalTable, files: Sequence[str]
) -> tuple[str, dict[str, str], bool]:
    """Return DuckDB's words for the files, their columns by lower-case name, and whether bad values are NULL."""
    listed = "[" + ", ".join(map(sql.literal, files)) + "]"
    columns = [column for column in table.columns if not column.is_key]
    if table.format in (tables.PARQUET, tables.SYMLINK):
        source = f"read_parquet({listed}, union_by_name = true, hive_partitioning = false)"
        described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()  # noqa: S608 - quoted above
        return source, {str(row[0]).lower(): str(row[0]) for row in described}, False
    present = {column.name.lower(): column.name for column in columns}
    kinds = ", ".join(f"{sql.literal(column.name)}: 'VARCHAR'" for column in columns)
    if table.format == tables.JSON:
        return (
            f"read_json({listed}, format = 'newline_delimited', columns = {{{kinds}}}, ignore_errors = true)",
            present,
            True,
        )
    return f"read_csv({listed}, columns = {{{kinds}}}, {_csv_options(table)})", present, True


def _csv_options(table: ExternalTable) -> str:
    """Return DuckDB's options for the delimited text that a table's serialisation library reads."""
    options = table.options
    header = options.get("skip.header.line.count", "0")
    common = (
        f"header = false, auto_detect = false, skip = {int(header) if header.isdigit() else 0}, null_padding = true"
    )
    if table.format == tables.CSV:
        delimiter, quote = options.get("separatorChar", ","), options.get("quoteChar", '"')
        escape = options.get("escapeChar", quote)
        return (
            f"{common}, delim = {sql.literal(delimiter)}, quote = {sql.literal(quote)},"
            f" escape = {sql.literal(quote if len(escape) != 1 else escape)}, allow_quoted_nulls = false, nullstr = '',"
            " strict_mode = false, parallel = false"
        )
    delimiter = options.get("field.delim", "\x01")
    null = options.get("serialization.null.format", "\\N")
    return f"{common}, delim = {sql.literal(delimiter)}, quote = '', escape = '', nullstr = {sql.literal(null)}"


def _remember(connection: duckdb.DuckDBPyConnection, table: ExternalTable, content: str) -> None:
    _forget(connection, table.schema, table.name)
    connection.execute(
        "INSERT INTO pg.goldlake_local.external_table"
        " (schema_name, table_name, location, columns_fingerprint, content_fingerprint, described)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [table.schema, table.name, table.location, table.columns_fingerprint, content, json.dumps(table.described)],
    )


def _forget(connection: duckdb.DuckDBPyConnection, schema: str, name: str) -> None:
    """Remove what is stored about a table."""
    connection.execute(
        "DELETE FROM pg.goldlake_local.external_table WHERE schema_name = ? AND table_name = ?", [schema, name]
    )


def _target(table: ExternalTable) -> str:
    """Return the table's quoted name in the attached database."""
    return sql.qualified("pg", table.schema, table.name)


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
def _duckdb(postgres: Postgres, database: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a DuckDB with a database of the warehouse attached as `pg` over its socket."""
    import duckdb

    # A session that has read the table holds a lock until its transaction ends, and may be the one that waits for us.
    options = f"-c lock_timeout={_LOCK_TIMEOUT}"
    name = database.replace("\\", "\\\\").replace("'", "\\'")
    target = (
        f"host='{postgres.socket.parent}' port={socket_port(postgres.socket)} user={SUPERUSER} "
        f"dbname='{name}' options='{options}'"
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
            raise RedshiftError("57P03", f"PostgreSQL cannot be attached: {reason(exc)}") from exc
        yield connection


def _extension() -> Path:
    """Return the postgres extension that is installed as a Python package; DuckDB would download it."""
    import duckdb_extension_postgres_scanner as package

    return next(Path(str(package.__file__)).parent.rglob("postgres_scanner.duckdb_extension"))


__all__ = ["ExternalColumn", "ExternalSchema", "Lake", "Loaded", "s3_errors"]
