"""A role that one AWS service assumes, with one inline policy that says all it may do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.policies import Statement, document, trust


@dataclass(frozen=True, kw_only=True)
class ServiceRoleArgs:
    """What a service's role can be told."""

    role_name: str
    service: str
    """The service's principal, e.g. lambda.amazonaws.com."""
    policy_name: str
    statements: pulumi.Input[Sequence[Statement]]
    account: pulumi.Input[str]
    tags: dict[str, str]
    source_arn: pulumi.Input[str] = ""
    """The one resource of the service that may use the role; any of this account without it."""


def service_role(
    name: str, args: ServiceRoleArgs, *, parent: pulumi.Resource
) -> tuple[aws.iam.Role, aws.iam.RolePolicy]:
    """Register `<name>-role` and `<name>-policy` below `parent` and return them.

    What uses the role should depend on the policy: without it, its first calls are refused.
    """
    child = pulumi.ResourceOptions(parent=parent)
    trusted = pulumi.Output.all(args.account, args.source_arn)
    role = aws.iam.Role(
        f"{name}-role",
        name=args.role_name,
        assume_role_policy=pulumi.Output.json_dumps(trusted.apply(lambda found: trust(args.service, *found))),
        tags=args.tags,
        opts=child,
    )
    statements = pulumi.Output.from_input(args.statements)
    policy = aws.iam.RolePolicy(
        f"{name}-policy",
        name=args.policy_name,
        role=role.id,
        policy=pulumi.Output.json_dumps(statements.apply(lambda found: document(*found))),
        opts=child,
    )
    return role, policy
