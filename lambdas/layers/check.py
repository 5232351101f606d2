"""Whether a folder of built artifacts can be deployed, without building anything."""

from __future__ import annotations

import os
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from lambdas import shipped_parse
from lambdas.layers.archive import is_bytecode, sha256_of
from lambdas.layers.bill import bill_paths
from lambdas.layers.bytecode import interpreter
from lambdas.layers.catalogue import ARTIFACTS, IN_RUNTIME, LOCKED, PROJECT_LAYER, Artifact
from lambdas.layers.limits import limit_faults
from lambdas.layers.lock import locked_versions, normalised
from lambdas.layers.native import is_compiled, module_faults, read_target, this_machine
from lambdas.layers.prune import EVERY_LAYER, RULES

# What a function of the layer imports first.
IMPORTS: Mapping[str, Sequence[str]] = {
    "dbt_redshift": ("dbt.cli.main", "dbt.adapters.redshift", "dbt.adapters.postgres", "redshift_connector"),
    "duckdb": ("duckdb", "duckdb_extension_postgres_scanner"),
    "delta": ("deltalake", "arro3.core"),
    "trino": ("trino.dbapi",),
    "functions": ("yaml", "lambdas.dbt_runner.handler", "lambdas.export.handler", "lambdas.register.handler"),
}
# What botocore needs beside the packages that Lambda's runtime brings along.
_RUNTIMES_OWN = ("urllib3", "dateutil", "six.py")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    artifact: str
    check: str
    fault: str | None
    """What is wrong; None when all is well."""
    skipped: str | None = None
    """Why it was not looked at."""

    def to_dict(self) -> dict[str, object]:
        """Return the finding for JSON output."""
        return {"artifact": self.artifact, "check": self.check, "fault": self.fault, "skipped": self.skipped}


def check_all(out: Path, say: Callable[[str], None] = lambda _line: None) -> list[Finding]:
    """Look at every artifact of a folder; a finding with a fault means that it cannot be deployed."""
    found: dict[str, tuple[str, Artifact]] = {}
    findings = []
    for name in ARTIFACTS:
        try:
            _key, target, artifact = Artifact.of_stamp(out / f"{name}.json")
            fault = _not_whole(artifact)
        except (OSError, ValueError, KeyError, TypeError):
            fault = f"not built in {out}: run `goldlake layers build`"
        else:
            if fault is None:
                found[name] = (target, artifact)
        findings.append(Finding(name, "the zip is the one that was built", fault))
    artifacts = {name: artifact for name, (_target, artifact) in found.items()}
    faults = limit_faults(artifacts)
    findings.append(Finding("all", "Lambda's limits", "; ".join(faults) or None))
    for name, (target, artifact) in found.items():
        say(f"{name}: looking")
        if name in LOCKED:
            findings.append(Finding(name, "metadata of every package", _metadata_fault(artifact)))
            findings.append(Finding(name, "compiled for the target", _target_fault(artifact, target)))
        if name in IMPORTS:
            findings.append(_imports(artifact, target))
        if name == PROJECT_LAYER:
            findings.append(Finding(name, "dbt's parse of the project", _parse_fault(artifact)))
    findings.append(Finding("all", "every pruning rule matches something", _idle_rules(artifacts)))
    return findings


def _not_whole(artifact: Artifact) -> str | None:
    if not artifact.path.is_file():
        return f"{artifact.path.name} is gone: run `goldlake layers build`"
    if sha256_of(artifact.path) != artifact.sha256:
        return f"{artifact.path.name} is not what was built: delete it and run `goldlake layers build`"
    missing = [path.name for path in bill_paths(artifact.path) if not path.is_file()]
    return f"{', '.join(missing)}: missing" if missing else None


def _metadata_fault(artifact: Artifact) -> str | None:
    """Return which packages of the lock have no metadata in the zip, or modules and no metadata."""
    with zipfile.ZipFile(artifact.path) as archive:
        names = archive.namelist()
    present = {
        normalised(name.split(".dist-info/")[0].split("/")[-1].split("-")[0])
        for name in names
        if name.endswith(".dist-info/METADATA")
    }
    # Packages for other systems or versions of Python only are locked and not installed.
    wanted = {
        package
        for package, versions in locked_versions(artifact.name).items()
        if _unconditional(artifact.name, package, versions)
    } - set(IN_RUNTIME)
    missing = sorted(wanted - present)
    return f"no metadata of {', '.join(missing)}: dbt looks up plugins and versions there" if missing else None


def _unconditional(name: str, package: str, versions: set[str]) -> bool:
    from lambdas.layers.lock import lock_file

    lines = [line for line in lock_file(name).read_text().splitlines() if normalised(line.split("==")[0]) == package]
    return len(versions) == 1 and all(";" not in line for line in lines)


def _target_fault(artifact: Artifact, target: str) -> str | None:
    with zipfile.ZipFile(artifact.path) as archive:
        # Bytecode says by its name what it is for.
        names = [name for name in archive.namelist() if is_compiled(name)]
        files = ((name, b"" if is_bytecode(name) else archive.read(name)) for name in names)
        faults = module_faults(files, *read_target(target))
    more = f"; {len(faults) - 3} more" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more if faults else None


def _parse_fault(artifact: Artifact) -> str | None:
    with zipfile.ZipFile(artifact.path) as archive:
        shipped = any(name.endswith(f"/{shipped_parse.FILE}") for name in archive.namelist())
    return None if shipped else "; ".join(artifact.notes) or "none"


def _idle_rules(artifacts: Mapping[str, Artifact]) -> str | None:
    """Return the rules that took nothing from any artifact they are for; only when all were built."""
    counts: dict[str, int] = {}
    for artifact in artifacts.values():
        for rule, count in artifact.pruned.items():
            counts[rule] = counts.get(rule, 0) + count
    idle = [
        rule.name
        for rule in RULES
        if (rule.layer in artifacts or (rule.layer == EVERY_LAYER and set(LOCKED) <= set(artifacts)))
        and not counts.get(rule.name)
    ]
    return f"remove from lambdas/layers/prune.py: {', '.join(idle)}" if idle else None


def _imports(artifact: Artifact, target: str) -> Finding:
    """Import a layer's modules with nothing else on the path but what Lambda's runtime has."""
    what = "imports"
    platform, version = read_target(target)
    python = interpreter(version) if platform in (None, this_machine()) else None
    if python is None:
        return Finding(artifact.name, what, None, f"built for {target}, which does not run here")
    with tempfile.TemporaryDirectory(prefix="goldlake-check-") as folder:
        layer, beside = Path(folder, "opt"), Path(folder, "runtime")
        with zipfile.ZipFile(artifact.path) as archive:
            archive.extractall(layer)
        stand_for_runtime(beside)
        path = [str(layer / "python"), str(layer), str(beside)]
        lines = [f"import sys; sys.path[:0] = {path!r}", *(f"import {module}" for module in IMPORTS[artifact.name])]
        done = subprocess.run(
            [str(python), "-I", "-S", "-c", "\n".join(lines)],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    fault = (done.stderr.strip().splitlines() or ["ended without a word"])[-1] if done.returncode else None
    return Finding(artifact.name, what, fault)


def stand_for_runtime(folder: Path) -> None:
    """Put links to what Lambda's Python runtimes bring along into a folder; nothing else is found there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in IN_RUNTIME:
        for part in {path.parts[0] for path in metadata.files(name) or [] if not path.parts[0].startswith("..")}:
            _link(Path(str(metadata.distribution(name).locate_file(part))), folder)
    for name in _RUNTIMES_OWN:
        _link(Path(str(metadata.distribution("boto3").locate_file(name))), folder)


def _link(source: Path, folder: Path) -> None:
    if source.exists() and not (folder / source.name).exists():
        (folder / source.name).symlink_to(source)


def entries_of(path: Path) -> dict[str, tuple[int, int]]:
    """Return size and checksum of each file of a zip; bytecode is left out, for it follows from the rest."""
    with zipfile.ZipFile(path) as archive:
        return {
            info.filename: (info.file_size, info.CRC) for info in archive.infolist() if not is_bytecode(info.filename)
        }
