"""One answer for all who ask at about the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Finds an answer once for all who ask while the last one is being found.

    Everybody gets an answer that was begun after the question, so it knows all that the asker has done before.

    Parameters
    ----------
    find : callable
        Coroutine function that finds the answer.
    """

    def __init__(self, find: Callable[[], Awaitable[T]]) -> None:
        self._find = find
        self._current: asyncio.Future[T] | None = None
        self._next: asyncio.Future[T] | None = None

    async def __call__(self) -> T:
        """Return the answer."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._run(self._current))
        return await asyncio.shield(self._next)

    async def _run(self, before: asyncio.Future[T] | None) -> T:
        if before is not None:
            await asyncio.wait({before})
        self._current, self._next = self._next, None
        return await self._find()
