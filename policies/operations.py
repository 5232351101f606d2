"""What runs is logged for a while, holds no secret in plain view, and does not fail in silence."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from policies.data import LOG_GROUP, NAMESPACE
from policies.limits import MAX_FUNCTION_MB, RUNTIMES
from policies.model import Finding, Resource, Rule, at, is_other_than, items, known, partners

FUNCTION = "aws:lambda/function:Function"
LAYER = "aws:lambda/layerVersion:LayerVersion"
ON_FAILURE = "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig"
STATE_MACHINE = "aws:sfn/stateMachine:StateMachine"
SCHEDULE = "aws:scheduler/schedule:Schedule"
VPC, FLOW_LOG = "aws:ec2/vpc:Vpc", "aws:ec2/flowLog:FlowLog"
SECRET_VERSION = "aws:secretsmanager/secretVersion:SecretVersion"  # noqa: S105 - a type token
DBT_HANDLER = "lambdas.dbt_runner."
AUDIT_LOGS = frozenset({"userlog", "connectionlog", "useractivitylog"})


def logs_are_kept(group: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """Log lines go after a while: by default CloudWatch keeps them, and bills them, for ever."""
    if group.inputs.get("retentionInDays") in (None, 0):
        yield "keeps its lines for ever"


def function_has_a_log_group(function: Resource, everything: Sequence[Resource]) -> Iterator[Finding]:
    """The group that a function logs into is the stack's: one that Lambda makes itself never forgets."""
    name = function.inputs.get("name")
    own = at(function.inputs, "loggingConfig", "logGroup") or f"/aws/lambda/{name}"
    if name is None or not known(name) or not known(own):
        return
    groups = [found.inputs.get("name") for found in everything if found.type == LOG_GROUP]
    if own not in groups and all(map(known, groups)):
        yield f"logs into {own}, which is not in the stack"


def warehouse_is_audited(namespace: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """Sign-ins, changes of users and queries of the warehouse are logged."""
    exported = namespace.inputs.get("logExports")
    missing = sorted(AUDIT_LOGS - set(items(exported)))
    if all(map(known, [exported, *items(exported)])) and missing:
        yield f"does not export {', '.join(missing)}"


def pipeline_is_logged(machine: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """A state machine logs its failures at least."""
    if is_other_than(at(machine.inputs, "loggingConfiguration", "level"), "ERROR", "FATAL", "ALL"):
        yield "logs nothing"


def network_is_logged(vpc: Resource, everything: Sequence[Resource]) -> Iterator[Finding]:
    """Who talked to whom in a network can be looked up."""
    if not partners(vpc, everything, FLOW_LOG, "vpcId"):
        yield "has no flow log"


def runtime_is_supported(resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """Functions and layers are for a runtime that AWS mends and the layers are built for."""
    given = items(resource.inputs.get("runtime")) + items(resource.inputs.get("compatibleRuntimes"))
    for runtime in sorted(set(map(str, filter(known, given))) - RUNTIMES):
        yield f"is for {runtime}: {', '.join(sorted(RUNTIMES))} are supported"


def function_is_limited(function: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """A function says how long it may run, and does not take more memory than its work was measured to need."""
    if function.inputs.get("timeout") is None:
        yield "does not say how long it may run: Lambda stops it after 3 seconds"
    memory = function.inputs.get("memorySize")
    if isinstance(memory, int | float) and memory > MAX_FUNCTION_MB:
        yield f"has {memory:g} MB: {MAX_FUNCTION_MB} are allowed"


def dbt_runs_once(function: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """dbt builds one set of tables: two runs at once drop and rename each other's."""
    handler = str(function.inputs.get("handler") or "")
    if handler.startswith(DBT_HANDLER) and is_other_than(function.inputs.get("reservedConcurrentExecutions"), 1):
        yield "may run twice at once: no concurrency of 1 is reserved for it"


def failures_are_kept(resource: Resource, everything: Sequence[Resource]) -> Iterator[Finding]:
    """A schedule's failed call, and a function's failed asynchronous call, go to a queue."""
    if resource.type == SCHEDULE:
        if not at(resource.inputs, "target", "deadLetterConfig"):
            yield "loses calls that fail: its target has no dead-letter queue"
    elif str(resource.inputs.get("handler") or "").startswith(DBT_HANDLER):
        kept = [
            at(found.inputs, "destinationConfig", "onFailure", "destination")
            for found in partners(resource, everything, ON_FAILURE, "functionName")
        ]
        if not any(kept) and not at(resource.inputs, "deadLetterConfig"):
            yield "loses asynchronous calls that fail: it has no destination for them"


# What secrets look like, with the word for it that a message may say.
_PATTERNS: Mapping[str, re.Pattern[str]] = {
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a URL with a password": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:[^\s/:@$<{]+@"),
    "a password": re.compile(
        r"(?i)\b(?:password|passwd|pwd|secret|token)"
        # password=…, "password": "…", and SQL's PASSWORD '…'. A colon alone is in every secret's ARN.
        r"(?:\s*=|['\"]\s*:|\s+(?='))\s*['\"]?[^\s'\"$<{\[]{6,}"
    ),
    "a token of GitHub, Slack or PyPI": re.compile(r"\b(?:ghp_|gho_|xox[abp]-|pypi-)[A-Za-z0-9_-]{16,}"),
}
_SECRET_NAME = re.compile(r"(?i)(password|passwd|secret|token|api_?key|private_?key|credential)")
# Inputs that are made to hold a secret; the provider never shows them.
_PLACES = frozenset({"adminUserPassword", "masterPassword", "masterUserPassword", "secretBinary", "secretString"})
# Texts that are long and look random, and say nothing: addresses of AWS, and the hashes of what is uploaded.
_HARMLESS = frozenset({"arn", "etag", "source", "code", "sourceCodeHash", "sourceHash", "s3Key", "key", "content"})


def no_plain_secret(resource: Resource, _: Sequence[Resource]) -> Iterator[Finding]:
    """No secret stands where consoles and Describe calls show it: environment, tags, SQL, definitions."""
    if resource.type == SECRET_VERSION or not resource.type.startswith("aws:"):
        return
    for name, value in resource.inputs.items():
        # What is marked as a secret is encrypted in Pulumi's state; in a function's environment Lambda shows it.
        if name in _PLACES or (name in resource.secret_inputs and name != "environment"):
            continue
        for path, text in _texts(value, name):
            what = _looks_like(path, text)
            if what:
                yield f"holds what looks like {what} in {path}"


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, found in value.items():
            yield from _texts(found, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, found in enumerate(value):
            yield from _texts(found, f"{path}[{index}]")
    elif isinstance(value, str) and known(value):
        yield path, value


def _looks_like(path: str, text: str) -> str | None:
    """Return what a text looks like, None for nothing in particular."""
    for what, pattern in _PATTERNS.items():
        if pattern.search(text):
            return what
    last = path.rsplit(".", 1)[-1]
    if path.startswith("environment.") and _SECRET_NAME.search(last) and not _is_reference(text):
        return "a secret, by its name"
    if last not in _HARMLESS and re.fullmatch(r"[A-Za-z0-9+/=_-]{32,}", text) and _entropy(text) > 4.5:
        return "a random key"
    return None


def _is_reference(text: str) -> bool:
    """Return whether a text says where a secret is, instead of what it is."""
    return text == "" or text.startswith("arn:") or re.fullmatch(r"[a-z0-9-]+(/[a-z0-9-]+)+", text) is not None


def _entropy(text: str) -> float:
    """Return the Shannon entropy of a text in bits per character; random base64 of 40 has about 5."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


RULES = (
    Rule(
        id="log-retention",
        title="Logs are kept for a set time",
        severity="error",
        remediation="Set retentionInDays (goldlake:logRetentionDays).",
        source="Security Hub CloudWatch.16",
        types=frozenset({LOG_GROUP}),
        check=logs_are_kept,
    ),
    Rule(
        id="function-log-group",
        title="Each function's log group is in the stack",
        severity="error",
        remediation="Make a LogGroup /aws/lambda/<name>; components/function.py does.",
        source="Lambda developer guide, “Sending Lambda function logs to CloudWatch Logs”",
        types=frozenset({FUNCTION}),
        check=function_has_a_log_group,
        whole_stack=True,
    ),
    Rule(
        id="warehouse-audited",
        title="The warehouse exports its audit logs",
        severity="error",
        remediation="Set logExports to userlog, connectionlog and useractivitylog.",
        source="Security Hub RedshiftServerless.6",
        types=frozenset({NAMESPACE}),
        check=warehouse_is_audited,
    ),
    Rule(
        id="pipeline-logged",
        title="State machines log",
        severity="error",
        remediation="Give the state machine a loggingConfiguration of level ERROR or ALL.",
        source="Security Hub StepFunctions.1",
        types=frozenset({STATE_MACHINE}),
        check=pipeline_is_logged,
    ),
    Rule(
        id="network-logged",
        title="Networks have flow logs",
        severity="warning",
        remediation="Leave goldlake:flowLogs on, or add a FlowLog.",
        source="Security Hub EC2.6; CIS AWS Foundations 3.0, 3.7",
        types=frozenset({VPC}),
        check=network_is_logged,
        whole_stack=True,
    ),
    Rule(
        id="no-plain-secret",
        title="No secret stands in plain inputs",
        severity="error",
        remediation="Put it into Secrets Manager, and give the function the secret's name or ARN.",
        source="Lambda developer guide, “Working with environment variables”; Security Hub CodeBuild.2 for its like",
        types=frozenset(),
        check=no_plain_secret,
    ),
    Rule(
        id="supported-runtime",
        title="Functions and layers use a supported runtime",
        severity="error",
        remediation="Set goldlake:lambdaRuntime to one of policies/limits.py, and build the layers for it.",
        source="Security Hub Lambda.2",
        types=frozenset({FUNCTION, LAYER}),
        check=runtime_is_supported,
    ),
    Rule(
        id="function-limits",
        title="Functions have a time limit and an allowed size",
        severity="warning",
        remediation=f"Set the timeout, and at most {MAX_FUNCTION_MB} MB; larger work belongs into the warehouse.",
        source="Lambda developer guide, “Configure Lambda function timeout”, “… memory”",
        types=frozenset({FUNCTION}),
        check=function_is_limited,
    ),
    Rule(
        id="dbt-runs-once",
        title="dbt never runs twice at once",
        severity="error",
        remediation="Set goldlake:dbtReservedConcurrency to 1; exempt it where the account has none to reserve.",
        source="Lambda developer guide, “Configuring reserved concurrency”",
        types=frozenset({FUNCTION}),
        check=dbt_runs_once,
    ),
    Rule(
        id="failures-kept",
        title="Calls that fail are kept",
        severity="warning",
        remediation="Give schedules a deadLetterConfig, and asynchronous functions a destination on failure.",
        source="EventBridge Scheduler user guide, “Dead-letter queue”; Lambda developer guide, “Destinations”",
        types=frozenset({FUNCTION, SCHEDULE}),
        check=failures_are_kept,
        whole_stack=True,
    ),
)
