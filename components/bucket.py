"""A data bucket with everything a data bucket needs, and nothing public."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_aws as aws

from components.policies import Document, Statement, document, tls_only
from runtime.errors import ConfigurationError

# S3 user guide, "General purpose bucket naming rules".
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_RESERVED_STARTS = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_ENDS = ("-s3alias", "--ola-s3", ".mrap", "--x-s3", "--table-s3")

INVENTORY_PREFIX = "inventory"
INVENTORY_DAYS = 90
_INVENTORY_FIELDS = ["Size", "LastModifiedDate", "StorageClass", "EncryptionStatus", "IntelligentTieringAccessTier"]


@dataclass(frozen=True, kw_only=True)
class DataBucketArgs:
    """What a data bucket can be told."""

    bucket_name: pulumi.Input[str]
    tags: dict[str, str]
    protect: bool
    """Whether Pulumi refuses to delete the bucket."""
    force_destroy: bool
    """Whether a delete takes the objects along. Only together with `protect` off."""
    tls_only: bool
    """Whether requests without TLS are refused; off for an emulator that speaks plain HTTP."""
    noncurrent_days: int = 30
    """Days that an overwritten or deleted object can still be had back."""
    key_arn: pulumi.Input[str] | None = None
    """KMS key that encrypts objects, by one bucket key for many of them; S3's own keys without it."""
    log_bucket: pulumi.Input[str] | None = None
    """Name of the bucket that gets the access logs, another than this one."""
    log_prefix: str = "access/"
    statements: pulumi.Input[Sequence[Statement]] = ()
    """Statements of the bucket policy beside those that this component writes itself."""
    intelligent_tiering_days: int | None = None
    """Age at which objects move to Intelligent-Tiering; 0 at once, None never."""
    expire_days: Mapping[str, int] = field(default_factory=dict)
    """Prefix -> age in days at which current objects below it expire."""
    inventory: bool = False
    """Whether S3 lists all objects once a week, as Parquet under `inventory/`."""
    account: pulumi.Input[str] | None = None
    """The bucket's account; the inventory needs it."""


def check_bucket_name(name: str) -> None:
    """Raise ConfigurationError for a name that S3 would refuse after the preview (S3 user guide, naming rules)."""
    reason = None
    if not _NAME.fullmatch(name):
        reason = "3 to 63 of a-z, 0-9, dot and dash are allowed, with a letter or digit first and last"
    elif ".." in name:
        reason = "two dots must not stand side by side"
    elif _is_address(name):
        reason = "it must not look like an IP address"
    elif name.startswith(_RESERVED_STARTS) or name.endswith(_RESERVED_ENDS):
        reason = f"S3 keeps {', '.join(_RESERVED_STARTS)} at the start and {', '.join(_RESERVED_ENDS)} at the end"
    if reason:
        raise ConfigurationError(f"bucket name {name!r}: {reason}")


def check_deletion(*, protect: bool, force_destroy: bool) -> None:
    """Raise ConfigurationError when one setting keeps data and the other throws it away."""
    if protect and force_destroy:
        raise ConfigurationError(
            "protect=true with force_destroy=true: deleting data needs two settings to agree, protection off and "
            "force on"
        )


def _is_address(name: str) -> bool:
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


def bucket_arn(name: str) -> str:
    """Return the ARN of a bucket."""
    return f"arn:aws:s3:::{name}"


def lifecycle_rules(
    *, noncurrent_days: int, intelligent_tiering_days: int | None = None, expire_days: Mapping[str, int] | None = None
) -> list[aws.s3.BucketLifecycleConfigurationRuleArgsDict]:
    """Return a bucket's lifecycle: old versions and broken uploads go, objects move to cheaper storage and expire.

    Delete markers with nothing left below them go as well: every removed lock or table file leaves one, and each slows
    the listings down. Objects below 128 KB stay where they are (S3's default minimum for transitions).
    """
    rules: list[aws.s3.BucketLifecycleConfigurationRuleArgsDict] = [
        {
            "id": "old-versions",
            "status": "Enabled",
            "filter": {"prefix": ""},
            "noncurrent_version_expiration": {"noncurrent_days": noncurrent_days},
            "expiration": {"expired_object_delete_marker": True},
            "abort_incomplete_multipart_upload": {"days_after_initiation": 7},
        }
    ]
    if intelligent_tiering_days is not None:
        rules.append(
            {
                "id": "intelligent-tiering",
                "status": "Enabled",
                "filter": {"prefix": ""},
                "transitions": [{"days": intelligent_tiering_days, "storage_class": "INTELLIGENT_TIERING"}],
            }
        )
    rules += [
        {
            "id": f"expire-{prefix.strip('/').replace('/', '-') or 'all'}",
            "status": "Enabled",
            "filter": {"prefix": prefix},
            "expiration": {"days": days},
        }
        for prefix, days in (expire_days or {}).items()
    ]
    return rules


def deliver_inventory(bucket: str, account: str) -> Statement:
    """Return the right of S3 to put the bucket's inventory into the bucket itself.

    S3 user guide, "Configuring Amazon S3 Inventory": without account and source, anyone's inventory could land here.
    """
    return {
        "Sid": "DeliverInventory",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "s3:PutObject",
        "Resource": f"{bucket}/{INVENTORY_PREFIX}/*",
        "Condition": {
            "StringEquals": {"aws:SourceAccount": account},
            "ArnLike": {"aws:SourceArn": bucket},
        },
    }


def deliver_access_logs(log_bucket: str, source_bucket: str, account: str) -> Statement:
    """Return the right of S3's log delivery to put one bucket's access logs into another; both are ARNs.

    S3 user guide, "Enabling Amazon S3 server access logging": with bucket owner enforced, only a policy can grant it.
    """
    return {
        "Sid": "DeliverAccessLogs",
        "Effect": "Allow",
        "Principal": {"Service": "logging.s3.amazonaws.com"},
        "Action": "s3:PutObject",
        "Resource": f"{log_bucket}/*",
        "Condition": {
            "StringEquals": {"aws:SourceAccount": account},
            "ArnLike": {"aws:SourceArn": source_bucket},
        },
    }


def bucket_policy(arn: str, statements: Sequence[Statement], *, refuse_plain_http: bool) -> Document:
    """Return the bucket policy: the refusal of plain HTTP, if wanted, and the statements."""
    refusal = tls_only(arn)["Statement"] if refuse_plain_http else []
    return document(*refusal, *statements)


def _validate(args: DataBucketArgs) -> None:
    """Raise ConfigurationError for values that S3 would refuse, or that could lose data."""
    if isinstance(args.bucket_name, str):
        check_bucket_name(args.bucket_name)
        if args.log_bucket == args.bucket_name:
            raise ConfigurationError(
                f"bucket {args.bucket_name!r} as its own log bucket: each delivered log would be logged in turn"
            )
    check_deletion(protect=args.protect, force_destroy=args.force_destroy)
    if args.inventory and args.account is None:
        raise ConfigurationError("inventory=true without an account: only this account's inventory may be delivered")
    tiering = args.intelligent_tiering_days
    if tiering is not None and tiering < 0:
        raise ConfigurationError(f"intelligent_tiering_days={tiering}: 0 days or more, or None for never")
    for what, days in {"noncurrent_days": args.noncurrent_days, **args.expire_days}.items():
        if days < 1:
            raise ConfigurationError(f"{what}={days}: S3 expires objects after 1 day at the earliest")


class DataBucket(pulumi.ComponentResource):
    """An S3 bucket: encrypted, versioned, TLS only, nothing public, objects owned by the bucket's owner.

    Old versions of objects expire. Raises ConfigurationError before the first resource for values that S3 refuses.
    """

    bucket_name: pulumi.Output[str]
    arn: pulumi.Output[str]

    def __init__(self, name: str, args: DataBucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        _validate(args)
        super().__init__("goldlake:storage:DataBucket", name, None, opts)
        bucket = aws.s3.Bucket(
            name,
            bucket=args.bucket_name,
            force_destroy=args.force_destroy,
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        )
        self._close(name, bucket, args)
        self._keep(name, bucket, args)
        self._watch(name, bucket, args)
        self.bucket_name = bucket.bucket
        self.arn = bucket.arn
        self.register_outputs({"bucketName": self.bucket_name, "arn": self.arn})

    def _close(self, name: str, bucket: aws.s3.Bucket, args: DataBucketArgs) -> None:
        """Let nobody in but by the policies: nothing public, no ACLs, no plain HTTP, everything encrypted."""
        child = pulumi.ResourceOptions(parent=self)
        aws.s3.BucketPublicAccessBlock(
            f"{name}-private",
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=child,
        )
        aws.s3.BucketOwnershipControls(
            f"{name}-owner",
            bucket=bucket.id,
            rule=aws.s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
            opts=child,
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            f"{name}-encryption",
            bucket=bucket.id,
            rules=[
                {
                    "apply_server_side_encryption_by_default": {
                        "sse_algorithm": "aws:kms",
                        "kms_master_key_id": args.key_arn,
                    },
                    # One call to KMS for many objects, not one for each.
                    "bucket_key_enabled": True,
                }
                if args.key_arn is not None
                else {"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}
            ],
            opts=child,
        )
        more = bool(args.statements) if isinstance(args.statements, list | tuple) else True
        if args.tls_only or args.inventory or more:
            statements = pulumi.Output.from_input(args.statements)
            policy = pulumi.Output.all(arn=bucket.arn, account=args.account, statements=statements).apply(
                lambda found: _policy_of(found, args)
            )
            aws.s3.BucketPolicy(f"{name}-tls", bucket=bucket.id, policy=pulumi.Output.json_dumps(policy), opts=child)

    def _keep(self, name: str, bucket: aws.s3.Bucket, args: DataBucketArgs) -> None:
        """Keep old versions for a while, and let go what is no longer needed."""
        versioning = aws.s3.BucketVersioning(
            f"{name}-versioning",
            bucket=bucket.id,
            versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
            opts=pulumi.ResourceOptions(parent=self),
        )
        lists = {f"{INVENTORY_PREFIX}/": INVENTORY_DAYS} if args.inventory else {}
        aws.s3.BucketLifecycleConfiguration(
            f"{name}-lifecycle",
            bucket=bucket.id,
            rules=lifecycle_rules(
                noncurrent_days=args.noncurrent_days,
                intelligent_tiering_days=args.intelligent_tiering_days,
                expire_days={**lists, **args.expire_days},
            ),
            # S3 accepts a rule about old versions before versioning is on, and then ignores it.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[versioning]),
        )

    def _watch(self, name: str, bucket: aws.s3.Bucket, args: DataBucketArgs) -> None:
        """Have S3 write down who asked for what, and what is there."""
        child = pulumi.ResourceOptions(parent=self)
        if args.log_bucket is not None:
            aws.s3.BucketLogging(
                f"{name}-logging",
                bucket=bucket.id,
                target_bucket=args.log_bucket,
                target_prefix=args.log_prefix,
                opts=child,
            )
        if args.inventory:
            aws.s3.Inventory(
                f"{name}-inventory",
                bucket=bucket.id,
                name="weekly",
                included_object_versions="Current",
                schedule=aws.s3.InventoryScheduleArgs(frequency="Weekly"),
                optional_fields=_INVENTORY_FIELDS,
                destination={
                    "bucket": {
                        "bucket_arn": bucket.arn,
                        "account_id": args.account,
                        "format": "Parquet",
                        "prefix": INVENTORY_PREFIX,
                        # The lists are encrypted by S3's own key: another would need a key policy that lets S3 in.
                        "encryption": {"sse_s3": {}},
                    }
                },
                opts=child,
            )


def _policy_of(found: Mapping[str, Any], args: DataBucketArgs) -> Document:
    """Return the bucket policy from the resolved ARN, account and statements."""
    own = [deliver_inventory(found["arn"], found["account"])] if args.inventory else []
    return bucket_policy(found["arn"], [*own, *found["statements"]], refuse_plain_http=args.tls_only)
