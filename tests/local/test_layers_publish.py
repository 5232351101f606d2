"""Layers are uploaded and published once, whoever does it, however often, and whatever ends it in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lambdas.layers.archive import content_digest, write_zip
from lambdas.layers.bill import bill_paths, write_bill
from lambdas.layers.catalogue import ARTIFACTS, FUNCTIONS, MAX_UNZIPPED_BYTES, Artifact
from lambdas.layers.publish import built
from runtime.aws import Connection
from tests.local.support import REPOSITORY

GOLDLAKE = str(Path(sys.prefix) / "bin" / "goldlake")
# Ends itself, as a machine that is switched off, at the first call of an operation after so many have been made.
KILLED = """
import os, signal, sys
from botocore.client import BaseClient
from lambdas.cli import layers
operation, left = sys.argv[1], int(sys.argv[2])
call = BaseClient._make_api_call
def counting(client, name, arguments):
    global left
    if name == operation:
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
    return call(client, name, arguments)
BaseClient._make_api_call = counting
layers(["publish", *sys.argv[3:]], standalone_mode=False)
"""


def write_build(out: Path, **texts: str) -> Path:
    """Write a build of small artifacts, as build_all leaves it."""
    out.mkdir()
    for name in ARTIFACTS:
        content = out / f"{name}-root" / "python"
        metadata = content / f"{name}-1.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Name: {name}\nVersion: 1\n")
        (content / "a.py").write_text(texts.get(name, ""))
        meaning = content_digest(content.parent)
        path = out / f"{name}-{meaning[:16]}.zip"
        digest = write_zip(content.parent, path)
        write_bill(name, content, meaning, None, path)
        size = path.stat().st_size
        record(out, Artifact(name, path, digest, size, size, reused=False, content=meaning))
    return out


def record(out: Path, artifact: Artifact) -> None:
    stamp = {"key": "k", "target": "arm64, Python 3.13", **artifact.to_dict()}
    (out / f"{artifact.name}.json").write_text(json.dumps(stamp))


@dataclass(frozen=True)
class Account:
    """A bucket, a prefix for the names of layers, and a build that may be published there."""

    aws: Connection
    bucket: str
    prefix: str
    out: Path

    @property
    def arguments(self) -> list[str]:
        return ["--bucket", self.bucket, "--versions", self.prefix, "--out", str(self.out), "--output", "json"]

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ | {"AWS_ENDPOINT_URL": str(self.aws.endpoint_url), "AWS_REGION": "us-east-1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def publish(self, *more: str, code: int = 0) -> dict[str, Any]:
        """Publish by the command; return its report, or what it said when it is to fail."""
        done = self.start(GOLDLAKE, "layers", "publish", *self.arguments, *more)
        out, said = done.communicate(timeout=120)
        assert done.returncode == code, said
        assert "Traceback" not in said
        return json.loads(out) if code == 0 else {"said": said}

    def killed_at(self, operation: str, after: int) -> None:
        """Publish by a process that ends itself at a call of an operation."""
        done = self.start(sys.executable, "-c", KILLED, operation, str(after), *self.arguments)
        _out, said = done.communicate(timeout=120)
        assert done.returncode == -signal.SIGKILL, said

    def stored(self) -> set[str]:
        listed = self.aws.client("s3").list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {str(item["Key"]) for item in listed}

    def versions(self) -> dict[str, list[str]]:
        """Return the descriptions of each layer's versions, the newest first."""
        client = self.aws.client("lambda")
        names = [f"{self.prefix}-{name.replace('_', '-')}" for name in ARTIFACTS if name != FUNCTIONS]
        listed = {name: client.list_layer_versions(LayerName=name)["LayerVersions"] for name in names}
        return {name: [str(found["Description"]) for found in versions] for name, versions in listed.items()}

    def wanted_keys(self) -> set[str]:
        artifacts = [found for _target, found in built(self.out)]
        return {
            f"artifacts/layers/{path.name}" for found in artifacts for path in (found.path, *bill_paths(found.path))
        }

    def wanted_versions(self) -> dict[str, list[str]]:
        return {
            f"{self.prefix}-{found.name.replace('_', '-')}": [found.path.name]
            for _target, found in built(self.out)
            if found.name != FUNCTIONS
        }


@pytest.fixture
def account(aws: Connection, tmp_path: Path) -> Account:
    mark = uuid.uuid4().hex[:8]
    aws.client("s3").create_bucket(Bucket=f"artifacts-{mark}")
    return Account(aws, f"artifacts-{mark}", f"shop-{mark}", write_build(tmp_path / "out"))


def outcomes(report: dict[str, Any]) -> tuple[set[str], set[str]]:
    return {item["outcome"] for item in report["uploads"]}, {item["outcome"] for item in report["versions"]}


def test_a_second_publication_changes_nothing_and_a_dry_run_neither(account: Account) -> None:
    assert outcomes(account.publish("--dry-run")) == ({"would upload"}, {"would publish"})
    assert (account.stored(), set(map(len, account.versions().values()))) == (set(), {0})
    first = account.publish()
    assert outcomes(first) == ({"uploaded"}, {"published"})
    assert (account.stored(), account.versions()) == (account.wanted_keys(), account.wanted_versions())
    second = account.publish()
    assert outcomes(second) == ({"there"}, {"there"})
    assert [item["arn"] for item in second["versions"]] == [item["arn"] for item in first["versions"]]
    assert outcomes(account.publish("--dry-run")) == ({"there"}, {"there"})
    assert (account.stored(), account.versions()) == (account.wanted_keys(), account.wanted_versions())


def test_a_published_version_holds_the_zip_and_says_for_what_it_is(account: Account) -> None:
    report = account.publish()
    client = account.aws.client("lambda")
    arn = next(item["arn"] for item in report["versions"] if item["layer"].endswith("-dbt-redshift"))
    found = client.get_layer_version_by_arn(Arn=arn)
    assert found["CompatibleRuntimes"] == ["python3.13"]
    artifact = next(artifact for _target, artifact in built(account.out) if artifact.name == "dbt_redshift")
    assert found["Content"]["CodeSize"] == artifact.zipped
    key = f"artifacts/layers/{artifact.path.name}"
    body = account.aws.client("s3").get_object(Bucket=account.bucket, Key=key)["Body"].read()
    assert body == artifact.path.read_bytes()


def test_only_the_layer_that_has_changed_gets_another_version(account: Account, tmp_path: Path) -> None:
    before = account.publish()
    changed = replace(account, out=write_build(tmp_path / "changed", dbt_project="x = 1"))
    after = changed.publish()
    new = [item["layer"] for item in after["versions"] if item["outcome"] == "published"]
    assert new == [f"{account.prefix}-dbt-project"]
    assert [item["outcome"] for item in after["uploads"]].count("uploaded") == 3
    # What was there first is still there, and is found again by those who go back.
    assert account.publish()["versions"] == [{**item, "outcome": "there"} for item in before["versions"]]


@pytest.mark.parametrize(
    ("operation", "after"),
    [("PutObject", 0), ("PutObject", 4), ("PublishLayerVersion", 0), ("PublishLayerVersion", 2)],
)
def test_a_publication_that_was_killed_is_ended_by_the_next(account: Account, operation: str, after: int) -> None:
    account.killed_at(operation, after)
    if operation == "PutObject":
        assert len(account.stored()) == after
        # Where a zip is, its bill and its licences are.
        zips = [key for key in account.stored() if key.endswith(".zip")]
        assert all(f"{key.removesuffix('.zip')}.cdx.json" in account.stored() for key in zips)
    else:
        assert account.stored() == account.wanted_keys()
    assert sum(map(len, account.versions().values())) == (after if operation == "PublishLayerVersion" else 0)
    account.publish()
    assert (account.stored(), account.versions()) == (account.wanted_keys(), account.wanted_versions())


def test_two_publications_at_once_leave_one_version_of_each_layer(account: Account) -> None:
    both = [account.start(GOLDLAKE, "layers", "publish", *account.arguments) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    reports = [json.loads(out) for out, _ in said]
    assert (account.stored(), account.versions()) == (account.wanted_keys(), account.wanted_versions())
    arns = [[item["arn"] for item in report["versions"]] for report in reports]
    assert arns[0] == arns[1]


def test_a_version_that_came_second_is_taken_back(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, with both between looking and publishing."""
    from lambdas.layers import publish as module

    artifacts = built(account.out)
    module.publish(account.aws, account.bucket, [artifact for _target, artifact in artifacts])
    first = module.publish_versions(account.aws, account.bucket, artifacts, layer_prefix=account.prefix)
    look, looks = module._versions_of, list[str]()

    def blind_at_first(client: Any, layer: str, artifact: Artifact) -> list[tuple[int, str]]:
        looks.append(layer)
        return look(client, layer, artifact) if looks.count(layer) > 1 else []

    monkeypatch.setattr(module, "_versions_of", blind_at_first)
    second = module.publish_versions(account.aws, account.bucket, artifacts, layer_prefix=account.prefix)
    assert [found.arn for found in second] == [found.arn for found in first]
    assert {found.outcome for found in second} == {"there"}
    assert account.versions() == account.wanted_versions()


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("delta", {"unzipped": MAX_UNZIPPED_BYTES}, "Lambda allows 262,144,000 for code and layers together"),
        (FUNCTIONS, {"zipped": 52_428_801}, "Lambda takes 52,428,800 directly"),
    ],
)
def test_what_lambda_would_not_take_is_not_uploaded(
    account: Account, name: str, changed: dict[str, Any], said: str
) -> None:
    (artifact,) = [found for _target, found in built(account.out) if found.name == name]
    record(account.out, replace(artifact, **changed))
    assert said in account.publish(code=1)["said"]
    assert account.stored() == set()


def test_a_bucket_that_is_not_there_and_a_name_that_cannot_be_are_refused(account: Account) -> None:
    missing = replace(account, bucket="not-there-at-all")
    assert "s3://not-there-at-all/artifacts/layers" in missing.publish(code=1)["said"]
    assert "letters, digits, dashes" in replace(account, prefix="no/slash").publish(code=64)["said"]
    assert set(map(len, account.versions().values())) == {0}


def test_a_zip_that_was_changed_after_the_build_is_not_published(account: Account) -> None:
    """Its name would say that it is something else."""
    (artifact,) = [found for _target, found in built(account.out) if found.name == "delta"]
    with zipfile.ZipFile(artifact.path, "a") as archive:
        archive.writestr("python/b.py", "")
    assert f"{artifact.path.name} is not what was built" in account.publish(code=1)["said"]
    assert account.stored() == set()
