"""A client's connection to a driver: requests, answers, and notices that the driver sends by itself."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from alchemist_ray.errors import AuthenticationError, DeadlineError, NotConnectedError, RemoteProtocolError
from alchemist_ray.protocol import Key
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.transport.channel import Channel, check_reachable
from alchemist_ray.transport.credentials import find_token

REQUEST_SECONDS = 30.0
"""How long the driver may take to answer."""


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
        self._notices: deque[m.GroupDied] = deque()

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the driver: ``version, host, pid`` and, for a session, ``session_id``."""
        return self._channel.facts

    def ask(self, make: Callable[[int], m.Message], seconds: float = REQUEST_SECONDS) -> Any:
        """Send the request ``make(number)``; return the result.

        Raises
        ------
        AlchemistError
            The error in the driver's answer.
        DeadlineError
            If it does not answer in time.
        NotConnectedError
            If the driver is gone.
        """
        try:
            with self._lock:
                reply = self._exchange(make, seconds)
        except DeadlineError:
            raise DeadlineError(f"the answer of the server at {self.hostname}:{self.port}", seconds) from None
        except (OSError, EOFError) as lost:
            raise NotConnectedError from lost
        if isinstance(reply, m.Failure):
            raise reply.to_error()
        return reply.result

    def _exchange(self, make: Callable[[int], m.Message], seconds: float) -> m.Done | m.Failure:
        self._requests += 1
        self._channel.send(make(self._requests))
        while True:
            reply = self._receive(seconds)
            if reply is not None and reply.request == self._requests:
                return reply

    def _receive(self, seconds: float) -> m.Done | m.Failure | None:
        """Return the next answer; keep a notice and return None."""
        message = self._channel.receive(seconds)
        if isinstance(message, m.GroupDied):
            self._notices.append(message)
            return None
        if not isinstance(message, (m.Done, m.Failure)):
            raise RemoteProtocolError(f"a {type(message).__name__} from a driver")
        return message

    def notices(self, wait: float = 0.0) -> list[m.GroupDied]:
        """Return the driver's notices since the last call; wait up to `wait` seconds for the first.

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
                while not self._notices and (left := deadline - time.monotonic()) > 0:
                    self._receive(left)
        except DeadlineError:
            pass
        except (OSError, EOFError) as lost:
            raise NotConnectedError from lost
        taken = list(self._notices)
        self._notices.clear()
        return taken

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
