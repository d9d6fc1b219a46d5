"""The description of a distributed matrix: shape, element type and layout, without the elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import InvalidArrayError, MatrixError
from alchemist_ray.layouts.csr import CsrShape, slab_rows
from alchemist_ray.layouts.layout import Grid, Layout
from alchemist_ray.layouts.region import Rectangle

DTYPES = ("float64", "float32", "complex128", "complex64", "int64", "int32", "bool")
"""The element types of distributed matrices."""

_MAX_EXTENT = 2**62


def check_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return `dtype` in native byte order.

    Raises
    ------
    InvalidArrayError
        If it is not one of :data:`DTYPES`.
    """
    given = np.dtype(dtype)
    native = given.newbyteorder("=")
    if native.name not in DTYPES:
        raise InvalidArrayError(
            f"a matrix of dtype {given} cannot be sent; the types are {', '.join(DTYPES)}. Convert it, for example "
            "with A.astype(np.float64)"
        )
    return native


def check_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return `shape`.

    Raises
    ------
    InvalidArrayError
        If it is not that of a matrix. One without rows or columns is a matrix, as it is to NumPy: it is what a search
        that finds nothing returns.
    """
    if len(shape) != 2:
        advice = ": make it a matrix of one column with a[:, numpy.newaxis]" if len(shape) == 1 else ""
        raise InvalidArrayError(f"a matrix has 2 dimensions, this array has {len(shape)} (shape {shape}){advice}")
    m, n = shape
    if m < 0 or n < 0:
        raise InvalidArrayError(f"a matrix cannot have shape {shape}: rows and columns must not be negative")
    if m > _MAX_EXTENT or n > _MAX_EXTENT:
        raise InvalidArrayError(f"a matrix of shape {shape} is too large to index")
    return m, n


@dataclass(frozen=True)
class MatrixSpec:
    """Shape, element type and layout of a distributed matrix."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    layout: Layout

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", check_shape(self.shape))
        object.__setattr__(self, "dtype", check_dtype(self.dtype))

    @property
    def nbytes(self) -> int:
        """Bytes of the whole matrix, each element counted once."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    @property
    def whole(self) -> Rectangle:
        """All of the matrix."""
        return Rectangle(0, self.shape[0], 0, self.shape[1])

    def to_wire(self) -> dict[str, Any]:
        """Return the spec as plain values."""
        layout = self.layout
        return {
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "pair": layout.pair,
            "grid": [layout.grid.nprow, layout.grid.npcol],
            "block": list(layout.block),
            "align": list(layout.align),
        }

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> MatrixSpec:
        """Return the spec that :meth:`to_wire` wrote.

        Raises
        ------
        LayoutError, InvalidArrayError
            If the fields do not describe a valid layout or matrix.
        """
        try:
            layout = Layout(
                str(fields["pair"]),
                Grid(*map(int, fields["grid"])),
                _pair_of(fields["block"]),
                _pair_of(fields["align"]),
            )
            shape, name = _pair_of(fields["shape"]), fields["dtype"]
        except MatrixError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError) as failure:
            raise InvalidArrayError(f"invalid description of a matrix ({failure!r})") from failure
        if name not in DTYPES:
            raise InvalidArrayError(f"a matrix cannot have dtype {name!r}; the types are {', '.join(DTYPES)}")
        return cls(shape, np.dtype(name), layout)


@dataclass(frozen=True)
class SparseSpec:
    """The description of a distributed sparse matrix without its entries: compressed rows in equal slabs (:mod:`.csr`).

    Attributes
    ----------
    shape : (int, int)
        Rows and columns.
    dtype : dtype
        Element type.
    counts : tuple of int
        Entries of each rank's rows.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", check_shape(self.shape))
        object.__setattr__(self, "dtype", check_dtype(self.dtype))

    @property
    def layout(self) -> Layout:
        """The layout of a dense matrix of this shape by rows; dense results have it too."""
        return Layout.of("VC_STAR", self.shape, len(self.counts))

    @property
    def nnz(self) -> int:
        """Entries of the whole matrix."""
        return sum(self.counts)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole matrix."""
        return sum(self.slab(rank).nbytes for rank in range(len(self.counts)))

    def slab(self, rank: int) -> CsrShape:
        """Return the shape of the slab of `rank`."""
        start, stop = slab_rows(self.shape[0], len(self.counts), rank)
        return CsrShape(stop - start, self.shape[1], self.counts[rank], self.dtype)

    def to_wire(self) -> dict[str, Any]:
        """Return the spec as plain values."""
        return {"shape": list(self.shape), "dtype": self.dtype.name, "counts": list(self.counts)}

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> SparseSpec:
        """Return the spec that :meth:`to_wire` wrote.

        Raises
        ------
        InvalidArrayError
            If the fields do not describe a valid sparse matrix.
        """
        try:
            shape, name, counts = _pair_of(fields["shape"]), fields["dtype"], tuple(map(int, fields["counts"]))
        except (KeyError, TypeError, ValueError, OverflowError) as failure:
            raise InvalidArrayError(f"invalid description of a sparse matrix ({failure!r})") from failure
        if name not in DTYPES or not counts or max(counts) > _MAX_EXTENT:
            raise InvalidArrayError(f"a sparse matrix cannot have dtype {name!r} and {counts} entries on its ranks")
        return cls(shape, np.dtype(name), counts)


def spec_from_wire(fields: dict[str, Any]) -> MatrixSpec | SparseSpec:
    """Return the spec of a matrix, dense or sparse, from its plain values.

    Raises
    ------
    LayoutError, InvalidArrayError
        If the fields do not describe a valid layout or matrix.
    """
    return SparseSpec.from_wire(fields) if "counts" in fields else MatrixSpec.from_wire(fields)


def _pair_of(values: Any) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def as_matrix(matrix: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return `matrix` as a two-dimensional array of a type that can be sent. An array is not copied.

    A vector becomes a matrix of one column.

    Raises
    ------
    InvalidArrayError
        If it has more than two dimensions, or is of another type.
    """
    array = as_array(matrix)
    if array.ndim == 1:
        array = array[:, np.newaxis]
    check_dtype(array.dtype)
    check_shape(array.shape)
    return array


def is_array_like(value: Any) -> bool:
    """Whether `value` is an array, nested lists or tuples, or an object with ``__array__`` such as a data frame."""
    return isinstance(value, (np.ndarray, list, tuple)) or (hasattr(value, "__array__") and np.ndim(value) > 0)


def as_array(value: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return `value` as an array. An array is not copied.

    Raises
    ------
    InvalidArrayError
        If it is a masked array with masked elements, as a matrix cannot hold a mask; or if its rows differ in length.
    """
    masked = _count_masked(value)
    if masked:
        raise InvalidArrayError(
            f"{masked:,} of its elements are masked, and a matrix cannot hold a mask: fill them, for example with "
            "A.filled(numpy.nan)"
        )
    try:
        return np.asarray(value)
    except ValueError as ragged:
        raise InvalidArrayError(f"this is not a matrix: {ragged}") from ragged


def converted(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return an array in the type that the caller has asked for. It may round, but loses nothing else.

    Raises
    ------
    InvalidArrayError
        If `dtype` is another kind of number, such as real for complex, or an integer does not fit.
    """
    try:
        result = array.astype(dtype, casting="same_kind", copy=False)
    except TypeError:
        raise InvalidArrayError(
            f"elements of dtype {array.dtype} would lose more than digits as {dtype}: convert them yourself"
        ) from None
    if dtype.kind in "iu" and not np.can_cast(array.dtype, dtype, "safe") and not np.array_equal(result, array):
        raise InvalidArrayError(f"elements of dtype {array.dtype} do not fit into {dtype}")
    return result


def _count_masked(value: Any) -> int:
    """Return the number of masked elements of an array, or of the members of a list."""
    if isinstance(value, np.ma.MaskedArray):
        return int(np.count_nonzero(np.ma.getmaskarray(value)))
    if isinstance(value, (list, tuple)):
        return sum(_count_masked(member) for member in value if isinstance(member, (list, tuple, np.ma.MaskedArray)))
    return 0


def spec_of(array: npt.NDArray[Any], layout: str | Layout, size: int) -> MatrixSpec:
    """Return the spec of `array` in `layout`. The name of a pair stands for its default layout on `size` workers."""
    shape = (array.shape[0], array.shape[1])
    if not isinstance(layout, Layout):
        layout = Layout.of(layout, shape, size)
    return MatrixSpec(shape, array.dtype, layout)
