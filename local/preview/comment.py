"""The parts of a pull request's comment that other commands know: the policies and the cost, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from local.cost import Estimate, estimate, usage_of
from local.cost.stack import settings_of
from local.inprocess import stack_configuration
from local.policy import evaluate, exemptions_of
from local.preview.preview import Preview
from local.preview.show import cell
from policies.exemptions import Violation

# Below this a difference is rounding.
_CENT = 0.005


def sections(project_dir: Path, preview: Preview) -> list[str]:
    """Return what the rules say about a stack, and what the change costs a month.

    The snapshot before is judged by the same rules and priced with the same usage: the difference is the change's.
    """
    before = preview.before.registered() if preview.before else None
    exemptions = exemptions_of(stack_configuration(project_dir, preview.stack, {}))
    now = evaluate(preview.resources, exemptions)
    known = set(map(_same, evaluate(before, exemptions).violations)) if before is not None else set()
    usage = usage_of(settings_of(project_dir, preview.stack))
    priced = estimate(before, usage) if before is not None else None
    return [
        policies(now.violations, known, now.rules_checked, len(now.exempted)),
        cost(estimate(preview.resources, usage), priced),
    ]


def policies(violations: Sequence[Violation], known: set[tuple[str, str, str]], rules: int, exempted: int) -> str:
    """Return the policies' part: what is violated, what is new marked; `known` are those of the base."""
    excused = f", {exempted} exempted" if exempted else ""
    if not violations:
        return f"**Policies**: {rules} rules, nothing violated{excused}."
    rows = [
        f"| {found.severity} | {found.rule} | `{found.resource}` | {'' if _same(found) in known else '**new**: '}"
        f"{cell(found.message)} | {cell(found.remediation)} |"
        for found in violations
    ]
    head = ["| severity | rule | resource | what is wrong | what to do |", "|---|---|---|---|---|"]
    return "\n".join([f"**Policies**: {rules} rules, {len(violations)} violated{excused}.", "", *head, *rows])


def cost(after: Estimate, before: Estimate | None) -> str:
    """Return the cost's part: the estimate a month, and the difference of each unit that has one."""
    if before is None:
        return f"**Cost**: {_range(after.low, after.high)} USD a month."
    said = f"**Cost**: {_range(before.low, before.high)} => {_range(after.low, after.high)} USD a month"
    old, new = before.by_unit(), after.by_unit()
    rows = []
    for unit in sorted({*old, *new}):
        ends = [(found[unit].low, found[unit].high) if unit in found else (0.0, 0.0) for found in (old, new)]
        if any(abs(ends[1][side] - ends[0][side]) >= _CENT for side in (0, 1)):
            rows.append(f"| {unit} | {_range(*ends[0])} | {_range(*ends[1])} |")
    if not rows:
        return f"**Cost**: {_range(after.low, after.high)} USD a month, as before."
    return "\n".join([f"{said}.", "", "| unit | before | after |", "|---|---|---|", *rows])


def _range(low: float, high: float) -> str:
    return f"{low:.2f} to {high:.2f}"


def _same(found: Violation) -> tuple[str, str, str]:
    return found.rule, found.type, found.resource
