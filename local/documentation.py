"""The generated parts of README.md and of the pages in docs: `python -m local.documentation`, in `make docs`."""

from __future__ import annotations

from pathlib import Path

from local import policy_documentation
from local.cost import documentation as cost_documentation
from local.graph import graph_of, mermaid
from local.pages import filled
from local.preview.snapshot import snapshot_of
from local.privileges import documentation as privileges_documentation
from local.recording import record_stack
from local.redshift.dialect import constructs

ROOT = Path(__file__).parents[1]
STACK = "dev"
MARKER = "graph"
PAGES = ("README.md", "docs/architecture.md")


def diagram(root: Path = ROOT) -> str:
    """Return the units of the development stack as a mermaid diagram, as it stands in a page."""
    snapshot = snapshot_of(record_stack(root, STACK).resources)
    return f"```mermaid\n{mermaid(graph_of(snapshot, STACK, 'unit'))}\n```"


def texts(root: Path = ROOT) -> dict[str, dict[str, str]]:
    """Return what stands between the markers of the pages with a diagram: page -> marker -> text."""
    text = diagram(root)
    return {page: {MARKER: text} for page in PAGES}


def main(root: Path = ROOT) -> None:
    """Write all pages. Raises LookupError for one that lost a marker."""
    for part in (texts, cost_documentation.texts, privileges_documentation.texts):
        _write(root, part(root))
    for pages in (policy_documentation.texts(), constructs.texts()):
        _write(root, pages)


def _write(root: Path, pages: dict[str, dict[str, str]]) -> None:
    for page, parts in pages.items():
        path = root / page
        path.write_text(filled(path.read_text(), parts))


if __name__ == "__main__":
    main()
