"""The state backend is made: the unit `state`, deployed with a backend in a local folder.

The bucket that all other stacks use is not there yet.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import yaml

from runtime.aws import EMULATOR_ACCESS_KEY, EMULATOR_SECRET_KEY, Connection
from runtime.errors import (
    EXIT_DONE,
    ConfigurationError,
    FailedError,
    UnreachableError,
)
from runtime.state import (
    StateReport,
    check_state,
    existing_table,
    presence_of,
    region_of,
    state_bucket,
)

BOOTSTRAP_SCHEMA = "goldlake.state-bootstrap/1"
STACK = "state"


Outcome = Literal["deployed", "previewed", "found"]


@dataclass(frozen=True)
class Bootstrap:
    """What bootstrapping ended with, and how other stacks use it.

    `outcome` "found" means that the bucket was there and no local backend knows it: it was checked, not changed.
    """

    outcome: Outcome
    bucket: str
    login: str
    """The command that signs Pulumi in to the backend."""
    stack_init: str
    """The command that makes a stack whose secrets the key encrypts."""
    outputs: Mapping[str, Any]
    report: StateReport | None = None

    @property
    def exit_code(self) -> int:
        """That of the check of a bucket that was found, else 0."""
        return self.report.exit_code if self.report else EXIT_DONE

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "schema": BOOTSTRAP_SCHEMA,
            "outcome": self.outcome,
            "bucket": self.bucket,
            "login": self.login,
            "stack_init": self.stack_init,
            "outputs": dict(self.outputs),
            "check": self.report.to_dict() if self.report else None,
        }


@dataclass(frozen=True, kw_only=True)
class BootstrapOptions:
    """What is bootstrapped."""

    prefix: str = "goldlake"
    owner: str | None = None
    """Tag Owner; kept from the first time when None."""
    cost_centre: str | None = None
    """Tag CostCentre; kept from the first time when None."""
    dry_run: bool = False


def bootstrap(
    aws: Connection,
    *,
    project_dir: Path,
    home: Path,
    options: BootstrapOptions,
    say: Callable[[str], None] = lambda _line: None,
) -> Bootstrap:
    """Deploy the unit `state` by `pulumi up` with a backend in `<home>/state-backend`, and return how to use it.

    Doing it again changes nothing. A bucket that this folder's backend did not make is checked and left alone.
    Raises ConfigurationError without the `pulumi` command or a required setting, FailedError when the engine fails.
    """
    if shutil.which("pulumi") is None:
        raise ConfigurationError(
            "`pulumi` is not on PATH", hint="install it: https://www.pulumi.com/docs/install/ (curl … | sh, or brew)"
        )
    bucket = state_bucket(aws, options.prefix)
    backend = home / "state-backend"
    if not _is_ours(backend, aws) and _is_there(aws, bucket):
        say(f"{bucket} exists already, and {backend} does not know it: nothing is created, the bucket is checked")
        alias = f"alias/{options.prefix}-pulumi"
        report = check_state(aws, bucket, lock_table=existing_table(aws, f"{options.prefix}-locks"), key_alias=alias)
        return _result("found", aws, bucket, alias, {}, report)
    view = _project_view(project_dir, backend, aws, options)
    _pulumi(view, aws, "stack", "select", "--create", "--stack", STACK)
    if options.dry_run:
        _stream(view, aws, say, "preview", "--stack", STACK)
        return _result("previewed", aws, bucket, f"alias/{options.prefix}-pulumi", {})
    _stream(view, aws, say, "up", "--yes", "--skip-preview", "--suppress-outputs", "--stack", STACK)
    outputs = json.loads(_pulumi(view, aws, "stack", "output", "--json", "--stack", STACK))
    try:
        return _result("deployed", aws, outputs["state_bucket_name"], outputs["state_key_alias"], outputs)
    except KeyError as exc:
        raise FailedError(f"the stack {STACK!r} has no output {exc}: it was deployed without the unit") from exc


def _result(
    outcome: Outcome,
    aws: Connection,
    bucket: str,
    alias: str,
    outputs: Mapping[str, Any],
    report: StateReport | None = None,
) -> Bootstrap:
    """Return the result with the two commands. Quoted: a shell may take `?` for a pattern."""
    region = region_of(aws)
    # Parameters of gocloud.dev, which Pulumi opens these URLs with.
    emulator = {"endpoint": aws.endpoint_url} if aws.endpoint_url else {}
    path_style = {"use_path_style": "true"} if aws.is_emulator else {}
    state = urlencode({"region": region, **emulator, **path_style}, safe=":/")
    key = urlencode({"region": region, **emulator}, safe=":/")
    return Bootstrap(
        outcome=outcome,
        bucket=bucket,
        login=f"pulumi login 's3://{bucket}?{state}'",
        stack_init=f"pulumi stack init <stack> --secrets-provider 'awskms://{alias}?{key}'",
        outputs=outputs,
        report=report,
    )


def _is_there(aws: Connection, bucket: str) -> bool:
    """Return whether this account has the bucket. Raises FailedError when it is another's or may not be looked at."""
    presence = presence_of(aws, bucket)
    if presence.state == "forbidden":
        raise FailedError(f"the state bucket cannot be made: {presence.detail}", hint="take another --prefix")
    return presence.state == "ours"


def _is_ours(backend: Path, aws: Connection) -> bool:
    """Return whether the local backend has deployed more than the stack and its provider, which come first."""
    if not (backend / "Pulumi.yaml").is_file():
        return False
    stacks = json.loads(_pulumi(backend, aws, "stack", "ls", "--json"))
    return any(stack["name"].rpartition("/")[2] == STACK and stack.get("resourceCount", 0) > 2 for stack in stacks)


def _project_view(project_dir: Path, backend: Path, aws: Connection, options: BootstrapOptions) -> Path:
    """Write copies of Pulumi.yaml and the stack file that point back to the program; return their folder.

    The engine writes into the stack file that it is given (a salt, at the least), so the project's own is never used.
    """
    if not (project_dir / "Pulumi.yaml").is_file():
        raise ConfigurationError(f"{project_dir} has no Pulumi.yaml", hint="run it in Goldlake's folder")
    copy = backend / f"Pulumi.{STACK}.yaml"
    kept, own = _yaml(copy), _yaml(project_dir / f"Pulumi.{STACK}.yaml")
    config = {**kept.get("config", {}), **own.get("config", {}), **_configuration(aws, options)}
    missing = [
        f"{option} ({key})"
        for key, option in (("goldlake:owner", "--owner"), ("goldlake:costCentre", "--cost-centre"))
        if not config.get(key)
    ]
    if missing:
        raise ConfigurationError(
            f"settings are missing: {', '.join(missing)}; they are tags of everything that is made",
            hint="goldlake state bootstrap --owner TEAM --cost-centre CODE",
        )
    (backend / "state").mkdir(parents=True, exist_ok=True)
    project = _yaml(project_dir / "Pulumi.yaml")
    project["main"] = str(project_dir.resolve())
    project["runtime"] = {"name": "python", "options": {"virtualenv": sys.prefix}}
    for provider in (project.get("plugins") or {}).get("providers") or []:
        provider["path"] = str((project_dir / provider["path"]).resolve())
    (backend / "Pulumi.yaml").write_text(yaml.safe_dump(project))
    copy.write_text(yaml.safe_dump({**own, **{k: kept[k] for k in ("encryptionsalt",) if k in kept}, "config": config}))
    return backend


def _yaml(path: Path) -> dict[str, Any]:
    return (yaml.safe_load(path.read_text()) or {}) if path.is_file() else {}


def _configuration(aws: Connection, options: BootstrapOptions) -> dict[str, Any]:
    """Return the configuration of the stack, as the options and the connection say."""
    said = {"goldlake:owner": options.owner, "goldlake:costCentre": options.cost_centre}
    emulator = ("s3UsePathStyle", "skipCredentialsValidation", "skipMetadataApiCheck") if aws.is_emulator else ()
    return {
        "aws:region": region_of(aws),
        "goldlake:units": [STACK],
        "goldlake:prefix": options.prefix,
        **{key: value for key, value in said.items() if value},
        **{f"aws:{name}": "true" for name in emulator},
    }


def _environment(view: Path, aws: Connection) -> dict[str, str]:
    """Return the environment of the engine and its provider."""
    environment = {
        **os.environ,
        "PULUMI_BACKEND_URL": f"file://{view / 'state'}",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "AWS_REGION": region_of(aws),
    }
    if "PULUMI_CONFIG_PASSPHRASE_FILE" not in environment:
        # The stack holds no secret value; the engine wants a passphrase all the same.
        environment.setdefault("PULUMI_CONFIG_PASSPHRASE", "")
    if aws.profile:
        environment["AWS_PROFILE"] = aws.profile
    if aws.endpoint_url:
        environment["AWS_ENDPOINT_URL"] = aws.endpoint_url
    if aws.is_emulator:
        # Nothing of the user's own: real keys never go to an emulator.
        environment |= {
            "AWS_PROFILE": "",
            "AWS_SESSION_TOKEN": "",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_ACCESS_KEY_ID": EMULATOR_ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": EMULATOR_SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    return environment


def _command(arguments: Sequence[str]) -> list[str]:
    return ["pulumi", *arguments, "--non-interactive", "--color", "never"]


def _pulumi(view: Path, aws: Connection, *arguments: str) -> str:
    """Run a short command of the engine's and return what it printed. Raises FailedError in the engine's own words."""
    try:
        answer = subprocess.run(
            _command(arguments),
            cwd=view,
            env=_environment(view, aws),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise UnreachableError(f"`pulumi {' '.join(arguments)}` did not end within 120 s") from exc
    if answer.returncode != 0:
        raise _failed(arguments, answer.returncode, [*answer.stdout.splitlines(), *answer.stderr.splitlines()])
    return answer.stdout


def _stream(view: Path, aws: Connection, say: Callable[[str], None], *arguments: str) -> None:
    """Run a long command of the engine's, line by line. Raises FailedError in the engine's own words."""
    lines = []
    with subprocess.Popen(
        _command(arguments),
        cwd=view,
        env=_environment(view, aws),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            # `@ updating....` is a sign of life only.
            if line.strip() and not line.startswith("@ "):
                lines.append(line.rstrip())
                say(line.rstrip())
    if process.returncode != 0:
        raise _failed(arguments, process.returncode, lines)


def _failed(arguments: Sequence[str], code: int, lines: Sequence[str]) -> FailedError:
    """Return the error with the engine's own words: its error lines, and the list that the program's may go on with."""
    told = [line.strip() for line in lines if line.strip()]
    words = [line for line in told if line.startswith(("error:", "- "))] or told[-1:] or ["it said nothing"]
    # What the engine adds when the program has ended, whatever its reason.
    own = [line for line in dict.fromkeys(words) if "an unhandled error occurred" not in line] or words
    return FailedError(f"`pulumi {arguments[0]}` failed with exit code {code}: {'; '.join(own)}")
