"""Whether an IAM policy allows more than another one did: pure functions over policy documents.

A document is taken apart into grants, one for each action, resource and principal of an Allow statement, and into
refusals of Deny statements. A new grant that no old one covers, or an old refusal that no new one covers, is wider.
Wildcards and conditions are understood as far as that is certain; what is not certain counts as wider, since a person
looks at it then. Rules: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

# Operators that are true when the request's value is none of the condition's: fewer values are wider.
_NEGATED = ("NotEquals", "NotLike", "NotIpAddress")
_ACCOUNT = re.compile(r"^(?:arn:[\w-]+:iam::)?(\d{12})(?::root)?$")


@dataclass(frozen=True)
class Part:
    """The actions, resources or principals of a statement: one pattern, or with `but` all except some."""

    patterns: tuple[str, ...]
    but: bool = False

    def lower(self) -> Part:
        """Return the part in small letters."""
        return replace(self, patterns=tuple(pattern.lower() for pattern in self.patterns))

    def __str__(self) -> str:
        return f"all but {', '.join(self.patterns)}" if self.but else ", ".join(self.patterns)


@dataclass(frozen=True)
class Grant:
    """What one statement says of one action, resource and principal."""

    effect: Literal["Allow", "Deny"]
    action: Part
    resource: Part
    principal: Part
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...]
    """Operator, key and values of each condition."""

    def covers(self, other: Grant) -> bool:
        """Return whether this says yes to every request that the other one says yes to."""
        # Actions are compared without regard to case.
        actions = (self.action.lower(), other.action.lower())
        parts = (actions, (self.resource, other.resource), (self.principal, other.principal))
        return all(_part_covers(wide, narrow) for wide, narrow in parts) and _implies(other, self)

    def __str__(self) -> str:
        where = f" on {self.resource}" if self.resource.patterns else ""
        who = f" to {self.principal}" if self.principal.patterns else ""
        limits = (f"{operator} {key} = {', '.join(values)}" for operator, key, values in self.conditions)
        when = " and ".join(limits)
        return f"{self.action}{where}{who}{f' if {when}' if when else ''}"


def widened(old: Sequence[Any], new: Sequence[Any]) -> list[str]:
    """Return what the new documents of one subject allow that the old ones did not; empty when nothing.

    A document is a parsed policy. All documents of a subject count together, so a statement may move between them.
    """
    before = [grant for document in old for grant in grants(document)]
    after = [grant for document in new for grant in grants(document)]
    allowed, denied = ([grant for grant in before if grant.effect == "Allow"], [g for g in after if g.effect == "Deny"])
    more = [grant for grant in after if grant.effect == "Allow" and not any(known.covers(grant) for known in allowed)]
    lost = [grant for grant in before if grant.effect == "Deny" and not any(known.covers(grant) for known in denied)]
    # What was allowed under other conditions only is not new: its conditions are weaker.
    unbound = [grant for grant in more if any(replace(known, conditions=()).covers(grant) for known in allowed)]
    fresh = [grant for grant in more if grant not in unbound]
    return [
        *(f"allows {grant}" for grant in merged(fresh)),
        *(f"allows under weaker conditions {grant}" for grant in merged(unbound)),
        *(f"no longer denies {grant}" for grant in merged(lost)),
    ]


def merged(found: Sequence[Grant]) -> list[Grant]:
    """Return grants with all actions on a resource in one, and then all resources of the same actions."""
    by_action = _merged(found, "action", lambda grant: (grant.resource, grant.principal, grant.conditions))
    return _merged(by_action, "resource", lambda grant: (grant.action, grant.principal, grant.conditions))


def _merged(found: Sequence[Grant], part: str, same: Callable[[Grant], Hashable]) -> list[Grant]:
    groups: dict[Hashable, list[Grant]] = {}
    for grant in found:
        # All but some can't be put together with others.
        groups.setdefault((same(grant), grant if getattr(grant, part).but else None), []).append(grant)
    return [
        replace(group[0], **{part: replace(getattr(group[0], part), patterns=_all_patterns(group, part))})
        for group in groups.values()
    ]


def _all_patterns(group: Sequence[Grant], part: str) -> tuple[str, ...]:
    return tuple(sorted({pattern for grant in group for pattern in getattr(grant, part).patterns}))


def grants(document: Any) -> Iterator[Grant]:
    """Yield what a policy document allows and denies, each action, resource and principal by itself."""
    for statement in _list(document.get("Statement") if isinstance(document, Mapping) else None):
        if not isinstance(statement, Mapping):
            continue
        conditions = tuple(sorted(_conditions(statement.get("Condition"))))
        actions = _parts(statement, "Action")
        resources = _parts(statement, "Resource")
        effect: Literal["Allow", "Deny"] = "Deny" if statement.get("Effect") == "Deny" else "Allow"
        for action, resource, principal in product(actions, resources, _principals(statement)):
            yield Grant(effect, action, resource, principal, conditions)


def _parts(statement: Mapping[str, Any], name: str) -> list[Part]:
    """Return one part per pattern, or one for all but some. A trust policy has no resource: a part without pattern."""
    for key, but in ((name, False), (f"Not{name}", True)):
        if key in statement:
            patterns = [str(item) for item in _list(statement[key])]
            return [Part(tuple(sorted(patterns)), but=True)] if but else [Part((item,)) for item in patterns]
    return [Part(())]


def _principals(statement: Mapping[str, Any]) -> list[Part]:
    for key, but in (("Principal", False), ("NotPrincipal", True)):
        if key in statement:
            found = sorted(_principal_names(statement[key]))
            return [Part(tuple(found), but=True)] if but else [Part((name,)) for name in found]
    return [Part(())]


def _principal_names(value: Any) -> Iterator[str]:
    """Yield principals as `AWS:arn…`; everybody is `*`, however it is written."""
    if not isinstance(value, Mapping):
        yield from (str(item) for item in _list(value))
        return
    for kind, names in value.items():
        for name in _list(names):
            account = _ACCOUNT.match(str(name)) if kind == "AWS" else None
            yield "*" if kind == "AWS" and name == "*" else f"{kind}:{account[1] if account else name}"


def _conditions(value: Any) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    if not isinstance(value, Mapping):
        return
    for operator, tests in value.items():
        for key, values in tests.items() if isinstance(tests, Mapping) else ():
            # true and "true" are the same to IAM; keys are compared without regard to case.
            texts = (str(item).lower() if isinstance(item, bool) else str(item) for item in _list(values))
            yield str(operator), str(key).lower(), tuple(sorted(texts))


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


# --- actions, resources, principals ---


def _part_covers(wide: Part, narrow: Part) -> bool:
    if not wide.patterns or not narrow.patterns:
        # Nothing said, as of resources in a trust policy: the one says what the other does.
        return wide == narrow
    if not wide.but and not narrow.but:
        return all(any(covers(pattern, other) for pattern in wide.patterns) for other in narrow.patterns)
    if wide.but and not narrow.but:
        return not any(overlap(pattern, other) for pattern in wide.patterns for other in narrow.patterns)
    if wide.but and narrow.but:
        # All but A is within all but B when B is within A.
        return all(any(covers(other, pattern) for other in narrow.patterns) for pattern in wide.patterns)
    return "*" in wide.patterns


def covers(wide: str, narrow: str) -> bool:
    """Return whether every text that `narrow` matches is matched by `wide`: `s3:Get*` covers `s3:GetObject`.

    In patterns `*` is any text and `?` any character. False where it is not certain.
    """
    wide, narrow = _normal(wide), _normal(narrow)
    reached = _after_stars({0}, wide)
    for letter in narrow:
        reached = _after_stars(set(_steps(reached, wide, letter)), wide)
    return len(wide) in reached


def _steps(reached: set[int], pattern: str, letter: str) -> Iterator[int]:
    """Yield the places in a pattern after a letter of the other one, in which a star is a letter only a star takes."""
    for place in reached:
        if place < len(pattern):
            if pattern[place] == "*":
                yield place
            elif letter != "*" and pattern[place] in ("?", letter):
                yield place + 1


def _after_stars(reached: set[int], pattern: str) -> set[int]:
    """Return the places and those that are behind the stars there: a star may be no text at all."""
    for place in sorted(reached):
        behind = place
        while behind < len(pattern) and pattern[behind] == "*":
            behind += 1
            reached.add(behind)
    return reached


def _normal(pattern: str) -> str:
    """Return a pattern with one star where several say the same, after the single characters: `**?*` is `?*`."""
    return re.sub(r"[*?]*\*[*?]*", lambda found: "?" * found[0].count("?") + "*", pattern)


def overlap(one: str, other: str) -> bool:
    """Return whether there is a text that both patterns match."""
    reached = {(0, 0)}
    seen: set[tuple[int, int]] = set()
    while reached:
        first, second = reached.pop()
        if (first, second) in seen:
            continue
        seen.add((first, second))
        left, right = one[first : first + 1], other[second : second + 1]
        if not left and not right:
            return True
        if left == "*":
            reached.add((first + 1, second))
        if right == "*":
            reached.add((first, second + 1))
        if left and right and (left == right or {left, right} & {"*", "?"}):
            reached.add((first + (left != "*"), second + (right != "*")))
    return False


# --- conditions ---


def _implies(strong: Grant, weak: Grant) -> bool:
    """Return whether a request that fulfils the conditions of `strong` fulfils those of `weak`."""
    return all(
        any(_condition_implies(condition, wanted) for condition in strong.conditions) for wanted in weak.conditions
    )


def _condition_implies(strong: tuple[str, str, tuple[str, ...]], weak: tuple[str, str, tuple[str, ...]]) -> bool:
    operator, key, values = strong
    wanted, wanted_key, allowed = weak
    # With IfExists a request without the key passes: the plain operator is the stronger one.
    if key != wanted_key or operator not in (wanted, wanted.removesuffix("IfExists")):
        return False
    if set(values) == set(allowed):
        return True
    base = wanted.removesuffix("IfExists").split(":")[-1]
    within = _value_within(base)
    if within is None:
        return False
    if base.endswith(_NEGATED):
        return all(any(within(refused, known) for known in values) for refused in allowed)
    return all(any(within(value, known) for known in allowed) for value in values)


def _value_within(operator: str) -> Any:
    """Return the test whether a value of a condition is within another one; None where only equal values will do."""
    if operator in ("StringLike", "StringNotLike") or operator.startswith("Arn"):
        return lambda value, known: covers(known, value)
    if operator in ("IpAddress", "NotIpAddress"):
        return network_within
    if operator in ("StringEquals", "StringNotEquals", "Bool", "NumericEquals", "StringEqualsIgnoreCase"):
        return lambda value, known: value == known
    return None


def network_within(narrow: str, wide: str) -> bool:
    """Return whether the addresses of a CIDR block are all in another one; False for what is none."""
    try:
        inner, outer = ipaddress.ip_network(narrow, strict=False), ipaddress.ip_network(wide, strict=False)
    except ValueError:
        return False
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False
