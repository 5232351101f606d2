"""IAM and bucket policies as pure functions: the documents of every role that this program makes.

Shapes follow the IAM JSON policy elements reference. A statement names its actions one by one and its
resources by ARN; the few that AWS offers no resource for are marked with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Document = dict[str, Any]
Statement = dict[str, Any]


def document(*statements: Statement) -> Document:
    """Return a policy document of these statements."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(
    actions: Sequence[str],
    resources: Sequence[str],
    *,
    condition: Mapping[str, Any] | None = None,
) -> Statement:
    """Return an Allow statement."""
    statement: Statement = {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    if condition:
        statement["Condition"] = dict(condition)
    return statement


def trust(service: str, account: str, source_arn: str = "") -> Document:
    """Return the trust policy for an AWS service, for this account only, and for one of its resources if it is given.

    `aws:SourceAccount` and `aws:SourceArn` keep other resources from using the role through the service (the confused
    deputy problem, IAM user guide). Lambda itself sends no source account when it assumes a function's role.
    A `source_arn` with a `*` stands for resources whose ids AWS makes up.
    """
    statement: Statement = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sts:AssumeRole",
    }
    if service != "lambda.amazonaws.com":
        statement["Condition"] = {"StringEquals": {"aws:SourceAccount": account}}
        if source_arn:
            statement["Condition"].setdefault("ArnLike" if "*" in source_arn else "StringEquals", {}).update(
                {"aws:SourceArn": source_arn}
            )
    return document(statement)


def schedule_group(region: str, account: str) -> str:
    """Return the ARN of the group that the schedules are in, which the scheduler names when it takes a role.

    Source: EventBridge Scheduler user guide, "Confused deputy prevention".
    """
    return f"arn:aws:scheduler:{region}:{account}:schedule-group/default"


def tls_only(bucket_arn: str) -> Document:
    """Return a bucket policy that refuses every request that does not come over TLS."""
    return document(deny_plain_http("s3:*", [bucket_arn, f"{bucket_arn}/*"]))


def deny_plain_http(action: str, resources: Sequence[str]) -> Statement:
    """Return the statement of a resource's own policy that refuses whoever does not come over TLS."""
    return {
        "Sid": "DenyInsecureTransport",
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": list(resources),
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def tls_only_queue(queue_arn: str) -> Document:
    """Return a queue policy that refuses every request that does not come over TLS."""
    return document(deny_plain_http("sqs:*", [queue_arn]))


def own_account_only(account: str) -> Document:
    """Return a secret's policy that refuses every principal outside the account, whatever else allows it.

    It allows nobody: inside the account, a role's own policy decides. In a secret's policy `*` as the resource is
    the secret itself (Secrets Manager user guide, "Resource-based policies").
    """
    return document(
        {
            "Sid": "DenyOtherAccounts",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "secretsmanager:*",
            "Resource": "*",
            "Condition": {"StringNotEquals": {"aws:PrincipalAccount": account}},
        }
    )


def write_logs(log_group_arn: str) -> Statement:
    """Return the right to write into one log group, which exists already."""
    return allow(["logs:CreateLogStream", "logs:PutLogEvents"], [f"{log_group_arn}:*"])


NETWORK_INTERFACES = (
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
)


def attach_to_vpc(account: str, function_name: str) -> list[Statement]:
    """Return what Lambda needs to put a function into a VPC, and that the function's own code may do none of it.

    The EC2 network interface actions take no resource that is known before the interface exists
    (Lambda developer guide, "Required IAM permissions" of VPC access), hence the `*`. The same page has the refusal:
    `lambda:SourceFunctionArn` is in the requests that come from inside a function, not in those that Lambda makes.
    """
    own_code = {"ArnLike": {"lambda:SourceFunctionArn": [f"arn:aws:lambda:*:{account}:function:{function_name}"]}}
    refusal: Statement = {
        "Effect": "Deny",
        "Action": list(NETWORK_INTERFACES),
        "Resource": ["*"],
        "Condition": own_code,
    }
    return [allow(NETWORK_INTERFACES, ["*"]), refusal]


def read_prefix(bucket_arn: str, prefix: str) -> list[Statement]:
    """Return the right to list and read what is under `prefix/` of a bucket."""
    return [
        _list_prefix(bucket_arn, prefix),
        allow(["s3:GetObject"], [f"{bucket_arn}/{prefix}/*"]),
    ]


def write_prefix(bucket_arn: str, prefix: str, *, delete: bool = False) -> list[Statement]:
    """Return the right to list, read and write (and `delete`) what is under `prefix/` of a bucket."""
    actions = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
    return [
        _list_prefix(bucket_arn, prefix),
        allow([*actions, "s3:DeleteObject"] if delete else actions, [f"{bucket_arn}/{prefix}/*"]),
    ]


def keep_objects(bucket_arn: str, prefix: str) -> Statement:
    """Return the right to write and read objects of known names under `prefix/` of a bucket, without listing them."""
    return allow(["s3:GetObject", "s3:PutObject"], [f"{bucket_arn}/{prefix}/*"])


def _list_prefix(bucket_arn: str, prefix: str) -> Statement:
    return allow(
        ["s3:ListBucket"],
        [bucket_arn],
        condition={"StringLike": {"s3:prefix": [prefix, f"{prefix}/*"]}},
    )


def read_secrets(secret_arns: Sequence[str]) -> Statement:
    """Return the right to read these secrets' values."""
    return allow(["secretsmanager:GetSecretValue"], secret_arns)


def get_credentials(workgroup_arn: str) -> Statement:
    """Return the right to sign in to one workgroup of Redshift Serverless by IAM."""
    return allow(["redshift-serverless:GetCredentials"], [workgroup_arn])


def _glue_resources(region: str, account: str, databases: Sequence[str]) -> list[str]:
    """Return the ARNs that Glue checks for tables of these databases: catalogue, database and table."""
    root = f"arn:aws:glue:{region}:{account}"
    return [
        f"{root}:catalog",
        *(f"{root}:database/{name}" for name in databases),
        *(f"{root}:table/{name}/*" for name in databases),
    ]


def read_catalog(region: str, account: str, databases: Sequence[str]) -> Statement:
    """Return the right to read tables of these Glue databases, one or all (`silver_*` is allowed as a name)."""
    return allow(["glue:GetTable", "glue:GetTables"], _glue_resources(region, account, databases))


def write_catalog(region: str, account: str, databases: Sequence[str]) -> Statement:
    """Return the right to read, create and change tables of these Glue databases, not to delete them."""
    return allow(
        ["glue:GetTable", "glue:GetTables", "glue:CreateTable", "glue:UpdateTable"],
        _glue_resources(region, account, databases),
    )


def send_messages(queue_arn: str) -> Statement:
    """Return the right to send messages to one queue, not to read them."""
    return allow(["sqs:SendMessage"], [queue_arn])


def decrypt_with(key_arn: str, *services: str) -> Statement:
    """Return the right to read what is encrypted with a KMS key, through these services (`s3`) or through any."""
    return allow(["kms:Decrypt"], [key_arn], condition=_through(services))


def use_key(key_arn: str, *services: str) -> Statement:
    """Return the right to write and read what is encrypted with a KMS key, through these services (`s3`, `sqs`).

    Writers need both: S3 (multipart) and SQS read back the data key that they were given.
    """
    return allow(["kms:Decrypt", "kms:GenerateDataKey"], [key_arn], condition=_through(services))


def _through(services: Sequence[str]) -> Mapping[str, Any] | None:
    """Return the condition that a key is used by a service on the role's behalf, and never by the role itself.

    Source: KMS developer guide, "kms:ViaService".
    """
    if not services:
        return None
    return {"StringLike": {"kms:ViaService": [f"{service}.*.amazonaws.com" for service in services]}}


def invoke_functions(function_arns: Sequence[str]) -> Statement:
    """Return the right to invoke these functions.

    The ARN of an alias or version allows that one alone, a function's own ARN calls that name none of them (Lambda
    developer guide, "Using versions in an IAM policy").
    """
    return allow(["lambda:InvokeFunction"], list(function_arns))


def start_execution(state_machine_arn: str) -> Statement:
    """Return the right to start one state machine."""
    return allow(["states:StartExecution"], [state_machine_arn])


def deliver_logs() -> Statement:
    """Return what Step Functions needs to deliver its execution log.

    Log delivery is set up through account-wide calls without resources (Step Functions developer guide,
    "Logging using CloudWatch Logs"), hence the `*`.
    """
    return allow(
        [
            "logs:CreateLogDelivery",
            "logs:GetLogDelivery",
            "logs:UpdateLogDelivery",
            "logs:DeleteLogDelivery",
            "logs:ListLogDeliveries",
            "logs:PutResourcePolicy",
            "logs:DescribeResourcePolicies",
            "logs:DescribeLogGroups",
        ],
        ["*"],
    )
