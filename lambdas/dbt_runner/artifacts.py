"""dbt's artifacts in S3: under the id of their run, and those of the last good run under `latest`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lambdas.dbt_runner.event import LATEST
from lambdas.dbt_runner.workspace import Workspace
from runtime.aws import Connection, translated
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, GoldlakeError
from runtime.settings import ARTIFACTS_LOCATION

# catalog.json is there after `docs`, sources.json after `source freshness`.
ARTIFACTS = ("run_results.json", "manifest.json", "sources.json", "catalog.json")
LOG = "dbt.log"
# What a later run compares with or goes on with.
STATE = ("manifest.json", "run_results.json", "sources.json")
_MISSING = ("NoSuchKey", "404", "NotFound")

logger = logging.getLogger("goldlake")


def upload(aws: Connection, space: Workspace, run_id: str, *, latest: bool, secret: str) -> str | None:
    """Put dbt's artifacts and log under ARTIFACTS_LOCATION/<run id>/, and under latest/ too.

    Returns the URL, or None when there is nothing to put. The secret is blotted out: drivers quote what they like.
    """
    found = [space.target / name for name in ARTIFACTS if (space.target / name).is_file()]
    if not os.environ.get(ARTIFACTS_LOCATION) or not found:
        return None
    if (space.logs / LOG).is_file():
        found.append(space.logs / LOG)
    contents = {file.name: _without(file, secret) for file in found}
    try:
        with translated("dbt's artifacts"):
            s3 = aws.client("s3")
            for folder in (run_id, LATEST) if latest else (run_id,):
                bucket, prefix = _place(folder)
                for name, content in contents.items():
                    if folder == run_id or name in ARTIFACTS:
                        # put_object, for upload_file hides the service's error code in an exception of its own.
                        s3.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=content)
    except GoldlakeError as error:
        # The models are built; that their record could not be kept must not make the run a failure.
        logger.warning("artifacts are not kept: %s", error.message)
        return None
    bucket, prefix = _place(run_id)
    return f"s3://{bucket}/{prefix}"


def _place(run_id: str) -> tuple[str, str]:
    """Return bucket and prefix of a run's artifacts."""
    url = urlsplit(os.environ[ARTIFACTS_LOCATION])
    return url.netloc, f"{url.path.strip('/')}/{run_id}".lstrip("/")


def _without(file: Path, secret: str) -> bytes:
    content = file.read_bytes()
    return content.replace(secret.encode(), b"*****") if secret else content


def download(aws: Connection, run_id: str, folder: Path, *, needed: str) -> None:
    """Put the artifacts of an earlier run, as far as there are any, into a folder.

    Raises ConfigurationError when the file that is needed is not there, UnreachableError when S3 does not answer.
    """
    if not os.environ.get(ARTIFACTS_LOCATION):
        raise ConfigurationError(f"{ARTIFACTS_LOCATION} is not set: no run has left anything to go on with")
    bucket, prefix = _place(run_id)
    with translated(f"artifacts of run {run_id}"):
        s3 = aws.client("s3")
    for name in STATE:
        content = _get(s3, bucket, f"{prefix}/{name}")
        if content is not None:
            (folder / name).write_bytes(content)
        elif name == needed:
            raise ConfigurationError(f"run {run_id} has left no {name} under s3://{bucket}/{prefix}")


def _get(s3: Any, bucket: str, key: str) -> bytes | None:
    try:
        with translated(f"s3://{bucket}/{key}"):
            content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            return content
    except (FailedError, AccessDeniedError) as error:
        # To a role that may not list the bucket, what is missing is forbidden.
        if error.code in (*_MISSING, "AccessDenied"):
            return None
        raise
