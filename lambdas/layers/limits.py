"""What Lambda takes, asked before it is sent there."""

from __future__ import annotations

from collections.abc import Mapping

from lambdas.layers.catalogue import (
    FUNCTION_LAYERS,
    FUNCTIONS,
    MAX_DIRECT_BYTES,
    MAX_LAYERS,
    MAX_UNZIPPED_BYTES,
    Artifact,
)


def limit_faults(
    artifacts: Mapping[str, Artifact], functions: Mapping[str, tuple[str, ...]] = FUNCTION_LAYERS
) -> list[str]:
    """Return in what the artifacts are over Lambda's limits, by function; none when all is well.

    Layers may be over the limit of a direct upload: the program publishes them from S3.
    """
    faults = []
    for function, layers in functions.items():
        if len(layers) > MAX_LAYERS:
            faults.append(f"function {function} has {len(layers)} layers: Lambda allows {MAX_LAYERS}")
        parts = {name: artifacts[name].unzipped for name in (FUNCTIONS, *layers) if name in artifacts}
        total = sum(parts.values())
        if total > MAX_UNZIPPED_BYTES:
            listed = ", ".join(f"{name} {size:,}" for name, size in sorted(parts.items(), key=lambda item: -item[1]))
            faults.append(
                f"function {function} is {total:,} bytes unzipped ({listed}): Lambda allows {MAX_UNZIPPED_BYTES:,} "
                "for code and layers together"
            )
    code = artifacts.get(FUNCTIONS)
    if code is not None and code.zipped > MAX_DIRECT_BYTES:
        faults.append(
            f"{code.path.name} is {code.zipped:,} bytes: Lambda takes {MAX_DIRECT_BYTES:,} directly, more from S3"
        )
    return faults
