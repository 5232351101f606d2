"""Outputs of units: exported by one stack, read back by another into the same class."""

from __future__ import annotations

import dataclasses
from typing import Any

import pulumi
import pytest

from local.recording import record
from stacks.outputs import OUTPUTS, UnitOutputs
from stacks.settings import UNITS


class Exported:
    """A stack reference over given outputs; as with the engine's, an output that is missing is None."""

    def __init__(self, exports: dict[str, Any]) -> None:
        self._exports = exports

    def get_output(self, name: pulumi.Input[str]) -> pulumi.Output[Any]:
        return pulumi.Output.from_input(self._exports.get(str(name)))


def values(kind: type[UnitOutputs]) -> dict[str, Any]:
    special = {"subnet_ids": ["a", "b", "c"], "port": 5439, "warehouse_port": 5439, "lock_table_name": ""}
    return {name: special.get(name, f"{kind.unit}-{name}") for name in kind.names()}


def test_every_unit_has_its_class_of_outputs() -> None:
    assert tuple(kind.unit for kind in OUTPUTS) == UNITS


@pytest.mark.parametrize("kind", OUTPUTS, ids=lambda kind: kind.unit)
def test_what_a_stack_exports_is_what_another_imports(kind: type[UnitOutputs]) -> None:
    def exporting() -> dict[str, pulumi.Input[Any]]:
        outputs = kind(**{name: pulumi.Output.from_input(value) for name, value in values(kind).items()})
        return dict(outputs.exports())

    exports = record(exporting).exports
    assert exports == {f"{kind.unit}_{name}": value for name, value in values(kind).items()}

    def importing() -> dict[str, pulumi.Input[Any]]:
        outputs = kind.imported(Exported(exports), "other")
        assert type(outputs) is kind
        return {name: getattr(outputs, name) for name in kind.names()}

    assert record(importing).exports == values(kind)


@pytest.mark.parametrize("kind", OUTPUTS, ids=lambda kind: kind.unit)
def test_an_output_that_the_other_stack_lacks_is_named_with_that_stack(kind: type[UnitOutputs]) -> None:
    lacking = kind.names()[-1]
    exports = {f"{kind.unit}_{name}": value for name, value in values(kind).items() if name != lacking}

    def importing() -> dict[str, pulumi.Input[Any]]:
        return dict(kind.imported(Exported(exports), "acme/goldlake/base").exports())

    with pytest.raises(Exception, match="has no output") as refused:
        record(importing)
    assert f"stack 'acme/goldlake/base' has no output '{kind.unit}_{lacking}'" in str(refused.value)


def test_outputs_cannot_be_changed_after_they_are_made() -> None:
    def changing() -> None:
        kind = OUTPUTS[0]
        made = kind(**{name: pulumi.Output.from_input(value) for name, value in values(kind).items()})
        made.bucket_name = pulumi.Output.from_input("other")  # type: ignore[attr-defined] # that is the test

    with pytest.raises(dataclasses.FrozenInstanceError):
        record(changing)
