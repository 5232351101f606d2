"""What every handler answers, and where the dbt project is.

An answer is a JSON object with `statusCode` and `message`: 0 done, 1 the answer is no or the event cannot be
accepted, 2 infrastructure cannot be reached. The state machine branches on `statusCode`, so a handler returns its
failures; only a defect raises.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.errors import EXIT_FAILED, EXIT_UNREACHABLE, ConfigurationError, GoldlakeError, UnreachableError

Event = dict[str, Any]
Answer = dict[str, Any]

logger = logging.getLogger("goldlake")
logger.setLevel(logging.INFO)


def answering(handler: Callable[[Event, Any], Answer]) -> Callable[[Event, Any], Answer]:
    """Return the handler with Goldlake's own errors turned into answers."""

    @functools.wraps(handler)
    def handle(event: Event, context: Any) -> Answer:
        try:
            return handler(event, context)
        except GoldlakeError as error:
            logger.error("%s: %s", type(error).__name__, error.message)
            code = EXIT_UNREACHABLE if isinstance(error, UnreachableError) else EXIT_FAILED
            return {"statusCode": code, "message": error.message}

    return handle


def required(variable: str) -> str:
    """Return an environment variable. Raises ConfigurationError when it is not set."""
    value = os.environ.get(variable)
    if not value:
        raise ConfigurationError(f"environment variable {variable} is missing")
    return value


def table_names(event: Event) -> list[str] | None:
    """Return the event's `tables`, None when it has none. Raises ConfigurationError when they are no list of texts."""
    tables = event.get("tables")
    if tables is None:
        return None
    if not isinstance(tables, list) or not all(isinstance(table, str) for table in tables):
        raise ConfigurationError(f"tables = {tables!r}: a list of table names is needed")
    return tables


def project_dir() -> Path:
    """Return the dbt project's folder: DBT_PROJECT_DIR, or `dbt_gold` on the path, where its layer unpacks to."""
    given = os.environ.get("DBT_PROJECT_DIR")
    places = [Path(given)] if given else [Path(entry or ".") / "dbt_gold" for entry in sys.path]
    for place in places:
        if (place / "dbt_project.yml").is_file():
            return place
    raise ConfigurationError(
        f"no dbt project in {given}" if given else "no dbt project on the path: the layer dbt_project is missing"
    )
