"""The network: the plan of its ranges, what is made for it, and what is refused when one is adopted."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
from collections.abc import Callable
from typing import Any, get_args

import pulumi
import pulumi_aws as aws
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.network import (
    NAT_CHOICES,
    AdoptedNetwork,
    AdoptedNetworkArgs,
    Nat,
    Network,
    PrivateNetwork,
    PrivateNetworkArgs,
    plan_network,
    write_flow_logs,
)
from local.recording import ACCOUNT, REGION, Recording, record
from runtime.errors import ConfigurationError

ZONES = tuple(f"{REGION}{letter}" for letter in "abc")
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"

prefixes = st.integers(16, 28)
zone_lists = st.integers(3, 6).map(lambda count: [f"zone-{index}" for index in range(count)])


def planned(prefix: int, zones: list[str], nat: Nat) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the plan's ranges, private and public; None when the range is too small for these zones.

    Too small is what has no room for 64 addresses a zone, another 64 per four public subnets, and as much again.
    """
    if 2 ** (32 - prefix) < 64 * 2 * (len(zones) + math.ceil(len(zones) / 4)):
        with pytest.raises(ConfigurationError, match="take a larger range"):
            plan_network(f"10.0.0.0/{prefix}", zones, nat)
        return None
    plan = plan_network(f"10.0.0.0/{prefix}", zones, nat)
    return (
        {zone: ipaddress.IPv4Network(cidr) for zone, cidr in plan.private.items()},
        {zone: ipaddress.IPv4Network(cidr) for zone, cidr in plan.public.items()},
    )


@given(prefixes, zone_lists, st.sampled_from(NAT_CHOICES))
def test_subnets_lie_inside_the_vpc_apart_and_have_room_for_a_workgroup(
    prefix: int, zones: list[str], nat: Nat
) -> None:
    plan = planned(prefix, zones, nat)
    if plan is None:
        return
    network = ipaddress.IPv4Network(f"10.0.0.0/{prefix}")
    private, public = plan
    subnets = [*private.values(), *public.values()]
    assert list(private) == zones
    assert all(subnet.num_addresses >= 64 for subnet in private.values())
    assert all(subnet.num_addresses == 16 for subnet in public.values())
    assert all(subnet.subnet_of(network) for subnet in subnets)
    assert not any(a.overlaps(b) for a in subnets for b in subnets if a is not b)


@given(prefixes, zone_lists, st.sampled_from(NAT_CHOICES))
def test_half_of_the_vpc_stays_free_in_one_piece(prefix: int, zones: list[str], nat: Nat) -> None:
    plan = planned(prefix, zones, nat)
    if plan is None:
        return
    _, upper_half = ipaddress.IPv4Network(f"10.0.0.0/{prefix}").subnets()
    assert not any(subnet.overlaps(upper_half) for ranges in plan for subnet in ranges.values())


@given(prefixes, zone_lists)
def test_nat_that_comes_later_moves_no_private_subnet(prefix: int, zones: list[str]) -> None:
    plans = [planned(prefix, zones, nat) for nat in NAT_CHOICES]
    assert all((plan and plan[0]) == (plans[0] and plans[0][0]) for plan in plans)


@given(prefixes, zone_lists)
def test_there_is_a_public_subnet_for_each_nat_gateway(prefix: int, zones: list[str]) -> None:
    plans = [planned(prefix, zones, nat) for nat in NAT_CHOICES]
    found = [list(plan[1]) for plan in plans if plan]
    assert found in ([], [[], zones[:1], zones])


def test_a_later_gateway_per_zone_keeps_the_first_ones_subnet() -> None:
    single = plan_network("10.0.0.0/16", ZONES, "single").public
    assert single.items() <= plan_network("10.0.0.0/16", ZONES, "per-zone").public.items()


def test_three_zones_of_a_wide_vpc_get_an_eighth_each() -> None:
    plan = plan_network("10.0.0.0/16", ZONES, "single")
    assert list(plan.private.values()) == ["10.0.0.0/19", "10.0.32.0/19", "10.0.64.0/19"]
    assert plan.public == {ZONES[0]: "10.0.96.0/28"}


@pytest.mark.parametrize(
    ("cidr", "zones", "nat", "reason"),
    [
        ("10.0.0.0/16", ZONES[:2], "none", "2 availability zones .* needs subnets in 3"),
        ("10.0.0.0/16", (*ZONES, ZONES[1]), "none", f"{ZONES[1]} is named twice"),
        ("10.0.0.0/24", ZONES, "none", "fewer than 64 addresses: take a larger range"),
        ("10.0.0.0/32", ZONES, "none", "fewer than 64 addresses: take a larger range"),
        ("10.0.0.0/8", ZONES, "none", "at most a /16"),
        ("10.0.0.1/16", ZONES, "none", "10.0.0.1/16 is no IPv4 range"),
        ("ten", ZONES, "none", "ten is no IPv4 range"),
        ("10.0.0.0/16", ZONES, "double", "none, single, per-zone"),
    ],
)
def test_a_plan_that_cannot_hold_a_workgroup_is_refused(cidr: str, zones: Any, nat: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        plan_network(cidr, zones, nat)


def test_the_smallest_vpc_for_three_zones_has_512_addresses() -> None:
    assert set(plan_network("10.0.0.0/23", ZONES, "per-zone").private.values()) == {
        "10.0.0.0/26",
        "10.0.0.64/26",
        "10.0.0.128/26",
    }


def test_every_kind_of_nat_is_planned_for() -> None:
    assert get_args(Nat) == NAT_CHOICES


def ids_of(network: Network) -> dict[str, pulumi.Output[Any]]:
    return {
        "vpc": network.vpc_id,
        "subnets": network.subnet_ids,
        "tables": network.route_table_ids,
    }


def made(**changes: Any) -> Recording:
    """Return what a private network registers."""
    settings: dict[str, Any] = {
        "vpc_cidr": "10.0.0.0/16",
        "zones": ZONES,
        "flow_log_retention_days": 30,
        "name": "goldlake-network",
        "account": ACCOUNT,
        "region": REGION,
        "tags": {"Project": "goldlake"},
        **changes,
    }
    return record(lambda: ids_of(PrivateNetwork("network", PrivateNetworkArgs(**settings))))


@pytest.fixture(scope="module")
def closed() -> Recording:
    return made()


@pytest.fixture(scope="module")
def single() -> Recording:
    return made(nat="single")


@pytest.fixture(scope="module")
def per_zone() -> Recording:
    return made(nat="per-zone")


def test_the_vpc_resolves_the_private_names_of_endpoints(closed: Recording) -> None:
    vpc = closed.one(":Vpc")
    assert vpc["cidrBlock"] == "10.0.0.0/16"
    assert vpc["enableDnsSupport"] is True
    assert vpc["enableDnsHostnames"] is True


def test_the_default_security_group_is_closed(closed: Recording) -> None:
    group = closed.one(":DefaultSecurityGroup")
    assert group["vpcId"] == "network-id"
    assert not group.get("ingress")
    assert not group.get("egress")


def test_each_zone_has_a_private_subnet(closed: Recording) -> None:
    subnets = closed.of(":Subnet")
    assert {inputs["availabilityZone"]: inputs["cidrBlock"] for inputs in subnets.values()} == plan_network(
        "10.0.0.0/16", ZONES, "none"
    ).private
    assert closed.exports["subnets"] == [f"network-{zone}-id" for zone in ZONES]


def test_no_subnet_hands_out_public_addresses(per_zone: Recording) -> None:
    assert len(per_zone.of(":Subnet")) == 6
    assert all(inputs["mapPublicIpOnLaunch"] is False for inputs in per_zone.of(":Subnet").values())


def test_without_nat_nothing_leads_to_the_internet(closed: Recording) -> None:
    assert not any(closed.of(kind) for kind in (":InternetGateway", ":NatGateway", ":Eip", ":Route"))
    assert closed.exports["tables"] == ["network-private-id"]


def tables_by_subnet(recording: Recording) -> dict[str, str]:
    links = recording.of(":RouteTableAssociation").values()
    return {link["subnetId"]: link["routeTableId"] for link in links}


def routes(recording: Recording) -> dict[str, tuple[str, str]]:
    """Return where each route table leads to from everywhere."""
    found = recording.of(":Route").values()
    return {
        route["routeTableId"]: (route["destinationCidrBlock"], route.get("gatewayId") or route["natGatewayId"])
        for route in found
    }


def test_private_subnets_share_a_route_table(closed: Recording) -> None:
    assert tables_by_subnet(closed) == {f"network-{zone}-id": "network-private-id" for zone in ZONES}


def test_a_single_nat_gateway_serves_every_private_subnet(single: Recording) -> None:
    gateway = single.one(":NatGateway")
    zone = ZONES[0]
    assert gateway["subnetId"] == f"network-public-{zone}-id"
    assert gateway["allocationId"] == f"network-nat-{zone}-id"
    assert gateway["connectivityType"] == "public"
    assert single.one(":Eip")["domain"] == "vpc"
    assert routes(single) == {
        "network-private-id": ("0.0.0.0/0", f"network-nat-{zone}-id"),
        "network-public-id": ("0.0.0.0/0", "network-internet-id"),
    }
    assert tables_by_subnet(single) == {
        **{f"network-{zone}-id": "network-private-id" for zone in ZONES},
        f"network-public-{zone}-id": "network-public-id",
    }
    assert single.exports["tables"] == ["network-private-id"]


def test_a_nat_gateway_per_zone_keeps_each_zone_by_itself(per_zone: Recording) -> None:
    assert len(per_zone.of(":NatGateway")) == 3
    assert routes(per_zone) == {
        "network-public-id": ("0.0.0.0/0", "network-internet-id"),
        **{f"network-private-{zone}-id": ("0.0.0.0/0", f"network-nat-{zone}-id") for zone in ZONES},
    }
    assert tables_by_subnet(per_zone) == {
        **{f"network-{zone}-id": f"network-private-{zone}-id" for zone in ZONES},
        **{f"network-public-{zone}-id": "network-public-id" for zone in ZONES},
    }
    assert per_zone.exports["tables"] == [f"network-private-{zone}-id" for zone in ZONES]


def test_public_subnets_are_no_part_of_the_network_that_others_see(closed: Recording, per_zone: Recording) -> None:
    assert per_zone.exports["subnets"] == closed.exports["subnets"]


def test_a_nat_gateway_waits_for_the_way_out(single: Recording) -> None:
    awaited = single.resource(f"network-nat-{ZONES[0]}", ":NatGateway").depends_on
    assert {"network-internet", "network-public-internet"} <= awaited


def test_nat_leaves_the_other_resources_as_they_are(closed: Recording, single: Recording) -> None:
    before = {(found.type, found.name): found.inputs for found in closed.resources}
    after = {(found.type, found.name): found.inputs for found in single.resources}
    assert before.items() <= after.items()


def test_every_connection_is_recorded_in_a_log_group(closed: Recording) -> None:
    log = closed.one(":FlowLog")
    group = closed.one(":LogGroup")
    assert log["vpcId"] == "network-id"
    assert log["trafficType"] == "ALL"
    assert log["logDestination"].endswith(":network-flow-logs")
    assert log["iamRoleArn"].endswith(":network-flow-logs-role")
    assert "network-flow-logs-policy" in closed.resource("network-flow-logs", ":FlowLog").depends_on
    assert group["name"] == "/aws/vpc/goldlake-network"
    assert group["retentionInDays"] == 30
    assert "kmsKeyId" not in group


def test_flow_logs_can_have_a_key() -> None:
    assert made(key_arn=KEY).one(":LogGroup")["kmsKeyId"] == KEY


def test_flow_logs_can_be_left_out() -> None:
    recording = made(flow_log_retention_days=None)
    assert not any(recording.of(kind) for kind in (":FlowLog", ":LogGroup", ":Role", ":RolePolicy"))


def test_the_flow_logs_role_writes_into_their_group_only(closed: Recording) -> None:
    trust = json.loads(closed.one(":Role")["assumeRolePolicy"])["Statement"][0]
    assert trust["Principal"] == {"Service": "vpc-flow-logs.amazonaws.com"}
    assert trust["Condition"] == {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnLike": {"aws:SourceArn": f"arn:aws:ec2:eu-west-1:{ACCOUNT}:vpc-flow-log/*"},
    }
    group = closed.one(":FlowLog")["logDestination"]
    assert json.loads(closed.one(":RolePolicy")["policy"])["Statement"] == [write_flow_logs(group)]
    statement = write_flow_logs("arn:group")
    assert set(statement["Action"]) == {"logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"}
    assert statement["Resource"] == ["arn:group", "arn:group:*"]


def test_everything_of_the_network_has_tags_and_a_name_of_its_own(per_zone: Recording) -> None:
    tagged = [found for found in per_zone.resources if "tags" in found.inputs]
    named = {(found.type, found.inputs["tags"]["Name"]) for found in tagged}
    assert len(named) == len(tagged)
    assert all(found.inputs["tags"]["Project"] == "goldlake" for found in tagged)
    untagged = {found.type.rsplit(":", 1)[-1] for found in per_zone.resources if found.custom} - {
        found.type.rsplit(":", 1)[-1] for found in tagged
    }
    assert untagged == {"Route", "RouteTableAssociation", "RolePolicy"}


def test_the_parts_belong_to_the_network(per_zone: Recording) -> None:
    assert {found.parent for found in per_zone.resources if found.custom} == {"network"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"zones": ZONES[:2]}, "needs subnets in 3"),
        ({"vpc_cidr": "10.0.0.0/25"}, "take a larger range"),
        ({"zones": (*ZONES[:2], "us-east-1c")}, f"us-east-1c is not in region {REGION}"),
    ],
)
def test_a_network_is_refused_before_anything_is_registered(changes: dict[str, Any], reason: str) -> None:
    settings: dict[str, Any] = {"vpc_cidr": "10.0.0.0/16", "zones": ZONES, "region": REGION, **changes}
    args = PrivateNetworkArgs(flow_log_retention_days=None, name="n", account=ACCOUNT, tags={}, **settings)

    def program() -> None:
        with pytest.raises(ConfigurationError, match=reason):
            PrivateNetwork("network", args)

    assert record(program).resources == []


VPC = "vpc-0a1b2c3d"
SUBNETS = tuple(f"subnet-{letter * 8}" for letter in "abc")
TABLES = ("rtb-0123456789abcdef0",)


def described(**changes: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return AWS's answer about subnets: one per zone with room, but for `changes` by the subnets' letters."""

    def answer(args: dict[str, Any]) -> dict[str, Any]:
        letter = args["id"][-1]
        zone = {"availabilityZone": f"{REGION}{letter}"}
        return {"id": args["id"], "vpcId": VPC, "availableIpAddressCount": 42, **zone, **changes.get(letter, {})}

    return answer


def adopted(made: list[str], **changes: dict[str, Any]) -> Recording:
    """Return what a program registers that adopts a network and puts something behind each of its outputs.

    `made` gets the ids of what was registered behind them, also when the program fails.
    """

    def program() -> dict[str, pulumi.Output[Any]]:
        # Of all that waits for the outputs the SDK reads one failure; asyncio would log each of the others.
        asyncio.get_event_loop().set_exception_handler(lambda _loop, _context: None)
        network = AdoptedNetwork("network", adoption())
        for label, output in ids_of(network).items():
            tags = {"Behind": output.apply(str)}
            aws.ec2.Vpc(f"behind-{label}", cidr_block="10.0.0.0/16", tags=tags).id.apply(made.append)
        return ids_of(network)

    return record(program, calls={"aws:ec2/getSubnet:getSubnet": described(**changes)})


def adoption(**changes: Any) -> AdoptedNetworkArgs:
    ids: dict[str, Any] = {"vpc_id": VPC, "subnet_ids": SUBNETS, "route_table_ids": TABLES, **changes}
    return AdoptedNetworkArgs(**ids)


def test_an_adopted_network_has_the_outputs_of_a_new_one_and_makes_nothing() -> None:
    made: list[str] = []
    recording = adopted(made)
    assert recording.exports == {"vpc": VPC, "subnets": list(SUBNETS), "tables": list(TABLES)}
    assert {found.name for found in recording.resources if found.custom} == {
        "behind-vpc",
        "behind-subnets",
        "behind-tables",
    }
    assert len(made) == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"b": {"vpcId": "vpc-9"}}, f"{SUBNETS[1]} lies in vpc-9"),
        ({"c": {"availabilityZone": "eu-west-1a"}}, r"in 2 zones \(eu-west-1a, eu-west-1b\).* needs 3"),
        ({"a": {"availableIpAddressCount": 41}}, f"{SUBNETS[0]} in eu-west-1a has 41 free addresses.* needs 42"),
    ],
)
def test_a_network_that_cannot_hold_a_workgroup_fails_the_program_before_anything_else(
    changes: dict[str, Any], reason: str
) -> None:
    made: list[str] = []
    with pytest.raises(ConfigurationError, match=reason):
        adopted(made, **changes)
    assert made == []


def test_all_faults_of_an_adopted_network_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        adopted([], a={"vpcId": "vpc-9", "availableIpAddressCount": 3}, b={"availabilityZone": "eu-west-1c"})
    assert all(part in str(caught.value) for part in (VPC, "vpc-9", "2 zones", "3 free addresses"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"vpc_id": "vpc-X"}, "'vpc-X' is no id of a VPC"),
        ({"subnet_ids": (*SUBNETS, "subnet-1")}, "'subnet-1' is no id of a subnet"),
        ({"route_table_ids": ("rtb",)}, "'rtb' is no id of a route table"),
        ({"route_table_ids": ()}, "no route table"),
        ({"subnet_ids": SUBNETS[:2]}, "2 subnets: at least 3"),
        ({"subnet_ids": (*SUBNETS, SUBNETS[0])}, f"{SUBNETS[0]} is named twice"),
        ({"route_table_ids": TABLES * 2}, f"{TABLES[0]} is named twice"),
    ],
)
def test_ids_that_cannot_be_right_are_refused_without_asking_aws(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        record(lambda: ids_of(AdoptedNetwork("network", adoption(**changes))))
