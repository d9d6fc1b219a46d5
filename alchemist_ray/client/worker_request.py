"""What a session asks of its server: how many workers, where, and how long it waits for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from alchemist_ray.client.libraries import whole_number
from alchemist_ray.errors import ArgumentError, ArgumentValueError
from alchemist_ray.protocol.messages import PLACEMENTS, RequestWorkers

_WHERE = "request_workers"


@dataclass(frozen=True)
class WorkerRequest:
    """A request for workers; :meth:`.AlchemistSession.request_workers` describes the fields."""

    num_workers: int
    wait: float
    placement: str
    labels: dict[str, str]

    @classmethod
    def of(cls, num_workers: Any, wait: Any, placement: Any, labels: Any) -> Self:
        """Return the request that a caller has made.

        Raises
        ------
        ArgumentError, ArgumentValueError
            If a value is of the wrong type or out of range.
        """
        count = whole_number(_WHERE, "num_workers", num_workers)
        if count < 1:
            raise ArgumentValueError(_WHERE, f"{count} workers were requested; at least 1 is needed")
        return cls(count, _seconds(wait), _strategy(placement), _labels(labels))

    def message(self, number: int) -> RequestWorkers:
        """Return the message with this number."""
        return RequestWorkers(number, self.num_workers, self.wait, self.placement, self.labels)


def _seconds(wait: Any) -> float:
    if isinstance(wait, bool) or not isinstance(wait, (int, float, np.integer, np.floating)):
        raise ArgumentError(_WHERE, f"wait must be a number of seconds, not {type(wait).__name__}")
    if not 0 <= wait < math.inf:
        raise ArgumentValueError(_WHERE, f"wait must be a finite number of seconds from 0 on, not {wait!r}")
    return float(wait)


def _strategy(placement: Any) -> str:
    if placement not in PLACEMENTS:
        raise ArgumentValueError(_WHERE, f"placement is {placement!r}; it must be one of {', '.join(PLACEMENTS)}")
    return str(placement)


def _labels(labels: Any) -> dict[str, str]:
    if labels is None:
        return {}
    if not isinstance(labels, Mapping) or not all(isinstance(t, str) for pair in labels.items() for t in pair):
        raise ArgumentError(_WHERE, f"labels must be a mapping of str to str, not {labels!r}")
    return dict(labels)
