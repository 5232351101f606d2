"""A stack's estimate, from its file alone: no account, no engine, no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local.cost.estimate import Estimate, estimate
from local.cost.savings import Saving, savings
from local.cost.usage import Usage, usage_of
from local.inprocess import stack_configuration
from local.recording import Registered, record_stack
from stacks.settings import NAMESPACE, Settings, parse_settings


@dataclass(frozen=True)
class StackCost:
    """A stack, how it is used, and what that costs."""

    stack: str
    settings: Settings
    resources: list[Registered]
    usage: Usage
    estimate: Estimate

    def savings(self) -> list[Saving]:
        """Return what to switch to pay less."""
        return savings(self.resources, self.settings, self.usage, self.estimate)

    def used(self, *, rpu_hours_per_day: float | None = None, hours_per_day: float | None = None) -> StackCost:
        """Return the same stack with a warehouse that works so long a day."""
        usage = usage_of(self.settings, rpu_hours_per_day=rpu_hours_per_day, hours_per_day=hours_per_day)
        return StackCost(self.stack, self.settings, self.resources, usage, estimate(self.resources, usage))


def settings_of(project_dir: Path, stack: str, overrides: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a stack's file. Raises ConfigurationError for a stack without one and for bad ones."""
    own = {f"{NAMESPACE}:{key}": value for key, value in (overrides or {}).items()}
    configuration = stack_configuration(project_dir, stack, own)
    values = {
        key.removeprefix(f"{NAMESPACE}:"): value
        for key, value in configuration.items()
        if key.startswith(f"{NAMESPACE}:")
    }
    return parse_settings(values, stack=stack.removesuffix(".example"), region=configuration.get("aws:region"))


def cost_of(
    project_dir: Path,
    stack: str,
    *,
    rpu_hours_per_day: float | None = None,
    hours_per_day: float | None = None,
    overrides: Mapping[str, str] | None = None,
) -> StackCost:
    """Return what a stack costs, with a warehouse that works so long a day, or as long as the settings say.

    `overrides` replace settings of the stack's file, as texts. Raises ConfigurationError as `settings_of` and
    `usage_of` do.
    """
    settings = settings_of(project_dir, stack, overrides)
    # Before the recording: a wrong option need not wait for it.
    usage = usage_of(settings, rpu_hours_per_day=rpu_hours_per_day, hours_per_day=hours_per_day)
    resources = record_stack(project_dir, stack, settings=overrides).resources
    return StackCost(stack, settings, resources, usage, estimate(resources, usage))
