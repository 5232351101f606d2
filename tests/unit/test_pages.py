"""The generated parts of a page: what stands between two comments is replaced, the rest stays."""

from __future__ import annotations

import pytest

from local.pages import filled, markdown_table

PAGE = "a\n<!-- generated: cost -->\nold\n<!-- end -->\nb\n"


def test_a_part_is_replaced_and_the_rest_stays() -> None:
    assert filled(PAGE, {"cost": r"n\1ew"}) == "a\n<!-- generated: cost -->\nn\\1ew\n<!-- end -->\nb\n"


@pytest.mark.parametrize("page", ["nothing here", PAGE + PAGE, PAGE.replace("<!-- end -->", "")])
def test_a_page_without_the_marker_or_with_two_is_refused(page: str) -> None:
    with pytest.raises(LookupError, match="generated: cost"):
        filled(page, {"cost": "x"})


def test_a_cell_cannot_begin_a_column() -> None:
    assert markdown_table(("a", "b"), [("x|y", "z")]) == "| a | b |\n| --- | --- |\n| x\\|y | z |"
