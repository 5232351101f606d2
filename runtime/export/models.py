"""What dbt's manifest says about the tables: contract, descriptions, keys, and options of the export.

Source of the form: dbt's manifest schema, version 12 (https://schemas.getdbt.com/dbt/manifest/v12.json). Only keys that
all versions since 1.5 have are read, so dbt itself is not imported here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import ConfigurationError

_KINDS = ("model", "seed", "snapshot")


@dataclass(frozen=True)
class ModelColumn:
    """A column as its model declares it."""

    name: str
    data_type: str | None = None
    description: str | None = None
    not_null: bool = False


@dataclass(frozen=True)
class Model:
    """A model, seed or snapshot. `contract` is whether dbt enforces its columns; `options` is meta.goldlake."""

    unique_id: str
    schema: str
    table: str
    description: str | None = None
    columns: Mapping[str, ModelColumn] = field(default_factory=dict)
    contract: bool = False
    unique_key: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """A dbt project's compiled description."""

    path: Path
    models: tuple[Model, ...]
    invocation_id: str | None = None

    def model(self, schema: str, table: str) -> Model | None:
        """Return the model that makes a table, None when dbt does not know it."""
        return next((item for item in self.models if (item.schema, item.table) == (schema, table)), None)


def read_manifest(path: Path) -> Manifest:
    """Return the manifest in a file. Raises ConfigurationError when it is missing or of another form."""
    try:
        content = json.loads(path.read_text())
        nodes = [node for node in content["nodes"].values() if node["resource_type"] in _KINDS]
        models = tuple(_model(node) for node in nodes if _is_table(node))
        return Manifest(path, models, content["metadata"].get("invocation_id"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"dbt's manifest {str(path)!r} does not exist", hint="dbt parse writes it to target/manifest.json"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ConfigurationError(f"{str(path)!r} is not a manifest of dbt: {exc!r}") from exc


def _is_table(node: Mapping[str, Any]) -> bool:
    """Return whether something in the database is made of the node."""
    return bool(node.get("config", {}).get("materialized") != "ephemeral")


def _model(node: Mapping[str, Any]) -> Model:
    """Return what an export wants to know of a node."""
    config: Mapping[str, Any] = node.get("config") or {}
    key = config.get("unique_key") or ()
    meta: Mapping[str, Any] = {**(config.get("meta") or {}), **(node.get("meta") or {})}
    options = meta.get("goldlake") or {}
    if not isinstance(options, dict):
        raise ConfigurationError(f"meta.goldlake of {node['unique_id']} is {options!r}: a map of options is needed")
    columns = [_column(entry) for entry in (node.get("columns") or {}).values()]
    key_names = {name for rule in node.get("constraints") or () for name in _not_null_columns(rule)}
    return Model(
        unique_id=node["unique_id"],
        schema=node["schema"],
        table=node.get("alias") or node["name"],
        description=node.get("description") or None,
        columns={
            item.name: ModelColumn(item.name, item.data_type, item.description, item.not_null or item.name in key_names)
            for item in columns
        },
        contract=bool((config.get("contract") or {}).get("enforced")),
        unique_key=(key,) if isinstance(key, str) else tuple(key),
        options=options,
    )


def _column(entry: Mapping[str, Any]) -> ModelColumn:
    """Return a declared column."""
    rules = [str(rule.get("type")) for rule in entry.get("constraints") or ()]
    return ModelColumn(
        name=entry["name"],
        data_type=entry.get("data_type") or None,
        description=entry.get("description") or None,
        not_null="not_null" in rules or "primary_key" in rules,
    )


def _not_null_columns(rule: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns that a model's constraint keeps from being null."""
    return tuple(rule.get("columns") or ()) if rule.get("type") in ("not_null", "primary_key") else ()
