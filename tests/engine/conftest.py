"""Copies of the project for the real engine, with a provider that echoes: no account, no plugin, no emulator."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from stacks.transform import FUNCTIONS_CODE, LAYERS

ROOT = Path(__file__).parents[2]
ECHO_PROVIDER = Path(__file__).with_name("echo_provider")
PROGRAM = ("Pulumi.yaml", "Pulumi.dev.yaml", "Pulumi.localstack.yaml", "__main__.py", "components", "runtime", "stacks")
SECONDS = 120


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the engine where there is none; one worker for all, since they share deployed stacks."""
    reason = "`pulumi` is not on PATH. Install Pulumi: https://www.pulumi.com/docs/install/"
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("engine"))
            item.add_marker(pytest.mark.skipif(shutil.which("pulumi") is None, reason=reason))


@dataclass(frozen=True)
class Project:
    """A copy of the program with an engine's home, a state folder and built artifacts of its own."""

    folder: Path

    @property
    def artifacts(self) -> Path:
        """Where the layers are."""
        return self.folder / ".goldlake" / "build"

    @property
    def environment(self) -> Mapping[str, str]:
        """What the engine is told; nothing of the user's Pulumi or AWS settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PULUMI_", "AWS_"))}
        return {
            **kept,
            # The provider is started with the first python3 on PATH, and needs the SDK there.
            "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PULUMI_HOME": str(self.folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{self.folder / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "engine-tests",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }

    def pulumi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the CLI in the copy."""
        return subprocess.run(
            ["pulumi", *arguments, "--non-interactive", "--color", "never"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def init(self, stack: str) -> None:
        """Make an empty stack."""
        done = self.pulumi("stack", "init", stack)
        assert done.returncode == 0, done.stderr

    def state(self, stack: str) -> dict[str, Any]:
        """Return the stack's state as the backend keeps it."""
        path = self.folder / "state" / ".pulumi" / "stacks" / "goldlake" / f"{stack}.json"
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept


def copy_of_the_project(folder: Path) -> Project:
    """Copy the program to `folder`, with zips that stand for the layers and the echo provider as its AWS plugin."""
    for name in PROGRAM:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    project = yaml.safe_load((folder / "Pulumi.yaml").read_text())
    project["runtime"]["options"]["virtualenv"] = sys.prefix
    project["plugins"] = {"providers": [{"name": "aws", "path": str(ECHO_PROVIDER), "version": "7.51.1"}]}
    (folder / "Pulumi.yaml").write_text(yaml.safe_dump(project))
    copy = Project(folder)
    for made in (copy.artifacts, folder / "home", folder / "state"):
        made.mkdir(parents=True)
    for name in (*LAYERS, FUNCTIONS_CODE):
        (copy.artifacts / f"{name}-0123456789abcdef.zip").write_bytes(f"stands for {name}".encode())
    return copy


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy with no stack in it."""
    return copy_of_the_project(tmp_path / "project")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy with the dev stack deployed."""
    project = copy_of_the_project(tmp_path_factory.mktemp("engine") / "project")
    project.init("dev")
    done = project.pulumi("up", "--yes", "--skip-preview", "--stack", "dev")
    assert done.returncode == 0, done.stdout + done.stderr
    return project
