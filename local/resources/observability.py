"""SQS, SNS, KMS, CloudWatch's alarms and dashboards, EventBridge rules, and what surrounds a secret."""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import ClientError

from local.resources.kinds import Applied, Inputs, Kind, found, tag_list, unless
from runtime.aws import Connection

RECORDED_ONLY: dict[str, str] = {
    "aws:secretsmanager/secretRotation:SecretRotation": (
        "the emulator never calls the rotation function, and gives an entry without a value an empty one"
    ),
}
"""Types of these services that are not created, by Pulumi token, and why."""


def _queue(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    sqs = aws.client("sqs")
    name = inputs["name"]
    attributes = {"MessageRetentionPeriod": str(int(inputs["messageRetentionSeconds"]))}
    if inputs.get("kmsMasterKeyId"):
        attributes["KmsMasterKeyId"] = inputs["kmsMasterKeyId"]
    if inputs.get("sqsManagedSseEnabled"):
        attributes["SqsManagedSseEnabled"] = "true"
    unless(lambda: sqs.create_queue(QueueName=name), "QueueAlreadyExists")
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)
    sqs.tag_queue(QueueUrl=url, Tags=dict(inputs.get("tags") or {}))
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return Applied(url, {"arn": arn, "name": name, "url": url})


_NO_QUEUE = ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist")


def _queue_exists(aws: Connection, _url: str, inputs: Inputs) -> bool:
    return found(lambda: aws.client("sqs").get_queue_url(QueueName=inputs["name"]), *_NO_QUEUE)


def _queue_policy(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    url = inputs["queueUrl"]
    aws.client("sqs").set_queue_attributes(QueueUrl=url, Attributes={"Policy": inputs["policy"]})
    return Applied(url, {})


def _queue_policy_exists(aws: Connection, url: str, _inputs: Inputs) -> bool:
    try:
        answer = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])
    except ClientError as exc:
        if exc.response["Error"]["Code"] in _NO_QUEUE:
            return False
        raise
    return bool(answer.get("Attributes", {}).get("Policy"))


def _topic(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    sns = aws.client("sns")
    # Creating a topic of a name that exists gives that topic.
    arn = sns.create_topic(Name=inputs["name"])["TopicArn"]
    sns.set_topic_attributes(
        TopicArn=arn, AttributeName="KmsMasterKeyId", AttributeValue=inputs.get("kmsMasterKeyId") or ""
    )
    sns.tag_resource(ResourceArn=arn, Tags=tag_list(inputs.get("tags")))
    return Applied(arn, {"arn": arn, "name": inputs["name"]})


def _topic_exists(aws: Connection, arn: str, _inputs: Inputs) -> bool:
    return found(lambda: aws.client("sns").get_topic_attributes(TopicArn=arn), "NotFound", "NotFoundException")


def _topic_policy(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    aws.client("sns").set_topic_attributes(
        TopicArn=inputs["arn"], AttributeName="Policy", AttributeValue=inputs["policy"]
    )
    return Applied(inputs["arn"], {})


def _subscription(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    # Subscribing an address twice gives the subscription that there is.
    arn = aws.client("sns").subscribe(
        TopicArn=inputs["topic"],
        Protocol=inputs["protocol"],
        Endpoint=inputs["endpoint"],
        ReturnSubscriptionArn=True,
    )["SubscriptionArn"]
    return Applied(arn, {"arn": arn})


def _subscription_exists(aws: Connection, _arn: str, inputs: Inputs) -> bool:
    pages = aws.client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=inputs["topic"])
    try:
        return any(known["Endpoint"] == inputs["endpoint"] for page in pages for known in page["Subscriptions"])
    except ClientError as exc:
        if exc.response["Error"]["Code"] in ("NotFound", "NotFoundException"):
            return False
        raise


def _key(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
    kms = aws.client("kms")
    tags = [{"TagKey": key, "TagValue": value} for key, value in (inputs.get("tags") or {}).items()]
    if id is None:
        id = str(kms.create_key(Description=inputs["description"], Tags=tags)["KeyMetadata"]["KeyId"])
    else:
        kms.update_key_description(KeyId=id, Description=inputs["description"])
        kms.tag_resource(KeyId=id, Tags=tags)
    if inputs.get("policy"):
        kms.put_key_policy(KeyId=id, PolicyName="default", Policy=inputs["policy"])
    if inputs.get("enableKeyRotation"):
        kms.enable_key_rotation(KeyId=id)
    return Applied(id, {"keyId": id, "arn": kms.describe_key(KeyId=id)["KeyMetadata"]["Arn"]})


def _key_exists(aws: Connection, id: str, _inputs: Inputs) -> bool:
    return found(lambda: aws.client("kms").describe_key(KeyId=id), "NotFoundException")


def _key_alias(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    kms = aws.client("kms")
    name, key = inputs["name"], inputs["targetKeyId"]
    if not unless(lambda: kms.create_alias(AliasName=name, TargetKeyId=key), "AlreadyExistsException"):
        kms.update_alias(AliasName=name, TargetKeyId=key)
    return Applied(name, {"name": name, "arn": str(_describe_key_alias(aws, name)["AliasArn"])})


def _describe_key_alias(aws: Connection, name: str) -> dict[str, Any]:
    pages = aws.client("kms").get_paginator("list_aliases").paginate()
    return next((alias for page in pages for alias in page["Aliases"] if alias["AliasName"] == name), {})


def _alarm(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    cloudwatch = aws.client("cloudwatch")
    name = inputs["name"]
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        AlarmDescription=inputs["alarmDescription"],
        Namespace=inputs["namespace"],
        MetricName=inputs["metricName"],
        Dimensions=[{"Name": key, "Value": value} for key, value in inputs["dimensions"].items()],
        Statistic=inputs["statistic"],
        ComparisonOperator=inputs["comparisonOperator"],
        Threshold=float(inputs["threshold"]),
        Period=int(inputs["period"]),
        EvaluationPeriods=int(inputs["evaluationPeriods"]),
        TreatMissingData=inputs["treatMissingData"],
        AlarmActions=list(inputs.get("alarmActions") or []),
        Tags=tag_list(inputs.get("tags")),
    )
    return Applied(name, {"name": name, "arn": str(_describe_alarm(aws, name)["AlarmArn"])})


def _describe_alarm(aws: Connection, name: str) -> dict[str, Any]:
    alarms = aws.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"]
    return dict(alarms[0]) if alarms else {}


def _dashboard(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    cloudwatch = aws.client("cloudwatch")
    name = inputs["dashboardName"]
    cloudwatch.put_dashboard(DashboardName=name, DashboardBody=inputs["dashboardBody"])
    arn = cloudwatch.get_dashboard(DashboardName=name).get("DashboardArn", "")
    return Applied(name, {"dashboardName": name, "dashboardArn": arn})


def _dashboard_exists(aws: Connection, name: str, _inputs: Inputs) -> bool:
    return found(
        lambda: aws.client("cloudwatch").get_dashboard(DashboardName=name),
        "ResourceNotFound",
        "DashboardNotFoundError",
    )


def _event_rule(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    name = inputs["name"]
    arn = aws.client("events").put_rule(
        Name=name,
        Description=inputs["description"],
        EventPattern=inputs["eventPattern"],
        State=inputs.get("state") or "ENABLED",
        Tags=tag_list(inputs.get("tags")),
    )["RuleArn"]
    return Applied(name, {"name": name, "arn": arn})


def _event_rule_exists(aws: Connection, name: str, _inputs: Inputs) -> bool:
    return found(lambda: aws.client("events").describe_rule(Name=name), "ResourceNotFoundException")


def _event_target(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    target: dict[str, Any] = {"Id": inputs["targetId"], "Arn": inputs["arn"]}
    transformer = inputs.get("inputTransformer")
    if transformer:
        target["InputTransformer"] = {
            "InputPathsMap": dict(transformer.get("inputPaths") or {}),
            "InputTemplate": transformer["inputTemplate"],
        }
    aws.client("events").put_targets(Rule=inputs["rule"], Targets=[target])
    return Applied(f"{inputs['rule']}:{inputs['targetId']}", {"targetId": inputs["targetId"]})


def _event_target_exists(aws: Connection, _id: str, inputs: Inputs) -> bool:
    targets: list[str] = []
    there = found(
        lambda: targets.extend(
            target["Id"] for target in aws.client("events").list_targets_by_rule(Rule=inputs["rule"])["Targets"]
        ),
        "ResourceNotFoundException",
    )
    return there and inputs["targetId"] in targets


def _secret_policy(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    aws.client("secretsmanager").put_resource_policy(
        SecretId=inputs["secretArn"],
        ResourcePolicy=inputs["policy"],
        BlockPublicPolicy=bool(inputs.get("blockPublicPolicy")),
    )
    return Applied(inputs["secretArn"], {})


def _secret_policy_exists(aws: Connection, arn: str, _inputs: Inputs) -> bool:
    policies: list[str] = []
    there = found(
        lambda: policies.append(
            aws.client("secretsmanager").get_resource_policy(SecretId=arn).get("ResourcePolicy", "{}")
        ),
        "ResourceNotFoundException",
    )
    return there and bool(json.loads(policies[0]))


OBSERVABILITY = {
    "aws:sqs/queue:Queue": Kind(_queue, _queue_exists),
    "aws:sqs/queuePolicy:QueuePolicy": Kind(_queue_policy, _queue_policy_exists),
    "aws:sns/topic:Topic": Kind(_topic, _topic_exists),
    # A topic always has a policy, its default one at least.
    "aws:sns/topicPolicy:TopicPolicy": Kind(_topic_policy, _topic_exists),
    "aws:sns/topicSubscription:TopicSubscription": Kind(_subscription, _subscription_exists),
    "aws:kms/key:Key": Kind(_key, _key_exists),
    "aws:kms/alias:Alias": Kind(_key_alias, lambda aws, name, _inputs: bool(_describe_key_alias(aws, name))),
    "aws:cloudwatch/metricAlarm:MetricAlarm": Kind(_alarm, lambda aws, name, _inputs: bool(_describe_alarm(aws, name))),
    "aws:cloudwatch/dashboard:Dashboard": Kind(_dashboard, _dashboard_exists),
    "aws:cloudwatch/eventRule:EventRule": Kind(_event_rule, _event_rule_exists),
    "aws:cloudwatch/eventTarget:EventTarget": Kind(_event_target, _event_target_exists),
    "aws:secretsmanager/secretPolicy:SecretPolicy": Kind(_secret_policy, _secret_policy_exists),
}
