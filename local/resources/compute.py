"""IAM, Lambda with its versions and aliases, Step Functions and EventBridge Scheduler."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pulumi

from local.resources.kinds import ACCOUNT, Applied, Inputs, Kind, found, pascal, tag_list, unless
from runtime.aws import Connection

# The emulator is ready within a second; AWS's own pace of polling would be most of a deployment.
_SOON = {"Delay": 0.2, "MaxAttempts": 150}


def _role(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    iam = aws.client("iam")
    name, trust, tags = inputs["name"], inputs["assumeRolePolicy"], tag_list(inputs.get("tags"))
    text = inputs.get("description") or ""
    if not unless(
        lambda: iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, Description=text, Tags=tags),
        "EntityAlreadyExists",
    ):
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
        iam.update_role_description(RoleName=name, Description=text)
        iam.tag_role(RoleName=name, Tags=tags)
    return Applied(name, {"arn": f"arn:aws:iam::{ACCOUNT}:role/{name}", "name": name})


def _role_exists(aws: Connection, name: str, _inputs: Inputs) -> bool:
    return found(lambda: aws.client("iam").get_role(RoleName=name), "NoSuchEntity")


def _role_policy(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    aws.client("iam").put_role_policy(
        RoleName=inputs["role"], PolicyName=inputs["name"], PolicyDocument=inputs["policy"]
    )
    return Applied(f"{inputs['role']}:{inputs['name']}", {})


def _role_policy_exists(aws: Connection, _id: str, inputs: Inputs) -> bool:
    return found(
        lambda: aws.client("iam").get_role_policy(RoleName=inputs["role"], PolicyName=inputs["name"]),
        "NoSuchEntity",
    )


def _layer(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    published = aws.client("lambda").publish_layer_version(
        LayerName=inputs["layerName"],
        Description=inputs["description"],
        Content={"S3Bucket": inputs["s3Bucket"], "S3Key": inputs["s3Key"]},
        CompatibleRuntimes=list(inputs["compatibleRuntimes"]),
    )
    arn = published["LayerVersionArn"]
    return Applied(arn, {"arn": arn, "layerArn": published["LayerArn"], "version": str(published["Version"])})


def _layer_exists(aws: Connection, arn: str, _inputs: Inputs) -> bool:
    name, version = arn.split(":")[-2:]
    return found(
        lambda: aws.client("lambda").get_layer_version(LayerName=name, VersionNumber=int(version)),
        "ResourceNotFoundException",
    )


def _function(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    client = aws.client("lambda")
    name = inputs["name"]
    archive = inputs["code"]
    assert isinstance(archive, pulumi.FileArchive)  # noqa: S101 - the program gives files only
    code = Path(str(archive.path)).read_bytes()
    settings = _function_settings(inputs)
    if not unless(
        lambda: client.create_function(Code={"ZipFile": code}, Tags=dict(inputs["tags"]), **settings),
        "ResourceConflictException",
    ):
        client.update_function_code(FunctionName=name, ZipFile=code)
        client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=_SOON)
        client.update_function_configuration(**settings)
    client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig=_SOON)
    client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=_SOON)
    _reserve_concurrency(client, name, inputs.get("reservedConcurrentExecutions"))
    version = _published(client, name, code, settings) if inputs.get("publish") else "$LATEST"
    arn = client.get_function_configuration(FunctionName=name)["FunctionArn"]
    return Applied(name, {"arn": arn, "name": name, "version": version, "qualifiedArn": f"{arn}:{version}"})


def _published(client: Any, name: str, code: bytes, settings: dict[str, Any]) -> str:
    """Return the newest version if it is of this code and these settings, and publish them otherwise.

    Lambda compares by itself; the emulator takes every update for a change. The digest is the version's description.
    """
    digest = hashlib.sha256(code + json.dumps(settings, sort_keys=True).encode()).hexdigest()
    pages = client.get_paginator("list_versions_by_function").paginate(FunctionName=name)
    newest = [version for page in pages for version in page["Versions"]][-1]
    if newest["Version"] != "$LATEST" and newest["Description"] == digest:
        return str(newest["Version"])
    return str(client.publish_version(FunctionName=name, Description=digest)["Version"])


def _function_settings(inputs: Inputs) -> dict[str, Any]:
    """Return what a function is created with and updated to, in Lambda's own words."""
    settings: dict[str, Any] = {
        "FunctionName": inputs["name"],
        "Role": inputs["role"],
        "Handler": inputs["handler"],
        "Runtime": inputs["runtime"],
        "Description": inputs["description"],
        "Timeout": int(inputs["timeout"]),
        "MemorySize": int(inputs["memorySize"]),
        "Layers": list(inputs["layers"]),
        "Environment": {"Variables": dict(inputs["environment"].get("variables") or {})},
        "VpcConfig": pascal(inputs.get("vpcConfig") or {}),
        "KMSKeyArn": inputs.get("kmsKeyArn") or "",
    }
    if inputs.get("ephemeralStorage"):
        settings["EphemeralStorage"] = {"Size": int(inputs["ephemeralStorage"]["size"])}
    return settings


def _reserve_concurrency(client: Any, name: str, reserved: int | None) -> None:
    if reserved is None or reserved < 0:
        client.delete_function_concurrency(FunctionName=name)
    else:
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=int(reserved))


def _function_exists(aws: Connection, name: str, _inputs: Inputs) -> bool:
    return found(
        lambda: aws.client("lambda").get_function_configuration(FunctionName=name),
        "ResourceNotFoundException",
    )


def _alias(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    client = aws.client("lambda")
    weights = (inputs.get("routingConfig") or {}).get("additionalVersionWeights") or {}
    settings = {
        "FunctionName": inputs["functionName"],
        "Name": inputs["name"],
        "FunctionVersion": inputs["functionVersion"],
        "Description": inputs.get("description") or "",
        "RoutingConfig": {"AdditionalVersionWeights": {version: float(part) for version, part in weights.items()}},
    }
    if not unless(lambda: client.create_alias(**settings), "ResourceConflictException"):
        client.update_alias(**settings)
    arn = client.get_alias(FunctionName=inputs["functionName"], Name=inputs["name"])["AliasArn"]
    return Applied(arn, {"arn": arn, "name": inputs["name"], "functionVersion": inputs["functionVersion"]})


def _alias_exists(aws: Connection, _id: str, inputs: Inputs) -> bool:
    return found(
        lambda: aws.client("lambda").get_alias(FunctionName=inputs["functionName"], Name=inputs["name"]),
        "ResourceNotFoundException",
    )


def _invoke_config(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    destination = inputs["destinationConfig"]["onFailure"]["destination"]
    aws.client("lambda").put_function_event_invoke_config(
        FunctionName=inputs["functionName"],
        Qualifier=inputs["qualifier"],
        MaximumRetryAttempts=int(inputs["maximumRetryAttempts"]),
        MaximumEventAgeInSeconds=int(inputs["maximumEventAgeInSeconds"]),
        DestinationConfig={"OnFailure": {"Destination": destination}},
    )
    return Applied(f"{inputs['functionName']}:{inputs['qualifier']}", {})


def _invoke_config_exists(aws: Connection, _id: str, inputs: Inputs) -> bool:
    return found(
        lambda: aws.client("lambda").get_function_event_invoke_config(
            FunctionName=inputs["functionName"], Qualifier=inputs["qualifier"]
        ),
        "ResourceNotFoundException",
    )


def _permission(aws: Connection, inputs: Inputs, id: str | None) -> Applied:
    client = aws.client("lambda")
    function, source = inputs["function"], inputs["sourceArn"]
    # The provider makes a statement's name up; ours says what it is for, so that the same one is found again.
    id = id or hashlib.sha256(f"{inputs['principal']} {source}".encode()).hexdigest()[:16]
    unless(lambda: client.remove_permission(FunctionName=function, StatementId=id), "ResourceNotFoundException")
    client.add_permission(
        FunctionName=function,
        StatementId=id,
        Action=inputs["action"],
        Principal=inputs["principal"],
        SourceArn=source,
    )
    return Applied(id, {"statementId": id})


def _permission_exists(aws: Connection, id: str, inputs: Inputs) -> bool:
    policies: list[str] = []
    there = found(
        lambda: policies.append(aws.client("lambda").get_policy(FunctionName=inputs["function"])["Policy"]),
        "ResourceNotFoundException",
    )
    return there and any(statement["Sid"] == id for statement in json.loads(policies[0])["Statement"])


def _state_machine(aws: Connection, inputs: Inputs, arn: str | None) -> Applied:
    client = aws.client("stepfunctions")
    tags = [{"key": key, "value": value} for key, value in (inputs.get("tags") or {}).items()]
    logging = inputs["loggingConfiguration"]
    settings = {
        "definition": inputs["definition"],
        "roleArn": inputs["roleArn"],
        "loggingConfiguration": {
            "level": logging["level"],
            "includeExecutionData": logging["includeExecutionData"],
            "destinations": [{"cloudWatchLogsLogGroup": {"logGroupArn": logging["logDestination"]}}],
        },
    }
    if arn is None:
        arn = str(client.create_state_machine(name=inputs["name"], tags=tags, **settings)["stateMachineArn"])
    else:
        client.update_state_machine(stateMachineArn=arn, **settings)
        client.tag_resource(resourceArn=arn, tags=tags)
    return Applied(arn, {"arn": arn, "name": inputs["name"]})


def _state_machine_exists(aws: Connection, arn: str, _inputs: Inputs) -> bool:
    return found(
        lambda: aws.client("stepfunctions").describe_state_machine(stateMachineArn=arn),
        "StateMachineDoesNotExist",
    )


def _schedule(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    client = aws.client("scheduler")
    target = inputs["target"]
    more = {part: pascal(target[part]) for part in ("retryPolicy", "deadLetterConfig") if target.get(part)}
    settings = {
        "Name": inputs["name"],
        "ScheduleExpression": inputs["scheduleExpression"],
        "State": inputs["state"],
        "FlexibleTimeWindow": {"Mode": inputs["flexibleTimeWindow"]["mode"]},
        "Target": {"Arn": target["arn"], "RoleArn": target["roleArn"], "Input": target["input"], **pascal(more)},
    }
    if not unless(lambda: client.create_schedule(**settings), "ConflictException"):
        client.update_schedule(**settings)
    arn = client.get_schedule(Name=inputs["name"])["Arn"]
    return Applied(f"default/{inputs['name']}", {"arn": arn, "name": inputs["name"]})


def _schedule_exists(aws: Connection, _id: str, inputs: Inputs) -> bool:
    return found(lambda: aws.client("scheduler").get_schedule(Name=inputs["name"]), "ResourceNotFoundException")


COMPUTE = {
    "aws:iam/role:Role": Kind(_role, _role_exists),
    "aws:iam/rolePolicy:RolePolicy": Kind(_role_policy, _role_policy_exists),
    "aws:lambda/layerVersion:LayerVersion": Kind(_layer, _layer_exists),
    "aws:lambda/function:Function": Kind(_function, _function_exists),
    "aws:lambda/alias:Alias": Kind(_alias, _alias_exists),
    "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig": Kind(_invoke_config, _invoke_config_exists),
    "aws:lambda/permission:Permission": Kind(_permission, _permission_exists),
    "aws:sfn/stateMachine:StateMachine": Kind(_state_machine, _state_machine_exists),
    "aws:scheduler/schedule:Schedule": Kind(_schedule, _schedule_exists),
}
