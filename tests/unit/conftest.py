"""What the unit tests share: each recording of the program is made once a process, however many commands read it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

from local import recording

ROOT = Path(__file__).parents[2]
_record = recording.record_stack
_kept: dict[tuple[str, tuple[tuple[str, str], ...]], recording.Recording] = {}


def record_once(
    project_dir: Path,
    stack: str,
    *,
    settings: Mapping[str, str] | None = None,
    calls: Mapping[str, recording.Answer] | None = None,
) -> recording.Recording:
    """Return a copy of the recording that was made first; with `calls`, or for another project, it is made anew."""
    if calls is not None or project_dir.resolve() != ROOT:
        return _record(project_dir, stack, settings=settings, calls=calls)
    key = stack, tuple(sorted((settings or {}).items()))
    if key not in _kept:
        _kept[key] = _record(project_dir, stack, settings=settings)
    kept = _kept[key]
    return recording.Recording(kept.calls, kept.outputs, copy.deepcopy(kept.resources), copy.deepcopy(kept.exports))


# Before the modules that import it by its name.
recording.record_stack = record_once
