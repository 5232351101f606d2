"""Deployment by the Pulumi engine into the emulator, with state in a local folder.

The engine writes into the stack file that it is given (a salt, at the least), so it gets a copy of the project's files
in a folder of its own: Pulumi.localstack.yaml is never changed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from local.inprocess import Action, Deployment, Step
from runtime.aws import EMULATOR_ACCESS_KEY, EMULATOR_SECRET_KEY, Connection
from runtime.errors import FailedError

# The engine's words for what it does with a resource. A replacement is an update with another id.
_ACTIONS: Mapping[str, Action] = {
    "create": "created",
    "update": "updated",
    "create-replacement": "updated",
    "same": "unchanged",
    "delete": "deleted",
}


def missing(project_dir: Path) -> str | None:
    """Return why the engine cannot be used here, or None when it can: the CLI and the AWS plugin are installed."""
    if shutil.which("pulumi") is None:
        return "`pulumi` is not on PATH"
    project = yaml.safe_load((project_dir / "Pulumi.yaml").read_text())
    providers = (project.get("plugins") or {}).get("providers") or []
    if any(provider.get("name") == "aws" for provider in providers):
        return None
    listed = subprocess.run(
        ["pulumi", "plugin", "ls", "--json"],  # noqa: S607 - found on PATH above
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    plugins = json.loads(listed.stdout or "[]") if listed.returncode == 0 else []
    if any(plugin.get("name") == "aws" and plugin.get("kind") == "resource" for plugin in plugins):
        return None
    return "Pulumi's AWS plugin is not installed: `pulumi plugin install resource aws`"


def deploy(
    *,
    project_dir: Path,
    stack: str,
    overrides: Mapping[str, str],
    aws: Connection,
    home: Path,
    dry_run: bool,
) -> Deployment:
    """Run `pulumi up` (`preview` on a dry run) and return what it did.

    Raises FailedError with the engine's own words when it fails.
    """
    from pulumi import automation

    view = _project_view(project_dir, stack, overrides, home / "engine")
    state = home / "engine" / "state"
    state.mkdir(exist_ok=True)
    result = Deployment()

    def on_event(event: Any) -> None:
        outcome = event.res_outputs_event or (event.resource_pre_event if dry_run else None)
        if outcome is None:
            return
        step = outcome.metadata
        # Components and the stack itself are no AWS resources.
        if step.type.startswith("aws:") and str(step.op.value) in _ACTIONS:
            result.steps.append(Step(step.type, step.urn.rsplit("::", 1)[-1], _ACTIONS[step.op.value]))

    try:
        workspace = automation.create_or_select_stack(
            stack_name=stack,
            work_dir=str(view),
            opts=automation.LocalWorkspaceOptions(env_vars=_environment(state, aws)),
        )
        if dry_run:
            workspace.preview(on_event=on_event)
        else:
            done = workspace.up(on_event=on_event, suppress_outputs=True)
            result.outputs = {name: output.value for name, output in done.outputs.items()}
    except automation.errors.CommandError as exc:
        raise FailedError(f"the Pulumi engine failed: {_last_words(str(exc))}") from exc
    return result


def _project_view(project_dir: Path, stack: str, overrides: Mapping[str, str], view: Path) -> Path:
    """Write copies of Pulumi.yaml and the stack file that point back to the program; return their folder."""
    view.mkdir(parents=True, exist_ok=True)
    project = yaml.safe_load((project_dir / "Pulumi.yaml").read_text())
    project["main"] = str(project_dir)
    project["runtime"] = {"name": "python", "options": {"virtualenv": sys.prefix}}
    for provider in (project.get("plugins") or {}).get("providers") or []:
        provider["path"] = str((project_dir / provider["path"]).resolve())
    (view / "Pulumi.yaml").write_text(yaml.safe_dump(project))
    copy = view / f"Pulumi.{stack}.yaml"
    kept = yaml.safe_load(copy.read_text()) if copy.is_file() else {}
    settings = yaml.safe_load((project_dir / f"Pulumi.{stack}.yaml").read_text())
    settings["config"] = {**settings["config"], **overrides}
    if "encryptionsalt" in kept:
        settings["encryptionsalt"] = kept["encryptionsalt"]
    copy.write_text(yaml.safe_dump(settings))
    return view


def _environment(state: Path, aws: Connection) -> dict[str, str]:
    return {
        "PULUMI_BACKEND_URL": f"file://{state}",
        # The stack holds no secret value; the engine wants a passphrase all the same.
        "PULUMI_CONFIG_PASSPHRASE": "localstack",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "AWS_ENDPOINT_URL": aws.endpoint_url or "",
        "AWS_REGION": aws.region or "",
        "AWS_ACCESS_KEY_ID": EMULATOR_ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": EMULATOR_SECRET_KEY,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PATH": os.environ.get("PATH", os.defpath),
    }


def _last_words(text: str) -> str:
    """Return the engine's error lines, without its progress output."""
    lines = [line.strip() for line in text.splitlines() if "error:" in line]
    return "; ".join(dict.fromkeys(lines)) or text.strip().splitlines()[-1]
