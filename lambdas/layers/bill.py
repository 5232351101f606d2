"""What is in a zip, for those who answer for it: a bill of materials (CycloneDX 1.6, JSON) and the licences."""

from __future__ import annotations

import email
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from lambdas.layers.archive import sha256_of
from lambdas.layers.lock import normalised

SPECIFICATION = "1.6"
# Names the file by its content, so that the same content has the same bill.
_NAMESPACE = uuid.UUID("5f0c2a52-5b1e-4f43-9f0e-3f2f1d7e8b11")
_UNKNOWN = "unknown"
# Trove classifiers that say no more than that there is a licence.
_VAGUE = ("License :: OSI Approved", "License :: DFSG approved")


@dataclass(frozen=True)
class Package:
    """A package as its metadata describes it."""

    name: str
    version: str
    licence: str
    spdx: bool
    """Whether the licence is an SPDX expression (PEP 639)."""
    files: Mapping[str, str]
    """SHA-256 of each licence file."""

    @property
    def purl(self) -> str:
        """The package URL."""
        return f"pkg:pypi/{normalised(self.name)}@{self.version}"


def packages(content: Path) -> list[Package]:
    """Return the packages whose metadata lies in a folder, sorted by name."""
    found = [_package(path) for path in content.glob("*.dist-info")]
    return sorted(found, key=lambda package: (normalised(package.name), package.version))


def _package(metadata: Path) -> Package:
    message = email.message_from_string((metadata / "METADATA").read_text(encoding="utf-8", errors="replace"))
    expression = message.get("License-Expression")
    texts = sorted(path for path in metadata.rglob("*") if path.is_file() and _is_licence(path))
    return Package(
        name=str(message.get("Name", metadata.name.split("-")[0])),
        version=str(message.get("Version", metadata.name.split("-")[1].removesuffix(".dist-info"))),
        licence=expression or _licence(message),
        spdx=bool(expression),
        files={path.relative_to(metadata).as_posix(): sha256_of(path) for path in texts},
    )


def _licence(message: Message) -> str:
    """Return the licence in the metadata's words: the classifiers, or the first line of the old free text."""
    classifiers = [text for text in message.get_all("Classifier") or [] if text.startswith("License ::")]
    named = sorted({text.split(" :: ")[-1] for text in classifiers if text not in _VAGUE})
    if named:
        return ", ".join(named)
    lines = str(message.get("License") or "").strip().splitlines()
    return lines[0].strip() if lines and lines[0].strip() else _UNKNOWN


def _is_licence(path: Path) -> bool:
    return path.name.lower().startswith(("licen", "copying", "notice", "authors"))


def bill(name: str, content_sha256: str, found: list[Package], wheels: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return the bill of materials. `wheels` has the locked hashes of each package's files, by normalised name.

    Without a time and with a serial number that follows from the content: the same zip has the same bill.
    """
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPECIFICATION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, name + content_sha256)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": name,
                "name": name,
                "version": content_sha256[:16],
                "hashes": [{"alg": "SHA-256", "content": content_sha256}],
            }
        },
        "components": [_component(package, wheels.get(normalised(package.name), [])) for package in found],
        "dependencies": [{"ref": name, "dependsOn": sorted(package.purl for package in found)}],
    }


def _component(package: Package, wheels: list[str]) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": package.purl,
        "name": package.name,
        "version": package.version,
        "purl": package.purl,
    }
    if package.licence != _UNKNOWN:
        licence: dict[str, Any] = {"license": {"name": package.licence}}
        if package.spdx:
            licence = {"expression": package.licence}
        component["licenses"] = [licence]
    if wheels:
        # Which of the files was installed depends on the platform: the lock allows any of these.
        component["externalReferences"] = [
            {
                "type": "distribution",
                "url": f"https://pypi.org/project/{normalised(package.name)}/{package.version}/",
                "hashes": [{"alg": "SHA-256", "content": wheel} for wheel in sorted(wheels)],
            }
        ]
    return component


def wheel_hashes(lock: Path) -> dict[str, list[str]]:
    """Return the hashes that a lock file allows for each package, by normalised name."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in lock.read_text().splitlines():
        if "==" in line and not line.startswith((" ", "#")):
            current = found.setdefault(normalised(line.split("==")[0].strip()), [])
        elif "--hash=sha256:" in line:
            current.append(line.split("--hash=sha256:")[1].strip(" \\"))
    return found


def licence_list(found: list[Package]) -> str:
    """Return one line per package: name, version, licence."""
    return "".join(f"{package.name}\t{package.version}\t{package.licence}\n" for package in found)


def write_bill(name: str, content: Path, content_sha256: str, lock: Path | None, beside: Path) -> tuple[Path, Path]:
    """Write `<zip>.cdx.json` and `<zip>.licences.tsv` beside a zip; return the two paths."""
    found = packages(content)
    made = bill(name, content_sha256, found, wheel_hashes(lock) if lock else {})
    paths = bill_paths(beside)
    paths[0].write_text(json.dumps(made, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    paths[1].write_text(licence_list(found), encoding="utf-8")
    return paths


def bill_paths(archive: Path) -> tuple[Path, Path]:
    """Return where the bill of materials and the licences of a zip are."""
    return archive.with_suffix(".cdx.json"), archive.with_suffix(".licences.tsv")
