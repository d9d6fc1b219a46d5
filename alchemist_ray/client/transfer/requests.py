"""Numbered requests to one worker, from any number of threads over one connection.

A request waits in a queue until a thread gets the connection. That thread sends all waiting requests at once, and then
reads their answers. So a worker wakes up once for all threads that ask at the same time. A thread that asks several
workers (:func:`settle`) sends its requests to all of them before it waits for the first answer.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from alchemist_ray.client.address import Endpoint, GroupAddress
from alchemist_ray.client.transfer.health import GroupHealth
from alchemist_ray.errors import (
    AlchemistError,
    ConnectionLostError,
    DeadlineError,
    GroupDiedError,
    RemoteProtocolError,
    ServerUnreachableError,
)
from alchemist_ray.protocol import Key
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.transport.channel import Address, Channel, check_reachable, describe_loss

T = TypeVar("T")
R = TypeVar("R", m.Done, m.Block)

REACH_SECONDS = 3.0
"""How long to try to reach a worker whose connection broke."""
REQUEST_SECONDS = 60.0
"""How long a worker may take to answer, and how long a transfer may make no progress."""


@dataclass(eq=False)
class PendingRequest:
    """A request, and its answer once it has arrived."""

    make: Callable[[int], m.Message]
    number: int = 0
    channel: Channel | None = None
    answer: m.Done | m.Failure | None = None
    error: AlchemistError | None = None

    @property
    def settled(self) -> bool:
        """Whether the answer has arrived, or will never arrive."""
        return self.answer is not None or self.error is not None

    @property
    def granted(self) -> bool:
        """Whether the worker has carried out the request."""
        return isinstance(self.answer, m.Done)

    def result(self) -> Any:
        """Return the result of the request; raise the error in its answer, or the error that broke the connection."""
        if self.error is not None:
            raise self.error
        if self.answer is None:
            raise RemoteProtocolError("no answer to a request")
        return answer_of(self.answer).result


class Requester:
    """The requests and answers of a connection to the matrices of one worker. Thread-safe.

    Parameters
    ----------
    address : GroupAddress
        The group.
    endpoint : Endpoint
        The worker.
    health : GroupHealth
        What is known of the life of the group.
    """

    def __init__(self, address: GroupAddress, endpoint: Endpoint, health: GroupHealth) -> None:
        self._address = address
        self.endpoint = endpoint
        self._health = health
        self._channel: Channel | None = None
        self._request = 0
        self._lock = threading.RLock()
        self._waiting: collections.deque[PendingRequest] = collections.deque()

    def request(self, make: Callable[[int], m.Message]) -> Any:
        """Send the request ``make(number)``; return its result, or raise the error in its answer."""
        request = PendingRequest(make)
        settle([(self, request)])
        return request.result()

    def _exchange(self, make: Callable[[int], m.Message], expected: type[R]) -> R:
        """Send one request and return its answer, which is not a `Done`. The caller holds the lock."""
        channel = self._open()
        self._request += 1
        number = self._request

        def exchange() -> R | m.Failure:
            channel.send(make(number))
            return self._receive(channel, expected, number)

        return answer_of(self._guard(exchange))

    def _receive(self, channel: Channel, expected: type[R], number: int) -> R | m.Failure:
        reply = channel.receive(REQUEST_SECONDS)
        if not isinstance(reply, (expected, m.Failure)):
            raise RemoteProtocolError(f"a {type(reply).__name__} instead of a {expected.__name__}")
        if reply.request != number:
            raise RemoteProtocolError(f"an answer to request {reply.request} instead of {number}")
        return reply

    # --- requests of several threads at once --------------------------------------------------------------------------

    def _send_waiting(self) -> list[PendingRequest]:
        """Send all waiting requests; return them. The caller holds the lock."""
        sent = []
        while self._waiting:
            sent.append(self._waiting.popleft())
        if sent:
            try:
                channel = self._open()
                self._guard(lambda: self._send(channel, sent))
            except AlchemistError as failure:
                _give_up(sent, failure)
        return sent

    def _send(self, channel: Channel, asked: list[PendingRequest]) -> None:
        frames = []
        for request in asked:
            self._request += 1
            request.number, request.channel = self._request, channel
            frames.append(channel.connection.send(request.make(request.number)))
        channel.send_bytes(b"".join(frames))

    def _receive_answers(self, sent: list[PendingRequest]) -> None:
        """Receive the answers to sent requests. The caller holds the lock."""
        for request in sent:
            if request.channel is not None and not request.settled:
                try:
                    request.answer = self._guard(partial(self._receive_if_alive, request.channel, request.number))
                except AlchemistError as failure:
                    _give_up(sent, failure)

    def _receive_if_alive(self, channel: Channel, number: int) -> m.Done | m.Failure:
        """Receive an answer, unless another connection has just found that the group is dead."""
        self._health.check()
        return self._receive(channel, m.Done, number)

    # --- the connection -----------------------------------------------------------------------------------------------

    def _guard(self, action: Callable[[], T]) -> T:
        """Run `action`, which reads all that its requests cause the worker to send, or raises.

        If it raises, the connection is closed, because late bytes would be taken for the answer to the next request. A
        broken connection becomes an error that says whether the worker still lives.
        """
        try:
            return action()
        except (OSError, EOFError) as lost:
            self._drop()
            if isinstance(lost, TimeoutError) and lost.errno != errno.ETIMEDOUT:  # the peer's host is there
                raise DeadlineError(f"an answer of {self.endpoint}", REQUEST_SECONDS) from None
            raise self._loss(lost) from None
        except BaseException:
            self._drop()
            raise

    def _loss(self, lost: OSError | EOFError) -> AlchemistError:
        """Return the error for a broken connection: the worker is dead, or only the connection is lost."""
        reason = describe_loss(lost)
        if is_listening(self._address, self.endpoint):
            return ConnectionLostError(str(self.endpoint), reason)
        return self._health.note_death(f"{self.endpoint} is lost: {reason}")

    def _open(self) -> Channel:
        if self._channel is None:
            self._health.check()
            try:
                self._channel = open_channel(self._address, self.endpoint, Purpose.MATRICES)
            except GroupDiedError as dead:
                self._health.note_death(dead.reason)
                raise
            self._channel.set_timeout(REQUEST_SECONDS)
            self._channel.on_tick = self._health.tick
        return self._channel

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.shut_down()
            self._channel.close()
        self._channel = None

    def shut_down(self) -> None:
        """End the connection; another thread that waits for an answer gets an error."""
        channel = self._channel
        if channel is not None:
            channel.shut_down()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()


def settle(requests: Sequence[tuple[Requester, PendingRequest]]) -> None:
    """Send requests to several workers, then wait for all answers.

    Do not call this where an interrupt (Ctrl-C) can be raised: see :meth:`DataPlane.run`.

    Parameters
    ----------
    requests : sequence of (Requester, PendingRequest)
        One request for each worker, in the order of ranks.
    """
    for requester, request in requests:
        requester._waiting.append(request)
    with contextlib.ExitStack() as held:
        for requester, _ in requests:  # all threads lock in the order of ranks
            held.enter_context(requester._lock)
        sent = [requester._send_waiting() for requester, _ in requests]
        for (requester, _), asked in zip(requests, sent, strict=True):
            requester._receive_answers(asked)


def _give_up(asked: list[PendingRequest], failure: AlchemistError) -> None:
    """Settle requests whose answers will not arrive."""
    for request in asked:
        if not request.settled:
            request.error = failure


def answer_of(reply: R | m.Failure) -> R:
    """Return a reply, or raise the error in it."""
    if isinstance(reply, m.Failure):
        raise reply.to_error()
    return reply


def is_listening(address: GroupAddress, endpoint: Endpoint) -> bool:
    """Whether a worker accepts connections; one that computes in C with the interpreter's lock held does, too."""
    places: list[Address] = [endpoint.socket_name] if address.transport == "auto" else []
    for place in (*places, (endpoint.address, endpoint.port)):
        try:
            check_reachable(place, REACH_SECONDS)
        except ServerUnreachableError:
            continue
        return True
    return False


def open_channel(address: GroupAddress, endpoint: Endpoint, purpose: Purpose) -> Channel:
    """Connect to a worker: over its Unix socket if it is on this host, otherwise over TCP.

    Raises
    ------
    GroupDiedError
        If it does not answer.
    """
    key = Key.of(address.ticket)
    if address.transport == "auto":
        try:
            return Channel.open(endpoint.socket_name, purpose, key, address.group_id)
        except ServerUnreachableError:
            pass  # another host, or another container on this one
    try:
        return Channel.open((endpoint.address, endpoint.port), purpose, key, address.group_id)
    except ServerUnreachableError as gone:
        raise GroupDiedError(address.session_id, f"{endpoint} does not answer: {gone.reason}") from None
