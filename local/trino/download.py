"""The Trino server in the user's cache: downloaded from Maven Central, checked, unpacked, trimmed.

Nothing in the cache has a name that a later run trusts before it is whole: the archive is `….part` until its checksum
is right, the server is unpacked in a folder beside and renamed.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import http.client
import os
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from runtime.errors import ConfigurationError, FailedError, GoldlakeError, UnreachableError

VERSION = "476"
NAME = f"trino-server-{VERSION}"
MAVEN_VARIABLE = "GOLDLAKE_MAVEN_URL"
MAVEN_CENTRAL = "https://repo1.maven.org/maven2"
# Of the archive's 896 MB. The other plugins connect to what a laptop does not have.
KEPT_PLUGINS = ("delta-lake", "iceberg", "memory", "tpch")
KEPT_FOLDERS = ("bin", "lib", "plugin", "secrets-plugin")
UNPACKED_BYTES = 950_000_000

_CHUNK = 1 << 20
_TIMEOUT = 30
# In a row, without a single byte in between.
_FAILURES = 5
_TRANSIENT = (408, 416, 425, 429)
_NOT_PUBLISHED = f"what {MAVEN_VARIABLE} or Maven Central gives is not the published file"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Archive:
    """A file of a Maven repository, with what it must be like."""

    path: str
    sha256: str
    size: int


SERVER = Archive(
    path=f"io/trino/trino-server/{VERSION}/{NAME}.tar.gz",
    sha256="cfd5accde17e8ebd251eeeb78aed1f490e77bb3a164d95a0f454bf8a7c1cbd3f",
    size=821_045_832,
)


class _BrokenOffError(OSError):
    """A download that ended before its end; what came is kept."""


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the user's cache of downloads: XDG_CACHE_HOME or ~/.cache, and `goldlake` in it."""
    given = environment.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    return base / "goldlake"


def server_folder() -> Path:
    """Return where the unpacked server is, or would be."""
    return cache_folder() / NAME


def is_whole(server: Path) -> bool:
    """Return whether a server with everything that is kept of it is there."""
    kept = [*(server / name for name in KEPT_FOLDERS), *(server / "plugin" / name for name in KEPT_PLUGINS)]
    return all(folder.is_dir() for folder in kept)


def ensure_server(say: Say, *, archive: Archive = SERVER, open_url: Callable[..., Any] | None = None) -> Path:
    """Return the folder of the server, which is downloaded and unpacked when it is not in the cache.

    Two at once go one after the other. Raises ConfigurationError for an unusable GOLDLAKE_MAVEN_URL, UnreachableError
    when the repository does not answer, FailedError for a wrong checksum or a full disk.
    """
    server = server_folder()
    packed = server.with_name(f"{NAME}.tar.gz")
    if is_whole(server):
        return server
    try:
        with _alone(server.parent, say):
            # Whoever had the lock before may have brought it.
            if not is_whole(server):
                _check_space(packed, archive)
                if not packed.is_file():
                    fetch(archive, packed, say, open_url=open_url or urllib.request.urlopen)
                say(f"trino: unpacking into {server}")
                unpack(packed, server)
                packed.unlink()
    except (tarfile.TarError, zlib.error, EOFError) as exc:
        # Its checksum was right once. Neither this disk nor what an unpacking left is to be trusted.
        packed.unlink(missing_ok=True)
        raise FailedError(f"{packed} is damaged ({exc}); it was thrown away", hint="run it again") from exc
    except OSError as exc:
        raise FailedError(f"the cache {server.parent} cannot be used: {exc}") from exc
    return server


@contextlib.contextmanager
def _alone(folder: Path, say: Say) -> Iterator[None]:
    """Hold the cache's lock; it is free again when this process ends, however that is."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / f".{NAME}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("trino: another process is downloading it; waiting")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _check_space(packed: Path, archive: Archive) -> None:
    """Refuse before the download what would fail at its end. Raises FailedError."""
    there = sum(file.stat().st_size for file in (packed, _part(packed)) if file.is_file())
    needed = max(0, archive.size - there) + UNPACKED_BYTES
    free = shutil.disk_usage(packed.parent).free
    if free < needed:
        raise FailedError(
            f"Trino needs {needed / 1e9:.1f} GB in {packed.parent}, which has {free / 1e9:.1f} GB free",
            hint="set XDG_CACHE_HOME to a folder on a larger disk",
        )


# --- the archive ---


def repository(environment: Mapping[str, str] = os.environ) -> str:
    """Return the URL of the Maven repository: GOLDLAKE_MAVEN_URL (a mirror; http, https or file), or Maven Central.

    Raises ConfigurationError for another form; the message has no URL, which may hold a password.
    """
    url = environment.get(MAVEN_VARIABLE) or MAVEN_CENTRAL
    fault = ConfigurationError(
        f"{MAVEN_VARIABLE} is no URL of a Maven repository: http[s]://host/path or file:///path is",
        hint=f"unset it for {MAVEN_CENTRAL}",
    )
    try:
        parts = urlsplit(url)
        usable = bool(parts.path if parts.scheme == "file" else parts.hostname)
    except ValueError:
        raise fault from None
    if parts.scheme not in ("http", "https", "file") or not usable or parts.query or parts.fragment:
        raise fault
    return url.rstrip("/")


def request(url: str, offset: int) -> urllib.request.Request:
    """Return the request of a file from a byte on; a user and password in the URL become a header."""
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    made = urllib.request.Request(urlunsplit(parts._replace(netloc=host)))  # noqa: S310 - see `repository`
    if login:
        # Unredirected: a mirror that sends us to its storage does not send the password along.
        token = base64.b64encode(unquote(login).encode()).decode()
        made.add_unredirected_header("Authorization", f"Basic {token}")
    if offset:
        made.add_header("Range", f"bytes={offset}-")
    return made


def fetch(
    archive: Archive,
    target: Path,
    say: Say,
    *,
    open_url: Callable[..., Any] = urllib.request.urlopen,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Download a file to `target`, from where an earlier download ended; its checksum is right or it is not there.

    Raises UnreachableError when the repository does not answer several times in a row, FailedError when it does not
    have the file or has another one.
    """
    url = f"{repository()}/{archive.path}"
    # Without a login: this one is shown.
    shown = request(url, 0).full_url
    part = _part(target)
    say(f"trino: downloading {shown} ({archive.size / 1e6:.0f} MB)")
    progress = Progress(archive.size, say)
    failures = 0
    while (had := _size(part, archive)) < archive.size:
        try:
            _go_on(request(url, had), part, archive, had, progress, open_url)
        except (OSError, http.client.HTTPException) as exc:
            reason = _reason(exc, shown)
            failures = 0 if _size(part, archive) > had else failures + 1
            if failures >= _FAILURES:
                raise UnreachableError(
                    f"{shown} cannot be downloaded: {reason}",
                    hint=f"run it again, it goes on where it ended; {MAVEN_VARIABLE} names a mirror",
                ) from exc
            say(f"trino: the download broke off ({reason}); going on")
            pause(1.0 + failures)
    _check(part, archive, shown)
    part.replace(target)


def _go_on(
    wanted: urllib.request.Request,
    part: Path,
    archive: Archive,
    had: int,
    progress: Progress,
    open_url: Callable[..., Any],
) -> None:
    """Add to `part` what the server sends. Raises OSError or HTTPException when it ends too early."""
    with open_url(wanted, timeout=_TIMEOUT) as answer:
        # 200, or no status at all (a file), is the whole file: the server does not know ranges.
        start = had if answer.status == 206 else 0
        if start and not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {start}-"):
            part.unlink()
            raise _BrokenOffError("the server sent another range than it was asked for")
        with part.open("ab" if start else "wb") as file:
            done = start
            while chunk := answer.read(_CHUNK):
                _write(file, chunk)
                done += len(chunk)
                if done > archive.size:
                    part.unlink()
                    raise FailedError(f"{wanted.full_url} is longer than {archive.size:,} bytes: {_NOT_PUBLISHED}")
                progress.at(done)
    if done < archive.size:
        raise _BrokenOffError(f"it ended after {done:,} of {archive.size:,} bytes")


def _write(file: Any, chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as exc:
        # Not one of the network's errors, which are tried again.
        reason = "the disk is full" if exc.errno == errno.ENOSPC else exc.strerror
        raise FailedError(f"{file.name} cannot be written: {reason}") from exc


def _check(part: Path, archive: Archive, shown: str) -> None:
    """Raise FailedError, and throw the file away, unless its checksum is right."""
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    if found != archive.sha256:
        part.unlink()
        raise FailedError(
            f"{shown} has the sha256 {found}, and not {archive.sha256}; it was thrown away",
            hint=f"run it again; if it stays so, {_NOT_PUBLISHED}",
        )


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _size(part: Path, archive: Archive) -> int:
    """Return how much of the file is there. One that is too long is none of ours."""
    try:
        size = part.stat().st_size
    except FileNotFoundError:
        return 0
    if size > archive.size:
        part.unlink()
        return 0
    return size


def _reason(error: Exception, shown: str) -> str:
    """Return why a download failed. Raises the error itself when trying again cannot help."""
    if isinstance(error, urllib.error.HTTPError):
        answer = f"{error.code} {error.reason}"
        error.close()
        if 400 <= error.code < 500 and error.code not in _TRANSIENT:
            raise _refusal(error.code, f"{shown}: {answer}") from error
        return answer
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__


def _refusal(code: int, message: str) -> GoldlakeError:
    hint = f"{MAVEN_VARIABLE} names the repository, with user and password if it wants them"
    return UnreachableError(message, hint=hint) if code in (401, 403, 407) else FailedError(message, hint=hint)


class Progress:
    """Says how far a download is: at every tenth, and every five seconds in between."""

    def __init__(self, size: int, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._say, self._clock = size, say, clock
        self._tenth, self._said_at = 0, clock()

    def at(self, done: int) -> None:
        """Take note of the bytes that are there."""
        tenth, now = done * 10 // self._size, self._clock()
        if tenth == self._tenth and now - self._said_at < 5:
            return
        self._tenth, self._said_at = tenth, now
        self._say(f"trino: {done * 100 // self._size} % ({done / 1e6:.0f} of {self._size / 1e6:.0f} MB)")


# --- the server's folder ---


def unpack(packed: Path, server: Path) -> None:
    """Unpack and trim the server beside its place, and rename it. What an earlier run left half-way goes."""
    for left in server.parent.glob(f".{server.name}.unpacking-*"):
        shutil.rmtree(left, ignore_errors=True)
    beside = Path(tempfile.mkdtemp(dir=server.parent, prefix=f".{server.name}.unpacking-"))
    try:
        # Wholly, and trimmed afterwards: the same jar is in many folders as a hard link to its first place.
        with tarfile.open(packed) as archive:
            archive.extractall(beside, filter="data")
        made = beside / NAME
        for path in superfluous(made):
            shutil.rmtree(path)
        if not is_whole(made):
            raise FailedError(f"{packed} is not the Trino server that was expected")
        # Otherwise a power cut can leave the new name with empty files behind it.
        os.sync()
        shutil.rmtree(server, ignore_errors=True)
        made.rename(server)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def superfluous(server: Path) -> list[Path]:
    """Return the folders of an unpacked server that the laptop's Trino does without; licence texts stay."""
    folders = [path for path in server.iterdir() if path.is_dir() and path.name not in KEPT_FOLDERS]
    plugins = [path for path in (server / "plugin").iterdir() if path.name not in KEPT_PLUGINS]
    return sorted([*folders, *plugins])
