"""Unit `foundation`: the network."""

from __future__ import annotations

from components.naming import Names
from components.network import PrivateNetwork, PrivateNetworkArgs
from stacks.outputs import FoundationOutputs
from stacks.settings import Settings


def deploy(settings: Settings) -> FoundationOutputs:
    """Register the VPC with its subnets, routes, endpoints and security groups."""
    names = Names(settings.prefix, settings.stack)
    network = PrivateNetwork(
        "network",
        PrivateNetworkArgs(
            vpc_cidr=settings.vpc_cidr,
            zones=settings.zones,
            region=settings.region,
            tags=names.tags("network"),
        ),
    )
    return FoundationOutputs(
        vpc_id=network.vpc_id,
        subnet_ids=network.subnet_ids,
        function_security_group_id=network.function_security_group_id,
    )
