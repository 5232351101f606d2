"""Unit `pipeline`: the state machine over the four functions, its schedule, and word of its failures."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi_aws as aws

from components.pipeline import GoldPipeline, GoldPipelineArgs
from stacks.names import PIPELINE
from stacks.outputs import FoundationOutputs, PipelineOutputs, TransformOutputs
from stacks.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the unit is given."""

    foundation: FoundationOutputs
    transform: TransformOutputs


def deploy(settings: Settings, inputs: Inputs) -> PipelineOutputs:
    """Register the state machine, the schedule and the notification."""
    names = settings.names("pipeline")
    pipeline = GoldPipeline(
        "pipeline",
        GoldPipelineArgs(
            state_machine_name=names.name(PIPELINE),
            function_arns={
                "check": inputs.transform.check_arn,
                "build": inputs.transform.build_arn,
                "export": inputs.transform.export_arn,
                "register": inputs.transform.register_arn,
            },
            schedule_expression=settings.schedule_expression,
            schedule_enabled=settings.schedule_enabled,
            hand_over_retries=settings.hand_over_retries,
            log_retention_days=settings.log_retention_days,
            key_arn=inputs.foundation.key_arn if settings.customer_key else None,
            notification_topic_arn=inputs.foundation.alarm_topic_arn,
            dead_letter_queue_arn=inputs.transform.dead_letter_queue_arn,
            account=aws.get_caller_identity_output().account_id,
            region=settings.region,
            tags=names.tags(PIPELINE),
        ),
    )
    return PipelineOutputs(state_machine_arn=pipeline.state_machine_arn, schedule_name=pipeline.schedule_name)
