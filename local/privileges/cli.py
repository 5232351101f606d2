"""`goldlake iam`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.cli import CONTEXT, output_option, say, show_json, show_table
from runtime.errors import EXIT_DONE, EXIT_FAILED

if TYPE_CHECKING:
    from local.privileges.prove import Proof


@click.group(context_settings=CONTEXT)
def iam() -> None:
    """What the stack's roles may do, against what they were seen to do."""


@iam.command()
@click.option("--stack", default="dev", show_default=True, help="The stack, deployed or not.")
@click.option("--all", "everything", is_flag=True, help="List each right, not only what is found wrong.")
@output_option
def prove(stack: str, everything: bool, output: str) -> int:
    """Prove least privilege: each recorded call is allowed, each right was needed or has a written reason.

    The calls were recorded while the pipeline ran on the emulator under the roles' own credentials; `python -m
    local.privileges.record` records anew. Read from what the program registers, without an account and without the
    engine. Exit 1 when something is not proven.

    \b
    Examples:
      goldlake iam prove --stack dev
      goldlake iam prove --stack dev --all --output json
    """
    from local.privileges import prove as proof
    from local.privileges.recording import read
    from local.privileges.stack import stack_of

    found = proof.prove(stack_of(Path.cwd(), stack), read(), proof.read_reasons())
    if output == "json":
        show_json(found.to_dict())
        return EXIT_FAILED if found.findings else EXIT_DONE
    if everything:
        rows = [(r.role, r.action, r.resource, r.condition, str(r.calls), r.reason) for r in found.rights]
        show_table(("role", "action", "resource", "condition", "calls", "reason"), rows)
    else:
        show_table(("role", "rights", "recorded", "by written reason"), [_row(name, found) for name in _names(found)])
    for finding in found.findings:
        click.echo(f"{finding.rule}: {finding.role}: {finding.message}")
    say(
        f"{stack}: {len(found.rights)} rights of {found.roles} roles, {len(found.rights) - found.unrecorded} of them "
        f"seen in {found.calls} recorded calls; {found.any_resource} statements for every resource"
    )
    click.echo("proven" if not found.findings else f"not proven: {len(found.findings)} findings")
    return EXIT_FAILED if found.findings else EXIT_DONE


def _names(found: Proof) -> list[str]:
    return sorted({right.role for right in found.rights})


def _row(role: str, found: Proof) -> tuple[str, ...]:
    rights = [right for right in found.rights if right.role == role]
    recorded = sum(right.calls > 0 for right in rights)
    return role, str(len(rights)), str(recorded), str(sum(bool(right.reason) for right in rights))
