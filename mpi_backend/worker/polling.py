"""Waiting for the next command without falling asleep where it is likely to come at once.

An agent that steps a simulation thinks for a millisecond between two steps. A core that has nothing to do meanwhile
goes to sleep, and to wake it can take a millisecond again, on virtual machines above all. So the first rank of a host
polls for a while, which also keeps a core awake for the other ranks. It does not where there is no point: after a
command that was longer in coming; and, ever more seldom, where others want the core, as is seen from the time that they
have had it.
"""

from __future__ import annotations

import time

from alchemist_ray.protocol import messages as m
from alchemist_ray.transport.channel import Channel
from alchemist_ray.transport.poller import ChannelPoller

POLLING_SECONDS = 5e-3
"""How long is polled for a command, if the one before came within that time."""

LOST = 0.1
"""Others want the core if they have had it for more than this share of the time."""

MOST_SKIPPED = 64
"""After how many commands at the latest it is tried again where others have wanted the core."""


class PollingReceiver:
    """Receives the commands of one connection.

    Parameters
    ----------
    channel : Channel
        The control connection.
    polls : bool
        Whether this rank is the one of its host that polls.
    """

    def __init__(self, channel: Channel, polls: bool) -> None:
        self._channel = channel
        self._polls = polls
        self._took = POLLING_SECONDS
        self._skip = self._skipped = 0
        self._poller = ChannelPoller([channel])

    def receive(self) -> m.Message:
        """Return the next command; the errors are those of :meth:`Channel.receive`."""
        if not self._polls:
            return self._channel.receive()
        began = time.monotonic()
        if self._took < POLLING_SECONDS:
            self._poll(began + POLLING_SECONDS)
        message = self._channel.receive()
        self._took = time.monotonic() - began
        return message

    def _poll(self, end: float) -> None:
        """Poll until there is something to receive, or the time is up."""
        if self._skipped < self._skip:
            self._skipped += 1
            return
        began, ran, poll = time.monotonic(), time.thread_time(), self._poller.poll
        while not poll(0) and time.monotonic() < end:
            pass
        took, ran = time.monotonic() - began, time.thread_time() - ran
        is_wanted = took - ran > LOST * took
        self._skip, self._skipped = (min(2 * self._skip + 1, MOST_SKIPPED) if is_wanted else self._skip // 2), 0
