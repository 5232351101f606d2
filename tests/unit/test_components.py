"""Pure decisions of the components: names, subnets, policies, the state machine."""

from __future__ import annotations

import json
import re
from typing import Any

import pulumi
import pytest

from components import policies
from components.naming import Names
from components.pipeline import STEPS, GoldPipeline, GoldPipelineArgs, definition
from local.recording import ACCOUNT, Recording, record
from runtime.errors import ConfigurationError

NAMES = Names(
    prefix="goldlake",
    stack="dev-blue",
    unit="lake",
    environment="dev",
    owner="data",
    cost_centre="gold",
    more_tags={"A": "b"},
)


def test_everything_carries_the_standard_tags_and_the_stacks_own() -> None:
    assert NAMES.tags("silver") == {
        "A": "b",
        "Name": "goldlake-silver",
        "Project": "goldlake",
        "Environment": "dev",
        "Stack": "dev-blue",
        "Unit": "lake",
        "Owner": "data",
        "CostCentre": "gold",
        "ManagedBy": "pulumi",
    }


def test_names_have_the_shapes_of_the_documentation() -> None:
    assert NAMES.name("dbt-runner") == "goldlake-dbt-runner"
    assert NAMES.secret("redshift-admin") == "goldlake/redshift-admin"
    assert NAMES.bucket("silver", "123456789012", "eu-west-1") == "goldlake-silver-123456789012-eu-west-1"


def test_a_service_role_is_for_this_account_only() -> None:
    condition = policies.trust("states.amazonaws.com", "123456789012")["Statement"][0]["Condition"]
    assert condition == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_a_prefix_may_be_listed_without_the_rest_of_the_bucket() -> None:
    statements = policies.read_prefix("arn:aws:s3:::lake", "silver")
    assert statements[0]["Condition"] == {"StringLike": {"s3:prefix": ["silver", "silver/*"]}}
    assert statements[1]["Resource"] == ["arn:aws:s3:::lake/silver/*"]


def test_deleting_objects_must_be_asked_for() -> None:
    assert "s3:DeleteObject" not in str(policies.write_prefix("arn:aws:s3:::lake", "gold"))
    assert "s3:DeleteObject" in str(policies.write_prefix("arn:aws:s3:::lake", "gold", delete=True))


@pytest.fixture
def machine() -> dict[str, Any]:
    return definition({step: f"arn:{step}" for step in STEPS})


def successors(state: dict[str, Any]) -> set[str]:
    choices = {choice["Next"] for part in ("Choices", "Catch") for choice in state.get(part, [])}
    return choices | {state[key] for key in ("Next", "Default") if key in state}


def test_every_state_is_reached_and_every_successor_exists(machine: dict[str, Any]) -> None:
    states = machine["States"]
    reached, waiting = set(), {machine["StartAt"]}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= successors(states[name]) - reached
    assert reached == set(states)


def test_dbt_does_not_start_when_tables_are_not_ready(machine: dict[str, Any]) -> None:
    verdict = machine["States"]["CheckVerdict"]
    assert {choice["NumericEquals"]: choice["Next"] for choice in verdict["Choices"]} == {0: "Build", 1: "Skipped"}
    assert verdict["Default"] == "CheckUnreachable"
    assert machine["States"]["Skipped"]["End"] is True


@pytest.mark.parametrize("step", ["build", "export", "register"])
def test_a_step_that_fails_ends_the_execution_with_its_message(machine: dict[str, Any], step: str) -> None:
    state = machine["States"][f"{step.capitalize()}Failed"]
    assert state["Type"] == "Fail"
    assert state["Error"] == "Failed"
    assert f"$.{step}.answer.message" in state["CausePath"]


def test_only_transient_errors_of_lambda_are_tried_again(machine: dict[str, Any]) -> None:
    for step in STEPS:
        retries = machine["States"][step.capitalize()]["Retry"]
        assert all(error.startswith("Lambda.") for retry in retries for error in retry["ErrorEquals"])


@pytest.mark.parametrize("step", STEPS)
def test_a_step_without_an_answer_ends_the_execution_with_its_name_and_the_error(
    machine: dict[str, Any], step: str
) -> None:
    caught = machine["States"][step.capitalize()]["Catch"]
    assert caught == [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": f"{step.capitalize()}Crashed"}]
    end = machine["States"][f"{step.capitalize()}Crashed"]
    assert (end["Type"], end["Error"]) == ("Fail", "Crashed")
    assert end["CausePath"] == f"States.Format('{step}: {{}} {{}}', $.error.Error, $.error.Cause)"


def test_a_run_that_hangs_is_ended(machine: dict[str, Any]) -> None:
    # Long enough for four functions that use up their 900 seconds.
    assert 4 * 900 < machine["TimeoutSeconds"] <= 2 * 3600
    assert definition({step: f"arn:{step}" for step in STEPS}, 60)["TimeoutSeconds"] == 60


def pipeline(**changes: Any) -> Recording:
    def program() -> dict[str, pulumi.Output[str]]:
        arguments: dict[str, Any] = {
            "state_machine_name": "goldlake-pipeline",
            "function_arns": {step: f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:{step}" for step in STEPS},
            "schedule_expression": "cron(0 5 * * ? *)",
            "schedule_enabled": True,
            "log_retention_days": 30,
            "account": ACCOUNT,
            "tags": {"Name": "goldlake-pipeline"},
        }
        made = GoldPipeline("pipeline", GoldPipelineArgs(**{**arguments, **changes}))
        return {"machine": made.state_machine_arn, "schedule": made.schedule_name}

    return record(program)


def allowed(recording: Recording, policy: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(recording.resource(policy).inputs["policy"])["Statement"]
    return found


def test_the_pipeline_may_call_its_four_functions_and_an_alias_by_that_alias_only() -> None:
    alias = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:build:live"
    functions = {step: f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:{step}" for step in STEPS} | {"build": alias}
    found = pipeline(function_arns=functions)
    invoke = allowed(found, "pipeline-policy")[0]
    assert [arn for arn in invoke["Resource"] if "build" in arn] == [alias]
    machine = json.loads(found.one(":StateMachine")["definition"])
    assert machine["States"]["Build"]["Parameters"]["FunctionName"] == alias


def test_a_start_that_fails_is_tried_twice_more_within_an_hour_and_then_kept() -> None:
    queue = "arn:aws:sqs:eu-west-1:123456789012:failed"
    found = pipeline(dead_letter_queue_arn=queue)
    target = found.one(":Schedule")["target"]
    assert target["retryPolicy"] == {"maximumRetryAttempts": 2, "maximumEventAgeInSeconds": 3600}
    assert target["deadLetterConfig"] == {"arn": queue}
    assert {"Effect": "Allow", "Action": ["sqs:SendMessage"], "Resource": [queue]} in allowed(
        found, "pipeline-scheduler-policy"
    )


def test_without_a_queue_the_schedule_may_start_the_machine_and_nothing_else() -> None:
    found = pipeline()
    assert "deadLetterConfig" not in found.one(":Schedule")["target"]
    assert allowed(found, "pipeline-scheduler-policy") == [
        {"Effect": "Allow", "Action": ["states:StartExecution"], "Resource": [found.exports["machine"]]}
    ]


def test_a_key_encrypts_the_log_and_lets_the_schedule_fill_the_queue() -> None:
    key = "arn:aws:kms:eu-west-1:123456789012:key/1"
    found = pipeline(key_arn=key, dead_letter_queue_arn="arn:aws:sqs:eu-west-1:123456789012:failed")
    assert found.one(":LogGroup")["kmsKeyId"] == key
    assert policies.use_key(key, "sqs") in allowed(found, "pipeline-scheduler-policy")
    assert policies.use_key(key, "sqs") not in allowed(pipeline(key_arn=key), "pipeline-scheduler-policy")


def test_the_schedules_role_is_for_schedules_of_this_account_and_of_its_region() -> None:
    def trusted(recording: Recording) -> Any:
        role = recording.resource("pipeline-scheduler-role").inputs["assumeRolePolicy"]
        return json.loads(role)["Statement"][0]["Condition"]["StringEquals"]

    assert trusted(pipeline()) == {"aws:SourceAccount": ACCOUNT}
    assert trusted(pipeline(region="eu-west-1")) == {
        "aws:SourceAccount": ACCOUNT,
        "aws:SourceArn": f"arn:aws:scheduler:eu-west-1:{ACCOUNT}:schedule-group/default",
    }


def test_whoever_wants_to_know_is_told_of_runs_that_did_not_end_well() -> None:
    topic = "arn:aws:sns:eu-west-1:123456789012:alarms"
    found = pipeline(notification_topic_arn=topic)
    assert json.loads(found.one(":EventRule")["eventPattern"]) == {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {
            "stateMachineArn": [found.exports["machine"]],
            "status": ["FAILED", "TIMED_OUT", "ABORTED"],
        },
    }
    target = found.one(":EventTarget")
    assert target["arn"] == topic
    # A role for a topic as the target makes EventBridge fail to deliver.
    assert "roleArn" not in target


def test_the_message_says_run_status_cause_and_time_and_a_cause_with_quotes_stays_json() -> None:
    transformer = pipeline(notification_topic_arn="arn:topic").one(":EventTarget")["inputTransformer"]
    said = transformer["inputTemplate"]
    assert set(re.findall("<([^>]+)>", said)) == set(transformer["inputPaths"]) == {"name", "status", "cause", "time"}
    # What is not within quotes is put in as a JSON value.
    values = {"cause": 'he said "no"\nand left', "time": "2026-01-05T05:00:00Z", "status": "FAILED"}
    said = re.sub('": <([^>]+)>', lambda found: f'": {json.dumps(values[found[1]])}', said)
    assert {name: json.loads(said)[name] for name in values} == values


def test_nobody_is_told_when_nobody_is_named() -> None:
    found = pipeline()
    assert found.of(":EventRule") == found.of(":EventTarget") == {}


@pytest.mark.parametrize("seconds", [0, 365 * 24 * 3600 + 1])
def test_a_time_limit_that_step_functions_does_not_know_is_refused(seconds: int) -> None:
    with pytest.raises(ConfigurationError, match=f"timeout_seconds {seconds}: Step Functions runs an execution for 1"):
        pipeline(timeout_seconds=seconds)
