"""Progress of a run on standard error: a line per step, and on a terminal the seconds of the one that runs."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.status import Status

from runtime.pipeline import StepResult


class Steps:
    """Shows steps as they start and end."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, emoji=False, width=None if sys.stderr.isatty() else 120)
        self._status: Status | None = None

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def update(self, name: str, result: StepResult | None) -> None:
        """Show that a step has started (`result` None) or how it ended."""
        self._stop()
        if result is not None:
            self._console.print(
                f"{time.strftime('%H:%M:%S')}  {name:<9}{result.result:<12}{result.seconds:7.1f} s  {result.message}",
                markup=False,
                highlight=False,
            )
        elif self._console.is_terminal:
            self._status = self._console.status(f"{name} …")
            self._status.start()
        else:
            self._console.print(f"{time.strftime('%H:%M:%S')}  {name:<9}started", markup=False, highlight=False)

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
