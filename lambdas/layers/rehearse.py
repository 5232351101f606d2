"""Runs the dbt runner's handler from unpacked layers as Lambda does, with what Lambda has and nothing else.

A fresh interpreter without site-packages; layers and code in a tree that cannot be written; only the temporary folder
can be; no HOME and no variable but those given; process locks fail, as they do where there is no /dev/shm.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lambdas.layers.catalogue import FUNCTIONS, PROJECT_LAYER, Artifact
from lambdas.layers.check import stand_for_runtime

LAYERS = ("dbt_redshift", PROJECT_LAYER)
# linux/prctl.h and linux/capability.h
_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE = 1

_DRIVER = """
import time
started = time.perf_counter()
import json, os, sys
given = json.loads(sys.argv[1])
sys.path[:0] = given["path"]
import _multiprocessing

class NoLock:
    SEM_VALUE_MAX = 1
    def __init__(self, *_arguments, **_options):
        raise OSError(38, "Function not implemented")

_multiprocessing.SemLock = NoLock

class Context:
    aws_request_id = "rehearsal"
    function_name = "dbt-runner"
    def get_remaining_time_in_millis(self):
        return given["remaining_seconds"][min(len(answers), len(given["remaining_seconds"]) - 1)] * 1000

answers, codes = [], []
if given["hear"]:
    from lambdas.dbt_runner.workspace import replace_process_locks
    replace_process_locks()
    import dbt.cli.main as dbt_main

    class Heard(dbt_main.dbtRunner):
        def __init__(self, manifest=None, callbacks=None):
            super().__init__(manifest, [*(callbacks or []), lambda event: codes.append(event.info.code)])

    dbt_main.dbtRunner = Heard
from lambdas.dbt_runner.handler import handle
for event in given["events"]:
    answer = handle(event, Context())
    now = time.perf_counter()
    answers.append({"answer": answer, "seconds": now - started, "codes": sorted(set(codes))})
    codes.clear()
    started = now
def can_write(folder):
    try:
        with open(os.path.join(folder, "written"), "w"):
            return True
    except OSError:
        return False
def peak():
    # Of this program alone: getrusage counts what its parent had before it started.
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except OSError:
        return None
result = {
    "answers": answers,
    "peak_bytes": peak(),
    "writable": [folder for folder in given["path"] if can_write(folder)],
    "foreign": sorted(
        name for name, module in list(sys.modules.items())
        if "site-packages" in (getattr(module, "__file__", None) or "")
    ),
}
with open(given["result"], "w") as file:
    json.dump(result, file, default=str)
"""


@dataclass(frozen=True)
class Stage:
    """Unpacked layers and code, and a folder that stands for /tmp."""

    root: Path
    path: tuple[Path, ...]
    temporary: Path


def unpack(artifacts: Mapping[str, Artifact], folder: Path) -> Stage:
    """Unpack both layers of the dbt runner and the functions' code into a tree that cannot be written."""
    root, temporary = folder / "opt", folder / "tmp"
    for name in (*LAYERS, FUNCTIONS):
        with zipfile.ZipFile(artifacts[name].path) as archive:
            archive.extractall(root / name)
    stand_for_runtime(root / "runtime")
    temporary.mkdir(exist_ok=True)
    path = (root / FUNCTIONS, *(root / name / "python" for name in LAYERS), root / "runtime")
    set_writable(root, writable=False)
    return Stage(root, path, temporary)


def set_writable(root: Path, *, writable: bool) -> None:
    """Let nobody write a tree, or its owner."""
    for folder, _folders, files in os.walk(root):
        Path(folder).chmod(0o755 if writable else 0o555)
        for file in files:
            path = Path(folder, file)
            if not path.is_symlink():
                path.chmod(0o644 if writable else 0o444)


def rehearse(
    stage: Stage,
    events: Sequence[Mapping[str, Any]],
    environment: Mapping[str, str],
    *,
    hear: bool = False,
    python: Sequence[str] = (),
    executable: str = sys.executable,
    remaining_seconds: Sequence[int] = (600,),
) -> dict[str, Any]:
    """Run the handler once for each event in one fresh process, which is cold for the first only.

    Returns `{answers: [{answer, seconds, codes}], peak_bytes, writable, foreign, stderr}`. The seconds of the first
    count from the driver's start; `codes` are those of dbt's events, with `hear`; `peak_bytes` is the most memory that
    the process had (Linux). `writable` are folders of the path that could be written, `foreign` modules that came from
    elsewhere: none when all is well. A process that ended by itself leaves `answers` empty. `remaining_seconds` is what
    Lambda says is left at the start of each event, the last for those that follow.
    """
    result = stage.temporary / "rehearsal.json"
    result.unlink(missing_ok=True)
    given = {
        "path": [str(folder) for folder in stage.path],
        "events": list(events),
        "result": str(result),
        "hear": hear,
        "remaining_seconds": list(remaining_seconds),
    }
    done = subprocess.run(
        [executable, "-I", "-S", *python, "-c", _DRIVER, json.dumps(given)],
        env={"TMPDIR": str(stage.temporary), "LANG": "en_US.UTF-8", "TZ": ":UTC", **environment},
        cwd=stage.root / FUNCTIONS,
        capture_output=True,
        text=True,
        # Threads write, and one may cut into another's character.
        errors="replace",
        check=False,
        preexec_fn=bound_by_modes,
    )
    if not result.is_file():
        return {"answers": [], "peak_bytes": None, "writable": [], "foreign": [], "stderr": done.stderr}
    return {**json.loads(result.read_text()), "stderr": done.stderr}


def bound_by_modes() -> None:
    """Make a file's mode count for root as well, in the process that is about to start (Linux)."""
    if os.geteuid() == 0 and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0)
