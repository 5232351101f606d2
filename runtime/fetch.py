"""Profiles' secrets as files.

Values are in the files and nowhere else: reports, messages and `repr` have names only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from runtime.aws import Connection
from runtime.catalogue import Catalogue, load_catalogue
from runtime.env_formats import FORMATS, faults, file_name, known_format, render
from runtime.errors import EXIT_DONE, FailedError
from runtime.fetch_files import (
    is_there,
    opened,
    os_errors,
    refuse_folder,
    refuse_in_work_tree,
    replace_file,
    temporary_name,
)
from runtime.fetch_values import ProfileValues, collect, known_profiles, problems_of

Outcome = Literal["written", "unchanged", "would be written", "failed"]


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
    known_format(fmt, FORMATS)
    wanted = known_profiles(profiles, declared)
    with os_errors(directory):
        # Not Path.resolve, which has an error of its own for links in a circle.
        folder = Path(os.path.realpath(directory))
    files = [folder / file_name(profile, fmt) for profile in wanted]
    with os_errors(folder):
        beside = [file.with_name(temporary_name(file.name)) for file in files]
        refuse_in_work_tree(folder, [*files, *beside])
        refuse_folder(folder)
    found, calls = collect(aws, wanted, declared, prefix)
    texts = [_rendered(values, fmt, prefix, namespace) for values in found]
    with opened(folder, dry_run=dry_run) as (descriptor, notes):
        results = [
            _put(descriptor, file, values, text, dry_run=dry_run)
            for file, (values, text) in zip(files, texts, strict=True)
        ]
    return FetchReport(tuple(results), calls, tuple(notes))


def _rendered(values: ProfileValues, fmt: str, prefix: str, namespace: str | None) -> tuple[ProfileValues, bytes]:
    """Return a profile with its file's content; what the format cannot carry is a problem more."""
    problems = problems_of(values, lambda of_profile: faults(of_profile, fmt))
    if problems:
        return replace(values, values={}, problems=problems), b""
    text = render(values.values, fmt, name=secret_name(prefix, values.profile), namespace=namespace)
    return values, text.encode()


def secret_name(prefix: str, profile: str) -> str:
    """Return the name of a profile's Secret in Kubernetes."""
    return f"{prefix.replace('/', '-')}-{profile}"


def _put(descriptor: int | None, file: Path, values: ProfileValues, content: bytes, *, dry_run: bool) -> ProfileResult:
    outcome: Outcome = "failed"
    problems, exit_code = values.problems, values.exit_code
    if not problems:
        try:
            with os_errors(file):
                outcome = _bring_about(descriptor, file.name, content, dry_run=dry_run)
        except FailedError as exc:
            problems, exit_code = (exc.message,), exc.exit_code
    return ProfileResult(values.profile, outcome, file, tuple(values.values), problems, values.notes, exit_code)


def _bring_about(descriptor: int | None, name: str, content: bytes, *, dry_run: bool) -> Outcome:
    if descriptor is not None and is_there(descriptor, name, content):
        return "unchanged"
    if descriptor is None or dry_run:
        return "would be written"
    replace_file(descriptor, name, content)
    return "written"
