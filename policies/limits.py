"""What the rules allow: regions, sizes, tags, runtimes. A firm with other needs changes it here, in review."""

from __future__ import annotations

# Where data may lie: regions of the EU and the US that have Redshift Serverless and need not be switched on first.
REGIONS = frozenset(
    {
        "eu-central-1",
        "eu-north-1",
        "eu-west-1",
        "eu-west-2",
        "eu-west-3",
        "us-east-1",
        "us-east-2",
        "us-west-2",
    }
)
# RPU. What costs more than about 50 USD an hour is decided by people, not by a typing error.
MAX_BASE_RPU = 128
MAX_RPU = 256
# MB of a function: six times what a step has by default.
MAX_FUNCTION_MB = 6144
# Those that components/naming.py gives, apart from the name.
REQUIRED_TAGS = ("Project", "Environment", "Stack", "Unit", "Owner", "CostCentre", "ManagedBy")
# Lambda developer guide, "Lambda runtimes": Python versions that AWS supports, of those the layers are built for.
RUNTIMES = frozenset({"python3.11", "python3.12", "python3.13"})
# Days that a deleted secret or key can be had back.
MIN_RECOVERY_DAYS = 7
MAX_INCOMPLETE_UPLOAD_DAYS = 14
