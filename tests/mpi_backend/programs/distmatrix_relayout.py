"""Relay matrices between all pairs of layouts and compare with NumPy; run under mpiexec by test_distmatrix.py.

Every rank checks its own block against fancy indexing of the whole matrix, which all ranks have. Every rank draws the
cases from a generator with the same seed. The first rank prints one line of JSON: the number of relayouts, and the
faults.
"""

import itertools
import json
import sys

import numpy as np
from cases import dealt
from mpi4py import MPI

from alchemist_ray.errors import LayoutError, MatrixMemoryError, PeerFailedError
from alchemist_ray.layouts.layout import PAIRS, Dist, Grid, Layout
from alchemist_ray.mpi_backend.matrices import exchange
from alchemist_ray.mpi_backend.matrices.distmatrix import DistMatrix

DTYPES = ("float64", "float32", "complex128", "complex64", "int64", "int32", "bool")
BLOCKS = (1, 1, 2, 3, 4, 7, 16, 1000)
CHUNKS = (exchange.CHUNK_BYTES, 16, 48, 200, 1000)
"""Bytes of a message; in the default size most matrices fit into one, so smaller sizes test several messages."""


def grids(size):
    return [Grid(r, size // r) for r in range(1, size + 1) if size % r == 0]


def positions(dist, grid):
    return {
        Dist.MC: grid.nprow,
        Dist.MR: grid.npcol,
        Dist.VC: grid.size,
        Dist.VR: grid.size,
        Dist.MD: np.lcm(grid.nprow, grid.npcol),
    }.get(dist, 1)


def draw_layout(rng, pair, size):
    """Return a layout of `pair` with a random grid, random blocks and a random alignment."""
    grid = rng.choice(np.array(grids(size), object))
    grid = Grid(*(int(extent) for extent in (grid.nprow, grid.npcol)))
    rows, cols = (Dist(name) for name in pair.split("_"))
    align = [int(rng.integers(positions(dist, grid))) for dist in (rows, cols)]
    if rows is Dist.CIRC:
        align = [int(rng.integers(size)), 0]
    return Layout(pair, grid, tuple(int(b) for b in rng.choice(BLOCKS, 2)), tuple(align))


def matrix(shape, dtype):
    m, n = shape
    values = 1 + np.arange(m * n).reshape(m, n)
    if dtype == "bool":
        return values % 3 == 0
    return (values * (1 - 2j) if dtype.startswith("complex") else values).astype(dtype)


def expected_block(A, layout, rank):
    rows, cols = layout.part(A.shape, rank)
    return A[np.ix_(rows.indices(), cols.indices())]


def complaint(comm, A, source, target, transposed):
    """Relay `A` from one layout to another; return a text if the result is wrong, else None. Collective over comm."""
    given = DistMatrix.from_global(comm, A, source)
    given.local.flags.writeable = False
    before = given.local.copy()
    relaid = given.transpose(target) if transposed else given.relayout(target)
    expected = A.T if transposed else A
    wrong = None
    if not np.array_equal(relaid.local, expected_block(expected, target, comm.rank)):
        wrong = "block"
    elif relaid.dtype != A.dtype or relaid.shape != expected.shape or relaid.layout != target:
        wrong = "type, shape or layout"
    elif not np.array_equal(given.local, before):
        wrong = "source changed"
    elif (relaid is given) != (source == target and not transposed):
        wrong = "copied in vain, or not copied"
    elif not relaid.local.flags.c_contiguous:
        wrong = "order"
    return next(
        (f"{A.shape} {A.dtype} {source} -> {target} {transposed}: {w}" for w in comm.allgather(wrong) if w), None
    )


def check_relayouts(comm):
    """Return the number of relayouts, and the faults.

    Each pair of layouts is tried on 2 or 4 ranks, and on 3 or 6.
    """
    rng = np.random.default_rng(comm.size)
    complaints, count = [], 0
    for first, second in dealt(itertools.product(PAIRS, PAIRS), (2, 4) if comm.size in (2, 4) else (3, 6)):
        shape = tuple(int(n) for n in rng.integers(1, 60 if rng.random() < 0.8 else 400, 2))
        source, target = draw_layout(rng, first, comm.size), draw_layout(rng, second, comm.size)
        if rng.random() < 0.05 and first == second:
            target = source
        exchange.CHUNK_BYTES = int(rng.choice(CHUNKS)) if shape[0] * shape[1] < 3600 else CHUNKS[0]
        complaints.append(complaint(comm, matrix(shape, rng.choice(DTYPES)), source, target, rng.random() < 0.35))
        count += 1
    exchange.CHUNK_BYTES = CHUNKS[0]
    return count, [each for each in complaints if each]


def check_default_layouts(comm):
    """Return the faults with layouts by name, with the whole matrix, and with data that need not move."""
    A = matrix((37, 23), "float64")
    D = DistMatrix.from_global(comm, A, Layout.of("MC_MR", A.shape, comm.size))
    wrong = []
    for pair in PAIRS:
        if not np.array_equal(D.relayout(pair).to_global(), A):
            wrong.append(f"relayout {pair}")
        if not np.array_equal(D.transpose(pair).to_global(), A.T):
            wrong.append(f"transpose {pair}")
    if D.relayout(D.layout) is not D or D.relayout("MC_MR") is not D:
        wrong.append("equal layout")
    if not np.array_equal(D.transpose(D.layout.transposed()).local, D.local.T):
        wrong.append("transpose in place")
    empty = DistMatrix.from_global(comm, A[:0], Layout.of("VC_STAR", (0, 23), comm.size))
    if empty.relayout("MC_MR").shape != (0, 23) or empty.transpose("MC_MR").shape != (23, 0):
        wrong.append("no rows")
    return wrong


# --- plans ------------------------------------------------------------------------------------------------------------


def plans(layout, target, shape, size):
    source, target = (
        exchange.ExchangeSide(end, shape, each, np.empty((0, 0))) for end, each in enumerate((layout, target))
    )
    return [exchange.ExchangePlan.of(source, target, rank, size) for rank in range(size)]


def elements(meetings):
    return sum(meeting.rows.size * meeting.cols.size for meeting in meetings)


def check_plans(comm):
    """Return the faults in the plans of all ranks; each rank checks some of the pairs of layouts."""
    shape, size, wrong = (60, 60), comm.size, []
    for first, second in list(itertools.product(PAIRS, PAIRS))[comm.rank :: size]:
        source, target = (Layout.of(pair, shape, size, block=2) for pair in (first, second))
        made = plans(source, target, shape, size)
        for rank, plan in enumerate(made):
            m, n = target.local_shape(shape, rank)
            if elements(plan.incoming) + elements(plan.own) != m * n:
                wrong.append(f"{first} -> {second}: rank {rank} does not get its elements once each")
            if elements(plan.own) != in_common(source, target, shape, rank):
                wrong.append(f"{first} -> {second}: rank {rank} does not keep its own elements")
        sent = [(rank, m.peer, elements([m])) for rank, plan in enumerate(made) for m in plan.outgoing]
        got = [(m.peer, rank, elements([m])) for rank, plan in enumerate(made) for m in plan.incoming]
        if sorted(sent) != sorted(got):
            wrong.append(f"{first} -> {second}: some elements are sent but not received")
    return wrong


def in_common(source, target, shape, rank):
    both = zip(source.part(shape, rank), target.part(shape, rank), strict=True)
    rows, cols = (np.intersect1d(held.indices(), wanted.indices()) for held, wanted in both)
    return rows.size * cols.size


def check_load(comm):
    """Return the faults in how ranks with the same elements share the sending."""
    shape, size, wrong = (60, 60), comm.size, []
    for pair in ("MC_STAR", "MR_STAR", "STAR_MC", "STAR_MR"):
        for grid in grids(size):
            source = Layout(pair, grid, (1, 1))
            made = plans(source, Layout("STAR_STAR", grid), shape, size)
            replicas = size // source.distinct_owners
            most = -(-(size - replicas) // replicas) * 60 * 60 // source.distinct_owners
            if max(elements(plan.outgoing) for plan in made) > most:
                wrong.append(f"{source}: a rank sends more than {most}")
    return wrong


# --- refusals, memory, messages ---------------------------------------------------------------------------------------


def refused(act, error=LayoutError):
    try:
        act()
    except error:
        return True
    return False


def check_refusals(comm):
    """Return the names of the cases that should have raised LayoutError and did not."""
    layout = Layout("VC_STAR", Grid.of_size(comm.size), (1, 1))
    larger = Layout("VC_STAR", Grid(1, comm.size + 1), (1, 1))
    m, n = layout.local_shape((24, 3), comm.rank)
    cases = {
        "another number of ranks": lambda: DistMatrix(comm, (24, 3), larger, np.zeros((m, n))),
        "relayout to another number of ranks": lambda: DistMatrix.empty(comm, (24, 3), float, layout).relayout(larger),
        "transpose to another number of ranks": lambda: DistMatrix.empty(comm, (24, 3), float, layout).transpose(
            larger
        ),
        "another local shape": lambda: DistMatrix(comm, (24, 3), layout, np.zeros((m + 1, n))),
        "transposed local shape": lambda: DistMatrix(comm, (24, 3), layout, np.zeros((n, m))),
        "three dimensions": lambda: DistMatrix(comm, (24, 3), layout, np.zeros((m, n, 1))),
        "Fortran order": lambda: DistMatrix(comm, (24, 3), layout, np.zeros((m, n), order="F")),
        "no such layout": lambda: DistMatrix.empty(comm, (24, 3), float, layout).relayout("MC_MC"),
        "no such layout of the transpose": lambda: DistMatrix.empty(comm, (24, 3), float, layout).transpose("VC_VR"),
    }
    return [name for name, act in cases.items() if not refused(act)]


def check_memory(comm):
    """Return the faults in the memory of derived matrices."""
    asked = []

    def allocate(shape, dtype):
        asked.append((shape, dtype))
        return np.full(shape, 0, dtype)

    layout = Layout("MC_MR", Grid.of_size(comm.size), (2, 2))
    A = DistMatrix.from_global(comm, matrix((9, 8), "float64"), layout, allocate)
    B = A.relayout("VC_STAR").new((3, 3), "STAR_STAR", "int32")
    A.transpose("STAR_VC")
    shapes = [("VC_STAR", (9, 8)), ("STAR_STAR", (3, 3)), ("STAR_VC", (8, 9))]
    wanted = [A.local.shape, *(Layout.of(p, shape, comm.size).local_shape(shape, comm.rank) for p, shape in shapes)]
    wrong = [] if [shape for shape, _ in asked] == wanted else ["allocations"]
    return wrong + ([] if B.dtype == np.int32 and A.nbytes == 9 * 8 * 8 else ["types"])


def check_no_room_on_one_rank(comm):
    """Return the faults when the last rank has no memory for its block of the result."""
    last = comm.rank == comm.size - 1

    def allocate(shape, dtype):
        if last:
            raise MatrixMemoryError(needed=2, available=1, limit=1)
        return np.empty(shape, dtype)

    layout = Layout.of("MC_MR", (9, 8), comm.size)
    A = DistMatrix(comm, (9, 8), layout, np.zeros(layout.local_shape((9, 8), comm.rank)), allocate)
    error = MatrixMemoryError if last else PeerFailedError
    wrong = [] if refused(lambda: A.relayout("VC_STAR"), error) else ["relayout went on without a rank"]
    wrong += [] if refused(lambda: A.transpose("MC_MR"), error) else ["transpose went on without a rank"]
    return wrong


def check_messages(comm):
    """Return the faults when a library has an open receive from any source and with any tag during a relayout."""
    mine, said = comm.Dup(), np.zeros(1, np.int64)
    request = mine.Irecv(said, MPI.ANY_SOURCE, MPI.ANY_TAG)
    A = matrix((30, 20), "int64")
    relaid = DistMatrix.from_global(mine, A, Layout.of("MC_MR", A.shape, mine.size)).relayout("STAR_VR").to_global()
    mine.Send(np.full(1, 42 + mine.rank), (mine.rank + 1) % mine.size, 7)
    request.Wait()
    mine.Free()
    return [] if np.array_equal(relaid, A) and said[0] == 42 + (comm.rank - 1) % comm.size else ["messages mixed up"]


CHECKS = (
    check_default_layouts,
    check_plans,
    check_load,
    check_refusals,
    check_memory,
    check_no_room_on_one_rank,
    check_messages,
)


def main():
    comm = MPI.COMM_WORLD
    count, complaints = check_relayouts(comm)
    wrong = {check.__name__: comm.allgather(check(comm)) for check in CHECKS}
    if comm.rank == 0:
        print(json.dumps({"size": comm.size, "relayouts": count, "complaints": complaints, "wrong": wrong}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
