"""What a rule is, what it looks at, and the few questions that many rules ask.

A rule is a pure function over a resource's type and inputs, under the provider's own camelCase names; one that has to
look at other resources gets them all. During a preview of a new stack the engine does not know everything yet: what is
not known is `UNKNOWN`, and no rule may complain of it. The engine asks again during the update, when it is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Severity = Literal["error", "warning"]
# The SDK's own mark of a text that is not known yet; any other of its marks is turned into this one.
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


@dataclass(frozen=True)
class Resource:
    """A resource as a stack registers it."""

    type: str
    name: str
    inputs: Mapping[str, Any]
    protect: bool = False
    urn: str = ""
    uses: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Name of an input -> URNs of the resources that it comes from."""
    secret_inputs: frozenset[str] = frozenset()
    """Names of the inputs that are marked as secrets, where that can be told."""

    @property
    def stack(self) -> str:
        """The stack that it belongs to: urn:pulumi:<stack>::<project>::<types>::<name>."""
        return self.urn.split("::", 1)[0].removeprefix("urn:pulumi:")


Finding: TypeAlias = str
"""What is wrong with a resource, as the end of a sentence that its name begins."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule, and what people are told about it."""

    id: str
    title: str
    severity: Severity
    remediation: str
    """What to do about it."""
    source: str
    """Where the rule is from: a control of AWS Security Hub, or a page."""
    types: frozenset[str]
    """Type tokens that it looks at; empty for all."""
    check: Callable[[Resource, Sequence[Resource]], Iterator[Finding]]
    """Gives what is wrong with a resource; the second argument is empty unless `whole_stack`."""
    whole_stack: bool = False
    """Whether it has to see the other resources."""

    def findings(self, resource: Resource, everything: Sequence[Resource] = ()) -> list[Finding]:
        """Return what is wrong with a resource; nothing for a type that the rule does not look at."""
        if self.types and resource.type not in self.types:
            return []
        return list(self.check(resource, everything if self.whole_stack else ()))


def known(value: Any) -> bool:
    """Return whether a value is known by now."""
    return not (isinstance(value, str) and value == UNKNOWN)


def is_other_than(value: Any, *allowed: Any) -> bool:
    """Return whether a value is known and none of the allowed ones. What is not set is None."""
    return known(value) and value not in allowed


def at(inputs: Any, *path: str | int) -> Any:
    """Return the value at a path of nested inputs: None where something on the way is not set, UNKNOWN if unknown."""
    found = inputs
    for step in path:
        if not known(found):
            return UNKNOWN
        if isinstance(step, int):
            found = found[step] if isinstance(found, list) and len(found) > step else None
        else:
            found = found.get(step) if isinstance(found, Mapping) else None
    return found


def items(value: Any) -> list[Any]:
    """Return a list as it is, nothing for None or what is not known, and one value as a list of it."""
    if value is None or not known(value):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def partners(resource: Resource, everything: Sequence[Resource], kind: str, name: str) -> list[Resource]:
    """Return the resources of a type whose input `name` names this resource, as an encryption names its bucket."""
    return [other for other in everything if other.type == kind and _names(other, name, resource)]


def _names(other: Resource, name: str, resource: Resource) -> bool:
    if resource.urn and resource.urn in other.uses.get(name, ()):
        return True
    given = other.inputs.get(name)
    # Named by its physical name instead: an output that is a plain text has no source.
    return given is not None and known(given) and given in (resource.inputs.get(name), resource.inputs.get("name"))


# Inputs that hold a policy document, by type.
DOCUMENTS: Mapping[str, str] = {
    "aws:iam/role:Role": "assumeRolePolicy",
    "aws:iam/rolePolicy:RolePolicy": "policy",
    "aws:iam/policy:Policy": "policy",
    "aws:s3/bucketPolicy:BucketPolicy": "policy",
    "aws:sqs/queuePolicy:QueuePolicy": "policy",
    "aws:sns/topicPolicy:TopicPolicy": "policy",
    "aws:secretsmanager/secretPolicy:SecretPolicy": "policy",
    "aws:kms/key:Key": "policy",
    "aws:ec2/vpcEndpoint:VpcEndpoint": "policy",
}
# What a principal may do: here `*` as the resource is every resource there is.
IDENTITY_DOCUMENTS = frozenset({"aws:iam/rolePolicy:RolePolicy", "aws:iam/policy:Policy"})
# What may be done with a resource, by whom. In the policy of a key or a secret `*` is that key or secret.
RESOURCE_DOCUMENTS = frozenset(DOCUMENTS) - IDENTITY_DOCUMENTS - {"aws:iam/role:Role"}


def statements(resource: Resource, effect: Literal["Allow", "Deny"] = "Allow") -> list[Mapping[str, Any]]:
    """Return the statements of a resource's policy document; none while it is not known, or is no document."""
    text = resource.inputs.get(DOCUMENTS.get(resource.type, ""))
    if isinstance(text, str):
        try:
            text = json.loads(text)
        except ValueError:
            return []
    return [found for found in items(at(text, "Statement")) if isinstance(found, Mapping) and found["Effect"] == effect]


def principals(statement: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the principals of a statement as (kind, name): ("Service", "lambda.amazonaws.com"); `*` is an AWS one."""
    given = statement.get("Principal", {})
    if not isinstance(given, Mapping):
        given = {"AWS": given}
    return [(kind, str(name)) for kind, names in given.items() for name in items(names)]


def condition_keys(statement: Mapping[str, Any]) -> set[str]:
    """Return the keys that a statement's conditions ask for, in lower case: IAM does not tell cases apart."""
    return {key.lower() for keys in statement.get("Condition", {}).values() for key in keys}


def short(actions: Sequence[str]) -> str:
    """Return the first three of some names, and how many more there are."""
    more = f" and {len(actions) - 3} more" if len(actions) > 3 else ""
    return ", ".join(actions[:3]) + more
