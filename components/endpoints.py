"""Private ways to AWS services: the gateway to S3, which is free, and interface endpoints, which cost by the hour.

Each endpoint has a policy. It grants nothing by itself: a call needs the caller's own right, too. It keeps code in the
network from taking data out with somebody else's credentials, or to somebody else's bucket.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pulumi
import pulumi_aws as aws

from components.policies import Document, Statement, allow, document
from runtime.errors import ConfigurationError

REDSHIFT_SERVERLESS = "redshift-serverless"
SECRETS_MANAGER = "secretsmanager"
SERVICES = (REDSHIFT_SERVERLESS, SECRETS_MANAGER)
"""What the functions call from inside the network, besides S3."""

_BUCKET_ARN = "arn:aws:s3:::"


def interface_services(*, sign_in: Literal["iam", "password"]) -> tuple[str, ...]:
    """Return the services that need an interface endpoint for this way to sign in to the warehouse.

    By IAM, a function asks for temporary credentials (GetCredentials); by password, it reads the secret. `logs` is not
    among them: the Lambda service takes the functions' output and sends it to CloudWatch Logs itself, not through the
    functions' network (Lambda developer guide, "Sending Lambda function logs to CloudWatch Logs").
    """
    services = {"iam": (REDSHIFT_SERVERLESS,), "password": (SECRETS_MANAGER,)}
    if sign_in not in services:
        raise ConfigurationError(f"sign-in {sign_in!r}: one of {', '.join(services)} is known")
    return services[sign_in]


def s3_policy(buckets: Sequence[str], account: str) -> Document:
    """Return the gateway's policy: objects of these buckets, for this account's principals.

    `buckets` are names or ARNs, in which the name may hold a pattern (`goldlake-*`). Raises ConfigurationError for
    anything else, for no bucket, and for a pattern that every bucket matches.
    """
    if not buckets:
        raise ConfigurationError("a gateway to S3 without a bucket lets nothing through: name at least one")
    names = [bucket.removeprefix(_BUCKET_ARN) for bucket in buckets]
    for name in names:
        # S3 user guide, "General purpose bucket naming rules", and the two wildcards of IAM.
        if not re.fullmatch(r"[a-z0-9.*?-]{3,}", name) or not name.strip("*?.-"):
            raise ConfigurationError(f"{name!r} is no name of a bucket of this stack: e.g. goldlake-* is allowed")
    arns = [f"{_BUCKET_ARN}{name}" for name in names]
    return document(
        _for_account(account, ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"], arns),
        _for_account(
            account,
            [
                "s3:GetObject",
                "s3:PutObject",
                "s3:DeleteObject",
                "s3:AbortMultipartUpload",
                "s3:ListMultipartUploadParts",
            ],
            [f"{arn}/*" for arn in arns],
        ),
    )


def interface_policy(
    service: str, *, region: str, account: str, secret_prefix: str, rotation: bool = False
) -> Document:
    """Return the policy of a service's endpoint: the calls that the functions make, on what the stack owns.

    Secrets are those below `secret_prefix`/, and those of which Redshift manages the password: it calls them
    `redshift!…` (Redshift management guide, "Managing Redshift admin passwords using Secrets Manager"). With `rotation`
    the first may be changed, too. Workgroups are all of the account in the region, since the ARN holds an id that AWS
    makes up, not the name.
    """
    _check_services([service])
    if service == SECRETS_MANAGER:
        secrets = f"arn:aws:secretsmanager:{region}:{account}:secret"
        own = f"{secrets}:{secret_prefix}/*"
        reading = _for_account(
            account, ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"], [own, f"{secrets}:redshift!*"]
        )
        changing = _for_account(
            account, ["secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage"], [own]
        )
        return document(reading, changing) if rotation else document(reading)
    return document(
        _for_account(
            account,
            ["redshift-serverless:GetCredentials"],
            [f"arn:aws:redshift-serverless:{region}:{account}:workgroup/*"],
        )
    )


def _for_account(account: str, actions: Sequence[str], resources: Sequence[str]) -> Statement:
    """Return a statement for this account's principals.

    A gateway's policy takes no principal but `*` and wants a condition instead (AWS PrivateLink guide, "Control access
    to VPC endpoints using endpoint policies"); interface endpoints have the same for the sake of one shape.
    """
    condition = {"StringEquals": {"aws:PrincipalAccount": account}}
    return {**allow(actions, resources, condition=condition), "Principal": "*"}


def _check_services(services: Sequence[str]) -> None:
    unknown = [service for service in services if service not in SERVICES]
    if unknown:
        raise ConfigurationError(
            f"interface endpoint for {', '.join(unknown)}: {', '.join(SERVICES)} are known, and nothing else is called"
        )
    twice = [service for service in dict.fromkeys(services) if services.count(service) > 1]
    if twice:
        raise ConfigurationError(f"interface endpoint for {', '.join(twice)} is wanted twice: one serves the network")


@dataclass(frozen=True, kw_only=True)
class GatewayEndpointArgs:
    """What the gateway to S3 can be told."""

    vpc_id: pulumi.Input[str]
    route_table_ids: pulumi.Input[Sequence[str]]
    """Tables that get the route to S3."""
    region: str
    policy: pulumi.Input[Document]
    tags: dict[str, str]


class GatewayEndpoint(pulumi.ComponentResource):
    """The gateway to S3: free of charge, and the only way there without NAT."""

    endpoint_id: pulumi.Output[str]
    prefix_list_id: pulumi.Output[str]
    """S3's addresses, for security group rules."""

    def __init__(self, name: str, args: GatewayEndpointArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("goldlake:network:GatewayEndpoint", name, None, opts)
        endpoint = aws.ec2.VpcEndpoint(
            name,
            vpc_id=args.vpc_id,
            service_name=f"com.amazonaws.{args.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=_list(args.route_table_ids),
            policy=pulumi.Output.json_dumps(args.policy),
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.endpoint_id = endpoint.id
        self.prefix_list_id = endpoint.prefix_list_id
        self.register_outputs({"endpointId": self.endpoint_id, "prefixListId": self.prefix_list_id})


@dataclass(frozen=True, kw_only=True)
class InterfaceEndpointsArgs:
    """What interface endpoints can be told."""

    vpc_id: pulumi.Input[str]
    subnet_ids: pulumi.Input[Sequence[str]]
    """The network's private subnets, of which the first `zones` get an endpoint."""
    security_group_id: pulumi.Input[str]
    services: Sequence[str]
    zones: int = 1
    """In how many zones: each costs by the hour, and one serves all zones until its own is lost."""
    policies: Mapping[str, pulumi.Input[Document]]
    """A policy for each service."""
    region: str
    tags: dict[str, str]


class InterfaceEndpoints(pulumi.ComponentResource):
    """Endpoints of AWS services inside the network, under the services' own names (private DNS)."""

    endpoint_ids: pulumi.Output[dict[str, str]]
    """Ids by service; empty when no service is wanted."""

    def __init__(self, name: str, args: InterfaceEndpointsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        _check_services(args.services)
        if args.zones < 1:
            raise ConfigurationError(f"interface endpoints in {args.zones} zones: at least 1 is needed to reach them")
        without = [service for service in args.services if service not in args.policies]
        if without:
            raise ConfigurationError(f"interface endpoint for {', '.join(without)} has no policy: AWS allows all then")
        super().__init__("goldlake:network:InterfaceEndpoints", name, None, opts)
        subnets = pulumi.Output.from_input(args.subnet_ids).apply(lambda found: _first(found, args.zones))
        endpoints = {
            service: aws.ec2.VpcEndpoint(
                f"{name}-{service}",
                vpc_id=args.vpc_id,
                service_name=f"com.amazonaws.{args.region}.{service}",
                vpc_endpoint_type="Interface",
                subnet_ids=subnets,
                security_group_ids=[args.security_group_id],
                private_dns_enabled=True,
                policy=pulumi.Output.json_dumps(args.policies[service]),
                tags={**args.tags, "Name": f"{args.tags.get('Name', name)}-{service}"},
                opts=pulumi.ResourceOptions(parent=self),
            )
            for service in args.services
        }
        ids = {service: found.id for service, found in endpoints.items()}
        # Of nothing, Output.all makes a list.
        self.endpoint_ids = pulumi.Output.all(**ids) if ids else pulumi.Output.from_input({})
        self.register_outputs({"endpointIds": self.endpoint_ids})


def _first(subnets: Sequence[str], zones: int) -> list[str]:
    """Return the first `zones` subnets."""
    if len(subnets) < zones:
        raise ConfigurationError(f"interface endpoints in {zones} zones: the network has {len(subnets)} subnets")
    return list(subnets[:zones])


def _list(ids: pulumi.Input[Sequence[str]]) -> pulumi.Output[list[str]]:
    found: Callable[[Sequence[str]], list[str]] = list
    return pulumi.Output.from_input(ids).apply(found)
