"""Prices, usage and the estimate, each held against a sum by hand."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.cost import Range, estimate, usage_of
from local.cost.prices import BASE_REGION, table
from local.cost.rules import RULES
from local.cost.usage import Usage, runs_per_day
from local.recording import Registered
from runtime.errors import EXIT_USAGE, ConfigurationError
from stacks.settings import USAGE, Settings, parse_settings

DAYS = 365 / 12


def settings(**values: object) -> Settings:
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return parse_settings({"owner": "o", "costCentre": "c", **texts}, stack="dev", region="us-east-1")


def usage(region: str = "us-east-1", /, **figures: float) -> Usage:
    """Return a profile in which every figure is known: one run of 15 minutes a day, 1 GB of everything."""
    known = {"runsPerDay": 1.0, **dict.fromkeys(USAGE, 1.0), "runMinutes": 15.0, "queryMinutes": 0.0, **figures}
    return dataclasses.replace(usage_of(settings(usage=known)), region=region)


def resource(kind: str, name: str = "it", /, *, unit: str = "lake", **inputs: Any) -> Registered:
    return Registered(
        type=kind,
        name=name,
        inputs={"tags": {"Unit": unit}, **inputs},
        custom=True,
        protect=False,
        parent="stack",
        depends_on=frozenset(),
        urn=f"urn:{kind}::{name}",
        parent_urn="urn::stack",
    )


WORKGROUP = "aws:redshiftserverless/workgroup:Workgroup"
NAMESPACE = "aws:redshiftserverless/namespace:Namespace"
ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"
FUNCTION = "aws:lambda/function:Function"
ALARM = "aws:cloudwatch/metricAlarm:MetricAlarm"
GROUP = "aws:cloudwatch/logGroup:LogGroup"
BUCKET = "aws:s3/bucket:Bucket"
TWO_METRICS = [{"metric": {"metricName": "a"}}, {"metric": {"metricName": "b"}}, {"expression": "a+b"}]
STATES = json.dumps({"States": {name: {} for name in "abcd"}})


def by_hand(
    kind: str, price: str, low: float, high: float, /, figures: dict[str, float] | None = None, **inputs: Any
) -> Any:
    return pytest.param(kind, price, low, high, figures or {}, inputs, id=f"{price} of {kind.rsplit(':', 1)[-1]}")


@pytest.mark.parametrize(
    ("kind", "price", "low", "high", "figures", "inputs"),
    [
        # 4 RPU x 15 minutes x 30.42 days x 0.375; the same with half an hour of queries.
        by_hand(WORKGROUP, "redshift-rpu-hour", 11.406, 11.406, baseCapacity=4),
        by_hand(WORKGROUP, "redshift-rpu-hour", 34.219, 34.219, {"queryMinutes": 30}, baseCapacity=4),
        # A run that works for a second is billed for a minute: 8 x 1/60 x 30.42 x 0.375.
        by_hand(WORKGROUP, "redshift-rpu-hour", 1.5208, 1.5208, {"runMinutes": 1 / 60}, baseCapacity=8),
        by_hand(NAMESPACE, "redshift-storage", 0.24, 0.24, {"warehouseGb": 10}),
        by_hand(NAMESPACE, "secret-month", 0.0, 0.40, manageAdminPassword=True),
        # 3 zones x 730 h x 0.01.
        by_hand(ENDPOINT, "endpoint-hour", 21.90, 21.90, vpcEndpointType="Interface", subnetIds=["a", "b", "c"]),
        by_hand(ENDPOINT, "endpoint-gb", 0.0, 30.4167 * 0.001 * 0.01, vpcEndpointType="Interface", subnetIds=["a"]),
        # 730 h x 0.045; up to 1 GB.
        by_hand("aws:ec2/natGateway:NatGateway", "nat-hour", 32.85, 32.85),
        by_hand("aws:ec2/natGateway:NatGateway", "nat-gb", 0.0, 0.045),
        by_hand("aws:ec2/eip:Eip", "public-address-hour", 3.65, 3.65),
        by_hand("aws:secretsmanager/secret:Secret", "secret-month", 0.40, 0.40),
        # Ten reads a run: 304 of 10,000 for 0.05.
        by_hand("aws:secretsmanager/secret:Secret", "secret-call", 0.0, 0.00152083),
        # The key, and after two rotations three versions of it.
        by_hand("aws:kms/key:Key", "key-month", 1.00, 3.00, enableKeyRotation=True),
        # 2,000 requests a run: 60,833 a month, 0.03 for each 10,000.
        by_hand("aws:kms/key:Key", "key-call", 0.0, 0.1825),
        # 15 minutes x 30.42 runs x 0.5 GB = 13,687.5 GB-seconds, of 400,000 free.
        by_hand(
            FUNCTION, "lambda-gb-second", 0.0, 0.22813, memorySize=512, handler="lambdas.dbt_runner.handler.handle"
        ),
        # 600 runs of 15 minutes a day, at half: 4.1 million GB-seconds, less 400,000.
        by_hand(
            FUNCTION,
            "lambda-gb-second",
            (600 * DAYS * 900 * 0.5 * 0.5 - 400_000) * 0.0000166667,
            600 * DAYS * 900 * 0.5 * 0.0000166667,
            {"runsPerDay": 600},
            memorySize=512,
            handler="lambdas.dbt_runner.handler.handle",
        ),
        # Three calls a run.
        by_hand(FUNCTION, "lambda-request", 0.0, 30.4167 * 3 * 0.2e-6, handler="lambdas.check.handler.handle"),
        # 1 GB a run, out of a zone and into another.
        by_hand(FUNCTION, "zone-gb", 0.0, 0.60833, handler="lambdas.export.handler.handle"),
        by_hand(ALARM, "alarm-month", 0.0, 0.10),
        by_hand(ALARM, "alarm-month", 0.0, 0.20, metricQueries=TWO_METRICS),
        by_hand("aws:cloudwatch/dashboard:Dashboard", "dashboard-month", 0.0, 3.00),
        # 1 GB a run: 30.42 GB, of which 5 are free.
        by_hand(GROUP, "log-gb", 25.4167 * 0.5, 30.4167 * 0.5, {"logMb": 1024}, name="/aws/lambda/goldlake-check"),
        by_hand(GROUP, "log-gb", 0.0, 30.4167 / 1024 * 0.5, {"logMb": 0}, name="/aws/vpc/goldlake-network"),
        # 30.42 GB kept for 30 days, uncompressed at worst: 30 GB x 0.03.
        by_hand(GROUP, "log-gb-month", 0.0, 0.90, {"logMb": 1024}, name="/aws/lambda/goldlake-check"),
        by_hand(BUCKET, "s3-gb-month", 2.30, 2.30, {"silverGb": 100}, name="lake-silver"),
        # 1 GB, and 30 days of it as it was on each.
        by_hand(BUCKET, "s3-gb-month", 0.023, 31 * 0.023, name="lake-gold"),
        # 50 to 500 a run.
        by_hand(BUCKET, "s3-put", 30.4167 * 0.05 * 0.005, 30.4167 * 0.5 * 0.005, name="lake-gold"),
        # 1 GB a run in ranges of 8 and of 1 MB.
        by_hand(BUCKET, "s3-get", 30.4167 * 0.128 * 0.0004, 30.4167 * 1.024 * 0.0004, name="lake-silver"),
        by_hand("aws:s3/inventory:Inventory", "s3-inventory", 0.0, 3.04167 * 0.0025),
        # Four states: 122 to 365 transitions, of 4,000 free.
        by_hand("aws:sfn/stateMachine:StateMachine", "state-transition", 0.0, 0.0091250, definition=STATES),
        by_hand("aws:scheduler/schedule:Schedule", "schedule-call", 0.0, 30.4167e-6, scheduleExpression="rate(1 day)"),
        by_hand("aws:sns/topic:Topic", "topic-publish", 0.0, 100 * 0.5e-6),
        by_hand("aws:sns/topicSubscription:TopicSubscription", "topic-mail", 0.0, 0.002),
        by_hand("aws:sqs/queue:Queue", "queue-request", 0.0, 0.0004),
        by_hand("aws:glue/catalogDatabase:CatalogDatabase", "catalogue-object", 0.0, 0.0002),
        by_hand("aws:glue/catalogDatabase:CatalogDatabase", "catalogue-request", 0.0, 30.4167 * 200e-6),
        by_hand("aws:dynamodb/table:Table", "table-gb-month", 0.0, 0.0025),
        by_hand("aws:dynamodb/table:Table", "table-write", 0.0, 0.000625),
        by_hand("aws:dynamodb/table:Table", "table-backup-gb-month", 0.0, 0.002, pointInTimeRecovery={"enabled": True}),
    ],
)
def test_a_price_times_units_is_the_sum_by_hand(
    kind: str, price: str, low: float, high: float, figures: dict[str, float], inputs: dict[str, Any]
) -> None:
    # A bucket is told by its logical name, a log group by its own.
    name = inputs["name"] if kind == BUCKET else "it"
    found = estimate([resource(kind, name, **inputs)], usage(**figures)).of_price(price)
    assert found.low == pytest.approx(low, rel=1e-4)
    assert found.high == pytest.approx(high, rel=1e-4)


def test_every_price_of_the_table_has_a_sum_by_hand() -> None:
    marks = test_a_price_times_units_is_the_sum_by_hand.pytestmark
    assert {case.values[1] for mark in marks for case in mark.args[1]} == set(table().prices)


@pytest.mark.parametrize("key", table().prices)
def test_every_price_says_where_and_when_it_was_read(key: str) -> None:
    price = table().prices[key]
    assert price.source.startswith("https://aws.amazon.com/")
    assert date(2026, 1, 1) <= price.read <= date(2100, 1, 1)
    assert price.usd[BASE_REGION] > 0
    assert price.free >= 0


@pytest.mark.parametrize("kind", table().free)
def test_every_free_type_says_why_and_where_that_stands_and_is_not_priced_as_well(kind: str) -> None:
    free = table().free[kind]
    assert free.reason
    assert free.source.startswith("https://")
    assert kind not in RULES


def test_nothing_is_the_price_of_a_gateway_endpoint() -> None:
    found = estimate([resource(ENDPOINT, vpcEndpointType="Gateway")], usage())
    assert (found.high, dict(found.unpriced)) == (0, {})


def test_a_free_allowance_is_shared_by_what_uses_it_and_counts_once() -> None:
    units = ["warehouse", "transform", "transform"]
    alarms = [resource(ALARM, f"{unit}{n}", unit=unit) for n in range(5) for unit in units]
    found = estimate(alarms, usage())
    # 15 alarms, 10 of them free: 5 x 0.10, a third of it of the warehouse.
    assert found.low == pytest.approx(0.50)
    assert found.high == pytest.approx(1.50)
    assert found.by_unit()["warehouse"].low == pytest.approx(0.50 / 3)


def test_an_unknown_type_is_listed_as_not_priced_and_never_free() -> None:
    found = estimate([resource("aws:bedrock/agent:Agent", f"agent{n}") for n in range(2)], usage())
    assert dict(found.unpriced) == {"aws:bedrock/agent:Agent": 2}
    assert (found.charges, dict(found.free)) == ((), {})


def test_a_component_is_no_cost_of_its_own() -> None:
    component = dataclasses.replace(resource("goldlake:made:Up"), custom=False)
    assert dict(estimate([component], usage()).unpriced) == {}


def test_an_empty_stack_costs_nothing() -> None:
    found = estimate([], usage())
    assert (found.low, found.high, found.by_unit()) == (0, 0, {})


def test_a_region_has_its_own_price_or_says_that_it_has_none() -> None:
    resources = [resource(WORKGROUP, baseCapacity=4), resource(ALARM)]
    mumbai = estimate(resources, usage("ap-south-1"))
    assert mumbai.of_price("redshift-rpu-hour").low == pytest.approx(11.406 * 0.45 / 0.375, rel=1e-4)
    assert mumbai.elsewhere == ("alarm-month",)
    assert estimate(resources, usage()).elsewhere == ()


def test_a_resource_without_tags_is_of_its_components_unit() -> None:
    component = dataclasses.replace(resource("goldlake:x:Y", "y"), custom=False, inputs={}, urn="urn:y")
    inner = dataclasses.replace(component, name="z", urn="urn:z", parent_urn="urn:y")
    tagged = dataclasses.replace(resource(ALARM, "a", unit="warehouse"), parent_urn="urn:y")
    bare = dataclasses.replace(resource(ALARM, "b"), inputs={}, parent_urn="urn:z")
    alone = dataclasses.replace(resource(ALARM, "c"), inputs={})
    found = estimate([component, inner, tagged, bare, alone], usage())
    assert {charge.resource: charge.unit for charge in found.charges} == {
        "a": "warehouse",
        "b": "warehouse",
        "c": "other",
    }


KINDS = sorted(RULES)


@given(
    kinds=st.lists(st.sampled_from(KINDS), max_size=12),
    figures=st.fixed_dictionaries({name: st.floats(0, habit.most) for name, habit in USAGE.items()}),
    region=st.sampled_from(["us-east-1", "eu-west-1", "ap-south-1"]),
)
def test_units_prices_and_charges_add_up_and_low_is_never_above_high(
    kinds: list[str], figures: dict[str, float], region: str
) -> None:
    resources = [
        resource(kind, f"r{n}", unit=("lake", "warehouse")[n % 2], subnetIds=["a"]) for n, kind in enumerate(kinds)
    ]
    found = estimate(resources, usage(region, **figures))
    for sums in (found.by_unit(), found.by_price()):
        assert math.isclose(sum(ends.low for ends in sums.values()), found.low, abs_tol=1e-6)
        assert math.isclose(sum(ends.high for ends in sums.values()), found.high, abs_tol=1e-6)
    assert all(0 <= charge.low <= charge.high for charge in found.charges)


# --- usage ---


@pytest.mark.parametrize(
    ("expression", "runs"),
    [
        ("cron(0 5 * * ? *)", 1),
        ("cron(0 5,17 * * ? *)", 2),
        ("cron(0/15 * * * ? *)", 96),
        ("cron(*/20 8-17 * * ? *)", 30),
        ("cron(30 4 ? * MON-FRI *)", 5 / 7),
        ("cron(30 4 ? * 1,7 *)", 2 / 7),
        ("rate(1 hour)", 24),
        ("rate(2 days)", 0.5),
        ("at(2027-01-01T00:00:00)", 0),
        ("cron(0 5 1 * ? *)", None),
        ("cron(0 5 L * ? *)", None),
        ("cron(0 5 * JAN ? *)", None),
        ("cron(0 5 ? * 2#1 *)", None),
        ("cron(0 5 * * ? 2027)", None),
        ("cron(61 5 * * ? *)", None),
        ("cron(0 5 * *)", None),
        ("rate(0 days)", None),
        ("hourly", None),
    ],
)
def test_runs_a_day_are_read_from_a_plain_schedule_only(expression: str, runs: float | None) -> None:
    assert runs_per_day(expression) == (None if runs is None else pytest.approx(runs))


def test_a_figure_that_is_given_is_known_and_a_guess_is_a_range() -> None:
    found = usage_of(settings(usage={"runMinutes": 7}))
    assert found.run_minutes == Range(7, 7)
    assert found.gold_gb == Range(USAGE["goldGb"].guess / 2, USAGE["goldGb"].guess * 2)
    assert found.runs_per_day == Range(1, 1)


def test_a_schedule_that_is_off_runs_nothing_and_a_given_number_of_runs_wins() -> None:
    assert usage_of(settings(scheduleEnabled="false")).runs_per_day == Range(0, 0)
    assert usage_of(settings(scheduleEnabled="false", usage={"runsPerDay": 3})).runs_per_day == Range(3, 3)
    assert usage_of(settings(scheduleExpression="cron(0 5 1 * ? *)")).runs_per_day == Range(0.5, 2)


def test_rpu_hours_are_of_a_day_whatever_the_capacity() -> None:
    found = usage_of(settings(baseCapacity="4"), rpu_hours_per_day=1.5)
    assert estimate([resource(WORKGROUP, baseCapacity=4)], found).low == pytest.approx(1.5 * DAYS * 0.375, rel=1e-4)


def test_hours_a_day_are_at_the_base_capacity() -> None:
    found = usage_of(settings(baseCapacity="8"), hours_per_day=1)
    assert estimate([resource(WORKGROUP, baseCapacity=8)], found).low == pytest.approx(91.25, rel=1e-4)


def test_a_day_has_no_more_than_24_hours_of_work() -> None:
    assert usage(runMinutes=600, runsPerDay=10).working_hours == Range(24, 24)


@pytest.mark.parametrize(
    ("given_options", "said"),
    [
        ({"rpu_hours_per_day": -1.0}, "--rpu-hours -1: 0 to 192 RPU-hours a day are possible"),
        ({"rpu_hours_per_day": 10000.0}, "--rpu-hours 10000: 0 to 192"),
        ({"rpu_hours_per_day": math.nan}, "--rpu-hours nan: 0 to 192"),
        ({"rpu_hours_per_day": math.inf}, "--rpu-hours inf: 0 to 192"),
        ({"hours_per_day": 25.0}, "--hours-per-day 25: 0 to 24 hours a day"),
        ({"hours_per_day": 1.0, "rpu_hours_per_day": 1.0}, "give one of them"),
    ],
)
def test_hours_that_a_day_does_not_have_are_refused(given_options: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        usage_of(settings(), **given_options)
    assert said in refused.value.message
    assert refused.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize("wrong", [{"runMinute": 5}, {"runMinutes": -1}, {"runMinutes": 1441}, {"goldGb": "many"}])
def test_a_profile_with_a_wrong_name_or_figure_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"goldlake:usage"):
        settings(usage=wrong)
