"""How a stack is used, as far as its settings tell."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass

from runtime.errors import ConfigurationError
from stacks.settings import USAGE, Settings

# A figure that nobody gave is taken from half to twice the guess.
UNKNOWN = (0.5, 2.0)
# Redshift bills at least this each time that queries begin.
LEAST_MINUTES = 1.0
_MINUTES_A_DAY = 1440.0
_RATE = re.compile(r"rate\((\d+) (minute|hour|day)s?\)")
_RATE_MINUTES = {"minute": 1.0, "hour": 60.0, "day": _MINUTES_A_DAY}
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


@dataclass(frozen=True)
class Range:
    """A figure that lies between two; the same twice when it is known."""

    low: float
    high: float

    @classmethod
    def exactly(cls, figure: float) -> Range:
        """Return a figure that is known."""
        return cls(figure, figure)

    def __add__(self, other: Range) -> Range:
        """Return the sum."""
        return Range(self.low + other.low, self.high + other.high)

    def __mul__(self, other: Range | float) -> Range:
        """Return the product with a range or a number."""
        factor = other if isinstance(other, Range) else Range.exactly(other)
        return Range(self.low * factor.low, self.high * factor.high)

    @property
    def known(self) -> bool:
        """Whether both ends are the same."""
        return self.low == self.high


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The usage profile: settings, the schedule, and guesses for the rest. Units as in `stacks.settings.USAGE`."""

    region: str
    runs_per_day: Range
    run_minutes: Range
    query_minutes: Range
    function_seconds: Range
    silver_gb: Range
    gold_gb: Range
    warehouse_gb: Range
    scanned_gb: Range
    log_mb: Range
    flow_log_mb: Range
    log_retention_days: int
    old_version_days: int
    snapshot_days: int
    rotate_login_days: int
    rpu_hours_per_day: float | None = None
    """Of the warehouse, when they are given; otherwise runs, their minutes and the base capacity make them."""
    hours_per_day: float | None = None
    """Hours a day that the warehouse works at its base capacity, when they are given."""

    @property
    def working_hours(self) -> Range:
        """Hours a day that the warehouse works."""
        if self.hours_per_day is not None:
            return Range.exactly(self.hours_per_day)
        minutes = Range(max(self.run_minutes.low, LEAST_MINUTES), max(self.run_minutes.high, LEAST_MINUTES))
        together = self.runs_per_day * minutes + self.query_minutes
        return Range(min(together.low, _MINUTES_A_DAY), min(together.high, _MINUTES_A_DAY)) * (1 / 60)

    def rpu_hours(self, base_capacity: int) -> Range:
        """Return RPU-hours a day of a workgroup."""
        if self.rpu_hours_per_day is not None:
            return Range.exactly(self.rpu_hours_per_day)
        return self.working_hours * base_capacity


def usage_of(
    settings: Settings, *, rpu_hours_per_day: float | None = None, hours_per_day: float | None = None
) -> Usage:
    """Return the usage profile of a stack.

    A figure in the setting `usage` is taken as it is, one that is not there from half to twice the guess. Raises
    ConfigurationError for RPU-hours or hours that a day does not have.
    """
    most = 24.0 * (settings.max_capacity or settings.base_capacity)
    _check("--rpu-hours", rpu_hours_per_day, most, "RPU-hours a day are possible: 24 hours of the capacity in settings")
    _check("--hours-per-day", hours_per_day, 24.0, "hours a day are possible")
    if rpu_hours_per_day is not None and hours_per_day is not None:
        raise ConfigurationError("--rpu-hours and --hours-per-day say the same in two ways: give one of them")
    return Usage(
        region=settings.region,
        runs_per_day=_runs_per_day(settings),
        run_minutes=_figure(settings, "runMinutes"),
        query_minutes=_figure(settings, "queryMinutes"),
        function_seconds=_figure(settings, "functionSeconds"),
        silver_gb=_figure(settings, "silverGb"),
        gold_gb=_figure(settings, "goldGb"),
        warehouse_gb=_figure(settings, "warehouseGb"),
        scanned_gb=_figure(settings, "scannedGb"),
        log_mb=_figure(settings, "logMb"),
        flow_log_mb=_figure(settings, "flowLogMb"),
        log_retention_days=settings.log_retention_days,
        old_version_days=settings.old_version_days,
        snapshot_days=settings.snapshot_days,
        rotate_login_days=settings.rotate_login_days,
        rpu_hours_per_day=rpu_hours_per_day,
        hours_per_day=hours_per_day,
    )


def fewer_runs(usage: Usage, factor: float) -> Usage:
    """Return the profile with another number of runs."""
    return dataclasses.replace(usage, runs_per_day=usage.runs_per_day * factor)


def _check(option: str, value: float | None, most: float, reason: str) -> None:
    if value is not None and not (math.isfinite(value) and 0 <= value <= most):
        raise ConfigurationError(f"{option} {value:g}: 0 to {most:g} {reason}")


def _figure(settings: Settings, name: str) -> Range:
    if name in settings.usage:
        return Range.exactly(settings.usage[name])
    low, high = UNKNOWN
    return Range(USAGE[name].guess * low, USAGE[name].guess * high)


def _runs_per_day(settings: Settings) -> Range:
    if "runsPerDay" in settings.usage:
        return Range.exactly(settings.usage["runsPerDay"])
    if not settings.schedule_enabled:
        return Range.exactly(0.0)
    runs = runs_per_day(settings.schedule_expression)
    return _figure(settings, "runsPerDay") if runs is None else Range.exactly(runs)


def runs_per_day(expression: str) -> float | None:
    """Return how often a schedule runs on a day, on average; None for an expression that does not say it plainly.

    The language is EventBridge Scheduler's (user guide, "Schedule types"). Plain is a rate, and a cron expression of
    minutes and hours, on every day or on some days of the week.
    """
    rate = _RATE.fullmatch(expression.strip())
    if rate:
        every = int(rate[1]) * _RATE_MINUTES[rate[2]]
        return _MINUTES_A_DAY / every if every else None
    if not re.fullmatch(r"cron\(.+\)", expression.strip()):
        # at(...): once, which is no run a month.
        return 0.0 if expression.strip().startswith("at(") else None
    fields = expression.strip()[5:-1].split()
    if len(fields) != 6:
        return None
    minutes, hours = _count(fields[0], 60), _count(fields[1], 24)
    days = _week_days(fields[4])
    if minutes is None or hours is None or days is None or fields[2] not in "*?" or fields[3] != "*":
        return None
    return minutes * hours * days / 7 if fields[5] == "*" else None


def _count(field: str, size: int) -> int | None:
    """Return how many values of 0 to `size` - 1 a field of a cron expression names; None when it is not plain."""
    if field == "*":
        return size
    step = re.fullmatch(r"(\*|\d+)/([1-9]\d*)", field)
    if step:
        return len(range(0 if step[1] == "*" else int(step[1]), size, int(step[2])))
    named: set[int] = set()
    for part in field.split(","):
        span = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if span is None or not int(span[1]) <= int(span[2] or span[1]) < size:
            return None
        named.update(range(int(span[1]), int(span[2] or span[1]) + 1))
    return len(named)


def _week_days(field: str) -> int | None:
    """Return how many days of the week a field names: 1 to 7 is Sunday to Saturday."""
    if field in ("*", "?"):
        return len(_DAYS)
    numbered = re.sub("|".join(_DAYS), lambda day: str(_DAYS.index(day[0]) + 1), field.upper())
    return _count(numbered, len(_DAYS) + 1) if "/" not in numbered and "0" not in numbered else None
