"""The alarm topic and who may publish to it, and the dashboard."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from components.observability import (
    AlarmTopic,
    AlarmTopicArgs,
    Dashboard,
    DashboardArgs,
    dashboard_body,
    topic_policy,
)
from local.recording import ACCOUNT, REGION, Recording, record
from runtime.errors import ConfigurationError

TOPIC = "arn:aws:sns:eu-west-1:123456789012:goldlake-alarms"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"
MACHINE = "arn:aws:states:eu-west-1:123456789012:stateMachine:goldlake-pipeline"


def topic(**changes: Any) -> Recording:
    def program() -> dict[str, pulumi.Output[str]]:
        arguments = {"topic_name": "goldlake-alarms", "account": ACCOUNT, "tags": {"Name": "goldlake-alarms"}}
        return {"arn": AlarmTopic("alarms", AlarmTopicArgs(**{**arguments, **changes})).topic_arn}

    return record(program)


def test_alarms_of_this_account_may_publish_and_those_of_others_may_not() -> None:
    publishers = {
        statement["Principal"]["Service"]: statement
        for statement in topic_policy(TOPIC, ACCOUNT)["Statement"]
        if statement["Effect"] == "Allow"
    }
    assert set(publishers) == {"cloudwatch.amazonaws.com", "events.amazonaws.com"}
    assert all(statement["Action"] == "sns:Publish" for statement in publishers.values())
    assert all(statement["Resource"] == TOPIC for statement in publishers.values())
    condition = publishers["cloudwatch.amazonaws.com"]["Condition"]
    assert condition == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    # AWS: no conditions for EventBridge in a topic's policy. With one, messages are lost without an error.
    assert "Condition" not in publishers["events.amazonaws.com"]


def test_nobody_publishes_over_plain_http_except_to_an_emulator() -> None:
    denied = [found for found in topic_policy(TOPIC, ACCOUNT)["Statement"] if found["Effect"] == "Deny"]
    assert [found["Condition"] for found in denied] == [{"Bool": {"aws:SecureTransport": "false"}}]
    assert "Deny" not in str(topic_policy(TOPIC, ACCOUNT, tls_only=False))


def test_a_topic_has_its_policy_and_one_subscription_for_each_address() -> None:
    found = topic(emails=["a@example.com", "b.c@example.co.uk"])
    assert found.one(":Topic") == {"name": "goldlake-alarms", "tags": {"Name": "goldlake-alarms"}}
    assert json.loads(found.one(":TopicPolicy")["policy"]) == topic_policy(found.exports["arn"], ACCOUNT)
    subscriptions = found.of(":TopicSubscription")
    assert {name: (inputs["protocol"], inputs["endpoint"]) for name, inputs in subscriptions.items()} == {
        "alarms-a@example.com": ("email", "a@example.com"),
        "alarms-b.c@example.co.uk": ("email", "b.c@example.co.uk"),
    }


def test_a_topic_is_encrypted_with_a_key_of_ours_or_with_none() -> None:
    assert topic(key_arn=KEY).one(":Topic")["kmsMasterKeyId"] == KEY
    assert "kmsMasterKeyId" not in topic().one(":Topic")


@pytest.mark.parametrize("email", ["", "a", "a@b", "@example.com", "a b@example.com", "a@example..com", "a@@b.c"])
def test_what_is_no_address_is_refused(email: str) -> None:
    with pytest.raises(ConfigurationError, match="an address is") as refused:
        topic(emails=["right@example.com", email])
    assert repr(email) in str(refused.value)
    assert "right@example.com" not in str(refused.value)


def test_an_address_given_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"a@example\.com more than once"):
        topic(emails=["a@example.com", "b@example.com", "a@example.com"])


def body(**changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "region": REGION,
        "state_machine_arn": MACHINE,
        "function_names": ["check", "dbt-runner"],
        "workgroup_name": "gold-workgroup",
        "dead_letter_queue_name": "dbt-runner-failed",
    }
    return dashboard_body(**{**arguments, **changes})


def charts(dashboard: dict[str, Any]) -> dict[str, Any]:
    return {widget["properties"]["title"]: widget["properties"] for widget in dashboard["widgets"]}


def test_a_dashboard_shows_runs_functions_warehouse_and_what_failed() -> None:
    shown = charts(body())
    assert {metric[1] for metric in shown["Pipeline runs"]["metrics"]} >= {"ExecutionsStarted", "ExecutionsFailed"}
    assert shown["Functions: errors"]["metrics"] == [
        ["AWS/Lambda", "Errors", "FunctionName", "check"],
        ["AWS/Lambda", "Errors", "FunctionName", "dbt-runner"],
    ]
    assert {"Functions: duration", "Functions: throttles"} <= set(shown)
    assert shown["Warehouse: RPU-seconds"]["metrics"] == [
        ["AWS/Redshift-Serverless", "ComputeSeconds", "Workgroup", "gold-workgroup"]
    ]
    assert shown["Warehouse: RPUs"]["metrics"][0][1] == "ComputeCapacity"
    assert 'Workgroup="gold-workgroup"' in str(shown["Warehouse: usage limits (RPU-hours)"]["metrics"])
    assert shown["Failed invocations that wait"]["metrics"][0][-1] == "dbt-runner-failed"
    assert {chart["region"] for chart in shown.values()} == {REGION}


def test_what_a_stack_does_not_have_is_not_on_the_dashboard() -> None:
    shown = charts(body(workgroup_name="", dead_letter_queue_name=""))
    assert set(shown) == {"Pipeline runs", "Functions: errors", "Functions: duration", "Functions: throttles"}


def test_charts_lie_side_by_side_and_never_over_each_other() -> None:
    widgets = body()["widgets"]
    assert len({(widget["x"], widget["y"]) for widget in widgets}) == len(widgets)
    assert all(widget["x"] + widget["width"] <= 24 for widget in widgets)
    assert all(widget["x"] % widget["width"] == 0 and widget["y"] % widget["height"] == 0 for widget in widgets)


def test_the_dashboard_is_made_of_the_names_that_it_is_given() -> None:
    def program() -> dict[str, pulumi.Output[str]]:
        arguments = DashboardArgs(
            dashboard_name="goldlake",
            region=REGION,
            state_machine_arn=pulumi.Output.from_input(MACHINE),
            function_names=[pulumi.Output.from_input("check"), "dbt-runner"],
            workgroup_name="gold-workgroup",
            dead_letter_queue_name=pulumi.Output.from_input("dbt-runner-failed"),
        )
        return {"name": Dashboard("dashboard", arguments).dashboard_name}

    found = record(program)
    assert json.loads(found.one("/dashboard:Dashboard")["dashboardBody"]) == body()
    assert found.exports == {"name": "goldlake"}
