"""Counts the bytes of a transfer: for a progress bar, and to stop the threads of one that was interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator


class TransferStoppedError(Exception):
    """Raised in the threads of a transfer whose caller has given it up; no caller meets it."""


class Meter:
    """Counts bytes as they move. Thread-safe.

    Parameters
    ----------
    on_bytes : callable, optional
        Gets the number of each lot of bytes, one call at a time.
    """

    def __init__(self, on_bytes: Callable[[int], object] | None = None) -> None:
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        self._stopped = False

    def add(self, nbytes: int) -> None:
        """Note that `nbytes` have moved."""
        if self._on_bytes is not None:
            with self._lock:
                self._on_bytes(nbytes)

    def metered(self, lots: Iterable[memoryview]) -> Iterator[memoryview]:
        """Yield lots of bytes, counting each."""
        for lot in lots:
            self.add(len(lot))
            yield lot

    def stop(self) -> None:
        """Have the threads of the transfer end as soon as they can."""
        self._stopped = True

    def check(self) -> None:
        """Raise :class:`TransferStoppedError` if no more should be moved."""
        if self._stopped:
            raise TransferStoppedError
