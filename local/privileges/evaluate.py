"""IAM's decision for a role in its own account: identity policies, with conditions; an explicit Deny wins.

PyPI has no library that decides with conditions (parliament and policy_sentry check documents, moto's own evaluator
knows no conditions), hence these rules, from the IAM user guide: "Policy evaluation logic", "IAM JSON policy elements
reference" and "Condition operators". What this program's policies do not use (principals, policy variables, numbers,
dates, addresses) is refused, not guessed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from runtime.errors import ConfigurationError

Decision = Literal["allowed", "implicit deny", "explicit deny"]
ALLOWED: Decision = "allowed"
IMPLICIT: Decision = "implicit deny"
EXPLICIT: Decision = "explicit deny"

Values = str | Sequence[str]
Statement = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    """A call to be decided. Names of condition keys are compared without regard to case."""

    action: str
    resource: str
    context: Mapping[str, Values] = field(default_factory=dict)


def decide(statements: Iterable[Statement], request: Request) -> Decision:
    """Return the decision of these statements together. Raises ConfigurationError for an element not known here."""
    effects = {statement["Effect"] for statement in statements if applies(statement, request)}
    if "Deny" in effects:
        return EXPLICIT
    return ALLOWED if "Allow" in effects else IMPLICIT


def applies(statement: Statement, request: Request) -> bool:
    """Return whether a statement speaks of the request: action, resource and all conditions."""
    unknown = set(statement) - {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
    if unknown:
        raise ConfigurationError(f"a role's policy with {', '.join(sorted(unknown))} cannot be decided here")
    return (
        _named(statement, "Action", request.action, ignore_case=True)
        and _named(statement, "Resource", request.resource)
        and all(
            _holds(operator, key, listed(wanted), request.context)
            for operator, block in statement.get("Condition", {}).items()
            for key, wanted in block.items()
        )
    )


def listed(value: Any) -> list[str]:
    """Return an element that may be one text or several."""
    return [value] if isinstance(value, str) else [str(item) for item in value]


def matches(pattern: str, value: str, *, ignore_case: bool = False) -> bool:
    """Return whether a text fits a pattern in which `*` stands for any characters and `?` for one."""
    return _compiled(pattern, ignore_case).fullmatch(value) is not None


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in pattern)
    return re.compile("".join(parts), re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def _named(statement: Statement, element: str, value: str, *, ignore_case: bool = False) -> bool:
    if element in statement:
        return any(matches(item, value, ignore_case=ignore_case) for item in listed(statement[element]))
    excluded = statement.get(f"Not{element}")
    if excluded is None:
        raise ConfigurationError(f"a statement has neither {element} nor Not{element}")
    return not any(matches(item, value, ignore_case=ignore_case) for item in listed(excluded))


def _arn_like(pattern: str, value: str) -> bool:
    """Compare two ARNs part by part: a `*` does not reach over a colon before the sixth part."""
    wanted, given = pattern.split(":", 5), value.split(":", 5)
    return len(wanted) == len(given) and all(map(matches, wanted, given))


def _equal(wanted: str, given: str) -> bool:
    return wanted == given


def _equal_without_case(wanted: str, given: str) -> bool:
    return wanted.lower() == given.lower()


_OPERATORS: Mapping[str, Callable[[str, str], bool]] = {
    "StringEquals": _equal,
    "StringEqualsIgnoreCase": _equal_without_case,
    "StringLike": matches,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
    "Bool": _equal_without_case,
}
_NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
}


def _holds(operator: str, key: str, wanted: list[str], context: Mapping[str, Values]) -> bool:
    """Return whether one condition holds.

    Several wanted values are alternatives, and of a negated operator none may fit. A key that is not in the request
    fits a negated operator, `…IfExists` and `ForAllValues:`; `ForAnyValue:` it never fits.
    """
    given = next((listed(value) for name, value in context.items() if name.lower() == key.lower()), None)
    if operator == "Null":
        return (given is None) == (wanted[0].lower() == "true")
    name = operator.removesuffix("IfExists")
    set_operator, colon, base = name.rpartition(":")
    positive = _NEGATED.get(base, base)
    if positive not in _OPERATORS or set_operator not in ("", "ForAllValues", "ForAnyValue"):
        raise ConfigurationError(f"condition operator {operator} cannot be decided here")
    negated = base in _NEGATED
    if given is None:
        return set_operator == "ForAllValues" or (not colon and (negated or operator.endswith("IfExists")))

    def fits(value: str) -> bool:
        return any(_OPERATORS[positive](item, value) for item in wanted) != negated

    return all(map(fits, given)) if set_operator == "ForAllValues" or (negated and not colon) else any(map(fits, given))
