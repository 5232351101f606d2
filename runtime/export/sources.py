"""Where tables come from: a DuckDB file, or a server that speaks PostgreSQL's protocol (Redshift does).

Both are attached read-only to a DuckDB in memory and read in one transaction, so that all tables of an export show the
same moment.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from runtime import duck, sql
from runtime.aws import Connection
from runtime.delta import types as delta_types
from runtime.delta.types import Column
from runtime.errors import (
    AccessDeniedError,
    ConfigurationError,
    FailedError,
    GoldlakeError,
    UnreachableError,
)
from runtime.warehouse import LOOPBACK_HOSTS, Warehouse, read_login

if TYPE_CHECKING:
    import duckdb

    from runtime.trino import TrinoServer

# An idle Redshift Serverless workgroup wakes up at the first connection, and takes its time.
CONNECT_SECONDS = 300
# The name that the source has in our DuckDB. A file is attached by it as well: `gold.duckdb` would be the catalogue
# `gold`, and gold.<table> ambiguous.
CATALOG = "warehouse"
FORMS = "duckdb:///file.duckdb, postgresql://user@host:port/database, redshift://… or trino://user@host:port/catalogue/schema"
# dbt's names of a server's types that DuckDB reads as others, or not at all.
_SERVER_TYPES = {
    "bpchar": "VARCHAR",
    "character varying": "VARCHAR",
    "float": "DOUBLE",
    "float4": "FLOAT",
    "float8": "DOUBLE",
    "json": "VARCHAR",
    "jsonb": "VARCHAR",
    "super": "VARCHAR",
    "timestamp without time zone": "TIMESTAMP",
}
_PORTS = {"postgresql": 5432, "redshift": 5439}


@dataclass(frozen=True)
class DuckDBFile:
    """A DuckDB database on disk."""

    path: Path

    kind = "duckdb"

    @property
    def label(self) -> str:
        """The source as reports and the commit name it."""
        return f"duckdb:///{self.path}"


@dataclass(frozen=True)
class Server:
    """A server that speaks PostgreSQL's protocol."""

    warehouse: Warehouse
    kind: str = "postgres"

    @property
    def label(self) -> str:
        """The source as reports and the commit name it: without the login."""
        return f"{self.warehouse.host}:{self.warehouse.port}/{self.warehouse.database}"


@dataclass(frozen=True)
class TrinoCatalog:
    """A catalogue of a Trino server, and the schema that its URL names."""

    server: TrinoServer
    schema: str

    kind = "trino"

    @property
    def label(self) -> str:
        """The source as reports and the commit name it: without the login."""
        return f"trino://{self.server.host}:{self.server.port}/{self.server.catalog}"


Source = DuckDBFile | Server | TrinoCatalog


def parse_source(url: str, aws: Connection | None = None, *, secret_id: str | None = None) -> Source:
    """Return the source that a URL names, by SQLAlchemy's conventions.

    `duckdb:///gold.duckdb` is relative to the working directory, `duckdb:////data/gold.duckdb` absolute; three slashes
    in front of a path that exists as an absolute one only are taken for four. A server's user comes from the URL, its
    password from PGPASSWORD, or both from the Secrets Manager entry `secret_id`. Raises ConfigurationError for another
    form, and for a password in the URL, which every user of the machine could read in the list of processes. The
    message never holds the URL.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise ConfigurationError(f"a source is a URL: {FORMS}")
    if scheme == "duckdb":
        return DuckDBFile(_file_of(rest))
    if scheme in ("postgresql", "postgres", "redshift"):
        return _server("redshift" if scheme == "redshift" else "postgresql", url, aws, secret_id)
    if scheme in ("trino", "trino+https"):
        from runtime.export import ctas

        return TrinoCatalog(*ctas.parse_source(url))
    raise ConfigurationError(f"a source of kind {scheme!r} is not known: {FORMS}")


def _file_of(rest: str) -> Path:
    """Return the path in what follows `duckdb://`."""
    path = rest.partition("?")[0]
    if not path.startswith("/") or path == "/" or rest != path:
        raise ConfigurationError("a DuckDB source has the form duckdb:///relative.duckdb or duckdb:////absolute.duckdb")
    relative, absolute = Path(unquote(path[1:])), Path(unquote(path))
    found = absolute if not relative.exists() and absolute.exists() else relative
    if not found.exists():
        raise ConfigurationError(
            f"the DuckDB file {str(relative)!r} does not exist in {Path.cwd()}",
            hint="an absolute path takes four slashes: duckdb:////data/gold.duckdb",
        )
    if not found.is_file():
        raise ConfigurationError(f"the DuckDB source {str(found)!r} is not a file")
    return found.resolve()


def _server(scheme: str, url: str, aws: Connection | None, secret_id: str | None) -> Server:
    """Return the server that a URL names."""
    form = f"a server source has the form {scheme}://user@host:port/database"
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[scheme]
    except ValueError:
        raise ConfigurationError(form) from None
    if parts.password is not None:
        raise ConfigurationError(
            f"{form}: a password in it could be read in the list of processes",
            hint="put the password into the environment variable PGPASSWORD, or name a secret with --source-secret",
        )
    database = unquote(parts.path.strip("/"))
    options = parse_qs(parts.query)
    if not parts.hostname or not database or "/" in database or set(options) - {"sslmode"}:
        raise ConfigurationError(f"{form}[?sslmode=disable|verify-ca]")
    user, password = _login(unquote(parts.username or ""), aws, secret_id)
    ssl = _ssl(parts.hostname, options.get("sslmode", [""])[-1])
    warehouse = Warehouse(parts.hostname, user, password, port, database, ssl)
    return Server(warehouse, "redshift" if scheme == "redshift" else "postgres")


def _ssl(host: str, mode: str) -> bool:
    """Return whether to use TLS: always, but for loopback hosts, where it must be asked for."""
    if mode not in ("", "disable", "verify-ca"):
        raise ConfigurationError(f"sslmode={mode!r}: it is disable (loopback only) or verify-ca")
    if mode == "disable" and host not in LOOPBACK_HOSTS:
        raise ConfigurationError(f"sslmode=disable with host {host!r}: only a loopback host may go without TLS")
    return mode == "verify-ca" or (mode == "" and host not in LOOPBACK_HOSTS)


def _login(user: str, aws: Connection | None, secret_id: str | None) -> tuple[str, str]:
    """Return user and password."""
    if secret_id is not None:
        found, password = read_login(aws or Connection(), secret_id)
        if user and user != found:
            raise ConfigurationError(f"the source's URL has user {user!r}, and secret {secret_id} is of another user")
        return found, password
    if not user:
        raise ConfigurationError("the source's URL names no user", hint="postgresql://user@host:port/database")
    return user, os.environ.get("PGPASSWORD", "")


# --- reading ---


class SourceReader(Protocol):
    """An open source. `counts_nulls` is whether its engine can prove that a column has no nulls."""

    source: Source
    counts_nulls: bool

    def tables(self, schema: str) -> dict[str, bool]:
        """Return the schema's tables and views by name, each with whether it is a table."""

    def columns(self, schema: str, table: str, *, ntz: bool, mapped: bool) -> list[Column]:
        """Return a table's columns as Delta's."""

    def declared(self, column: Column, text: str) -> Column | None:
        """Return a column as a contract declares its type, None for a type that is not known here."""

    def comment(self, schema: str, table: str) -> str | None:
        """Return the table's comment."""


class TrinoReader:
    """An open Trino. Every statement is a snapshot of its own."""

    counts_nulls = False

    def __init__(self, source: TrinoCatalog) -> None:
        self.source: Source = source
        self.server = source.server

    def tables(self, schema: str) -> dict[str, bool]:
        """Return the schema's tables and views by name, each with whether it is a table."""
        from runtime.export import ctas

        return ctas.source_tables(self.server, schema)

    def columns(self, schema: str, table: str, *, ntz: bool, mapped: bool) -> list[Column]:
        """Return a table's columns as Delta's; of timestamps without zone and mapped names the engine has a say."""
        from runtime.export import ctas

        return list(ctas.source_columns(self.server, schema, table))

    def declared(self, column: Column, text: str) -> Column | None:
        """Return a column as a contract declares its type, None for a type that Trino does not have."""
        from runtime.export import ctas

        try:
            return ctas.column(column.name, text.strip().lower())
        except ConfigurationError:
            return None

    def comment(self, schema: str, table: str) -> str | None:
        """Return nothing: Trino's comments of tables are asked for one by one."""
        return None


class Reader:
    """An open source that DuckDB reads: a DuckDB connection that has it attached as `warehouse`, in a transaction."""

    counts_nulls = True

    def __init__(self, connection: duckdb.DuckDBPyConnection, source: Source) -> None:
        self.connection = connection
        self.source: Source = source

    @property
    def is_file(self) -> bool:
        """Whether the source is a DuckDB file."""
        return isinstance(self.source, DuckDBFile)

    # Values stand in the statements as literals: DuckDB's Python package imports numpy, pandas and pyarrow as soon as
    # a parameter is bound, 85 MB that an export has no use for.

    def tables(self, schema: str) -> dict[str, bool]:
        """Return the schema's tables and views by name, each with whether it is a table; none for no such schema."""
        name = sql.literal(schema)
        if self.is_file:
            query = (
                "SELECT table_name, true FROM duckdb_tables()"  # noqa: S608 - quoted by runtime.sql, as below
                f" WHERE database_name = 'warehouse' AND schema_name = {name} AND NOT internal"
                " UNION ALL SELECT view_name, false FROM duckdb_views()"
                f" WHERE database_name = 'warehouse' AND schema_name = {name} AND NOT internal"
            )
        else:
            query = (
                "SELECT table_name, table_type = 'BASE TABLE' FROM warehouse.information_schema.tables"  # noqa: S608
                f" WHERE table_schema = {name}"
            )
        return dict(self.connection.execute(query).fetchall())

    def columns(self, schema: str, table: str, *, ntz: bool, mapped: bool) -> list[Column]:
        """Return a table's columns as Delta's. Raises ConfigurationError for what Delta has no exact type for."""
        rows = self.connection.execute(
            "SELECT column_name, data_type, comment FROM duckdb_columns()"  # noqa: S608 - quoted by runtime.sql
            f" WHERE database_name = 'warehouse' AND schema_name = {sql.literal(schema)}"
            f" AND table_name = {sql.literal(table)} ORDER BY column_index"
        ).fetchall()
        unbounded = set() if self.is_file else self._unbounded_numerics(schema, table)
        for name, kind, _ in rows:
            if name in unbounded and "DOUBLE" in kind:
                raise ConfigurationError(
                    f"column {name!r} is numeric without precision, or with more than 38 digits:"
                    " Delta has no exact type for it",
                    hint="give the model's column a precision, numeric(18, 2), or cast it to double precision",
                )
        return [delta_types.column(name, kind, comment, ntz=ntz, mapped=mapped) for name, kind, comment in rows]

    def declared(self, column: Column, text: str) -> Column | None:
        """Return a column as a contract declares its type; None for a type that DuckDB has no name for."""
        import duckdb

        name = text if self.is_file else _SERVER_TYPES.get(text.strip().lower(), text)
        try:
            found = str(duckdb.sqltype(name))
        except duckdb.Error:
            return None
        try:
            return delta_types.column(column.name, found, ntz=column.type == "timestamp_ntz", mapped=True)
        except ConfigurationError:
            return None

    def comment(self, schema: str, table: str) -> str | None:
        """Return the table's comment in a DuckDB file; the postgres extension has none."""
        rows = self.connection.execute(
            "SELECT comment FROM duckdb_tables()"  # noqa: S608 - quoted by runtime.sql
            f" WHERE database_name = 'warehouse' AND schema_name = {sql.literal(schema)}"
            f" AND table_name = {sql.literal(table)}"
        ).fetchall()
        return str(rows[0][0]) if rows and rows[0][0] else None

    def stop(self) -> None:
        """End a statement that was interrupted: DuckDB's threads go on with it, and write, until the next one."""
        import duckdb

        self.connection.interrupt()
        with contextlib.suppress(duckdb.Error):
            self.connection.execute("ROLLBACK")

    def read_exactly(self, *, decimals: bool) -> None:
        """Make the source's numbers come as they are.

        PostgreSQL's numeric has a NaN. DuckDB's postgres extension 1.5.5 reads it as 0 from the binary protocol and
        refuses it in the text one, which takes half as long again: so that one is for tables with decimals only.
        """
        if not self.is_file:
            self.connection.execute(f"SET pg_use_text_protocol = {decimals}")

    def _unbounded_numerics(self, schema: str, table: str) -> set[str]:
        """Return the columns whose numbers DuckDB would read as DOUBLE, losing digits."""
        rows = self.connection.execute(
            "SELECT column_name FROM warehouse.information_schema.columns"  # noqa: S608 - quoted by runtime.sql
            f" WHERE table_schema = {sql.literal(schema)} AND table_name = {sql.literal(table)}"
            " AND (udt_name = '_numeric' OR (data_type = 'numeric'"
            " AND coalesce(CAST(numeric_precision AS INTEGER), 1000) > 38))"
        ).fetchall()
        return {name for (name,) in rows}


@contextlib.contextmanager
def open_source(source: Source) -> Iterator[Reader | TrinoReader]:
    """Give a reader of the source, its tables as they are at this moment.

    On PostgreSQL the parallel readers share the first one's exported snapshot; for Redshift (recognised by its
    version()) the extension reads with one connection and plain SELECTs, and all isolation is serializable.
    Raises UnreachableError when the server does not answer or refuses the login, or another process holds the file
    open for writing; ConfigurationError for a file that is not a DuckDB database.
    """
    if isinstance(source, TrinoCatalog):
        yield TrinoReader(source)
        return
    connection = duck.connect() if isinstance(source, DuckDBFile) else duck.connect("postgres_scanner")
    try:
        with translated(source):
            if isinstance(source, DuckDBFile):
                connection.execute(f"ATTACH {sql.literal(str(source.path))} AS {CATALOG} (READ_ONLY)")
            else:
                _attach(connection, source.warehouse)
            connection.execute("BEGIN TRANSACTION")
        yield Reader(connection, source)
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
        f"ATTACH {sql.literal(_connection_options(warehouse))} AS {CATALOG}"
        " (TYPE postgres, SECRET warehouse_login, READ_ONLY, ISOLATION_LEVEL 'REPEATABLE READ')"
    )


def _connection_options(warehouse: Warehouse) -> str:
    """Return libpq's options besides the login.

    With TLS the server's certificate is checked, as redshift_connector does by default (verify-ca). libpq has no list
    of authorities of its own in DuckDB's build; botocore's, which is Mozilla's, has Amazon's roots. PGSSLROOTCERT, as
    libpq knows it, names another.
    """
    options = f"connect_timeout={CONNECT_SECONDS} application_name=goldlake-export"
    if not warehouse.ssl:
        return f"{options} sslmode=disable"
    import botocore

    authorities = os.environ.get("PGSSLROOTCERT") or str(Path(botocore.__file__).with_name("cacert.pem"))
    quoted = authorities.replace("\\", "\\\\").replace("'", "\\'")
    return f"{options} sslmode=verify-ca sslrootcert='{quoted}'"


def _close(connection: duckdb.DuckDBPyConnection) -> None:
    """End the transaction and close: left to the interpreter's end, a dead server aborts Python."""
    import duckdb

    with contextlib.suppress(duckdb.Error):
        connection.execute("ROLLBACK")
    with contextlib.suppress(duckdb.Error):
        connection.close()


# --- errors ---


@contextlib.contextmanager
def translated(source: Source) -> Iterator[None]:
    """Raise what DuckDB and the file system raise as Goldlake's errors, without the password."""
    import duckdb

    try:
        yield
    except RuntimeError as exc:
        # DuckDB's Python package looks for Ctrl-C while it waits, and has this for it.
        if str(exc) == "Query interrupted":
            raise KeyboardInterrupt from exc
        raise
    except (duckdb.Error, OSError) as exc:
        if isinstance(source, TrinoCatalog):
            raise _engine_error(f"export from {source.label}", duck.reason(exc)) from exc
        if isinstance(source, DuckDBFile):
            raise _file_error(source, duck.reason(exc)) from exc
        password = source.warehouse.password
        text = duck.reason(exc)
        if password:
            text = text.replace(password, "***")
        cause = None if password and password in str(exc) else exc
        raise _server_error(source.warehouse, text) from cause


def _file_error(source: DuckDBFile, text: str) -> GoldlakeError:
    """Return the error for DuckDB's message about a file."""
    where = f"DuckDB file {source.path}"
    if "Could not set lock" in text:
        holder = re.search(r"\(PID (\d+)\)", text)
        who = f"process {holder[1]}" if holder else "another process"
        return UnreachableError(
            f"{where} is held open by {who}: DuckDB lets a file be written by one process, and then read by no other",
            hint="export when that process has ended, or from a copy of the file",
        )
    if "Permission denied" in text and str(source.path) in text:
        return AccessDeniedError(f"{where} may not be read: {text}")
    if "not a valid DuckDB database" in text:
        return ConfigurationError(f"{where} is not a DuckDB database")
    if re.search(r"version number|newer version|storage version|serialization", text, re.IGNORECASE):
        return ConfigurationError(
            f"{where} has a format that this DuckDB does not read: {text}",
            hint="write it with STORAGE_VERSION 'v1.0.0', or install a newer Goldlake",
        )
    return _engine_error(f"export from {where}", text)


def _server_error(warehouse: Warehouse, text: str) -> GoldlakeError:
    """Return the error for DuckDB's message, which holds PostgreSQL's."""
    where = f"warehouse {warehouse.host}:{warehouse.port}/{warehouse.database} as {warehouse.user!r}"
    if re.search(r"permission denied for (table|schema|relation|view)", text):
        return AccessDeniedError(f"{where}: {text}", hint="grant the user SELECT on the table")
    if re.search(r"Unable to connect|connection to server|closed the connection|terminating connection|SSL", text):
        return UnreachableError(f"{where} cannot be reached: {text}")
    return _engine_error(f"export from {where}", text)


def _engine_error(action: str, text: str) -> FailedError:
    """Return the error for what went wrong in DuckDB itself."""
    if re.search(r"No space left|Out of Memory", text, re.IGNORECASE):
        hint = "give the function or machine more memory and temporary storage, or export fewer tables at once"
        return FailedError(f"{action}: {text}", hint=hint)
    return FailedError(f"{action}: {text}")
