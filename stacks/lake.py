"""Unit `lake`: the bucket that holds silver and gold, and the Glue databases that describe them."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from components.bucket import DataBucket, DataBucketArgs
from components.naming import Names
from stacks.outputs import LakeOutputs
from stacks.settings import Settings

SILVER_DATABASES = ("silver_linkedin", "silver_companies", "silver_ai_enrichment")
GOLD_DATABASE = "gold"


def deploy(settings: Settings) -> LakeOutputs:
    """Register the lake bucket and the silver and gold databases."""
    names = Names(settings.prefix, settings.stack)
    account = aws.get_caller_identity_output().account_id
    bucket = DataBucket(
        "lake",
        DataBucketArgs(
            bucket_name=settings.lake_bucket
            or account.apply(lambda found: names.bucket("lake", found, settings.region)),
            tags=names.tags("lake"),
            protect=settings.protect_data,
            force_destroy=settings.force_destroy,
            tls_only=settings.require_tls,
        ),
    )
    for database in SILVER_DATABASES:
        _database(database, bucket.bucket_name, f"silver/{database}", names)
    gold = _database(GOLD_DATABASE, bucket.bucket_name, "gold", names)
    return LakeOutputs(bucket_name=bucket.bucket_name, bucket_arn=bucket.arn, gold_database=gold.name)


def _database(name: str, bucket: pulumi.Output[str], prefix: str, names: Names) -> aws.glue.CatalogDatabase:
    return aws.glue.CatalogDatabase(
        name,
        name=name,
        description=f"Goldlake {name}",
        location_uri=bucket.apply(lambda found: f"s3://{found}/{prefix}"),
        tags=names.tags(name),
    )
