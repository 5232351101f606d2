"""Memory and /tmp of the dbt runner: `python -m bench.layers_memory [--rows 20000 --rows 200000]`.

For each number of postings: a fresh local Redshift with so many in silver, and in one process, from the unpacked
layers, a first and a second `dbt build` of the gold project through the handler. The memory is the most that the
process had resident; what is in its temporary folder is looked at all the time. Prints a table and a JSON line.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import click

from lambdas.layers import Build, build_all
from lambdas.layers.rehearse import Stage, rehearse, set_writable, unpack
from local.platform import Platform, ensure_emulator_environment
from local.process import free_port
from runtime.aws import DEFAULT_REGION, Connection
from runtime.cli import say, show_table
from tests.local.layers_support import running_place

# The function's own by default, and Lambda's /tmp.
LIMIT_BYTES = 512 * 2**20


class Watched:
    """The most bytes that files below a folder took, seen by a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.bytes = 0
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            # os.walk passes over folders that have just gone.
            found = (Path(folder, file) for folder, _folders, files in os.walk(self._folder) for file in files)
            self.bytes = max(self.bytes, sum(size_of(path) for path in found))


def size_of(path: Path) -> int:
    """Return a file's bytes, 0 for what has just been removed."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def measure(stage: Stage, aws: Connection, folder: Path, rows: int) -> dict[str, Any]:
    """Build twice over so many postings; return what it took."""
    folder.mkdir()
    events = [{"command": "build"}, {"command": "build"}]
    with running_place(aws, folder, rows) as place, Watched(stage.temporary) as seen:
        ended = rehearse(stage, events, place.environment, remaining_seconds=(900,))
    answers = [found["answer"] for found in ended["answers"]]
    if [answer["statusCode"] for answer in answers] != [0, 0]:
        raise click.ClickException(json.dumps(answers)[-2000:] + ended["stderr"])
    return {
        "rows": rows,
        "peak_mb": round(ended["peak_bytes"] / 1e6, 1),
        "tmp_mb": round(seen.bytes / 1e6, 1),
        "first_s": answers[0]["seconds"],
        "second_s": answers[1]["seconds"],
        "slowest": {
            node["unique_id"].split(".")[2]: node["seconds"]
            for node in sorted(answers[0]["results"], key=lambda node: -(node["seconds"] or 0))[:8]
        },
    }


@click.command()
@click.option("--rows", multiple=True, type=int, default=(20_000, 200_000), show_default=True)
def main(rows: tuple[int, ...]) -> None:
    """Build the layers, unpack them, measure."""
    load = os.getloadavg()[0]
    ensure_emulator_environment(say)
    with tempfile.TemporaryDirectory(prefix="goldlake-bench-") as name:
        folder = Path(name)
        built = build_all(Build(Path.cwd(), Path.cwd() / ".goldlake" / "build"), say)
        stage = unpack({artifact.name: artifact for artifact in built}, folder / "lambda")
        emulated = Platform(folder)
        for part in ("tmp", "state", "s3"):
            (folder / "emulator" / part).mkdir(parents=True)
        aws = Connection(f"http://127.0.0.1:{emulated.emulator.start(free_port(), say)}", region=DEFAULT_REGION)
        try:
            found = [measure(stage, aws, folder / f"rows{count}", count) for count in rows]
        finally:
            emulated.emulator.stop(say)
            set_writable(stage.root, writable=True)
    show_table(
        ("postings", "peak MB", "temporary MB", "first build s", "second build s"),
        [(each["rows"], each["peak_mb"], each["tmp_mb"], each["first_s"], each["second_s"]) for each in found],
    )
    within = all(max(each["peak_mb"], each["tmp_mb"]) * 1e6 < LIMIT_BYTES for each in found)
    loads = [round(load, 1), round(os.getloadavg()[0], 1)]
    click.echo(json.dumps({"bench": "layers_memory", "load": loads, "within_512_mb": within, "measured": found}))


if __name__ == "__main__":
    main()
