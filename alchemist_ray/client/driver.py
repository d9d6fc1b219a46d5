"""A client's connection to a driver: requests, answers, and notices that the driver sends by itself."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from alchemist_ray.errors import AuthenticationError, DeadlineError, NotConnectedError, RemoteProtocolError
from alchemist_ray.protocol import Key
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.transport.channel import Channel, check_reachable, describe_loss
from alchemist_ray.transport.credentials import find_token

REQUEST_SECONDS = 12.0
"""How long the driver may say nothing; while it works on a request it sends a sign of life every few seconds."""


class DriverConnection:
    """A connection to the driver of a server. Threads may share it: requests go out one at a time.

    Parameters
    ----------
    hostname, port : str, int
        Where the driver listens.
    token : str or None
        The server's token; None: look for it (:mod:`alchemist_ray.transport.credentials`).
    purpose : Purpose
        ``SESSION``, or ``MONITOR`` to look at the server only.

    Raises
    ------
    ServerUnreachableError
        If no server answers there; this comes before any error about the token.
    AuthenticationError, ProtocolVersionError
        If the token is wrong or missing, or the server is of another release.
    """

    def __init__(self, hostname: str, port: int, token: str | None, purpose: Purpose = Purpose.SESSION) -> None:
        self.hostname = hostname
        self.port = port
        self._channel = Channel.open((hostname, port), purpose, Key.of(token or _found_token(hostname, port)))
        self._requests = 0
        self._lock = threading.Lock()  # one request at a time, so that answers cannot be confused
        self._deaths: deque[m.GroupDied] = deque()
        self._stopped: dict[int, m.RanksStopped] = {}  # by group; without groups whose ranks all run

    def __str__(self) -> str:
        return f"{self.hostname}:{self.port}"

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the driver: ``version, host, pid`` and, for a session, ``session_id``."""
        return self._channel.facts

    def ask(
        self, make: Callable[[int], m.Message], seconds: float = REQUEST_SECONDS, within: float | None = None
    ) -> Any:
        """Send the request ``make(number)``; return the result.

        Parameters
        ----------
        make : callable
            Makes the request from its number.
        seconds : float
            How long the driver may say nothing. It says something every few seconds while it works on a request.
        within : float, optional
            How long all of it may take, also until another thread's request is answered; by default as long as the
            driver lives.

        Raises
        ------
        AlchemistError
            The error in the driver's answer.
        DeadlineError
            If it says nothing for so long.
        NotConnectedError
            If the driver is gone.
        """
        begun = time.monotonic()
        if not self._lock.acquire(timeout=-1 if within is None else within):
            raise DeadlineError(f"the server's answer to another request of this session ({self})", within or 0.0)
        try:
            left = None if within is None else within - (time.monotonic() - begun)
            reply = self._exchange(make, seconds, left)
        except DeadlineError as late:
            raise DeadlineError(f"the answer of the server at {self}", late.seconds) from None
        except (OSError, EOFError) as lost:
            raise self._loss(lost) from lost
        finally:
            self._lock.release()
        if isinstance(reply, m.Failure):
            raise reply.to_error()
        return reply.result

    def _exchange(self, make: Callable[[int], m.Message], seconds: float, within: float | None) -> m.Done | m.Failure:
        self._requests += 1
        self._channel.send(make(self._requests))
        end = math.inf if within is None else time.monotonic() + within
        while True:
            reply = self._receive(min(seconds, max(0.0, end - time.monotonic())))
            if reply is not None and reply.request == self._requests:
                return reply

    def _receive(self, seconds: float) -> m.Done | m.Failure | None:
        """Return the next answer; keep a notice, and return None for it and for a sign of life."""
        message = self._channel.receive(seconds)
        if isinstance(message, m.GroupDied):
            self._deaths.append(message)
            self._stopped.pop(message.group_id, None)
            return None
        if isinstance(message, m.RanksStopped):
            self._stopped[message.group_id] = message
            if not message.ranks:
                del self._stopped[message.group_id]
            return None
        if isinstance(message, m.Heartbeat):
            return None
        if not isinstance(message, (m.Done, m.Failure)):
            raise RemoteProtocolError(f"a {type(message).__name__} from a driver")
        return message

    def fileno(self) -> int:
        """Return the file descriptor of the connection, to be polled for notices; -1 once it is closed."""
        return self._channel.fileno()

    def listen(self) -> None:
        """Keep the notices that have arrived, without waiting. Another thread that talks to the driver does it, too.

        Raises
        ------
        NotConnectedError
            If the driver is gone.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._channel.check_alive()
            while self._channel.pending():
                self._receive(REQUEST_SECONDS)
        except (OSError, EOFError) as lost:
            raise self._loss(lost) from lost
        finally:
            self._lock.release()

    def has_died(self, group_id: int) -> bool:
        """Whether a notice that was kept says that a group has died; the notice stays."""
        return any(notice.group_id == group_id for notice in list(self._deaths))

    def stopped_ranks(self, group_id: int) -> m.RanksStopped | None:
        """Return the last notice of stopped ranks of a group; None if all its ranks run."""
        return self._stopped.get(group_id)

    def _take_deaths(self) -> list[m.GroupDied]:
        taken = []
        while self._deaths:
            taken.append(self._deaths.popleft())
        return taken

    def deaths(self, wait: float = 0.0) -> list[m.GroupDied]:
        """Return the driver's notices of dead groups since the last call; wait up to `wait` seconds for the first.

        Raises
        ------
        NotConnectedError
            If the driver is gone.
        """
        deadline = time.monotonic() + wait
        try:
            with self._lock:
                while self._channel.pending():
                    self._receive(REQUEST_SECONDS)
                while not self._deaths and (left := deadline - time.monotonic()) > 0:
                    self._receive(left)
        except DeadlineError:
            pass
        except (OSError, EOFError) as lost:
            raise self._loss(lost) from lost
        return self._take_deaths()

    def _loss(self, lost: OSError | EOFError) -> NotConnectedError:
        return NotConnectedError(reason=f"{self}: {describe_loss(lost)}")

    def shut_down(self) -> None:
        """End the connection; other threads that wait for an answer get a NotConnectedError."""
        self._channel.shut_down()

    def close(self) -> None:
        """Close the connection; the driver then ends the session."""
        self._channel.close()


def _found_token(hostname: str, port: int) -> str:
    """Return this user's token for a server; a server that is not there is reported before a missing token."""
    try:
        return find_token(port)
    except AuthenticationError:
        check_reachable((hostname, port))
        raise
