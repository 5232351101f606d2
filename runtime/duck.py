"""The one place that opens DuckDB."""

from __future__ import annotations

import importlib
import os
import re
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import sql
from runtime.errors import ConfigurationError

if TYPE_CHECKING:
    import duckdb

# Of a Lambda function's memory: the rest is for Python, the libraries and the Parquet writers' own buffers.
_LAMBDA_MEMORY_SHARE = 0.6


def connect(*extensions: str) -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB in UTC with extensions loaded (`postgres_scanner`, `httpfs`, `delta`).

    The extensions come from their PyPI wheels by path; nothing is downloaded, and no secret is kept on disk.
    Raises ConfigurationError when an extension's wheel is not installed.
    """
    import duckdb

    # Under Lambda only the temporary folder is writable and HOME may be missing. The folder is this
    # connection's own: two DuckDBs that spill into the same one overwrite each other's blocks.
    scratch = Path(tempfile.gettempdir()) / f"goldlake-duckdb-{uuid.uuid4().hex}"
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_persistent_secrets": False,
            "home_directory": str(scratch),
            "temp_directory": str(scratch),
            **_memory_limit(),
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    # After two seconds of a statement DuckDB draws a bar on standard output, where the result goes.
    connection.execute("SET enable_progress_bar_print = false")
    # A Delta table has no row order, and keeping the source's would hold row groups in memory.
    connection.execute("SET preserve_insertion_order = false")
    for extension in extensions:
        connection.execute(f"LOAD {sql.literal(str(_extension_file(extension)))}")
    return connection


def reason(exc: BaseException) -> str:
    """Return DuckDB's message on one line, without its echo of the SQL text, which can hold a secret."""
    text = str(exc).split("\nLINE ")[0]
    return re.sub(r"\s+", " ", text).strip()[:500]


def _memory_limit() -> dict[str, str]:
    """Return DuckDB's memory limit under Lambda, where it would else reckon with the whole host."""
    megabytes = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    return {"memory_limit": f"{int(int(megabytes) * _LAMBDA_MEMORY_SHARE)}MB"} if megabytes.isdigit() else {}


def _extension_file(name: str) -> Path:
    """Return the path of an extension inside its wheel."""
    package = f"duckdb_extension_{name}"
    try:
        module = importlib.import_module(package)
    except ImportError as exc:
        raise ConfigurationError(
            f"DuckDB's extension {name!r} is not installed",
            hint=f"pip install {package.replace('_', '-')} in the version of duckdb",
        ) from exc
    return next(Path(str(module.__file__)).parent.rglob(f"{name}.duckdb_extension"))
