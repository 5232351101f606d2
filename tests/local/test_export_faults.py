"""Whole exports that are killed, that meet other writers, and whose store fails: each is there whole, or not at all.

GOLDLAKE_KILL_ROUNDS=50 kills the export so often, GOLDLAKE_FAULT_ROUNDS=40 lets so many meet a failing store,
--log-cli-level=INFO shows how often what happened.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from runtime.aws import Connection
from runtime.delta.lake import Lake
from runtime.delta.verify import verify
from runtime.export import ExportOptions, export_tables, parse_source
from tests.local.faulty_proxy import Fault, FaultyProxy, Rule, faulty_proxy
from tests.local.support import REPOSITORY
from tests.local.test_delta_commit import arrow, by_delta_rs, by_duckdb, dice, lake, opened
from tests.local.test_export_duckdb import Source, goldlake, source
from tests.local.test_vacuum import NOW

__all__ = ["lake", "source"]
GOLDLAKE = str(Path(sys.prefix) / "bin" / "goldlake")
KILL_ROUNDS = int(os.environ.get("GOLDLAKE_KILL_ROUNDS", "4"))
FAULT_ROUNDS = int(os.environ.get("GOLDLAKE_FAULT_ROUNDS", "4"))
APPENDS = 20
LOG = logging.getLogger(__name__)
# The emulator takes its time for each file.
PARTS = {"folder": 100, "s3": 20}
ROWS = 20_000
# A table's files are gone as soon as no version names them.
PROPERTIES = tuple(f"{name}={value}" for name, value in NOW.items())


def place_of(lake: Lake) -> list[str]:
    """Return the options that name a lake to the command."""
    where = ["--target", lake.root]
    if lake.aws is not None:
        where += ["--endpoint-url", str(lake.aws.endpoint_url), "--region", str(lake.aws.region)]
    return where


def data_files(lake: Lake, table: str) -> set[str]:
    """Return the names of the Parquet files below a table's location, without its log's checkpoints."""
    names = {file.name for file in lake.list_files(table)}
    return {name for name in names if name.endswith(".parquet") and not name.startswith("_delta_log/")}


def referenced(lake: Lake, table: str) -> set[str]:
    """Return the names of the newest version's files, by delta-rs."""
    return {uri.partition(f"/{table}/")[2] for uri in opened(lake, table).file_uris()}


# --- exports that are killed ---


class Killed:
    """A table of a hundred files that exports overwrite, most of which are killed on the way.

    All rows of a version have the number of the export that wrote it.
    """

    def __init__(self, source: Source, lake: Lake, scratch: Path) -> None:
        self.source, self.lake, self.scratch = source, lake, scratch
        self.round, self.parts = 0, PARTS["s3" if lake.aws else "folder"]
        self.phases: Counter[str] = Counter()
        scratch.mkdir()

    def prepare(self) -> None:
        """Give the source rows that no export has written yet."""
        self.round += 1
        self.source.run(
            f"CREATE OR REPLACE TABLE gold.fact AS SELECT {self.round} AS round, i % {self.parts} AS part,"  # noqa: S608 - our own numbers
            f" md5(i::VARCHAR) || md5(i::VARCHAR || 'x') AS text FROM range({ROWS}) r(i)"
        )

    def start(self) -> subprocess.Popen[str]:
        """Start an export as a user does."""
        command = [GOLDLAKE, "export", "fact", "--source", self.source.url, *place_of(self.lake)]
        command += ["--partition-by", "part", "--property", PROPERTIES[0], "--output", "json"]
        environment = {**os.environ, "TMPDIR": str(self.scratch), "GOLDLAKE_HOME": str(self.scratch / "home")}
        return subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.scratch
        )

    def whole(self) -> float:
        """Export without a kill; return the seconds that it takes."""
        self.prepare()
        begun = time.monotonic()
        out, err = self.start().communicate(timeout=60)
        assert json.loads(out)["tables"][0]["files"] >= self.parts, err
        self.check(self.round, thorough=True)
        return time.monotonic() - begun

    def kill(self, wait: Callable[[subprocess.Popen[str]], None], *, thorough: bool) -> int:
        """Kill an export after a wait, look at what readers see, and return the process's exit code."""
        (was,), version = self.wrote(), opened(self.lake, "fact").version()
        before = data_files(self.lake, "fact")
        self.prepare()
        process = self.start()
        wait(process)
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL), err
        now = opened(self.lake, "fact").version()
        assert now in (version, version + 1)
        self.check(was if now == version else self.round, thorough=thorough)
        ended = process.returncode == 0
        assert now > version or not ended
        grown = data_files(self.lake, "fact") != before
        self.phases["ended" if ended else "committed" if now > version else "written" if grown else "begun"] += 1
        return process.returncode

    @property
    def kills(self) -> int:
        """How many exports were killed; the others had ended by themselves."""
        return self.phases.total() - self.phases["ended"]

    def wrote(self) -> list[int]:
        """Return whose rows the table has."""
        return sorted({row[0] for row in by_delta_rs(self.lake, "fact", "DISTINCT round")})

    def check(self, wrote: int, *, thorough: bool) -> None:
        """Fail unless readers see all rows of that export and no others."""
        asked = "min(round), max(round), count(*), count(DISTINCT part), count(DISTINCT text)"
        expected = [(wrote, wrote, ROWS, self.parts, ROWS)]
        assert by_delta_rs(self.lake, "fact", asked) == expected
        if thorough:
            assert by_duckdb(self.lake, "fact", asked) == expected


def for_seconds(seconds: float) -> Callable[[subprocess.Popen[str]], None]:
    """Return a wait for a time, or for the process's end."""

    def wait(process: subprocess.Popen[str]) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)

    return wait


def until(condition: Callable[[], bool]) -> Callable[[subprocess.Popen[str]], None]:
    """Return a wait for a condition, or for the process's end."""

    def wait(process: subprocess.Popen[str]) -> None:
        while process.poll() is None and not condition():
            time.sleep(0.001)

    return wait


def test_an_export_that_is_killed_at_any_moment_leaves_the_old_version_or_the_new_one(
    source: Source,
    lake: Lake,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rounds = KILL_ROUNDS if lake.aws is None else max(2, KILL_ROUNDS // 3)
    killed = Killed(source, lake, tmp_path / "scratch")
    killed.whole()
    seconds = killed.whole()
    # One while files are written and one when the version has just been put, both by what can be seen; the others at
    # a random moment of each part of the time that an export takes.
    before = data_files(lake, "fact")
    killed.kill(until(lambda: data_files(lake, "fact") != before), thorough=True)
    following = f"_delta_log/{opened(lake, 'fact').version() + 1:020}.json"
    killed.kill(until(lambda: lake.read("fact", following) is not None), thorough=True)
    moment, tried = dice(None), 0
    while killed.kills < rounds and tried < 3 * rounds:
        tried += 1
        part = moment.uniform(killed.kills - 2, killed.kills - 1) / (rounds - 2)
        begun = time.monotonic()
        if killed.kill(for_seconds(part * seconds), thorough=tried % 5 == 0) == 0:
            # The machine has less to do than it had.
            seconds = min(seconds, time.monotonic() - begun)
    LOG.info(f"{killed.kills} kills in exports of {seconds:.2f} s: {dict(killed.phases)}")
    assert killed.kills == rounds
    assert killed.phases["written"] + killed.phases["begun"] > 0
    assert killed.phases["committed"] > 0
    (wrote,) = killed.wrote()
    assert data_files(lake, "fact") > referenced(lake, "fact")
    code, _, err = goldlake(capsys, "vacuum", "fact", "--retention-hours", "0", "--yes", *place_of(lake))
    assert code == 0, err
    assert data_files(lake, "fact") == referenced(lake, "fact")
    killed.check(wrote, thorough=True)
    assert verify(lake, "fact", expected_rows=ROWS).ok
    killed.whole()


# --- exporters and other writers at once ---

# What an exporter in a process of its own does: it reads its work from standard input.
EXPORTER = """
import json, sys
from runtime.aws import Connection
from runtime.delta.lake import Lake
from tests.local import test_export_faults as tests
given = json.load(sys.stdin)
tests.append_schemas(Lake.at(given["root"], Connection(**given["aws"]) if given["aws"] else None), given["source"])
"""


def append_schemas(lake: Lake, url: str) -> None:
    """Append the table `fact` of one schema of a source after the other."""
    for number in range(APPENDS):
        append = ExportOptions(mode="append")
        export_tables(parse_source(url), lake.aws, lake.root, schema=f"s{number}", options=append)


def exporter(lake: Lake, folder: Path, first: int) -> subprocess.Popen[str]:
    """Start a process that appends rows `first` to `first + APPENDS - 1`, an export each."""
    folder.mkdir()
    rows = Source(folder)
    for number in range(APPENDS):
        rows.run(f"CREATE SCHEMA s{number}; CREATE TABLE s{number}.fact AS SELECT {first + number}::BIGINT AS id")
    aws = {"endpoint_url": lake.aws.endpoint_url, "region": lake.aws.region} if lake.aws else None
    process = subprocess.Popen(
        [sys.executable, "-c", EXPORTER], cwd=REPOSITORY, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin
    process.stdin.write(json.dumps({"root": lake.root, "aws": aws, "source": rows.url}))
    process.stdin.close()
    process.stdin = None
    return process


def test_two_exporters_that_append_at_once_lose_and_double_nothing(lake: Lake, tmp_path: Path) -> None:
    begun = time.monotonic()
    exporters = [exporter(lake, tmp_path / f"source{first}", first) for first in (1000, 2000)]
    for process in exporters:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    LOG.info(f"2 x {APPENDS} appends in {time.monotonic() - begun:.1f} s")
    expected = [(first + number,) for first in (1000, 2000) for number in range(APPENDS)]
    assert by_delta_rs(lake, "fact") == by_duckdb(lake, "fact") == expected
    assert opened(lake, "fact").version() == 2 * APPENDS - 1
    assert data_files(lake, "fact") == referenced(lake, "fact")


@contextlib.contextmanager
def merging(lake: Lake) -> Iterator[dict[int, int]]:
    """Let delta-rs merge in a thread, again and again: row 0 and a new one each time.

    Yields the new rows of the merges that said they are done, each with a version before which it was not there.
    """
    done: dict[int, int] = {}
    stop = threading.Event()

    def merge() -> None:
        number = 10_000
        while not stop.is_set():
            number += 1
            table = opened(lake, "fact")
            merger = table.merge(arrow([0, number]), "s.id = t.id", source_alias="s", target_alias="t")
            # It gives up on conflicts that it cannot settle: such a merge is not done.
            with contextlib.suppress(Exception):
                merger.when_matched_update_all().when_not_matched_insert_all().execute()
                done[number] = table.version()

    thread = threading.Thread(target=merge)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join(60)


def test_exports_beside_a_loop_of_delta_rs_merges_lose_and_double_nothing(source: Source, lake: Lake) -> None:
    source.run("CREATE TABLE gold.fact AS SELECT 0::BIGINT AS id")
    url, place = parse_source(source.url), (lake.aws, lake.root)
    export_tables(url, *place)
    retries = 0
    with merging(lake) as merged:
        for number in range(1, 9):
            source.run(f"CREATE OR REPLACE TABLE gold.fact AS SELECT {number}::BIGINT AS id")
            (table,) = export_tables(url, *place, options=ExportOptions(mode="append")).tables
            retries += table.retries
    assert len(merged) > 0
    expected = [(number,) for number in (*range(9), *merged)]
    assert by_delta_rs(lake, "fact") == sorted(expected, key=str)
    assert by_duckdb(lake, "fact") == sorted(expected, key=str)
    source.run("CREATE OR REPLACE TABLE gold.fact AS SELECT i::BIGINT AS id FROM range(100, 200) r(i)")
    with merging(lake) as later:
        (table,) = export_tables(url, *place).tables
    LOG.info(f"merges: {len(merged)} beside appends with {retries} retries, {len(later)} beside an overwrite")
    assert table.version is not None
    # The overwrite is the whole content, and what was merged after it is there beside it.
    overwritten = [(number,) for number in range(100, 200)]
    assert by_delta_rs(lake, "fact", version=table.version) == sorted(overwritten, key=str)
    after = [(number,) for number, version in later.items() if version > table.version]
    zero = [(0,)] if after else []
    assert by_delta_rs(lake, "fact") == sorted([*overwritten, *after, *zero], key=str)


# --- stores that fail ---

FAULTS: tuple[Fault, ...] = ("lost answer", "slow down", "internal error", "reset", "delay")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients wait for a second only, so that a delay is a time-out."""

    def client(self: Connection, service: str) -> Any:
        return self.limited_client(service, connect_seconds=5, read_seconds=1, attempts=3, connections=10)

    storage_options = Connection.storage_options
    monkeypatch.setattr(Connection, "client", client)
    monkeypatch.setattr(Connection, "storage_options", lambda self: {**storage_options(self), "timeout": "1s"})


@contextlib.contextmanager
def failing(aws: Connection, share: float, seed: int) -> Iterator[tuple[FaultyProxy, Connection]]:
    """Yield a connection whose requests meet a fault, each with this probability, all kinds equally often."""
    # A rule sees what those before it let pass.
    shares = [share / len(FAULTS) / (1 - share * number / len(FAULTS)) for number in range(len(FAULTS))]
    rules = [
        Rule(".", fault, seconds=1.3, share=part, dice=dice(10 * seed + number))
        for number, (fault, part) in enumerate(zip(FAULTS, shares, strict=True))
    ]
    with faulty_proxy(urlsplit(aws.endpoint_url or "").port or 0, *rules) as (proxy, url):
        yield proxy, Connection(url, region=aws.region)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_an_export_to_a_failing_store_is_there_whole_or_not_at_all(
    source: Source,
    aws: Connection,
    lake_bucket: str,
    capsys: pytest.CaptureFixture[str],
    share: float,
) -> None:
    real = Lake.at(f"s3://{lake_bucket}/gold", aws)
    options = ("--partition-by", "part", "--property", PROPERTIES[0])
    command = ("export", "fact", "--source", source.url, *options)
    version, was, codes = -1, None, Counter[int]()
    faults = requests = 0
    # Hardly any gets through the second, and each of them takes long to say so.
    rounds = FAULT_ROUNDS if share < 0.5 else FAULT_ROUNDS // 2
    for number in range(rounds):
        source.run(
            f"CREATE OR REPLACE TABLE gold.fact AS SELECT {number}::BIGINT AS id, i % 8 AS part"  # noqa: S608 - a number
            " FROM range(800) r(i)"
        )
        with failing(aws, share, number) as (proxy, connection):
            code, _, err = goldlake(capsys, *command, *place_of(Lake(real.root, connection)))
        faults, requests = faults + sum(rule.seen for rule in proxy.rules), requests + len(proxy.lines)
        codes[code] += 1
        assert code in (0, 1, 2), err
        assert "Traceback" not in err
        assert code == 0 or "\ngoldlake: " in err
        if version < 0 and log_is_empty(real):
            assert code != 0
            continue
        now = opened(real, "fact").version()
        assert now == version + 1 or (now == version and code != 0)
        was = number if now > version else was
        version = now
        assert by_delta_rs(real, "fact", "min(id), max(id), count(*)") == [(was, was, 800)]
    LOG.info(f"faults, share {share}: {faults} in {requests} requests, exit codes {dict(codes)}")
    assert faults > requests * share / 2
    code, _, err = goldlake(capsys, *command, *place_of(real))
    assert code == 0, err
    code, _, err = goldlake(capsys, "vacuum", "fact", "--retention-hours", "0", "--yes", *place_of(real))
    assert code == 0, err
    assert data_files(real, "fact") == referenced(real, "fact")
    assert by_duckdb(real, "fact", "min(id), count(*)") == [(rounds - 1, 800)]


def log_is_empty(lake: Lake) -> bool:
    """Return whether no version of the table is there yet."""
    return not list(lake.list_files("fact", "_delta_log/"))
