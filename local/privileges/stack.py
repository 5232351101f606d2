"""The roles of a stack, read from what the program registers: what each may do, and who may be it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.inprocess import stack_configuration
from local.paths import whole_stack
from local.privileges.evaluate import Statement, listed
from local.privileges.recording import Call, SignIn
from local.recording import ACCOUNT, Recording, Registered
from stacks.settings import NAMESPACE

_MADE_UP = re.compile(r"^arn:aws:made-up:[^:]*:[^:]*:(?P<name>[^:]+)(?P<rest>:.*)?$")


def _lambda_name(name: str) -> str:
    return f"arn:aws:lambda:{{region}}:{{account}}:function:{name}"


# What AWS makes the ARN of; an id that it makes up itself is replaced by the name, here and in the recording.
_ARNS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "aws:cloudwatch/logGroup:LogGroup": lambda i: f"arn:aws:logs:{{region}}:{{account}}:log-group:{i['name']}",
    "aws:lambda/function:Function": lambda i: _lambda_name(i["name"]),
    "aws:lambda/alias:Alias": lambda i: _lambda_name(f"{i['functionName']}:{i['name']}"),
    "aws:sqs/queue:Queue": lambda i: f"arn:aws:sqs:{{region}}:{{account}}:{i['name']}",
    "aws:sfn/stateMachine:StateMachine": lambda i: f"arn:aws:states:{{region}}:{{account}}:stateMachine:{i['name']}",
    "aws:secretsmanager/secret:Secret": lambda i: f"arn:aws:secretsmanager:{{region}}:{{account}}:secret:{i['name']}-*",
    "aws:redshiftserverless/workgroup:Workgroup": lambda i: (
        f"arn:aws:redshift-serverless:{{region}}:{{account}}:workgroup/{i['workgroupName']}"
    ),
    "aws:redshiftserverless/namespace:Namespace": lambda i: (
        f"arn:aws:redshift-serverless:{{region}}:{{account}}:namespace/{i['namespaceName']}"
    ),
    "aws:kms/key:Key": lambda i: "arn:aws:kms:{region}:{account}:key/<customer key>",
}


@dataclass(frozen=True)
class Role:
    """A role of the program."""

    name: str
    """Without the stack's prefix, as in the recording."""
    trust: tuple[Statement, ...]
    statements: tuple[Statement, ...]

    @property
    def services(self) -> list[str]:
        """The services that may assume it."""
        return [item for found in self.trust for item in listed(found["Principal"]["Service"])]


@dataclass(frozen=True)
class Stack:
    """The roles of a stack, and what its names are in the recording's terms."""

    name: str
    roles: tuple[Role, ...]
    sign_in: SignIn
    names: Mapping[str, str]
    """`silver` -> the bucket's name, and so on."""

    def resolved(self, call: Call) -> Call:
        """Return a recorded call with this stack's own names."""
        resource = call.resource
        for name, value in self.names.items():
            resource = resource.replace(f"{{{name}}}", value)
        return Call(call.role, call.action, resource, call.context, call.sign_in)

    def generic(self, resource: str) -> str:
        """Return a resource of a policy in the recording's terms, to be shown for any stack."""
        for name, value in sorted(self.names.items(), key=lambda item: -len(item[1])):
            if name != "prefix":
                resource = resource.replace(value, f"{{{name}}}")
        prefix = re.escape(self.names["prefix"])
        return re.sub(rf"(?<![\w-]){prefix}(?=[-/])", "{prefix}", resource)


def stack_of(project_dir: Path, name: str) -> Stack:
    """Return a stack's roles, those of imported units included. Raises ConfigurationError for an unknown stack."""
    settings = stack_configuration(project_dir, name, {})
    return read_stack(name, whole_stack(project_dir, name), settings)


def read_stack(name: str, recording: Recording, settings: Mapping[str, str]) -> Stack:
    """Return the roles of what was registered with these settings."""
    prefix = settings[f"{NAMESPACE}:prefix"]
    region = settings["aws:region"]
    buckets = {
        found.name.removeprefix("lake-"): str(found.inputs["bucket"])
        for found in recording.resources
        if found.type == "aws:s3/bucket:Bucket" and found.name.startswith("lake-")
    }
    given = settings.get(f"{NAMESPACE}:silverBucket", "")
    names = {**buckets, **({"silver": given} if given else {}), "prefix": prefix, "account": ACCOUNT, "region": region}
    by_urn = {found.urn: found for found in recording.resources}
    policies: dict[str, list[Statement]] = {}
    for found in recording.resources:
        if found.type == "aws:iam/rolePolicy:RolePolicy":
            (role,) = (urn for urn, inputs in found.dependencies.items() if "role" in inputs)
            sources = {by_urn[urn].name: by_urn[urn] for urn in sorted(_sources(found, by_urn))}
            policies.setdefault(role, []).extend(
                _resolved(statement, sources, names) for statement in json.loads(found.inputs["policy"])["Statement"]
            )
    roles = [
        Role(
            str(found.inputs["name"]).removeprefix(f"{prefix}-"),
            tuple(json.loads(found.inputs["assumeRolePolicy"])["Statement"]),
            tuple(policies.get(found.urn, [])),
        )
        for found in recording.resources
        if found.type == "aws:iam/role:Role"
    ]
    sign_in: SignIn = "password" if settings[f"{NAMESPACE}:signIn"] == "password" else "iam"
    return Stack(name, tuple(sorted(roles, key=lambda role: role.name)), sign_in, names)


def _sources(policy: Registered, by_urn: Mapping[str, Registered]) -> set[str]:
    """Return the resources whose ARNs can be in a policy. What the stack only adopts is not registered."""
    return {urn for urn in policy.dependencies if urn in by_urn and by_urn[urn].type in _ARNS}


def _resolved(statement: Statement, sources: Mapping[str, Registered], names: Mapping[str, str]) -> Statement:
    """Return a statement with the ARNs that AWS will give, in place of the recording's made-up ones."""
    return {
        **statement,
        "Resource": [_arn(item, sources, names) for item in listed(statement["Resource"])],
    }


def _arn(resource: str, sources: Mapping[str, Registered], names: Mapping[str, str]) -> str:
    made_up = _MADE_UP.match(resource)
    if made_up is None or made_up["name"] not in sources:
        return resource
    source = sources[made_up["name"]]
    arn = _ARNS[source.type](source.inputs).format(region=names["region"], account=names["account"])
    return arn + (made_up["rest"] or "")
