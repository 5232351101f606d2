"""A private network: a VPC with one subnet per zone, and no way to or from the internet."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from runtime.errors import ConfigurationError

# A workgroup takes about 37 addresses a subnet, AWS itself 5, and functions come on top.
MIN_ADDRESSES_PER_SUBNET = 64


def plan_subnets(vpc_cidr: str, zones: Sequence[str]) -> dict[str, str]:
    """Return a subnet range per zone: equal parts of the VPC's range, in the order of `zones`.

    Half of the parts stay free for later subnets. Raises ConfigurationError with fewer than 3 zones
    (Redshift Serverless needs subnets in 3) or when a part has fewer than 64 addresses.
    """
    if len(zones) < 3:
        raise ConfigurationError(
            f"{len(zones)} availability zones ({', '.join(zones) or 'none'}): "
            "at least 3 are needed, since Redshift Serverless needs subnets in 3"
        )
    network = ipaddress.IPv4Network(vpc_cidr)
    extra_bits = (2 * len(zones) - 1).bit_length()
    prefix = network.prefixlen + extra_bits
    if prefix > 26:
        raise ConfigurationError(
            f"{vpc_cidr} gives each of {len(zones)} zones fewer than {MIN_ADDRESSES_PER_SUBNET} addresses: "
            "take a larger range"
        )
    return {zone: str(subnet) for zone, subnet in zip(zones, network.subnets(new_prefix=prefix), strict=False)}


@dataclass(frozen=True, kw_only=True)
class PrivateNetworkArgs:
    """What a private network can be told."""

    vpc_cidr: str
    zones: Sequence[str]
    region: str
    tags: dict[str, str]


class PrivateNetwork(pulumi.ComponentResource):
    """A VPC with a private subnet per zone, one route table, and endpoints to S3 and Secrets Manager.

    The functions' security group has no ingress, and its egress goes to S3 and into the VPC only; each rule is a
    resource of its own, since two groups that name each other inline are a cycle.
    """

    vpc_id: pulumi.Output[str]
    subnet_ids: pulumi.Output[list[str]]
    route_table_id: pulumi.Output[str]
    function_security_group_id: pulumi.Output[str]

    def __init__(self, name: str, args: PrivateNetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        plan = plan_subnets(args.vpc_cidr, args.zones)
        super().__init__("goldlake:network:PrivateNetwork", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        vpc = aws.ec2.Vpc(
            name,
            cidr_block=args.vpc_cidr,
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags=args.tags,
            opts=child,
        )
        # Adopting the default group without rules closes it: AWS creates it open between its members.
        aws.ec2.DefaultSecurityGroup(f"{name}-default", vpc_id=vpc.id, tags=args.tags, opts=child)
        routes = aws.ec2.RouteTable(f"{name}-private", vpc_id=vpc.id, tags=args.tags, opts=child)
        subnets = []
        for zone, cidr in plan.items():
            subnet = aws.ec2.Subnet(
                f"{name}-{zone}",
                vpc_id=vpc.id,
                availability_zone=zone,
                cidr_block=cidr,
                map_public_ip_on_launch=False,
                tags={**args.tags, "Name": f"{args.tags['Name']}-{zone}"},
                opts=child,
            )
            aws.ec2.RouteTableAssociation(
                f"{name}-{zone}-routes", subnet_id=subnet.id, route_table_id=routes.id, opts=child
            )
            subnets.append(subnet)
        s3 = aws.ec2.VpcEndpoint(
            f"{name}-s3",
            vpc_id=vpc.id,
            service_name=f"com.amazonaws.{args.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[routes.id],
            tags=args.tags,
            opts=child,
        )
        functions = aws.ec2.SecurityGroup(
            f"{name}-functions",
            description="Goldlake functions: no way in",
            vpc_id=vpc.id,
            tags=args.tags,
            opts=child,
        )
        aws.vpc.SecurityGroupEgressRule(
            f"{name}-functions-s3",
            security_group_id=functions.id,
            description="S3 through the gateway endpoint",
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            prefix_list_id=s3.prefix_list_id,
            opts=child,
        )
        for label, port in (("endpoints", 443), ("warehouse", 5439)):
            aws.vpc.SecurityGroupEgressRule(
                f"{name}-functions-{label}",
                security_group_id=functions.id,
                description=f"{label} inside the VPC",
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                cidr_ipv4=args.vpc_cidr,
                opts=child,
            )
        endpoints = aws.ec2.SecurityGroup(
            f"{name}-endpoints",
            description="Goldlake interface endpoints: HTTPS from the functions",
            vpc_id=vpc.id,
            tags=args.tags,
            opts=child,
        )
        aws.vpc.SecurityGroupIngressRule(
            f"{name}-endpoints-functions",
            security_group_id=endpoints.id,
            description="HTTPS from the functions",
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            referenced_security_group_id=functions.id,
            opts=child,
        )
        # dbt and export read the warehouse's login from inside the VPC. One zone: each costs by the hour.
        aws.ec2.VpcEndpoint(
            f"{name}-secretsmanager",
            vpc_id=vpc.id,
            service_name=f"com.amazonaws.{args.region}.secretsmanager",
            vpc_endpoint_type="Interface",
            subnet_ids=[subnets[0].id],
            security_group_ids=[endpoints.id],
            private_dns_enabled=True,
            tags=args.tags,
            opts=child,
        )
        self.vpc_id = vpc.id
        self.subnet_ids = pulumi.Output.all(*[subnet.id for subnet in subnets]).apply(list)
        self.route_table_id = routes.id
        self.function_security_group_id = functions.id
        self.register_outputs(
            {
                "vpcId": self.vpc_id,
                "subnetIds": self.subnet_ids,
                "routeTableId": self.route_table_id,
                "functionSecurityGroupId": self.function_security_group_id,
            }
        )
