"""The protocol over a blocking socket, as clients and workers use it.

A channel uses TCP, or a Unix socket when both ends share a host. The Unix sockets are abstract (they have a name but no
file), so a killed process leaves nothing behind. Both ends share a host if the name of the socket resolves and the peer
proves the session's ticket over it.
"""

from __future__ import annotations

import array
import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from alchemist_ray._version import __version__
from alchemist_ray.errors import (
    AuthenticationError,
    DeadlineError,
    ProtocolError,
    ProtocolVersionError,
    RemoteProtocolError,
    ServerUnreachableError,
)
from alchemist_ray.protocol import Connection, Key, Side, State
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import FindKey, Purpose
from alchemist_ray.transport.forks import abandon_in_children
from alchemist_ray.transport.silence import SILENCE_SECONDS, TICK_SECONDS, is_silent, set_tick, watch

HANDSHAKE_SECONDS = 5.0
HOST_IS_GONE = f"no answer for {SILENCE_SECONDS} s: the network or the host failed"
_CHUNK = 16384
_FD_BYTES = array.array("i").itemsize

Address = tuple[str, int] | str
"""An address to connect to: (host name, port), or the name of an abstract Unix socket."""


class Channel:
    """A connected socket and its protocol state. Not thread-safe.

    A channel has ``fileno()``. In a forked child it is closed; the parent's connection stays as it is.

    Parameters
    ----------
    sock : socket.socket
        A connected socket. The channel owns it from now on.
    connection : Connection
        The protocol state.

    Attributes
    ----------
    on_tick : callable or None
        Called about once a second while a thread waits for the peer; what it raises ends the wait.
    """

    def __init__(self, sock: socket.socket, connection: Connection) -> None:
        self._sock = sock
        self._timeout: float | None = None
        self.on_tick: Callable[[], None] | None = None
        self.connection = connection
        self.facts: dict[str, Any] = {}
        abandon_in_children(self)

    @property
    def is_local(self) -> bool:
        """Whether both ends share a host and can therefore share memory."""
        return self._sock.family == socket.AF_UNIX

    # --- opening ------------------------------------------------------------------------------------------------------

    @classmethod
    def open(
        cls, address: Address, purpose: Purpose, key: Key, group_id: int = 0, timeout: float = HANDSHAKE_SECONDS
    ) -> Channel:
        """Connect and shake hands.

        Raises
        ------
        ServerUnreachableError
            If nothing answers at the address, or the answer is not in the Alchemist protocol.
        AuthenticationError
            If the two sides do not share the key.
        ProtocolVersionError
            If the peer speaks another version.
        """
        host, port = (address, 0) if isinstance(address, str) else address
        sock = _connect(address, timeout)
        channel = cls(sock, Connection(Side.INITIATOR))
        try:
            channel._greet(purpose, key, group_id, timeout)
        except (RemoteProtocolError, ConnectionError, DeadlineError) as failure:
            channel.close()
            if isinstance(failure, ProtocolVersionError):
                raise
            raise ServerUnreachableError(host, port, f"no handshake: {failure}") from failure
        except BaseException:
            channel.close()
            raise
        return channel

    def _greet(self, purpose: Purpose, key: Key, group_id: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        self._sock.sendall(self.connection.greet(purpose, group_id, key, f"alchemist-ray {__version__}"))
        while self.connection.state is not State.OPEN:
            message = self.receive(max(0.001, deadline - time.monotonic()))
            if isinstance(message, m.Failure):
                raise message.to_error()
            if isinstance(message, m.Welcome):
                self.facts = message.facts
            self._answer(message)

    def _answer(self, message: m.Message) -> None:
        reply = self.connection.answer(message)
        if reply is not None:
            self._sock.sendall(reply)

    @classmethod
    def accept(cls, sock: socket.socket, find_key: FindKey, facts: dict[str, Any]) -> Channel:
        """Shake hands with a client that has connected.

        Raises
        ------
        AuthenticationError, ProtocolError
            If the client does not know the key, or breaks the protocol; the error has also been sent to it.
        """
        prepare(sock)
        channel = cls(sock, Connection(Side.ACCEPTOR, find_key))
        deadline = time.monotonic() + HANDSHAKE_SECONDS
        try:
            while channel.connection.state is not State.PROVEN:
                channel._answer(channel.receive(max(0.001, deadline - time.monotonic())))
            channel.send(m.Welcome(facts))
        except (AuthenticationError, ProtocolError) as refusal:
            with contextlib.suppress(OSError):
                sock.sendall(channel.connection.send(m.Failure.of(0, refusal)))
            channel.close()
            raise
        except BaseException:
            channel.close()
            raise
        return channel

    # --- messages -----------------------------------------------------------------------------------------------------

    def send(self, message: m.Message, payload: Iterable[memoryview] = (), payload_length: int = 0) -> None:
        """Send a message and its payload."""
        self.send_bytes(self.connection.send(message, payload_length))
        for part in payload:
            self.send_bytes(part)

    def send_bytes(self, octets: bytes | memoryview) -> None:
        """Send bytes that :attr:`connection` has encoded, or bytes of a payload."""
        left = memoryview(octets)
        begun = time.monotonic()
        while left:
            try:
                left = left[self._sock.send(left) :]
            except BlockingIOError:
                self._look(begun)
            else:
                begun = time.monotonic()

    def send_with_fd(self, message: m.Message, fd: int) -> None:
        """Send a message and an open file descriptor. Unix sockets only."""
        socket.send_fds(self._sock, [self.connection.send(message)], [fd])

    def pending(self) -> bool:
        """Whether the peer has sent something or closed the connection, so that :meth:`receive` will not wait long."""
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        return bool(poller.poll(0))

    def receive(self, timeout: float | None = None) -> m.Message:
        """Return the peer's next message.

        Raises
        ------
        ConnectionError
            If the peer has closed the connection.
        DeadlineError
            If no complete message came within `timeout` seconds (None: wait as long as the peer lives).
        RemoteProtocolError
            If the peer sent something that is not a message, or a message that it may not send now.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        connection = self.connection
        message = connection.next_message() if connection.holds_bytes else None
        while message is None:
            if deadline is not None:
                self._await_readable(deadline, timeout or 0.0)
            try:
                octets = self._sock.recv(_CHUNK)
            except BlockingIOError:
                self.check_alive()
                continue
            if not octets:
                raise ConnectionResetError("the peer has closed the connection")
            connection.receive(octets)
            message = connection.next_message()
        return message

    def receive_with_fd(self) -> tuple[m.Message, int]:
        """Return the peer's next message and the file descriptor sent with it. Unix sockets only."""
        begun = time.monotonic()
        while True:
            try:
                octets, ancillary, _, _ = self._sock.recvmsg(_CHUNK, socket.CMSG_SPACE(_FD_BYTES))
            except BlockingIOError:
                self._look(begun)
            else:
                break
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % _FD_BYTES])
        if not octets:
            raise ConnectionResetError("the peer has closed the connection")
        self.connection.receive(octets)
        message = self.receive()
        if isinstance(message, m.Failure):
            raise message.to_error()
        if not fds:
            raise RemoteProtocolError("the peer sent a message without its file descriptor")
        return message, fds[0]

    def _await_readable(self, deadline: float, timeout: float) -> None:
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        while not poller.poll(1000 * min(TICK_SECONDS, max(0.0, deadline - time.monotonic()))):
            self.check_alive()
            if time.monotonic() >= deadline:
                raise DeadlineError("an answer", timeout)

    def check_alive(self) -> None:
        """Raise TimeoutError if the peer's host is gone: to be called every tick by who waits for the peer."""
        if not self.is_local and is_silent(self._sock):
            raise TimeoutError(errno.ETIMEDOUT, HOST_IS_GONE)
        if self.on_tick is not None:
            self.on_tick()

    def _look(self, begun: float) -> None:
        """Look, after a tick without progress since `begun`, whether to wait any longer."""
        self.check_alive()
        if self._timeout is not None and time.monotonic() - begun >= self._timeout:
            raise TimeoutError(f"no progress for {self._timeout:g} s")

    def receive_payload_into(self, target: memoryview) -> None:
        """Fill `target` (contiguous bytes) with the next bytes of payload."""
        done = self.connection.take_payload(target)
        begun = time.monotonic()
        while done < len(target):
            try:
                count = self._sock.recv_into(target[done:])
            except BlockingIOError:
                self._look(begun)
                continue
            begun = time.monotonic()
            if count == 0:
                raise ConnectionResetError("the peer has closed the connection in the middle of a payload")
            self.connection.payload_received(count)
            done += count

    def drop_payload(self) -> None:
        """Read the rest of the payload and throw it away."""
        waste = memoryview(bytearray(_CHUNK))
        while self.connection.payload_left:
            self.receive_payload_into(waste[: min(_CHUNK, self.connection.payload_left)])

    def fileno(self) -> int:
        """Return the file descriptor of the socket; -1 once it is closed."""
        return self._sock.fileno()

    def set_timeout(self, seconds: float | None) -> None:
        """Make each send and receive fail with ``TimeoutError`` after `seconds` without progress; None: never."""
        self._timeout = seconds

    def shut_down(self) -> None:
        """End the connection for both sides; a thread that waits in :meth:`receive` gets a ConnectionError."""
        with contextlib.suppress(OSError):  # the peer may have ended it already
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def abandon(self) -> None:
        """Close the socket of a forked child; nothing is sent, and the parent's connection stays open."""
        self._sock.close()


def check_reachable(address: Address, timeout: float = HANDSHAKE_SECONDS) -> None:
    """Raise :class:`ServerUnreachableError` unless something listens at an address."""
    _connect(address, timeout).close()


def _connect(address: Address, timeout: float) -> socket.socket:
    """Return a connected socket, or raise :class:`ServerUnreachableError`."""
    try:
        if isinstance(address, str):
            sock = _connect_locally(address)
        else:
            sock = socket.create_connection(address, timeout=timeout)
    except OSError as failure:
        host, port = (address, 0) if isinstance(address, str) else address
        raise ServerUnreachableError(host, port, failure.strerror or str(failure)) from None
    prepare(sock)
    return sock


def _connect_locally(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect("\0" + name)
    except OSError:
        sock.close()
        raise
    return sock


def prepare(sock: socket.socket) -> None:
    """Set up a connected socket to send short messages at once and to notice that the peer's host is gone."""
    sock.settimeout(None)
    set_tick(sock)
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        watch(sock)


def describe_loss(lost: BaseException) -> str:
    """Return in words how a connection was lost."""
    if isinstance(lost, OSError) and lost.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH):
        return HOST_IS_GONE
    return (lost.strerror if isinstance(lost, OSError) else None) or str(lost) or type(lost).__name__
