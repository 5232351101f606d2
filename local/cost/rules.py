"""What each type of resource is billed for, in units of the price table.

A rule returns how many units of which prices a resource uses in a month. Figures that neither the resources nor the
settings tell are ranges; each says in a comment what it stands for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from local.cost.prices import table
from local.cost.usage import Range, Usage, runs_per_day
from local.recording import Registered

# CloudWatch Logs keeps lines compressed; AWS's pricing examples reckon with 0.15 of what was taken in.
_COMPRESSED = Range(0.15, 1.0)
_MB = 1 / 1024
_LAMBDA_LOGS = "/aws/lambda/"
_FLOW_LOGS = "/aws/vpc/"


@dataclass(frozen=True)
class Part:
    """Units of a price, and what they are for."""

    price: str
    units: Range
    what: str


@dataclass(frozen=True)
class Context:
    """What a rule sees beside its resource."""

    usage: Usage
    resources: Sequence[Registered]

    @property
    def days(self) -> float:
        """Days of a month."""
        return table().days

    @property
    def runs(self) -> Range:
        """Runs of the pipeline in a month."""
        return self.usage.runs_per_day * self.days

    def of(self, kind: str) -> list[Registered]:
        """Return the resources of a type."""
        return [found for found in self.resources if found.type == kind]


Rule = Callable[[Registered, Context], Iterator[Part]]


def _workgroup(found: Registered, context: Context) -> Iterator[Part]:
    base = int(found.inputs.get("baseCapacity", 128))
    hours = context.usage.rpu_hours(base) * context.days
    yield Part("redshift-rpu-hour", hours, f"the warehouse at work, base capacity {base} RPU")


def _namespace(found: Registered, context: Context) -> Iterator[Part]:
    gb = context.usage.warehouse_gb
    yield Part("redshift-storage", gb, "tables of the warehouse")
    if context.usage.snapshot_days:
        # From one copy with hardly a change to a whole one a day.
        kept = Range(1.0, float(context.usage.snapshot_days))
        yield Part("redshift-storage", gb * kept, f"snapshots of {context.usage.snapshot_days} days")
    if found.inputs.get("manageAdminPassword"):
        # AWS's pages do not say whether a secret that Redshift manages is billed.
        yield Part("secret-month", Range(0.0, 1.0), "the secret that Redshift manages")
    if found.inputs.get("logExports"):
        yield from _logs(_log_share(context), context, "audit log of the warehouse")


def _log_share(context: Context) -> Range:
    """Return the GB a month of one writer of logs: all writers of a run share its logs."""
    groups = [g for g in context.of("aws:cloudwatch/logGroup:LogGroup") if not _is_flow_log(g)]
    audited = [n for n in context.of("aws:redshiftserverless/namespace:Namespace") if n.inputs.get("logExports")]
    return context.usage.log_mb * _MB * context.runs * (1 / max(1, len(groups) + len(audited)))


def _is_flow_log(group: Registered) -> bool:
    return str(group.inputs.get("name", "")).startswith(_FLOW_LOGS)


def _logs(gb: Range, context: Context, what: str) -> Iterator[Part]:
    yield Part("log-gb", gb, what)
    kept = context.usage.log_retention_days / context.days
    yield Part("log-gb-month", gb * _COMPRESSED * kept, f"{what}, kept for {context.usage.log_retention_days} days")


def _log_group(found: Registered, context: Context) -> Iterator[Part]:
    if _is_flow_log(found):
        yield from _logs(context.usage.flow_log_mb * _MB * context.days, context, "flow logs")
    else:
        what = "log of a function" if str(found.inputs.get("name", "")).startswith(_LAMBDA_LOGS) else "log of the runs"
        yield from _logs(_log_share(context), context, what)


def _endpoint(found: Registered, context: Context) -> Iterator[Part]:
    if found.inputs.get("vpcEndpointType") == "Gateway":
        # VPC pricing: gateway endpoints are free of charge.
        return
    zones = len(found.inputs.get("subnetIds") or ())
    service = str(found.inputs.get("serviceName", "")).rsplit(".", 1)[-1]
    what = f"interface endpoint {service} in {zones} zone{'s' if zones != 1 else ''}"
    yield Part("endpoint-hour", Range.exactly(table().hours * zones), what)
    # A call for credentials or a secret takes a few kB, a run makes 1 to 100 of them.
    yield Part("endpoint-gb", Range(0.0, 0.001) * context.runs, f"what goes through {service}")


def _nat(_: Registered, context: Context) -> Iterator[Part]:
    yield Part("nat-hour", Range.exactly(table().hours), "NAT gateway")
    # Nothing of the pipeline goes out; what else does is yours.
    yield Part("nat-gb", Range(0.0, 1.0), "what goes out")


def _address(_: Registered, __: Context) -> Iterator[Part]:
    yield Part("public-address-hour", Range.exactly(table().hours), "public address of a NAT gateway")


def _secret(found: Registered, context: Context) -> Iterator[Part]:
    yield Part("secret-month", Range.exactly(1.0), f"secret {found.name}")
    # None with sign-in by IAM; up to ten reads a run.
    yield Part("secret-call", Range(0.0, 10 / 10_000) * context.runs, f"reads of {found.name}")


def _key(found: Registered, context: Context) -> Iterator[Part]:
    versions = 3.0 if found.inputs.get("enableKeyRotation") else 1.0
    yield Part("key-month", Range(1.0, versions), "KMS key, from the first year to the third")
    # S3 asks once for many objects with bucket keys; logs, secrets and functions ask by themselves.
    yield Part("key-call", Range(100 / 10_000, 2_000 / 10_000) * context.runs, "use of the key")


def _function(found: Registered, context: Context) -> Iterator[Part]:
    memory_gb = int(found.inputs.get("memorySize", 128)) / 1024
    handler = str(found.inputs.get("handler", ""))
    if "rotate" in handler:
        # Four steps, a few seconds each.
        calls = Range(4.0, 8.0) * (context.days / max(1, context.usage.rotate_login_days))
        seconds = calls * Range(1.0, 10.0)
    elif "dbt_runner" in handler:
        # dbt waits for the warehouse, whose minutes are those of build and export together.
        calls = context.runs * Range(1.0, 4.0)
        seconds = context.usage.run_minutes * Range(30.0, 60.0) * context.runs
    else:
        steps = [f for f in context.of(found.type) if _is_step(f)]
        calls = context.runs * Range(1.0, 3.0)
        seconds = context.usage.function_seconds * context.runs * (1 / max(1, len(steps)))
    yield Part("lambda-gb-second", seconds * memory_gb, f"function {found.name}, {memory_gb:g} GB")
    yield Part("lambda-request", calls * 1e-6, f"calls of {found.name}")
    if "export" in handler:
        # Nothing where Redshift writes to S3 itself; all of gold, out of one zone and into another, where it does not.
        through = Range(0.0, 2 * context.usage.gold_gb.high) * context.runs
        yield Part("zone-gb", through, "gold tables from the warehouse's zone to the function's")


def _is_step(function: Registered) -> bool:
    handler = str(function.inputs.get("handler", ""))
    return "rotate" not in handler and "dbt_runner" not in handler


def _alarm(found: Registered, _: Context) -> Iterator[Part]:
    metrics = [query for query in found.inputs.get("metricQueries") or () if query.get("metric")]
    yield Part("alarm-month", Range.exactly(float(max(1, len(metrics)))), "alarm")


def _dashboard(_: Registered, __: Context) -> Iterator[Part]:
    yield Part("dashboard-month", Range.exactly(1.0), "dashboard")


def _state_machine(found: Registered, context: Context) -> Iterator[Part]:
    definition = found.inputs.get("definition") or {}
    # A text as the program registers it, an object in a snapshot that people read.
    states = len((json.loads(definition) if isinstance(definition, str) else definition).get("States", {}))
    # Each state once, up to three times with retries and hand-overs.
    transitions = context.runs * Range(float(max(1, states)), 3.0 * max(1, states))
    yield Part("state-transition", transitions * (1 / 1000), "steps of the runs")


def _schedule(found: Registered, context: Context) -> Iterator[Part]:
    plain = runs_per_day(str(found.inputs.get("scheduleExpression", "")))
    calls = context.runs if plain is None else Range.exactly(plain * context.days)
    off = found.inputs.get("state") == "DISABLED"
    yield Part("schedule-call", Range.exactly(0.0) if off else calls * 1e-6, f"starts by {found.name}")


def _topic(_: Registered, __: Context) -> Iterator[Part]:
    # Nothing goes wrong, or something three times a day.
    yield Part("topic-publish", Range(0.0, 100e-6), "what alarms and failed runs say")


def _subscription(_: Registered, __: Context) -> Iterator[Part]:
    yield Part("topic-mail", Range(0.0, 100 / 100_000), "mails to one address")


def _queue(_: Registered, __: Context) -> Iterator[Part]:
    yield Part("queue-request", Range(0.0, 1_000e-6), "failed calls")


def _bucket(found: Registered, context: Context) -> Iterator[Part]:
    usage = context.usage
    layer = found.name.rsplit("-", 1)[-1]
    # GB, thousands of PUTs and thousands of GETs in a month.
    none = Range.exactly(0.0)
    gb, puts, gets = Range(0.0, 0.1), Range(0.0, 1.0), Range(0.0, 1.0)
    if layer == "silver":
        # Redshift reads ranges of 1 to 8 MB; who writes silver is not in this stack.
        gb, puts, gets = usage.silver_gb, none, usage.scanned_gb * Range(0.128, 1.024) * context.runs
    elif layer == "gold":
        # A run that exports anew leaves the old files until a vacuum, and their versions after it.
        old = 1 + usage.old_version_days * usage.runs_per_day.high
        gb = usage.gold_gb * Range(1.0, old)
        puts, gets = Range(0.05, 0.5) * context.runs, Range(0.05, 0.5) * context.runs
    elif layer == "artifacts":
        # Layers of one to ten deployments, and what dbt leaves of each run.
        gb, puts, gets = Range(0.1, 1.0), Range(0.01, 0.05) * context.runs, Range(0.01, 0.05) * context.runs
    yield Part("s3-gb-month", gb, f"bucket {found.name}")
    yield Part("s3-put", puts, f"writes to {found.name}")
    yield Part("s3-get", gets, f"reads of {found.name}")


def _inventory(_: Registered, context: Context) -> Iterator[Part]:
    # Up to 100,000 objects a day.
    yield Part("s3-inventory", Range(0.0, 0.1 * context.days), "inventory of a bucket")


def _database(found: Registered, context: Context) -> Iterator[Part]:
    yield Part("catalogue-object", Range(1.0, 20.0) * 1e-5, f"tables of {found.name}")
    yield Part("catalogue-request", Range(10.0, 200.0) * 1e-6 * context.runs, f"look-ups in {found.name}")


def _lock_table(found: Registered, _: Context) -> Iterator[Part]:
    # Pulumi itself does not use it.
    yield Part("table-gb-month", Range(0.0, 0.01), "lock table")
    yield Part("table-write", Range(0.0, 0.001), "locks")
    if (found.inputs.get("pointInTimeRecovery") or {}).get("enabled"):
        yield Part("table-backup-gb-month", Range(0.0, 0.01), "recovery of the lock table")


RULES: Mapping[str, Rule] = {
    "aws:cloudwatch/dashboard:Dashboard": _dashboard,
    "aws:cloudwatch/logGroup:LogGroup": _log_group,
    "aws:cloudwatch/metricAlarm:MetricAlarm": _alarm,
    "aws:dynamodb/table:Table": _lock_table,
    "aws:ec2/eip:Eip": _address,
    "aws:ec2/natGateway:NatGateway": _nat,
    "aws:ec2/vpcEndpoint:VpcEndpoint": _endpoint,
    "aws:glue/catalogDatabase:CatalogDatabase": _database,
    "aws:kms/key:Key": _key,
    "aws:lambda/function:Function": _function,
    "aws:redshiftserverless/namespace:Namespace": _namespace,
    "aws:redshiftserverless/workgroup:Workgroup": _workgroup,
    "aws:s3/bucket:Bucket": _bucket,
    "aws:s3/inventory:Inventory": _inventory,
    "aws:scheduler/schedule:Schedule": _schedule,
    "aws:secretsmanager/secret:Secret": _secret,
    "aws:sfn/stateMachine:StateMachine": _state_machine,
    "aws:sns/topic:Topic": _topic,
    "aws:sns/topicSubscription:TopicSubscription": _subscription,
    "aws:sqs/queue:Queue": _queue,
}
