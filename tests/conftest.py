"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine makes an example slow, not wrong.
settings.register_profile("goldlake", deadline=None)
settings.load_profile("goldlake")

ROOT = Path(__file__).parent.parent


@pytest.fixture
def project_root() -> Path:
    """Return the folder of the project."""
    return ROOT
