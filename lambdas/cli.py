"""`goldlake layers`: build what Lambda runs, look at it, and put it where it is deployed from."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from lambdas.layers import PLATFORMS, Build, build_all
from runtime.aws import Connection
from runtime.cli import CONTEXT, aws_options, dry_run_option, output_option, say, show_json, show_table
from runtime.errors import EXIT_FAILED, ConfigurationError
from runtime.target import home

_FOLDER = click.Path(path_type=Path)


@click.group(context_settings=CONTEXT)
def layers() -> None:
    """Lambda layers and the functions' code."""


def _out(out: Path | None) -> Path:
    return (out or home() / "build").resolve()


@layers.command("build")
@click.option("--out", type=_FOLDER, help="Folder for the zips.  [default: .goldlake/build]")
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
@click.option("--project", type=_FOLDER, help="A dbt project of your own.  [default: dbt_gold]")
@click.option("--bytecode/--no-bytecode", default=True, show_default=True, help="Compile the layers' modules ahead.")
@output_option
def build_command(
    out: Path | None, platform: str | None, python_version: str, project: Path | None, bytecode: bool, output: str
) -> None:
    """Build the layers and the functions' code as reproducible zips; unchanged ones are reused.

    Beside each zip are its bill of materials (CycloneDX) and the licences of its packages.

    \b
    Examples:
      goldlake layers build
      goldlake layers build --platform x86_64 --python-version 3.11
      goldlake layers build --project ../my-dbt-project
    """
    build = Build(
        Path.cwd(), _out(out), platform, python_version, project.resolve() if project else None, bytecode=bytecode
    )
    artifacts = build_all(build, say)
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
        for artifact in artifacts:
            for note in artifact.notes if artifact.reused else ():
                say(f"{artifact.name}: {note}")


@layers.command("check")
@click.option("--out", type=_FOLDER, help="Folder of the zips.  [default: .goldlake/build]")
@output_option
def check_command(out: Path | None, output: str) -> None:
    """Look whether what was built can be deployed: Lambda's limits, metadata, imports, idle pruning rules.

    Builds nothing. Exit code 1 when something is wrong.

    \b
    Examples:
      goldlake layers check
      goldlake layers check --out build --output json
    """
    from lambdas.layers.check import check_all

    findings = check_all(_out(out), say)
    if output == "json":
        show_json({"schema": "goldlake.layers-check/1", "findings": [finding.to_dict() for finding in findings]})
    else:
        rows = [(f.artifact, f.check, f.fault or (f"skipped: {f.skipped}" if f.skipped else "ok")) for f in findings]
        show_table(("artifact", "check", "result"), rows)
    if any(finding.fault for finding in findings):
        sys.exit(EXIT_FAILED)


@layers.command("diff")
@click.argument("before", type=_FOLDER)
@click.argument("after", type=_FOLDER)
@output_option
def diff_command(before: Path, after: Path, output: str) -> None:
    """Show what changed between two folders of builds: packages, files and bytes. Exit code 1 when something did.

    \b
    Examples:
      goldlake layers diff build-of-yesterday .goldlake/build
    """
    from lambdas.layers.diff import diff_all

    found = diff_all(before.resolve(), after.resolve())
    if output == "json":
        show_json({"schema": "goldlake.layers-diff/1", "artifacts": [difference.to_dict() for difference in found]})
    elif found:
        rows = [
            (d.name, len(d.added), len(d.removed), len(d.changed), d.zipped, d.unzipped, ", ".join(d.packages))
            for d in found
        ]
        show_table(("artifact", "files +", "files -", "changed", "bytes zipped", "bytes unzipped", "packages"), rows)
    else:
        say("no difference")
    if found:
        sys.exit(EXIT_FAILED)


@layers.command("publish")
@click.option("--bucket", required=True, help="The bucket of artifacts.")
@click.option("--prefix", default="artifacts/layers", show_default=True, help="Below which they are put.")
@click.option(
    "--versions",
    "layer_prefix",
    metavar="NAME",
    help="Also publish each layer as a version of NAME-<layer>, for functions that the program does not deploy.",
)
@click.option("--out", type=_FOLDER, help="Folder of the zips.  [default: .goldlake/build]")
@aws_options
@dry_run_option
@output_option
def publish_command(
    bucket: str,
    prefix: str,
    layer_prefix: str | None,
    out: Path | None,
    aws: Connection,
    dry_run: bool,
    output: str,
) -> None:
    """Upload zips, bills of materials and licences under the hash of their content. What is there is not sent again.

    The program (`pulumi up`) publishes layers by itself. With --versions this command does it without the program;
    a layer whose content has a version already gets no other.

    \b
    Examples:
      goldlake layers publish --bucket goldlake-artifacts-123456789012-eu-central-1
      goldlake layers publish --bucket my-artifacts --dry-run
      goldlake layers publish --bucket my-artifacts --versions shop
    """
    from lambdas.layers.publish import built, publish, publish_versions

    if layer_prefix is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", layer_prefix):
        raise ConfigurationError(f"--versions {layer_prefix!r}: 1 to 100 letters, digits, dashes and underscores")
    found = built(_out(out))
    given = Connection.from_environment()
    aws = Connection(aws.endpoint_url or given.endpoint_url, aws.region or given.region, aws.profile or given.profile)
    uploads = publish(aws, bucket, [artifact for _target, artifact in found], prefix=prefix, dry_run=dry_run)
    versions = (
        publish_versions(aws, bucket, found, layer_prefix=layer_prefix, prefix=prefix, dry_run=dry_run)
        if layer_prefix
        else []
    )
    if output == "json":
        show_json(
            {
                "schema": "goldlake.layers-publish/1",
                "uploads": [upload.to_dict() for upload in uploads],
                "versions": [version.to_dict() for version in versions],
            }
        )
        return
    show_table(("key", "bytes", "outcome"), [(upload.key, upload.size, upload.outcome) for upload in uploads])
    if versions:
        show_table(
            ("layer", "version", "outcome"),
            [(version.layer, version.arn or "", version.outcome) for version in versions],
        )


@layers.command("lock")
@click.option(
    "--constraints",
    type=_FOLDER,
    default=Path("requirements.txt"),
    show_default=True,
    help="Versions that the tests run with.",
)
def lock_command(constraints: Path) -> None:
    """Pin the layers' packages anew, with hashes, at the versions of the tests' environment.

    \b
    Examples:
      goldlake layers lock
    """
    from lambdas.layers.lock import relock

    if not relock(constraints.resolve(), say):
        say("nothing changed")
