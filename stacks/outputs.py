"""Typed outputs of units: the only thing that passes between them.

A stack exports them as `<unit>_<field>`. Another stack reads them back from a StackReference into the same class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, Self

import pulumi

from runtime.errors import ConfigurationError


class Reference(Protocol):
    """What is read of a `pulumi.StackReference`."""

    def get_output(self, name: pulumi.Input[str]) -> pulumi.Output[Any]:
        """Return an output, or an output of None when the stack has none of this name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitOutputs:
    """Base of every unit's outputs: frozen, keyword-only, each field a `pulumi.Output`."""

    unit: ClassVar[str]

    def exports(self) -> dict[str, pulumi.Output[Any]]:
        """Return the outputs under the names that the stack exports: `<unit>_<field>`."""
        return {self.export_name(field): getattr(self, field) for field in self.names()}

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the fields."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def export_name(cls, field: str) -> str:
        """Return the name under which a stack exports a field."""
        return f"{cls.unit}_{field}"

    @classmethod
    def imported(cls, reference: Reference, stack: str) -> Self:
        """Return the outputs that `stack` exports.

        A preview or deployment fails with ConfigurationError that names stack and output when one is missing.
        """

        def required(name: str) -> Callable[[Any], Any]:
            def check(value: Any) -> Any:
                if value is None:
                    raise ConfigurationError(
                        f"stack {stack!r} has no output {name!r}: "
                        f"deploy it first, with the unit {cls.unit} of this version"
                    )
                return value

            return check

        return cls(
            **{field: reference.get_output(name).apply(required(name)) for field, name in cls._exported().items()}
        )

    @classmethod
    def _exported(cls) -> dict[str, str]:
        return {field: cls.export_name(field) for field in cls.names()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StateOutputs(UnitOutputs):
    """Where Pulumi keeps the state of the other stacks, and what encrypts their secrets."""

    unit: ClassVar[str] = "state"

    bucket_name: pulumi.Output[str]
    log_bucket_name: pulumi.Output[str]
    key_arn: pulumi.Output[str]
    key_alias: pulumi.Output[str]
    lock_table_name: pulumi.Output[str]
    """Empty without a lock table."""
    login_url: pulumi.Output[str]
    """For `pulumi login`."""
    secrets_provider: pulumi.Output[str]
    """For `pulumi stack init --secrets-provider`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundationOutputs(UnitOutputs):
    """The network, the key and the topic that other units use."""

    unit: ClassVar[str] = "foundation"

    vpc_id: pulumi.Output[str]
    subnet_ids: pulumi.Output[list[str]]
    function_security_group_id: pulumi.Output[str]
    warehouse_security_group_id: pulumi.Output[str]
    alarm_topic_arn: pulumi.Output[str]
    key_arn: pulumi.Output[str]
    """Empty without a customer key."""
    dashboard_name: pulumi.Output[str]
    """Empty without a dashboard."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LakeOutputs(UnitOutputs):
    """Where the data is."""

    unit: ClassVar[str] = "lake"

    bronze_bucket: pulumi.Output[str]
    silver_bucket: pulumi.Output[str]
    gold_bucket: pulumi.Output[str]
    artifacts_bucket: pulumi.Output[str]
    gold_database: pulumi.Output[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SecretsOutputs(UnitOutputs):
    """The secret entries."""

    unit: ClassVar[str] = "secrets"

    warehouse_login_arn: pulumi.Output[str]
    dbt_login_arn: pulumi.Output[str]
    """Empty where dbt and export have no login of their own: with sign-in by IAM, and in a warehouse that exists."""
    entries: pulumi.Output[list[str]]
    """Which secrets of the catalogue have an entry; `goldlake secrets seed` gives these their values."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarehouseOutputs(UnitOutputs):
    """How to reach the workgroup and sign in."""

    unit: ClassVar[str] = "warehouse"

    host: pulumi.Output[str]
    port: pulumi.Output[int]
    database: pulumi.Output[str]
    namespace_name: pulumi.Output[str]
    workgroup_name: pulumi.Output[str]
    workgroup_arn: pulumi.Output[str]
    login_arn: pulumi.Output[str]
    """The secret with the admin's login; empty when the namespace has no password."""
    login_owner: pulumi.Output[str]
    """Who puts the admin's password into its secret: pulumi, aws, or seed."""
    dbt_login_arn: pulumi.Output[str]
    """The secret with the login of dbt and export; empty with sign-in by IAM."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformOutputs(UnitOutputs):
    """The functions of the pipeline's steps, and the warehouse that they work on."""

    unit: ClassVar[str] = "transform"

    warehouse_host: pulumi.Output[str]
    warehouse_port: pulumi.Output[int]
    warehouse_database: pulumi.Output[str]
    warehouse_login_arn: pulumi.Output[str]
    warehouse_login_owner: pulumi.Output[str]

    check_arn: pulumi.Output[str]
    build_arn: pulumi.Output[str]
    """Of the alias that the pipeline calls."""
    export_arn: pulumi.Output[str]
    register_arn: pulumi.Output[str]
    dead_letter_queue_arn: pulumi.Output[str]
    """Where calls of the dbt runner and starts of the pipeline end that failed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineOutputs(UnitOutputs):
    """How to start the pipeline."""

    unit: ClassVar[str] = "pipeline"

    state_machine_arn: pulumi.Output[str]
    schedule_name: pulumi.Output[str]


OUTPUTS: tuple[type[UnitOutputs], ...] = (
    StateOutputs,
    FoundationOutputs,
    LakeOutputs,
    SecretsOutputs,
    WarehouseOutputs,
    TransformOutputs,
    PipelineOutputs,
)


def required_login(arn: pulumi.Output[str], unit: str) -> pulumi.Output[str]:
    """Return the entry with dbt's login, given by a unit.

    A preview or deployment fails with ConfigurationError where that unit was deployed, maybe in another stack, for
    functions that sign in by IAM.
    """

    def check(found: str) -> str:
        if not found:
            raise ConfigurationError(
                f"unit {unit} was deployed without a login for dbt: set goldlake:signIn to password in its stack, too"
            )
        return found

    return arn.apply(check)
