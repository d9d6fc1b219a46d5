"""The simulations of a session, stepped by their own messages: these are shorter than a task, for millions of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.workers import SessionWorkers
from alchemist_ray.errors import ArgumentError
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.values import array_of

if TYPE_CHECKING:
    from alchemist_ray.client.session import AlchemistSession

Step = tuple[npt.NDArray[Any], float, bool, dict[str, Any]]
BatchStep = tuple[npt.NDArray[Any] | None, npt.NDArray[np.float64], list[str], list[list[Any]]]

FLOAT64 = np.dtype(np.float64)


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

    def step(self, library: str, simulation: int, action: npt.ArrayLike, timeout: float | None) -> Step:
        """Step one simulation; see :meth:`AlchemistSession.step_simulation`."""
        task = f"{library}.step"
        octets = _reals(task, action)
        replies = self._command(task, lambda n: m.StepSimulation(n, library, simulation, octets), timeout)
        first: m.SimulationStepped = replies[0]
        return array_of(first.state, first.dtype, first.shape), first.score, first.finished, first.info

    def advance_batch(
        self,
        library: str,
        batch: int,
        orders: bytes,
        actions: npt.ArrayLike | None,
        seeds: Sequence[int | None],
        timeout: float | None,
    ) -> BatchStep:
        """Advance a batch of simulations; see :meth:`AlchemistSession.advance_batch`."""
        task = f"{library}.advance_batch"
        octets = b"" if actions is None else _reals(task, actions)
        each = list(seeds)
        replies = self._command(task, lambda n: m.AdvanceBatch(n, library, batch, orders, octets, each), timeout)
        parts: list[m.BatchAdvanced] = [reply for reply in replies if isinstance(reply, m.BatchAdvanced)]
        states = [array_of(part.states, part.dtype, part.shape) for part in parts if part.dtype]
        numbers = [array_of(part.numbers, "<f8", [part.count, -1]) for part in parts]
        return (
            np.concatenate(states) if states else None,
            np.concatenate(numbers),
            parts[0].names,
            [note for part in parts for note in part.notes],
        )

    def _command(self, task: str, make: Any, timeout: float | None) -> list[Any]:
        """Send a command to every rank; return the answers by rank."""
        session = self._session
        return self._workers.call(
            task, lambda group: group.command(make, task, session.make_progress, timeout, session.is_cancelled)
        )


def _reals(task: str, action: npt.ArrayLike) -> bytes:
    """Return an action as float64 in bytes.

    Raises
    ------
    ArgumentError
        If it is not made of real numbers (complex numbers, text, booleans and objects are refused), its rows have
        different lengths, or some of it is masked.
    """
    if type(action) is np.ndarray and action.dtype == FLOAT64:
        return action.tobytes()
    try:
        given = np.asarray(action)
    except ValueError as misfit:
        raise ArgumentError(task, f"an action is an array of real numbers: {misfit}") from None
    if given.dtype.kind not in "fiu":
        raise ArgumentError(task, f"an action consists of real numbers, not of {given.dtype}")
    if np.ma.is_masked(action):
        raise ArgumentError(task, "an action has no masked elements: fill them first, e.g. with filled(0.0)")
    return given.astype(FLOAT64, copy=False).tobytes()
