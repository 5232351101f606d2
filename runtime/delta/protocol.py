"""What a Delta table asks of its writers, and whether an export can give it.

Source of the rules: the Delta protocol (delta-io/delta, PROTOCOL.md: "Table Features", "Writer Version
Requirements", "Valid Feature Names in Table Features", and the writer requirements of each feature).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import ConfigurationError

# What reader version 3 and writer version 7 can list, and that asks nothing of a commit that adds and removes
# whole files, or nothing while it is not in use (`active_obstacles`). All else is refused: a feature that is not
# known here may be one that such a commit breaks.
_HARMLESS = frozenset(
    {
        "allowColumnDefaults",
        "appendOnly",
        # Whole files added and removed are their own change data ("Add CDC File").
        "changeDataFeed",
        "checkConstraints",
        "columnMapping",
        "deletionVectors",
        # Domains stay as they are in every commit that does not name them.
        "domainMetadata",
        "generatedColumns",
        "identityColumns",
        "inCommitTimestamp",
        "invariants",
        "timestampNtz",
        # About checkpoints only, which such a table gets from its other writers.
        "v2Checkpoint",
        "vacuumProtocolCheck",
    }
)
# Those of them that readers must know too.
_READER_FEATURES = frozenset(
    {"columnMapping", "deletionVectors", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}
)
# What each writer version before 7 stands for, each with all before it.
_LEGACY: dict[int, tuple[str, ...]] = {
    2: ("appendOnly", "invariants"),
    3: ("checkConstraints",),
    4: ("changeDataFeed", "generatedColumns"),
    5: ("columnMapping",),
    6: ("identityColumns",),
}
# Properties of Delta's own that ask for no feature. Others would need their feature in the protocol, or are
# unknown to readers and so most likely misspelled.
_FREE_PROPERTIES = frozenset(
    {
        "delta.appendOnly",
        "delta.autoOptimize.autoCompact",
        "delta.autoOptimize.optimizeWrite",
        "delta.checkpoint.writeStatsAsJson",
        "delta.checkpoint.writeStatsAsStruct",
        "delta.checkpointInterval",
        "delta.compatibility.symlinkFormatManifest.enabled",
        "delta.dataSkippingNumIndexedCols",
        "delta.dataSkippingStatsColumns",
        "delta.deletedFileRetentionDuration",
        "delta.enableExpiredLogCleanup",
        "delta.isolationLevel",
        "delta.logRetentionDuration",
        "delta.parquet.compression.codec",
        "delta.randomizeFilePrefixes",
        "delta.randomPrefixLength",
        "delta.setTransactionRetentionDuration",
        "delta.targetFileSize",
        "delta.tuneFileSizesForRewrites",
    }
)
# A wrong value makes other readers and writers fail at every look at the table. delta-rs takes an interval in this form
# only.
_TRUTH = "true|false"
_DURATION = r"interval\s+\d+\s+(nanosecond|microsecond|millisecond|second|minute|hour|day|week)s?"
_COUNT = r"[1-9]\d{0,8}"
_VALUES = {
    "delta.appendOnly": _TRUTH,
    "delta.checkpoint.writeStatsAsJson": _TRUTH,
    "delta.checkpoint.writeStatsAsStruct": _TRUTH,
    "delta.checkpointInterval": _COUNT,
    "delta.compatibility.symlinkFormatManifest.enabled": _TRUTH,
    "delta.dataSkippingNumIndexedCols": r"-1|\d{1,9}",
    "delta.deletedFileRetentionDuration": _DURATION,
    "delta.enableExpiredLogCleanup": _TRUTH,
    "delta.logRetentionDuration": _DURATION,
    "delta.randomizeFilePrefixes": _TRUTH,
    "delta.randomPrefixLength": r"\d{1,9}",
    "delta.setTransactionRetentionDuration": _DURATION,
}
_FORMS = {
    _TRUTH: "true or false",
    _DURATION: "of the form `interval 30 days`, up to weeks",
    _COUNT: "a number, at least 1",
}
MAPPING_MODE = "delta.columnMapping.mode"
MAX_COLUMN_ID = "delta.columnMapping.maxColumnId"
COLUMN_ID = "delta.columnMapping.id"
PHYSICAL_NAME = "delta.columnMapping.physicalName"


@dataclass(frozen=True)
class Protocol:
    """A table's protocol action; the lists are empty below reader version 3 and writer version 7."""

    reader: int
    writer: int
    reader_features: frozenset[str] = frozenset()
    writer_features: frozenset[str] = frozenset()

    @property
    def action(self) -> dict[str, Any]:
        """The content of the protocol action."""
        return {
            "minReaderVersion": self.reader,
            "minWriterVersion": self.writer,
            **({"readerFeatures": sorted(self.reader_features)} if self.reader >= 3 else {}),
            **({"writerFeatures": sorted(self.writer_features)} if self.writer >= 7 else {}),
        }

    @property
    def supported(self) -> frozenset[str]:
        """The features that writers have to know, those of versions before 7 by their names."""
        return self.writer_features if self.writer >= 7 else _legacy_features(self.writer)

    def with_features(self, wanted: Collection[str]) -> Protocol:
        """Return the protocol that has these features too; itself when it has.

        A table that is raised to feature lists keeps all features that its versions stood for: that one was
        never used could be proven by its whole history only.
        """
        if set(wanted) <= self.supported:
            return self
        writers = self.supported | set(wanted)
        legacy_reader = frozenset({"columnMapping"} if self.reader == 2 else ())
        readers = self.reader_features | legacy_reader | (frozenset(wanted) & _READER_FEATURES)
        if self.writer >= 7 and not (frozenset(wanted) & _READER_FEATURES):
            return Protocol(self.reader, 7, self.reader_features, writers)
        return Protocol(3, 7, readers, writers)


def new_protocol(features: Collection[str]) -> Protocol:
    """Return the lowest protocol for a new table: versions 1 and 2, which all readers know, where that is enough."""
    return Protocol(1, 2).with_features(features)


def _legacy_features(writer: int) -> frozenset[str]:
    return frozenset(name for version, names in _LEGACY.items() if version <= writer for name in names)


def obstacles(
    protocol: Protocol,
    configuration: Mapping[str, str],
    fields: Sequence[Mapping[str, Any]],
    *,
    mode: str,
) -> list[str]:
    """Return the names of what an export in this mode would break in the table; empty when nothing."""
    if protocol.reader not in (1, 2, 3) or not 1 <= protocol.writer <= 7:
        return [f"protocol versions {protocol.reader} and {protocol.writer}"]
    unknown = (protocol.reader_features | protocol.writer_features) - _HARMLESS
    # In the order found, each once: a feature can be unknown and in use.
    return list(dict.fromkeys([*sorted(unknown), *active_obstacles(configuration, fields, mode=mode)]))


def active_obstacles(
    configuration: Mapping[str, str], fields: Sequence[Mapping[str, Any]], *, mode: str
) -> Iterator[str]:
    """Give the features in use that an export in this mode does not serve."""
    if _is_true(configuration, "delta.appendOnly") and mode != "append":
        yield "appendOnly"
    if any(name.startswith("delta.constraints.") for name in configuration):
        yield "checkConstraints"
    if _is_true(configuration, "delta.enableInCommitTimestamps"):
        yield "inCommitTimestamp"
    if _is_true(configuration, "delta.enableRowTracking"):
        yield "rowTracking"
    if configuration.get(MAPPING_MODE, "none") not in ("none", "name"):
        yield f"columnMapping by {configuration[MAPPING_MODE]}"
    keys = {key for field in all_fields(fields) for key in field.get("metadata") or {}}
    if "delta.invariants" in keys:
        yield "invariants"
    if "delta.generationExpression" in keys:
        yield "generatedColumns"
    if any(key.startswith("delta.identity.") for key in keys):
        yield "identityColumns"
    if "CURRENT_DEFAULT" in keys:
        yield "allowColumnDefaults"


def _is_true(configuration: Mapping[str, str], name: str) -> bool:
    return configuration.get(name, "false").lower() == "true"


def check_properties(properties: Mapping[str, str]) -> None:
    """Raise ConfigurationError for properties of Delta's own that an export does not set, or not to such a value."""
    refused = sorted(name for name in properties if name.startswith("delta.") and name not in _FREE_PROPERTIES)
    if refused:
        raise ConfigurationError(
            f"table property {', '.join(refused)} cannot be set by an export: it is none of Delta's, or asks for a"
            " feature that an export does not serve",
            hint=f"it takes names without `delta.` in front, and {', '.join(sorted(_FREE_PROPERTIES))}",
        )
    for name, value in properties.items():
        form = _VALUES.get(name)
        if form is not None and not re.fullmatch(form, value, re.IGNORECASE):
            raise ConfigurationError(f"table property {name} is {value!r}: it has to be {_FORMS.get(form, 'a number')}")


def all_fields(fields: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Give all fields of a schema, those inside structs, arrays and maps too."""
    for field in fields:
        yield field
        yield from _inner_fields(field["type"])


def _inner_fields(kind: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(kind, str):
        return
    if kind["type"] == "struct":
        yield from all_fields(kind["fields"])
    elif kind["type"] == "array":
        yield from _inner_fields(kind["elementType"])
    else:
        yield from _inner_fields(kind["keyType"])
        yield from _inner_fields(kind["valueType"])


def mapped_configuration(
    configuration: Mapping[str, str], old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Return the properties of column mapping for the new fields; empty for a table without mapping.

    Raises ConfigurationError when a mapped table would get fields without a mapping, or a column another
    physical name than its files have.
    """
    plain = [field["name"] for field in all_fields(new) if PHYSICAL_NAME not in (field.get("metadata") or {})]
    is_mapped = configuration.get(MAPPING_MODE, "none") == "name"
    if plain and (is_mapped or len(plain) < len(list(all_fields(new)))):
        raise ConfigurationError(
            f"columnMapping: column {', '.join(map(repr, plain))} has no physical name in a table that maps its columns"
        )
    if not new or plain:
        return {}
    before = physical_names(old) if is_mapped else {}
    for field in new:
        if before.get(field["name"], field["metadata"][PHYSICAL_NAME]) != field["metadata"][PHYSICAL_NAME]:
            raise ConfigurationError(f"columnMapping: column {field['name']!r} has another physical name in the table")
    highest = max(int(field["metadata"][COLUMN_ID]) for field in all_fields(new))
    return {MAPPING_MODE: "name", MAX_COLUMN_ID: str(max(highest, int(configuration.get(MAX_COLUMN_ID, "0"))))}


def physical_names(fields: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the name that files and log have for each column."""
    return {field["name"]: (field.get("metadata") or {}).get(PHYSICAL_NAME, field["name"]) for field in fields}


def schema_string(fields: Sequence[Mapping[str, Any]]) -> str:
    """Return the schema as metaData's schemaString."""
    return json.dumps({"type": "struct", "fields": list(fields)}, ensure_ascii=False, separators=(",", ":"))
