"""Helpers for the benchmarks of transfers: the matrix, a session with workers, and timed moves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

import alchemist_ray as alchemist

WORKERS = 2
COLUMNS = 1_000


@dataclass(frozen=True)
class Scale:
    """The size of the matrix and the number of measurements.

    Attributes
    ----------
    megabytes : int
        Size of the matrix, in units of 10^6 bytes.
    repeats : int
        Measurements of each figure.
    """

    megabytes: int
    repeats: int

    @cached_property
    def matrix(self) -> np.ndarray:
        """The matrix to move: float64, 1,000 columns, C-ordered."""
        return np.random.default_rng(0).standard_normal((self.megabytes * 10**6 // (8 * COLUMNS), COLUMNS))

    @cached_property
    def target(self) -> np.ndarray:
        """A matrix of the same shape to fetch into, with all its pages touched."""
        return np.zeros_like(self.matrix) + 1.0

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix."""
        return self.matrix.nbytes

    def __str__(self) -> str:
        return f"{self.nbytes / 1e9:.3g} GB"


@contextlib.contextmanager
def workers(transport: str) -> Iterator[alchemist.AlchemistSession]:
    """Start a server with two workers and yield a session, over shared memory (``"auto"``) or TCP (``"tcp"``)."""
    with (
        alchemist.start_server(num_workers=WORKERS) as server,
        alchemist.AlchemistSession(transport=transport) as session,
    ):
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(WORKERS)
        session.show_progress = False
        yield session


def send_seconds(session: alchemist.AlchemistSession, A: np.ndarray, layout: str, **choice: Any) -> float:
    """Send a matrix and return the seconds. It is freed afterwards, so that the next send reuses its touched pages."""
    started = time.perf_counter()
    handle = session.send_matrix(A, layout, **choice)
    elapsed = time.perf_counter() - started
    handle.free()
    return elapsed


def fetch_seconds(session: alchemist.AlchemistSession, handle: alchemist.MatrixHandle, out: np.ndarray) -> float:
    """Fetch a matrix into `out` and return the seconds."""
    started = time.perf_counter()
    session.fetch_matrix(handle, out=out)
    return time.perf_counter() - started


@contextlib.contextmanager
def sent(
    session: alchemist.AlchemistSession, A: np.ndarray, layout: str, **choice: Any
) -> Iterator[alchemist.MatrixHandle]:
    """Send a matrix, check that it comes back unchanged, yield its handle, and free it at the end."""
    handle = session.send_matrix(A, layout, **choice)
    if not same(session.fetch_matrix(handle), A):
        raise RuntimeError(f"a matrix in {handle.spec.layout} came back changed")
    yield handle
    handle.free()


def same(A: np.ndarray, B: np.ndarray) -> bool:
    """Return whether two matrices are equal. Compares a few rows at a time, so that measured memory does not grow."""
    step = max(1, 2**17 // A.shape[1])
    return all(np.array_equal(A[start : start + step], B[start : start + step]) for start in range(0, A.shape[0], step))
