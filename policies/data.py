"""Data is encrypted, kept, recoverable, and where it may be; what bills by the hour has a limit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from policies.limits import (
    MAX_BASE_RPU,
    MAX_INCOMPLETE_UPLOAD_DAYS,
    MAX_RPU,
    MIN_RECOVERY_DAYS,
    REGIONS,
    REQUIRED_TAGS,
)
from policies.model import Finding, Resource, Rule, at, is_other_than, items, known, partners, principals, statements
from policies.public import BUCKET, QUEUE, TOPIC, WORKGROUP

ENCRYPTION = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
VERSIONING = "aws:s3/bucketVersioning:BucketVersioning"
LIFECYCLE = "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration"
SECRET = "aws:secretsmanager/secret:Secret"  # noqa: S105 - a type token
KEY = "aws:kms/key:Key"
NAMESPACE = "aws:redshiftserverless/namespace:Namespace"
USAGE_LIMIT = "aws:redshiftserverless/usageLimit:UsageLimit"
TABLE = "aws:dynamodb/table:Table"
LOG_GROUP = "aws:cloudwatch/logGroup:LogGroup"
NAT = "aws:ec2/natGateway:NatGateway"
DATA_STORES = frozenset({BUCKET, SECRET, KEY, NAMESPACE, TABLE})
# Where the key of each stands. A bucket's is in a resource of its own.
KEY_INPUTS = {
    SECRET: "kmsKeyId",
    LOG_GROUP: "kmsKeyId",
    QUEUE: "kmsMasterKeyId",
    TOPIC: "kmsMasterKeyId",
    NAMESPACE: "kmsKeyId",
    "aws:lambda/function:Function": "kmsKeyArn",
}


def bucket_is_encrypted(bucket: Resource, everything: Sequence[Resource]) -> Iterator[Finding]:
    """Each bucket says how its objects are encrypted."""
    found = partners(bucket, everything, ENCRYPTION, "bucket")
    if not found:
        yield "does not say how its objects are encrypted"
    for encryption in found:
        algorithm = at(encryption.inputs, "rules", 0, "applyServerSideEncryptionByDefault", "sseAlgorithm")
        if is_other_than(algorithm, "AES256", "aws:kms", "aws:kms:dsse"):
            yield f"is encrypted with {algorithm!r}"


def queue_is_encrypted(queue: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """A queue is encrypted, with SQS's own keys at least."""
    if not queue.inputs.get("kmsMasterKeyId") and is_other_than(queue.inputs.get("sqsManagedSseEnabled"), True):
        yield "is not encrypted"


def topic_is_encrypted(topic: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """A topic is encrypted with a KMS key: SNS has no keys of its own."""
    if not topic.inputs.get("kmsMasterKeyId"):
        yield "is not encrypted"


def own_key_is_used(resource: Resource, everything: Sequence[Resource]) -> Iterator[Finding]:
    """In a stack that has a key for its data, whatever can be encrypted with it is."""
    if not any(_is_for_data(found) for found in everything):
        return
    if resource.type == BUCKET:
        rules = [at(found.inputs, "rules", 0) for found in partners(resource, everything, ENCRYPTION, "bucket")]
        if rules and not any(at(rule, "applyServerSideEncryptionByDefault", "kmsMasterKeyId") for rule in rules):
            yield "is encrypted with AWS's key, though the stack has one of its own"
    elif not resource.inputs.get(KEY_INPUTS[resource.type]):
        yield "is encrypted with AWS's key, though the stack has one of its own"


def _is_for_data(resource: Resource) -> bool:
    """Return whether a resource is a key that services may use; one for Pulumi's own secrets is for people only."""
    allowed = [name for statement in statements(resource) for _kind, name in principals(statement)]
    return resource.type == KEY and any(name.startswith("logs.") for name in allowed)


def table_is_safe(table: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """A DynamoDB table is encrypted, can be had back as it was, and is not deleted by mistake."""
    for path, what in (
        (("serverSideEncryption", "enabled"), "is not encrypted with KMS"),
        (("pointInTimeRecovery", "enabled"), "has no point-in-time recovery"),
        (("deletionProtectionEnabled",), "has no protection from deletion"),
    ):
        if is_other_than(at(table.inputs, *path), True):
            yield what


def store_is_protected(resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """What holds data is not deleted with the stack."""
    if not resource.protect:
        yield "holds data and is not protected"
    if is_other_than(resource.inputs.get("forceDestroy"), False, None):
        yield "is deleted with all that it holds (forceDestroy)"


def bucket_is_versioned(bucket: Resource, everything: Sequence[Resource]) -> Iterator[Finding]:
    """What is overwritten in a bucket can be had back."""
    found = partners(bucket, everything, VERSIONING, "bucket")
    if not found:
        yield "is not versioned"
    for versioning in found:
        status = at(versioning.inputs, "versioningConfiguration", "status")
        if is_other_than(status, "Enabled"):
            yield f"has versioning {status}"


def bucket_forgets_incomplete_uploads(bucket: Resource, everything: Sequence[Resource]) -> Iterator[Finding]:
    """Parts of uploads that were never finished are paid for and seen by nobody; they go after some days."""
    lists = [found.inputs.get("rules") for found in partners(bucket, everything, LIFECYCLE, "bucket")]
    rules = [rule for found in lists for rule in items(found)]
    days = [at(rule, "abortIncompleteMultipartUpload", "daysAfterInitiation") for rule in rules]
    soon = [isinstance(found, int | float) and found <= MAX_INCOMPLETE_UPLOAD_DAYS for found in days]
    if all(map(known, [*lists, *rules, *days])) and not any(soon):
        yield f"keeps incomplete uploads for more than {MAX_INCOMPLETE_UPLOAD_DAYS} days"


def deletion_is_slow(resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """A deleted secret or key can be had back for some days. None is AWS's own 30."""
    name = "recoveryWindowInDays" if resource.type == SECRET else "deletionWindowInDays"
    days = resource.inputs.get(name)
    if days is not None and known(days) and days < MIN_RECOVERY_DAYS:
        yield f"is gone {days:g} days after its deletion: at least {MIN_RECOVERY_DAYS} are wanted"


def key_is_rotated(key: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """A symmetric key gets new material every year."""
    symmetric = key.inputs.get("customerMasterKeySpec") in (None, "SYMMETRIC_DEFAULT")
    if symmetric and is_other_than(key.inputs.get("enableKeyRotation"), True):
        yield "is never rotated"


def workgroup_has_a_limit(workgroup: Resource, everything: Sequence[Resource]) -> Iterator[Finding]:
    """Somebody is told, or queries are stopped, before the bill of a month is a surprise."""
    if not partners(workgroup, everything, USAGE_LIMIT, "resourceArn"):
        yield "has no usage limit"


def workgroup_is_small(workgroup: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """The size of a workgroup is declared, and within what is allowed."""
    base, most = workgroup.inputs.get("baseCapacity"), workgroup.inputs.get("maxCapacity")
    if base is None:
        yield "does not declare its base capacity: AWS takes 128 RPU then"
    for what, value, limit in (("base", base, MAX_BASE_RPU), ("largest", most, MAX_RPU)):
        if isinstance(value, int | float) and value > limit:
            yield f"has a {what} capacity of {value:g} RPU: {limit} are allowed"


def workgroup_routes_in_the_network(workgroup: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """COPY and UNLOAD go through the network, where endpoints and security groups decide."""
    if is_other_than(workgroup.inputs.get("enhancedVpcRouting"), True):
        yield "does not route COPY and UNLOAD through the network"


def region_is_allowed(resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """Data stays in regions that are allowed."""
    for region in sorted(_regions(resource) - REGIONS):
        yield f"is in {region}: {', '.join(sorted(REGIONS))} are allowed"


def _regions(resource: Resource) -> set[str]:
    """Return the regions that a resource's own inputs name."""
    zone = str(resource.inputs.get("availabilityZone") or "")
    service = str(resource.inputs.get("serviceName") or "").split(".")
    given = {str(resource.inputs.get("region") or ""), zone[:-1], service[2] if len(service) > 3 else ""}
    return {found for found in given if re.fullmatch(r"[a-z]{2}(-[a-z]+)+-\d", found)}


def no_nat(_resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """Nothing here needs the internet; a NAT gateway bills by the hour and by the GB, and is a way out for data."""
    yield "is a way out to the internet that bills by the hour"


def tags_are_there(resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """Everything that takes tags says whose it is, who pays, and what it belongs to."""
    tags = resource.inputs.get("tags")
    if not known(tags) or resource.type.split(":")[0] != "aws":
        return
    if tags is None and resource.type not in TAGGED:
        return
    missing = [name for name in REQUIRED_TAGS if not at(tags or {}, name)]
    if missing:
        yield f"has no tag {', '.join(missing)}"


# What takes tags; a type that is not here is looked at when it has any.
TAGGED = frozenset(
    {
        *DATA_STORES,
        QUEUE,
        TOPIC,
        WORKGROUP,
        LOG_GROUP,
        NAT,
        "aws:cloudwatch/eventRule:EventRule",
        "aws:cloudwatch/metricAlarm:MetricAlarm",
        "aws:ec2/eip:Eip",
        "aws:ec2/flowLog:FlowLog",
        "aws:ec2/instance:Instance",
        "aws:ec2/internetGateway:InternetGateway",
        "aws:ec2/routeTable:RouteTable",
        "aws:ec2/securityGroup:SecurityGroup",
        "aws:ec2/subnet:Subnet",
        "aws:ec2/vpc:Vpc",
        "aws:ec2/vpcEndpoint:VpcEndpoint",
        "aws:glue/catalogDatabase:CatalogDatabase",
        "aws:iam/role:Role",
        "aws:lambda/function:Function",
        "aws:rds/instance:Instance",
        "aws:s3/bucketObjectv2:BucketObjectv2",
        "aws:sfn/stateMachine:StateMachine",
        "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
        "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
    }
)

RULES = (
    Rule(
        id="bucket-encrypted",
        title="Buckets say how they are encrypted",
        severity="error",
        remediation="Add a BucketServerSideEncryptionConfiguration; components/bucket.py makes one.",
        source="S3 user guide, “Setting default server-side encryption behavior”",
        types=frozenset({BUCKET}),
        check=bucket_is_encrypted,
        whole_stack=True,
    ),
    Rule(
        id="queue-encrypted",
        title="Queues are encrypted",
        severity="error",
        remediation="Set sqsManagedSseEnabled, or kmsMasterKeyId where the stack has a key.",
        source="Security Hub SQS.1",
        types=frozenset({QUEUE}),
        check=queue_is_encrypted,
    ),
    Rule(
        id="topic-encrypted",
        title="Topics are encrypted",
        severity="warning",
        remediation="Set kmsMasterKeyId; alarms can publish only with a key of your own (goldlake:customerKey).",
        source="Security Hub SNS.1",
        types=frozenset({TOPIC}),
        check=topic_is_encrypted,
    ),
    Rule(
        id="own-key-used",
        title="A stack with a key of its own encrypts everything with it",
        severity="error",
        remediation="Hand the key's ARN to the component (key_arn), as stacks/ does for all others.",
        source="Security Hub S3.17, RedshiftServerless.4; KMS developer guide, “Customer managed keys”",
        types=frozenset({BUCKET, *KEY_INPUTS}),
        check=own_key_is_used,
        whole_stack=True,
    ),
    Rule(
        id="table-safe",
        title="DynamoDB tables are encrypted, recoverable and protected",
        severity="error",
        remediation="Set serverSideEncryption, pointInTimeRecovery and deletionProtectionEnabled.",
        source="Security Hub DynamoDB.2, DynamoDB.6",
        types=frozenset({TABLE}),
        check=table_is_safe,
    ),
    Rule(
        id="data-store-protected",
        title="What holds data is protected from deletion",
        severity="error",
        remediation="Pass protect=True, and leave forceDestroy off (goldlake:protectData, goldlake:forceDestroy).",
        source="Pulumi, resource option “protect”; AWS Well-Architected, REL09",
        types=DATA_STORES,
        check=store_is_protected,
    ),
    Rule(
        id="bucket-versioned",
        title="Buckets are versioned",
        severity="error",
        remediation="Add a BucketVersioning with status Enabled; components/bucket.py makes one.",
        source="Security Hub S3.14",
        types=frozenset({BUCKET}),
        check=bucket_is_versioned,
        whole_stack=True,
    ),
    Rule(
        id="bucket-incomplete-uploads",
        title="Buckets forget incomplete uploads",
        severity="warning",
        remediation="Add a lifecycle rule with abortIncompleteMultipartUpload after 7 days.",
        source="Security Hub S3.13; S3 user guide, “Aborting incomplete multipart uploads”",
        types=frozenset({BUCKET}),
        check=bucket_forgets_incomplete_uploads,
        whole_stack=True,
    ),
    Rule(
        id="recovery-window",
        title="Deleted secrets and keys can be had back",
        severity="error",
        remediation=f"Leave {MIN_RECOVERY_DAYS} days or more; 30 are AWS's default.",
        source="Security Hub KMS.3; Secrets Manager user guide, “Delete a secret”",
        types=frozenset({SECRET, KEY}),
        check=deletion_is_slow,
    ),
    Rule(
        id="key-rotated",
        title="KMS keys are rotated",
        severity="error",
        remediation="Set enableKeyRotation.",
        source="Security Hub KMS.4; CIS AWS Foundations 3.0, 3.6",
        types=frozenset({KEY}),
        check=key_is_rotated,
    ),
    Rule(
        id="warehouse-usage-limit",
        title="The warehouse has a usage limit",
        severity="warning",
        remediation="Set goldlake:usageLimitHours, or add a UsageLimit for the workgroup.",
        source="Redshift management guide, “Setting usage limits”",
        types=frozenset({WORKGROUP}),
        check=workgroup_has_a_limit,
        whole_stack=True,
    ),
    Rule(
        id="warehouse-size",
        title="The warehouse is of an allowed size",
        severity="error",
        remediation=f"Declare at most {MAX_BASE_RPU} RPU, and {MAX_RPU} as the most; policies/limits.py says so.",
        source="Redshift management guide, “Compute capacity for Amazon Redshift Serverless”",
        types=frozenset({WORKGROUP}),
        check=workgroup_is_small,
    ),
    Rule(
        id="warehouse-vpc-routing",
        title="The warehouse moves data through the network",
        severity="warning",
        remediation="Set enhancedVpcRouting, and give the network endpoints for S3 and Glue.",
        source="Security Hub RedshiftServerless.1",
        types=frozenset({WORKGROUP}),
        check=workgroup_routes_in_the_network,
    ),
    Rule(
        id="allowed-region",
        title="Resources are in allowed regions",
        severity="error",
        remediation="Set aws:region to an allowed region, or change policies/limits.py in review.",
        source="Control Tower, region deny control; our own limits",
        types=frozenset(),
        check=region_is_allowed,
    ),
    Rule(
        id="no-nat-gateway",
        title="There is no NAT gateway",
        severity="warning",
        remediation="Use endpoints (goldlake:natGateways: none); exempt the gateway if something needs the internet.",
        source="VPC user guide, “Pricing for NAT gateways”",
        types=frozenset({NAT}),
        check=no_nat,
    ),
    Rule(
        id="required-tags",
        title="Resources carry the standard tags",
        severity="error",
        remediation="Pass names.tags(part), which has them all.",
        source="AWS whitepaper “Best Practices for Tagging AWS Resources”",
        types=frozenset(),
        check=tags_are_there,
    ),
)
