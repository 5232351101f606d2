"""Rotation of a secret entry: the schedule, and who may do the work."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.policies import Statement, allow
from runtime.errors import ConfigurationError

# Secrets Manager API reference, RotationRulesType, AutomaticallyAfterDays.
ROTATION_DAYS = (1, 1000)


def rotate_secret(secret_arn: str) -> Statement:
    """Return what a rotation function needs of the one entry that it rotates.

    Secrets Manager user guide, "Lambda rotation function execution role permissions". The new password is made in the
    function, so GetRandomPassword, which takes no resource but `*`, is not needed.
    """
    return allow(
        [
            "secretsmanager:DescribeSecret",
            "secretsmanager:GetSecretValue",
            "secretsmanager:PutSecretValue",
            "secretsmanager:UpdateSecretVersionStage",
        ],
        [secret_arn],
    )


@dataclass(frozen=True, kw_only=True)
class RotatedSecretArgs:
    """What a rotation can be told."""

    secret_arn: pulumi.Input[str]
    function_arn: pulumi.Input[str]
    """A Lambda function that takes Secrets Manager's four steps: create, set, test and finish the new value."""
    days: int
    account: pulumi.Input[str]


class RotatedSecret(pulumi.ComponentResource):
    """A schedule on which Secrets Manager has a function rotate an entry, and its right to call the function."""

    secret_arn: pulumi.Output[str]

    def __init__(self, name: str, args: RotatedSecretArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        least, most = ROTATION_DAYS
        if not least <= args.days <= most:
            raise ConfigurationError(
                f"{name} is rotated every {args.days} days: Secrets Manager takes {least} to {most}"
            )
        super().__init__("goldlake:secrets:RotatedSecret", name, None, opts)
        permission = aws.lambda_.Permission(
            f"{name}-rotator",
            action="lambda:InvokeFunction",
            function=args.function_arn,
            principal="secretsmanager.amazonaws.com",
            source_arn=args.secret_arn,
            source_account=args.account,
            opts=pulumi.ResourceOptions(parent=self),
        )
        rotation = aws.secretsmanager.SecretRotation(
            f"{name}-rotation",
            secret_id=args.secret_arn,
            rotation_lambda_arn=args.function_arn,
            rotation_rules=aws.secretsmanager.SecretRotationRotationRulesArgs(automatically_after_days=args.days),
            # A deployment changes no password: the first rotation comes with the schedule. Secrets Manager only tries
            # the function's testSecret with the present one.
            rotate_immediately=False,
            # Secrets Manager refuses a function that it may not invoke.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[permission]),
        )
        self.secret_arn = rotation.secret_id
        self.register_outputs({"secretArn": self.secret_arn})
