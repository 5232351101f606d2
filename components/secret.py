"""A Secrets Manager entry without a value: `goldlake secrets seed` puts the value, Pulumi never sees it."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.policies import own_account_only
from runtime.errors import ConfigurationError

# Secrets Manager API reference: DeleteSecret's RecoveryWindowInDays.
MIN_RECOVERY_DAYS, MAX_RECOVERY_DAYS = 7, 30


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
    account: pulumi.Input[str] | None = None
    """The account whose principals alone may use the entry. Without it, the entry has no policy of its own."""
    key_arn: pulumi.Input[str] | None = None
    """The KMS key of the value; AWS's own key for Secrets Manager without it. Readers need `policies.decrypt_with`."""


class SecretEntry(pulumi.ComponentResource):
    """An empty Secrets Manager entry, closed to other accounts. What rotates one is in components.rotation."""

    arn: pulumi.Output[str]
    secret_name: pulumi.Output[str]

    def __init__(self, name: str, args: SecretEntryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        _check(name, args)
        super().__init__("goldlake:secrets:SecretEntry", name, None, opts)
        secret = aws.secretsmanager.Secret(
            name,
            name=args.secret_name,
            description=args.description,
            kms_key_id=args.key_arn,
            recovery_window_in_days=args.recovery_days,
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        )
        if args.account is not None:
            account = pulumi.Output.from_input(args.account)
            aws.secretsmanager.SecretPolicy(
                f"{name}-own-account",
                secret_arn=secret.arn,
                policy=pulumi.Output.json_dumps(account.apply(own_account_only)),
                block_public_policy=True,
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.arn = secret.arn
        self.secret_name = secret.name
        self.register_outputs({"arn": self.arn, "secretName": self.secret_name})


def _check(name: str, args: SecretEntryArgs) -> None:
    if args.recovery_days != 0 and not MIN_RECOVERY_DAYS <= args.recovery_days <= MAX_RECOVERY_DAYS:
        raise ConfigurationError(
            f"{name} has recovery_days {args.recovery_days}: Secrets Manager takes {MIN_RECOVERY_DAYS} to "
            f"{MAX_RECOVERY_DAYS}, or 0 to delete at once"
        )
