"""Record what each role does: `python -m local.privileges.record` rewrites the committed recording.

A platform of its own runs with the recorders in place. The program is deployed into it, twice, since the functions
sign in to the warehouse in two ways; the pipeline runs, by hand and by its schedule, and things go wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import click

from local.inprocess import deploy_in_process, stack_configuration
from local.platform import Platform, emulator_python
from local.privileges.emulator_hook import VARIABLE
from local.privileges.normalise import Seen, calls
from local.privileges.recording import PATH, Call, SignIn, text
from local.process import exclusive, free_port
from runtime.errors import FailedError
from runtime.target import Target, load_target, save_target

ROOT = Path(__file__).parents[2]
STACK = "localstack"
_HOOK = Path(__file__).with_name("emulator_hook.py")
_SECONDS = 300
_RETRY_SECONDS = 0.2


class RecordedPlatform(Platform):
    """The local platform, with each call of emulator and local Redshift in a file."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.calls = home / "calls.jsonl"
        self.calls.touch()
        emulator, redshift = self.emulator, self.redshift
        # The functions run as the emulator's children and ask there for credentials of the warehouse.
        control = free_port()
        (home / "run").mkdir(exist_ok=True)
        (home / "run" / "redshift-control.port").write_text(str(control))
        endpoint = f"http://127.0.0.1:{control}"
        self.emulator = replace(
            emulator,
            command=lambda _port: [str(emulator_python()), str(_HOOK)],
            environment=lambda port: {
                **emulator.environment(port),
                VARIABLE: str(self.calls),
                "AWS_ENDPOINT_URL_REDSHIFT_SERVERLESS": endpoint,
            },
        )
        self.redshift = replace(
            redshift,
            command=lambda port: [
                "local.privileges.redshift_hook" if part == "local.redshift" else part
                for part in redshift.command(port)
            ],
            environment=lambda port: {**redshift.environment(port), VARIABLE: str(self.calls)},
        )

    def mark(self, phase: str, sign_in: SignIn) -> None:
        """Say what happens from here on."""
        with self.calls.open("a") as file:
            file.write(json.dumps({"phase": phase, "sign_in": sign_in}) + "\n")

    def seen(self) -> Iterator[Seen]:
        """Return the lines of the record, each with the phase and the sign-in that it fell into."""
        phase = ""
        sign_in: SignIn = "password"
        for line in self.calls.read_text().splitlines():
            entry = json.loads(line)
            if "phase" in entry:
                phase, sign_in = entry["phase"], entry["sign_in"]
            elif "action" in entry:
                yield Seen(**entry, phase=phase, sign_in=sign_in)


class Session:
    """The steps of a recording, on a platform that runs."""

    def __init__(self, platform: RecordedPlatform, say: Callable[[str], None]) -> None:
        self._platform = platform
        self._say = say
        self._aws = platform.connection()
        self._sign_in: SignIn = "password"

    def run(self) -> None:
        """Take all steps: with a login first, then with temporary credentials."""
        self.deploy("password")
        self.command("seed", "secrets", "seed")
        self.command("failure: no silver table is there", "run", code=1)
        self.command("sample", "sample", "--rows", "100")
        with self.refusing("goldlake-export", "s3:PutObject", "gold/dim_date/_delta_log/*"):
            self.command("failure: a commit is refused", "run", code=2)
        self.deploy("iam")
        where = ["--endpoint-url", str(self._aws.endpoint_url), "--region", str(self._aws.region)]
        self.command("publish", "layers", "publish", "--bucket", self._output("lake_artifacts_bucket"), *where)
        self.earlier_run()
        self.scheduled_run()

    def deploy(self, sign_in: SignIn) -> None:
        """Deploy the program, with functions that sign in this way."""
        self._sign_in = sign_in
        self._mark("deploy")
        home = self._platform.home
        own = {"aws:region": self._aws.region or "", "goldlake:artifactsDir": str(home / "build")}
        done = deploy_in_process(
            project_dir=ROOT,
            stack=STACK,
            configuration=stack_configuration(ROOT, STACK, {**own, "goldlake:signIn": sign_in}),
            aws=self._aws,
            record_file=home / "stacks" / f"{STACK}.resources.json",
            dry_run=False,
        )
        save_target(Target(STACK, self._aws, done.outputs))

    def command(self, phase: str, *arguments: str, code: int = 0) -> str:
        """Run a goldlake command as a user does; raise FailedError when it ends otherwise than it should."""
        self._mark(phase)
        done = subprocess.run(
            [_goldlake(), *arguments],
            cwd=ROOT,
            env={**os.environ, "GOLDLAKE_HOME": str(self._platform.home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        if done.returncode != code:
            raise FailedError(f"goldlake {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}{done.stdout}")
        return done.stdout

    @contextlib.contextmanager
    def refusing(self, role: str, action: str, key: str) -> Iterator[None]:
        """Have a role refused a call on objects of the gold bucket that its policy allows."""
        iam = self._aws.client("iam")
        resource = f"arn:aws:s3:::{self._output('lake_gold_bucket')}/{key}"
        statement = {"Effect": "Deny", "Action": action, "Resource": resource}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_role_policy(RoleName=role, PolicyName="failure", PolicyDocument=document)
        try:
            yield
        finally:
            iam.delete_role_policy(RoleName=role, PolicyName="failure")

    def earlier_run(self) -> None:
        """Have dbt go on with a run that never was: it asks for its artifacts before anything else."""
        self._mark("failure: no artifacts of an earlier run")
        event = {"command": "retry", "run_id": "never"}
        answer = self._aws.client("lambda").invoke(
            FunctionName="goldlake-dbt-runner:live", Payload=json.dumps(event).encode()
        )
        done = json.loads(answer["Payload"].read())
        if "run never has left no" not in done.get("message", ""):
            raise FailedError(f"dbt did not look for the artifacts: {done.get('message')}")

    def scheduled_run(self) -> None:
        """Have the schedule start the pipeline, and wait for the end."""
        self._mark("schedule")
        scheduler, states = self._aws.client("scheduler"), self._aws.client("stepfunctions")
        found = scheduler.get_schedule(Name="goldlake-pipeline")
        machine = found["Target"]["Arn"]
        before = len(states.list_executions(stateMachineArn=machine)["executions"])
        scheduler.update_schedule(
            Name=found["Name"],
            ScheduleExpression="at(2026-01-01T00:00:00)",
            State="ENABLED",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target=found["Target"],
        )
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            runs = states.list_executions(stateMachineArn=machine)["executions"]
            if len(runs) > before and runs[0]["status"] != "RUNNING":
                if runs[0]["status"] != "SUCCEEDED":
                    raise FailedError(f"the scheduled run ended as {runs[0]['status']}")
                return
            time.sleep(_RETRY_SECONDS)
        raise FailedError(f"the schedule started nothing that ended within {_SECONDS} s")

    def _output(self, name: str) -> str:
        return str(load_target(STACK).output(name))

    def _mark(self, phase: str) -> None:
        self._say(f"{phase} (sign-in by {self._sign_in})")
        self._platform.mark(phase, self._sign_in)


def _goldlake() -> str:
    return str(Path(sys.executable).with_name("goldlake"))


def record(home: Path, say: Callable[[str], None] = lambda _line: None) -> list[Call]:
    """Run everything once on a platform in `home` and return the calls, normalised.

    Raises FailedError for a step that ended otherwise than it should.
    """
    build = ROOT / ".goldlake" / "build"
    with exclusive(build.parent):
        subprocess.run([_goldlake(), "layers", "build", "--out", str(build)], cwd=ROOT, check=True, capture_output=True)
    (home / "build").symlink_to(build)
    platform = RecordedPlatform(home)
    platform.up(emulator_port=free_port(), redshift_port=free_port(), say=say)
    before = os.environ.get("GOLDLAKE_HOME")
    os.environ["GOLDLAKE_HOME"] = str(home)
    try:
        Session(platform, say).run()
    finally:
        if before is None:
            del os.environ["GOLDLAKE_HOME"]
        else:
            os.environ["GOLDLAKE_HOME"] = before
        platform.down(say)
    return calls(platform.seen())


def main() -> None:
    """Record anew and rewrite the committed recording."""
    with tempfile.TemporaryDirectory() as folder:
        found = record(Path(folder), lambda line: click.echo(line, err=True))
    PATH.write_text(text(found))
    click.echo(f"{PATH}: {len(found)} calls")


if __name__ == "__main__":
    main()
