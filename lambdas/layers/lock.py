"""Versions and hashes of all packages of an artifact: files under locks/, one for all versions and architectures."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lambdas.layers.catalogue import LOCKED
from runtime.errors import UnreachableError

FOLDER = Path(__file__).parent / "locks"
# The lowest that Lambda is deployed with; markers in the files say what is for later ones.
LOWEST_PYTHON = "3.11"


def lock_file(name: str) -> Path:
    """Return an artifact's lock file."""
    return FOLDER / f"{name}.txt"


def locked_versions(name: str) -> dict[str, set[str]]:
    """Return the versions of each package that a lock file allows: more than one where they depend on Python's."""
    found: dict[str, set[str]] = {}
    for match in re.finditer(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock_file(name).read_text(), re.MULTILINE):
        found.setdefault(normalised(match[1]), set()).add(match[2])
    return found


def normalised(package: str) -> str:
    """Return a package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def relock(constraints: Path, say: Callable[[str], None] = lambda _line: None) -> list[Path]:
    """Write all lock files anew, with the versions of a requirements file; return those that changed.

    The same versions as in the environment that the tests run in: what is tested is what is deployed. Raises
    UnreachableError when the package index does not answer.
    """
    changed = []
    for name, packages in LOCKED.items():
        path = lock_file(name)
        before = path.read_bytes() if path.is_file() else b""
        command = [sys.executable, "-m", "uv", "--quiet", "pip", "compile", "-", "--output-file", str(path)]
        command += ["--constraint", str(constraints), "--universal", "--python-version", LOWEST_PYTHON]
        command += [
            "--generate-hashes",
            "--no-annotate",
            "--upgrade",
            "--custom-compile-command",
            "goldlake layers lock",
        ]
        done = subprocess.run(command, input="\n".join(packages), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise UnreachableError(f"{name} cannot be locked: {done.stderr.strip()}")
        if path.read_bytes() != before:
            say(f"{name}: locked anew")
            changed.append(path)
    return changed
