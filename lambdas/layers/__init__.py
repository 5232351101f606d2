"""The builder of what Lambda runs: layers with the packages, and one zip with our own code.

    catalogue   what there is to build, for which Lambda, and Lambda's limits
    lock        versions and hashes of the packages: the files under locks/
    install     packages of a lock, for the target's platform, on any host
    prune       what of the packages no function needs, with the reason
    native      whether what is compiled is for the target's machine, Python and glibc
    bytecode    the layer's modules compiled ahead, since Lambda could not keep what it compiles
    project     the dbt project with its profile and dbt's parse of it
    bill        the bill of materials and the licences beside a zip
    archive     reproducible zips, and the hash of a content
    build       all of it, once for the same input
    check, diff, publish

See docs/adr/0010-layers.md for what was measured and decided.
"""

from lambdas.layers.archive import entries, write_zip
from lambdas.layers.build import build_all
from lambdas.layers.catalogue import (
    FUNCTION_LAYERS,
    FUNCTIONS,
    IN_RUNTIME,
    LAYER_PACKAGES,
    MAX_UNZIPPED_BYTES,
    PLATFORMS,
    PROJECT_LAYER,
    Artifact,
    Build,
)

__all__ = [
    "FUNCTIONS",
    "FUNCTION_LAYERS",
    "IN_RUNTIME",
    "LAYER_PACKAGES",
    "MAX_UNZIPPED_BYTES",
    "PLATFORMS",
    "PROJECT_LAYER",
    "Artifact",
    "Build",
    "build_all",
    "entries",
    "write_zip",
]
