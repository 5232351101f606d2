"""Security groups: exactly the paths that are listed exist, and what is registered is what was listed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.security_groups import (
    ENDPOINT,
    FUNCTION,
    GROUPS,
    S3,
    WAREHOUSE,
    Rule,
    SecurityGroups,
    SecurityGroupsArgs,
    check_rules,
    reachable,
    standard_rules,
)
from local.recording import Recording, record
from runtime.errors import ConfigurationError

OUTSIDE = "10.9.0.0/24"
ANYWHERE = "0.0.0.0/0"
SIDES = (*GROUPS, S3, OUTSIDE, ANYWHERE)
PORTS = (22, 80, 443, 5432, 5439, 5440, 65535)

ALL = standard_rules(interface_endpoints=True)
FEWEST = standard_rules(interface_endpoints=False)
WITH_OUTSIDE = standard_rules(interface_endpoints=True, warehouse_cidr=OUTSIDE)


def paths(rules: list[Rule]) -> set[tuple[str, str, int]]:
    """Return every path that involves one of our groups and lets a connection through."""
    return {
        (source, destination, port)
        for source, destination in itertools.product(SIDES, repeat=2)
        for port in PORTS
        if GROUPS.keys() & {source, destination} and reachable(rules, source, destination, port)
    }


def test_functions_reach_warehouse_endpoints_and_s3_and_nothing_else_reaches_anything() -> None:
    assert paths(ALL) == {(FUNCTION, WAREHOUSE, 5439), (FUNCTION, ENDPOINT, 443), (FUNCTION, S3, 443)}


def test_without_interface_endpoints_there_is_no_path_to_them() -> None:
    assert paths(FEWEST) == {(FUNCTION, WAREHOUSE, 5439), (FUNCTION, S3, 443)}


def test_a_warehouse_outside_the_stack_opens_one_path_more() -> None:
    # Its range is part of every address, so a rule for the range shows there, too.
    assert paths(WITH_OUTSIDE) - paths(ALL) == {(FUNCTION, OUTSIDE, 5439), (FUNCTION, ANYWHERE, 5439)}
    assert reachable(WITH_OUTSIDE, FUNCTION, "10.9.0.7", 5439)
    assert not reachable(WITH_OUTSIDE, FUNCTION, "10.9.1.7", 5439)


def test_the_warehouse_may_listen_elsewhere() -> None:
    rules = standard_rules(interface_endpoints=False, warehouse_cidr=OUTSIDE, warehouse_port=5440)
    assert {port for _, destination, port in paths(rules) if destination in (WAREHOUSE, OUTSIDE)} == {5440}


def test_standard_rules_are_accepted() -> None:
    for rules in (ALL, FEWEST, WITH_OUTSIDE):
        check_rules(rules)


@given(st.sampled_from(SIDES), st.sampled_from(SIDES), st.integers(1, 65535))
def test_a_path_between_two_groups_needs_both_its_rules(source: str, destination: str, port: int) -> None:
    if not {source, destination} <= GROUPS.keys():
        return
    for direction in ("egress", "ingress"):
        halved = [rule for rule in WITH_OUTSIDE if rule.direction != direction]
        assert not reachable(halved, source, destination, port)


def test_a_range_counts_as_one_that_holds_every_group() -> None:
    wide = Rule(name="wide", group=FUNCTION, direction="egress", peer="10.0.0.0/8", port=443, description="wide")
    entry = next(rule for rule in ALL if rule.name == "endpoint-from-function")
    assert reachable([wide, entry], FUNCTION, ENDPOINT, 443)
    assert not reachable([wide], FUNCTION, ENDPOINT, 443)


def test_an_open_door_is_seen_from_outside() -> None:
    door = Rule(name="door", group=WAREHOUSE, direction="ingress", peer="203.0.113.0/24", port=5439, description="door")
    assert reachable([door], ANYWHERE, WAREHOUSE, 5439)
    assert reachable([door], "203.0.113.9/32", WAREHOUSE, 5439)
    assert not reachable([door], "198.51.100.1/32", WAREHOUSE, 5439)


@pytest.mark.parametrize("sides", [("functions", WAREHOUSE), (FUNCTION, "s4")])
def test_a_side_that_does_not_exist_is_no_proof_of_anything(sides: tuple[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="is none of function, warehouse, endpoint, s3"):
        reachable(ALL, *sides, 5439)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"group": "database"}, "group 'database' is none of function, warehouse, endpoint"),
        ({"peer": "internet"}, "peer 'internet' is none of function, warehouse, endpoint, s3"),
        ({"peer": ANYWHERE}, "is every address"),
        ({"port": 0}, "port 0 is not between 1 and 65535"),
        ({"name": ALL[1].name}, f"{ALL[1].name} is named twice"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_before_anything_is_registered(
    changes: dict[str, Any], reason: str
) -> None:
    rules = [replace(ALL[0], **changes), *ALL[1:]]

    def program() -> None:
        with pytest.raises(ConfigurationError, match=reason):
            SecurityGroups("groups", args(rules))

    assert record(program).resources == []


def args(rules: list[Rule]) -> SecurityGroupsArgs:
    return SecurityGroupsArgs(
        vpc_id="vpc-1", s3_prefix_list_id="pl-1", rules=rules, name="goldlake", tags={"Project": "goldlake"}
    )


@pytest.fixture(scope="module")
def registered() -> Recording:
    def program() -> dict[str, pulumi.Output[Any]]:
        groups = SecurityGroups("groups", args(WITH_OUTSIDE))
        return {
            "function": groups.function_group_id,
            "warehouse": groups.warehouse_group_id,
            "endpoint": groups.endpoint_group_id,
        }

    return record(program)


def test_each_group_is_an_output(registered: Recording) -> None:
    assert registered.exports == {group: f"groups-{group}-id" for group in GROUPS}


def test_groups_have_names_and_no_inline_rules(registered: Recording) -> None:
    groups = registered.of(":SecurityGroup")
    assert {inputs["name"] for inputs in groups.values()} == {f"goldlake-{group}" for group in GROUPS}
    assert all(inputs["description"].startswith("Goldlake ") for inputs in groups.values())
    assert all(inputs["vpcId"] == "vpc-1" for inputs in groups.values())
    assert not any(inputs.get(key) for inputs in groups.values() for key in ("ingress", "egress"))


def read_back(recording: Recording) -> list[Rule]:
    """Return the registered rules, with resource ids turned back into the groups' names."""
    groups = {f"groups-{group}-id": group for group in GROUPS}
    found = []
    for kind, direction in ((":SecurityGroupEgressRule", "egress"), (":SecurityGroupIngressRule", "ingress")):
        for name, inputs in recording.of(kind).items():
            assert inputs["ipProtocol"] == "tcp"
            assert inputs["fromPort"] == inputs["toPort"]
            keys = ("referencedSecurityGroupId", "prefixListId", "cidrIpv4", "cidrIpv6")
            peers = [inputs[key] for key in keys if inputs.get(key)]
            assert len(peers) == 1
            found.append(
                Rule(
                    name=name.removeprefix("groups-"),
                    group=groups[inputs["securityGroupId"]],
                    direction="egress" if direction == "egress" else "ingress",
                    peer={**groups, "pl-1": S3}.get(peers[0], peers[0]),
                    port=inputs["fromPort"],
                    description=inputs["description"],
                )
            )
    return found


def test_what_is_registered_are_the_rules_and_no_others(registered: Recording) -> None:
    assert sorted(read_back(registered), key=lambda rule: rule.name) == sorted(WITH_OUTSIDE, key=lambda rule: rule.name)


def test_an_address_becomes_a_range_of_one() -> None:
    rules = standard_rules(interface_endpoints=False, warehouse_cidr="10.9.0.7")
    recording = record(lambda: args_registered(rules))
    assert recording.resource("groups-function-to-existing-warehouse").inputs["cidrIpv4"] == "10.9.0.7/32"


def args_registered(rules: list[Rule]) -> None:
    SecurityGroups("groups", args(rules))


def test_groups_and_rules_have_tags_and_names_of_their_own(registered: Recording) -> None:
    tags = [found.inputs["tags"] for found in registered.resources if found.custom]
    assert all(found["Project"] == "goldlake" for found in tags)
    assert len({found["Name"] for found in tags}) == len(tags) == len(GROUPS) + len(WITH_OUTSIDE)
