"""What lies at a table's location: a Delta table, an Iceberg table, or nothing yet.

Iceberg tables are told by `metadata/*.metadata.json` (Iceberg table spec, "Table Metadata"; the version is the number
in the file's name, `v3.metadata.json` or `00003-<uuid>.metadata.json`).
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from runtime.aws import translated
from runtime.delta import log as delta_log
from runtime.delta import types as delta_types
from runtime.delta.lake import Lake
from runtime.errors import ConfigurationError, FailedError
from runtime.register.report import each, normal

if TYPE_CHECKING:
    from deltalake import DeltaTable

DELTA = "delta"
ICEBERG = "iceberg"
LOG = "_delta_log/"
METADATA = "metadata/"

# The longest comment that Glue takes (AWS Glue API, "Column structure").
_COMMENT_LENGTH = 255
_METADATA_FILE = re.compile(r"(?:v(\d+)|(\d+)-[^/]+?)(?:\.gz)?\.metadata\.json(?:\.gz)?")
_ICEBERG_TYPES = {"long": "bigint", "timestamptz": "timestamp", "time": "string", "uuid": "string"}


@dataclass(frozen=True)
class LakeTable:
    """A table where it lies. `format` is None when there is no table yet.

    `columns` are Glue columns: lower-case names, Hive types, comments of 255 characters. `version` and `rows` are the
    Delta log's, `rows` None when a file has no count. `metadata_location` is Iceberg's newest metadata file.
    """

    name: str
    location: str
    format: str | None = None
    columns: Sequence[Mapping[str, str]] = ()
    description: str | None = None
    version: int | None = None
    rows: int | None = None
    metadata_location: str | None = None
    log: DeltaTable | None = field(default=None, repr=False, compare=False)

    @cached_property
    def _files(self) -> frozenset[str]:
        """The files of the log's version, relative to the table unless the log names them wholly; decoded too."""
        if self.log is None:
            return frozenset()
        paths = [str(path) for path in self.log.get_add_actions().column("path").to_pylist()]
        return frozenset([*paths, *(unquote(path) for path in paths)])

    @property
    def identity(self) -> str:
        """What tells this state of the table from all others: a log that was written anew has another id."""
        if self.log is None:
            return str(self.metadata_location)
        return f"{self.log.metadata().id}@{self.version}"

    @property
    def is_empty(self) -> bool:
        """Whether the log's version has no files."""
        return not self._files

    def has_file(self, path: str) -> bool:
        """Return whether a file, by its whole path, belongs to the log's version."""
        place, root = normal(path), normal(self.location) + "/"
        return place in self._files or (place.startswith(root) and place.removeprefix(root) in self._files)


def look(lake: Lake, name: str, s3: Any) -> LakeTable:
    """Return what lies at a table's location. Raises as `runtime.delta.log.translated` and boto3's do."""
    location = lake.location(name)
    log = delta_log.open_table(location, lake.storage_options())
    if log is not None:
        return LakeTable(
            name,
            location,
            DELTA,
            glue_columns(delta_types.fields_of(log.schema())),
            log.metadata().description,
            log.version(),
            delta_log.log_rows(log),
            log=log,
        )
    newest = newest_metadata(lake, name, s3)
    if newest is None:
        return LakeTable(name, location)
    return _iceberg(lake, name, newest, s3)


def discover(lake: Lake, s3: Any) -> list[str]:
    """Return the names of the Delta and Iceberg tables right below the target."""
    prefix = f"{lake.prefix}/" if lake.prefix else ""
    names: list[str] = []
    with translated(f"list {lake.root}"):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=lake.bucket, Prefix=prefix, Delimiter="/")
        for page in pages:
            names += [item["Prefix"].removeprefix(prefix).rstrip("/") for item in page.get("CommonPrefixes", [])]
    usable = [name for name in names if _is_usable(lake, name)]
    found = each(lambda name: has_table(lake, name, s3), usable)
    return [name for name, is_table in zip(usable, found, strict=True) if is_table]


def _is_usable(lake: Lake, name: str) -> bool:
    """Return whether a folder's name can be a table's."""
    try:
        lake.location(name)
    except ConfigurationError:
        return False
    return True


def has_table(lake: Lake, name: str, s3: Any) -> bool:
    """Return whether there is anything that makes a folder a table, by listing only."""
    return has_any(s3, lake.bucket, lake.key(name, LOG)) or newest_metadata(lake, name, s3) is not None


def has_any(s3: Any, bucket: str, prefix: str) -> bool:
    """Return whether an object has this prefix."""
    with translated(f"list s3://{bucket}/{prefix}"):
        return bool(s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("Contents"))


def newest_metadata(lake: Lake, name: str, s3: Any) -> str | None:
    """Return the key of the newest Iceberg metadata file; None when there is none."""
    prefix = lake.key(name, METADATA)
    found: list[tuple[int, Any, str]] = []
    with translated(f"list s3://{lake.bucket}/{prefix}"):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=lake.bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                version = _METADATA_FILE.fullmatch(item["Key"].removeprefix(prefix))
                if version:
                    found.append((int(version[1] or version[2]), item["LastModified"], item["Key"]))
    return max(found)[2] if found else None


def _iceberg(lake: Lake, name: str, key: str, s3: Any) -> LakeTable:
    """Return an Iceberg table by its metadata file."""
    place = f"s3://{lake.bucket}/{key}"
    with translated(f"read {place}"):
        content = s3.get_object(Bucket=lake.bucket, Key=key)["Body"].read()
    try:
        metadata = json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
        columns = [_iceberg_column(item) for item in _current_schema(metadata)["fields"]]
        comment = (metadata.get("properties") or {}).get("comment")
    except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError) as exc:
        raise FailedError(f"the Iceberg metadata {place} cannot be read: {exc!r}") from exc
    return LakeTable(
        name, lake.location(name), ICEBERG, columns, comment, rows=_iceberg_rows(metadata), metadata_location=place
    )


def _current_schema(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the current schema; the first version of the format may have just one."""
    schemas: list[Mapping[str, Any]] = metadata.get("schemas") or [metadata["schema"]]
    current = metadata.get("current-schema-id", schemas[-1].get("schema-id"))
    return next(schema for schema in schemas if schema.get("schema-id") == current)


def _iceberg_rows(metadata: Mapping[str, Any]) -> int | None:
    """Return the current snapshot's rows; None when it does not tell, or where deletes are kept beside the data."""
    current = metadata.get("current-snapshot-id")
    if current in (None, -1):
        return 0
    found = [item for item in metadata.get("snapshots") or [] if item.get("snapshot-id") == current]
    summary: Mapping[str, Any] = (found[0].get("summary") or {}) if found else {}
    deletes = [int(summary.get(f"total-{kind}-deletes", 0)) for kind in ("position", "equality")]
    return int(summary["total-records"]) if "total-records" in summary and not any(deletes) else None


def glue_columns(fields: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return Glue columns for Delta fields: lower-case names, Hive types, comments of 255 characters."""
    return [
        _glue_column(item["name"], delta_types.type_text(item["type"]), item.get("metadata", {}).get("comment"))
        for item in fields
    ]


def _iceberg_column(item: Mapping[str, Any]) -> dict[str, str]:
    return _glue_column(item["name"], iceberg_type_text(item["type"]), item.get("doc"))


def _glue_column(name: str, kind: str, comment: object) -> dict[str, str]:
    column = {"Name": name.lower(), "Type": kind}
    text = str(comment or "")[:_COMMENT_LENGTH]
    return {**column, "Comment": text} if text else column


def iceberg_type_text(kind: str | Mapping[str, Any]) -> str:
    """Return an Iceberg type as Hive writes it: `bigint`, `array<string>`, `struct<a:int>`."""
    if isinstance(kind, str):
        if kind.startswith("fixed["):
            return "binary"
        return _ICEBERG_TYPES.get(kind, kind.replace(" ", ""))
    if kind["type"] == "list":
        return f"array<{iceberg_type_text(kind['element'])}>"
    if kind["type"] == "map":
        return f"map<{iceberg_type_text(kind['key'])},{iceberg_type_text(kind['value'])}>"
    fields = ",".join(f"{item['name']}:{iceberg_type_text(item['type'])}" for item in kind["fields"])
    return f"struct<{fields}>"
