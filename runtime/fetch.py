"""Profiles' secrets as files, as a process's environment, or compared with the files that are there.

Values are in the files (or in the environment of the command that is run) and nowhere else: reports, messages and
`repr` have names only.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

from runtime.aws import Connection, nothing_of_the_wire_logged, translated
from runtime.catalogue import Catalogue, Secret, load_catalogue
from runtime.env_formats import FORMATS, READABLE_FORMATS, environment_faults, faults, file_name, read_env, render
from runtime.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_UNREACHABLE,
    AccessDeniedError,
    ConfigurationError,
    FailedError,
    GoldlakeError,
    UnreachableError,
)

# BatchGetSecretValue takes no more ids at a time.
BATCH = 20
# Secrets Manager throttles at thousands of calls a second; this is for the latency.
WORKERS = 8
GIT_SECONDS = 30
# The identity may read secrets one by one only.
_BATCH_DENIED = frozenset({"AccessDenied", "AccessDeniedException"})
_SEED = "goldlake secrets seed"

Outcome = Literal["written", "unchanged", "would be written", "failed"]
Held = str | bytes | GoldlakeError
"""What there is of a secret: its text, its bytes, or why it cannot be had."""


# --- reading from Secrets Manager ---


@dataclass(frozen=True)
class SecretValues:
    """What Secrets Manager answered for each id, and the calls that it took."""

    held: Mapping[str, Held] = field(repr=False)
    calls: Mapping[str, int]


def read_secrets(aws: Connection, ids: Sequence[str]) -> SecretValues:
    """Return the current values of secrets: 20 at a call, or one where secretsmanager:BatchGetSecretValue is missing.

    What is wrong with one secret stands in its place. Raises UnreachableError, AccessDeniedError or FailedError when
    none can be read.
    """
    with translated("read secrets"):
        client = aws.client("secretsmanager")
    chunks = [list(ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)]
    with nothing_of_the_wire_logged(), ThreadPoolExecutor(WORKERS) as pool:
        try:
            answers = list(pool.map(lambda chunk: _batch(client, chunk), chunks))
        except AccessDeniedError as exc:
            if exc.code not in _BATCH_DENIED:
                raise
            held = dict(zip(ids, pool.map(lambda name: _single(client, name), ids), strict=True))
            return SecretValues(held, {"GetSecretValue": len(ids)})
    found = {name: value for values, _pages in answers for name, value in values.items()}
    return SecretValues(found, {"BatchGetSecretValue": sum(pages for _values, pages in answers)})


def _batch(client: Any, ids: list[str]) -> tuple[dict[str, Held], int]:
    """Return what there is of up to 20 secrets, and the number of pages that it came in."""
    found: dict[str, Held] = {name: _absent(name) for name in ids}
    page: dict[str, str] = {}
    pages = 0
    while True:
        pages += 1
        with translated("read secrets"):
            answer = client.batch_get_secret_value(SecretIdList=ids, **page)
        for value in answer.get("SecretValues", []):
            found[value["Name"]] = _value(value)
        for error in answer.get("Errors", []):
            found[_name_in(error["SecretId"])] = _error(error)
        if not answer.get("NextToken"):
            return found, pages
        page = {"NextToken": answer["NextToken"]}


def _single(client: Any, name: str) -> Held:
    try:
        with translated(f"secret {name}"):
            return _value(client.get_secret_value(SecretId=name))
    except GoldlakeError as exc:
        return _absent(name) if exc.code == "ResourceNotFoundException" else exc


def _value(answer: Mapping[str, Any]) -> Held:
    value: str | bytes = answer["SecretString"] if "SecretString" in answer else answer["SecretBinary"]
    return value


def _error(error: Mapping[str, str]) -> GoldlakeError:
    """Return an error of one secret within a batch as if its own call had failed."""
    from botocore.exceptions import ClientError

    name, code = _name_in(error["SecretId"]), error.get("ErrorCode", "")
    if code == "ResourceNotFoundException":
        return _absent(name)
    try:
        with translated(f"secret {name}"):
            raise ClientError({"Error": {"Code": code, "Message": error.get("Message", "")}}, "BatchGetSecretValue")
    except GoldlakeError as exc:
        return exc


def _absent(name: str) -> FailedError:
    return FailedError(f"secret {name} is not there, or has no value", hint=_SEED, code="ResourceNotFoundException")


def _name_in(secret_id: str) -> str:
    """Return the name in an id; an ARN ends with the name, a hyphen and six characters."""
    return re.sub(r"\Aarn:[^:]*:secretsmanager:[^:]*:[^:]*:secret:(.*)-[A-Za-z0-9]{6}\Z", r"\1", secret_id)


# --- from secrets to variables ---


@dataclass(frozen=True)
class ProfileValues:
    """A profile's variables, or what is wrong with them."""

    profile: str
    values: Mapping[str, str] = field(repr=False)
    secrets: Mapping[str, str]
    """The secret that each variable is from."""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unreachable: bool = False
    """Whether a problem is that something cannot be reached or is forbidden, rather than missing."""

    @property
    def exit_code(self) -> int:
        """2 when infrastructure is to blame, 1 for other problems, 0 without."""
        return EXIT_UNREACHABLE if self.unreachable else EXIT_FAILED if self.problems else EXIT_DONE


def collect(
    aws: Connection, profiles: Sequence[str], catalogue: Catalogue, prefix: str
) -> tuple[list[ProfileValues], Mapping[str, int]]:
    """Return the variables of profiles, each secret read once, and the number of calls by name."""
    needed = dict.fromkeys(secret.name for profile in profiles for secret in catalogue.of_profile(profile))
    read = read_secrets(aws, [f"{prefix}/{name}" for name in needed])
    return [_of_profile(catalogue, profile, prefix, read.held) for profile in profiles], read.calls


def _of_profile(catalogue: Catalogue, profile: str, prefix: str, held: Mapping[str, Held]) -> ProfileValues:
    problems: list[str] = []
    notes: list[str] = []
    keys: dict[tuple[str, str], str] = {}
    unreachable = False
    for secret in catalogue.of_profile(profile):
        name = f"{prefix}/{secret.name}"
        value = held[name]
        if isinstance(value, GoldlakeError):
            problems.append(value.message)
            unreachable = unreachable or isinstance(value, UnreachableError)
            continue
        found, wrong = _keys(secret, name, value)
        keys.update({(secret.name, key): text for key, text in found.items()})
        problems += wrong
        if secret.kind == "binary":
            notes.append(f"secret {name} is binary: its variable has its base64")
    places = catalogue.variables(profile)
    values = {} if problems else {variable: keys[place] for variable, place in places.items()}
    sources = {variable: f"{prefix}/{place[0]}" for variable, place in places.items()}
    return ProfileValues(profile, values, sources, tuple(problems), tuple(notes), unreachable)


def _keys(secret: Secret, name: str, value: str | bytes) -> tuple[dict[str, str], list[str]]:
    """Return the keys of a secret, and what is wrong with them."""
    if isinstance(value, bytes) != (secret.kind == "binary"):
        holds = "bytes" if isinstance(value, bytes) else "text"
        return {}, [f"secret {name} holds {holds}, the catalogue says {secret.kind}"]
    if isinstance(value, bytes):
        return dict.fromkeys(secret.keys, base64.b64encode(value).decode()), []
    if secret.kind == "text":
        return dict.fromkeys(secret.keys, value), []
    held = _json_object(value)
    if held is None:
        return {}, [f"secret {name} holds no JSON object"]
    missing = [key for key in secret.keys if key not in held]
    no_text = [key for key in secret.keys if key in held and not isinstance(held[key], str)]
    wrong = [f"secret {name} has no key {', '.join(missing)}"] if missing else []
    # A number or a nested object has no one form as text.
    wrong += [f"secret {name}: {', '.join(no_text)} is no JSON string"] if no_text else []
    return {key: held[key] for key in secret.keys if isinstance(held.get(key), str)}, wrong


def _json_object(text: str) -> dict[str, Any] | None:
    # The decoder's own error keeps the whole text, so it must not become the context of ours.
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(text)
        return value if isinstance(value, dict) else None
    return None


# --- files ---


@dataclass(frozen=True)
class ProfileResult:
    """What became of a profile's file; `variables` are names."""

    profile: str
    outcome: Outcome
    file: Path
    variables: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    exit_code: int

    def to_dict(self) -> dict[str, Any]:
        """Return the result for JSON output."""
        return {
            "profile": self.profile,
            "outcome": self.outcome,
            "file": str(self.file),
            "variables": list(self.variables),
            "problems": list(self.problems),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class FetchReport:
    """What became of every profile."""

    profiles: tuple[ProfileResult, ...]
    calls: Mapping[str, int]
    """Calls of Secrets Manager by name: pages are counted one by one, refused batches not at all."""
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when every file is as it should be, 2 when infrastructure is to blame that one is not, else 1."""
        return max((result.exit_code for result in self.profiles), default=EXIT_DONE)

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON output."""
        return {
            "schema": "goldlake.fetch/1",
            "profiles": [result.to_dict() for result in self.profiles],
            "calls": dict(self.calls),
            "notes": list(self.notes),
        }


def fetch(
    aws: Connection,
    profiles: Sequence[str] = (),
    *,
    directory: Path,
    prefix: str = "goldlake",
    fmt: str = "env",
    namespace: str | None = None,
    catalogue: Catalogue | None = None,
    dry_run: bool = False,
) -> FetchReport:
    """Write each profile's variables to its file; without `profiles` those of the catalogue.

    A profile's file is written when all its secrets and keys are there and the format can carry them, and otherwise
    stays as it is. A reader, or a crash, sees the old file or the new one. Files are for their owner only (0600), and
    so is the folder (0700): it is made, or an empty one of one's own is made so; any other that others can enter is
    refused, because what is in it may be meant for them.

    Raises ConfigurationError, before anything is read, for an unknown profile or format, for such a folder, and for
    files inside a git work tree that git does not ignore; UnreachableError when Secrets Manager does not answer.
    """
    declared = catalogue or load_catalogue()
    _known_format(fmt, tuple(FORMATS))
    wanted = _known_profiles(profiles, declared)
    with _os_errors(directory):
        # Not Path.resolve, which has an error of its own for links in a circle.
        folder = Path(os.path.realpath(directory))
    files = [folder / file_name(profile, fmt) for profile in wanted]
    with _os_errors(folder):
        _refuse_in_work_tree(folder, [path for file in files for path in (file, file.with_name(_temporary(file.name)))])
        _refuse_folder(folder)
    found, calls = collect(aws, wanted, declared, prefix)
    texts = [_rendered(values, fmt, prefix, namespace) for values in found]
    with _opened(folder, dry_run=dry_run) as (descriptor, notes):
        results = [
            _put(descriptor, file, values, text, dry_run=dry_run)
            for file, (values, text) in zip(files, texts, strict=True)
        ]
    return FetchReport(tuple(results), calls, tuple(notes))


def _known_format(fmt: str, formats: tuple[str, ...]) -> None:
    if fmt not in formats:
        raise ConfigurationError(f"there is no format {fmt!r} here; there are {', '.join(formats)}")


def _known_profiles(profiles: Sequence[str], catalogue: Catalogue) -> list[str]:
    wanted = list(dict.fromkeys(profiles)) or list(catalogue.profiles)
    for profile in wanted:
        catalogue.of_profile(profile)
    return wanted


def _rendered(values: ProfileValues, fmt: str, prefix: str, namespace: str | None) -> tuple[ProfileValues, bytes]:
    """Return a profile with its file's content; what the format cannot carry is a problem more."""
    problems = _problems(values, lambda of_profile: faults(of_profile, fmt))
    if problems:
        return replace(values, values={}, problems=problems), b""
    text = render(values.values, fmt, name=secret_name(prefix, values.profile), namespace=namespace)
    return values, text.encode()


def _problems(values: ProfileValues, faults_of: Callable[[Mapping[str, str]], Mapping[str, str]]) -> tuple[str, ...]:
    """Return what is wrong with a profile, with the variables that cannot be carried, each with its secret."""
    named = (f"{fault} (secret {values.secrets[name]})" for name, fault in faults_of(values.values).items())
    return (*values.problems, *named)


def secret_name(prefix: str, profile: str) -> str:
    """Return the name of a profile's Secret in Kubernetes."""
    return f"{prefix.replace('/', '-')}-{profile}"


def _put(descriptor: int | None, file: Path, values: ProfileValues, content: bytes, *, dry_run: bool) -> ProfileResult:
    outcome: Outcome = "failed"
    problems, exit_code = values.problems, values.exit_code
    if not problems:
        try:
            with _os_errors(file):
                outcome = _bring_about(descriptor, file.name, content, dry_run=dry_run)
        except FailedError as exc:
            problems, exit_code = (exc.message,), exc.exit_code
    return ProfileResult(values.profile, outcome, file, tuple(values.values), problems, values.notes, exit_code)


def _bring_about(descriptor: int | None, name: str, content: bytes, *, dry_run: bool) -> Outcome:
    if descriptor is not None and _is_there(descriptor, name, content):
        return "unchanged"
    if descriptor is None or dry_run:
        return "would be written"
    _replace(descriptor, name, content)
    return "written"


def _temporary(name: str) -> str:
    """Return the name of the file that is written beside; with the same end, so that the same rules ignore it."""
    return f".new-{name}"


def _is_there(folder: int, name: str, content: bytes) -> bool:
    """Return whether the file has the content already, and is its owner's only."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:
        return False
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        private = stat.S_ISREG(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o600
        return private and status.st_uid == os.geteuid() and file.read() == content


def _replace(folder: int, name: str, content: bytes) -> None:
    """Write a file beside, sync it, rename it and sync the folder: after a power cut it is the old one or the new one.

    Under the folder's lock, so what is there under the temporary name was left behind by a killed fetch.
    """
    temporary = _temporary(name)
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
def _os_errors(path: Path) -> Iterator[None]:
    """Raise what the file system refuses as FailedError."""
    try:
        yield
    except OSError as exc:
        raise FailedError(f"{path}: {exc.strerror or type(exc).__name__}") from exc


def _refuse_folder(folder: Path) -> None:
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
def _opened(folder: Path, *, dry_run: bool) -> Iterator[tuple[int | None, list[str]]]:
    """Give the folder, made and locked, and what was done to it; None when it is not there in a dry run."""
    notes: list[str] = []
    if dry_run and not folder.exists():
        yield None, notes
        return
    with _os_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        # Two at a time write one after the other.
        fcntl.flock(descriptor, fcntl.LOCK_SH if dry_run else fcntl.LOCK_EX)
        # Again, now that nobody else can be making it.
        _refuse_folder(folder)
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077 and not dry_run:
            with _os_errors(folder):
                os.fchmod(descriptor, 0o700)
            notes.append(f"{folder} had mode {mode:04o} and was empty; it has 0700 now")
        yield descriptor, notes
    finally:
        os.close(descriptor)


def _refuse_in_work_tree(folder: Path, files: Iterable[Path]) -> None:
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


# --- without files ---


def variables(
    aws: Connection,
    profiles: Sequence[str],
    *,
    prefix: str = "goldlake",
    catalogue: Catalogue | None = None,
    faults_of: Callable[[Mapping[str, str]], Mapping[str, str]] = environment_faults,
) -> dict[str, str]:
    """Return the variables of profiles together; `faults_of` says which of them their use cannot carry.

    Raises UnreachableError when infrastructure is to blame that a secret cannot be had, FailedError with every other
    problem, ConfigurationError when two profiles have one name for different keys.
    """
    declared = catalogue or load_catalogue()
    wanted = _known_profiles(profiles, declared)
    places: dict[str, tuple[str, str]] = {}
    for profile in wanted:
        for variable, place in declared.variables(profile).items():
            if places.setdefault(variable, place) != place:
                raise ConfigurationError(
                    f"{variable} is {'.'.join(places[variable])} and, in profile {profile}, {'.'.join(place)}: "
                    "take one profile at a time"
                )
    found, _calls = collect(aws, wanted, declared, prefix)
    problems = list(dict.fromkeys(problem for values in found for problem in _problems(values, faults_of)))
    if problems:
        kind = UnreachableError if any(values.unreachable for values in found) else FailedError
        raise kind("; ".join(problems), hint=None if kind is UnreachableError else _SEED)
    return {name: value for values in found for name, value in values.values.items()}


def run_with(values: Mapping[str, str], command: Sequence[str], *, override: bool = True) -> NoReturn:
    """Become the command, with the variables added to the environment: it gets our signals, its exit code is ours.

    With `override` they win over variables that are there. Raises ConfigurationError when it cannot be started.
    """
    # As bytes: in a locale without UTF-8 Python's own error would carry the value.
    added = {name.encode(): value.encode() for name, value in values.items()}
    environment = {**os.environb, **added} if override else {**added, **os.environb}
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these two, and a command would inherit that: `yes | head` would not end.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), environment)
    except OSError as exc:
        raise ConfigurationError(f"{command[0]} cannot be run: {exc.strerror}") from exc
    except ValueError:
        raise ConfigurationError("the command or a variable has a NUL character") from None


@dataclass(frozen=True)
class DiffReport:
    """How a profile's file differs from what Secrets Manager has; names only."""

    profile: str
    file: Path
    differing: tuple[str, ...]
    missing: tuple[str, ...]
    """In Secrets Manager, and not in the file."""
    extra: tuple[str, ...]
    """In the file, and not in the profile."""
    exists: bool = True

    @property
    def exit_code(self) -> int:
        """0 when they are equal, else 1."""
        return EXIT_FAILED if self.differing or self.missing or self.extra or not self.exists else EXIT_DONE

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON output."""
        return {
            "schema": "goldlake.secrets-diff/1",
            "profile": self.profile,
            "file": str(self.file),
            "exists": self.exists,
            "differing": list(self.differing),
            "missing": list(self.missing),
            "extra": list(self.extra),
        }


def diff(
    aws: Connection,
    profile: str,
    *,
    directory: Path,
    prefix: str = "goldlake",
    fmt: str = "env",
    catalogue: Catalogue | None = None,
) -> DiffReport:
    """Return how a profile's file in `directory` differs. Raises as `variables`, and for a file that cannot be read."""
    _known_format(fmt, READABLE_FORMATS)
    file = directory / file_name(profile, fmt)
    # What a file can carry is for `fetch` to say.
    wanted = variables(aws, [profile], prefix=prefix, catalogue=catalogue, faults_of=lambda _values: {})
    present = _read_file(file, fmt)
    return DiffReport(
        profile,
        file,
        differing=tuple(name for name in wanted if present and name in present and present[name] != wanted[name]),
        missing=tuple(name for name in wanted if name not in (present or {})),
        extra=tuple(name for name in present or {} if name not in wanted),
        exists=present is not None,
    )


def _read_file(file: Path, fmt: str) -> Mapping[str, object] | None:
    try:
        # As bytes: opened as text, a carriage return would become a newline.
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise FailedError(f"{file}: {exc.strerror}") from exc
    text = content.decode(errors="replace")
    if fmt == "json":
        held = _json_object(text)
        if held is None:
            raise FailedError(f"{file} holds no JSON object")
        return held
    try:
        return read_env(text)
    except ConfigurationError as exc:
        raise FailedError(f"{file}: {exc.message}") from None
