"""DynamoDB: the lock table of the state backend."""

from __future__ import annotations

from typing import Any

from local.resources.kinds import Applied, Inputs, Kind, found, tag_list, unless
from runtime.aws import Connection


def _table(aws: Connection, inputs: Inputs, _id: str | None) -> Applied:
    dynamodb = aws.client("dynamodb")
    name = inputs["name"]
    settings: dict[str, Any] = {
        "TableName": name,
        "BillingMode": inputs["billingMode"],
        "DeletionProtectionEnabled": bool(inputs.get("deletionProtectionEnabled")),
    }
    if not unless(
        lambda: dynamodb.create_table(
            KeySchema=[{"AttributeName": inputs["hashKey"], "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": attribute["name"], "AttributeType": attribute["type"]}
                for attribute in inputs["attributes"]
            ],
            SSESpecification={"Enabled": bool((inputs.get("serverSideEncryption") or {}).get("enabled"))},
            Tags=tag_list(inputs.get("tags")),
            **settings,
        ),
        "ResourceInUseException",
    ):
        # The key of a table can't be changed, and the provider would make another table.
        dynamodb.update_table(**settings)
    recovery = bool((inputs.get("pointInTimeRecovery") or {}).get("enabled"))
    dynamodb.update_continuous_backups(
        TableName=name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": recovery}
    )
    arn = dynamodb.describe_table(TableName=name)["Table"]["TableArn"]
    return Applied(name, {"arn": arn, "name": name})


def _table_exists(aws: Connection, name: str, _inputs: Inputs) -> bool:
    return found(lambda: aws.client("dynamodb").describe_table(TableName=name), "ResourceNotFoundException")


STATE = {"aws:dynamodb/table:Table": Kind(_table, _table_exists)}
