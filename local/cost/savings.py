"""What to switch to pay less: each setting tried on what is registered, and estimated again.

The program is not run again for each: a change does to the resources what the setting would. A test holds the two
equal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from local.cost.estimate import Estimate, estimate
from local.cost.usage import Usage, fewer_runs
from local.recording import Registered
from stacks.settings import AGREEMENTS, Settings

Resources = Sequence[Registered]
# Less than this is not worth a line.
WORTH = 0.01
_LEAST_MEMORY = 512
_LEAST_CAPACITY = 4


@dataclass(frozen=True)
class Change:
    """A setting, its cheaper value, and what that does."""

    setting: str
    value: str
    """As it stands in the stack's file; for a change of the usage, in words."""
    price: str
    """What is given up."""
    wanted: Callable[[Settings], bool]
    """Whether the stack could be switched."""
    resources: Callable[[Resources], Resources] = lambda found: found
    usage: Callable[[Usage], Usage] = lambda found: found


@dataclass(frozen=True)
class Saving:
    """What a change saves, in USD a month."""

    change: Change
    low: float
    high: float


def _may(settings: Settings, **changed: object) -> bool:
    """Return whether the settings would be accepted with these values: 4 RPU are not in every region."""
    return all(agreement.holds(settings.model_copy(update=changed)) for agreement in AGREEMENTS)


def _without(*kinds: str, named: str = "") -> Callable[[Resources], Resources]:
    """Return a change that leaves resources of these types out, or those of them whose name has `named` in it."""
    return lambda found: [r for r in found if not (r.type.endswith(kinds) and named in r.name)]


def _with(kind: str, **inputs: object) -> Callable[[Resources], Resources]:
    """Return a change of the inputs of all resources of a type."""

    def change(found: Resources) -> Resources:
        return [dataclasses.replace(r, inputs={**r.inputs, **inputs}) if r.type.endswith(kind) else r for r in found]

    return change


def _one_zone(found: Resources) -> Resources:
    return [
        dataclasses.replace(r, inputs={**r.inputs, "subnetIds": list(r.inputs["subnetIds"])[:1]})
        if r.inputs.get("vpcEndpointType") == "Interface"
        else r
        for r in found
    ]


def _no_function_alarms(found: Resources) -> Resources:
    return [r for r in found if not (r.type.endswith(":MetricAlarm") and _of_function(r))]


def _of_function(alarm: Registered) -> bool:
    return bool(alarm.inputs.get("namespace") == "AWS/Lambda")


def _no_flow_logs(found: Resources) -> Resources:
    return [r for r in found if "flow-logs" not in r.name]


def _small_functions(found: Resources) -> Resources:
    return [
        dataclasses.replace(r, inputs={**r.inputs, "memorySize": min(_LEAST_MEMORY, r.inputs["memorySize"])})
        if r.type.endswith(":Function")
        else r
        for r in found
    ]


CHANGES: tuple[Change, ...] = (
    Change(
        "baseCapacity",
        "4",
        "speed: a run that takes longer saves less. Tables of up to 100 columns; not in every region",
        lambda s: s.base_capacity > _LEAST_CAPACITY and _may(s, base_capacity=_LEAST_CAPACITY),
        _with(":Workgroup", baseCapacity=_LEAST_CAPACITY),
    ),
    Change(
        "scheduleExpression",
        "every second day",
        "freshness",
        lambda s: True,
        usage=lambda found: fewer_runs(found, 0.5),
    ),
    Change(
        "usage",
        "runs half as long",
        "work: incremental models, fewer tests, smaller tables",
        lambda s: True,
        usage=lambda found: dataclasses.replace(found, run_minutes=found.run_minutes * 0.5),
    ),
    Change(
        "natGateways",
        "none",
        "a way out to the internet, which nothing here needs",
        lambda s: s.nat_gateways != "none",
        _without(":NatGateway", ":Eip"),
    ),
    Change(
        "endpointZones",
        "1",
        "sign-in while the endpoint's zone is lost",
        lambda s: s.endpoint_zones > 1,
        _one_zone,
    ),
    Change(
        "dashboard",
        "false",
        "charts in one place; the metrics stay",
        lambda s: s.dashboard,
        _without(":Dashboard"),
    ),
    Change(
        "functionAlarms",
        "[]",
        "the warning before a function runs out of time; failed runs are told all the same",
        lambda s: len(s.function_alarms) > 0,
        _no_function_alarms,
    ),
    Change(
        "customerKey",
        "false",
        "CloudTrail's record of who used the key; AWS's own keys encrypt all the same",
        lambda s: s.customer_key,
        _without("kms/key:Key", "kms/alias:Alias"),
    ),
    Change(
        "flowLogs",
        "false",
        "the record of connections",
        lambda s: s.flow_logs,
        _no_flow_logs,
    ),
    Change(
        "dbtMemoryMb, taskMemoryMb",
        "512",
        "speed of check, export and register",
        lambda s: max(s.dbt_memory_mb, s.task_memory_mb) > _LEAST_MEMORY,
        _small_functions,
    ),
    Change(
        "snapshotDays",
        "0",
        "going back further than the 24 hours of the recovery points",
        lambda s: s.snapshot_days > 0,
        _without(":Schedule", named="snapshot"),
        usage=lambda found: dataclasses.replace(found, snapshot_days=0),
    ),
    Change(
        "lakeInventory",
        "false",
        "the daily list of objects",
        lambda s: s.lake_inventory,
        _without(":Inventory"),
    ),
)


def savings(resources: Resources, settings: Settings, usage: Usage, present: Estimate) -> list[Saving]:
    """Return what would save something, the most first."""
    found = []
    for change in CHANGES:
        if not change.wanted(settings) or (change.usage(usage) == usage and change.resources(resources) == resources):
            continue
        changed = estimate(change.resources(resources), change.usage(usage))
        saving = Saving(change, present.low - changed.low, present.high - changed.high)
        if saving.high >= WORTH:
            found.append(saving)
    return sorted(found, key=lambda saving: (-saving.high, saving.change.setting))
