"""How long a check of many tables takes: `python -m bench.readiness [--tables 500] [--rounds 3]`.

Half are Parquet tables of 3 files, half Delta tables of 3 commits, all under Glue, on an emulator of its own in a
temporary folder. Side by side, on the same data: the check, and the plain way, one table and one request after another
with one client: GetTable, is there a log, list, every footer by DuckDB; or open the Delta table and ask its history.

Once straight at the emulator, where processors are the limit (the table has both sides' seconds), and once through a
proxy that keeps every answer back for 30 ms, as S3 does. Calls are counted by the proxy, delta-rs' own included.
Each figure is the median of n rounds: what takes long is measured less often, so that the whole stays within minutes.
Prints a table and a JSON line.
"""

from __future__ import annotations

import contextlib
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import duckdb
import psutil
from arro3.core import Array, DataType, Table
from deltalake import write_deltalake

from local.platform import Platform, ensure_emulator_environment
from local.process import LOOPBACK, free_port
from runtime import glue, parquet
from runtime.aws import DEFAULT_REGION, Connection
from runtime.cli import say, show_table
from runtime.delta import log as delta_log
from runtime.readiness import SourceTable, check

BUCKET = "bench-lake"
DATABASE = "silver_bench"
FILES = 3
LATENCY = 0.03
# For the rounds of one way at one place; the first is always made.
SECONDS = 60
Measured = dict[str, float]


def make_tables(aws: Connection, number: int, folder: Path) -> list[SourceTable]:
    """Put the tables, half Parquet and half Delta; every other one is a copy of the first of its kind."""
    s3, catalogue = aws.client("s3"), aws.client("glue")
    s3.create_bucket(Bucket=BUCKET)
    glue.ensure_database(aws, DATABASE)
    content = {"parquet": parquet_content(folder), "delta": delta_content(folder)}

    def make(index: int) -> SourceTable:
        kind = ("parquet", "delta")[index % 2]
        name, prefix = f"t{index:04}", f"silver/t{index:04}/"
        for key, body in content[kind].items():
            s3.put_object(Bucket=BUCKET, Key=prefix + key, Body=body)
        entry = {
            "Name": name,
            "Parameters": {"classification": "parquet"} if kind == "parquet" else {"table_type": "delta"},
            "StorageDescriptor": {"Location": f"s3://{BUCKET}/{prefix}", "Columns": [{"Name": "a", "Type": "bigint"}]},
        }
        catalogue.create_table(DatabaseName=DATABASE, TableInput=entry)
        return SourceTable(DATABASE, name, columns=("a",))

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(make, range(number)))


def parquet_content(folder: Path) -> dict[str, bytes]:
    """Return the files of a Parquet table."""
    path = folder / "rows.parquet"
    with duckdb.connect() as database:
        database.execute(f"COPY (SELECT i AS a FROM range(1000) r(i)) TO '{path}' (FORMAT parquet)")  # noqa: S608 - our path
    return {f"part-{number}.parquet": path.read_bytes() for number in range(FILES)}


def delta_content(folder: Path) -> dict[str, bytes]:
    """Return the files of a Delta table; its log names them by relative paths."""
    root = folder / "delta"
    for _ in range(FILES):
        write_deltalake(root, Table({"a": Array(list(range(1000)), type=DataType.int64())}), mode="append")
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def one_by_one(aws: Connection, tables: list[SourceTable]) -> int:
    """Return how many tables are ready, found out the plain way."""
    catalogue, s3, ready = aws.client("glue"), aws.client("s3"), 0
    for table in tables:
        entry = glue.get_table(aws, table.database, table.name, client=catalogue)
        if entry is None:
            continue
        bucket, prefix = parquet.split_location(entry["StorageDescriptor"]["Location"])
        if parquet.has_delta_log(aws, bucket, prefix, client=s3):
            opened = delta_log.open_table(f"s3://{bucket}/{prefix.rstrip('/')}", aws.storage_options())
            ready += bool(opened and opened.history(1) and delta_log.log_rows(opened))
        else:
            keys = [file.key for file in parquet.list_files(aws, bucket, prefix, client=s3)]
            ready += sum(parquet.footer_rows(aws, bucket, [key], client=s3)[key] for key in keys) > 0
    return ready


def at_once(aws: Connection, tables: list[SourceTable]) -> int:
    """Return how many tables are ready, by the check."""
    return check(aws, tables).count("ready")


WAYS: dict[str, Callable[[Connection, list[SourceTable]], int]] = {"one by one": one_by_one, "check": at_once}


def measured(way: str, aws: Connection, tables: list[SourceTable], emulator: psutil.Process) -> Measured:
    """Return seconds, and those of both sides' processors. Fails when a table is not found ready."""
    before, own, started = sum(emulator.cpu_times()[:2]), time.process_time(), time.perf_counter()
    ready = WAYS[way](aws, tables)
    seconds = time.perf_counter() - started
    if ready != len(tables):
        raise SystemExit(f"{way}: {ready} of {len(tables)} tables are ready")
    return {
        "seconds": seconds,
        "own_cpu": time.process_time() - own,
        "emulator_cpu": sum(emulator.cpu_times()[:2]) - before,
    }


def rounds_of(measure: Callable[[], Measured], rounds: int) -> list[Measured]:
    """Measure so often, or as often as another round is likely to end in time."""
    started, found = time.perf_counter(), [measure()]
    while len(found) < rounds and time.perf_counter() - started + found[-1]["seconds"] <= SECONDS:
        found.append(measure())
    return found


@contextlib.contextmanager
def emulator_of_its_own(folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Start an emulator in the folder; yield its port and process."""
    ensure_emulator_environment(say)
    platform = Platform(folder)
    for name in ("tmp", "state", "s3"):
        (platform.home / "emulator" / name).mkdir(parents=True)
    port = platform.emulator.start(free_port(), say)
    record = platform.emulator.record()
    try:
        if record is None:
            raise SystemExit("the emulator did not start")
        yield port, psutil.Process(record.pid)
    finally:
        platform.emulator.stop(say)


@contextlib.contextmanager
def slow_proxy(port: int) -> Iterator[str]:
    """Start the proxy as a process of its own; yield its URL."""
    command = [sys.executable, "-m", "tests.local.faulty_proxy", str(port), str(LATENCY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            yield f"http://{LOOPBACK}:{proxy.stdout.readline().strip() if proxy.stdout else ''}"
        finally:
            proxy.terminate()


def calls(url: str) -> dict[str, int]:
    """Return what the proxy has counted since it was asked last."""
    with urllib.request.urlopen(f"{url}/_proxy/counts") as answer:  # noqa: S310 - the proxy's own URL
        found: dict[str, int] = json.load(answer)
    return found


def median(rounds: list[Measured]) -> Measured:
    """Return the median of each figure."""
    return {name: round(statistics.median(item[name] for item in rounds), 2) for name in rounds[0]}


@click.command()
@click.option("--tables", "number", default=500, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(number: int, rounds: int) -> None:
    """Measure and print."""
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, emulator_of_its_own(Path(name)) as (port, process):
        direct = f"http://{LOOPBACK}:{port}"
        say(f"making {number} tables")
        tables = make_tables(Connection(direct, DEFAULT_REGION), number, Path(name))
        with slow_proxy(port) as slow:
            for where, url in (("emulator", direct), ("30 ms a call", slow)):
                aws = Connection(url, DEFAULT_REGION)
                for way in WAYS:
                    say(f"{where}: {way}")
                    calls(slow)
                    found = rounds_of(functools.partial(measured, way, aws, tables, process), rounds)
                    counted = {kind: count // len(found) for kind, count in calls(slow).items()}
                    results.append({"where": where, "way": way, "n": len(found), **median(found), "calls": counted})
    columns = ("where", "way", "n", "seconds", "own_cpu", "emulator_cpu")
    rows = [(*(item[column] for column in columns), sum(item["calls"].values()) or None) for item in results]
    show_table((*columns, "calls"), rows, f"{number} tables, medians of n rounds")
    times = {}
    for plain, ours in (results[:2], results[2:]):
        times[plain["where"]] = round(plain["seconds"] / ours["seconds"], 1)
        say(f"{plain['where']}: the check takes 1/{times[plain['where']]} of the time")
    print(json.dumps({"bench": "readiness", "tables": number, "rounds": rounds, "times": times, "results": results}))  # noqa: T201


if __name__ == "__main__":
    main()
