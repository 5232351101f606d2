"""`goldlake layers`: build what Lambda runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lambdas.layers import PLATFORMS, Build, build_all
from runtime.cli import CONTEXT, output_option, say, show_json, show_table
from runtime.target import home


@click.group(context_settings=CONTEXT)
def layers() -> None:
    """Lambda layers and the functions' code."""


@layers.command("build")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the zips.  [default: .goldlake/build]")
@click.option(
    "--platform",
    type=click.Choice(sorted(PLATFORMS)),
    help="Lambda architecture; without it this machine's, which the emulator runs.",
)
@click.option(
    "--python-version",
    default=f"{sys.version_info.major}.{sys.version_info.minor}",
    help="Python of the functions.  [default: this one]",
)
@output_option
def build_command(out: Path | None, platform: str | None, python_version: str, output: str) -> None:
    """Build the layers and the functions' code as reproducible zips; unchanged ones are reused.

    \b
    Examples:
      goldlake layers build
      goldlake layers build --platform x86_64 --python-version 3.11
    """
    folder = (out or home() / "build").resolve()
    artifacts = build_all(Build(Path.cwd(), folder, platform, python_version), say)
    if output == "json":
        show_json({"schema": "goldlake.layers/1", "artifacts": [artifact.to_dict() for artifact in artifacts]})
    else:
        rows = [
            (
                a.name,
                f"{a.zipped / 1e6:.1f}",
                f"{a.unzipped / 1e6:.1f}",
                "reused" if a.reused else "built",
                a.path.name,
            )
            for a in artifacts
        ]
        show_table(("artifact", "MB zipped", "MB unzipped", "outcome", "file"), rows)
