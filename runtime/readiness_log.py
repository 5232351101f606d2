"""A Delta log of a few plain commits, replayed here: half of delta-rs' requests and of its processor time.

Only the plainest log is understood: commits from version 0 on and no checkpoint, the first reader version, which has
neither deletion vectors nor column mapping, partitions by text, and row counts in every file's statistics. All else is
left to delta-rs: other files in the log, other actions, fields or types, and whatever is not just as the protocol says.

Source: the Delta protocol (delta-io/delta, PROTOCOL.md: "Action Reconciliation", "Protocol Evolution", "Schema
Serialization Format", "Commit Provenance Information").
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from runtime.aws import translated
from runtime.errors import FailedError
from runtime.readiness_store import Store

# Spark writes a checkpoint every 10 commits. More, or longer ones, are no gain over delta-rs.
MOST_COMMITS = 10
MOST_BYTES = 1024 * 1024
_CHECKSUM = re.compile(r"\d{20}\.crc")
# The first one is what every reader can; from 7 on a writer's features are listed.
_READER_VERSION, _WRITER_VERSIONS = 1, range(1, 7)
_PRIMITIVE = re.compile(
    r"string|long|integer|short|byte|float|double|boolean|binary|date|timestamp|decimal\(\d{1,2},\s*\d{1,2}\)"
)


@dataclass(frozen=True)
class SimpleLog:
    """What the log says of its newest version."""

    version: int
    rows: int
    files: int
    modified: datetime
    columns: frozenset[str]


def simple_log(store: Store, bucket: str, prefix: str) -> SimpleLog | None:
    """Return what a simple log says, None for any other and for none. Raises UnreachableError as `translated` does."""
    folder = f"{prefix}_delta_log/"
    try:
        with translated(f"list s3://{bucket}/{folder}"):
            page = store.s3.list_objects_v2(Bucket=bucket, Prefix=folder)
        commits = _commits(page, folder)
        contents = [_content(store, bucket, commit["Key"]) for commit in commits]
        return replay(contents, commits[-1]["LastModified"]) if commits else None
    except FailedError:
        # Gone since it was listed, or no bucket.
        return None


def _commits(page: Mapping[str, Any], folder: str) -> list[Mapping[str, Any]]:
    """Return the objects of a listing that are commits, in their order; none when that is not the whole log."""
    objects = [item for item in page.get("Contents", []) if not _CHECKSUM.fullmatch(item["Key"].removeprefix(folder))]
    plain = (
        not page.get("IsTruncated")
        and len(objects) <= MOST_COMMITS
        and sum(item["Size"] for item in objects) <= MOST_BYTES
        and [item["Key"] for item in objects] == [f"{folder}{version:020}.json" for version in range(len(objects))]
    )
    return objects if plain else []


def _content(store: Store, bucket: str, key: str) -> bytes:
    with translated(f"read s3://{bucket}/{key}"):
        content: bytes = store.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def replay(commits: Sequence[bytes], stored: datetime) -> SimpleLog | None:
    """Return what commits from version 0 on leave behind; None when delta-rs has to be asked.

    `stored` is when the last one was stored: it counts for a commit that does not tell its time.
    """
    state = _State()
    try:
        for content in commits:
            state.commit(content)
        if state.columns is None or not state.protocol:
            return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    modified = stated_time(commits[-1]) or stored
    return SimpleLog(len(commits) - 1, sum(state.rows.values()), len(state.rows), modified, state.columns)


@dataclass
class _State:
    """A table's files and schema so far. Raises ValueError and its like at what is not plain."""

    rows: dict[str, int] = field(default_factory=dict)
    """Rows of each file by its path."""
    columns: frozenset[str] | None = None
    partitions: frozenset[str] = frozenset()
    protocol: bool = False

    def commit(self, content: bytes) -> None:
        """Apply a commit."""
        actions = list(_actions(content))
        paths = [body["path"] for kind, body in actions if kind in ("add", "remove")]
        # The protocol allows one action for a file; which of two would hold is not ours to say.
        if not actions or len(set(paths)) < len(paths):
            raise ValueError("no action, or two for one file")
        for kind, body in actions:
            if kind == "add":
                if body["partitionValues"].keys() != self.partitions:
                    raise ValueError("other partitions than the schema's")
                self.rows[body["path"]] = _whole(_json(body["stats"])["numRecords"])
            elif kind == "remove":
                self.rows.pop(body["path"], None)
            elif kind == "metaData":
                columns = _columns(body)
                self.partitions = frozenset(body["partitionColumns"])
                # A value of another type would have to be parsed.
                if any(columns[name] != "string" for name in self.partitions):
                    raise ValueError("partitions by other than text")
                self.columns = frozenset(name.lower() for name in columns)
            elif kind == "protocol":
                _check_protocol(body)
                self.protocol = True


# --- one commit ---


def _actions(content: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a commit's actions by their kinds: one in each line."""
    # Not splitlines: it would break at characters that may stand in a path.
    for line in content.decode().split("\n"):
        if line.strip():
            ((kind, body),) = _json(line).items()
            _SHAPES[kind].check(body)
            yield kind, body


def _json(text: str) -> Any:
    """Return what strict JSON says; Python's own reader takes NaN, too."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("no text")
    return value


def _any_text(value: object) -> None:
    if not isinstance(value, str):
        raise ValueError("no text")


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("no count")
    return value


def _flag(value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")


def _texts(value: Any) -> None:
    for part in value.values():
        if part is not None:
            _any_text(part)


def _names(value: object) -> None:
    if not isinstance(value, list):
        raise ValueError("no list")
    for part in value:
        _text(part)


def _parquet(value: Any) -> None:
    _texts(value["options"])
    if value["provider"] != "parquet":
        raise ValueError("no Parquet")


Check = Callable[[Any], object]


@dataclass(frozen=True)
class _Shape:
    """The fields that an action may have. One with null counts as not there."""

    required: Mapping[str, Check]
    optional: Mapping[str, Check] = field(default_factory=dict)
    others: bool = False
    """Whether it may have more; they are not looked at."""

    def check(self, action: Mapping[str, Any]) -> None:
        """Raise ValueError, or the like, for another shape."""
        for name in self.required:
            self.required[name](action[name])
        for name, value in action.items():
            if value is None or name in self.required:
                continue
            if name in self.optional:
                self.optional[name](value)
            elif not self.others:
                raise ValueError(name)


_SHAPES: Mapping[str, _Shape] = {
    "add": _Shape(
        {
            "path": _text,
            "partitionValues": _texts,
            "size": _whole,
            "modificationTime": _whole,
            "dataChange": _flag,
            "stats": _text,
        },
        {"tags": _texts},
    ),
    "remove": _Shape(
        {"path": _text, "dataChange": _flag},
        {
            "deletionTimestamp": _whole,
            "extendedFileMetadata": _flag,
            "partitionValues": _texts,
            "size": _whole,
            "tags": _texts,
        },
    ),
    "metaData": _Shape(
        {
            "id": _text,
            "format": _parquet,
            "schemaString": _text,
            "partitionColumns": _names,
            "configuration": _texts,
        },
        {"name": _any_text, "description": _any_text, "createdTime": _whole},
    ),
    "protocol": _Shape({"minReaderVersion": _whole, "minWriterVersion": _whole}),
    "txn": _Shape({"appId": _text, "version": _whole}, {"lastUpdated": _whole}),
    "commitInfo": _Shape({}, {"timestamp": _whole}, others=True),
}


def _check_protocol(protocol: Mapping[str, Any]) -> None:
    """Raise ValueError for versions with rules that are not known here."""
    if protocol["minReaderVersion"] != _READER_VERSION or protocol["minWriterVersion"] not in _WRITER_VERSIONS:
        raise ValueError("another protocol")


# --- the schema ---


def _columns(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the top-level columns, name -> type, of a schema whose every type is known."""
    schema = _json(metadata["schemaString"])
    if schema["type"] != "struct":
        raise ValueError("no struct")
    _check_type(schema)
    return {column["name"]: column["type"] for column in schema["fields"]}


def _check_type(kind: Any) -> None:
    """Raise ValueError, or the like, for a type that is none of the protocol's first version."""
    if isinstance(kind, str):
        if not _PRIMITIVE.fullmatch(kind):
            raise ValueError(kind)
    elif kind["type"] == "array":
        _flag(kind["containsNull"])
        _check_type(kind["elementType"])
    elif kind["type"] == "map":
        _flag(kind["valueContainsNull"])
        _check_type(kind["keyType"])
        _check_type(kind["valueType"])
    elif kind["type"] == "struct":
        _check_columns(kind["fields"])
    else:
        raise ValueError("another type")


def _check_columns(columns: Any) -> None:
    names = [_text(column["name"]).lower() for column in columns]
    if not names or not isinstance(columns, list) or len(set(names)) < len(names):
        raise ValueError("no columns, or two of one name")
    for column in columns:
        _flag(column["nullable"])
        _check_type(column["type"])
        if set(column["metadata"].keys()) - {"comment"}:
            raise ValueError("metadata with a meaning")
        _texts(column["metadata"])


def stated_time(content: bytes) -> datetime | None:
    """Return the time that a commit says itself; the beginning of a long one may end in the middle of a line."""
    for line in content.splitlines():
        try:
            info = json.loads(line)["commitInfo"]
            return datetime.fromtimestamp((info.get("inCommitTimestamp") or info["timestamp"]) / 1000, UTC)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            continue
    return None
