"""The state backend, checked on the live account: what AWS answers counts, not what a program says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from runtime.aws import Connection, translated
from runtime.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    AccessDeniedError,
    FailedError,
)

CHECK_SCHEMA = "goldlake.state-check/1"

# A state that broke may be noticed weeks later.
MIN_NONCURRENT_DAYS = 30
LOG_DELIVERY = "logging.s3.amazonaws.com"
# Credentials that are good, without the permission; every other refusal is about the credentials themselves.
NOT_ALLOWED = frozenset({"403", "AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})


def state_bucket(aws: Connection, prefix: str) -> str:
    """Return the name that the program gives the state bucket: `<prefix>-state-<account>-<region>`."""
    return f"{prefix}-state-{account_of(aws)}-{region_of(aws)}"


def account_of(aws: Connection) -> str:
    """Return the account that the credentials belong to."""
    with translated("who am I"):
        return str(aws.client("sts").get_caller_identity()["Account"])


def region_of(aws: Connection) -> str:
    """Return the region of the connection."""
    return str(aws.session.region_name)


@dataclass(frozen=True)
class Finding:
    """One hardening: whether it holds, and what was found and is wanted."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class StateReport:
    """All hardenings of a state backend at one time."""

    bucket: str
    checked_at: datetime
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether all hold."""
        return all(finding.ok for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 when all hold, else 1."""
        return EXIT_DONE if self.ok else EXIT_FAILED

    @property
    def summary(self) -> str:
        """One line for people."""
        failed = [finding.name for finding in self.findings if not finding.ok]
        held = f"{len(self.findings) - len(failed)} of {len(self.findings)} checks of {self.bucket} passed"
        return f"{held}; failed: {', '.join(failed)}" if failed else held

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values under the schema `goldlake.state-check/1`."""
        return {
            "schema": CHECK_SCHEMA,
            "bucket": self.bucket,
            "checked_at": self.checked_at.isoformat(),
            "ok": self.ok,
            "exit_code": self.exit_code,
            "findings": [asdict(finding) for finding in self.findings],
        }


Verdict = tuple[bool, str]
_Judge = Callable[[], Verdict]


def check_state(
    aws: Connection, bucket: str, *, lock_table: str | None = None, key_alias: str | None = None
) -> StateReport:
    """Return what holds of the hardening of a state bucket, and of its lock table and key when they are named.

    What is missing or may not be read counts as failed. Raises UnreachableError when AWS does not answer or the
    credentials are not accepted.
    """
    presence = presence_of(aws, bucket)
    checks: list[tuple[str, _Judge]] = [("bucket", lambda: presence.verdict)]
    if presence.state != "missing":
        checks += _bucket_checks(aws, bucket)
    if lock_table:
        checks += _table_checks(aws, lock_table)
    if key_alias:
        checks += _key_checks(aws, key_alias)
    return StateReport(bucket, datetime.now(UTC), tuple(_finding(name, judge) for name, judge in checks))


def _finding(name: str, judge: _Judge) -> Finding:
    """Return the verdict on one hardening; what cannot be read has failed."""
    try:
        with translated(name):
            ok, detail = judge()
    except AccessDeniedError as exc:
        if exc.code not in NOT_ALLOWED:
            raise
        return Finding(name, False, f"forbidden: {exc.message}")
    except FailedError as exc:
        return Finding(name, False, f"missing: {exc.message}")
    return Finding(name, ok, detail)


def _bucket_checks(aws: Connection, bucket: str) -> list[tuple[str, _Judge]]:
    s3 = aws.client("s3")
    return [
        ("public-access", lambda: judge_public_access(s3.get_public_access_block(Bucket=bucket))),
        ("tls-only", lambda: judge_tls(s3.get_bucket_policy(Bucket=bucket), bucket)),
        ("encryption", lambda: _judge_encryption(aws, s3.get_bucket_encryption(Bucket=bucket))),
        ("versioning", lambda: judge_versioning(s3.get_bucket_versioning(Bucket=bucket))),
        ("ownership", lambda: judge_ownership(s3.get_bucket_ownership_controls(Bucket=bucket))),
        ("old-versions", lambda: judge_old_versions(s3.get_bucket_lifecycle_configuration(Bucket=bucket))),
        ("state-kept", lambda: judge_state_kept(_lifecycle(s3, bucket))),
        ("access-logs", lambda: _judge_logging(s3, bucket)),
        ("log-bucket-private", lambda: judge_public_access(s3.get_public_access_block(Bucket=_log_target(s3, bucket)))),
        ("log-delivery", lambda: _judge_delivery(s3, bucket)),
    ]


def _table_checks(aws: Connection, table: str) -> list[tuple[str, _Judge]]:
    dynamodb = aws.client("dynamodb")

    def described() -> Mapping[str, Any]:
        return dict(dynamodb.describe_table(TableName=table)["Table"])

    return [
        ("lock-table-key", lambda: judge_table_key(described())),
        ("lock-table-billing", lambda: judge_billing(described())),
        ("lock-table-recovery", lambda: judge_recovery(dynamodb.describe_continuous_backups(TableName=table))),
        ("lock-table-protection", lambda: judge_protection(described())),
    ]


def _key_checks(aws: Connection, alias: str) -> list[tuple[str, _Judge]]:
    kms = aws.client("kms")

    def described() -> Mapping[str, Any]:
        return dict(kms.describe_key(KeyId=alias)["KeyMetadata"])

    return [
        ("key-enabled", lambda: judge_key(described())),
        # KMS takes the key's id here, and no alias.
        ("key-rotation", lambda: judge_rotation(kms.get_key_rotation_status(KeyId=described()["KeyId"]))),
    ]


@dataclass(frozen=True)
class Presence:
    """Whether a bucket is there, and this account's."""

    state: Literal["ours", "missing", "forbidden"]
    detail: str

    @property
    def verdict(self) -> Verdict:
        return self.state == "ours", self.detail


def presence_of(aws: Connection, bucket: str) -> Presence:
    """Return whether this account has the bucket.

    Bucket names are easily foretold, and whoever takes ours first would be given our state: the owner counts.
    """
    account = account_of(aws)
    try:
        with translated(f"bucket {bucket}"):
            aws.client("s3").head_bucket(Bucket=bucket, ExpectedBucketOwner=account)
    except FailedError as exc:
        if exc.code in ("404", "NoSuchBucket"):
            return Presence("missing", f"missing: {bucket} does not exist")
        raise
    except AccessDeniedError as exc:
        if exc.code not in NOT_ALLOWED:
            raise
        return Presence("forbidden", f"forbidden: {bucket} is not of account {account}, or may not be listed")
    return Presence("ours", f"{bucket} belongs to account {account}")


def judge_public_access(answer: Mapping[str, Any]) -> Verdict:
    """All four settings of Block Public Access must be on."""
    settings = answer["PublicAccessBlockConfiguration"]
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    off = [name for name in names if settings.get(name) is not True]
    return not off, f"off: {', '.join(off)}; all four must be on" if off else "all four settings are on"


def judge_tls(answer: Mapping[str, Any], bucket: str) -> Verdict:
    """The bucket policy must refuse every request over plain HTTP, to the bucket and to each object."""
    if any(_refuses_plain_http(statement, bucket) for statement in _statements(answer)):
        return True, "the bucket policy refuses plain HTTP"
    return False, "no statement denies s3:* to everybody where aws:SecureTransport is false, on bucket and objects"


def _statements(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the statements of a bucket policy. Raises FailedError when it is no JSON."""
    try:
        found = json.loads(answer["Policy"])["Statement"]
    except (ValueError, KeyError) as exc:
        raise FailedError(f"the bucket policy cannot be read: {exc}") from exc
    return _many(found)


def _many(value: Any) -> list[Any]:
    """Return a policy's value as the list that it stands for: one thing may stand without brackets."""
    return list(value) if isinstance(value, list) else [value]


def _refuses_plain_http(statement: Mapping[str, Any], bucket: str) -> bool:
    arn = f"arn:aws:s3:::{bucket}"
    resources = set(_many(statement.get("Resource", [])))
    return (
        statement.get("Effect") == "Deny"
        and statement.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]})
        and bool({"s3:*", "*"} & set(_many(statement.get("Action", []))))
        and ({arn, f"{arn}/*"} <= resources or f"{arn}*" in resources or "*" in resources)
        and _is_plain_http(statement.get("Condition") or {})
    )


def _is_plain_http(condition: Mapping[str, Any]) -> bool:
    """Return whether a condition is true for all plain HTTP: each further test would let some of it through."""
    tests = [(operator, key, _many(value)) for operator, keys in condition.items() for key, value in keys.items()]
    if len(tests) != 1:
        return False
    operator, key, values = tests[0]
    return operator in ("Bool", "BoolIfExists") and key == "aws:SecureTransport" and values in (["false"], [False])


def _judge_encryption(aws: Connection, answer: Mapping[str, Any]) -> Verdict:
    """S3 encrypts everything since 2023; what can go wrong is a key of ours that is off or about to be deleted."""
    default = answer["ServerSideEncryptionConfiguration"]["Rules"][0]["ApplyServerSideEncryptionByDefault"]
    algorithm, key = default["SSEAlgorithm"], default.get("KMSMasterKeyID")
    if key is None:
        return True, f"{algorithm}, by AWS's own key"
    ok, detail = judge_key(aws.client("kms").describe_key(KeyId=key)["KeyMetadata"])
    return ok, f"{algorithm}, {detail}"


def judge_versioning(answer: Mapping[str, Any]) -> Verdict:
    """Versioning must be on: it is the way back from a broken state."""
    status = answer.get("Status", "never enabled")
    return status == "Enabled", f"{status}" if status == "Enabled" else f"{status}; it must be Enabled"


def judge_ownership(answer: Mapping[str, Any]) -> Verdict:
    """Objects must be the bucket owner's, so that no ACL gives them away."""
    ownership = answer["OwnershipControls"]["Rules"][0]["ObjectOwnership"]
    ok = ownership == "BucketOwnerEnforced"
    return ok, ownership if ok else f"{ownership}; it must be BucketOwnerEnforced, which turns ACLs off"


def _rules(answer: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str, bool]]:
    """Yield the enabled lifecycle rules, each with its prefix and whether it is for all objects below that."""
    for rule in answer.get("Rules", []):
        selection = rule.get("Filter") or {}
        narrowed = selection.get("And") or selection
        prefix = narrowed.get("Prefix", rule.get("Prefix", ""))
        if rule["Status"] == "Enabled":
            yield rule, prefix, not set(narrowed) - {"Prefix"}


def judge_old_versions(answer: Mapping[str, Any]) -> Verdict:
    """Old versions of all objects must be kept for a while, and not for ever."""
    days = [
        rule["NoncurrentVersionExpiration"].get("NoncurrentDays", 0)
        for rule, prefix, whole in _rules(answer)
        if "NoncurrentVersionExpiration" in rule and not prefix and whole
    ]
    if not days:
        return False, f"no rule for all objects; old versions must expire, after {MIN_NONCURRENT_DAYS} days or more"
    ok = min(days) >= MIN_NONCURRENT_DAYS
    return ok, f"old versions expire after {min(days)} days" + ("" if ok else f"; {MIN_NONCURRENT_DAYS} are wanted")


def judge_state_kept(answer: Mapping[str, Any]) -> Verdict:
    """No rule may expire what is current below `.pulumi/`: that is the state itself."""
    expiring = [
        rule.get("ID", "without a name")
        for rule, prefix, _whole in _rules(answer)
        if {"Days", "Date"} & set(rule.get("Expiration") or {}) and _overlaps(prefix, ".pulumi/")
    ]
    return not expiring, f"rules expire current state: {', '.join(expiring)}" if expiring else "current state is kept"


def _overlaps(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _lifecycle(s3: Any, bucket: str) -> Mapping[str, Any]:
    """Return the lifecycle; a bucket without one has no rules."""
    try:
        with translated("lifecycle"):
            return dict(s3.get_bucket_lifecycle_configuration(Bucket=bucket))
    except FailedError as exc:
        if exc.code == "NoSuchLifecycleConfiguration":
            return {}
        raise


def _log_target(s3: Any, bucket: str) -> str:
    """Return the bucket of the access logs. Raises FailedError when there is none."""
    target = s3.get_bucket_logging(Bucket=bucket).get("LoggingEnabled", {}).get("TargetBucket")
    if not target:
        raise FailedError("access logs are off")
    return str(target)


def _judge_logging(s3: Any, bucket: str) -> Verdict:
    target = _log_target(s3, bucket)
    if target == bucket:
        return False, f"access logs go to {bucket} itself, where each delivery is logged in turn"
    try:
        with translated(f"log bucket {target}"):
            s3.head_bucket(Bucket=target)
    except FailedError:
        return False, f"access logs go to {target}, which does not exist"
    return True, f"access logs go to {target}"


def _judge_delivery(s3: Any, bucket: str) -> Verdict:
    """With ACLs off, S3 delivers logs only where the target's policy says so, and is silent where it does not."""
    target = _log_target(s3, bucket)
    for statement in _statements(s3.get_bucket_policy(Bucket=target)):
        principal = statement.get("Principal")
        services = _many(principal.get("Service", [])) if isinstance(principal, Mapping) else []
        allowed = {"s3:PutObject", "s3:*"} & set(_many(statement.get("Action", [])))
        if statement.get("Effect") == "Allow" and LOG_DELIVERY in services and allowed:
            return True, f"{LOG_DELIVERY} may write to {target}"
    return False, f"the policy of {target} does not let {LOG_DELIVERY} put objects: no log arrives"


def judge_table_key(table: Mapping[str, Any]) -> Verdict:
    """Terraform's S3 backend wants one key, LockID, a text."""
    keys = [(key["AttributeName"], key["KeyType"]) for key in table["KeySchema"]]
    types = {attribute["AttributeName"]: attribute["AttributeType"] for attribute in table["AttributeDefinitions"]}
    if keys == [("LockID", "HASH")] and types.get("LockID") == "S":
        return True, "LockID, a text"
    found = ", ".join(f"{name} ({types.get(name)}, {kind})" for name, kind in keys)
    return False, f"{found}; it must be LockID (S, HASH) alone"


def judge_billing(table: Mapping[str, Any]) -> Verdict:
    """Locks are few and sudden: paid by request."""
    mode = (table.get("BillingModeSummary") or {}).get("BillingMode", "PROVISIONED")
    return mode == "PAY_PER_REQUEST", mode if mode == "PAY_PER_REQUEST" else f"{mode}; PAY_PER_REQUEST is wanted"


def judge_recovery(answer: Mapping[str, Any]) -> Verdict:
    """Point-in-time recovery must be on."""
    description = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription") or {}
    status = description.get("PointInTimeRecoveryStatus", "DISABLED")
    return status == "ENABLED", f"point-in-time recovery is {status}"


def judge_protection(table: Mapping[str, Any]) -> Verdict:
    """Deletion protection must be on."""
    on = table.get("DeletionProtectionEnabled") is True
    return on, f"deletion protection is {'on' if on else 'off'}"


def judge_key(key: Mapping[str, Any]) -> Verdict:
    """A key must be usable: neither turned off nor waiting for its deletion."""
    ok = key["KeyState"] == "Enabled"
    return ok, f"key {key['KeyId']} is {key['KeyState']}" + ("" if ok else "; what it encrypted cannot be read")


def judge_rotation(answer: Mapping[str, Any]) -> Verdict:
    """KMS must make new key material every year."""
    on = answer.get("KeyRotationEnabled") is True
    return on, f"rotation is {'on' if on else 'off'}"


def existing_table(aws: Connection, table: str) -> str | None:
    """Return the table's name if there is such a DynamoDB table (or if that may not be asked), else None."""
    try:
        with translated(f"table {table}"):
            aws.client("dynamodb").describe_table(TableName=table)
    except FailedError:
        return None
    except AccessDeniedError as exc:
        if exc.code not in NOT_ALLOWED:
            raise
    return table
