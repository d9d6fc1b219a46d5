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
        self._moved = 0
        self._stopped = self._interrupted = False

    def add(self, nbytes: int) -> None:
        """Note that `nbytes` have moved."""
        if self._on_bytes is not None:
            with self._lock:
                self._moved += nbytes
                self._on_bytes(nbytes)

    def metered(self, lots: Iterable[memoryview]) -> Iterator[memoryview]:
        """Yield pieces of bytes, and count each."""
        for lot in lots:
            self.add(len(lot))
            yield lot

    def stop(self) -> None:
        """Stop the threads of the transfer as soon as possible."""
        self._stopped = True

    def interrupt(self) -> None:
        """Stop the transfer for good: it does not begin again."""
        self._interrupted = True
        self._stopped = True

    def begin_again(self) -> None:
        """Take back what was counted, so that the transfer can begin again.

        Raises
        ------
        TransferStoppedError
            If it was interrupted.
        """
        self._stopped = False
        if self._interrupted:
            self._stopped = True
        self.check()
        self.add(-self._moved)

    def check(self) -> None:
        """Raise :class:`TransferStoppedError` if the transfer was stopped."""
        if self._stopped:
            raise TransferStoppedError
