"""The state backend on the emulator: each check fails when its hardening is taken away; locks; and the bootstrap."""

from __future__ import annotations

import json
import os
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.bucket import deliver_access_logs, lifecycle_rules
from components.policies import document, tls_only
from local.recording import ACCOUNT, REGION, record
from local.resources.state import STATE
from local.resources.storage import STORAGE
from runtime.aws import Connection
from runtime.errors import ConfigurationError, FailedError
from runtime.state import account_of, check_state, state_bucket
from runtime.state_bootstrap import BootstrapOptions, bootstrap
from runtime.state_locks import clear_lock, list_locks

KINDS = {**STORAGE, **STATE}
HOLDER = {"pid": 7, "username": "ada", "hostname": "laptop", "timestamp": "2026-11-21T11:00:00.5Z"}


@dataclass(frozen=True)
class Backend:
    """A state backend with everything that is checked."""

    aws: Connection
    bucket: str
    logs: str
    table: str
    alias: str

    def client(self, service: str) -> Any:
        return self.aws.client(service)

    def failed(self) -> set[str]:
        """Return the names of the checks that fail."""
        report = check_state(self.aws, self.bucket, lock_table=self.table, key_alias=self.alias)
        return {finding.name for finding in report.findings if not finding.ok}


def harden(aws: Connection, bucket: str, policy: dict[str, Any]) -> None:
    """Make a bucket and harden it by calls to AWS."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=bucket)
    everything = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(everything, True))
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    owner = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=owner)
    rule = {"ID": "old", "Status": "Enabled", "Filter": {}, "NoncurrentVersionExpiration": {"NoncurrentDays": 365}}
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})


@pytest.fixture
def backend(aws: Connection) -> Iterator[Backend]:
    """A hardened backend of this test's own."""
    name = f"state-{uuid.uuid4().hex[:12]}"
    made = Backend(aws, name, f"{name}-logs", f"{name}-locks", f"alias/{name}")
    bucket, logs = (f"arn:aws:s3:::{found}" for found in (made.bucket, made.logs))
    harden(aws, made.logs, document(deliver_access_logs(logs, bucket, account_of(aws))))
    harden(aws, made.bucket, tls_only(bucket))
    target = {"TargetBucket": made.logs, "TargetPrefix": "state/"}
    aws.client("s3").put_bucket_logging(Bucket=made.bucket, BucketLoggingStatus={"LoggingEnabled": target})
    make_table(made)
    kms = aws.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName=made.alias, TargetKeyId=key)
    kms.enable_key_rotation(KeyId=key)
    yield made
    aws.client("dynamodb").update_table(TableName=made.table, DeletionProtectionEnabled=False)
    aws.client("dynamodb").delete_table(TableName=made.table)


def make_table(backend: Backend, key: str = "LockID", **changes: Any) -> None:
    dynamodb = backend.client("dynamodb")
    settings = {"BillingMode": "PAY_PER_REQUEST", "DeletionProtectionEnabled": True, **changes}
    dynamodb.create_table(
        TableName=backend.table,
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        **settings,
    )
    recovery = {"PointInTimeRecoveryEnabled": True}
    dynamodb.update_continuous_backups(TableName=backend.table, PointInTimeRecoverySpecification=recovery)


def make_another_table(backend: Backend, **changes: Any) -> None:
    backend.client("dynamodb").update_table(TableName=backend.table, DeletionProtectionEnabled=False)
    backend.client("dynamodb").delete_table(TableName=backend.table)
    make_table(backend, **changes)


def log_to(backend: Backend, status: dict[str, Any]) -> None:
    backend.client("s3").put_bucket_logging(Bucket=backend.bucket, BucketLoggingStatus=status)


def expire_everything(backend: Backend) -> None:
    rules = [
        {
            "ID": "all",
            "Status": "Enabled",
            "Filter": {},
            "Expiration": {"Days": 1},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 365},
        }
    ]
    backend.client("s3").put_bucket_lifecycle_configuration(
        Bucket=backend.bucket, LifecycleConfiguration={"Rules": rules}
    )


def encrypt_by_a_lost_key(backend: Backend) -> None:
    kms = backend.client("kms")
    lost = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.schedule_key_deletion(KeyId=lost, PendingWindowInDays=7)
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": lost}
    backend.client("s3").put_bucket_encryption(
        Bucket=backend.bucket,
        ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": default}]},
    )


def key_of(backend: Backend) -> str:
    return str(backend.client("kms").describe_key(KeyId=backend.alias)["KeyMetadata"]["KeyId"])


Spoil = Callable[[Backend], Any]
SPOILED: dict[str, tuple[Spoil, set[str]]] = {
    "no block of public access": (
        lambda b: b.client("s3").delete_public_access_block(Bucket=b.bucket),
        {"public-access"},
    ),
    "no bucket policy": (lambda b: b.client("s3").delete_bucket_policy(Bucket=b.bucket), {"tls-only"}),
    "a key that is about to go": (encrypt_by_a_lost_key, {"encryption"}),
    "no versioning": (
        lambda b: b.client("s3").put_bucket_versioning(
            Bucket=b.bucket, VersioningConfiguration={"Status": "Suspended"}
        ),
        {"versioning"},
    ),
    "objects of their writers": (
        lambda b: b.client("s3").put_bucket_ownership_controls(
            Bucket=b.bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
        ),
        {"ownership"},
    ),
    "no lifecycle": (lambda b: b.client("s3").delete_bucket_lifecycle(Bucket=b.bucket), {"old-versions"}),
    "a lifecycle that expires the state": (expire_everything, {"state-kept"}),
    "no access logs": (lambda b: log_to(b, {}), {"access-logs", "log-bucket-private", "log-delivery"}),
    "access logs into the bucket itself": (
        lambda b: log_to(b, {"LoggingEnabled": {"TargetBucket": b.bucket, "TargetPrefix": ""}}),
        {"access-logs", "log-delivery"},
    ),
    "no log bucket": (
        lambda b: b.client("s3").delete_bucket(Bucket=b.logs),
        {"access-logs", "log-bucket-private", "log-delivery"},
    ),
    "a public log bucket": (
        lambda b: b.client("s3").delete_public_access_block(Bucket=b.logs),
        {"log-bucket-private"},
    ),
    "a log bucket that lets no logs in": (
        lambda b: b.client("s3").delete_bucket_policy(Bucket=b.logs),
        {"log-delivery"},
    ),
    "another table key": (lambda b: make_another_table(b, key="Id"), {"lock-table-key"}),
    "a table that is paid by the hour": (
        lambda b: make_another_table(
            b, BillingMode="PROVISIONED", ProvisionedThroughput={"ReadCapacityUnits": 1, "WriteCapacityUnits": 1}
        ),
        {"lock-table-billing"},
    ),
    "no recovery of the table": (
        lambda b: b.client("dynamodb").update_continuous_backups(
            TableName=b.table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}
        ),
        {"lock-table-recovery"},
    ),
    "no protection of the table": (
        lambda b: b.client("dynamodb").update_table(TableName=b.table, DeletionProtectionEnabled=False),
        {"lock-table-protection"},
    ),
    "a disabled key": (lambda b: b.client("kms").disable_key(KeyId=key_of(b)), {"key-enabled"}),
    "no rotation of the key": (lambda b: b.client("kms").disable_key_rotation(KeyId=key_of(b)), {"key-rotation"}),
    "no key": (lambda b: b.client("kms").delete_alias(AliasName=b.alias), {"key-enabled", "key-rotation"}),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_a_hardening_that_is_taken_away_fails_its_check_and_no_other(backend: Backend, spoiled: str) -> None:
    assert backend.failed() == set()
    spoil, names = SPOILED[spoiled]
    spoil(backend)
    assert backend.failed() == names


def test_every_check_has_been_seen_to_fail(backend: Backend) -> None:
    report = check_state(backend.aws, backend.bucket, lock_table=backend.table, key_alias=backend.alias)
    seen = set().union(*(names for _spoil, names in SPOILED.values()))
    # A bucket that is not there fails below.
    assert {finding.name for finding in report.findings} == seen | {"bucket"}


def test_of_a_bucket_table_and_key_that_are_not_there_all_checks_fail(aws: Connection) -> None:
    report = check_state(aws, "never-made", lock_table="never-made", key_alias="alias/never-made")
    assert [finding.ok for finding in report.findings] == [False] * 7
    assert all(finding.detail.startswith("missing: ") for finding in report.findings)
    assert report.exit_code == 1


# --- locks ---


def put_lock(backend: Backend, stack: str, content: Any) -> None:
    key = f".pulumi/locks/organization/goldlake/{stack}/{uuid.uuid4()}.json"
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    backend.client("s3").put_object(Bucket=backend.bucket, Key=key, Body=body)


def test_locks_are_listed_with_their_holders_and_cleared_one_by_one(backend: Backend) -> None:
    assert list_locks(backend.aws, backend.bucket) == []
    put_lock(backend, "dev", HOLDER)
    put_lock(backend, "prod", b"not json")
    dev, prod = list_locks(backend.aws, backend.bucket)
    assert (dev.stack, dev.holder) == ("organization/goldlake/dev", "ada@laptop (pid 7)")
    assert prod.holder.startswith("unreadable")
    assert clear_lock(backend.aws, backend.bucket, dev)
    assert [lock.stack for lock in list_locks(backend.aws, backend.bucket)] == ["organization/goldlake/prod"]


def test_a_lock_that_changed_since_it_was_listed_is_left_alone(backend: Backend) -> None:
    put_lock(backend, "dev", HOLDER)
    (lock,) = list_locks(backend.aws, backend.bucket)
    backend.client("s3").put_object(Bucket=backend.bucket, Key=lock.key, Body=b'{"pid": 8}')
    with pytest.raises(FailedError, match="changed since"):
        clear_lock(backend.aws, backend.bucket, lock)
    assert len(list_locks(backend.aws, backend.bucket)) == 1


def test_the_locks_of_a_bucket_that_is_not_there_are_an_error(aws: Connection) -> None:
    with pytest.raises(FailedError, match="NoSuchBucket"):
        list_locks(aws, "never-made")


# --- what the in-process deployment makes of the components ---


def test_the_in_process_deployment_makes_a_backend_that_passes_every_check(aws: Connection) -> None:
    import pulumi

    from components.state_backend import StateBackend, StateBackendArgs

    name = f"state-{uuid.uuid4().hex[:12]}"

    def program() -> None:
        StateBackend(
            "state",
            StateBackendArgs(
                bucket_name=name,
                log_bucket_name=f"{name}-logs",
                key_alias=name,
                lock_table_name=f"{name}-locks",
                account=ACCOUNT,
                region=REGION,
                tags={"Name": name},
            ),
            pulumi.ResourceOptions(),
        )

    for resource in record(program).resources:
        kind = KINDS.get(resource.type)
        if kind is None:
            assert not resource.custom or resource.type.startswith("aws:kms/"), resource.type
            continue
        # Under the mocks, a bucket's id is made of the resource's name.
        inputs = json.loads(
            json.dumps(resource.inputs).replace('"state-id"', f'"{name}"').replace('"state-logs-id"', f'"{name}-logs"')
        )
        once = kind.apply(aws, inputs, None)
        assert kind.exists(aws, once.id, inputs), resource.name
        assert kind.apply(aws, inputs, once.id) == once
    failed = {finding.name for finding in check_state(aws, name, lock_table=f"{name}-locks").findings if not finding.ok}
    # Its ARN is invented under the mocks, and the policy names it.
    assert failed == {"tls-only"}


def test_what_a_lifecycle_says_is_kept_by_the_emulator(aws: Connection) -> None:
    bucket = f"rules-{uuid.uuid4().hex[:12]}"
    aws.client("s3").create_bucket(Bucket=bucket)
    rules = lifecycle_rules(noncurrent_days=30, intelligent_tiering_days=0, expire_days={"dbt/": 90})
    inputs = {"bucket": bucket, "rules": [camel(rule) for rule in rules]}
    kind = KINDS["aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"]
    assert not kind.exists(aws, bucket, inputs)
    kind.apply(aws, inputs, None)
    kept = aws.client("s3").get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert kept[1]["Transitions"] == [{"Days": 0, "StorageClass": "INTELLIGENT_TIERING"}]
    assert kept[2]["Expiration"] == {"Days": 90}
    assert [rule["ID"] for rule in kept] == ["old-versions", "intelligent-tiering", "expire-dbt"]


def camel(value: Any) -> Any:
    """Return nested inputs with the provider's names."""
    if isinstance(value, dict):
        spelled = {key.split("_")[0] + pascal_words(key.split("_")[1:]): item for key, item in value.items()}
        return {key: camel(item) for key, item in spelled.items()}
    return [camel(item) for item in value] if isinstance(value, list) else value


def pascal_words(words: list[str]) -> str:
    return "".join(word.capitalize() for word in words)


def test_access_logs_are_there_only_when_they_are_on(backend: Backend) -> None:
    kind = KINDS["aws:s3/bucketLogging:BucketLogging"]
    inputs = {"bucket": backend.bucket, "targetBucket": backend.logs, "targetPrefix": "elsewhere/"}
    kind.apply(backend.aws, inputs, None)
    assert kind.exists(backend.aws, backend.bucket, inputs)
    kept = backend.client("s3").get_bucket_logging(Bucket=backend.bucket)["LoggingEnabled"]
    assert (kept["TargetBucket"], kept["TargetPrefix"]) == (backend.logs, "elsewhere/")
    log_to(backend, {})
    assert not kind.exists(backend.aws, backend.bucket, inputs)
    assert not kind.exists(backend.aws, "never-made", inputs)


def test_a_bucket_key_is_kept_with_the_encryption(backend: Backend) -> None:
    default = {"sseAlgorithm": "aws:kms", "kmsMasterKeyId": key_of(backend)}
    inputs = {
        "bucket": backend.bucket,
        "rules": [{"applyServerSideEncryptionByDefault": default, "bucketKeyEnabled": True}],
    }
    kind = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    KINDS[kind].apply(backend.aws, inputs, None)
    answer = backend.client("s3").get_bucket_encryption(Bucket=backend.bucket)
    (rule,) = answer["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["BucketKeyEnabled"] is True
    assert rule["ApplyServerSideEncryptionByDefault"] == pascal_key(default)


def pascal_key(default: dict[str, str]) -> dict[str, str]:
    return {"SSEAlgorithm": default["sseAlgorithm"], "KMSMasterKeyID": default["kmsMasterKeyId"]}


# --- bootstrap, with an engine that only writes down what it is asked ---

SETTING = "goldlake:prefix = 'A'"
FAKE = """#!{python}
import json, os, sys, pathlib
calls = pathlib.Path({calls!r})
here = pathlib.Path.cwd()
names = ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_REGION")
with calls.open("a") as log:
    print(json.dumps([sys.argv[1:], str(here), {{name: os.environ.get(name) for name in names}}]), file=log)
up = calls.with_suffix(".up")
words = sys.argv[1:]
if calls.with_suffix(".broken").exists() and words[0] in ("up", "preview"):
    print("@ updating....")
    print(" +  pulumi:pulumi:Stack goldlake-state create error: 1 setting cannot be used:")
    print("    error: 1 setting cannot be used:")
    print("      - {setting}")
    print("    error: an unhandled error occurred: program exited with non-zero exit code: 1")
    sys.exit(255)
if words[:2] == ["stack", "ls"]:
    stacks = [{{"name": "state", "resourceCount": int(up.read_text())}}] if up.exists() else []
    print(json.dumps(stacks))
elif words[:2] == ["stack", "select"]:
    with (here / "Pulumi.state.yaml").open("a") as file:
        if "encryptionsalt" not in (here / "Pulumi.state.yaml").read_text():
            file.write("encryptionsalt: v1:salt\\n")
elif words[:2] == ["stack", "output"]:
    print(json.dumps({{"state_bucket_name": "made-by-it", "state_key_alias": "alias/made-by-it"}}))
elif words[0] == "up":
    up.write_text("9")
    print("Updating (state):")
    print("@ updating....")
    print("    + 9 created")
elif words[0] == "preview":
    print("Previewing update (state):")
"""


@dataclass
class Engine:
    """The stand-in for `pulumi`, and what it was asked."""

    log: Path

    @property
    def calls(self) -> list[tuple[list[str], str, dict[str, str | None]]]:
        return [tuple(json.loads(line)) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    @property
    def commands(self) -> list[str]:
        return [" ".join(words[:2] if words[0] == "stack" else words[:1]) for words, _folder, _env in self.calls]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Put a `pulumi` on PATH that writes down its arguments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "pulumi"
    program.write_text(FAKE.format(python=sys.executable, calls=str(tmp_path / "calls"), setting=SETTING))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-real-key")
    return Engine(tmp_path / "calls")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a program; nothing in it may change."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text("name: goldlake\nruntime: python\nmain: .\n")
    return folder


OPTIONS = BootstrapOptions(prefix="acme", owner="data", cost_centre="4711")


def test_the_unit_is_deployed_with_a_local_backend_and_the_programs_folder_stays_as_it_is(
    aws: Connection, engine: Engine, project: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    result = bootstrap(aws, project_dir=project, home=tmp_path / "home", options=OPTIONS, say=said.append)
    view = tmp_path / "home" / "state-backend"
    assert engine.commands == ["stack select", "up", "stack output"]
    for words, folder, environment in engine.calls:
        assert folder == str(view)
        assert words[-3:] == ["--non-interactive", "--color", "never"]
        assert environment["PULUMI_BACKEND_URL"] == f"file://{view / 'state'}"
        assert environment["PULUMI_CONFIG_PASSPHRASE"] == ""
        assert environment["AWS_ENDPOINT_URL"] == aws.endpoint_url
        # A key of the user's own never goes to an emulator.
        assert environment["AWS_ACCESS_KEY_ID"] == "test"
    assert [file.name for file in project.iterdir()] == ["Pulumi.yaml"]
    assert yaml.safe_load((view / "Pulumi.yaml").read_text())["main"] == str(project)
    config = yaml.safe_load((view / "Pulumi.state.yaml").read_text())["config"]
    assert config["goldlake:units"] == ["state"]
    assert config["aws:region"] == aws.region
    assert [config[f"goldlake:{key}"] for key in ("prefix", "owner", "costCentre")] == ["acme", "data", "4711"]
    assert said == ["Updating (state):", "    + 9 created"]
    assert (result.outcome, result.bucket, result.exit_code) == ("deployed", "made-by-it", 0)
    endpoint = f"endpoint={aws.endpoint_url}"
    assert result.login == f"pulumi login 's3://made-by-it?region={aws.region}&{endpoint}&use_path_style=true'"
    assert f"'awskms://alias/made-by-it?region={aws.region}&{endpoint}'" in result.stack_init


def test_a_second_time_needs_no_options_and_keeps_salt_and_settings(
    aws: Connection, engine: Engine, project: Path, tmp_path: Path
) -> None:
    bootstrap(aws, project_dir=project, home=tmp_path / "home", options=OPTIONS)
    stack_file = tmp_path / "home" / "state-backend" / "Pulumi.state.yaml"
    before = yaml.safe_load(stack_file.read_text())
    assert before["encryptionsalt"] == "v1:salt"
    again = bootstrap(aws, project_dir=project, home=tmp_path / "home", options=BootstrapOptions(prefix="acme"))
    assert again.outcome == "deployed"
    assert yaml.safe_load(stack_file.read_text()) == before
    assert engine.commands[3:] == ["stack ls", "stack select", "up", "stack output"]


def test_settings_of_the_projects_own_stack_file_are_used(
    aws: Connection, engine: Engine, project: Path, tmp_path: Path
) -> None:
    own = {"goldlake:owner": "theirs", "goldlake:costCentre": "1", "goldlake:stateLockTable": False}
    (project / "Pulumi.state.yaml").write_text(yaml.safe_dump({"config": own}))
    options = BootstrapOptions(prefix="acme", owner="mine")
    bootstrap(aws, project_dir=project, home=tmp_path / "home", options=options)
    config = yaml.safe_load((tmp_path / "home" / "state-backend" / "Pulumi.state.yaml").read_text())["config"]
    assert config["goldlake:stateLockTable"] is False
    assert (config["goldlake:owner"], config["goldlake:costCentre"]) == ("mine", "1")
    assert yaml.safe_load((project / "Pulumi.state.yaml").read_text()) == {"config": own}
    assert engine.commands[0] == "stack select"


def test_a_dry_run_previews(aws: Connection, engine: Engine, project: Path, tmp_path: Path) -> None:
    options = BootstrapOptions(prefix="acme", owner="data", cost_centre="4711", dry_run=True)
    result = bootstrap(aws, project_dir=project, home=tmp_path / "home", options=options)
    assert engine.commands == ["stack select", "preview"]
    assert (result.outcome, result.bucket) == ("previewed", state_bucket(aws, "acme"))


def test_a_bucket_that_this_folder_did_not_make_is_checked_and_left_alone(
    aws: Connection, engine: Engine, project: Path, tmp_path: Path
) -> None:
    prefix = f"p{uuid.uuid4().hex[:8]}"
    aws.client("s3").create_bucket(Bucket=state_bucket(aws, prefix))
    options = BootstrapOptions(prefix=prefix, owner="data", cost_centre="4711")
    said: list[str] = []
    result = bootstrap(aws, project_dir=project, home=tmp_path / "home", options=options, say=said.append)
    assert engine.calls == []
    assert (result.outcome, result.bucket, result.exit_code) == ("found", state_bucket(aws, prefix), 1)
    assert "nothing is created" in said[0]


def test_a_first_run_that_made_nothing_does_not_make_the_bucket_ours(
    aws: Connection, engine: Engine, project: Path, tmp_path: Path
) -> None:
    prefix = f"p{uuid.uuid4().hex[:8]}"
    options = BootstrapOptions(prefix=prefix, owner="data", cost_centre="4711")
    bootstrap(aws, project_dir=project, home=tmp_path / "home", options=options)
    # The program was refused: the stack itself is all that the engine keeps. Somebody else made the bucket since.
    engine.log.with_suffix(".up").write_text("1")
    aws.client("s3").create_bucket(Bucket=state_bucket(aws, prefix))
    again = bootstrap(aws, project_dir=project, home=tmp_path / "home", options=options)
    assert again.outcome == "found"
    assert engine.commands[3:] == ["stack ls"]


def test_the_engines_own_words_are_the_error(aws: Connection, engine: Engine, project: Path, tmp_path: Path) -> None:
    engine.log.with_suffix(".broken").touch()
    with pytest.raises(FailedError, match=f"255: error: 1 setting cannot be used:; - {SETTING}$"):
        bootstrap(aws, project_dir=project, home=tmp_path / "home", options=OPTIONS)


def test_nothing_is_started_without_the_settings_that_are_tags(
    aws: Connection, engine: Engine, project: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="--owner"):
        bootstrap(aws, project_dir=project, home=tmp_path / "home", options=BootstrapOptions(prefix="acme"))
    assert engine.calls == []
