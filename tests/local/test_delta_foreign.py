"""Tables in forms that other writers give them: what our readers make of them, and what a commit leaves behind.

The forms are those of the Delta project's own test tables (docs/delta-protocol.md has the result of all of them); the
tables here are made by this package, and their logs then rewritten.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from runtime.aws import Connection
from runtime.delta.commit import Change
from runtime.delta.lake import Lake
from runtime.delta.verify import verify
from runtime.errors import ConfigurationError
from runtime.readiness_delta import read_delta
from runtime.readiness_store import CheckOptions, Content, Store
from tests.local.test_delta_commit import (
    BY_P,
    ID,
    arrow,
    by_delta_rs,
    by_duckdb,
    delta_rs_write,
    field,
    first_row_deleted,
    ids_of,
    lake,
    local,
    log_of,
    opened,
    put,
    stage,
    with_protocol,
    written,
)

__all__ = ["lake", "local"]
Action = dict[str, dict[str, Any]]
DELETED = {"storageType": "i", "sizeInBytes": 34, "cardinality": 1}
# Each is two letters to somebody: a blank to URLs, a percent sign to Hive, a plus to forms, a hash to paths.
ODD_NAME = "a b+=%é#1"


def rewritten(lake: Lake, version: int, change: Callable[[Action], Action], table: str = "t") -> None:
    """Rewrite a commit action by action."""
    name = f"_delta_log/{version:020}.json"
    actions = [change(json.loads(line)) for line in (lake.read(table, name) or b"").splitlines()]
    lake.put(table, name, "".join(json.dumps(action) + "\n" for action in actions).encode())


def of_adds(**values: Any) -> Callable[[Action], Action]:
    """Return a change that sets these fields of all add actions."""
    return lambda action: {"add": {**action["add"], **values}} if "add" in action else action


def active_paths(lake: Lake, versions: int, table: str = "t") -> set[str]:
    """Return the files that the commits leave, their paths compared as texts: the strictest of readers."""
    active: set[str] = set()
    for version in range(versions):
        actions = log_of(lake, table, version)
        active -= {action["path"] for action in actions.get("remove", [])}
        active |= {action["path"] for action in actions.get("add", [])}
    return active


# --- readers ---


def test_verify_counts_what_deletion_vectors_leave(local: Lake) -> None:
    features = ["deletionVectors"]
    versions = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}
    with_protocol(local, versions, {})
    put(local, "t", [2, 3])
    rewritten(local, 1, of_adds(deletionVector={**DELETED, "pathOrInlineDv": first_row_deleted()}))
    assert by_delta_rs(local, "t") == by_duckdb(local, "t") == [(3,)]
    report = verify(local, "t", expected_rows=1)
    assert (report.problems, report.rows, report.log_rows) == ((), 1, 1)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_verify_reads_a_shallow_clone_and_says_how_many_files_are_elsewhere(local: Lake, scheme: str) -> None:
    put(local, "origin of t", [1, 2])
    put(local, "t", [1, 2])
    (added,) = log_of(local, "origin of t", 0)["add"]
    origin = f"{scheme}{quote(local.location('origin of t'))}/{added['path']}"
    rewritten(local, 0, of_adds(path=origin, size=added["size"]))
    report = verify(local, "t", expected_rows=2)
    assert (report.problems, report.rows, report.files, report.elsewhere) == ((), 2, 1, 1)
    put(local, "t", [3], "append")
    report = verify(local, "t", expected_rows=3)
    assert (report.problems, report.files, report.elsewhere) == ((), 2, 1)
    (Path(local.location("origin of t")) / added["path"]).unlink()
    assert not verify(local, "t").ok


def test_verify_tells_of_a_damaged_page_behind_a_good_footer(local: Lake) -> None:
    put(local, "t", list(range(1000)))
    (action,) = log_of(local, "t", 0)["add"]
    path = Path(local.location("t")) / action["path"]
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 64 + content[68:])
    (problem,) = verify(local, "t").problems
    assert problem.startswith("read ")


def ready(aws: Connection, lake: Lake, table: str, **options: Any) -> Content:
    """Return what the readiness check makes of a table in S3."""
    with ThreadPoolExecutor(2) as readers:
        store = Store(aws, CheckOptions(**options), aws.client("s3"), None, readers)
        return read_delta(store, lake.bucket, f"{lake.prefix}/{table}/")


@pytest.mark.parametrize("count", [False, True])
def test_files_without_statistics_are_counted_whatever_letters_their_names_have(
    aws: Connection, lake_bucket: str, count: bool
) -> None:
    lake = Lake.at(f"s3://{lake_bucket}/deep/gold", aws)
    file = stage(lake, "t", [1, 2, 3], f"p={ODD_NAME}", {"p": ODD_NAME})
    written(lake, "t", Change("overwrite", BY_P, [file], "e", ("p",)))
    rewritten(lake, 0, of_adds(stats=None))
    assert by_delta_rs(lake, "t", "id, p") == by_duckdb(lake, "t", "id, p") == [(id, ODD_NAME) for id in (1, 2, 3)]
    found = ready(aws, lake, "t", count=count)
    assert (found.rows, found.files, found.exact) == (3, 1, True)
    assert verify(lake, "t", expected_rows=3).ok


# --- a commit behind a foreign log ---


@pytest.mark.parametrize("last_checkpoint", ["kept", "gone", "damaged"])
def test_a_table_that_only_its_checkpoint_knows_takes_an_append_and_an_overwrite(
    local: Lake, last_checkpoint: str
) -> None:
    values = ["x/y", "a b", "50%", None]
    delta_rs_write(local, "t", arrow(range(len(values)), p=values), partition_by=["p"])
    put_partitioned(local, [7], "append")
    opened(local, "t").create_checkpoint()
    log = Path(local.location("t")) / "_delta_log"
    for commit in log.glob("*.json"):
        commit.unlink()
    if last_checkpoint == "gone":
        (log / "_last_checkpoint").unlink()
    if last_checkpoint == "damaged":
        (log / "_last_checkpoint").write_text('{"version":')
    assert put_partitioned(local, [8], "append").files == len(values) + 2
    assert ids_of(local) == [0, 1, 2, 3, 7, 8]
    done = put_partitioned(local, [9], "overwrite")
    assert (done.version, done.removed_files, done.rows) == (3, len(values) + 2, 1)
    assert ids_of(local) == [9]
    assert by_delta_rs(local, "t", version=1) == [(0,), (1,), (2,), (3,), (7,)]


def put_partitioned(lake: Lake, ids: list[int], mode: Any) -> Any:
    file = stage(lake, "t", ids, "p=new", {"p": "new"})
    return written(lake, "t", Change(mode, BY_P, [file], f"e{ids}", ("p",)))


def test_checkpoints_that_commits_write_keep_what_other_writers_said(local: Lake) -> None:
    put(local, "t", [1], properties={"delta.checkpointInterval": "2"})
    notes = [
        {"txn": {"appId": "stream", "version": 7, "lastUpdated": 32503680000000}},
        {"domainMetadata": {"domain": "other.engine", "configuration": "{}", "removed": False}},
    ]
    features = {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["appendOnly", "domainMetadata"]}
    rewritten(local, 0, lambda action: {"protocol": features} if "protocol" in action else action)
    with (Path(local.location("t")) / "_delta_log" / f"{0:020}.json").open("a") as log:
        log.write("".join(json.dumps(note) + "\n" for note in notes))
    put(local, "t", [2], "append")
    put(local, "t", [3], "append")
    assert (Path(local.location("t")) / "_delta_log" / f"{2:020}.checkpoint.parquet").exists()
    for version in range(3):
        (Path(local.location("t")) / "_delta_log" / f"{version:020}.json").unlink()
    table = opened(local, "t")
    assert table.transaction_version("stream") == 7
    assert set(table.protocol().writer_features or ()) == {"appendOnly", "domainMetadata"}
    assert table.metadata().configuration == {"delta.checkpointInterval": "2"}
    assert ids_of(local) == [1, 2, 3]


PARTITIONS: list[tuple[str, Any, str]] = [
    ("date", date(2021, 9, 8), "2021-09-08"),
    ("timestamp", datetime(2021, 9, 8, 11, 11, 11, tzinfo=UTC), "2021-09-08 11:11:11"),
    ("timestamp", datetime(2021, 9, 8, 11, 11, 11, 123000, tzinfo=UTC), "2021-09-08T11:11:11.123000Z"),
    ("decimal(10,3)", Decimal("1.500"), "1.500"),
    ("boolean", True, "true"),
    ("double", 1.5, "1.5"),
    ("float", 0.0, "0.0"),
    ("byte", -1, "-1"),
    ("string", ODD_NAME, ODD_NAME),
]


@pytest.mark.parametrize(("kind", "value", "text"), PARTITIONS, ids=[text for _, _, text in PARTITIONS])
def test_a_partition_of_another_writers_text_form_is_read_and_replaced(
    local: Lake, kind: str, value: Any, text: str
) -> None:
    fields = [field("id"), field("p", kind)]
    file, none = stage(local, "t", [1], "q", {"p": text}), stage(local, "t", [2], "q", {"p": None})
    written(local, "t", Change("overwrite", fields, [file, none], "e", ("p",)))
    # As Spark does: its own text, however a commit of ours would write it.
    rewritten(
        local, 0, lambda action: of_adds(partitionValues={"p": text})(action) if file.name in str(action) else action
    )
    assert by_duckdb(local, "t", "id, p") == [(1, value), (2, None)]
    new = stage(local, "t", [3], "q", {"p": text})
    done = written(local, "t", Change("replace-where", fields, [new], "f", ("p",), replace_where={"p": [text]}))
    assert (done.removed_files, done.files, done.rows) == (1, 2, 2)
    assert by_duckdb(local, "t", "id, p") == [(2, None), (3, value)]
    assert active_paths(local, 2) == {none.name, new.name}


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_a_commit_beside_absolute_paths_keeps_them_or_is_refused_whole(local: Lake, mode: Any) -> None:
    put(local, "t", [1])
    rewritten(local, 0, of_adds(path="file:///some/where/p%23h"))
    if mode == "append":
        put(local, "t", [2], mode)
        assert "file:///some/where/p%23h" in active_paths(local, 2)
        return
    with pytest.raises(ConfigurationError, match="shallow clone"):
        put(local, "t", [2], mode)
    assert not log_of(local, "t", 1)


# --- features ---


def test_a_feature_that_is_unknown_and_in_use_is_named_once(local: Lake) -> None:
    versions = {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["rowTracking"]}
    with_protocol(local, versions, {"delta.enableRowTracking": "true"})
    with pytest.raises(ConfigurationError, match="has rowTracking, which an export"):
        put(local, "t", [2])


def test_a_table_that_delta_rs_opens_and_does_not_scan_is_written_and_read_by_others(local: Lake) -> None:
    features = ["vacuumProtocolCheck"]
    versions = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}
    with_protocol(local, versions, {})
    put(local, "t", [2], "append")
    assert by_duckdb(local, "t") == [(1,), (2,)]
    (problem,) = verify(local, "t").problems
    assert "VacuumProtocolCheck" in problem


def test_columns_mapped_by_another_writer_keep_their_physical_names(local: Lake) -> None:
    mapped = {"delta.columnMapping.id": 4, "delta.columnMapping.physicalName": "col-a"}
    fields = [{**ID[0], "metadata": mapped}]
    versions = {"minReaderVersion": 2, "minWriterVersion": 5}
    written(local, "t", Change("overwrite", fields, [stage(local, "t", [1], column="col-a")], "e"))
    rewritten(local, 0, lambda action: {"protocol": versions} if "protocol" in action else action)
    written(local, "t", Change("append", fields, [stage(local, "t", [2], column="col-a")], "f"))
    assert "protocol" not in log_of(local, "t", 1)
    assert "metaData" not in log_of(local, "t", 1)
    assert ids_of(local) == [1, 2]
    with pytest.raises(ConfigurationError, match="no physical name"):
        written(local, "t", Change("overwrite", ID, [stage(local, "t", [3])], "g", schema_mode="overwrite"))
    assert ids_of(local) == [1, 2]
