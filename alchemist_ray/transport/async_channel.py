"""The protocol over asyncio streams, as the driver uses it. The driver only accepts connections."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from alchemist_ray.errors import AuthenticationError, ProtocolError
from alchemist_ray.protocol import Connection, Side, State
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import FindKey
from alchemist_ray.transport.channel import HANDSHAKE_SECONDS, set_options

_CHUNK = 65536


class AsyncChannel:
    """An accepted connection.

    Parameters
    ----------
    reader, writer
        The streams of the connection.
    find_key : callable
        As for :class:`~alchemist_ray.protocol.Connection`.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, find_key: FindKey) -> None:
        self.connection = Connection(Side.ACCEPTOR, find_key)
        self._reader = reader
        self._writer = writer
        self.at_eof = False
        host, port = (*(writer.get_extra_info("peername") or ("?", 0)),)[:2]
        self.peer = f"{host}:{port}"
        set_options(writer.get_extra_info("socket"))

    @property
    def software(self) -> str:
        """The peer's own name for its software."""
        return self.connection.hello.software[:80] if self.connection.hello else ""

    @property
    def group_id(self) -> int:
        """The worker group that the peer named in its greeting."""
        return self.connection.hello.group_id if self.connection.hello else 0

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
                    reply = self.connection.answer(await self.receive())
                    if reply is not None:
                        self._writer.write(reply)
        except (AuthenticationError, ProtocolError) as refusal:
            with contextlib.suppress(OSError):
                await self.send(m.Failure.of(0, refusal))
            raise

    async def welcome(self, facts: dict[str, Any]) -> None:
        """Open the connection."""
        await self.send(m.Welcome(facts))

    async def send(self, message: m.Message) -> None:
        """Send a message."""
        self._writer.write(self.connection.send(message))
        await self._writer.drain()

    async def send_or_ignore(self, message: m.Message) -> None:
        """Send a message; ignore that the peer may be gone."""
        with contextlib.suppress(OSError):
            await self.send(message)

    async def receive(self) -> m.Message:
        """Return the next message; raise EOFError if the peer has closed the connection."""
        while (message := self.connection.next_message()) is None:
            await self.wait_closed_or_readable()
            if self.at_eof:
                raise EOFError("the peer has closed the connection")
        return message

    async def wait_closed_or_readable(self) -> None:
        """Wait until the peer has sent something or closed the connection (:attr:`at_eof`)."""
        try:
            octets = await self._reader.read(_CHUNK)
        except ConnectionError:  # reset instead of closed
            octets = b""
        if octets:
            self.connection.receive(octets)
        else:
            self.at_eof = True

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()
