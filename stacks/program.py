"""Which units a stack holds, in which order, and what each is given."""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import pulumi

from runtime.errors import ConfigurationError
from stacks import foundation, lake, pipeline, secrets, state, transform, warehouse
from stacks.outputs import (
    OUTPUTS,
    FoundationOutputs,
    LakeOutputs,
    Reference,
    SecretsOutputs,
    TransformOutputs,
    UnitOutputs,
    WarehouseOutputs,
)
from stacks.settings import Settings

_Outputs = TypeVar("_Outputs", bound=UnitOutputs)


def needs(settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the units whose outputs each unit is given, under these settings."""
    key = ("foundation",) if settings.customer_key else ()
    return {
        "state": (),
        "foundation": (),
        "lake": key,
        "secrets": key,
        "warehouse": ("foundation", "lake", "secrets"),
        "transform": ("foundation", "lake", "secrets", *(() if settings.warehouse_host else ("warehouse",))),
        "pipeline": ("foundation", "transform"),
    }


def deploy(
    settings: Settings, refer: Callable[[str], Reference] = pulumi.StackReference
) -> dict[str, pulumi.Output[Any]]:
    """Register the resources of all units of this stack and return the stack's outputs.

    Outputs of units in other stacks (`goldlake:imports`) come from what `refer` returns for a stack's name. Raises
    ConfigurationError before the first resource when a unit's needs are neither in the stack nor imported, when stacks
    would wait for each other, or when the layers have not been built.
    """
    order = plan(settings)
    artifacts = transform.find_artifacts(settings) if "transform" in settings.units else {}
    wanted = {need for unit in settings.units for need in needs(settings)[unit]} - set(settings.units)
    given = _imported(settings, wanted, refer)
    own: dict[str, UnitOutputs] = {}
    for unit in order:
        own[unit] = _deploy(unit, settings, {**given, **own}, artifacts)
    # What was imported is exported again: who reads one stack's outputs finds all that its units work with.
    return {name: value for outputs in {**given, **own}.values() for name, value in outputs.exports().items()}


def plan(settings: Settings) -> tuple[str, ...]:
    """Return the units of this stack, each after what it needs. Raises ConfigurationError as `deploy` does."""
    wanted = needs(settings)
    faults = [*_both(settings), *_missing(settings, wanted), *_waiting(settings, wanted)]
    if faults:
        raise ConfigurationError(f"the units of stack {settings.stack!r} do not fit together: {'; '.join(faults)}")
    graph = {unit: [need for need in wanted[unit] if need in settings.units] for unit in settings.units}
    return tuple(graphlib.TopologicalSorter(graph).static_order())


def _both(settings: Settings) -> Iterable[str]:
    for unit in settings.units:
        if unit in settings.imports:
            yield f"{unit} is in goldlake:units and in goldlake:imports (from {settings.imports[unit]}); it can be one"


def _missing(settings: Settings, wanted: Mapping[str, tuple[str, ...]]) -> Iterable[str]:
    there = {*settings.units, *settings.imports}
    for unit in settings.units:
        for need in wanted[unit]:
            if need not in there:
                yield (
                    f"{unit} needs {need}: add it to goldlake:units, "
                    f"or name the stack that holds it in goldlake:imports"
                )


def _waiting(settings: Settings, wanted: Mapping[str, tuple[str, ...]]) -> Iterable[str]:
    """Yield the cycles between stacks: a unit here that needs an imported one that needs a unit here."""
    for unit in settings.units:
        for need in wanted[unit]:
            back = _all_needs(need, wanted) & set(settings.units) if need in settings.imports else set()
            if back:
                yield (
                    f"{unit} needs {need} of stack {settings.imports[need]}, which needs {', '.join(sorted(back))} "
                    "of this stack: the two stacks would wait for each other"
                )


def _all_needs(unit: str, wanted: Mapping[str, tuple[str, ...]]) -> set[str]:
    return {need for direct in wanted[unit] for need in (direct, *_all_needs(direct, wanted))}


def _imported(settings: Settings, wanted: set[str], refer: Callable[[str], Reference]) -> dict[str, UnitOutputs]:
    """Return the outputs of units in other stacks; each stack is read once."""
    classes = {outputs.unit: outputs for outputs in OUTPUTS}
    references = {stack: refer(stack) for stack in sorted({settings.imports[unit] for unit in wanted})}
    return {
        unit: classes[unit].imported(references[settings.imports[unit]], settings.imports[unit])
        for unit in sorted(wanted)
    }


def _deploy(
    unit: str, settings: Settings, given: Mapping[str, UnitOutputs], artifacts: Mapping[str, Path]
) -> UnitOutputs:
    """Register one unit with what it needs of `given`."""

    def of(kind: type[_Outputs]) -> _Outputs:
        return cast("_Outputs", given[kind.unit])

    key = of(FoundationOutputs) if settings.customer_key and "foundation" in given else None
    deployments: dict[str, Callable[[], UnitOutputs]] = {
        "state": lambda: state.deploy(settings),
        "foundation": lambda: foundation.deploy(settings),
        "lake": lambda: lake.deploy(settings, lake.Inputs(foundation=key)),
        "secrets": lambda: secrets.deploy(settings, secrets.Inputs(foundation=key)),
        "warehouse": lambda: warehouse.deploy(
            settings,
            warehouse.Inputs(foundation=of(FoundationOutputs), lake=of(LakeOutputs), secrets=of(SecretsOutputs)),
        ),
        "transform": lambda: transform.deploy(
            settings,
            transform.Inputs(
                artifacts=artifacts,
                foundation=of(FoundationOutputs),
                lake=of(LakeOutputs),
                secrets=of(SecretsOutputs),
                warehouse=None if settings.warehouse_host else of(WarehouseOutputs),
            ),
        ),
        "pipeline": lambda: pipeline.deploy(
            settings, pipeline.Inputs(foundation=of(FoundationOutputs), transform=of(TransformOutputs))
        ),
    }
    return deployments[unit]()
