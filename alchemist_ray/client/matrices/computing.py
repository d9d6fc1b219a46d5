"""How matrix handles reach the session that runs their tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy.typing as npt

if TYPE_CHECKING:
    from alchemist_ray.client.matrices.handle import MatrixHandle


class Computes(Protocol):
    """A session, as far as its matrix handles use it."""

    def connect(self) -> Any:
        """Connect to a server of this process."""

    def run_task(self, library: str, task: str, /, **arguments: Any) -> Any:
        """Run a task of a library."""

    def send_matrix(self, matrix: npt.ArrayLike) -> MatrixHandle:
        """Send a matrix to the workers."""

    @property
    def shares_directory(self) -> bool:
        """Whether relative paths of this process mean the same to the server."""
