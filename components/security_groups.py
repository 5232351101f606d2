"""Security groups: which paths there are inside the network, and no others."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pulumi
import pulumi_aws as aws

from runtime.errors import ConfigurationError

FUNCTION = "function"
WAREHOUSE = "warehouse"
ENDPOINT = "endpoint"
S3 = "s3"
"""As a peer: the addresses of S3 in the region, which AWS keeps in a prefix list."""

GROUPS = {
    FUNCTION: "Goldlake functions: no way in",
    WAREHOUSE: "Goldlake warehouse: from the functions",
    ENDPOINT: "Goldlake interface endpoints: HTTPS from the functions",
}
HTTPS = 443


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One way over TCP, seen from one of the groups."""

    name: str
    group: str
    direction: Literal["egress", "ingress"]
    peer: str
    """The other side: another group's name, `s3`, or an IPv4 range."""
    port: int
    description: str


def standard_rules(
    *, interface_endpoints: bool, warehouse_cidr: str | None = None, warehouse_port: int = 5439
) -> list[Rule]:
    """Return the rules of a stack: functions reach the warehouse, S3 and, if there are any, interface endpoints.

    Each path inside the network is two rules, one on either side. `warehouse_cidr` opens the way to a warehouse that is
    not part of the stack; its own group is then somebody else's.
    """
    rules = _path(WAREHOUSE, warehouse_port, "the warehouse")
    if interface_endpoints:
        rules += _path(ENDPOINT, HTTPS, "interface endpoints")
    rules.append(_egress("function-to-s3", S3, HTTPS, "S3 through the gateway endpoint"))
    if warehouse_cidr is not None:
        rules.append(
            _egress("function-to-existing-warehouse", warehouse_cidr, warehouse_port, "a warehouse outside the stack")
        )
    return rules


def _path(to: str, port: int, label: str) -> list[Rule]:
    """Return the two rules of the path from the functions to another group."""
    ingress = Rule(
        name=f"{to}-from-function",
        group=to,
        direction="ingress",
        peer=FUNCTION,
        port=port,
        description=f"{label} from the functions",
    )
    return [_egress(f"function-to-{to}", to, port, label), ingress]


def _egress(name: str, peer: str, port: int, label: str) -> Rule:
    return Rule(
        name=name,
        group=FUNCTION,
        direction="egress",
        peer=peer,
        port=port,
        description=f"functions to {label}",
    )


def reachable(rules: Sequence[Rule], source: str, destination: str, port: int) -> bool:
    """Return whether a connection gets through. `source` and `destination` are groups, ranges, or `s3`.

    It does when the source's egress and the destination's ingress both allow it; what is none of our groups allows
    everything. The members' addresses are not known here, so a rule for a range counts as one for every group:
    a path is rather reported than missed. Raises ConfigurationError for a side that is none of the three.
    """
    for side in (source, destination):
        if side not in GROUPS and side != S3 and _range(side) is None:
            raise ConfigurationError(f"{side!r} is none of {', '.join((*GROUPS, S3))}, and no IPv4 range")

    def allowed(group: str, direction: str, other: str) -> bool:
        return group not in GROUPS or any(
            rule.group == group and rule.direction == direction and rule.port == port and _covers(rule.peer, other)
            for rule in rules
        )

    return allowed(source, "egress", destination) and allowed(destination, "ingress", source)


def _covers(peer: str, other: str) -> bool:
    """Return whether a rule's peer may include `other`."""
    if peer == other:
        return True
    covered, wanted = _range(peer), _range(other)
    if covered is None:
        return False
    return other in GROUPS if wanted is None else covered.overlaps(wanted)


def _range(text: str) -> ipaddress.IPv4Network | None:
    try:
        return ipaddress.IPv4Network(text)
    except ValueError:
        return None


def check_rules(rules: Sequence[Rule]) -> None:
    """Raise ConfigurationError for rules that name unknown groups, no port, every address, or are named twice."""
    names = [rule.name for rule in rules]
    faults = [f"{name} is named twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    for rule in rules:
        peer = _range(rule.peer)
        if rule.group not in GROUPS:
            faults.append(f"{rule.name}: group {rule.group!r} is none of {', '.join(GROUPS)}")
        if peer is None and rule.peer not in (*GROUPS, S3):
            faults.append(f"{rule.name}: peer {rule.peer!r} is none of {', '.join((*GROUPS, S3))}, and no IPv4 range")
        if peer is not None and peer.prefixlen == 0:
            faults.append(f"{rule.name}: {rule.peer} is every address, and no path of the stack needs that")
        if not 1 <= rule.port <= 65535:
            faults.append(f"{rule.name}: port {rule.port} is not between 1 and 65535")
    if faults:
        raise ConfigurationError(f"security group rules cannot be used: {'; '.join(faults)}")


@dataclass(frozen=True, kw_only=True)
class SecurityGroupsArgs:
    """What the security groups can be told."""

    vpc_id: pulumi.Input[str]
    s3_prefix_list_id: pulumi.Input[str]
    rules: Sequence[Rule]
    name: str
    """First part of the groups' names: `<name>-function`."""
    tags: dict[str, str]


class SecurityGroups(pulumi.ComponentResource):
    """The groups of functions, warehouse and interface endpoints, closed but for the given rules.

    Every rule is a resource of its own: two groups that name each other inline are a cycle. A group without inline
    rules loses the open egress that EC2 gives it (`aws_security_group` of the provider).
    """

    function_group_id: pulumi.Output[str]
    warehouse_group_id: pulumi.Output[str]
    endpoint_group_id: pulumi.Output[str]

    def __init__(self, name: str, args: SecurityGroupsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        check_rules(args.rules)
        super().__init__("goldlake:network:SecurityGroups", name, None, opts)
        groups = {
            group: aws.ec2.SecurityGroup(
                f"{name}-{group}",
                name=f"{args.name}-{group}",
                description=description,
                vpc_id=args.vpc_id,
                tags={**args.tags, "Name": f"{args.name}-{group}"},
                opts=pulumi.ResourceOptions(parent=self),
            )
            for group, description in GROUPS.items()
        }
        for rule in args.rules:
            self._rule(name, args, rule, groups)
        self.function_group_id = groups[FUNCTION].id
        self.warehouse_group_id = groups[WAREHOUSE].id
        self.endpoint_group_id = groups[ENDPOINT].id
        self.register_outputs(
            {
                "functionGroupId": self.function_group_id,
                "warehouseGroupId": self.warehouse_group_id,
                "endpointGroupId": self.endpoint_group_id,
            }
        )

    def _rule(self, name: str, args: SecurityGroupsArgs, rule: Rule, groups: dict[str, aws.ec2.SecurityGroup]) -> None:
        peer, cidr = groups.get(rule.peer), _range(rule.peer)
        kind = aws.vpc.SecurityGroupEgressRule if rule.direction == "egress" else aws.vpc.SecurityGroupIngressRule
        kind(
            f"{name}-{rule.name}",
            security_group_id=groups[rule.group].id,
            description=rule.description,
            ip_protocol="tcp",
            from_port=rule.port,
            to_port=rule.port,
            referenced_security_group_id=peer.id if peer else None,
            prefix_list_id=args.s3_prefix_list_id if rule.peer == S3 else None,
            cidr_ipv4=None if cidr is None else str(cidr),
            tags={**args.tags, "Name": f"{args.name}-{rule.name}"},
            opts=pulumi.ResourceOptions(parent=self),
        )
