"""Deploy a stack into the laptop platform, by the Pulumi engine or in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local import engine as pulumi_engine
from local.inprocess import ACTIONS, Step, deploy_in_process, stack_configuration
from local.platform import Platform
from local.process import exclusive
from runtime.cli import DEFAULT_STACK
from runtime.errors import ConfigurationError
from runtime.target import Target, save_target


@dataclass(frozen=True)
class Deployed:
    """What a deployment did, and which way it went."""

    stack: str
    way: str
    dry_run: bool
    steps: tuple[Step, ...]
    left_behind: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One line: the way taken and how many resources of each kind."""
        counts = {action: sum(step.action == action for step in self.steps) for action in ACTIONS}
        counted = ", ".join(f"{counts[action]} {action}" for action in ACTIONS)
        return f"{'would deploy' if self.dry_run else 'deployed'} {self.stack} {self.way}: {counted}"

    def to_dict(self) -> dict[str, Any]:
        """Return the deployment for JSON output."""
        return {
            "schema": "goldlake.deploy/1",
            "stack": self.stack,
            "way": self.way,
            "dry_run": self.dry_run,
            "resources": [step.to_dict() for step in self.steps],
            "left_behind": list(self.left_behind),
        }


def deploy_stack(
    platform: Platform,
    project_dir: Path,
    stack: str,
    *,
    engine: str = "auto",
    dry_run: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> Deployed:
    """Deploy `stack` of the program in `project_dir` into the running platform and keep its outputs.

    `engine` is auto, pulumi or in-process. Raises ConfigurationError for another stack than localstack, for settings
    that the program refuses and for an engine that is asked for and not installed; UnreachableError when the platform
    does not run.
    """
    if stack != DEFAULT_STACK:
        raise ConfigurationError(
            f"stack {stack!r} is not the laptop's ({DEFAULT_STACK}): stacks on AWS are deployed by Pulumi itself",
            hint=f"pulumi up --stack {stack}",
        )
    if not (project_dir / "Pulumi.yaml").is_file():
        raise ConfigurationError(f"{project_dir} has no Pulumi.yaml: run this in the project's folder")
    connection = platform.connection()
    overrides = {
        "aws:region": connection.region or "",
        "goldlake:artifactsDir": str(platform.home / "build"),
    }
    missing = pulumi_engine.missing(project_dir)
    if engine == "pulumi" and missing:
        raise ConfigurationError(missing, hint="goldlake deploy --engine in-process")
    with exclusive(platform.home):
        if engine == "in-process" or missing:
            way = "in-process" + (f" ({missing})" if engine == "auto" else "")
            say(f"deploying {stack} {way}")
            result = deploy_in_process(
                project_dir=project_dir,
                stack=stack,
                configuration=stack_configuration(project_dir, stack, overrides),
                aws=connection,
                record_file=platform.home / "stacks" / f"{stack}.resources.json",
                dry_run=dry_run,
            )
        else:
            way = "by the Pulumi engine"
            say(f"deploying {stack} {way}")
            result = pulumi_engine.deploy(
                project_dir=project_dir,
                stack=stack,
                overrides=overrides,
                aws=connection,
                home=platform.home,
                dry_run=dry_run,
            )
        if not dry_run:
            save_target(Target(stack, connection, result.outputs))
    return Deployed(stack, way, dry_run, tuple(result.steps), tuple(result.left_behind))
