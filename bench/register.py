"""How long the registration of many tables takes: `python -m bench.register [--tables 200] [--rounds 3]`.

Tables of two commits each, on an emulator, registered in a Trino catalogue with a metastore of its own, and again when
all of them are there. Side by side: `goldlake register`, and the plain script, one table after another on one
connection: is it there (SHOW CREATE TABLE), register it (CALL register_table), count its rows. Both verify: the script
by the count, `register` by version, file and count of what it wrote, and afterwards of what changed.

Once with an unchanged lake, and once after one table in ten had another commit. Trino's statements are counted, and the
seconds of `register` hold its requests to S3 and Glue, which the script does not make. Each figure is the median of the
rounds, each round in a schema of its own. Prints a table and a JSON line.

Takes a running Trino: TRINO_URL (a catalogue with a metastore of its own) with AWS_ENDPOINT_URL, or the laptop's
(`goldlake local up --with trino`).
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from arro3.core import Array, DataType, Table
from deltalake import write_deltalake

from local.process import LOOPBACK
from runtime import sql
from runtime.aws import DEFAULT_REGION, Connection
from runtime.cli import say, show_table
from runtime.errors import ConfigurationError, FailedError
from runtime.register import register_tables
from runtime.trino import Rows, TrinoOptions, TrinoServer

CATALOG = "delta_file"
ROWS = 3
# A busy machine makes it slow, and is not to make it fail.
OPTIONS = TrinoOptions(timeout=600)


def places() -> tuple[Connection, str]:
    """Return the emulator and the Trino: those of the environment, or the laptop's."""
    url = os.environ.get("TRINO_URL")
    if url:
        return Connection.from_environment(), url
    from local.platform import Platform
    from runtime.target import home

    platform = Platform(home())
    trino, emulator = platform.trino.record(), platform.emulator.record()
    if trino is None or emulator is None:
        raise ConfigurationError("no Trino runs here", hint="goldlake local up --with trino, or set TRINO_URL")
    aws = Connection(f"http://{LOOPBACK}:{emulator.port}", DEFAULT_REGION)
    return aws, f"http://bench@{LOOPBACK}:{trino.port}/{CATALOG}"


def content(folder: Path, commits: int) -> dict[str, bytes]:
    """Return the files of a Delta table with so many commits; its log names them by relative paths."""
    rows = Table({"a": Array(list(range(ROWS)), type=DataType.int64())})
    root = folder / "table"
    for _ in range(commits):
        write_deltalake(root, rows, mode="append")
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def put(aws: Connection, bucket: str, names: list[str], files: dict[str, bytes]) -> None:
    """Put the same files as tables of these names."""
    s3 = aws.limited_client("s3", connect_seconds=5, read_seconds=60, attempts=2, connections=8)

    def one(name: str) -> None:
        for key, body in files.items():
            s3.put_object(Bucket=bucket, Key=f"gold/{name}/{key}", Body=body)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, names))


def one_by_one(run: Callable[[str], Any], catalog: str, schema: str, root: str, names: list[str]) -> None:
    """Register the tables the plain way."""
    run(f"CREATE SCHEMA IF NOT EXISTS {sql.qualified(catalog, schema)}")
    for name in names:
        table = sql.qualified(catalog, schema, name)
        try:
            run(f"SHOW CREATE TABLE {table}")
        except FailedError:
            values = ", ".join(sql.literal(value) for value in (schema, name, f"{root}/{name}"))
            run(f"CALL {sql.identifier(catalog)}.system.register_table({values})")
        run(f"SELECT count(*) FROM {table}")  # noqa: S608 - quoted by runtime.sql


class Counted:
    """Counts the statements that go to Trino."""

    def __init__(self) -> None:
        self.number = 0
        run = TrinoServer.run

        def counted(server: TrinoServer, statement: str) -> Rows:
            self.number += 1
            return run(server, statement)

        TrinoServer.run = counted  # type: ignore[method-assign,assignment] # for the life of this program


def one_connection(server: TrinoServer, counted: Counted) -> Callable[[str], Rows]:
    """Return how the plain script runs a statement: always on the same connection."""
    import trino

    connection = trino.dbapi.connect(host=server.host, port=server.port, user=server.user, http_scheme=server.scheme)

    def run(statement: str) -> Rows:
        counted.number += 1
        cursor = connection.cursor()
        try:
            cursor.execute(statement)
            return [tuple(row) for row in cursor.fetchall()]
        except trino.exceptions.TrinoUserError as exc:
            raise FailedError(exc.message) from exc

    return run


def measured(work: Callable[[], Any], counted: Counted) -> dict[str, float]:
    """Return seconds and statements of some work."""
    counted.number, started = 0, time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - started, "statements": counted.number}


@click.command()
@click.option("--tables", "number", default=200, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(number: int, rounds: int) -> None:
    """Measure and print."""
    aws, url = places()
    server, counted = TrinoServer.at(url, OPTIONS), Counted()
    run = one_connection(server, counted)
    names = [f"t{index:04}" for index in range(number)]
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for index in range(rounds):
        bucket, schema = f"bench-{uuid.uuid4().hex[:12]}", f"bench_{uuid.uuid4().hex[:8]}"
        root = f"s3://{bucket}/gold"
        aws.client("s3").create_bucket(Bucket=bucket)
        with tempfile.TemporaryDirectory() as folder:
            older, newer = content(Path(folder), 2), content(Path(folder), 1)
        put(aws, bucket, names, older)

        def ours(root: str = root, schema: str = schema) -> None:
            register_tables(aws, root, names, database=schema, trino_url=url, trino_options=OPTIONS)

        def plain(root: str = root, schema: str = schema) -> None:
            one_by_one(run, server.catalog, f"{schema}_plain", root, names)

        for when in ("first run", "again, nothing changed", "again, one in ten changed"):
            if when.endswith("one in ten changed"):
                put(aws, bucket, names[::10], newer)
            for way, work in (("one by one", plain), ("register", ours)):
                say(f"round {index + 1}: {way}, {when}")
                found.setdefault((when, way), []).append(measured(work, counted))
    results = [
        {
            "when": when,
            "way": way,
            "seconds": round(statistics.median(item["seconds"] for item in items), 2),
            "statements": int(statistics.median(item["statements"] for item in items)),
        }
        for (when, way), items in found.items()
    ]
    columns = ("when", "way", "seconds", "statements")
    show_table(columns, [tuple(item[column] for column in columns) for item in results], f"{number} tables")
    print(json.dumps({"bench": "register", "tables": number, "rounds": rounds, "results": results}))  # noqa: T201


if __name__ == "__main__":
    main()
