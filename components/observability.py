"""Who is told when something goes wrong, and where to look: alarms, their topic, and a dashboard."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from components.policies import Document, deny_plain_http, document
from runtime.errors import ConfigurationError

# A typing error is what this finds; whether anybody reads the address shows in SNS's confirmation mail.
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")

# CloudWatch user guide: a dashboard is 24 units wide.
_HALF, _HEIGHT = 12, 6


def alarm(
    name: str,
    *,
    alarm_name: str,
    description: str,
    metric: str,
    dimensions: Mapping[str, pulumi.Input[str]],
    statistic: str,
    threshold: float,
    topic_arn: pulumi.Input[str],
    tags: dict[str, str],
    parent: pulumi.Resource,
) -> aws.cloudwatch.MetricAlarm:
    """Register an alarm that tells the topic when a metric is at or above `threshold` within five minutes.

    `metric` is namespace and name: `AWS/Lambda Errors`. No data is no fault: these metrics are sent when a function
    runs, which is once a day.
    """
    namespace, metric_name = metric.split(" ")
    return aws.cloudwatch.MetricAlarm(
        name,
        name=alarm_name,
        alarm_description=description,
        namespace=namespace,
        metric_name=metric_name,
        dimensions=dict(dimensions),
        statistic=statistic,
        comparison_operator="GreaterThanOrEqualToThreshold",
        threshold=threshold,
        period=300,
        evaluation_periods=1,
        treat_missing_data="notBreaching",
        alarm_actions=[topic_arn],
        tags={**tags, "Name": alarm_name},
        opts=pulumi.ResourceOptions(parent=parent),
    )


def topic_policy(topic_arn: str, account: str, *, tls_only: bool = True) -> Document:
    """Return the topic's policy: alarms of this account and event rules may publish, nobody over plain HTTP.

    Rules come without a condition: AWS says that conditions cannot be used in a topic's policy for EventBridge
    (EventBridge user guide, "Troubleshooting"), and with one the messages are lost, without an error anywhere.
    """
    publishers = [
        {**_publish("Alarms", "cloudwatch.amazonaws.com", topic_arn), "Condition": _source_account(account)},
        _publish("EventRules", "events.amazonaws.com", topic_arn),
    ]
    return document(*publishers, *([deny_plain_http("sns:Publish", [topic_arn])] if tls_only else []))


def _publish(sid: str, service: str, topic_arn: str) -> Document:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": "sns:Publish",
        "Resource": topic_arn,
    }


def _source_account(account: str) -> Document:
    return {"StringEquals": {"aws:SourceAccount": account}}


@dataclass(frozen=True, kw_only=True)
class AlarmTopicArgs:
    """What an alarm topic can be told."""

    topic_name: str
    account: pulumi.Input[str]
    tags: dict[str, str]
    emails: Sequence[str] = ()
    """Who gets a mail. Each has to confirm the first one, within three days."""
    key_arn: pulumi.Input[str] | None = None
    """A KMS key whose policy lets alarms and event rules use it, see `components.key`.

    AWS's own key for SNS lets neither, and can't be changed: on a topic with that key no alarm ever arrives. So the
    topic is without a key rather than with that one; its messages name functions and errors, not data.
    """
    tls_only: bool = True
    """Whether requests without TLS are refused; off for an emulator that speaks plain HTTP."""


class AlarmTopic(pulumi.ComponentResource):
    """The SNS topic that all alarms and failed runs go to, and the people who get them by mail."""

    topic_arn: pulumi.Output[str]

    def __init__(self, name: str, args: AlarmTopicArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        _check_emails(name, args.emails)
        super().__init__("goldlake:observability:AlarmTopic", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        topic = aws.sns.Topic(name, name=args.topic_name, kms_master_key_id=args.key_arn, tags=args.tags, opts=child)
        found = pulumi.Output.all(topic.arn, args.account)
        aws.sns.TopicPolicy(
            f"{name}-policy",
            arn=topic.arn,
            policy=pulumi.Output.json_dumps(found.apply(lambda all: topic_policy(*all, tls_only=args.tls_only))),
            opts=child,
        )
        for email in args.emails:
            # Named by the address: taking one off the list leaves the others' subscriptions as they are.
            aws.sns.TopicSubscription(f"{name}-{email}", topic=topic.arn, protocol="email", endpoint=email, opts=child)
        self.topic_arn = topic.arn
        self.register_outputs({"topicArn": self.topic_arn})


def _check_emails(name: str, emails: Sequence[str]) -> None:
    wrong = [email for email in emails if not _EMAIL.fullmatch(email)]
    if wrong:
        raise ConfigurationError(
            f"{name} has {', '.join(map(repr, wrong))} as email: an address is <name>@<domain>, without spaces"
        )
    twice = [email for email, count in Counter(emails).items() if count > 1]
    if twice:
        raise ConfigurationError(f"{name} has {', '.join(twice)} more than once: SNS subscribes an address once")


def dashboard_body(
    *,
    region: str,
    state_machine_arn: str,
    function_names: Sequence[str],
    workgroup_name: str = "",
    dead_letter_queue_name: str = "",
) -> dict[str, Any]:
    """Return a dashboard: the pipeline's runs, the functions, the warehouse and the dead letter queue, if they exist.

    The shape is that of CloudWatch's "Dashboard body structure and syntax". Metrics of the warehouse are those of the
    Redshift management guide, "Audit logging for Amazon Redshift Serverless"; the id of a usage limit is made by AWS,
    hence the search.
    """
    runs = [
        ["AWS/States", f"Executions{status}", "StateMachineArn", state_machine_arn]
        for status in ("Started", "Succeeded", "Failed", "TimedOut", "Aborted")
    ]
    charts = [_chart(region, "Pipeline runs", runs, "Sum")]
    for metric, statistic in (("Errors", "Sum"), ("Duration", "Maximum"), ("Throttles", "Sum")):
        of_each = [["AWS/Lambda", metric, "FunctionName", function] for function in function_names]
        charts.append(_chart(region, f"Functions: {metric.lower()}", of_each, statistic))
    if workgroup_name:
        charts += _warehouse_charts(region, workgroup_name)
    if dead_letter_queue_name:
        depth = ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", dead_letter_queue_name]
        charts.append(_chart(region, "Failed invocations that wait", [depth], "Maximum"))
    return {"widgets": [_placed(index, chart) for index, chart in enumerate(charts)]}


def _warehouse_charts(region: str, workgroup: str) -> list[dict[str, Any]]:
    namespace = "AWS/Redshift-Serverless"
    limits = (
        f'SEARCH(\'{{{namespace},UsageLimitId,UsageType,Workgroup}} Workgroup="{workgroup}" '
        'MetricName=("UsageLimitConsumed" OR "UsageLimitAvailable")\', \'Maximum\')'
    )
    return [
        _chart(region, "Warehouse: RPU-seconds", [[namespace, "ComputeSeconds", "Workgroup", workgroup]], "Sum"),
        _chart(region, "Warehouse: RPUs", [[namespace, "ComputeCapacity", "Workgroup", workgroup]], "Maximum"),
        _chart(region, "Warehouse: usage limits (RPU-hours)", [[{"expression": limits}]], "Maximum"),
    ]


def _chart(region: str, title: str, metrics: list[list[Any]], statistic: str) -> dict[str, Any]:
    return {
        "type": "metric",
        "properties": {
            "title": title,
            "region": region,
            "view": "timeSeries",
            "stat": statistic,
            "period": 300,
            "metrics": metrics,
        },
    }


def _placed(index: int, chart: dict[str, Any]) -> dict[str, Any]:
    """Return a chart at its place: two in a row."""
    row, column = divmod(index, 2)
    return {**chart, "x": column * _HALF, "y": row * _HEIGHT, "width": _HALF, "height": _HEIGHT}


@dataclass(frozen=True, kw_only=True)
class DashboardArgs:
    """What a dashboard can be told."""

    dashboard_name: str
    region: str
    state_machine_arn: pulumi.Input[str]
    function_names: Sequence[pulumi.Input[str]]
    workgroup_name: pulumi.Input[str] = ""
    """The warehouse's workgroup; empty for a warehouse that is not on Redshift Serverless."""
    dead_letter_queue_name: pulumi.Input[str] = ""


class Dashboard(pulumi.ComponentResource):
    """A CloudWatch dashboard over the whole stack."""

    dashboard_name: pulumi.Output[str]

    def __init__(self, name: str, args: DashboardArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("goldlake:observability:Dashboard", name, None, opts)
        found = pulumi.Output.all(
            state_machine_arn=args.state_machine_arn,
            function_names=pulumi.Output.all(*args.function_names),
            workgroup_name=args.workgroup_name,
            dead_letter_queue_name=args.dead_letter_queue_name,
        )
        dashboard = aws.cloudwatch.Dashboard(
            name,
            dashboard_name=args.dashboard_name,
            dashboard_body=pulumi.Output.json_dumps(
                found.apply(lambda known: dashboard_body(region=args.region, **known))
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.dashboard_name = dashboard.dashboard_name
        self.register_outputs({"dashboardName": self.dashboard_name})
