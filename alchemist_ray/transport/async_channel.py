"""The protocol over asyncio streams, as the driver and the node agents use it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, Self

from alchemist_ray._version import __version__
from alchemist_ray.errors import (
    AuthenticationError,
    ProtocolError,
    ProtocolVersionError,
    RemoteProtocolError,
    ServerUnreachableError,
)
from alchemist_ray.protocol import Connection, Key, Side, State
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import FindKey, Purpose
from alchemist_ray.transport.channel import HANDSHAKE_SECONDS, describe_loss
from alchemist_ray.transport.silence import watch

_CHUNK = 65536


class AsyncChannel:
    """A connection.

    Parameters
    ----------
    reader, writer
        The streams of the connection.
    connection : Connection
        The protocol state.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection) -> None:
        self.connection = connection
        self._reader = reader
        self._writer = writer
        self.at_eof = False
        self._loss = "the peer has closed the connection"
        self.peer = _text(writer.get_extra_info("peername"))
        sock = writer.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            watch(sock, always_reads=True)

    # --- opening ------------------------------------------------------------------------------------------------------

    @classmethod
    async def open(
        cls, address: tuple[str, int], purpose: Purpose, key: Key, timeout: float = HANDSHAKE_SECONDS
    ) -> Self:
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
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(*address)
                channel = cls(reader, writer, Connection(Side.INITIATOR))
                try:
                    await channel._greet(purpose, key)
                except BaseException:
                    channel.close()
                    raise
        except (AuthenticationError, ProtocolVersionError):
            raise
        except TimeoutError:
            raise ServerUnreachableError(*address, f"no answer within {timeout:g} s") from None
        except (OSError, EOFError, RemoteProtocolError) as failure:
            raise ServerUnreachableError(*address, describe_loss(failure)) from failure
        return channel

    async def _greet(self, purpose: Purpose, key: Key) -> None:
        self._writer.write(self.connection.greet(purpose, 0, key, f"alchemist-ray {__version__}"))
        while self.connection.state is not State.OPEN:
            message = await self.receive()
            if isinstance(message, m.Failure):
                raise message.to_error()
            self._answer(message)

    def _answer(self, message: m.Message) -> None:
        reply = self.connection.answer(message)
        if reply is not None:
            self._writer.write(reply)

    @classmethod
    def accepted(cls, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, find_key: FindKey) -> Self:
        """Return a connection that a peer has opened; :meth:`shake_hands` comes next."""
        return cls(reader, writer, Connection(Side.ACCEPTOR, find_key))

    @classmethod
    async def inherited(cls, sock: socket.socket, side: Side, purpose: Purpose) -> Self:
        """Return a connection to a process that inherits the other end of a socket pair. It needs no handshake."""
        reader, writer = await asyncio.open_connection(sock=sock)
        return cls(reader, writer, Connection.opened(side, purpose))

    async def shake_hands(self) -> None:
        """Let the peer prove that it knows the key; the caller then welcomes it.

        Raises
        ------
        AuthenticationError, ProtocolError
            If the peer fails; the error has also been sent to it.
        """
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                while self.connection.state is not State.PROVEN:
                    self._answer(await self.receive())
        except (AuthenticationError, ProtocolError) as refusal:
            with contextlib.suppress(OSError):
                await self.send(m.Failure.of(0, refusal))
            raise

    async def welcome(self, facts: dict[str, Any]) -> None:
        """Open the connection."""
        await self.send(m.Welcome(facts))

    # --- facts --------------------------------------------------------------------------------------------------------

    @property
    def software(self) -> str:
        """The peer's own name for its software."""
        return self.connection.hello.software[:80] if self.connection.hello else ""

    @property
    def group_id(self) -> int:
        """The worker group that the peer named in its greeting."""
        return self.connection.hello.group_id if self.connection.hello else 0

    @property
    def own_address(self) -> str:
        """The address of this end, as the peer sees it unless something in between translates addresses."""
        return str(self._writer.get_extra_info("sockname")[0])

    # --- messages -----------------------------------------------------------------------------------------------------

    async def send(self, message: m.Message) -> None:
        """Send a message."""
        self._writer.write(self.connection.send(message))
        await self._writer.drain()

    def post(self, message: m.Message) -> None:
        """Send a message without waiting; nothing happens if the peer is gone."""
        if not self._writer.is_closing():
            self._writer.write(self.connection.send(message))

    async def receive(self) -> m.Message:
        """Return the next message; raise EOFError if the peer has closed the connection."""
        while (message := self.connection.next_message()) is None:
            await self.wait_closed_or_readable()
            if self.at_eof:
                raise EOFError(self._loss)
        return message

    async def wait_closed_or_readable(self) -> None:
        """Wait until the peer has sent something or closed the connection (:attr:`at_eof`)."""
        try:
            octets = await self._reader.read(_CHUNK)
        except OSError as lost:  # reset, or given up by the system, instead of closed
            octets, self._loss = b"", describe_loss(lost)
        if octets:
            self.connection.receive(octets)
        else:
            self.at_eof = True

    def close(self) -> None:
        """Close the connection; what was posted is still sent."""
        self._writer.close()

    def abort(self) -> None:
        """Close the connection at once; nothing more is sent."""
        self._writer.transport.abort()


def _text(peer: Any) -> str:
    host, port = (*(peer or ("?", 0)),)[:2] if isinstance(peer, tuple) else ("this host", 0)
    return f"{host}:{port}"
