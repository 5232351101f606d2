"""The dbt project's layer: the project, a profile for the functions, and dbt's parse of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from lambdas import shipped_parse
from lambdas.layers.archive import entries
from lambdas.layers.lock import locked_versions
from runtime.errors import ConfigurationError

# The folder that the functions look for (lambdas.answers.project_dir), whatever the project is called.
FOLDER = "dbt_gold"
TARGET = "redshift"
# What decides whether a parse of one environment holds in another.
PARSING_PACKAGES = ("dbt-core", "dbt-adapters", "dbt-common", "dbt-postgres", "dbt-redshift")
_LEFT_BY_DBT = frozenset({"target", "logs"})


def project_entries(source: Path) -> list[tuple[Path, str]]:
    """Return a dbt project's files that belong into its layer, its installed packages included.

    Functions cannot run `dbt deps`: they have no internet. Raises ConfigurationError when packages are not installed.
    """
    asked = [source / name for name in ("packages.yml", "dependencies.yml")]
    needed = any(path.is_file() and "packages" in (_yaml(path) or {}) for path in asked)
    installed = source / "dbt_packages"
    if needed and not (installed.is_dir() and any(installed.iterdir())):
        raise ConfigurationError(
            f"{source} asks for packages and has none in dbt_packages: functions have no internet to fetch them",
            hint=f"dbt deps --project-dir {source}",
        )
    kept = entries(source, skipped=_LEFT_BY_DBT if needed else _LEFT_BY_DBT | {"dbt_packages"})
    hidden = [".git", ".venv", "venv", "node_modules"]
    return [(path, name) for path, name in kept if name.split("/")[0] not in hidden and not _is_env(name)]


def _is_env(name: str) -> bool:
    """Return whether a file is of the kind that people keep passwords in."""
    last = PurePosixPath(name).name
    return last == ".env" or last.startswith(".env.")


def fill_project(source: Path, content: Path) -> None:
    """Copy a dbt project to where the functions look for it, with a profile that they can use."""
    folder = content / FOLDER
    profile = profile_of(source)
    for path, name in project_entries(source):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    profiles = folder / "profiles.yml"
    if not has_target(profiles, profile):
        profiles.write_text(profile_text(profile))


def profile_of(source: Path) -> str:
    """Return the name of a project's profile. Raises ConfigurationError when there is none."""
    project = _yaml(source / "dbt_project.yml")
    profile = project.get("profile") if isinstance(project, dict) else None
    if not isinstance(profile, str) or not profile:
        raise ConfigurationError(f"{source / 'dbt_project.yml'} names no profile: the functions need one")
    return profile


def has_target(profiles: Path, profile: str) -> bool:
    """Return whether a profile has the target that the functions ask for.

    Raises ConfigurationError when a password stands there in plain text: whoever may read the layer could read it.
    """
    found = _yaml(profiles) if profiles.is_file() else None
    outputs = ((found or {}).get(profile) or {}).get("outputs") or {}
    for name, output in outputs.items():
        for key in ("password", "pass", "access_key_id", "secret_access_key", "token"):
            if key in (output or {}) and "env_var" not in str(output[key]):
                raise ConfigurationError(
                    f"{profiles.name}: {key} of {profile}.{name} is plain text: a layer can be read by many. "
                    "Use env_var('DBT_ENV_SECRET_REDSHIFT_PASSWORD')"
                )
    return bool((outputs.get(TARGET) or {}).get("type") == "redshift")


def profile_text(profile: str) -> str:
    """Return a profile that reads what the dbt runner sets."""
    output = {
        "type": "redshift",
        "method": "database",
        "host": "{{ env_var('REDSHIFT_HOST') }}",
        "port": "{{ env_var('REDSHIFT_PORT', '5439') | as_number }}",
        "user": "{{ env_var('REDSHIFT_USER') }}",
        "password": "{{ env_var('DBT_ENV_SECRET_REDSHIFT_PASSWORD') }}",
        "dbname": "{{ env_var('REDSHIFT_DATABASE', 'analytics') }}",
        "schema": "gold",
        "sslmode": "{{ env_var('REDSHIFT_SSLMODE', 'verify-full') }}",
        "threads": 4,
        # redshift_connector keeps it for every answer: a statement that takes longer fails.
        "connect_timeout": 3600,
        "ra3_node": True,
    }
    return yaml.safe_dump({profile: {"target": TARGET, "outputs": {TARGET: output}}}, sort_keys=False)


def ship_parse(content: Path) -> str | None:
    """Put dbt's parse into the project's folder; return why there is none, or None.

    By the dbt of this environment, which must be the layer's: dbt refuses the parse of another version.
    """
    locked = locked_versions("dbt_redshift")
    for package in PARSING_PACKAGES:
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            return f"{package} is not installed here: dbt parses at each cold start"
        if version not in locked.get(package, set()):
            wanted = ", ".join(sorted(locked[package]))
            return f"{package} here is {version}, in the layer {wanted}: dbt parses at each cold start"
    folder = content / FOLDER
    command = [sys.executable, "-m", "lambdas.layers.parse_worker", str(folder), str(folder / shipped_parse.FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode != 0 or done.stdout.strip():
        reason = done.stdout.strip() or (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        return f"no parse is shipped, dbt parses at each cold start: {reason}"
    return None


def _environment() -> dict[str, str]:
    """Return an environment in which only the functions' own variables are set."""
    # This package must be found; the rest would end up in the parse or in what dbt does with it.
    here = str(Path(__file__).parents[2])
    return {
        "PATH": os.defpath,
        "PYTHONPATH": here,
        "PYTHONHASHSEED": "0",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "REDSHIFT_SSLMODE": "verify-full",
        "HOME": os.environ.get("HOME", "/tmp"),  # noqa: S108 - dbt looks for a profile there and finds the project's first
    }


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
