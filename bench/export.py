"""How long an export takes, and how much memory: `python -m bench.export [--endpoint-url URL]`.

Side by side in one run, from the same DuckDB file: DuckDB's own COPY to Parquet, which nothing that goes through DuckDB
can be faster than; `goldlake export`; delta-rs' write_deltalake from an Arrow table and from an Arrow reader; and
pandas. Every round of every way is a fresh process: its time is that of the work without the imports, its memory the
highest resident size of the process. Each figure is the median of several rounds, and the ways take turns, so that a
slow minute of the machine falls on all of them.

Targets are a local folder, and a bucket when there is an endpoint (loopback only: any S3 server that honours
`If-None-Match`, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for it). All ways write zstd, level 1.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from runtime import sql
from runtime.aws import DEFAULT_REGION, Connection, is_loopback
from runtime.cli import say, show_table

ROUNDS = 5
TABLE = "f"
# The columns of the two shapes, made of a row's number `i`.
NARROW = """
    i AS id, (hash(i) % 20000)::INTEGER AS company_id, 'Engineer ' || (hash(i, 1) % 5000) AS title,
    (hash(i, 2) % 15000000 / 100)::DECIMAL(12, 2) AS salary, (hash(i, 3) % 1000000 / 7)::DOUBLE AS score,
    DATE '2020-01-01' + (hash(i, 4) % 2000)::INTEGER AS posted_on,
    TIMESTAMPTZ '2024-01-01 00:00:00+00' + INTERVAL (hash(i, 5) % 30000000) SECOND AS scraped_at,
    CASE WHEN hash(i, 6) % 10 > 0 THEN hash(i, 7) % 2 = 0 END AS remote"""
WIDE = ", ".join(
    ["i AS id"]
    + [f"(hash(i, {n}) % 100000)::INTEGER AS i{n}" for n in range(19)]
    + [f"(hash(i, {n}) % 1000000 / 3)::DOUBLE AS d{n}" for n in range(15)]
    + [f"'text ' || (hash(i, {n}) % {10 ** (n % 5 + 1)}) AS t{n}" for n in range(15)]
    + [f"DATE '2020-01-01' + (hash(i, {n}) % 3000)::INTEGER AS day{n}" for n in range(5)]
    + [f"TIMESTAMPTZ '2024-01-01 00:00:00+00' + INTERVAL (hash(i, {n}) % 9999999) SECOND AS at{n}" for n in range(5)]
)
SHAPES = {"narrow": (10_000_000, NARROW), "wide": (2_000_000, WIDE)}


# --- the ways ---


def open_source(source: str) -> Any:
    """Return DuckDB on the source file."""
    import duckdb

    connection = duckdb.connect(source, read_only=True)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET preserve_insertion_order = false")
    return connection


def copy(source: str, target: str) -> None:
    """Let DuckDB write Parquet, and nothing else: the limit."""
    from runtime import duck
    from runtime.delta.lake import Lake
    from runtime.query import _sign_in

    aws = Connection(os.environ.get("AWS_ENDPOINT_URL"), DEFAULT_REGION) if target.startswith("s3://") else None
    connection = duck.connect(*(["httpfs"] if aws else []))
    if aws:
        _sign_in(connection, Lake.at(target, aws))
    connection.execute(f"ATTACH {sql.literal(source)} AS source (READ_ONLY)")
    place = target if aws else str(Path(target) / TABLE)
    options = (
        "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, PER_THREAD_OUTPUT, RETURN_STATS, OVERWRITE_OR_IGNORE"
    )
    connection.execute(f"COPY source.gold.{TABLE} TO {sql.literal(place)} ({options})").fetchall()


def goldlake(source: str, target: str) -> None:
    """Export as `goldlake export` does."""
    from runtime.export import export_tables, parse_source

    aws = Connection(os.environ.get("AWS_ENDPOINT_URL"), DEFAULT_REGION) if target.startswith("s3://") else None
    export_tables(parse_source(f"duckdb:///{source}"), aws, target)


def arrow_table(source: str, target: str) -> None:
    """Read all rows into an Arrow table and hand it to delta-rs."""
    _write(target, open_source(source).sql(f"FROM gold.{TABLE}").to_arrow_table())


def arrow_reader(source: str, target: str) -> None:
    """Stream the rows to delta-rs."""
    _write(target, open_source(source).sql(f"FROM gold.{TABLE}").to_arrow_reader())


def pandas(source: str, target: str) -> None:
    """Read all rows into a pandas frame and hand it to delta-rs."""
    import pyarrow

    _write(target, pyarrow.Table.from_pandas(open_source(source).sql(f"FROM gold.{TABLE}").df()))


def _write(target: str, data: Any) -> None:
    from deltalake import WriterProperties, write_deltalake

    options = {}
    if target.startswith("s3://"):
        options = {"AWS_REGION": DEFAULT_REGION, "AWS_ALLOW_HTTP": "true"}
    write_deltalake(
        f"{target}/{TABLE}",
        data,
        mode="overwrite",
        storage_options=options or None,
        writer_properties=WriterProperties(compression="ZSTD", compression_level=1),
    )


WAYS: dict[str, Callable[[str, str], None]] = {
    "DuckDB COPY (the limit)": copy,
    "goldlake export": goldlake,
    "write_deltalake, Arrow table": arrow_table,
    "write_deltalake, Arrow reader": arrow_reader,
    "pandas, write_deltalake": pandas,
}
IMPORTS = {
    "goldlake export": ("boto3.s3.transfer", "deltalake", "runtime.export"),
    "write_deltalake, Arrow table": ("deltalake", "pyarrow"),
    "write_deltalake, Arrow reader": ("deltalake", "pyarrow"),
    "pandas, write_deltalake": ("deltalake", "pyarrow", "pandas"),
}
OURS, LIMIT = "goldlake export", "DuckDB COPY (the limit)"


# --- measuring ---


def one_round(way: str, source: str, target: str) -> dict[str, float]:
    """Return seconds and peak bytes of one way in a fresh process."""
    answer = subprocess.run(
        [sys.executable, "-m", "bench.export", "--way", way, "--source", source, "--target", target],
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if answer.returncode:
        raise click.ClickException(f"{way}: {answer.stderr[-2000:]}")
    result: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return result


def measure_here(way: str, source: str, target: str) -> None:
    """Do the work in this process and print what it took."""
    for module in ("duckdb", *IMPORTS.get(way, ())):
        # Imports are not measured; what they hold in memory is.
        importlib.import_module(module)
    started = time.perf_counter()
    WAYS[way](source, target)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    click.echo(json.dumps({"seconds": seconds, "peak": peak}))


def make_source(folder: Path, shape: str, rows: int) -> str:
    """Return a DuckDB file with the table, and print its size."""
    import duckdb

    path = folder / f"{shape}-{rows}.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET preserve_insertion_order = false")
        connection.execute("CREATE SCHEMA gold")
        columns = SHAPES[shape][1]
        connection.execute(f"CREATE TABLE gold.{TABLE} AS SELECT {columns} FROM range({rows}) AS t(i)")  # noqa: S608 - ours
    say(f"source {shape}: {rows:,} rows, {path.stat().st_size:,} bytes")
    return str(path)


@contextmanager
def fresh_target(endpoint_url: str | None, folder: Path) -> Iterator[str]:
    """Give a target that is empty, and empty it again."""
    if endpoint_url is None:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            yield place
        return
    client = Connection(endpoint_url, DEFAULT_REGION).client("s3")
    bucket = f"bench-{uuid.uuid4().hex[:12]}"
    client.create_bucket(Bucket=bucket)
    try:
        yield f"s3://{bucket}/gold"
    finally:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for item in page.get("Contents", []):
                client.delete_object(Bucket=bucket, Key=item["Key"])
        client.delete_bucket(Bucket=bucket)


def compare(
    title: str, source: str, rows: int, endpoint_url: str | None, *, folder: Path, rounds: int, ways: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Measure the ways in turns and print their table."""
    taken: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in ways:
            with fresh_target(endpoint_url, folder) as target:
                taken[way].append(one_round(way, source, target))
            last = taken[way][-1]
            say(f"{title}, round {number + 1}, {way}: {last['seconds']:.2f} s, {last['peak'] / 2**20:.0f} MiB")
    results: list[dict[str, Any]] = [
        {
            "case": title,
            "rows": rows,
            "way": way,
            "seconds": round(statistics.median(item["seconds"] for item in found), 3),
            "spread": [round(min(i["seconds"] for i in found), 3), round(max(i["seconds"] for i in found), 3)],
            "peak_bytes": int(statistics.median(item["peak"] for item in found)),
        }
        for way, found in taken.items()
    ]
    limit = results[0]
    show_table(
        ("way", "seconds", "from - to", "of COPY", "peak MiB", "of COPY"),
        [
            (
                item["way"],
                f"{item['seconds']:.2f}",
                f"{item['spread'][0]:.2f} - {item['spread'][1]:.2f}",
                f"{item['seconds'] / limit['seconds']:.2f}",
                f"{item['peak_bytes'] / 2**20:.0f}",
                f"{item['peak_bytes'] / limit['peak_bytes']:.2f}",
            )
            for item in results
        ],
        f"{title}: {rows:,} rows, median of {rounds}",
    )
    return results


@click.command()
@click.option("--endpoint-url", help="An S3 server on loopback, measured beside the local folder.")
@click.option("--shape", type=click.Choice(["narrow", "wide", "both"]), default="both", show_default=True)
@click.option("--rows", type=int, help="Rows instead of 10 million (narrow) and 2 million (wide).")
@click.option("--grow", type=int, default=0, help="COPY and goldlake once more with so many narrow rows (50000000).")
@click.option("--rounds", default=ROUNDS, show_default=True)
@click.option("--way", type=click.Choice(list(WAYS)), hidden=True)
@click.option("--source", hidden=True)
@click.option("--target", hidden=True)
def main(
    endpoint_url: str | None,
    shape: str,
    rows: int | None,
    grow: int,
    rounds: int,
    way: str | None,
    source: str | None,
    target: str | None,
) -> None:
    """Measure and print."""
    if way and source and target:
        measure_here(way, source, target)
        return
    if endpoint_url and not is_loopback(endpoint_url):
        raise click.UsageError("the bench writes gigabytes: it is for an S3 server on loopback only")
    if endpoint_url:
        os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
        os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")
        os.environ["AWS_ENDPOINT_URL"] = endpoint_url
    results: list[dict[str, Any]] = []
    places = [
        ("local folder", None),
        *([(f"S3 at port {urlsplit(endpoint_url).port}", endpoint_url)] if endpoint_url else []),
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in SHAPES if shape == "both" else (shape,):
            count = rows or SHAPES[name][0]
            made = make_source(folder, name, count)
            for place, endpoint in places:
                results += compare(
                    f"{name}, {place}",
                    made,
                    count,
                    endpoint_url=endpoint,
                    folder=folder,
                    rounds=rounds,
                    ways=tuple(WAYS),
                )
            Path(made).unlink()
        if grow:
            made = make_source(folder, "narrow", grow)
            results += compare("narrow, grown", made, grow, None, folder=folder, rounds=1, ways=(LIMIT, OURS))
        shutil.rmtree(folder, ignore_errors=True)
    click.echo(json.dumps({"bench": "export", "rounds": rounds, "results": results}))


if __name__ == "__main__":
    main()
