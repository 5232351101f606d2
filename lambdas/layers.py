"""The builder of what Lambda runs: layers with the packages, and one zip with our own code.

A zip is reproducible: sorted entries, fixed times and modes, no bytecode, nothing that depends on
the machine that built it. Its name holds the hash of its content, so an unchanged layer is never published twice.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import ConfigurationError, FailedError, UnreachableError
from runtime.target import write_atomically

# Lambda developer guide, "Lambda quotas": code and layers of a function, unzipped.
MAX_UNZIPPED_BYTES = 262_144_000

# Packages of each layer; versions come from requirements.txt.
LAYER_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "dbt_redshift": ("dbt-core", "dbt-redshift"),
    "duckdb": ("duckdb", "duckdb-extension-postgres-scanner"),
    "delta": ("deltalake",),
    "trino": ("trino",),
}
PROJECT_LAYER = "dbt_project"
FUNCTIONS = "functions"
# Lambda's Python runtimes bring these along.
IN_RUNTIME = ("boto3", "botocore", "s3transfer", "jmespath")
PLATFORMS = {"x86_64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}

# 1 January 1980, the first moment that a zip can hold.
_EPOCH = (1980, 1, 1, 0, 0, 0)
# Written by the installer, different on each machine and read by nothing at run time.
_INSTALLER_FILES = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"})
# Console scripts, whose first lines name the builder's interpreter, and what dbt leaves in its project.
_SKIPPED_FOLDERS = frozenset({"bin", "python/bin", "target", "logs", "dbt_packages"})


@dataclass(frozen=True)
class Artifact:
    """A built zip. Sizes in bytes."""

    name: str
    path: Path
    sha256: str
    zipped: int
    unzipped: int
    reused: bool

    def to_dict(self) -> dict[str, object]:
        """Return the artifact for JSON output."""
        return {
            "name": self.name,
            "path": str(self.path),
            "sha256": self.sha256,
            "zipped_bytes": self.zipped,
            "unzipped_bytes": self.unzipped,
            "reused": self.reused,
        }


@dataclass(frozen=True)
class Build:
    """Where to build from and for what. `platform` None is this machine, for the emulator."""

    project: Path
    out: Path
    platform: str | None = None
    python_version: str = f"{sys.version_info.major}.{sys.version_info.minor}"

    def __post_init__(self) -> None:
        """Refuse unknown platforms and versions."""
        if self.platform is not None and self.platform not in PLATFORMS:
            raise ConfigurationError(f"platform {self.platform!r}: one of {', '.join(PLATFORMS)} is allowed")
        if re.fullmatch(r"3\.1[1-3]", self.python_version) is None:
            raise ConfigurationError(f"Python {self.python_version!r}: 3.11, 3.12 and 3.13 are allowed")


def build_all(build: Build, say: Callable[[str], None] = lambda _line: None) -> list[Artifact]:
    """Build every layer and the functions' code; what is built already from the same input is reused.

    Raises UnreachableError when packages cannot be installed, FailedError when an artifact is over Lambda's limit.
    """
    build.out.mkdir(parents=True, exist_ok=True)
    names = [*LAYER_PACKAGES, PROJECT_LAYER, FUNCTIONS]
    # Compression is most of the work and releases the interpreter's lock.
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        artifacts = list(pool.map(lambda name: _build(build, name, say), names))
    keep = {artifact.path.name for artifact in artifacts}
    for path in build.out.glob("*.zip"):
        if path.name not in keep:
            path.unlink()
    return artifacts


def _build(build: Build, name: str, say: Callable[[str], None]) -> Artifact:
    key = _input_digest(build, name)
    stamp = build.out / f"{name}.json"
    known = _reusable(stamp, key)
    if known is not None:
        return known
    say(f"{name}: building")
    with tempfile.TemporaryDirectory(prefix=f"goldlake-{name}-") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        _fill(build, name, root)
        unzipped = sum(path.stat().st_size for path, _entry in entries(root))
        if unzipped > MAX_UNZIPPED_BYTES:
            raise FailedError(f"{name} is {unzipped:,} bytes unzipped: Lambda allows {MAX_UNZIPPED_BYTES:,}")
        temporary = build.out / f".{name}.zip.part"
        sha256 = write_zip(root, temporary)
        path = build.out / f"{name}-{sha256[:16]}.zip"
        temporary.replace(path)
    artifact = Artifact(name, path, sha256, path.stat().st_size, unzipped, reused=False)
    write_atomically(stamp, json.dumps({"key": key, **artifact.to_dict()}), mode=0o644)
    say(f"{name}: {artifact.zipped / 1e6:.1f} MB, {unzipped / 1e6:.1f} MB unzipped")
    return artifact


def _reusable(stamp: Path, key: str) -> Artifact | None:
    """Return the artifact that an earlier build left, if its input was the same and its zip is still there."""
    try:
        kept = json.loads(stamp.read_text())
        # Beside the stamp, wherever the folder was when it was written.
        path = stamp.with_name(Path(kept["path"]).name)
        if kept["key"] != key or path.stat().st_size != kept["zipped_bytes"]:
            return None
        return Artifact(kept["name"], path, kept["sha256"], kept["zipped_bytes"], kept["unzipped_bytes"], reused=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _input_digest(build: Build, name: str) -> str:
    """Return a digest of everything that an artifact is made of."""
    digest = hashlib.sha256(f"{name} {build.platform} {build.python_version}".encode())
    digest.update(Path(__file__).read_bytes())
    if name != PROJECT_LAYER:
        digest.update((build.project / "requirements.txt").read_bytes())
    for source in _sources(build, name):
        for path, entry in entries(source):
            digest.update(entry.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _sources(build: Build, name: str) -> list[Path]:
    """Return the folders of our own that an artifact holds."""
    if name == PROJECT_LAYER:
        return [build.project / "dbt_gold"]
    if name == FUNCTIONS:
        here = Path(__file__).parent
        return [here, here.parent / "runtime"]
    return []


def _fill(build: Build, name: str, root: Path) -> None:
    """Put an artifact's content under `root`."""
    # Lambda puts /opt/python on the path; a function's own code lies at the top.
    content = root if name == FUNCTIONS else root / "python"
    content.mkdir(exist_ok=True)
    for source in _sources(build, name):
        for path, entry in entries(source):
            target = content / source.name / entry
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    if name == FUNCTIONS:
        _install(build, ("pyyaml",), content)
    elif name in LAYER_PACKAGES:
        _install(build, LAYER_PACKAGES[name], content)
        _drop(content, IN_RUNTIME)


def _install(build: Build, packages: Sequence[str], target: Path) -> None:
    """Install packages with the versions of requirements.txt into a folder."""
    command = [sys.executable, "-m", "uv", "--quiet", "pip", "install", "--target", str(target)]
    command += ["--constraint", str(build.project / "requirements.txt"), "--only-binary", ":all:"]
    command += ["--python-version", build.python_version]
    if build.platform is not None:
        command += ["--python-platform", PLATFORMS[build.platform]]
    done = subprocess.run([*command, *packages], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UnreachableError(f"{', '.join(packages)} cannot be installed: {done.stderr.strip()}")


def _drop(content: Path, packages: Iterable[str]) -> None:
    """Remove packages and their metadata."""
    for package in packages:
        for path in (content / package, *content.glob(f"{package}-*.dist-info")):
            shutil.rmtree(path, ignore_errors=True)


def entries(root: Path) -> list[tuple[Path, str]]:
    """Return a folder's files that belong into a zip, sorted, each with its name in there."""
    kept = []
    for folder, folders, files in os.walk(root):
        inner = Path(folder).relative_to(root)
        folders[:] = [
            name for name in folders if name != "__pycache__" and (inner / name).as_posix() not in _SKIPPED_FOLDERS
        ]
        for file in files:
            path = Path(folder, file)
            if file == ".lock" or file.startswith(".user") or file.endswith(".pyc"):
                continue
            if path.parent.name.endswith(".dist-info") and file in _INSTALLER_FILES:
                continue
            kept.append((path, path.relative_to(root).as_posix()))
    return sorted(kept, key=lambda item: item[1])


def write_zip(root: Path, target: Path) -> str:
    """Write the folder's files as a reproducible zip and return its SHA-256."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for path, name in entries(root):
            info = zipfile.ZipInfo(name, date_time=_EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o755 if os.access(path, os.X_OK) else 0o644) << 16
            with path.open("rb") as source, archive.open(info, "w") as entry:
                shutil.copyfileobj(source, entry, 1 << 20)
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
