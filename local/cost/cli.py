"""`goldlake cost`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.cli import CONTEXT, report_option, show_json, show_table

if TYPE_CHECKING:
    from local.cost.stack import StackCost


@click.command(context_settings=CONTEXT)
@click.option("--stack", default="dev", show_default=True, help="The stack, deployed or not.")
@click.option(
    "--rpu-hours",
    type=float,
    help="RPU-hours that the warehouse uses a DAY: 15 minutes at 4 RPU are 1, an hour at 8 RPU is 8.  "
    "[default: runs, their minutes and baseCapacity]",
)
@click.option("--hours-per-day", type=float, help="The same as hours a day at the base capacity.")
@click.option("--explain", is_flag=True, help="Show every charge with its units and its price.")
@report_option
def cost(stack: str, rpu_hours: float | None, hours_per_day: float | None, explain: bool, output: str) -> None:
    """Estimate what a stack costs a month, and what would lower it.

    Read from what the program registers, the setting usage and a table of prices (docs/cost.md), without an account
    and without the engine. Taxes, discounts and AWS's credits for new accounts are not in it.

    \b
    Examples:
      goldlake cost --stack dev
      goldlake cost --stack dev --rpu-hours 1.5
      goldlake cost --stack prod.example --hours-per-day 2 --explain
    """
    from local.cost import report
    from local.cost.stack import cost_of

    found = cost_of(Path.cwd(), stack, rpu_hours_per_day=rpu_hours, hours_per_day=hours_per_day)
    if output == "json":
        show_json(report.to_dict(found))
    elif output == "markdown":
        click.echo(report.markdown(found))
    else:
        _show(found, explain=explain)


def _show(found: StackCost, *, explain: bool) -> None:
    from local.cost import report

    title = f"{found.stack}, {found.estimate.region}: USD a month"
    show_table(report.UNIT_COLUMNS, report.unit_rows(found.estimate), title=title)
    for words in report.assumptions(found):
        click.echo(words)
    click.echo()
    if explain:
        show_table(report.LINE_COLUMNS, report.line_rows(found.estimate), title="Every charge of half a cent or more")
    if any(charge.price == "redshift-rpu-hour" for charge in found.estimate.charges):
        columns = ("warehouse at work", "low", "high", "of it, the work")
        show_table(columns, report.hour_rows(found), title="At other hours")
    rows = report.saving_rows(found)
    if rows:
        show_table(report.SAVING_COLUMNS, rows, title="What to switch to pay less (USD a month, each by itself)")
    columns = report.REFERENCE_COLUMNS
    show_table(columns, report.reference_rows(), title="8 RPU at 1 to 2 hours a day, USD a month")
    click.echo(report.reference_words())
