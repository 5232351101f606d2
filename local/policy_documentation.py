"""The tables of docs/policies.md, made of the rules: `python -m local.policy_documentation`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from policies.exemptions import STANDING
from policies.identity import WITHOUT_RESOURCE
from policies.registry import RULES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "policies.md"


def texts() -> dict[str, str]:
    """Return what stands between the markers of the page, by the markers' name."""
    reasons: dict[str, list[str]] = {}
    for action, reason in WITHOUT_RESOURCE.items():
        reasons.setdefault(reason, []).append(f"`{action}`")
    return {
        "rules": _table(
            ("rule", "severity", "what it wants", "what to do", "source"),
            [(f"`{rule.id}`", rule.severity, rule.title, rule.remediation, rule.source) for rule in RULES],
        ),
        "exemptions": _table(
            ("rule", "resource", "stack", "because"),
            [
                (f"`{found.rule}`", f"`{found.resource}`", "all" if found.stack == "*" else found.stack, found.reason)
                for found in STANDING
            ],
        ),
        "wildcards": _table(
            ("actions on `*`", "because"), [(", ".join(actions), reason) for reason, actions in reasons.items()]
        ),
    }


def page(text: str) -> str:
    """Return the page with its tables made anew. Raises ValueError when a marker is missing."""
    for name, made in texts().items():
        begin, end = f"<!-- generated: {name} -->", "<!-- end -->"
        before, _, rest = text.partition(begin)
        _old, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"docs/policies.md has no {begin} … {end}")
        text = f"{before}{begin}\n{made}\n{end}{after}"
    return text


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(_lines(columns, rows))


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
