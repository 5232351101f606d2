"""Names and tags: the one place that knows how things are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Keys of the tags that everything carries. A stack's own tags may not replace them.
STANDARD_TAGS = ("Name", "Project", "Environment", "Stack", "Unit", "Owner", "CostCentre", "ManagedBy")


@dataclass(frozen=True, kw_only=True)
class Names:
    """The names and tags of one unit's resources in a stack."""

    prefix: str
    stack: str
    unit: str
    environment: str
    owner: str
    cost_centre: str
    more_tags: Mapping[str, str] = field(default_factory=dict)

    def name(self, part: str) -> str:
        """Return `<prefix>-<part>`, the shape of every physical name that is unique within an account.

        One account holds one environment; a second one in the same account takes another prefix.
        """
        return f"{self.prefix}-{part}"

    def bucket(self, part: str, account: str, region: str) -> str:
        """Return a bucket name. Buckets share one namespace worldwide, hence account and region."""
        return f"{self.prefix}-{part}-{account}-{region}"

    def secret(self, entry: str) -> str:
        """Return `<prefix>/<entry>`, the id of a Secrets Manager entry."""
        return f"{self.prefix}/{entry}"

    def tags(self, part: str) -> dict[str, str]:
        """Return the tags of a part: the stack's own, the standard ones, and the part's name."""
        return {
            **self.more_tags,
            "Name": self.name(part),
            "Project": self.prefix,
            "Environment": self.environment,
            "Stack": self.stack,
            "Unit": self.unit,
            "Owner": self.owner,
            "CostCentre": self.cost_centre,
            "ManagedBy": "pulumi",
        }
