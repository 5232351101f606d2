"""The reader of plain Delta logs says what delta-rs says, or leaves the table to delta-rs."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from arro3.core import Array, DataType, Table
from botocore.exceptions import ClientError
from deltalake import DeltaTable, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.aws import Connection
from runtime.delta.log import log_rows
from runtime.errors import AccessDeniedError, UnreachableError
from runtime.readiness_log import MOST_BYTES, MOST_COMMITS, SimpleLog, replay, simple_log
from runtime.readiness_store import CheckOptions, Store

STORED = datetime(2026, 1, 15, 12, tzinfo=UTC)


def rows(count: int, *more: str) -> Table:
    numbers = Array(list(range(count)), type=DataType.int64())
    parts = Array([f"p{number % 2}/ü" for number in range(count)], type=DataType.string())
    return Table({"Id": numbers, "part": parts, **dict.fromkeys(more, numbers)})


def append(root: Path) -> None:
    write_deltalake(root, rows(3), mode="append", schema_mode="merge")


def overwrite(root: Path) -> None:
    write_deltalake(root, rows(5), mode="overwrite", schema_mode="merge")


def widen(root: Path) -> None:
    write_deltalake(root, rows(2, "Later"), mode="append", schema_mode="merge")


def narrow(root: Path) -> None:
    write_deltalake(root, rows(2), mode="overwrite", schema_mode="overwrite")


def delete(root: Path) -> None:
    DeltaTable(root).delete("Id = 1")


def delete_all(root: Path) -> None:
    DeltaTable(root).delete()


def compact(root: Path) -> None:
    DeltaTable(root).optimize.compact()


def checkpoint(root: Path) -> None:
    DeltaTable(root).create_checkpoint()


CHANGES: tuple[Callable[[Path], None], ...] = (append, overwrite, widen, narrow, delete, delete_all, compact)


def log(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted((root / "_delta_log").glob("*.json"))]


def by_delta_rs(root: Path) -> SimpleLog:
    table = DeltaTable(root)
    known = log_rows(table)
    assert known is not None
    columns = frozenset(column.name.lower() for column in table.schema().fields)
    newest = datetime.fromtimestamp(table.history(1)[0]["timestamp"] / 1000, UTC)
    return SimpleLog(table.version(), known, len(table.file_uris()), newest, columns)


# --- the same answers ---


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.sampled_from(CHANGES), max_size=6), partitioned=st.booleans())
def test_any_history_is_told_as_delta_rs_tells_it(
    tmp_path: Path, changes: list[Callable[[Path], None]], partitioned: bool
) -> None:
    root = tmp_path / "table"
    shutil.rmtree(root, ignore_errors=True)
    write_deltalake(root, rows(4), partition_by=["part"] if partitioned else None)
    for change in changes:
        change(root)
    assert replay(log(root), STORED) == by_delta_rs(root)


def test_a_commit_that_does_not_tell_its_time_has_that_of_its_file(tmp_path: Path) -> None:
    append(tmp_path)
    (content,) = log(tmp_path)
    silent = b"\n".join(line for line in content.splitlines() if b"commitInfo" not in line)
    found = replay([silent], STORED)
    assert found is not None
    assert (found.modified, found.rows) == (STORED, 3)


# --- what is not plain ---


@pytest.fixture(scope="module", params=[None, ["part"]])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with every kind of action: added, removed, a changed schema."""
    root = tmp_path_factory.mktemp("plain")
    write_deltalake(root, rows(2), partition_by=request.param)
    for change in (append, widen, delete):
        change(root)
    assert replay(log(root), STORED) == by_delta_rs(root)
    return root


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a JSON value; statistics and schema are JSON in a text."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        if key in ("stats", "schemaString"):
            yield from places(json.loads(part), (*path, key))
        else:
            yield from places(part, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy with another value at a path, or without one there."""
    if isinstance(value, str):
        return json.dumps(changed(json.loads(value), path, new))
    found = copy.copy(value)
    if len(path) > 1:
        found[path[0]] = changed(found[path[0]], path[1:], new)
    elif new == "gone":
        del found[path[0]]
    else:
        found[path[0]] = new
    return found


WRONG: tuple[Any, ...] = ("gone", None, "", "x", -1, 0, 3, 1.5, True, [], {}, {"type": "array"}, "void")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_of_a_damaged_log_nothing_is_said_that_delta_rs_does_not_say(
    tmp_path: Path, plain: Path, data: st.DataObject
) -> None:
    commits = log(plain)
    number = data.draw(st.integers(0, len(commits) - 1))
    actions = [json.loads(line) for line in commits[number].splitlines()]
    place = data.draw(st.sampled_from(list(places(actions))))
    actions = changed(actions, place, data.draw(st.sampled_from(WRONG)))
    commits[number] = b"\n".join(json.dumps(action).encode() for action in actions)
    found = replay(commits, STORED)
    if found is None:
        return
    root = tmp_path / "table"
    (root / "_delta_log").mkdir(parents=True, exist_ok=True)
    for version, content in enumerate(commits):
        (root / "_delta_log" / f"{version:020}.json").write_bytes(content)
    table = DeltaTable(root)
    assert (found.version, found.files) == (table.version(), len(table.file_uris()))
    assert found.columns == {column.name.lower() for column in table.schema().fields}
    # delta-rs takes no row count from statistics whose smallest or largest values are wrong.
    assert log_rows(table) in (found.rows, None)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"garbage",
        b"[]",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"add": {}, "remove": {}}',
        b'{"domainMetadata": {}}',
        b'{"unheard-of": {}}',
        b'{"txn": null}',
        b'{"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}',
        b'{"protocol": {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": []}}',
        b'{"protocol": {"minReaderVersion": NaN, "minWriterVersion": 2}}',
        b'{"remove": {"path": "a", "dataChange": true, "deletionVector": {}}}',
        b'{"remove": {"path": "a", "dataChange": true}}\n{"remove": {"path": "a", "dataChange": true}}',
        b"[" * 100_000,
    ],
)
def test_a_commit_that_is_not_plain_is_left_to_delta_rs(plain: Path, content: bytes) -> None:
    assert replay([*log(plain), content], STORED) is None


def test_a_log_without_protocol_or_schema_is_left_to_delta_rs(plain: Path) -> None:
    first, *others = log(plain)
    assert replay(others[:1], STORED) is None
    for kind in (b'{"protocol"', b'{"metaData"'):
        without = b"\n".join(line for line in first.splitlines() if not line.startswith(kind))
        assert replay([without, *others[:1]], STORED) is None


# --- which logs are read ---


class Bucket:
    """S3 with one bucket in memory."""

    def __init__(self, objects: dict[str, bytes], page: int = 1000) -> None:
        self.objects, self.page = objects, page
        self.gets = 0
        self.error: Exception | None = None

    def list_objects_v2(self, *, Bucket: str, Prefix: str) -> dict[str, Any]:  # noqa: N803 - AWS spells them so
        keys = sorted(key for key in self.objects if key.startswith(Prefix))
        contents = [{"Key": key, "Size": len(self.objects[key]), "LastModified": STORED} for key in keys[: self.page]]
        return {"Contents": contents, "IsTruncated": len(keys) > self.page}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        self.gets += 1
        if self.error:
            raise self.error
        content = self.objects[Key]
        return {"Body": type("Body", (), {"read": lambda _self: content})()}


def read(bucket: Bucket) -> SimpleLog | None:
    with ThreadPoolExecutor(1) as pool:
        store = Store(Connection("http://127.0.0.1:9"), CheckOptions(), bucket, None, pool)
        return simple_log(store, "lake", "t/")


def bucket_of(root: Path, **more: bytes) -> Bucket:
    files = {f"t/_delta_log/{path.name}": path.read_bytes() for path in (root / "_delta_log").iterdir()}
    return Bucket({**files, **{f"t/_delta_log/{name}": content for name, content in more.items()}})


def test_a_log_is_one_listing_and_each_commit_once(plain: Path) -> None:
    bucket = bucket_of(plain)
    assert read(bucket) == by_delta_rs(plain)
    assert bucket.gets == 4


def test_checksums_beside_the_commits_are_passed_over(plain: Path) -> None:
    assert read(bucket_of(plain, **{f"{0:020}.crc": b"{}"})) == by_delta_rs(plain)


@pytest.mark.parametrize(
    "name",
    [
        "_last_checkpoint",
        f"{1:020}.checkpoint.parquet",
        f"{0:020}.{1:020}.compacted.json",
        f"{6:020}.json",
        "_staged_commits/x.json",
        "",
    ],
)
def test_a_log_with_anything_else_in_it_is_left_to_delta_rs_without_a_read(plain: Path, name: str) -> None:
    bucket = bucket_of(plain, **{name: b"{}"})
    assert read(bucket) is None
    assert bucket.gets == 0


def test_a_checkpoint_by_delta_rs_itself_is_left_to_it(tmp_path: Path) -> None:
    append(tmp_path)
    checkpoint(tmp_path)
    append(tmp_path)
    assert read(bucket_of(tmp_path)) is None


def test_a_log_without_its_first_commit_is_left_to_delta_rs(plain: Path) -> None:
    bucket = bucket_of(plain)
    del bucket.objects[f"t/_delta_log/{0:020}.json"]
    assert read(bucket) is None


def test_a_long_log_is_left_to_delta_rs(tmp_path: Path) -> None:
    for _ in range(MOST_COMMITS):
        append(tmp_path)
    assert read(bucket_of(tmp_path)) == by_delta_rs(tmp_path)
    append(tmp_path)
    assert read(bucket_of(tmp_path)) is None


def test_a_large_log_is_left_to_delta_rs(plain: Path) -> None:
    bucket = bucket_of(plain)
    bucket.objects[f"t/_delta_log/{0:020}.json"] += b" " * MOST_BYTES
    assert read(bucket) is None


def test_a_listing_of_more_than_a_page_is_left_to_delta_rs(plain: Path) -> None:
    bucket = bucket_of(plain)
    bucket.page = 2
    assert read(bucket) is None


def test_no_log_is_left_to_delta_rs() -> None:
    assert read(Bucket({"t/a.parquet": b""})) is None


def test_a_commit_that_is_gone_is_left_to_delta_rs_and_one_that_may_not_be_read_is_forbidden(plain: Path) -> None:
    bucket = bucket_of(plain)
    bucket.error = ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
    assert read(bucket) is None
    for code, kind in (("AccessDenied", AccessDeniedError), ("SlowDown", UnreachableError)):
        bucket.error = ClientError({"Error": {"Code": code}}, "GetObject")
        with pytest.raises(kind):
            read(bucket)
