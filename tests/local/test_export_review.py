"""What a first user of `goldlake export` tries: odd values, wrong places, Ctrl-C. No stack, no emulator."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

from runtime import register as registration
from runtime import sql
from runtime.aws import Connection
from runtime.cli import app
from runtime.errors import ConfigurationError
from tests.local.support import REPOSITORY, wait_for

Goldlake = Callable[..., tuple[int, str, str]]


@pytest.fixture
def goldlake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Goldlake:
    """Return a function that runs `goldlake` in an empty folder without a stack."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOLDLAKE_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            app(list(arguments), prog_name="goldlake")
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return run


@pytest.fixture
def export(goldlake: Goldlake, tmp_path: Path) -> Goldlake:
    """Return a function that makes gold.t of a SELECT and exports it to ./lake."""

    def run(select: str, *arguments: str, table: str = "t") -> tuple[int, str, str]:
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH {sql.literal(str(tmp_path / 'gold.duckdb'))} AS file")
            connection.execute("CREATE SCHEMA IF NOT EXISTS file.gold")
            connection.execute(f"CREATE OR REPLACE TABLE file.gold.{sql.identifier(table)} AS {select}")
        return goldlake("export", table, "--source", "duckdb:///gold.duckdb", "--target", "lake", *arguments)

    return run


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def test_the_files_of_sorted_rows_have_ranges_that_do_not_overlap(export: Goldlake) -> None:
    rows = "SELECT (i * 7919) % 1500000 AS k, random() AS r FROM range(1500000) t(i)"
    assert export(rows, "--order-by", "k", "--file-size", "1MB")[0] == 0
    added = DeltaTable("lake/t").get_add_actions(flatten=True)
    ranges = sorted(zip(added.column("min.k").to_pylist(), added.column("max.k").to_pylist(), strict=True))
    assert len(ranges) > 3
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ranges))


def test_hives_name_for_null_as_a_partitions_text_is_refused_beside_nulls(export: Goldlake, tmp_path: Path) -> None:
    rows = "SELECT i AS id, CASE WHEN i % 2 = 0 THEN '__HIVE_DEFAULT_PARTITION__' END AS s FROM range(10) t(i)"
    code, _, said = export(rows, "--partition-by", "s")
    assert code == 64
    assert "is NULL to some readers" in said
    assert not files(tmp_path / "lake")
    assert not (tmp_path / "lake/t/_delta_log").exists()


@pytest.mark.parametrize(("kind", "text"), [("DECIMAL(5,2)", "0.001"), ("SMALLINT", "1.4"), ("BIGINT", "nan")])
def test_replace_where_names_no_other_partition_than_the_texts(export: Goldlake, kind: str, text: str) -> None:
    rows = f"SELECT 1 AS id, CAST(0 AS {kind}) AS p"
    assert export(rows, "--partition-by", "p")[0] == 0
    code, _, said = export(rows, "--replace-where", f"p={text}")
    assert code == 64
    assert f"{text!r} is no value of column 'p'" in said


def test_replace_where_keeps_the_spaces_of_a_text(export: Goldlake) -> None:
    assert export("SELECT 1 AS id, ' x' AS p", "--partition-by", "p")[0] == 0
    assert export("SELECT 2 AS id, ' x' AS p", "--replace-where", "p= x")[0] == 0
    assert DeltaTable("lake/t").get_add_actions(flatten=True).column("min.id").to_pylist() == [2]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("delta.foo=1", "cannot be set"),
        ("delta.logRetentionDuration=abc", "interval 30 days"),
        ("delta.checkpointInterval=0", "at least 1"),
        ("delta.enableExpiredLogCleanup=yes", "true or false"),
    ],
)
def test_a_property_that_others_would_fail_on_is_refused_before_a_row_is_written(
    export: Goldlake, tmp_path: Path, given: str, reason: str
) -> None:
    code, _, said = export("SELECT 1 AS id", "--property", given, "--dry-run")
    assert code == 64
    assert reason in said
    assert not (tmp_path / "lake").exists()


def test_a_name_that_sql_cannot_have_is_refused_before_a_row_is_written(export: Goldlake, tmp_path: Path) -> None:
    code, _, said = export(f"SELECT 1 AS {'x' * 200}")
    assert code == 64
    assert "1 to 127 bytes" in said
    assert not (tmp_path / "lake").exists()


def test_a_target_that_is_a_file_is_named(export: Goldlake, tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("")
    code, _, said = export("SELECT 1 AS id")
    assert (code, said.splitlines()[-1]) == (1, f"goldlake: write to {tmp_path}/lake/t: Not a directory")


def test_without_a_target_the_hint_says_that_no_stack_is_needed(goldlake: Goldlake, tmp_path: Path) -> None:
    (tmp_path / "gold.duckdb").touch()
    code, _, said = goldlake("export", "--source", "duckdb:///gold.duckdb")
    assert code == 64
    assert "with both --source and --target no stack is needed" in said


def test_a_dry_run_says_that_ignore_leaves_a_table(export: Goldlake) -> None:
    assert export("SELECT 1 AS id")[0] == 0
    code, out, _ = export("SELECT 1 AS id", "--mode", "ignore", "--dry-run", "--output", "json")
    assert (code, json.loads(out)["tables"][0]["outcome"]) == (0, "exists")


def test_the_report_has_the_sums_of_all_tables(export: Goldlake) -> None:
    _, out, _ = export("SELECT i FROM range(7) t(i)", "--output", "json")
    report = json.loads(out)
    assert (report["rows"], report["files"]) == (7, 1)
    assert report["bytes"] == report["tables"][0]["bytes"] > 0


def test_verify_goes_on_behind_a_log_that_cannot_be_read(export: Goldlake, goldlake: Goldlake, tmp_path: Path) -> None:
    export("SELECT 1 AS id", table="a")
    export("SELECT 1 AS id", table="b")
    (tmp_path / "lake/a/_delta_log/00000000000000000000.json").write_text('{"commitInfo":{}')
    code, out, _ = goldlake("export", "--verify", "--target", "lake", "--output", "json")
    assert code == 1
    assert [(item["table"], item["ok"]) for item in json.loads(out)["tables"]] == [("a", False), ("b", True)]


@pytest.mark.parametrize(
    ("number", "code", "last"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_ctrl_c_and_sigterm_end_an_export_at_once_and_leave_no_file(
    export: Goldlake, tmp_path: Path, number: signal.Signals, code: int, last: str
) -> None:
    export("SELECT 1 AS i", "--dry-run")
    with duckdb.connect(str(tmp_path / "gold.duckdb")) as connection:
        # So long that it is not done when the first file is there.
        endless = "SELECT i, random() AS a, md5(i::VARCHAR) AS b FROM range(1000000000) r(i)"
        connection.execute("DROP TABLE gold.gold.t")
        connection.execute(f"CREATE VIEW gold.gold.t AS {endless}")
    command = [
        str(Path(sys.executable).with_name("goldlake")),
        "export",
        "t",
        "--source",
        f"duckdb:///{tmp_path}/gold.duckdb",
    ]
    with subprocess.Popen(
        [*command, "--target", str(tmp_path / "lake"), "--file-size", "1MB"],
        cwd=REPOSITORY,
        env={**os.environ, "GOLDLAKE_HOME": str(tmp_path / "home")},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_for(lambda: files(tmp_path / "lake"), "file of the export")
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code
    assert said.splitlines()[-1] == f"goldlake: {last}"
    assert "Traceback" not in said
    assert not files(tmp_path / "lake")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("DATE 'infinity'", "infinity"),
        ("TIMESTAMPTZ '12000-01-01 00:00:00+00'", "12000-01-01 00:00:00+00"),
        ("DATE '0044-03-15 (BC)'", "0044-03-15 (BC)"),
        ("{'a': TIMESTAMP '-infinity'}", "-infinity"),
    ],
)
def test_a_day_that_readers_of_delta_fail_on_is_refused_and_nothing_left(
    export: Goldlake, tmp_path: Path, value: str, shown: str
) -> None:
    code, _, said = export(f"SELECT DATE '2024-01-01' AS day, {value} AS v")
    assert code == 1
    assert "column 'v" in said
    assert f"has {shown}, which is outside the years 1 to 9999" in said
    assert not files(tmp_path / "lake")


@pytest.mark.parametrize("url", ["foo", "127.0.0.1:4566", "http://", "ftp://host", "http://user:pass@host"])
def test_an_endpoint_that_is_no_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="AWS endpoint is no URL") as caught:
        Connection(url)
    assert url not in str(caught.value)


def test_register_says_that_there_is_nothing_to_prune(goldlake: Goldlake, monkeypatch: pytest.MonkeyPatch) -> None:
    def audit(*_: Any, **__: Any) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        return (), ()

    monkeypatch.setattr(registration, "audit", audit)
    code, _, said = goldlake("register", "--prune", "--target", "s3://lake/gold", "--database", "gold")
    assert code == 0
    assert "no data without an entry, no entry without data" in said
