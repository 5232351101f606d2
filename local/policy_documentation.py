"""The tables of docs/policies.md, made of the rules."""

from __future__ import annotations

from local.pages import markdown_table
from policies.exemptions import STANDING
from policies.identity import WITHOUT_RESOURCE
from policies.registry import RULES

PAGE = "docs/policies.md"


def texts() -> dict[str, dict[str, str]]:
    """Return what stands between the markers of the page: page -> marker -> text."""
    reasons: dict[str, list[str]] = {}
    for action, reason in WITHOUT_RESOURCE.items():
        reasons.setdefault(reason, []).append(f"`{action}`")
    return {
        PAGE: {
            "rules": markdown_table(
                ("rule", "severity", "what it wants", "what to do", "source"),
                [(f"`{rule.id}`", rule.severity, rule.title, rule.remediation, rule.source) for rule in RULES],
            ),
            "exemptions": markdown_table(
                ("rule", "resource", "stack", "because"),
                [
                    (
                        f"`{found.rule}`",
                        f"`{found.resource}`",
                        "all" if found.stack == "*" else found.stack,
                        found.reason,
                    )
                    for found in STANDING
                ],
            ),
            "wildcards": markdown_table(
                ("actions on `*`", "because"), [(", ".join(actions), reason) for reason, actions in reasons.items()]
            ),
        }
    }
