"""Unit `state`: the bucket, the key and the lock table of the other stacks' state.

Deployed once, with a local backend: `goldlake state bootstrap`.
"""

from __future__ import annotations

import pulumi_aws as aws

from components.state_backend import StateBackend, StateBackendArgs
from stacks.outputs import StateOutputs
from stacks.settings import Settings


def deploy(settings: Settings) -> StateOutputs:
    """Register the state backend."""
    names = settings.names("state")
    account = aws.get_caller_identity_output().account_id
    backend = StateBackend(
        "state",
        StateBackendArgs(
            bucket_name=account.apply(lambda found: names.bucket("state", found, settings.region)),
            log_bucket_name=account.apply(lambda found: names.bucket("state-logs", found, settings.region)),
            lock_table_name=names.name("locks") if settings.state_lock_table else None,
            key_alias=names.name("pulumi"),
            encrypt_with_key=settings.state_customer_key,
            account=account,
            region=settings.region,
            protect=settings.protect_data,
            force_destroy=settings.force_destroy,
            tls_only=settings.require_tls,
            tags=names.tags("state"),
        ),
    )
    return StateOutputs(
        bucket_name=backend.bucket_name,
        log_bucket_name=backend.log_bucket_name,
        key_arn=backend.key_arn,
        key_alias=backend.key_alias,
        lock_table_name=backend.lock_table_name,
        login_url=backend.login_url,
        secrets_provider=backend.secrets_provider,
    )
