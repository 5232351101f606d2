"""What is in an emulator, as its own APIs tell: the same for two of them that hold the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from runtime.aws import Connection

Facts = Iterator[tuple[str, Any]]

# Made by the service anew each time, or a moment in time.
_VOLATILE = {
    "ResponseMetadata",
    "AlarmConfigurationUpdatedTimestamp",
    "CreateDate",
    "CreateTime",
    "CreatedDate",
    "CreatedTimestamp",
    "CreationDate",
    "CreationTime",
    "CreationTimestamp",
    "LastAccessedDate",
    "LastChangedDate",
    "LastModificationDate",
    "LastModified",
    "LastModifiedTimestamp",
    "LastUpdateStatusReason",
    "LastUpdatedDate",
    "NetworkInterfaceIds",
    "RevisionId",
    "RoleId",
    "Sid",
    "StateTransitionedTimestamp",
    "StateUpdatedTimestamp",
    "VersionIdsToStages",
    "createdAt",
    "creationDate",
    "creationTime",
    "revisionId",
    "updateDate",
}
# Documents that AWS keeps as text: two ways to write one are the same.
_DOCUMENTS = {"AssumeRolePolicyDocument", "DashboardBody", "EventPattern", "Input", "Policy", "PolicyDocument"}
_DOCUMENTS |= {"ResourcePolicy", "definition"}


def listing(aws: Connection) -> dict[str, Any]:
    """Return what a deployment left, `<kind> <name>` -> its settings, with generated ids replaced by names."""
    found = {label: _plain(facts) for section in _SECTIONS for label, facts in section(aws)}
    text = json.dumps(found, sort_keys=True, default=str)
    for id, name in sorted(_generated(aws), key=lambda pair: -len(pair[0])):
        text = text.replace(id, name)
    named: dict[str, Any] = json.loads(text)
    # Lists of ids come in the ids' order.
    return {label: _plain(facts) for label, facts in named.items()}


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return where two listings differ, `<kind> <name>: <path>` -> both values."""
    found: dict[str, tuple[Any, Any]] = {}
    for label in sorted({*left, *right}):
        a, b = left.get(label), right.get(label)
        if isinstance(a, dict) and isinstance(b, dict):
            found |= {f"{label}: {key}": (a.get(key), b.get(key)) for key in {*a, *b} if a.get(key) != b.get(key)}
        elif a != b:
            found[label] = (a, b)
    return found


def _plain(value: Any) -> Any:
    """Return facts without what is volatile, with documents parsed and lists of no order sorted."""
    if isinstance(value, Mapping):
        kept = {
            key: json.loads(item) if key in _DOCUMENTS and isinstance(item, str) and item else item
            for key, item in value.items()
            if key not in _VOLATILE
        }
        return {key: _plain(item) for key, item in kept.items() if item not in (None, "", [], {})}
    if isinstance(value, list):
        return sorted((_plain(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True, default=str))
    return value


def _or_none(call: Callable[..., Any], **request: str) -> Any:
    """Return what a call answers, or None for an error: what is not there is not there on both sides."""
    try:
        return call(**request)
    except ClientError:
        return None


_BUCKET_PARTS = {
    "tags": "get_bucket_tagging",
    "private": "get_public_access_block",
    "ownership": "get_bucket_ownership_controls",
    "encryption": "get_bucket_encryption",
    "versioning": "get_bucket_versioning",
    "lifecycle": "get_bucket_lifecycle_configuration",
    "policy": "get_bucket_policy",
    "logging": "get_bucket_logging",
}


def _buckets(aws: Connection) -> Facts:
    s3 = aws.client("s3")
    for bucket in (item["Name"] for item in s3.list_buckets()["Buckets"]):
        parts = {part: _or_none(getattr(s3, method), Bucket=bucket) for part, method in _BUCKET_PARTS.items()}
        yield f"bucket {bucket}", parts
        for item in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
            tags = s3.get_object_tagging(Bucket=bucket, Key=item["Key"])["TagSet"]
            yield f"object {bucket}/{item['Key']}", {"size": item["Size"], "tags": tags}


def _secrets(aws: Connection) -> Facts:
    secrets = aws.client("secretsmanager")
    for item in secrets.list_secrets()["SecretList"]:
        name = item["Name"]
        policy = secrets.get_resource_policy(SecretId=name).get("ResourcePolicy")
        yield f"secret {name}", {**secrets.describe_secret(SecretId=name), "ResourcePolicy": policy}


def _roles(aws: Connection) -> Facts:
    iam = aws.client("iam")
    for name in (item["RoleName"] for item in iam.list_roles()["Roles"]):
        policies = iam.list_role_policies(RoleName=name)["PolicyNames"]
        documents = {policy: iam.get_role_policy(RoleName=name, PolicyName=policy) for policy in policies}
        yield f"role {name}", {**iam.get_role(RoleName=name)["Role"], "policies": documents}


def _functions(aws: Connection) -> Facts:
    client = aws.client("lambda")
    for name in (item["FunctionName"] for item in client.list_functions()["Functions"]):
        known = client.get_function(FunctionName=name)
        policy = _or_none(client.get_policy, FunctionName=name)
        yield (
            f"function {name}",
            {
                **known["Configuration"],
                "tags": known.get("Tags"),
                "concurrency": known.get("Concurrency"),
                "policy": policy,
                "versions": [
                    version["Version"] for version in client.list_versions_by_function(FunctionName=name)["Versions"]
                ],
                "invoked": client.list_function_event_invoke_configs(FunctionName=name)["FunctionEventInvokeConfigs"],
            },
        )
        for alias in client.list_aliases(FunctionName=name)["Aliases"]:
            yield f"alias {name}:{alias['Name']}", alias
    for layer in client.list_layers()["Layers"]:
        yield f"layer {layer['LayerName']}", layer["LatestMatchingVersion"]


def _pipelines(aws: Connection) -> Facts:
    machines, schedules = aws.client("stepfunctions"), aws.client("scheduler")
    for machine in machines.list_state_machines()["stateMachines"]:
        arn = machine["stateMachineArn"]
        tags = machines.list_tags_for_resource(resourceArn=arn)["tags"]
        yield f"state machine {machine['name']}", {**machines.describe_state_machine(stateMachineArn=arn), "tags": tags}
    for schedule in schedules.list_schedules()["Schedules"]:
        yield f"schedule {schedule['Name']}", schedules.get_schedule(Name=schedule["Name"])


def _catalogue(aws: Connection) -> Facts:
    for database in aws.client("glue").get_databases()["DatabaseList"]:
        yield f"database {database['Name']}", database


def _logs(aws: Connection) -> Facts:
    logs = aws.client("logs")
    for group in logs.describe_log_groups()["logGroups"]:
        tags = logs.list_tags_log_group(logGroupName=group["logGroupName"])["tags"]
        yield f"log group {group['logGroupName']}", {**group, "tags": tags}


def _watch(aws: Connection) -> Facts:
    cloudwatch, events = aws.client("cloudwatch"), aws.client("events")
    for alarm in cloudwatch.describe_alarms()["MetricAlarms"]:
        tags = cloudwatch.list_tags_for_resource(ResourceARN=alarm["AlarmArn"])["Tags"]
        yield f"alarm {alarm['AlarmName']}", {**alarm, "Tags": tags}
    for board in cloudwatch.list_dashboards()["DashboardEntries"]:
        yield f"dashboard {board['DashboardName']}", cloudwatch.get_dashboard(DashboardName=board["DashboardName"])
    for rule in events.list_rules()["Rules"]:
        targets = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
        tags = events.list_tags_for_resource(ResourceARN=rule["Arn"])["Tags"]
        yield f"rule {rule['Name']}", {**rule, "targets": targets, "tags": tags}


def _messages(aws: Connection) -> Facts:
    sns, sqs = aws.client("sns"), aws.client("sqs")
    for topic in sns.list_topics()["Topics"]:
        arn = topic["TopicArn"]
        yield (
            f"topic {arn.rsplit(':', 1)[-1]}",
            {
                **sns.get_topic_attributes(TopicArn=arn)["Attributes"],
                "tags": sns.list_tags_for_resource(ResourceArn=arn)["Tags"],
                "subscriptions": sns.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"],
            },
        )
    for url in sqs.list_queues().get("QueueUrls", []):
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        yield f"queue {url.rsplit('/', 1)[-1]}", {**attributes, "tags": sqs.list_queue_tags(QueueUrl=url).get("Tags")}


def _network(aws: Connection) -> Facts:
    ec2 = aws.client("ec2")
    ours = [vpc for vpc in ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]]
    for vpc in ours:
        dns = {
            attribute: ec2.describe_vpc_attribute(VpcId=vpc["VpcId"], Attribute=attribute)
            for attribute in ("enableDnsSupport", "enableDnsHostnames")
        }
        yield f"VPC {vpc['CidrBlock']}", {**vpc, "dns": dns}
    inside = [{"Name": "vpc-id", "Values": [vpc["VpcId"] for vpc in ours] or ["none"]}]
    for subnet in ec2.describe_subnets(Filters=inside)["Subnets"]:
        yield f"subnet {subnet['CidrBlock']}", subnet
    yield "route tables", ec2.describe_route_tables(Filters=inside)["RouteTables"]
    for group in ec2.describe_security_groups(Filters=inside)["SecurityGroups"]:
        yield f"security group {group['GroupName']}", group
        ruled = [{"Name": "group-id", "Values": [group["GroupId"]]}]
        rules = ec2.describe_security_group_rules(Filters=ruled)["SecurityGroupRules"]
        yield f"rules of {group['GroupName']}", rules
    for endpoint in ec2.describe_vpc_endpoints(Filters=inside)["VpcEndpoints"]:
        yield f"endpoint {endpoint['ServiceName']}", endpoint
    yield "flow logs", ec2.describe_flow_logs()["FlowLogs"]
    yield "gateways", [item for item in ec2.describe_nat_gateways()["NatGateways"] if item["State"] != "deleted"]
    yield "addresses", ec2.describe_addresses()["Addresses"]


def _warehouse(aws: Connection) -> Facts:
    client = aws.client("redshift-serverless")
    for namespace in client.list_namespaces()["namespaces"]:
        arn = namespace["namespaceArn"]
        tags = client.list_tags_for_resource(resourceArn=arn)["tags"]
        yield f"namespace {namespace['namespaceName']}", {**namespace, "tags": tags}
    for workgroup in client.list_workgroups()["workgroups"]:
        arn = workgroup["workgroupArn"]
        tags = client.list_tags_for_resource(resourceArn=arn)["tags"]
        yield f"workgroup {workgroup['workgroupName']}", {**workgroup, "tags": tags}
        yield "usage limits", client.list_usage_limits(resourceArn=arn)["usageLimits"]


_SECTIONS: tuple[Callable[[Connection], Facts], ...] = (
    _buckets,
    _secrets,
    _roles,
    _functions,
    _pipelines,
    _catalogue,
    _logs,
    _watch,
    _messages,
    _network,
    _warehouse,
)


def _generated(aws: Connection) -> Iterator[tuple[str, str]]:
    """Yield ids that a service made up, each with the name that stands for it."""
    text = json.dumps([list(section(aws)) for section in (_network, _secrets)], default=str)
    ec2 = aws.client("ec2")
    for subnet in ec2.describe_subnets()["Subnets"]:
        yield subnet["SubnetId"], f"subnet {subnet['CidrBlock']}"
    for group in ec2.describe_security_groups()["SecurityGroups"]:
        yield group["GroupId"], f"security group {group['GroupName']}"
    for arn in set(re.findall(r"arn:aws:secretsmanager:[^\"\\]+", text)):
        yield arn, re.sub(r"-\w{6}$", "", arn)
    # The rest has no name of its own: routes, rules and links are told apart by what they are.
    for id in set(
        re.findall(r"\b(?:vpc|rtb|rtbassoc|sgr|vpce|acl|dopt|fl|pl|eni|vpc-cidr-assoc)-[0-9a-f]{8,17}\b", text)
    ):
        yield id, id.rsplit("-", 1)[0]
    client = aws.client("redshift-serverless")
    for namespace in client.list_namespaces()["namespaces"]:
        yield namespace["namespaceId"], "namespace"
    for workgroup in client.list_workgroups()["workgroups"]:
        yield workgroup["workgroupId"], "workgroup"
        for limit in client.list_usage_limits(resourceArn=workgroup["workgroupArn"])["usageLimits"]:
            yield limit["usageLimitId"], "usage-limit"
        # Each platform listens where it found a free port.
        yield f'"{workgroup["endpoint"]["port"]}"', '"<port>"'
        yield f'"port": {workgroup["endpoint"]["port"]}', '"port": "<port>"'
    yield str(aws.endpoint_url).rsplit(":", 1)[-1], "<emulator>"
