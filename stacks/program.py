"""Which units a stack holds, in which order, and what each is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import pulumi

from runtime.errors import ConfigurationError
from stacks import foundation, lake, pipeline, secrets, transform
from stacks.outputs import (
    FoundationOutputs,
    LakeOutputs,
    SecretsOutputs,
    TransformOutputs,
    UnitOutputs,
)
from stacks.settings import UNITS, Settings

# The units whose outputs a unit is given.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "foundation": (),
    "lake": (),
    "secrets": (),
    "transform": ("foundation", "lake", "secrets"),
    "pipeline": ("transform",),
}

_Outputs = TypeVar("_Outputs", bound=UnitOutputs)


def deploy(settings: Settings) -> dict[str, pulumi.Output[Any]]:
    """Register the resources of all units of this stack and return the stack's outputs.

    Raises ConfigurationError before the first resource when a unit's needs are not in the stack, or when the layers
    have not been built.
    """
    _require_needs(settings)
    artifacts = transform.find_artifacts(settings) if "transform" in settings.units else None
    done: dict[str, UnitOutputs] = {}

    def of(kind: type[_Outputs]) -> _Outputs:
        return cast("_Outputs", done[kind.unit])

    for unit in (unit for unit in UNITS if unit in settings.units):
        match unit:
            case "foundation":
                done[unit] = foundation.deploy(settings)
            case "lake":
                done[unit] = lake.deploy(settings)
            case "secrets":
                done[unit] = secrets.deploy(settings)
            case "transform":
                assert artifacts is not None  # noqa: S101 - found above, before the first resource
                done[unit] = transform.deploy(
                    settings,
                    transform.Inputs(
                        artifacts=artifacts,
                        foundation=of(FoundationOutputs),
                        lake=of(LakeOutputs),
                        secrets=of(SecretsOutputs),
                    ),
                )
            case "pipeline":
                done[unit] = pipeline.deploy(settings, pipeline.Inputs(transform=of(TransformOutputs)))
    return {name: value for outputs in done.values() for name, value in outputs.exports().items()}


def _require_needs(settings: Settings) -> None:
    missing = [f"{unit} needs {need}" for unit in settings.units for need in NEEDS[unit] if need not in settings.units]
    if missing:
        raise ConfigurationError(
            f"stack {settings.stack!r} lacks units: {'; '.join(missing)}. Add them to goldlake:units"
        )
