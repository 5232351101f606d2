"""The clients' own environment, inside this one; `python -m tests.clients.environment` makes it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from local.process import exclusive

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
FOLDER = Path(sys.prefix) / "clients"
PYTHON = FOLDER / "bin" / "python"
COMMAND = "make clients-env"
_STAMP = FOLDER / "requirements.txt"


def is_there() -> bool:
    """Return whether the environment is there and has what the requirements name."""
    return _STAMP.is_file() and _STAMP.read_text() == REQUIREMENTS.read_text()


def ensure() -> None:
    """Make the environment unless it is there. Raises CalledProcessError with uv's words on standard error."""
    with exclusive(FOLDER.with_name("clients.lock")):
        if is_there():
            return
        shutil.rmtree(FOLDER, ignore_errors=True)
        uv = [sys.executable, "-m", "uv", "--quiet"]
        subprocess.run([*uv, "venv", "--python", sys.executable, str(FOLDER)], check=True)
        install = [*uv, "pip", "install", "--python", str(PYTHON), "--requirement", str(REQUIREMENTS)]
        subprocess.run(install, check=True)
        _STAMP.write_text(REQUIREMENTS.read_text())


if __name__ == "__main__":
    ensure()
