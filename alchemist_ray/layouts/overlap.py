"""The indices of one axis that two parts both hold, as nested arithmetic progressions.

Two layouts of one matrix distribute the same axis in blocks of different sizes over different numbers of positions.
The indices that a position of the first and a position of the second both hold repeat with the least common multiple
of the two cycles (a cycle is one block for every position). One period is computed, one block of the coarser part after
the other. Within such a block, the other part's blocks come in equal steps, except for a broken block at either end. So
the common indices are

    periods, each of a few groups, each of equal runs in equal steps, each of consecutive indices.

Consecutive global indices of one block are also consecutive local indices, so the local indices on both sides are
nested in the same way. A :class:`Stretch` is one such triple nest with its steps on both sides, that is, a strided view
of either block. The cost of everything here is that of one period, however long the axis is.

The common indices are numbered in ascending order. Both ends of a message agree on these *ordinals*, and
:meth:`Overlap.cut` cuts out ranges of them.

Sources: L. Prylli and B. Tourancheau, *Fast runtime block cyclic data redistribution on multiprocessors*, J. Parallel
Distrib. Comput. 45 (1997). They scan one period for ScaLAPACK's ``p?gemr2d``; here it is computed and kept as steps.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from alchemist_ray.errors import LayoutError
from alchemist_ray.layouts.layout import AxisPart

Indices = npt.NDArray[np.int64]


class Steps(NamedTuple):
    """The start of a stretch on one side, and the distances between its periods and between its runs there."""

    start: int
    period: int
    run: int


class Stretch(NamedTuple):
    """Periods of runs of consecutive indices, all of the same size and in equal steps.

    Attributes
    ----------
    counts : (int, int, int)
        Periods, runs in each, and indices in each run.
    local : (Steps, Steps)
        The steps of the local indices in the overlap's first part and in its second part.
    ordinal : Steps
        The steps of the places in the overlap.
    """

    counts: tuple[int, int, int]
    local: tuple[Steps, Steps]
    ordinal: Steps


class _Comb(NamedTuple):
    """The indices of a part: `block` indices from `offset` on, repeated after every `cycle`."""

    offset: int
    block: int
    cycle: int

    @classmethod
    def of(cls, part: AxisPart) -> _Comb:
        """Return the comb of a part. A part that holds a single block, or everything, has the whole axis as cycle."""
        if part.stride == 1:
            return cls(0, part.extent, part.extent)
        offset, cycle = part.position * part.block, part.block * part.stride
        if cycle < part.extent:
            return cls(offset, part.block, cycle)
        offset = min(offset, part.extent)
        return cls(offset, min(part.block, part.extent - offset), part.extent)

    def held_below(self, i: Indices) -> Indices:
        """Return how many indices smaller than `i` are held."""
        whole, rest = np.divmod(i, self.cycle)
        held: Indices = whole * self.block + np.minimum(np.maximum(rest - self.offset, 0), self.block)
        return held

    def to_global(self, iloc: Indices) -> Indices:
        return iloc // self.block * self.cycle + self.offset + iloc % self.block

    def to_local(self, i: Indices) -> Indices:
        return i // self.cycle * self.block + i % self.cycle - self.offset


class _StretchGroup(NamedTuple):
    """Equal runs in equal steps within the first period; `ordinal` and `local` belong to the first index."""

    ordinal: int
    runs: int
    length: int
    local: tuple[int, int]


@dataclass(frozen=True)
class Overlap:
    """The indices that two parts of one axis both hold; made by :meth:`of`.

    Attributes
    ----------
    size : int
        Number of common indices.
    once : int
        Number of common indices in one period.
    groups : tuple of _StretchGroup
        The groups of the first period, ascending.
    ends : ndarray
        Ordinal at which each group ends.
    periods, runs : (int, int)
        Steps of the local indices, in the first part and in the second, from period to period and from run to run.
    """

    size: int
    once: int
    groups: tuple[_StretchGroup, ...]
    ends: Indices
    periods: tuple[int, int]
    runs: tuple[int, int]

    @classmethod
    def of(cls, first: AxisPart, second: AxisPart) -> Overlap:
        """Return the indices that `first` and `second` both hold.

        Raises
        ------
        LayoutError
            If they are parts of axes of different extents (except an extent of 0: such a rank holds nothing).
        """
        if 0 in (first.extent, second.extent):
            return _NOTHING
        if first.extent != second.extent:
            raise LayoutError(f"parts of axes of {first.extent} and of {second.extent} indices cannot be compared")
        combs = _Comb.of(first), _Comb.of(second)
        return _NOTHING if 0 in (combs[0].block, combs[1].block) else _overlap(combs, first.extent)

    def cut(self, start: int = 0, stop: int | None = None) -> Iterator[Stretch]:
        """Yield the ordinals ``[start, stop)`` as stretches.

        They are whole groups of the whole periods in the range. A broken period at either end gets stretches of its
        own, and so does a broken run in it.
        """
        for p, periods, low, high in _split(start, self.size if stop is None else stop, self.once):
            for group in self.groups[int(np.searchsorted(self.ends, low, "right")) :]:
                if group.ordinal >= high:
                    break
                begin, end = max(low - group.ordinal, 0), min(high - group.ordinal, group.runs * group.length)
                for q, runs, x, y in _split(begin, end, group.length):
                    yield self._stretch(group, (p, q, x), (periods, runs, y - x))

    def _stretch(self, group: _StretchGroup, at: tuple[int, int, int], counts: tuple[int, int, int]) -> Stretch:
        """Return `counts` periods, runs and indices of `group`, beginning at those of `at`."""

        def steps(start: int, period: int, run: int) -> Steps:
            return Steps(start + at[0] * period + at[1] * run + at[2], period, run)

        first, second = map(steps, group.local, self.periods, self.runs)
        return Stretch(counts, (first, second), steps(group.ordinal, self.once, group.length))


_NOTHING = Overlap(0, 0, (), np.empty(0, np.int64), (0, 0), (0, 0))


@functools.lru_cache(maxsize=256)
def _overlap(combs: tuple[_Comb, _Comb], extent: int) -> Overlap:
    fine, coarse = sorted(combs, key=lambda comb: comb.cycle)
    period = min(math.lcm(fine.cycle, coarse.cycle), extent)
    whole, rest = divmod(extent, period)
    starts = np.arange(coarse.offset, period, coarse.cycle, dtype=np.int64)
    bounds = np.array([starts, np.minimum(starts + coarse.block, period)])
    local, runs, lengths = _pieces(fine, *fine.held_below(bounds))
    i = fine.to_global(local)
    ends = np.cumsum(runs * lengths)
    once = int(ends[-1]) if ends.size else 0
    broken = np.diff(fine.held_below(np.minimum(bounds, rest)), axis=0).sum() if rest else 0
    locals_ = zip(*(comb.to_local(i).tolist() for comb in combs), strict=True)
    return Overlap(
        size=whole * once + int(broken),
        once=once,
        groups=tuple(map(_StretchGroup, (ends - runs * lengths).tolist(), runs.tolist(), lengths.tolist(), locals_)),
        ends=ends,
        periods=(period // combs[0].cycle * combs[0].block, period // combs[1].cycle * combs[1].block),
        # Within a block of the coarse part, local indices advance as the global ones do; the fine part skips the gaps.
        runs=(_run_step(combs[0], fine), _run_step(combs[1], fine)),
    )


def _run_step(comb: _Comb, fine: _Comb) -> int:
    return fine.block if comb is fine else fine.cycle


def _pieces(comb: _Comb, low: Indices, high: Indices) -> tuple[Indices, Indices, Indices]:
    """Cut ranges ``[low, high)`` of local indices at the blocks of `comb`: the end of a block, whole blocks, a rest.

    Returns
    -------
    local, counts, lengths : ndarray
        The start, the number of runs and the length of each run, for every piece that is not empty, ascending.
    """
    pieces = np.empty((3, low.size, 3), np.int64)
    local, counts, lengths = pieces
    head = np.minimum(-low % comb.block, high - low)
    whole = (high - low - head) // comb.block
    local[:, 0], counts[:, 0], lengths[:, 0] = low, 1, head
    local[:, 1], counts[:, 1], lengths[:, 1] = low + head, whole, comb.block
    local[:, 2] = low + head + whole * comb.block
    counts[:, 2], lengths[:, 2] = 1, high - local[:, 2]
    local, counts, lengths = pieces[:, counts * lengths > 0]
    return local, counts, lengths


def _split(start: int, stop: int, size: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield ``[start, stop)`` as (item, number of items, start and stop within each); an item has length `size`.

    There are at most three: the end of an item, whole items, the beginning of an item.
    """
    if start >= stop:
        return
    item, low = divmod(start, size)
    last, high = divmod(stop, size)
    if item == last:
        yield item, 1, low, high
        return
    if low:
        yield item, 1, low, size
        item += 1
    if last > item:
        yield item, last - item, 0, size
    if high:
        yield last, 1, 0, high
