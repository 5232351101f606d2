"""Which way each AWS call of the deployed functions takes, read from what the program registers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.inprocess import stack_configuration
from local.recording import Recording, record_stack
from stacks.settings import NAMESPACE, UNITS

# Calls that a role allows and the function itself does not make, or not from inside the network.
_MADE_BY_AWS: Mapping[str, str] = {
    "ec2": "made by Lambda, to put the function into the network",
    "logs": "delivered by Lambda itself, which needs no endpoint for it",
    "sqs": "sent by Lambda itself, after an asynchronous call failed",
    "kms": "made by the service that keeps the data, on the caller's behalf",
}


@dataclass(frozen=True)
class CallPath:
    """One call of a function, and how it reaches AWS."""

    function: str
    call: str
    private: bool
    """Whether it stays inside the network, or inside AWS's own services."""
    reachable: bool
    path: str

    def to_dict(self) -> dict[str, Any]:
        """Return the path for JSON output."""
        return {
            "function": self.function,
            "call": self.call,
            "private": self.private,
            "reachable": self.reachable,
            "path": self.path,
        }


@dataclass(frozen=True)
class _Endpoint:
    kind: str
    allowed: frozenset[str]
    """The actions that its policy lets through."""


def whole_stack(project_dir: Path, stack: str) -> Recording:
    """Return what a stack registers, as if it held the units that it imports: the network may be in another one.

    Raises ConfigurationError for a stack without a file.
    """
    configuration = stack_configuration(project_dir, stack, {})
    units = [*json.loads(configuration[f"{NAMESPACE}:units"]), *json.loads(configuration[f"{NAMESPACE}:imports"])]
    whole = json.dumps([unit for unit in UNITS if unit in units])
    return record_stack(project_dir, stack, settings={"units": whole, "imports": "{}"})


def call_paths(recording: Recording) -> list[CallPath]:
    """Return the path of every call that the functions' roles allow, and of the connection to the warehouse."""
    endpoints = {
        inputs["serviceName"].rsplit(".", 1)[-1]: _Endpoint(
            inputs["vpcEndpointType"].lower(), _allowed(inputs["policy"])
        )
        for inputs in recording.of(":VpcEndpoint").values()
    }
    nat = bool(recording.of(":NatGateway"))
    return [
        path
        for name, function in sorted(recording.of("lambda/function:Function").items())
        for path in _of_function(name, function, recording, endpoints, nat=nat)
    ]


def _of_function(
    name: str, function: Mapping[str, Any], recording: Recording, endpoints: Mapping[str, _Endpoint], *, nat: bool
) -> Iterator[CallPath]:
    inside = bool(function.get("vpcConfig"))
    for action in _actions(name, recording):
        yield _path(name, action, inside=inside, endpoints=endpoints, nat=nat)
    if inside and "REDSHIFT_HOST" in (function["environment"].get("variables") or {}):
        yield CallPath(
            name, "connection to the warehouse", True, True, "inside the network, by the security groups' rule"
        )


def _actions(function: str, recording: Recording) -> list[str]:
    """Return what the policies that a function waits for allow."""
    policies = recording.of("iam/rolePolicy:RolePolicy")
    waited_for = recording.resource(function, ":Function").depends_on
    return sorted({action for name in waited_for & policies.keys() for action in _allowed(policies[name]["policy"])})


def _allowed(policy: str) -> frozenset[str]:
    """Return the actions that a policy document allows."""
    statements = json.loads(policy)["Statement"]
    return frozenset(action for found in statements if found["Effect"] == "Allow" for action in found["Action"])


def _path(name: str, action: str, *, inside: bool, endpoints: Mapping[str, _Endpoint], nat: bool) -> CallPath:
    service = action.split(":", 1)[0]
    if service in _MADE_BY_AWS:
        return CallPath(name, action, True, True, _MADE_BY_AWS[service])
    if not inside:
        return CallPath(name, action, False, True, "AWS's public endpoint: the function is outside the network")
    if service in endpoints:
        endpoint = endpoints[service]
        path = f"{endpoint.kind} endpoint {service}"
        # The service's name leads to the endpoint, NAT or not.
        return CallPath(name, action, True, action in endpoint.allowed, path + _refusal(action, endpoint))
    if nat:
        return CallPath(name, action, False, True, "AWS's public endpoint, through the NAT gateway")
    return CallPath(name, action, False, False, f"none: there is no endpoint {service}, and no NAT gateway")


def _refusal(action: str, endpoint: _Endpoint) -> str:
    return "" if action in endpoint.allowed else ", whose policy does not let it through"
