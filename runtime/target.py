"""Where a deployed stack is: its AWS connection and its outputs.

`goldlake deploy` leaves them in `<home>/stacks/<stack>.json`; for a stack that was deployed with `pulumi up` the
outputs are asked from Pulumi.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.aws import Connection
from runtime.errors import ConfigurationError, UnreachableError
from runtime.warehouse import LOOPBACK_HOSTS, Warehouse, read_login

HOME_VARIABLE = "GOLDLAKE_HOME"


def home() -> Path:
    """Return the folder of everything that Goldlake keeps on this machine: GOLDLAKE_HOME, or ./.goldlake."""
    return Path(os.environ.get(HOME_VARIABLE) or ".goldlake").resolve()


@dataclass(frozen=True)
class Target:
    """A deployed stack."""

    stack: str
    connection: Connection
    outputs: Mapping[str, Any]

    def output(self, name: str) -> str:
        """Return a text output of the stack. Raises ConfigurationError naming stack and output when it is missing."""
        value = self.outputs.get(name)
        if not isinstance(value, str):
            raise self._without(name)
        return value

    def _port(self, name: str) -> int:
        """Return a port among the outputs; the engine may give it as 5439, 5439.0 or "5439"."""
        try:
            return int(float(self.outputs[name]))
        except (KeyError, TypeError, ValueError):
            raise self._without(name) from None

    def _without(self, name: str) -> ConfigurationError:
        return ConfigurationError(
            f"stack {self.stack!r} has no output {name!r}: it is not deployed, or without that unit",
            hint=f"goldlake deploy --stack {self.stack}",
        )

    @property
    def silver_bucket(self) -> str:
        """The name of the bucket with the silver tables."""
        return self.output("lake_silver_bucket")

    @property
    def gold_location(self) -> str:
        """The s3:// URL under which each gold table has a folder."""
        return f"s3://{self.output('lake_gold_bucket')}/gold"

    def warehouse(self) -> Warehouse:
        """Return the warehouse with the login from Secrets Manager. Raises as `runtime.warehouse.read_login` does."""
        host = self.output("transform_warehouse_host")
        user, password = read_login(self.connection, self.output("transform_warehouse_login_arn"))
        return Warehouse(
            host=host,
            port=self._port("transform_warehouse_port"),
            database=self.output("transform_warehouse_database"),
            user=user,
            password=password,
            ssl=host not in LOOPBACK_HOSTS,
        )

    @property
    def seeds_warehouse_login(self) -> bool:
        """Whether the warehouse's login is seeded.

        Otherwise Pulumi or AWS made its password, or the stack does not say: then it may be theirs.
        """
        names = ("transform_warehouse_login_owner", "warehouse_login_owner")
        return "seed" in [str(self.outputs.get(name)) for name in names]

    @property
    def secret_entries(self) -> tuple[str, ...] | None:
        """The secrets of the catalogue that the stack has entries for; None when it does not say."""
        entries = self.outputs.get("secrets_entries")
        return tuple(str(entry) for entry in entries) if isinstance(entries, list) else None

    @property
    def state_machine_arn(self) -> str:
        """The ARN of the pipeline's state machine."""
        return self.output("pipeline_state_machine_arn")


def target_file(stack: str) -> Path:
    """Return where the description of a stack is kept on this machine."""
    return home() / "stacks" / f"{stack}.json"


def save_target(target: Target) -> None:
    """Keep the description of a stack for `load_target`; a reader sees the old one or the new one."""
    write_atomically(
        target_file(target.stack),
        json.dumps(
            {
                "stack": target.stack,
                "endpoint_url": target.connection.endpoint_url,
                "region": target.connection.region,
                "service_endpoints": dict(target.connection.service_endpoints),
                "outputs": dict(target.outputs),
            },
            indent=2,
        ),
    )


def load_target(stack: str, *, overrides: Connection | None = None) -> Target:
    """Return a deployed stack; what `overrides` sets wins over what was kept.

    Raises ConfigurationError when the stack was never deployed from here and Pulumi does not know it.
    """
    wanted = overrides or Connection()
    path = target_file(stack)
    if path.is_file():
        try:
            kept = json.loads(path.read_text())
        except ValueError as exc:
            raise ConfigurationError(f"{path} cannot be read: {exc}", hint=f"goldlake deploy --stack {stack}") from exc
    else:
        kept = {"endpoint_url": None, "region": None, "outputs": _pulumi_outputs(stack)}
    return Target(
        stack=stack,
        connection=Connection(
            endpoint_url=wanted.endpoint_url or kept["endpoint_url"],
            region=wanted.region or kept["region"],
            profile=wanted.profile,
            # They belong to the endpoint that was kept.
            service_endpoints={} if wanted.endpoint_url else kept.get("service_endpoints", {}),
        ),
        outputs=kept["outputs"],
    )


def _pulumi_outputs(stack: str) -> dict[str, Any]:
    """Return the outputs that Pulumi has for the stack."""
    unknown = ConfigurationError(
        f"stack {stack!r} is not deployed from this folder", hint=f"goldlake deploy --stack {stack}"
    )
    if shutil.which("pulumi") is None:
        raise unknown
    try:
        answer = subprocess.run(
            ["pulumi", "stack", "output", "--json", "--non-interactive", "--stack", stack],  # noqa: S607 - found on PATH above
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise UnreachableError(f"pulumi did not give the outputs of stack {stack!r} within 120 s") from exc
    if answer.returncode != 0:
        raise unknown
    outputs: dict[str, Any] = json.loads(answer.stdout)
    return outputs


def write_atomically(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new: written beside, synced, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
