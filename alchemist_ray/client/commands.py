"""The session's commands to its workers: every rank gets every command, over its own socket, in the same order."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.transfer.requests import open_channel
from alchemist_ray.errors import (
    AlchemistError,
    GroupDiedError,
    PeerFailedError,
    RemoteProtocolError,
    TaskCancelledError,
    TaskTimeoutError,
)
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.transport.channel import describe_loss
from alchemist_ray.transport.poller import ChannelPoller
from alchemist_ray.transport.silence import TICK_SECONDS

GRACE_SECONDS = 10.0
"""Seconds that the other ranks may go on after one has failed; they may wait for it in MPI forever. A task that has
run out of time gets as long to stop."""

INTERRUPT_SECONDS = 2.0
"""How long an interrupt (Ctrl-C) waits for the task to stop. A task that does not stop goes on; the next one waits."""

POLL_SECONDS = 0.2
"""Seconds between two questions whether the caller still wants the answer."""

WARNING_SECONDS = 1.0
"""Seconds until the caller is told that the ranks still run a cancelled task; after that it is told less often."""

log = logging.getLogger("alchemist.session")

OnProgress = Callable[[m.Progress], None]
OnOrphans = Callable[[list[int]], None]


@dataclass(slots=True)
class Limits:
    """How long the answer to a command is waited for.

    Attributes
    ----------
    task : str
        What the command runs, for messages.
    seconds : float, optional
        After which the workers are asked to stop, and :data:`GRACE_SECONDS` later given up.
    cancel : callable
        ``cancel(command)`` asks the workers, without waiting, to stop the command of that number.
    is_cancelled : callable, optional
        Whether the caller no longer wants the answer.
    """

    task: str
    seconds: float | None = None
    cancel: Callable[[int], None] = lambda command: None
    is_cancelled: Callable[[], bool] | None = None


NO_LIMITS = Limits("a command")


class Watch(Protocol):
    """Listens to the driver while a command runs."""

    def fileno(self) -> int:
        """Return the descriptor that can be read when the driver has said something."""

    def look(self, listen: bool = True) -> str:
        """Return the ranks that are stopped now, in words; raise GroupDiedError if the group is gone.

        With ``listen=False`` it only recalls what was heard before.
        """


class RanksStuckError(Exception):
    """A rank has failed, or its time is up, and some do not answer: the group must be ended."""

    def __init__(self, failure: AlchemistError, ranks: list[int]) -> None:
        super().__init__(failure, ranks)
        self.failure = failure
        self.ranks = ranks


@dataclass(slots=True)
class Unanswered:
    """A command whose caller has given up while some ranks still worked on it.

    Attributes
    ----------
    command : int
        Its number.
    task : str
        What it runs.
    since : float
        When the ranks were asked to stop, on the monotonic clock.
    ranks : set of int
        Those that have not answered.
    """

    command: int
    task: str
    since: float
    ranks: set[int]

    def __str__(self) -> str:
        ranks = ", ".join(map(str, sorted(self.ranks)))
        seconds = time.monotonic() - self.since
        return f"{self.task} still runs on rank {ranks}, though it was asked to stop {seconds:.0f} s ago"


class _Wait:
    """Waiting for the answers to one command.

    Parameters
    ----------
    limits : Limits
        Of the command.
    command : int
        Its number.
    unanswered : list of Unanswered
        Commands that ranks still work on; the list shrinks when they end.
    show : callable, optional
        Gets reports of progress.
    """

    def __init__(
        self, limits: Limits, command: int, unanswered: list[Unanswered], show: OnProgress | None = None
    ) -> None:
        self._limits = limits
        self._command = command
        self._unanswered = unanswered
        self._show = show
        self._pause = WARNING_SECONDS
        self._notice: float | None = time.monotonic() + WARNING_SECONDS if unanswered else None
        self.asked: float | None = None
        self._deadline = None if limits.seconds is None else time.monotonic() + limits.seconds
        self._give_up: float | None = None
        self._is_cancelled = limits.is_cancelled
        self._ask_next = 0.0
        self._heard = ""
        self.overdue: TaskTimeoutError | None = None

    @property
    def _is_endless(self) -> bool:
        """Whether nothing but an answer ends the wait: most waits are such, and this is on the path of every task."""
        return self._deadline is None and self._give_up is None and self._is_cancelled is None and self._notice is None

    def milliseconds(self) -> float:
        """Return how long to wait for the next answer until the wait looks around, at most a tick."""
        if self._is_endless:
            return 1000 * TICK_SECONDS
        times = [when for when in (self._deadline, self._give_up, self._notice) if when is not None]
        left = [max(0.0, min(times) - time.monotonic())] if times else []
        if self._is_cancelled is not None:
            left.append(POLL_SECONDS)
        return 1000 * min(*left, TICK_SECONDS)

    def goes_on(self) -> bool:
        """Whether to wait any longer; what is overdue or cancelled is asked to stop."""
        if self._is_endless:
            return True
        now = time.monotonic()
        if self._give_up is not None and now >= self._give_up:
            return False
        if self._deadline is not None and now >= self._deadline:
            begun = "" if not self._unanswered else f"it had not begun, since {self._unanswered[0]}"
            self.overdue = TaskTimeoutError(self._limits.task, self._limits.seconds or 0.0, begun)
            self.stop(GRACE_SECONDS)
        if self._is_cancelled is not None and now >= self._ask_next:
            self._ask_next = now + POLL_SECONDS
            if self._is_cancelled():
                self._is_cancelled = None
                self._ask_to_stop()
        if self._notice is not None and now >= self._notice:
            self._give_notice(now)
        return True

    def _give_notice(self, now: float) -> None:
        """Tell the caller which task still runs though it was asked to stop, if there is one."""
        if self._unanswered:
            text = f"{self._limits.task} waits: {self._unanswered[0]}. yield_workers() ends it, and loses all matrices"
        elif self.asked is not None:
            text = (
                f"{self._limits.task} was asked to stop {now - self.asked:.0f} s ago, and has not: it cannot be ended "
                "without its worker group and all matrices"
            )
        else:
            self._notice = None
            return
        self._notice, self._pause = now + self._pause, 2 * self._pause
        self.tell(text)

    def hear(self, text: str) -> None:
        """Tell the caller which ranks are stopped, when this changes; an empty text says that none is."""
        if text != self._heard:
            self._heard = text
            self.tell(text or "all ranks go on")

    def tell(self, text: str) -> None:
        """Tell the caller something while it waits."""
        log.warning("%s", text)
        if self._show is not None:
            with contextlib.suppress(Exception):  # a display that fails must not cost the answer
                self._show(m.Progress(self._command, 0.0, 1.0, text))

    def _ask_to_stop(self) -> None:
        now = time.monotonic()
        self.asked = now
        self._notice = now + WARNING_SECONDS if self._notice is None else self._notice
        self._limits.cancel(self._command)

    def stop(self, seconds: float) -> None:
        """Ask the ranks to stop, and give up on them after so many seconds."""
        self._deadline = None
        self._ask_to_stop()
        self.end_in(seconds)

    def end_in(self, seconds: float) -> None:
        """Give up after so many seconds, if not before."""
        end = time.monotonic() + seconds
        self._give_up = end if self._give_up is None else min(end, self._give_up)


def _kept(reply: m.Message) -> list[int]:
    """Return the ids of the matrices that a rank has kept of a task."""
    return [matrix_id for matrix_id, _ in reply.matrices] if isinstance(reply, m.TaskDone) else []


class CommandStream:
    """The control connections of a worker group; there is one stream a group.

    Parameters
    ----------
    address : GroupAddress
        The group.
    watch : Watch, optional
        Listens to the driver while a command runs.

    Raises
    ------
    GroupDiedError
        If a worker does not answer.
    """

    def __init__(self, address: GroupAddress, watch: Watch | None = None) -> None:
        self._address = address
        self._watch = watch
        with ThreadPoolExecutor(min(16, address.size)) as pool:
            self._channels = list(
                pool.map(lambda endpoint: open_channel(address, endpoint, Purpose.CONTROL), address.endpoints)
            )
        self._poller = ChannelPoller([*self._channels, *([watch] if watch is not None else [])])
        self._request = 0
        self._orphans: list[int] = []
        self._unanswered: list[Unanswered] = []
        self._torn = False
        self._lock = threading.Lock()

    def run(
        self,
        make: Callable[[int], m.Message],
        on_progress: OnProgress | None = None,
        on_orphans: OnOrphans | None = None,
        limits: Limits = NO_LIMITS,
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
        limits : Limits
            How long the answers are waited for.

        Raises
        ------
        AlchemistError
            What a rank reports; of several, what the lowest reports.
        GroupDiedError
            If a rank is gone.
        TaskTimeoutError
            If the time was up and the ranks have stopped.
        RanksStuckError
            If a rank has failed, or the time was up, and some have not answered :data:`GRACE_SECONDS` later.
        """
        with self._lock:
            if self._torn:
                raise GroupDiedError(self._address.session_id, "a command was interrupted in the middle of a message")
            self._request += 1
            command = make(self._request)
            frame = self._channels[0].connection.send(command)  # the same for every rank: encoded once
            try:
                self._torn = True  # an interrupt in here leaves some ranks with a command that others do not have
                for channel in self._channels:
                    channel.send_bytes(frame)
                self._torn = False
                replies, overdue = self._collect_until_interrupted(on_progress, limits)
            except (OSError, EOFError) as lost:
                raise GroupDiedError(self._address.session_id, f"a worker closed its connection: {lost}") from lost
        if self._orphans and on_orphans is not None:
            on_orphans(self._orphans)
            self._orphans = []
        failures = {rank: reply for rank, reply in replies.items() if isinstance(reply, m.Failure)}
        missing = [rank for rank in range(self._address.size) if rank not in replies]
        if failures or missing:
            if on_orphans is not None:
                on_orphans([matrix_id for reply in replies.values() for matrix_id in _kept(reply)])
            self._raise(failures, missing, overdue)
        if overdue is not None:
            if on_orphans is not None:
                on_orphans([matrix_id for reply in replies.values() for matrix_id in _kept(reply)])
            raise overdue
        return [replies[rank] for rank in range(self._address.size)]

    @property
    def current(self) -> int:
        """Number of the last command."""
        return self._request

    def _collect_until_interrupted(
        self, on_progress: OnProgress | None, limits: Limits
    ) -> tuple[dict[int, m.Message], TaskTimeoutError | None]:
        """Gather the answers; on an interrupt, ask the ranks to stop, and give them a moment to."""
        replies: dict[int, m.Message] = {}
        wait = _Wait(limits, self._request, self._unanswered, on_progress)
        try:
            self._collect(replies, on_progress, wait)
        except KeyboardInterrupt as interrupt:
            wait.stop(INTERRUPT_SECONDS)
            if not self._torn:
                self._collect(replies, None, wait)
            self._orphans.extend(matrix_id for reply in replies.values() for matrix_id in _kept(reply))
            missing = set(range(len(self._channels))) - replies.keys()
            if missing:
                self._unanswered.append(Unanswered(self._request, limits.task, wait.asked or 0.0, missing))
                interrupt.add_note(
                    f"{limits.task} has not stopped yet, and the next command will wait for it. yield_workers() ends "
                    "it, together with all matrices and simulations of the session."
                )
            raise
        return replies, wait.overdue

    def _collect(self, replies: dict[int, m.Message], on_progress: OnProgress | None, wait: _Wait) -> None:
        """Gather one answer a rank; give up on the others a while after one has failed, or the time is up."""
        self._hear_driver(wait, listen=False)  # another request may have read its notice
        while len(replies) < len(self._channels):
            ready = self._poller.poll(wait.milliseconds())
            if not wait.goes_on() and not ready:
                return
            if not ready:
                self._check_alive(replies)
                self._hear_driver(wait)
            for rank in ready:
                if rank == len(self._channels):
                    self._hear_driver(wait)
                    continue
                try:
                    reply = self._take(rank, on_progress)
                except (OSError, EOFError) as lost:
                    raise self._loss(rank, lost) from lost
                if reply is not None:
                    replies[rank] = reply
                    if isinstance(reply, m.Failure):
                        wait.end_in(GRACE_SECONDS)

    def _hear_driver(self, wait: _Wait, listen: bool = True) -> None:
        if self._watch is not None:
            wait.hear(self._watch.look(listen))

    def _check_alive(self, replies: dict[int, m.Message]) -> None:
        """Raise GroupDiedError if the host of a worker that has not answered is gone."""
        for rank, channel in enumerate(self._channels):
            if rank not in replies:
                try:
                    channel.check_alive()
                except OSError as lost:
                    raise self._loss(rank, lost) from lost

    def _loss(self, rank: int, lost: OSError | EOFError) -> GroupDiedError:
        reason = f"{self._address.endpoints[rank]} is lost: {describe_loss(lost)}"
        return GroupDiedError(self._address.session_id, reason)

    def _take(self, rank: int, on_progress: OnProgress | None) -> m.Message | None:
        """Receive what `rank` has sent; return its answer to the current command, if that is among it."""
        channel, taken = self._channels[rank], None
        self._torn = True  # an interrupt in here may lose what has been received
        message: Any = channel.receive()
        self._torn = False
        while message is not None:
            if isinstance(message, m.Progress):
                if message.request == self._request and on_progress is not None:
                    with contextlib.suppress(Exception):  # a display that fails must not cost the answer
                        on_progress(message)
            elif message.request == self._request:
                taken = message
            else:
                self._take_late(rank, message)
            message = channel.connection.next_message() if channel.connection.holds_bytes else None
        return taken

    def _take_late(self, rank: int, message: Any) -> None:
        """Take the answer to a command whose caller has given up."""
        self._orphans.extend(_kept(message))
        for unanswered in self._unanswered:
            if unanswered.command == message.request:
                unanswered.ranks.discard(rank)
        self._unanswered[:] = [each for each in self._unanswered if each.ranks]

    def _raise(self, failures: dict[int, m.Failure], missing: list[int], overdue: TaskTimeoutError | None) -> None:
        errors = [failures[rank].to_error() for rank in sorted(failures)]
        error = next((e for e in errors if not isinstance(e, PeerFailedError)), errors[0] if errors else None)
        if overdue is not None and (error is None or isinstance(error, TaskCancelledError)):
            error = overdue
        if error is None:
            raise RemoteProtocolError(f"rank {missing} did not answer")
        if missing:
            raise RanksStuckError(error, missing) from error
        raise error

    def shut_down(self) -> None:
        """End the connections; a thread that waits for an answer gets a GroupDiedError."""
        for channel in self._channels:
            channel.shut_down()

    def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            channel.close()
