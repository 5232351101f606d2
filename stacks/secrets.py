"""Unit `secrets`: the Secrets Manager entries. Values come from `goldlake secrets seed`, never from here."""

from __future__ import annotations

from components.naming import Names
from components.secret import SecretEntry, SecretEntryArgs
from stacks.outputs import SecretsOutputs
from stacks.settings import Settings

WAREHOUSE_LOGIN = "redshift-admin"


def deploy(settings: Settings) -> SecretsOutputs:
    """Register the entry with the warehouse's login."""
    names = Names(settings.prefix, settings.stack)
    login = SecretEntry(
        WAREHOUSE_LOGIN,
        SecretEntryArgs(
            secret_name=names.secret(WAREHOUSE_LOGIN),
            description="Login of dbt and export to the warehouse: username, password",
            # The shortest and the longest that Secrets Manager allows beside 0.
            recovery_days=30 if settings.protect_data else 0,
            tags=names.tags(WAREHOUSE_LOGIN),
            protect=settings.protect_data,
        ),
    )
    return SecretsOutputs(warehouse_login_arn=login.arn)
