"""The dbt runner: one function that never runs twice at once, and an alias that shifts traffic to a new version."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pulumi
import pulumi_aws as aws

from components.function import TaskFunction, TaskFunctionArgs, check_function
from components.observability import alarm
from components.policies import send_messages, tls_only_queue, use_key
from runtime.errors import ConfigurationError

ALIAS = "live"

# The longest that SQS keeps a message: who comes back from holidays finds what failed.
RETENTION_SECONDS = 14 * 24 * 3600
EVENT_SECONDS = 6 * 3600


@dataclass(frozen=True)
class Routing:
    """Where an alias sends its calls: a version, and the part of them that goes to another one."""

    version: str
    weights: dict[str, float] = field(default_factory=dict)


def alias_routing(new_version: str, stable_version: str = "", canary_percent: int = 0) -> Routing:
    """Return where the alias sends its calls.

    Without a stable version all go to the new one. With one, all go to that but `canary_percent`: 0 is the way back,
    100 the end of a rollout. A stable version that is the new one (nothing was deployed since) gets all: Lambda refuses
    an alias that names one version twice.
    """
    if not stable_version or canary_percent == 100 or stable_version == new_version:
        return Routing(new_version)
    if canary_percent == 0:
        return Routing(stable_version)
    return Routing(stable_version, {new_version: canary_percent / 100})


@dataclass(frozen=True, kw_only=True)
class DbtRunnerArgs(TaskFunctionArgs):
    """What the dbt runner can be told, beside what a function can."""

    reserved_concurrency: int | None = 1
    """One: two dbt runs at once would build the same tables. A new account has 10 concurrent runs in all and AWS
    refuses to reserve any of them; -1 is for that account."""
    publish: bool = True
    """The alias needs versions."""
    stable_version: str = ""
    """The version to stay at, or to go back to. Empty: always the newest."""
    canary_percent: int = 0
    """How many of a hundred calls the new version gets while there is a stable one."""
    tls_only: bool = True
    """Whether requests to the queue without TLS are refused; off for an emulator that speaks plain HTTP."""


class DbtRunner(pulumi.ComponentResource):
    """The function that runs dbt, its alias `live`, and a queue for asynchronous calls that failed.

    Roll out: set `stable_version` to the present version and `canary_percent`, deploy, watch the alarms, raise it.
    Roll back: `canary_percent` 0. Older versions stay, see TaskFunction.
    """

    arn: pulumi.Output[str]
    """The function's own ARN; calls through it run the newest code and miss the alias."""
    alias_arn: pulumi.Output[str]
    function_name: pulumi.Output[str]
    role_name: pulumi.Output[str]
    dead_letter_queue_arn: pulumi.Output[str]
    dead_letter_queue_name: pulumi.Output[str]

    def __init__(self, name: str, args: DbtRunnerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        _check(name, args)
        super().__init__("goldlake:functions:DbtRunner", name, None, opts)
        queue = self._queue(name, args)
        function = TaskFunction(name, _with_queue(args, queue), pulumi.ResourceOptions(parent=self))
        alias = self._alias(name, args, function)
        for qualifier in ("$LATEST", ALIAS):
            # A run that failed halfway is looked at, not tried again. Lambda keeps this for each qualifier by itself.
            aws.lambda_.FunctionEventInvokeConfig(
                f"{name}-failed-{qualifier.strip('$').lower()}",
                function_name=function.function_name,
                qualifier=qualifier,
                maximum_retry_attempts=0,
                # Lambda's own default, said so that every reader of the function's settings reads the same.
                maximum_event_age_in_seconds=EVENT_SECONDS,
                destination_config=aws.lambda_.FunctionEventInvokeConfigDestinationConfigArgs(
                    on_failure=aws.lambda_.FunctionEventInvokeConfigDestinationConfigOnFailureArgs(
                        destination=queue.arn
                    )
                ),
                opts=pulumi.ResourceOptions(parent=self, depends_on=[alias, function]),
            )
        self.arn = function.arn
        self.alias_arn = alias.arn
        self.function_name = function.function_name
        self.role_name = function.role_name
        self.dead_letter_queue_arn = queue.arn
        self.dead_letter_queue_name = queue.name
        self.register_outputs(
            {
                "arn": self.arn,
                "aliasArn": self.alias_arn,
                "functionName": self.function_name,
                "roleName": self.role_name,
                "deadLetterQueueArn": self.dead_letter_queue_arn,
                "deadLetterQueueName": self.dead_letter_queue_name,
            }
        )

    def _queue(self, name: str, args: DbtRunnerArgs) -> aws.sqs.Queue:
        child = pulumi.ResourceOptions(parent=self)
        queue_name = f"{args.function_name}-failed"
        queue = aws.sqs.Queue(
            f"{name}-failed",
            name=queue_name,
            message_retention_seconds=RETENTION_SECONDS,
            kms_master_key_id=args.key_arn,
            # SQS takes one of the two.
            sqs_managed_sse_enabled=True if args.key_arn is None else None,
            tags={**args.tags, "Name": queue_name},
            opts=child,
        )
        if args.tls_only:
            aws.sqs.QueuePolicy(
                f"{name}-failed-tls",
                queue_url=queue.id,
                policy=pulumi.Output.json_dumps(queue.arn.apply(tls_only_queue)),
                opts=child,
            )
        if args.alarm_topic_arn is not None:
            alarm(
                f"{name}-failed-messages",
                alarm_name=f"{queue_name}-messages",
                description=f"A call of {args.function_name} failed; its event is in the queue {queue_name}",
                metric="AWS/SQS ApproximateNumberOfMessagesVisible",
                dimensions={"QueueName": queue.name},
                statistic="Maximum",
                threshold=1,
                topic_arn=args.alarm_topic_arn,
                tags=args.tags,
                parent=self,
            )
        return queue

    def _alias(self, name: str, args: DbtRunnerArgs, function: TaskFunction) -> aws.lambda_.Alias:
        routing = function.version.apply(lambda new: alias_routing(new, args.stable_version, args.canary_percent))
        return aws.lambda_.Alias(
            f"{name}-{ALIAS}",
            name=ALIAS,
            description="The version that the pipeline runs",
            function_name=function.function_name,
            function_version=routing.apply(lambda found: found.version),
            routing_config=routing.apply(_routing_config),
            opts=pulumi.ResourceOptions(parent=self),
        )


def _routing_config(routing: Routing) -> aws.lambda_.AliasRoutingConfigArgs | None:
    # An empty map would come back as none at all, and be changed anew with each deployment.
    return aws.lambda_.AliasRoutingConfigArgs(additional_version_weights=routing.weights) if routing.weights else None


def _with_queue(args: DbtRunnerArgs, queue: aws.sqs.Queue) -> TaskFunctionArgs:
    """Return the function's arguments, with the right to fill the queue: Lambda does it in the role's name."""
    statements = pulumi.Output.all(args.statements, queue.arn, args.key_arn).apply(
        lambda found: [*found[0], send_messages(found[1]), *([use_key(found[2], "sqs")] if found[2] else [])]
    )
    return dataclasses.replace(args, statements=statements)


def _check(name: str, args: DbtRunnerArgs) -> None:
    """Raise ConfigurationError for what cannot be rolled out."""
    check_function(name, args)
    if not args.publish:
        raise ConfigurationError(f"{name} has publish off: the alias {ALIAS} points at published versions only")
    if not 0 <= args.canary_percent <= 100:
        raise ConfigurationError(f"{name} has canary_percent {args.canary_percent}: a percentage is 0 to 100")
    if args.canary_percent and not args.stable_version:
        raise ConfigurationError(
            f"{name} has canary_percent {args.canary_percent} and no stable_version: the other calls need a version"
        )
    if args.stable_version and not args.stable_version.isdecimal():
        raise ConfigurationError(
            f"{name} has stable_version {args.stable_version!r}: a published version is a number, such as 7"
        )
