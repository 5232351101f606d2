"""The rules of policies/ over what a stack registers: no engine, no account."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from local.inprocess import stack_configuration
from local.recording import Registered, record_stack
from policies.exemptions import Exempted, Exemption, Violation, judge, parse
from policies.model import Resource, Rule
from policies.registry import RULES, by_id
from runtime.errors import ConfigurationError
from stacks.settings import NAMESPACE

SETTING = "policyExemptions"
UNUSED = "exemption-unused"
"""Said of an exemption in the settings that nothing needs; no rule of its own."""


@dataclass(frozen=True, kw_only=True)
class PolicyReport:
    """What the rules say about the resources of a stack."""

    violations: tuple[Violation, ...]
    """Errors first; with what is said of exemptions that nothing needs."""
    exempted: tuple[Exempted, ...]
    rules_checked: int
    resources_checked: int

    @property
    def errors(self) -> tuple[Violation, ...]:
        """Those that must not be deployed."""
        return tuple(found for found in self.violations if found.severity == "error")

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON output."""
        return {
            "rules_checked": self.rules_checked,
            "resources_checked": self.resources_checked,
            "errors": len(self.errors),
            "warnings": len(self.violations) - len(self.errors),
            "violations": [_shown(found) for found in self.violations],
            "exempted": [
                {**_shown(found.violation), "reason": found.exemption.reason, "until": found.exemption.until}
                for found in self.exempted
            ],
        }


def _shown(violation: Violation) -> dict[str, str]:
    return {name: value for name, value in vars(violation).items() if name != "urn"}


def evaluate(
    resources: Sequence[Registered],
    exemptions: Sequence[Exemption] = (),
    today: date | None = None,
    *,
    rules: Sequence[Rule] = RULES,
) -> PolicyReport:
    """Return what the rules say about resources, and which exemptions they needed.

    `exemptions` are those of the stack's settings (`exemptions_of`); the program's own always hold. An exemption that
    has ended by `today` (UTC's day if None) covers nothing, and the violation says so.
    """
    seen = [resource_of(found) for found in resources if found.custom]
    judged = judge(seen, exemptions, today or datetime.now(UTC).date(), rules)
    violations = [*judged.violations, *map(_unused, judged.unused)]
    return PolicyReport(
        violations=tuple(sorted(violations, key=lambda found: (found.severity, found.rule, found.resource))),
        exempted=judged.exempted,
        rules_checked=len(rules),
        resources_checked=len(seen),
    )


def _unused(exemption: Exemption) -> Violation:
    return Violation(
        rule=UNUSED,
        severity="warning",
        resource=exemption.resource,
        type="",
        message=f"is exempted from {exemption.rule} and does not break it",
        remediation=f"Take the exemption out of {NAMESPACE}:{SETTING}.",
    )


def resource_of(registered: Registered) -> Resource:
    """Return a registered resource as the rules know it."""
    uses: dict[str, set[str]] = {}
    for urn, names in registered.dependencies.items():
        for name in names:
            uses.setdefault(name, set()).add(urn)
    return Resource(
        type=registered.type,
        name=registered.name,
        inputs=registered.inputs,
        protect=registered.protect,
        urn=registered.urn,
        uses={name: frozenset(urns) for name, urns in uses.items()},
        secret_inputs=registered.secret_inputs,
    )


def exemptions_of(configuration: Mapping[str, str]) -> tuple[Exemption, ...]:
    """Return the exemptions of a stack's configuration. Raises ConfigurationError for one that cannot be used."""
    key = f"{NAMESPACE}:{SETTING}"
    try:
        return parse(json.loads(configuration.get(key, "[]")))
    except ValueError as error:
        raise ConfigurationError(f"{key}: {error}") from error


def chosen(ids: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules of these ids, all of them for none. Raises ConfigurationError for one that there is not."""
    known = by_id()
    wanted = list(dict.fromkeys(ids))
    unknown = [found for found in wanted if found not in known]
    if unknown:
        raise ConfigurationError(f"there is no rule {', '.join(unknown)}", hint="goldlake policy --list")
    return tuple(known[found] for found in wanted) or RULES


def check_stack(project_dir: Path, stack: str, rules: Sequence[Rule] = RULES) -> PolicyReport:
    """Return what the rules say about all that a stack registers.

    Raises ConfigurationError for a stack without a file, and for settings or exemptions that cannot be used.
    """
    exemptions = exemptions_of(stack_configuration(project_dir, stack, {}))
    return evaluate(record_stack(project_dir, stack).resources, exemptions, rules=rules)
