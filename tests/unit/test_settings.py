"""Settings: one validated object, all faults at once, and Pulumi.yaml says the same."""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from components.naming import STANDARD_TAGS
from runtime.errors import ConfigurationError
from stacks.documentation import page
from stacks.settings import AGREEMENTS, Settings, config_keys, parse_settings

REQUIRED = {"owner": "data-platform", "costCentre": "gold"}
VPC = "vpc-0123456789abcdef0"


def parse(**values: str) -> Settings:
    return parse_settings({**REQUIRED, **values}, stack="dev", region="eu-west-1")


@functools.cache
def declared(project_root: Path) -> dict[str, dict[str, Any]]:
    config: dict[str, dict[str, Any]] = yaml.safe_load((project_root / "Pulumi.yaml").read_text())["config"]
    return {key.removeprefix("goldlake:"): entry for key, entry in config.items()}


def test_pulumi_yaml_declares_every_setting_and_no_other(project_root: Path) -> None:
    assert set(declared(project_root)) == set(config_keys().values())


def test_pulumi_yaml_and_settings_have_the_same_defaults(project_root: Path) -> None:
    defaults = Settings.model_validate({"stack": "dev", "region": "eu-west-1", **REQUIRED})
    for name, key in config_keys().items():
        if key in REQUIRED:
            assert "default" not in declared(project_root)[key]
            continue
        value = getattr(defaults, name)
        plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        assert declared(project_root)[key]["default"] == plain


def test_pulumi_yaml_gives_every_setting_a_type_and_a_description(project_root: Path) -> None:
    for key, entry in declared(project_root).items():
        assert entry["type"] in ("string", "integer", "boolean", "array", "object"), key
        assert entry["description"].endswith("."), key


def test_the_documentation_is_made_of_the_settings_as_they_are(project_root: Path) -> None:
    assert (project_root / "docs" / "configuration.md").read_text() == page(project_root), "run `make docs`"


def test_the_documentation_gives_every_setting_its_range_and_every_agreement(project_root: Path) -> None:
    text = page(project_root)
    assert all(f"| `{key}` |" in text for key in config_keys().values())
    assert all(agreement.reason in text for agreement in AGREEMENTS)
    assert "512 to 10240 MB" in text
    assert "One of none, single, per-zone." in text


@pytest.mark.parametrize("stack", ["dev", "localstack", "prod.example"])
def test_the_stack_files_are_accepted(project_root: Path, stack: str) -> None:
    config = yaml.safe_load((project_root / f"Pulumi.{stack}.yaml").read_text())["config"]
    values = {
        key.removeprefix("goldlake:"): value if isinstance(value, str) else json.dumps(value)
        for key, value in config.items()
        if key.startswith("goldlake:")
    }
    assert (
        parse_settings(values, stack=stack.split(".", maxsplit=1)[0], region=config["aws:region"]).owner
        == values["owner"]
    )


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("prefix", "Gold", "S3 bucket names allow no more"),
        ("prefix", "g" * 21, "2 to 20"),
        ("units", '["foundation", "foundation"]', "each once"),
        ("units", '["networking"]', "state, foundation, lake, secrets, warehouse, transform, pipeline"),
        ("imports", '{"networking": "base"}', "a stack's name"),
        ("imports", '{"foundation": "base dev"}', "project/name"),
        ("owner", "", "1 to 256"),
        ("tags", '{"Owner": "me"}', "none of Name, Project"),
        ("tags", '{"aws:x": "me"}', "tags that AWS allows"),
        ("tags", "[]", "valid dict"),
        ("natGateways", "many", "'none', 'single' or 'per-zone'"),
        ("existingVpcId", "vpc-1", "vpc-0123456789abcdef0"),
        ("alarmEmails", '["you"]', "mail addresses"),
        ("silverBucket", "my..bucket", "the rule for S3 bucket names"),
        ("baseCapacity", "12", "8 to 512 in steps of 8"),
        ("usageLimitPeriod", "yearly", "'daily', 'weekly' or 'monthly'"),
        ("querySeconds", "0", "1 to 86399"),
        ("adminPassword", "hunter2", "'generated', 'managed' or 'none'"),
        ("externalSchemas", '{"x": "bronze"}', "Spectrum's role may read no others"),
        ("dbtReservedConcurrency", "2", "dbt must not run twice at once"),
        ("dbtOperations", '["drop table"]', "names of macros"),
        ("handOverRetries", "21", "belongs into a container"),
        ("handOverRetries", "-1", "0 for none"),
        ("dbtStableVersion", "v1", "number of a published version"),
        ("oldVersionDays", "0", "1 to 3650"),
        ("snapshotDays", "-1", "0 for none"),
        ("moreSecrets", '["nope"]', "in the catalogue"),
        ("moreSecrets", '["redshift-admin"]', "which a stack has if it needs them"),
        ("moreSecrets", '["redshift-dbt"]', "which a stack has if it needs them"),
        ("units", "foundation", "valid tuple"),
        ("vpcCidr", "8.8.0.0/16", "private IPv4 range of /16 to /22"),
        ("vpcCidr", "10.0.0.0/24", "three subnets are cut from it"),
        ("availabilityZones", '["a", "b"]', "Redshift Serverless needs subnets in 3"),
        ("logRetentionDays", "31", "CloudWatch Logs has no others"),
        ("lambdaRuntime", "python3.9", "python3.11"),
        ("dbtMemoryMb", "256", "512 to 10240 MB"),
        ("timeoutSeconds", "901", "Lambda's own limit is 900"),
        ("warehousePort", "80", "1024 to 65535"),
        ("warehouseHost", "host name", "a host name or IPv4 address"),
        ("scheduleExpression", "every day", "cron(...), rate(...) or at(...)"),
        ("trinoUrl", "trino:8080", "http(s)://user@host:port/catalog"),
        ("protectdata", "false", "no such setting"),
    ],
)
def test_a_value_out_of_range_is_refused_with_key_value_and_reason(key: str, value: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(**{key: value})
    assert f"goldlake:{key}" in refused.value.message
    assert reason in refused.value.message


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(prefix="G", dbtMemoryMb="1", timeoutSeconds="many")
    assert refused.value.message.startswith("3 settings of stack 'dev' cannot be used")


def test_deleting_data_takes_two_settings() -> None:
    with pytest.raises(ConfigurationError, match="deleting data takes both"):
        parse(forceDestroy="true")
    assert parse(forceDestroy="true", protectData="false").force_destroy


def test_a_stack_without_owner_and_cost_centre_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"2 settings .*\n.*owner is not set.*\n.*costCentre is not set"):
        parse_settings({}, stack="dev", region="eu-west-1")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"existingVpcId": VPC}, "an existing network needs its VPC, its subnets and their route tables"),
        (
            {
                "existingVpcId": VPC,
                "existingSubnetIds": '["subnet-0123456789abcdef0"]',
                "existingRouteTableIds": '["rtb-0123456789abcdef0"]',
            },
            "at least 3 subnets",
        ),
        ({"maxCapacity": "8", "baseCapacity": "16"}, "below the base capacity"),
        ({"warehouseHost": "example.com", "signIn": "password"}, "instead of the unit warehouse"),
        ({"warehouseHost": "example.com", "units": '["foundation"]'}, "signIn must be password"),
        ({"warehousePort": "5500"}, "5431 to 5455 or 8191 to 8215"),
        ({"canaryPercent": "10"}, "set dbtStableVersion"),
        ({"requireTls": "false"}, "only the laptop's stack"),
        ({"adminPassword": "none", "signIn": "password"}, "nobody can sign in by it"),
    ],
)
def test_values_that_do_not_go_together_are_refused(values: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(**values)
    (line,) = [line for line in refused.value.message.splitlines() if reason in line]
    assert any(f"goldlake:{key} = " in line for key in values)


def test_large_capacities_are_accepted_where_there_are_any_and_refused_elsewhere() -> None:
    large = {**REQUIRED, "baseCapacity": "1024", "maxCapacity": "2048"}
    settings = parse_settings(large, stack="dev", region="us-east-1")
    assert (settings.base_capacity, settings.max_capacity) == (1024, 2048)
    with pytest.raises(ConfigurationError, match="more than 512 RPU are there in eu-central-1"):
        parse_settings(large, stack="dev", region="eu-north-1")


def test_4_rpu_are_accepted_where_there_are_any_and_refused_elsewhere() -> None:
    small = {**REQUIRED, "baseCapacity": "4"}
    assert parse_settings(small, stack="dev", region="eu-north-1").base_capacity == 4
    with pytest.raises(ConfigurationError, match="4 RPU are there in ap-northeast-1, "):
        parse_settings(small, stack="dev", region="eu-central-1")


def test_an_alarm_that_no_function_has_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"any of errors, throttles, duration, each once"):
        parse(functionAlarms='["errors", "noise"]')


def test_a_wrong_value_does_not_hide_that_others_disagree() -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(dbtMemoryMb="1", forceDestroy="true")
    assert refused.value.message.startswith("2 settings")
    assert "goldlake:dbtMemoryMb" in refused.value.message
    assert "deleting data takes both" in refused.value.message


def test_a_wrong_value_is_not_said_to_disagree_as_well() -> None:
    with pytest.raises(ConfigurationError, match=r"^1 setting of"):
        parse(baseCapacity="1024x", maxCapacity="8")


def test_the_laptops_stack_may_go_without_tls() -> None:
    assert not parse_settings({**REQUIRED, "requireTls": "false"}, stack="localstack", region="eu-west-1").require_tls


def test_the_standard_tags_are_on_every_unit_and_cannot_be_replaced() -> None:
    tags = parse(tags='{"Team": "gold"}').names("lake").tags("silver")
    assert tags == {
        "Team": "gold",
        "Name": "goldlake-silver",
        "Project": "goldlake",
        "Environment": "dev",
        "Stack": "dev",
        "Unit": "lake",
        "Owner": "data-platform",
        "CostCentre": "gold",
        "ManagedBy": "pulumi",
    }
    assert set(tags) == {"Team", *STANDARD_TAGS}


def test_a_missing_region_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="set by aws:region"):
        parse_settings(REQUIRED, stack="dev", region=None)


@given(st.dictionaries(st.sampled_from(sorted(config_keys().values())), st.text(max_size=40), max_size=5))
def test_any_text_is_accepted_or_refused_with_a_message(values: dict[str, str]) -> None:
    with contextlib.suppress(ConfigurationError):
        assert parse_settings({**REQUIRED, **values}, stack="dev", region="eu-west-1").stack == "dev"
