"""The preview of a stack: what it would register, what that changes, and what of it must not pass unseen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.preview.differences import ACTIONS, Change, changes
from local.preview.guard import Finding, findings
from local.preview.snapshot import FOLDER, Entry, Snapshot, load, snapshot_of
from local.preview.units import in_order, units_of
from local.recording import Registered, record_stack
from runtime.errors import ConfigurationError

SCHEMA = "goldlake.preview/1"


@dataclass(frozen=True)
class Preview:
    """What a stack registers now, compared with a snapshot."""

    stack: str
    base: Path
    resources: tuple[Registered, ...]
    """As recorded, secrets included: for the rules and prices only, never to be shown."""
    snapshot: Snapshot
    before: Snapshot | None
    """None when there is no snapshot to compare with."""
    changes: tuple[Change, ...]
    findings: tuple[Finding, ...] = ()

    def counts(self) -> dict[str, int]:
        """Return how many resources each action concerns, and how many stay as they are."""
        found = Counter(change.action for change in self.changes)
        touched = sum(count for action, count in found.items() if action != "delete")
        return {action: found[action] for action in ACTIONS} | {"same": len(self.snapshot.entries) - touched}

    def kinds(self) -> list[str]:
        """Return the kinds of change that the guard found."""
        return list(dict.fromkeys(finding.kind for finding in self.findings))

    def tree(self) -> dict[str, dict[str, list[Entry]]]:
        """Return what each component of each unit holds, itself left out: unit -> component's key -> resources."""
        units = units_of(self.snapshot)
        found: dict[str, dict[str, list[Entry]]] = {unit: {} for unit in in_order(set(units.values()))}
        for key, entry in self.snapshot.entries.items():
            component = self.snapshot.component(entry)
            held = found[units[key]].setdefault(component.key, [])
            if entry.custom:
                held.append(entry)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the preview for JSON output."""
        units = {
            unit: {
                self.snapshot.entries[key].name: dict(sorted(Counter(entry.type for entry in held).items()))
                for key, held in components.items()
            }
            for unit, components in self.tree().items()
        }
        return {
            "schema": SCHEMA,
            "stack": self.stack,
            "resources": len(self.snapshot.entries),
            "units": units,
            "base": str(self.base) if self.before else None,
            "counts": self.counts(),
            "changes": [change.to_dict() for change in self.changes],
            "findings": [finding.to_dict() for finding in self.findings],
        }


def preview(project_dir: Path, stack: str, *, base: Path | None = None, fail_on: Collection[str] = ()) -> Preview:
    """Return what a stack registers and how that differs from `base`, by default its committed snapshot.

    Without a committed snapshot everything is new. Raises ConfigurationError for a base that is not there or can't be
    read, and for a guard (`fail_on`) that has nothing to compare with: it would pass whatever is asked of it.
    """
    path = base or snapshot_path(project_dir, stack)
    before = load(path) if base is not None or path.is_file() else None
    if before is None and fail_on:
        raise ConfigurationError(
            f"--fail-on compares with {path}, which is not there",
            hint=f"goldlake preview --stack {stack} --update, or --base with another snapshot",
        )
    resources = record_stack(project_dir, stack).resources
    snapshot = snapshot_of(resources)
    old: Mapping[str, Entry] = before.entries if before else {}
    units = {**(units_of(before) if before else {}), **units_of(snapshot)}
    changed = changes(old, snapshot, units)
    found = findings(changed, old, snapshot.entries, fail_on)
    shown = path.relative_to(project_dir) if path.is_relative_to(project_dir) else path
    return Preview(stack, shown, tuple(resources), snapshot, before, changed, found)


def snapshot_path(project_dir: Path, stack: str) -> Path:
    """Return the file of a stack's committed snapshot."""
    return project_dir / FOLDER / f"{stack}.json"
