"""The laptop's stack by the real engine with a real AWS provider, into a platform of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.deploy import Deployed, deploy_stack
from local.engine import environment
from local.platform import Platform
from local.process import free_port
from stacks.transform import FUNCTIONS_CODE, LAYERS
from tests.engine.conftest import VERSIONS, Project
from tests.engine.listing import listing

STACK = "localstack"
SECONDS = 400
PLUGIN = "GOLDLAKE_AWS_PLUGIN"


def aws_plugin() -> Path | None:
    """Return the folder of an AWS provider for the engine: the one that is named, or the newest that is installed."""
    named = os.environ.get(PLUGIN)
    if named:
        return Path(named).resolve()
    if shutil.which("pulumi") is None:
        return None
    listed = subprocess.run(
        ["pulumi", "plugin", "ls", "--json"], capture_output=True, text=True, timeout=60, check=False
    )
    plugins = json.loads(listed.stdout or "[]") if listed.returncode == 0 else []
    versions = [plugin["version"] for plugin in plugins if plugin["name"] == "aws" and plugin["kind"] == "resource"]
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    newest = max(versions, key=lambda version: [int(part) for part in version.split("-")[0].split(".")], default=None)
    return home / "plugins" / f"resource-aws-v{newest}" if newest else None


def why_not() -> str | None:
    """Return why these tests cannot run here, with the command that changes it; None when they can."""
    if shutil.which("pulumi") is None:
        return "`pulumi` is not on PATH. Install Pulumi: https://www.pulumi.com/docs/install/"
    plugin = aws_plugin()
    if plugin is None or not (plugin / "pulumi-resource-aws").is_file():
        return (
            f"there is no AWS plugin: `pulumi plugin install resource aws {VERSIONS['aws']}`, "
            f"or {PLUGIN}=<folder with pulumi-resource-aws>"
        )
    return None


def use(project: Project, plugin: Path) -> None:
    """Make a real provider the copy's AWS plugin."""
    path = project.folder / "Pulumi.yaml"
    settings = yaml.safe_load(path.read_text())
    for provider in settings["plugins"]["providers"]:
        if provider["name"] == "aws":
            provider["path"] = str(plugin)
    path.write_text(yaml.safe_dump(settings))


def start(home: Path) -> Platform:
    """Start a platform on free ports, with small zips in place of the built layers: no function is called."""
    platform = Platform(home)
    platform.up(emulator_port=free_port(), redshift_port=free_port())
    build = home / "build"
    build.mkdir()
    for name in (*LAYERS, FUNCTIONS_CODE):
        with zipfile.ZipFile(build / f"{name}-0123456789abcdef.zip", "w") as archive:
            archive.writestr(f"{name}.py", f"# stands for {name}\n")
    return platform


def run(folder: Path, told: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the CLI on the localstack stack in a folder, with what it is told on top of this process's environment."""
    return subprocess.run(
        ["pulumi", *arguments, "--stack", STACK, "--non-interactive", "--color", "never"],
        cwd=folder,
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@dataclass(frozen=True)
class Laptop:
    """A platform, and the copy of the program that is deployed into it."""

    platform: Platform
    project: Project

    def deploy(self, *, dry_run: bool = False) -> Deployed:
        """Deploy as `goldlake deploy --engine pulumi` does."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GOLDLAKE_HOME", str(self.platform.home))
            return deploy_stack(self.platform, self.project.folder, STACK, engine="pulumi", dry_run=dry_run)

    def pulumi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the CLI on the stack that `goldlake deploy` made."""
        return run(
            self._stack_folder, environment(self._stack_folder / "state", self.platform.connection()), *arguments
        )

    def preview(self, project: Project) -> subprocess.CompletedProcess[str]:
        """Plan another copy of the program for this platform, with an empty state; nothing is made."""
        told = environment(project.folder / "state", self.platform.connection())
        made = run(project.folder, told, "stack", "init")
        assert made.returncode == 0, made.stderr
        return run(project.folder, told, "preview")

    def resources(self) -> list[dict[str, Any]]:
        """Return the resources in the stack's state."""
        path = self._stack_folder / "state" / ".pulumi" / "stacks" / "goldlake" / f"{STACK}.json"
        found: list[dict[str, Any]] = json.loads(path.read_text())["checkpoint"]["latest"].get("resources") or []
        return found

    @property
    def _stack_folder(self) -> Path:
        return self.platform.home / "stacks" / "engine"


def deploy_in_process(home: Path, project: Project) -> tuple[dict[str, Any], dict[str, Any]]:
    """Deploy into another platform without the engine; return what `goldlake deploy` says and what is there then.

    In a process of its own, and so beside another deployment: the SDK keeps one program's state in each process.
    """
    platform = start(home)
    try:
        done = subprocess.run(
            [Path(sys.prefix) / "bin" / "goldlake", "deploy", "--engine", "in-process", "--output", "json"],
            cwd=project.folder,
            env={**os.environ, "GOLDLAKE_HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout), listing(platform.connection())
    finally:
        platform.down()


def changes(preview: subprocess.CompletedProcess[str]) -> set[str]:
    """Return what a preview with --json would change, `<type>::<name>`."""
    assert preview.returncode == 0, preview.stdout + preview.stderr
    steps = [step for step in json.loads(preview.stdout)["steps"] if step["op"] != "same"]
    return {f"{step['urn'].split('::')[2].rsplit('$', 1)[-1]}::{step['urn'].rsplit('::', 1)[-1]}" for step in steps}


def counts(deployed: Deployed) -> dict[str, int]:
    """Return how many resources had which action."""
    actions = [step.action for step in deployed.steps]
    return {action: actions.count(action) for action in set(actions)}
