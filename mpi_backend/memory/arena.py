"""A worker's memory for matrices: one anonymous file, mapped once and allocated by first fit.

The first touch of a page costs ten times as much as a copy into it, so the pages of a freed matrix are kept and reused.
The file (``memfd_create``) has no name. A client on the same host gets its descriptor and also maps it, so it reads and
writes matrices in place. The kernel frees the memory when the last process with the file has ended in any way.

A block lives as long as an array refers to it: a matrix is freed by dropping its array.
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import fcntl
import gc
import math
import mmap
import os
import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import MatrixMemoryError

Array = npt.NDArray[Any]

_ALIGNMENT = 4096


class Arena:
    """Memory for the local blocks of matrices.

    Parameters
    ----------
    capacity : int
        Bytes that may be in use at once. Memory is taken from the machine only when it is needed.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity - capacity % _ALIGNMENT
        self.fd = os.memfd_create("alchemist-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, self.capacity)
        # A client that maps the file must not be able to shrink it while the worker uses it.
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._memory = mmap.mmap(self.fd, self.capacity)
        with contextlib.suppress(OSError, AttributeError):  # a hint that not every kernel supports
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._base = np.frombuffer(self._memory, np.uint8).ctypes.data
        # Blocks whose last array is gone. The garbage collector can release a block at any point, even inside an
        # allocation, so a release takes no lock and does not change the holes.
        self._released: collections.deque[tuple[int, int]] = collections.deque()
        self._lock = threading.Lock()
        # Holes: offset -> length; ascending and never adjacent.
        self._starts = [0]
        self._lengths = {0: self.capacity}
        self._taken = 0

    @property
    def in_use(self) -> int:
        """Bytes in use."""
        with self._lock:
            self._collect()
            return self._taken

    def allocate(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> Array:
        """Return an uninitialised C-ordered array in the arena.

        Raises
        ------
        MatrixMemoryError
            If no hole is large enough.
        """
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes == 0:
            return np.empty(shape, dtype)
        length = -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        try:
            offset = self._take(length)
        except MatrixMemoryError:
            gc.collect()  # frees arrays that a library left in reference cycles
            offset = self._take(length)
        view = memoryview(self._memory)[offset : offset + nbytes]
        array = np.frombuffer(view, dtype).reshape(shape)
        # Every view of the array, however derived, keeps this buffer object alive, and nothing else does.
        weakref.finalize(_buffer_of(array), self._released.append, (offset, length)).atexit = False
        return array

    def offset_of(self, array: Array) -> int | None:
        """Return the offset of `array` in the arena, or None if it is empty or lies elsewhere."""
        offset = array.ctypes.data - self._base
        return offset if array.size and 0 <= offset < self.capacity else None

    def _take(self, length: int) -> int:
        with self._lock:
            self._collect()
            for start in self._starts:
                if self._lengths[start] >= length:
                    break
            else:
                largest = max(self._lengths.values(), default=0)
                raise MatrixMemoryError(min(length, 2**63 - 1), largest, self.capacity)
            hole = self._lengths.pop(start)
            index = bisect.bisect_left(self._starts, start)
            if hole == length:
                del self._starts[index]
            else:
                self._starts[index] = start + length
                self._lengths[start + length] = hole - length
            self._taken += length
            return start

    def _collect(self) -> None:
        """Turn the released blocks into holes. The caller holds the lock."""
        while self._released:
            self._give_back(*self._released.popleft())

    def _give_back(self, start: int, length: int) -> None:
        self._taken -= length
        index = bisect.bisect_left(self._starts, start)
        if index < len(self._starts) and self._starts[index] == start + length:
            length += self._lengths.pop(self._starts.pop(index))
        if index > 0:
            before = self._starts[index - 1]
            if before + self._lengths[before] == start:
                self._lengths[before] += length
                return
        self._starts.insert(index, start)
        self._lengths[start] = length


def _buffer_of(array: Array) -> Any:
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base
