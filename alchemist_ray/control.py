"""The session's commands to its workers: every rank gets every command, over its own socket, in the same order."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alchemist_ray.address import GroupAddress
from alchemist_ray.errors import AlchemistError, GroupDiedError, PeerFailedError
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.requests import open_channel

GRACE_SECONDS = 10.0
"""How long the other ranks may go on once one has failed: they may be waiting for it, in MPI, for ever."""

OnProgress = Callable[[m.Progress], None]
OnOrphans = Callable[[list[int]], None]


class RanksStuckError(Exception):
    """A rank has failed and others do not answer: the group must be ended."""

    def __init__(self, failure: AlchemistError, ranks: list[int]) -> None:
        super().__init__(failure, ranks)
        self.failure = failure
        self.ranks = ranks


class CommandStream:
    """The control connections of a worker group; there is one stream a group.

    Parameters
    ----------
    address : GroupAddress
        The group.

    Raises
    ------
    GroupDiedError
        If a worker does not answer.
    """

    def __init__(self, address: GroupAddress) -> None:
        self._address = address
        with ThreadPoolExecutor(min(16, address.size)) as pool:
            self._channels = list(
                pool.map(lambda endpoint: open_channel(address, endpoint, Purpose.CONTROL), address.endpoints)
            )
        self._poller = select.poll()
        self._ranks = {}
        for rank, channel in enumerate(self._channels):
            self._poller.register(channel.sock, select.POLLIN)
            self._ranks[channel.sock.fileno()] = rank
        self._request = 0
        self._orphans: list[int] = []
        self._torn = False
        self._lock = threading.Lock()

    def run(
        self,
        make: Callable[[int], m.Message],
        on_progress: OnProgress | None = None,
        on_orphans: OnOrphans | None = None,
    ) -> list[Any]:
        """Send a command to every rank; return the answers by rank.

        Parameters
        ----------
        make : callable
            Makes the command from its number.
        on_progress : callable, optional
            Gets each report of progress.
        on_orphans : callable, optional
            Gets the ids of matrices that a rank has kept, but nobody will ever ask for: another rank has failed, or
            the caller of an earlier command did not wait for its answer.

        Raises
        ------
        AlchemistError
            What a rank reports; of several, what the lowest reports.
        GroupDiedError
            If a rank is gone.
        RanksStuckError
            If a rank has failed and others have not answered :data:`GRACE_SECONDS` later.
        """
        with self._lock:
            if self._torn:
                raise GroupDiedError(self._address.group_id, "a command was interrupted when not all ranks had it")
            self._request += 1
            command = make(self._request)
            frame = self._channels[0].connection.send(command)  # the same for every rank: encoded once
            try:
                self._torn = True  # an interrupt in here leaves some ranks with a command that others do not have
                for channel in self._channels:
                    channel.sock.sendall(frame)
                self._torn = False
                replies = self._collect(on_progress)
            except (OSError, EOFError) as lost:
                raise GroupDiedError(self._address.group_id, f"a worker closed its connection: {lost}") from lost
        if self._orphans and on_orphans is not None:
            on_orphans(self._orphans)
            self._orphans = []
        failures = {rank: reply for rank, reply in replies.items() if isinstance(reply, m.Failure)}
        if failures:
            kept = [reply for reply in replies.values() if isinstance(reply, m.TaskDone)]
            if on_orphans is not None:
                on_orphans([matrix_id for reply in kept for matrix_id, _ in reply.matrices])
            self._raise(failures, missing=[rank for rank in range(self._address.size) if rank not in replies])
        return [replies[rank] for rank in range(self._address.size)]

    def _collect(self, on_progress: OnProgress | None) -> dict[int, m.Message]:
        """Gather one answer a rank; give up on the others a while after one has failed."""
        replies: dict[int, m.Message] = {}
        give_up: float | None = None
        while len(replies) < len(self._channels):
            wait = None if give_up is None else 1000 * max(0.0, give_up - time.monotonic())
            events = self._poller.poll(wait)
            if not events:
                break
            for fd, _ in events:
                rank = self._ranks[fd]
                for reply in self._take(rank, on_progress):
                    replies[rank] = reply
                    if isinstance(reply, m.Failure) and give_up is None:
                        give_up = time.monotonic() + GRACE_SECONDS
        return replies

    def _take(self, rank: int, on_progress: OnProgress | None) -> list[m.Message]:
        """Return the answers to the command in hand that rank has sent; there is at most one."""
        channel = self._channels[rank]
        message: Any = channel.receive()
        taken = []
        while message is not None:
            if isinstance(message, m.Progress):
                if message.request == self._request and on_progress is not None:
                    on_progress(message)
            elif message.request == self._request:
                taken.append(message)
            elif isinstance(message, m.TaskDone):  # the answer to a command whose caller has given up
                self._orphans.extend(matrix_id for matrix_id, _ in message.matrices)
            message = channel.connection.next_message() if channel.connection.holds_bytes else None
        return taken

    def _raise(self, failures: dict[int, m.Failure], missing: list[int]) -> None:
        errors = [failures[rank].to_error() for rank in sorted(failures)]
        error = next((e for e in errors if not isinstance(e, PeerFailedError)), errors[0])
        if missing:
            raise RanksStuckError(error, missing) from error
        raise error

    def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            channel.close()
