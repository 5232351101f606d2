"""Unit `secrets`: the Secrets Manager entries.

Values come from `goldlake secrets seed`, or from the unit that makes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi_aws as aws

from components.secret import SecretEntry, SecretEntryArgs
from stacks.names import WAREHOUSE_LOGIN
from stacks.outputs import FoundationOutputs, SecretsOutputs
from stacks.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the unit is given."""

    foundation: FoundationOutputs | None
    """For its key; None without a customer key."""


def deploy(settings: Settings, inputs: Inputs) -> SecretsOutputs:
    """Register the entry with the warehouse's login."""
    names = settings.names("secrets")
    login = SecretEntry(
        WAREHOUSE_LOGIN,
        SecretEntryArgs(
            secret_name=names.secret(WAREHOUSE_LOGIN),
            description="Login of the warehouse's admin: username, password",
            # The longest that Secrets Manager allows, or none.
            recovery_days=30 if settings.protect_data else 0,
            account=aws.get_caller_identity_output().account_id,
            key_arn=inputs.foundation.key_arn if inputs.foundation else None,
            tags=names.tags(WAREHOUSE_LOGIN),
            protect=settings.protect_data,
        ),
    )
    return SecretsOutputs(warehouse_login_arn=login.arn)
