"""The pipeline: one state machine that runs check, dbt build, export and register, its schedule, and who is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from components.policies import (
    Statement,
    deliver_logs,
    invoke_functions,
    schedule_group,
    send_messages,
    start_execution,
    use_key,
)
from components.role import ServiceRoleArgs, service_role
from runtime.errors import ConfigurationError

STEPS = ("check", "build", "export", "register")

# How often a build that ran into the function's time limit is gone on with, by a call of its own each time.
DEFAULT_HAND_OVER_RETRIES = 3
MAX_HAND_OVER_RETRIES = 20


def longest_run(hand_over_retries: int) -> int:
    """Return how many seconds a run may take.

    Functions of 900 s at most, and five minutes for what is between them: the waits before retries are 30 s a step.
    Step Functions itself would let a run that hangs go on for a year.
    """
    return (len(STEPS) + hand_over_retries) * 900 + 300


DEFAULT_TIMEOUT_SECONDS = longest_run(DEFAULT_HAND_OVER_RETRIES)
MAX_TIMEOUT_SECONDS = 365 * 24 * 3600

# Ends of an execution that somebody should know of (Step Functions developer guide, "Execution status change").
BAD_ENDS = ("FAILED", "TIMED_OUT", "ABORTED")

# What Lambda answers when it is busy, as the Step Functions developer guide lists it
# ("Handle transient Lambda service exceptions").
_TRANSIENT = [
    "Lambda.ServiceException",
    "Lambda.AWSLambdaException",
    "Lambda.SdkClientException",
    "Lambda.TooManyRequestsException",
]

# A whole answer, and what of dbt's is kept: a state holds 256 KiB at most (Step Functions quotas), which the results of
# some hundred nodes fill. They are in the run's artifacts and in the function's log.
_ANSWER = {"answer.$": "$.Payload"}
_VERDICT_ONLY = {
    "answer": {
        "statusCode.$": "$.Payload.statusCode",
        "outcome.$": "$.Payload.outcome",
        "message.$": "$.Payload.message",
    }
}


def _task(
    function_arn: str, step: str, payload: Mapping[str, Any], following: str, keep: Mapping[str, Any] = _ANSWER
) -> dict[str, Any]:
    """Return a state that calls a function with `payload` and keeps its answer, or a part, under the step's name."""
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Parameters": {"FunctionName": function_arn, "Payload": dict(payload)},
        "ResultSelector": dict(keep),
        "ResultPath": f"$.{step}",
        "Retry": [{"ErrorEquals": _TRANSIENT, "IntervalSeconds": 2, "MaxAttempts": 4, "BackoffRate": 2}],
        # Everything but States.Runtime and States.DataLimitExceeded, which no Catch gets.
        "Catch": [{"ErrorEquals": ["States.ALL"], "ResultPath": "$.error", "Next": f"{step.capitalize()}Crashed"}],
        "Next": following,
    }


def _verdict(step: str, following: str, *, failed: str) -> dict[str, Any]:
    """Return a choice over the statusCode of a step's answer: 0 goes on, 1 to `failed`, the rest is unreachable."""
    code = f"$.{step}.answer.statusCode"
    return {
        "Type": "Choice",
        "Choices": [
            {"Variable": code, "NumericEquals": 0, "Next": following},
            {"Variable": code, "NumericEquals": 1, "Next": failed},
        ],
        "Default": f"{step.capitalize()}Unreachable",
    }


def _dbt_verdict(step: str, following: str, *, deadline: str) -> dict[str, Any]:
    """Return a choice over dbt's answer: 0 goes on, and a build that ran out of time is gone on with."""
    answer = f"$.{step}.answer"
    return {
        "Type": "Choice",
        "Choices": [
            {"Variable": f"{answer}.statusCode", "NumericEquals": 0, "Next": following},
            {"Variable": f"{answer}.outcome", "StringEquals": "deadline", "Next": deadline},
            {"Variable": f"{answer}.outcome", "StringEquals": "unreachable", "Next": f"{step.capitalize()}Unreachable"},
        ],
        "Default": f"{step.capitalize()}Failed",
    }


def _hand_over(function_arn: str, retries: int) -> dict[str, dict[str, Any]]:
    """Return the states that go on with a build whose time was up: calls of dbt's `retry`, so many at most."""
    attempt = "$.hand_over.attempt"
    return {
        "HandOver": {"Type": "Pass", "Result": {"attempt": 1}, "ResultPath": "$.hand_over", "Next": "Retry"},
        "Retry": _task(
            function_arn,
            "retry",
            {"command": "retry", "run_id.$": "$$.Execution.Name"},
            "RetryVerdict",
            keep=_VERDICT_ONLY,
        ),
        "RetryVerdict": _dbt_verdict("retry", "Export", deadline="RetryMore"),
        "RetryMore": {
            "Type": "Choice",
            "Choices": [{"Variable": attempt, "NumericLessThan": retries, "Next": "RetryNext"}],
            "Default": "RetryFailed",
        },
        "RetryNext": {
            "Type": "Pass",
            "Parameters": {"attempt.$": f"States.MathAdd({attempt}, 1)"},
            "ResultPath": "$.hand_over",
            "Next": "Retry",
        },
        "RetryFailed": _fail("retry", "Failed"),
        "RetryUnreachable": _fail("retry", "Unreachable"),
        "RetryCrashed": _crashed("retry"),
    }


def _fail(step: str, error: str) -> dict[str, Any]:
    return {
        "Type": "Fail",
        "Error": error,
        "CausePath": f"States.Format('{step}: {{}}', $.{step}.answer.message)",
    }


def _crashed(step: str) -> dict[str, Any]:
    """Return the end of a step that gave no answer: its function failed, ran out of time, or could not be called."""
    return {
        "Type": "Fail",
        "Error": "Crashed",
        "CausePath": f"States.Format('{step}: {{}} {{}}', $.error.Error, $.error.Cause)",
    }


def definition(
    functions: Mapping[str, str],
    timeout_seconds: int = DEFAULT_TIMEOUT_SECONDS,
    hand_over_retries: int = DEFAULT_HAND_OVER_RETRIES,
) -> dict[str, Any]:
    """Return the state machine in Amazon States Language; `functions` maps each of STEPS to a function's ARN.

    Every answer holds `statusCode` (0 done, 1 the answer is no, 2 infrastructure cannot be reached) and
    `message`. Tables that are not ready end the execution well, with `outcome` "skipped": nothing is
    wrong with the pipeline. All other ends but "done" are failures that name their step: Failed and Unreachable with
    the answer's message, Crashed with the error of a function that gave no answer.

    A build that ran into the function's time limit has the outcome "deadline". It is gone on with by
    `hand_over_retries` calls of dbt's `retry` at most, which build what remains; a node that takes longer than the
    limit by itself ends all of them.

    The execution's input is for dbt: `{}`, or any of select, exclude, selector, state, full_refresh, vars, threads.
    """
    run = {"run_id.$": "$$.Execution.Name"}
    states: dict[str, Any] = {
        "Check": _task(functions["check"], "check", run, "CheckVerdict"),
        "CheckVerdict": _verdict("check", "Build", failed="Skipped"),
        "Skipped": {"Type": "Pass", "Result": "skipped", "ResultPath": "$.outcome", "End": True},
        "Build": _task(
            functions["build"],
            "build",
            {"command": "build", "options.$": "$$.Execution.Input", **run},
            "BuildVerdict",
            keep=_VERDICT_ONLY,
        ),
        "BuildVerdict": _dbt_verdict("build", "Export", deadline="HandOver" if hand_over_retries else "BuildFailed"),
        "Export": _task(functions["export"], "export", run, "ExportVerdict"),
        "ExportVerdict": _verdict("export", "Register", failed="ExportFailed"),
        "Register": _task(
            functions["register"],
            "register",
            {"tables.$": "$.export.answer.table_names", **run},
            "RegisterVerdict",
        ),
        "RegisterVerdict": _verdict("register", "Done", failed="RegisterFailed"),
        "Done": {"Type": "Pass", "Result": "done", "ResultPath": "$.outcome", "End": True},
    }
    for step in STEPS:
        states[f"{step.capitalize()}Unreachable"] = _fail(step, "Unreachable")
        states[f"{step.capitalize()}Crashed"] = _crashed(step)
        if step != "check":
            states[f"{step.capitalize()}Failed"] = _fail(step, "Failed")
    if hand_over_retries:
        states |= _hand_over(functions["build"], hand_over_retries)
    return {
        "Comment": "Goldlake: silver to registered gold tables",
        "StartAt": "Check",
        "TimeoutSeconds": timeout_seconds,
        "States": states,
    }


def bad_end_pattern(state_machine_arn: str) -> dict[str, Any]:
    """Return the event pattern of an execution of this state machine that did not end well."""
    return {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {"stateMachineArn": [state_machine_arn], "status": list(BAD_ENDS)},
    }


# What the mail says. A cause may hold quotes and line breaks: as a JSON value EventBridge escapes it, within a text it
# does not (EventBridge user guide, "Amazon EventBridge input transformation"). It is null for an aborted execution.
_MESSAGE_PATHS = {
    "name": "$.detail.name",
    "status": "$.detail.status",
    "cause": "$.detail.cause",
    "time": "$.time",
}
_MESSAGE = """{
  "message": "Run <name> of the Goldlake pipeline: <status>",
  "status": <status>,
  "cause": <cause>,
  "time": <time>
}"""


@dataclass(frozen=True, kw_only=True)
class GoldPipelineArgs:
    """What the pipeline can be told."""

    state_machine_name: str
    function_arns: Mapping[str, pulumi.Input[str]]
    """The function of each of STEPS."""
    schedule_expression: str
    schedule_enabled: bool
    log_retention_days: int
    account: pulumi.Input[str]
    tags: dict[str, str]
    region: str = ""
    """Where it runs. With it, the schedule's role is for the default schedule group alone."""
    timeout_seconds: int | None = None
    """When a whole run is ended, whatever it is at; without it, what all its functions may take together."""
    hand_over_retries: int = DEFAULT_HAND_OVER_RETRIES
    """How many more calls a build gets that ran into the function's time limit."""
    key_arn: pulumi.Input[str] | None = None
    """The KMS key of the log, and of the dead letter queue; AWS's own without it."""
    notification_topic_arn: pulumi.Input[str] | None = None
    """Who is told of runs that failed, ran out of time or were aborted. Without it nobody is."""
    dead_letter_queue_arn: pulumi.Input[str] | None = None
    """Where the schedule puts a start that failed three times. Without it such a run is missing in silence."""


class GoldPipeline(pulumi.ComponentResource):
    """The state machine with its role and log, the schedule that starts it, and the rule that reports bad ends."""

    state_machine_arn: pulumi.Output[str]
    schedule_name: pulumi.Output[str]

    def __init__(self, name: str, args: GoldPipelineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        if args.timeout_seconds is not None and not 1 <= args.timeout_seconds <= MAX_TIMEOUT_SECONDS:
            raise ConfigurationError(
                f"{name} has timeout_seconds {args.timeout_seconds}: Step Functions runs an execution for "
                f"1 to {MAX_TIMEOUT_SECONDS} seconds (a year)"
            )
        if not 0 <= args.hand_over_retries <= MAX_HAND_OVER_RETRIES:
            raise ConfigurationError(
                f"{name} has hand_over_retries {args.hand_over_retries}: 0 to {MAX_HAND_OVER_RETRIES} are allowed, "
                "what takes longer belongs into a container"
            )
        super().__init__("goldlake:pipeline:GoldPipeline", name, None, opts)
        machine = self._machine(name, args)
        schedule = self._schedule(name, args, machine)
        if args.notification_topic_arn is not None:
            self._notify(name, args, machine, args.notification_topic_arn)
        self.state_machine_arn = machine.arn
        self.schedule_name = schedule.name
        self.register_outputs({"stateMachineArn": self.state_machine_arn, "scheduleName": self.schedule_name})

    def _machine(self, name: str, args: GoldPipelineArgs) -> aws.sfn.StateMachine:
        arns = pulumi.Output.all(**args.function_arns)
        retries = args.hand_over_retries
        timeout = args.timeout_seconds or longest_run(retries)
        logs = aws.cloudwatch.LogGroup(
            f"{name}-logs",
            # The vendedlogs prefix keeps the log group's resource policy below its size limit
            # (Step Functions developer guide, "Logging using CloudWatch Logs").
            name=f"/aws/vendedlogs/states/{args.state_machine_name}",
            retention_in_days=args.log_retention_days,
            kms_key_id=args.key_arn,
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )
        role, policy = service_role(
            name,
            ServiceRoleArgs(
                role_name=args.state_machine_name,
                service="states.amazonaws.com",
                policy_name="pipeline",
                statements=arns.apply(lambda found: [invoke_functions(sorted(found.values())), deliver_logs()]),
                account=args.account,
                # Step Functions developer guide, "Preventing cross-service confused deputy issue".
                source_arn=pulumi.Output.from_input(args.account).apply(
                    lambda account: (
                        f"arn:aws:states:{args.region}:{account}:stateMachine:{args.state_machine_name}"
                        if args.region
                        else ""
                    )
                ),
                tags=args.tags,
            ),
            parent=self,
        )
        return aws.sfn.StateMachine(
            name,
            name=args.state_machine_name,
            role_arn=role.arn,
            definition=pulumi.Output.json_dumps(arns.apply(lambda found: definition(found, timeout, retries))),
            logging_configuration=aws.sfn.StateMachineLoggingConfigurationArgs(
                level="ERROR",
                include_execution_data=False,
                log_destination=logs.arn.apply(lambda arn: f"{arn}:*"),
            ),
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )

    def _schedule(self, name: str, args: GoldPipelineArgs, machine: aws.sfn.StateMachine) -> aws.scheduler.Schedule:
        queue = args.dead_letter_queue_arn

        def statements(found: list[Any]) -> list[Statement]:
            machine_arn, queue_arn, key_arn = found
            start = start_execution(machine_arn)
            if not queue_arn:
                return [start]
            return [start, send_messages(queue_arn), *([use_key(key_arn, "sqs")] if key_arn else [])]

        role, policy = service_role(
            f"{name}-scheduler",
            ServiceRoleArgs(
                role_name=f"{args.state_machine_name}-scheduler",
                service="scheduler.amazonaws.com",
                policy_name="start",
                statements=pulumi.Output.all(machine.arn, queue, args.key_arn).apply(statements),
                account=args.account,
                source_arn=pulumi.Output.from_input(args.account).apply(
                    lambda account: schedule_group(args.region, account) if args.region else ""
                ),
                tags=args.tags,
            ),
            parent=self,
        )
        return aws.scheduler.Schedule(
            f"{name}-schedule",
            name=args.state_machine_name,
            schedule_expression=args.schedule_expression,
            state="ENABLED" if args.schedule_enabled else "DISABLED",
            flexible_time_window=aws.scheduler.ScheduleFlexibleTimeWindowArgs(mode="OFF"),
            target=aws.scheduler.ScheduleTargetArgs(
                arn=machine.arn,
                role_arn=role.arn,
                input="{}",
                # A run that could not be started for an hour is left out: the next one takes its data along. The
                # scheduler's own default is 185 attempts within a day.
                retry_policy=aws.scheduler.ScheduleTargetRetryPolicyArgs(
                    maximum_retry_attempts=2, maximum_event_age_in_seconds=3600
                ),
                dead_letter_config=None
                if queue is None
                else aws.scheduler.ScheduleTargetDeadLetterConfigArgs(arn=queue),
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )

    def _notify(
        self, name: str, args: GoldPipelineArgs, machine: aws.sfn.StateMachine, topic_arn: pulumi.Input[str]
    ) -> None:
        rule = aws.cloudwatch.EventRule(
            f"{name}-bad-ends",
            name=f"{args.state_machine_name}-bad-ends",
            description=f"Runs of {args.state_machine_name} that failed, ran out of time or were aborted",
            event_pattern=machine.arn.apply(lambda arn: json.dumps(bad_end_pattern(arn))),
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )
        aws.cloudwatch.EventTarget(
            f"{name}-notification",
            rule=rule.name,
            target_id="topic",
            arn=topic_arn,
            input_transformer=aws.cloudwatch.EventTargetInputTransformerArgs(
                input_paths=_MESSAGE_PATHS, input_template=_MESSAGE
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
