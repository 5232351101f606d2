"""All rules, in one place."""

from __future__ import annotations

from policies import data, identity, operations, public
from policies.model import Rule

RULES: tuple[Rule, ...] = (*public.RULES, *data.RULES, *identity.RULES, *operations.RULES)


def by_id() -> dict[str, Rule]:
    """Return the rules by their ids."""
    return {rule.id: rule for rule in RULES}
