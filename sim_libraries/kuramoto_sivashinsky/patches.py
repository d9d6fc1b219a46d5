"""Division of a long periodic interval into overlapping patches that are periodic themselves and advance in parallel.

A Fourier transform over the whole interval couples all points in each of the eight transforms of a time step, although
the equation does not. Its Green's function decays over a time t like exp(-0.47 (x^4/t)^(1/3)). For t = 0.25 it is below
rounding error beyond a length of 16, including the transport by u. So the interval is divided into patches. A patch
takes in the solution around it. It is made periodic by blending the surroundings on the right into those on the left.
It advances alone by a quarter of a unit of time and then keeps its own points, which the seam has not reached yet.
Neighbours exchange surroundings once in that time, and nothing else. This is the parabolic domain decomposition with
local Fourier bases of Israeli, Vozovoi & Averbuch (J. Sci. Comput. 8, 1993, 135; Parallel Comput. 21, 1995, 1151).

Samples of a patch::

    0 ........ own ........ | .. right surroundings .. | ... seam ... | .. left surroundings .. M-1

The seam is an error function, smooth to rounding error. The division depends on the length of the interval only, not on
the number of ranks, so results are the same bit for bit on any number. Each rank has consecutive patches; some ranks
may have none. A short interval is one patch that is exactly periodic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from mpi4py import MPI
from scipy.special import erf

from alchemist_ray.sim_libraries.kuramoto_sivashinsky.transform import compiled, good_size

Array = npt.NDArray[Any]

HORIZON = 0.25
"""Time that a patch may advance alone."""

MARGIN = 16.0
"""Length of the surroundings on either side that keep errors of the seam away in that time."""

SEAM = 16.0
"""Length over which the right and the left surroundings are blended."""

LEAST_OWN = 128.0
"""Least length of a patch's own part. Surroundings and seam add 48 to it."""


def patches_for(length: float) -> int:
    """Return the number of patches of an interval of the given length."""
    return max(1, int(length / LEAST_OWN))


@dataclass(frozen=True)
class Patches:
    """The division of an interval into patches, and their distribution over ranks. Local except :meth:`fill`.

    Attributes
    ----------
    comm : Comm
        The ranks that share the interval.
    points, length : int, float
        Number of samples and length of the interval.
    count : int
        Number of patches.
    """

    comm: MPI.Comm
    points: int
    length: float
    count: int

    @cached_property
    def first(self) -> list[int]:
        """The first point of each patch, and the end."""
        return [self.points * patch // self.count for patch in range(self.count + 1)]

    @cached_property
    def margin(self) -> int:
        """Number of points of the surroundings on each side."""
        return math.ceil(MARGIN * self.points / self.length) if self.count > 1 else 0

    @cached_property
    def samples(self) -> int:
        """M, the number of samples of each patch."""
        if self.count == 1:
            return self.points
        own = -(-self.points // self.count)
        return good_size(own + 2 * self.margin + math.ceil(SEAM * self.points / self.length))

    @property
    def samples_length(self) -> float:
        """Length of a patch with its surroundings."""
        return self.samples * self.length / self.points

    @cached_property
    def halo(self) -> int:
        """Number of points that a rank needs from each neighbour."""
        return self.samples - self.margin - self.points // self.count if self.count > 1 else 0

    def is_legal(self) -> bool:
        """Whether each patch needs points of its direct neighbours only."""
        return self.count == 1 or self.points // self.count >= self.halo

    def most(self) -> int:
        """Return the largest legal number of patches."""
        fewer = (Patches(self.comm, self.points, self.length, count) for count in range(self.count, 0, -1))
        return next(each.count for each in fewer if each.is_legal())

    @cached_property
    def active(self) -> int:
        """Number of ranks that have patches. These are the ranks from 0 on."""
        return min(self.comm.size, self.count)

    def of_rank(self, rank: int) -> range:
        """Return the patches of a rank."""
        if rank >= self.active:
            return range(self.count, self.count)
        return range(self.count * rank // self.active, self.count * (rank + 1) // self.active)

    @cached_property
    def mine(self) -> range:
        """The patches of this rank."""
        return self.of_rank(self.comm.rank)

    @cached_property
    def start(self) -> int:
        """The first point of this rank."""
        return self.first[self.mine.start]

    @cached_property
    def own(self) -> int:
        """Number of points of this rank."""
        return self.first[self.mine.stop] - self.start

    def new_array(self) -> Array:
        """Return an array of zeros for this rank's points and a halo on each side."""
        return np.zeros(self.own + 2 * self.halo if self.own else 0)

    def own_of(self, u: Array) -> Array:
        """Return a view of this rank's own points in such an array."""
        return u[self.halo : self.halo + self.own]

    def positions(self) -> Array:
        """Return the coordinates of the points of such an array. In the halo they may lie outside the interval."""
        return (np.arange(self.new_array().size) - self.halo + self.start) * (self.length / self.points)

    def fill(self, u: Array) -> None:
        """Fetch the halo of `u` from the neighbours. Collective over the ranks that have patches."""
        h = self.halo
        if h == 0 or not self.own:
            return
        if self.active == 1:
            u[:h], u[-h:] = u[-2 * h : -h].copy(), u[h : 2 * h].copy()
            return
        left, right = (self.comm.rank - 1) % self.active, (self.comm.rank + 1) % self.active
        self.comm.Sendrecv(u[-2 * h : -h], right, 0, u[:h], left, 0)
        self.comm.Sendrecv(u[h : 2 * h], left, 1, u[-h:], right, 1)

    def part(self, patch: int) -> slice:
        """Return the slice of a patch's own points within the points of this rank."""
        return slice(self.first[patch] - self.start, self.first[patch + 1] - self.start)

    def sizes(self, patches: Array) -> Array:
        """Return the number of own points of each patch in `patches`."""
        return np.diff(self.first)[patches]

    def seam(self, patches: Array) -> Array:
        """Return the weight of the left surroundings in each sample of `patches`, shape (patches, M)."""
        shares = np.zeros((patches.size, self.samples))
        if self.count == 1:
            return shares
        end = self.samples - self.margin
        for row, begin in enumerate(self.sizes(patches) + self.margin):
            shares[row, begin:end] = 0.5 + 0.5 * erf(np.linspace(-5.5, 5.5, end - begin))
        shares[:, end:] = 1.0
        return shares

    def owned_samples(self, patches: Array) -> Array:
        """Return 1 for each of a patch's own samples and 0 for the others, shape (patches, M)."""
        return (np.arange(self.samples) < self.sizes(patches)[:, None]).astype(float)


@compiled
def extend(u: Array, offsets: Array, seam: Array, halo: int, samples: Array) -> None:
    """Set ``samples[j * batch + q]`` to sample j of the periodic patch q, which begins at ``u[halo + offsets[q]]``."""
    batch, M = seam.shape
    for q in range(batch):
        begin = halo + offsets[q]
        for j in range(M):
            share = seam[q, j]
            if share == 0.0:
                samples[j * batch + q] = u[begin + j]
            elif share == 1.0:
                samples[j * batch + q] = u[begin + j - M]
            else:
                samples[j * batch + q] = (1.0 - share) * u[begin + j] + share * u[begin + j - M]


@compiled
def take_back(samples: Array, offsets: Array, sizes: Array, halo: int, u: Array) -> None:
    """Put the own points of each patch back into `u`."""
    batch = offsets.size
    for q in range(batch):
        for j in range(sizes[q]):
            u[halo + offsets[q] + j] = samples[j * batch + q]
