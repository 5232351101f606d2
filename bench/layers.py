"""Sizes of the layers and what they cost at a cold start: `python -m bench.layers [--rounds 5]`.

Builds everything twice in different folders, with bytecode and without, and compares hashes. Then, from the unpacked
layers, on a local Redshift and an emulator of its own: a cold `dbt debug` through the handler in a fresh interpreter,
and the plain way, `dbt debug` as a subprocess of dbt's own command line from the same layer, with and without bytecode;
a second `debug` in the same process (a warm call); and a cold `compile` with the layer's parse of the project
and without. Each figure is the median of n rounds, the ways in turn, so that a busy machine is busy for all of them.

What each side does: both have a fresh interpreter, the same layers, and `dbt debug --connection`, which reads profile
and project, imports the adapter and runs a statement. The subprocess is given user and password and connects once; its
time ends with its process. The handler beside that loads boto3, reads the login from Secrets Manager, connects once
more before dbt does, and makes answer, log and metrics of the run; its time ends with the answer, after which Lambda
stops the clock. What is put off (lambdas.dbt_runner.imports) is put off by the handler only: that is what is compared.

Prints tables, of them one with the three largest costs that a cold start still has, and a JSON line.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from lambdas.layers import Artifact, Build, build_all
from lambdas.layers.rehearse import Stage, bound_by_modes, rehearse, set_writable, unpack
from local.platform import Platform, ensure_emulator_environment
from local.process import LOOPBACK, free_port
from runtime.aws import DEFAULT_REGION, Connection
from runtime.cli import say, show_table

PASSWORD = "Bench7localonly"  # noqa: S105 - of a database that lives as long as the bench
LOGIN = "bench/login"
MEBI = 1e6
START, IMPORT, RUN, REST = "start: handler, boto3, login", "import of dbt", "dbt debug itself", "workspace, answer, log"
COSTS = 3
BEFORE = frozenset({"boto3", "botocore", "lambdas", "runtime", "s3transfer", "urllib3", "jmespath", "http", "email"})


@contextlib.contextmanager
def platform(folder: Path) -> Iterator[dict[str, str]]:
    """Start an emulator and a local Redshift; yield the handler's environment."""
    ensure_emulator_environment(say)
    emulated = Platform(folder)
    for name in ("tmp", "state", "s3"):
        (folder / "emulator" / name).mkdir(parents=True)
    aws = Connection(f"http://{LOOPBACK}:{emulated.emulator.start(free_port(), say)}", region=DEFAULT_REGION)
    aws.client("secretsmanager").create_secret(
        Name=LOGIN, SecretString=json.dumps({"username": "admin", "password": PASSWORD})
    )
    port, log = free_port(), folder / "redshift.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "local.redshift", "--data", str(folder / "data"), "--port", str(port)],
            env=os.environ | {"GOLDLAKE_LOCAL_REDSHIFT_PASSWORD": PASSWORD},
            stdout=output,
            stderr=output,
        )
    try:
        while "ready on" not in log.read_text():
            if process.poll() is not None:
                raise click.ClickException(log.read_text())
            time.sleep(0.1)
        yield {
            "AWS_ENDPOINT_URL": str(aws.endpoint_url),
            "AWS_REGION": DEFAULT_REGION,
            "REDSHIFT_HOST": LOOPBACK,
            "REDSHIFT_PORT": str(port),
            "REDSHIFT_SSL": "false",
            "REDSHIFT_SECRET": LOGIN,
        }
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        emulated.emulator.stop(say)


def as_subprocess(stage: Stage, environment: Mapping[str, str]) -> None:
    """Run `dbt debug` from the layer by dbt's own command line, as a function that starts dbt as a program would."""
    project = stage.path[2] / "dbt_gold"
    program = (
        f"import sys; sys.path[:0] = {[str(folder) for folder in stage.path]!r}; "
        # Where there is no /dev/shm, the plain way needs the same replacement.
        "from lambdas.dbt_runner.workspace import replace_process_locks; replace_process_locks(); "
        f"sys.argv = ['dbt', 'debug', '--connection', '--project-dir', {str(project)!r}, '--target', 'redshift']; "
        "from dbt.cli.main import cli; cli()"
    )
    given = {
        "TMPDIR": str(stage.temporary),
        "DBT_PROFILES_DIR": str(project),
        "DBT_TARGET_PATH": str(stage.temporary / "target"),
        "DBT_LOG_PATH": str(stage.temporary / "logs"),
        "REDSHIFT_USER": "admin",
        "REDSHIFT_SSLMODE": "disable",
        "DBT_ENV_SECRET_REDSHIFT_PASSWORD": PASSWORD,
    }
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        env={**environment, **given},
        cwd=stage.root,
        capture_output=True,
        text=True,
        check=False,
        # Or root would keep bytecode beside the modules, and the plain layer would be plain for one round only.
        preexec_fn=bound_by_modes,
    )
    if done.returncode != 0:
        raise click.ClickException(f"dbt debug as a subprocess: {done.stdout[-500:]} {done.stderr[-500:]}")


def through_handler(stage: Stage, environment: Mapping[str, str], commands: list[str]) -> list[dict[str, Any]]:
    """Return `{answer, seconds}` of each command in one fresh process."""
    ended = rehearse(stage, [{"command": command} for command in commands], environment)
    found: list[dict[str, Any]] = ended["answers"]
    if [each["answer"]["statusCode"] for each in found] != [0] * len(commands):
        raise click.ClickException(f"{commands}: {json.dumps(ended)[-2000:]}")
    return found


def phases(cold: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of a cold start, one after the other; connecting is beside the import."""
    answer = cold["answer"]
    timings = answer["timings"]
    return {
        START: cold["seconds"] - answer["seconds"],
        IMPORT: timings["import"],
        RUN: timings["run"] + timings["parse"],
        REST: answer["seconds"] - timings["import"] - timings["run"] - timings["parse"],
    }


def remaining_costs(spent: Mapping[str, float], imported: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return what a cold start costs, the largest first: its phases, and the import's by package.

    The packages share the import's measured time by their own: importing takes longer while it is traced.
    """
    traced = sum(imported.values()) or 1.0
    costs = {name: seconds for name, seconds in spent.items() if name != IMPORT}
    costs |= {f"import of {name}": spent[IMPORT] * own / traced for name, own in imported.items()}
    return sorted(costs.items(), key=lambda item: -item[1])


def seconds_of(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def import_seconds(stage: Stage, environment: Mapping[str, str]) -> dict[str, float]:
    """Return the seconds that each package's own modules take while dbt is imported."""
    ended = rehearse(stage, [{"command": "debug"}], environment, python=("-X", "importtime"))
    spent: dict[str, float] = collections.defaultdict(float)
    for line in ended["stderr"].splitlines():
        found = re.match(r"import time:\s+(\d+) \|\s+\d+ \| +(\S+)", line)
        package = found[2].split(".")[0] if found else ""
        # The handler's own modules and AWS's client are loaded before.
        if found and package not in BEFORE:
            spent[package] += int(found[1]) / MEBI
    return dict(spent)


@click.command()
@click.option("--rounds", default=5, show_default=True)
def main(rounds: int) -> None:
    """Build, compare, unpack, measure."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="goldlake-bench-") as name:
        folder = Path(name)
        builds: dict[str, dict[str, Artifact]] = {}
        for kind, out, bytecode in (
            ("bytecode", "one", True),
            ("again", "another/place", True),
            ("plain", "plain", False),
        ):
            say(f"building: {kind}")
            made = build_all(Build(Path.cwd(), folder / out, bytecode=bytecode))
            builds[kind] = {artifact.name: artifact for artifact in made}
        stages = {kind: unpack(builds[kind], folder / f"stage-{kind}") for kind in ("bytecode", "plain")}
        measured: dict[str, list[float]] = collections.defaultdict(list)
        parts: dict[str, list[float]] = collections.defaultdict(list)
        with platform(folder / "platform") as environment:
            for turn in range(rounds):
                say(f"round {turn + 1}")
                for kind, stage in stages.items():
                    cold, warm = through_handler(stage, environment, ["debug", "debug"])
                    measured[f"debug, handler, cold, {kind}"].append(cold["seconds"])
                    measured[f"debug, handler, warm, {kind}"].append(warm["seconds"])
                    for part, seconds in phases(cold).items() if kind == "bytecode" else ():
                        parts[part].append(seconds)
                    taken = seconds_of(functools.partial(as_subprocess, stage, environment))
                    measured[f"debug, subprocess, {kind}"].append(taken)
                for taking, label in (("true", "layer's parse"), ("false", "parses anew")):
                    given = {**environment, "DBT_PARTIAL_PARSE": taking}
                    compiled = through_handler(stages["bytecode"], given, ["compile"])
                    measured[f"compile, handler, cold, {label}"].append(compiled[0]["seconds"])
            imported = import_seconds(stages["bytecode"], environment)
        for stage in stages.values():
            set_writable(stage.root, writable=True)
        spent = {part: statistics.median(found) for part, found in parts.items()}
        report(builds, measured, spent, remaining_costs(spent, imported), load)


def report(
    builds: Mapping[str, Mapping[str, Artifact]],
    measured: Mapping[str, list[float]],
    spent: Mapping[str, float],
    costs: list[tuple[str, float]],
    load: float,
) -> None:
    """Print tables and one JSON line."""
    rows = [
        (
            name,
            f"{found.zipped / MEBI:.1f}",
            f"{found.unzipped / MEBI:.1f}",
            f"{builds['plain'][name].zipped / MEBI:.1f}",
            f"{builds['plain'][name].unzipped / MEBI:.1f}",
            "same" if found.sha256 == builds["again"][name].sha256 else "DIFFERENT",
            found.sha256[:16],
        )
        for name, found in builds["bytecode"].items()
    ]
    show_table(("artifact", "zipped MB", "unzipped", "plain zipped", "plain unzipped", "two builds", "sha256"), rows)
    medians = {name: statistics.median(found) for name, found in measured.items()}
    show_table(("what", "median s"), [(name, f"{seconds:.2f}") for name, seconds in medians.items()])
    show_table(("cold debug, bytecode", "median s"), [(name, f"{seconds:.2f}") for name, seconds in spent.items()])
    show_table(("largest remaining costs", "s"), [(name, f"{seconds:.2f}") for name, seconds in costs[:COSTS]])
    ratio = medians["debug, handler, cold, bytecode"] / medians["debug, subprocess, bytecode"]
    result = {
        "bench": "layers",
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "artifacts": {
            name: {
                "zipped": found.zipped,
                "unzipped": found.unzipped,
                "plain_zipped": builds["plain"][name].zipped,
                "plain_unzipped": builds["plain"][name].unzipped,
                "same_twice": found.sha256 == builds["again"][name].sha256,
            }
            for name, found in builds["bytecode"].items()
        },
        "seconds": {name: round(seconds, 3) for name, seconds in medians.items()},
        "handler_to_subprocess": round(ratio, 3),
        "cold": {name: round(seconds, 3) for name, seconds in spent.items()},
        "largest_costs": {name: round(seconds, 3) for name, seconds in costs[:COSTS]},
    }
    click.echo(json.dumps(result))


if __name__ == "__main__":
    main()
