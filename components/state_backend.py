"""Where Pulumi keeps the state of all other stacks, and the key that encrypts the secrets in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.bucket import (
    DataBucket,
    DataBucketArgs,
    bucket_arn,
    check_bucket_name,
    check_deletion,
    deliver_access_logs,
)
from components.key import CustomerKey, CustomerKeyArgs
from runtime.errors import ConfigurationError

LOG_PREFIX = "state/"
# KMS API reference, CreateAlias.
_ALIAS = re.compile(r"(?!aws/|alias/)[A-Za-z0-9/_-]{1,250}")


@dataclass(frozen=True, kw_only=True)
class StateBackendArgs:
    """What the state backend can be told."""

    bucket_name: pulumi.Input[str]
    log_bucket_name: pulumi.Input[str]
    key_alias: str
    """Name of the key for Pulumi's secrets provider, without the `alias/` that KMS puts before it."""
    lock_table_name: str | None = None
    """DynamoDB table for Terraform neighbours, None for none: Pulumi locks by objects in the bucket."""
    account: pulumi.Input[str]
    region: str
    tags: dict[str, str]
    protect: bool = True
    force_destroy: bool = False
    """Whether a delete takes the state along. Only together with `protect` off."""
    tls_only: bool = True
    encrypt_with_key: bool = False
    """Whether the bucket is encrypted by the key too, so that reading state takes the right to use it."""
    noncurrent_days: int = 365
    """Days that an old state can still be had back: the way back after a state was broken and noticed late."""
    log_days: int = 90
    """Days that access logs are kept."""


def _validate(args: StateBackendArgs) -> None:
    if not _ALIAS.fullmatch(args.key_alias):
        raise ConfigurationError(
            f"key alias {args.key_alias!r}: 1 to 250 letters, digits, slash, underscore and dash, without alias/; KMS "
            "keeps aws/ for AWS's own keys"
        )
    # DynamoDB developer guide, "Naming rules".
    if args.lock_table_name is not None and not re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", args.lock_table_name):
        raise ConfigurationError(
            f"lock table {args.lock_table_name!r}: 3 to 255 letters, digits, underscore, dash and dot are allowed"
        )
    if args.noncurrent_days < 30:
        raise ConfigurationError(
            f"noncurrent_days={args.noncurrent_days}: 30 or more, since a broken state may be noticed weeks later"
        )
    for name in (args.bucket_name, args.log_bucket_name):
        if isinstance(name, str):
            check_bucket_name(name)
    if args.bucket_name == args.log_bucket_name:
        raise ConfigurationError(f"bucket {args.bucket_name!r} for state and logs: each delivered log would be logged")
    check_deletion(protect=args.protect, force_destroy=args.force_destroy)


def secrets_provider(key_alias: str, region: str) -> str:
    """Return the URL of a KMS key for `pulumi stack init --secrets-provider`."""
    return f"awskms://{key_alias}?region={region}"


class StateBackend(pulumi.ComponentResource):
    """The bucket of the states, its access logs, the key of the secrets, and a lock table if wanted.

    Raises ConfigurationError before the first resource for names that AWS refuses and for too short a memory.
    """

    bucket_name: pulumi.Output[str]
    log_bucket_name: pulumi.Output[str]
    key_arn: pulumi.Output[str]
    key_alias: pulumi.Output[str]
    """With its prefix: `alias/<name>`."""
    lock_table_name: pulumi.Output[str]
    """Empty when there is none."""
    login_url: pulumi.Output[str]
    """For `pulumi login`."""
    secrets_provider: pulumi.Output[str]
    """For `pulumi stack init --secrets-provider`."""

    def __init__(self, name: str, args: StateBackendArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        _validate(args)
        super().__init__("goldlake:state:StateBackend", name, None, opts)
        key = CustomerKey(
            f"{name}-key",
            CustomerKeyArgs(
                alias=args.key_alias,
                description="Secrets in Pulumi's state",
                account=args.account,
                region=args.region,
                tags={**args.tags, "Name": args.key_alias},
                services=False,
                # A key that is gone takes every secret in every state with it.
                protect=args.protect,
            ),
            pulumi.ResourceOptions(parent=self),
        )
        self.key_arn, self.key_alias = key.key_arn, key.alias
        logs = self._logs(name, args)
        state = DataBucket(
            name,
            DataBucketArgs(
                bucket_name=args.bucket_name,
                tags=args.tags,
                protect=args.protect,
                force_destroy=args.force_destroy,
                tls_only=args.tls_only,
                noncurrent_days=args.noncurrent_days,
                key_arn=key.key_arn if args.encrypt_with_key else None,
                log_bucket=logs.bucket_name,
                log_prefix=LOG_PREFIX,
            ),
            pulumi.ResourceOptions(parent=self),
        )
        self.bucket_name = state.bucket_name
        self.log_bucket_name = logs.bucket_name
        table = args.lock_table_name
        self.lock_table_name = pulumi.Output.from_input("") if table is None else self._locks(name, table, args)
        self.login_url = self.bucket_name.apply(lambda bucket: f"s3://{bucket}")
        self.secrets_provider = self.key_alias.apply(lambda alias: secrets_provider(alias, args.region))
        self.register_outputs(
            {
                "bucketName": self.bucket_name,
                "logBucketName": self.log_bucket_name,
                "keyArn": self.key_arn,
                "keyAlias": self.key_alias,
                "lockTableName": self.lock_table_name,
                "loginUrl": self.login_url,
                "secretsProvider": self.secrets_provider,
            }
        )

    def _logs(self, name: str, args: StateBackendArgs) -> DataBucket:
        """Register the bucket of the access logs.

        It is encrypted by S3's own keys, whatever the state's bucket has: S3's log delivery can't write to a bucket
        whose default encryption is SSE-KMS (S3 user guide, "Enabling Amazon S3 server access logging").
        """
        both = pulumi.Output.all(logs=args.log_bucket_name, state=args.bucket_name, account=args.account)
        return DataBucket(
            f"{name}-logs",
            DataBucketArgs(
                bucket_name=args.log_bucket_name,
                tags={**args.tags, "Name": f"{args.tags['Name']}-logs"},
                protect=args.protect,
                force_destroy=args.force_destroy,
                tls_only=args.tls_only,
                # By the names and not the buckets' ARNs: the state's bucket needs this one first.
                statements=both.apply(
                    lambda found: [
                        deliver_access_logs(bucket_arn(found["logs"]), bucket_arn(found["state"]), found["account"])
                    ]
                ),
                expire_days={"": args.log_days},
            ),
            pulumi.ResourceOptions(parent=self),
        )

    def _locks(self, name: str, table: str, args: StateBackendArgs) -> pulumi.Output[str]:
        """Register the lock table as Terraform's S3 backend wants it, and return its name."""
        return aws.dynamodb.Table(
            f"{name}-locks",
            name=table,
            billing_mode="PAY_PER_REQUEST",
            hash_key="LockID",
            attributes=[aws.dynamodb.TableAttributeArgs(name="LockID", type="S")],
            point_in_time_recovery=aws.dynamodb.TablePointInTimeRecoveryArgs(enabled=True),
            # Without a key's ARN by the key that AWS manages for DynamoDB; a lock holds a name and no state.
            server_side_encryption=aws.dynamodb.TableServerSideEncryptionArgs(enabled=True),
            deletion_protection_enabled=args.protect,
            tags={**args.tags, "Name": table},
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        ).name
