"""How long the program takes under mocks, and how many resources each unit registers: `python -m bench.program`.

Beside it, in the same run, what no program can be faster than: the import of the providers' packages. Each figure is
the median of several fresh interpreters, after one that leaves compiled bytecode. Prints a table and a JSON line.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from local.recording import Recording, Registered, record_stack
from runtime.cli import show_table
from stacks.settings import UNITS

ROOT = Path(__file__).parents[1]
ROUNDS = 5
PROGRAM = "from pathlib import Path; from local.recording import record_stack; record_stack(Path(), 'dev')"
PEERS = {
    "import pulumi_aws": "import pulumi_aws",
    "the dev stack under mocks": PROGRAM,
}


def seconds(code: str) -> float:
    """Return the median time of a fresh interpreter that runs `code`."""
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment = {**kept, "PYTHONPYCACHEPREFIX": folder}
        for _ in range(ROUNDS + 1):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)
            taken.append(time.perf_counter() - started)
    return round(statistics.median(taken[1:]), 2)


def by_unit(recording: Recording) -> dict[str, int]:
    """Return how many resources of providers each unit registers.

    A unit is read from the tag Unit. What AWS gives no tags belongs to the unit of its component's other resources.
    """
    components = {found.urn: found.parent_urn for found in recording.resources if not found.custom}

    def outermost(found: Registered) -> str:
        urn = found.parent_urn
        while components.get(urn) in components:
            urn = components[urn]
        return urn

    units = {
        outermost(found): found.inputs["tags"]["Unit"] for found in recording.resources if found.inputs.get("tags")
    }
    counted = Counter(units.get(outermost(found), "foundation") for found in recording.resources if found.custom)
    return {unit: counted[unit] for unit in UNITS if counted[unit]}


def main() -> None:
    """Measure and print."""
    recording = record_stack(ROOT, "dev")
    counts = by_unit(recording)
    times = {title: seconds(code) for title, code in PEERS.items()}
    show_table(("unit", "resources"), [*counts.items(), ("all", sum(counts.values()))], "Stack dev")
    show_table(
        ("what", "seconds"),
        [(title, str(value)) for title, value in times.items()],
        f"Median of {ROUNDS} fresh interpreters",
    )
    print(json.dumps({"bench": "program", "rounds": ROUNDS, "resources": counts, "seconds": times}))  # noqa: T201


if __name__ == "__main__":
    main()
