"""The price table of this folder: prices.yaml."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("prices.yaml")
BASE_REGION = "us-east-1"


@dataclass(frozen=True)
class Price:
    """What a unit of something costs."""

    service: str
    unit: str
    usd: Mapping[str, float]
    """By region; `BASE_REGION` is always there."""
    source: str
    read: date
    free: float = 0.0
    """Units a month that every account has free, for good."""
    note: str = ""

    def of(self, region: str) -> float:
        """Return the price in a region; that of `BASE_REGION` where the region's own is not known."""
        return self.usd.get(region, self.usd[BASE_REGION])


@dataclass(frozen=True)
class Free:
    """Why a type of resource is not billed by itself."""

    reason: str
    source: str


@dataclass(frozen=True)
class Table:
    """All prices, and the types that have none."""

    prices: Mapping[str, Price]
    free: Mapping[str, Free]
    days: float
    """Of a month."""
    hours: float


@functools.cache
def table() -> Table:
    """Return the prices."""
    found: dict[str, Any] = yaml.safe_load(TABLE.read_text())
    return Table(
        prices={key: Price(**entry) for key, entry in found["prices"].items()},
        free={key: Free(**entry) for key, entry in found["free"].items()},
        days=found["month"]["days"],
        hours=found["month"]["hours"],
    )
