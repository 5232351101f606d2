"""Goldlake's own Delta commits in a folder and on an S3 emulator, read by readers that did not write them.

KILL_ROUNDS=50 makes the killed writer die so often, WRITER_APPENDS=200 the writers append so often.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from runtime import duck, sql
from runtime.aws import Connection
from runtime.delta import commit as delta_commit
from runtime.delta.actions import DataFile
from runtime.delta.commit import NOT_COMMITTED, Change, Committed, check_writable, commit
from runtime.delta.lake import Lake
from runtime.delta.log import open_table
from runtime.delta.protocol import COLUMN_ID, PHYSICAL_NAME
from runtime.delta.vacuum import vacuum
from runtime.delta.verify import verify
from runtime.errors import ConfigurationError, FailedError, GoldlakeError, UnreachableError
from runtime.query import query
from tests.local.faulty_proxy import Fault, Rule, faulty_proxy
from tests.local.support import REPOSITORY

KILL_ROUNDS = int(os.environ.get("KILL_ROUNDS", "6"))
APPENDS = int(os.environ.get("WRITER_APPENDS", "20"))


def field(name: str, kind: Any = "long", **metadata: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "nullable": True, "metadata": metadata}


ID = [field("id")]
BY_P = [field("id"), field("p", "string")]


@pytest.fixture(params=["folder", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """A lake in a folder, and one on the emulator."""
    if request.param == "folder":
        return Lake.at(str(tmp_path / "lake"), None)
    bucket = request.getfixturevalue("lake_bucket")
    return Lake.at(f"s3://{bucket}/deep/gold", request.getfixturevalue("aws"))


@pytest.fixture
def local(tmp_path: Path) -> Lake:
    return Lake.at(str(tmp_path / "lake"), None)


@functools.cache
def engine() -> Any:
    """Return one engine for all files of this process: opening one for each is what would take the time."""
    return duck.connect()


def stage(
    lake: Lake,
    table: str,
    ids: Sequence[int],
    folder: str = "",
    values: dict[str, str | None] | None = None,
    column: str = "id",
) -> DataFile:
    """Write a Parquet file with one bigint column below the table's location, as an engine does."""
    name = f"{folder}/{uuid.uuid4().hex}.parquet" if folder else f"{uuid.uuid4().hex}.parquet"
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "file.parquet"
        # Writers in threads have a cursor each.
        with contextlib.closing(engine().cursor()) as connection:
            numbers = f"SELECT unnest({list(ids)}::BIGINT[]) AS {sql.identifier(column)}"
            connection.execute(f"COPY ({numbers}) TO {sql.literal(str(path))} (FORMAT parquet)")
        content = path.read_bytes()
    lake.put(table, name, content)
    return DataFile(name, len(content), len(ids), json.dumps({"numRecords": len(ids)}), values or {})


def written(lake: Lake, table: str, change: Change, **options: Any) -> Committed:
    return commit(lake, table, change, written_at_ms=time.time_ns() // 1_000_000, **options)


def put(lake: Lake, table: str, ids: Sequence[int], mode: Any = "overwrite", **options: Any) -> Committed:
    """Commit one file with these ids."""
    change = Change(mode, ID, [stage(lake, table, ids)], uuid.uuid4().hex, schema_mode="strict", **options)
    return written(lake, table, change)


def opened(lake: Lake, table: str, version: int | None = None) -> DeltaTable:
    found = open_table(lake.location(table), lake.storage_options(), version)
    assert found is not None
    return found


def by_delta_rs(lake: Lake, table: str, columns: str = "id", version: int | None = None) -> list[tuple[Any, ...]]:
    """Return a version's rows, sorted, as delta-rs' engine reads them."""
    rows: list[tuple[Any, ...]] = []
    reader = QueryBuilder().register("t", opened(lake, table, version)).execute(f"SELECT {columns} FROM t")  # noqa: S608 - of tests
    for batch in reader:
        rows += zip(*(batch.column(index).to_pylist() for index in range(batch.num_columns)), strict=True)
    return sorted(rows, key=str)


def by_duckdb(lake: Lake, table: str, columns: str = "id") -> list[tuple[Any, ...]]:
    """Return the newest version's rows, sorted, as DuckDB's delta extension reads them."""
    found = query(lake.aws, lake.root, f"SELECT {columns} FROM gold.{sql.identifier(table)}", limit=None)  # noqa: S608 - of tests
    return sorted(found.rows, key=str)


def ids_of(lake: Lake, table: str = "t") -> list[int]:
    """Return the ids in the table, on which two readers agree."""
    first, second = by_delta_rs(lake, table), by_duckdb(lake, table)
    assert first == second
    return sorted(row[0] for row in first)


def log_of(lake: Lake, table: str, version: int) -> dict[str, list[dict[str, Any]]]:
    """Return a commit's actions by their names."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in (lake.read(table, f"_delta_log/{version:020}.json") or b"").splitlines():
        ((name, content),) = json.loads(line).items()
        found.setdefault(name, []).append(content)
    return found


def arrow(ids: Sequence[int], **texts: Sequence[str | None]) -> Any:
    from arro3.core import Array, DataType, Table

    columns: dict[str, Any] = {"id": Array(list(ids), DataType.int64())}
    return Table.from_pydict({**columns, **{name: Array(list(v), DataType.utf8()) for name, v in texts.items()}})


def delta_rs_write(lake: Lake, table: str, data: Any, **options: Any) -> None:
    write_deltalake(lake.location(table), data, storage_options=lake.storage_options(), **options)


# --- one writer ---


def test_a_new_table_is_created_by_its_first_commit_and_read_by_others(lake: Lake) -> None:
    done = put(lake, "t", [1, 2], description="the company's facts", properties={"owner": "gold"})
    assert done == Committed(0, 2, 1, added_rows=2, created=True)
    assert ids_of(lake) == [1, 2]
    table = opened(lake, "t")
    assert (table.protocol().min_reader_version, table.protocol().min_writer_version) == (1, 2)
    assert (table.metadata().description, table.metadata().configuration) == ("the company's facts", {"owner": "gold"})
    assert verify(lake, "t", expected_rows=2).ok


def test_a_table_of_no_files_has_its_schema(lake: Lake) -> None:
    done = written(lake, "t", Change("overwrite", BY_P, [], "e", ("p",)))
    assert (done.version, done.rows, done.files, done.created) == (0, 0, 0, True)
    assert ids_of(lake) == []
    assert query(lake.aws, lake.root, "FROM gold.t").columns == ("id", "p")
    assert verify(lake, "t", expected_rows=0).ok


def test_an_overwrite_replaces_and_an_append_adds(lake: Lake) -> None:
    put(lake, "t", [1, 2])
    assert put(lake, "t", [3, 4, 5]) == Committed(1, 3, 1, added_rows=3, removed_files=1)
    assert put(lake, "t", [6], "append") == Committed(2, 4, 2, added_rows=1)
    assert ids_of(lake) == [3, 4, 5, 6]
    assert by_delta_rs(lake, "t", version=0) == [(1,), (2,)]


def test_the_log_says_who_wrote_what(local: Lake) -> None:
    change = Change("append", ID, [stage(local, "t", [1])], "the-export", info={"goldlake.runId": "run-7"})
    written(local, "t", change)
    written(local, "t", Change("append", ID, [stage(local, "t", [2])], "another"))
    newest, first = opened(local, "t").history()
    assert (first["operation"], first["goldlake.runId"]) == ("CREATE TABLE AS SELECT", "run-7")
    assert (newest["operation"], newest["isBlindAppend"]) == ("WRITE", True)
    assert newest["operationParameters"]["mode"] == "Append"
    assert newest["operationMetrics"]["numOutputRows"] == "1"
    assert newest["engineInfo"] == f"goldlake/{delta_commit.goldlake_version()}"


def test_error_and_ignore_are_decided_by_the_log(lake: Lake) -> None:
    assert put(lake, "t", [1], "error").created
    with pytest.raises(FailedError, match="exists already") as raised:
        put(lake, "t", [2], "error")
    assert raised.value.code == NOT_COMMITTED
    ignored = put(lake, "t", [3], "ignore")
    assert (ignored.written, ignored.version, ignored.rows) == (False, 0, 1)
    assert put(lake, "u", [4], "ignore").written
    assert ids_of(lake) == [1]


def test_properties_description_and_comments_change_with_the_data_in_one_commit(local: Lake) -> None:
    put(local, "t", [1], properties={"a": "1", "b": "2"})
    before = opened(local, "t").metadata()
    commented = [field("id", comment="the key")]
    change = Change(
        "overwrite", commented, [stage(local, "t", [2])], "e",
        schema_mode="overwrite", properties={"b": "3"}, description="new",
    )  # fmt: skip
    assert written(local, "t", change).version == 1
    after = opened(local, "t").metadata()
    assert (after.id, after.created_time) == (before.id, before.created_time)
    assert (after.description, after.configuration) == ("new", {"a": "1", "b": "3"})
    assert json.loads(opened(local, "t").schema().to_json())["fields"] == commented
    assert {name: len(found) for name, found in log_of(local, "t", 1).items()} == {
        "commitInfo": 1, "metaData": 1, "remove": 1, "add": 1,
    }  # fmt: skip


def test_what_stays_as_it_is_is_not_written_again(local: Lake) -> None:
    put(local, "t", [1], properties={"a": "1"})
    put(local, "t", [2], properties={"a": "1"})
    assert set(log_of(local, "t", 1)) == {"commitInfo", "remove", "add"}


def test_a_strict_append_of_another_schema_is_refused_and_a_merge_adds_the_column(local: Lake) -> None:
    put(local, "t", [1])
    wider = [*ID, field("more", "string")]
    with pytest.raises(ConfigurationError, match=r"\+ more string") as raised:
        written(local, "t", Change("append", wider, [stage(local, "t", [2])], "e"))
    assert raised.value.code == NOT_COMMITTED
    written(local, "t", Change("append", wider, [stage(local, "t", [2])], "e", schema_mode="merge"))
    assert by_delta_rs(local, "t", "id, more") == by_duckdb(local, "t", "id, more") == [(1, None), (2, None)]


def test_timestamps_without_zone_raise_the_tables_protocol(local: Lake) -> None:
    put(local, "t", [1])
    zoneless = [*ID, field("at", {"type": "array", "elementType": "timestamp_ntz", "containsNull": True})]
    written(local, "t", Change("append", zoneless, [stage(local, "t", [2])], "e", schema_mode="merge"))
    found = opened(local, "t").protocol()
    assert (found.min_reader_version, found.min_writer_version) == (3, 7)
    assert found.reader_features == ["timestampNtz"]
    assert set(found.writer_features or ()) == {"timestampNtz", "appendOnly", "invariants"}
    assert ids_of(local) == [1, 2]


def test_a_mapped_column_is_read_by_its_name(lake: Lake) -> None:
    fields = [
        {**field("the id"), "metadata": {COLUMN_ID: 1, PHYSICAL_NAME: "col-1"}},
        {**field("a day", "string"), "metadata": {COLUMN_ID: 2, PHYSICAL_NAME: "col-2"}},
    ]
    for day in ("monday", None):
        files = [stage(lake, "t", [1, 2], values={"a day": day}, column="col-1")]
        change = Change("overwrite", fields, files, uuid.uuid4().hex, ("a day",), schema_mode="overwrite")
        written(lake, "t", change)
    written(lake, "t", Change("append", fields, files[:0], "e", ("a day",)))
    assert by_delta_rs(lake, "t", '"the id", "a day"') == [(1, None), (2, None)]
    assert by_duckdb(lake, "t", '"the id", "a day"') == [(1, None), (2, None)]
    assert log_of(lake, "t", 0)["add"][0]["partitionValues"] == {"col-2": "monday"}
    assert opened(lake, "t").metadata().configuration["delta.columnMapping.maxColumnId"] == "2"
    assert verify(lake, "t", expected_rows=2).ok


# --- partitions ---

ODD = ["a b", "é/ü", "100%", "x=y:z", "a#?&b+c", "a%20b", "日本", "'q\"", "[x]{y}|^~`<>;,@!$\\", "__HIVE_DEFAULT"]


def test_partition_values_with_any_letters_come_back(lake: Lake) -> None:
    from runtime.delta.actions import partition_folder

    values: list[str | None] = [*ODD, None]
    files = [
        stage(lake, "t", [number], partition_folder(["p"], {"p": value}), {"p": value})
        for number, value in enumerate(values)
    ]
    written(lake, "t", Change("overwrite", BY_P, files, "e", ("p",)))
    expected = sorted(enumerate(values), key=str)
    assert by_delta_rs(lake, "t", "id, p") == expected
    assert by_duckdb(lake, "t", "id, p") == expected
    assert verify(lake, "t", expected_rows=len(values)).ok
    # And they are removed by the paths that the log has.
    with pytest.raises(ConfigurationError, match="is in the Delta table"):
        written(lake, "t", Change("overwrite", BY_P, files[:1], "f", ("p",)))
    file = stage(lake, "t", [99], "p=new", {"p": "new"})
    assert written(lake, "t", Change("overwrite", BY_P, [file], "f", ("p",))).removed_files == len(values)
    assert ids_of(lake) == [99]


def test_a_table_that_delta_rs_partitioned_is_overwritten_whole(lake: Lake) -> None:
    values = [*ODD, None]
    delta_rs_write(lake, "t", arrow(range(len(values)), p=values), partition_by=["p"])
    assert by_delta_rs(lake, "t", "id, p") == sorted(enumerate(values), key=str)
    file = stage(lake, "t", [99], "p=new", {"p": "new"})
    done = written(lake, "t", Change("overwrite", BY_P, [file], "e", ("p",)))
    assert (done.rows, done.files, done.removed_files) == (1, 1, len(values))
    assert ids_of(lake) == [99]


@pytest.mark.parametrize(
    "path",
    ["p=a%20b/x.parquet", "p=a b/x.parquet", "p=%c3%a9/x.parquet", "p=é/x.parquet", "p=a%2525/x.parquet", "p=a+b/x"],
)
def test_a_file_is_removed_by_the_logs_own_path_however_its_writer_encoded_it(local: Lake, path: str) -> None:
    put(local, "t", [1])
    log = Path(local.location("t")) / "_delta_log" / f"{0:020}.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (action,) = (line["add"] for line in lines if "add" in line)
    (Path(local.location("t")) / action["path"]).unlink()
    action["path"] = path
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert put(local, "t", [2]).removed_files == 1
    assert log_of(local, "t", 1)["remove"][0]["path"] == path
    assert ids_of(local) == [2]


@pytest.mark.parametrize("path", ["s3://other/t/x.parquet", "file:///other/x.parquet", "/other/x.parquet"])
def test_a_shallow_clone_is_not_overwritten(local: Lake, path: str) -> None:
    put(local, "t", [1])
    log = Path(local.location("t")) / "_delta_log" / f"{0:020}.json"
    name = opened(local, "t").get_add_actions().column("path").to_pylist()[0]
    log.write_text(log.read_text().replace(name, path))
    with pytest.raises(ConfigurationError, match="shallow clone"):
        put(local, "t", [2])


def test_replace_where_replaces_whole_partitions_and_no_others(lake: Lake) -> None:
    fields = [field("id"), field("n", "decimal(10,2)"), field("p", "string")]

    def of(number: int, n: str | None, p: str | None) -> DataFile:
        return stage(lake, "t", [number], f"n={n}/p={p}", {"n": n, "p": p})

    first = [of(1, "1.50", "a"), of(2, "1.50", "b"), of(3, "2.00", "a"), of(4, None, "a")]
    written(lake, "t", Change("overwrite", fields, first, "e1", ("n", "p")))
    change = Change("replace-where", fields, [of(5, "1.5", "b")], "e2", ("n", "p"), {"n": ["1.5", None]})
    done = written(lake, "t", change)
    assert (done.removed_files, done.files) == (3, 2)
    assert ids_of(lake) == [3, 5]
    assert json.loads(log_of(lake, "t", 1)["commitInfo"][0]["operationParameters"]["predicate"]) == {"n": ["1.5", None]}


def test_other_partition_columns_need_an_overwrite_of_the_schema(local: Lake) -> None:
    put(local, "t", [1])
    file = stage(local, "t", [2], "p=x", {"p": "x"})
    with pytest.raises(ConfigurationError, match="has the partition columns none, and the export p"):
        written(local, "t", Change("append", BY_P, [file], "e", ("p",), schema_mode="merge"))
    written(local, "t", Change("overwrite", BY_P, [file], "e", ("p",), schema_mode="overwrite"))
    assert by_duckdb(local, "t", "id, p") == [(2, "x")]


# --- what is refused ---


def with_protocol(lake: Lake, protocol: dict[str, Any], configuration: dict[str, str]) -> None:
    """Make a table `t` with one row, as if another writer had set these."""
    put(lake, "t", [1])
    log = Path(lake.location("t")) / "_delta_log" / f"{0:020}.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        line.get("protocol", {}).update(protocol)
        line.get("metaData", {}).update({"configuration": configuration} if "metaData" in line else {})
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("features", "configuration", "name"),
    [
        (["rowTracking", "domainMetadata"], {}, "rowTracking"),
        (["clustering", "domainMetadata"], {}, "clustering"),
        (["inCommitTimestamp"], {"delta.enableInCommitTimestamps": "true"}, "inCommitTimestamp"),
        (["checkConstraints"], {"delta.constraints.c": "id > 0"}, "checkConstraints"),
        (["appendOnly"], {"delta.appendOnly": "true"}, "appendOnly"),
        (["fromTheFuture"], {}, "fromTheFuture"),
    ],
)
def test_a_feature_that_an_overwrite_would_break_is_named_before_anything_is_staged(
    local: Lake, features: list[str], configuration: dict[str, str], name: str
) -> None:
    versions = {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": features}
    with_protocol(local, versions, configuration)
    with pytest.raises(ConfigurationError, match=f"has {name}, which an export") as raised:
        check_writable(opened(local, "t"), local.location("t"), "overwrite")
    assert raised.value.hint == "export to another location"
    with pytest.raises(ConfigurationError, match=name) as raised:
        put(local, "t", [2])
    assert raised.value.code == NOT_COMMITTED


def test_an_append_only_table_takes_an_append(local: Lake) -> None:
    with_protocol(local, {}, {"delta.appendOnly": "true"})
    check_writable(opened(local, "t"), local.location("t"), "append")
    put(local, "t", [2], "append")
    assert ids_of(local) == [1, 2]


def first_row_deleted() -> str:
    """Return a deletion vector of row 0 as the protocol has it inside the log (a roaring bitmap in Z85)."""
    bitmap = struct.pack("<IIHHIH", 12346, 1, 0, 0, 16, 0)
    content = struct.pack("<IQI", 1681511377, 1, 0) + bitmap + b"\0\0"
    python = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    return base64.b85encode(content).decode().translate(str.maketrans(python, z85))


def test_a_table_with_deletion_vectors_is_refused_and_one_that_only_may_have_them_is_not(local: Lake) -> None:
    versions = {
        "minReaderVersion": 3, "minWriterVersion": 7,
        "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"],
    }  # fmt: skip
    with_protocol(local, versions, {})
    put(local, "t", [2])
    log = Path(local.location("t")) / "_delta_log" / f"{1:020}.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if "add" in line:
            line["add"]["deletionVector"] = {
                "storageType": "i",
                "sizeInBytes": 34,
                "cardinality": 1,
                "pathOrInlineDv": first_row_deleted(),
            }
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for mode in ("append", "overwrite"):
        with pytest.raises(ConfigurationError, match="deletionVectors"):
            put(local, "t", [3], mode)


def test_unsafe_renames_in_the_environment_are_refused(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
    with pytest.raises(ConfigurationError, match="loses its rows silently"):
        check_writable(None, "anywhere")
    with pytest.raises(ConfigurationError, match="loses its rows silently"):
        put(local, "t", [1])


def test_a_gap_in_the_log_is_an_error_and_nothing_is_written(lake: Lake) -> None:
    for number in range(3):
        put(lake, "t", [number], "append")
    lake.delete("t", [f"_delta_log/{1:020}.json"])
    with pytest.raises(FailedError, match="gap"):
        put(lake, "t", [9], "append")
    assert [file.name[-7:] for file in lake.list_files("t", "_delta_log/")] == ["00.json", "02.json"]


def test_a_log_with_other_files_than_written_is_a_failure(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    put(local, "t", [1])
    content = delta_commit._content

    def with_another(plan: Any, change: Change, at: int) -> bytes:
        extra = stage(local, "t", [7])
        line = json.dumps({"add": {"path": extra.name, "partitionValues": {}, "size": extra.size,
                                   "modificationTime": 1, "dataChange": True}})  # fmt: skip
        return content(plan, change, at) + line.encode() + b"\n"

    monkeypatch.setattr(delta_commit, "_content", with_another)
    with pytest.raises(FailedError, match="should have 1 files") as raised:
        put(local, "t", [2])
    assert raised.value.code is None


# --- checkpoints ---


def test_a_checkpoint_is_written_at_the_interval_and_the_commits_behind_it_fit(lake: Lake) -> None:
    for number in range(8):
        put(lake, "t", [number], "append", properties={"delta.checkpointInterval": "3"})
    names = [file.name for file in lake.list_files("t", "_delta_log/")]
    assert [name for name in names if "checkpoint" in name] == [
        f"_delta_log/{3:020}.checkpoint.parquet",
        f"_delta_log/{6:020}.checkpoint.parquet",
        "_delta_log/_last_checkpoint",
    ]
    # What is before the checkpoint is not needed any more: log cleanup takes it.
    lake.delete("t", [f"_delta_log/{version:020}.json" for version in range(6)])
    assert ids_of(lake) == list(range(8))
    assert put(lake, "t", [99]).removed_files == 8
    assert ids_of(lake) == [99]
    assert opened(lake, "t").metadata().configuration == {"delta.checkpointInterval": "3"}


def test_a_checkpoint_that_fails_is_said_and_the_commit_stands(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    put(local, "t", [1], properties={"delta.checkpointInterval": "1"})

    def fails(_: DeltaTable) -> None:
        raise OSError("no space")

    monkeypatch.setattr(DeltaTable, "create_checkpoint", fails)
    said: list[str] = []
    change = Change("append", ID, [stage(local, "t", [2])], "e")
    assert written(local, "t", change, say=said.append).version == 1
    assert "version 1 is committed, and its checkpoint was not written" in said[0]


# --- several writers ---


def at_once(*writers: Callable[[], Any]) -> list[Any]:
    """Run the writers in threads that begin together; return their results or errors."""
    barrier = threading.Barrier(len(writers), timeout=60)

    def run(writer: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return writer()
        except GoldlakeError as exc:
            return exc

    with ThreadPoolExecutor(len(writers)) as pool:
        return list(pool.map(run, writers))


@pytest.mark.parametrize("existing", [False, True], ids=["new table", "existing table"])
def test_two_overwrites_at_once_are_one_after_the_other_and_the_later_ones_rows_are_there(
    lake: Lake, existing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """delta-rs 1.6.6 keeps the files of both when it repeats a refused transaction: rows doubled."""
    if existing:
        put(lake, "t", [0])
    barrier = threading.Barrier(2, timeout=60)
    put_file, waited = delta_commit._put, threading.local()

    def together(*args: Any) -> bool:
        if not getattr(waited, "done", False):
            waited.done = True
            barrier.wait()
        return put_file(*args)

    monkeypatch.setattr(delta_commit, "_put", together)
    results = at_once(lambda: put(lake, "t", range(100)), lambda: put(lake, "t", range(100)))
    assert sorted(done.version for done in results) == [existing, existing + 1]
    assert sorted(done.retries for done in results) == [0, 1]
    assert ids_of(lake) == list(range(100))
    assert len(opened(lake, "t").file_uris()) == 1


def test_of_two_that_create_with_mode_error_one_is_refused(lake: Lake) -> None:
    results = at_once(lambda: put(lake, "t", [1], "error"), lambda: put(lake, "t", [1], "error"))
    (error,) = (result for result in results if isinstance(result, GoldlakeError))
    assert error.code == NOT_COMMITTED
    assert ids_of(lake) == [1]


def first_write_meets(monkeypatch: pytest.MonkeyPatch, winner: Callable[[], Any]) -> None:
    """Let another writer commit between an export's plan and its first write."""
    put_file = delta_commit._put
    met: list[bool] = []

    def after_the_winner(*args: Any) -> bool:
        if not met:
            met.append(True)
            winner()
        return put_file(*args)

    monkeypatch.setattr(delta_commit, "_put", after_the_winner)


def test_an_append_whose_winner_added_a_column_is_planned_anew(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    put(local, "t", [1])
    wider = [*ID, field("more", "string")]
    first_write_meets(
        monkeypatch,
        lambda: delta_rs_write(local, "t", arrow([2], more=["x"]), mode="append", schema_mode="merge"),
    )
    change = Change("append", wider, [stage(local, "t", [3])], "e", schema_mode="merge")
    done = written(local, "t", change)
    assert (done.version, done.retries, "metaData" in log_of(local, "t", 2)) == (2, 1, False)
    assert by_duckdb(local, "t", "id, more") == [(1, None), (2, "x"), (3, None)]


def test_an_append_that_does_not_fit_the_winners_schema_is_refused_whole(
    local: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(local, "t", [1])
    other = arrow([2], more=["x"])
    first_write_meets(monkeypatch, lambda: delta_rs_write(local, "t", other, mode="overwrite", schema_mode="overwrite"))
    with pytest.raises(FailedError, match=r"another writer changed .*\n  - more string") as raised:
        put(local, "t", [3], "append")
    assert raised.value.code == NOT_COMMITTED
    assert ids_of(local) == [2]


def test_attempts_are_bounded(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    put(local, "t", [1])
    pauses: list[int] = []
    monkeypatch.setattr(delta_commit, "_put", lambda *_: False)
    monkeypatch.setattr(delta_commit, "_pause", pauses.append)
    with pytest.raises(FailedError, match="3 times") as raised:
        written(local, "t", Change("append", ID, [stage(local, "t", [2])], "e"), attempts=3)
    assert (raised.value.code, raised.value.hint) == (NOT_COMMITTED, "run the export again")
    assert pauses == [1, 2]


# What a writer in a process of its own does: it reads its work from standard input, and says when it is ready.
WRITER = """
import json, sys, time
from runtime.aws import Connection
from runtime.delta.lake import Lake
from tests.local import test_delta_commit as tests
given = json.load(sys.stdin)
lake = Lake.at(given["root"], Connection(**given["aws"]) if given["aws"] else None)
getattr(tests, given["work"])(lake, **given["arguments"])
"""


def start(lake: Lake, work: str, **arguments: Any) -> subprocess.Popen[str]:
    """Start a writer process."""
    aws = {"endpoint_url": lake.aws.endpoint_url, "region": lake.aws.region} if lake.aws else None
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER], cwd=REPOSITORY, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin
    process.stdin.write(json.dumps({"root": lake.root, "aws": aws, "work": work, "arguments": arguments}))
    process.stdin.close()
    process.stdin = None
    return process


def append_many(lake: Lake, first: int, count: int) -> None:
    """Append rows one commit each."""
    for number in range(first, first + count):
        written(lake, "t", Change("append", ID, [stage(lake, "t", [number])], uuid.uuid4().hex), attempts=50)


def ended(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


def test_two_processes_that_append_lose_nothing(lake: Lake) -> None:
    writers = [start(lake, "append_many", first=1000 * number, count=APPENDS) for number in (1, 2)]
    for writer in writers:
        ended(writer)
    assert ids_of(lake) == sorted(1000 * number + index for number in (1, 2) for index in range(APPENDS))
    assert opened(lake, "t").version() == 2 * APPENDS - 1
    assert verify(lake, "t", expected_rows=2 * APPENDS).ok


def test_exports_beside_delta_rs_appends_and_merges_lose_and_double_nothing(lake: Lake) -> None:
    put(lake, "t", [0])

    def merging(_: int) -> None:
        with contextlib.suppress(Exception):
            # delta-rs gives up on conflicts that it cannot repeat; what it commits has to be whole.
            opened(lake, "t").merge(
                arrow([0]), "s.id = t.id", source_alias="s", target_alias="t"
            ).when_matched_update_all().when_not_matched_insert_all().execute()

    def appending(number: int) -> bool:
        try:
            delta_rs_write(lake, "t", arrow([2000 + number]), mode="append")
        except Exception:
            return False
        return True

    appended: list[int] = []

    def others() -> None:
        for number in range(6):
            merging(number)
            if appending(number):
                appended.append(2000 + number)

    results = at_once(others, lambda: append_many(lake, 1000, 12))
    assert results == [None, None]
    assert ids_of(lake) == [0, *range(1000, 1012), *appended]
    # An overwrite is the whole content, whatever came before it.
    results = at_once(others, lambda: put(lake, "t", [5]))
    done = results[1]
    later = opened(lake, "t", done.version)
    assert [len(later.file_uris()), done.rows] == [1, 1]
    assert 5 in ids_of(lake)
    assert 1000 not in ids_of(lake)


# --- writers that are killed ---


def dice(seed: int | None) -> random.Random:
    return random.Random(seed)  # noqa: S311 - moments and faults, not secrets


FILES, ROWS = 5, 20


def overwrite_for_ever(lake: Lake) -> None:
    """Overwrite the table again and again, each time with the version's number in all rows."""
    while True:
        found = open_table(lake.location("t"), lake.storage_options())
        following = found.version() + 1 if found else 0
        files = [stage(lake, "t", [following] * ROWS) for _ in range(FILES)]
        written(lake, "t", Change("overwrite", ID, files, uuid.uuid4().hex))
        print(following, flush=True)


def test_a_writer_killed_at_any_moment_leaves_a_whole_version(lake: Lake) -> None:
    moment = dice(None)
    written(
        lake,
        "t",
        Change("overwrite", ID, [], "e", properties={"delta.deletedFileRetentionDuration": "interval 0 days"}),
    )
    for _ in range(KILL_ROUNDS):
        process = start(lake, "overwrite_for_ever")
        assert process.stdout
        said = process.stdout.readline()
        assert said, process.communicate()[1]
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moment.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        said = (process.communicate()[0].split() or [said])[-1]
        newest = opened(lake, "t").version()
        assert newest in (int(said), int(said) + 1)
        assert ids_of(lake) == [newest] * FILES * ROWS
    done = put(lake, "t", [7])
    vacuum(lake, "t", retention_hours=0, dry_run=False)
    left = [file.name for file in lake.list_files("t") if not file.name.startswith("_delta_log/")]
    assert len(left) == 1
    assert verify(lake, "t", expected_rows=1, version=done.version).ok


# --- stores that fail ---


@contextlib.contextmanager
def behind(aws: Connection, lake_bucket: str, *rules: Rule) -> Iterator[Lake]:
    """Yield a lake whose store is reached through a proxy with faults."""
    upstream = urlsplit(aws.endpoint_url or "").port or 0
    with faulty_proxy(upstream, *rules) as (_, url):
        yield Lake.at(f"s3://{lake_bucket}/gold", Connection(url, region="us-east-1"))


def direct(aws: Connection, lake_bucket: str) -> Lake:
    return Lake.at(f"s3://{lake_bucket}/gold", aws)


LOG_PUT = r"PUT .*_delta_log/\d{20}\.json"


@pytest.mark.parametrize("fault", ["lost answer", "slow down", "internal error", "reset"])
@pytest.mark.parametrize("times", [1, 4])
def test_a_commit_whose_answers_are_lost_is_there_once(
    aws: Connection, lake_bucket: str, fault: Fault, times: int
) -> None:
    real = direct(aws, lake_bucket)
    put(real, "t", [1])
    with behind(aws, lake_bucket, Rule(LOG_PUT, fault, times=times)) as lake:
        done = put(lake, "t", [2], "append")
    assert (done.version, done.retries) == (1, 0)
    assert ids_of(real) == [1, 2]


def test_a_commit_that_is_never_answered_has_an_unknown_outcome(
    aws: Connection, lake_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta_commit, "_pause", lambda _: None)
    put(direct(aws, lake_bucket), "t", [1])
    with (
        behind(aws, lake_bucket, Rule(LOG_PUT, "internal error")) as lake,
        pytest.raises(UnreachableError) as raised,
    ):
        put(lake, "t", [2], "append")
    # The caller keeps the files: the commit could still come.
    assert raised.value.code != NOT_COMMITTED
    assert ids_of(direct(aws, lake_bucket)) == [1]


def test_a_winner_is_told_from_an_own_commit_whose_answer_was_lost(
    aws: Connection, lake_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = direct(aws, lake_bucket)
    put(real, "t", [1])
    first_write_meets(monkeypatch, lambda: delta_rs_write(real, "t", arrow([2]), mode="append"))
    with behind(aws, lake_bucket, Rule(LOG_PUT, "reset", times=1)) as lake:
        done = put(lake, "t", [3], "append")
    assert (done.version, done.retries) == (2, 1)
    assert ids_of(real) == [1, 2, 3]


@pytest.mark.parametrize("seed", range(3))
def test_with_a_fifth_of_all_answers_bad_each_commit_is_whole_or_not_there(
    aws: Connection, lake_bucket: str, seed: int
) -> None:
    real = direct(aws, lake_bucket)
    put(real, "t", [0])
    faults: list[Fault] = ["lost answer", "slow down", "internal error", "reset"]
    rules = [Rule(".", fault, share=0.05, dice=dice(10 * seed + number)) for number, fault in enumerate(faults)]
    files = [stage(real, "t", [number]) for number in range(1, 13)]
    sure: list[int] = []
    unsure: list[int] = []
    with behind(aws, lake_bucket, *rules) as lake:
        for number, file in enumerate(files, 1):
            try:
                written(lake, "t", Change("append", ID, [file], uuid.uuid4().hex))
            except GoldlakeError as exc:
                unsure += [] if exc.code == NOT_COMMITTED else [number]
            else:
                sure.append(number)
    found = ids_of(real)
    assert len(found) == len(set(found))
    assert {0, *sure} <= set(found) <= {0, *sure, *unsure}
    assert len(sure) >= len(files) // 2


def test_a_conditional_put_that_met_another_is_repeated(
    aws: Connection, lake_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 answers 409 while another put of the same key is on its way; the emulator never does."""
    lake = direct(aws, lake_bucket)
    conditional, answers = Lake._conditional_put, [None, None]
    monkeypatch.setattr(Lake, "_conditional_put", lambda *args: answers.pop() if answers else conditional(*args))
    assert put(lake, "t", [1]).retries == 0
    assert answers == []


def test_only_one_of_many_gets_a_name(lake: Lake) -> None:
    contents = [str(number).encode() for number in range(8)]
    results = at_once(*(lambda content=content: lake.put_new("t", "_delta_log/x", content) for content in contents))
    assert sorted(results) == [False] * 7 + [True]
    assert lake.read("t", "_delta_log/x") == contents[results.index(True)]
    assert [file.name for file in lake.list_files("t")] == ["_delta_log/x"]
