"""What goes to the function's log: dbt's events as lines of JSON, and numbers that CloudWatch makes metrics of.

The keys of a line are those of Powertools for AWS Lambda, so its queries work. The library itself is not in the layer:
a line takes the few statements below, and each cold start would load it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

METRICS_NAMESPACE = "Goldlake"
SERVICE = "dbt-runner"
# dbt's debug events, some hundred a node, are in its log file among the artifacts.
_LEVELS = {"info": "INFO", "warn": "WARNING", "error": "ERROR"}
_COUNTS = {"ModelsOk": "ok", "ModelsFailed": "failed", "ModelsSkipped": "skipped", "Rows": "rows"}

Write = Callable[[str], Any]


def line(message: str, *, level: str = "INFO", **keys: Any) -> str:
    """Return one line of the log."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    entry = {"level": level, "message": message, "timestamp": now, "service": SERVICE, **keys}
    return json.dumps({key: value for key, value in entry.items() if value is not None}, ensure_ascii=False) + "\n"


def of_event(event: Any, request_id: str | None) -> str | None:
    """Return the line of a dbt event (dbt_common.events.base_types.EventMsg), None for what is not logged."""
    info = event.info
    level = _LEVELS.get(str(getattr(info.level, "value", info.level)))
    if level is None or not info.msg.strip():
        return None
    node = getattr(getattr(event.data, "node_info", None), "unique_id", None)
    return line(
        info.msg.strip(),
        level=level,
        event=info.name,
        code=info.code,
        node=node or None,
        function_request_id=request_id,
        invocation_id=info.invocation_id,
    )


def metrics(answer: Mapping[str, Any]) -> str:
    """Return an answer's numbers in CloudWatch's embedded metric format, one line.

    Source: CloudWatch user guide, "Specification: Embedded metric format". No call and no permission is needed. Each
    value of a dimension is another metric on the bill: the function's name and the command are all.
    """
    dimensions = {
        "FunctionName": os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "local"),
        "Command": answer["command"],
    }
    values: dict[str, float] = {name: answer["totals"][key] for name, key in _COUNTS.items()}
    values["Seconds"] = answer["seconds"]
    definitions = [{"Name": name, "Unit": "Seconds" if name == "Seconds" else "Count"} for name in values]
    directive = {"Namespace": METRICS_NAMESPACE, "Dimensions": [list(dimensions)], "Metrics": definitions}
    header = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
    return json.dumps({"_aws": header, **dimensions, **values}) + "\n"
