"""The lake's buckets, one for each layer, and the Glue databases that describe what is in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pulumi
import pulumi_aws as aws

from components.bucket import DataBucket, DataBucketArgs, bucket_arn, check_bucket_name, check_deletion
from runtime.errors import ConfigurationError

LAYERS = ("bronze", "silver", "gold", "artifacts")
DBT_PREFIX = "dbt/"


@dataclass(frozen=True, kw_only=True)
class LakeBucketsArgs:
    """What the lake's buckets can be told."""

    names: Mapping[str, pulumi.Input[str]]
    """Bucket name of each of LAYERS; silver's is not needed when silver exists already."""
    silver_existing: str = ""
    """Name of a silver bucket that somebody else made and keeps: it is read, never changed or deleted."""
    account: pulumi.Input[str]
    tags: dict[str, str]
    protect: bool
    """Whether Pulumi refuses to delete bronze, silver and gold. Artifacts can be built again."""
    force_destroy: bool
    """Whether a delete takes the objects along. Only together with `protect` off."""
    tls_only: bool
    noncurrent_days: int = 30
    key_arn: pulumi.Input[str] | None = None
    log_bucket: pulumi.Input[str] | None = None
    """Name of the bucket that gets the access logs, each layer's under `<layer>/`."""
    intelligent_tiering_days: int | None = None
    inventory: bool = False
    artifact_days: int = 90
    """Days that the artifacts of a dbt run are kept."""


def bucket_args(layer: str, args: LakeBucketsArgs) -> DataBucketArgs:
    """Return what one layer's bucket is told.

    Artifacts are no data: layers are built again from the same sources, and a run's results are worth some weeks.
    """
    common = DataBucketArgs(
        bucket_name=args.names[layer],
        tags={**args.tags, "Name": f"{args.tags['Name']}-{layer}"},
        protect=args.protect,
        force_destroy=args.force_destroy,
        tls_only=args.tls_only,
        noncurrent_days=args.noncurrent_days,
        key_arn=args.key_arn,
        log_bucket=args.log_bucket,
        log_prefix=f"{layer}/",
        intelligent_tiering_days=args.intelligent_tiering_days,
        inventory=args.inventory,
        account=args.account,
    )
    if layer != "artifacts":
        return common
    return replace(
        common,
        protect=False,
        inventory=False,
        intelligent_tiering_days=None,
        expire_days={DBT_PREFIX: args.artifact_days},
    )


def _validate(args: LakeBucketsArgs) -> None:
    needed = {layer for layer in LAYERS if layer != "silver" or not args.silver_existing}
    unknown, missing = set(args.names) - set(LAYERS), needed - set(args.names)
    if unknown or missing:
        raise ConfigurationError(
            f"bucket names for {', '.join(sorted(args.names)) or 'no layer'}: one is needed for each of "
            f"{', '.join(layer for layer in LAYERS if layer in needed)}, and for no others"
        )
    plain = [name for layer, name in args.names.items() if layer in needed and isinstance(name, str)]
    if args.silver_existing:
        check_bucket_name(args.silver_existing)
        plain.append(args.silver_existing)
    if len(set(plain)) < len(plain):
        raise ConfigurationError(f"bucket names {', '.join(sorted(plain))}: each layer needs a bucket of its own")
    # Said here too, since the artifacts' bucket alone would accept it.
    check_deletion(protect=args.protect, force_destroy=args.force_destroy)
    for name in plain:
        check_bucket_name(name)


class LakeBuckets(pulumi.ComponentResource):
    """Buckets for bronze (as it came), silver (cleaned), gold (exported) and artifacts (what runs, and what runs left).

    Raises ConfigurationError before the first resource for missing, unknown, equal or impossible names.
    """

    bronze_bucket: pulumi.Output[str]
    bronze_arn: pulumi.Output[str]
    silver_bucket: pulumi.Output[str]
    silver_arn: pulumi.Output[str]
    gold_bucket: pulumi.Output[str]
    gold_arn: pulumi.Output[str]
    artifacts_bucket: pulumi.Output[str]
    artifacts_arn: pulumi.Output[str]

    def __init__(self, name: str, args: LakeBucketsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        _validate(args)
        super().__init__("goldlake:lake:LakeBuckets", name, None, opts)
        made = {
            layer: DataBucket(f"{name}-{layer}", bucket_args(layer, args), pulumi.ResourceOptions(parent=self))
            for layer in LAYERS
            if layer != "silver" or not args.silver_existing
        }
        self.bronze_bucket, self.bronze_arn = made["bronze"].bucket_name, made["bronze"].arn
        self.gold_bucket, self.gold_arn = made["gold"].bucket_name, made["gold"].arn
        self.artifacts_bucket, self.artifacts_arn = made["artifacts"].bucket_name, made["artifacts"].arn
        if args.silver_existing:
            # Read, so that a name without a bucket ends the preview and not the first query.
            found = aws.s3.Bucket.get(f"{name}-silver", args.silver_existing, opts=pulumi.ResourceOptions(parent=self))
            self.silver_bucket, self.silver_arn = found.id, found.id.apply(bucket_arn)
        else:
            self.silver_bucket, self.silver_arn = made["silver"].bucket_name, made["silver"].arn
        self.register_outputs(
            {
                "bronzeBucket": self.bronze_bucket,
                "bronzeArn": self.bronze_arn,
                "silverBucket": self.silver_bucket,
                "silverArn": self.silver_arn,
                "goldBucket": self.gold_bucket,
                "goldArn": self.gold_arn,
                "artifactsBucket": self.artifacts_bucket,
                "artifactsArn": self.artifacts_arn,
            }
        )


@dataclass(frozen=True, kw_only=True)
class GlueDatabasesArgs:
    """What Glue databases can be told."""

    databases: Mapping[str, pulumi.Input[str]]
    """Name -> s3:// location under which its tables have their folders."""
    tags: dict[str, str]


class GlueDatabases(pulumi.ComponentResource):
    """Databases in the Glue catalogue.

    Raises ConfigurationError before the first resource for a name that Athena or Redshift could not read.
    """

    names: dict[str, pulumi.Output[str]]
    """Each database's name, known once the database is there."""

    def __init__(self, name: str, args: GlueDatabasesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        for database in args.databases:
            # Athena user guide, "Name databases, tables, and columns".
            if not re.fullmatch(r"[a-z0-9_]{1,255}", database):
                raise ConfigurationError(
                    f"Glue database {database!r}: 1 to 255 of a-z, 0-9 and underscore, which Athena and Redshift read"
                )
        super().__init__("goldlake:lake:GlueDatabases", name, None, opts)
        self.names = {
            database: aws.glue.CatalogDatabase(
                database,
                name=database,
                description=f"Goldlake {database}",
                location_uri=location,
                tags={**args.tags, "Name": database},
                opts=pulumi.ResourceOptions(parent=self),
            ).name
            for database, location in args.databases.items()
        }
        self.register_outputs({"names": self.names})
