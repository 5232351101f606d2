"""Nothing is open to the world, and nothing goes unencrypted over a wire."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policies.model import (
    Finding,
    Resource,
    Rule,
    at,
    condition_keys,
    is_other_than,
    items,
    known,
    partners,
    principals,
    statements,
)

BUCKET = "aws:s3/bucket:Bucket"
BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
OWNERSHIP = "aws:s3/bucketOwnershipControls:BucketOwnershipControls"
BUCKET_POLICY = "aws:s3/bucketPolicy:BucketPolicy"
QUEUE, QUEUE_POLICY = "aws:sqs/queue:Queue", "aws:sqs/queuePolicy:QueuePolicy"
TOPIC, TOPIC_POLICY = "aws:sns/topic:Topic", "aws:sns/topicPolicy:TopicPolicy"
WORKGROUP = "aws:redshiftserverless/workgroup:Workgroup"
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
GROUP = "aws:ec2/securityGroup:SecurityGroup"
GROUP_RULE = "aws:ec2/securityGroupRule:SecurityGroupRule"
DEFAULT_GROUP = "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup"
SUBNET = "aws:ec2/subnet:Subnet"
URL, PERMISSION = "aws:lambda/functionUrl:FunctionUrl", "aws:lambda/permission:Permission"
BLOCKS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
EVERYWHERE = ("0.0.0.0/0", "::/0")


def bucket_is_blocked(bucket: Resource, everything: Sequence[Resource]) -> Iterator[Finding]:
    """Each bucket has a public access block with all four switches on."""
    blocks = partners(bucket, everything, BLOCK, "bucket")
    if not blocks:
        yield "has no public access block"
    for block in blocks:
        off = [name for name in BLOCKS if is_other_than(block.inputs.get(name), True)]
        if off:
            yield f"has a public access block with {', '.join(off)} off"


def bucket_has_no_acl(bucket: Resource, everything: Sequence[Resource]) -> Iterator[Finding]:
    """Access lists of objects are switched off, so that the bucket's policy alone decides."""
    owners = partners(bucket, everything, OWNERSHIP, "bucket")
    if not owners:
        yield "has no ownership controls"
    for owner in owners:
        if is_other_than(at(owner.inputs, "rule", "objectOwnership"), "BucketOwnerEnforced"):
            yield "lets access lists decide: object ownership is not BucketOwnerEnforced"
    if bucket.inputs.get("acl") not in (None, "private"):
        yield f"has the access list {bucket.inputs['acl']}"


def bucket_is_tls_only(bucket: Resource, everything: Sequence[Resource]) -> Iterator[Finding]:
    """A bucket's policy refuses requests without TLS."""
    yield from _tls_only(bucket, everything, BUCKET_POLICY, "bucket", "s3:*")


def messages_are_tls_only(resource: Resource, everything: Sequence[Resource]) -> Iterator[Finding]:
    """The policy of a queue or topic refuses requests without TLS."""
    if resource.type == QUEUE:
        yield from _tls_only(resource, everything, QUEUE_POLICY, "queueUrl", "sqs:*")
    else:
        yield from _tls_only(resource, everything, TOPIC_POLICY, "arn", "sns:Publish")


def _tls_only(
    resource: Resource, everything: Sequence[Resource], kind: str, name: str, action: str
) -> Iterator[Finding]:
    policies = partners(resource, everything, kind, name)
    if not policies:
        yield "has no policy that refuses requests without TLS"
    elif all(known(found.inputs.get("policy")) and not _refuses_plain(found, action) for found in policies):
        yield "has a policy that does not refuse requests without TLS"


def _refuses_plain(policy: Resource, action: str) -> bool:
    return any(
        ("AWS", "*") in principals(found)
        and {action, "*"} & set(items(found.get("Action")))
        and str(at(found, "Condition", "Bool", "aws:SecureTransport")).lower() == "false"
        for found in statements(policy, "Deny")
    )


def warehouse_is_private(workgroup: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """A workgroup has no public address."""
    if is_other_than(workgroup.inputs.get("publiclyAccessible"), False, None):
        yield "is publicly accessible"


def warehouse_is_tls_only(workgroup: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """A workgroup takes no connection without TLS."""
    parameters = workgroup.inputs.get("configParameters")
    values = {at(found, "parameterKey"): at(found, "parameterValue") for found in items(parameters)}
    if known(parameters) and all(map(known, values)) and is_other_than(values.get("require_ssl"), "true"):
        yield f"has require_ssl {values.get('require_ssl')!r}"


def ingress_is_closed(resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """No security group lets in whoever comes."""
    if resource.type == GROUP:
        rules = items(resource.inputs.get("ingress"))
    elif resource.type == GROUP_RULE and resource.inputs.get("type") != "ingress":
        rules = []
    else:
        rules = [resource.inputs]
    for rule in rules:
        given = [
            found for key in ("cidrIpv4", "cidrIpv6", "cidrBlocks", "ipv6CidrBlocks") for found in items(at(rule, key))
        ]
        for address in given:
            if address in EVERYWHERE:
                yield f"lets in {address}"


def default_group_is_closed(group: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """What is put into the network without a security group can reach nothing and be reached by nobody."""
    open_ = [way for way in ("ingress", "egress") if items(group.inputs.get(way))]
    if open_:
        yield f"has rules for {' and '.join(open_)}"


def subnet_is_private(subnet: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """Nothing in a subnet gets a public address by itself."""
    if is_other_than(subnet.inputs.get("mapPublicIpOnLaunch"), False, None):
        yield "gives out public addresses"


def function_is_private(resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """Nobody calls a function without signing in."""
    if resource.type == URL and is_other_than(resource.inputs.get("authorizationType"), "AWS_IAM"):
        yield "is a function's address that asks nobody to sign in"
    if resource.type == PERMISSION:
        scoped = any(resource.inputs.get(name) for name in ("sourceArn", "sourceAccount", "principalOrgId"))
        if resource.inputs.get("principal") == "*" and not scoped:
            yield "lets everybody call a function"
        if resource.inputs.get("functionUrlAuthType") == "NONE":
            yield "lets everybody call a function's address"


# Keys that say who may come, of AWS's global condition context keys and of KMS.
_WHO = frozenset(
    {
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principalorgid",
        "aws:principalorgpaths",
        "aws:sourceaccount",
        "aws:sourcearn",
        "aws:sourceorgid",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "kms:calleraccount",
    }
)


def no_open_principal(resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """A policy that allows everybody says by a condition who that is."""
    for statement in statements(resource):
        if ("AWS", "*") in principals(statement) and not condition_keys(statement) & _WHO:
            yield f"allows everybody {', '.join(map(str, items(statement.get('Action'))))}"


_OPEN_TYPES = frozenset(
    {BUCKET_POLICY, QUEUE_POLICY, TOPIC_POLICY}
    | {
        "aws:secretsmanager/secretPolicy:SecretPolicy",
        "aws:kms/key:Key",
        "aws:ec2/vpcEndpoint:VpcEndpoint",
        "aws:iam/role:Role",
    }
)

RULES = (
    Rule(
        id="bucket-public-access-blocked",
        title="Buckets block public access",
        severity="error",
        remediation="Add a BucketPublicAccessBlock with all four switches on; components/bucket.py makes one.",
        source="Security Hub S3.8",
        types=frozenset({BUCKET}),
        check=bucket_is_blocked,
        whole_stack=True,
    ),
    Rule(
        id="bucket-acl-off",
        title="Buckets have no access lists",
        severity="error",
        remediation="Add BucketOwnershipControls with BucketOwnerEnforced, and grant access by the bucket's policy.",
        source="Security Hub S3.12",
        types=frozenset({BUCKET}),
        check=bucket_has_no_acl,
        whole_stack=True,
    ),
    Rule(
        id="bucket-tls-only",
        title="Buckets refuse requests without TLS",
        severity="error",
        remediation="Deny s3:* to everybody where aws:SecureTransport is false: components.policies.tls_only.",
        source="Security Hub S3.5",
        types=frozenset({BUCKET}),
        check=bucket_is_tls_only,
        whole_stack=True,
    ),
    Rule(
        id="messages-tls-only",
        title="Queues and topics refuse requests without TLS",
        severity="warning",
        remediation="Deny sqs:* or sns:Publish where aws:SecureTransport is false (policies.deny_plain_http).",
        source="SQS and SNS developer guides, “Security best practices”",
        types=frozenset({QUEUE, TOPIC}),
        check=messages_are_tls_only,
        whole_stack=True,
    ),
    Rule(
        id="warehouse-not-public",
        title="The warehouse has no public address",
        severity="error",
        remediation="Set publiclyAccessible to false and reach the warehouse from inside the network.",
        source="Security Hub RedshiftServerless.3",
        types=frozenset({WORKGROUP}),
        check=warehouse_is_private,
    ),
    Rule(
        id="warehouse-tls-only",
        title="The warehouse takes no connection without TLS",
        severity="error",
        remediation="Set the workgroup's parameter require_ssl to true (goldlake:requireTls).",
        source="Security Hub RedshiftServerless.2",
        types=frozenset({WORKGROUP}),
        check=warehouse_is_tls_only,
    ),
    Rule(
        id="no-open-ingress",
        title="Security groups let in nobody from everywhere",
        severity="error",
        remediation="Name the security group, prefix list or address range that may come in.",
        source="Security Hub EC2.18, EC2.19; CIS AWS Foundations 3.0, 5.2, 5.3",
        types=frozenset({INGRESS, GROUP, GROUP_RULE}),
        check=ingress_is_closed,
    ),
    Rule(
        id="default-group-closed",
        title="The network's default security group is closed",
        severity="error",
        remediation="Adopt it with a DefaultSecurityGroup that has no rules, and give each thing a group of its own.",
        source="Security Hub EC2.2",
        types=frozenset({DEFAULT_GROUP}),
        check=default_group_is_closed,
    ),
    Rule(
        id="no-public-addresses",
        title="Subnets give out no public addresses",
        severity="error",
        remediation="Set mapPublicIpOnLaunch to false.",
        source="Security Hub EC2.15",
        types=frozenset({SUBNET}),
        check=subnet_is_private,
    ),
    Rule(
        id="function-not-public",
        title="Functions are called by known callers only",
        severity="error",
        remediation="Use authorizationType AWS_IAM, and name the principal and its source in permissions.",
        source="Security Hub Lambda.1",
        types=frozenset({URL, PERMISSION}),
        check=function_is_private,
    ),
    Rule(
        id="no-open-principal",
        title="No policy allows everybody without saying who that is",
        severity="error",
        remediation="Name the principal, or add a condition such as aws:PrincipalAccount or aws:SourceVpce.",
        source="Security Hub S3.2, SQS.3, SNS.4, KMS.5",
        types=_OPEN_TYPES,
        check=no_open_principal,
    ),
)
