"""Roles of the local Redshift: assumed once, looked at again where a double stands for one."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from botocore.exceptions import ClientError

from local.redshift.roles import DOUBLE, Roles
from local.redshift.wire import RedshiftError
from runtime.aws import Connection

ARN = "arn:aws:iam::000000000000:role/reader"
TRUST: dict[str, Any] = {"Effect": "Allow", "Principal": {"Service": "redshift.amazonaws.com"}}


class Emulator:
    """What the emulator answers: a role that only the service may assume, so that its double is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.assumed: list[str] = []
        self.known = True
        self.trust = dict(TRUST)
        self.now = 0.0
        monkeypatch.setattr("local.redshift.roles.time", mock.Mock(monotonic=lambda: self.now))
        monkeypatch.setattr(Roles, "_double", lambda _self, arn: f"{arn}{DOUBLE}")
        monkeypatch.setattr(Roles, "_client", self.client)
        self.roles = Roles(Connection("http://127.0.0.1:1", "us-east-1"))

    def client(self, credentials: dict[str, str], _service: str, _region: str | None = None) -> Any:
        made = mock.Mock(keys=credentials)
        made.get_role.return_value = {"Role": {"AssumeRolePolicyDocument": {"Statement": [self.trust]}}}
        made.assume_role.side_effect = self.assume
        made.get_caller_identity.side_effect = self.identity
        return made

    def assume(self, RoleArn: str, RoleSessionName: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        if not RoleArn.endswith(DOUBLE):
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": RoleSessionName}}, "AssumeRole")
        self.assumed.append(RoleArn)
        number = str(len(self.assumed))
        return {"Credentials": {"AccessKeyId": number, "SecretAccessKey": "s", "SessionToken": "t"}}

    def identity(self) -> dict[str, str]:
        return {"Arn": f"{ARN}{DOUBLE}" if self.known else "arn:aws:iam::000000000000:root"}

    def key(self) -> str:
        return str(self.roles.client(ARN, "s3").keys["aws_access_key_id"])


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Emulator:
    return Emulator(monkeypatch)


def test_a_role_is_assumed_once_for_half_an_hour(emulator: Emulator) -> None:
    assert [emulator.key(), emulator.key()] == ["1", "1"]
    emulator.now = 1000.0
    assert emulator.key() == "1"
    emulator.now = 1801.0
    assert emulator.key() == "2"
    assert len(emulator.assumed) == 2


def test_a_session_that_the_emulator_lost_is_begun_anew(emulator: Emulator) -> None:
    assert emulator.key() == "1"
    emulator.known, emulator.now = False, 3.0
    assert emulator.key() == "2"


def test_a_role_that_trusts_redshift_no_more_is_refused_within_seconds(emulator: Emulator) -> None:
    assert emulator.key() == "1"
    emulator.trust, emulator.now = {**TRUST, "Effect": "Deny"}, 3.0
    with pytest.raises(RedshiftError, match="Not authorized to get credentials of role"):
        emulator.key()
