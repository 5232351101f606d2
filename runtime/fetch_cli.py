"""`goldlake secrets fetch`, `exec` and `diff`: what is in Secrets Manager, for those that need it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.aws import Connection
from runtime.cli import CONTEXT, DEFAULT_STACK, aws_options, dry_run_option, output_option, say, show_json, show_table
from runtime.env_formats import FORMATS, READABLE_FORMATS, faults, render
from runtime.errors import ConfigurationError
from runtime.target import home, load_target, target_file

if TYPE_CHECKING:
    from runtime.fetch import FetchReport

_prefix_option = click.option("--prefix", default="goldlake", show_default=True, help="First part of the entries' ids.")
_stack_option = click.option(
    "--stack",
    help="The deployed stack whose AWS is asked.  [default: what AWS_ENDPOINT_URL says, else "
    f"{DEFAULT_STACK} if it was deployed from here, else AWS]",
)
_PATH = click.Path(path_type=Path, file_okay=False)


def connection_of(stack: str | None, aws: Connection) -> Connection:
    """Return where the secrets are.

    A container has no stack of its own: with AWS_ENDPOINT_URL it asks an emulator, without it AWS, and nothing else
    changes between the two.
    """
    environment = Connection.from_environment()
    elsewhere = aws.endpoint_url or environment.endpoint_url or aws.profile
    if stack or (not elsewhere and target_file(DEFAULT_STACK).is_file()):
        return load_target(stack or DEFAULT_STACK, overrides=aws).connection
    return Connection(
        endpoint_url=aws.endpoint_url or environment.endpoint_url,
        region=aws.region or environment.region,
        profile=aws.profile or environment.profile,
    )


@click.command("fetch", context_settings=CONTEXT)
@click.argument("profiles", nargs=-1)
@_stack_option
@aws_options
@_prefix_option
@click.option("--dir", "directory", type=_PATH, help="Folder of the files.  [default: .goldlake/secrets]")
@click.option(
    "--format", "fmt", type=click.Choice(list(FORMATS)), default="env", show_default=True, help="Form of the files."
)
@click.option("--namespace", help="Namespace of the Kubernetes Secrets (--format k8s).")
@click.option("--stdout", "to_stdout", is_flag=True, help="Write one profile to a pipe or file, never to a terminal.")
@dry_run_option
@output_option
def fetch_command(
    profiles: tuple[str, ...],
    stack: str | None,
    aws: Connection,
    prefix: str,
    directory: Path | None,
    fmt: str,
    namespace: str | None,
    to_stdout: bool,
    dry_run: bool,
    output: str,
) -> int:
    """Write the secrets of PROFILES to files, of all profiles without any: core.env, data-pipeline.env…

    A profile's file is written when all of it is there, and else stays as it is. Files are for their owner only, and
    never where git would offer to commit them. Values are shown nowhere.

    Exit 0 all files are up to date, 1 a secret or key is missing, 2 something cannot be reached or is forbidden.

    \b
    Examples:
      goldlake secrets fetch
      goldlake secrets fetch core monitoring --dir /secrets
      goldlake secrets fetch core --format k8s --namespace data --stdout | kubectl apply -f -
    """
    from runtime.fetch import fetch

    if to_stdout:
        if directory is not None or dry_run:
            raise ConfigurationError("--stdout writes no files: it goes with neither --dir nor --dry-run")
        _to_stdout(connection_of(stack, aws), profiles, prefix, fmt, namespace)
        return 0
    report = fetch(
        connection_of(stack, aws),
        profiles,
        directory=directory or home() / "secrets",
        prefix=prefix,
        fmt=fmt,
        namespace=namespace,
        dry_run=dry_run,
    )
    if output == "json":
        show_json({**report.to_dict(), "dry_run": dry_run})
    else:
        _show(report, "Dry run" if dry_run else None)
    return report.exit_code


def _show(report: FetchReport, title: str | None) -> None:
    for note in dict.fromkeys([*report.notes, *(note for result in report.profiles for note in result.notes)]):
        say(note)
    rows = [(r.profile, r.outcome, len(r.variables), str(r.file), "; ".join(r.problems)) for r in report.profiles]
    show_table(("profile", "outcome", "variables", "file", "problems"), rows, title)


def _to_stdout(aws: Connection, profiles: tuple[str, ...], prefix: str, fmt: str, namespace: str | None) -> None:
    from runtime.fetch import secret_name
    from runtime.fetch_values import variables

    if len(profiles) != 1:
        raise ConfigurationError("--stdout takes one profile")
    if sys.stdout.isatty():
        raise ConfigurationError(
            "secrets are not shown on a terminal", hint="a pipe behind it, or `goldlake secrets exec`"
        )
    values = variables(aws, profiles, prefix=prefix, faults_of=lambda found: faults(found, fmt))
    text = render(values, fmt, name=secret_name(prefix, profiles[0]), namespace=namespace)
    # As bytes: neither the locale nor the platform's line ends may change a value.
    sys.stdout.buffer.write(text.encode())
    sys.stdout.buffer.flush()


@click.command("exec", context_settings={**CONTEXT, "ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--profile", "profiles", multiple=True, required=True, help="Profile of secrets; may be given again.")
@_stack_option
@click.option("--endpoint-url", help="AWS endpoint.")
@click.option("--region", help="AWS region.")
@click.option("--aws-profile", help="AWS profile.")
@_prefix_option
@click.option("--no-override", is_flag=True, help="Leave variables alone that are set already.")
def exec_command(
    command: tuple[str, ...],
    profiles: tuple[str, ...],
    stack: str | None,
    endpoint_url: str | None,
    region: str | None,
    aws_profile: str | None,
    prefix: str,
    no_override: bool,
) -> None:
    """Run COMMAND with the secrets of profiles in its environment; nothing is written to disk.

    The command takes this one's place: it gets the signals, and its exit code is the exit code. The secrets win over
    variables of the same names.

    Exit as the command, or 1 a secret or key is missing, 2 something cannot be reached or is forbidden, 64 the command
    cannot be run.

    \b
    Examples:
      goldlake secrets exec --profile core -- docker compose up
      goldlake secrets exec --profile core --profile monitoring -- env
    """
    from runtime.fetch_exec import run_with
    from runtime.fetch_values import variables

    aws = connection_of(stack, Connection(endpoint_url, region, aws_profile))
    run_with(variables(aws, profiles, prefix=prefix), command, override=not no_override)


@click.command("diff", context_settings=CONTEXT)
@click.argument("secrets_profile", metavar="PROFILE")
@click.option("--against", "directory", type=_PATH, required=True, help="Folder of the profile's file.")
@click.option(
    "--format", "fmt", type=click.Choice(READABLE_FORMATS), default="env", show_default=True, help="Its form."
)
@_stack_option
@aws_options
@_prefix_option
@output_option
def diff_command(
    secrets_profile: str, directory: Path, fmt: str, stack: str | None, aws: Connection, prefix: str, output: str
) -> int:
    """Which variables of PROFILE's file differ from Secrets Manager, are missing or too many? Names only.

    Exit 0 they are equal, 1 they differ or the file is not there, 2 something cannot be reached or is forbidden.

    \b
    Example:
      goldlake secrets diff core --against .goldlake/secrets
    """
    from runtime.fetch_diff import diff

    report = diff(connection_of(stack, aws), secrets_profile, directory=directory, prefix=prefix, fmt=fmt)
    if output == "json":
        show_json(report.to_dict())
        return report.exit_code
    if not report.exists:
        say(f"{report.file} is not there")
    rows = [(name, "differs") for name in report.differing]
    rows += [(name, "missing in the file") for name in report.missing]
    rows += [(name, "only in the file") for name in report.extra]
    if rows:
        show_table(("variable", "state"), rows, str(report.file))
    else:
        say(f"{report.file} is equal")
    return report.exit_code
