"""Python functions on Lambda: layers from an artifact bucket, and functions with a role of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_aws as aws

from components.policies import Statement, attach_to_vpc, write_logs
from components.role import ServiceRoleArgs, service_role

# Lambda developer guide, "Lambda quotas": layers a function may have.
MAX_LAYERS = 5


@dataclass(frozen=True, kw_only=True)
class PythonLayerArgs:
    """What a layer can be told."""

    layer_name: str
    archive: Path
    """The built zip. Its name holds the hash of its content, so an unchanged layer is not published again."""
    bucket: pulumi.Input[str]
    """Where the zip is kept: Lambda takes more than 50 MB from S3 only."""
    runtime: str
    tags: dict[str, str]


class PythonLayer(pulumi.ComponentResource):
    """A version of a Lambda layer, published from a zip in S3."""

    arn: pulumi.Output[str]

    def __init__(self, name: str, args: PythonLayerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("goldlake:functions:PythonLayer", name, None, opts)
        archive = aws.s3.BucketObjectv2(
            f"{name}-zip",
            bucket=args.bucket,
            key=f"artifacts/layers/{args.archive.name}",
            source=pulumi.FileAsset(str(args.archive)),
            content_type="application/zip",
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )
        layer = aws.lambda_.LayerVersion(
            name,
            layer_name=args.layer_name,
            s3_bucket=archive.bucket,
            s3_key=archive.key,
            compatible_runtimes=[args.runtime],
            description=args.archive.name,
            # A function that runs with an older version must still find it.
            skip_destroy=True,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.arn = layer.arn
        self.register_outputs({"arn": self.arn})


@dataclass(frozen=True, kw_only=True)
class FunctionVpc:
    """Where in a VPC a function has its network interfaces."""

    subnet_ids: pulumi.Input[Sequence[str]]
    security_group_id: pulumi.Input[str]


@dataclass(frozen=True, kw_only=True)
class TaskFunctionArgs:
    """What a task function can be told."""

    function_name: str
    description: str
    handler: str
    """`<module>.<function>` within the code zip."""
    code: Path
    layers: Sequence[pulumi.Input[str]]
    statements: pulumi.Input[Sequence[Statement]]
    """What the function may do beside writing its log."""
    environment: Mapping[str, pulumi.Input[str]]
    runtime: str
    memory_mb: int
    timeout_seconds: int
    log_retention_days: int
    account: pulumi.Input[str]
    tags: dict[str, str]
    vpc: FunctionVpc | None = None
    """The network that the function needs. Without one it reaches AWS's public endpoints, and nothing private."""


class TaskFunction(pulumi.ComponentResource):
    """A Lambda function with a role and a log group of its own, in a VPC when it needs one."""

    arn: pulumi.Output[str]
    function_name: pulumi.Output[str]

    def __init__(self, name: str, args: TaskFunctionArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        if len(args.layers) > MAX_LAYERS:
            raise ValueError(f"{name} has {len(args.layers)} layers: Lambda allows {MAX_LAYERS}")
        super().__init__("goldlake:functions:TaskFunction", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        logs = aws.cloudwatch.LogGroup(
            f"{name}-logs",
            name=f"/aws/lambda/{args.function_name}",
            retention_in_days=args.log_retention_days,
            tags=args.tags,
            opts=child,
        )
        role, policy = service_role(
            name,
            ServiceRoleArgs(
                role_name=args.function_name,
                service="lambda.amazonaws.com",
                policy_name="task",
                statements=pulumi.Output.all(logs.arn, args.statements).apply(
                    lambda found: [write_logs(found[0]), *([attach_to_vpc()] if args.vpc else []), *found[1]]
                ),
                account=args.account,
                tags=args.tags,
            ),
            parent=self,
        )
        function = aws.lambda_.Function(
            name,
            name=args.function_name,
            description=args.description,
            runtime=args.runtime,
            handler=args.handler,
            code=pulumi.FileArchive(str(args.code)),
            layers=list(args.layers),
            role=role.arn,
            memory_size=args.memory_mb,
            timeout=args.timeout_seconds,
            environment=aws.lambda_.FunctionEnvironmentArgs(variables=dict(args.environment)),
            vpc_config=None
            if args.vpc is None
            else aws.lambda_.FunctionVpcConfigArgs(
                subnet_ids=args.vpc.subnet_ids, security_group_ids=[args.vpc.security_group_id]
            ),
            tags=args.tags,
            # A function that starts before its policy is there fails its first calls, and one that starts
            # before its log group is there creates one that never expires. Deleting waits long: Lambda's network
            # interfaces hold subnets and groups for up to 45 minutes.
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[policy, logs], custom_timeouts=pulumi.CustomTimeouts(delete="60m")
            ),
        )
        self.arn = function.arn
        self.function_name = function.name
        self.register_outputs({"arn": self.arn, "functionName": self.function_name})
