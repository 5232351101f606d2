"""Redshift Serverless, its Data API, and the value of a login's secret."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from botocore.exceptions import ClientError

from local.resources.kinds import Applied, Inputs, Kind, found, unless
from runtime.aws import Connection
from runtime.errors import FailedError

REFUSED = {
    "random:index/randomPassword:RandomPassword": (
        "a generated password would have to be kept in the deployment's record, a plain file: "
        "set goldlake:adminPassword to none"
    )
}
"""Resource types that this deployment must not create, and why."""

_SERVICE = "redshift-serverless"
_MISSING = "ResourceNotFoundException"
_PAUSE_SECONDS = 0.2
# What the provider waits for a statement, and more than a local workgroup ever needs.
_PATIENCE_SECONDS = 600.0


def _tags(inputs: Inputs) -> list[dict[str, str]]:
    """Return the tags as this service spells them."""
    return [{"key": key, "value": value} for key, value in (inputs.get("tags") or {}).items()]


def _given(inputs: Inputs, *names: str) -> dict[str, Any]:
    """Return those of the inputs that are there, under the service's own names, which are the provider's."""
    return {name: inputs[name] for name in names if inputs.get(name) is not None}


_LOGIN = ("adminUsername", "adminUserPassword", "manageAdminPassword", "adminPasswordSecretKmsKeyId")
_ROLES = ("iamRoles", "defaultIamRoleArn")


def _namespace(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    client = aws.client(_SERVICE)
    name = inputs["namespaceName"]
    settings = _given(inputs, "dbName", "kmsKeyId", "logExports", *_LOGIN, *_ROLES)
    if not unless(
        lambda: client.create_namespace(namespaceName=name, tags=_tags(inputs), **settings), "ConflictException"
    ):
        # UpdateNamespace: one kind of setting in each request.
        for kind in (_LOGIN, _ROLES, ("kmsKeyId",), ("logExports",)):
            change = _given(inputs, *kind)
            if change:
                client.update_namespace(namespaceName=name, **change)
        _retag(client, client.get_namespace(namespaceName=name)["namespace"]["namespaceArn"], inputs)
    made = client.get_namespace(namespaceName=name)["namespace"]
    # No password here: what a resource puts out is written down.
    outputs = {
        "arn": made["namespaceArn"],
        "namespaceId": made["namespaceId"],
        "namespaceName": name,
        "dbName": made["dbName"],
        "adminPasswordSecretArn": made.get("adminPasswordSecretArn"),
    }
    return Applied(name, outputs)


def _retag(client: Any, arn: str, inputs: Inputs) -> None:
    tags = _tags(inputs)
    if tags:
        client.tag_resource(resourceArn=arn, tags=tags)


def _namespace_exists(aws: Connection, name: str, _inputs: Inputs) -> bool:
    return found(lambda: aws.client(_SERVICE).get_namespace(namespaceName=name), _MISSING)


_WORKGROUP = (
    "baseCapacity",
    "maxCapacity",
    "configParameters",
    "subnetIds",
    "securityGroupIds",
    "publiclyAccessible",
    "enhancedVpcRouting",
    "port",
)


def _workgroup(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    client = aws.client(_SERVICE)
    name = inputs["workgroupName"]
    request = {"workgroupName": name, "namespaceName": inputs["namespaceName"], "tags": _tags(inputs)}
    if not unless(
        lambda: client.create_workgroup(**request, **_given(inputs, *_WORKGROUP)),
        "ConflictException",
    ):
        current = _available(client, name)
        for change in workgroup_changes(current, inputs):
            client.update_workgroup(workgroupName=name, **change)
            _available(client, name)
        _retag(client, current["workgroupArn"], inputs)
    made = _available(client, name)
    endpoint = made["endpoint"]
    outputs = {
        "arn": made["workgroupArn"],
        "workgroupId": made["workgroupId"],
        "workgroupName": name,
        "endpoints": [{"address": endpoint["address"], "port": endpoint["port"]}],
    }
    return Applied(name, outputs)


def workgroup_changes(current: dict[str, Any], inputs: Inputs) -> Iterator[dict[str, Any]]:
    """Yield the updates that bring a workgroup to its inputs, one setting each, as UpdateWorkgroup demands.

    The maximum capacity is never below the base on the way. -1 takes it away (terraform-provider-aws#36032).
    """
    wanted = _given(inputs, *_WORKGROUP)
    if "maxCapacity" not in wanted and current.get("maxCapacity") is not None:
        wanted["maxCapacity"] = -1
    below = wanted.get("maxCapacity", -1) != -1 and wanted["maxCapacity"] < current.get("baseCapacity", 0)
    order = ("baseCapacity", "maxCapacity") if below else ("maxCapacity", "baseCapacity")
    for name in (*order, *(name for name in _WORKGROUP if name not in order)):
        if name in wanted and _comparable(wanted[name]) != _comparable(current.get(name)):
            yield {name: wanted[name]}


def _comparable(value: Any) -> Any:
    """Return a value whose order does not matter: lists of ids, and of parameters."""
    if isinstance(value, list):
        return sorted(str(sorted(item.items())) if isinstance(item, dict) else str(item) for item in value)
    return value


def _available(client: Any, name: str) -> dict[str, Any]:
    """Return the workgroup once it is available."""
    return _ended(
        lambda: dict(client.get_workgroup(workgroupName=name)["workgroup"]),
        lambda workgroup: workgroup["status"] == "AVAILABLE",
        f"workgroup {name}",
    )


def _workgroup_exists(aws: Connection, name: str, _inputs: Inputs) -> bool:
    return found(lambda: aws.client(_SERVICE).get_workgroup(workgroupName=name), _MISSING)


def _usage_limit(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
    client = aws.client(_SERVICE)
    limit = _usage_limit_id(client, inputs) if id is None else id
    if limit is None:
        settings = _given(inputs, "resourceArn", "usageType", "amount", "period", "breachAction")
        made = client.create_usage_limit(**settings)["usageLimit"]
    else:
        made = client.update_usage_limit(usageLimitId=limit, **_given(inputs, "amount", "breachAction"))["usageLimit"]
    return Applied(made["usageLimitId"], {"arn": made["usageLimitArn"]})


def _usage_limit_id(client: Any, inputs: Inputs) -> str | None:
    """Return the limit that an interrupted deployment left: of this period and action."""
    same = _given(inputs, "usageType", "period", "breachAction")
    for limit in client.list_usage_limits(resourceArn=inputs["resourceArn"])["usageLimits"]:
        if all(limit[name] == value for name, value in same.items()):
            return str(limit["usageLimitId"])
    return None


def _usage_limit_exists(aws: Connection, id: str, _inputs: Inputs) -> bool:
    return found(lambda: aws.client(_SERVICE).get_usage_limit(usageLimitId=id), _MISSING)


def _statement(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    """Run a statement, again if it ran before with another text. Raises FailedError with the database's words."""
    client = aws.client("redshift-data")
    names = {
        "sql": "Sql",
        "database": "Database",
        "workgroupName": "WorkgroupName",
        "secretArn": "SecretArn",
        "statementName": "StatementName",
    }
    request = {theirs: inputs[ours] for ours, theirs in names.items() if inputs.get(ours)}
    id = str(client.execute_statement(**request)["Id"])
    label = f"statement {inputs.get('statementName') or id}"
    described = _ended(
        lambda: dict(client.describe_statement(Id=id)),
        lambda statement: statement["Status"] in ("FINISHED", "FAILED", "ABORTED"),
        label,
    )
    if described["Status"] != "FINISHED":
        raise FailedError(f"{label}: {described.get('Error') or described['Status'].lower()}")
    return Applied(id, {})


def _statement_exists(aws: Connection, id: str, _inputs: Inputs) -> bool:
    return found(lambda: aws.client("redshift-data").describe_statement(Id=id), _MISSING, "ValidationException")


def _ended(look: Callable[[], dict[str, Any]], ended: Callable[[dict[str, Any]], bool], label: str) -> dict[str, Any]:
    """Look until it has ended, and return what was seen last. Raises FailedError when patience is."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        seen = look()
        if ended(seen):
            return seen
        if time.monotonic() > deadline:
            raise FailedError(f"{label} is not ready after {_PATIENCE_SECONDS:.0f} s")
        time.sleep(_PAUSE_SECONDS)


def _secret_version(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    made = aws.client("secretsmanager").put_secret_value(
        SecretId=inputs["secretId"], SecretString=inputs["secretString"]
    )
    # The value is in neither: both are written down.
    return Applied(f"{made['ARN']}|{made['VersionId']}", {"arn": made["ARN"], "versionId": made["VersionId"]})


def _secret_version_exists(aws: Connection, id: str, _inputs: Inputs) -> bool:
    arn, version = id.rsplit("|", 1)
    try:
        described = aws.client("secretsmanager").describe_secret(SecretId=arn)
    except ClientError as exc:
        if exc.response["Error"]["Code"] == _MISSING:
            return False
        raise
    return version in described.get("VersionIdsToStages", {})


WAREHOUSE = {
    "aws:redshiftserverless/namespace:Namespace": Kind(_namespace, _namespace_exists),
    "aws:redshiftserverless/workgroup:Workgroup": Kind(_workgroup, _workgroup_exists),
    "aws:redshiftserverless/usageLimit:UsageLimit": Kind(_usage_limit, _usage_limit_exists),
    "aws:redshiftdata/statement:Statement": Kind(_statement, _statement_exists),
    "aws:secretsmanager/secretVersion:SecretVersion": Kind(_secret_version, _secret_version_exists),
}
