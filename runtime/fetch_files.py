"""Files for their owner only, in a folder that nobody else enters and that git does not offer to commit.

Each is replaced at once: a reader, or a crash, sees the old file or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from runtime.errors import ConfigurationError, FailedError

GIT_SECONDS = 30


def temporary_name(name: str) -> str:
    """Return the name of the file that is written beside; with the same end, so that the same rules ignore it."""
    return f".new-{name}"


def is_there(folder: int, name: str, content: bytes) -> bool:
    """Return whether the file has the content already, and is its owner's only."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        private = stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o600
        return private and status.st_uid == os.geteuid() and file.read() == content


def replace_file(folder: int, name: str, content: bytes) -> None:
    """Write a file beside, sync it, rename it and sync the folder: after a power cut it is the old one or the new one.

    Under the folder's lock, so what is there under the temporary name was left behind by a killed fetch.
    """
    temporary = temporary_name(name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    os.fsync(folder)


@contextlib.contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Raise what the file system refuses as FailedError."""
    try:
        yield
    except OSError as exc:
        raise FailedError(f"{path}: {exc.strerror or type(exc).__name__}") from exc


def refuse_folder(folder: Path) -> None:
    """Refuse a folder of others' or one that others can enter, unless it is empty. Raises ConfigurationError."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is no folder")
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise ConfigurationError(f"{folder} belongs to another user, who could read and replace what is in it")
    if status.st_mode & 0o077 and any(folder.iterdir()):
        raise ConfigurationError(
            f"{folder} has mode {stat.S_IMODE(status.st_mode):04o} and is not empty: secrets go where only their owner "
            "can enter",
            hint=f"chmod 700 {folder}, or another --dir",
        )


@contextlib.contextmanager
def opened(folder: Path, *, dry_run: bool) -> Iterator[tuple[int | None, list[str]]]:
    """Give the folder, made and locked, and what was done to it; None when it is not there in a dry run."""
    notes: list[str] = []
    if dry_run and not folder.exists():
        yield None, notes
        return
    with os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        # Two at a time write one after the other.
        fcntl.flock(descriptor, fcntl.LOCK_SH if dry_run else fcntl.LOCK_EX)
        # Again, now that nobody else can be making it.
        refuse_folder(folder)
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077 and not dry_run:
            with os_errors(folder):
                os.fchmod(descriptor, 0o700)
            notes.append(f"{folder} had mode {mode:04o} and was empty; it has 0700 now")
        yield descriptor, notes
    finally:
        os.close(descriptor)


def refuse_in_work_tree(folder: Path, files: Iterable[Path]) -> None:
    """Refuse files that git would offer to commit. Raises ConfigurationError."""
    root = next((path for path in (folder, *folder.parents) if (path / ".git").exists()), None)
    if root is None:
        return
    git = shutil.which("git")
    hint = "another --dir, or a line in .gitignore"
    if git is None:
        raise ConfigurationError(
            f"{folder} is in a git work tree, and without git nobody knows what it ignores", hint=hint
        )
    # A hook's variables would point git at another work tree.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            [git, "-C", str(root), "check-ignore", "-z", "--stdin"],
            input="\0".join(map(str, files)).encode(),
            capture_output=True,
            env=variables,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise ConfigurationError(
            f"{folder} is in a git work tree, and git cannot be asked: {type(exc).__name__}"
        ) from exc
    # 0: some are ignored, 1: none is.
    if answer.returncode not in {0, 1}:
        said = answer.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise ConfigurationError(
            f"{folder} is in a git work tree, and git does not say what it ignores: {said}", hint=hint
        )
    ignored = set(answer.stdout.decode(errors="replace").split("\0"))
    open_to_git = [str(path) for path in files if str(path) not in ignored]
    if open_to_git:
        raise ConfigurationError(
            f"{', '.join(open_to_git)}: in a git work tree and not ignored there, so secrets could be committed",
            hint=hint,
        )
