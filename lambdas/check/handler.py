"""Handler of the first step: are the silver tables ready?"""

from __future__ import annotations

from typing import Any

from lambdas.answers import Answer, Event, answering, project_dir
from runtime.aws import Connection
from runtime.readiness import check, sources_from_project


@answering
def handle(_event: Event, _context: Any) -> Answer:
    """Check the sources of the dbt project; the answer's `report` is what `goldlake check --output json` prints."""
    report = check(Connection.from_environment(), sources_from_project(project_dir()))
    return {"statusCode": report.exit_code, "message": report.summary, "report": report.to_dict()}
