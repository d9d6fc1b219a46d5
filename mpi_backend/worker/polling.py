"""Wait for the next command without sleeping when it is likely to come soon.

An agent that steps a simulation thinks for a millisecond between two steps. A core that is idle meanwhile goes to
sleep, and waking it up can take another millisecond, especially on virtual machines. So the first rank of a host polls
for a while, which also keeps a core awake for the other ranks. It does not poll after a command that took long to come.
When other processes want the core, it polls less and less often; it measures this by the core time that they got.
"""

from __future__ import annotations

import time

from alchemist_ray.protocol import messages as m
from alchemist_ray.transport.channel import Channel
from alchemist_ray.transport.poller import ChannelPoller

POLLING_SECONDS = 5e-3
"""Time to poll for a command, if the command before it came within this time."""

LOST = 0.1
"""Other processes want the core if they got more than this share of the polling time."""

MOST_SKIPPED = 64
"""If other processes want the core, polling is tried again after at most this many commands."""


class PollingReceiver:
    """Receives the commands of one connection.

    Parameters
    ----------
    channel : Channel
        The control connection.
    polls : bool
        Whether this rank polls. One rank of each host does.
    """

    def __init__(self, channel: Channel, polls: bool) -> None:
        self._channel = channel
        self._polls = polls
        self._took = POLLING_SECONDS
        self._skip = self._skipped = 0
        self._poller = ChannelPoller([channel])

    def receive(self) -> m.Message:
        """Return the next command. Raises the errors of :meth:`Channel.receive`."""
        if not self._polls:
            return self._channel.receive()
        began = time.monotonic()
        if self._took < POLLING_SECONDS:
            self._poll(began + POLLING_SECONDS)
        message = self._channel.receive()
        self._took = time.monotonic() - began
        return message

    def _poll(self, end: float) -> None:
        """Poll until something can be received or the time is up."""
        if self._skipped < self._skip:
            self._skipped += 1
            return
        began, ran, poll = time.monotonic(), time.thread_time(), self._poller.poll
        while not poll(0) and time.monotonic() < end:
            pass
        took, ran = time.monotonic() - began, time.thread_time() - ran
        is_wanted = took - ran > LOST * took
        self._skip, self._skipped = (min(2 * self._skip + 1, MOST_SKIPPED) if is_wanted else self._skip // 2), 0
