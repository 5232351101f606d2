"""Names and tags: the one place that knows how things are called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """The names and tags of one stack's resources."""

    prefix: str
    stack: str

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
        """Return the tags that everything carries, and the part's own name."""
        return {
            "Name": self.name(part),
            "Project": self.prefix,
            "Stack": self.stack,
            "ManagedBy": "pulumi",
        }
