"""Compare sparse distributed matrices with SciPy and NumPy; run under mpiexec by test_sparse.py.

Every rank compares its own part. The first rank prints one line of JSON: for each group the number of cases, and the
faults.
"""

import itertools
import json
import math
import sys

import numpy as np
import scipy.sparse as sp
from cases import comm, ctx, dealt
from mpi4py import MPI

from alchemist_ray.errors import AlchemistError, ArgumentError, ArgumentValueError, ConvergenceError, NonFiniteError
from alchemist_ray.layouts import csr
from alchemist_ray.layouts.csr import CsrArrays
from alchemist_ray.layouts.layout import Grid, Layout
from alchemist_ray.layouts.spec import DTYPES
from alchemist_ray.mpi_backend.ali import DistMatrix, SparseDistMatrix, TaskContext, describe
from alchemist_ray.mpi_backend.libraries import linalg
from alchemist_ray.mpi_backend.libraries.linalg.matrices import sparse_products
from alchemist_ray.mpi_backend.libraries.linalg.spectral import lanczos, singular

SHAPES = ((9, 7), (1, 9), (9, 1), (2, 3), (1, 1), (40, 30), (5, 60))
PATTERNS = ("scattered", "empty", "one rank", "empty rows", "duplicates")
GROUPS = []


def group(function):
    GROUPS.append(function)
    return function


def sparse(shape, dtype="float64", pattern="scattered", density=0.3, seed=0):
    """Return a SciPy array in compressed rows, with the given pattern of entries."""
    m, n = shape
    rng = np.random.default_rng([seed, m, n])
    A = sp.random_array(shape, density=density, format="csr", rng=rng, data_sampler=rng.standard_normal)
    A.data *= 9
    if pattern == "empty":
        A = sp.csr_array(shape)
    elif pattern == "one rank":  # all entries in the rows of the first
        A = sp.vstack([A[: -(-m // comm.size)], sp.csr_array((m - -(-m // comm.size), n))], format="csr")
    elif pattern == "empty rows":
        A = sp.csr_array(sp.diags_array(np.arange(m) % 2.0) @ A)
        A.eliminate_zeros()
    values = A.data * (1 - 2j) if dtype.startswith("complex") else np.abs(A.data) if dtype == "bool" else A.data
    A = sp.csr_array((values.astype(dtype), A.indices, A.indptr), shape)
    if pattern == "duplicates" and dtype != "bool":  # every entry twice, in descending order
        order = np.concatenate([np.r_[r, r][::-1] for r in np.split(np.arange(A.nnz), A.indptr[1:-1])]).astype(int)
        A = sp.csr_array((A.data[order], A.indices[order], 2 * A.indptr), shape)
    return A


def spread(A):
    return SparseDistMatrix.from_global(comm, A)


def dense(A, pair="MC_MR", **how):
    return DistMatrix.from_global(comm, A, Layout.of(pair, A.shape, comm.size, **how))


def differs(C, expected, rtol=0.0):
    """Return a text if a distributed matrix, dense or sparse, is wrong on this rank, else None."""
    if (C.shape, C.dtype) != (expected.shape, expected.dtype):
        return f"{C.shape} {C.dtype}, not {expected.shape} {expected.dtype}"
    if isinstance(C, SparseDistMatrix):
        csr.check(C.arrays, C.shape[1])
        if C.counts[comm.rank] != C.arrays.nnz:
            return "counts"
        mine, cols = C.local.toarray(), np.arange(C.shape[1])
    else:
        mine, cols = C.local, C.layout.part(C.shape, comm.rank)[1].indices()
    wanted = expected[np.ix_(C.layout.part(C.shape, comm.rank)[0].indices(), cols)]
    if rtol:
        return (
            None if np.abs(mine - wanted).max(initial=0) <= rtol * max(np.abs(expected).max(), 1e-300) else "elements"
        )
    return None if np.array_equal(mine, wanted) else "elements"


def rounding(*arrays):
    dtype = np.result_type(*arrays)
    return 0.0 if dtype.kind in "ib" else 300 * float(np.finfo(dtype).eps)


# --- in one buffer ----------------------------------------------------------------------------------------------------


@group
def buffers():
    """Fill a slab from rows of a matrix, and read it back."""
    combined = itertools.product(DTYPES, PATTERNS)
    for (dtype, pattern), shape in dealt(zip(combined, itertools.cycle(SHAPES), strict=False)):
        A = sparse(shape, dtype, pattern)
        D = spread(A)
        label = f"{shape} {dtype} {pattern}"
        start, stop = csr.slab_rows(shape[0], comm.size, comm.rank)
        held = D.rows.indices()
        yield f"{label} rows", None if np.array_equal(held, np.arange(start, stop)) else held.tolist()
        aligned = all((each.ctypes.data - D.buffer.ctypes.data) % 64 == 0 for each in D.arrays if each.size)
        yield f"{label} alignment", None if aligned else "not aligned"
        yield f"{label} entries", None if D.nnz == A.nnz else D.nnz
        yield label, differs(D, A.toarray())
        back = CsrArrays(np.zeros(shape[0] + 1, np.int64), np.zeros(A.nnz, np.int32), np.zeros(A.nnz, dtype))
        csr.place(D.arrays, back, start, sum(D.counts[: comm.rank]))
        for whole in back:
            comm.Allreduce(MPI.IN_PLACE, whole, MPI.LOR if whole.dtype == bool else MPI.SUM)
        # the last pointer of a slab and the first of the next are the same number, which both write
        slabs = [csr.slab_rows(shape[0], comm.size, rank) for rank in range(comm.size)]
        back.indptr[...] //= [sum(first <= row <= last for first, last in slabs) for row in range(shape[0] + 1)]
        same = all(np.array_equal(mine, given) for mine, given in zip(back, (A.indptr, A.indices, A.data), strict=True))
        yield f"{label} and back", None if same else "other arrays"


# --- other layouts ----------------------------------------------------------------------------------------------------


@group
def transposes():
    combined = itertools.product(DTYPES, PATTERNS)
    for (dtype, pattern), shape in dealt(zip(combined, itertools.cycle(SHAPES), strict=False)):
        A = sparse(shape, dtype, pattern)
        expected = A.toarray()
        D = spread(A)
        label = f"{shape} {dtype} {pattern}"
        yield label, differs(linalg.transpose(ctx, D), expected.T)
        yield f"{label} conjugate", differs(linalg.transpose(ctx, D, conjugate=True), expected.conj().T)
        yield f"{label} operand", differs(D, expected)


@group
def dense_copies():
    pairs = ("VC_STAR", "MC_MR", "STAR_STAR", "CIRC_CIRC", "MD_STAR", "STAR_VR")
    turns = itertools.cycle(PATTERNS)
    for dtype, pair in itertools.product(DTYPES, pairs):
        pattern = next(turns)
        A = sparse((9, 7), dtype, pattern)
        C = linalg.to_dense(ctx, spread(A), {"pair": pair})
        yield f"{dtype} {pattern} {pair}", f"in {C.layout}" if C.layout.pair != pair else differs(C, A.toarray())
    A = sparse((9, 7))
    C = linalg.to_dense(ctx, spread(A))
    yield "by default", differs(C, A.toarray()) or (None if C.layout.pair == "VC_STAR" else str(C.layout))
    yield "nnz", None if linalg.nnz(ctx, spread(A)) == A.nnz else "another count"


# --- arithmetic -------------------------------------------------------------------------------------------------------


@group
def arithmetic():
    turns = itertools.cycle(PATTERNS)
    for dtype in DTYPES * 2:
        pattern = next(turns)
        A = sparse((9, 7), dtype, pattern)
        D, full = spread(A), A.toarray()
        label = f"{dtype} {pattern}"
        for name, value in (("multiply", 3), ("multiply", 2.5), ("multiply", 1j), ("divide", 4)):
            with np.errstate(all="ignore"):
                expected = full * value if name == "multiply" else full / value
            got = linalg.elementwise(ctx, name, D, value)
            yield f"{label} {name} {value}", differs(got, expected, rounding(expected))
        yield f"3 {label}", differs(linalg.elementwise(ctx, "multiply", 3, D), 3 * full, rounding(full))
        yield f"|{label}|", differs(linalg.elementwise(ctx, "absolute", D), abs(full), rounding(abs(full)))
        yield f"conj {label}", differs(linalg.elementwise(ctx, "conjugate", D), full.conj())
        if dtype != "bool":
            yield f"-{label}", differs(linalg.elementwise(ctx, "negative", D), -full)
        for axis in (0, 1):
            expected = full.sum(axis, keepdims=True)
            yield f"{label} sum {axis}", differs(linalg.sum(ctx, D, axis), expected, rounding(expected))
        total = linalg.sum(ctx, D)
        bound = 1e-4 * max(np.abs(full).sum(), 1) if rounding(full) else 0
        yield f"{label} sum", None if abs(total - full.sum()) <= bound else f"{total}, not {full.sum()}"
        wide = full.astype(complex if full.dtype.kind == "c" else float)
        for order, expected in (
            ("fro", np.linalg.norm(wide)),
            (1, np.linalg.norm(wide, 1)),
            ("inf", np.linalg.norm(wide, np.inf)),
            ("max", np.abs(wide).max()),
        ):
            got = linalg.norm(ctx, D, order)
            yield (
                f"{label} norm {order}",
                None if math.isclose(got, expected, rel_tol=1e-6) else f"{got}, not {expected}",
            )
        yield f"{label} operand", differs(D, full)
    for before, after in itertools.product(DTYPES, repeat=2):
        A = sparse((9, 7), before, "duplicates")
        expected = A.toarray().real.astype(after) if after[0] not in "cb" else A.toarray().astype(after)
        yield f"{before} to {after}", differs(linalg.astype(ctx, spread(A), after), expected)


@group
def of_two():
    operations = itertools.cycle({"add": np.add, "multiply": np.multiply, "subtract": np.subtract}.items())
    combined = zip(itertools.product(DTYPES, repeat=2), itertools.cycle(PATTERNS), operations, strict=False)
    for (a, b), pattern, (name, function) in dealt(combined):
        A, B = sparse((9, 7), a, pattern), sparse((9, 7), b, "scattered", seed=1)
        if not (name == "subtract" and a == b == "bool"):
            expected = function(A.toarray(), B.toarray())
            got = linalg.elementwise(ctx, name, spread(A), spread(B))
            yield f"{a} {name} {b} {pattern}", differs(got, expected, rounding(expected))


# --- products ---------------------------------------------------------------------------------------------------------


@group
def products():
    """Every op(S) op(B) and op(B) op(S), with panels of all the columns, of three, and of one."""
    size = comm.size
    layouts = itertools.cycle(
        [
            Layout("MC_MR", Grid.of_size(size), (2, 3)),
            Layout("VC_STAR", Grid.of_size(size), (1, 1)),
            Layout("STAR_VR", Grid(1, size), (2, 2)),
            Layout("STAR_STAR", Grid.of_size(size)),
            Layout("CIRC_CIRC", Grid.of_size(size), (1, 1), (size - 1, 0)),
            Layout("MD_STAR", Grid.of_size(size), (1, 1)),
            Layout("MC_STAR", Grid.of_size(size), (2, 2)),
        ]
    )
    flags = list(itertools.product((False, True), repeat=2))
    default = sparse_products._PANEL
    combined = itertools.product((default, 3 * 40 * 16, 1), flags, flags)
    for (panel, (ts, tb), (cs, cb)), pattern, layout in dealt(
        zip(combined, itertools.cycle(PATTERNS), layouts, strict=False)
    ):
        sparse_products._PANEL = panel
        dtype, other = ("complex128", "complex64") if cs or cb else ("float64", "float32")
        S = sparse((40, 30), dtype, pattern)
        rng = np.random.default_rng(5)
        left = S.toarray().T if ts else S.toarray()
        B = (rng.standard_normal((left.shape[1], 7)) * (1 + 1j if cb else 1)).astype(other)
        stored = DistMatrix.from_global(comm, B.T.copy() if tb else B, layout)
        got = linalg.gemm(ctx, spread(S), stored, ts, tb, -2.5, conjugate_a=cs, conjugate_b=cb)
        left, right = left.conj() if cs else left, B.conj() if cb else B
        label = f"{pattern} {layout} {ts} {tb} {cs} {cb} {panel}"
        yield label, differs(got, -2.5 * (left @ right), 1e-5)
        # and on the right: (op(B)^T op(S)^T) is the transpose
        mirrored = linalg.gemm(ctx, stored, spread(S), not tb, not ts, -2.5, conjugate_a=cb, conjugate_b=cs)
        yield f"{label}, on the right", differs(mirrored, -2.5 * (left @ right).T, 1e-5)
    sparse_products._PANEL = default


@group
def types_of_products():
    numeric = [name for name in DTYPES if name != "bool"]
    for (a, b), shape in dealt(zip(itertools.product(numeric, repeat=2), itertools.cycle(SHAPES), strict=False)):
        S = sparse(shape, a)
        B = (np.random.default_rng(3).standard_normal((S.shape[1], 4)) * 5).astype(b)
        expected = S.toarray() @ B
        got = linalg.gemm(ctx, spread(S), dense(B))
        yield f"{a} {b} {S.shape}", differs(got, expected, rounding(expected))


# --- singular values --------------------------------------------------------------------------------------------------


def svd_differs(A, k, **how):
    """Return a text if the leading `k` triplets of a SciPy array are wrong, else None."""
    U, S, Vt = linalg.truncated_svd(ctx, spread(A), k, **how)
    u, vt, full = U.to_global(), Vt.to_global(), A.toarray().astype(float)
    exact = np.linalg.svd(full, compute_uv=False)[:k]
    eps = float(np.finfo(A.dtype).eps)
    unit = max(float(exact[0]), 1e-300) * max(1e-10, 100 * eps)
    size = exact[0] if exact[0] > 0 else 1.0  # squares in the checks below must not overflow
    full, S, exact, unit = full / size, S / size, exact / size, unit / size
    residuals = {
        "shapes": 0 if (u.shape, S.shape, vt.shape) == ((A.shape[0], k), (k,), (k, A.shape[1])) else 1e9,
        "types": 0 if u.dtype == vt.dtype == A.dtype else 1e9,
        "values": np.abs(S - exact).max() / unit,
        "A v - sigma u": np.linalg.norm(full @ vt.T - u * S, axis=0).max() / unit,
        "A^T u - sigma v": np.linalg.norm(full.T @ u - vt.T * S, axis=0).max() / unit,
        "U": np.abs(u.T.astype(float) @ u - np.eye(k)).max() / (eps * max(A.shape) * 30),
        "V": np.abs(vt.astype(float) @ vt.T - np.eye(k)).max() / (eps * max(A.shape) * 30),
        "ranks agree": len(set(comm.allgather(S.tobytes()))) - 1,
    }
    wrong = {name: float(value) for name, value in residuals.items() if not value <= 1}
    return str(wrong) if wrong else None


def copies_of(shape, values, dtype="float64"):
    """Return a sparse array with these singular values and without visible structure."""
    m, n = shape
    rng = np.random.default_rng(2)
    rows, cols = rng.permutation(m)[: len(values)], rng.permutation(n)[: len(values)]
    A = sp.coo_array((values, (rows, cols)), shape).tocsr()
    # plane rotations of neighbouring rows fill it a little
    turns = [[[np.cos(i), -np.sin(i)], [np.sin(i), np.cos(i)]] for i in range(m // 2)] + [[[1.0]]] * (m % 2)
    return sp.csr_array(sp.block_diag(turns, format="csr") @ A).astype(dtype)


@group
def singular_values():
    dtypes = ("float64", "float32", "float64")
    large = [((300, 200), 6), ((200, 300), 1), ((900, 40), 4), ((40, 900), 6), ((90, 900), 4)]
    for (shape, k), dtype in dealt(zip(large, itertools.cycle(dtypes), strict=False)):
        yield f"{shape} {k} {dtype}", svd_differs(sparse(shape, dtype, density=0.05), k)
    small = [(9, 7), (7, 9), (1, 9), (40, 30)]  # too small for the sparse method
    for shape, dtype in zip(small, itertools.cycle(dtypes), strict=False):
        yield f"{shape} all {dtype}", svd_differs(sparse(shape, dtype), min(shape))
    for pattern in dealt(PATTERNS[1:]):
        yield pattern, svd_differs(sparse((150, 100), "float64", pattern, 0.05), 4)
    for power in (1e300, 1e-300):
        A = sparse((200, 150), density=0.1) * power
        yield f"{power} times", svd_differs(A, 3)


@group
def multiple_singular_values():
    """Multiple singular values that a start of two vectors cannot find."""
    bulk = np.linspace(6, 1, 290)
    cases = {
        "twelve copies": (np.r_[np.full(12, 9.0), bulk], 8, (400, 350), "float64"),
        "two copies": (np.r_[9, 8, 8, 7, bulk], 4, (350, 400), "float32"),
        "five copies": (np.r_[9, np.full(5, 7.1), 7, bulk], 4, (400, 300), "float64"),
        "five copies, wide": (np.r_[9, np.full(5, 7.1), 7, bulk], 4, (300, 400), "float64"),
        "identity": (np.ones(250), 8, (300, 350), "float32"),
        "deficient": (np.r_[5.0, 4.0, 3.0], 8, (400, 300), "float64"),
        "one": (np.r_[5.0], 4, (300, 300), "float32"),
    }
    for name, (values, k, shape, dtype) in cases.items():
        yield name, svd_differs(copies_of(shape, values, dtype), k)


@group
def trust():
    """The values found with blocks of 2 that may hide others."""
    cases = [
        ([5, 4, 3, 2], True),
        ([5, 5, 3, 2], False),
        ([5, 4, 3, 3], True),  # only copies of the last value can be missing
        ([5, 5, 5, 5], True),
        ([5, 4, 4 - 1e-11, 2], False),
        ([5, 4, 4 - 1e-7, 2], True),
        ([5, 0, 0, 0], True),
        ([5], True),
    ]
    for values, expected in cases:
        s = np.array(values, float)
        yield str(values), None if lanczos.trustworthy(s, 2, 1e-10) == expected else "misjudged"
    yield "three of three", None if not lanczos.trustworthy(np.array([5.0, 5, 5, 1]), 3, 1e-10) else "misjudged"
    yield "two of three", None if lanczos.trustworthy(np.array([5.0, 5, 4, 1]), 3, 1e-10) else "misjudged"


# --- refusals ---------------------------------------------------------------------------------------------------------


def refused(act, error, text):
    try:
        act()
    except AlchemistError as raised:
        return None if type(raised) is error and text in str(raised) else repr(raised)
    return "not refused"


@group
def refusals():
    A, B = spread(sparse((9, 7))), dense(np.ones((9, 7)))
    flags, other = spread(sparse((9, 7), "bool")), spread(sparse((7, 9)))
    bad = sparse((60, 50))
    bad.data[-1] = np.nan
    library = describe("linalg", linalg)
    k = {"A": A, "k": 1}
    cases = {
        "plus a number": (ArgumentError, lambda: linalg.elementwise(ctx, "add", A, 1), "to_dense"),
        "number by": (ArgumentError, lambda: linalg.elementwise(ctx, "divide", 1, A), "to_dense"),
        "quotient": (ArgumentError, lambda: linalg.elementwise(ctx, "divide", A, A), "to_dense"),
        "with dense": (ArgumentError, lambda: linalg.elementwise(ctx, "add", A, B), "to_dense"),
        "shapes": (ArgumentValueError, lambda: linalg.elementwise(ctx, "add", A, other), "9x7 and 7x9"),
        "bool": (ArgumentError, lambda: linalg.elementwise(ctx, "subtract", flags, flags), "astype"),
        "gemm of two": (ArgumentError, lambda: linalg.gemm(ctx, A, other), "both sparse"),
        "gemm of bool": (ArgumentError, lambda: linalg.gemm(ctx, flags, dense(np.ones((7, 2)))), "astype"),
        "gemm shapes": (ArgumentValueError, lambda: linalg.gemm(ctx, A, B), "A is 9x7, B is 9x7"),
        "gemm shapes, right": (ArgumentValueError, lambda: linalg.gemm(ctx, B, A), "A is 9x7, B is 9x7"),
        "layout of transpose": (ArgumentError, lambda: linalg.transpose(ctx, A, {"pair": "MC_MR"}), "omit layout"),
        "k": (ArgumentValueError, lambda: linalg.truncated_svd(ctx, A, 8), "1..7"),
        "NaN": (NonFiniteError, lambda: linalg.truncated_svd(ctx, spread(bad), 2), "matrix A"),
        "svd of int64": (
            ArgumentError,
            lambda: linalg.truncated_svd(ctx, spread(sparse((9, 7), "int64")), 1),
            "int64",
        ),
        "qr": (ArgumentError, lambda: library.tasks["qr"](ctx, {"A": A}), "'A' is a sparse matrix"),
        "nnz": (ArgumentError, lambda: library.tasks["nnz"](ctx, {"A": B}), "'A' is a dense matrix"),
    }
    for name, (error, act, text) in cases.items():
        yield name, refused(act, error, text)
    kinds = {p.name: p.kinds for p in library.tasks["gemm"].description.parameters}
    yield "kinds", None if kinds["A"] == kinds["B"] == ("matrix", "sparse") else str(kinds)
    yield "both kinds", None if len(library.tasks["truncated_svd"](ctx, k)) == 3 else "no result"
    largest, singular.LARGEST_TRIANGLE = singular.LARGEST_TRIANGLE, 100
    A = spread(sparse((300, 200), density=0.1))
    yield (
        "no convergence",
        refused(
            lambda: linalg.truncated_svd(ctx, A, 5, max_iterations=1),
            ConvergenceError,
            "300x200 matrix did not converge",
        ),
    )
    singular.LARGEST_TRIANGLE = largest
    yield "another method", svd_differs(sparse((300, 200), density=0.1), 5, max_iterations=1)


@group
def no_room():
    """A rank without enough memory for its part fails; the others do not wait for it."""

    def allocate(shape, dtype):
        if comm.rank == comm.size - 1:
            raise MemoryError
        return np.empty(shape, dtype)

    A = SparseDistMatrix.from_global(comm, sparse((9, 7)))
    A.allocate = allocate
    poor = TaskContext(comm, "linalg.case", allocate)
    acts = {
        "to_dense": lambda: linalg.to_dense(poor, A),
        "transpose": lambda: linalg.transpose(poor, A),
        "multiply": lambda: linalg.elementwise(poor, "multiply", A, 2),
        "add": lambda: linalg.elementwise(poor, "add", A, A),
        "gemm": lambda: linalg.gemm(poor, A, dense(np.ones((7, 2)))),
    }
    for name, act in acts.items():
        try:
            act()
            raised = "nothing"
        except (AlchemistError, MemoryError) as error:
            raised = type(error).__name__
        expected = "MemoryError" if comm.rank == comm.size - 1 else "PeerFailedError"
        yield name, None if raised == expected else raised


def main():
    for cases in GROUPS:
        results = list(cases())
        wrong = [f"rank {comm.rank}: {label}: {what}" for label, what in results if what is not None]
        gathered = comm.gather(wrong)
        if comm.rank == 0:
            print(json.dumps([cases.__name__, len(results), list(itertools.chain(*gathered))]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
