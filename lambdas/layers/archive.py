"""Reproducible zips: sorted entries, fixed times and modes, nothing that depends on the machine that built them."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from pathlib import Path, PurePosixPath

# 1 January 1980, the first moment that a zip can hold.
_EPOCH = (1980, 1, 1, 0, 0, 0)
LEVEL = 9
# Written by the installer, different on each machine and read by nothing at run time.
_INSTALLER_FILES = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"})
# Console scripts, whose first lines name the builder's interpreter, and what dbt leaves in its project.
_SKIPPED_FOLDERS = frozenset({"bin", "python/bin", "target", "logs", "dbt_packages"})


def entries(
    root: Path, *, skipped: frozenset[str] = _SKIPPED_FOLDERS, bytecode: bool = False
) -> list[tuple[Path, str]]:
    """Return a folder's files that belong into a zip, sorted, each with its name in there.

    Bytecode only when asked for: what lies about in a source folder was compiled for the builder's paths and times.
    """
    kept = []
    for folder, folders, files in os.walk(root):
        inner = Path(folder).relative_to(root)
        folders[:] = [
            name for name in folders if (bytecode or name != "__pycache__") and (inner / name).as_posix() not in skipped
        ]
        for file in files:
            path = Path(folder, file)
            if file == ".lock" or file.startswith(".user") or (file.endswith(".pyc") and not bytecode):
                continue
            if path.parent.name.endswith(".dist-info") and file in _INSTALLER_FILES:
                continue
            kept.append((path, path.relative_to(root).as_posix()))
    return sorted(kept, key=lambda item: item[1])


def write_zip(root: Path, target: Path, *, bytecode: bool = False) -> str:
    """Write the folder's files as a reproducible zip and return its SHA-256."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as archive:
        for path, name in entries(root, bytecode=bytecode):
            info = zipfile.ZipInfo(name, date_time=_EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            # The system that made it is written into each entry: Unix, wherever it is built.
            info.create_system = 3
            info.external_attr = _mode(path) << 16
            with path.open("rb") as source, archive.open(info, "w") as entry:
                shutil.copyfileobj(source, entry, 1 << 20)
    return sha256_of(target)


def content_digest(root: Path, *, bytecode: str | None = None) -> str:
    """Return the hash of what a zip of the folder means to Python: names, modes and contents.

    Bytecode counts by the minor version that it is for. It follows from the sources, and one interpreter's differs
    from another's of the same minor version in line tables only (docs/adr/0010-layers.md). Nor does it matter which
    zlib has compressed: machines that differ in these two give the layer the same name, and nothing is deployed anew.
    """
    digest = hashlib.sha256(f"bytecode {bytecode}\n".encode())
    for path, name in entries(root):
        digest.update(f"{name}\0{_mode(path):o}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_bytecode(name: str) -> bool:
    """Return whether a zip's entry is compiled from another one."""
    return PurePosixPath(name).suffix == ".pyc"


def _mode(path: Path) -> int:
    return 0o755 if os.access(path, os.X_OK) else 0o644
