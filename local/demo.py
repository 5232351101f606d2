"""`make run`: the whole way from nothing to registered gold tables, and where to look next."""

from __future__ import annotations

import sys
import time

import click

from local.platform import Platform
from runtime.cli import app
from runtime.errors import EXIT_FAILED
from runtime.target import home, load_target

PREPARATION = (
    ("local platform", ["local", "up"]),
    ("layers", ["layers", "build"]),
    ("deployment", ["deploy", "--stack", "localstack"]),
    ("secrets", ["secrets", "seed"]),
)


def main() -> int:
    """Run all steps in order; stop at the first that fails and return its exit code.

    Silver tables that are ready, yours or an earlier sample, are left as they are.
    """
    started = time.monotonic()
    for title, arguments in PREPARATION:
        code = _step(title, arguments)
        if code != 0:
            return code
    code = _step("silver tables", ["check"])
    pipeline = ["run"]
    if code == EXIT_FAILED:
        code = _step("sample data", ["sample", "--rows", "5000"])
        # Facts of data that is there no more would point to companies that are gone.
        pipeline.append("--full-refresh")
    if code == 0:
        code = _step("pipeline", pipeline)
    if code == 0:
        _where_to_look(time.monotonic() - started)
    return code


def _step(title: str, arguments: list[str]) -> int:
    """Run one goldlake command in this process and return its exit code."""
    click.secho(f"\n== {title}: goldlake {' '.join(arguments)}", bold=True)
    try:
        app(arguments)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else EXIT_FAILED
    return 0


def _where_to_look(seconds: float) -> None:
    target = load_target("localstack")
    port = Platform(home()).warehouse_port()
    click.secho(f"\nDone in {seconds:.0f} s. Where to look next:", bold=True)
    click.echo(
        f"""
  Gold tables (Delta Lake)   {target.gold_location}/<table>
                             on the emulator, {target.connection.endpoint_url}
  Query them with DuckDB     .venv/bin/goldlake query "from gold.agg_daily_postings order by posted_date desc limit 5"
  The local warehouse        .venv/bin/goldlake local psql -c "table gold.dim_company limit 5"
                             (any client that speaks Redshift or PostgreSQL: 127.0.0.1:{port}, database
                             analytics, user admin, no TLS; the login is the secret goldlake/redshift-admin)
  New data, then run again   .venv/bin/goldlake sample --rows 500 --seed 2 --append && .venv/bin/goldlake run
  The services               .venv/bin/goldlake local status | logs emulator | logs redshift | down
"""
    )


if __name__ == "__main__":
    sys.exit(main())
