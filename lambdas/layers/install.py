"""Packages of a lock file in a folder, for the target's Python and architecture, on any host and without Docker."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from lambdas.layers.catalogue import PLATFORMS, Build
from lambdas.layers.lock import lock_file
from runtime.errors import UnreachableError


def install(build: Build, name: str, target: Path) -> None:
    """Install what an artifact's lock file lists, checked by its hashes, into a folder.

    Wheels only: a package that would have to be compiled would be compiled for the builder's machine.
    """
    command = [sys.executable, "-m", "uv", "--quiet", "pip", "install", "--target", str(target)]
    command += ["--requirements", str(lock_file(name)), "--require-hashes", "--no-deps", "--only-binary", ":all:"]
    # A link would give away its other file's times and modes, and compiling would write beside it.
    command += ["--link-mode", "copy", "--python-version", build.python_version]
    if build.platform is not None:
        command += ["--python-platform", PLATFORMS[build.platform]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnreachableError(f"{name}'s packages cannot be installed for {build.target}: {done.stderr.strip()}")


def drop(content: Path, packages: Iterable[str]) -> None:
    """Remove packages and their metadata."""
    for package in packages:
        for path in (content / package, *content.glob(f"{package}-*.dist-info")):
            shutil.rmtree(path, ignore_errors=True)
