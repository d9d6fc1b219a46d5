"""Wait for the first of several channels that has something to receive."""

from __future__ import annotations

import select
from collections.abc import Sequence
from typing import Protocol


class HasFileno(Protocol):
    """Something that can be polled."""

    def fileno(self) -> int:
        """Return the descriptor."""


class ChannelPoller:
    """Waits on a fixed set of channels.

    Parameters
    ----------
    channels : sequence
        The channels, all open; or other objects with ``fileno()``.
    """

    def __init__(self, channels: Sequence[HasFileno]) -> None:
        self._poller = select.poll()
        self._positions = {}
        for position, channel in enumerate(channels):
            self._poller.register(channel, select.POLLIN)
            self._positions[channel.fileno()] = position

    def poll(self, milliseconds: float | None) -> list[int]:
        """Return the positions of the channels that have something to receive or are closed.

        Parameters
        ----------
        milliseconds : float or None
            How long to wait for the first channel; None: without limit.
        """
        return [self._positions[fd] for fd, _ in self._poller.poll(milliseconds)]
