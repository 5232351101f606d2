"""Rules of security groups, and whether one opens more than another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local.preview.snapshot import Entry
from local.preview.widening import network_within

_TYPES = {
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": "ingress",
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": "egress",
}
_OTHER_END = (
    "cidrIpv4",
    "cidrIpv6",
    "prefixListId",
    "referencedSecurityGroupId",
    "cidrBlocks",
    "ipv6CidrBlocks",
    "prefixListIds",
    "securityGroups",
    "sourceSecurityGroupId",
)
_PROTOCOLS = {"6": "tcp", "17": "udp", "1": "icmp", "all": "-1"}


@dataclass(frozen=True)
class Rule:
    """One path into or out of a security group."""

    group: str
    direction: str
    protocol: str
    """`-1` for all."""
    first: int
    last: int
    other: str
    """The other end: a CIDR block, a group or a prefix list."""

    def covers(self, narrow: Rule) -> bool:
        """Return whether all that `narrow` lets through goes through this rule."""
        if (self.group, self.direction) != (narrow.group, narrow.direction):
            return False
        if self.other != narrow.other and not network_within(narrow.other, self.other):
            return False
        if self.protocol == "-1":
            return True
        return self.protocol == narrow.protocol and self.first <= narrow.first and narrow.last <= self.last

    def __str__(self) -> str:
        ports = "all ports" if (self.first, self.last) == (0, 65535) else f"{self.first}-{self.last}"
        if self.first == self.last:
            ports = f"port {self.first}"
        what = "everything" if self.protocol == "-1" else f"{self.protocol} {ports}"
        return f"{what} {'from' if self.direction == 'ingress' else 'to'} {self.other}"


def opened(old: Sequence[Entry], new: Sequence[Entry]) -> Iterator[tuple[Entry, str]]:
    """Yield each resource that opens a path which no old rule of the same group has, and that path."""
    before = [rule for entry in old for rule in rules(entry)]
    for entry in new:
        for rule in rules(entry):
            if not any(known.covers(rule) for known in before):
                yield entry, f"opens {rule}"


def rules(entry: Entry) -> Iterator[Rule]:
    """Yield the rules in a resource: a rule by itself, or those inside of a group."""
    inputs = entry.inputs
    if entry.type in _TYPES:
        yield from _rules(inputs, str(inputs.get("securityGroupId")), _TYPES[entry.type])
    elif entry.type == "aws:ec2/securityGroupRule:SecurityGroupRule":
        yield from _rules(inputs, str(inputs.get("securityGroupId")), str(inputs.get("type")))
    elif entry.type in ("aws:ec2/securityGroup:SecurityGroup", "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup"):
        for direction in ("ingress", "egress"):
            for inline in inputs.get(direction) or ():
                yield from _rules(inline, entry.key, direction)


def _rules(inputs: Mapping[str, Any], group: str, direction: str) -> Iterator[Rule]:
    protocol = str(inputs.get("ipProtocol", inputs.get("protocol", "-1"))).lower()
    first, last = _port(inputs.get("fromPort"), 0), _port(inputs.get("toPort"), 65535)
    if protocol not in ("tcp", "udp", "6", "17") and (first, last) == (0, 0):
        # How AWS's older rules say all ports.
        last = 65535
    ends = [end for name in _OTHER_END for end in _list(inputs.get(name))]
    for end in [*ends, *(["itself"] if inputs.get("self") else [])]:
        yield Rule(group, direction, _PROTOCOLS.get(protocol, protocol), first, last, str(end))


def _port(value: Any, every: int) -> int:
    return every if value is None or int(value) < 0 else int(value)


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
