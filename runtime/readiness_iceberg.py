"""What an Iceberg table holds, by the metadata file that Glue points to: the current snapshot and its totals.

Source: the Iceberg table spec ("Table Metadata", "Snapshots").
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from runtime import parquet
from runtime.aws import translated
from runtime.errors import FailedError
from runtime.readiness_store import Content, NotReadyTable, Store


def read_iceberg(store: Store, location: str) -> Content:
    """Return what an Iceberg table's current snapshot holds, by the metadata file that Glue points to."""
    bucket, key = parquet.split_location(location)
    metadata = _read_json(store, bucket, key.removesuffix("/"))
    try:
        return _current_snapshot(metadata, location)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise NotReadyTable("unreadable", f"the Iceberg metadata {location} is broken: {exc!r}") from exc


def _read_json(store: Store, bucket: str, key: str) -> Any:
    """Return a JSON object's content, compressed or not. Raises NotReadyTable when it is none."""
    place = f"s3://{bucket}/{key}"
    try:
        with translated(f"read {place}"):
            content: bytes = store.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except FailedError as exc:
        if exc.code in ("NoSuchKey", "NoSuchBucket", "404"):
            raise NotReadyTable("missing", f"no Iceberg metadata at {place}") from exc
        raise
    try:
        return json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    except (ValueError, OSError, EOFError) as exc:
        raise NotReadyTable("unreadable", f"{place} is no JSON: {exc}") from exc


def _current_snapshot(metadata: Mapping[str, Any], place: str) -> Content:
    """Return what the metadata's current snapshot holds; a table that was never written to has none."""
    location = str(metadata["location"])
    columns = frozenset(str(column["name"]).lower() for column in _iceberg_schema(metadata)["fields"])
    current = metadata.get("current-snapshot-id")
    # The first version of the format writes -1 for none.
    if current in (None, -1):
        return Content("iceberg", location, 0, 0, None, columns)
    found = [snapshot for snapshot in metadata.get("snapshots") or [] if snapshot["snapshot-id"] == current]
    if not found:
        raise NotReadyTable("unreadable", f"the Iceberg metadata {place} does not have its current snapshot")
    summary = found[0].get("summary") or {}
    total = summary.get("total-records")
    rows = None if total is None else int(total) - int(summary.get("total-position-deletes", 0))
    equality = int(summary.get("total-equality-deletes", 0))
    return Content(
        "iceberg",
        location,
        rows,
        int(summary["total-data-files"]) if "total-data-files" in summary else None,
        datetime.fromtimestamp(found[0]["timestamp-ms"] / 1000, UTC),
        columns,
        exact=not equality,
        snapshot=str(current),
        # What they take away is only known by reading rows.
        warning=f"rows that {equality:,} equality deletes take away are counted too" if equality else None,
    )


def _iceberg_schema(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the current schema; the first version of the format may have just one."""
    schemas: list[Mapping[str, Any]] = metadata.get("schemas") or [metadata["schema"]]
    current = metadata.get("current-schema-id", schemas[-1].get("schema-id"))
    found = [schema for schema in schemas if schema.get("schema-id") == current]
    if not found:
        raise ValueError(f"no schema {current}")
    return found[0]
