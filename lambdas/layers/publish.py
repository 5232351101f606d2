"""Uploads built artifacts and their bills under the hash of their content, and publishes layers from there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from lambdas.layers.archive import sha256_of
from lambdas.layers.bill import bill_paths
from lambdas.layers.catalogue import ARTIFACTS, FUNCTIONS, Artifact
from lambdas.layers.limits import limit_faults
from lambdas.layers.native import read_target, this_machine
from runtime.aws import Connection, translated
from runtime.errors import ConfigurationError, FailedError

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


@dataclass(frozen=True)
class Version:
    """One layer's version in Lambda and what happened to it."""

    layer: str
    arn: str | None
    """None when it would be published."""
    outcome: str
    """`published`, `there` already, or `would publish`."""

    def to_dict(self) -> dict[str, object]:
        """Return the version for JSON output."""
        return {"layer": self.layer, "arn": self.arn, "outcome": self.outcome}


def publish(
    aws: Connection, bucket: str, artifacts: Sequence[Artifact], *, prefix: str = PREFIX, dry_run: bool = False
) -> list[Upload]:
    """Upload what is not there yet; return every file with its outcome.

    A key holds the hash of the content, so a file of that key and size is not sent again, whoever sent it. Bills go
    first: a zip that is there has its bill there as well. Raises FailedError, before anything is sent, when the
    artifacts are over Lambda's limits, or one is not what was built.
    """
    faults = limit_faults({artifact.name: artifact for artifact in artifacts})
    if faults:
        raise FailedError("nothing was uploaded, for Lambda would not take it: " + "; ".join(faults))
    changed = [artifact.path.name for artifact in artifacts if sha256_of(artifact.path) != artifact.sha256]
    if changed:
        raise FailedError(
            f"nothing was uploaded: {', '.join(changed)} is not what was built",
            hint="delete it and run `goldlake layers build`",
        )
    files = [path for artifact in artifacts for path in (*bill_paths(artifact.path), artifact.path)]
    s3 = aws.client("s3")
    uploads = []
    with translated(f"the upload to s3://{bucket}/{prefix}"):
        for path in files:
            key = _key(prefix, path)
            size = path.stat().st_size
            if _is_there(s3, bucket, key, size if path.suffix != ".zip" else None):
                uploads.append(Upload(key, size, "there"))
                continue
            if not dry_run:
                with path.open("rb") as body:
                    s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=_TYPES[path.suffix])
            uploads.append(Upload(key, size, "would upload" if dry_run else "uploaded"))
    return uploads


def _key(prefix: str, path: Path) -> str:
    return f"{prefix.strip('/')}/{path.name}"


def _is_there(s3: Any, bucket: str, key: str, size: int | None) -> bool:
    try:
        found = s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
            return False
        raise
    # Another zlib compresses the same content to another size: a zip is known by its key alone.
    return size is None or found["ContentLength"] == size


def publish_versions(
    aws: Connection,
    bucket: str,
    artifacts: Sequence[tuple[str, Artifact]],
    *,
    layer_prefix: str,
    prefix: str = PREFIX,
    dry_run: bool = False,
) -> list[Version]:
    """Publish each layer that was uploaded as a version of `<layer prefix>-<layer>`; return every one with its outcome.

    `artifacts` are pairs of target and artifact. A version's description is its zip's name, which holds the hash of
    the content: one with this description is not published again. Lambda does not keep two callers apart, so each
    looks again afterwards, and the one that came second takes its own version back.
    """
    client = aws.client("lambda")
    versions = []
    with translated(f"the publication of the layers {layer_prefix}-*"):
        for target, artifact in artifacts:
            if artifact.name == FUNCTIONS:
                continue
            layer = f"{layer_prefix}-{artifact.name.replace('_', '-')}"
            there = _versions_of(client, layer, artifact)
            if there:
                versions.append(Version(layer, there[0][1], "there"))
            elif dry_run:
                versions.append(Version(layer, None, "would publish"))
            else:
                platform, python_version = read_target(target)
                made = client.publish_layer_version(
                    LayerName=layer,
                    Description=artifact.path.name,
                    Content={"S3Bucket": bucket, "S3Key": _key(prefix, artifact.path)},
                    CompatibleRuntimes=[f"python{python_version}"],
                    CompatibleArchitectures=[platform or this_machine()],
                )
                versions.append(_kept(client, layer, artifact, made))
    return versions


def _kept(client: Any, layer: str, artifact: Artifact, made: dict[str, Any]) -> Version:
    """Return the version that was made, or the older one of the same content, and then ours is taken back."""
    number = int(made["Version"])
    first, arn = min(_versions_of(client, layer, artifact), default=(number, made["LayerVersionArn"]))
    if first >= number:
        return Version(layer, made["LayerVersionArn"], "published")
    client.delete_layer_version(LayerName=layer, VersionNumber=number)
    return Version(layer, arn, "there")


def _versions_of(client: Any, layer: str, artifact: Artifact) -> list[tuple[int, str]]:
    """Return number and ARN of a layer's versions with this content, the oldest first."""
    return sorted(
        (int(found["Version"]), str(found["LayerVersionArn"]))
        for found in _all_versions(client, layer)
        if found.get("Description") == artifact.path.name
    )


def _all_versions(client: Any, layer: str) -> Iterator[dict[str, Any]]:
    try:
        for page in client.get_paginator("list_layer_versions").paginate(LayerName=layer):
            yield from page["LayerVersions"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise


def built(out: Path) -> list[tuple[str, Artifact]]:
    """Return target and artifact of all in a folder. Raises ConfigurationError naming those that are missing."""
    found, missing = [], []
    for name in ARTIFACTS:
        try:
            _input, target, artifact = Artifact.of_stamp(out / f"{name}.json")
        except (OSError, ValueError, KeyError, TypeError):
            missing.append(name)
            continue
        if all(path.is_file() for path in (artifact.path, *bill_paths(artifact.path))):
            found.append((target, artifact))
        else:
            missing.append(name)
    if missing:
        raise ConfigurationError(f"not built in {out}: {', '.join(missing)}", hint="goldlake layers build")
    return found
