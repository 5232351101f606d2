"""Roles may do what they need and nothing else, for whom they are meant and nobody else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from policies.model import (
    DOCUMENTS,
    IDENTITY_DOCUMENTS,
    RESOURCE_DOCUMENTS,
    Finding,
    Resource,
    Rule,
    condition_keys,
    items,
    principals,
    short,
    statements,
)

ROLE = "aws:iam/role:Role"
ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"
ATTACHMENT = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
# IAM user guide, "AWS managed policies for job functions", and those that give a whole service.
_BROAD = re.compile(r".*/(AdministratorAccess|PowerUserAccess|IAMFullAccess|Amazon\w+FullAccess|AWS\w+FullAccess)")
# `arn:aws:<service>:<region>:<account>:<kind>/*` is every resource of a kind; a bucket's ARN has no kind.
_ALL_OF_A_KIND = re.compile(
    r"arn:[^:]*:[^:]*:[^:]*:[^:]*:"
    r"(alias|database|endpoint|function|instance|key|log-group|network-interface|role|secret|security-group|"
    r"stateMachine|subnet|table|user|vpc|workgroup)[/:]\*.*"
)
# Actions that are allowed on `*`, each with the reason why no narrower resource does. Nothing else is.
WITHOUT_RESOURCE: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeSubnets",
        ),
        "EC2's Describe actions take no resource (Service Authorization Reference, Amazon EC2)",
    ),
    **dict.fromkeys(
        (
            "ec2:AssignPrivateIpAddresses",
            "ec2:CreateNetworkInterface",
            "ec2:DeleteNetworkInterface",
            "ec2:UnassignPrivateIpAddresses",
        ),
        "Lambda puts the function into the network; the interface's id exists only afterwards, and Lambda refuses a "
        "role that may delete fewer (Lambda developer guide, “Required IAM permissions” of VPC access)",
    ),
    **dict.fromkeys(
        (
            "logs:CreateLogDelivery",
            "logs:DeleteLogDelivery",
            "logs:DescribeLogGroups",
            "logs:DescribeResourcePolicies",
            "logs:GetLogDelivery",
            "logs:ListLogDeliveries",
            "logs:PutResourcePolicy",
            "logs:UpdateLogDelivery",
        ),
        "Step Functions sets up the delivery of its log by account-wide calls that take no resource (Step Functions "
        "developer guide, “Logging using CloudWatch Logs”)",
    ),
}


def _actions(statement: Mapping[str, Any]) -> list[str]:
    return [str(action) for action in items(statement.get("Action"))]


def no_wildcard_action(resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """Actions are named one by one. Denying all of a service is no wildcard: it takes away."""
    for statement in statements(resource):
        wild = [action for action in _actions(statement) if "*" in action or "?" in action]
        if wild:
            yield f"allows {', '.join(wild)}"


def no_wildcard_resource(resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """Resources are named, unless AWS takes none for that action."""
    for statement in statements(resource):
        wild = [str(found) for found in items(statement.get("Resource")) if is_wildcard(str(found))]
        wanting = [action for action in _actions(statement) if action not in WITHOUT_RESOURCE]
        if wild and wanting:
            yield f"allows {short(wanting)} on {', '.join(wild)}"


def is_wildcard(arn: str) -> bool:
    """Return whether an ARN names everything, all buckets, or all resources of a kind."""
    return bool(re.fullmatch(r"[*?]+|arn:[^:]*:s3:::\*.*", arn) or re.fullmatch(_ALL_OF_A_KIND, arn))


def no_negation(resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """Allowing all but some allows whatever AWS thinks of next."""
    for statement in statements(resource):
        found = sorted({"NotAction", "NotResource", "NotPrincipal"} & set(statement))
        if found:
            yield f"allows by {', '.join(found)}"


def trust_is_limited(role: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """A role is assumed by one service, for this account's resources; Lambda alone sends no source."""
    for statement in statements(role):
        asked = condition_keys(statement)
        for kind, name in principals(statement):
            if kind == "Service":
                if name != "lambda.amazonaws.com" and not asked & {"aws:sourceaccount", "aws:sourcearn"}:
                    yield f"is assumed by {name} for any account: the confused deputy problem"
            elif not asked:
                yield f"is assumed by {name} without a condition"


def services_say_for_whom(resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """A service that a resource's policy allows acts for this account's resources only."""
    for statement in statements(resource):
        services = [name for kind, name in principals(statement) if kind == "Service"]
        if services and not statement.get("Condition"):
            yield f"allows {', '.join(services)} for any account"


def no_broad_policy(resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """No role gets a policy of AWS's that gives a whole service, or all."""
    arns = [resource.inputs.get("policyArn")] if resource.type == ATTACHMENT else []
    arns += items(resource.inputs.get("managedPolicyArns"))
    for arn in arns:
        if re.fullmatch(_BROAD, str(arn)):
            yield f"gets {str(arn).rsplit('/', 1)[-1]}"


RULES = (
    Rule(
        id="no-wildcard-action",
        title="Policies name their actions",
        severity="error",
        remediation="Name each action that is needed; `goldlake iam prove` lists those that are used.",
        source="Security Hub IAM.1, IAM.21; CIS AWS Foundations 3.0, 1.16",
        types=frozenset(DOCUMENTS),
        check=no_wildcard_action,
    ),
    Rule(
        id="no-wildcard-resource",
        title="Policies name their resources",
        severity="error",
        remediation="Name the ARN; where AWS takes none, write why into policies/identity.py (WITHOUT_RESOURCE).",
        source="IAM user guide, “Apply least-privilege permissions”; Service Authorization Reference",
        types=IDENTITY_DOCUMENTS | {ENDPOINT},
        check=no_wildcard_resource,
    ),
    Rule(
        id="no-negation",
        title="Policies allow nothing by exclusion",
        severity="error",
        remediation="Write Action, Resource and Principal instead of NotAction, NotResource and NotPrincipal.",
        source="IAM user guide, “NotAction with Allow”",
        types=frozenset(DOCUMENTS),
        check=no_negation,
    ),
    Rule(
        id="trust-limited",
        title="Roles trust one service, for this account",
        severity="error",
        remediation="Use components.policies.trust, which adds aws:SourceAccount and aws:SourceArn.",
        source="IAM user guide, “The confused deputy problem”",
        types=frozenset({ROLE}),
        check=trust_is_limited,
    ),
    Rule(
        id="service-source",
        title="Services that a policy allows act for this account",
        severity="warning",
        remediation="Add a condition on aws:SourceAccount or aws:SourceArn, where the service sends it.",
        source="IAM user guide, “The confused deputy problem”",
        types=RESOURCE_DOCUMENTS,
        check=services_say_for_whom,
    ),
    Rule(
        id="no-broad-policy",
        title="No role has a policy for a whole service",
        severity="error",
        remediation="Write a policy of the actions that are needed, with components.policies.allow.",
        source="Security Hub IAM.1; IAM user guide, “AWS managed policies”",
        types=frozenset({ROLE, ATTACHMENT}),
        check=no_broad_policy,
    ),
)
