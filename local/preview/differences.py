"""What changes between two snapshots of a stack, in the words of `pulumi preview`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from local.preview.replacement import force_new
from local.preview.snapshot import Entry, Snapshot

# `options` changes what Pulumi keeps about a resource (protection, dependencies, parent), and nothing in the cloud.
Action = Literal["create", "update", "replace", "delete", "options"]
ACTIONS: tuple[Action, ...] = ("create", "update", "replace", "delete", "options")
SYMBOLS: Mapping[Action, str] = {"create": "+", "update": "~", "replace": "+-", "delete": "-", "options": "·"}


class Absent:
    """Stands for a value that is not there; None is a value."""

    def __repr__(self) -> str:
        return "(absent)"


ABSENT = Absent()


@dataclass(frozen=True)
class Difference:
    """One value inside of an input, or one option, before and after."""

    path: str
    old: Any
    new: Any

    @property
    def top(self) -> str:
        """The input's own name."""
        return self.path.split(".", 1)[0].split("[", 1)[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the difference for JSON output; what is not there is left out."""
        sides = {"old": self.old, "new": self.new}
        return {"path": self.path} | {side: value for side, value in sides.items() if value is not ABSENT}


@dataclass(frozen=True)
class Change:
    """What happens to one resource. `entry` is its new state, or the old one of a resource that is deleted."""

    action: Action
    entry: Entry
    unit: str
    inputs: tuple[Difference, ...] = ()
    options: tuple[Difference, ...] = ()
    forced_by: tuple[str, ...] = field(default=())
    """The inputs that can't change in place."""
    after: str = ""
    """Key of the replaced resource that this one is replaced with."""

    def to_dict(self) -> dict[str, Any]:
        """Return the change for JSON output."""
        return {
            "action": self.action,
            "key": self.entry.key,
            "type": self.entry.type,
            "name": self.entry.name,
            "unit": self.unit,
            "inputs": [difference.to_dict() for difference in self.inputs],
            "options": [difference.to_dict() for difference in self.options],
            "replacedBecauseOf": list(self.forced_by) or ([self.after] if self.after else []),
        }


def changes(old: Mapping[str, Entry], new: Snapshot, units: Mapping[str, str]) -> tuple[Change, ...]:
    """Return what changes from `old` to `new`, by key. `units` has each key's unit, those of `old` included."""
    found: dict[str, Change] = {}
    for key, entry in new.entries.items():
        change = _change(old[key], entry, units[key]) if key in old else Change("create", entry, units[key])
        if change is not None:
            found[key] = change
    found |= {key: Change("delete", old[key], units[key]) for key in old if key not in new.entries}
    _follow_replacements(found, old, new, units)
    return tuple(found[key] for key in sorted(found))


def _change(old: Entry, new: Entry, unit: str) -> Change | None:
    inputs = tuple(found for found in differences(old.inputs, new.inputs) if not _ignored(found, new.ignore_changes))
    options = tuple(differences(_options(old), _options(new)))
    forced_by = tuple(dict.fromkeys(found.top for found in inputs if found.top in force_new(new.type)))
    if not inputs and not options:
        return None
    action: Action = "replace" if forced_by else "update" if inputs else "options"
    return Change(action, new, unit, inputs, options, forced_by)


def _options(entry: Entry) -> dict[str, Any]:
    return {
        "parent": entry.parent,
        "protect": entry.protect,
        "retainOnDelete": entry.retain_on_delete,
        "ignoreChanges": list(entry.ignore_changes),
        "dependencies": {key: list(inputs) for key, inputs in entry.dependencies.items()},
    }


def _ignored(found: Difference, ignored: Sequence[str]) -> bool:
    return any(found.path == path or found.path.startswith((f"{path}.", f"{path}[")) for path in ignored)


def _follow_replacements(
    found: dict[str, Change], old: Mapping[str, Entry], new: Snapshot, units: Mapping[str, str]
) -> None:
    """Replace what takes an input that can't change in place from a resource that is replaced.

    The new resource's id is not known before it is there, so the engine says the same: it may be more than happens.
    """
    waiting = [key for key, change in found.items() if change.action == "replace"]
    while waiting:
        replaced = waiting.pop()
        for key, entry in new.entries.items():
            forced_by = set(entry.dependencies.get(replaced, ())) & force_new(entry.type) - set(entry.ignore_changes)
            known = found.get(key, Change("update", entry, units[key]))
            if key in old and forced_by and known.action in ("update", "options"):
                found[key] = replace(known, action="replace", forced_by=tuple(sorted(forced_by)), after=replaced)
                waiting.append(key)


def differences(old: Any, new: Any, path: str = "") -> Iterator[Difference]:
    """Yield where two nested values differ, with the path there: `policy.Statement[0].Action`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            # A JSON text is looked into as if it were no text.
            name = path if key == "$json" else f"{path}.{key}" if path else str(key)
            yield from differences(old.get(key, ABSENT), new.get(key, ABSENT), name)
    elif isinstance(old, list) and isinstance(new, list):
        yield from _list_differences(old, new, path)
    elif _text(old) != _text(new):
        yield Difference(path, old, new)


def _list_differences(old: Sequence[Any], new: Sequence[Any], path: str) -> Iterator[Difference]:
    """Yield what was put into a list, taken out of it, or changed in its place."""
    matcher = difflib.SequenceMatcher(
        None, [_text(item) for item in old], [_text(item) for item in new], autojunk=False
    )
    for tag, start, end, new_start, new_end in matcher.get_opcodes():
        if tag == "equal":
            continue
        paired = min(end - start, new_end - new_start)
        for index in range(paired):
            yield from differences(old[start + index], new[new_start + index], f"{path}[{start + index}]")
        for index in range(start + paired, end):
            yield Difference(f"{path}[{index}]", old[index], ABSENT)
        for index in range(new_start + paired, new_end):
            yield Difference(f"{path}[{index}]", ABSENT, new[index])


def _text(value: Any) -> str:
    """Return a value as JSON: 1 and true are not the same."""
    return "" if value is ABSENT else json.dumps(value, sort_keys=True)
