"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project_root() -> Path:
    """Return the folder of the project."""
    return ROOT
