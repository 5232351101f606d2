"""Endpoints: which there are, what their policies let through, and where they are."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from components.endpoints import (
    REDSHIFT_SERVERLESS,
    SECRETS_MANAGER,
    SERVICES,
    GatewayEndpoint,
    GatewayEndpointArgs,
    InterfaceEndpoints,
    InterfaceEndpointsArgs,
    interface_policy,
    interface_services,
    s3_policy,
)
from local.recording import ACCOUNT, REGION, Recording, record
from runtime.errors import ConfigurationError

THIS_ACCOUNT = {"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}


def policy_of(service: str) -> dict[str, Any]:
    return interface_policy(service, region=REGION, account=ACCOUNT, secret_prefix="goldlake")


def every_policy() -> list[dict[str, Any]]:
    return [s3_policy(["goldlake-*"], ACCOUNT), *(policy_of(service) for service in SERVICES)]


def granted(policy: dict[str, Any]) -> dict[str, list[str]]:
    """Return the resources of each action."""
    return {action: statement["Resource"] for statement in policy["Statement"] for action in statement["Action"]}


def test_each_way_to_sign_in_needs_its_own_endpoint_and_no_other() -> None:
    assert interface_services(sign_in="iam") == ("redshift-serverless",)
    assert interface_services(sign_in="password") == ("secretsmanager",)


def test_an_unknown_way_to_sign_in_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="iam, password"):
        interface_services(sign_in="token")  # type: ignore[arg-type] # the type says so as well


@pytest.mark.parametrize("policy", every_policy())
def test_only_this_accounts_principals_get_through(policy: dict[str, Any]) -> None:
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        assert statement["Principal"] == "*"
        assert statement["Condition"] == THIS_ACCOUNT


@pytest.mark.parametrize("policy", every_policy())
def test_no_policy_allows_every_action_or_every_resource(policy: dict[str, Any]) -> None:
    for action, resources in granted(policy).items():
        assert "*" not in action
        assert all(resource != "*" and not resource.endswith(":::*") for resource in resources)


def test_the_gateway_lets_objects_of_the_stacks_buckets_through() -> None:
    found = granted(s3_policy(["goldlake-gold", "arn:aws:s3:::goldlake-silver-*"], ACCOUNT))
    buckets = ["arn:aws:s3:::goldlake-gold", "arn:aws:s3:::goldlake-silver-*"]
    assert found.pop("s3:ListBucket") == found.pop("s3:GetBucketLocation") == buckets
    assert found.pop("s3:ListBucketMultipartUploads") == buckets
    assert {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"} < set(found)
    assert all(resources == [f"{bucket}/*" for bucket in buckets] for resources in found.values())


@pytest.mark.parametrize("bucket", ["*", "***", "arn:aws:s3:::*", "arn:aws:sqs:::queue", "gold/lake", ""])
def test_the_gateway_is_not_opened_to_what_is_no_bucket_of_the_stack(bucket: str) -> None:
    with pytest.raises(ConfigurationError, match="is no name of a bucket"):
        s3_policy([bucket], ACCOUNT)


def test_a_gateway_that_lets_nothing_through_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="name at least one"):
        s3_policy([], ACCOUNT)


def test_secrets_are_the_stacks_own_and_those_that_redshift_manages() -> None:
    secrets = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret"
    resources = [f"{secrets}:goldlake/*", f"{secrets}:redshift!*"]
    assert granted(policy_of(SECRETS_MANAGER)) == {
        "secretsmanager:GetSecretValue": resources,
        "secretsmanager:DescribeSecret": resources,
    }


def test_only_for_a_rotation_the_stacks_own_secrets_can_be_changed() -> None:
    policy = interface_policy(SECRETS_MANAGER, region=REGION, account=ACCOUNT, secret_prefix="goldlake", rotation=True)
    changing = ("secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage")
    statements = {action: s for s in policy["Statement"] for action in s["Action"]}
    for action in changing:
        assert statements[action]["Resource"] == [f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:goldlake/*"]
        assert statements[action]["Condition"] == THIS_ACCOUNT
        assert action not in json.dumps(policy_of(SECRETS_MANAGER))


def test_credentials_are_for_workgroups_of_this_account_and_region() -> None:
    assert granted(policy_of(REDSHIFT_SERVERLESS)) == {
        "redshift-serverless:GetCredentials": [f"arn:aws:redshift-serverless:{REGION}:{ACCOUNT}:workgroup/*"]
    }


def test_there_is_no_policy_for_a_service_that_nothing_calls() -> None:
    with pytest.raises(ConfigurationError, match="logs: redshift-serverless, secretsmanager are known"):
        policy_of("logs")


def test_the_gateway_stands_in_the_given_route_tables_with_its_policy() -> None:
    policy = s3_policy(["goldlake-*"], ACCOUNT)

    def program() -> dict[str, pulumi.Output[str]]:
        endpoint = GatewayEndpoint(
            "s3",
            GatewayEndpointArgs(
                vpc_id="vpc-1",
                route_table_ids=pulumi.Output.from_input(["rtb-1", "rtb-2"]),
                region=REGION,
                policy=pulumi.Output.from_input(policy),
                tags={"Name": "goldlake-s3"},
            ),
        )
        return {"id": endpoint.endpoint_id, "prefixes": endpoint.prefix_list_id}

    recording = record(program)
    endpoint = recording.one(":VpcEndpoint")
    assert recording.exports == {"id": "s3-id", "prefixes": "pl-1"}
    assert endpoint["vpcEndpointType"] == "Gateway"
    assert endpoint["serviceName"] == f"com.amazonaws.{REGION}.s3"
    assert endpoint["vpcId"] == "vpc-1"
    assert endpoint["routeTableIds"] == ["rtb-1", "rtb-2"]
    assert json.loads(endpoint["policy"]) == policy
    assert endpoint["tags"] == {"Name": "goldlake-s3"}


def interfaces(**changes: Any) -> Recording:
    """Return what interface endpoints register."""
    settings: dict[str, Any] = {
        "vpc_id": "vpc-1",
        "subnet_ids": ["subnet-a", "subnet-b", "subnet-c"],
        "security_group_id": "sg-1",
        "services": SERVICES,
        "policies": {service: policy_of(service) for service in SERVICES},
        "region": REGION,
        "tags": {"Name": "goldlake-endpoints", "Project": "goldlake"},
        **changes,
    }
    return record(lambda: {"ids": InterfaceEndpoints("endpoints", InterfaceEndpointsArgs(**settings)).endpoint_ids})


def test_each_service_has_an_endpoint_under_its_own_name_in_one_zone() -> None:
    recording = interfaces()
    assert recording.exports["ids"] == {service: f"endpoints-{service}-id" for service in SERVICES}
    for service in SERVICES:
        endpoint = recording.resource(f"endpoints-{service}").inputs
        assert endpoint["vpcEndpointType"] == "Interface"
        assert endpoint["serviceName"] == f"com.amazonaws.{REGION}.{service}"
        assert endpoint["vpcId"] == "vpc-1"
        assert endpoint["subnetIds"] == ["subnet-a"]
        assert endpoint["securityGroupIds"] == ["sg-1"]
        assert endpoint["privateDnsEnabled"] is True
        assert json.loads(endpoint["policy"]) == policy_of(service)
        assert endpoint["tags"] == {"Name": f"goldlake-endpoints-{service}", "Project": "goldlake"}


def test_endpoints_can_stand_in_more_zones() -> None:
    endpoints = interfaces(zones=2).of(":VpcEndpoint").values()
    assert [endpoint["subnetIds"] for endpoint in endpoints] == [["subnet-a", "subnet-b"]] * 2


def test_no_service_makes_no_endpoint() -> None:
    recording = interfaces(services=())
    assert recording.exports["ids"] == {}
    assert not recording.of(":VpcEndpoint")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"services": ("logs",)}, "interface endpoint for logs"),
        ({"services": (SECRETS_MANAGER,) * 2}, "secretsmanager is wanted twice"),
        ({"zones": 0}, "in 0 zones: at least 1"),
        ({"zones": 4}, "in 4 zones: the network has 3 subnets"),
        ({"policies": {}}, "redshift-serverless, secretsmanager has no policy"),
    ],
)
def test_endpoints_that_cannot_work_are_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        interfaces(**changes)
