"""What may break a rule, why, and until when.

`STANDING` are the program's own: written in code, changed in review, without an end, because their reason has none.
Those of a stack stand in its settings (`goldlake:policyExemptions`), and end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatchcase
from typing import Any

from policies.model import Resource, Rule, Severity
from policies.registry import RULES, by_id

# The stack of the laptop: an emulator on loopback, whose data is made up and whose deletion is meant.
LAPTOP = "localstack"


@dataclass(frozen=True, kw_only=True)
class Exemption:
    """A rule that resources may break."""

    rule: str
    resource: str
    """Name of the resource, or a pattern such as `lake-*`."""
    reason: str
    until: date | None = None
    """The last day on which it holds; None for one that stands in the code."""
    stack: str = "*"
    """Name of the stack, or a pattern."""
    type: str = "*"
    """Type token of the resource, or a pattern."""
    message: str = "*"
    """What is wrong with it, or a pattern: a second fault of the same resource is not covered then."""

    def covers(self, rule: str, resource: Resource, message: str) -> bool:
        """Return whether it speaks of this fault of this resource, ended or not."""
        given = (
            (resource.name, self.resource),
            (resource.stack, self.stack),
            (resource.type, self.type),
            (message, self.message),
        )
        return rule == self.rule and all(fnmatchcase(text, pattern) for text, pattern in given)


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A rule that a resource breaks."""

    rule: str
    severity: Severity
    resource: str
    type: str
    message: str
    remediation: str
    urn: str = ""


@dataclass(frozen=True, kw_only=True)
class Exempted:
    """A violation that an exemption covers."""

    violation: Violation
    exemption: Exemption


STANDING: tuple[Exemption, ...] = (
    Exemption(
        rule="no-wildcard-action",
        resource="*key",
        type="aws:kms/key:Key",
        message="allows kms:[*]",
        reason=(
            "the account's root has kms:* on the key, as in the policy that KMS gives by default: it hands the key to "
            "the account's IAM policies, and without it a key can be locked out for good (KMS developer guide, "
            "“Default key policy”)"
        ),
    ),
    Exemption(
        rule="no-wildcard-resource",
        resource="*-redshift-serverless",
        type="aws:ec2/vpcEndpoint:VpcEndpoint",
        message="allows redshift-serverless:GetCredentials on *:workgroup/[*]",
        reason=(
            "the ARN of a workgroup holds an id that AWS makes up with it, later than the endpoint; it is this "
            "account's and region's workgroups for this account's roles, of which each may sign in to one"
        ),
    ),
    Exemption(
        rule="service-source",
        resource="alarms-policy",
        message="allows events.amazonaws.com for any account",
        reason=(
            "EventBridge sends no source when it publishes to a topic: with the condition its messages are lost in "
            "silence (EventBridge user guide, “Amazon SNS permissions”)"
        ),
    ),
    Exemption(
        rule="topic-encrypted",
        resource="alarms",
        reason=(
            "alarms cannot publish to a topic that AWS's own key aws/sns encrypts, and a key costs 1 USD a month; the "
            "messages say names of runs and alarms. With goldlake:customerKey the topic is encrypted"
        ),
    ),
    Exemption(
        rule="warehouse-vpc-routing",
        resource="warehouse",
        reason=(
            "UNLOAD and Spectrum reach S3 and Glue over AWS's own network, and the warehouse's security group has no "
            "way out at all; routed through the network, Glue would need an endpoint that bills by the hour"
        ),
    ),
    Exemption(
        rule="data-store-protected",
        resource="lake-artifacts",
        type="aws:s3/bucket:Bucket",
        message="holds data and is not protected",
        reason="what is in it is built from the repository, and built again by `goldlake layers build`",
    ),
    Exemption(
        rule="failures-kept",
        resource="warehouse-snapshots",
        reason="a snapshot that was not taken is taken the next day; recovery points of 24 hours are there anyway",
    ),
    *(
        Exemption(rule=rule, resource="*", stack=LAPTOP, reason=reason)
        for rule, reason in (
            ("data-store-protected", "the laptop's data is made up, and `goldlake local reset` deletes it on purpose"),
            ("recovery-window", "the laptop's secrets are made up, and are made again under the same names"),
            ("bucket-tls-only", "the laptop's emulator speaks plain HTTP on loopback"),
            ("messages-tls-only", "the laptop's emulator speaks plain HTTP on loopback"),
            ("warehouse-tls-only", "the laptop's warehouse listens on loopback, without a certificate"),
        )
    ),
)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the rules say about resources."""

    violations: tuple[Violation, ...]
    exempted: tuple[Exempted, ...]
    unused: tuple[Exemption, ...]
    """Exemptions of the settings that nothing needs."""


def parse(given: Iterable[Mapping[str, Any]]) -> tuple[Exemption, ...]:
    """Return the exemptions of a stack's settings. Raises ValueError for what cannot be one, naming it."""
    known = by_id()
    found = []
    for entry in given:
        try:
            exemption = Exemption(
                rule=entry["rule"],
                resource=entry["resource"],
                reason=entry["reason"],
                until=date.fromisoformat(str(entry["until"])),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{dict(entry)}: rule, resource, reason and until (YYYY-MM-DD, in quotes) are wanted"
            ) from error
        if exemption.rule not in known:
            raise ValueError(f"there is no rule {exemption.rule!r}; `goldlake policy --list` names them all")
        found.append(exemption)
    return tuple(found)


def judge(
    resources: Sequence[Resource],
    exemptions: Sequence[Exemption],
    today: date,
    rules: Sequence[Rule] = RULES,
    among: Sequence[Resource] | None = None,
) -> Judgement:
    """Return what `rules` say about `resources`, of which rules over the whole stack see `among` (the same if None)."""
    violations, exempted, used = [], [], set()
    everything = resources if among is None else among
    for rule in rules:
        for resource in resources:
            for message in rule.findings(resource, everything):
                violation = _violation(rule, resource, message)
                covering = [found for found in (*STANDING, *exemptions) if found.covers(rule.id, resource, message)]
                used.update(covering)
                valid = [found for found in covering if found.until is None or found.until >= today]
                if valid:
                    exempted.append(Exempted(violation=violation, exemption=valid[0]))
                else:
                    violations.append(_with_ended(violation, covering))
    asked = {rule.id for rule in rules}
    unused = tuple(found for found in exemptions if found.rule in asked and found not in used)
    return Judgement(violations=tuple(violations), exempted=tuple(exempted), unused=unused)


def _violation(rule: Rule, resource: Resource, message: str) -> Violation:
    return Violation(
        rule=rule.id,
        severity=rule.severity,
        resource=resource.name,
        type=resource.type,
        message=message,
        remediation=rule.remediation,
        urn=resource.urn,
    )


def _with_ended(violation: Violation, ended: Sequence[Exemption]) -> Violation:
    """Return the violation, which says that it was exempted once."""
    if not ended:
        return violation
    last = max(found.until for found in ended if found.until)
    return Violation(**{**vars(violation), "message": f"{violation.message} (its exemption ended on {last})"})
