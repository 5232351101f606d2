"""S3, Glue, Secrets Manager and CloudWatch Logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pulumi

from local.resources.kinds import Applied, Inputs, Kind, found, pascal, tag_list, unless
from runtime.aws import DEFAULT_REGION, Connection


def _bucket(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    s3 = aws.client("s3")
    name = inputs["bucket"]
    region = aws.region or DEFAULT_REGION
    # S3 refuses its own default region as a location constraint.
    place = {} if region == DEFAULT_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    unless(lambda: s3.create_bucket(Bucket=name, **place), "BucketAlreadyOwnedByYou", "BucketAlreadyExists")
    s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tag_list(inputs.get("tags"))})
    return Applied(name, {"bucket": name, "arn": f"arn:aws:s3:::{name}", "region": region})


def _bucket_exists(aws: Connection, name: str, _inputs: Inputs) -> bool:
    return found(lambda: aws.client("s3").head_bucket(Bucket=name), "404", "NoSuchBucket")


def _bucket_part(put: Callable[[Any, str, Inputs], Any], get: str, *absent: str) -> Kind:
    """Return the kind of a bucket's sub-resource: `put` sets it, the client method `get` reads it."""

    def apply(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
        put(aws.client("s3"), inputs["bucket"], inputs)
        return Applied(inputs["bucket"], {})

    def exists(aws: Connection, bucket: str, _inputs: Inputs) -> bool:
        return found(lambda: getattr(aws.client("s3"), get)(Bucket=bucket), "NoSuchBucket", *absent)

    return Kind(apply, exists)


def _put_private(s3: Any, bucket: str, inputs: Inputs) -> None:
    settings = {key: inputs[key] for key in inputs if key != "bucket" and isinstance(inputs[key], bool)}
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=pascal(settings))


def _put_owner(s3: Any, bucket: str, inputs: Inputs) -> None:
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls={"Rules": [pascal(inputs["rule"])]})


def _put_encryption(s3: Any, bucket: str, inputs: Inputs) -> None:
    rules = []
    for rule in inputs["rules"]:
        default = rule["applyServerSideEncryptionByDefault"]
        key = {"KMSMasterKeyID": default["kmsMasterKeyId"]} if default.get("kmsMasterKeyId") else {}
        rules.append(
            {
                "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": default["sseAlgorithm"], **key},
                "BucketKeyEnabled": bool(rule.get("bucketKeyEnabled")),
            }
        )
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": rules})


def _put_versioning(s3: Any, bucket: str, inputs: Inputs) -> None:
    status = inputs["versioningConfiguration"]["status"]
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


def _put_lifecycle(s3: Any, bucket: str, inputs: Inputs) -> None:
    rules = []
    for rule in inputs["rules"]:
        spelled = pascal(rule)
        spelled["ID"] = spelled.pop("Id")
        rules.append(spelled)
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})


def _put_policy(s3: Any, bucket: str, inputs: Inputs) -> None:
    s3.put_bucket_policy(Bucket=bucket, Policy=inputs["policy"])


def _put_logging(s3: Any, bucket: str, inputs: Inputs) -> None:
    target = {"TargetBucket": inputs["targetBucket"], "TargetPrefix": inputs["targetPrefix"]}
    s3.put_bucket_logging(Bucket=bucket, BucketLoggingStatus={"LoggingEnabled": target})


def _logging_exists(aws: Connection, bucket: str, _inputs: Inputs) -> bool:
    """Return whether access logs are on; a bucket without them is answered with nothing, and no error."""
    answer: dict[str, Any] = {}
    there = found(lambda: answer.update(aws.client("s3").get_bucket_logging(Bucket=bucket)), "NoSuchBucket")
    return there and "LoggingEnabled" in answer


def _object(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    source = inputs["source"]
    assert isinstance(source, pulumi.FileAsset)  # noqa: S101 - the program gives files only
    # put_object, for upload_file hides the service's error code in an exception of its own.
    with Path(str(source.path)).open("rb") as content:
        aws.client("s3").put_object(
            Bucket=inputs["bucket"],
            Key=inputs["key"],
            Body=content,
            ContentType=inputs["contentType"],
            Tagging=urlencode(inputs.get("tags") or {}),
        )
    return Applied(inputs["key"], {})


def _object_exists(aws: Connection, key: str, inputs: Inputs) -> bool:
    return found(
        lambda: aws.client("s3").head_object(Bucket=inputs["bucket"], Key=key),
        "404",
        "NoSuchKey",
        "NoSuchBucket",
    )


def _glue_database(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    glue = aws.client("glue")
    database = {
        "Name": inputs["name"],
        "Description": inputs["description"],
        "LocationUri": inputs["locationUri"],
    }
    if not unless(lambda: glue.create_database(DatabaseInput=database), "AlreadyExistsException"):
        glue.update_database(Name=inputs["name"], DatabaseInput=database)
    return Applied(inputs["name"], {"name": inputs["name"]})


def _glue_database_exists(aws: Connection, name: str, _inputs: Inputs) -> bool:
    return found(lambda: aws.client("glue").get_database(Name=name), "EntityNotFoundException")


def _secret(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    secrets = aws.client("secretsmanager")
    name, text, tags = inputs["name"], inputs["description"], tag_list(inputs.get("tags"))
    key = {"KmsKeyId": inputs["kmsKeyId"]} if inputs.get("kmsKeyId") else {}
    made = unless(
        lambda: secrets.create_secret(Name=name, Description=text, Tags=tags, **key), "ResourceExistsException"
    )
    if not made:
        secrets.update_secret(SecretId=name, Description=text, **key)
        secrets.tag_resource(SecretId=name, Tags=tags)
    arn = secrets.describe_secret(SecretId=name)["ARN"]
    return Applied(arn, {"arn": arn, "name": name})


def _secret_exists(aws: Connection, arn: str, _inputs: Inputs) -> bool:
    return found(lambda: aws.client("secretsmanager").describe_secret(SecretId=arn), "ResourceNotFoundException")


def _log_group(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    logs = aws.client("logs")
    name = inputs["name"]
    key = {"kmsKeyId": inputs["kmsKeyId"]} if inputs.get("kmsKeyId") else {}
    unless(
        # The emulator cannot change a group's key afterwards.
        lambda: logs.create_log_group(logGroupName=name, tags=dict(inputs.get("tags") or {}), **key),
        "ResourceAlreadyExistsException",
    )
    logs.put_retention_policy(logGroupName=name, retentionInDays=int(inputs["retentionInDays"]))
    arn = str(_describe_log_group(aws, name)["arn"])
    return Applied(name, {"arn": arn.removesuffix(":*"), "name": name})


def _describe_log_group(aws: Connection, name: str) -> dict[str, Any]:
    groups = aws.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    return next((group for group in groups if group["logGroupName"] == name), {})


STORAGE = {
    "aws:s3/bucket:Bucket": Kind(_bucket, _bucket_exists),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": _bucket_part(
        _put_private, "get_public_access_block", "NoSuchPublicAccessBlockConfiguration"
    ),
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": _bucket_part(
        _put_owner, "get_bucket_ownership_controls", "OwnershipControlsNotFoundError"
    ),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": _bucket_part(
        _put_encryption, "get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError"
    ),
    "aws:s3/bucketVersioning:BucketVersioning": _bucket_part(_put_versioning, "get_bucket_versioning"),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": _bucket_part(
        _put_lifecycle, "get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration"
    ),
    "aws:s3/bucketPolicy:BucketPolicy": _bucket_part(_put_policy, "get_bucket_policy", "NoSuchBucketPolicy"),
    "aws:s3/bucketLogging:BucketLogging": Kind(_bucket_part(_put_logging, "get_bucket_logging").apply, _logging_exists),
    "aws:s3/bucketObjectv2:BucketObjectv2": Kind(_object, _object_exists),
    "aws:glue/catalogDatabase:CatalogDatabase": Kind(_glue_database, _glue_database_exists),
    "aws:secretsmanager/secret:Secret": Kind(_secret, _secret_exists),
    "aws:cloudwatch/logGroup:LogGroup": Kind(
        _log_group, lambda aws, name, _inputs: bool(_describe_log_group(aws, name))
    ),
}

RECORDED_ONLY: dict[str, str] = {
    "aws:s3/inventory:Inventory": "the emulator takes it for the creation of a bucket, and keeps nothing",
}
"""Types without an emulated API, each with the reason."""
