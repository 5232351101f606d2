"""Handler of the fourth step: exported tables into the Glue catalogue, and into Trino where there is one."""

from __future__ import annotations

import os
from typing import Any

from lambdas.answers import Answer, Event, answering, required, table_names
from runtime.aws import Connection
from runtime.errors import ConfigurationError
from runtime.register import register_tables
from runtime.settings import GOLD_DATABASE, GOLD_LOCATION, TRINO_URL


@answering
def handle(event: Event, _context: Any) -> Answer:
    """Register the event's `tables`, which lie under GOLD_LOCATION."""
    tables = table_names(event)
    if tables is None:
        raise ConfigurationError(f"tables = {tables!r}: a list of table names is needed")
    report = register_tables(
        Connection.from_environment(),
        required(GOLD_LOCATION),
        tables,
        database=required(GOLD_DATABASE),
        trino_url=os.environ.get(TRINO_URL),
    )
    return {"statusCode": 0, "message": f"{len(tables)} tables registered", "report": report.to_dict()}
