"""The requests of one client: answered one at a time and in order, while the driver goes on listening.

::

    client:  RequestWorkers ........ EndGroup               (it no longer wants to wait: Ctrl-C)
    driver:                 Heartbeat        Failure  Failure

The client sends one request at a time. So if something comes while its request for workers waits, the client has given
that request up, and the driver cancels it. Other requests take a few seconds; what comes next waits for their answers.
When the connection ends, whatever is being done for the client is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from alchemist_ray.errors import AlchemistError, LocalProtocolError, RemoteTaskError, TaskCancelledError
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import Purpose
from alchemist_ray.transport.async_channel import AsyncChannel

SIGN_SECONDS = 3.0
"""Time between two signs of life to a client that waits for an answer."""

log = logging.getLogger("alchemist")


class Conversation:
    """The conversation with a client.

    Parameters
    ----------
    channel : AsyncChannel
        Its connection, which is open.
    carry_out : callable
        Coroutine function that carries out a request and returns its result.
    """

    def __init__(self, channel: AsyncChannel, carry_out: Callable[[Any], Awaitable[Any]]) -> None:
        self._channel = channel
        self._carry_out = carry_out

    async def hold(self) -> None:
        """Answer requests until the connection ends.

        Raises
        ------
        EOFError, OSError
            When it has ended.
        ProtocolError
            If the client has broken the protocol.
        """
        hearing = self._listen()
        try:
            while True:
                request: Any = await hearing
                hearing = self._listen()
                await self._send(request, await self._answered(request, hearing))
        finally:
            await _ended(hearing)

    def _listen(self) -> asyncio.Task[m.Message]:
        return asyncio.ensure_future(self._channel.receive())

    async def _answered(self, request: Any, hearing: asyncio.Task[m.Message]) -> m.Message:
        """Return the answer to a request; act on what is heard of the client before that."""
        answering = asyncio.ensure_future(self._answer(request))
        try:
            await self._wait(answering, hearing)
            if hearing.done() and (isinstance(request, m.RequestWorkers) or hearing.exception() is not None):
                answering.cancel()
            await self._wait(answering)
        finally:
            await _ended(answering)
        if not answering.cancelled():
            return answering.result()
        hearing.result()  # raises if the connection has ended
        return m.Failure.of(request.request, TaskCancelledError("request_workers"))

    async def _wait(self, *tasks: asyncio.Task[m.Message]) -> None:
        """Wait until one is done; meanwhile show the client that the driver lives."""
        while True:
            done, _ = await asyncio.wait(tasks, timeout=SIGN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return
            if self._channel.connection.purpose is Purpose.SESSION:
                self._channel.post(m.Heartbeat())

    async def _answer(self, request: Any) -> m.Message:
        try:
            return m.Done(request.request, await self._carry_out(request))
        except AlchemistError as error:
            return m.Failure.of(request.request, error)
        except Exception as failure:
            log.exception("A %s of %s failed", type(request).__name__, self._channel.peer)
            return m.Failure.of(request.request, RemoteTaskError("the server", type(failure).__name__, str(failure)))

    async def _send(self, request: Any, answer: m.Message) -> None:
        try:
            await self._channel.send(answer)
        except LocalProtocolError as misfit:  # the answer is too large, for example
            log.error("The answer to a %s of %s: %s", type(request).__name__, self._channel.peer, misfit)
            await self._channel.send(m.Failure.of(request.request, misfit))


async def _ended(task: asyncio.Task[m.Message]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # whoever wanted to know it has got it
