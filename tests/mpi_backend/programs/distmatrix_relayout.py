"""Relay matrices between all pairs of layouts and compare with NumPy; run under mpiexec by test_distmatrix.py.

Every rank checks its own block against fancy indexing of the matrix that all of them know. The first rank prints one
line of JSON: how many relayouts were checked, and what was wrong with which.
"""

import itertools
import json
import sys

import numpy as np
from mpi4py import MPI

from alchemist_ray.errors import LayoutError
from alchemist_ray.layout import PAIRS, Grid, Layout
from alchemist_ray.mpi_backend.distmatrix import DistMatrix

DTYPES = ("float64", "float32", "complex128", "int32", "bool")
SHAPES = ((7, 7), (11, 5), (3, 10), (1, 1))
BLOCKS = ((1, 1), (2, 3), (4, 1), (50, 50))


def grids(size):
    return [Grid(r, size // r) for r in range(1, size + 1) if size % r == 0]


def matrix(shape, dtype):
    m, n = shape
    values = 1 + np.arange(m * n).reshape(m, n)
    if dtype == "bool":
        return values % 3 == 0
    return (values * (1 - 2j) if dtype.startswith("complex") else values).astype(dtype)


def expected_block(A, layout, rank):
    rows, cols = layout.part(A.shape, rank)
    return A[np.ix_(rows.indices(), cols.indices())]


def complaint(comm, A, source, target):
    """Relay `A` from one layout to another; return what is wrong, or None. Collective over comm."""
    given = DistMatrix.from_global(comm, A, source)
    before = given.local.copy()
    relaid = given.relayout(target)
    wrong = None
    if not np.array_equal(relaid.local, expected_block(A, target, comm.rank)):
        wrong = "block"
    elif relaid.dtype != A.dtype or relaid.shape != A.shape or relaid.layout != target:
        wrong = "type, shape or layout"
    elif not np.array_equal(given.local, before):
        wrong = "source changed"
    elif (relaid is given) != (source == target):
        wrong = "copied in vain"
    elif not np.array_equal(relaid.to_global(), A):
        wrong = "to_global"
    return next((f"{source} -> {target}: {each}" for each in comm.allgather(wrong) if each), None)


def check_relayouts(comm):
    """Return how many relayouts were checked, and the complaints."""
    shapes, blocks = itertools.cycle(SHAPES), itertools.cycle(itertools.product(BLOCKS, BLOCKS))
    dtypes, places = itertools.cycle(DTYPES), itertools.cycle(itertools.product(grids(comm.size), repeat=2))
    complaints, count = [], 0
    for first, second in itertools.product(PAIRS, PAIRS):
        (b, c), (g, h) = next(blocks), next(places)
        A = matrix(next(shapes), next(dtypes))
        align = (comm.size - 1, 0) if second == "CIRC_CIRC" else (0, 0)
        complaints.append(complaint(comm, A, Layout(first, g, b), Layout(second, h, c, align)))
        count += 1
    return count, [each for each in complaints if each]


def refused(act):
    try:
        act()
    except LayoutError:
        return True
    return False


def check_refusals(comm):
    """Return the names of what should have been refused with a LayoutError and was not."""
    layout = Layout("VC_STAR", Grid.of_size(comm.size), (1, 1))
    larger = Layout("VC_STAR", Grid(1, comm.size + 1), (1, 1))
    m, n = layout.local_shape((24, 3), comm.rank)
    cases = {
        "another number of ranks": lambda: DistMatrix(comm, (24, 3), larger, np.zeros((m, n))),
        "relayout to another number of ranks": lambda: DistMatrix.empty(comm, (24, 3), float, layout).relayout(larger),
        "another local shape": lambda: DistMatrix(comm, (24, 3), layout, np.zeros((m + 1, n))),
        "transposed local shape": lambda: DistMatrix(comm, (24, 3), layout, np.zeros((n, m))),
        "three dimensions": lambda: DistMatrix(comm, (24, 3), layout, np.zeros((m, n, 1))),
        "Fortran order": lambda: DistMatrix(comm, (24, 3), layout, np.zeros((m, n), order="F")),
        "no such layout": lambda: DistMatrix.empty(comm, (24, 3), float, layout).relayout("MC_MC"),
    }
    return [name for name, act in cases.items() if not refused(act)]


def check_memory(comm):
    """Return what is wrong with the memory of derived matrices."""
    asked = []

    def allocate(shape, dtype):
        asked.append((shape, dtype))
        return np.full(shape, 0, dtype)

    layout = Layout("MC_MR", Grid.of_size(comm.size), (2, 2))
    A = DistMatrix.from_global(comm, matrix((9, 8), "float64"), layout, allocate)
    B = A.relayout("VC_STAR").new((3, 3), "STAR_STAR", "int32")
    wanted = [A.local.shape, Layout.of("VC_STAR", (9, 8), comm.size).local_shape((9, 8), comm.rank), (3, 3)]
    wrong = [] if [shape for shape, _ in asked] == wanted else ["allocations"]
    return wrong + ([] if B.dtype == np.int32 and A.nbytes == 9 * 8 * 8 else ["types"])


def main():
    comm = MPI.COMM_WORLD
    count, complaints = check_relayouts(comm)
    wrong = comm.allgather(check_refusals(comm) + check_memory(comm))
    if comm.rank == 0:
        print(json.dumps({"size": comm.size, "relayouts": count, "complaints": complaints, "wrong": wrong}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
