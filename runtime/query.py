"""SQL over the exported Delta tables, on the reader's own machine: DuckDB with a view for each table.

For the command line. In a Lambda function DuckDB's httpfs and delta extensions do not fit; there Athena
answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from runtime import aws as aws_errors
from runtime import duck, sql
from runtime.aws import Connection
from runtime.delta.lake import Lake
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, GoldlakeError, UnreachableError

if TYPE_CHECKING:
    import duckdb

DEFAULT_LIMIT = 1000


@dataclass(frozen=True)
class QueryResult:
    """A result: names, rows of Python values, and whether there were more rows than the limit."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool = False


def query(aws: Connection | None, target: str, statement: str, *, limit: int | None = DEFAULT_LIMIT) -> QueryResult:
    """Run one SQL statement over the Delta tables below `target` and return at most `limit` rows (None: all).

    Each table is a view `gold.<table>` on its newest version, and can be named without the schema too.
    DuckDB's delta extension 1.5.5 loses the last letter of a folder that ends in one outside ASCII: such a
    table is not found. Raises ConfigurationError for SQL that DuckDB refuses, UnreachableError or
    AccessDeniedError for the store.
    """
    lake = Lake.at(target, aws)
    with contextlib.closing(duck.connect("httpfs", "delta")) as connection:
        secrets = _sign_in(connection, lake)
        with _translated(secrets):
            _create_views(connection, lake)
            # Parsed before it runs: `execute` would run several statements and show the last one's result.
            if len(connection.extract_statements(statement)) != 1:
                raise ConfigurationError("a query is exactly one SQL statement")
            cursor = connection.execute(statement)
            rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit + 1)
            names = tuple(str(entry[0]) for entry in cursor.description or [])
    kept = rows if limit is None else rows[:limit]
    return QueryResult(names, tuple(tuple(row) for row in kept), truncated=len(kept) < len(rows))


def delta_tables(lake: Lake) -> list[str]:
    """Return the names of the folders below the lake's root that have a Delta log, sorted."""
    if lake.aws is None:
        return sorted(path.parent.name for path in Path(lake.root).glob("*/_delta_log") if path.is_dir())
    client = lake.aws.client("s3")
    start = f"{lake.prefix}/" if lake.prefix else ""
    with aws_errors.translated(f"list {lake.root}"):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=lake.bucket, Prefix=start, Delimiter="/")
        folders = [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])]
        return sorted(
            folder[len(start) : -1]
            for folder in folders
            if client.list_objects_v2(Bucket=lake.bucket, Prefix=f"{folder}_delta_log/", MaxKeys=1).get("KeyCount")
        )


def _sign_in(connection: duckdb.DuckDBPyConnection, lake: Lake) -> list[str]:
    """Give DuckDB the keys as a secret for the lake's bucket; return the values that no error may show."""
    import duckdb

    options = lake.storage_options()
    if options is None:
        return []
    values = {
        "KEY_ID": options["AWS_ACCESS_KEY_ID"],
        "SECRET": options["AWS_SECRET_ACCESS_KEY"],
        "REGION": options["AWS_REGION"],
        "SCOPE": f"s3://{lake.bucket}",
    }
    if "AWS_SESSION_TOKEN" in options:
        values["SESSION_TOKEN"] = options["AWS_SESSION_TOKEN"]
    parts = [f"{key} {sql.literal(value)}" for key, value in values.items()]
    endpoint = options.get("AWS_ENDPOINT_URL")
    if endpoint:
        url = urlsplit(endpoint)
        # DuckDB wants host and port alone; an emulator has no host name per bucket.
        parts.append(f"ENDPOINT {sql.literal(url.netloc)}, URL_STYLE 'path', USE_SSL {url.scheme != 'http'}")
    try:
        connection.execute(f"CREATE SECRET lake (TYPE s3, {', '.join(parts)})")
    except duckdb.Error:
        # Without its cause: that one can show the statement.
        raise ConfigurationError("the AWS credentials cannot be handed to DuckDB") from None
    return [options["AWS_SECRET_ACCESS_KEY"], options.get("AWS_SESSION_TOKEN", "")]


def _create_views(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Create a view in schema gold for each Delta table."""
    connection.execute("CREATE SCHEMA gold")
    for table in delta_tables(lake):
        source = sql.literal(lake.location(table))
        connection.execute(f"CREATE VIEW {sql.qualified('gold', table)} AS FROM delta_scan({source})")
    connection.execute("SET search_path = 'gold,main'")


@contextlib.contextmanager
def _translated(secrets: list[str]) -> Iterator[None]:
    """Raise what DuckDB raises as Goldlake's errors, without the given values."""
    import duckdb

    try:
        yield
    except duckdb.Error as exc:
        text = duck.reason(exc)
        shown = any(secret and len(secret) > len("test") and secret in str(exc) for secret in secrets)
        raise _goldlake_error(exc, "DuckDB cannot say why" if shown else text) from (None if shown else exc)


def _goldlake_error(exc: duckdb.Error, text: str) -> GoldlakeError:
    """Return the error by DuckDB's class and, for the store, by the HTTP status in its message."""
    import duckdb

    if isinstance(exc, duckdb.ProgrammingError):
        return ConfigurationError(text)
    if "403" in text or "AccessDenied" in text:
        return AccessDeniedError(text)
    if isinstance(exc, duckdb.HTTPException | duckdb.ConnectionException) and "404" not in text:
        return UnreachableError(text)
    return FailedError(text)
