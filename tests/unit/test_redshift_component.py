"""The warehouse component: what it refuses, what it registers, in which order, and how a laptop creates it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pulumi
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from components import redshift
from components.redshift import BuilderLogin, RedshiftServerless, RedshiftServerlessArgs, UsageLimit
from local.inprocess import unwrapped
from local.recording import ACCOUNT, REGION, Recording, record
from local.resources import warehouse
from runtime.errors import ConfigurationError, FailedError

SUBNETS = ["subnet-a", "subnet-b", "subnet-c"]
SILVER = "arn:aws:s3:::silver"
ENTRY = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:goldlake/redshift-admin-AbCdEf"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:alarms"
BUILDER, READER = "IAMR:goldlake-dbt-runner", "IAMR:goldlake-export"
SECRET = "pass-W0rd"
SCHEMAS = {"silver_linkedin": "silver_linkedin", "silver_ai": "silver_ai_enrichment"}
OUTPUTS: dict[str, dict[str, Any]] = {
    "aws:redshiftserverless/workgroup:Workgroup": {"endpoints": [{"address": "gold.example", "port": 5440}]},
    "aws:redshiftserverless/namespace:Namespace": {"adminPasswordSecretArn": "arn:aws:managed"},
    "random:index/randomPassword:RandomPassword": {"result": SECRET},
}


def arguments(**given_settings: Any) -> RedshiftServerlessArgs:
    settings: dict[str, Any] = {
        "namespace_name": "goldlake-gold",
        "workgroup_name": "goldlake-gold-workgroup",
        "database": "analytics",
        "region": REGION,
        "account": ACCOUNT,
        "subnet_ids": SUBNETS,
        "security_group_id": "sg-redshift",
        "silver_bucket_arn": SILVER,
        "tags": {"Project": "goldlake"},
        "protect": True,
        "login_secret_arn": ENTRY,
        **given_settings,
    }
    if settings.get("admin_password", "generated") != "generated":
        settings["login_secret_arn"] = given_settings.get("login_secret_arn")
    return RedshiftServerlessArgs(**settings)


def limits(periods: list[Any], actions: list[Any]) -> list[UsageLimit]:
    return [UsageLimit(hours=1, period=period, action=action) for period in periods for action in actions]


def registered(outputs: Mapping[str, Mapping[str, Any]] = OUTPUTS, **settings: Any) -> Recording:
    def program() -> dict[str, pulumi.Output[Any]]:
        made = RedshiftServerless("gold", arguments(**settings))
        return {
            "namespace_name": made.namespace_name,
            "workgroup_name": made.workgroup_name,
            "workgroup_arn": made.workgroup_arn,
            "host": made.host,
            "port": made.port,
            "database": made.database,
            "login_secret_arn": made.login_secret_arn,
            "spectrum_role_arn": made.spectrum_role_arn,
        }

    return record(program, outputs=outputs)


@pytest.fixture(scope="module")
def full() -> Recording:
    return registered(
        external_schemas=SCHEMAS,
        runner_users=[BUILDER],
        reader_users=[READER],
        usage_limits=[UsageLimit(hours=240), UsageLimit(hours=20, period="daily", action="deactivate")],
        alarm_topic_arn=TOPIC,
    )


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"namespace_name": "Gold"}, "namespace 'Gold' must be 3 to 64"),
        ({"workgroup_name": "ab"}, "workgroup 'ab' must be 3 to 64"),
        ({"workgroup_name": "a" * 65}, "must be 3 to 64"),
        ({"database": "1st"}, "database '1st' must be 1 to 64"),
        ({"admin_user": "1admin"}, "admin user '1admin' must be"),
        ({"builder_login": BuilderLogin(user="Dbt", secret_arn=ENTRY)}, "builder login 'Dbt' must be 1 to 127"),
        ({"builder_login": BuilderLogin(user="admin", secret_arn=ENTRY)}, "'admin' is the administrator"),
        ({"builder_login": BuilderLogin(user="dbt")}, "builder login 'dbt' needs secret_arn"),
        ({"builder_login": BuilderLogin(user="dbt", secret_arn=ENTRY, password="x")}, "and not both"),
        ({"port": 5432 + 100}, "port 5532 must be 5431 to 5455 or 8191 to 8215"),
        ({"base_capacity": 12}, "base capacity 12 must be 4, or 8 to 512 in steps of 8"),
        ({"base_capacity": 0}, "base capacity 0"),
        ({"region": "eu-north-1", "base_capacity": 544}, "eu-north-1 has no other RPUs"),
        ({"base_capacity": 520}, "544 to 1024 in steps of 32"),
        ({"region": "eu-central-1", "base_capacity": 4}, "4 RPU are not there"),
        ({"max_capacity": 12}, "maximum capacity 12 must be 4, or 8 to 5632 in steps of 8"),
        ({"base_capacity": 16, "max_capacity": 8}, "cannot be below the base capacity 16"),
        ({"subnet_ids": SUBNETS[:2]}, "subnets subnet-a, subnet-b: at least 3 different ones"),
        ({"query_seconds": 0}, "0 seconds for a query must be 1 to 86399"),
        ({"snapshot_days": -1}, "snapshots for -1 days must be 0"),
        ({"usage_limits": [UsageLimit(hours=0)]}, "usage limit of 0 RPU-hours must be above 0"),
        ({"usage_limits": [UsageLimit(hours=1)] * 2}, "2 monthly usage limits with action emit-metric"),
        ({"usage_limits": limits(["daily", "weekly"], ["deactivate"])}, "Redshift Serverless allows one"),
        ({"usage_limits": limits(["daily", "weekly", "monthly"], ["log", "emit-metric"])}, "a workgroup has at most 4"),
        ({"usage_limits": limits(["yearly"], ["log"])}, "period 'yearly' must be one of daily"),
        ({"usage_limits": limits(["daily"], ["stop"])}, "action 'stop' must be one of log"),
        ({"admin_password": "given"}, "admin password 'given' must be one of generated, managed, none"),
        ({"login_secret_arn": None}, "generated needs login_secret_arn"),
        ({"admin_password": "managed", "login_secret_arn": ENTRY}, "managed cannot go with login_secret_arn"),
        ({"log_exports": ["querylog"]}, "log export 'querylog' must be one of userlog"),
        ({"gold_schema": "Gold"}, "schema 'Gold' must be 1 to 127"),
        ({"external_schemas": {"gold": "silver_x"}}, "has the name of the gold schema"),
        ({"external_schemas": {"bronze": "bronze"}}, "shows 'bronze', which must match silver_"),
        ({"runner_users": ["dbt"]}, "database user 'dbt' must be IAMR:<role> or IAM:<user>"),
        ({"reader_users": ['IAMR:x" SUPERUSER']}, "must be IAMR:<role>"),
    ],
)
def test_what_redshift_would_refuse_is_refused_before_the_first_resource(
    settings: dict[str, Any], message: str
) -> None:
    refused: list[ConfigurationError] = []

    def program() -> None:
        with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
            RedshiftServerless("gold", arguments(**settings))
        refused.append(caught.value)

    assert record(program).resources == []
    assert len(refused) == 1


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        redshift.check(arguments(namespace_name="X", base_capacity=9, runner_users=["dbt"], login_secret_arn=None))
    assert all(part in caught.value.message for part in ("namespace", "capacity 9", "'dbt'", "login_secret_arn"))


@pytest.mark.parametrize("capacity", [4, 8, 512, 544, 1024])
def test_every_documented_capacity_is_accepted(capacity: int) -> None:
    redshift.check(arguments(region="us-east-1", base_capacity=capacity))


@given(st.lists(st.sampled_from(["a", "b", "c", "d"])))
def test_fewer_than_three_different_subnets_are_refused(subnets: list[str]) -> None:
    if len(set(subnets)) >= 3:
        assert redshift.check_subnets(subnets) == subnets
    else:
        with pytest.raises(ConfigurationError, match="at least 3 different ones"):
            redshift.check_subnets(subnets)


def test_subnets_that_are_known_later_are_checked_then() -> None:
    def program() -> None:
        RedshiftServerless("gold", arguments(subnet_ids=pulumi.Output.from_input(["subnet-a", "subnet-b"])))

    with pytest.raises(Exception, match="at least 3 different ones"):
        record(program)


# Namespace and workgroup


def test_the_names_and_the_login_of_the_warehouse_are_put_out(full: Recording) -> None:
    assert full.exports == {
        "namespace_name": "goldlake-gold",
        "workgroup_name": "goldlake-gold-workgroup",
        "workgroup_arn": f"arn:aws:made-up:{REGION}:{ACCOUNT}:gold",
        "host": "gold.example",
        "port": 5440,
        "database": "analytics",
        "login_secret_arn": ENTRY,
        "spectrum_role_arn": f"arn:aws:made-up:{REGION}:{ACCOUNT}:gold-spectrum-role",
    }


def test_a_workgroup_without_an_endpoint_yet_has_no_host_and_the_port_it_was_given() -> None:
    exports = registered(outputs={}, admin_password="none", port=8192).exports
    assert (exports["host"], exports["port"]) == ("", 8192)


def test_the_component_has_the_token_of_its_module_and_is_the_parent_of_all(full: Recording) -> None:
    assert full.resource("gold", "RedshiftServerless").type == "goldlake:warehouse:RedshiftServerless"
    assert {found.parent for found in full.resources if found.custom} == {"gold"}


@pytest.mark.parametrize("protect", [True, False])
def test_the_namespace_holds_the_data_and_alone_is_protected(protect: bool) -> None:
    found = registered(protect=protect)
    assert found.resource("gold", ":Namespace").protect is protect
    assert [each.name for each in found.resources if each.protect] == (["gold"] if protect else [])


def test_a_workgroup_is_private_and_lies_in_the_given_subnets_and_group(full: Recording) -> None:
    workgroup = full.one(":Workgroup")
    assert workgroup["publiclyAccessible"] is False
    assert workgroup["enhancedVpcRouting"] is False
    assert workgroup["subnetIds"] == SUBNETS
    assert workgroup["securityGroupIds"] == ["sg-redshift"]
    assert (workgroup["baseCapacity"], workgroup["port"], "maxCapacity" in workgroup) == (8, 5439, False)


def test_a_maximum_capacity_is_passed_on() -> None:
    assert registered(max_capacity=64).one(":Workgroup")["maxCapacity"] == 64


def test_all_parameters_that_aws_reports_are_declared() -> None:
    parameters = registered(query_seconds=60, require_ssl=False).one(":Workgroup")["configParameters"]
    declared = {each["parameterKey"]: each["parameterValue"] for each in parameters}
    assert declared == redshift.config_parameters(require_ssl=False, query_seconds=60)
    assert declared.keys() == {
        "auto_mv",
        "datestyle",
        "enable_case_sensitive_identifier",
        "enable_user_activity_logging",
        "max_query_execution_time",
        "query_group",
        "require_ssl",
        "search_path",
        "use_fips_ssl",
    }
    assert (declared["enable_case_sensitive_identifier"], declared["require_ssl"]) == ("true", "false")
    assert declared["max_query_execution_time"] == "60"


def test_tls_is_demanded_by_default(full: Recording) -> None:
    parameters = full.one(":Workgroup")["configParameters"]
    assert {"parameterKey": "require_ssl", "parameterValue": "true"} in parameters


def test_audit_logs_are_exported_and_a_key_encrypts_the_data(full: Recording) -> None:
    assert full.one(":Namespace")["logExports"] == ["userlog", "connectionlog", "useractivitylog"]
    assert "kmsKeyId" not in full.one(":Namespace")
    assert registered(key_arn=KEY).one(":Namespace")["kmsKeyId"] == KEY


def test_everything_that_can_be_tagged_has_the_tags_and_its_own_name(full: Recording) -> None:
    for suffix, name in {
        ":Namespace": "goldlake-gold",
        ":Workgroup": "goldlake-gold-workgroup",
        ":Role": "goldlake-gold-spectrum",
    }.items():
        assert full.one(suffix)["tags"] == {"Project": "goldlake", "Name": name}


# The administrator


def test_a_generated_password_keeps_redshifts_rules(full: Recording) -> None:
    rules = full.one(":RandomPassword")
    assert rules == {"length": 32, "special": False, "minUpper": 1, "minLower": 1, "minNumeric": 1}


def test_a_generated_password_is_in_the_namespace_and_in_the_entry_and_nowhere_else(full: Recording) -> None:
    assert full.one(":Namespace")["adminUserPassword"] == SECRET
    assert json.loads(full.one(":SecretVersion")["secretString"]) == {"username": "admin", "password": SECRET}
    assert full.one(":SecretVersion")["secretId"] == ENTRY
    holders = [found.type.rsplit(":", 1)[1] for found in full.resources if SECRET in json.dumps(found.inputs)]
    assert sorted(holders) == ["Namespace", "SecretVersion"]
    assert SECRET not in json.dumps(full.exports)


def test_a_generated_password_is_a_secret_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.recording.unwrapped", lambda value: value)
    found = registered()
    for wrapped in (found.one(":Namespace")["adminUserPassword"], found.one(":SecretVersion")["secretString"]):
        assert isinstance(wrapped, dict)
        assert SECRET in unwrapped(wrapped)


def test_a_managed_password_is_made_by_aws_under_the_given_key() -> None:
    found = registered(admin_password="managed", key_arn=KEY)
    namespace = found.one(":Namespace")
    assert (namespace["adminUsername"], namespace["manageAdminPassword"]) == ("admin", True)
    assert namespace["adminPasswordSecretKmsKeyId"] == KEY
    assert "adminUserPassword" not in namespace
    assert found.of(":RandomPassword") == found.of(":SecretVersion") == {}
    assert found.exports["login_secret_arn"] == "arn:aws:managed"
    assert found.resource("gold-gold").inputs["secretArn"] == "arn:aws:managed"


def test_without_an_administrator_nothing_is_said_of_one() -> None:
    found = registered(admin_password="none")
    assert not {"adminUsername", "adminUserPassword", "manageAdminPassword"} & found.one(":Namespace").keys()
    assert found.of(":RandomPassword") == found.of(":SecretVersion") == {}
    assert found.exports["login_secret_arn"] == ""
    assert "secretArn" not in found.resource("gold-gold").inputs


# The login of what builds


DBT_ENTRY = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:goldlake/redshift-dbt-AbCdEf"
STORED = "md5" + hashlib.md5(f"{SECRET}dbt".encode(), usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def by_login() -> Recording:
    login = BuilderLogin(user="dbt", secret_arn=DBT_ENTRY)
    return registered(external_schemas=SCHEMAS, builder_login=login, admin_password="managed")


def test_a_builders_generated_password_is_in_its_entry_and_elsewhere_only_as_a_hash(by_login: Recording) -> None:
    version = by_login.one(":SecretVersion")
    assert json.loads(version["secretString"]) == {"username": "dbt", "password": SECRET}
    assert version["secretId"] == DBT_ENTRY
    assert statements(by_login)["gold-access"]["sql"] == f"""CALL "gold"."sp_goldlake_access"('{STORED}')"""

    def holders(text: str) -> list[str]:
        return [found.name for found in by_login.resources if text in json.dumps(found.inputs)]

    assert holders(SECRET) == ["gold-builder-login"]
    # Every user can read a procedure's text.
    assert holders(STORED) == ["gold-access"]


def test_a_builders_hash_is_a_secret_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.recording.unwrapped", lambda value: value)
    for login in (BuilderLogin(user="dbt", secret_arn=DBT_ENTRY), BuilderLogin(user="dbt", password=SECRET)):
        wrapped = statements(registered(builder_login=login))["gold-access"]["sql"]
        assert isinstance(wrapped, dict)
        assert STORED in unwrapped(wrapped)


def test_a_builder_has_its_entry_filled_before_it_is_created_and_builds_as_others_do(by_login: Recording) -> None:
    assert {"gold-procedure", "gold-builder-login"} <= by_login.resource("gold-access", "Statement").depends_on
    assert 'GRANT USAGE, CREATE ON SCHEMA "gold" TO "dbt"' in statements(by_login)["gold-procedure"]["sql"]
    assert statements(by_login)["gold-external-access"]["sql"].endswith('TO "dbt"')


def test_a_builder_whose_password_is_in_an_entry_already_has_nothing_put_there() -> None:
    found = registered(builder_login=BuilderLogin(user="dbt", password=SECRET), admin_password="none")
    assert found.of(":RandomPassword") == found.of(":SecretVersion") == {}
    assert STORED in statements(found)["gold-access"]["sql"]
    assert SECRET not in json.dumps([resource.inputs for resource in found.resources])


def test_a_builders_password_is_in_no_repr() -> None:
    assert SECRET not in repr(BuilderLogin(user="dbt", password=SECRET))


# The Spectrum role


def test_spectrum_reads_silver_tables_and_the_silver_bucket_and_no_more() -> None:
    root = f"arn:aws:glue:{REGION}:{ACCOUNT}"
    assert redshift.spectrum_statements(REGION, ACCOUNT, SILVER, ["silver_*"]) == [
        {
            "Effect": "Allow",
            "Action": [
                "glue:GetDatabase",
                "glue:GetDatabases",
                "glue:GetTable",
                "glue:GetTables",
                "glue:GetPartition",
                "glue:GetPartitions",
            ],
            "Resource": [f"{root}:catalog", f"{root}:database/silver_*", f"{root}:table/silver_*/*"],
        },
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": [SILVER],
            "Condition": {"StringLike": {"s3:prefix": ["silver", "silver/*"]}},
        },
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": [f"{SILVER}/silver/*"]},
    ]


def test_spectrum_decrypts_with_the_key_that_is_given() -> None:
    assert redshift.spectrum_statements(REGION, ACCOUNT, SILVER, ["silver_*"], KEY)[3:] == [
        {
            "Effect": "Allow",
            "Action": ["kms:Decrypt"],
            "Resource": [KEY],
            "Condition": {"StringLike": {"kms:ViaService": ["s3.*.amazonaws.com"]}},
        }
    ]
    policy = json.loads(registered(key_arn=KEY).one(":RolePolicy")["policy"])
    assert policy["Statement"][-1]["Resource"] == [KEY]


def test_the_spectrum_role_is_redshifts_in_this_account_and_the_namespaces_default(full: Recording) -> None:
    (trusted,) = json.loads(full.one(":Role")["assumeRolePolicy"])["Statement"]
    assert trusted["Principal"] == {"Service": ["redshift-serverless.amazonaws.com", "redshift.amazonaws.com"]}
    assert trusted["Condition"] == {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    role_arn = full.exports["spectrum_role_arn"]
    assert full.one(":Namespace")["iamRoles"] == [role_arn]
    assert full.one(":Namespace")["defaultIamRoleArn"] == role_arn
    statements = json.loads(full.one(":RolePolicy")["policy"])["Statement"]
    assert statements == redshift.spectrum_statements(REGION, ACCOUNT, SILVER, ["silver_*"])


# Limits and snapshots


def test_usage_limits_are_rpu_hours_of_the_workgroup(full: Recording) -> None:
    limits = full.of(":UsageLimit")
    assert limits["gold-limit-monthly-emit-metric"] == {
        "resourceArn": full.exports["workgroup_arn"],
        "usageType": "serverless-compute",
        "amount": 240,
        "period": "monthly",
        "breachAction": "emit-metric",
    }
    assert limits["gold-limit-daily-deactivate"]["amount"] == 20


def test_a_usage_limit_that_is_used_up_is_told(full: Recording) -> None:
    alarms = full.of(":MetricAlarm")
    assert alarms.keys() == {"gold-limit-monthly-emit-metric-alarm", "gold-limit-daily-deactivate-alarm"}
    alarm = alarms["gold-limit-monthly-emit-metric-alarm"]
    assert (alarm["namespace"], alarm["metricName"]) == ("AWS/Redshift-Serverless", "UsageLimitConsumed")
    assert alarm["dimensions"] == {
        "UsageLimitId": "gold-limit-monthly-emit-metric-id",
        "UsageType": "SERVERLESS_COMPUTE",
        "Workgroup": "goldlake-gold-workgroup",
    }
    assert (alarm["threshold"], alarm["alarmActions"]) == (240, [TOPIC])


def test_a_limit_that_only_logs_has_no_alarm_and_neither_has_one_without_a_topic() -> None:
    logs = registered(usage_limits=[UsageLimit(hours=1, action="log")], alarm_topic_arn=TOPIC)
    silent = registered(usage_limits=[UsageLimit(hours=1)])
    assert len(logs.of(":UsageLimit")) == len(silent.of(":UsageLimit")) == 1
    assert logs.of(":MetricAlarm") == silent.of(":MetricAlarm") == {}


def test_snapshots_are_taken_daily_and_kept_as_long_as_asked(full: Recording) -> None:
    assert full.of(":Schedule") == {}
    found = registered(snapshot_days=14)
    schedule = found.one(":Schedule")
    assert schedule["scheduleExpression"] == "rate(1 day)"
    assert schedule["target"]["arn"] == "arn:aws:scheduler:::aws-sdk:redshiftserverless:createSnapshot"
    assert json.loads(schedule["target"]["input"]) == {
        "NamespaceName": "goldlake-gold",
        "SnapshotName": "goldlake-gold-<aws.scheduler.execution-id>",
        "RetentionPeriod": 14,
    }
    (statement,) = json.loads(found.resource("gold-snapshots-policy").inputs["policy"])["Statement"]
    assert statement["Action"] == ["redshift-serverless:CreateSnapshot"]
    assert statement["Resource"] == [
        f"arn:aws:made-up:{REGION}:{ACCOUNT}:gold",
        f"arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:snapshot/*",
    ]


# SQL


def statements(found: Recording) -> dict[str, dict[str, Any]]:
    return found.of("redshiftdata/statement:Statement")


def test_sql_runs_in_the_workgroups_database_as_the_administrator(full: Recording) -> None:
    assert statements(full).keys() == {
        "gold-gold",
        "gold-procedure",
        "gold-access",
        "gold-external-silver_linkedin",
        "gold-external-silver_ai",
        "gold-external-access",
    }
    for statement in statements(full).values():
        assert statement["workgroupName"] == "goldlake-gold-workgroup"
        assert (statement["database"], statement["secretArn"]) == ("analytics", ENTRY)


def test_sql_waits_for_the_workgroup_its_role_and_the_login_and_then_for_each_other(full: Recording) -> None:
    def awaited(name: str) -> frozenset[str]:
        return full.resource(f"gold-{name}", "Statement").depends_on

    assert {"gold", "gold-spectrum-policy", "gold-login"} <= awaited("gold")
    assert "gold-gold" in awaited("procedure")
    assert "gold-procedure" in awaited("access")
    assert "gold-access" in awaited("external-silver_ai")
    assert {"gold-external-silver_ai", "gold-external-silver_linkedin"} <= awaited("external-access")


def test_external_schemas_show_their_glue_database_by_the_spectrum_role(full: Recording) -> None:
    text = statements(full)["gold-external-silver_ai"]["sql"]
    assert "\"silver_ai\" FROM DATA CATALOG DATABASE 'silver_ai_enrichment'" in text
    assert f"REGION '{REGION}' IAM_ROLE '{full.exports['spectrum_role_arn']}'" in text


def test_builders_and_readers_get_into_the_procedure_and_only_builders_read_silver(full: Recording) -> None:
    assert BUILDER in statements(full)["gold-procedure"]["sql"]
    assert READER in statements(full)["gold-procedure"]["sql"]
    grants = statements(full)["gold-external-access"]["sql"]
    assert grants == f'GRANT USAGE ON SCHEMA "silver_linkedin", "silver_ai" TO "{BUILDER}"'


def test_a_changed_procedure_is_called_again_and_an_unchanged_one_is_not(full: Recording) -> None:
    settings: dict[str, Any] = {"external_schemas": SCHEMAS, "runner_users": [BUILDER]}
    same = registered(**settings, reader_users=[READER])
    other = registered(**settings)
    names = [statements(found)["gold-access"]["statementName"] for found in (full, same, other)]
    assert names[0] == names[1] != names[2]
    assert len({statements(found)["gold-access"]["sql"] for found in (full, other)}) == 1


def test_a_schema_that_shows_another_database_is_granted_again(full: Recording) -> None:
    moved = registered(external_schemas=SCHEMAS | {"silver_ai": "silver_ai_new"}, runner_users=[BUILDER])
    before, after = (statements(found)["gold-external-access"] for found in (full, moved))
    assert before["sql"] == after["sql"]
    assert before["statementName"] != after["statementName"]


def test_a_warehouse_without_users_and_external_schemas_gets_its_gold_schema_only() -> None:
    found = statements(registered())
    assert {name: statement["sql"] for name, statement in found.items()} == {
        "gold-gold": 'CREATE SCHEMA IF NOT EXISTS "gold"'
    }


def test_readers_alone_are_granted_nothing_on_external_schemas() -> None:
    assert "gold-external-access" not in statements(registered(external_schemas=SCHEMAS, reader_users=[READER]))


# On a laptop: the same resources by boto3


class Client:
    """Answers methods from a table, and remembers the calls. An answer that is an exception is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, method: str) -> Any:
        def call(**request: Any) -> Any:
            self.calls.append((method, request))
            answer = self.answers[method]
            if isinstance(answer, list):
                answer = answer.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def requests(self, method: str) -> list[dict[str, Any]]:
        return [request for name, request in self.calls if name == method]


def refusal(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": code}}, "operation")


def apply(kind: str, client: Client, inputs: dict[str, Any], id: str | None = None) -> Any:
    connection: Any = SimpleNamespace(client=lambda _name: client)
    return warehouse.WAREHOUSE[kind].apply(connection, inputs, id)


def exists(kind: str, client: Client, id: str) -> bool:
    connection: Any = SimpleNamespace(client=lambda _name: client)
    found: bool = warehouse.WAREHOUSE[kind].exists(connection, id, {})
    return found


NAMESPACE = "aws:redshiftserverless/namespace:Namespace"
WORKGROUP = "aws:redshiftserverless/workgroup:Workgroup"
LIMIT = "aws:redshiftserverless/usageLimit:UsageLimit"
STATEMENT = "aws:redshiftdata/statement:Statement"
VERSION = "aws:secretsmanager/secretVersion:SecretVersion"
NAMESPACE_ANSWER = {"namespace": {"namespaceArn": "arn:n", "namespaceId": "n-1", "dbName": "analytics"}}
NAMESPACE_INPUTS = {
    "namespaceName": "gold",
    "dbName": "analytics",
    "adminUsername": "admin",
    "adminUserPassword": SECRET,
    "iamRoles": ["arn:role"],
    "defaultIamRoleArn": "arn:role",
    "logExports": ["userlog"],
    "tags": {"Project": "goldlake"},
}


def test_every_type_that_the_component_registers_can_be_created_or_is_refused(full: Recording) -> None:
    known = {*warehouse.WAREHOUSE, *warehouse.REFUSED}
    own = {found.type for found in full.resources if re.search("redshift|secretsmanager|random", found.type)}
    assert own - {"goldlake:warehouse:RedshiftServerless"} == known
    assert "goldlake:adminPassword to none" in warehouse.REFUSED["random:index/randomPassword:RandomPassword"]


def test_a_namespace_is_created_with_its_settings_and_puts_out_no_password() -> None:
    client = Client(create_namespace={}, get_namespace=NAMESPACE_ANSWER)
    applied = apply(NAMESPACE, client, NAMESPACE_INPUTS)
    (request,) = client.requests("create_namespace")
    assert request == NAMESPACE_INPUTS | {"tags": [{"key": "Project", "value": "goldlake"}]}
    assert (applied.id, applied.outputs["arn"], applied.outputs["dbName"]) == ("gold", "arn:n", "analytics")
    assert SECRET not in json.dumps(applied.outputs)


def test_a_namespace_that_is_there_is_updated_by_one_kind_of_setting_at_a_time() -> None:
    client = Client(
        create_namespace=refusal("ConflictException"),
        update_namespace={},
        tag_resource={},
        get_namespace=NAMESPACE_ANSWER,
    )
    apply(NAMESPACE, client, NAMESPACE_INPUTS, "gold")
    assert [set(request) - {"namespaceName"} for request in client.requests("update_namespace")] == [
        {"adminUsername", "adminUserPassword"},
        {"iamRoles", "defaultIamRoleArn"},
        {"logExports"},
    ]
    assert client.requests("tag_resource")[0]["resourceArn"] == "arn:n"


def workgroup_answer(**settings: Any) -> dict[str, Any]:
    workgroup = {
        "workgroupArn": "arn:w",
        "workgroupId": "w-1",
        "status": "AVAILABLE",
        "endpoint": {"address": "127.0.0.1", "port": 40123},
    }
    return {"workgroup": workgroup | settings}


def test_a_workgroup_puts_out_its_endpoint_as_the_provider_does(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("local.resources.warehouse.time.sleep", pauses.append)
    waiting = [workgroup_answer(status="CREATING"), workgroup_answer()]
    client = Client(create_workgroup={}, get_workgroup=waiting)
    inputs = {"workgroupName": "w", "namespaceName": "n", "baseCapacity": 8, "subnetIds": SUBNETS}
    applied = apply(WORKGROUP, client, inputs)
    assert client.requests("create_workgroup") == [inputs | {"tags": []}]
    assert applied.outputs["endpoints"] == [{"address": "127.0.0.1", "port": 40123}]
    assert (applied.outputs["arn"], len(pauses)) == ("arn:w", 1)


def test_a_workgroup_that_is_there_is_updated_where_it_differs_one_setting_at_a_time() -> None:
    inputs = {
        "workgroupName": "w",
        "namespaceName": "n",
        "baseCapacity": 16,
        "maxCapacity": 32,
        "subnetIds": SUBNETS[::-1],
        "publiclyAccessible": False,
        "configParameters": [{"parameterKey": "require_ssl", "parameterValue": "true"}],
    }
    current = {"baseCapacity": 8, "maxCapacity": 8, "subnetIds": SUBNETS, "publiclyAccessible": False}
    client = Client(
        create_workgroup=refusal("ConflictException"),
        get_workgroup=workgroup_answer(**current, configParameters=[]),
        update_workgroup={},
    )
    apply(WORKGROUP, client, inputs, "w")
    assert client.requests("update_workgroup") == [
        {"workgroupName": "w", "maxCapacity": 32},
        {"workgroupName": "w", "baseCapacity": 16},
        {"workgroupName": "w", "configParameters": inputs["configParameters"]},
    ]


CAPACITY = st.integers(1, 64).map(lambda steps: steps * 8)


@given(CAPACITY, CAPACITY, st.none() | CAPACITY, st.none() | CAPACITY)
def test_the_maximum_capacity_is_never_below_the_base_on_the_way(
    old_base: int, base: int, old_most: int | None, most: int | None
) -> None:
    current = {"baseCapacity": old_base, "maxCapacity": max(old_base, old_most) if old_most else None}
    wanted = {"baseCapacity": base} | ({"maxCapacity": max(base, most)} if most else {})
    state: dict[str, Any] = dict(current)
    for change in warehouse.workgroup_changes(current, wanted):
        assert len(change) == 1
        state |= change
        assert state["maxCapacity"] in (None, -1) or state["maxCapacity"] >= state["baseCapacity"]
    assert state["baseCapacity"] == base
    assert state["maxCapacity"] == wanted.get("maxCapacity", -1 if current["maxCapacity"] else None)


LIMIT_INPUTS = {
    "resourceArn": "arn:w",
    "usageType": "serverless-compute",
    "amount": 240,
    "period": "monthly",
    "breachAction": "emit-metric",
}
LIMIT_ANSWER = {"usageLimit": {"usageLimitId": "l-1", "usageLimitArn": "arn:l"}}


def test_a_usage_limit_is_created_once_and_then_changed() -> None:
    client = Client(
        list_usage_limits={"usageLimits": []}, create_usage_limit=LIMIT_ANSWER, update_usage_limit=LIMIT_ANSWER
    )
    assert apply(LIMIT, client, LIMIT_INPUTS).id == "l-1"
    assert client.requests("create_usage_limit") == [LIMIT_INPUTS]
    apply(LIMIT, client, LIMIT_INPUTS | {"amount": 5}, "l-1")
    assert client.requests("update_usage_limit") == [
        {"usageLimitId": "l-1", "amount": 5, "breachAction": "emit-metric"}
    ]


def test_a_usage_limit_that_an_interrupted_deployment_left_is_taken_over() -> None:
    left = LIMIT_INPUTS | {"usageLimitId": "l-1", "amount": 1}
    other = left | {"usageLimitId": "l-2", "period": "daily"}
    client = Client(list_usage_limits={"usageLimits": [other, left]}, update_usage_limit=LIMIT_ANSWER)
    apply(LIMIT, client, LIMIT_INPUTS)
    assert client.requests("update_usage_limit")[0]["usageLimitId"] == "l-1"


STATEMENT_INPUTS = {
    "sql": "select 1",
    "database": "analytics",
    "workgroupName": "w",
    "secretArn": ENTRY,
    "statementName": "gold",
}


def test_a_statement_is_run_and_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.resources.warehouse.time.sleep", lambda _seconds: None)
    states = [{"Status": "SUBMITTED"}, {"Status": "STARTED"}, {"Status": "FINISHED"}]
    client = Client(execute_statement={"Id": "s-1"}, describe_statement=states)
    assert apply(STATEMENT, client, STATEMENT_INPUTS).id == "s-1"
    assert client.requests("execute_statement") == [
        {
            "Sql": "select 1",
            "Database": "analytics",
            "WorkgroupName": "w",
            "SecretArn": ENTRY,
            "StatementName": "gold",
        }
    ]
    assert states == []


def test_a_changed_statement_runs_again() -> None:
    client = Client(execute_statement={"Id": "s-2"}, describe_statement={"Status": "FINISHED"})
    assert apply(STATEMENT, client, STATEMENT_INPUTS, "s-1").id == "s-2"


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"Status": "FAILED", "Error": 'ERROR: schema "gold" does not exist'}, 'ERROR: schema "gold" does not exist'),
        ({"Status": "ABORTED"}, "statement gold: aborted"),
    ],
)
def test_a_statement_that_fails_fails_with_the_databases_words(described: dict[str, str], message: str) -> None:
    client = Client(execute_statement={"Id": "s-1"}, describe_statement=described)
    with pytest.raises(FailedError, match=re.escape(message)):
        apply(STATEMENT, client, STATEMENT_INPUTS)


def test_patience_with_a_statement_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000, 300))
    monkeypatch.setattr(
        "local.resources.warehouse.time",
        SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _seconds: None),
    )
    client = Client(execute_statement={"Id": "s-1"}, describe_statement={"Status": "STARTED"})
    with pytest.raises(FailedError, match="statement gold is not ready after 600 s"):
        apply(STATEMENT, client, STATEMENT_INPUTS)


def test_a_logins_secret_is_put_and_its_value_is_not_put_out() -> None:
    client = Client(put_secret_value={"ARN": ENTRY, "VersionId": "v-1"})
    applied = apply(VERSION, client, {"secretId": ENTRY, "secretString": SECRET})
    assert client.requests("put_secret_value") == [{"SecretId": ENTRY, "SecretString": SECRET}]
    assert applied.id == f"{ENTRY}|v-1"
    assert SECRET not in json.dumps(applied.outputs)


@pytest.mark.parametrize(
    ("kind", "method", "id"),
    [
        (NAMESPACE, "get_namespace", "gold"),
        (WORKGROUP, "get_workgroup", "w"),
        (LIMIT, "get_usage_limit", "l-1"),
        (STATEMENT, "describe_statement", "s-1"),
        (VERSION, "describe_secret", f"{ENTRY}|v-1"),
    ],
)
def test_what_is_gone_is_found_to_be_gone(kind: str, method: str, id: str) -> None:
    there = {"VersionIdsToStages": {"v-1": ["AWSCURRENT"]}}
    assert exists(kind, Client(**{method: there}), id) is True
    assert exists(kind, Client(**{method: refusal("ResourceNotFoundException")}), id) is False
    with pytest.raises(ClientError):
        exists(kind, Client(**{method: refusal("AccessDeniedException")}), id)


def test_a_version_that_was_replaced_and_forgotten_is_gone() -> None:
    assert exists(VERSION, Client(describe_secret={"VersionIdsToStages": {"v-2": []}}), f"{ENTRY}|v-1") is False
