"""Matrices that a caller writes to the workers of a session itself, straight from where it is.

The session may be in another process, or on another machine: an actor, a scheduler's worker. A large array never passes
through that process; the call has a :class:`Placed` reference in its place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alchemist_ray.calls.routine import Operands
from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.client.matrices.sparse import SparseMatrixHandle, is_sparse, send_sparse, sparse_arrays
from alchemist_ray.client.transfer.meter import Meter
from alchemist_ray.client.transfer.plane import plane_of
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.layouts.spec import MatrixSpec, SparseSpec, as_array, spec_of

BY_VALUE_BYTES = 100 * 1024
"""Arrays up to this size travel inside the call."""

ATTACHMENT_BITS = 40
"""A process that writes matrices itself numbers them from its own multiple of 2**ATTACHMENT_BITS."""


@dataclass(frozen=True)
class Placed:
    """A matrix that the caller has written to the workers itself; the session uses it and frees it."""

    matrix_id: int
    spec: MatrixSpec | SparseSpec
    ticket: str
    vector: bool


@dataclass(frozen=True)
class Attachment:
    """Everything that a process needs to write matrices to the workers of a session itself."""

    address: GroupAddress
    first_id: int


class Placer:
    """Writes matrices of this process to the workers of one session.

    Parameters
    ----------
    attachment : Attachment
        Where the workers are, and the first free number.
    """

    def __init__(self, attachment: Attachment) -> None:
        self.address = attachment.address
        self._ids = itertools.count(attachment.first_id)

    def place(self, matrix: Any, layout: str | Layout) -> MatrixHandle:
        """Write an array, or a sparse matrix of SciPy's; return a handle that owns it.

        Raises
        ------
        MatrixMemoryError
            If the workers have no room for it.
        GroupDiedError
            If a worker is gone.
        """
        plane, matrix_id = plane_of(self.address), next(self._ids)
        if is_sparse(matrix):
            sparse_spec, arrays = sparse_arrays(matrix, self.address.size)
            send_sparse(plane, matrix_id, sparse_spec, arrays, Meter())
            return SparseMatrixHandle(matrix_id, sparse_spec, self.address, owned=True)
        spec = spec_of(matrix, layout, self.address.size)
        plane.send(matrix_id, spec, matrix)
        return MatrixHandle(matrix_id, spec, self.address, owned=True)


def pass_argument(
    place: Callable[[Any, str], MatrixHandle], operands: Operands, name: str, value: Any
) -> tuple[Any, MatrixHandle | None]:
    """Return the value that travels in a call for a matrix argument, and the handle of a matrix placed for it.

    Parameters
    ----------
    place : callable
        ``place(matrix, layout)`` writes a matrix to the workers of the session.
    operands : Operands
        How the matrices of the call are sent.
    name : str
        The parameter.
    value : array_like or sparse matrix
        Its value. Arrays up to :data:`BY_VALUE_BYTES` travel as they are; anything larger is placed here and now.
    """
    if is_sparse(value):
        handle, vector = place(value, ""), False
    else:
        array = as_array(value)
        if array.nbytes <= BY_VALUE_BYTES:
            return array, None
        matrix = operands.convert(name, array)
        handle, vector = place(matrix, operands.layout(name, matrix.shape)), array.ndim == 1
    return Placed(handle.matrix_id, handle.spec, handle.address.ticket, vector), handle
