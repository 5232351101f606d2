"""Settings: one validated object, all faults at once, and Pulumi.yaml says the same."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import ConfigurationError
from stacks.settings import Settings, config_keys, parse_settings

HOST = {"warehouseHost": "warehouse.example.com"}


def parse(**values: str) -> Settings:
    return parse_settings({**HOST, **values}, stack="dev", region="eu-west-1")


def declared(project_root: Path) -> dict[str, dict[str, Any]]:
    config: dict[str, dict[str, Any]] = yaml.safe_load((project_root / "Pulumi.yaml").read_text())["config"]
    return {key.removeprefix("goldlake:"): entry for key, entry in config.items()}


def test_pulumi_yaml_declares_every_setting_and_no_other(project_root: Path) -> None:
    assert set(declared(project_root)) == set(config_keys().values())


def test_pulumi_yaml_and_settings_have_the_same_defaults(project_root: Path) -> None:
    defaults = Settings.model_validate({"stack": "dev", "region": "eu-west-1", **HOST})
    for name, key in config_keys().items():
        if key == "warehouseHost":
            continue
        value = getattr(defaults, name)
        plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        assert declared(project_root)[key]["default"] == plain


def test_pulumi_yaml_gives_every_setting_a_type_and_a_description(project_root: Path) -> None:
    for key, entry in declared(project_root).items():
        assert entry["type"] in ("string", "integer", "boolean", "array"), key
        assert entry["description"].endswith("."), key


@pytest.mark.parametrize("stack", ["dev", "localstack"])
def test_the_stack_files_are_accepted(project_root: Path, stack: str) -> None:
    config = yaml.safe_load((project_root / f"Pulumi.{stack}.yaml").read_text())["config"]
    values = {
        key.removeprefix("goldlake:"): value if isinstance(value, str) else json.dumps(value)
        for key, value in config.items()
        if key.startswith("goldlake:")
    }
    assert parse_settings(values, stack=stack, region=config["aws:region"]).stack == stack


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("prefix", "Gold", "S3 bucket names allow no more"),
        ("prefix", "g" * 21, "2 to 20"),
        ("units", '["foundation", "foundation"]', "each once"),
        ("units", '["networking"]', "foundation, lake, secrets, transform, pipeline"),
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


def test_the_transform_unit_needs_a_warehouse() -> None:
    with pytest.raises(ConfigurationError, match="warehouseHost is empty"):
        parse(warehouseHost="")
    assert parse(warehouseHost="", units='["lake"]').units == ("lake",)


def test_tls_can_be_off_for_a_warehouse_on_loopback_only() -> None:
    with pytest.raises(ConfigurationError, match="requireTls=false"):
        parse(requireTls="false")
    assert not parse(requireTls="false", warehouseHost="127.0.0.1").require_tls


def test_a_missing_region_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="set by aws:region"):
        parse_settings(HOST, stack="dev", region=None)


@given(st.dictionaries(st.sampled_from(sorted(config_keys().values())), st.text(max_size=40), max_size=5))
def test_any_text_is_accepted_or_refused_with_a_message(values: dict[str, str]) -> None:
    with contextlib.suppress(ConfigurationError):
        assert parse_settings(values, stack="dev", region="eu-west-1").stack == "dev"
