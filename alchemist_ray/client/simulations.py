"""The simulations of a session, stepped by messages of their own: shorter than a task, for millions of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.workers import SessionWorkers
from alchemist_ray.errors import ArgumentError

if TYPE_CHECKING:
    from alchemist_ray.client.session import AlchemistSession

Step = tuple[npt.NDArray[Any], float, bool, dict[str, Any]]
BatchStep = tuple[npt.NDArray[Any] | None, npt.NDArray[np.float64], list[str], list[list[Any]]]


class SimulationSteps:
    """Steps simulations on the workers of a session.

    Parameters
    ----------
    workers : SessionWorkers
        The workers of the session.
    session : AlchemistSession
        The session, for its progress display and its wish to cancel.
    """

    def __init__(self, workers: SessionWorkers, session: AlchemistSession) -> None:
        self._workers = workers
        self._session = session

    def step(self, library: str, simulation: int, action: npt.NDArray[Any], timeout: float | None) -> Step:
        """Step one simulation; see :meth:`AlchemistSession.step_simulation`."""
        octets = _reals(f"{library}.step", action)
        session = self._session
        return self._workers.call(
            f"{library}.step",
            lambda group: group.step_simulation(
                library, simulation, octets, session.make_progress, timeout, session.is_cancelled
            ),
        )

    def advance_batch(
        self,
        library: str,
        batch: int,
        orders: bytes,
        actions: npt.NDArray[Any] | None,
        seeds: Sequence[int | None],
        timeout: float | None,
    ) -> BatchStep:
        """Advance a batch of simulations; see :meth:`AlchemistSession.advance_batch`."""
        octets = b"" if actions is None else _reals(f"{library}.advance_batch", actions)
        session = self._session
        return self._workers.call(
            f"{library}.advance_batch",
            lambda group: group.advance_batch(
                library, batch, orders, octets, list(seeds), session.make_progress, timeout, session.is_cancelled
            ),
        )


def _reals(where: str, action: npt.ArrayLike) -> bytes:
    """Return an action as float64 in bytes; complex numbers and text are refused, not converted."""
    given = np.asarray(action)
    if given.dtype.kind not in "fiub":
        raise ArgumentError(where, f"an action consists of real numbers, not of {given.dtype}")
    return given.astype(float, copy=False).tobytes()
