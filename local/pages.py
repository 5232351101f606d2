"""Parts of a page in markdown that are made by code: what stands between a marker's two comments."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

END = "<!-- end -->"


def begin(marker: str) -> str:
    """Return the comment with which a generated part begins; END ends it."""
    return f"<!-- generated: {marker} -->"


def filled(page: str, parts: Mapping[str, str]) -> str:
    """Return a page's text with its generated parts, marker -> text, as they should be.

    Raises LookupError for a marker that is not there, or twice.
    """
    for marker, text in parts.items():
        found = re.findall(f"{re.escape(begin(marker))}\n.*?{re.escape(END)}", page, re.DOTALL)
        if len(found) != 1:
            raise LookupError(f"{begin(marker)} … {END} must stand once in the page")
        page = page.replace(found[0], f"{begin(marker)}\n{text}\n{END}")
    return page


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
