"""Checks of the arguments of a batch's step: orders, actions, seeds. Local."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali.simulations.values import action_misfit, check_integers
from alchemist_ray.mpi_backend.ali.simulator import Box
from alchemist_ray.protocol.batches import BatchOrder

Array = npt.NDArray[Any]

STEP = int(BatchOrder.STEP)
ALL_ORDERS = int(~BatchOrder(0))


class BoxBounds:
    """The bounds of a space, ready to check many arrays at once."""

    def __init__(self, box: Box) -> None:
        self.low, self.high = (np.ascontiguousarray(bound) for bound in box.bounds())
        ends = np.isfinite(self.low), np.isfinite(self.high)
        self._is_bounded = bool(ends[0].any() or ends[1].any())
        self._bounds_all = bool(ends[0].all() and ends[1].all())

    def hold(self, values: Array) -> bool:
        """Whether all values are finite and between the bounds."""
        if self._is_bounded and not ((values >= self.low) & (values <= self.high)).all():
            return False
        return self._bounds_all or bool(np.isfinite(values).all())


class BatchArguments:
    """The arguments that the simulations of a batch take.

    Parameters
    ----------
    count : int
        Number of simulations.
    space : Box or None
        The space of their actions; None if it is not declared.
    """

    def __init__(self, count: int, space: Box | None) -> None:
        self._count = count
        self._space = space
        self._bounds = None if space is None else BoxBounds(space)

    def shaped(self, task: str, octets: bytes) -> Array | None:
        """Return actions that come as float64 in one row; None for no bytes.

        Raises
        ------
        ArgumentValueError
            If there are more or fewer numbers than components.
        """
        if not octets:
            return None
        shape = (-1,) if self._bounds is None else self._bounds.low.shape
        try:
            return np.frombuffer(octets).reshape(self._count, *shape).copy()
        except ValueError:
            raise ArgumentValueError(
                task, f"{len(octets)} bytes are not {self._count} actions of shape {shape}"
            ) from None

    def check(self, task: str, orders: bytes, actions: Array | None, seeds: Sequence[Any]) -> None:
        """Check everything before any simulation is touched.

        Raises
        ------
        ArgumentError, ArgumentValueError
            If there are not as many orders, actions and seeds as simulations, an order is unknown, a seed is not an
            integer or None, or the action of a simulation that is to be stepped is not in its space.
        """
        if len(orders) != self._count or len(seeds) not in (0, self._count):
            raise ArgumentValueError(
                task, f"there are {len(orders)} orders and {len(seeds)} seeds for {self._count} simulations"
            )
        if max(orders) > ALL_ORDERS:
            raise ArgumentValueError(task, f"there is no order {max(orders)}: orders are sums of 1, 2 and 4")
        check_integers(task, "seeds", seeds, optional=True)
        if actions is None:
            if any(order & STEP for order in orders):
                raise ArgumentValueError(task, "there are simulations to step, but no actions")
            return
        inner = actions.shape[1:] if self._bounds is None else self._bounds.low.shape
        if actions.shape != (self._count, *inner):
            raise ArgumentValueError(task, f"the actions have shape {actions.shape}, not {(self._count, *inner)}")
        if self._bounds is not None and actions.dtype.kind == "f" and self._bounds.hold(actions):
            return
        for simulation, order in enumerate(orders):
            misfit = action_misfit(self._space, actions[simulation]) if order & STEP else ""
            if misfit:
                raise ArgumentValueError(task, f"the action of simulation {simulation} {misfit}")
