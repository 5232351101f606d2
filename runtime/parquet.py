"""Parquet files under a prefix of a bucket: listing, uploading, deleting, and counting rows by their footers.

DuckDB never talks to S3 here: its httpfs extension has no room in a Lambda function. boto3 fetches the ends
of the files, DuckDB reads them from disk.

Source of the footer's form: the Parquet format ("File format": footer, its length in 4 bytes little endian,
`PAR1`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runtime.aws import Connection, translated
from runtime.errors import ConfigurationError, FailedError

# One request gets the whole footer of most files; a wider table or more row groups take a second one.
TAIL_BYTES = 64 * 1024
READERS = 8
# DeleteObjects takes no more.
DELETE_BATCH = 1000
_MAGIC = b"PAR1"
_ENCRYPTED_MAGIC = b"PARE"
_TRAILER_BYTES = 8


@dataclass(frozen=True)
class StoredFile:
    """An object of a table: its key, its bytes, and when it was written (zoned)."""

    key: str
    size: int
    modified: datetime


def split_location(location: str) -> tuple[str, str]:
    """Return bucket and key prefix of `s3://bucket/prefix`, the prefix with a slash at its end.

    s3a:// and s3n://, as Hive and Spark write them into the catalogue, are the same place. Raises
    ConfigurationError for another scheme or a missing bucket or prefix: a whole bucket is no table.
    """
    parts = urlsplit(location)
    # urlsplit takes `?` and `#` for its own; in a key they are ordinary characters.
    prefix = location.removeprefix(f"{parts.scheme}://{parts.netloc}").strip("/")
    if parts.scheme not in ("s3", "s3a", "s3n") or not parts.netloc or not prefix:
        raise ConfigurationError(f"{location!r} is no location of a table: expected s3://<bucket>/<prefix>/")
    return parts.netloc, prefix + "/"


def list_files(aws: Connection, bucket: str, prefix: str, *, client: Any = None) -> list[StoredFile]:
    """Return the data files under a prefix, by key.

    What Spectrum, Athena and Spark pass over is left out: names that begin with `_` or `.`, at any level
    (so `_delta_log/` too), and folder markers. Raises as `runtime.aws.translated` does.
    """
    client = client or aws.client("s3")
    found: list[StoredFile] = []
    with translated(f"list s3://{bucket}/{prefix}"):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            found += [
                StoredFile(item["Key"], item["Size"], item["LastModified"])
                for item in page.get("Contents", [])
                if is_data(item["Key"].removeprefix(prefix))
            ]
    return found


def is_data(name: str) -> bool:
    """Return whether a key below the table's prefix is a data file to Hive's readers."""
    parts = name.split("/")
    return bool(parts[-1]) and not any(part.startswith(("_", ".")) for part in parts)


def has_delta_log(aws: Connection, bucket: str, prefix: str, *, client: Any = None) -> bool:
    """Return whether there is anything in the prefix's `_delta_log/`. Raises as `translated` does."""
    client = client or aws.client("s3")
    with translated(f"list s3://{bucket}/{prefix}_delta_log/"):
        page = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}_delta_log/", MaxKeys=1)
    return bool(page.get("Contents"))


def refuse_delta(aws: Connection, bucket: str, prefix: str, *, client: Any = None) -> None:
    """Raise ConfigurationError when the prefix holds a Delta table, which plain files would corrupt."""
    if has_delta_log(aws, bucket, prefix, client=client):
        raise ConfigurationError(
            f"s3://{bucket}/{prefix} holds a Delta table: files beside its log would not be part of it",
            hint="write it with a Delta writer, or empty the location first",
        )


def upload(aws: Connection, bucket: str, key: str, path: Path, *, client: Any = None) -> int:
    """Write a local file to the key, replacing what is there; return its bytes.

    A reader sees the whole object or none. Raises as `runtime.aws.translated` does.
    """
    from boto3.s3.transfer import TransferConfig

    client = client or aws.client("s3")
    size = path.stat().st_size
    # upload_fileobj, for upload_file hides the service's error code in an exception of its own.
    with translated(f"write s3://{bucket}/{key}"), path.open("rb") as content:
        client.upload_fileobj(content, bucket, key, Config=TransferConfig(max_concurrency=4))
    return size


def delete(aws: Connection, bucket: str, keys: Sequence[str], *, client: Any = None) -> None:
    """Delete the keys; those that are gone already count as deleted.

    Raises FailedError with the first key that was not deleted, and as `runtime.aws.translated` does.
    """
    client = client or aws.client("s3")
    for start in range(0, len(keys), DELETE_BATCH):
        batch = [{"Key": key} for key in keys[start : start + DELETE_BATCH]]
        with translated(f"delete old files in s3://{bucket}"):
            answer = client.delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
        if errors := answer.get("Errors"):
            first = errors[0]
            raise FailedError(
                f"{len(errors)} old files were not deleted, first s3://{bucket}/{first.get('Key')}: "
                f"{first.get('Message')} ({first.get('Code')})",
                code=first.get("Code"),
            )


def footer_rows(aws: Connection, bucket: str, keys: Sequence[str], *, client: Any = None) -> dict[str, int]:
    """Return each file's row count by its footer, reading about 64 KiB of it, 8 files at once.

    Raises FailedError that names the key of a file that is no Parquet or is encrypted, and as
    `runtime.aws.translated` does.
    """
    if not keys:
        return {}
    client = client or aws.client("s3")
    with ThreadPoolExecutor(max_workers=READERS) as pool:
        footers = list(pool.map(lambda key: read_footer(client, bucket, key), keys))
    with tempfile.TemporaryDirectory(prefix="goldlake-footers-") as folder:
        files = [Path(folder) / f"{number}.parquet" for number in range(len(keys))]
        for path, footer in zip(files, footers, strict=True):
            # The footer's offsets count from the file's start, and no row is read: nothing need be before it.
            path.write_bytes(_MAGIC + footer)
        names = [f"s3://{bucket}/{key}" for key in keys]
        return dict(zip(keys, _count(files, names), strict=True))


def read_footer(client: Any, bucket: str, key: str) -> bytes:
    """Return a file's footer with its length and magic. Raises FailedError when there is none."""
    place = f"s3://{bucket}/{key}"
    tail, size = _read_tail(client, bucket, key, TAIL_BYTES)
    if tail[-4:] == _ENCRYPTED_MAGIC:
        raise FailedError(f"{place} is encrypted Parquet, whose footer cannot be read")
    if len(tail) < _TRAILER_BYTES or tail[-4:] != _MAGIC:
        raise FailedError(f"{place} is not a Parquet file: it does not end with PAR1")
    length = int.from_bytes(tail[-_TRAILER_BYTES:-4], "little") + _TRAILER_BYTES
    if length > size - len(_MAGIC):
        raise FailedError(f"{place} is not a whole Parquet file: its footer is longer than the file")
    if length > len(tail):
        tail, _ = _read_tail(client, bucket, key, length)
    return tail[-length:]


def _read_tail(client: Any, bucket: str, key: str, length: int) -> tuple[bytes, int]:
    """Return the last bytes of an object, all of it when it is shorter, and the object's size."""
    with translated(f"read s3://{bucket}/{key}"):
        try:
            answer = client.get_object(Bucket=bucket, Key=key, Range=f"bytes=-{length}")
        except client.exceptions.ClientError as exc:
            # An object of zero bytes has no last bytes.
            if exc.response.get("Error", {}).get("Code") != "InvalidRange":
                raise
            return b"", 0
        content: bytes = answer["Body"].read()
    # `bytes 10-99/100`; a store that does not know ranges answers with the whole object.
    _, _, total = str(answer.get("ContentRange", "")).rpartition("/")
    return content, int(total) if total.isdigit() else len(content)


def _count(files: Sequence[Path], names: Sequence[str]) -> list[int]:
    """Return the row counts of local footers, in order. Raises FailedError naming the unreadable one."""
    import duckdb

    from runtime.duck import connect, reason

    with connect() as database:
        query = "SELECT num_rows FROM parquet_file_metadata(?)"
        counts = []
        for path, name in zip(files, names, strict=True):
            try:
                row = database.execute(query, [str(path)]).fetchone()
            except duckdb.Error as exc:
                text = reason(exc).replace(str(path), name)
                raise FailedError(f"{name} is not a readable Parquet file: {text}") from exc
            counts.append(int(row[0]) if row else 0)
    return counts
