"""Looks for secret values in what a run of the tests leaves: files, output, exceptions, logs, processes.

Values are learned as they pass by: every client of this process tells what it puts into Secrets Manager or reads there,
and the defaults for local development are worked out. Values may be in three places: the emulator's own state, for it
is the store; the files that `fetch` writes, which only their owner can read; and variables that are meant to carry them
into a process. A finding names the place and the secret's key, never the value.
"""

from __future__ import annotations

import functools
import json
import os
import re
import stat
import subprocess
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest

from runtime.catalogue import Catalogue, load_catalogue
from runtime.env_formats import FORMATS, file_name
from runtime.generators import Fixed

# What is shorter, as `admin` is, would be found everywhere.
SHORTEST = 12
# A part of a value that no way of quoting changes, when it is too long to be a word.
_UNQUOTED = re.compile(r"[A-Za-z0-9]{20,}")
_TELLING = re.compile(r"pass|secret|token|key|credential", re.IGNORECASE)
# Of services that take a password from their environment, of psql and of the seeder; dbt keeps its own out of its logs.
_SERVICES = frozenset({"GOLDLAKE_LOCAL_REDSHIFT_PASSWORD", "PGPASSWORD"})
_CARRYING = ("OVERRIDE_", "DBT_ENV_SECRET_")
_SECONDS_BETWEEN_LOOKS = 0.25
_FILES_AT_ONCE = 500


@dataclass
class Leaks:
    """The values to look for, and what was seen of the run so far."""

    values: dict[str, str] = field(default_factory=dict, repr=False)
    """What is looked for -> the secret and key that it is of."""
    said: list[tuple[str, str]] = field(default_factory=list, repr=False)
    """Where a text was seen, and the text."""

    # --- what to look for ---

    def learn(self, name: str, value: str) -> None:
        """Look for a value from now on, in the forms that it takes in texts. One declared openly is none."""
        if value in open_texts():
            return
        escaped = json.dumps(value)[1:-1]
        forms = {*value.splitlines(), escaped, repr(value)[1:-1], quote(value, safe=""), *_UNQUOTED.findall(value)}
        for form in forms:
            # In one line, as grep takes them.
            if len(form.strip()) >= SHORTEST and "\n" not in form:
                self.values.setdefault(form.strip(), name)

    def learn_entry(self, name: str, content: str | bytes) -> None:
        """Look for the values of an entry of Secrets Manager from now on."""
        text = content.decode(errors="replace") if isinstance(content, bytes) else content
        try:
            held = json.loads(text)
        except ValueError:
            held = None
        if not isinstance(held, dict):
            self.learn(name, text)
            return
        declared = catalogue().secrets.get(name.rpartition("/")[2])
        for key, value in held.items():
            # Entries that tests or AWS make have hosts and ports, too.
            if isinstance(value, str) and (key in declared.keys if declared else _TELLING.search(key)):
                self.learn(f"{name}.{key}", value)

    def learn_defaults(self) -> None:
        """Look for the local defaults; those that are random are learned when they are put."""
        for (secret, key), declared in catalogue().places():
            if not declared.local.is_random:
                self.learn(f"{secret}.{key}", catalogue().local_default(secret, key))

    # --- what was seen ---

    def saw(self, where: str, text: str) -> None:
        """Keep a text for the end of the run, when all values are known."""
        if text:
            self.said.append((where, text))

    def saw_process(self, process: psutil.Process) -> None:
        """Keep the arguments of a process, and its variables but those that are meant to carry a secret."""
        with suppress(psutil.Error, OSError):
            where = f"process {process.pid} ({process.name()})"
            self.saw(f"arguments of {where}", "\n".join(process.cmdline()))
            for name, value in process.environ().items():
                if name not in carriers() and not name.startswith(_CARRYING):
                    self.saw(f"variable {name} of {where}", value)

    @contextmanager
    def watching_processes(self) -> Iterator[None]:
        """Look at all processes below this one again and again, each once for every program that it becomes."""
        stop, seen = threading.Event(), set()

        def watch() -> None:
            while not stop.wait(_SECONDS_BETWEEN_LOOKS):
                for process in psutil.Process().children(recursive=True):
                    with suppress(psutil.Error):
                        program = (process.pid, process.create_time(), tuple(process.cmdline()))
                        if program not in seen:
                            seen.add(program)
                            self.saw_process(process)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    # --- what was found ---

    def in_texts(self) -> list[str]:
        """Return the findings among the texts that were seen."""
        with tempfile.TemporaryDirectory() as folder:
            places = {}
            for number, (where, text) in enumerate(self.said):
                path = Path(folder) / str(number)
                path.write_text(text, errors="replace")
                places[path] = where
            return sorted({f"{places[path]}: {self._names(path)}" for path in self._grep(places)})

    def in_files(self, folder: Path) -> list[str]:
        """Return the findings in the files below a folder, where values may not be."""
        return sorted(f"{path}: {self._names(path)}" for path in self._grep(files_below(folder)))

    def _grep(self, files: Iterable[Path]) -> Iterator[Path]:
        """Yield the files that have a value. It is grep that looks: hundreds of values at once in reasonable time."""
        paths = [str(path) for path in files]
        patterns = "\n".join(self.values).encode()
        for start in range(0, len(paths), _FILES_AT_ONCE):
            if not patterns:
                return
            # The values go through a pipe: arguments are what `ps` shows.
            answer = subprocess.run(
                ["grep", "-laF", "-f", "-", "--", *paths[start : start + _FILES_AT_ONCE]],
                input=patterns,
                env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=False,
            )
            yield from (Path(line) for line in answer.stdout.decode().splitlines())

    def _names(self, path: Path) -> str:
        """Return whose values a file has."""
        with suppress(OSError):
            content = path.read_bytes()
            return ", ".join(sorted({name for value, name in self.values.items() if value.encode() in content}))
        return "gone since"


@functools.cache
def catalogue() -> Catalogue:
    """Return the project's catalogue, read once."""
    return load_catalogue()


@functools.cache
def open_texts() -> frozenset[str]:
    """Return the values that the catalogue says in so many words, as it says that a user is `admin`."""
    generators = [made for _place, key in catalogue().places() for made in (key.local, key.generate)]
    return frozenset(made.text for made in generators if isinstance(made, Fixed))


@functools.cache
def carriers() -> frozenset[str]:
    """Return the environment variables that are meant to carry a secret into a process."""
    return _SERVICES.union(*(catalogue().variables(profile) for profile in catalogue().profiles))


@functools.cache
def fetched_files() -> frozenset[str]:
    """Return the names of the files that `fetch` writes."""
    return frozenset(file_name(profile, fmt) for profile in catalogue().profiles for fmt in FORMATS)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in which no value may be; not those of packages that were installed there."""
    for place, folders, names in os.walk(folder):
        if any(name.endswith(".dist-info") for name in folders):
            folders.clear()
            continue
        folders.sort()
        for path in (Path(place, name) for name in sorted(names)):
            with suppress(OSError):
                if path.is_file() and not path.is_symlink() and not _may_have_values(path):
                    yield path


def _may_have_values(path: Path) -> bool:
    """Return whether it is the emulator's state, or a file of `fetch` that only its owner can read."""
    if path.parent.name == "state" and path.parent.parent.name == "emulator":
        return True
    return path.name in fetched_files() and stat.S_IMODE(path.stat().st_mode) == 0o600


def learning(leaks: Leaks, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return boto3's function for calls, which tells of the values of secrets that go either way."""

    def learned(client: Any, operation: str, parameters: Mapping[str, Any]) -> Any:
        def learn(entry: Mapping[str, Any]) -> None:
            name = str(entry.get("Name") or entry.get("SecretId") or "")
            for part in ("SecretString", "SecretBinary"):
                if entry.get(part):
                    leaks.learn_entry(name, entry[part])

        if client.meta.service_model.service_name != "secretsmanager":
            return call(client, operation, parameters)
        learn(parameters)
        answer = call(client, operation, parameters)
        for entry in (answer, *answer.get("SecretValues", [])):
            learn(entry)
        return answer

    return learned


def hearing(leaks: Leaks, read: Callable[..., Any]) -> Callable[..., Any]:
    """Return pytest's function that hands a test its own output, which then is in no report."""

    def heard(capture: Any) -> Any:
        found = read(capture)
        for name, text in zip(("stdout", "stderr"), found, strict=True):
            leaks.saw(f"{name} of {capture.request.node.nodeid}", text if isinstance(text, str) else repr(text))
        return found

    return heard


def of_report(leaks: Leaks, report: pytest.TestReport, error: BaseException | None) -> None:
    """Keep what a test's report has: its exceptions, and output and logs that were captured.

    What a failed test shows is its own, not what the code has said: its arguments, and what an assertion compared.
    """
    if error is not None and not isinstance(error, AssertionError):
        leaks.saw(f"exception of {report.nodeid}", "".join(traceback.format_exception(error)))
    for title, text in report.sections:
        leaks.saw(f"{title} of {report.nodeid}", text)
