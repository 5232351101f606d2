"""Unit `secrets`: the Secrets Manager entries.

Values come from `goldlake secrets seed`, or from the unit that makes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.secret import SecretEntry, SecretEntryArgs
from runtime.catalogue import load_catalogue
from stacks.names import DBT_LOGIN, WAREHOUSE_LOGIN
from stacks.outputs import FoundationOutputs, SecretsOutputs
from stacks.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the unit is given."""

    foundation: FoundationOutputs | None
    """For its key; None without a customer key."""


def deploy(settings: Settings, inputs: Inputs) -> SecretsOutputs:
    """Register an entry for each login of the warehouse, and for each other secret that is asked for."""
    names = settings.names("secrets")
    account = aws.get_caller_identity_output().account_id
    catalogue = load_catalogue()
    logins = (WAREHOUSE_LOGIN, DBT_LOGIN) if settings.dbt_has_login else (WAREHOUSE_LOGIN,)
    # Where Pulumi makes dbt's password, seeding has nothing to do with it.
    seeded = logins if settings.admin_password == "none" else (WAREHOUSE_LOGIN,)  # noqa: S105 - a way
    entries = {
        secret: SecretEntry(
            secret,
            SecretEntryArgs(
                secret_name=names.secret(secret),
                description=catalogue.secrets[secret].description,
                # The longest that Secrets Manager allows, or none.
                recovery_days=30 if settings.protect_data else 0,
                account=account,
                key_arn=inputs.foundation.key_arn if inputs.foundation else None,
                tags=names.tags(secret),
                protect=settings.protect_data,
            ),
        )
        for secret in (*logins, *settings.more_secrets)
    }
    return SecretsOutputs(
        warehouse_login_arn=entries[WAREHOUSE_LOGIN].arn,
        dbt_login_arn=entries[DBT_LOGIN].arn if DBT_LOGIN in entries else pulumi.Output.from_input(""),
        entries=pulumi.Output.from_input([*seeded, *settings.more_secrets]),
    )
