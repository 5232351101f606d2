"""The generated parts of docs/security.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from local.pages import markdown_table
from local.privileges.prove import Proof, Right, prove, read_reasons
from local.privileges.recording import OPERATOR, Call, read
from local.privileges.stack import Stack, stack_of

ROOT = Path(__file__).parents[2]
PAGE = "docs/security.md"
STACKS = ("dev", "prod.example")
_SEEN = "recorded"


def texts(root: Path = ROOT) -> dict[str, dict[str, str]]:
    """Return what stands between the markers of the page: page -> marker -> text."""
    stacks = [stack_of(root, name) for name in STACKS]
    calls, reasons = list(read()), read_reasons()
    proofs = [prove(stack, calls, reasons) for stack in stacks]
    return {
        PAGE: {
            "roles": _roles(stacks),
            "operator": _operator(calls),
            "privileges": _privileges(proofs),
            "privileges-reasons": _reasons(proofs),
        }
    }


def _roles(stacks: Sequence[Stack]) -> str:
    rows: dict[tuple[str, ...], list[str]] = {}
    for stack in stacks:
        for role in stack.roles:
            conditions = sorted(
                f"{key} {', '.join([values] if isinstance(values, str) else values)}"
                for trusted in role.trust
                for block in trusted.get("Condition", {}).values()
                for key, values in block.items()
            )
            only = "<br>".join(f"`{stack.generic(condition)}`" for condition in conditions) or "anything: see below"
            row = (role.name, ", ".join(role.services), only)
            rows.setdefault(row, []).append(stack.name)
    return _table(("role", "assumed by", "only for"), sorted(rows), code=(0, 1))


def _operator(calls: Iterable[Call]) -> str:
    """Return what a person or CI calls on AWS with goldlake's own commands."""
    by_resource: dict[str, list[str]] = {}
    for call in calls:
        if call.role == OPERATOR:
            by_resource.setdefault(call.resource, []).append(f"`{call.action}`")
    return _table(
        ("actions", "resource"), [("<br>".join(sorted(set(a))), r) for r, a in by_resource.items()], code=(1,)
    )


def _privileges(proofs: Sequence[Proof]) -> str:
    """Return a row for each role, resource and condition, with all actions, whether seen, and the stacks."""
    merged: dict[tuple[str, str, str, str], dict[str, list[Right]]] = {}
    for proof in proofs:
        for right in proof.rights:
            shown = _SEEN if right.calls else "written reason"
            key = (right.role, right.resource, right.condition, shown)
            merged.setdefault(key, {}).setdefault(proof.stack, []).append(right)
    rows = []
    for (role, resource, condition, shown), by_stack in sorted(merged.items()):
        actions = sorted({right.action for rights in by_stack.values() for right in rights})
        where = "" if len(by_stack) == len(proofs) else f" ({', '.join(by_stack)})"
        rows.append((role, "<br>".join(f"`{action}`" for action in actions), resource, condition, shown + where))
    return _table(("role", "actions", "resource", "condition", "why"), rows, code=(0, 2))


def _reasons(proofs: Sequence[Proof]) -> str:
    merged: dict[str, tuple[set[str], set[str]]] = {}
    for proof in proofs:
        for right in proof.rights:
            if right.reason:
                roles, actions = merged.setdefault(right.reason, (set(), set()))
                roles.add(right.role)
                actions.add(right.action)
    rows = [
        (", ".join(sorted(roles)), "<br>".join(f"`{action}`" for action in sorted(actions)), reason)
        for reason, (roles, actions) in sorted(merged.items(), key=lambda item: sorted(item[1][1]))
    ]
    return _table(("roles", "actions", "reason"), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, code: Sequence[int] = ()) -> str:
    marked = [[f"`{cell}`" if index in code and cell else cell for index, cell in enumerate(row)] for row in rows]
    return markdown_table(columns, marked)
