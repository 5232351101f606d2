"""Unit `pipeline`: the state machine over the four functions, and its schedule."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi_aws as aws

from components.naming import Names
from components.pipeline import GoldPipeline, GoldPipelineArgs
from stacks.outputs import PipelineOutputs, TransformOutputs
from stacks.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the unit is given."""

    transform: TransformOutputs


def deploy(settings: Settings, inputs: Inputs) -> PipelineOutputs:
    """Register the state machine and the schedule."""
    names = Names(settings.prefix, settings.stack)
    pipeline = GoldPipeline(
        "pipeline",
        GoldPipelineArgs(
            state_machine_name=names.name("pipeline"),
            function_arns={
                "check": inputs.transform.check_arn,
                "build": inputs.transform.build_arn,
                "export": inputs.transform.export_arn,
                "register": inputs.transform.register_arn,
            },
            schedule_expression=settings.schedule_expression,
            schedule_enabled=settings.schedule_enabled,
            log_retention_days=settings.log_retention_days,
            account=aws.get_caller_identity_output().account_id,
            tags=names.tags("pipeline"),
        ),
    )
    return PipelineOutputs(state_machine_arn=pipeline.state_machine_arn, schedule_name=pipeline.schedule_name)
