"""What the in-process deployment can create in the emulator: one `Kind` for each Pulumi resource type."""

from local.resources import compute, network, observability, state, storage, warehouse
from local.resources.kinds import Applied, Inputs, Kind

_MODULES = (storage, state, compute, observability, network, warehouse)

KINDS: dict[str, Kind] = {
    **storage.STORAGE,
    **state.STATE,
    **compute.COMPUTE,
    **observability.OBSERVABILITY,
    **network.NETWORK,
    **warehouse.WAREHOUSE,
}
"""Resource types by Pulumi token."""

RECORDED_ONLY: dict[str, str] = {
    kind: reason for module in _MODULES for kind, reason in getattr(module, "RECORDED_ONLY", {}).items()
}
"""Resource types that the emulator cannot create, with the reason; they are listed, and nothing is made."""

REFUSED: dict[str, str] = {
    kind: reason for module in _MODULES for kind, reason in getattr(module, "REFUSED", {}).items()
}
"""Resource types that the in-process deployment refuses, with the reason and the way out."""

__all__ = ["KINDS", "RECORDED_ONLY", "REFUSED", "Applied", "Inputs", "Kind"]
