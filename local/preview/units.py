"""Which unit a resource belongs to: that of the outermost component around it."""

from __future__ import annotations

from collections.abc import Mapping

from local.preview.snapshot import Snapshot
from stacks.settings import UNITS

# Components know no unit. A test deploys each unit by itself and holds this table.
UNIT_OF: Mapping[str, str] = {
    "goldlake:state:StateBackend": "state",
    "goldlake:network:PrivateNetwork": "foundation",
    "goldlake:network:AdoptedNetwork": "foundation",
    "goldlake:network:GatewayEndpoint": "foundation",
    "goldlake:network:InterfaceEndpoints": "foundation",
    "goldlake:network:SecurityGroups": "foundation",
    "goldlake:keys:CustomerKey": "foundation",
    "goldlake:observability:AlarmTopic": "foundation",
    "goldlake:observability:Dashboard": "foundation",
    "goldlake:lake:LakeBuckets": "lake",
    "goldlake:lake:GlueDatabases": "lake",
    "goldlake:storage:DataBucket": "lake",
    "goldlake:secrets:SecretEntry": "secrets",
    "goldlake:warehouse:RedshiftServerless": "warehouse",
    "goldlake:secrets:RotatedSecret": "transform",
    "goldlake:functions:PythonLayer": "transform",
    "goldlake:functions:TaskFunction": "transform",
    "goldlake:functions:DbtRunner": "transform",
    "goldlake:pipeline:GoldPipeline": "pipeline",
}
OTHER = "other"


def units_of(snapshot: Snapshot) -> dict[str, str]:
    """Return the unit of each resource by its key; `other` for one that no unit's component holds."""
    return {key: UNIT_OF.get(snapshot.component(entry).type, OTHER) for key, entry in snapshot.entries.items()}


def in_order(units: set[str]) -> list[str]:
    """Return units in the order in which a stack is deployed."""
    return [unit for unit in (*UNITS, OTHER) if unit in units]
