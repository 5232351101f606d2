"""What `goldlake preview --fail-on` stops: data stores that go, and permissions that grow."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi_aws as aws
import pulumi_random
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from local.preview.cli import KINDS as CLI_KINDS
from local.preview.differences import changes
from local.preview.guard import KINDS, Finding, findings
from local.preview.replacement import DATA_STORES, FORCE_NEW, force_new
from local.preview.rules import Rule
from local.preview.snapshot import SECRET, Entry, Snapshot, load
from local.preview.widening import covers, network_within, overlap, widened
from local.recording import record_stack

ROOT = Path(__file__).parents[2]
ACCOUNT = "123456789012"


def statement(
    action: str | list[str] = "s3:GetObject", resource: str | list[str] = "arn:aws:s3:::lake/*", **more: Any
) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: str = "s3:*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": action, "Resource": "*", "Principal": "*", **more}


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def wider(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[str]:
    return widened([policy(*old)], [policy(*new)])


# --- patterns ---


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("s3:Get*", "s3:GetObject"),
        ("s3:*", "s3:Get*"),
        ("*", "anything"),
        ("*", ""),
        ("arn:aws:s3:::lake/*", "arn:aws:s3:::lake/gold/*"),
        ("s3:Get?bject", "s3:GetObject"),
        ("a*c*", "abc"),
        ("*b*", "abc*"),
        ("**", "*"),
        ("?*", "*?"),
    ],
)
def test_a_pattern_covers_what_it_matches(wide: str, narrow: str) -> None:
    assert covers(wide, narrow)


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ("s3:GetObject", "s3:Get*"),
        ("s3:Get*", "s3:PutObject"),
        ("s3:Get?", "s3:Get*"),
        ("?", "*"),
        ("", "*"),
        ("a*b", "a*"),
        ("arn:aws:s3:::lake/gold/*", "arn:aws:s3:::lake/*"),
    ],
)
def test_a_pattern_does_not_cover_what_it_does_not_match(wide: str, narrow: str) -> None:
    assert not covers(wide, narrow)


patterns = st.text("ab*?", max_size=6)


@given(wide=patterns, narrow=patterns, text=st.text("ab", max_size=7))
@example(wide="a*b*", narrow="ab?*", text="abb")
def test_what_a_covered_pattern_matches_the_covering_one_matches(wide: str, narrow: str, text: str) -> None:
    if covers(wide, narrow) and fnmatch.fnmatchcase(text, narrow):
        assert fnmatch.fnmatchcase(text, wide)


@given(pattern=patterns, text=st.text("ab", max_size=7))
def test_a_text_is_covered_by_a_pattern_exactly_when_it_matches(pattern: str, text: str) -> None:
    assert covers(pattern, text) == fnmatch.fnmatchcase(text, pattern)


@given(one=patterns, other=patterns, text=st.text("ab", max_size=7))
def test_two_patterns_that_match_one_text_overlap(one: str, other: str, text: str) -> None:
    if fnmatch.fnmatchcase(text, one) and fnmatch.fnmatchcase(text, other):
        assert overlap(one, other)
        assert overlap(other, one)


def test_patterns_without_a_common_text_do_not_overlap() -> None:
    assert not overlap("s3:Get*", "s3:Put*")
    assert not overlap("a?", "a")
    assert overlap("*a", "b*")


# --- grants ---


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([statement("s3:Get*")], [statement("s3:GetObject")]),
        ([statement(["s3:GetObject", "s3:PutObject"])], [statement("s3:PutObject")]),
        ([statement("s3:GetObject")], [statement("S3:getobject")]),
        ([statement()], []),
        ([statement()], [statement(Condition={"Bool": {"aws:SecureTransport": True}})]),
        # The same in two statements, and together in one.
        ([statement(["s3:GetObject", "s3:PutObject"])], [statement("s3:PutObject"), statement("s3:GetObject")]),
        ([statement(resource=["a", "b"])], [statement(resource="b"), statement(resource="a")]),
        ([statement(Principal="*")], [statement(Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:root"})]),
        ([statement(Principal={"AWS": ACCOUNT})], [statement(Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:root"})]),
    ],
)
def test_less_or_the_same_is_not_wider(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> None:
    assert wider(old, new) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ([statement()], [statement("s3:Get*")], "allows s3:Get* on arn:aws:s3:::lake/*"),
        ([statement()], [statement(["s3:GetObject", "s3:PutObject"])], "allows s3:PutObject"),
        ([statement()], [statement(resource="*")], "allows s3:GetObject on *"),
        ([statement()], [statement(), statement("kms:Decrypt", "k")], "allows kms:Decrypt on k"),
        ([], [statement()], "allows s3:GetObject"),
        # Each is allowed, but not on the other's resource.
        (
            [statement("s3:GetObject", "a"), statement("s3:PutObject", "b")],
            [statement(["s3:GetObject", "s3:PutObject"], "a")],
            "allows s3:PutObject on a",
        ),
        (
            [statement(Principal={"AWS": "arn:aws:iam::1:role/a"})],
            [statement(Principal={"AWS": ["arn:aws:iam::1:role/a", "arn:aws:iam::1:role/b"]})],
            "to AWS:arn:aws:iam::1:role/b",
        ),
        ([statement(Principal={"AWS": ACCOUNT})], [statement(Principal={"AWS": "*"})], "to *"),
        ([statement(Principal={"Service": "a.com"})], [statement(Principal="*")], "to *"),
    ],
)
def test_more_is_wider_and_says_what(old: list[dict[str, Any]], new: list[dict[str, Any]], said: str) -> None:
    (reason,) = wider(old, new)
    assert said in reason


def test_all_but_some_is_wider_than_some_and_less_than_everything() -> None:
    some, but = statement("s3:GetObject"), {"Effect": "Allow", "NotAction": "iam:*", "Resource": "arn:aws:s3:::lake/*"}
    less = {**but, "NotAction": ["iam:*", "s3:Delete*"]}
    assert wider([some], [but]) == ["allows all but iam:* on arn:aws:s3:::lake/*"]
    assert wider([statement("*")], [but]) == []
    assert wider([but], [some]) == []
    assert wider([but], [less]) == []
    assert wider([less], [but])
    assert wider([but], [statement("iam:PassRole")])


def test_a_statement_may_move_to_another_document_of_the_same_subject() -> None:
    one, two = statement("s3:GetObject"), statement("s3:PutObject")
    assert widened([policy(one, two)], [policy(two), policy(one)]) == []


def test_a_policy_of_one_statement_without_a_list_is_read() -> None:
    assert widened([{"Statement": statement()}], [policy(statement())]) == []


# --- conditions and refusals ---

TLS = {"Bool": {"aws:SecureTransport": "false"}}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"StringEquals": {"aws:SourceAccount": "1"}}, {}),
        ({"StringEquals": {"k": "a"}}, {"StringEquals": {"k": ["a", "b"]}}),
        ({"StringLike": {"k": "gold/*"}}, {"StringLike": {"k": "*"}}),
        ({"StringNotEquals": {"k": ["a", "b"]}}, {"StringNotEquals": {"k": "a"}}),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/16"}}, {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}),
        ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/16"}}),
        ({"StringEquals": {"k": "a"}}, {"StringEqualsIfExists": {"k": "a"}}),
        ({"NumericLessThan": {"k": "5"}}, {"NumericLessThan": {"k": "9"}}),
        ({"StringEquals": {"k": "a", "l": "b"}}, {"StringEquals": {"k": "a"}}),
    ],
)
def test_a_condition_that_goes_or_weakens_is_wider(old: dict[str, Any], new: dict[str, Any]) -> None:
    (reason,) = wider([statement(Condition=old)], [statement(Condition=new)])
    assert reason.startswith("allows under weaker conditions s3:GetObject")
    # And the other way round it is not, but for what nobody can order.
    if "NumericLessThan" not in old:
        assert wider([statement(Condition=new)], [statement(Condition=old)]) == []


def test_the_spelling_of_a_condition_is_no_difference() -> None:
    old = statement(Condition={"Bool": {"aws:SecureTransport": True}})
    assert wider([old], [statement(Condition={"Bool": {"AWS:securetransport": ["true"]}})]) == []


@pytest.mark.parametrize(
    "new",
    [[], [deny("s3:GetObject", Condition=TLS)], [deny(Condition={**TLS, "StringEquals": {"k": "a"}})]],
    ids=["gone", "of fewer actions", "under more conditions"],
)
def test_a_refusal_that_goes_or_narrows_is_wider(new: list[dict[str, Any]]) -> None:
    (reason,) = wider([deny(Condition=TLS)], new)
    assert reason.startswith("no longer denies s3:*")


def test_a_refusal_that_grows_is_not_wider() -> None:
    assert wider([deny("s3:GetObject", Condition=TLS)], [deny()]) == []


statements = st.builds(
    lambda effect, actions, resources, conditions: {
        "Effect": effect,
        "Action": actions,
        "Resource": resources,
        **({"Condition": conditions} if conditions else {}),
    },
    st.sampled_from(["Allow", "Deny"]),
    st.lists(st.sampled_from(["s3:Get*", "s3:GetObject", "kms:*", "*"]), min_size=1, max_size=3),
    st.lists(st.sampled_from(["*", "arn:a/*", "arn:a/b"]), min_size=1, max_size=2),
    st.sampled_from([{}, {"StringLike": {"k": "a*"}}, {"StringEquals": {"k": ["a", "b"]}}, {"Null": {"k": "true"}}]),
)


@given(found=st.lists(statements, max_size=4), data=st.data())
def test_a_policy_is_not_wider_than_itself_in_any_order(found: list[dict[str, Any]], data: st.DataObject) -> None:
    assert wider(found, data.draw(st.permutations(found))) == []


@given(found=st.lists(statements, max_size=3), more=statements)
def test_adding_a_refusal_or_taking_a_grant_is_never_wider(found: list[dict[str, Any]], more: dict[str, Any]) -> None:
    if more["Effect"] == "Deny":
        assert wider(found, [*found, more]) == []
    else:
        assert wider([*found, more], found) == []


# --- subjects ---


def entry(type_token: str, name: str, inputs: Mapping[str, Any], **more: Any) -> Entry:
    return Entry(f"{type_token}::{name}", type_token, name, "", dict(inputs), **{"dependencies": {}, **more})


def role_policy(name: str, *statements: dict[str, Any]) -> Entry:
    inputs = {"role": "r-id", "policy": {"$json": policy(*statements)}}
    return entry("aws:iam/rolePolicy:RolePolicy", name, inputs)


def guard(old: Sequence[Entry], new: Sequence[Entry], *kinds: str) -> tuple[Finding, ...]:
    before, after = ({found.key: found for found in side} for side in (old, new))
    units = dict.fromkeys({*before, *after}, "lake")
    changed = changes(before, Snapshot("goldlake", "dev", after), units)
    return findings(changed, before, after, kinds or tuple(KINDS))


def test_a_new_policy_of_a_known_role_is_wider_even_under_another_name() -> None:
    old = [role_policy("one", statement())]
    (found,) = guard(old, [*old, role_policy("two", statement("s3:PutObject"))])
    assert (found.kind, found.resource) == ("widen-policy", "two")
    assert "allows s3:PutObject" in found.reason


def test_a_renamed_policy_with_the_same_statements_is_not_wider() -> None:
    assert guard([role_policy("one", statement())], [role_policy("two", statement())]) == ()


BUCKET = entry("aws:s3/bucket:Bucket", "lake", {"bucket": "lake"})
TLS_ONLY = entry(
    "aws:s3/bucketPolicy:BucketPolicy",
    "lake-tls",
    {"bucket": "lake-id", "policy": {"$json": policy(deny(Condition=TLS))}},
    dependencies={BUCKET.key: ("bucket",)},
)


def test_a_bucket_policy_that_is_taken_away_no_longer_denies() -> None:
    (found,) = guard([BUCKET, TLS_ONLY], [BUCKET])
    assert (found.kind, found.resource) == ("widen-policy", "lake-tls")
    assert "no longer denies s3:*" in found.reason


def test_a_bucket_policy_may_go_with_its_bucket() -> None:
    assert [found.kind for found in guard([BUCKET, TLS_ONLY], [])] == ["delete-data-store"]


def test_an_endpoint_that_loses_its_policy_lets_everything_through() -> None:
    inputs = {"serviceName": "s3", "policy": {"$json": policy(statement(Principal="*"))}}
    old = entry("aws:ec2/vpcEndpoint:VpcEndpoint", "s3", inputs)
    (found,) = guard([old], [replace(old, inputs={"serviceName": "s3"})])
    assert found.reason == "allows * on * to *"


def test_a_trust_policy_that_trusts_another_service_is_wider() -> None:
    def trusting(*services: str) -> Entry:
        trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": list(services)}}
        return entry("aws:iam/role:Role", "r", {"assumeRolePolicy": {"$json": policy(trust)}})

    (found,) = guard([trusting("lambda.amazonaws.com")], [trusting("lambda.amazonaws.com", "ec2.amazonaws.com")])
    assert found.reason == "allows sts:AssumeRole to Service:ec2.amazonaws.com"


@pytest.mark.parametrize(
    ("type_token", "old", "new", "said"),
    [
        ("aws:iam/role:Role", {}, {"managedPolicyArns": ["arn:admin"]}, "attaches the managed policy arn:admin"),
        ("aws:iam/rolePolicyAttachment:RolePolicyAttachment", {}, {"policyArn": "arn:admin"}, "attaches"),
        ("aws:iam/role:Role", {"permissionsBoundary": "b"}, {}, "no longer bounded by b"),
        (
            "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
            {"blockPublicPolicy": True},
            {"blockPublicPolicy": False},
            "blockPublicPolicy was true",
        ),
        ("aws:kms/key:Key", {"policy": {"$json": policy()}}, {"policy": SECRET}, "policy is a secret now"),
        (
            "aws:lambda/permission:Permission",
            {"action": "lambda:InvokeFunction", "principal": "a.amazonaws.com", "function": "f", "sourceArn": "x"},
            {"action": "lambda:InvokeFunction", "principal": "a.amazonaws.com", "function": "f"},
            "weaker conditions",
        ),
    ],
)
def test_what_opens_without_a_policy_document_is_found(
    type_token: str, old: dict[str, Any], new: dict[str, Any], said: str
) -> None:
    (found,) = guard([entry(type_token, "x", old)], [entry(type_token, "x", new)], "widen-policy")
    assert said in found.reason
    assert guard([entry(type_token, "x", new)], [entry(type_token, "x", new)], "widen-policy") == ()


# --- security groups ---


def ingress(**inputs: Any) -> Entry:
    own = {"securityGroupId": "sg", "ipProtocol": "tcp", "fromPort": 443, "toPort": 443, "cidrIpv4": "10.0.0.0/16"}
    return entry("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", "in", {**own, **inputs})


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"cidrIpv4": "0.0.0.0/0"}, "opens tcp port 443 from 0.0.0.0/0"),
        ({"toPort": 500}, "opens tcp 443-500 from 10.0.0.0/16"),
        ({"ipProtocol": "-1"}, "opens everything from 10.0.0.0/16"),
        ({"cidrIpv4": None, "referencedSecurityGroupId": "sg-2"}, "from sg-2"),
        ({"securityGroupId": "other"}, "opens tcp port 443"),
    ],
)
def test_a_rule_that_lets_more_in_is_found(inputs: dict[str, Any], said: str) -> None:
    (found,) = guard([ingress()], [ingress(**inputs)], "widen-policy")
    assert said in found.reason


@pytest.mark.parametrize("inputs", [{"cidrIpv4": "10.0.7.0/24"}, {"description": "other"}, {"ipProtocol": "6"}])
def test_a_rule_that_lets_less_in_is_none(inputs: dict[str, Any]) -> None:
    assert guard([ingress()], [ingress(**inputs)], "widen-policy") == ()


def test_a_rule_inside_of_its_group_is_read_as_well() -> None:
    group = entry("aws:ec2/securityGroup:SecurityGroup", "g", {})
    inline = {"protocol": "tcp", "fromPort": 22, "toPort": 22, "cidrBlocks": ["0.0.0.0/0"], "self": True}
    found = guard([group], [replace(group, inputs={"ingress": [inline]})], "widen-policy")
    assert [each.reason for each in found] == ["opens tcp port 22 from 0.0.0.0/0", "opens tcp port 22 from itself"]


ports = st.integers(0, 20)
rules = st.builds(
    lambda protocol, first, more, other: Rule("g", "ingress", protocol, first, first + more, other),
    st.sampled_from(["tcp", "udp", "-1"]),
    ports,
    ports,
    st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "::/0", "sg-1"]),
)


@given(one=rules, two=rules, three=rules)
def test_covering_is_an_order(one: Rule, two: Rule, three: Rule) -> None:
    assert one.covers(one)
    if one.covers(two) and two.covers(three):
        assert one.covers(three)


def test_addresses_of_two_families_are_not_within_each_other() -> None:
    assert not network_within("10.0.0.0/8", "::/0")
    assert not network_within("sg-1", "0.0.0.0/0")


# --- data stores ---


def test_a_new_name_of_a_bucket_replaces_it() -> None:
    (found,) = guard([BUCKET], [replace(BUCKET, inputs={"bucket": "other"})], "replace-data-store")
    assert (found.resource, found.reason) == ("lake", "bucket can't change in place")


def test_tags_of_a_bucket_do_not_replace_it() -> None:
    assert guard([BUCKET], [replace(BUCKET, inputs={"bucket": "lake", "tags": {}})]) == ()


def test_what_is_replaced_with_something_else_says_so() -> None:
    key = entry("aws:kms/key:Key", "key", {"multiRegion": False})
    table = entry("aws:dynamodb/table:Table", "t", {"name": "x"}, dependencies={key.key: ("name",)})
    found = guard([key, table], [replace(key, inputs={"multiRegion": True}), table], "replace-data-store")
    assert [(each.resource, each.reason) for each in found] == [
        ("t", "name can't change in place, and comes from key, which is replaced"),
        ("key", "multiRegion can't change in place"),
    ]


def test_a_data_store_that_leaves_the_program_is_deleted() -> None:
    (found,) = guard([replace(BUCKET, protect=True)], [], "delete-data-store")
    assert "no longer in the program" in found.reason
    assert "`pulumi up` would refuse" in found.reason


def test_a_data_store_under_another_name_is_deleted_as_well() -> None:
    renamed = entry(BUCKET.type, "lake-2", BUCKET.inputs)
    assert [found.kind for found in guard([BUCKET], [renamed], "delete-data-store")] == ["delete-data-store"]


def test_a_data_store_that_stays_when_it_is_deleted_is_no_loss() -> None:
    assert guard([replace(BUCKET, retain_on_delete=True)], [], "delete-data-store") == ()


def test_only_the_kinds_asked_for_are_looked_for() -> None:
    assert guard([BUCKET, TLS_ONLY], [], "widen-policy", "replace-data-store") == ()


def test_the_command_knows_the_kinds_of_the_guard() -> None:
    assert tuple(KINDS) == CLI_KINDS


# --- the table of inputs that can't change in place ---

# All that a setting can bring into a stack, beside the three files.
EVERYTHING = {
    "units": '["state", "foundation", "lake", "secrets", "warehouse", "transform", "pipeline"]',
    "natGateways": "single",
    "customerKey": "true",
    "signIn": "password",
    "alarmEmails": '["a@example.com"]',
}


def test_every_type_that_the_program_registers_is_in_the_table() -> None:
    committed = {found.type for path in (ROOT / "tests" / "snapshots").glob("*.json") for found in customs(path)}
    more = {found.type for found in record_stack(ROOT, "dev", settings=EVERYTHING).resources if found.custom}
    assert committed | more <= set(FORCE_NEW)


def customs(path: Path) -> list[Entry]:
    return [found for found in load(path).entries.values() if found.custom]


def test_every_data_store_is_in_the_table_with_what_names_it() -> None:
    for type_token in DATA_STORES:
        assert {"name", "bucket", "namespaceName", "keyUsage"} & FORCE_NEW[type_token], type_token


def test_every_protected_resource_is_a_data_store() -> None:
    protected = {
        found.type for path in (ROOT / "tests" / "snapshots").glob("*.json") for found in customs(path) if found.protect
    }
    assert protected
    assert protected <= DATA_STORES


@pytest.mark.parametrize("type_token", sorted(FORCE_NEW))
def test_every_input_in_the_table_is_one_of_the_type(type_token: str) -> None:
    package, module, name = type_token.split(":")
    module = module.split("/")[0]
    owner = pulumi_random if package == "random" else getattr(aws, "lambda_" if module == "lambda" else module)
    properties = inspect.getmembers(getattr(owner, name), lambda found: isinstance(found, property))
    names = {getattr(found.fget, "_pulumi_name", attribute) for attribute, found in properties}
    assert force_new(type_token) - {"region"} <= names


def test_an_unknown_type_is_replaced_by_another_region_only() -> None:
    assert force_new("aws:new/thing:Thing") == {"region"}
    assert force_new("other:index:Thing") == frozenset()
