"""Vacuum, verify and the symlink manifest on tables in a folder and on an S3 emulator."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from runtime.delta.commit import Change
from runtime.delta.lake import Lake
from runtime.delta.manifest import write_symlink_manifest
from runtime.delta.vacuum import vacuum
from runtime.delta.verify import verify
from runtime.errors import ConfigurationError, FailedError
from tests.local.test_delta_commit import BY_P, by_delta_rs, ids_of, lake, local, put, stage, written

__all__ = ["lake", "local"]
NOW = {"delta.deletedFileRetentionDuration": "interval 0 hours"}


def data_files(lake: Lake, table: str = "t") -> set[str]:
    return {file.name for file in lake.list_files(table) if file.name.endswith(".parquet")}


def test_vacuum_shows_leftovers_first_and_then_deletes_them_only(lake: Lake) -> None:
    put(lake, "t", [1])
    put(lake, "t", [2], "append")
    referenced = data_files(lake)
    leftover = stage(lake, "t", [9], "p=a b")
    lake.put("t", "_change_data/x.parquet", b"x")
    lake.put("t", "notes.txt", b"x")
    shown = vacuum(lake, "t", retention_hours=0)
    assert (shown.files, shown.bytes, shown.dry_run) == ((leftover.name,), leftover.size, True)
    assert leftover.name in data_files(lake)
    assert vacuum(lake, "t", retention_hours=0, dry_run=False).files == (leftover.name,)
    assert data_files(lake) == {*referenced, "_change_data/x.parquet"}
    assert lake.read("t", "notes.txt") == b"x"
    assert ids_of(lake) == [1, 2]


def test_what_redshift_and_trino_left_in_an_exports_own_folder_goes_whatever_its_name(lake: Lake) -> None:
    put(lake, "t", [1])
    folder = "0123456789abcdef" * 2
    left = tuple(
        f"{folder}/{name}" for name in ("20261121_query_x", "_delta_log/00000000000000000000.json", "manifest")
    )
    for name in left:
        lake.put("t", name, b"x")
    lake.put("t", "somebody/manifest", b"x")
    assert vacuum(lake, "t", retention_hours=0, dry_run=False).files == left
    assert lake.read("t", "somebody/manifest") == b"x"
    assert ids_of(lake) == [1]


def test_half_written_files_of_a_killed_writer_go_in_the_log_too(local: Lake) -> None:
    put(local, "t", [1])
    beside = tuple(f"{folder}.{name}.{'0' * 32}.tmp" for folder, name in (("", "a.parquet"), ("_delta_log/", "1.json")))
    for name in (*beside, ".other.tmp", "_delta_log/.other.tmp"):
        (Path(local.location("t")) / name).write_bytes(b"x")
    assert set(vacuum(local, "t", retention_hours=0, dry_run=False).files) == set(beside)
    assert ids_of(local) == [1]


def test_young_leftovers_stay_since_an_export_may_be_about_to_commit_them(lake: Lake) -> None:
    put(lake, "t", [1])
    leftover = stage(lake, "t", [9])
    report = vacuum(lake, "t", retention_hours=1, dry_run=False)
    assert (report.files, report.kept) == ((), 1)
    assert leftover.name in data_files(lake)


def test_an_old_leftover_is_deleted_and_a_young_one_is_not(local: Lake) -> None:
    put(local, "t", [1])
    old, young = stage(local, "t", [8]), stage(local, "t", [9])
    hours_ago = time.time() - 30 * 3600
    os.utime(Path(local.location("t")) / old.name, (hours_ago, hours_ago))
    assert vacuum(local, "t", retention_hours=24, dry_run=False).files == (old.name,)
    assert young.name in data_files(local)


def test_files_of_an_overwritten_version_stay_for_the_tables_own_retention(lake: Lake) -> None:
    put(lake, "t", [1])
    put(lake, "t", [2])
    assert vacuum(lake, "t", retention_hours=0, dry_run=False).kept == 1
    assert by_delta_rs(lake, "t", version=0) == [(1,)]
    put(lake, "t", [3], properties=NOW)
    assert len(vacuum(lake, "t", retention_hours=0, dry_run=False).files) == 2
    assert ids_of(lake) == [3]
    assert len(data_files(lake)) == 1


def test_partitions_with_odd_names_are_known_to_be_referenced(lake: Lake) -> None:
    values = ["a b", "é%2F", "x=y"]
    files = [stage(lake, "t", [number], f"p={value}", {"p": value}) for number, value in enumerate(values)]
    written(lake, "t", Change("overwrite", BY_P, files, "e", ("p",)))
    assert vacuum(lake, "t", retention_hours=0, dry_run=False).files == ()
    assert ids_of(lake) == [0, 1, 2]


def test_vacuum_of_no_table_and_of_a_negative_retention_is_refused(local: Lake) -> None:
    stage(local, "t", [1])
    with pytest.raises(FailedError, match="no Delta table"):
        vacuum(local, "t", retention_hours=0, dry_run=False)
    with pytest.raises(ConfigurationError, match="-1"):
        vacuum(local, "t", retention_hours=-1)
    assert len(data_files(local)) == 1


def test_verify_finds_nothing_wrong_with_a_whole_table(lake: Lake) -> None:
    put(lake, "t", range(1000))
    put(lake, "t", range(10), "append")
    report = verify(lake, "t", expected_rows=1010)
    assert report.ok
    assert (report.version, report.files, report.rows, report.log_rows) == (1, 2, 1010, 1010)
    assert report.to_dict()["schema"] == "goldlake.verify/1"
    assert verify(lake, "t", version=0).rows == 1000


def test_verify_names_a_file_that_is_missing_and_one_that_was_cut(lake: Lake) -> None:
    put(lake, "t", [1])
    put(lake, "t", [2], "append")
    gone, cut = sorted(data_files(lake))
    lake.delete("t", [gone])
    lake.put("t", cut, (lake.read("t", cut) or b"")[:-1])
    report = verify(lake, "t")
    assert any(gone in problem and "not in the store" in problem for problem in report.problems)
    assert any(cut in problem and "bytes" in problem for problem in report.problems)
    assert not report.ok


def test_verify_names_rows_that_differ(lake: Lake) -> None:
    file = stage(lake, "t", [1, 2, 3])
    wrong = type(file)(file.name, file.size, 4, '{"numRecords":4}')
    written(lake, "t", Change("overwrite", [BY_P[0]], [wrong], "e"))
    report = verify(lake, "t", expected_rows=5)
    assert any("has 3 rows, and 4 in the log" in problem for problem in report.problems)
    assert "3 rows were read, and the log has 4" in report.problems
    assert "3 rows were read, and 5 were expected" in report.problems


def test_a_manifest_lists_the_newest_files_and_stale_partitions_go(lake: Lake) -> None:
    first = [stage(lake, "t", [1], "p=a", {"p": "a"}), stage(lake, "t", [2], "p=b%2Fc", {"p": "b/c"})]
    written(lake, "t", Change("overwrite", BY_P, first, "e1", ("p",)))
    found = write_symlink_manifest(lake, "t")
    names = ("_symlink_format_manifest/p=a/manifest", "_symlink_format_manifest/p=b%2Fc/manifest")
    assert (found.version, found.names, found.removed) == (0, names, ())
    url = f"{lake.location('t')}/{first[1].name}\n"
    assert lake.read("t", names[1]) == url.encode()
    second = [stage(lake, "t", [3], "p=a", {"p": "a"})]
    written(lake, "t", Change("overwrite", BY_P, second, "e2", ("p",)))
    found = write_symlink_manifest(lake, "t")
    assert (found.names, found.removed) == (names[:1], names[1:])
    assert lake.read("t", names[0]) == f"{lake.location('t')}/{second[0].name}\n".encode()
    assert lake.read("t", names[1]) is None
