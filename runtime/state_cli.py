"""`goldlake state`: the backend that all stacks keep their state in."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runtime.aws import Connection
from runtime.cli import CONTEXT, aws_options, dry_run_option, output_option, say, show_json, show_table
from runtime.errors import ConfigurationError
from runtime.target import home


@click.group(context_settings=CONTEXT)
def state() -> None:
    """Where Pulumi keeps its state: make it, check it, and see who holds it locked."""


_prefix_option = click.option(
    "--prefix", default="goldlake", show_default=True, help="First part of the backend's names (goldlake:prefix)."
)
_bucket_option = click.option("--bucket", help="The state bucket.  [default: <prefix>-state-<account>-<region>]")


@state.command("bootstrap")
@aws_options
@_prefix_option
@click.option("--owner", help="Who answers for the backend, its tag Owner; needed the first time.")
@click.option("--cost-centre", help="Who pays for it, its tag CostCentre; needed the first time.")
@click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    help="Folder of Pulumi.yaml.  [default: this one]",
)
@dry_run_option
@output_option
def bootstrap_command(
    aws: Connection,
    prefix: str,
    owner: str | None,
    cost_centre: str | None,
    project: Path,
    dry_run: bool,
    output: str,
) -> int:
    """Make the state backend, once for an account, and say how Pulumi uses it.

    The stack of the backend itself is kept in a local folder, .goldlake/state-backend: keep it. Without it the backend
    still works; it can then be checked here, and no longer changed.

    \b
    Examples:
      goldlake state bootstrap --owner data-platform --cost-centre 4711 --dry-run
      goldlake state bootstrap --owner data-platform --cost-centre 4711
    """
    from runtime.state_bootstrap import BootstrapOptions, bootstrap

    options = BootstrapOptions(prefix=prefix, owner=owner, cost_centre=cost_centre, dry_run=dry_run)
    result = bootstrap(aws, project_dir=project.resolve(), home=home(), options=options, say=say)
    if output == "json":
        show_json({**result.to_dict(), "dry_run": dry_run})
        return result.exit_code
    if result.report:
        show_table(("check", "passed", "detail"), [(f.name, _yes(f.ok), f.detail) for f in result.report.findings])
        say(result.report.summary)
    if dry_run and result.outcome == "previewed":
        say("Dry run: nothing was made. Afterwards, for every stack:")
    click.echo(result.login)
    click.echo(result.stack_init)
    return result.exit_code


@state.command("check")
@aws_options
@_prefix_option
@_bucket_option
@click.option("--lock-table", help='DynamoDB lock table, "" for none.  [default: <prefix>-locks if there is one]')
@click.option("--key-alias", help='Alias of the secrets\' key, "" for none.  [default: alias/<prefix>-pulumi]')
@output_option
def check_command(
    aws: Connection, prefix: str, bucket: str | None, lock_table: str | None, key_alias: str | None, output: str
) -> int:
    """Does every hardening of the state backend hold on the live account? Exit 0 all, 1 not all, 2 cannot be reached.

    What may not be read counts as not held.

    \b
    Examples:
      goldlake state check
      goldlake state check --bucket some-state --lock-table some-locks --key-alias ""
    """
    from runtime.state import check_state, existing_table, state_bucket

    report = check_state(
        aws,
        bucket or state_bucket(aws, prefix),
        lock_table=existing_table(aws, f"{prefix}-locks") if lock_table is None else lock_table,
        key_alias=f"alias/{prefix}-pulumi" if key_alias is None else key_alias,
    )
    if output == "json":
        show_json(report.to_dict())
    else:
        show_table(("check", "passed", "detail"), [(f.name, _yes(f.ok), f.detail) for f in report.findings])
        say(report.summary)
    return report.exit_code


@state.command("locks")
@aws_options
@_prefix_option
@_bucket_option
@click.option("--stack", help="Only this stack's locks: <stack>, <project>/<stack> or all three parts.")
@click.option("--clear", is_flag=True, help="Delete the locks that are listed, after asking.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@dry_run_option
@output_option
def locks_command(
    aws: Connection,
    prefix: str,
    bucket: str | None,
    stack: str | None,
    clear: bool,
    yes: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Who holds which stack locked, and since when.

    A lock is left behind when `pulumi up` is killed. Clear it only when its holder has ended: two runs at once break
    the state.

    \b
    Examples:
      goldlake state locks
      goldlake state locks --stack dev --clear
    """
    from runtime.state import state_bucket
    from runtime.state_locks import LOCKS_SCHEMA, Lock, clear_lock, list_locks

    name = bucket or state_bucket(aws, prefix)
    locks = [lock for lock in list_locks(aws, name) if stack is None or f"/{lock.stack}".endswith(f"/{stack}")]
    cleared: list[Lock] = []
    if output == "text":
        columns = ("stack", "holder", "since", "age", "object")
        show_table(columns, [(k.stack, k.holder, f"{k.since:%F %T %Z}", _age(k.age_seconds), k.key) for k in locks])
        say(f"{_count(len(locks))} in {name}")
    if clear and locks and not dry_run:
        if not yes:
            _confirm(len(locks))
        for lock in locks:
            there = clear_lock(aws, name, lock)
            cleared += [lock] if there else []
            say(f"{'cleared' if there else 'already released'}: {lock.key}")
    if output == "json":
        show_json(
            {
                "schema": LOCKS_SCHEMA,
                "bucket": name,
                "dry_run": dry_run,
                "locks": [lock.to_dict() for lock in locks],
                "cleared": [lock.key for lock in cleared],
            }
        )


def _confirm(count: int) -> None:
    """Ask a person. Raises ConfigurationError where there is none, click.Abort when the answer is no."""
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "clearing locks needs a confirmation, and there is nobody to ask", hint="goldlake state locks --clear --yes"
        )
    click.confirm(f"Have the holders ended? Delete {_count(count)}?", abort=True, err=True)


def _count(locks: int) -> str:
    return "1 lock" if locks == 1 else f"{locks} locks"


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def _age(seconds: int) -> str:
    """Return an age in its two largest units."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for name, size in units:
        count, seconds = divmod(seconds, size)
        if count or (name == "s" and not parts):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])
