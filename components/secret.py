"""A Secrets Manager entry without a value: `goldlake secrets seed` puts the value, Pulumi never sees it."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True, kw_only=True)
class SecretEntryArgs:
    """What a secret entry can be told."""

    secret_name: str
    """The entry's id, `<prefix>/<secret>`."""
    description: str
    recovery_days: int
    """Days in which a deleted entry can be restored; 0 deletes at once."""
    tags: dict[str, str]
    protect: bool


class SecretEntry(pulumi.ComponentResource):
    """An empty Secrets Manager entry."""

    arn: pulumi.Output[str]
    secret_name: pulumi.Output[str]

    def __init__(self, name: str, args: SecretEntryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("goldlake:secrets:SecretEntry", name, None, opts)
        secret = aws.secretsmanager.Secret(
            name,
            name=args.secret_name,
            description=args.description,
            recovery_window_in_days=args.recovery_days,
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        )
        self.arn = secret.arn
        self.secret_name = secret.name
        self.register_outputs({"arn": self.arn, "secretName": self.secret_name})
