"""Least privilege against the emulator: its own decisions, and the recording made anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.privileges.evaluate import ALLOWED, EXPLICIT, IMPLICIT, Request, decide
from local.privileges.record import record
from local.privileges.recording import COMMAND, missing, read
from runtime.aws import Connection

ACTIONS = ("s3:GetObject", "s3:PutObject", "s3:ListBucket", "sqs:SendMessage")
RESOURCES = ("arn:aws:s3:::lake", "arn:aws:s3:::lake/gold/a", "arn:aws:s3:::lake/silver/a")
PATTERNS = ("*", "arn:aws:s3:::lake", "arn:aws:s3:::lake/*", "arn:aws:s3:::lake/gold/?", "arn:aws:s3:::*/silver/*")
NAMES = {ALLOWED: "allowed", IMPLICIT: "implicitDeny", EXPLICIT: "explicitDeny"}

statements = st.fixed_dictionaries(
    {
        "Effect": st.sampled_from(["Allow", "Allow", "Deny"]),
        "Action": st.lists(st.sampled_from([*ACTIONS, "s3:*", "s3:Get*", "S3:putobject", "*"]), min_size=1, max_size=3),
        "Resource": st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=2),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(statements, min_size=1, max_size=4), st.sampled_from(ACTIONS), st.sampled_from(RESOURCES))
def test_the_emulators_own_simulator_decides_alike(
    aws: Connection, policy: list[dict[str, object]], action: str, resource: str
) -> None:
    document = json.dumps({"Version": "2012-10-17", "Statement": policy})
    (answer,) = aws.client("iam").simulate_custom_policy(
        PolicyInputList=[document], ActionNames=[action], ResourceArns=[resource]
    )["EvaluationResults"]
    assert answer["EvalDecision"] == NAMES[decide(policy, Request(action, resource))]


def test_the_committed_recording_has_every_call_that_the_roles_make(tmp_path: Path) -> None:
    lacking = missing(read(), record(tmp_path))
    if lacking:
        pytest.fail(f"not in the recording ({COMMAND} rewrites it):\n" + "\n".join(map(str, lacking)), pytrace=False)
