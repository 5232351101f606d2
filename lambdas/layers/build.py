"""Builds every artifact, once for the same input."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lambdas.layers.archive import content_digest, entries, sha256_of, write_zip
from lambdas.layers.bill import bill_paths, write_bill
from lambdas.layers.bytecode import compile_modules, interpreter
from lambdas.layers.catalogue import (
    ARTIFACTS,
    FUNCTIONS,
    IN_RUNTIME,
    LAYER_PACKAGES,
    LOCKED,
    MAX_UNZIPPED_BYTES,
    PROJECT_LAYER,
    Artifact,
    Build,
)
from lambdas.layers.install import drop, install
from lambdas.layers.limits import limit_faults
from lambdas.layers.lock import lock_file
from lambdas.layers.native import faults_in
from lambdas.layers.project import fill_project, profile_of, project_entries, ship_parse
from lambdas.layers.prune import prune
from runtime.errors import ConfigurationError, FailedError
from runtime.target import write_atomically

Say = Callable[[str], None]
# The builder itself is no part of what runs.
_NOT_BUILDING = frozenset({"check.py", "diff.py", "limits.py", "lock.py", "publish.py", "rehearse.py"})
_BUILDER = ("lambdas/layers/", "lambdas/cli.py")


def build_all(build: Build, say: Say = lambda _line: None) -> list[Artifact]:
    """Build every layer and the functions' code; what is built already from the same input is reused.

    Raises ConfigurationError for a dbt project that cannot be packed and a folder that cannot be made, UnreachableError
    when packages cannot be installed, FailedError when there is no room or Lambda would not take what was built.
    """
    # Before minutes are spent on the packages.
    profile_of(build.dbt_folder)
    project_entries(build.dbt_folder)
    try:
        build.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{build.out} cannot be made: {error.strerror}; a folder is needed") from error
    try:
        # Compression is most of the work and releases the interpreter's lock.
        with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            artifacts = list(pool.map(lambda name: _build(build, name, say), ARTIFACTS))
    except OSError as error:
        where = error.filename or build.out
        raise FailedError(f"the build ended for {error.strerror}: {where}", hint="run it again: it goes on") from error
    keep = {path for artifact in artifacts for path in (artifact.path, *bill_paths(artifact.path))}
    for pattern in ("*.zip", "*.cdx.json", "*.licences.tsv"):
        for path in build.out.glob(pattern):
            if path not in keep:
                path.unlink()
    faults = limit_faults({artifact.name: artifact for artifact in artifacts})
    if faults:
        raise FailedError("Lambda would not take what was built: " + "; ".join(faults))
    return artifacts


def _build(build: Build, name: str, say: Say) -> Artifact:
    compiler = interpreter(build.python_version) if build.bytecode and name in LAYER_PACKAGES else None
    key = _input_digest(build, name, compiled=compiler is not None)
    stamp = build.out / f"{name}.json"
    known = _reusable(stamp, key)
    if known is not None:
        return known
    say(f"{name}: building")
    with tempfile.TemporaryDirectory(prefix=f"goldlake-{name}-") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        artifact = _packed(build, name, root, compiler)
    write_atomically(stamp, json.dumps({"key": key, "target": build.target, **artifact.to_dict()}), mode=0o644)
    size = f"{artifact.zipped / 1e6:.1f} MB, {artifact.unzipped / 1e6:.1f} MB unzipped"
    say("; ".join([f"{name}: {size}", *artifact.notes]))
    return artifact


def _packed(build: Build, name: str, root: Path, compiler: Path | None) -> Artifact:
    """Fill a folder with an artifact's content and put it into a zip, with its bill beside it."""
    # Lambda puts /opt/python on the path; a function's own code lies at the top.
    content = root if name == FUNCTIONS else root / "python"
    content.mkdir(exist_ok=True)
    pruned, notes = _fill(build, name, content)
    notes += faults_in(root, build)
    version = None
    if compiler is not None:
        version = compile_modules(compiler, content)
    elif build.bytecode and name in LAYER_PACKAGES:
        notes.append(f"no bytecode, for there is no Python {build.python_version} here")
    compiled = version is not None
    unzipped = sum(path.stat().st_size for path, _entry in entries(root, bytecode=compiled))
    if unzipped > MAX_UNZIPPED_BYTES:
        raise FailedError(f"{name} is {unzipped:,} bytes unzipped: Lambda allows {MAX_UNZIPPED_BYTES:,}")
    meaning = content_digest(root, bytecode=build.python_version if compiled else None)
    temporary = build.out / f".{name}.zip.part"
    try:
        sha256 = write_zip(root, temporary, bytecode=compiled)
        path = build.out / f"{name}-{meaning[:16]}.zip"
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    write_bill(name, content, meaning, lock_file(name) if name in LOCKED else None, path)
    return Artifact(
        name,
        path,
        sha256,
        path.stat().st_size,
        unzipped,
        reused=False,
        content=meaning,
        bytecode=version,
        notes=tuple(notes),
        pruned=pruned,
    )


def _fill(build: Build, name: str, content: Path) -> tuple[dict[str, int], list[str]]:
    """Put an artifact's content into its folder; return what was pruned, and what the builder should know."""
    if name == PROJECT_LAYER:
        fill_project(build.dbt_folder, content)
        reason = ship_parse(content)
        return {}, [reason] if reason else []
    if name == FUNCTIONS:
        for path, entry in _own_code():
            target = content / entry
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    install(build, name, content)
    drop(content, IN_RUNTIME)
    shutil.rmtree(content / "bin", ignore_errors=True)
    return dict(prune(name, content)), []


def _reusable(stamp: Path, key: str) -> Artifact | None:
    """Return the artifact that an earlier build left, if its input was the same and its files are still there."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept, _target, artifact = Artifact.of_stamp(stamp)
        whole = artifact.path.stat().st_size == artifact.zipped
        if kept == key and whole and all(path.is_file() for path in bill_paths(artifact.path)):
            return replace(artifact, reused=True)
    return None


def _input_digest(build: Build, name: str, *, compiled: bool) -> str:
    """Return a digest of everything that an artifact is made of."""
    digest = hashlib.sha256(f"{name} {build.platform} {build.python_version} {compiled}".encode())
    for path, entry in entries(Path(__file__).parent):
        if path.suffix == ".py" and path.name not in _NOT_BUILDING:
            digest.update(entry.encode() + b"\0" + path.read_bytes() + b"\0")
    if name == PROJECT_LAYER:
        # dbt's parse is one of dbt's version.
        sources = project_entries(build.dbt_folder)
        digest.update(sha256_of(lock_file("dbt_redshift")).encode())
    else:
        sources = _own_code() if name == FUNCTIONS else []
        digest.update(sha256_of(lock_file(name)).encode())
    for path, entry in sources:
        digest.update(entry.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _own_code() -> list[tuple[Path, str]]:
    """Return our own files that functions run, each with its name in the zip."""
    root = Path(__file__).parents[2]
    found = [(path, f"{folder}/{entry}") for folder in ("lambdas", "runtime") for path, entry in entries(root / folder)]
    return [(path, name) for path, name in found if not name.startswith(_BUILDER)]
