"""The diagrams between markers of README.md and docs/architecture.md: `python -m local.documentation`."""

from __future__ import annotations

from pathlib import Path

from local.cost.documentation import filled
from local.graph import graph_of, mermaid
from local.preview.snapshot import snapshot_of
from local.recording import record_stack

ROOT = Path(__file__).parents[1]
STACK = "dev"
MARKER = "graph"
PAGES = ("README.md", "docs/architecture.md")


def diagram(root: Path = ROOT) -> str:
    """Return the units of the development stack as a mermaid diagram, as it stands in a page."""
    snapshot = snapshot_of(record_stack(root, STACK).resources)
    return f"```mermaid\n{mermaid(graph_of(snapshot, STACK, 'unit'))}\n```"


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Return each page as it should be. Raises LookupError for one that lost its markers."""
    text = diagram(root)
    return {root / page: filled((root / page).read_text(), {MARKER: text}) for page in PAGES}


def main(root: Path = ROOT) -> None:
    """Write the pages."""
    for path, text in pages(root).items():
        path.write_text(text)


if __name__ == "__main__":
    main()
