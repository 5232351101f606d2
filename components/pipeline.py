"""The pipeline: one state machine that runs check, dbt build, export and register, and its schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from components.policies import deliver_logs, invoke_functions, start_execution
from components.role import ServiceRoleArgs, service_role

STEPS = ("check", "build", "export", "register")

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
_VERDICT_ONLY = {"answer": {"statusCode.$": "$.Payload.statusCode", "message.$": "$.Payload.message"}}


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


def _fail(step: str, error: str) -> dict[str, Any]:
    return {
        "Type": "Fail",
        "Error": error,
        "CausePath": f"States.Format('{step}: {{}}', $.{step}.answer.message)",
    }


def definition(functions: Mapping[str, str]) -> dict[str, Any]:
    """Return the state machine in Amazon States Language; `functions` maps each of STEPS to a function's ARN.

    Every answer holds `statusCode` (0 done, 1 the answer is no, 2 infrastructure cannot be reached) and
    `message`. Tables that are not ready end the execution well, with `outcome` "skipped": nothing is
    wrong with the pipeline. All other ends but "done" are failures that name their step.

    The execution's input is for dbt: `{}`, or any of select, exclude, full_refresh and vars.
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
        "BuildVerdict": _verdict("build", "Export", failed="BuildFailed"),
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
        if step != "check":
            states[f"{step.capitalize()}Failed"] = _fail(step, "Failed")
    return {"Comment": "Goldlake: silver to registered gold tables", "StartAt": "Check", "States": states}


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


class GoldPipeline(pulumi.ComponentResource):
    """The state machine with its role and log, and the schedule that starts it."""

    state_machine_arn: pulumi.Output[str]
    schedule_name: pulumi.Output[str]

    def __init__(self, name: str, args: GoldPipelineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("goldlake:pipeline:GoldPipeline", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        arns = pulumi.Output.all(**args.function_arns)
        logs = aws.cloudwatch.LogGroup(
            f"{name}-logs",
            # The vendedlogs prefix keeps the log group's resource policy below its size limit
            # (Step Functions developer guide, "Logging using CloudWatch Logs").
            name=f"/aws/vendedlogs/states/{args.state_machine_name}",
            retention_in_days=args.log_retention_days,
            tags=args.tags,
            opts=child,
        )
        role, policy = service_role(
            name,
            ServiceRoleArgs(
                role_name=args.state_machine_name,
                service="states.amazonaws.com",
                policy_name="pipeline",
                statements=arns.apply(lambda found: [invoke_functions(sorted(found.values())), deliver_logs()]),
                account=args.account,
                tags=args.tags,
            ),
            parent=self,
        )
        machine = aws.sfn.StateMachine(
            name,
            name=args.state_machine_name,
            role_arn=role.arn,
            definition=pulumi.Output.json_dumps(arns.apply(definition)),
            logging_configuration=aws.sfn.StateMachineLoggingConfigurationArgs(
                level="ERROR",
                include_execution_data=False,
                log_destination=logs.arn.apply(lambda arn: f"{arn}:*"),
            ),
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )
        scheduler_role, scheduler_policy = service_role(
            f"{name}-scheduler",
            ServiceRoleArgs(
                role_name=f"{args.state_machine_name}-scheduler",
                service="scheduler.amazonaws.com",
                policy_name="start",
                statements=machine.arn.apply(lambda arn: [start_execution(arn)]),
                account=args.account,
                tags=args.tags,
            ),
            parent=self,
        )
        schedule = aws.scheduler.Schedule(
            f"{name}-schedule",
            name=args.state_machine_name,
            schedule_expression=args.schedule_expression,
            state="ENABLED" if args.schedule_enabled else "DISABLED",
            flexible_time_window=aws.scheduler.ScheduleFlexibleTimeWindowArgs(mode="OFF"),
            target=aws.scheduler.ScheduleTargetArgs(arn=machine.arn, role_arn=scheduler_role.arn, input="{}"),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[scheduler_policy]),
        )
        self.state_machine_arn = machine.arn
        self.schedule_name = schedule.name
        self.register_outputs({"stateMachineArn": self.state_machine_arn, "scheduleName": self.schedule_name})
