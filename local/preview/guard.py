"""What a change must not do unseen: `goldlake preview --fail-on`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from local.preview.differences import Change
from local.preview.replacement import DATA_STORES
from local.preview.rules import opened
from local.preview.snapshot import SECRET, Entry
from local.preview.widening import widened

KINDS: Mapping[str, str] = {
    "replace-data-store": "a bucket, secret, key, table, namespace or Glue database would be made anew, and be empty",
    "delete-data-store": "one of them would be deleted",
    "widen-policy": "somebody would be allowed more than before",
}

# Inputs that hold a policy, and for a policy that is a resource of its own, the input that says whose it is. All the
# policies of one owner count together.
_POLICY_INPUTS = ("policy", "assumeRolePolicy")
_OWNER_INPUT: Mapping[str, str] = {
    "aws:iam/rolePolicy:RolePolicy": "role",
    "aws:kms/keyPolicy:KeyPolicy": "keyId",
    "aws:lambda/permission:Permission": "function",
    "aws:s3/bucketPolicy:BucketPolicy": "bucket",
    "aws:secretsmanager/secretPolicy:SecretPolicy": "secretArn",
    "aws:sns/topicPolicy:TopicPolicy": "arn",
    "aws:sqs/queuePolicy:QueuePolicy": "queueUrl",
}
_ENDPOINT = "aws:ec2/vpcEndpoint:VpcEndpoint"
_PERMISSION = "aws:lambda/permission:Permission"
_PUBLIC_ACCESS = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
_PUBLIC_ACCESS_INPUTS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
# An endpoint without a policy lets everybody do everything that they may do elsewhere.
_EVERYTHING = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Principal": "*"}]}


@dataclass(frozen=True)
class Finding:
    """A change that `--fail-on` stops, with the reason."""

    kind: str
    resource: str
    type: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """Return the finding for JSON output."""
        return {"kind": self.kind, "resource": self.resource, "type": self.type, "reason": self.reason}


@dataclass
class _Subject:
    """Somebody's permissions: all the policies of a role, a bucket, a key…"""

    entries: list[Entry] = field(default_factory=list)
    documents: list[Any] = field(default_factory=list)

    def changed(self, old: Mapping[str, Entry]) -> Entry:
        """Return the resource that a person has to look at: the first that is not as it was."""
        found = (entry for entry in self.entries if entry.key not in old or old[entry.key].inputs != entry.inputs)
        return next(found, self.entries[0])


def findings(
    changes: Sequence[Change], old: Mapping[str, Entry], new: Mapping[str, Entry], kinds: Collection[str]
) -> tuple[Finding, ...]:
    """Return what the changes do of `kinds`, by kind in the order of KINDS."""
    found: list[Finding] = []
    if "replace-data-store" in kinds:
        found += _replaced(changes)
    if "delete-data-store" in kinds:
        found += _deleted(changes)
    if "widen-policy" in kinds:
        found += [Finding("widen-policy", entry.name, entry.type, reason) for entry, reason in _widened(old, new)]
    return tuple(found)


def _replaced(changes: Sequence[Change]) -> Iterator[Finding]:
    for change in changes:
        if change.action == "replace" and change.entry.type in DATA_STORES:
            reason = f"{', '.join(change.forced_by)} can't change in place"
            if change.after:
                reason += f", and comes from {change.after.rpartition('::')[2]}, which is replaced"
            yield Finding("replace-data-store", change.entry.name, change.entry.type, reason)


def _deleted(changes: Sequence[Change]) -> Iterator[Finding]:
    for change in changes:
        entry = change.entry
        # With retainOnDelete the engine forgets it, and it stays.
        if change.action == "delete" and entry.type in DATA_STORES and not entry.retain_on_delete:
            why = "it is no longer in the program, or its URN has changed"
            stopped = "; it is protected, so `pulumi up` would refuse" if entry.protect else ""
            yield Finding("delete-data-store", entry.name, entry.type, why + stopped)


def _widened(old: Mapping[str, Entry], new: Mapping[str, Entry]) -> Iterator[tuple[Entry, str]]:
    before, after = _subjects(old), _subjects(new)
    for owner in sorted({*before, *after}):
        known, subject = before.get(owner, _Subject()), after.get(owner, _Subject())
        if not subject.entries and _is_gone(known.entries[0], new):
            continue
        for reason in widened(known.documents, subject.documents):
            yield (subject.changed(old) if subject.entries else known.entries[0]), reason
    for entry in new.values():
        yield from ((entry, reason) for reason in _without_document(old.get(entry.key), entry))
    for key, entry in old.items():
        if entry.type == _PUBLIC_ACCESS and key not in new and not _is_gone(entry, new):
            yield entry, "public access is no longer blocked"
    yield from opened(list(old.values()), list(new.values()))


def _is_gone(entry: Entry, new: Mapping[str, Entry]) -> bool:
    """Return whether what a policy was for is gone as well: a bucket that is no more needs nobody kept out."""
    owner_input = _OWNER_INPUT.get(entry.type, "bucket" if entry.type == _PUBLIC_ACCESS else None)
    if owner_input is None:
        return entry.key not in new
    owners = [key for key, inputs in entry.dependencies.items() if owner_input in inputs]
    return bool(owners) and all(key not in new for key in owners)


def _subjects(entries: Mapping[str, Entry]) -> dict[str, _Subject]:
    """Return who has permissions, with all the documents that say so."""
    found: dict[str, _Subject] = {}
    for entry in entries.values():
        for owner, document in _documents(entry):
            subject = found.setdefault(owner, _Subject())
            subject.entries.append(entry)
            subject.documents.append(document)
    return found


def _documents(entry: Entry) -> Iterator[tuple[str, Any]]:
    """Yield the policies in a resource, each with whose it is."""
    owner_input = _OWNER_INPUT.get(entry.type)
    owner = f"{entry.type} {entry.inputs.get(owner_input)}" if owner_input else entry.key
    if entry.type == _PERMISSION:
        yield owner, _permission(entry.inputs)
    if entry.type == _ENDPOINT and not entry.inputs.get("policy"):
        yield f"{owner} policy", _EVERYTHING
    for name in _POLICY_INPUTS:
        document = _document(entry.inputs.get(name))
        if document is not None:
            yield (owner if owner_input else f"{owner} {name}"), document
    if entry.type == "aws:iam/role:Role":
        # The same owner as that of the role's policies which are resources of their own.
        role = f"aws:iam/rolePolicy:RolePolicy {entry.inputs.get('name')}"
        for inline in entry.inputs.get("inlinePolicies") or ():
            document = _document(inline.get("policy"))
            if document is not None:
                yield role, document


def _document(value: Any) -> Any:
    """Return a policy as the snapshot has it: a JSON text that was taken apart; None for anything else."""
    document = value.get("$json", value) if isinstance(value, Mapping) else None
    return document if isinstance(document, Mapping) and "Statement" in document else None


def _permission(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a Lambda permission says, as the function's policy has it."""
    principal = str(inputs.get("principal"))
    kind = "Service" if principal.endswith(".amazonaws.com") else "AWS"
    limits = {"sourceArn": ("ArnLike", "aws:SourceArn"), "sourceAccount": ("StringEquals", "aws:SourceAccount")}
    conditions = {
        operator: {key: inputs[name]} for name, (operator, key) in limits.items() if inputs.get(name) is not None
    }
    statement = {"Effect": "Allow", "Action": inputs.get("action"), "Principal": {kind: principal}}
    return {"Statement": [statement | ({"Condition": conditions} if conditions else {})]}


def _without_document(old: Entry | None, new: Entry) -> Iterator[str]:
    """Yield what one resource opens by something else than a policy document."""
    before = old.inputs if old else {}
    for name in _POLICY_INPUTS:
        if new.inputs.get(name) == SECRET and before.get(name) != SECRET:
            yield f"{name} is a secret now, and can't be compared"
    attached = _arns(new) - (_arns(old) if old else set())
    yield from (f"attaches the managed policy {arn}" for arn in sorted(attached))
    if before.get("permissionsBoundary") not in (None, new.inputs.get("permissionsBoundary")):
        yield f"is no longer bounded by {before['permissionsBoundary']}"
    if new.type == _PUBLIC_ACCESS:
        for name in _PUBLIC_ACCESS_INPUTS:
            if before.get(name) is True and new.inputs.get(name) is not True:
                yield f"{name} was true, and is not any more"


def _arns(entry: Entry) -> set[str]:
    attached = entry.inputs.get("policyArn") if entry.type.startswith("aws:iam/") else None
    return {*(entry.inputs.get("managedPolicyArns") or ()), *([attached] if attached else [])}
