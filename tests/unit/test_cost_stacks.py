"""What the stacks cost, the command, and the pages made of it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from local.cost import estimate, report
from local.cost.documentation import DEFAULTS, texts
from local.cost.prices import table
from local.cost.rules import RULES
from local.cost.savings import CHANGES, Change, savings
from local.cost.stack import StackCost, cost_of
from local.pages import filled
from runtime.cli import app

ROOT = Path(__file__).parents[2]
# With every part that a setting can add.
EVERYTHING: Mapping[str, str] = {
    "units": '["state", "foundation", "lake", "secrets", "warehouse", "transform", "pipeline"]',
    "natGateways": "per-zone",
    "signIn": "password",
    "adminPassword": "generated",
    "rotateLoginDays": "30",
    "stateCustomerKey": "true",
    "lakeInventory": "true",
    "snapshotDays": "7",
    "alarmEmails": '["on-call@example.com"]',
    "dashboard": "true",
    "functionAlarms": '["errors", "throttles", "duration"]',
}


@functools.cache
def cost(stack: str, overrides: frozenset[tuple[str, str]] = frozenset()) -> StackCost:
    return cost_of(ROOT, stack, overrides=dict(overrides))


def everything() -> StackCost:
    return cost("dev", frozenset(EVERYTHING.items()))


STACKS: Mapping[str, Callable[[], StackCost]] = {
    "dev": lambda: cost("dev"),
    "localstack": lambda: cost("localstack"),
    "prod.example": lambda: cost("prod.example"),
    "everything": everything,
}


@pytest.mark.parametrize("stack", STACKS)
def test_every_type_of_every_stack_is_priced_or_free_with_a_reason(stack: str) -> None:
    found = STACKS[stack]()
    assert dict(found.estimate.unpriced) == {}
    kinds = {resource.type for resource in found.resources if resource.custom}
    assert kinds <= {*RULES, *table().free}


def test_no_type_is_in_the_table_that_no_stack_has() -> None:
    there = {resource.type for stack in STACKS.values() for resource in stack().resources}
    assert {*RULES, *table().free} <= there


@pytest.mark.parametrize("stack", STACKS)
def test_the_units_of_a_stack_add_up_and_every_charge_has_one(stack: str) -> None:
    found = STACKS[stack]()
    by_unit = found.estimate.by_unit()
    assert set(by_unit) <= set(found.settings.units)
    assert sum(ends.high for ends in by_unit.values()) == pytest.approx(found.estimate.high)
    assert found.estimate.low <= found.estimate.high


def test_one_run_of_15_minutes_a_day_costs_the_dev_stack_less_than_20_usd_with_and_without_allowances() -> None:
    found = cost("dev")
    assert (found.usage.runs_per_day.high, found.usage.run_minutes.high) == (1, 15)
    assert found.estimate.low < found.estimate.high < 20
    # 4 RPU x 0.25 h x 30.42 days x 0.375, and one endpoint in one zone.
    assert found.estimate.of_price("redshift-rpu-hour").high == pytest.approx(11.41, abs=0.005)
    assert found.estimate.of_price("endpoint-hour").high == pytest.approx(7.30)


def test_the_cheap_stack_has_the_same_functions_as_the_defaults() -> None:
    default = cost("dev", frozenset(DEFAULTS.items()))
    given_up = {r.type for r in default.resources} - {r.type for r in cost("dev").resources}
    assert given_up == {"aws:cloudwatch/dashboard:Dashboard", "goldlake:observability:Dashboard"}
    kept = {r.name for r in cost("dev").resources if r.type.endswith(":MetricAlarm")}
    assert kept == {"dbt-runner-failed-messages", "warehouse-limit-monthly-emit-metric-alarm"}
    assert any(r.name == "pipeline-bad-ends" for r in cost("dev").resources)


def test_the_usage_limit_of_dev_is_between_what_it_uses_and_twice_that() -> None:
    found = cost("dev")
    a_month = found.usage.rpu_hours(found.settings.base_capacity).high * table().days
    assert a_month < found.settings.usage_limit_hours <= 2 * a_month
    assert found.settings.max_capacity == found.settings.base_capacity == 4


@pytest.mark.parametrize(("hours", "work"), [(1.0, 45.63), (2.0, 91.25)])
def test_the_work_of_an_hour_and_of_two_is_in_the_estimate(hours: float, work: float) -> None:
    used = cost("dev").used(hours_per_day=hours).estimate
    assert used.of_price("redshift-rpu-hour").high == pytest.approx(work, abs=0.005)
    rest = cost("dev").estimate.high - cost("dev").estimate.of_price("redshift-rpu-hour").high
    assert used.high - used.of_price("redshift-rpu-hour").high == pytest.approx(rest)


# What the changes are tried on: a stack in which all of them save something, and texts of their settings.
OVERRIDES: Mapping[str, Mapping[str, str]] = {
    "baseCapacity": {"baseCapacity": "4"},
    "natGateways": {"natGateways": "none"},
    "endpointZones": {"endpointZones": "1"},
    "dashboard": {"dashboard": "false"},
    "functionAlarms": {"functionAlarms": "[]"},
    "customerKey": {"customerKey": "false"},
    "flowLogs": {"flowLogs": "false"},
    "dbtMemoryMb, taskMemoryMb": {"dbtMemoryMb": "512", "taskMemoryMb": "512"},
    "snapshotDays": {"snapshotDays": "0"},
    "lakeInventory": {"lakeInventory": "false"},
}
DEAR = frozenset({"natGateways": "per-zone"}.items())


TRIED = [change for change in CHANGES if change.setting in OVERRIDES]


def test_changes_tried_on_the_resources_are_what_the_settings_do() -> None:
    """All at once, price by price: each of them moves prices that the others leave alone, or their sum."""
    present = cost("prod.example", DEAR)
    resources, usage = present.resources, present.usage
    for change in TRIED:
        resources, usage = list(change.resources(resources)), change.usage(usage)
    together = {key: value for overrides in OVERRIDES.values() for key, value in overrides.items()}
    real = cost("prod.example", frozenset(together.items())).estimate.by_price()
    tried = estimate(resources, usage).by_price()
    assert tried.keys() == real.keys()
    for price, ends in tried.items():
        assert (ends.low, ends.high) == pytest.approx((real[price].low, real[price].high)), price


@pytest.mark.parametrize("change", TRIED, ids=lambda change: change.setting)
def test_each_change_saves_something_where_its_setting_is_dear(change: Change) -> None:
    present = cost("prod.example", DEAR)
    assert change.wanted(present.settings)
    assert estimate(change.resources(present.resources), change.usage(present.usage)).high < present.estimate.high


def test_every_change_of_a_setting_is_tried() -> None:
    assert {c.setting for c in CHANGES} - set(OVERRIDES) == {"scheduleExpression", "usage"}


def test_savings_begin_with_the_largest_and_leave_out_what_saves_nothing() -> None:
    present = cost("prod.example", DEAR)
    found = savings(present.resources, present.settings, present.usage, present.estimate)
    amounts = [saving.high for saving in found]
    assert amounts == sorted(amounts, reverse=True)
    # Three NAT gateways and their addresses: 3 x 730 h x (0.045 + 0.005), and what goes out.
    (nat,) = [saving for saving in found if saving.change.setting == "natGateways"]
    assert nat.low == pytest.approx(109.50)
    assert not [s for s in cost("dev").savings() if s.change.setting in ("natGateways", "dashboard", "baseCapacity")]


def test_4_rpu_are_not_offered_in_a_region_that_has_none() -> None:
    frankfurt = cost("prod.example").settings.model_copy(update={"region": "eu-central-1"})
    (smaller,) = [change for change in CHANGES if change.setting == "baseCapacity"]
    assert smaller.wanted(cost("prod.example").settings)
    assert not smaller.wanted(frankfurt)


def test_the_early_estimate_stands_beside_the_right_one() -> None:
    rows = {row[0]: row for row in report.reference_rows()}
    assert rows["warehouse"][1:3] == ("20.00 to 30.00", "91.25 to 182.50")
    assert rows["warehouse"][3].startswith("8 RPU x 1 h x 30.42 days x 0.375 = 91.25")
    assert rows["together"][1:3] == ("28.00 to 46.00", "98.55 to 198.10")
    # 20 / (8 x 0.375 x 30.42) = 0.219 h.
    assert "13 to 20 minutes a day at 8 RPU" in report.reference_words()


def test_what_is_not_priced_is_said_in_words_and_in_json() -> None:
    present = cost("dev")
    stranger = next(resource for resource in present.resources if resource.custom)
    strange = [*present.resources, type(stranger)(**{**vars(stranger), "type": "aws:mq/broker:Broker"})]
    found = StackCost("dev", present.settings, strange, present.usage, estimate(strange, present.usage))
    assert "NOT PRICED, and not in the sums: aws:mq/broker:Broker (1)." in report.assumptions(found)
    assert report.to_dict(found)["unpriced"] == {"aws:mq/broker:Broker": 1}


# --- pages ---


def test_the_pages_are_made_of_the_estimate_as_it_is() -> None:
    for name, parts in texts(ROOT).items():
        page = (ROOT / name).read_text()
        assert filled(page, parts) == page, f"{name} is out of date: run `make docs`"


# --- the command ---


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `goldlake cost` in the project's folder."""
    monkeypatch.chdir(ROOT)

    def goldlake(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            app(["cost", *arguments], prog_name="goldlake")
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return goldlake


def test_the_command_shows_units_other_hours_savings_and_the_early_estimate(
    run: Callable[..., tuple[int, str, str]],
) -> None:
    code, out, _ = run("--stack", "dev", "--explain")
    assert code == 0
    for said in ("together", "2 h a day", "scheduleExpression", "91.25 to 182.50", "0.375 per RPU-hour"):
        assert said in out


def test_json_has_the_same_sums_as_its_parts(run: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = run("--stack", "dev", "--output", "json", "--rpu-hours", "1.5")
    found = json.loads(out)
    assert found["schema"] == "goldlake.cost/1"
    assert found["rpu_hours_per_day"] == {"low": 1.5, "high": 1.5}
    assert sum(unit["high"] for unit in found["units"].values()) == pytest.approx(found["high"], abs=0.01)
    assert sum(charge["low"] for charge in found["charges"]) == pytest.approx(found["low"], abs=0.01)


def test_markdown_is_tables(run: Callable[..., tuple[int, str, str]]) -> None:
    _, out, _ = run("--stack", "dev", "--format", "markdown")
    assert "| unit | low | high | what drives it |\n| --- | --- | --- | --- |" in out


@pytest.mark.parametrize("wrong", ["-1", "10000", "nan", "many"])
def test_impossible_rpu_hours_are_one_clear_message(wrong: str, run: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = run("--rpu-hours", wrong)
    assert (code, out) == (64, "")
    assert len(err.splitlines()) <= 2
    assert wrong in err


def test_a_stack_without_a_file_is_refused(run: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = run("--stack", "nowhere")
    assert code == 64
    assert "stack 'nowhere' has no Pulumi.nowhere.yaml" in err
