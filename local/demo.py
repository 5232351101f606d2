"""`make run`: the whole way from nothing to registered gold tables, and where to look next."""

from __future__ import annotations

import sys
import time

import click

from local.platform import Platform
from runtime.cli import app
from runtime.target import home, load_target

STEPS = (
    ("local platform", ["local", "up"]),
    ("layers", ["layers", "build"]),
    ("deployment", ["deploy", "--stack", "localstack"]),
    ("secrets", ["secrets", "seed"]),
    ("sample data", ["sample", "--rows", "5000"]),
    ("pipeline", ["run"]),
)


def main() -> int:
    """Run all steps in order; stop at the first that fails and return its exit code."""
    started = time.monotonic()
    for title, arguments in STEPS:
        click.secho(f"\n== {title}: goldlake {' '.join(arguments)}", bold=True)
        try:
            app(arguments)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
            if code != 0:
                return code
    _where_to_look(time.monotonic() - started)
    return 0


def _where_to_look(seconds: float) -> None:
    target = load_target("localstack")
    port = Platform(home()).warehouse_port()
    click.secho(f"\nDone in {seconds:.0f} s. Where to look next:", bold=True)
    click.echo(
        f"""
  Gold tables (Delta Lake)   {target.gold_location}/<table>   at {target.connection.endpoint_url}
  Query them with DuckDB     .venv/bin/goldlake query "select * from gold.agg_daily_postings order by 1 desc limit 5"
  The local warehouse        psql "host=127.0.0.1 port={port} dbname=analytics user=admin sslmode=disable"
                             (password: the key `password` of secret goldlake/redshift-admin)
  New data, then run again   .venv/bin/goldlake sample --seed 2 --append && .venv/bin/goldlake run
  The services               .venv/bin/goldlake local status | logs emulator | logs redshift | down
"""  # noqa: S608 - shown, not run
    )


if __name__ == "__main__":
    sys.exit(main())
