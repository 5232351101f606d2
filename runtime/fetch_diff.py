"""How the files of profiles differ from what Secrets Manager has: names only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.aws import Connection
from runtime.catalogue import Catalogue
from runtime.env_formats import READABLE_FORMATS, file_name, known_format, read_env
from runtime.errors import EXIT_DONE, EXIT_FAILED, ConfigurationError, FailedError
from runtime.fetch_values import json_object, variables


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
    known_format(fmt, READABLE_FORMATS)
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
        held = json_object(text)
        if held is None:
            raise FailedError(f"{file} holds no JSON object")
        return held
    try:
        return read_env(text)
    except ConfigurationError as exc:
        raise FailedError(f"{file}: {exc.message}") from None
