"""The estimate: what each resource uses, times what it costs, less what every account has free."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from local.cost.prices import BASE_REGION, table
from local.cost.rules import RULES, Context, Part
from local.cost.usage import Range, Usage
from local.recording import Registered

# Order in tables: what is deployed first stands first.
UNITS = ("state", "foundation", "lake", "secrets", "warehouse", "transform", "pipeline")
# A component whose only resource takes no tags, and so does not say its unit.
_UNTAGGED: Mapping[str, str] = {"aws:cloudwatch/dashboard:Dashboard": "foundation"}
_NO_UNIT = "other"


@dataclass(frozen=True)
class Charge:
    """What one resource costs for one price, in USD a month."""

    unit: str
    resource: str
    price: str
    what: str
    units: Range
    low: float
    """With what is free each month, of which others in the account use nothing."""
    high: float
    """Without."""


@dataclass(frozen=True)
class Estimate:
    """What a stack costs, in USD a month.

    The low end has the account's free allowances to itself and the low end of each unknown figure; the high end has
    list prices from the first unit on, and the high end of each.
    """

    region: str
    charges: tuple[Charge, ...]
    unpriced: Mapping[str, int]
    """Types that are neither in the price table nor known to be free: how many there are. They are not in the sums."""
    free: Mapping[str, int]
    """Types that are not billed by themselves."""
    elsewhere: tuple[str, ...] = ()
    """Prices that are taken from `BASE_REGION`, because the region's own are not in the table."""

    @property
    def low(self) -> float:
        """The low end."""
        return sum(charge.low for charge in self.charges)

    @property
    def high(self) -> float:
        """The high end."""
        return sum(charge.high for charge in self.charges)

    def by_unit(self) -> dict[str, Range]:
        """Return the ends by unit, in the order of deployment."""
        found = _sums((charge.unit, charge) for charge in self.charges)
        return {unit: found[unit] for unit in (*UNITS, _NO_UNIT) if unit in found}

    def by_price(self, unit: str | None = None) -> dict[str, Range]:
        """Return the ends by price, the dearest first, of one unit or all."""
        found = _sums((c.price, c) for c in self.charges if unit is None or c.unit == unit)
        return dict(sorted(found.items(), key=lambda item: (-item[1].high, item[0])))

    def of_price(self, price: str) -> Range:
        """Return the ends of one price."""
        return self.by_price().get(price, Range.exactly(0.0))


def _sums(charges: Iterable[tuple[str, Charge]]) -> dict[str, Range]:
    sums: dict[str, Range] = {}
    for key, charge in charges:
        sums[key] = sums.get(key, Range.exactly(0.0)) + Range(charge.low, charge.high)
    return sums


def estimate(resources: Sequence[Registered], usage: Usage) -> Estimate:
    """Return what the resources cost a month, used like that."""
    context = Context(usage, resources)
    units = units_of(resources)
    parts: list[tuple[Registered, Part]] = []
    unpriced: Counter[str] = Counter()
    free: Counter[str] = Counter()
    for found in resources:
        if found.type in RULES:
            parts += [(found, part) for part in RULES[found.type](found, context)]
        elif found.type in table().free:
            free[found.type] += 1
        elif found.custom:
            unpriced[found.type] += 1
    used: defaultdict[str, float] = defaultdict(float)
    for _, part in parts:
        used[part.price] += part.units.low
    charges = tuple(_charge(found, part, units[id(found)], used[part.price], usage.region) for found, part in parts)
    prices = {charge.price for charge in charges}
    elsewhere = tuple(sorted(key for key in prices if usage.region not in table().prices[key].usd))
    return Estimate(usage.region, charges, dict(unpriced), dict(free), elsewhere if usage.region != BASE_REGION else ())


def _charge(found: Registered, part: Part, unit: str, used: float, region: str) -> Charge:
    """Return a charge; of what is free each month it has its share, by what all of the stack use."""
    price = table().prices[part.price]
    usd = price.of(region)
    billed = max(0.0, 1 - price.free / used) if used else 0.0
    return Charge(
        unit=unit,
        resource=found.name,
        price=part.price,
        what=part.what,
        units=part.units,
        low=part.units.low * usd * billed,
        high=part.units.high * usd,
    )


def units_of(resources: Sequence[Registered]) -> dict[int, str]:
    """Return each resource's unit, by `id()`: its tag Unit, or that of others in its component."""
    tagged: dict[str, str] = {}
    for found in resources:
        unit = (found.inputs.get("tags") or {}).get("Unit")
        if unit:
            tagged.setdefault(found.parent_urn, unit)
    above = {found.urn: found.parent_urn for found in resources if not found.custom}

    def unit_of(found: Registered) -> str:
        own = (found.inputs.get("tags") or {}).get("Unit") or _UNTAGGED.get(found.type)
        place = found.parent_urn
        while not own and place in above:
            own = tagged.get(place)
            place = above[place]
        return str(own or _NO_UNIT)

    return {id(found): unit_of(found) for found in resources}
