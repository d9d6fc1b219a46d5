"""Count the bytes of a transfer, for a progress bar; stop the threads of an interrupted transfer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator


class TransferStoppedError(Exception):
    """Raised in the threads of a transfer that was stopped; callers never see it."""


class Meter:
    """Counts bytes as they move. Thread-safe.

    Parameters
    ----------
    on_bytes : callable, optional
        Called with the number of bytes, each time that some have moved; one call at a time.
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
        """Yield pieces of bytes, and count each."""
        for lot in lots:
            self.add(len(lot))
            yield lot

    def stop(self) -> None:
        """Stop the threads of the transfer as soon as possible."""
        self._stopped = True

    def check(self) -> None:
        """Raise :class:`TransferStoppedError` if the transfer was stopped."""
        if self._stopped:
            raise TransferStoppedError
