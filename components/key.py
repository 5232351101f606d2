"""A KMS key of our own, for logs, secrets, queues and topics, and the policy that says who may use it."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.policies import Document, Statement, document
from runtime.errors import ConfigurationError

# KMS developer guide, "Deleting AWS KMS keys": days until a deleted key is gone, and with it all that it encrypted.
MIN_DELETION_DAYS, MAX_DELETION_DAYS = 7, 30


def key_policy(account: str, region: str, *, services: bool = True) -> Document:
    """Return the key's policy: who administers it, and with `services` that logs, alarms and event rules may use it.

    In a key's policy `*` as the resource is the key itself (KMS developer guide, "Key policies"). The account's root
    has `kms:*`, as in the policy that KMS gives a key by default: it hands the key to the account's IAM policies, and
    without it a key can be locked out for good. So roles use the key by their own policies, see `policies.use_key`.
    """
    return document(
        {
            "Sid": "AccountAdministers",
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
            "Action": "kms:*",
            "Resource": "*",
        },
        *([_logs(account, region), *_notifications(account, region)] if services else []),
    )


def _logs(account: str, region: str) -> Statement:
    """Return what CloudWatch Logs needs, for log groups of this account only.

    Source: CloudWatch Logs user guide, "Encrypt log data in CloudWatch Logs using AWS KMS". Its actions with a star
    are spelled out here.
    """
    return _service(
        "CloudWatchLogs",
        f"logs.{region}.amazonaws.com",
        [
            "kms:Encrypt",
            "kms:Decrypt",
            "kms:ReEncryptFrom",
            "kms:ReEncryptTo",
            "kms:GenerateDataKey",
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:DescribeKey",
        ],
        {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:{region}:{account}:log-group:*"}},
    )


def _notifications(account: str, region: str) -> list[Statement]:
    """Return what alarms and event rules need to publish to a topic that is encrypted with the key.

    Source: SNS developer guide, "Managing Amazon SNS encryption keys and costs". EventBridge sends no
    `aws:SourceAccount` to KMS: with that condition its messages are lost, without an error anywhere. What every
    request has is the topic that it is for.
    """
    actions = ["kms:Decrypt", "kms:GenerateDataKey"]
    topics = {"kms:EncryptionContext:aws:sns:topicArn": f"arn:aws:sns:{region}:{account}:*"}
    return [
        _service("Alarms", "cloudwatch.amazonaws.com", actions, {"StringEquals": {"aws:SourceAccount": account}}),
        _service("EventRules", "events.amazonaws.com", actions, {"ArnLike": topics}),
    ]


def _service(sid: str, service: str, actions: list[str], condition: Document) -> Statement:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": actions,
        "Resource": "*",
        "Condition": condition,
    }


@dataclass(frozen=True, kw_only=True)
class CustomerKeyArgs:
    """What a key can be told."""

    alias: str = "goldlake"
    """The key's name, without the `alias/` that KMS puts before it."""
    description: str
    account: pulumi.Input[str]
    region: str
    tags: dict[str, str]
    protect: bool
    """Whether Pulumi refuses to delete the key. What it encrypted can never be read without it."""
    deletion_days: int = MAX_DELETION_DAYS
    """Days in which a deleted key can be had back."""
    services: bool = True
    """Whether CloudWatch Logs, alarms and event rules may use the key; off where it is for people only."""


class CustomerKey(pulumi.ComponentResource):
    """A symmetric KMS key that is rotated every year, and its alias."""

    key_arn: pulumi.Output[str]
    key_id: pulumi.Output[str]
    alias: pulumi.Output[str]
    """The alias with its prefix, as Pulumi's secrets provider takes it: awskms://<alias>."""

    def __init__(self, name: str, args: CustomerKeyArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        if not MIN_DELETION_DAYS <= args.deletion_days <= MAX_DELETION_DAYS:
            raise ConfigurationError(
                f"{name} has deletion_days {args.deletion_days}: KMS takes {MIN_DELETION_DAYS} to {MAX_DELETION_DAYS}"
            )
        if args.alias.startswith(("alias/", "aws/")):
            raise ConfigurationError(
                f"{name} has alias {args.alias!r}: give the name alone, KMS adds alias/ and keeps aws/ for AWS's own"
            )
        super().__init__("goldlake:keys:CustomerKey", name, None, opts)
        account = pulumi.Output.from_input(args.account)
        key = aws.kms.Key(
            name,
            description=args.description,
            enable_key_rotation=True,
            deletion_window_in_days=args.deletion_days,
            policy=pulumi.Output.json_dumps(
                account.apply(lambda found: key_policy(found, args.region, services=args.services))
            ),
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        )
        alias = aws.kms.Alias(
            f"{name}-alias",
            name=f"alias/{args.alias}",
            target_key_id=key.key_id,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.key_arn = key.arn
        self.key_id = key.key_id
        self.alias = alias.name
        self.register_outputs({"keyArn": self.key_arn, "keyId": self.key_id, "alias": self.alias})
