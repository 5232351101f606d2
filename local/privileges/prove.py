"""The proof: every recorded call is allowed, and every allowed call was recorded or has a reason."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local.privileges.evaluate import ALLOWED, Request, Statement, applies, decide, listed
from local.privileges.recording import Call
from local.privileges.stack import Role, Stack

REASONS = Path(__file__).with_name("reasons.yaml")
# IAM user guide, "The confused deputy problem".
_SOURCE_KEYS = {"aws:sourceaccount", "aws:sourcearn"}


@dataclass(frozen=True)
class Reason:
    """Why something that looks like too much is right."""

    roles: tuple[str, ...]
    actions: tuple[str, ...]
    reason: str
    resource: str = "*"

    def covers(self, role: str, action: str, resource: str) -> bool:
        """Return whether the reason speaks of this."""
        return (
            role in self.roles
            and any(fnmatch.fnmatchcase(action, item) for item in self.actions)
            and fnmatch.fnmatchcase(resource, self.resource)
        )


@dataclass(frozen=True)
class Reasons:
    """All reasons, by what they are for."""

    unused: tuple[Reason, ...] = ()
    any_resource: tuple[Reason, ...] = ()
    any_source: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Finding:
    """What speaks against least privilege."""

    rule: str
    """`refused`, `unused`, `any-action`, `any-resource` or `any-source`."""
    role: str
    message: str

    def to_dict(self) -> dict[str, str]:
        """Return the finding for JSON output."""
        return {"rule": self.rule, "role": self.role, "message": self.message}


@dataclass(frozen=True)
class Right:
    """One action on one resource that a role's policy allows."""

    role: str
    action: str
    resource: str
    """In the recording's terms."""
    condition: str
    calls: int
    """How many recorded calls need it."""
    reason: str
    """Why it is there without any; empty when there are some."""

    def to_dict(self) -> dict[str, Any]:
        """Return the right for JSON output."""
        return {
            "role": self.role,
            "action": self.action,
            "resource": self.resource,
            "condition": self.condition,
            "calls": self.calls,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Proof:
    """What was looked at, and what was found."""

    stack: str
    roles: int
    calls: int
    rights: tuple[Right, ...]
    any_resource: int
    """How many statements allow something on every resource."""
    findings: tuple[Finding, ...]

    @property
    def unrecorded(self) -> int:
        """How many rights stand on a written reason alone."""
        return sum(not right.calls for right in self.rights)

    def to_dict(self) -> dict[str, Any]:
        """Return the proof for JSON output."""
        return {
            "schema": "goldlake.iam/1",
            "stack": self.stack,
            "proven": not self.findings,
            "roles": self.roles,
            "calls": self.calls,
            "any_resource": self.any_resource,
            "rights": [right.to_dict() for right in self.rights],
            "findings": [finding.to_dict() for finding in self.findings],
        }


def read_reasons(path: Path = REASONS) -> Reasons:
    """Return the written reasons."""
    found = yaml.safe_load(path.read_text())
    kinds = {
        kind: tuple(
            Reason(tuple(item["roles"]), tuple(item["actions"]), item["reason"], item.get("resource", "*"))
            for item in found.get(kind) or ()
        )
        for kind in ("unused", "any_resource", "any_source")
    }
    return Reasons(**kinds)


def prove(stack: Stack, recorded: Iterable[Call], reasons: Reasons) -> Proof:
    """Return what the recording says about a stack's roles.

    Calls of roles that the stack has not, and of the other way to sign in, say nothing.
    """
    calls = [stack.resolved(call) for call in recorded if stack.sign_in in call.sign_in]
    by_role = {role.name: [call for call in calls if call.role == role.name] for role in stack.roles}
    rights = tuple(right for role in stack.roles for right in _rights(role, by_role[role.name], stack, reasons))
    findings = [finding for role in stack.roles for finding in _findings(role, by_role[role.name], reasons)]
    findings += [
        Finding("unused", right.role, f"{right.action} on {right.resource} was never needed, and no reason is written")
        for right in rights
        if not right.calls and not right.reason
    ]
    return Proof(
        stack=stack.name,
        roles=len(stack.roles),
        calls=sum(map(len, by_role.values())),
        rights=rights,
        any_resource=sum(_for_all(statement) for role in stack.roles for statement in role.statements),
        findings=tuple(findings),
    )


def request(call: Call) -> Request:
    """Return a call as IAM sees it. A `*` in it stands for itself: only a policy's own `*` takes it in."""
    return Request(call.action, call.resource, dict(call.context))


def _findings(role: Role, calls: Sequence[Call], reasons: Reasons) -> Iterator[Finding]:
    for call in calls:
        decision = decide(role.statements, request(call))
        if decision != ALLOWED:
            yield Finding("refused", role.name, f"{call.action} on {call.resource} was made: {decision}")
    for statement in role.statements:
        if statement["Effect"] != "Allow":
            continue
        actions = listed(statement.get("Action", "*"))
        for action in actions:
            if "*" in action or "?" in action:
                yield Finding("any-action", role.name, f"{action} is no single action")
        if _for_all(statement) and not _reasoned(reasons.any_resource, role.name, actions):
            yield Finding("any-resource", role.name, f"{', '.join(actions)} on * has no written reason")
    for trusted in role.trust:
        keys = {key.lower() for block in trusted.get("Condition", {}).values() for key in block}
        if not keys & _SOURCE_KEYS and not _reasoned(reasons.any_source, role.name, ["sts:AssumeRole"]):
            yield Finding("any-source", role.name, "its trust policy names neither aws:SourceAccount nor aws:SourceArn")


def _for_all(statement: Statement) -> bool:
    return statement["Effect"] == "Allow" and ("NotResource" in statement or "*" in listed(statement["Resource"]))


def _reasoned(reasons: Iterable[Reason], role: str, actions: Iterable[str]) -> bool:
    return all(any(reason.covers(role, action, "*") for reason in reasons) for action in actions)


def _rights(role: Role, calls: Sequence[Call], stack: Stack, reasons: Reasons) -> Iterator[Right]:
    """Return what a role may do: each action on each resource, with the calls that need it."""
    for statement in role.statements:
        if statement["Effect"] != "Allow":
            continue
        for action in listed(statement.get("Action", "*")):
            for resource in listed(statement.get("Resource", "*")):
                single = {**statement, "Action": [action], "Resource": [resource]}
                needed = sum(applies(single, request(call)) for call in calls)
                shown = stack.generic(resource)
                found = (item.reason for item in reasons.unused if item.covers(role.name, action, shown))
                why = "" if needed else next(found, "")
                yield Right(role.name, action, shown, condition_text(statement), needed, why)


def condition_text(statement: Statement) -> str:
    """Return a statement's conditions on one line: `s3:prefix like gold, gold/*`."""
    words = {"StringEquals": "is", "StringLike": "like", "ArnLike": "like", "ArnEquals": "is", "Bool": "is"}
    return "; ".join(
        f"{key} {words.get(operator, operator)} {', '.join(listed(values))}"
        for operator, block in statement.get("Condition", {}).items()
        for key, values in block.items()
    )
