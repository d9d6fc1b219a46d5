"""The elements of a dense matrix on the workers, as this process reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.matrices import indexing
from alchemist_ray.client.transfer.meter import Meter
from alchemist_ray.client.transfer.plane import plane_of
from alchemist_ray.client.transfer.times import TransferTimes
from alchemist_ray.errors import InvalidArrayError
from alchemist_ray.layouts.region import Rectangle
from alchemist_ray.layouts.spec import MatrixSpec

Array = npt.NDArray[Any]

ROWS_BYTES = 64 * 2**20
"""Default size of the blocks that :meth:`DenseElements.rows` yields."""


class Elements(Protocol):
    """The elements of a dense or a sparse matrix; a handle reads through one of these."""

    def fetch(self, out: Any = None, meter: Meter | None = None) -> tuple[Any, list[TransferTimes]]:
        """Return all elements, and the times of the transfer by rank."""

    def to_array(self) -> Array:
        """Return all elements as a dense array."""

    def part(self, key: Any) -> Any:
        """Return the part that `key` names by NumPy's basic indexing."""

    def rows(self, start: int, stop: int | None, block: int | None) -> Iterator[Any]:
        """Yield rows as arrays of `block` rows each."""


class DenseElements:
    """Reads a dense matrix straight from its workers.

    Parameters
    ----------
    matrix_id : int
        The matrix's number in the session.
    spec : MatrixSpec
        Shape, element type and layout.
    address : GroupAddress
        Where its workers are.
    """

    def __init__(self, matrix_id: int, spec: MatrixSpec, address: GroupAddress) -> None:
        self._matrix_id = matrix_id
        self._spec = spec
        self._address = address

    def fetch(self, out: Array | None = None, meter: Meter | None = None) -> tuple[Array, list[TransferTimes]]:
        """Return all elements, in `out` if it is given, and the times of the transfer by rank."""
        shape, dtype = self._spec.shape, self._spec.dtype
        if out is None:
            out = np.empty(shape, dtype)
        elif not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype or not out.flags.writeable:
            raise InvalidArrayError(
                f"out must be a writeable array of shape {shape} and dtype {dtype}, not {_described(out)}"
            )
        return out, plane_of(self._address).fetch(self._matrix_id, self._spec, out, meter=meter)

    def to_array(self) -> Array:
        """Return all elements."""
        return self.fetch()[0]

    def part(self, key: Any) -> Any:
        """Return the part that `key` names: integers and slices, of any step."""
        return indexing.part_of(key, self._spec.shape, self._spec.dtype, self._fetch_region)

    def _fetch_region(self, region: Rectangle, out: Array) -> None:
        plane_of(self._address).fetch(self._matrix_id, self._spec, out, region)

    def rows(self, start: int, stop: int | None, block: int | None) -> Iterator[Array]:
        """Yield rows ``start .. stop-1`` as arrays of `block` rows each; the last may have fewer."""
        height = block or max(1, ROWS_BYTES // max(1, self._spec.shape[1] * self._spec.dtype.itemsize))
        first, last, _ = slice(start, stop).indices(self._spec.shape[0])
        for row in range(first, last, height):
            yield self.part(slice(row, min(row + height, last)))


def _described(out: Any) -> str:
    if not isinstance(out, np.ndarray):
        return f"a {type(out).__name__}"
    return f"a {'' if out.flags.writeable else 'read-only '}array of shape {out.shape} and dtype {out.dtype}"
