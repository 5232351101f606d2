"""Every rule has an example that breaks it and one that does not, both out of what the program really registers."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.naming import STANDARD_TAGS
from local.policy import UNUSED, PolicyReport, evaluate, exemptions_of, resource_of
from local.recording import Registered, record_stack
from policies import limits
from policies.exemptions import STANDING, Exemption, judge, parse
from policies.identity import WITHOUT_RESOURCE, is_wildcard
from policies.model import UNKNOWN, Resource
from policies.registry import RULES, by_id
from runtime.errors import ConfigurationError
from stacks import settings as program_settings
from stacks.settings import parse_settings

ROOT = Path(__file__).parents[2]
STACKS = ("dev", "localstack", "prod.example", "state")
TODAY = date(2026, 11, 21)
GONE = object()

Stack = list[Resource]
Change = Callable[[Stack], Stack]


@functools.cache
def registered(stack: str) -> tuple[Registered, ...]:
    """Return what a stack registers; `state` is the unit of that name, which is deployed apart."""
    if stack == "state":
        return tuple(record_stack(ROOT, "prod.example", settings={"units": '["state"]'}).resources)
    return tuple(record_stack(ROOT, stack).resources)


@functools.cache
def stack_of(name: str) -> tuple[Resource, ...]:
    return tuple(resource_of(found) for found in registered(name) if found.custom)


def the(stack: Sequence[Resource], kind: str, name: str) -> Resource:
    found = [resource for resource in stack if resource.type.endswith(f":{kind}") and resource.name == name]
    assert len(found) == 1, (kind, name)
    return found[0]


def edited(kind: str, name: str, *path: str | int, to: Any) -> Change:
    """Return a change of one input; GONE takes it away."""

    def change(stack: Stack) -> Stack:
        old = the(stack, kind, name)
        inputs: Any = copy.deepcopy(dict(old.inputs))
        inside = inputs
        for step in path[:-1]:
            inside = inside[step]
        if to is GONE:
            del inside[path[-1]]
        else:
            inside[path[-1]] = to
        return [replace(old, inputs=inputs) if resource is old else resource for resource in stack]

    return change


def removed(kind: str, name: str) -> Change:
    return lambda stack: [resource for resource in stack if resource is not the(stack, kind, name)]


def added(kind: str, name: str, **inputs: Any) -> Change:
    return lambda stack: [*stack, Resource(kind, name, inputs)]


def unprotected(kind: str, name: str) -> Change:
    def change(stack: Stack) -> Stack:
        old = the(stack, kind, name)
        return [replace(old, protect=False) if resource is old else resource for resource in stack]

    return change


def with_statement(kind: str, name: str, document: str = "policy", **statement: Any) -> Change:
    """Return a change that adds a statement to a policy document."""

    def change(stack: Stack) -> Stack:
        text = json.loads(the(stack, kind, name).inputs[document])
        text["Statement"].append({"Effect": "Allow", **statement})
        return edited(kind, name, document, to=json.dumps(text))(stack)

    return change


def without_statements(kind: str, name: str) -> Change:
    return edited(kind, name, "policy", to='{"Version": "2012-10-17", "Statement": []}')


@dataclass(frozen=True)
class Case:
    """A change that breaks a rule, and what is said then."""

    rule: str
    resource: str
    change: Change
    said: str
    stack: str = "dev"


URL = "aws:lambda/functionUrl:FunctionUrl"
PERMISSION = "aws:lambda/permission:Permission"
NAT = "aws:ec2/natGateway:NatGateway"
ATTACHMENT = "aws:iam/rolePolicyAttachment:RolePolicyAttachment"
GROUP_RULE = "aws:ec2/securityGroupRule:SecurityGroupRule"
BLOCK = "BucketPublicAccessBlock"
INGRESS = "SecurityGroupIngressRule"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
ANY = {"AWS": "*"}
CASES = (
    Case("bucket-public-access-blocked", "lake-gold", removed(BLOCK, "lake-gold-private"), "no public access block"),
    *(
        Case("bucket-public-access-blocked", "lake-gold", edited(BLOCK, "lake-gold-private", name, to=value), name)
        for name in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
        for value in (False, GONE)
    ),
    Case("bucket-acl-off", "lake-gold", removed("BucketOwnershipControls", "lake-gold-owner"), "no ownership"),
    Case(
        "bucket-acl-off",
        "lake-gold",
        edited("BucketOwnershipControls", "lake-gold-owner", "rule", "objectOwnership", to="ObjectWriter"),
        "access lists",
    ),
    Case("bucket-acl-off", "lake-gold", edited("Bucket", "lake-gold", "acl", to="public-read"), "public-read"),
    Case("bucket-tls-only", "lake-gold", removed("BucketPolicy", "lake-gold-tls"), "no policy"),
    Case("bucket-tls-only", "lake-gold", without_statements("BucketPolicy", "lake-gold-tls"), "does not refuse"),
    Case("bucket-tls-only", "state", removed("BucketPolicy", "state-tls"), "no policy", "state"),
    Case("messages-tls-only", "dbt-runner-failed", removed("QueuePolicy", "dbt-runner-failed-tls"), "no policy"),
    Case("messages-tls-only", "alarms", without_statements("TopicPolicy", "alarms-policy"), "does not refuse"),
    Case(
        "warehouse-not-public", "warehouse", edited("Workgroup", "warehouse", "publiclyAccessible", to=True), "public"
    ),
    Case(
        "warehouse-tls-only",
        "warehouse",
        edited("Workgroup", "warehouse", "configParameters", 6, "parameterValue", to="false"),
        "require_ssl 'false'",
    ),
    Case("warehouse-tls-only", "warehouse", edited("Workgroup", "warehouse", "configParameters", to=[]), "require_ssl"),
    Case(
        "no-open-ingress",
        "groups-warehouse-from-function",
        edited(INGRESS, "groups-warehouse-from-function", "cidrIpv4", to="0.0.0.0/0"),
        "0.0.0.0/0",
    ),
    Case(
        "no-open-ingress",
        "groups-warehouse-from-function",
        edited(INGRESS, "groups-warehouse-from-function", "cidrIpv6", to="::/0"),
        "::/0",
    ),
    Case(
        "no-open-ingress",
        "groups-function",
        edited("SecurityGroup", "groups-function", "ingress", to=[{"cidrBlocks": ["10.0.0.0/8", "0.0.0.0/0"]}]),
        "0.0.0.0/0",
    ),
    Case("no-open-ingress", "r", added(GROUP_RULE, "r", type="ingress", cidrBlocks=["0.0.0.0/0"]), "0.0.0.0/0"),
    Case(
        "default-group-closed",
        "network-default",
        edited("DefaultSecurityGroup", "network-default", "egress", to=[{"protocol": "-1"}]),
        "egress",
    ),
    Case(
        "no-public-addresses",
        "network-us-east-1a",
        edited("Subnet", "network-us-east-1a", "mapPublicIpOnLaunch", to=True),
        "public addresses",
    ),
    Case("function-not-public", "u", added(URL, "u", authorizationType="NONE"), "sign in"),
    Case("function-not-public", "p", added(PERMISSION, "p", principal="*"), "everybody"),
    Case(
        "function-not-public",
        "p",
        added(PERMISSION, "p", principal="*", sourceAccount="1", functionUrlAuthType="NONE"),
        "address",
    ),
    Case(
        "no-open-principal",
        "lake-gold-tls",
        with_statement(
            "BucketPolicy", "lake-gold-tls", Principal="*", Action="s3:GetObject", Resource="arn:aws:s3:::b/*"
        ),
        "allows everybody s3:GetObject",
    ),
    Case(
        "no-open-principal",
        "alarms-policy",
        with_statement(
            "TopicPolicy",
            "alarms-policy",
            Principal=ANY,
            Action="sns:Publish",
            Condition={"Bool": {"aws:SecureTransport": "true"}},
        ),
        "everybody",
    ),
    Case(
        "no-open-principal",
        "key",
        with_statement("Key", "key", Principal=ANY, Action="kms:Decrypt"),
        "everybody",
        "prod.example",
    ),
    Case(
        "bucket-encrypted",
        "lake-gold",
        removed("BucketServerSideEncryptionConfiguration", "lake-gold-encryption"),
        "say",
    ),
    Case(
        "bucket-encrypted",
        "lake-gold",
        edited("BucketServerSideEncryptionConfiguration", "lake-gold-encryption", "rules", to=[]),
        "None",
    ),
    Case(
        "queue-encrypted",
        "dbt-runner-failed",
        edited("Queue", "dbt-runner-failed", "sqsManagedSseEnabled", to=False),
        "not",
    ),
    Case("topic-encrypted", "alarms", edited("Topic", "alarms", "kmsMasterKeyId", to=GONE), "not", "prod.example"),
    *(
        Case("own-key-used", name, edited(kind, name, key, to=GONE), "AWS's key", "prod.example")
        for kind, name, key in (
            ("Secret", "redshift-admin", "kmsKeyId"),
            ("LogGroup", "check-logs", "kmsKeyId"),
            ("Queue", "dbt-runner-failed", "kmsMasterKeyId"),
            ("Topic", "alarms", "kmsMasterKeyId"),
            ("Namespace", "warehouse", "kmsKeyId"),
            ("Function", "export", "kmsKeyArn"),
        )
    ),
    Case(
        "own-key-used",
        "lake-gold",
        edited(
            "BucketServerSideEncryptionConfiguration",
            "lake-gold-encryption",
            "rules",
            to=[{"applyServerSideEncryptionByDefault": {"sseAlgorithm": "AES256"}}],
        ),
        "AWS's key",
        "prod.example",
    ),
    Case("table-safe", "state-locks", edited("Table", "state-locks", "serverSideEncryption", to=GONE), "KMS", "state"),
    Case(
        "table-safe",
        "state-locks",
        edited("Table", "state-locks", "pointInTimeRecovery", "enabled", to=False),
        "time",
        "state",
    ),
    Case(
        "table-safe",
        "state-locks",
        edited("Table", "state-locks", "deletionProtectionEnabled", to=False),
        "deletion",
        "state",
    ),
    Case("data-store-protected", "lake-silver", unprotected("Bucket", "lake-silver"), "not protected"),
    Case("data-store-protected", "redshift-admin", unprotected("Secret", "redshift-admin"), "not protected"),
    Case("data-store-protected", "warehouse", unprotected("Namespace", "warehouse"), "not protected"),
    Case("data-store-protected", "key", unprotected("Key", "key"), "not protected", "prod.example"),
    Case("data-store-protected", "lake-gold", edited("Bucket", "lake-gold", "forceDestroy", to=True), "forceDestroy"),
    Case("bucket-versioned", "lake-gold", removed("BucketVersioning", "lake-gold-versioning"), "not versioned"),
    Case(
        "bucket-versioned",
        "lake-gold",
        edited("BucketVersioning", "lake-gold-versioning", "versioningConfiguration", "status", to="Suspended"),
        "Suspended",
    ),
    Case(
        "bucket-incomplete-uploads",
        "lake-gold",
        removed("BucketLifecycleConfiguration", "lake-gold-lifecycle"),
        "uploads",
    ),
    Case(
        "bucket-incomplete-uploads",
        "lake-gold",
        edited(
            "BucketLifecycleConfiguration",
            "lake-gold-lifecycle",
            "rules",
            0,
            "abortIncompleteMultipartUpload",
            "daysAfterInitiation",
            to=15,
        ),
        "uploads",
    ),
    Case(
        "recovery-window", "redshift-admin", edited("Secret", "redshift-admin", "recoveryWindowInDays", to=6), "6 days"
    ),
    Case("recovery-window", "key", edited("Key", "key", "deletionWindowInDays", to=1), "1 days", "prod.example"),
    Case("key-rotated", "key", edited("Key", "key", "enableKeyRotation", to=False), "never", "prod.example"),
    Case(
        "warehouse-usage-limit",
        "warehouse",
        lambda stack: [found for found in stack if not found.type.endswith(":UsageLimit")],
        "no usage limit",
    ),
    Case("warehouse-size", "warehouse", edited("Workgroup", "warehouse", "baseCapacity", to=136), "136 RPU"),
    Case("warehouse-size", "warehouse", edited("Workgroup", "warehouse", "maxCapacity", to=264), "264 RPU"),
    Case("warehouse-size", "warehouse", edited("Workgroup", "warehouse", "baseCapacity", to=GONE), "declare"),
    Case(
        "allowed-region",
        "network-us-east-1a",
        edited("Subnet", "network-us-east-1a", "availabilityZone", to="ap-southeast-2a"),
        "ap-southeast-2",
    ),
    Case(
        "allowed-region", "s3", edited("VpcEndpoint", "s3", "serviceName", to="com.amazonaws.sa-east-1.s3"), "sa-east-1"
    ),
    Case("allowed-region", "lake-gold", edited("Bucket", "lake-gold", "region", to="us-gov-west-1"), "us-gov-west-1"),
    Case("no-nat-gateway", "n", added(NAT, "n", subnetId="subnet-1"), "internet"),
    Case("required-tags", "check", edited("Function", "check", "tags", "Owner", to=GONE), "Owner"),
    Case("required-tags", "check", edited("Function", "check", "tags", "CostCentre", to=""), "CostCentre"),
    Case("required-tags", "check", edited("Function", "check", "tags", to=GONE), "Project, Environment"),
    Case(
        "no-wildcard-action",
        "register-policy",
        with_statement("RolePolicy", "register-policy", Action="*", Resource="arn:aws:s3:::b"),
        "allows *",
    ),
    Case(
        "no-wildcard-action",
        "register-policy",
        with_statement("RolePolicy", "register-policy", Action=["s3:Get*"], Resource="arn:aws:s3:::b"),
        "s3:Get*",
    ),
    Case(
        "no-wildcard-resource",
        "register-policy",
        with_statement("RolePolicy", "register-policy", Action="s3:GetObject", Resource="*"),
        "s3:GetObject on *",
    ),
    Case(
        "no-wildcard-resource",
        "export-policy",
        with_statement("RolePolicy", "export-policy", Action=["ec2:DescribeSubnets", "ec2:RunInstances"], Resource="*"),
        "ec2:RunInstances on *",
    ),
    Case(
        "no-negation",
        "register-policy",
        with_statement("RolePolicy", "register-policy", NotAction="iam:*", Resource="arn:aws:s3:::b"),
        "NotAction",
    ),
    Case(
        "no-negation",
        "lake-gold-tls",
        with_statement("BucketPolicy", "lake-gold-tls", NotPrincipal=ANY, Action="s3:GetObject"),
        "NotPrincipal",
    ),
    Case(
        "trust-limited",
        "pipeline-role",
        with_statement(
            "Role",
            "pipeline-role",
            "assumeRolePolicy",
            Principal={"Service": "states.amazonaws.com"},
            Action="sts:AssumeRole",
        ),
        "confused deputy",
    ),
    Case(
        "trust-limited",
        "check-role",
        with_statement(
            "Role", "check-role", "assumeRolePolicy", Principal={"AWS": "arn:aws:iam::1:root"}, Action="sts:AssumeRole"
        ),
        "without a condition",
    ),
    Case(
        "service-source",
        "lake-gold-tls",
        with_statement(
            "BucketPolicy", "lake-gold-tls", Principal={"Service": "logging.s3.amazonaws.com"}, Action="s3:PutObject"
        ),
        "for any account",
    ),
    Case(
        "no-broad-policy",
        "a",
        added(ATTACHMENT, "a", policyArn="arn:aws:iam::aws:policy/AdministratorAccess"),
        "AdministratorAccess",
    ),
    Case(
        "no-broad-policy",
        "check-role",
        edited("Role", "check-role", "managedPolicyArns", to=["arn:aws:iam::aws:policy/AmazonS3FullAccess"]),
        "AmazonS3FullAccess",
    ),
    Case("log-retention", "check-logs", edited("LogGroup", "check-logs", "retentionInDays", to=GONE), "for ever"),
    Case("log-retention", "check-logs", edited("LogGroup", "check-logs", "retentionInDays", to=0), "for ever"),
    Case("function-log-group", "check", removed("LogGroup", "check-logs"), "/aws/lambda/goldlake-check"),
    Case(
        "warehouse-audited",
        "warehouse",
        edited("Namespace", "warehouse", "logExports", to=["userlog"]),
        "connectionlog",
    ),
    Case("pipeline-logged", "pipeline", edited("StateMachine", "pipeline", "loggingConfiguration", to=GONE), "nothing"),
    Case(
        "pipeline-logged",
        "pipeline",
        edited("StateMachine", "pipeline", "loggingConfiguration", "level", to="OFF"),
        "nothing",
    ),
    Case("network-logged", "network", removed("FlowLog", "network-flow-logs"), "no flow log"),
    *(
        Case(
            "no-plain-secret", "export", edited("Function", "export", "environment", "variables", name, to=value), said
        )
        for name, value, said in (
            ("KEY", "AKIAIOSFODNN7EXAMPLE", "an AWS access key"),
            ("CERT", "-----BEGIN RSA PRIVATE KEY-----\nMIIE", "a private key"),
            ("DATABASE", "postgresql://admin:Hunter2secret@db.example.com/x", "a URL with a password"),
            ("OPTIONS", "user=a password=Hunter2secret", "a password"),
            ("LOGIN", '{"username": "a", "password": "Hunter2secret"}', "a password"),
            ("REDSHIFT_PASSWORD", "hunter", "by its name"),
            ("SIGNING", SECRET_KEY, "a random key"),
            ("GIT", "ghp_0123456789abcdefghij0123456789abcdef", "GitHub"),
        )
    ),
    Case(
        "no-plain-secret",
        "warehouse-gold",
        edited("Statement", "warehouse-gold", "sql", to="CREATE USER dbt PASSWORD 'Hunter2secret'"),
        "a password in sql",
    ),
    Case("supported-runtime", "check", edited("Function", "check", "runtime", to="python3.8"), "python3.8"),
    Case(
        "supported-runtime",
        "delta",
        edited("LayerVersion", "delta", "compatibleRuntimes", to=["nodejs16.x"]),
        "nodejs16.x",
    ),
    Case("function-limits", "check", edited("Function", "check", "timeout", to=GONE), "3 seconds"),
    Case("function-limits", "check", edited("Function", "check", "memorySize", to=10240), "10240 MB"),
    Case(
        "dbt-runs-once",
        "dbt-runner",
        edited("Function", "dbt-runner", "reservedConcurrentExecutions", to=GONE),
        "twice",
    ),
    Case(
        "dbt-runs-once", "dbt-runner", edited("Function", "dbt-runner", "reservedConcurrentExecutions", to=2), "twice"
    ),
    Case(
        "failures-kept",
        "dbt-runner",
        lambda stack: [found for found in stack if not found.type.endswith(":FunctionEventInvokeConfig")],
        "asynchronous",
    ),
    Case(
        "failures-kept",
        "pipeline-schedule",
        edited("Schedule", "pipeline-schedule", "target", "deadLetterConfig", to=GONE),
        "dead-letter",
    ),
    Case(
        "warehouse-vpc-routing",
        "warehouse",
        edited("Workgroup", "warehouse", "enhancedVpcRouting", to=False),
        "through the network",
    ),
)
# What the program itself breaks, with a reason: the passing example is made here instead.
MENDED: dict[str, Change] = {
    "warehouse-vpc-routing": edited("Workgroup", "warehouse", "enhancedVpcRouting", to=True),
}
# What the program does not have: an example of a resource that is as it should be.
GOOD: dict[str, Change] = {
    "no-open-ingress": added(GROUP_RULE, "r", type="egress", cidrBlocks=["0.0.0.0/0"]),
    "function-not-public": lambda stack: [
        *stack,
        Resource(URL, "u", {"authorizationType": "AWS_IAM"}),
        Resource(PERMISSION, "p", {"principal": "*", "sourceArn": "arn:aws:s3:::b"}),
    ],
    "no-broad-policy": added(ATTACHMENT, "a", policyArn="arn:aws:iam::1:policy/own"),
}


def findings(rule: str, stack: Sequence[Resource], name: str) -> list[str]:
    """Return what a rule says about the resources of a name."""
    return [said for found in stack if found.name == name for said in by_id()[rule].findings(found, stack)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}-{case.said}")
def test_a_rule_finds_what_breaks_it_and_nothing_where_nothing_does(case: Case) -> None:
    good = list(stack_of(case.stack))
    for more in (MENDED.get(case.rule), GOOD.get(case.rule)):
        good = more(good) if more else good
    assert findings(case.rule, good, case.resource) == []
    bad = case.change([found for found in good if found.urn or found.name != case.resource])
    said = findings(case.rule, bad, case.resource)
    assert len(said) == 1
    assert case.said in said[0]


def test_every_rule_has_such_an_example() -> None:
    assert {case.rule for case in CASES} == {rule.id for rule in RULES}
    assert set(MENDED) | set(GOOD) <= {case.rule for case in CASES}


def test_every_rule_says_what_to_do_and_where_it_is_from() -> None:
    for rule in RULES:
        assert rule.id == rule.id.lower().strip("-")
        assert rule.title
        assert not rule.title.endswith(".")
        assert rule.remediation.endswith(".")
        assert rule.source
        assert rule.check.__doc__, rule.id
    assert len({rule.id for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("stack", STACKS)
def test_no_stack_breaks_a_rule(stack: str) -> None:
    report = evaluate(registered(stack), today=TODAY)
    assert report.violations == ()
    assert report.rules_checked == len(RULES)


def test_every_standing_exemption_is_needed_and_names_a_rule() -> None:
    used = {found.exemption for stack in STACKS for found in evaluate(registered(stack), today=TODAY).exempted}
    assert set(STANDING) == used
    assert {found.rule for found in STANDING} <= set(by_id())


def elsewhere(urn: str) -> str:
    return urn.replace("urn:pulumi:localstack:", "urn:pulumi:dev:")


def test_what_only_the_laptop_may_do_no_other_stack_may() -> None:
    stack = [
        replace(
            found,
            urn=elsewhere(found.urn),
            uses={name: frozenset(map(elsewhere, urns)) for name, urns in found.uses.items()},
        )
        for found in stack_of("localstack")
    ]
    broken = {found.rule for found in judge(stack, (), TODAY).violations}
    assert broken == {found.rule for found in STANDING if found.stack != "*"}


def test_every_action_that_is_allowed_on_everything_is_used_somewhere_or_described() -> None:
    """A reason outlives its statement otherwise, and the next wildcard slips through."""
    allowed = set()
    for stack in STACKS:
        for resource in stack_of(stack):
            if resource.type == "aws:iam/rolePolicy:RolePolicy":
                for statement in json.loads(resource.inputs["policy"])["Statement"]:
                    if any(map(is_wildcard, statement["Resource"])):
                        allowed |= set(statement["Action"])
    assert set(WITHOUT_RESOURCE) == allowed
    assert all(len(reason) > 20 for reason in WITHOUT_RESOURCE.values())


@pytest.mark.parametrize(
    ("arn", "wild"),
    [
        ("*", True),
        ("arn:aws:s3:::*", True),
        ("arn:aws:s3:::*/gold", True),
        ("arn:aws:s3:::goldlake-gold/*", False),
        ("arn:aws:lambda:eu-west-1:1:function:*", True),
        ("arn:aws:lambda:eu-west-1:1:function:goldlake-*", False),
        ("arn:aws:secretsmanager:eu-west-1:1:secret:*", True),
        ("arn:aws:logs:eu-west-1:1:log-group:/aws/lambda/x:*", False),
        ("arn:aws:glue:eu-west-1:1:table/gold/*", False),
        ("arn:aws:glue:eu-west-1:1:table/*", True),
    ],
)
def test_a_resource_is_a_wildcard_when_it_names_nothing_of_ours(arn: str, wild: bool) -> None:
    assert is_wildcard(arn) is wild


def _blanked(value: Any, draw: Callable[[], bool]) -> Any:
    if draw():
        return UNKNOWN
    if isinstance(value, dict):
        return {key: _blanked(found, draw) for key, found in value.items()}
    return [_blanked(found, draw) for found in value] if isinstance(value, list) else value


@settings(max_examples=50)
@given(data=st.data())
def test_what_is_not_known_yet_breaks_no_rule(data: st.DataObject) -> None:
    """In a preview of a new stack nobody knows an ARN; a rule that took that for a fault would stop every preview."""
    unknown = st.sampled_from([True, False, False])
    resource = data.draw(st.sampled_from(stack_of("prod.example")))
    inputs = {key: _blanked(value, lambda: data.draw(unknown)) for key, value in resource.inputs.items()}
    changed = [replace(found, inputs=inputs) if found is resource else found for found in stack_of("prod.example")]
    assert judge(changed, (), TODAY).violations == ()


def test_a_change_shows_its_whole_violation() -> None:
    found = broken_report().violations
    assert [(one.rule, one.severity, one.resource, one.type) for one in found] == [
        ("no-open-ingress", "error", "groups-warehouse-from-function", f"aws:vpc/securityGroupIngressRule:{INGRESS}")
    ]
    assert found[0].message == "lets in 0.0.0.0/0"
    assert found[0].remediation == by_id()["no-open-ingress"].remediation


def broken_report(*exemptions: Exemption, today: date = TODAY) -> PolicyReport:
    """Return the report over a stack whose warehouse lets everybody in."""
    opened = [
        replace(found, inputs={**found.inputs, "cidrIpv4": "0.0.0.0/0"})
        if found.name == "groups-warehouse-from-function"
        else found
        for found in registered("dev")
    ]
    return evaluate(opened, exemptions, today)


def exemption(**changes: Any) -> Exemption:
    given: dict[str, Any] = {
        "rule": "no-open-ingress",
        "resource": "groups-*",
        "reason": "while the office moves",
        "until": TODAY,
    }
    return Exemption(**{**given, **changes})


def test_an_exemption_covers_a_violation_up_to_its_last_day() -> None:
    report = broken_report(exemption())
    assert report.violations == ()
    assert [found.exemption.reason for found in report.exempted if found.exemption.until] == ["while the office moves"]


def test_an_exemption_that_ended_covers_nothing_and_the_violation_says_so() -> None:
    (found,) = broken_report(exemption(), today=TODAY + timedelta(days=1)).violations
    assert found.severity == "error"
    assert found.message == f"lets in 0.0.0.0/0 (its exemption ended on {TODAY})"


def test_an_exemption_that_nothing_needs_is_a_warning() -> None:
    unused = exemption(resource="lake-*")
    found = [one for one in broken_report(unused).violations if one.rule == UNUSED]
    assert [(one.severity, one.resource) for one in found] == [("warning", "lake-*")]
    assert "no-open-ingress" in found[0].message


def test_an_exemption_is_not_unused_when_its_rule_was_not_asked() -> None:
    report = evaluate(registered("dev"), [exemption(resource="lake-*")], TODAY, rules=[by_id()["log-retention"]])
    assert report.violations == ()


ENTRY = {"rule": "no-nat-gateway", "resource": "network-*", "reason": "the old VPN", "until": "2027-01-31"}


def test_exemptions_are_read_from_the_settings() -> None:
    assert exemptions_of({"goldlake:policyExemptions": json.dumps([ENTRY])}) == (
        Exemption(rule="no-nat-gateway", resource="network-*", reason="the old VPN", until=date(2027, 1, 31)),
    )
    assert exemptions_of({}) == ()


def test_an_exemption_from_a_rule_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="there is no rule 'no-nat-gatway'"):
        exemptions_of({"goldlake:policyExemptions": json.dumps([{**ENTRY, "rule": "no-nat-gatway"}])})


@pytest.mark.parametrize("left_out", sorted(ENTRY))
def test_an_exemption_without_a_part_is_refused(left_out: str) -> None:
    wrong = {key: value for key, value in ENTRY.items() if key != left_out}
    with pytest.raises(ValueError, match="are wanted"):
        parse([wrong])
    with pytest.raises(ConfigurationError, match="policyExemptions"):
        settings_with([wrong])


@pytest.mark.parametrize(("key", "value"), [("until", "soon"), ("until", "2027-13-01"), ("reason", "because")])
def test_an_exemption_needs_a_day_and_a_reason(key: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match="policyExemptions"):
        settings_with([{**ENTRY, key: value}])


def settings_with(entries: list[dict[str, str]]) -> program_settings.Settings:
    values = {"owner": "me", "costCentre": "none", "policyExemptions": json.dumps(entries)}
    return parse_settings(values, stack="dev", region="eu-west-1")


def test_the_program_takes_exemptions_that_can_be_used() -> None:
    assert settings_with([ENTRY]).policy_exemptions == (ENTRY,)


def test_rules_and_program_agree_on_runtimes_and_tags() -> None:
    assert set(program_settings.RUNTIMES) <= limits.RUNTIMES
    assert set(limits.REQUIRED_TAGS) == set(STANDARD_TAGS) - {"Name"}
