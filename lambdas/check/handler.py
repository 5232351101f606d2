"""Handler of the first step: are the silver tables ready?"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from lambdas.answers import Answer, Event, answering, project_dir
from runtime.aws import Connection
from runtime.readiness import check, metrics, sources_from_project


@answering
def handle(_event: Event, _context: Any) -> Answer:
    """Check the sources of the dbt project; the answer's `report` is what `goldlake check --output json` prints.

    How many tables are ready goes to CloudWatch as metrics, by a line of output that its logs understand.
    """
    report = check(Connection.from_environment(), sources_from_project(project_dir()))
    # The name that Lambda itself uses for the function's own metrics; the environment has it under Lambda only.
    dimensions = {"FunctionName": os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "local")}
    sys.stdout.write(json.dumps(metrics(report, dimensions)) + "\n")
    return {"statusCode": report.exit_code, "message": report.summary, "report": report.to_dict()}
