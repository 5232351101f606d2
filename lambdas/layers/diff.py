"""What changed between two builds: packages, files and bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lambdas.layers.bill import bill_paths
from lambdas.layers.catalogue import ARTIFACTS, Artifact
from lambdas.layers.check import entries_of
from runtime.errors import ConfigurationError


@dataclass(frozen=True)
class Difference:
    """What changed in one artifact. Sizes in bytes."""

    name: str
    packages: tuple[str, ...]
    """`name 1.0 -> 1.1`, `+name 1.0`, `-name 1.0`."""
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    zipped: int
    unzipped: int
    """How much larger the second is."""

    def to_dict(self) -> dict[str, object]:
        """Return the difference for JSON output."""
        return {
            "artifact": self.name,
            "packages": list(self.packages),
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": list(self.changed),
            "zipped_bytes": self.zipped,
            "unzipped_bytes": self.unzipped,
        }


def diff_all(before: Path, after: Path) -> list[Difference]:
    """Return what changed between two folders of builds, only for artifacts whose content differs.

    Raises ConfigurationError when one of them holds no build.
    """
    found = []
    first, second = _artifacts(before), _artifacts(after)
    for name in ARTIFACTS:
        a, b = first.get(name), second.get(name)
        if a is not None and b is not None and a.sha256 != b.sha256:
            found.append(_difference(a, b))
        elif (a is None) != (b is None):
            raise ConfigurationError(f"{name} is in {before if a else after} alone: two whole builds are needed")
    return found


def _difference(a: Artifact, b: Artifact) -> Difference:
    files, later = entries_of(a.path), entries_of(b.path)
    return Difference(
        name=a.name,
        packages=tuple(_packages(_versions(a), _versions(b))),
        added=tuple(sorted(later.keys() - files.keys())),
        removed=tuple(sorted(files.keys() - later.keys())),
        changed=tuple(sorted(name for name in files.keys() & later.keys() if files[name] != later[name])),
        zipped=b.zipped - a.zipped,
        unzipped=b.unzipped - a.unzipped,
    )


def _packages(before: dict[str, str], after: dict[str, str]) -> list[str]:
    lines = []
    for package in sorted(before.keys() | after.keys()):
        old, new = before.get(package), after.get(package)
        if old != new:
            lines.append(
                f"{package} {old} -> {new}" if old and new else f"+{package} {new}" if new else f"-{package} {old}"
            )
    return lines


def _versions(artifact: Artifact) -> dict[str, str]:
    bill = json.loads(bill_paths(artifact.path)[0].read_text())
    return {component["name"]: component["version"] for component in bill["components"]}


def _artifacts(out: Path) -> dict[str, Artifact]:
    found = {}
    for name in ARTIFACTS:
        try:
            artifact = Artifact.of_stamp(out / f"{name}.json")[2]
            if artifact.path.is_file():
                found[name] = artifact
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if not found:
        raise ConfigurationError(f"no build in {out}: a folder that `goldlake layers build --out` wrote is needed")
    return found
