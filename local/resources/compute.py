"""IAM, Lambda, Step Functions and EventBridge Scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi

from local.resources.kinds import ACCOUNT, Applied, Inputs, Kind, found, pascal, tag_list, unless
from runtime.aws import Connection

# The emulator is ready within a second; AWS's own pace of polling would be most of a deployment.
_SOON = {"Delay": 0.2, "MaxAttempts": 150}


def _role(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    iam = aws.client("iam")
    name, trust = inputs["name"], inputs["assumeRolePolicy"]
    if not unless(
        lambda: iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, Tags=tag_list(inputs.get("tags"))),
        "EntityAlreadyExists",
    ):
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)
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
    settings: dict[str, Any] = {
        "FunctionName": name,
        "Role": inputs["role"],
        "Handler": inputs["handler"],
        "Runtime": inputs["runtime"],
        "Description": inputs["description"],
        "Timeout": int(inputs["timeout"]),
        "MemorySize": int(inputs["memorySize"]),
        "Layers": list(inputs["layers"]),
        "Environment": {"Variables": dict(inputs["environment"].get("variables") or {})},
        "VpcConfig": pascal(inputs.get("vpcConfig") or {}),
    }
    if not unless(
        lambda: client.create_function(Code={"ZipFile": code}, Tags=dict(inputs["tags"]), **settings),
        "ResourceConflictException",
    ):
        client.update_function_code(FunctionName=name, ZipFile=code)
        client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=_SOON)
        client.update_function_configuration(**settings)
    client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig=_SOON)
    arn = client.get_function_configuration(FunctionName=name)["FunctionArn"]
    return Applied(name, {"arn": arn, "name": name})


def _function_exists(aws: Connection, name: str, _inputs: Inputs) -> bool:
    return found(
        lambda: aws.client("lambda").get_function_configuration(FunctionName=name),
        "ResourceNotFoundException",
    )


def _state_machine(aws: Connection, inputs: Inputs, arn: str | None) -> Applied:
    client = aws.client("stepfunctions")
    settings = {"definition": inputs["definition"], "roleArn": inputs["roleArn"]}
    if arn is None:
        logging = inputs["loggingConfiguration"]
        arn = client.create_state_machine(
            name=inputs["name"],
            loggingConfiguration={
                "level": logging["level"],
                "includeExecutionData": logging["includeExecutionData"],
                "destinations": [{"cloudWatchLogsLogGroup": {"logGroupArn": logging["logDestination"]}}],
            },
            **settings,
        )["stateMachineArn"]
    else:
        client.update_state_machine(stateMachineArn=arn, **settings)
    return Applied(arn, {"arn": arn, "name": inputs["name"]})


def _state_machine_exists(aws: Connection, arn: str, _inputs: Inputs) -> bool:
    return found(
        lambda: aws.client("stepfunctions").describe_state_machine(stateMachineArn=arn),
        "StateMachineDoesNotExist",
    )


def _schedule(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    client = aws.client("scheduler")
    target = inputs["target"]
    settings = {
        "Name": inputs["name"],
        "ScheduleExpression": inputs["scheduleExpression"],
        "State": inputs["state"],
        "FlexibleTimeWindow": {"Mode": inputs["flexibleTimeWindow"]["mode"]},
        "Target": {"Arn": target["arn"], "RoleArn": target["roleArn"], "Input": target["input"]},
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
    "aws:sfn/stateMachine:StateMachine": Kind(_state_machine, _state_machine_exists),
    "aws:scheduler/schedule:Schedule": Kind(_schedule, _schedule_exists),
}
