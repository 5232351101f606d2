"""The tables of docs/cost.md and of README.md: `python -m local.cost.documentation`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from local.cost import report
from local.cost.prices import Price, table
from local.cost.stack import StackCost, cost_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cost.md"
README = ROOT / "README.md"
STACK = "dev"
# What the stack's file sets to cost less, at its default.
DEFAULTS: Mapping[str, str] = {
    "baseCapacity": "8",
    "maxCapacity": "0",
    "functionAlarms": '["errors", "throttles", "duration"]',
    "dashboard": "true",
}
OTHER_STACK = "prod.example"

_END = "<!-- end -->"


def texts(root: Path = ROOT) -> dict[Path, dict[str, str]]:
    """Return what stands between the markers of each page: file -> marker -> text.

    A marker is a comment `<!-- generated: <marker> -->`, and `<!-- end -->` ends its part.
    """
    stack = cost_of(root, STACK)
    by_unit = report.markdown_table(report.UNIT_COLUMNS, report.unit_rows(stack.estimate))
    readme, page = root / README.relative_to(ROOT), root / PAGE.relative_to(ROOT)
    return {
        readme: {"cost": _hours(stack)},
        page: {
            "cost": f"{_hours(stack)}\n\n{by_unit}",
            "cost-lines": report.markdown_table(report.LINE_COLUMNS, report.line_rows(stack.estimate)),
            "cost-defaults": report.markdown(cost_of(root, STACK, overrides=DEFAULTS)),
            "cost-production": report.markdown(cost_of(root, OTHER_STACK)),
            "cost-reference": _reference(),
            "cost-prices": _prices(),
            "cost-free": _free(),
        },
    }


def _hours(cost: StackCost) -> str:
    found = cost.estimate
    rows = [
        ("one run of 15 minutes", f"{found.low:.2f}", f"{found.high:.2f}", _work(cost)),
        *report.hour_rows(cost),
    ]
    columns = ("the warehouse works", "USD a month, low", "high", "of it, the work")
    return report.markdown_table(columns, rows)


def _work(cost: StackCost) -> str:
    return report.compute(cost, cost.usage.working_hours.high)


def _reference() -> str:
    return f"{report.markdown_table(report.REFERENCE_COLUMNS, report.reference_rows())}\n\n{report.reference_words()}"


def _prices() -> str:
    columns = ("service", "unit", "USD", "free each month", "source, read")
    rows = [
        (price.service, _unit(price), _usd(price), f"{price.free:g}" if price.free else "", _source(price))
        for price in table().prices.values()
    ]
    return report.markdown_table(columns, rows)


def _unit(price: Price) -> str:
    return f"{price.unit} ({price.note})" if price.note else price.unit


def _usd(price: Price) -> str:
    return "; ".join(f"{region} {usd:.10g}" for region, usd in price.usd.items())


def _source(price: Price) -> str:
    return f"[{price.source.removeprefix('https://aws.amazon.com/')}]({price.source}), {price.read.isoformat()}"


def _free() -> str:
    rows = [(f"`{kind}`", free.reason, free.source) for kind, free in sorted(table().free.items())]
    return report.markdown_table(("type", "why it is not billed by itself", "source"), rows)


def filled(page: str, parts: Mapping[str, str]) -> str:
    """Return a page with its generated parts as they should be. Raises LookupError for a marker that is not there."""
    for marker, text in parts.items():
        begin = f"<!-- generated: {marker} -->"
        pattern = re.compile(f"{re.escape(begin)}\n.*?{re.escape(_END)}", re.DOTALL)
        if len(pattern.findall(page)) != 1:
            raise LookupError(f"{begin} … {_END} must stand once in the page")
        page = pattern.sub(lambda _, begin=begin, text=text: f"{begin}\n{text}\n{_END}", page)  # type: ignore[misc]
    return page


def main(root: Path = ROOT) -> None:
    """Write the pages."""
    for path, parts in texts(root).items():
        path.write_text(filled(path.read_text(), parts))


if __name__ == "__main__":
    main()
