"""Python functions on Lambda: layers from an artifact bucket, and functions with a role of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws

from components.observability import alarm
from components.policies import Statement, attach_to_vpc, decrypt_with, write_logs
from components.role import ServiceRoleArgs, service_role
from runtime.errors import ConfigurationError

# Lambda developer guide, "Lambda quotas".
MAX_LAYERS = 5
MEMORY_MB = (128, 10240)
TIMEOUT_SECONDS = (1, 900)
STORAGE_MB = (512, 10240)

# A run that takes this part of its time limit is about to be cut off by the next larger one.
NEAR_THE_LIMIT = 0.8
# What the topic can be told of.
ALARMS = ("errors", "throttles", "duration")


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
    key_arn: pulumi.Input[str] | None = None
    """The KMS key of log and environment variables; AWS's own keys without it."""
    storage_mb: int | None = None
    """Room under /tmp; Lambda's own 512 MB without it."""
    reserved_concurrency: int | None = None
    """How many may run at once, taken from what the account has; -1 or None: no limit of its own, 0: none runs."""
    publish: bool = False
    """Whether each change of code or settings is published as a version, which an alias can point at."""
    alarm_topic_arn: pulumi.Input[str] | None = None
    """Who is told of errors, throttles and runs near the time limit. Without it there are no alarms."""
    alarms: Sequence[str] = ALARMS
    """Of what the topic is told. Each alarm costs by the month."""


class TaskFunction(pulumi.ComponentResource):
    """A Lambda function with a role, a log group and alarms of its own, in a VPC when it needs one.

    Published versions stay when a new one comes: Lambda deletes them with the function only. So the provider's
    `skip_destroy` stays off. It would leave a destroyed function behind, without a role.
    """

    arn: pulumi.Output[str]
    function_name: pulumi.Output[str]
    version: pulumi.Output[str]
    """The latest published version; $LATEST without `publish`."""
    role_arn: pulumi.Output[str]
    role_name: pulumi.Output[str]
    log_group_name: pulumi.Output[str]

    def __init__(self, name: str, args: TaskFunctionArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        check_function(name, args)
        super().__init__("goldlake:functions:TaskFunction", name, None, opts)
        logs = aws.cloudwatch.LogGroup(
            f"{name}-logs",
            name=f"/aws/lambda/{args.function_name}",
            retention_in_days=args.log_retention_days,
            kms_key_id=args.key_arn,
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )
        role, policy = service_role(
            name,
            ServiceRoleArgs(
                role_name=args.function_name,
                service="lambda.amazonaws.com",
                policy_name="task",
                statements=_statements(args, logs),
                account=args.account,
                tags=args.tags,
            ),
            parent=self,
        )
        # A function that starts before its policy is there fails its first calls, and one that starts
        # before its log group is there creates one that never expires.
        function = self._function(name, args, role, depends_on=[policy, logs])
        if args.alarm_topic_arn is not None:
            self._alarms(name, args, function, args.alarm_topic_arn)
        self.arn = function.arn
        self.function_name = function.name
        self.version = function.version
        self.role_arn = role.arn
        self.role_name = role.name
        self.log_group_name = logs.name
        self.register_outputs(
            {
                "arn": self.arn,
                "functionName": self.function_name,
                "version": self.version,
                "roleArn": self.role_arn,
                "roleName": self.role_name,
                "logGroupName": self.log_group_name,
            }
        )

    def _function(
        self, name: str, args: TaskFunctionArgs, role: aws.iam.Role, *, depends_on: list[pulumi.Resource]
    ) -> aws.lambda_.Function:
        storage = args.storage_mb
        return aws.lambda_.Function(
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
            ephemeral_storage=None if storage is None else aws.lambda_.FunctionEphemeralStorageArgs(size=storage),
            environment=aws.lambda_.FunctionEnvironmentArgs(variables=dict(args.environment)),
            kms_key_arn=args.key_arn,
            reserved_concurrent_executions=args.reserved_concurrency,
            publish=args.publish,
            vpc_config=None
            if args.vpc is None
            else aws.lambda_.FunctionVpcConfigArgs(
                subnet_ids=args.vpc.subnet_ids, security_group_ids=[args.vpc.security_group_id]
            ),
            tags=args.tags,
            # Deleting waits long: Lambda's network interfaces hold subnets and groups for up to 45 minutes.
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=depends_on, custom_timeouts=pulumi.CustomTimeouts(delete="60m")
            ),
        )

    def _alarms(
        self, name: str, args: TaskFunctionArgs, function: aws.lambda_.Function, topic_arn: pulumi.Input[str]
    ) -> None:
        near = NEAR_THE_LIMIT * args.timeout_seconds * 1000
        for part, metric, statistic, threshold, what in (
            ("errors", "Errors", "Sum", 1.0, "failed or ran into its time limit"),
            ("throttles", "Throttles", "Sum", 1.0, "was called while it was busy, and refused"),
            ("duration", "Duration", "Maximum", near, f"took {NEAR_THE_LIMIT:.0%} of its {args.timeout_seconds} s"),
        ):
            if part not in args.alarms:
                continue
            alarm(
                f"{name}-{part}",
                alarm_name=f"{args.function_name}-{part}",
                description=f"{args.function_name} {what}",
                metric=f"AWS/Lambda {metric}",
                dimensions={"FunctionName": function.name},
                statistic=statistic,
                threshold=threshold,
                topic_arn=topic_arn,
                tags=args.tags,
                parent=self,
            )


def check_function(name: str, args: TaskFunctionArgs) -> None:
    """Raise ConfigurationError for what Lambda would refuse, or run without being able to work."""
    if len(args.layers) > MAX_LAYERS:
        raise ConfigurationError(f"{name} has {len(args.layers)} layers: Lambda allows {MAX_LAYERS}")
    for setting, value, (low, high) in (
        ("memory_mb", args.memory_mb, MEMORY_MB),
        ("timeout_seconds", args.timeout_seconds, TIMEOUT_SECONDS),
        ("storage_mb", args.storage_mb, STORAGE_MB),
    ):
        if value is not None and not low <= value <= high:
            raise ConfigurationError(f"{name} has {setting} {value}: Lambda allows {low} to {high}")
    unknown = [part for part in args.alarms if part not in ALARMS]
    if unknown:
        raise ConfigurationError(f"{name} has an alarm for {', '.join(unknown)}: {', '.join(ALARMS)} are known")
    if args.reserved_concurrency is not None and args.reserved_concurrency < -1:
        raise ConfigurationError(
            f"{name} has reserved_concurrency {args.reserved_concurrency}: it is a number of runs at once, "
            "or -1 for no limit of its own"
        )


def _statements(args: TaskFunctionArgs, logs: aws.cloudwatch.LogGroup) -> pulumi.Output[list[Statement]]:
    """Return all that the function's role may do."""

    def all_of(found: list[Any]) -> list[Statement]:
        log_group, own, key, account = found
        return [
            write_logs(log_group),
            *(attach_to_vpc(account, args.function_name) if args.vpc else []),
            # Lambda decrypts the environment variables in the role's name.
            *([decrypt_with(key)] if key else []),
            *own,
        ]

    return pulumi.Output.all(logs.arn, args.statements, args.key_arn, args.account).apply(all_of)
