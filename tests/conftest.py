"""What all tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A busy machine makes an example slow, not wrong. `GOLDLAKE_EXAMPLES=1000 make unit` searches longer.
settings.register_profile("goldlake", deadline=None, max_examples=int(os.environ.get("GOLDLAKE_EXAMPLES", "50")))
settings.load_profile("goldlake")

ROOT = Path(__file__).parent.parent


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave what the imports made out of garbage collection: looking at pulumi_aws again and again took a fifth of it.

    What tests leave is still found, and warned of where it should have been closed.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture
def project_root() -> Path:
    """Return the folder of the project."""
    return ROOT


@pytest.fixture(autouse=True)
def _process_locks() -> Iterator[None]:
    """Give multiprocessing its own locks back: the dbt runner replaces them for the life of its process."""
    context: Any = BaseContext
    before = context.Lock, context.RLock
    yield
    context.Lock, context.RLock = before
