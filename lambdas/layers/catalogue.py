"""What there is to build, for which Lambda, and what Lambda takes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import ConfigurationError

# Lambda developer guide, "Lambda quotas": code and layers of a function, unzipped; a zip that is not in S3; layers.
MAX_UNZIPPED_BYTES = 262_144_000
MAX_DIRECT_BYTES = 52_428_800
MAX_LAYERS = 5

# What is asked for in each layer; the files under locks/ have the versions of all that comes with it.
LAYER_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "dbt_redshift": ("dbt-core", "dbt-redshift"),
    "duckdb": ("duckdb", "duckdb-extension-postgres-scanner"),
    "delta": ("deltalake",),
    "trino": ("trino",),
}
PROJECT_LAYER = "dbt_project"
FUNCTIONS = "functions"
ARTIFACTS = (*LAYER_PACKAGES, PROJECT_LAYER, FUNCTIONS)
# What our own code needs beside the runtime's packages, in the same zip.
FUNCTIONS_PACKAGES = ("pyyaml",)
LOCKED: Mapping[str, tuple[str, ...]] = {**LAYER_PACKAGES, FUNCTIONS: FUNCTIONS_PACKAGES}
# Lambda's Python runtimes bring these along.
IN_RUNTIME = ("boto3", "botocore", "s3transfer", "jmespath")
PLATFORMS = {"x86_64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}

# The layers of each function, as the program attaches them; register has trino only where there is a Trino.
FUNCTION_LAYERS: Mapping[str, tuple[str, ...]] = {
    "check": (PROJECT_LAYER, "delta"),
    "build": ("dbt_redshift", PROJECT_LAYER),
    "export": ("duckdb", "delta"),
    "register": ("delta", "trino"),
    "rotate": ("dbt_redshift",),
}


@dataclass(frozen=True)
class Artifact:
    """A built zip. Sizes in bytes."""

    name: str
    path: Path
    sha256: str
    """Of the zip."""
    zipped: int
    unzipped: int
    reused: bool
    content: str = ""
    """Hash of what the zip means to Python, which its name holds: neither compression nor bytecode change it."""
    bytecode: str | None = None
    """Version of the interpreter that compiled the modules, None without bytecode."""
    notes: tuple[str, ...] = ()
    """What the one who builds should know: why there is no bytecode, or no parse of the project."""
    pruned: Mapping[str, int] = field(default_factory=dict)
    """How many files each pruning rule has taken away."""

    def to_dict(self) -> dict[str, Any]:
        """Return the artifact for JSON output."""
        return {
            "name": self.name,
            "path": str(self.path),
            "sha256": self.sha256,
            "content_sha256": self.content,
            "zipped_bytes": self.zipped,
            "unzipped_bytes": self.unzipped,
            "bytecode": self.bytecode,
            "notes": list(self.notes),
            "pruned": dict(self.pruned),
            "reused": self.reused,
        }

    @classmethod
    def of_stamp(cls, stamp: Path) -> tuple[str, str, Artifact]:
        """Return key, target and artifact of the record that a build left beside its zip.

        Raises OSError, ValueError, KeyError or TypeError when it is not there or not one of ours.
        """
        kept = json.loads(stamp.read_text())
        artifact = cls(
            name=kept["name"],
            # Beside the stamp, wherever the folder was when it was written.
            path=stamp.with_name(Path(kept["path"]).name),
            sha256=kept["sha256"],
            zipped=kept["zipped_bytes"],
            unzipped=kept["unzipped_bytes"],
            reused=True,
            content=kept["content_sha256"],
            bytecode=kept["bytecode"],
            notes=tuple(kept["notes"]),
            pruned=dict(kept["pruned"]),
        )
        return kept["key"], kept["target"], artifact


@dataclass(frozen=True)
class Build:
    """Where to build from and for what. `platform` None is this machine, for the emulator."""

    project: Path
    out: Path
    platform: str | None = None
    python_version: str = f"{sys.version_info.major}.{sys.version_info.minor}"
    dbt_project: Path | None = None
    """A dbt project of one's own, in place of `dbt_gold`."""
    bytecode: bool = True

    def __post_init__(self) -> None:
        """Refuse unknown platforms and versions, and a folder that is no dbt project."""
        if self.platform is not None and self.platform not in PLATFORMS:
            raise ConfigurationError(f"platform {self.platform!r}: one of {', '.join(PLATFORMS)} is allowed")
        if re.fullmatch(r"3\.1[1-3]", self.python_version) is None:
            raise ConfigurationError(f"Python {self.python_version!r}: 3.11, 3.12 and 3.13 are allowed")
        if self.dbt_project is not None and not (self.dbt_project / "dbt_project.yml").is_file():
            raise ConfigurationError(
                f"{self.dbt_project} has no dbt_project.yml: the folder of a dbt project is needed"
            )

    @property
    def dbt_folder(self) -> Path:
        """The dbt project that is packed."""
        return self.dbt_project or self.project / "dbt_gold"

    @property
    def target(self) -> str:
        """What it is built for, in a word."""
        return f"{self.platform or 'this machine'}, Python {self.python_version}"
