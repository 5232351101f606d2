"""Files on their way to S3 while the engine still writes others."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from runtime import aws as aws_errors
from runtime.delta.lake import Lake
from runtime.errors import FailedError, GoldlakeError

UPLOADS_AT_ONCE = 4
# How often the folder is looked at for files that the engine has finished.
LOOK_SECONDS = 0.2
_PARQUET_END = b"PAR1"


class Uploads:
    """Sends the Parquet files of a folder to a table's location, each when it is finished.

    A file is finished when its footer is in place; whether that was so is checked at the end, against the sizes that
    the engine reports. boto3 reads from the disk as it sends, so memory does not grow with the files.
    """

    def __init__(self, lake: Lake, table: str, folder: Path) -> None:
        from boto3.s3.transfer import TransferConfig, create_transfer_manager

        if lake.aws is None:
            raise ValueError("files of a local folder are not sent anywhere")
        self._lake, self._table, self._folder = lake, table, folder
        # A transfer's own threads send the parts of a large file; small ones go in one request.
        config = TransferConfig(multipart_threshold=64_000_000, multipart_chunksize=16_000_000, max_concurrency=4)
        self._manager: Any = create_transfer_manager(lake.aws.client("s3"), config)
        self._pool = ThreadPoolExecutor(max_workers=UPLOADS_AT_ONCE, thread_name_prefix="goldlake-upload")
        self._sent: dict[str, Future[int]] = {}

    def look(self) -> None:
        """Start sending the files that were finished since the last look. Raises what went wrong with others."""
        for path in self._folder.rglob("*.parquet"):
            name = path.relative_to(self._folder).as_posix()
            if name not in self._sent and is_finished(path):
                self._sent[name] = self._pool.submit(self._send, name)
        for future in self._sent.values():
            if future.done():
                future.result()

    def finish(self, sizes: dict[str, int]) -> None:
        """Send what is left of these files and wait for all. Raises FailedError when one was sent unfinished."""
        for name in sizes:
            if name not in self._sent:
                self._sent[name] = self._pool.submit(self._send, name)
        for name, size in sizes.items():
            if self._sent[name].result() != size:
                raise FailedError(f"file {name} of {self._lake.location(self._table)} was sent before it was complete")

    def names(self) -> list[str]:
        """Return the names that were sent, or may have been."""
        return list(self._sent)

    def close(self) -> None:
        """Wait for what is being sent, and start nothing more."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._manager.shutdown()

    def _send(self, name: str) -> int:
        """Send one file; return its size. Raises as `runtime.aws.translated` does."""
        path = self._folder / name
        size = path.stat().st_size
        key = self._lake.key(self._table, name)
        # The manager and not upload_file, which hides the service's error code in an exception of its own.
        with aws_errors.translated(f"upload to {self._lake.location(self._table)}"):
            self._manager.upload(str(path), self._lake.bucket, key).result()
        return size


def is_finished(path: Path) -> bool:
    """Return whether a Parquet file has its footer: length and magic at its end, and room for it in the file."""
    try:
        size = path.stat().st_size
        if size < 12:
            return False
        with path.open("rb") as stream:
            stream.seek(-8, 2)
            tail = stream.read(8)
    except FileNotFoundError:
        return False
    return tail[4:] == _PARQUET_END and 0 < int.from_bytes(tail[:4], "little") <= size - 12


@contextlib.contextmanager
def every(seconds: float, action: Callable[[], None], on_error: Callable[[], None]) -> Iterator[None]:
    """Do something again and again in a thread while the block runs; an error of it is raised after the block.

    `on_error` is called at once when it fails, to end the block early.
    """
    stop = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        while not stop.wait(seconds):
            try:
                action()
            except BaseException as exc:
                errors.append(exc)
                on_error()
                return

    thread = threading.Thread(target=work, name="goldlake-watch", daemon=True)
    thread.start()
    try:
        yield
    except BaseException as exc:
        stop.set()
        thread.join()
        if errors and isinstance(errors[0], GoldlakeError) and not isinstance(exc, KeyboardInterrupt):
            raise errors[0] from exc
        raise
    stop.set()
    thread.join()
    if errors:
        raise errors[0]
