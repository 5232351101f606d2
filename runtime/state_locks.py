"""The locks of the state backend: who holds which since when, and how one that was left behind is cleared.

Locks are objects: Pulumi's own S3 backend writes `.pulumi/locks/organization/<project>/<stack>/<id>.json` before it
changes a stack, and removes it after.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from runtime.aws import Connection, translated
from runtime.errors import (
    FailedError,
)

LOCKS_SCHEMA = "goldlake.state-locks/1"
LOCK_PREFIX = ".pulumi/locks/"


@dataclass(frozen=True)
class Lock:
    """A lock on a stack: who holds it, on which machine, since when. `problem` says why that is not known."""

    key: str
    stack: str
    """`organization/<project>/<stack>`, or the stack alone in an old bucket."""
    etag: str
    since: datetime
    """The holder's time; the object's where that cannot be read."""
    age_seconds: int
    username: str | None = None
    hostname: str | None = None
    pid: int | None = None
    problem: str | None = None

    @property
    def holder(self) -> str:
        """`user@host (pid …)`, or why it is not known."""
        return self.problem or f"{self.username}@{self.hostname} (pid {self.pid})"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values; `since` in ISO 8601."""
        return {**asdict(self), "since": self.since.isoformat()}


def list_locks(aws: Connection, bucket: str, *, now: datetime | None = None) -> list[Lock]:
    """Return all locks of a Pulumi backend, by stack and age; a lock that cannot be read is listed, too.

    Raises FailedError when there is no such bucket, AccessDeniedError when it may not be listed.
    """
    s3 = aws.client("s3")
    with translated(f"locks of {bucket}"):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=LOCK_PREFIX)
        keys = [item["Key"] for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")]
    locks = [_read_lock(s3, bucket, key, now or datetime.now(UTC)) for key in keys]
    return sorted((lock for lock in locks if lock is not None), key=lambda lock: (lock.stack, lock.since))


def _read_lock(s3: Any, bucket: str, key: str, now: datetime) -> Lock | None:
    """Return a lock, None when it was released since it was listed."""
    try:
        with translated(f"lock {key}"):
            answer = s3.get_object(Bucket=bucket, Key=key)
            body = answer["Body"].read()
    except FailedError as exc:
        if exc.code in ("404", "NoSuchKey"):
            return None
        raise
    written: datetime = answer["LastModified"]
    found: dict[str, Any] = {"since": written}
    try:
        content = json.loads(body)
        found |= {name: content[name] for name in ("username", "hostname", "pid")}
        found["since"] = _zoned(datetime.fromisoformat(content["timestamp"]))
    except (ValueError, KeyError, TypeError) as exc:
        found["problem"] = f"unreadable ({type(exc).__name__})"
    return Lock(
        key=key,
        stack=key.removeprefix(LOCK_PREFIX).rpartition("/")[0],
        etag=answer["ETag"],
        age_seconds=max(0, int((now - found["since"]).total_seconds())),
        **found,
    )


def _zoned(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def clear_lock(aws: Connection, bucket: str, lock: Lock) -> bool:
    """Delete a lock as it was listed; return whether it was still there.

    Raises FailedError when another has taken its place: that one was not asked about.
    """
    try:
        with translated(f"clear {lock.key}"):
            aws.client("s3").delete_object(Bucket=bucket, Key=lock.key, IfMatch=lock.etag)
    except FailedError as exc:
        if exc.code in ("404", "NoSuchKey"):
            return False
        if exc.code in ("PreconditionFailed", "412"):
            raise FailedError(
                f"lock {lock.key} changed since it was listed, and was left alone", hint="goldlake state locks"
            ) from exc
        raise
    return True
