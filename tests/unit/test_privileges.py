"""Least privilege: how IAM decides, what the proof finds, and what the recording is made of."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import policies
from local.inprocess import stack_configuration
from local.pages import filled
from local.privileges import cli, documentation
from local.privileges.evaluate import ALLOWED, EXPLICIT, IMPLICIT, Request, decide, matches
from local.privileges.normalise import Seen, calls
from local.privileges.prove import Reason, Reasons, prove, read_reasons
from local.privileges.recording import Call, missing, read, text
from local.privileges.stack import Role, Stack, read_stack, stack_of
from local.recording import record_stack
from runtime.cli import app
from runtime.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
BUCKET = "arn:aws:s3:::amzn-s3-demo-bucket"
STACKS = ("dev", "localstack", "prod.example")


def allow(actions: str | list[str], resources: str | list[str], condition: Any = None) -> dict[str, Any]:
    found: dict[str, Any] = {"Effect": "Allow", "Action": actions, "Resource": resources}
    return {**found, "Condition": condition} if condition else found


def decision(
    statement: dict[str, Any] | list[dict[str, Any]],
    action: str,
    resource: str,
    context: Mapping[str, str | Sequence[str]] | None = None,
) -> str:
    statements = list(statement) if isinstance(statement, list) else [statement]
    return decide(statements, Request(action, resource, context or {}))


# --- how IAM decides: the examples of the IAM user guide ---


def test_what_nobody_speaks_of_is_refused() -> None:
    """ "Policy evaluation logic": by default, all requests are implicitly denied."""
    assert decision([], "s3:GetObject", f"{BUCKET}/a") == IMPLICIT


def test_a_refusal_wins_over_any_permission() -> None:
    """ "Policy evaluation logic": an explicit deny in any policy overrides any allows."""
    deny = {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}
    for statements in ([allow("s3:*", "*"), deny], [deny, allow("s3:*", "*")]):
        assert decision(statements, "s3:GetObject", f"{BUCKET}/a") == EXPLICIT


@pytest.mark.parametrize(
    ("action", "expected"),
    [("s3:GetObject", IMPLICIT), ("iam:CreateUser", ALLOWED), ("s3:putobject", IMPLICIT)],
)
def test_not_action_is_for_all_others(action: str, expected: str) -> None:
    """ "IAM JSON policy elements: NotAction"; the names of actions have no case."""
    assert decision({"Effect": "Allow", "NotAction": "S3:*", "Resource": "*"}, action, "*") == expected


def test_not_resource_is_for_all_others() -> None:
    """ "IAM JSON policy elements: NotResource": the example that protects a bucket's HRBucket folder."""
    deny = {"Effect": "Deny", "Action": "s3:*", "NotResource": [f"{BUCKET}/HRBucket/Payroll", f"{BUCKET}/HRBucket/*"]}
    assert decision([allow("s3:*", "*"), deny], "s3:GetObject", f"{BUCKET}/HRBucket/Payroll") == ALLOWED
    assert decision([allow("s3:*", "*"), deny], "s3:GetObject", f"{BUCKET}/other") == EXPLICIT


@pytest.mark.parametrize(
    ("pattern", "resource", "expected"),
    [
        (f"{BUCKET}/*/test/*", f"{BUCKET}/1/test/object.jpg", ALLOWED),
        (f"{BUCKET}/*/test/*", f"{BUCKET}/1/2/test/3/object.jpg", ALLOWED),
        (f"{BUCKET}/*/test/*", f"{BUCKET}/1-test/object.jpg", IMPLICIT),
        ("arn:aws:iam::111122223333:user/?ob", "arn:aws:iam::111122223333:user/Bob", ALLOWED),
        ("arn:aws:iam::111122223333:user/bob", "arn:aws:iam::111122223333:user/Bob", IMPLICIT),
    ],
)
def test_wildcards_in_a_resource(pattern: str, resource: str, expected: str) -> None:
    """ "IAM JSON policy elements: Resource", "Using wildcards in resource ARNs"; a resource has its case."""
    assert decision(allow("*", pattern), "s3:GetObject", resource) == expected


@pytest.mark.parametrize(
    ("operator", "wanted", "given_value", "expected"),
    [
        ("StringEquals", "JohnDoe", "JohnDoe", True),
        ("StringEquals", "JohnDoe", "johndoe", False),
        ("StringEqualsIgnoreCase", "JohnDoe", "johndoe", True),
        ("StringEquals", ["a", "b"], "b", True),
        ("StringNotEquals", ["a", "b"], "b", False),
        ("StringNotEquals", ["a", "b"], "c", True),
        ("StringLike", ["", "home/", "home/${x}/*"], "home/", True),
        ("StringLike", "gold/*", "gold", False),
        ("StringNotLike", "gold/*", "silver/a", True),
        ("ArnLike", "arn:aws:sns:*:123456789012:*", "arn:aws:sns:eu-west-1:123456789012:topic", True),
        ("ArnEquals", "arn:aws:sns:*:123456789012:*", "arn:aws:sns:eu-west-1:210987654321:topic", False),
        ("ArnNotLike", "arn:aws:sns:*:123456789012:*", "arn:aws:sns:eu-west-1:210987654321:topic", True),
        ("Bool", "true", "True", True),
        ("Bool", "false", "true", False),
        ("Null", "true", "there", False),
        ("Null", "false", "there", True),
        ("StringEqualsIfExists", "a", "b", False),
        ("ForAllValues:StringEquals", ["a", "b"], ["a"], True),
        ("ForAllValues:StringEquals", ["a", "b"], ["a", "c"], False),
        ("ForAnyValue:StringEquals", ["a", "b"], ["a", "c"], True),
        ("ForAnyValue:StringEquals", ["a", "b"], ["c"], False),
    ],
)
def test_condition_operators(operator: str, wanted: Any, given_value: Any, expected: bool) -> None:
    """ "IAM JSON policy elements: Condition operators" and "Conditions with multiple context keys or values"."""
    statement = allow("s3:*", "*", {operator: {"aws:Key": wanted}})
    assert (decision(statement, "s3:GetObject", "*", {"AWS:key": given_value}) == ALLOWED) is expected


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("StringEquals", False),
        ("StringNotEquals", True),
        ("ArnNotLike", True),
        ("StringEqualsIfExists", True),
        ("ForAllValues:StringEquals", True),
        ("ForAnyValue:StringEquals", False),
        ("ForAnyValue:StringEqualsIfExists", False),
        ("Bool", False),
    ],
)
def test_a_key_that_is_not_in_the_request(operator: str, expected: bool) -> None:
    """The same page: "If the key that you specify in a policy condition is not present in the request context"."""
    assert (decision(allow("s3:*", "*", {operator: {"aws:Key": "a"}}), "s3:GetObject", "*") == ALLOWED) is expected


def test_all_conditions_of_a_statement_must_hold() -> None:
    both = {"StringEquals": {"aws:a": "1", "aws:b": "2"}}
    assert decision(allow("s3:*", "*", both), "s3:GetObject", "*", {"aws:a": "1", "aws:b": "2"}) == ALLOWED
    assert decision(allow("s3:*", "*", both), "s3:GetObject", "*", {"aws:a": "1", "aws:b": "3"}) == IMPLICIT


@pytest.mark.parametrize(
    "statement",
    [
        allow("s3:*", "*", {"NumericLessThan": {"s3:max-keys": "10"}}),
        {**allow("s3:*", "*"), "Principal": "*"},
        {"Effect": "Allow", "Resource": "*"},
    ],
)
def test_what_it_cannot_decide_it_refuses_to_guess(statement: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        decision(statement, "s3:GetObject", "*", {"s3:max-keys": "5"})


NAMES = st.text("ab/:*?.", max_size=8)


@given(NAMES)
def test_a_pattern_without_wildcards_fits_itself_alone(name: str) -> None:
    plain = name.replace("*", "x").replace("?", "y")
    assert matches(plain, plain)
    assert not matches(plain, f"{plain}z")


@given(NAMES, NAMES, NAMES)
def test_a_star_stands_for_any_text(before: str, between: str, after: str) -> None:
    assert matches(f"{before}*{after}", f"{before}{between}{after}")


@given(st.lists(st.sampled_from(["Allow", "Deny"]), max_size=5))
def test_more_statements_never_turn_a_refusal_into_a_permission(effects: list[str]) -> None:
    statements = [{"Effect": effect, "Action": "s3:*", "Resource": "*"} for effect in effects]
    refused = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "*"}
    assert decision([*statements, refused], "s3:GetObject", "*") == EXPLICIT


# --- the proof ---

READ = Call("reader", "s3:GetObject", "arn:aws:s3:::{gold}/gold/*")
TRUST = {
    "Effect": "Allow",
    "Principal": {"Service": "states.amazonaws.com"},
    "Action": "sts:AssumeRole",
    "Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}},
}
NAMED = {"gold": "shop-gold", "prefix": "shop", "account": "123456789012", "region": "eu-west-1"}


def stack(*statements: dict[str, Any], trust: Mapping[str, Any] = TRUST) -> Stack:
    return Stack("test", (Role("reader", (trust,), statements),), "iam", NAMED)


def rules(found: Stack, recorded: Sequence[Call] = (READ,), reasons: Reasons | None = None) -> list[str]:
    return [finding.rule for finding in prove(found, recorded, reasons or Reasons()).findings]


def test_a_right_that_a_call_needed_is_proven() -> None:
    found = prove(stack(allow(["s3:GetObject"], ["arn:aws:s3:::shop-gold/gold/*"])), [READ], Reasons())
    assert found.findings == ()
    assert [(right.resource, right.calls) for right in found.rights] == [("arn:aws:s3:::{gold}/gold/*", 1)]


def test_a_call_that_the_policy_does_not_allow_is_found() -> None:
    proof = prove(stack(), [READ], Reasons())
    (finding,) = proof.findings
    assert finding.rule == "refused"
    assert finding.message == "s3:GetObject on arn:aws:s3:::shop-gold/gold/* was made: implicit deny"


def test_a_policy_for_some_objects_does_not_pass_for_a_call_on_any() -> None:
    assert rules(stack(allow(["s3:GetObject"], ["arn:aws:s3:::shop-gold/gold/dim_*"]))) == ["refused", "unused"]


def test_a_condition_that_the_request_does_not_meet_refuses_the_call() -> None:
    listing = Call("reader", "s3:ListBucket", "arn:aws:s3:::{gold}", (("s3:prefix", "gold/*"),))
    for prefixes, expected in ((["gold/*"], []), (["silver/*"], ["refused", "unused"])):
        like = {"StringLike": {"s3:prefix": prefixes}}
        assert rules(stack(allow(["s3:ListBucket"], ["arn:aws:s3:::shop-gold"], like)), [listing]) == expected


def test_a_right_that_nobody_needed_is_found_and_a_written_reason_ends_it() -> None:
    found = stack(allow(["s3:GetObject", "s3:DeleteObject"], ["arn:aws:s3:::shop-gold/gold/*"]))
    assert rules(found) == ["unused"]
    reason = Reason(("reader",), ("s3:DeleteObject",), "for a failure")
    assert rules(found, reasons=Reasons(unused=(reason,))) == []
    assert rules(found, reasons=Reasons(unused=(dataclasses.replace(reason, roles=("writer",)),))) == ["unused"]
    elsewhere = dataclasses.replace(reason, resource="arn:aws:s3:::{silver}/*")
    assert rules(found, reasons=Reasons(unused=(elsewhere,))) == ["unused"]


def test_an_unneeded_resource_of_a_needed_action_is_found() -> None:
    resources = ["arn:aws:s3:::shop-gold/gold/*", "arn:aws:s3:::shop-silver/*"]
    assert rules(stack(allow(["s3:GetObject"], resources))) == ["unused"]


def test_a_star_in_an_action_is_found_whatever_is_written() -> None:
    always = Reason(("reader",), ("*",), "because")
    everything = Reasons(unused=(always,), any_resource=(always,), any_source=(always,))
    assert rules(stack(allow(["s3:Get*"], ["arn:aws:s3:::shop-gold/gold/*"])), reasons=everything) == ["any-action"]
    not_action = {"Effect": "Allow", "NotAction": ["iam:*"], "Resource": ["arn:aws:s3:::shop-gold/gold/*"]}
    assert rules(stack(not_action), reasons=everything) == ["any-action"]


def test_a_statement_for_every_resource_needs_a_reason_for_each_action() -> None:
    found = stack(allow(["s3:GetObject", "s3:PutObject"], ["*"]))
    unused = (Reason(("reader",), ("s3:PutObject",), "later"),)
    assert rules(found, reasons=Reasons(unused=unused)) == ["any-resource"]
    for actions, expected in ((("s3:GetObject",), ["any-resource"]), (("s3:*",), [])):
        reasons = Reasons(unused=unused, any_resource=(Reason(("reader",), actions, "no resource"),))
        assert rules(found, reasons=reasons) == expected


def test_a_role_that_a_service_may_take_for_anybody_is_found() -> None:
    good = allow(["s3:GetObject"], ["arn:aws:s3:::shop-gold/gold/*"])
    anybody = {key: value for key, value in TRUST.items() if key != "Condition"}
    assert rules(stack(good, trust=anybody)) == ["any-source"]
    reason = Reasons(any_source=(Reason(("reader",), ("sts:AssumeRole",), "Lambda"),))
    assert rules(stack(good, trust=anybody), reasons=reason) == []


def test_a_call_of_the_other_way_to_sign_in_says_nothing() -> None:
    assert rules(stack(), [dataclasses.replace(READ, sign_in=("password",))]) == []
    assert rules(stack(), [dataclasses.replace(READ, sign_in=("iam",))]) == ["refused"]


# --- the program's policies ---

ACCOUNT = "123456789012"
FUNCTION = f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:goldlake-export"


def test_a_functions_own_code_may_not_make_the_network_interfaces_that_lambda_makes_for_it() -> None:
    """Lambda developer guide, VPC access, "Security best practices": the example with lambda:SourceFunctionArn."""
    rights = policies.attach_to_vpc(ACCOUNT, "goldlake-export")
    for action in policies.NETWORK_INTERFACES:
        assert decision(rights, action, "*") == ALLOWED
        assert decision(rights, action, "*", {"lambda:SourceFunctionArn": FUNCTION}) == EXPLICIT
    assert decision(rights, "ec2:DeleteVpc", "*") == IMPLICIT


@pytest.mark.parametrize("action", ["kms:Decrypt", "kms:GenerateDataKey"])
def test_a_key_is_used_through_the_named_services_and_never_directly(action: str) -> None:
    key = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/1"
    through_s3 = policies.use_key(key, "s3")
    assert decision(through_s3, action, key, {"kms:ViaService": "s3.eu-west-1.amazonaws.com"}) == ALLOWED
    assert decision(through_s3, action, key, {"kms:ViaService": "sqs.eu-west-1.amazonaws.com"}) == IMPLICIT
    assert decision(through_s3, action, key) == IMPLICIT
    assert decision(policies.use_key(key), action, key) == ALLOWED


def test_who_knows_the_names_of_objects_need_not_list_them() -> None:
    rights = policies.keep_objects(BUCKET, "dbt")
    assert decision(rights, "s3:PutObject", f"{BUCKET}/dbt/latest/manifest.json") == ALLOWED
    assert decision(rights, "s3:PutObject", f"{BUCKET}/layers/a.zip") == IMPLICIT
    assert decision(rights, "s3:ListBucket", BUCKET, {"s3:prefix": "dbt/"}) == IMPLICIT


@pytest.mark.parametrize(
    ("role", "source"),
    [
        ("pipeline", "arn:aws:states:{region}:{account}:stateMachine:{prefix}-pipeline"),
        ("pipeline-scheduler", "arn:aws:scheduler:{region}:{account}:schedule-group/default"),
        ("gold-snapshots", "arn:aws:scheduler:{region}:{account}:schedule-group/default"),
        ("network-flow-logs", "arn:aws:ec2:{region}:{account}:vpc-flow-log/*"),
    ],
)
def test_a_service_takes_a_role_for_the_resource_that_it_was_made_for(role: str, source: str) -> None:
    found = stack_of(ROOT, "prod.example")
    ((trusted,),) = [each.trust for each in found.roles if each.name == role]
    sources = {key: value for block in trusted["Condition"].values() for key, value in block.items()}
    assert sources["aws:SourceAccount"] == ACCOUNT
    assert found.generic(sources["aws:SourceArn"]) == source


# --- the stacks ---


@pytest.mark.parametrize("name", STACKS)
def test_the_stacks_of_the_repository_are_proven(name: str) -> None:
    proof = prove(stack_of(ROOT, name), read(), read_reasons())
    assert proof.findings == ()
    assert proof.calls > 30
    assert not [right for right in proof.rights if "made-up" in right.resource]


def dev_with(own: dict[str, str]) -> Stack:
    settings = stack_configuration(ROOT, "dev", {f"goldlake:{key}": value for key, value in own.items()})
    return read_stack("dev", record_stack(ROOT, "dev", settings=own), settings)


def rotating() -> Stack:
    return dev_with({"rotateLoginDays": "30", "signIn": "password", "customerKey": "true"})


@pytest.mark.parametrize("own", [{"prefix": "shop"}, {"silverBucket": "data-of-another-team"}])
def test_a_stack_with_names_of_its_own_is_proven_as_well(own: dict[str, str]) -> None:
    proof = prove(dev_with(own), read(), read_reasons())
    assert proof.findings == ()
    assert proof.calls > 30


def test_every_written_reason_speaks_of_something() -> None:
    stacks = [rotating(), *(stack_of(ROOT, name) for name in STACKS)]
    nothing = [prove(found, (), Reasons()) for found in stacks]
    rights = [(right.role, right.action, right.resource) for proof in nothing for right in proof.rights]
    wrong = {(finding.rule, finding.role) for proof in nothing for finding in proof.findings}
    reasons = read_reasons()
    for reason in reasons.unused:
        for role in reason.roles:
            for action in reason.actions:
                alone = dataclasses.replace(reason, roles=(role,), actions=(action,))
                assert any(alone.covers(*right) for right in rights), (role, action)
    for rule, written in (("any-resource", reasons.any_resource), ("any-source", reasons.any_source)):
        for reason in written:
            assert {(rule, role) for role in reason.roles} <= wrong


def test_a_stack_with_rotation_and_a_customer_key_is_proven() -> None:
    assert prove(rotating(), read(), read_reasons()).findings == ()


# --- the recording ---

CHECK = "arn:aws:sts::000000000000:assumed-role/goldlake-check/goldlake-check"
SILVER = "arn:aws:s3:::goldlake-silver-000000000000-us-east-1"


def seen(action: str, resource: str, principal: str = CHECK, **more: Any) -> Seen:
    return Seen(**{"allowed": True, "phase": "run", "sign_in": "iam", **more, "principal": principal, "action": action,
                   "resource": resource})  # fmt: skip


def test_what_differs_by_table_run_or_stack_is_replaced() -> None:
    found = calls(
        [
            seen("s3:GetObject", f"{SILVER}/silver/silver_companies/companies/part-1.parquet"),
            seen("s3:GetObject", f"{SILVER}/silver/silver_linkedin/job_postings/part-2.parquet"),
            seen("s3:ListBucket", SILVER, context={"s3:prefix": "silver/silver_companies/"}),
        ]
    )
    assert [(call.action, call.resource, call.context) for call in found] == [
        ("s3:GetObject", "arn:aws:s3:::{silver}/silver/*", ()),
        ("s3:ListBucket", "arn:aws:s3:::{silver}", (("s3:prefix", "silver/*"),)),
    ]
    assert {call.role for call in found} == {"check"}


def test_a_glue_call_needs_catalogue_database_and_table() -> None:
    found = calls([seen("glue:GetTable", "arn:aws:glue:us-east-1:000000000000:database/silver_companies")])
    assert [call.resource.rsplit(":", 1)[-1] for call in found] == ["catalog", "database/silver_*", "table/silver_*/*"]


def test_a_refused_call_is_kept() -> None:
    assert calls([seen("s3:PutObject", f"{SILVER}/silver/a", allowed=False)])


def test_only_signing_in_depends_on_how_one_signs_in() -> None:
    secret = "arn:aws:secretsmanager:us-east-1:000000000000:secret:goldlake/redshift-dbt-c5004d"
    read_secret, read_object = calls(
        [
            seen("secretsmanager:GetSecretValue", secret, sign_in="password"),
            seen("s3:GetObject", f"{SILVER}/silver/a", sign_in="password"),
        ]
    )[::-1]
    assert read_secret.resource.endswith(":secret:{prefix}/redshift-dbt-*")
    assert (read_secret.sign_in, read_object.sign_in) == (("password",), ("iam", "password"))


def test_of_the_operators_calls_those_of_goldlakes_own_commands_are_kept() -> None:
    root = "arn:aws:iam::000000000000:root"
    secret = "arn:aws:secretsmanager:us-east-1:000000000000:secret:goldlake/airflow-a5dbef"
    found = calls(
        [
            seen("secretsmanager:PutSecretValue", secret, root, phase="seed"),
            seen("glue:GetTables", "arn:aws:glue:us-east-1:000000000000:database/gold", root, phase="seed"),
            seen("secretsmanager:PutSecretValue", secret, root, phase="deploy"),
        ]
    )
    assert [(call.role, call.resource) for call in found] == [
        ("operator", "arn:aws:secretsmanager:{region}:{account}:secret:{prefix}/*")
    ]


def test_the_committed_recording_is_sorted_and_holds_no_account() -> None:
    committed = (ROOT / "local/privileges/recording.json").read_text()
    assert committed == text(read())
    assert "000000000000" not in committed
    assert "goldlake-" not in committed


def test_a_call_that_the_committed_recording_lacks_is_named() -> None:
    more = Call("reader", "s3:DeleteObject", "arn:aws:s3:::{gold}/gold/*")
    assert missing([READ], [READ]) == []
    assert missing([READ], [READ, more]) == [more]
    assert missing([dataclasses.replace(READ, sign_in=("iam",))], [READ]) == [READ]
    assert str(more) == "reader: s3:DeleteObject on arn:aws:s3:::{gold}/gold/*"


def test_a_call_that_needs_no_right_is_not_recorded() -> None:
    assert len(calls([seen("s3:GetObject", f"{SILVER}/a")])) == 1
    assert calls([seen("sts:GetCallerIdentity", "*")]) == []


# --- the page and the command ---


def test_the_generated_parts_of_the_page_are_up_to_date() -> None:
    for name, parts in documentation.texts().items():
        page = (ROOT / name).read_text()
        assert filled(page, parts) == page, "make docs"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        app(["iam", "prove", *arguments])
    assert isinstance(ended.value.code, int)
    return ended.value.code, capsys.readouterr().out


def test_a_proven_stack_is_exit_code_0_and_one_json_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    code, out = run(capsys, "--stack", "dev", "--output", "json")
    found = json.loads(out)
    assert (code, found["schema"], found["proven"], found["findings"]) == (0, "goldlake.iam/1", True, [])
    assert {right["role"] for right in found["rights"]} >= {"check", "dbt-runner", "export", "register"}


def test_a_stack_that_is_not_proven_is_exit_code_1_with_its_findings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.privileges.stack.stack_of", lambda _folder, _name: stack())
    monkeypatch.setattr("local.privileges.recording.read", lambda: [READ])
    code, out = run(capsys)
    assert code == 1
    assert "refused: reader: s3:GetObject on arn:aws:s3:::shop-gold/gold/* was made" in out
    assert out.endswith("not proven: 1 findings\n")


def test_an_unknown_stack_is_a_usage_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert run(capsys, "--stack", "nowhere")[0] == 64


def test_the_command_is_in_the_group() -> None:
    assert set(cli.iam.commands) == {"prove"}
