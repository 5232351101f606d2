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
VERSIONS = {"aws": "7.51.1", "random": "4.21.4"}
SECONDS = 120


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the engine where there is none."""
    reason = "`pulumi` is not on PATH. Install Pulumi: https://www.pulumi.com/docs/install/"
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
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

    def configure(self, stack: str, **settings: Any) -> None:
        """Set settings in the stack's file; a stack that has none begins as dev's."""
        path = self.folder / f"Pulumi.{stack}.yaml"
        source = path if path.is_file() else self.folder / "Pulumi.dev.yaml"
        content = yaml.safe_load(source.read_text())
        content["config"] |= {f"goldlake:{key}": value for key, value in settings.items()}
        path.write_text(yaml.safe_dump(content))

    def up(self, stack: str, *arguments: str) -> dict[str, int]:
        """Deploy a stack and return how many resources of AWS and random had which operation."""
        done = self.pulumi("up", "--yes", "--skip-preview", "--json", "--stack", stack, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        operations = [step["op"] for step in _steps(done.stdout)]
        return {operation: operations.count(operation) for operation in set(operations)}

    def resources(self, stack: str) -> list[dict[str, Any]]:
        """Return the resources in the stack's state."""
        found: list[dict[str, Any]] = self.state(stack)["checkpoint"]["latest"].get("resources", [])
        return found

    def init(self, stack: str) -> None:
        """Make an empty stack."""
        done = self.pulumi("stack", "init", stack)
        assert done.returncode == 0, done.stderr

    def state(self, stack: str) -> dict[str, Any]:
        """Return the stack's state as the backend keeps it."""
        path = self.folder / "state" / ".pulumi" / "stacks" / "goldlake" / f"{stack}.json"
        kept: dict[str, Any] = json.loads(path.read_text())
        return kept


def _steps(events: str) -> list[dict[str, Any]]:
    """Return what was done with each custom resource, out of the engine's event stream."""
    found = []
    for line in events.splitlines():
        event = json.loads(line) if line.startswith("{") else {}
        step = event.get("resOutputsEvent", {}).get("metadata", {})
        if step.get("type", "").startswith(("aws:", "random:")):
            found.append(step)
    return found


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
    project["plugins"] = {
        "providers": [
            {"name": name, "path": str(ECHO_PROVIDER), "version": version} for name, version in VERSIONS.items()
        ]
    }
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
