"""Pure decisions of the components: names, subnets, policies, the state machine."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import policies
from components.naming import Names
from components.network import plan_subnets
from components.pipeline import STEPS, definition
from runtime.errors import ConfigurationError


def test_everything_carries_project_stack_and_name_as_tags() -> None:
    tags = Names("goldlake", "dev").tags("lake")
    assert tags == {"Name": "goldlake-lake", "Project": "goldlake", "Stack": "dev", "ManagedBy": "pulumi"}


def test_names_have_the_shapes_of_the_documentation() -> None:
    names = Names("goldlake", "dev")
    assert names.name("dbt-runner") == "goldlake-dbt-runner"
    assert names.secret("redshift-admin") == "goldlake/redshift-admin"
    assert names.bucket("lake", "123456789012", "eu-west-1") == "goldlake-lake-123456789012-eu-west-1"


@given(st.integers(16, 22), st.integers(3, 6))
def test_subnets_lie_inside_the_vpc_apart_and_have_room_for_a_workgroup(prefix: int, zones: int) -> None:
    network = ipaddress.IPv4Network(f"10.0.0.0/{prefix}")
    wanted = [f"zone-{index}" for index in range(zones)]
    try:
        plan = plan_subnets(str(network), wanted)
    except ConfigurationError:
        assert network.num_addresses / zones / 4 < 64
        return
    subnets = [ipaddress.IPv4Network(cidr) for cidr in plan.values()]
    assert list(plan) == wanted
    assert all(subnet.subnet_of(network) and subnet.num_addresses >= 64 for subnet in subnets)
    assert not any(a.overlaps(b) for a in subnets for b in subnets if a is not b)


def test_two_zones_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="needs subnets in 3"):
        plan_subnets("10.0.0.0/16", ["a", "b"])


def test_a_range_with_too_few_addresses_per_zone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="take a larger range"):
        plan_subnets("10.0.0.0/24", ["a", "b", "c"])


def test_a_service_role_is_for_this_account_only() -> None:
    condition = policies.trust("states.amazonaws.com", "123456789012")["Statement"][0]["Condition"]
    assert condition == {"StringEquals": {"aws:SourceAccount": "123456789012"}}


def test_a_prefix_may_be_listed_without_the_rest_of_the_bucket() -> None:
    statements = policies.read_prefix("arn:aws:s3:::lake", "silver")
    assert statements[0]["Condition"] == {"StringLike": {"s3:prefix": ["silver", "silver/*"]}}
    assert statements[1]["Resource"] == ["arn:aws:s3:::lake/silver/*"]


def test_deleting_objects_must_be_asked_for() -> None:
    assert "s3:DeleteObject" not in str(policies.write_prefix("arn:aws:s3:::lake", "gold"))
    assert "s3:DeleteObject" in str(policies.write_prefix("arn:aws:s3:::lake", "gold", delete=True))


@pytest.fixture
def machine() -> dict[str, Any]:
    return definition({step: f"arn:{step}" for step in STEPS})


def successors(state: dict[str, Any]) -> set[str]:
    choices = {choice["Next"] for choice in state.get("Choices", [])}
    return choices | {state[key] for key in ("Next", "Default") if key in state}


def test_every_state_is_reached_and_every_successor_exists(machine: dict[str, Any]) -> None:
    states = machine["States"]
    reached, waiting = set(), {machine["StartAt"]}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= successors(states[name]) - reached
    assert reached == set(states)


def test_dbt_does_not_start_when_tables_are_not_ready(machine: dict[str, Any]) -> None:
    verdict = machine["States"]["CheckVerdict"]
    assert {choice["NumericEquals"]: choice["Next"] for choice in verdict["Choices"]} == {0: "Build", 1: "Skipped"}
    assert verdict["Default"] == "CheckUnreachable"
    assert machine["States"]["Skipped"]["End"] is True


@pytest.mark.parametrize("step", ["build", "export", "register"])
def test_a_step_that_fails_ends_the_execution_with_its_message(machine: dict[str, Any], step: str) -> None:
    state = machine["States"][f"{step.capitalize()}Failed"]
    assert state["Type"] == "Fail"
    assert state["Error"] == "Failed"
    assert f"$.{step}.answer.message" in state["CausePath"]


def test_only_transient_errors_of_lambda_are_tried_again(machine: dict[str, Any]) -> None:
    for step in STEPS:
        retries = machine["States"][step.capitalize()]["Retry"]
        assert all(error.startswith("Lambda.") for retry in retries for error in retry["ErrorEquals"])
