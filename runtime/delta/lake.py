"""Where Delta tables lie: an S3 prefix or a local folder, and the few things done with files there."""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from runtime.aws import Connection, translated
from runtime.errors import ConfigurationError, FailedError

# As part of a location: `/` and `\` are folders to somebody, and delta-rs reads `#`, `?` and `%` as URL
# syntax and then commits to another place than the files', or to none.
_BAD_TABLE = re.compile(r"[/\\#?%\x00-\x1f\x7f]")
UNSAFE_RENAME = "AWS_S3_ALLOW_UNSAFE_RENAME"
# S3 answers 409 to a conditional put when another of the same key is on its way (Amazon S3 user guide, "How to
# prevent object overwrites"): it says nothing about who wins, and asks to try again.
_CONFLICT_ATTEMPTS = 8
# DeleteObjects takes so many keys.
_DELETED_AT_ONCE = 1000


@dataclass(frozen=True)
class StoredFile:
    """A file below a table's location: its name relative to it, its size in bytes and when it was written."""

    name: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class Lake:
    """Where Delta tables lie: an S3 prefix or a local folder; table `t` is at `<root>/t`.

    The methods that take a table's name and a file's are all that the package does with a store besides
    delta-rs. They raise as `runtime.aws.translated` does; a local folder's trouble is a FailedError.
    """

    root: str
    aws: Connection | None = None

    @classmethod
    def at(cls, target: str, aws: Connection | None) -> Lake:
        """Return the lake at `s3://bucket/prefix` or at a local folder.

        Raises ConfigurationError for another scheme, for characters that delta-rs takes as URL syntax, and
        for S3 without a connection.
        """
        if "://" not in target:
            return cls(str(Path(target).resolve()))
        if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/\\#?%\x00-\x1f]+)*/?", target):
            raise ConfigurationError(f"target {target!r} is not an S3 URL (s3://bucket/prefix) or a local folder")
        if aws is None:
            raise ConfigurationError(f"target {target!r} is in S3, and no AWS connection is given")
        return cls(target.rstrip("/"), aws)

    @property
    def bucket(self) -> str:
        """The bucket's name; empty for a local folder."""
        return self.root.removeprefix("s3://").partition("/")[0] if self.aws else ""

    @property
    def prefix(self) -> str:
        """The keys' beginning below the bucket, without slashes at its ends; empty for a whole bucket."""
        return self.root.removeprefix("s3://").partition("/")[2] if self.aws else ""

    def location(self, table: str) -> str:
        """Return the URL or path of a table; raises ConfigurationError for a name that cannot be in one."""
        if not table or table in (".", "..") or _BAD_TABLE.search(table):
            raise ConfigurationError(
                f"table name {table!r} cannot be part of a location: it may not be empty, `.` or `..`,"
                " and hold none of / \\ # ? %"
            )
        return f"{self.root}/{table}"

    def key(self, table: str, name: str) -> str:
        """Return the S3 key of one of the table's files."""
        return "/".join(part for part in (self.prefix, table, name) if part)

    def storage_options(self) -> dict[str, str] | None:
        """Return delta-rs' options: None for a local folder.

        delta-rs would try for three minutes; a caller with a deadline wants to know earlier.
        """
        if self.aws is None:
            return None
        return {
            **self.aws.storage_options(),
            "max_retries": "5",
            "retry_timeout": "60s",
            "connect_timeout": "5s",
        }

    # --- files ---

    def folder(self, table: str) -> Path:
        """Return a table's folder in a local lake, made when it is missing."""
        path = Path(self.location(table))
        with _local(f"write to {path}"):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def put_new(self, table: str, name: str, content: bytes) -> bool:
        """Write a file that must not be there yet; return False, with nothing written, when one is.

        Two that write the same name at once: one of them gets True. When the answer is lost, the file may be
        there although this raises, or although this returns False: whoever needs to know reads it.
        """
        if self.aws is None:
            with _local(f"write {self.location(table)}/{name}"):
                return _link_new(Path(self.location(table)) / name, content)
        for attempt in range(_CONFLICT_ATTEMPTS):
            answer = self._conditional_put(self.key(table, name), content)
            if answer is not None:
                return answer
            time.sleep(random.uniform(0, 0.05 * 2**attempt))  # noqa: S311 - spreads writers, keeps no secret
        raise FailedError(
            f"{self.location(table)}/{name}: S3 answered ConditionalRequestConflict {_CONFLICT_ATTEMPTS} times"
        )

    def _conditional_put(self, key: str, content: bytes) -> bool | None:
        """Return whether the object is new; None when S3 does not say, since another put is on its way."""
        try:
            with translated(f"write s3://{self.bucket}/{key}"):
                self._client.put_object(Bucket=self.bucket, Key=key, Body=content, IfNoneMatch="*")
        except FailedError as exc:
            if exc.code in ("PreconditionFailed", "412"):
                return False
            if exc.code in ("ConditionalRequestConflict", "409"):
                return None
            raise
        return True

    def put(self, table: str, name: str, content: bytes) -> None:
        """Write a file, in place of one that may be there; readers see the old content or the new, whole."""
        if self.aws is None:
            with _local(f"write {self.location(table)}/{name}"):
                path = Path(self.location(table)) / name
                beside = _written_beside(path, content)
                beside.replace(path)
            return
        with translated(f"write s3://{self.bucket}/{self.key(table, name)}"):
            self._client.put_object(Bucket=self.bucket, Key=self.key(table, name), Body=content)

    def read(self, table: str, name: str, *, start: int = 0) -> bytes | None:
        """Return a file's content from byte `start` on, None when there is no such file."""
        if self.aws is None:
            with _local(f"read {self.location(table)}/{name}"):
                try:
                    with (Path(self.location(table)) / name).open("rb") as stream:
                        stream.seek(start)
                        return stream.read()
                except FileNotFoundError:
                    return None
        part = {"Range": f"bytes={start}-"} if start else {}
        try:
            with translated(f"read s3://{self.bucket}/{self.key(table, name)}"):
                answer = self._client.get_object(Bucket=self.bucket, Key=self.key(table, name), **part)
                content: bytes = answer["Body"].read()
        except FailedError as exc:
            if exc.code in ("NoSuchKey", "404"):
                return None
            raise
        return content

    def list_files(self, table: str, prefix: str = "", *, after: str = "") -> Iterator[StoredFile]:
        """Give the files whose name begins with `prefix` and is greater than `after`, sorted by name."""
        if self.aws is None:
            with _local(f"list {self.location(table)}"):
                yield from _local_files(Path(self.location(table)), prefix, after)
            return
        start = self.key(table, "") + "/"
        asked = {"Bucket": self.bucket, "Prefix": start + prefix}
        if after:
            asked["StartAfter"] = start + after
        with translated(f"list s3://{self.bucket}/{start}{prefix}"):
            for page in self._client.get_paginator("list_objects_v2").paginate(**asked):
                for entry in page.get("Contents", []):
                    name = entry["Key"].removeprefix(start)
                    # Consoles and old tools make empty objects for folders.
                    if not name.endswith("/"):
                        yield StoredFile(name, entry["Size"], entry["LastModified"])

    def delete(self, table: str, names: Sequence[str]) -> None:
        """Delete files; one that is not there is no error."""
        if self.aws is None:
            with _local(f"delete in {self.location(table)}"):
                for name in names:
                    (Path(self.location(table)) / name).unlink(missing_ok=True)
            return
        for start in range(0, len(names), _DELETED_AT_ONCE):
            keys = [{"Key": self.key(table, name)} for name in names[start : start + _DELETED_AT_ONCE]]
            with translated(f"delete in {self.location(table)}"):
                answer = self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True})
            for error in answer.get("Errors", []):
                message = f"delete {error.get('Key')}: {error.get('Message')} ({error.get('Code')})"
                raise FailedError(message, code=error.get("Code"))

    @cached_property
    def _client(self) -> Any:
        """The S3 client, one for all threads (boto3's clients are thread-safe, its sessions are not)."""
        if self.aws is None:
            raise ValueError("a local folder has no S3 client")
        return self.aws.client("s3")


def refuse_unsafe_rename(settings: Mapping[str, str]) -> None:
    """Raise ConfigurationError when settings (environment, storage options) turn off delta-rs' conditional puts."""
    for name, value in settings.items():
        if name.upper() == UNSAFE_RENAME and value.strip().lower() not in ("", "0", "false", "no"):
            raise ConfigurationError(
                f"{name} is {value!r}: it turns off the conditional writes of Delta's log, and of two writers at once"
                " one then loses its rows silently",
                hint=f"unset {name}: S3 has conditional writes itself",
            )


@contextlib.contextmanager
def _local(action: str) -> Iterator[None]:
    """Raise the file system's errors inside the block as Goldlake's."""
    try:
        yield
    except OSError as exc:
        raise FailedError(f"{action}: {exc.strerror or exc}", code=type(exc).__name__) from exc


def _written_beside(path: Path, content: bytes) -> Path:
    """Write the content to a hidden file in the folder of `path`, all of it on the disk; return that file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with beside.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return beside


def _link_new(path: Path, content: bytes) -> bool:
    """Give the content a name that is not taken: a hard link is refused when it is, a rename is not."""
    beside = _written_beside(path, content)
    try:
        os.link(beside, path)
    except FileExistsError:
        return False
    finally:
        beside.unlink()
    _flush_folder(path.parent)
    return True


def _flush_folder(folder: Path) -> None:
    """Put a folder's entries on the disk, so that a new name outlives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _local_files(folder: Path, prefix: str, after: str) -> Iterator[StoredFile]:
    """Give the files below a folder, by their names as S3 would sort them."""
    # Only the folder that the prefix names is walked: `_delta_log/` is small beside the data.
    base = folder / prefix.rpartition("/")[0]
    names = sorted(path.relative_to(folder).as_posix() for path in base.rglob("*") if path.is_file())
    for name in names:
        if name.startswith(prefix) and name > after:
            with contextlib.suppress(FileNotFoundError):
                status = (folder / name).stat()
                yield StoredFile(name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
