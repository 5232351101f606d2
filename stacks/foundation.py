"""Unit `foundation`: network, security groups, endpoints, the customer key, the alarm topic and the dashboard."""

from __future__ import annotations

import pulumi
import pulumi_aws as aws

from components.endpoints import (
    GatewayEndpoint,
    GatewayEndpointArgs,
    InterfaceEndpoints,
    InterfaceEndpointsArgs,
    interface_policy,
    interface_services,
    s3_policy,
)
from components.key import CustomerKey, CustomerKeyArgs
from components.naming import Names
from components.network import AdoptedNetwork, AdoptedNetworkArgs, PrivateNetwork, PrivateNetworkArgs
from components.observability import AlarmTopic, AlarmTopicArgs, Dashboard, DashboardArgs
from components.security_groups import SecurityGroups, SecurityGroupsArgs, standard_rules
from stacks.names import FUNCTION_NAMES, PIPELINE, ROTATIONS, WORKGROUP
from stacks.outputs import FoundationOutputs
from stacks.settings import Settings


def deploy(settings: Settings) -> FoundationOutputs:
    """Register what all other units stand on."""
    names = settings.names("foundation")
    account = aws.get_caller_identity_output().account_id
    key = _key(settings, names, account) if settings.customer_key else None
    network = _network(settings, names, account, key)
    gateway = GatewayEndpoint(
        "s3",
        GatewayEndpointArgs(
            vpc_id=network.vpc_id,
            route_table_ids=network.route_table_ids,
            region=settings.region,
            policy=account.apply(lambda found: s3_policy(_buckets(settings, names, found), found)),
            tags=names.tags("s3"),
        ),
    )
    services = interface_services(sign_in=settings.sign_in)
    groups = SecurityGroups(
        "groups",
        SecurityGroupsArgs(
            vpc_id=network.vpc_id,
            s3_prefix_list_id=gateway.prefix_list_id,
            rules=standard_rules(
                interface_endpoints=bool(services),
                # A warehouse that exists has a security group of its own, which we do not know.
                warehouse_cidr=settings.vpc_cidr if settings.warehouse_host else None,
                warehouse_port=settings.warehouse_port,
            ),
            name=settings.prefix,
            tags=names.tags("groups"),
        ),
    )
    InterfaceEndpoints(
        "endpoints",
        InterfaceEndpointsArgs(
            vpc_id=network.vpc_id,
            subnet_ids=network.subnet_ids,
            security_group_id=groups.endpoint_group_id,
            services=services,
            zones=settings.endpoint_zones,
            policies={service: _endpoint_policy(service, settings, account) for service in services},
            region=settings.region,
            tags=names.tags("endpoints"),
        ),
    )
    topic = AlarmTopic(
        "alarms",
        AlarmTopicArgs(
            topic_name=names.name("alarms"),
            emails=settings.alarm_emails,
            account=account,
            key_arn=key.key_arn if key else None,
            tls_only=settings.require_tls,
            tags=names.tags("alarms"),
        ),
    )
    dashboard = _dashboard(settings, names, account) if settings.dashboard else None
    return FoundationOutputs(
        vpc_id=network.vpc_id,
        subnet_ids=network.subnet_ids,
        function_security_group_id=groups.function_group_id,
        warehouse_security_group_id=groups.warehouse_group_id,
        alarm_topic_arn=topic.topic_arn,
        key_arn=key.key_arn if key else pulumi.Output.from_input(""),
        dashboard_name=dashboard.dashboard_name if dashboard else pulumi.Output.from_input(""),
    )


def _dashboard(settings: Settings, names: Names, account: pulumi.Output[str]) -> Dashboard:
    return Dashboard(
        "dashboard",
        DashboardArgs(
            dashboard_name=names.name(PIPELINE),
            region=settings.region,
            state_machine_arn=account.apply(
                lambda found: f"arn:aws:states:{settings.region}:{found}:stateMachine:{names.name(PIPELINE)}"
            ),
            function_names=[
                names.name(part)
                for part in (*FUNCTION_NAMES.values(), *(ROTATIONS[login] for login in settings.rotated_logins))
            ],
            workgroup_name="" if settings.warehouse_host else names.name(WORKGROUP),
            dead_letter_queue_name=names.name(f"{FUNCTION_NAMES['build']}-failed"),
        ),
    )


def _key(settings: Settings, names: Names, account: pulumi.Output[str]) -> CustomerKey:
    return CustomerKey(
        "key",
        CustomerKeyArgs(
            alias=names.name("data"),
            description=f"Data, secrets and logs of {settings.prefix}",
            account=account,
            region=settings.region,
            tags=names.tags("key"),
            protect=settings.protect_data,
        ),
    )


def _network(
    settings: Settings, names: Names, account: pulumi.Output[str], key: CustomerKey | None
) -> PrivateNetwork | AdoptedNetwork:
    if settings.existing_vpc_id:
        return AdoptedNetwork(
            "network",
            AdoptedNetworkArgs(
                vpc_id=settings.existing_vpc_id,
                subnet_ids=settings.existing_subnet_ids,
                route_table_ids=settings.existing_route_table_ids,
            ),
        )
    return PrivateNetwork(
        "network",
        PrivateNetworkArgs(
            name=names.name("network"),
            vpc_cidr=settings.vpc_cidr,
            zones=settings.zones,
            nat=settings.nat_gateways,
            flow_log_retention_days=settings.log_retention_days if settings.flow_logs else None,
            key_arn=key.key_arn if key else None,
            account=account,
            region=settings.region,
            tags=names.tags("network"),
        ),
    )


def _buckets(settings: Settings, names: Names, account: str) -> list[str]:
    """Return the names of the buckets that are reached from inside the network."""
    own = [names.bucket(layer, account, settings.region) for layer in ("bronze", "silver", "gold", "artifacts")]
    return [*own, settings.silver_bucket] if settings.silver_bucket else own


def _endpoint_policy(service: str, settings: Settings, account: pulumi.Output[str]) -> pulumi.Output[dict[str, object]]:
    return account.apply(
        lambda found: interface_policy(
            service,
            region=settings.region,
            account=found,
            secret_prefix=settings.prefix,
            rotation=settings.rotate_login_days > 0,
        )
    )
