"""`goldlake secrets`: the values in Secrets Manager, from the catalogue."""

from __future__ import annotations

import click

from runtime.aws import Connection
from runtime.cli import (
    CONTEXT,
    DEFAULT_STACK,
    aws_options,
    dry_run_option,
    output_option,
    say,
    show_json,
    show_table,
    stack_option,
)
from runtime.fetch_cli import connection_of, diff_command, exec_command, fetch_command
from runtime.target import load_target

# A warehouse that is made by the stack gets both from Pulumi or AWS.
WAREHOUSE_LOGINS = ("redshift-admin", "redshift-dbt")

_prefix_option = click.option("--prefix", default="goldlake", show_default=True, help="First part of the entries' ids.")
_any_stack_option = click.option(
    "--stack",
    help="The deployed stack whose AWS is asked.  "
    f"[default: what AWS_ENDPOINT_URL says, else {DEFAULT_STACK} if it was deployed from here, else AWS]",
)


@click.group(context_settings=CONTEXT)
def secrets() -> None:
    """Secrets Manager entries: seed their values, fetch them, and look after them."""


for _command in (fetch_command, exec_command, diff_command):
    secrets.add_command(_command)


@secrets.command("seed")
@stack_option
@aws_options
@_prefix_option
@click.option("--only", multiple=True, metavar="NAME", help="Seed this secret only; may be given again.")
@click.option("--rotate", multiple=True, metavar="NAME", help="Give a secret, or secret.key, a new value; repeatable.")
@click.option("--generate", is_flag=True, help="Generate values on an emulator, too, as on AWS itself.")
@click.option("--allow-development-defaults", is_flag=True, help="Let well-known local defaults go to AWS itself.")
@click.option(
    "--workers", type=click.IntRange(1, 10), default=8, show_default=True, help="Entries that are worked on at once."
)
@dry_run_option
@output_option
def seed_command(
    stack: str,
    aws: Connection,
    prefix: str,
    only: tuple[str, ...],
    rotate: tuple[str, ...],
    generate: bool,
    allow_development_defaults: bool,
    workers: int,
    dry_run: bool,
    output: str,
) -> None:
    """Put the declared secrets' values that are not there yet; nothing is written that is equal already.

    Those are the secrets that the stack has entries for (setting moreSecrets), or the ones that --only names.
    On the emulator a value is a default, the same on every machine; on AWS itself it is generated. Values that are
    there stay, unless --rotate names them. OVERRIDE_<KEY> in the environment replaces one value. Values are never
    shown. The warehouse's login is left alone where Pulumi or AWS made its password (setting adminPassword).

    \b
    Examples:
      goldlake secrets seed
      goldlake secrets seed --stack dev --dry-run
      goldlake secrets seed --stack dev --only airflow --rotate airflow.FERNET_KEY
      OVERRIDE_USERNAME=dbt OVERRIDE_PASSWORD=… goldlake secrets seed --stack dev --only redshift-admin
    """
    from runtime.secrets import seed

    target = load_target(stack, overrides=aws)
    results = seed(
        target.connection,
        prefix=prefix,
        allow_development_defaults=allow_development_defaults,
        made_elsewhere=() if target.seeds_warehouse_login else WAREHOUSE_LOGINS,
        dry_run=dry_run,
        only=only or target.secret_entries,
        rotate=rotate,
        generate=generate,
        workers=workers,
        progress=say,
    )
    if output == "json":
        show_json({"schema": "goldlake.seed/1", "dry_run": dry_run, "secrets": [r.to_dict() for r in results]})
    else:
        rows = [(result.name, result.outcome, ", ".join(result.keys)) for result in results]
        show_table(("secret", "outcome", "keys that differ"), rows, "Dry run" if dry_run else None)


@secrets.command("list")
@_any_stack_option
@aws_options
@_prefix_option
@output_option
def list_command(stack: str | None, aws: Connection, prefix: str, output: str) -> int:
    """Show how each declared secret is in Secrets Manager: there or not, its profiles, the age of its value.

    Ends with 2 when one cannot be read, else with 0.

    \b
    Examples:
      goldlake secrets list
      goldlake secrets list --stack dev --output json
    """
    from runtime.errors import EXIT_DONE, EXIT_UNREACHABLE
    from runtime.secrets_states import states

    found = states(connection_of(stack, aws), prefix=prefix)
    if output == "json":
        show_json({"schema": "goldlake.secrets/1", "secrets": [state.to_dict() for state in found]})
    else:
        rows = [
            (
                state.name,
                state.state,
                state.reason or ", ".join(state.keys_missing),
                ", ".join(state.profiles),
                _age(state.age_seconds),
            )
            for state in found
        ]
        show_table(("secret", "state", "keys without a value", "profiles", "age"), rows)
    return EXIT_UNREACHABLE if any(state.state == "unreadable" for state in found) else EXIT_DONE


def _age(seconds: int | None) -> str:
    """Return an age in the largest unit that it fills."""
    if seconds is None:
        return ""
    for name, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {name}"
    return f"{max(seconds, 0)} s"


@secrets.command("doctor")
@_any_stack_option
@aws_options
@_prefix_option
@output_option
def doctor_command(stack: str | None, aws: Connection, prefix: str, output: str) -> int:
    """Find what is wrong when secrets cannot be seeded or fetched: region, endpoint, clock, credentials, permissions.

    Nothing is written and no value is read. Ends with 0 when all is well, 1 when this machine has to be set right
    (region, clock, catalogue), 2 when AWS cannot be reached or refuses.

    \b
    Examples:
      goldlake secrets doctor
      goldlake secrets doctor --stack dev --output json
      goldlake secrets doctor --region eu-west-1 --endpoint-url https://vpce-….secretsmanager.eu-west-1.vpce.amazonaws.com
    """
    from runtime.secrets_doctor import diagnose, exit_code

    checks = []
    for check in diagnose(connection_of(stack, aws), prefix=prefix):
        checks.append(check)
        if output == "text":
            click.echo(f"{check.state:9}  {check.name}: {check.detail}")
            if check.hint:
                click.echo(f"{'':9}  try: {check.hint}")
    if output == "json":
        show_json({"schema": "goldlake.doctor/1", "checks": [check.to_dict() for check in checks]})
    return exit_code(checks)
