"""The state backend's checks and locks: what counts as hardened, and that only a listed lock is deleted."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from components.naming import Names
from runtime import state as backend
from runtime.aws import Connection
from runtime.errors import AccessDeniedError, ConfigurationError, FailedError, UnreachableError
from runtime.state import Finding, StateReport, check_state, existing_table, state_bucket
from runtime.state_bootstrap import BootstrapOptions, bootstrap
from runtime.state_cli import state as state_group
from runtime.state_locks import clear_lock, list_locks

ACCOUNT = "123456789012"
AWS = Connection(None, "eu-west-1")
BUCKET = "goldlake-state"
LOGS = "goldlake-state-logs"
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
LOCK = ".pulumi/locks/organization/goldlake/dev/abc.json"
HOLDER = {"pid": 7, "username": "ada", "hostname": "laptop", "timestamp": "2026-11-21T11:00:00.123456789+00:00"}
PUBLIC = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True}
ARN = f"arn:aws:s3:::{BUCKET}"
DENY: dict[str, Any] = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:*",
    "Resource": [ARN, f"{ARN}/*"],
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}
DELIVER = {"Effect": "Allow", "Principal": {"Service": backend.LOG_DELIVERY}, "Action": "s3:PutObject"}


def refusal(code: str, operation: str = "Something") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": f"it is {code}"}}, operation)


def as_policy(*statements: Any) -> dict[str, str]:
    return {"Policy": json.dumps({"Statement": list(statements)})}


def hardened() -> dict[str, Any]:
    """Return what AWS answers for a backend with nothing to find fault with: call (and bucket) -> answer."""
    rule = {"ID": "old", "Status": "Enabled", "Filter": {}, "NoncurrentVersionExpiration": {"NoncurrentDays": 365}}
    return {
        "get_caller_identity": {"Account": ACCOUNT},
        "head_bucket": {},
        "get_public_access_block": {"PublicAccessBlockConfiguration": PUBLIC},
        "get_bucket_policy": as_policy({**DENY, "Resource": "*"}),
        f"get_bucket_policy {LOGS}": as_policy(DELIVER),
        "get_bucket_encryption": {
            "ServerSideEncryptionConfiguration": {
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
            }
        },
        "get_bucket_versioning": {"Status": "Enabled"},
        "get_bucket_ownership_controls": {"OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}},
        "get_bucket_lifecycle_configuration": {"Rules": [rule]},
        "get_bucket_logging": {"LoggingEnabled": {"TargetBucket": LOGS, "TargetPrefix": "state/"}},
        "describe_table": {
            "Table": {
                "KeySchema": [{"AttributeName": "LockID", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "LockID", "AttributeType": "S"}],
                "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
                "DeletionProtectionEnabled": True,
            }
        },
        "describe_continuous_backups": {
            "ContinuousBackupsDescription": {"PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "ENABLED"}}
        },
        "describe_key": {"KeyMetadata": {"KeyId": "key-id", "KeyState": "Enabled"}},
        "get_key_rotation_status": {"KeyRotationEnabled": True},
    }


@dataclass
class Account:
    """An AWS account that answers from a dictionary, with a bucket of objects: key -> (body, ETag)."""

    answers: dict[str, Any] = field(default_factory=hardened)
    objects: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        def call(**arguments: Any) -> Any:
            self.calls.append((name, arguments))
            answer = self.answers.get(f"{name} {arguments.get('Bucket')}", self.answers.get(name))
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def get_paginator(self, _name: str) -> Account:
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> list[dict[str, Any]]:  # noqa: N803 - AWS spells it so
        assert Bucket
        keys = [key for key in self.objects if key.startswith(Prefix)]
        return [{"Contents": [{"Key": key}]} for key in keys] or [{}]

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        assert Bucket
        if Key not in self.objects:
            raise refusal("NoSuchKey")
        body, etag = self.objects[Key]
        return {"Body": io.BytesIO(body), "ETag": etag, "LastModified": NOW - timedelta(hours=2)}

    def delete_object(self, *, Bucket: str, Key: str, IfMatch: str) -> None:  # noqa: N803
        assert Bucket
        if Key not in self.objects:
            raise refusal("NoSuchKey")
        if self.objects[Key][1] != IfMatch:
            raise refusal("PreconditionFailed")
        del self.objects[Key]


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    """Return the account that every connection leads to."""
    fake = Account()
    monkeypatch.setattr(Connection, "client", lambda _self, _service: fake)
    return fake


def checked(**options: Any) -> dict[str, Finding]:
    names = {"lock_table": "goldlake-locks", "key_alias": "alias/goldlake-pulumi", **options}
    return {finding.name: finding for finding in check_state(AWS, BUCKET, **names).findings}


def failed() -> set[str]:
    return {name for name, finding in checked().items() if not finding.ok}


# --- check ---


@pytest.mark.usefixtures("account")
def test_a_hardened_backend_passes_every_check() -> None:
    report = check_state(AWS, BUCKET, lock_table="goldlake-locks", key_alias="alias/goldlake-pulumi")
    assert report.ok
    assert (report.exit_code, len(report.findings)) == (0, 17)
    assert report.summary == f"17 of 17 checks of {BUCKET} passed"


def with_rule(**changes: Any) -> dict[str, Any]:
    rule = {"ID": "r", "Status": "Enabled", "Filter": {"Prefix": ""}, **changes}
    return {"Rules": [{key: value for key, value in rule.items() if value is not None}]}


KEPT = {"NoncurrentDays": 365}


@pytest.mark.parametrize(
    ("call", "answer", "names"),
    [
        (
            f"get_public_access_block {BUCKET}",
            {"PublicAccessBlockConfiguration": {**PUBLIC, "BlockPublicPolicy": False}},
            {"public-access"},
        ),
        (f"get_public_access_block {LOGS}", {"PublicAccessBlockConfiguration": {}}, {"log-bucket-private"}),
        (f"get_bucket_policy {BUCKET}", as_policy({**DENY, "Effect": "Allow"}), {"tls-only"}),
        (f"get_bucket_policy {BUCKET}", {"Policy": "{"}, {"tls-only"}),
        ("get_bucket_versioning", {}, {"versioning"}),
        ("get_bucket_versioning", {"Status": "Suspended"}, {"versioning"}),
        (
            "get_bucket_ownership_controls",
            {"OwnershipControls": {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}},
            {"ownership"},
        ),
        ("get_bucket_lifecycle_configuration", {"Rules": []}, {"old-versions"}),
        (
            "get_bucket_lifecycle_configuration",
            with_rule(NoncurrentVersionExpiration={"NoncurrentDays": 29}),
            {"old-versions"},
        ),
        (
            "get_bucket_lifecycle_configuration",
            with_rule(NoncurrentVersionExpiration=KEPT, Status="Disabled"),
            {"old-versions"},
        ),
        (
            "get_bucket_lifecycle_configuration",
            with_rule(NoncurrentVersionExpiration=KEPT, Filter={"Prefix": "some/"}),
            {"old-versions"},
        ),
        (
            "get_bucket_lifecycle_configuration",
            with_rule(NoncurrentVersionExpiration=KEPT, Filter={"And": {"Prefix": "", "ObjectSizeLessThan": 9}}),
            {"old-versions"},
        ),
        (
            "get_bucket_lifecycle_configuration",
            with_rule(NoncurrentVersionExpiration=KEPT, Expiration={"Days": 30}),
            {"state-kept"},
        ),
        ("get_bucket_logging", {}, {"access-logs", "log-bucket-private", "log-delivery"}),
        ("get_bucket_logging", {"LoggingEnabled": {"TargetBucket": BUCKET}}, {"access-logs", "log-delivery"}),
        (f"head_bucket {LOGS}", refusal("404"), {"access-logs"}),
        (f"get_bucket_policy {LOGS}", as_policy(DENY), {"log-delivery"}),
        (f"get_bucket_policy {LOGS}", refusal("NoSuchBucketPolicy"), {"log-delivery"}),
        (
            "describe_continuous_backups",
            {"ContinuousBackupsDescription": {"ContinuousBackupsStatus": "ENABLED"}},
            {"lock-table-recovery"},
        ),
        ("describe_key", {"KeyMetadata": {"KeyId": "k", "KeyState": "PendingDeletion"}}, {"key-enabled"}),
        ("get_key_rotation_status", {"KeyRotationEnabled": False}, {"key-rotation"}),
    ],
)
def test_a_hardening_that_is_missing_fails_its_own_check(
    account: Account, call: str, answer: Any, names: set[str]
) -> None:
    account.answers[call] = answer
    assert failed() == names


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"KeySchema": [{"AttributeName": "Id", "KeyType": "HASH"}]}, "lock-table-key"),
        ({"AttributeDefinitions": [{"AttributeName": "LockID", "AttributeType": "N"}]}, "lock-table-key"),
        ({"BillingModeSummary": {"BillingMode": "PROVISIONED"}}, "lock-table-billing"),
        ({"BillingModeSummary": None}, "lock-table-billing"),
        ({"DeletionProtectionEnabled": False}, "lock-table-protection"),
    ],
)
def test_a_lock_table_of_another_kind_fails(account: Account, changes: dict[str, Any], name: str) -> None:
    account.answers["describe_table"]["Table"].update(changes)
    assert failed() == {name}


@pytest.mark.parametrize(
    "changes",
    [
        {"Condition": {}},
        {"Condition": {"Bool": {"aws:SecureTransport": "true"}}},
        {"Condition": {"Bool": {"aws:SecureTransport": "false"}, "StringEquals": {"aws:PrincipalAccount": "1"}}},
        {"Condition": {"Bool": {"aws:SecureTransport": "false", "aws:ViaAWSService": "false"}}},
        {"Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}},
        {"Action": ["s3:GetObject"]},
        {"Resource": ARN},
        {"Resource": f"{ARN}/*"},
        {"Resource": ["arn:aws:s3:::another", "arn:aws:s3:::another/*"]},
    ],
)
def test_a_policy_that_lets_some_plain_http_through_does_not_count(changes: dict[str, Any]) -> None:
    assert not backend.judge_tls(as_policy({**DENY, **changes}), BUCKET)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"Principal": {"AWS": "*"}},
        {"Action": ["s3:*"]},
        {"Resource": f"{ARN}*"},
        {"Condition": {"Bool": {"aws:SecureTransport": ["false"]}}},
    ],
)
def test_a_refusal_of_plain_http_counts_in_each_spelling(changes: dict[str, Any]) -> None:
    assert backend.judge_tls({"Policy": json.dumps({"Statement": {**DENY, **changes}})}, BUCKET)[0]


def test_encryption_by_a_key_that_cannot_be_used_fails(account: Account) -> None:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "key"}}
    account.answers["get_bucket_encryption"] = {"ServerSideEncryptionConfiguration": {"Rules": [rule]}}
    assert failed() == set()
    account.answers["describe_key"] = {"KeyMetadata": {"KeyId": "key", "KeyState": "Disabled"}}
    assert failed() == {"encryption", "key-enabled"}


@pytest.mark.parametrize("prefix", ["", ".pulumi/", ".pulumi/stacks/", ".pul"])
def test_a_rule_that_expires_current_state_fails_whatever_its_prefix(prefix: str) -> None:
    rules = with_rule(Filter={"Prefix": prefix}, Expiration={"Days": 365})
    assert not backend.judge_state_kept(rules)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 1}},
        {"Expiration": {"ExpiredObjectDeleteMarker": True}},
        {"Status": "Disabled", "Expiration": {"Days": 1}},
    ],
)
def test_a_rule_that_leaves_current_state_alone_passes(changes: dict[str, Any]) -> None:
    assert backend.judge_state_kept(with_rule(**changes))[0]


def test_a_rule_in_the_old_spelling_without_a_filter_counts() -> None:
    rules = with_rule(Filter=None, Prefix="", NoncurrentVersionExpiration={"NoncurrentDays": 90})
    assert backend.judge_old_versions(rules)[0]


@pytest.mark.parametrize("code", ["AccessDenied", "AccessDeniedException", "NoSuchPublicAccessBlockConfiguration"])
def test_what_is_forbidden_or_missing_has_failed_and_says_so(account: Account, code: str) -> None:
    account.answers[f"get_public_access_block {BUCKET}"] = refusal(code)
    finding = checked()["public-access"]
    assert not finding.ok
    assert finding.detail.startswith("forbidden: " if "Denied" in code else "missing: ")
    assert code in finding.detail


def test_of_a_bucket_that_is_not_there_nothing_else_is_said(account: Account) -> None:
    account.answers["head_bucket"] = refusal("404")
    report = check_state(AWS, BUCKET)
    assert [(finding.name, finding.ok) for finding in report.findings] == [("bucket", False)]
    assert (report.exit_code, report.ok) == (1, False)
    assert "does not exist" in report.findings[0].detail


def test_a_bucket_of_another_account_fails(account: Account) -> None:
    account.answers["head_bucket"] = refusal("403")
    assert not checked()["bucket"].ok
    assert ("head_bucket", {"Bucket": BUCKET, "ExpectedBucketOwner": ACCOUNT}) in account.calls


@pytest.mark.parametrize("call", ["get_caller_identity", "get_bucket_versioning"])
def test_an_aws_that_does_not_answer_is_unreachable(account: Account, call: str) -> None:
    account.answers[call] = EndpointConnectionError(endpoint_url="https://s3")
    with pytest.raises(UnreachableError):
        checked()


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidClientTokenId"])
def test_credentials_that_are_not_accepted_are_no_failed_check(account: Account, code: str) -> None:
    account.answers["get_bucket_versioning"] = refusal(code)
    with pytest.raises(AccessDeniedError):
        checked()


def test_rotation_is_asked_for_by_the_keys_id(account: Account) -> None:
    checked()
    assert ("get_key_rotation_status", {"KeyId": "key-id"}) in account.calls


def test_table_and_key_are_checked_when_they_are_named_only(account: Account) -> None:
    assert not {name for name in checked(lock_table=None, key_alias="") if name.startswith(("lock-table", "key"))}
    assert "describe_table" not in {name for name, _arguments in account.calls}


@given(st.lists(st.booleans()))
def test_one_failed_check_fails_the_report(verdicts: list[bool]) -> None:
    findings = tuple(Finding(f"check-{index}", ok, "why") for index, ok in enumerate(verdicts))
    report = StateReport(BUCKET, NOW, findings)
    assert report.ok == (report.exit_code == 0) == all(verdicts)
    result = json.loads(json.dumps(report.to_dict()))
    assert (result["schema"], result["exit_code"]) == ("goldlake.state-check/1", report.exit_code)
    assert [finding["ok"] for finding in result["findings"]] == verdicts
    assert report.summary.count("check-") == verdicts.count(False)


def test_the_bucket_has_the_name_that_the_program_gives_it(account: Account) -> None:
    names = Names(prefix="acme", stack="s", unit="state", environment="e", owner="o", cost_centre="c")
    assert state_bucket(AWS, "acme") == names.bucket("state", ACCOUNT, "eu-west-1")
    assert account.calls == [("get_caller_identity", {})]


def test_a_table_that_may_not_be_looked_at_is_taken_for_there(account: Account) -> None:
    assert existing_table(AWS, "locks") == "locks"
    account.answers["describe_table"] = refusal("AccessDeniedException")
    assert existing_table(AWS, "locks") == "locks"
    account.answers["describe_table"] = refusal("ResourceNotFoundException")
    assert existing_table(AWS, "locks") is None


# --- locks ---


def test_a_lock_says_who_holds_which_stack_since_when(account: Account) -> None:
    account.objects[LOCK] = (json.dumps(HOLDER).encode(), '"1"')
    (lock,) = list_locks(AWS, BUCKET, now=NOW)
    assert (lock.stack, lock.holder) == ("organization/goldlake/dev", "ada@laptop (pid 7)")
    assert lock.since == datetime(2026, 11, 21, 11, 0, 0, 123456, tzinfo=UTC)
    assert lock.age_seconds == 3599
    assert lock.to_dict()["since"] == "2026-11-21T11:00:00.123456+00:00"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"{}", b'{"pid": 1}', b"\xff", b"7"])
def test_a_lock_that_cannot_be_read_is_listed_with_the_objects_time(account: Account, body: bytes) -> None:
    account.objects[LOCK] = (body, '"1"')
    (lock,) = list_locks(AWS, BUCKET, now=NOW)
    assert lock.holder.startswith("unreadable")
    assert (lock.stack, lock.age_seconds) == ("organization/goldlake/dev", 7200)


def test_a_time_without_a_zone_and_one_ahead_of_ours_do_no_harm(account: Account) -> None:
    ahead = {**HOLDER, "timestamp": "2026-11-21T13:00:00"}
    account.objects[LOCK] = (json.dumps(ahead).encode(), '"1"')
    (lock,) = list_locks(AWS, BUCKET, now=NOW)
    assert lock.age_seconds == 0


def test_locks_are_listed_by_stack_and_other_objects_are_not(account: Account) -> None:
    content = (json.dumps(HOLDER).encode(), '"1"')
    account.objects = {
        ".pulumi/locks/organization/goldlake/prod/b.json": content,
        LOCK: content,
        ".pulumi/locks/old/c.json": content,
        ".pulumi/locks/": content,
        ".pulumi/stacks/goldlake/dev.json": content,
    }
    stacks = [lock.stack for lock in list_locks(AWS, BUCKET, now=NOW)]
    assert stacks == ["old", "organization/goldlake/dev", "organization/goldlake/prod"]


def test_a_lock_that_was_released_while_they_were_listed_is_left_out(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Account, "paginate", lambda _self, **_options: [{"Contents": [{"Key": LOCK}]}])
    assert account.objects == {}
    assert list_locks(AWS, BUCKET) == []


def test_a_listed_lock_is_deleted_and_one_that_is_gone_is_no_failure(account: Account) -> None:
    account.objects[LOCK] = (json.dumps(HOLDER).encode(), '"1"')
    (lock,) = list_locks(AWS, BUCKET)
    assert clear_lock(AWS, BUCKET, lock) is True
    assert account.objects == {}
    assert clear_lock(AWS, BUCKET, lock) is False


def test_a_lock_that_changed_since_it_was_listed_is_left_alone(account: Account) -> None:
    account.objects[LOCK] = (json.dumps(HOLDER).encode(), '"1"')
    (lock,) = list_locks(AWS, BUCKET)
    account.objects[LOCK] = (b"another", '"2"')
    with pytest.raises(FailedError, match="changed since it was listed"):
        clear_lock(AWS, BUCKET, lock)
    assert account.objects[LOCK] == (b"another", '"2"')


# --- the commands ---


def run(*arguments: str) -> int:
    """Run `goldlake state …` and return its exit code."""
    code = state_group.main([*arguments, "--region", "eu-west-1"], prog_name="goldlake state", standalone_mode=False)
    return int(code or 0)


def test_check_exits_1_and_names_what_failed(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    account.answers["get_bucket_versioning"] = {}
    assert run("check", "--output", "json") == 1
    said = capsys.readouterr()
    assert said.err == ""
    assert [f["name"] for f in json.loads(said.out)["findings"] if not f["ok"]] == ["versioning"]
    assert run("check") == 1
    said = capsys.readouterr()
    assert "never enabled" in said.out
    assert "failed: versioning" in said.err


@pytest.mark.usefixtures("account")
def test_check_finds_bucket_table_and_key_by_the_prefix_and_an_empty_name_leaves_one_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("check", "--prefix", "acme", "--output", "json")
    whole = json.loads(capsys.readouterr().out)
    assert whole["bucket"] == f"acme-state-{ACCOUNT}-eu-west-1"
    run("check", "--bucket", "other", "--lock-table", "", "--key-alias", "", "--output", "json")
    part = json.loads(capsys.readouterr().out)
    assert part["bucket"] == "other"
    assert len(whole["findings"]) - len(part["findings"]) == 6


@pytest.fixture
def two_locks(account: Account) -> Account:
    """Return an account with locks of the stacks dev and prod."""
    content = (json.dumps(HOLDER).encode(), '"1"')
    account.objects = {LOCK: content, ".pulumi/locks/organization/goldlake/prod/x.json": content}
    return account


def test_locks_are_shown_and_kept(two_locks: Account, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("locks") == 0
    said = capsys.readouterr()
    assert said.out.count("ada@laptop (pid 7)") == 2
    assert said.err.startswith("2 locks in goldlake-state-")
    assert len(two_locks.objects) == 2


@pytest.mark.parametrize("stack", ["dev", "goldlake/dev", "organization/goldlake/dev"])
def test_only_the_locks_of_the_named_stack_are_cleared(
    two_locks: Account, capsys: pytest.CaptureFixture[str], stack: str
) -> None:
    assert run("locks", "--stack", stack, "--clear", "--yes", "--output", "json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["schema"], result["cleared"]) == ("goldlake.state-locks/1", [LOCK])
    assert set(two_locks.objects) == {".pulumi/locks/organization/goldlake/prod/x.json"}


def test_clearing_without_anyone_to_ask_is_a_usage_error(two_locks: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(ConfigurationError, match="nobody to ask") as caught:
        run("locks", "--clear")
    assert caught.value.exit_code == 64
    assert caught.value.hint == "goldlake state locks --clear --yes"
    assert len(two_locks.objects) == 2


class Terminal(io.StringIO):
    """A standard input with a person behind it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 2), ("\n", 2)])
def test_clearing_asks_first(two_locks: Account, monkeypatch: pytest.MonkeyPatch, answer: str, left: int) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    if left:
        with pytest.raises(click.Abort):
            run("locks", "--clear")
    else:
        run("locks", "--clear")
    assert len(two_locks.objects) == left


def test_a_dry_run_clears_nothing(two_locks: Account) -> None:
    run("locks", "--clear", "--yes", "--dry-run")
    assert len(two_locks.objects) == 2


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (90061, "1 d 1 h")]
)
def test_an_age_is_shown_in_its_two_largest_units(seconds: int, shown: str) -> None:
    from runtime.state_cli import _age

    assert _age(seconds) == shown


# --- bootstrap, as far as it needs no engine ---


def test_bootstrapping_without_pulumi_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda _program: None)
    with pytest.raises(ConfigurationError, match="not on PATH") as caught:
        bootstrap(AWS, project_dir=tmp_path, home=tmp_path, options=BootstrapOptions())
    assert "install" in str(caught.value.hint)


def test_a_bucket_of_that_name_in_another_account_ends_the_bootstrap(
    account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda _program: "/bin/pulumi")
    account.answers["head_bucket"] = refusal("403")
    with pytest.raises(FailedError, match="not of account"):
        bootstrap(AWS, project_dir=tmp_path, home=tmp_path, options=BootstrapOptions())


def test_the_settings_that_are_tags_are_asked_for_together(
    account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("shutil.which", lambda _program: "/bin/pulumi")
    account.answers["head_bucket"] = refusal("404")
    (tmp_path / "Pulumi.yaml").write_text("name: goldlake\n")
    with pytest.raises(ConfigurationError, match=r"--owner.*--cost-centre"):
        bootstrap(AWS, project_dir=tmp_path, home=tmp_path / "home", options=BootstrapOptions())
    with pytest.raises(ConfigurationError, match=r"has no Pulumi\.yaml"):
        bootstrap(AWS, project_dir=tmp_path / "home", home=tmp_path / "home", options=BootstrapOptions())
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(("versioning", "code"), [({"Status": "Enabled"}, 0), ({}, 1)])
def test_a_bucket_that_was_made_elsewhere_is_checked_and_nothing_is_created(
    account: Account, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, versioning: dict[str, str], code: int
) -> None:
    account.answers["get_bucket_versioning"] = versioning
    monkeypatch.setattr("shutil.which", lambda _program: "/bin/pulumi")
    said: list[str] = []
    result = bootstrap(AWS, project_dir=tmp_path, home=tmp_path, options=BootstrapOptions(), say=said.append)
    bucket = f"goldlake-state-{ACCOUNT}-eu-west-1"
    assert result.outcome == "found"
    assert "nothing is created" in said[0]
    assert result.login == f"pulumi login 's3://{bucket}?region=eu-west-1'"
    assert result.stack_init == (
        "pulumi stack init <stack> --secrets-provider 'awskms://alias/goldlake-pulumi?region=eu-west-1'"
    )
    assert result.exit_code == code
    assert json.loads(json.dumps(result.to_dict()))["check"]["schema"] == "goldlake.state-check/1"
    assert list(tmp_path.iterdir()) == []
