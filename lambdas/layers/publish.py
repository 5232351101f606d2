"""Uploads built artifacts and their bills under the hash of their content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from lambdas.layers.bill import bill_paths
from lambdas.layers.catalogue import ARTIFACTS, Artifact
from runtime.aws import Connection, translated
from runtime.errors import ConfigurationError

# Where the program puts the layers as well.
PREFIX = "artifacts/layers"
_TYPES = {".zip": "application/zip", ".json": "application/vnd.cyclonedx+json", ".tsv": "text/tab-separated-values"}


@dataclass(frozen=True)
class Upload:
    """One file and what happened to it."""

    key: str
    size: int
    outcome: str
    """`uploaded`, `there` already, or `would upload`."""

    def to_dict(self) -> dict[str, object]:
        """Return the upload for JSON output."""
        return {"key": self.key, "bytes": self.size, "outcome": self.outcome}


def publish(
    aws: Connection, bucket: str, artifacts: Sequence[Artifact], *, prefix: str = PREFIX, dry_run: bool = False
) -> list[Upload]:
    """Upload what is not there yet; return every file with its outcome.

    A key holds the hash of the content, so a file of that key and size is not sent again, whoever sent it. Bills go
    first: a zip that is there has its bill there as well.
    """
    files = [path for artifact in artifacts for path in (*bill_paths(artifact.path), artifact.path)]
    s3 = aws.client("s3")
    uploads = []
    with translated(f"the upload to s3://{bucket}/{prefix}"):
        for path in files:
            key = f"{prefix.strip('/')}/{path.name}"
            size = path.stat().st_size
            if _is_there(s3, bucket, key, size if path.suffix != ".zip" else None):
                uploads.append(Upload(key, size, "there"))
                continue
            if not dry_run:
                with path.open("rb") as body:
                    s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=_TYPES[path.suffix])
            uploads.append(Upload(key, size, "would upload" if dry_run else "uploaded"))
    return uploads


def _is_there(s3: Any, bucket: str, key: str, size: int | None) -> bool:
    try:
        found = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
            return False
        raise
    # Another zlib compresses the same content to another size: a zip is known by its key alone.
    return size is None or found["ContentLength"] == size


def built(out: Path) -> list[Artifact]:
    """Return the artifacts of a folder. Raises ConfigurationError naming those that are missing."""
    found, missing = [], []
    for name in ARTIFACTS:
        try:
            artifact = Artifact.of_stamp(out / f"{name}.json")[2]
        except (OSError, ValueError, KeyError, TypeError):
            missing.append(name)
            continue
        if all(path.is_file() for path in (artifact.path, *bill_paths(artifact.path))):
            found.append(artifact)
        else:
            missing.append(name)
    if missing:
        raise ConfigurationError(f"not built in {out}: {', '.join(missing)}", hint="goldlake layers build")
    return found
