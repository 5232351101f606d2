"""Whether compiled files are for the machine, the Python and the glibc of the target, read from the files themselves.

An installer that took the wrong file says nothing, and the function fails with its first import.
"""

from __future__ import annotations

import platform as machine_of
import re
from collections.abc import Iterable
from pathlib import Path

from lambdas.layers.archive import entries
from lambdas.layers.catalogue import Build

# e_machine of the ELF header (elf.h).
_MACHINES = {62: "x86_64", 183: "arm64"}
_NAMES = {"aarch64": "arm64", "amd64": "x86_64"}
# Lambda developer guide, "Lambda runtimes": python3.11 is on Amazon Linux 2 (glibc 2.26), later ones on 2023 (2.34).
_GLIBC = {"3.11": 26}
_LATER_GLIBC = 34
_OTHER_SYSTEMS = (".dylib", ".pyd", ".dll")


def read_target(target: str) -> tuple[str | None, str]:
    """Return platform and Python version of a build's target (Build.target); the platform is None for this machine."""
    where, _, version = target.partition(", Python ")
    return (None if where == "this machine" else where), version


def faults_in(root: Path, build: Build) -> list[str]:
    """Return what of a folder is not for the build's target."""
    files = ((name, path.read_bytes()) for path, name in entries(root, bytecode=True) if is_compiled(name))
    return module_faults(files, build.platform, build.python_version)


def is_compiled(name: str) -> bool:
    """Return whether a file may hold machine code, by its name: `.so`, `.so.1`, DuckDB's extensions, bytecode."""
    last = name.rsplit("/", 1)[-1]
    return last.endswith((".so", ".pyc", ".duckdb_extension", *_OTHER_SYSTEMS)) or ".so." in last


def module_faults(files: Iterable[tuple[str, bytes]], platform: str | None, python_version: str) -> list[str]:
    """Return what is wrong with compiled files, each a name and its content, one line per file."""
    return [
        f"{name} {fault}"
        for name, content in files
        if (fault := _tag_fault(name, python_version) or _machine_fault(name, content, platform, python_version))
    ]


def _tag_fault(name: str, python_version: str) -> str | None:
    found = re.search(r"\.cpython-3(\d+)[-.]", name)
    if found and f"3.{found[1]}" != python_version:
        return f"is for Python 3.{found[1]}, not {python_version}"
    return None


def _machine_fault(name: str, content: bytes, platform: str | None, python_version: str) -> str | None:
    if name.endswith(_OTHER_SYSTEMS):
        return "is for another system, not Linux" if platform else None
    if content[:4] != b"\x7fELF":
        # On a Mac, `this machine` has files of its own kind.
        return None if name.endswith(".pyc") or platform is None else "is no file of Linux"
    number = int.from_bytes(content[18:20], "little")
    found = _MACHINES.get(number, f"machine {number}")
    if found != (platform or this_machine()):
        return f"is for {found}, not {platform or this_machine()}"
    # What a file asks of glibc stands in it as GLIBC_2.17 and the like; this machine's own is not Lambda's.
    newest = max((int(version) for version in re.findall(rb"\0GLIBC_2\.(\d+)(?:\.\d+)?(?=\0)", content)), default=0)
    limit = _GLIBC.get(python_version, _LATER_GLIBC)
    if platform and newest > limit:
        return f"needs glibc 2.{newest}, and Lambda's Python {python_version} has 2.{limit}: build for a later Python"
    return None


def this_machine() -> str:
    """Return this machine's architecture in Lambda's words."""
    name = machine_of.machine().lower()
    return _NAMES.get(name, name)
