"""The rules as policies of the Pulumi engine (CrossGuard). Runs in an environment of its own: requirements.txt.

Exemptions are read from the stack's own file, Pulumi.<stack>.yaml beside this folder: the engine tells a pack
neither the stack's configuration nor its name, but each resource's URN begins with it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from policies.exemptions import Exemption, Violation, judge, parse
from policies.model import UNKNOWN, Resource, Rule
from policies.registry import RULES

PROJECT = Path(__file__).resolve().parents[1]
KEY = "goldlake:policyExemptions"
LEVELS = {"error": EnforcementLevel.MANDATORY, "warning": EnforcementLevel.ADVISORY}
SEVERITIES = {"error": Severity.HIGH, "warning": Severity.LOW}


def policies() -> list[Policy]:
    """Return a policy for each rule: those that see the whole stack are asked once all resources are registered."""
    return [_over_the_stack(rule) if rule.whole_stack else _over_each(rule) for rule in RULES]


def _over_each(rule: Rule) -> Policy:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        resource = _resource(args)
        for violation in _judged(rule, [resource]):
            report(_words(violation), None)

    return ResourceValidationPolicy(**_told(rule), validate=validate)


def _over_the_stack(rule: Rule) -> Policy:
    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        resources = [_resource(found, _sources(found)) for found in args.resources]
        for violation in _judged(rule, resources):
            report(_words(violation), violation.urn)

    return StackValidationPolicy(**_told(rule), validate=validate)


def _told(rule: Rule) -> dict[str, Any]:
    return {
        "name": rule.id,
        "description": f"{rule.title} ({rule.source}).",
        "enforcement_level": LEVELS[rule.severity],
        "severity": SEVERITIES[rule.severity],
        "remediation_steps": rule.remediation,
    }


def _judged(rule: Rule, resources: Sequence[Resource]) -> Sequence[Violation]:
    if not resources:
        return ()
    today = datetime.now(UTC).date()
    return judge(resources, exemptions_of(resources[0].stack), today, [rule]).violations


def _words(violation: Violation) -> str:
    return f"{violation.resource} {violation.message}. {violation.remediation}"


@functools.cache
def exemptions_of(stack: str, project: Path = PROJECT) -> tuple[Exemption, ...]:
    """Return the exemptions in a stack's file; none where there is no file. Raises ValueError for a wrong one."""
    path = project / f"Pulumi.{stack}.yaml"
    if not path.is_file():
        return ()
    settings = (yaml.safe_load(path.read_text()) or {}).get("config") or {}
    return parse(settings.get(KEY) or ())


def _resource(
    found: ResourceValidationArgs | PolicyResource, uses: Mapping[str, frozenset[str]] | None = None
) -> Resource:
    return Resource(
        type=found.resource_type,
        name=found.name,
        inputs=plain(found.props),
        protect=bool(found.opts.protect),
        urn=found.urn,
        uses=uses or {},
    )


def _sources(found: PolicyResource) -> dict[str, frozenset[str]]:
    return {name: frozenset(used.urn for used in given) for name, given in found.property_dependencies.items()}


def plain(value: Any) -> Any:
    """Return inputs as plain dicts and lists, with UNKNOWN for what is not known.

    The SDK's own views raise an error at the first unknown value: a rule would say nothing at all then.
    """
    if isinstance(value, Mapping):
        return {key: _known(functools.partial(value.__getitem__, key)) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_known(functools.partial(value.__getitem__, index)) for index in range(len(value))]
    return value


def _known(read: Callable[[], Any]) -> Any:
    try:
        return plain(read())
    except UnknownValueError:
        return UNKNOWN
