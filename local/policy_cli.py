"""`goldlake policy`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from local.pages import markdown_table
from runtime.cli import CONTEXT, report_option, say, show_json, show_table

if TYPE_CHECKING:
    from local.policy import PolicyReport


@click.command(context_settings=CONTEXT)
@click.option("--stack", default="dev", show_default=True, help="The stack, deployed or not.")
@click.option("--rule", "ids", multiple=True, metavar="ID", help="Only this rule; may be given again.")
@click.option("--list", "listed", is_flag=True, help="List the rules, and check nothing.")
@report_option
def policy(stack: str, ids: tuple[str, ...], listed: bool, output: str) -> int:
    """Check what a stack registers against the rules of policies/.

    Needs no account and no engine. Exit 0 when nothing breaks a rule of severity error, 1 when something does.

    \b
    Examples:
      goldlake policy --stack dev
      goldlake policy --stack dev --rule no-wildcard-action --output json
      goldlake policy --list
    """
    from local.policy import check_stack, chosen

    rules = chosen(ids)
    if listed:
        _list(output, [(rule.id, rule.severity, rule.title, rule.source) for rule in rules])
        return 0
    report = check_stack(Path.cwd(), stack, rules)
    if output == "json":
        show_json({"schema": "goldlake.policy/1", "stack": stack, **report.to_dict()})
    elif output == "markdown":
        click.echo(markdown(report))
    else:
        _show(report)
    return 1 if report.errors else 0


def _list(output: str, rules: list[tuple[str, ...]]) -> None:
    columns = ("rule", "severity", "title", "source")
    if output == "json":
        found = [dict(zip(columns, rule, strict=True)) for rule in rules]
        show_json({"schema": "goldlake.policy/1", "rules": found})
    elif output == "markdown":
        click.echo(markdown_table(columns, rules))
    else:
        show_table(columns, rules)


def _show(report: PolicyReport) -> None:
    if report.violations:
        rows = [(f.severity, f.rule, f.resource, f"{f.message}. {f.remediation}") for f in report.violations]
        show_table(("severity", "rule", "resource", "what is wrong, and what to do"), rows)
    if report.exempted:
        exempted = [
            (f.violation.rule, f.violation.resource, f.exemption.until or "", f.exemption.reason)
            for f in report.exempted
        ]
        show_table(("exempted from", "resource", "until", "because"), exempted)
    say(summary(report))


def summary(report: PolicyReport) -> str:
    """Return the report in a line."""
    errors, warnings = len(report.errors), len(report.violations) - len(report.errors)
    return (
        f"{report.rules_checked} rules over {report.resources_checked} resources: "
        f"{errors} errors, {warnings} warnings, {len(report.exempted)} exempted"
    )


def markdown(report: PolicyReport) -> str:
    """Return the report for a pull request."""
    lines = [summary(report)]
    if report.violations:
        rows = [
            (f.severity, f"`{f.rule}`", f"`{f.resource}`", f"{f.message}. {f.remediation}") for f in report.violations
        ]
        lines += ["", markdown_table(("severity", "rule", "resource", "what is wrong, and what to do"), rows)]
    return "\n".join(lines)
