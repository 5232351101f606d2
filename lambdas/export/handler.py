"""Handler of the third step: gold tables of the warehouse to Delta Lake."""

from __future__ import annotations

from typing import Any

from lambdas.answers import Answer, Event, answering, required, table_names
from runtime.aws import Connection
from runtime.export import export_tables
from runtime.settings import GOLD_LOCATION
from runtime.warehouse import Warehouse


@answering
def handle(event: Event, _context: Any) -> Answer:
    """Export all tables of the gold schema, or the event's `tables`, under GOLD_LOCATION."""
    aws = Connection.from_environment()
    report = export_tables(
        Warehouse.from_environment(aws),
        aws,
        required(GOLD_LOCATION),
        tables=table_names(event),
        run_id=event.get("run_id"),
    )
    names = [table.table for table in report.tables]
    return {
        "statusCode": 0,
        "message": f"{len(names)} tables exported",
        "table_names": names,
        "report": report.to_dict(),
    }
