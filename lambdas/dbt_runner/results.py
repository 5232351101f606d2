"""dbt's results as plain data: per node, in totals, and as the file that the next `dbt retry` goes on with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Result = dict[str, Any]

FILE = "run_results.json"
GOOD = frozenset({"success", "pass", "warn", "no-op", "runtime warn"})
SKIPPED = "skipped"
NOT_RUN = "the time was up before this node was done"
# A task's result may have 256 KiB in Step Functions ("Service quotas"); the rest of an answer is below 10.
RESULTS_BYTES = 200_000
_SHORT = 200


def node_results(result: Any) -> list[Result]:
    """Return dbt's results as plain data; commands without nodes (debug) have none."""
    return [
        {
            "unique_id": node.node.unique_id,
            "status": str(node.status),
            "seconds": round(node.execution_time, 3),
            "rows": (node.adapter_response or {}).get("rows_affected"),
            "message": node.message,
        }
        for node in getattr(result, "results", None) or []
        if getattr(node, "node", None) is not None
    ]


def from_file(found: Mapping[str, Any]) -> list[Result]:
    """Return the results of a run_results.json."""
    return [
        {
            "unique_id": item["unique_id"],
            "status": item["status"],
            "seconds": round(item.get("execution_time") or 0, 3),
            "rows": (item.get("adapter_response") or {}).get("rows_affected"),
            "message": item.get("message"),
        }
        for item in found["results"]
    ]


def totals(results: Sequence[Result]) -> dict[str, int]:
    """Return how many nodes there are, how they ended, and the rows that they wrote as far as the warehouse said."""
    good = sum(item["status"] in GOOD for item in results)
    skipped = sum(item["status"] == SKIPPED for item in results)
    return {
        "nodes": len(results),
        "ok": good,
        "failed": len(results) - good - skipped,
        "skipped": skipped,
        # -1 is the driver's word for "not known".
        "rows": sum(max(item["rows"] or 0, 0) for item in results),
    }


def bounded(results: list[Result], limit: int = RESULTS_BYTES) -> tuple[list[Result], int]:
    """Return results that fit into an answer, and how many good ones were left out; the run's artifacts have all."""
    if _size(results) <= limit:
        return results, 0
    short = [{**item, "message": (item["message"] or "")[:_SHORT]} for item in results]
    if _size(short) <= limit:
        return short, 0
    # What failed is what the reader looks for.
    ranked = sorted(short, key=lambda item: item["status"] in GOOD)
    while _size(ranked) > limit:
        ranked = ranked[: len(ranked) * 9 // 10]
    return ranked, len(results) - len(ranked)


def _size(results: Iterable[Result]) -> int:
    return len(json.dumps(list(results)))


def read(folder: Path) -> dict[str, Any] | None:
    """Return the run_results.json of a folder, None when there is none that can be read."""
    try:
        found: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found


def write(folder: Path, found: Mapping[str, Any]) -> None:
    """Put a run_results.json into a folder."""
    (folder / FILE).write_text(json.dumps(found), encoding="utf-8")


def completed(found: Mapping[str, Any], chosen: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the results of a run that was stopped with the nodes it did not finish as skipped, and their names.

    When dbt is interrupted it writes the nodes that had ended, and no others; `dbt retry` would take the rest for done.
    """
    ended = {item["unique_id"] for item in found["results"]}
    remaining = [name for name in chosen if name not in ended]
    return {**found, "results": [*found["results"], *(_not_run(name) for name in remaining)]}, remaining


def _not_run(name: str) -> dict[str, Any]:
    """Return a result in the form of dbt's schema run-results/v6."""
    return {
        "unique_id": name,
        "status": SKIPPED,
        "timing": [],
        "thread_id": "",
        "execution_time": 0.0,
        "adapter_response": {},
        "message": NOT_RUN,
        "failures": None,
        "compiled": None,
        "compiled_code": None,
        "relation_name": None,
        "batch_results": None,
    }


def never_begun(command: str, variables: Mapping[str, Any], *, full_refresh: bool) -> dict[str, Any]:
    """Return the results of a run that was stopped before its first node: dbt writes none then."""
    arguments = {"which": command, "vars": dict(variables), "full_refresh": full_refresh}
    header = {"dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json"}
    return {"metadata": header, "results": [], "elapsed_time": 0.0, "args": arguments}


def merged(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the results of a run and its retry as those of one run: a node's last result counts."""
    again = {item["unique_id"] for item in now["results"]}
    kept = [item for item in before["results"] if item["unique_id"] not in again]
    elapsed = float(before.get("elapsed_time") or 0) + float(now.get("elapsed_time") or 0)
    return {**now, "results": [*kept, *now["results"]], "elapsed_time": elapsed}
