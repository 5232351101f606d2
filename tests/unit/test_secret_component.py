"""Secret entries: who may use them, what encrypts them, who rotates them."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from components.policies import own_account_only
from components.rotation import RotatedSecret, RotatedSecretArgs, rotate_secret
from components.secret import SecretEntry, SecretEntryArgs
from local.recording import ACCOUNT, REGION, Recording, record
from runtime.errors import ConfigurationError

KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"
ROTATOR = "arn:aws:lambda:eu-west-1:123456789012:function:rotator"


def entry(**changes: Any) -> Recording:
    def program() -> dict[str, pulumi.Output[str]]:
        arguments = {
            "secret_name": "goldlake/trino",
            "description": "Login of Trino",
            "recovery_days": 30,
            "tags": {"Name": "goldlake-trino"},
            "protect": True,
        }
        made = SecretEntry("trino", SecretEntryArgs(**{**arguments, **changes}))
        return {"arn": made.arn, "secret_name": made.secret_name}

    return record(program)


def test_an_entry_is_empty_protected_and_can_be_had_back() -> None:
    found = entry()
    assert found.one(":Secret") == {
        "name": "goldlake/trino",
        "description": "Login of Trino",
        "recoveryWindowInDays": 30,
        "tags": {"Name": "goldlake-trino"},
    }
    assert found.resource("trino", ":Secret").protect
    assert found.exports == {"arn": f"arn:aws:made-up:{REGION}:{ACCOUNT}:trino", "secret_name": "goldlake/trino"}
    assert [resource.type for resource in found.resources if resource.custom] == ["aws:secretsmanager/secret:Secret"]


def test_an_entry_is_encrypted_with_the_key_that_it_is_given() -> None:
    assert entry(key_arn=KEY).one(":Secret")["kmsKeyId"] == KEY


def test_principals_of_other_accounts_are_refused_whatever_else_allows_them() -> None:
    found = entry(account=ACCOUNT)
    policy = found.one(":SecretPolicy")
    assert policy["secretArn"] == found.exports["arn"]
    assert policy["blockPublicPolicy"] is True
    assert json.loads(policy["policy"]) == own_account_only(ACCOUNT)


def test_the_policy_of_an_entry_refuses_and_allows_nothing() -> None:
    (statement,) = own_account_only(ACCOUNT)["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Action"] == "secretsmanager:*"
    # Not the other way round: that would lock the account itself out.
    assert statement["Condition"] == {"StringNotEquals": {"aws:PrincipalAccount": ACCOUNT}}


@pytest.mark.parametrize("days", [0, 7, 30])
def test_a_recovery_window_that_secrets_manager_knows_is_taken(days: int) -> None:
    assert entry(recovery_days=days).one(":Secret")["recoveryWindowInDays"] == days


@pytest.mark.parametrize("days", [-1, 1, 6, 31])
def test_another_recovery_window_is_refused(days: int) -> None:
    with pytest.raises(ConfigurationError, match=f"recovery_days {days}: Secrets Manager takes 7 to 30, or 0"):
        entry(recovery_days=days)


# --- rotation ---


ENTRY = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:goldlake/trino-abcdef"


def rotated(days: int = 30) -> Recording:
    def program() -> dict[str, pulumi.Output[str]]:
        arguments = RotatedSecretArgs(secret_arn=ENTRY, function_arn=ROTATOR, days=days, account=ACCOUNT)
        return {"secret_arn": RotatedSecret("trino", arguments).secret_arn}

    return record(program)


def test_a_rotation_is_scheduled_after_secrets_manager_may_call_its_function() -> None:
    found = rotated()
    rotation = found.one(":SecretRotation")
    assert rotation["secretId"] == ENTRY
    assert rotation["rotationLambdaArn"] == ROTATOR
    assert rotation["rotationRules"] == {"automaticallyAfterDays": 30}
    assert "trino-rotator" in found.resource("trino-rotation").depends_on
    assert found.exports == {"secret_arn": ENTRY}


def test_a_deployment_rotates_nothing_at_once() -> None:
    assert rotated().one(":SecretRotation")["rotateImmediately"] is False


def test_secrets_manager_may_call_the_function_for_this_entry_only() -> None:
    assert rotated().one(":Permission") == {
        "action": "lambda:InvokeFunction",
        "function": ROTATOR,
        "principal": "secretsmanager.amazonaws.com",
        "sourceArn": ENTRY,
        "sourceAccount": ACCOUNT,
    }


def test_a_rotation_function_may_change_its_own_entry_and_delete_nothing() -> None:
    statement = rotate_secret(ENTRY)
    assert statement["Resource"] == [ENTRY]
    assert {action.split(":")[1] for action in statement["Action"]} == {
        "DescribeSecret",
        "GetSecretValue",
        "PutSecretValue",
        "UpdateSecretVersionStage",
    }


@pytest.mark.parametrize("days", [1, 1000])
def test_a_rotation_that_secrets_manager_knows_is_taken(days: int) -> None:
    assert rotated(days).one(":SecretRotation")["rotationRules"] == {"automaticallyAfterDays": days}


@pytest.mark.parametrize("days", [0, 1001])
def test_a_rotation_that_secrets_manager_would_not_take_is_refused(days: int) -> None:
    with pytest.raises(ConfigurationError, match=f"every {days} days: Secrets Manager takes 1 to 1000"):
        rotated(days)
