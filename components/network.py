"""The network: a VPC of private subnets in several zones, made here or adopted by its ids.

Private subnets have no way to the internet unless NAT is asked for. Nothing in them is reached from outside.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pulumi
import pulumi_aws as aws

from components.policies import Statement, allow
from components.role import ServiceRoleArgs, service_role
from runtime.errors import ConfigurationError

Nat = Literal["none", "single", "per-zone"]
NAT_CHOICES: tuple[Nat, ...] = ("none", "single", "per-zone")

# A workgroup with enhanced VPC routing needs subnets in 3 zones, and more addresses in each the larger it is; others
# failed without 37 (terraform-provider-aws#28977). Without that routing 2 zones and 3 addresses do by now (Redshift
# management guide, "Considerations when using Amazon Redshift Serverless"), but a network that cannot hold it would
# have to be replaced to turn it on.
MIN_ZONES = 3
# 37 for the workgroup, 5 that AWS keeps in every subnet; functions and endpoints come on top.
MIN_ADDRESSES_PER_SUBNET = 64
# An adopted subnet's count of free addresses is without AWS's 5 already: 37 for the workgroup, 5 for functions.
MIN_FREE_ADDRESSES = 42

# The smallest subnet that AWS has: 16 addresses, of which a NAT gateway takes one.
_PUBLIC_PREFIX = 28
_PUBLIC_SUBNETS_PER_PART = MIN_ADDRESSES_PER_SUBNET // 16
# Amazon VPC user guide, "VPC CIDR blocks".
_WIDEST_VPC_PREFIX = 16
_EVERYWHERE = "0.0.0.0/0"


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """The ranges of the subnets, by zone, in the order of the zones."""

    private: dict[str, str]
    public: dict[str, str]
    """One for each NAT gateway, and empty without."""


def plan_network(vpc_cidr: str, zones: Sequence[str], nat: Nat) -> NetworkPlan:
    """Return the ranges of the subnets. At least half of the VPC's range stays free for what comes later.

    The range is cut into equal parts, a power of two: one for each zone's private subnet, then one for every four
    public subnets, whether there is NAT or not. So NAT that is added later moves no private subnet, which would
    replace all that is in it.

    Raises ConfigurationError for a range that is none, fewer than 3 zones, a zone named twice, an unknown kind of NAT,
    and private subnets of fewer than 64 addresses.
    """
    network = _vpc_range(vpc_cidr)
    _check_zones(zones)
    if nat not in NAT_CHOICES:
        raise ConfigurationError(f"NAT {nat!r}: one of {', '.join(NAT_CHOICES)} is known")
    public_parts = -(-len(zones) // _PUBLIC_SUBNETS_PER_PART)
    prefix = network.prefixlen + (2 * (len(zones) + public_parts) - 1).bit_length()
    if prefix > 32 or 2 ** (32 - prefix) < MIN_ADDRESSES_PER_SUBNET:
        raise ConfigurationError(
            f"{vpc_cidr} gives each of {len(zones)} zones fewer than {MIN_ADDRESSES_PER_SUBNET} addresses: "
            "take a larger range. A Redshift Serverless workgroup takes about 37 in each, AWS 5, functions the rest"
        )
    parts = list(network.subnets(new_prefix=prefix))
    small = [
        subnet
        for part in parts[len(zones) : len(zones) + public_parts]
        for subnet in list(part.subnets(new_prefix=_PUBLIC_PREFIX))[:_PUBLIC_SUBNETS_PER_PART]
    ]
    with_nat = {"none": [], "single": zones[:1], "per-zone": zones}[nat]
    return NetworkPlan(
        private={zone: str(part) for zone, part in zip(zones, parts, strict=False)},
        public={zone: str(subnet) for zone, subnet in zip(with_nat, small, strict=False)},
    )


def _vpc_range(vpc_cidr: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(vpc_cidr)
    except ValueError as exc:
        raise ConfigurationError(f"{vpc_cidr} is no IPv4 range: {exc}") from exc
    if network.prefixlen < _WIDEST_VPC_PREFIX:
        raise ConfigurationError(f"{vpc_cidr} is too large: a VPC has at most a /{_WIDEST_VPC_PREFIX}")
    return network


def _check_zones(zones: Sequence[str]) -> None:
    twice = sorted({zone for zone in zones if zones.count(zone) > 1})
    if twice:
        raise ConfigurationError(f"availability zone {', '.join(twice)} is named twice: each gets one subnet")
    if len(zones) < MIN_ZONES:
        raise ConfigurationError(
            f"{len(zones)} availability zones ({', '.join(zones) or 'none'}): "
            f"at least {MIN_ZONES} are needed, since Redshift Serverless needs subnets in {MIN_ZONES}"
        )


class Network(Protocol):
    """What other parts need to know of a network, whoever made it."""

    vpc_id: pulumi.Output[str]
    subnet_ids: pulumi.Output[list[str]]
    route_table_ids: pulumi.Output[list[str]]


@dataclass(frozen=True, kw_only=True)
class PrivateNetworkArgs:
    """What a private network can be told."""

    vpc_cidr: str
    zones: Sequence[str]
    nat: Nat = "none"
    """How private subnets reach the internet. A gateway costs by the hour, and one per zone survives a zone's loss."""
    flow_log_retention_days: int | None
    """How long accepted and rejected connections stay on record; None records nothing."""
    key_arn: pulumi.Input[str] | None = None
    """KMS key for the flow logs; its policy must let CloudWatch Logs use it. None takes the service's own key."""
    name: str
    """Name of the VPC, and the first part of its parts' names."""
    account: pulumi.Input[str]
    region: str
    tags: dict[str, str]


class PrivateNetwork(pulumi.ComponentResource):
    """A VPC with a private subnet in each zone, route tables, flow logs, and NAT if it is asked for."""

    vpc_id: pulumi.Output[str]
    subnet_ids: pulumi.Output[list[str]]
    route_table_ids: pulumi.Output[list[str]]
    """Route tables of the private subnets: one, or one per zone where each has a NAT gateway of its own."""

    def __init__(self, name: str, args: PrivateNetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        plan = plan_network(args.vpc_cidr, args.zones, args.nat)
        elsewhere = [zone for zone in args.zones if not zone.startswith(args.region)]
        if elsewhere:
            raise ConfigurationError(f"availability zone {', '.join(elsewhere)} is not in region {args.region}")
        super().__init__("goldlake:network:PrivateNetwork", name, None, opts)
        self._prefix = name
        self._wanted = args
        self._below = pulumi.ResourceOptions(parent=self)
        vpc = aws.ec2.Vpc(
            name,
            cidr_block=args.vpc_cidr,
            enable_dns_support=True,
            # The private names of interface endpoints need both.
            enable_dns_hostnames=True,
            tags=self._tags(),
            opts=self._below,
        )
        self.vpc_id = vpc.id
        # Adopting the default group without rules closes it: AWS creates it open between its members.
        aws.ec2.DefaultSecurityGroup(
            f"{name}-default", vpc_id=vpc.id, tags=self._tags("default-closed"), opts=self._below
        )
        gateways = self._nat_gateways(plan.public) if plan.public else {}
        tables = self._private_route_tables(gateways)
        shared = None if self._per_zone() else next(iter(tables.values()))
        subnets = [self._subnet(zone, zone, cidr, shared or tables[zone]) for zone, cidr in plan.private.items()]
        if args.flow_log_retention_days is not None:
            self._flow_logs(args.flow_log_retention_days)
        self.subnet_ids = pulumi.Output.all(*[subnet.id for subnet in subnets]).apply(list)
        self.route_table_ids = pulumi.Output.all(*[table.id for table in tables.values()]).apply(list)
        _register_outputs(self, self)

    def _tags(self, part: str = "") -> dict[str, str]:
        return {**self._wanted.tags, "Name": f"{self._wanted.name}-{part}" if part else self._wanted.name}

    def _per_zone(self) -> bool:
        return self._wanted.nat == "per-zone"

    def _subnet(self, part: str, zone: str, cidr: str, table: aws.ec2.RouteTable) -> aws.ec2.Subnet:
        """Register a subnet that hands out no public addresses, with its route table."""
        subnet = aws.ec2.Subnet(
            f"{self._prefix}-{part}",
            vpc_id=self.vpc_id,
            availability_zone=zone,
            cidr_block=cidr,
            map_public_ip_on_launch=False,
            tags=self._tags(part),
            opts=self._below,
        )
        aws.ec2.RouteTableAssociation(
            f"{self._prefix}-{part}-routes", subnet_id=subnet.id, route_table_id=table.id, opts=self._below
        )
        return subnet

    def _route_table(self, part: str) -> aws.ec2.RouteTable:
        return aws.ec2.RouteTable(f"{self._prefix}-{part}", vpc_id=self.vpc_id, tags=self._tags(part), opts=self._below)

    def _private_route_tables(self, gateways: dict[str, aws.ec2.NatGateway]) -> dict[str, aws.ec2.RouteTable]:
        """Register the private route tables by part, each with its way to the internet if there is one."""
        if self._per_zone():
            tables = {zone: self._route_table(f"private-{zone}") for zone in gateways}
        else:
            tables = {"private": self._route_table("private")}
        for (part, table), gateway in zip(tables.items(), gateways.values(), strict=False):
            aws.ec2.Route(
                f"{self._prefix}-{part}-nat",
                route_table_id=table.id,
                destination_cidr_block=_EVERYWHERE,
                nat_gateway_id=gateway.id,
                opts=self._below,
            )
        return tables

    def _nat_gateways(self, public: dict[str, str]) -> dict[str, aws.ec2.NatGateway]:
        """Register an internet gateway, and in each of these zones a public subnet with a NAT gateway."""
        internet = aws.ec2.InternetGateway(
            f"{self._prefix}-internet", vpc_id=self.vpc_id, tags=self._tags("internet"), opts=self._below
        )
        table = self._route_table("public")
        way_out = aws.ec2.Route(
            f"{self._prefix}-public-internet",
            route_table_id=table.id,
            destination_cidr_block=_EVERYWHERE,
            gateway_id=internet.id,
            opts=self._below,
        )
        # A NAT gateway fails to start in a subnet that has no way out yet.
        after_routes = pulumi.ResourceOptions(parent=self, depends_on=[internet, way_out])
        gateways = {}
        for zone, cidr in public.items():
            subnet = self._subnet(f"public-{zone}", zone, cidr, table)
            address = aws.ec2.Eip(
                f"{self._prefix}-nat-{zone}", domain="vpc", tags=self._tags(f"nat-{zone}"), opts=after_routes
            )
            gateways[zone] = aws.ec2.NatGateway(
                f"{self._prefix}-nat-{zone}",
                allocation_id=address.id,
                subnet_id=subnet.id,
                connectivity_type="public",
                tags=self._tags(f"nat-{zone}"),
                opts=after_routes,
            )
        return gateways

    def _flow_logs(self, retention_days: int) -> None:
        """Register the record of all connections, kept in CloudWatch Logs."""
        args = self._wanted
        logs = aws.cloudwatch.LogGroup(
            f"{self._prefix}-flow-logs",
            name=f"/aws/vpc/{args.name}",
            retention_in_days=retention_days,
            kms_key_id=args.key_arn,
            tags=self._tags("flow-logs"),
            opts=self._below,
        )
        role, policy = service_role(
            f"{self._prefix}-flow-logs",
            ServiceRoleArgs(
                role_name=f"{args.name}-flow-logs",
                service="vpc-flow-logs.amazonaws.com",
                policy_name="write-flow-logs",
                statements=logs.arn.apply(lambda arn: [write_flow_logs(arn)]),
                account=args.account,
                # VPC user guide, "IAM role for publishing flow logs": against the confused deputy.
                source_arn=pulumi.Output.from_input(args.account).apply(
                    lambda account: f"arn:aws:ec2:{args.region}:{account}:vpc-flow-log/*"
                ),
                tags=self._tags("flow-logs"),
            ),
            parent=self,
        )
        aws.ec2.FlowLog(
            f"{self._prefix}-flow-logs",
            vpc_id=self.vpc_id,
            traffic_type="ALL",
            log_destination_type="cloud-watch-logs",
            log_destination=logs.arn,
            iam_role_arn=role.arn,
            tags=self._tags("flow-logs"),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[policy]),
        )


def write_flow_logs(log_group_arn: str) -> Statement:
    """Return the right to write flow logs into one log group, which exists already.

    The VPC user guide ("Publish flow logs to CloudWatch Logs") also lists creating and listing groups, which nothing
    does when the group is there. Without the group's streams (`:*`) the flow log stays in "Access error".
    """
    return allow(
        ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
        [log_group_arn, f"{log_group_arn}:*"],
    )


@dataclass(frozen=True, kw_only=True)
class AdoptedNetworkArgs:
    """The ids of a network that exists."""

    vpc_id: str
    subnet_ids: Sequence[str]
    """Private subnets in at least 3 zones."""
    route_table_ids: Sequence[str]
    """Route tables of these subnets: they get the route to S3."""


class AdoptedNetwork(pulumi.ComponentResource):
    """An existing VPC, with the outputs of one made here. Nothing is created.

    The outputs come out only after the subnets were looked up and found good, so nothing that needs the network is
    registered in one that cannot hold it: a workgroup would fail after minutes, with less to go by.
    """

    vpc_id: pulumi.Output[str]
    subnet_ids: pulumi.Output[list[str]]
    route_table_ids: pulumi.Output[list[str]]

    def __init__(self, name: str, args: AdoptedNetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        check_ids(args)
        super().__init__("goldlake:network:AdoptedNetwork", name, None, opts)
        lookup = pulumi.InvokeOptions(parent=self)
        subnets = [aws.ec2.get_subnet_output(id=subnet, opts=lookup) for subnet in args.subnet_ids]
        checked = pulumi.Output.all(*[subnet.apply(_found) for subnet in subnets]).apply(
            lambda found: check_subnets(args.vpc_id, found)
        )
        self.vpc_id = checked.apply(lambda _: args.vpc_id)
        self.subnet_ids = checked.apply(lambda _: list(args.subnet_ids))
        self.route_table_ids = checked.apply(lambda _: list(args.route_table_ids))
        _register_outputs(self, self)


@dataclass(frozen=True, kw_only=True)
class FoundSubnet:
    """A subnet as AWS describes it."""

    id: str
    vpc_id: str
    zone: str
    free_addresses: int


def _found(subnet: aws.ec2.GetSubnetResult) -> FoundSubnet:
    return FoundSubnet(
        id=subnet.id,
        vpc_id=subnet.vpc_id,
        zone=subnet.availability_zone,
        free_addresses=subnet.available_ip_address_count,
    )


def check_ids(args: AdoptedNetworkArgs) -> None:
    """Raise ConfigurationError for ids that are none, are named twice, or are too few."""
    faults = [
        f"{id!r} is no id of a {kind.replace('-', ' ')}"
        for kind, prefix, ids in (
            ("VPC", "vpc", [args.vpc_id]),
            ("subnet", "subnet", args.subnet_ids),
            ("route-table", "rtb", args.route_table_ids),
        )
        for id in ids
        if not re.fullmatch(rf"{prefix}-[0-9a-f]{{8}}(?:[0-9a-f]{{9}})?", id)
    ]
    every = [*args.subnet_ids, *args.route_table_ids]
    faults += [f"{id} is named twice" for id in dict.fromkeys(every) if every.count(id) > 1]
    if len(args.subnet_ids) < MIN_ZONES:
        faults.append(
            f"{len(args.subnet_ids)} subnets: at least {MIN_ZONES} are needed, in {MIN_ZONES} zones, "
            "since Redshift Serverless needs them"
        )
    if not args.route_table_ids:
        faults.append("no route table: the subnets reach S3 through a route in theirs")
    if faults:
        raise ConfigurationError(f"the network to adopt cannot be used: {'; '.join(faults)}")


def check_subnets(vpc_id: str, subnets: Sequence[FoundSubnet]) -> None:
    """Raise ConfigurationError when subnets lie in another VPC, in too few zones, or have too few free addresses."""
    faults = [f"{subnet.id} lies in {subnet.vpc_id}" for subnet in subnets if subnet.vpc_id != vpc_id]
    zones = sorted({subnet.zone for subnet in subnets})
    if len(zones) < MIN_ZONES:
        faults.append(
            f"the subnets lie in {len(zones)} zones ({', '.join(zones)}), and Redshift Serverless needs {MIN_ZONES}"
        )
    faults += [
        f"{subnet.id} in {subnet.zone} has {subnet.free_addresses} free addresses, "
        f"and a workgroup with its functions needs {MIN_FREE_ADDRESSES}"
        for subnet in subnets
        if subnet.free_addresses < MIN_FREE_ADDRESSES
    ]
    if faults:
        raise ConfigurationError(f"{vpc_id} cannot be adopted: {'; '.join(faults)}")


def _register_outputs(component: pulumi.ComponentResource, network: Network) -> None:
    outputs: dict[str, pulumi.Output[Any]] = {
        "vpcId": network.vpc_id,
        "subnetIds": network.subnet_ids,
        "routeTableIds": network.route_table_ids,
    }
    component.register_outputs(outputs)
