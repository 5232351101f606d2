"""The tables of docs/cost.md and of README.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from local.cost import report
from local.cost.prices import Price, table
from local.cost.stack import StackCost, cost_of
from local.pages import markdown_table

ROOT = Path(__file__).parents[2]
PAGE = "docs/cost.md"
README = "README.md"
STACK = "dev"
# What the stack's file sets to cost less, at its default.
DEFAULTS: Mapping[str, str] = {
    "baseCapacity": "8",
    "maxCapacity": "0",
    "functionAlarms": '["errors", "throttles", "duration"]',
    "dashboard": "true",
}
OTHER_STACK = "prod.example"


def texts(root: Path = ROOT) -> dict[str, dict[str, str]]:
    """Return what stands between the markers of each page: page -> marker -> text."""
    stack = cost_of(root, STACK)
    by_unit = markdown_table(report.UNIT_COLUMNS, report.unit_rows(stack.estimate))
    return {
        README: {"cost": _hours(stack)},
        PAGE: {
            "cost": f"{_hours(stack)}\n\n{by_unit}",
            "cost-lines": markdown_table(report.LINE_COLUMNS, report.line_rows(stack.estimate)),
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
    return markdown_table(columns, rows)


def _work(cost: StackCost) -> str:
    return report.compute(cost, cost.usage.working_hours.high)


def _reference() -> str:
    return f"{markdown_table(report.REFERENCE_COLUMNS, report.reference_rows())}\n\n{report.reference_words()}"


def _prices() -> str:
    columns = ("service", "unit", "USD", "free each month", "source, read")
    rows = [
        (price.service, _unit(price), _usd(price), f"{price.free:g}" if price.free else "", _source(price))
        for price in table().prices.values()
    ]
    return markdown_table(columns, rows)


def _unit(price: Price) -> str:
    return f"{price.unit} ({price.note})" if price.note else price.unit


def _usd(price: Price) -> str:
    return "; ".join(f"{region} {usd:.10g}" for region, usd in price.usd.items())


def _source(price: Price) -> str:
    return f"[{price.source.removeprefix('https://aws.amazon.com/')}]({price.source}), {price.read.isoformat()}"


def _free() -> str:
    rows = [(f"`{kind}`", free.reason, free.source) for kind, free in sorted(table().free.items())]
    return markdown_table(("type", "why it is not billed by itself", "source"), rows)
