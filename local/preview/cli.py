"""`goldlake preview` and `goldlake graph`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from runtime.cli import CONTEXT, report_option, say, show_json
from runtime.errors import EXIT_DONE

if TYPE_CHECKING:
    from local.graph import Level

# The kinds of local.preview.guard; a test keeps them equal, and `--help` imports no Pulumi.
KINDS = ("replace-data-store", "delete-data-store", "widen-policy")


class Kinds(click.ParamType[tuple[str, ...]]):
    """A list of kinds of change, with commas between them."""

    name = "kinds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the kinds. A kind that there is not is a usage error, or the guard would guard nothing."""
        if isinstance(value, tuple):
            return value
        kinds = tuple(dict.fromkeys(part.strip() for part in str(value).split(",") if part.strip()))
        unknown = sorted(set(kinds) - set(KINDS))
        if unknown or not kinds:
            self.fail(f"{', '.join(unknown) or repr(value)} is none of {', '.join(KINDS)}", param, ctx)
        return kinds


@click.command(context_settings=CONTEXT)
@click.option("--stack", default="dev", show_default=True, help="The stack, deployed or not.")
@click.option(
    "--base",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Compare with this snapshot, e.g. the main branch's.  [default: tests/snapshots/<stack>.json]",
)
@click.option("--update", is_flag=True, help="Write the stack's snapshot anew.")
@click.option(
    "--fail-on",
    type=Kinds(),
    default=(),
    help=f"Exit 1 when the change does one of these, commas between: {', '.join(KINDS)}.",
)
@report_option
def preview(stack: str, base: Path | None, update: bool, fail_on: tuple[str, ...], output: str) -> int:
    """Show what a stack would register, and what differs from its committed snapshot.

    From the program alone, without an account, the engine or a network: `pulumi preview` compares with what is really
    deployed. Secrets are masked. Exit 1 when --fail-on finds something.

    \b
    Examples:
      goldlake preview --stack dev
      goldlake preview --stack dev --update
      goldlake preview --stack dev --base main.json --fail-on replace-data-store,delete-data-store,widen-policy
      goldlake preview --stack dev --format markdown
    """
    from local.preview import show
    from local.preview.preview import preview as preview_of
    from local.preview.preview import snapshot_path
    from local.preview.snapshot import write

    project = Path.cwd()
    found = preview_of(project, stack, base=base, fail_on=fail_on)
    if output == "json":
        show_json(found.to_dict())
    elif output == "markdown":
        from local.preview.comment import sections

        click.echo(show.markdown(found, sections(project, found)), nl=False)
    else:
        click.echo("\n".join(show.text(found)))
    if update:
        path = snapshot_path(project, stack)
        write(found.snapshot, path)
        say(f"written: {path.relative_to(project)}")
    if found.findings:
        say(f"goldlake: --fail-on found {len(found.findings)}, see above: {', '.join(found.kinds())}")
        return 1
    return EXIT_DONE


@click.command(context_settings=CONTEXT)
@click.option("--stack", default="dev", show_default=True, help="The stack, deployed or not.")
@click.option(
    "--level",
    type=click.Choice(["unit", "component", "resource"]),
    default="unit",
    show_default=True,
    help="What is a box.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["mermaid", "dot", "svg", "json"]),
    default="mermaid",
    show_default=True,
    help="Language of the diagram; svg is a picture, and json the boxes and arrows.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write it to this file.")
def graph(stack: str, level: str, form: str, out: Path | None) -> None:
    """Draw what a stack registers: an arrow leads from what must be there first to what needs it.

    \b
    Examples:
      goldlake graph --stack dev
      goldlake graph --stack dev --level component --format svg --out dev.svg
    """
    import json

    from local import graph as diagrams
    from local.preview.snapshot import snapshot_of
    from local.recording import record_stack
    from runtime.target import write_atomically

    snapshot = snapshot_of(record_stack(Path.cwd(), stack).resources)
    found = diagrams.graph_of(snapshot, stack, cast("Level", level))
    drawn = {"mermaid": diagrams.mermaid, "dot": diagrams.dot, "svg": diagrams.svg}
    text = drawn[form](found) if form in drawn else json.dumps(found.to_dict(), indent=2)
    if out is None:
        click.echo(text)
    else:
        write_atomically(out, f"{text}\n", mode=0o644)
        say(f"written: {out}")
