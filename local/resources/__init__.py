"""What the in-process deployment can create in the emulator: one `Kind` for each Pulumi resource type."""

from local.resources.compute import COMPUTE
from local.resources.kinds import Applied, Inputs, Kind
from local.resources.network import NETWORK
from local.resources.storage import STORAGE

KINDS: dict[str, Kind] = {**STORAGE, **COMPUTE, **NETWORK}
"""Resource types by Pulumi token. A type that is not here is listed as recorded only, never dropped."""

__all__ = ["KINDS", "Applied", "Inputs", "Kind"]
