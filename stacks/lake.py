"""Unit `lake`: buckets for bronze, silver, gold and artifacts, and the Glue databases of silver and gold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pulumi_aws as aws

from components.lake import GlueDatabases, GlueDatabasesArgs, LakeBuckets, LakeBucketsArgs
from stacks.names import GOLD_DATABASE, SILVER_DATABASES
from stacks.outputs import FoundationOutputs, LakeOutputs
from stacks.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the unit is given."""

    foundation: FoundationOutputs | None
    """For its key; None without a customer key."""


def deploy(settings: Settings, inputs: Inputs) -> LakeOutputs:
    """Register the buckets and databases. A silver bucket that exists is adopted together with its databases."""
    names = settings.names("lake")
    account = aws.get_caller_identity_output().account_id

    def named(layer: str) -> Callable[[str], str]:
        return lambda found: names.bucket(layer, found, settings.region)

    buckets = LakeBuckets(
        "lake",
        LakeBucketsArgs(
            names={layer: account.apply(named(layer)) for layer in ("bronze", "silver", "gold", "artifacts")},
            silver_existing=settings.silver_bucket,
            key_arn=inputs.foundation.key_arn if inputs.foundation else None,
            protect=settings.protect_data,
            force_destroy=settings.force_destroy,
            tls_only=settings.require_tls,
            noncurrent_days=settings.old_version_days,
            intelligent_tiering_days=settings.intelligent_tiering_days or None,
            inventory=settings.lake_inventory,
            account=account,
            tags=names.tags("lake"),
        ),
    )

    def located(database: str) -> Callable[[str], str]:
        return lambda bucket: f"s3://{bucket}/silver/{database}"

    GlueDatabases(
        "silver",
        GlueDatabasesArgs(
            databases={}
            if settings.silver_bucket
            else {name: buckets.silver_bucket.apply(located(name)) for name in SILVER_DATABASES},
            tags=names.tags("silver"),
        ),
    )
    gold = GlueDatabases(
        "gold",
        GlueDatabasesArgs(
            databases={GOLD_DATABASE: buckets.gold_bucket.apply(lambda found: f"s3://{found}/gold")},
            tags=names.tags("gold"),
        ),
    )
    return LakeOutputs(
        bronze_bucket=buckets.bronze_bucket,
        silver_bucket=buckets.silver_bucket,
        gold_bucket=buckets.gold_bucket,
        artifacts_bucket=buckets.artifacts_bucket,
        gold_database=gold.names[GOLD_DATABASE],
    )
