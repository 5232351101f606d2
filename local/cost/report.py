"""The estimate as people and programs read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from local.cost.estimate import Charge, Estimate
from local.cost.prices import BASE_REGION, Price, table
from local.cost.stack import StackCost
from local.cost.usage import Range
from local.pages import markdown_table
from stacks.settings import USAGE

SCHEMA = "goldlake.cost/1"
HOURS_TO_SHOW = (1.0, 2.0)
# A part of a unit's cost that is less than this is not what drives it.
_DRIVES = 0.05
# An early estimate of this system that went round: 8 RPU at 1 to 2 hours a day. USD a month.
REFERENCE_CAPACITY = 8
REFERENCE_HOURS = (1.0, 2.0)
REFERENCE = {"warehouse": (20.0, 30.0), "endpoints": (7.0, 15.0), "Lambda": (1.0, 1.0)}
REFERENCE_SAID = (28.0, 46.0)

Rows = list[tuple[str, ...]]
UNIT_COLUMNS = ("unit", "low", "high", "what drives it")
SAVING_COLUMNS = ("setting", "to", "saves a month", "and gives up")
LINE_COLUMNS = ("unit", "what", "units a month", "price of a unit", "free units", "USD a month")
REFERENCE_COLUMNS = ("part", "estimate that went round", "right", "arithmetic")


def money(found: Range) -> str:
    """Return an amount or a range of USD."""
    low, high = f"{found.low:,.2f}", f"{found.high:,.2f}"
    return low if low == high else f"{low} to {high}"


def _ends(found: Estimate) -> Range:
    return Range(found.low, found.high)


def unit_rows(found: Estimate) -> Rows:
    """Return a row for each unit, and the sum."""
    rows: Rows = [
        (unit, f"{ends.low:,.2f}", f"{ends.high:,.2f}", drivers(found, unit)) for unit, ends in found.by_unit().items()
    ]
    return [*rows, ("together", f"{found.low:,.2f}", f"{found.high:,.2f}", "")]


def drivers(found: Estimate, unit: str) -> str:
    """Return what a unit's cost is made of, for the most part."""
    high = found.by_unit()[unit].high
    words = []
    for price, ends in found.by_price(unit).items():
        if ends.high >= _DRIVES * high and ends.high >= 0.005:
            charges = [charge for charge in found.charges if (charge.unit, charge.price) == (unit, price)]
            words.append(f"{_together(charges)} {money(ends)}")
    return "; ".join(words[:3]) or "next to nothing"


def _together(charges: Sequence[Charge]) -> str:
    first = max(charges, key=lambda charge: charge.high)
    return first.what if len(charges) == 1 else f"{first.what} and {len(charges) - 1} more"


def saving_rows(cost: StackCost) -> Rows:
    """Return what to switch to pay less."""
    return [(s.change.setting, s.change.value, money(Range(s.low, s.high)), s.change.price) for s in cost.savings()]


def hour_rows(cost: StackCost) -> Rows:
    """Return the cost with the warehouse at work for some hours a day."""
    rows: Rows = []
    for hours in HOURS_TO_SHOW:
        used = cost.used(hours_per_day=hours)
        ends = used.estimate
        rows.append((f"{hours:g} h a day", f"{ends.low:,.2f}", f"{ends.high:,.2f}", compute(used, hours)))
    return rows


def compute(cost: StackCost, hours: float) -> str:
    """Return the arithmetic of the warehouse's work of some hours a day."""
    capacity, usd = cost.settings.base_capacity, _rpu_hour().of(cost.usage.region)
    worth = money(cost.estimate.of_price("redshift-rpu-hour"))
    return f"{capacity} RPU x {hours:g} h x {table().days:.2f} days x {usd:g} = {worth}"


def _rpu_hour() -> Price:
    return table().prices["redshift-rpu-hour"]


def line_rows(found: Estimate) -> Rows:
    """Return every charge that is not nothing."""
    rows: Rows = []
    for charge in sorted(found.charges, key=lambda c: -c.high):
        price = table().prices[charge.price]
        if charge.high >= 0.005:
            units = _units(charge.units)
            each = f"{price.of(found.region):.10g} per {price.unit}"
            rows.append(
                (charge.unit, charge.what, units, each, f"{price.free:g}", money(Range(charge.low, charge.high)))
            )
    return rows


def _units(found: Range) -> str:
    low, high = f"{found.low:.4g}", f"{found.high:.4g}"
    return low if low == high else f"{low} to {high}"


def reference_rows() -> Rows:
    """Return the early estimate beside the right one, at the same use."""
    prices, days, hours = table().prices, table().days, table().hours
    rpu, zone = prices["redshift-rpu-hour"].of(BASE_REGION), prices["endpoint-hour"].of(BASE_REGION)
    least, most = REFERENCE_HOURS
    worth = Range(least, most) * (REFERENCE_CAPACITY * rpu * days)
    zones = Range(1.0, 2.0) * (zone * hours)
    functions = Range(0.0, 1.0)
    said = {part: money(Range(*ends)) for part, ends in REFERENCE.items()}
    return [
        (
            "warehouse",
            said["warehouse"],
            money(worth),
            f"{REFERENCE_CAPACITY} RPU x {least:g} h x {days:.2f} days x {rpu:g} = {worth.low:.2f}; {most:g} h: twice",
        ),
        ("endpoints", said["endpoints"], money(zones), f"{zone:g} x {hours:g} h = {zones.low:.2f} for each zone"),
        ("Lambda", said["Lambda"], money(functions), "nothing within the free allowance"),
        ("together", money(Range(*REFERENCE_SAID)), money(worth + zones + functions), ""),
    ]


def reference_words() -> str:
    """Return what the early estimate's money buys."""
    a_minute = REFERENCE_CAPACITY * _rpu_hour().of(BASE_REGION) * table().days / 60
    low, high = (round(usd / a_minute) for usd in REFERENCE["warehouse"])
    return (
        f"20 to 30 USD pay for {low} to {high} minutes a day at {REFERENCE_CAPACITY} RPU, "
        f"or {2 * low} to {2 * high} at 4, not for 1 to 2 hours."
    )


def assumptions(cost: StackCost) -> list[str]:
    """Return what the estimate rests on, as sentences."""
    usage, found = cost.usage, cost.estimate
    capacity = cost.settings.base_capacity
    words = []
    if any(charge.price == "redshift-rpu-hour" for charge in found.charges):
        hours = usage.rpu_hours(capacity)
        words.append(
            f"RPU-hours a day: {_units(hours)}, which is {_units(hours * (60 / capacity))} minutes "
            f"at the base capacity of {capacity} RPU."
        )
    guessed = [name for name in USAGE if name not in cost.settings.usage and name != "runsPerDay" and USAGE[name].guess]
    if guessed:
        words.append(f"Guessed, from half to twice: {', '.join(guessed)}. The setting usage says better.")
    words.append(
        "Low: the account's monthly free allowances are all this stack's. High: list prices from the first unit on."
    )
    if found.elsewhere:
        services = sorted({table().prices[key].service for key in found.elsewhere})
        words.append(
            f"Priced as {BASE_REGION}, because {found.region}'s price is not in the table: {', '.join(services)}."
        )
    if found.unpriced:
        named = ", ".join(f"{kind} ({count})" for kind, count in sorted(found.unpriced.items()))
        words.append(f"NOT PRICED, and not in the sums: {named}.")
    return words


def to_dict(cost: StackCost) -> dict[str, Any]:
    """Return the estimate for JSON output."""
    found = cost.estimate
    rpu_hours = cost.usage.rpu_hours(cost.settings.base_capacity)
    return {
        "schema": SCHEMA,
        "stack": cost.stack,
        "region": found.region,
        "currency": "USD",
        "rpu_hours_per_day": vars(rpu_hours),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "units": {unit: _rounded(ends) for unit, ends in found.by_unit().items()},
        "charges": [
            {
                "unit": charge.unit,
                "resource": charge.resource,
                "price": charge.price,
                "what": charge.what,
                "units": vars(charge.units),
                "low": round(charge.low, 4),
                "high": round(charge.high, 4),
            }
            for charge in found.charges
        ],
        "savings": [
            {"setting": s.change.setting, "value": s.change.value, "low": round(s.low, 2), "high": round(s.high, 2)}
            for s in cost.savings()
        ],
        "unpriced": dict(found.unpriced),
        "free": dict(found.free),
        "priced_elsewhere": list(found.elsewhere),
    }


def _rounded(ends: Range) -> dict[str, float]:
    return {"low": round(ends.low, 4), "high": round(ends.high, 4)}


def markdown(cost: StackCost) -> str:
    """Return the estimate in markdown, for a comment or a page."""
    found = cost.estimate
    blocks = [
        f"**{cost.stack}** ({found.region}): {money(_ends(found))} USD a month",
        markdown_table(UNIT_COLUMNS, unit_rows(found)),
        "\n".join(f"* {words}" for words in assumptions(cost)),
    ]
    rows = saving_rows(cost)
    if rows:
        blocks.append(markdown_table(SAVING_COLUMNS, rows))
    return "\n\n".join(blocks)
