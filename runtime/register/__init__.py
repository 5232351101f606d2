"""Register Delta tables in the Glue catalogue, and in a Trino catalogue when one is named.

The Glue entry is one that Athena and Trino's Delta connector both read: `spark.sql.sources.provider` =
`delta` and the location as the serde's parameter `path`. Sources: Amazon Athena user guide, "Synchronize
Delta Lake metadata", which also says to leave `table_type` away; Trino's
HiveMetastoreBackedDeltaLakeMetastore, which takes the provider in either case and the location from `path`.

Both engines read schema and files from the Delta log. The entry's columns serve Lake Formation, Athena's
editor and whoever lists the catalogue, so they are kept equal to the log's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from runtime import aws as aws_errors
from runtime import sql
from runtime.aws import Connection
from runtime.delta import log as delta_log
from runtime.delta import types as delta_types
from runtime.delta.lake import Lake
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, GoldlakeError, UnreachableError

if TYPE_CHECKING:
    from deltalake import DeltaTable

SCHEMA = "goldlake.register/1"

REGISTERED = "registered"
UNCHANGED = "unchanged"
UPDATED = "updated"
REPLACED = "replaced"
NO_DATA_YET = "no data yet"

# The longest comment that Glue takes (AWS Glue API, "Column structure").
_COMMENT_LENGTH = 255
_INPUT_KEYS = (
    "Description",
    "Owner",
    "Retention",
    "StorageDescriptor",
    "PartitionKeys",
    "ViewOriginalText",
    "ViewExpandedText",
    "TableType",
    "Parameters",
)

Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class TableRegistration:
    """What became of one table.

    `state` is registered, unchanged, updated (columns or parameters followed the log), replaced (it had
    another location) or "no data yet" (no Delta log; `warning` says so). `trino` is the same for Trino,
    None without it. `rows` are those of Delta version `version`, None when unknown.
    """

    table: str
    location: str
    state: str
    trino: str | None = None
    version: int | None = None
    rows: int | None = None
    warning: str | None = None


@dataclass(frozen=True)
class RegisterReport:
    """The result of a registration; in a dry run the states are those that would be reached."""

    database: str
    target: str
    dry_run: bool
    tables: tuple[TableRegistration, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values; its form is named by the key `schema`."""
        tables = [dataclasses.asdict(table) for table in self.tables]
        return {"schema": SCHEMA, **dataclasses.asdict(self), "tables": tables}


@dataclass(frozen=True)
class _Plan:
    """A table with what the catalogue should say about it, and what has to be done for that."""

    table: str
    location: str
    state: str
    wanted: Mapping[str, Any]
    existing: Mapping[str, Any] | None = None


def register_tables(
    aws: Connection,
    target: str,
    tables: Sequence[str],
    *,
    database: str = "gold",
    replace: bool = False,
    trino_url: str | None = None,
    dry_run: bool = False,
) -> RegisterReport:
    """Make sure that Glue has an entry for each Delta table `<target>/<table>`; return what was done.

    Absent: registered. Same location: unchanged, or updated to the log's columns. Another location:
    FailedError, or with `replace` changed. No Delta log: "no data yet", so that this may run before the
    first export. Nothing is written before all tables were looked at. With `trino_url`
    (`http://user@host:8080/<catalogue>`) the same then holds for Trino's schema `database`, and its count(*)
    is compared with the log. Trino comes after Glue, for it may share the entries.

    Raises ConfigurationError for a target outside S3 or an unusable Trino URL, UnreachableError when S3,
    Glue or Trino does not answer, FailedError when what was written does not read back.
    """
    lake = Lake.at(target, aws)
    if lake.aws is None:
        raise ConfigurationError(f"target {target!r} is a local folder: a Glue entry needs an S3 location")
    glue = aws.client("glue")
    trino = None if trino_url is None else TrinoCatalog.at(trino_url)
    plans = [_plan(glue, lake, database, table, replace=replace) for table in tables]
    done = [_register(glue, lake, database, plan, dry_run=dry_run) for plan in plans]
    if trino is not None:
        done = [_register_in_trino(trino, lake, database, item, replace=replace, dry_run=dry_run) for item in done]
        for item in done:
            # A Trino on this Glue that remembered the old entry has put one of its own, without columns, for ours.
            if item.trino == REPLACED and not dry_run:
                _register(glue, lake, database, _plan(glue, lake, database, item.table, replace=True), dry_run=False)
    return RegisterReport(database, lake.root, dry_run, tuple(done))


# --- Glue ---


def glue_columns(fields: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return Glue columns for Delta fields: lower-case names, Hive types, comments of 255 characters."""
    columns = []
    for field in fields:
        column = {"Name": field["name"].lower(), "Type": delta_types.type_text(field["type"])}
        comment = str(field.get("metadata", {}).get("comment", ""))[:_COMMENT_LENGTH]
        columns.append({**column, "Comment": comment} if comment else column)
    return columns


def table_input(name: str, location: str, table: DeltaTable) -> dict[str, Any]:
    """Return Glue's TableInput for a Delta table; see the module's text for its form."""
    description = table.metadata().description
    return {
        "Name": name.lower(),
        **({"Description": description} if description else {}),
        "TableType": "EXTERNAL_TABLE",
        "Parameters": {"EXTERNAL": "TRUE", "spark.sql.sources.provider": "delta", "classification": "delta"},
        # Native Delta tables have their partition columns among the others; Athena asks for the empty list.
        "PartitionKeys": [],
        "StorageDescriptor": {
            "Columns": glue_columns(delta_types.fields_of(table.schema())),
            "Location": location,
            "InputFormat": "org.apache.hadoop.mapred.SequenceFileInputFormat",
            "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveSequenceFileOutputFormat",
            "SerdeInfo": {
                "SerializationLibrary": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
                "Parameters": {"serialization.format": "1", "path": location},
            },
        },
    }


def _plan(glue: Any, lake: Lake, database: str, table: str, *, replace: bool) -> _Plan:
    """Look at log and catalogue and return what has to be done."""
    location = lake.location(table)
    log = delta_log.open_table(location, lake.storage_options())
    if log is None:
        return _Plan(table, location, NO_DATA_YET, {})
    wanted = table_input(table, location, log)
    existing = _entry(glue, database, table)
    if existing is None:
        return _Plan(table, location, REGISTERED, wanted)
    if _same_place(_location(existing), location) and not existing.get("ViewOriginalText"):
        state = UNCHANGED if _covers(existing, wanted) else UPDATED
        return _Plan(table, location, state, wanted, existing)
    if not replace:
        found = _location(existing) or "no location (a view)"
        raise FailedError(
            f"{database}.{table} is registered at {found}, not at {location}",
            hint="register with --replace to change its location",
        )
    return _Plan(table, location, REPLACED, wanted, existing)


def _register(glue: Any, lake: Lake, database: str, plan: _Plan, *, dry_run: bool) -> TableRegistration:
    """Carry out a plan, and verify the entry by reading it and the log that it points to."""
    if plan.state == NO_DATA_YET:
        warning = f"{plan.location} has no _delta_log: register again after the first export"
        return TableRegistration(plan.table, plan.location, plan.state, warning=warning)
    if plan.state != UNCHANGED and not dry_run:
        _write(glue, lake, database, plan)
    entry = None if dry_run else _entry(glue, database, plan.table)
    if not dry_run and (entry is None or not _covers(entry, plan.wanted)):
        raise FailedError(f"{database}.{plan.table} was written to Glue and does not read back equal")
    location = plan.location if entry is None else _location(entry)
    log = delta_log.open_table(location, lake.storage_options())
    if log is None:
        raise FailedError(f"{database}.{plan.table} points to {location}, which has no Delta log any more")
    rows = delta_log.log_rows(log)
    unknown = None if rows is not None else f"{location} has files without a row count: rows are unknown"
    return TableRegistration(plan.table, plan.location, plan.state, version=log.version(), rows=rows, warning=unknown)


def _write(glue: Any, lake: Lake, database: str, plan: _Plan) -> None:
    """Create or update the entry. An update keeps what others put there: owner, other parameters."""
    if plan.existing is None:
        _create(glue, lake, database, plan)
        return
    # Glue takes no empty texts, and emulators give them back.
    kept = {key: plan.existing[key] for key in _INPUT_KEYS if plan.existing.get(key)}
    if plan.state == REPLACED:
        # What described the other place is not true of this one.
        kept = {key: value for key, value in kept.items() if key in ("Owner", "Retention")}
    parameters = {**kept.get("Parameters", {}), **plan.wanted["Parameters"]}
    with aws_errors.translated(f"register {database}.{plan.table} in Glue"):
        glue.update_table(DatabaseName=database, TableInput={**kept, **plan.wanted, "Parameters": parameters})


def _create(glue: Any, lake: Lake, database: str, plan: _Plan) -> None:
    """Create the entry, and the database first where it is missing: a stack brings it along, so that is rare."""

    def create() -> None:
        with aws_errors.translated(f"register {database}.{plan.table} in Glue"):
            glue.create_table(DatabaseName=database, TableInput=dict(plan.wanted))

    with _unless_there():
        try:
            create()
        except FailedError as exc:
            if exc.code != "EntityNotFoundException":
                raise
            _create_database(glue, lake, database)
            create()


def _create_database(glue: Any, lake: Lake, database: str) -> None:
    with _unless_there(), aws_errors.translated(f"create Glue database {database}"):
        glue.create_database(DatabaseInput={"Name": database, "LocationUri": lake.root})


@contextlib.contextmanager
def _unless_there() -> Iterator[None]:
    """Take it well that another process was faster: what it made is read back and compared."""
    try:
        yield
    except FailedError as exc:
        if exc.code != "AlreadyExistsException":
            raise


def _entry(glue: Any, database: str, table: str) -> dict[str, Any] | None:
    """Return Glue's entry of a table; None when table or database is not there."""
    try:
        with aws_errors.translated(f"Glue table {database}.{table}"):
            entry: dict[str, Any] = glue.get_table(DatabaseName=database, Name=table.lower())["Table"]
    except FailedError as exc:
        if exc.code == "EntityNotFoundException":
            return None
        raise
    return entry


def _location(entry: Mapping[str, Any]) -> str:
    """Return where an entry's table is: the serde's path, as Trino reads it, or the descriptor's location."""
    storage = entry.get("StorageDescriptor", {})
    path = storage.get("SerdeInfo", {}).get("Parameters", {}).get("path")
    return str(path or storage.get("Location", ""))


def _same_place(one: str, other: str) -> bool:
    """Return whether two locations are the same: s3a and s3n are s3, a slash at the end does not count."""
    return _normal(one) == _normal(other)


def _normal(location: str) -> str:
    """Return a location in the form that is compared."""
    return re.sub(r"^s3[an]://", "s3://", location).rstrip("/")


def _covers(entry: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether an entry says all that is wanted; it may say more."""
    storage, ours = entry.get("StorageDescriptor", {}), wanted["StorageDescriptor"]
    parameters = entry.get("Parameters", {})
    return (
        entry.get("TableType") == wanted["TableType"]
        and all(parameters.get(key, "").lower() == value.lower() for key, value in wanted["Parameters"].items())
        and _same_place(storage.get("Location", ""), ours["Location"])
        and _same_place(_location(entry), ours["Location"])
        and [_column_key(column) for column in storage.get("Columns", [])]
        == [_column_key(column) for column in ours["Columns"]]
    )


def _column_key(column: Mapping[str, str]) -> tuple[str, str, str]:
    """Return what is compared of a column."""
    return column["Name"], column.get("Type", ""), column.get("Comment", "")


# --- Trino ---


@dataclass(frozen=True)
class TrinoCatalog:
    """A catalogue of Trino's Delta Lake connector. `run` executes one statement and returns its rows."""

    name: str
    run: Callable[[str], Rows]

    @classmethod
    def at(cls, url: str) -> TrinoCatalog:
        """Return the catalogue that `http[s]://user[:password]@host:port/catalogue` names.

        Raises ConfigurationError for another form; the message never holds the URL, which may hold a
        password.
        """
        form = "a Trino URL has the form http[s]://user[:password]@host:port/catalogue"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ConfigurationError(form) from None
        catalog = unquote(parts.path.strip("/"))
        if parts.scheme not in ("http", "https") or not parts.hostname or not catalog or "/" in catalog:
            raise ConfigurationError(form)
        if parts.password and parts.scheme != "https":
            raise ConfigurationError("a password for Trino goes over https only")
        return cls(catalog, _runner(parts.scheme, parts.hostname, port, parts.username, parts.password))

    def ensure_schema(self, schema: str) -> None:
        """Create the schema when it is missing."""
        self.run(f"CREATE SCHEMA IF NOT EXISTS {sql.qualified(self.name, schema)}")

    def location(self, schema: str, table: str) -> str | None:
        """Return where Trino has the table; None when schema or table is not there, "" when it does not say."""
        try:
            rows = self.run(f"SHOW CREATE TABLE {sql.qualified(self.name, schema, table)}")
        except GoldlakeError as exc:
            if exc.code in ("TABLE_NOT_FOUND", "SCHEMA_NOT_FOUND", "NOT_FOUND"):
                return None
            # There is no log any more where Trino has the table.
            if exc.code == "DELTA_LAKE_INVALID_SCHEMA":
                return ""
            raise
        found = re.search(r"\blocation = '((?:[^']|'')*)'", str(rows[0][0]))
        return found[1].replace("''", "'") if found else ""

    def register(self, schema: str, table: str, location: str) -> None:
        """Register the table. Raises FailedError with code ALREADY_EXISTS when Trino has one of this name."""
        self._call("register_table", schema_name=schema, table_name=table, table_location=location)

    def unregister(self, schema: str, table: str) -> None:
        """Forget the table; its data stays."""
        self._call("unregister_table", schema_name=schema, table_name=table)

    def flush(self, schema: str, table: str) -> None:
        """Make Trino read the table's entry and log anew; also good for a table that is not there."""
        self._call("flush_metadata_cache", schema_name=schema, table_name=table)

    def count(self, schema: str, table: str) -> int:
        """Return the table's rows as Trino counts them."""
        source = sql.qualified(self.name, schema, table)
        return int(self.run(f"SELECT count(*) FROM {source}")[0][0])  # noqa: S608 - quoted by runtime.sql

    def _call(self, procedure: str, **arguments: str) -> None:
        """Call one of the connector's procedures."""
        values = ", ".join(f"{name} => {sql.literal(value)}" for name, value in arguments.items())
        self.run(f"CALL {sql.identifier(self.name)}.system.{procedure}({values})")


def _register_in_trino(
    trino: TrinoCatalog, lake: Lake, schema: str, item: TableRegistration, *, replace: bool, dry_run: bool
) -> TableRegistration:
    """Make sure that Trino has the table, and counts as many rows as the log has."""
    if item.state == NO_DATA_YET:
        return dataclasses.replace(item, trino=NO_DATA_YET)
    # Trino folds names to lower case when it stores them, and finds them so only.
    name = item.table.lower()
    if not dry_run:
        # Trino remembers entries and logs, also those of a location that was wiped and written anew: it would
        # count the same and show the old columns, or say that there is no log.
        trino.flush(schema, name)
    state = _trino_state(trino.location(schema, name), schema, item, replace=replace)
    if not dry_run:
        _write_to_trino(trino, schema, name, item, state, replace=replace)
        _verify_count(trino, lake, schema, name, item)
    return dataclasses.replace(item, trino=state)


def _trino_state(found: str | None, schema: str, item: TableRegistration, *, replace: bool) -> str:
    """Return what has to be done, given the location that Trino has."""
    if found is None:
        return REGISTERED
    if _same_place(found, item.location):
        return UNCHANGED
    if replace:
        return REPLACED
    raise FailedError(
        f"Trino has {schema}.{item.table} at {found or 'a location without a log'}, not at {item.location}",
        hint="register with --replace to change its location",
    )


def _write_to_trino(
    trino: TrinoCatalog, schema: str, name: str, item: TableRegistration, state: str, *, replace: bool
) -> None:
    """Carry out what `_trino_state` said."""
    if state == UNCHANGED:
        return
    if state == REPLACED:
        trino.unregister(schema, name)
    trino.ensure_schema(schema)
    try:
        trino.register(schema, name, item.location)
    except FailedError as exc:
        if exc.code != "ALREADY_EXISTS":
            raise
        # Somebody was faster, or Trino shares the Glue catalogue and had cached its absence.
        _trino_state(trino.location(schema, name), schema, item, replace=False)
    # What Trino remembers of this location may be from an earlier time.
    trino.flush(schema, name)


def _verify_count(trino: TrinoCatalog, lake: Lake, schema: str, name: str, item: TableRegistration) -> None:
    """Raise FailedError unless Trino counts the log's rows; an export may come between, so it has a second try."""
    if item.rows is None:
        return
    expected: int | None = item.rows
    counted = trino.count(schema, name)
    if counted != expected:
        trino.flush(schema, name)
        counted = trino.count(schema, name)
        log = delta_log.open_table(item.location, lake.storage_options())
        expected = None if log is None else delta_log.log_rows(log)
    if counted != expected:
        raise FailedError(
            f"Trino counts {counted} rows in {schema}.{name}, the log of {item.location} has {expected}",
            hint="look whether its location was wiped and written anew",
        )


def _runner(scheme: str, host: str, port: int | None, user: str | None, password: str | None) -> Callable[[str], Rows]:
    """Return a function that runs one statement on Trino and returns its rows."""
    import trino

    login = unquote(user or "goldlake")
    auth = trino.auth.BasicAuthentication(login, unquote(password)) if password else None

    def run(statement: str) -> Rows:
        with _translated(f"Trino {host}:{port or 'default port'}"):
            connection = trino.dbapi.connect(
                host=host, port=port, user=login, http_scheme=scheme, auth=auth, source="goldlake"
            )
            with contextlib.closing(connection), contextlib.closing(connection.cursor()) as cursor:
                cursor.execute(statement)
                return [tuple(row) for row in cursor.fetchall()]

    return run


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    """Raise what the Trino client raises as Goldlake's errors; `code` keeps Trino's error name."""
    from trino import exceptions

    try:
        yield
    except exceptions.TrinoQueryError as exc:
        raise _query_error(where, str(exc.error_name), exc.message) from exc
    except exceptions.TrinoAuthError as exc:
        raise AccessDeniedError(f"{where} refuses the login") from exc
    except (exceptions.TrinoConnectionError, exceptions.HttpError, OSError) as exc:
        raise UnreachableError(f"{where} cannot be reached: {exc}", code=type(exc).__name__) from exc


def _query_error(where: str, name: str, message: str) -> GoldlakeError:
    """Return the error for one that Trino reports."""
    text = f"{where}: {message} ({name})"
    if "register_table procedure is disabled" in message:
        hint = "set delta.register-table-procedure.enabled=true in the catalogue's properties"
        return ConfigurationError(text, hint=hint, code=name)
    if name == "CATALOG_NOT_FOUND":
        return ConfigurationError(text, code=name)
    if name == "PROCEDURE_NOT_FOUND":
        return ConfigurationError(text, hint="name a catalogue of Trino's Delta Lake connector", code=name)
    if name == "PERMISSION_DENIED":
        return AccessDeniedError(text, code=name)
    if name in ("HIVE_METASTORE_ERROR", "SERVER_STARTING_UP", "SERVER_SHUTTING_DOWN", "NO_NODES_AVAILABLE"):
        return UnreachableError(text, code=name)
    return FailedError(text, code=name)
