"""The Redshift Data API over the local wire gateway: statements run in threads, and are described while they do.

What is kept of a statement is its description, in a JSON file, so that a deployment finds it again after a restart;
results are in memory, of the latest statements only. Behaviour follows the API reference "Amazon Redshift Data API".
"""

from __future__ import annotations

import contextlib
import copy
import csv
import io
import json
import logging
import re
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from local.redshift import data_catalog, server
from local.redshift.aws_json import Caller, Service, ServiceError
from local.redshift.control import ACCOUNT, DATA_API_USER, Control, PostgresRoles
from runtime import sql
from runtime.aws import Connection
from runtime.errors import GoldlakeError
from runtime.target import write_atomically
from runtime.warehouse import read_login

LOG = logging.getLogger(__name__)

SERVICE = "redshift-data"
STATE_FILE = "data-api.json"
WORKERS = 8
# The service keeps descriptions and results for 24 hours.
KEPT_STATEMENTS = 1000
KEPT_RESULTS = 100
PAGE_ROWS = 1000
# The service's own limit on a statement's text and on a result.
MAX_STATEMENT_BYTES = 100_000
MAX_RESULT_BYTES = 500 << 20
# aws.redshift-data on the service; nobody else may put events under a name of AWS.
EVENT_SOURCE = "local.redshift-data"
ENDED = ("FINISHED", "FAILED", "ABORTED")

# Where a colon is no parameter: in literals, quoted names, dollar-quoted bodies, comments and casts.
_PIECES = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|(?P<tag>\$\w*\$).*?(?P=tag)|--[^\n]*|/\*.*?\*/|::|:=|:(?P<name>[A-Za-z_]\w*)""",
    re.DOTALL,
)
_HOLDS_PASSWORD = re.compile(r"password\s+'", re.IGNORECASE)
# PostgreSQL's type numbers (pg_type.oid) -> Redshift's names.
_TYPE_NAMES = {
    16: "bool",
    17: "varbyte",
    18: "char",
    19: "name",
    20: "int8",
    21: "int2",
    23: "int4",
    25: "text",
    26: "oid",
    700: "float4",
    701: "float8",
    1042: "bpchar",
    1043: "varchar",
    1082: "date",
    1083: "time",
    1114: "timestamp",
    1184: "timestamptz",
    1266: "timetz",
    1700: "numeric",
}


@dataclass(frozen=True)
class Result:
    """A statement's rows as the service's fields, and its columns."""

    columns: list[dict[str, Any]]
    rows: list[list[dict[str, Any]]]


@dataclass(frozen=True)
class Login:
    """Who runs a statement, where: `become` takes this user's place after signing in."""

    user: str
    password: str = field(repr=False)
    database: str
    become: str | None = None


class DataApi:
    """The Data API. Thread-safe: statements are changed under one lock, and run outside of it."""

    def __init__(
        self,
        file: Path,
        connect: Callable[[Login], Any],
        administrator: Callable[[str, str], tuple[str, str] | None],
        *,
        password: str,
        aws: Callable[[str], Connection] | None = None,
        cancel: Callable[[int], None] = lambda _pid: None,
    ) -> None:
        self._file = file
        self._connect = connect
        self._administrator = administrator
        self._password = password
        self._aws = aws
        self._cancel = cancel
        self._changed = threading.Condition()
        self._statements: dict[str, dict[str, Any]] = _read(file)
        self._results: dict[str, Result] = {}
        self._tokens: dict[str, tuple[dict[str, Any], str]] = {}
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="data-api")

    def service(self) -> Service:
        """Return the operations by their names on the wire."""
        return Service(
            SERVICE,
            {
                "ExecuteStatement": self.execute_statement,
                "BatchExecuteStatement": self.batch_execute_statement,
                "DescribeStatement": self.describe_statement,
                "GetStatementResult": self.get_statement_result,
                "GetStatementResultV2": self.get_statement_result_v2,
                "ListDatabases": self.list_databases,
                "ListSchemas": self.list_schemas,
                "ListTables": self.list_tables,
                "DescribeTable": self.describe_table,
                "ListStatements": self.list_statements,
                "CancelStatement": self.cancel_statement,
            },
        )

    def close(self) -> None:
        """Start no more statements; those that run end with their sessions."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    # Operations

    def execute_statement(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """ExecuteStatement: returns at once, or after WaitTimeSeconds."""
        return self._submitted(caller, given, [given["Sql"]], batch=False)

    def batch_execute_statement(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """BatchExecuteStatement: one transaction, unless ExecutionMode says AUTO_COMMIT."""
        return self._submitted(caller, given, given["Sqls"], batch=True)

    def describe_statement(self, _caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """DescribeStatement, of a statement or of one in a batch (`id:1`)."""
        self._wait(given)
        with self._changed:
            statement, sub = self._found(given["Id"])
            return _times(copy.deepcopy(sub or statement))

    def get_statement_result(self, _caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """GetStatementResult: a page of a thousand rows."""
        return _result_page(self._result_of(given, "JSON"), given.get("NextToken", "0"))

    def get_statement_result_v2(self, _caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """GetStatementResultV2: the same page as CSV, without a header."""
        page = _result_page(self._result_of(given, "CSV"), given.get("NextToken", "0"))
        return page | {"Records": [{"CSVRecords": _csv(page["Records"])}], "ResultFormat": "CSV"}

    def _result_of(self, given: Mapping[str, Any], form: str) -> Result:
        """Return the result of a statement that asked for this format."""
        self._wait(given)
        with self._changed:
            statement, sub = self._found(given["Id"])
            described = sub or statement
            if described["Status"] in ("FAILED", "ABORTED"):
                raise ServiceError("ResourceNotFoundException", f"Query failed: {described.get('Error', 'aborted')}")
            if described["Status"] != "FINISHED":
                raise ServiceError("ResourceNotFoundException", "Query is not finished.")
            if statement["ResultFormat"] != form:
                other = "GetStatementResult" if form == "CSV" else "GetStatementResultV2"
                text = f"The result format of the query is {statement['ResultFormat']}: use {other}."
                raise ServiceError("ValidationException", text)
            result = self._results.get(given["Id"])
        if result is None:
            raise ServiceError("ResourceNotFoundException", "Query does not have result.")
        return result

    def list_statements(self, _caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """ListStatements: the latest first, and only finished ones unless the request says otherwise."""
        status, name = given.get("Status", "FINISHED"), given.get("StatementName", "")
        members = ("Database", "WorkgroupName", "ClusterIdentifier")
        wanted = {member: given[member] for member in members if member in given}
        with self._changed:
            found = [
                _times(copy.deepcopy(statement))
                for statement in reversed(self._statements.values())
                if status in ("ALL", statement["Status"])
                and statement.get("StatementName", "").startswith(name)
                and all(statement.get(member) == value for member, value in wanted.items())
            ]
        for statement in found:
            if statement["IsBatchStatement"]:
                statement["QueryStrings"] = [sub["QueryString"] for sub in statement["SubStatements"]]
        return _page("Statements", found, given, 100)

    # What is in the databases

    def list_databases(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """ListDatabases."""
        names = [row[0] for row in self._asked(caller, given, data_catalog.databases())]
        return _page("Databases", names, given)

    def list_schemas(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """ListSchemas, of the database asked for: PostgreSQL sees no other from within one."""
        rows = self._asked(caller, given, data_catalog.schemas(given.get("SchemaPattern")))
        return _page("Schemas", [row[0] for row in rows], given)

    def list_tables(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """ListTables: system tables, too, unless a pattern leaves them out."""
        text = data_catalog.tables(given.get("SchemaPattern"), given.get("TablePattern"))
        rows = self._asked(caller, given, text)
        return _page("Tables", [{"name": name, "schema": schema, "type": kind} for name, schema, kind in rows], given)

    def describe_table(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """DescribeTable: the columns of a table, or of all tables of a schema or database."""
        rows = self._asked(caller, given, data_catalog.columns(given.get("Schema"), given.get("Table")))
        columns = [data_catalog.described(row, _column(row)) for row in rows]
        return _page("ColumnList", columns, given) | {"TableName": given.get("Table")}

    def _asked(self, caller: Caller, given: Mapping[str, Any], text: str) -> list[Any]:
        """Return the rows of a query of our own, run as the request says."""
        try:
            with contextlib.closing(self._connect(self._login(caller, given))) as connection:
                return _rows(connection, text)[1]
        except ServiceError:
            raise
        except Exception as exc:
            raise ServiceError("ValidationException", reason(exc)) from None

    # Cancelling

    def cancel_statement(self, caller: Caller, given: dict[str, Any]) -> dict[str, Any]:
        """CancelStatement: what runs is ended by PostgreSQL, what waits never starts."""
        with self._changed:
            statement, _sub = self._found(given["Id"])
            if statement["Status"] in ENDED:
                text = f"Could not cancel a query that is already in {statement['Status']} state with ID: {given['Id']}"
                raise ServiceError("ValidationException", text)
            pid = statement.get("RedshiftPid")
            self._end(statement, "ABORTED")
        if pid is not None:
            self._cancel(pid)
        self._tell(statement, caller.region)
        return {"Status": True}

    # Taking statements in

    def _submitted(self, caller: Caller, given: dict[str, Any], texts: list[str], *, batch: bool) -> dict[str, Any]:
        """Take a request in, unless its token was seen; return the operation's answer."""
        for name in ("SessionId", "SessionKeepAliveSeconds"):
            if name in given:
                raise ServiceError("NotImplemented", f"not emulated: {name}")
        login = self._login(caller, given)
        ready = [bound(text, given.get("Parameters", [])) for text in texts]
        with self._changed:
            known = self._tokens.get(given.get("ClientToken", ""))
            if known is not None and known[0] != given:
                raise ServiceError("ValidationException", "The ClientToken was used with other parameters.")
            statement = self._statements.get(known[1]) if known is not None else None
            fresh = statement is None
            if statement is None:
                statement = _described(given, texts, login.database, batch=batch)
                self._keep(statement)
                if "ClientToken" in given:
                    self._tokens[given["ClientToken"]] = (given, statement["Id"])
        if fresh:
            together = batch and given.get("ExecutionMode", "TRANSACTION") == "TRANSACTION"
            self._workers.submit(self._run, statement, login, ready, caller.region, together=together)
        self._wait({"Id": statement["Id"], "WaitTimeSeconds": given.get("WaitTimeSeconds", 0)})
        with self._changed:
            return _times(copy.deepcopy(statement))

    def _login(self, caller: Caller, given: Mapping[str, Any]) -> Login:
        """Return who runs the statement: the secret's login, or the workgroup's administrator."""
        if ("WorkgroupName" in given) == ("ClusterIdentifier" in given):
            raise ServiceError("ValidationException", "Either ClusterIdentifier or WorkgroupName must be given.")
        if "Database" not in given:
            raise ServiceError("ValidationException", "Database must be given.")
        # There are workgroups only: no cluster has any name.
        administrator = self._administrator(caller.region, given.get("WorkgroupName", ""))
        if administrator is None:
            raise ServiceError("ValidationException", "Redshift endpoint doesn't exist in this region.")
        if "DbUser" in given:
            raise ServiceError("ValidationException", "DbUser is for clusters: a workgroup's user is the caller's.")
        if "SecretArn" not in given:
            return Login(DATA_API_USER, self._password, given["Database"], become=administrator[0])
        if self._aws is None:
            raise ServiceError("NotImplemented", "not emulated: SecretArn, without an AWS emulator beside")
        try:
            user, password = read_login(self._aws(caller.region), given["SecretArn"])
        except GoldlakeError as exc:
            raise ServiceError("ValidationException", exc.message) from None
        return Login(user, password, given["Database"])

    def _keep(self, statement: dict[str, Any]) -> None:
        """Add a statement, and forget the oldest that have ended."""
        self._statements[statement["Id"]] = statement
        ended = [key for key, other in self._statements.items() if other["Status"] in ENDED]
        for key in ended[: max(0, len(self._statements) - KEPT_STATEMENTS)]:
            del self._statements[key]
        self._tokens = {token: seen for token, seen in self._tokens.items() if seen[1] in self._statements}

    def _found(self, identifier: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return the statement with this id, and the one in the batch if the id names one."""
        base, _, number = identifier.partition(":")
        statement = self._statements.get(base)
        if statement is None:
            raise ServiceError("ResourceNotFoundException", "Query does not exist.")
        if not number:
            return statement, None
        subs = [sub for sub in statement.get("SubStatements", []) if sub["Id"] == identifier]
        if not subs:
            raise ServiceError("ResourceNotFoundException", "Query does not exist.")
        return statement, subs[0]

    def _wait(self, given: Mapping[str, Any]) -> None:
        """Wait for the end of a statement for as long as the request says."""
        seconds = given.get("WaitTimeSeconds", 0)
        if seconds:
            with self._changed:
                statement, _sub = self._found(given["Id"])
                self._changed.wait_for(lambda: statement["Status"] in ENDED, seconds)

    # Running them

    def _run(
        self, statement: dict[str, Any], login: Login, texts: Sequence[str], region: str, *, together: bool
    ) -> None:
        """Run a statement or a batch in a session of its own; nothing is raised."""
        try:
            with contextlib.closing(self._connect(login)) as connection:
                self._started(statement, connection)
                connection.autocommit = not together
                self._run_all(statement, connection, texts)
                if together:
                    connection.commit()
            self._ended(statement, "FINISHED")
        except Exception as exc:
            self._ended(statement, "FAILED", reason(exc))
        if statement["Status"] != "ABORTED":
            self._tell(statement, region)

    def _tell(self, statement: Mapping[str, Any], region: str) -> None:
        """Put the end of a statement that asked for it on the emulator's event bus ("Monitoring Data API events")."""
        if not statement.get("WithEvent") or self._aws is None:
            return
        detail = {
            "principal": f"arn:aws:iam::{ACCOUNT}:root",
            "statementName": statement.get("StatementName", ""),
            "statementId": statement["Id"],
            "state": statement["Status"],
            "rows": statement.get("ResultRows", -1),
            "expireAt": int(time.time()) + 24 * 3600,
        }
        event = {"Source": EVENT_SOURCE, "DetailType": "Redshift Data Statement Status Change"}
        try:
            self._aws(region).client("events").put_events(Entries=[{**event, "Detail": json.dumps(detail)}])
        except Exception as exc:
            LOG.warning("the event of statement %s could not be sent: %s", statement["Id"], type(exc).__name__)

    def _started(self, statement: dict[str, Any], connection: Any) -> None:
        """Note the session's process, so that it can be cancelled, and that work began."""
        pid = int(_rows(connection, "select pg_backend_pid()")[1][0][0])
        with self._changed:
            if statement["Status"] in ENDED:
                raise ServiceError("ABORTED", "cancelled")
            statement |= {"Status": "STARTED", "RedshiftPid": pid, "UpdatedAt": _now()}
            self._changed.notify_all()

    def _run_all(self, statement: dict[str, Any], connection: Any, texts: Sequence[str]) -> None:
        """Run each text and note how it went; the first error ends it."""
        subs = statement.get("SubStatements") or [statement]
        for described, text in zip(subs, texts, strict=True):
            started = time.monotonic()
            with self._changed:
                if described["Status"] == "ABORTED":
                    raise ServiceError("ABORTED", "cancelled")
                described |= {"Status": "STARTED", "UpdatedAt": _now()}
            try:
                columns, rows = _rows(connection, text)
                result = _result(columns, rows)
            except Exception as exc:
                with self._changed:
                    if described["Status"] != "ABORTED":
                        described |= {"Status": "FAILED", "Error": reason(exc), "UpdatedAt": _now()}
                raise
            size = _size(result)
            with self._changed:
                described |= {
                    "Duration": int((time.monotonic() - started) * 1e9),
                    "HasResultSet": result is not None,
                    "ResultRows": len(result.rows) if result is not None else -1,
                    "ResultSize": size,
                    "UpdatedAt": _now(),
                }
                if described is not statement:
                    described["Status"] = "FINISHED"
                if result is not None:
                    self._results[described["Id"]] = result
                    for key in list(self._results)[:-KEPT_RESULTS]:
                        del self._results[key]

    def _ended(self, statement: dict[str, Any], status: str, error: str | None = None) -> None:
        with self._changed:
            # A cancelled statement stays so, whatever its session said in the end.
            if statement["Status"] != "ABORTED":
                self._end(statement, status, error)

    def _end(self, statement: dict[str, Any], status: str, error: str | None = None) -> None:
        """Note the end of a statement, and of those in its batch that never ran."""
        statement |= {"Status": status, "UpdatedAt": _now(), "Duration": statement.get("Duration", 0)}
        subs = statement.get("SubStatements", [])
        if subs:
            statement["Duration"] = sum(sub.get("Duration", 0) for sub in subs)
            statement["HasResultSet"] = any(sub.get("HasResultSet") for sub in subs)
        for sub in subs:
            if sub["Status"] not in ENDED:
                sub |= {"Status": "ABORTED", "UpdatedAt": _now()}
        if error is not None:
            statement["Error"] = error
        self._save()
        self._changed.notify_all()

    def _save(self) -> None:
        """Keep what has ended. A statement that sets a password is not written down."""
        kept = {key: item for key, item in self._statements.items() if item["Status"] in ENDED}
        texts = {key: json.dumps(item) for key, item in kept.items()}
        harmless = [kept[key] for key, text in texts.items() if not _HOLDS_PASSWORD.search(text)]
        write_atomically(self._file, json.dumps(harmless))


def _read(file: Path) -> dict[str, dict[str, Any]]:
    """Return the kept statements by id."""
    try:
        return {statement["Id"]: statement for statement in json.loads(file.read_text())}
    except FileNotFoundError:
        return {}


def bound(text: str, parameters: Sequence[Mapping[str, str]]) -> str:
    """Return the statement with its parameters (`:name`) in place, as literals whose type the context decides.

    Raises ServiceError for a parameter without value, a value without parameter, and a text that is too long.
    """
    if len(text.encode()) > MAX_STATEMENT_BYTES:
        raise ServiceError("ValidationException", f"The statement has more than {MAX_STATEMENT_BYTES} bytes.")
    if "\x00" in text or any("\x00" in item["value"] for item in parameters):
        raise ServiceError("ValidationException", "A statement cannot hold a NUL character.")
    values = {item["name"]: item["value"] for item in parameters}
    if not values:
        return text
    used: set[str] = set()

    def placed(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return match[0]
        if name not in values:
            raise ServiceError("ValidationException", f"Parameter {name} has no value.")
        used.add(name)
        # In Redshift's literals a backslash begins an escape (local/redshift/dialect).
        return sql.literal(values[name].replace("\\", "\\\\"))

    done = _PIECES.sub(placed, text)
    unused = sorted(values.keys() - used)
    if unused:
        raise ServiceError("ValidationException", f"Parameters list contains unused parameters: {', '.join(unused)}")
    return done


def _described(given: Mapping[str, Any], texts: Sequence[str], database: str, *, batch: bool) -> dict[str, Any]:
    """Return the description of a new statement."""
    identifier, now = str(uuid.uuid4()), _now()
    first = {"Status": "SUBMITTED", "CreatedAt": now, "UpdatedAt": now, "HasResultSet": False}
    statement: dict[str, Any] = {
        **first,
        "Id": identifier,
        "Database": database,
        "IsBatchStatement": batch,
        "ResultFormat": given.get("ResultFormat", "JSON"),
        **{name: given[name] for name in ("WorkgroupName", "SecretArn", "StatementName", "WithEvent") if name in given},
    }
    if "Parameters" in given:
        statement["QueryParameters"] = given["Parameters"]
    if not batch:
        return statement | {"QueryString": texts[0]}
    subs = [{**first, "Id": f"{identifier}:{number}", "QueryString": text} for number, text in enumerate(texts, 1)]
    mode = given.get("ExecutionMode", "TRANSACTION")
    return statement | {"SubStatements": subs, "ExecutionMode": mode}


def _rows(connection: Any, text: str) -> tuple[list[Any] | None, list[Any]]:
    """Run one statement; return its columns, None when it has no result, and its rows."""
    with contextlib.closing(connection.cursor()) as cursor:
        # The default style gives a meaning to `%`; a question mark has none in Redshift's SQL.
        cursor.paramstyle = "qmark"
        cursor.execute(text)
        if cursor.description is None:
            return None, []
        return list(cursor.description), list(cursor.fetchall())


def _result(columns: list[Any] | None, rows: list[Any]) -> Result | None:
    """Return rows as the service's fields."""
    if columns is None:
        return None
    return Result([_column(column) for column in columns], [[_field(value) for value in row] for row in rows])


def _column(described: Any) -> dict[str, Any]:
    """Return the metadata of a column."""
    name = described[0].decode() if isinstance(described[0], bytes) else str(described[0])
    kind = _TYPE_NAMES.get(described[1], "varchar")
    return {
        "name": name,
        "label": name,
        "typeName": kind,
        "isCaseSensitive": kind in ("varchar", "text", "bpchar", "char", "name"),
        "isSigned": kind in ("int2", "int4", "int8", "float4", "float8", "numeric"),
        "isCurrency": False,
        "nullable": 1,
        "precision": 0,
        "scale": 0,
        "length": 0,
        "schemaName": "",
        "tableName": "",
    }


def _field(value: Any) -> dict[str, Any]:
    """Return a value as the service's typed field; what is no number or boolean is text."""
    if value is None:
        return {"isNull": True}
    if isinstance(value, bool):
        return {"booleanValue": value}
    if isinstance(value, int):
        return {"longValue": value}
    if isinstance(value, float):
        # JSON has neither NaN nor infinity.
        return {"doubleValue": value} if value - value == 0 else {"stringValue": str(value)}
    if isinstance(value, bytes):
        return {"stringValue": value.hex()}
    return {"stringValue": str(value)}


def _size(result: Result | None) -> int:
    """Return about how many bytes a result has; raises ServiceError when it is more than the service gives."""
    if result is None:
        return -1
    size = sum(len(str(next(iter(item.values())))) for row in result.rows for item in row)
    if size > MAX_RESULT_BYTES:
        raise ServiceError("ValidationException", f"Query result size exceeds {MAX_RESULT_BYTES >> 20} MB")
    return size


def _result_page(result: Result, token: str) -> dict[str, Any]:
    start = _offset(token)
    end = start + PAGE_ROWS
    return {
        "Records": result.rows[start:end],
        "ColumnMetadata": result.columns,
        "TotalNumRows": len(result.rows),
        "NextToken": str(end) if end < len(result.rows) else None,
    }


def _page(member: str, items: Sequence[Any], given: Mapping[str, Any], most: int = PAGE_ROWS) -> dict[str, Any]:
    """Return one page of a list, and the token of the next; MaxResults 0 is none."""
    start = _offset(given.get("NextToken", "0"))
    end = start + (given.get("MaxResults") or most)
    return {member: items[start:end], "NextToken": str(end) if end < len(items) else None}


def _csv(rows: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Return rows of fields as CSV: null is empty, text is quoted where it must be."""
    text = io.StringIO()
    writer = csv.writer(text)
    for row in rows:
        values = [next(iter(field.items())) for field in row]
        writer.writerow(
            [
                "" if kind == "isNull" else str(value).lower() if kind == "booleanValue" else value
                for kind, value in values
            ]
        )
    return text.getvalue()


def _offset(token: str) -> int:
    if not re.fullmatch(r"\d{1,12}", token):
        raise ServiceError("ValidationException", "The NextToken is not one of ours.")
    return int(token)


def reason(exc: BaseException) -> str:
    """Return the database's words for an error, as the service reports them."""
    if isinstance(exc, ServiceError | GoldlakeError):
        return exc.message
    first = exc.args[0] if exc.args else exc
    if isinstance(first, dict):
        detail = f"\n  Detail: {first['D']}" if first.get("D") else ""
        return f"ERROR: {first.get('M', 'refused')}{detail}"
    return str(first) or type(exc).__name__


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _times(described: dict[str, Any]) -> dict[str, Any]:
    """Return the description with its times as such, those of a batch's statements too."""
    for name in ("CreatedAt", "UpdatedAt"):
        described[name] = datetime.fromisoformat(described[name])
    for sub in described.get("SubStatements", []):
        _times(sub)
    return described


def over_the_wire(
    file: Path,
    postgres: server.Postgres,
    port: int,
    control: Control,
    endpoint_url: str | None,
    encrypted: bool = False,
) -> DataApi:
    """Return the Data API of a running local Redshift; its own login has a new password at each start."""
    password = secrets.token_urlsafe(32)
    PostgresRoles(postgres, password).set_administrator(DATA_API_USER, password)
    return DataApi(
        file,
        lambda login: _connected(login, port, encrypted=encrypted),
        control.administrator,
        password=password,
        aws=(lambda region: Connection(endpoint_url=endpoint_url, region=region)) if endpoint_url else None,
        cancel=lambda pid: _terminate(postgres, pid),
    )


def _connected(login: Login, port: int, *, encrypted: bool) -> Any:
    """Return an open session through the gateway."""
    import redshift_connector

    connection = redshift_connector.connect(
        host="127.0.0.1",
        port=port,
        database=login.database,
        user=login.user,
        password=login.password,
        ssl=encrypted,
    )
    connection.autocommit = True
    if login.become is not None:
        try:
            _rows(connection, f"set session authorization {sql.identifier(login.become)}")
        except BaseException:
            connection.close()
            raise
    return connection


def _terminate(postgres: server.Postgres, pid: int) -> None:
    """End a session. Not the statement alone: that would let a batch go on with the next one."""
    try:
        server.run_sql(postgres, f"select pg_terminate_backend({pid});")
    except GoldlakeError as exc:
        LOG.warning("a cancelled statement could not be ended: %s", exc.message.splitlines()[0])
