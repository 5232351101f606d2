"""Buckets, the lake's layers, Glue databases and the state backend: what they register, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.bucket import (
    DataBucket,
    DataBucketArgs,
    bucket_policy,
    check_bucket_name,
    deliver_access_logs,
    deliver_inventory,
    lifecycle_rules,
)
from components.lake import LAYERS, GlueDatabases, GlueDatabasesArgs, LakeBuckets, LakeBucketsArgs, bucket_args
from components.state_backend import StateBackend, StateBackendArgs, secrets_provider
from local.recording import ACCOUNT, REGION, Recording, record
from runtime.errors import ConfigurationError

TAGS = {"Name": "goldlake-lake", "Project": "goldlake"}
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/k"
BUCKET = DataBucketArgs(bucket_name="some-bucket", tags=TAGS, protect=True, force_destroy=False, tls_only=True)
LAKE = LakeBucketsArgs(
    names={layer: f"goldlake-{layer}" for layer in LAYERS},
    account=ACCOUNT,
    tags=TAGS,
    protect=True,
    force_destroy=False,
    tls_only=True,
)
STATE = StateBackendArgs(
    bucket_name="goldlake-state",
    log_bucket_name="goldlake-state-logs",
    key_alias="goldlake-pulumi",
    account=ACCOUNT,
    region=REGION,
    tags={**TAGS, "Name": "goldlake-state"},
)


def recorded(component: Callable[[], object]) -> Recording:
    """Return what a component registers."""

    def program() -> None:
        component()

    return record(program)


def bucket(**changes: Any) -> Recording:
    return recorded(lambda: DataBucket("data", replace(BUCKET, **changes)))


def refused(match: str, component: Callable[[], object]) -> None:
    """Expect a ConfigurationError with these words, and that nothing was registered before it."""
    errors: list[ConfigurationError] = []

    def program() -> None:
        with pytest.raises(ConfigurationError, match=match) as caught:
            component()
        errors.append(caught.value)

    assert record(program).resources == []
    assert len(errors) == 1


def policy(found: Recording, name: str = "data") -> list[dict[str, Any]]:
    """Return the statements of a bucket's policy."""
    statements: list[dict[str, Any]] = json.loads(found.of(":BucketPolicy")[f"{name}-tls"]["policy"])["Statement"]
    return statements


# --- a bucket ---


def test_a_bucket_is_private_encrypted_versioned_and_the_owners_by_default() -> None:
    found = bucket()
    private = found.one(":BucketPublicAccessBlock")
    assert [private[key] for key in private if key != "bucket"] == [True] * 4
    assert found.one(":BucketOwnershipControls")["rule"] == {"objectOwnership": "BucketOwnerEnforced"}
    assert found.one(":BucketServerSideEncryptionConfiguration")["rules"] == [
        {"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}
    ]
    assert found.one(":BucketVersioning")["versioningConfiguration"] == {"status": "Enabled"}
    assert [statement["Sid"] for statement in policy(found)] == ["DenyInsecureTransport"]
    assert found.of(":BucketLogging") == found.of(":Inventory") == {}


def test_a_bucket_carries_its_tags_and_is_protected_when_asked() -> None:
    assert bucket().one("/bucket:Bucket")["tags"] == TAGS
    assert bucket().resource("data", "/bucket:Bucket").protect
    assert not bucket(protect=False).resource("data", "/bucket:Bucket").protect


def test_every_part_of_a_bucket_is_the_components_child() -> None:
    found = bucket(log_bucket="logs-bucket", inventory=True, account=ACCOUNT)
    assert {part.parent for part in found.resources if part.custom} == {"data"}


def test_a_component_gives_its_bucket_to_others() -> None:
    exports: dict[str, pulumi.Output[str]] = {}

    def program() -> dict[str, pulumi.Output[str]]:
        made = DataBucket("data", BUCKET)
        exports.update(name=made.bucket_name, arn=made.arn)
        return exports

    assert record(program).exports["name"] == "some-bucket"


def test_a_key_encrypts_with_one_bucket_key_for_many_objects() -> None:
    assert bucket(key_arn=KEY).one(":BucketServerSideEncryptionConfiguration")["rules"] == [
        {
            "applyServerSideEncryptionByDefault": {"sseAlgorithm": "aws:kms", "kmsMasterKeyId": KEY},
            "bucketKeyEnabled": True,
        }
    ]


def test_access_logs_go_where_they_are_told() -> None:
    logging = bucket(log_bucket="logs-bucket", log_prefix="data/").one(":BucketLogging")
    assert (logging["targetBucket"], logging["targetPrefix"]) == ("logs-bucket", "data/")


def test_more_statements_stand_beside_the_refusal_of_plain_http() -> None:
    more = {"Sid": "More", "Effect": "Deny"}
    assert [statement["Sid"] for statement in policy(bucket(statements=[more]))] == ["DenyInsecureTransport", "More"]

    def later() -> None:
        DataBucket("data", replace(BUCKET, statements=pulumi.Output.from_input([more]), tls_only=False))

    assert policy(recorded(later)) == [more]


@pytest.mark.parametrize("nothing", [(), []])
def test_a_bucket_without_any_statement_has_no_policy(nothing: Any) -> None:
    assert bucket(tls_only=False, statements=nothing).of(":BucketPolicy") == {}


def test_the_lifecycle_waits_for_versioning() -> None:
    assert "data-versioning" in bucket().resource("data-lifecycle").depends_on


def test_an_inventory_is_weekly_parquet_in_the_bucket_itself_and_s3_may_deliver_it() -> None:
    found = bucket(inventory=True, account=ACCOUNT)
    inventory = found.one(":Inventory")
    target = inventory["destination"]["bucket"]
    assert inventory["schedule"] == {"frequency": "Weekly"}
    assert (target["format"], target["prefix"], target["accountId"]) == ("Parquet", "inventory", ACCOUNT)
    assert "sseS3" in target["encryption"]
    assert "DeliverInventory" in {statement["Sid"] for statement in policy(found)}
    rules = {rule["id"]: rule for rule in found.one(":BucketLifecycleConfiguration")["rules"]}
    assert rules["expire-inventory"]["expiration"] == {"days": 90}


@pytest.mark.parametrize(
    ("statement", "service", "resource", "source"),
    [
        (deliver_inventory("arn:a", ACCOUNT), "s3.amazonaws.com", "arn:a/inventory/*", "arn:a"),
        (deliver_access_logs("arn:logs", "arn:a", ACCOUNT), "logging.s3.amazonaws.com", "arn:logs/*", "arn:a"),
    ],
)
def test_s3_delivers_for_one_bucket_of_one_account_only(
    statement: dict[str, Any], service: str, resource: str, source: str
) -> None:
    assert statement["Principal"] == {"Service": service}
    assert (statement["Action"], statement["Resource"]) == ("s3:PutObject", resource)
    assert statement["Condition"] == {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnLike": {"aws:SourceArn": source},
    }


def test_the_policy_refuses_plain_http_first() -> None:
    statements = bucket_policy("arn:a", [{"Sid": "More"}], refuse_plain_http=True)["Statement"]
    assert [statement["Sid"] for statement in statements] == ["DenyInsecureTransport", "More"]


def test_old_versions_broken_uploads_and_lone_delete_markers_go() -> None:
    (rule,) = lifecycle_rules(noncurrent_days=30)
    assert rule["noncurrent_version_expiration"] == {"noncurrent_days": 30}
    assert rule["expiration"] == {"expired_object_delete_marker": True}
    assert "abort_incomplete_multipart_upload" in rule


def test_objects_move_to_intelligent_tiering_at_once_when_that_is_0_days() -> None:
    rules = lifecycle_rules(noncurrent_days=30, intelligent_tiering_days=0)
    assert rules[1]["transitions"] == [{"days": 0, "storage_class": "INTELLIGENT_TIERING"}]
    assert len(lifecycle_rules(noncurrent_days=30, intelligent_tiering_days=None)) == 1


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}/", fullmatch=True), st.integers(1, 4000), max_size=5))
def test_current_objects_expire_below_the_named_prefixes_only(expire_days: dict[str, int]) -> None:
    rules = lifecycle_rules(noncurrent_days=30, expire_days=expire_days)
    plain: list[dict[str, Any]] = [dict(rule) for rule in rules]
    expiring = {
        rule["filter"]["prefix"]: rule["expiration"]["days"] for rule in plain if "days" in rule.get("expiration", {})
    }
    assert expiring == expire_days
    assert len({rule["id"] for rule in plain}) == len(plain)


@pytest.mark.parametrize("name", ["abc", "a.b-c", "goldlake-state-123456789012-eu-west-1", "1" * 63])
def test_a_name_that_s3_takes_is_accepted(name: str) -> None:
    check_bucket_name(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ab", "3 to 63"),
        ("a" * 64, "3 to 63"),
        ("Upper", "3 to 63"),
        ("under_score", "3 to 63"),
        ("-dash", "first and last"),
        ("dot.", "first and last"),
        ("two..dots", "side by side"),
        ("192.168.5.4", "IP address"),
        ("xn--name", "S3 keeps"),
        ("name-s3alias", "S3 keeps"),
    ],
)
def test_a_name_that_s3_refuses_is_refused_before_the_first_resource(name: str, reason: str) -> None:
    refused(reason, lambda: DataBucket("data", replace(BUCKET, bucket_name=name)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"force_destroy": True}, "two settings to agree"),
        ({"inventory": True}, "without an account"),
        ({"log_bucket": "some-bucket"}, "its own log bucket"),
        ({"intelligent_tiering_days": -1}, "0 days or more"),
        ({"noncurrent_days": 0}, "noncurrent_days=0"),
        ({"expire_days": {"tmp/": 0}}, "tmp/=0"),
    ],
)
def test_what_s3_would_refuse_or_could_lose_data_is_refused(changes: dict[str, Any], reason: str) -> None:
    refused(reason, lambda: DataBucket("data", replace(BUCKET, **changes)))


# --- the lake ---


def test_each_layer_has_a_bucket_of_its_own_name_and_tag() -> None:
    found = recorded(lambda: LakeBuckets("lake", LAKE)).of("/bucket:Bucket")
    assert {name: inputs["bucket"] for name, inputs in found.items()} == {
        f"lake-{layer}": f"goldlake-{layer}" for layer in LAYERS
    }
    assert {inputs["tags"]["Name"] for inputs in found.values()} == {f"goldlake-lake-{layer}" for layer in LAYERS}


def test_layers_are_protected_and_artifacts_which_can_be_built_again_are_not() -> None:
    found = recorded(lambda: LakeBuckets("lake", LAKE))
    protected = {layer for layer in LAYERS if found.resource(f"lake-{layer}", "/bucket:Bucket").protect}
    assert protected == {"bronze", "silver", "gold"}


def test_options_reach_the_layers_and_leave_artifacts_without_inventory_and_tiering() -> None:
    args = replace(LAKE, inventory=True, intelligent_tiering_days=0, key_arn=KEY, log_bucket="logs", noncurrent_days=9)
    for layer in LAYERS:
        told = bucket_args(layer, args)
        assert (told.key_arn, told.log_bucket, told.log_prefix) == (KEY, "logs", f"{layer}/")
        assert told.noncurrent_days == 9
        assert told.inventory == (layer != "artifacts")
        assert told.intelligent_tiering_days == (None if layer == "artifacts" else 0)
        assert dict(told.expire_days) == ({"dbt/": 90} if layer == "artifacts" else {})


def test_the_buckets_are_given_to_others_with_their_arns() -> None:
    def program() -> dict[str, pulumi.Input[Any]]:
        lake = LakeBuckets("lake", LAKE)
        return {
            "names": [getattr(lake, f"{layer}_bucket") for layer in LAYERS],
            "arns": [getattr(lake, f"{layer}_arn") for layer in LAYERS],
        }

    exports = record(program).exports
    assert exports["names"] == [f"goldlake-{layer}" for layer in LAYERS]
    assert [arn.rpartition(":")[2] for arn in exports["arns"]] == [f"lake-{layer}" for layer in LAYERS]


def test_an_existing_silver_bucket_is_adopted_and_not_created() -> None:
    names = {layer: name for layer, name in LAKE.names.items() if layer != "silver"}

    def program() -> dict[str, pulumi.Input[Any]]:
        lake = LakeBuckets("lake", replace(LAKE, names=names, silver_existing="their-silver"))
        return {"name": lake.silver_bucket, "arn": lake.silver_arn}

    found = record(program)
    assert found.exports == {"name": "their-silver", "arn": "arn:aws:s3:::their-silver"}
    assert set(found.of("/bucket:Bucket")) == {"lake-bronze", "lake-gold", "lake-artifacts"}
    assert not [resource.name for resource in found.resources if "silver" in resource.name]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"names": {"bronze": "goldlake-bronze"}}, "one is needed for each of bronze, silver, gold, artifacts"),
        ({"names": {**LAKE.names, "platinum": "goldlake-platinum"}}, "for no others"),
        ({"names": {**LAKE.names, "gold": "goldlake-silver"}}, "a bucket of its own"),
        ({"silver_existing": "goldlake-gold"}, "a bucket of its own"),
        ({"silver_existing": "NO"}, "3 to 63"),
        ({"names": {**LAKE.names, "gold": "NO"}}, "3 to 63"),
        ({"force_destroy": True}, "two settings to agree"),
    ],
)
def test_buckets_that_cannot_be_a_lake_are_refused(changes: dict[str, Any], reason: str) -> None:
    refused(reason, lambda: LakeBuckets("lake", replace(LAKE, **changes)))


def test_glue_databases_have_their_locations_tags_and_names() -> None:
    def program() -> dict[str, pulumi.Input[Any]]:
        args = GlueDatabasesArgs(databases={"gold": "s3://g/gold", "silver_ai": "s3://s/silver/ai"}, tags=TAGS)
        return {"names": GlueDatabases("databases", args).names}

    found = record(program)
    assert found.exports["names"] == {"gold": "gold", "silver_ai": "silver_ai"}
    databases = found.of(":CatalogDatabase")
    assert databases["silver_ai"]["locationUri"] == "s3://s/silver/ai"
    assert databases["silver_ai"]["tags"] == {**TAGS, "Name": "silver_ai"}


@pytest.mark.parametrize("name", ["Gold", "silver-ai", "", "a" * 256])
def test_a_database_that_athena_could_not_read_is_refused(name: str) -> None:
    args = GlueDatabasesArgs(databases={name: "s3://b/p"}, tags=TAGS)
    refused("1 to 255", lambda: GlueDatabases("databases", args))


# --- the state backend ---


def state(**changes: Any) -> Recording:
    return recorded(lambda: StateBackend("state", replace(STATE, **changes)))


def test_the_state_bucket_keeps_old_versions_for_a_year_and_logs_elsewhere() -> None:
    found = state()
    rules = {rule["id"]: rule for rule in found.of(":BucketLifecycleConfiguration")["state-lifecycle"]["rules"]}
    assert rules["old-versions"]["noncurrentVersionExpiration"] == {"noncurrentDays": 365}
    assert set(rules) == {"old-versions"}
    assert found.one(":BucketLogging")["targetBucket"] == "goldlake-state-logs"


def test_the_log_bucket_lets_log_delivery_in_for_the_state_bucket_and_expires_logs() -> None:
    found = state()
    delivery = policy(found, "state-logs")[1]
    assert delivery["Condition"]["ArnLike"] == {"aws:SourceArn": "arn:aws:s3:::goldlake-state"}
    assert delivery["Resource"] == "arn:aws:s3:::goldlake-state-logs/*"
    rules = found.of(":BucketLifecycleConfiguration")["state-logs-lifecycle"]["rules"]
    assert {"days": 90} in [rule.get("expiration") for rule in rules]


def test_the_key_may_encrypt_the_state_and_never_the_logs() -> None:
    def algorithm(found: Recording, name: str) -> str:
        rules = found.of(":BucketServerSideEncryptionConfiguration")[f"{name}-encryption"]["rules"]
        return str(rules[0]["applyServerSideEncryptionByDefault"]["sseAlgorithm"])

    assert [algorithm(state(), name) for name in ("state", "state-logs")] == ["AES256", "AES256"]
    with_key = state(encrypt_with_key=True)
    assert [algorithm(with_key, name) for name in ("state", "state-logs")] == ["aws:kms", "AES256"]


def test_the_secrets_key_rotates_and_has_the_alias() -> None:
    found = state()
    assert found.one(":Key")["enableKeyRotation"] is True
    assert found.one(":Alias")["name"] == "alias/goldlake-pulumi"


def test_there_is_a_lock_table_only_when_it_is_named() -> None:
    assert state().of(":Table") == {}
    table = state(lock_table_name="goldlake-locks").one(":Table")
    assert (table["name"], table["hashKey"], table["billingMode"]) == ("goldlake-locks", "LockID", "PAY_PER_REQUEST")
    assert table["attributes"] == [{"name": "LockID", "type": "S"}]
    assert table["pointInTimeRecovery"] == {"enabled": True}
    assert table["serverSideEncryption"] == {"enabled": True}
    assert table["deletionProtectionEnabled"] is True


def test_everything_that_holds_state_is_protected_unless_it_is_told_otherwise() -> None:
    holding = ("/bucket:Bucket", ":Key", ":Table")

    def protected(found: Recording) -> set[bool]:
        return {resource.protect for resource in found.resources if resource.type.endswith(holding)}

    assert protected(state(lock_table_name="goldlake-locks")) == {True}
    bare = state(lock_table_name="goldlake-locks", protect=False)
    assert protected(bare) == {False}
    assert bare.one(":Table")["deletionProtectionEnabled"] is False


def test_the_backend_says_how_pulumi_signs_in_and_encrypts() -> None:
    def program() -> dict[str, pulumi.Input[Any]]:
        backend = StateBackend("state", STATE)
        return {
            "login": backend.login_url,
            "secrets": backend.secrets_provider,
            "table": backend.lock_table_name,
            "alias": backend.key_alias,
            "logs": backend.log_bucket_name,
        }

    assert record(program).exports == {
        "login": "s3://goldlake-state",
        "secrets": f"awskms://alias/goldlake-pulumi?region={REGION}",
        "table": "",
        "alias": "alias/goldlake-pulumi",
        "logs": "goldlake-state-logs",
    }
    assert secrets_provider("alias/a", "eu-north-1") == "awskms://alias/a?region=eu-north-1"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"force_destroy": True}, "two settings to agree"),
        ({"noncurrent_days": 29}, "30 or more"),
        ({"key_alias": "alias/goldlake"}, "without alias/"),
        ({"key_alias": "aws/s3"}, "AWS's own keys"),
        ({"key_alias": ""}, "1 to 250"),
        ({"lock_table_name": "no"}, "3 to 255"),
        ({"lock_table_name": ""}, "3 to 255"),
        ({"log_bucket_name": "goldlake-state"}, "for state and logs"),
        ({"bucket_name": "NO"}, "3 to 63"),
        ({"log_bucket_name": "NO"}, "3 to 63"),
    ],
)
def test_a_backend_that_could_lose_state_is_refused(changes: dict[str, Any], reason: str) -> None:
    refused(reason, lambda: StateBackend("state", replace(STATE, **changes)))
