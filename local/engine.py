"""Deployment by the Pulumi engine into the emulator, with state in a local folder.

The engine writes into the stack file that it is given (a salt, at the least), so it gets a copy of the project's files
in a folder of its own: Pulumi.localstack.yaml is never changed. That folder is beside the other descriptions of
stacks, so `goldlake local reset` takes the state away together with what it describes.
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

from local.inprocess import Action, Deployment, Step, stack_configuration
from local.resources import KINDS
from runtime.aws import EMULATOR_ACCESS_KEY, EMULATOR_SECRET_KEY, Connection, translated
from runtime.errors import FailedError
from stacks.settings import NAMESPACE, parse_settings
from stacks.transform import find_artifacts

# The engine's words for what it does with a resource. A replacement is an update with another id.
_ACTIONS: Mapping[str, Action] = {
    "create": "created",
    "update": "updated",
    "create-replacement": "updated",
    "same": "unchanged",
    "delete": "deleted",
}


# Few, quickly asked for, and lost by an emulator that is killed.
_TELLTALES = ("aws:secretsmanager/secret:Secret", "aws:iam/role:Role", "aws:s3/bucket:Bucket")


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
    """Run `pulumi up` (`preview` on a dry run) and return what it did. The caller holds the platform's lock.

    Raises ConfigurationError for settings that the program refuses, as the in-process deployment does, and FailedError
    with the engine's own words when it fails.
    """
    from pulumi import automation

    _check(stack_configuration(project_dir, stack, overrides), stack)
    view = _project_view(project_dir, stack, overrides, home / "stacks" / "engine")
    result = Deployment()
    complaints: list[str] = []

    def on_event(event: Any) -> None:
        complaint = event.diagnostic_event
        if complaint is not None and complaint.severity == "error":
            complaints.append(complaint.message.strip())
        # A preview announces each resource before and after; after a deployment only what was done counts.
        if event.res_outputs_event is None:
            return
        step = event.res_outputs_event.metadata
        # Components and the stack itself are no AWS resources.
        if step.type.startswith("aws:") and str(step.op.value) in _ACTIONS:
            result.steps.append(Step(step.type, step.urn.rsplit("::", 1)[-1], _ACTIONS[step.op.value]))

    try:
        selected = automation.create_or_select_stack(
            stack_name=stack,
            work_dir=str(view),
            opts=automation.LocalWorkspaceOptions(env_vars=environment(view / "state", aws)),
        )
        # Nobody else deploys while the caller holds the platform's lock: a lock here is a killed deployment's.
        selected.cancel()
        refresh = _has_forgotten(selected.export_stack().deployment or {}, aws)
        if dry_run:
            selected.preview(on_event=on_event, refresh=refresh)
        else:
            done = selected.up(on_event=on_event, refresh=refresh, suppress_outputs=True)
            result.outputs = {name: output.value for name, output in done.outputs.items()}
    except automation.errors.CommandError as exc:
        words = "; ".join(dict.fromkeys(complaints)) or _last_words(str(exc))
        raise FailedError(f"the Pulumi engine failed: {words}") from exc
    return result


def _check(configuration: Mapping[str, str], stack: str) -> None:
    """Refuse before the engine starts what the program would refuse. Raises ConfigurationError."""
    prefix = f"{NAMESPACE}:"
    values = {key.removeprefix(prefix): value for key, value in configuration.items() if key.startswith(prefix)}
    settings = parse_settings(values, stack=stack, region=configuration.get("aws:region"))
    if "transform" in settings.units:
        find_artifacts(settings)


def _has_forgotten(deployment: Mapping[str, Any], aws: Connection) -> bool:
    """Return whether the emulator lost what the engine deployed: one that was killed keeps buckets only.

    A refresh at each deployment would find that out too, but it takes as long again, and it takes the attributes
    that the emulator leaves out for changes.
    """
    with translated("what was deployed before"):
        return any(
            not KINDS[resource["type"]].exists(aws, resource["id"], resource["inputs"])
            for resource in deployment.get("resources") or []
            if resource["type"] in _TELLTALES and resource.get("id")
        )


def _project_view(project_dir: Path, stack: str, overrides: Mapping[str, str], view: Path) -> Path:
    """Write copies of Pulumi.yaml and the stack file that point back to the program; return their folder."""
    (view / "state").mkdir(parents=True, exist_ok=True)
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


def environment(state: Path, aws: Connection) -> dict[str, str]:
    """Return what the engine and the provider are told on top of this process's environment.

    A profile, a session or an endpoint of the user's own would lead the provider elsewhere than to the emulator.
    """
    own_endpoints = {name: "" for name in os.environ if name.startswith("AWS_ENDPOINT_URL_")}
    services = {
        f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}": url for service, url in aws.service_endpoints.items()
    }
    return {
        **own_endpoints,
        **services,
        "AWS_PROFILE": "",
        "AWS_SESSION_TOKEN": "",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "PULUMI_BACKEND_URL": f"file://{state}",
        # The stack holds no secret value; the engine wants a passphrase all the same.
        "PULUMI_CONFIG_PASSPHRASE": "localstack",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "AWS_ENDPOINT_URL": aws.endpoint_url or "",
        "AWS_REGION": aws.region or "",
        "AWS_ACCESS_KEY_ID": EMULATOR_ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": EMULATOR_SECRET_KEY,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _last_words(text: str) -> str:
    """Return the engine's error lines, without its progress output."""
    lines = [line.strip() for line in text.splitlines() if "error:" in line]
    return "; ".join(dict.fromkeys(lines)) or text.strip().splitlines()[-1]
