"""Functions, the dbt runner and its alias, and the customer key: what they register and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.dbt_runner import DbtRunner, DbtRunnerArgs, Routing, alias_routing
from components.function import TaskFunction, TaskFunctionArgs
from components.key import CustomerKey, CustomerKeyArgs, key_policy
from components.policies import Statement, allow, invoke_functions, use_key
from local.recording import ACCOUNT, REGION, Recording, record
from runtime.errors import ConfigurationError

FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:goldlake-check"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:alarms"
OWN_STATEMENT = allow(["glue:GetTable"], ["arn:aws:glue:eu-west-1:123456789012:catalog"])
# What Lambda says of a published function.
PUBLISHED = {"aws:lambda/function:Function": {"version": "7"}}


def arguments(**changes: Any) -> dict[str, Any]:
    return {
        "function_name": "goldlake-check",
        "description": "Are the tables there?",
        "handler": "module.handle",
        "code": Path("code.zip"),
        "layers": [],
        "statements": [OWN_STATEMENT],
        "environment": {"A": "1"},
        "runtime": "python3.11",
        "memory_mb": 512,
        "timeout_seconds": 300,
        "log_retention_days": 30,
        "account": ACCOUNT,
        "tags": {"Name": "goldlake-check", "Project": "goldlake"},
        **changes,
    }


def function(**changes: Any) -> Recording:
    def program() -> dict[str, pulumi.Output[str]]:
        made = TaskFunction("check", TaskFunctionArgs(**arguments(**changes)))
        return {
            "arn": made.arn,
            "function_name": made.function_name,
            "version": made.version,
            "role_arn": made.role_arn,
            "role_name": made.role_name,
            "log_group_name": made.log_group_name,
        }

    return record(program, outputs=PUBLISHED)


def dbt_runner(**changes: Any) -> Recording:
    def program() -> dict[str, pulumi.Output[str]]:
        made = DbtRunner("dbt-runner", DbtRunnerArgs(**arguments(function_name="goldlake-dbt-runner", **changes)))
        return {
            "arn": made.arn,
            "alias_arn": made.alias_arn,
            "function_name": made.function_name,
            "role_name": made.role_name,
            "dead_letter_queue_arn": made.dead_letter_queue_arn,
            "dead_letter_queue_name": made.dead_letter_queue_name,
        }

    return record(program, outputs=PUBLISHED)


def statements(recording: Recording) -> list[Statement]:
    found: list[Statement] = json.loads(recording.one(":RolePolicy")["policy"])["Statement"]
    return found


# --- functions ---


def test_a_function_has_a_role_and_a_log_group_of_its_own_and_says_what_they_are_called() -> None:
    found = function()
    assert found.one(":LogGroup")["name"] == "/aws/lambda/goldlake-check"
    assert found.one(":LogGroup")["retentionInDays"] == 30
    assert found.one(":Role")["name"] == "goldlake-check"
    assert found.exports == {
        "arn": f"arn:aws:made-up:{REGION}:{ACCOUNT}:check",
        "function_name": "goldlake-check",
        "version": "7",
        "role_arn": f"arn:aws:made-up:{REGION}:{ACCOUNT}:check-role",
        "role_name": "goldlake-check",
        "log_group_name": "/aws/lambda/goldlake-check",
    }
    assert {"check-policy", "check-logs"} <= found.resource("check", ":Function").depends_on


def test_a_function_may_write_its_log_and_what_it_was_given_and_nothing_else() -> None:
    assert [statement["Action"] for statement in statements(function())] == [
        ["logs:CreateLogStream", "logs:PutLogEvents"],
        ["glue:GetTable"],
    ]


def test_a_function_without_options_has_no_key_no_alarms_and_no_limit_of_its_own() -> None:
    found = function()
    inputs = found.one(":Function")
    assert inputs["publish"] is False
    assert not {"kmsKeyArn", "reservedConcurrentExecutions", "ephemeralStorage", "vpcConfig", "skipDestroy"} & set(
        inputs
    )
    assert "kmsKeyId" not in found.one(":LogGroup")
    assert found.of(":MetricAlarm") == {}


def test_a_key_encrypts_log_and_environment_and_the_role_may_decrypt_with_it() -> None:
    found = function(key_arn=KEY)
    assert found.one(":LogGroup")["kmsKeyId"] == KEY
    assert found.one(":Function")["kmsKeyArn"] == KEY
    assert {"Effect": "Allow", "Action": ["kms:Decrypt"], "Resource": [KEY]} in statements(found)


def test_storage_concurrency_and_publishing_reach_the_function() -> None:
    inputs = function(storage_mb=2048, reserved_concurrency=0, publish=True).one(":Function")
    assert inputs["ephemeralStorage"] == {"size": 2048}
    assert inputs["reservedConcurrentExecutions"] == 0
    assert inputs["publish"] is True


def test_a_function_has_the_alarms_that_it_is_told() -> None:
    assert function(alarm_topic_arn=TOPIC, alarms=["throttles"]).of(":MetricAlarm").keys() == {"check-throttles"}
    assert function(alarm_topic_arn=TOPIC, alarms=[]).of(":MetricAlarm") == {}


def test_errors_throttles_and_runs_near_the_limit_are_alarmed() -> None:
    alarms = function(alarm_topic_arn=TOPIC).of(":MetricAlarm")
    assert {name: (alarm["metricName"], alarm["statistic"], alarm["threshold"]) for name, alarm in alarms.items()} == {
        "check-errors": ("Errors", "Sum", 1),
        "check-throttles": ("Throttles", "Sum", 1),
        "check-duration": ("Duration", "Maximum", 240_000),
    }
    for alarm in alarms.values():
        assert alarm["namespace"] == "AWS/Lambda"
        assert alarm["dimensions"] == {"FunctionName": "goldlake-check"}
        assert alarm["comparisonOperator"] == "GreaterThanOrEqualToThreshold"
        assert alarm["treatMissingData"] == "notBreaching"
        assert alarm["alarmActions"] == [TOPIC]
        assert alarm["tags"] == {"Name": alarm["name"], "Project": "goldlake"}


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("memory_mb", 127, "128 to 10240"),
        ("memory_mb", 10241, "128 to 10240"),
        ("timeout_seconds", 0, "1 to 900"),
        ("timeout_seconds", 901, "1 to 900"),
        ("storage_mb", 511, "512 to 10240"),
        ("storage_mb", 10241, "512 to 10240"),
        ("reserved_concurrency", -2, "-1 for no limit"),
        ("layers", ["arn"] * 6, "6 layers: Lambda allows 5"),
        ("alarms", ["errors", "noise"], "an alarm for noise: errors, throttles, duration are known"),
    ],
)
@pytest.mark.parametrize("build", [function, dbt_runner])
def test_what_lambda_would_refuse_is_refused_with_value_and_range(
    setting: str, value: Any, said: str, build: Any
) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        build(**{setting: value})
    if not isinstance(value, list):
        assert f"{setting} {value}" in str(refused.value)


@pytest.mark.parametrize(
    "limits",
    [
        {"memory_mb": 128, "timeout_seconds": 1, "storage_mb": 512, "reserved_concurrency": -1},
        {"memory_mb": 10240, "timeout_seconds": 900, "storage_mb": 10240, "layers": ["arn"] * 5},
    ],
)
def test_the_ends_of_each_range_are_allowed(limits: dict[str, Any]) -> None:
    assert function(**limits).one(":Function")["memorySize"] == limits["memory_mb"]


def test_the_right_to_invoke_a_function_is_for_what_is_called_alone() -> None:
    assert invoke_functions([f"{FUNCTION}:live"])["Resource"] == [f"{FUNCTION}:live"]
    assert invoke_functions([FUNCTION])["Resource"] == [FUNCTION]


# --- the dbt runner ---


def test_dbt_runs_once_at_a_time_and_each_change_is_a_version() -> None:
    inputs = dbt_runner().one(":Function")
    assert inputs["reservedConcurrentExecutions"] == 1
    assert inputs["publish"] is True


def test_an_account_that_cannot_reserve_goes_without() -> None:
    assert dbt_runner(reserved_concurrency=-1).one(":Function")["reservedConcurrentExecutions"] == -1


def test_a_failed_call_is_not_tried_again_and_goes_to_the_queue_whichever_way_it_came() -> None:
    found = dbt_runner()
    configurations = found.of(":FunctionEventInvokeConfig")
    assert {inputs["qualifier"] for inputs in configurations.values()} == {"$LATEST", "live"}
    queue = found.exports["dead_letter_queue_arn"]
    for name, inputs in configurations.items():
        assert inputs["maximumRetryAttempts"] == 0
        assert inputs["destinationConfig"] == {"onFailure": {"destination": queue}}
        # Lambda refuses the destination while the role may not write there, and the alias before it exists.
        assert {"dbt-runner", "dbt-runner-live"} <= found.resource(name).depends_on


def test_the_queue_is_encrypted_keeps_two_weeks_and_refuses_plain_http() -> None:
    found = dbt_runner()
    queue = found.one(":Queue")
    assert queue["sqsManagedSseEnabled"] is True
    assert "kmsMasterKeyId" not in queue
    assert queue["messageRetentionSeconds"] == 14 * 24 * 3600
    statement = json.loads(found.one(":QueuePolicy")["policy"])["Statement"][0]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert statement["Resource"] == [found.exports["dead_letter_queue_arn"]]


def test_an_emulator_without_tls_gets_no_policy_that_wants_it() -> None:
    assert dbt_runner(tls_only=False).of(":QueuePolicy") == {}


def test_the_role_may_send_to_the_queue_and_not_read_it() -> None:
    found = dbt_runner()
    of_queue = [statement for statement in statements(found) if any("sqs:" in action for action in statement["Action"])]
    assert of_queue == [allow(["sqs:SendMessage"], [found.exports["dead_letter_queue_arn"]])]
    assert OWN_STATEMENT in statements(found)


def test_a_key_encrypts_the_queue_and_the_role_may_use_it() -> None:
    found = dbt_runner(key_arn=KEY)
    assert found.one(":Queue")["kmsMasterKeyId"] == KEY
    assert "sqsManagedSseEnabled" not in found.one(":Queue")
    assert use_key(KEY, "sqs") in statements(found)


def test_a_call_that_waits_in_the_queue_is_alarmed_beside_the_function_itself() -> None:
    alarms = dbt_runner(alarm_topic_arn=TOPIC).of(":MetricAlarm")
    assert set(alarms) == {
        "dbt-runner-errors",
        "dbt-runner-throttles",
        "dbt-runner-duration",
        "dbt-runner-failed-messages",
    }
    waiting = alarms["dbt-runner-failed-messages"]
    assert waiting["dimensions"] == {"QueueName": "goldlake-dbt-runner-failed"}
    assert (waiting["metricName"], waiting["threshold"]) == ("ApproximateNumberOfMessagesVisible", 1)
    assert dbt_runner().of(":MetricAlarm") == {}


def test_the_alias_follows_the_newest_version() -> None:
    found = dbt_runner()
    alias = found.one(":Alias")
    assert (alias["name"], alias["functionVersion"]) == ("live", "7")
    assert "routingConfig" not in alias
    assert found.exports["alias_arn"] == f"arn:aws:made-up:{REGION}:{ACCOUNT}:dbt-runner-live"


def test_a_canary_gets_its_part_and_the_stable_version_the_rest() -> None:
    alias = dbt_runner(stable_version="6", canary_percent=10).one(":Alias")
    assert alias["functionVersion"] == "6"
    assert alias["routingConfig"] == {"additionalVersionWeights": {"7": 0.1}}


def test_a_rollback_takes_all_calls_away_from_the_new_version() -> None:
    alias = dbt_runner(stable_version="6").one(":Alias")
    assert alias["functionVersion"] == "6"
    assert "routingConfig" not in alias


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"canary_percent": 5}, "canary_percent 5 and no stable_version"),
        ({"stable_version": "6", "canary_percent": 101}, "canary_percent 101: a percentage is 0 to 100"),
        ({"stable_version": "6", "canary_percent": -1}, "canary_percent -1"),
        ({"stable_version": "latest"}, "stable_version 'latest': a published version is a number"),
        ({"publish": False}, "publish off"),
    ],
)
def test_a_rollout_that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        dbt_runner(**changes)


def test_a_refused_runner_registers_nothing() -> None:
    registered: list[str] = []

    def program() -> None:
        with pytest.raises(ConfigurationError):
            DbtRunner("dbt-runner", DbtRunnerArgs(**arguments(canary_percent=5)))

    registered += [found.name for found in record(program).resources]
    assert registered == []


_versions = st.integers(1, 99).map(str)


@given(new=_versions, stable=st.just("") | _versions, percent=st.integers(0, 100))
def test_all_calls_go_somewhere_and_never_to_one_version_twice(new: str, stable: str, percent: int) -> None:
    routing = alias_routing(new, stable, percent)
    assert routing.version not in routing.weights
    assert all(0 < weight < 1 for weight in routing.weights.values())
    assert {routing.version, *routing.weights} <= {new, stable}


@pytest.mark.parametrize(
    ("stable", "percent", "expected"),
    [
        ("", 0, Routing("7")),
        ("6", 0, Routing("6")),
        ("6", 25, Routing("6", {"7": 0.25})),
        ("6", 100, Routing("7")),
        ("7", 25, Routing("7")),
    ],
)
def test_an_alias_sends_calls_where_the_rollout_says(stable: str, percent: int, expected: Routing) -> None:
    assert alias_routing("7", stable, percent) == expected


# --- the key ---


def key(**changes: Any) -> Recording:
    def program() -> dict[str, pulumi.Output[str]]:
        arguments = {
            "description": "Goldlake",
            "account": ACCOUNT,
            "region": REGION,
            "tags": {"Name": "goldlake-key"},
            "protect": True,
        }
        made = CustomerKey("key", CustomerKeyArgs(**{**arguments, **changes}))
        return {"arn": made.key_arn, "id": made.key_id, "alias": made.alias}

    return record(program, outputs={"aws:kms/key:Key": {"keyId": "1234"}})


def test_a_key_is_rotated_protected_and_can_be_had_back_for_thirty_days() -> None:
    found = key()
    inputs = found.one(":Key")
    assert inputs["enableKeyRotation"] is True
    assert inputs["deletionWindowInDays"] == 30
    assert json.loads(inputs["policy"]) == key_policy(ACCOUNT, REGION)
    assert found.resource("key", ":Key").protect
    assert found.one(":Alias") == {"name": "alias/goldlake", "targetKeyId": "1234"}
    assert found.exports == {
        "arn": f"arn:aws:made-up:{REGION}:{ACCOUNT}:key",
        "id": "1234",
        "alias": "alias/goldlake",
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"deletion_days": 6}, "deletion_days 6: KMS takes 7 to 30"),
        ({"deletion_days": 31}, "deletion_days 31"),
        ({"alias": "alias/goldlake"}, "'alias/goldlake': give the name alone"),
        ({"alias": "aws/sns"}, "'aws/sns'"),
    ],
)
def test_what_kms_would_refuse_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        key(**changes)


def test_only_the_account_administers_the_key() -> None:
    policy = key_policy(ACCOUNT, REGION)["Statement"]
    everything = [statement for statement in policy if statement["Action"] == "kms:*"]
    assert [statement["Principal"] for statement in everything] == [{"AWS": f"arn:aws:iam::{ACCOUNT}:root"}]


def test_logs_use_the_key_for_log_groups_of_this_account_only() -> None:
    statement = by_service(key_policy(ACCOUNT, REGION))[f"logs.{REGION}.amazonaws.com"]
    assert statement["Condition"] == {
        "ArnLike": {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:*"}
    }


def test_a_key_for_people_only_lets_no_service_use_it() -> None:
    assert by_service(key_policy(ACCOUNT, REGION, services=False)) == {}


def test_alarms_and_event_rules_use_the_key_for_topics_and_no_service_without_a_condition() -> None:
    services = by_service(key_policy(ACCOUNT, REGION))
    assert set(services) == {f"logs.{REGION}.amazonaws.com", "cloudwatch.amazonaws.com", "events.amazonaws.com"}
    assert all(statement["Condition"] for statement in services.values())
    assert not any("*" in action for statement in services.values() for action in statement["Action"])
    assert services["cloudwatch.amazonaws.com"]["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    # EventBridge sends KMS no source account, so that condition would lose every message.
    assert "SourceAccount" not in str(services["events.amazonaws.com"])
    assert f"arn:aws:sns:{REGION}:{ACCOUNT}:*" in str(services["events.amazonaws.com"]["Condition"])


def by_service(policy: dict[str, Any]) -> dict[str, Statement]:
    return {
        statement["Principal"]["Service"]: statement
        for statement in policy["Statement"]
        if "Service" in statement["Principal"]
    }
