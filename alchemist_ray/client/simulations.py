"""The simulations of a session: their steps, in as few instructions as it takes."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.commands import RanksStuckError
from alchemist_ray.client.group import GroupClient
from alchemist_ray.client.progress import ProgressDisplay
from alchemist_ray.errors import GroupDiedError

T = TypeVar("T")


class SessionSimulations(ABC):
    """The methods of a session that step simulations."""

    _lock: threading.RLock
    make_progress: Callable[[str], ProgressDisplay]
    is_cancelled: Callable[[], bool] | None

    @abstractmethod
    def _group(self) -> GroupClient:
        """Return the session's workers; raise :class:`~alchemist_ray.errors.NoWorkersError` if it has none."""

    @abstractmethod
    def _explain(self, failure: GroupDiedError | RanksStuckError, task: str) -> NoReturn:
        """Raise the error that says why the group is gone; end what is left of it."""

    def _with_group(self, task: str, call: Callable[[GroupClient], T]) -> T:
        with self._lock:
            group = self._group()
            try:
                return call(group)
            except (GroupDiedError, RanksStuckError) as failure:
                self._explain(failure, task)

    def step_simulation(
        self, library: str, simulation: int, action: npt.NDArray[Any], timeout: float | None = None
    ) -> tuple[npt.NDArray[Any], float, bool, dict[str, Any]]:
        """Run the task ``step`` of a simulation library in a shorter way, for who takes a million steps.

        Parameters
        ----------
        library : str
            Name of the library, loaded before.
        simulation : int
            Number of the simulation, from ``create``.
        action : ndarray
            Real; the components that its action space has, in any shape.
        timeout : float, optional
            Seconds that the step may take; None: as long as it wants.

        Returns
        -------
        state : ndarray
        score : float
        finished : bool
        info : dict

        Raises
        ------
        ArgumentValueError
            If there is no such simulation, it has not been reset, or the action is not in its space.
        TaskError, GroupDiedError
            As any task.
        """
        octets = np.asarray(action, float).tobytes()
        return self._with_group(
            f"{library}.step",
            lambda group: group.step_simulation(
                library, simulation, octets, self.make_progress, timeout, self.is_cancelled
            ),
        )

    def advance_batch(
        self,
        library: str,
        batch: int,
        orders: bytes,
        actions: npt.NDArray[Any] | None = None,
        seeds: Sequence[int | None] = (),
        timeout: float | None = None,
    ) -> tuple[npt.NDArray[Any] | None, npt.NDArray[np.float64], list[str], list[list[Any]]]:
        """Run the task ``advance_batch`` of a simulation library in a shorter way; its documentation says the rest.

        Parameters
        ----------
        library : str
            Name of the library, loaded before.
        batch : int
            Number of the batch, from ``create_batch``.
        orders : bytes
            What each simulation is to do.
        actions : ndarray, optional
            Real; for each simulation the components that its action space has, in any shape.
        seeds : sequence of int or None
            For each simulation, in case it is reset.
        timeout : float, optional
            Seconds that it may take; None: as long as it wants.

        Returns
        -------
        states : ndarray or None
        numbers : ndarray
        names : list of str
        notes : list of list
        """
        octets = b"" if actions is None else np.asarray(actions, float).tobytes()
        return self._with_group(
            f"{library}.advance_batch",
            lambda group: group.advance_batch(
                library, batch, orders, octets, list(seeds), self.make_progress, timeout, self.is_cancelled
            ),
        )
