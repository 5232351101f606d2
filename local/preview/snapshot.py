"""The graph of a stack as a file that people review: tests/snapshots/<stack>.json.

One entry per resource, sorted by the end of its URN. Secrets are masked, files stand by their names, JSON texts such as
policies are kept as what they say. No time, path or hash of a build gets in: the same program makes the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import pulumi

from local.recording import Registered
from runtime.errors import ConfigurationError, FailedError
from runtime.target import write_atomically

SCHEMA = "goldlake.snapshot/1"
FOLDER = Path("tests", "snapshots")
SECRET = "[secret]"  # noqa: S105 - the mask
STACK = "pulumi:pulumi:Stack"

# How an input that is no plain value is written.
_JSON, _FILE, _TEXT = "$json", "$file", "$text"
# What is shorter than this is too common to be looked for in other places: an `admin` is no password.
_LEAST_SECRET = 8
_WIDTH = 120


@dataclass(frozen=True)
class Entry:
    """A resource in a snapshot; `key` is what its URN ends with: the types of its parents, its own, and its name."""

    key: str
    type: str
    name: str
    parent: str
    """Key of the component that it belongs to; empty for the stack's own."""
    inputs: Mapping[str, Any]
    dependencies: Mapping[str, tuple[str, ...]]
    """Key of each resource that must be there first -> the inputs that come from it."""
    custom: bool = True
    protect: bool = False
    retain_on_delete: bool = False
    ignore_changes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the entry as it stands in the file; options that are not set are left out."""
        options = {
            "protect": self.protect,
            "retainOnDelete": self.retain_on_delete,
            "ignoreChanges": list(self.ignore_changes),
        }
        dependencies = {key: list(inputs) for key, inputs in sorted(self.dependencies.items())}
        rest = {"inputs": self.inputs, "dependencies": dependencies} if self.custom else {}
        head = {"key": self.key, "type": self.type, "name": self.name, "parent": self.parent}
        return head | {name: value for name, value in options.items() if value} | rest


@dataclass(frozen=True)
class Snapshot:
    """The graph of one stack: its resources by key."""

    project: str
    stack: str
    entries: Mapping[str, Entry]

    def text(self) -> str:
        """Return the file's text."""
        resources = ",\n".join(f"  {_pretty(self.entries[key].to_dict(), 2)}" for key in sorted(self.entries))
        head = f'"schema": "{SCHEMA}",\n "project": {json.dumps(self.project)},\n "stack": {json.dumps(self.stack)}'
        return f'{{{head},\n "resources": [\n{resources}\n ]}}\n'

    def registered(self) -> list[Registered]:
        """Return the resources as a recording has them; masked inputs stay masked."""
        return [self._registered(entry) for entry in self.entries.values()]

    def component(self, entry: Entry) -> Entry:
        """Return the outermost component that an entry belongs to; itself when it is one."""
        while entry.parent:
            entry = self.entries[entry.parent]
        return entry

    def _registered(self, entry: Entry) -> Registered:
        parent = self.entries[entry.parent].name if entry.parent else f"{self.project}-{self.stack}"
        return Registered(
            type=entry.type,
            name=entry.name,
            inputs={name: _restored(value) for name, value in entry.inputs.items()},
            custom=entry.custom,
            protect=entry.protect,
            parent=parent,
            depends_on=frozenset(self.entries[key].name for key in entry.dependencies),
            urn=self._urn(entry.key),
            parent_urn=self._urn(entry.parent),
            ignore_changes=frozenset(entry.ignore_changes),
            retain_on_delete=entry.retain_on_delete,
            secret_inputs=frozenset(name for name, value in entry.inputs.items() if value == SECRET),
            dependencies={self._urn(key): frozenset(inputs) for key, inputs in entry.dependencies.items()},
        )

    def _urn(self, key: str) -> str:
        """Return a resource's URN as the SDK's mocks make it: of the parents' types it has the last only."""
        if not key:
            return f"urn:pulumi:{self.stack}::{self.project}::{STACK}::{self.project}-{self.stack}"
        entry = self.entries[key]
        parent = self.entries[entry.parent].type if entry.parent else STACK
        return f"urn:pulumi:{self.stack}::{self.project}::{parent}${entry.type}::{entry.name}"


def snapshot_of(resources: Sequence[Registered]) -> Snapshot:
    """Return the snapshot of what a program registered. Raises FailedError for two resources of one URN."""
    known = {found.urn: found for found in resources}
    keys = {urn: _key(found, known) for urn, found in known.items()}
    if len(set(keys.values())) != len(resources):
        raise FailedError("two resources have one URN: same type, same name and same types of their parents")
    hidden = sorted({text for found in resources for text in _secret_texts(found)}, key=len, reverse=True)
    stack, project = resources[0].urn.split(":")[2], resources[0].urn.split("::")[1]
    entries = {keys[found.urn]: _entry(found, keys, hidden) for found in resources}
    return Snapshot(project, stack, {key: entries[key] for key in sorted(entries)})


def read(path: Path) -> list[Registered]:
    """Return the resources of a snapshot file, secrets masked as `[secret]`. Raises as `load` does."""
    return load(path).registered()


def load(path: Path) -> Snapshot:
    """Return the snapshot in a file. Raises ConfigurationError for one that is missing or is none."""
    stack = path.name.removesuffix(".json")
    hint = f"goldlake preview --stack {stack} --update makes it anew"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        entries = {entry["key"]: _loaded(entry) for entry in found["resources"]}
        named = {key for entry in entries.values() for key in (*entry.dependencies, entry.parent) if key}
        if lost := sorted(named - set(entries)):
            raise ValueError(f"it names {lost[0]}, and does not have it")
        return Snapshot(found["project"], found["stack"], entries)
    except FileNotFoundError:
        raise ConfigurationError(f"there is no snapshot {path}", hint=hint) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ConfigurationError(f"{path} is not a snapshot that can be read: {what}", hint=hint) from error


def write(snapshot: Snapshot, path: Path) -> None:
    """Write a snapshot file, beside it first and then renamed: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, snapshot.text(), mode=0o644)


def _key(found: Registered, known: Mapping[str, Registered]) -> str:
    """Return the end of a resource's URN in Pulumi's own words: the types from the outermost component to its own."""
    types = [found.type]
    parent = known.get(found.parent_urn)
    while parent is not None:
        types.append(parent.type)
        parent = known.get(parent.parent_urn)
    return f"{'$'.join(reversed(types))}::{found.name}"


def _entry(found: Registered, keys: Mapping[str, str], hidden: Sequence[str]) -> Entry:
    return Entry(
        key=keys[found.urn],
        type=found.type,
        name=found.name,
        parent=keys.get(found.parent_urn, ""),
        inputs={
            name: SECRET if name in found.secret_inputs else _plain(value, hidden)
            for name, value in sorted(found.inputs.items())
        },
        dependencies={keys[urn]: tuple(sorted(inputs)) for urn, inputs in found.dependencies.items() if urn in keys},
        custom=found.custom,
        protect=found.protect,
        retain_on_delete=found.retain_on_delete,
        ignore_changes=tuple(sorted(found.ignore_changes)),
    )


def _plain(value: Any, hidden: Sequence[str]) -> Any:
    """Return an input as it is written. What a secret input holds is masked in any other place, too."""
    if isinstance(value, Mapping):
        return {_masked(str(key), hidden): _plain(item, hidden) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [_plain(item, hidden) for item in value]
    if isinstance(value, str):
        document = _document(value)
        return _masked(value, hidden) if document is None else {_JSON: _plain(document, hidden)}
    return _asset(value, hidden) if isinstance(value, pulumi.Asset | pulumi.Archive) else value


def _asset(value: pulumi.Asset | pulumi.Archive, hidden: Sequence[str]) -> dict[str, str]:
    if isinstance(value, pulumi.StringAsset):
        return {_TEXT: _masked(value.text, hidden)}
    if isinstance(value, pulumi.FileAsset | pulumi.FileArchive):
        return {_FILE: PurePath(str(value.path)).name}
    return {_FILE: type(value).__name__}


def _masked(text: str, hidden: Iterable[str]) -> str:
    for secret in hidden:
        text = text.replace(secret, SECRET)
    return text


def _secret_texts(found: Registered) -> Iterator[str]:
    """Yield the texts in a resource's secret inputs that are long enough to be told from other words."""
    for name in found.secret_inputs:
        for text in _texts(found.inputs.get(name)):
            if len(text) >= _LEAST_SECRET:
                yield text


def _texts(value: Any) -> Iterator[str]:
    """Yield a value's texts, those inside of JSON, too."""
    if isinstance(value, str):
        yield value
        document = _document(value)
        if document is not None:
            yield from _texts(document)
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _document(text: str) -> Any:
    """Return what a JSON object or array in a text says; None for any other text."""
    if not text.startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _restored(value: Any) -> Any:
    """Return an input as the program gave it, as far as the file has it: JSON as a text, files by their names."""
    if isinstance(value, Mapping):
        if set(value) == {_JSON}:
            return json.dumps(_restored(value[_JSON]))
        return {key: _restored(item) for key, item in value.items()}
    return [_restored(item) for item in value] if isinstance(value, list) else value


def _loaded(entry: Mapping[str, Any]) -> Entry:
    return Entry(
        key=entry["key"],
        type=entry["type"],
        name=entry["name"],
        parent=entry["parent"],
        inputs=dict(entry.get("inputs", {})),
        dependencies={key: tuple(inputs) for key, inputs in entry.get("dependencies", {}).items()},
        custom="inputs" in entry,
        protect=entry.get("protect", False),
        retain_on_delete=entry.get("retainOnDelete", False),
        ignore_changes=tuple(entry.get("ignoreChanges", ())),
    )


def _pretty(value: Any, indent: int) -> str:
    """Return JSON with what fits into a line on one line, so that a tag or a rule is one line of a review."""
    flat = json.dumps(value, ensure_ascii=False)
    if len(flat) + indent <= _WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    inner = " " * (indent + 1)
    if isinstance(value, list):
        return "[\n" + ",\n".join(f"{inner}{_pretty(item, indent + 1)}" for item in value) + "]"
    lines = (f"{inner}{json.dumps(key)}: {_pretty(item, indent + 1)}" for key, item in value.items())
    return "{\n" + ",\n".join(lines) + "}"
