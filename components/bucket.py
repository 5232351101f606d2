"""A data bucket with everything a data bucket needs, and nothing public."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.policies import tls_only


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


class DataBucket(pulumi.ComponentResource):
    """An S3 bucket: encrypted, versioned, TLS only, nothing public, objects owned by the bucket's owner.

    Old versions of objects expire.
    """

    bucket_name: pulumi.Output[str]
    arn: pulumi.Output[str]

    def __init__(self, name: str, args: DataBucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("goldlake:storage:DataBucket", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        bucket = aws.s3.Bucket(
            name,
            bucket=args.bucket_name,
            force_destroy=args.force_destroy,
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        )
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
                aws.s3.BucketServerSideEncryptionConfigurationRuleArgs(
                    apply_server_side_encryption_by_default=(
                        aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs(
                            sse_algorithm="AES256"
                        )
                    ),
                )
            ],
            opts=child,
        )
        versioning = aws.s3.BucketVersioning(
            f"{name}-versioning",
            bucket=bucket.id,
            versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
            opts=child,
        )
        aws.s3.BucketLifecycleConfiguration(
            f"{name}-lifecycle",
            bucket=bucket.id,
            rules=[
                aws.s3.BucketLifecycleConfigurationRuleArgs(
                    id="old-versions",
                    status="Enabled",
                    filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
                    noncurrent_version_expiration=(
                        aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
                            noncurrent_days=args.noncurrent_days
                        )
                    ),
                    abort_incomplete_multipart_upload=(
                        aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
                            days_after_initiation=7
                        )
                    ),
                )
            ],
            # S3 accepts a rule about old versions before versioning is on, and then ignores it.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[versioning]),
        )
        if args.tls_only:
            aws.s3.BucketPolicy(
                f"{name}-tls",
                bucket=bucket.id,
                policy=pulumi.Output.json_dumps(bucket.arn.apply(tls_only)),
                opts=child,
            )
        self.bucket_name = bucket.bucket
        self.arn = bucket.arn
        self.register_outputs({"bucketName": self.bucket_name, "arn": self.arn})
