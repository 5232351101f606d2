"""Typed outputs of units: the only thing that passes between them."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import pulumi


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitOutputs:
    """Base of every unit's outputs: frozen, keyword-only, each field a `pulumi.Output`."""

    unit: ClassVar[str]

    def exports(self) -> dict[str, pulumi.Output[Any]]:
        """Return the outputs under the names that the stack exports: `<unit>_<field>`."""
        return {f"{self.unit}_{field.name}": getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundationOutputs(UnitOutputs):
    """What the network offers."""

    unit: ClassVar[str] = "foundation"

    vpc_id: pulumi.Output[str]
    subnet_ids: pulumi.Output[list[str]]
    function_security_group_id: pulumi.Output[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LakeOutputs(UnitOutputs):
    """Where the data is."""

    unit: ClassVar[str] = "lake"

    bucket_name: pulumi.Output[str]
    bucket_arn: pulumi.Output[str]
    gold_database: pulumi.Output[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SecretsOutputs(UnitOutputs):
    """The ids of the secret entries, which hold no value until they are seeded."""

    unit: ClassVar[str] = "secrets"

    warehouse_login_arn: pulumi.Output[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformOutputs(UnitOutputs):
    """The functions of the pipeline's steps, and the warehouse that they work on."""

    unit: ClassVar[str] = "transform"

    warehouse_host: pulumi.Output[str]
    warehouse_port: pulumi.Output[int]
    warehouse_database: pulumi.Output[str]

    check_arn: pulumi.Output[str]
    build_arn: pulumi.Output[str]
    export_arn: pulumi.Output[str]
    register_arn: pulumi.Output[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineOutputs(UnitOutputs):
    """How to start the pipeline."""

    unit: ClassVar[str] = "pipeline"

    state_machine_arn: pulumi.Output[str]
    schedule_name: pulumi.Output[str]
