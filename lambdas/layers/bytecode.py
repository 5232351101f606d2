"""A layer's modules compiled ahead: /opt is read-only, so Python would compile them anew at every cold start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from runtime.errors import FailedError

_ASK = "import platform, sys; print(platform.python_version(), sys.implementation.cache_tag)"


def interpreter(python_version: str) -> Path | None:
    """Return an interpreter of the minor version on this machine, None when there is none.

    Bytecode is read by its own minor version alone. Nothing is downloaded: the search path is looked through, then
    pyenv's versions, and uv is asked for what it finds.
    """
    if python_version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return Path(sys.executable)
    for found in (*_on_path(python_version), *_of_pyenv(python_version), *_of_uv(python_version)):
        if _version(found).startswith(f"{python_version}."):
            return found
    return None


def _on_path(python_version: str) -> Iterator[Path]:
    for folder in os.get_exec_path():
        found = Path(folder, f"python{python_version}")
        if os.access(found, os.X_OK):
            yield found


def _of_pyenv(python_version: str) -> Iterator[Path]:
    """Yield pyenv's versions, the newest first. Its stubs on the path end with an error but for the one in use."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = root.glob(f"versions/{python_version}.*/bin/python{python_version}")
    return iter(sorted(found, key=lambda path: [int(part) for part in re.findall(r"\d+", str(path))], reverse=True))


def _of_uv(python_version: str) -> Iterator[Path]:
    command = [sys.executable, "-m", "uv", "python", "find", "--no-project", "--no-python-downloads"]
    done = subprocess.run([*command, python_version], capture_output=True, text=True, check=False)
    if done.returncode == 0 and done.stdout.strip():
        yield Path(done.stdout.strip())


def compile_modules(python: Path, content: Path) -> str:
    """Compile every module below a layer's `python`; return the version of the interpreter.

    Unchecked hashes: Python takes the file as it is, whatever times and modes unpacking gave the source. One process,
    in sorted order and with a fixed hash seed, so that the same interpreter writes the same bytes again. File names
    are those under /opt. Raises FailedError when a module cannot be compiled.
    """
    environment = {"PATH": os.defpath, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
    command = [str(python), "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(content), "-p", "/opt/python", str(content)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise FailedError(f"{content.name} cannot be compiled: {(done.stdout + done.stderr).strip()[-500:]}")
    return _version(python)


def _version(python: Path) -> str:
    done = subprocess.run([str(python), "-I", "-c", _ASK], capture_output=True, text=True, check=False)
    version, _, tag = done.stdout.strip().partition(" ")
    return version if tag.startswith("cpython-") else ""
