"""Compare the arithmetic of distributed matrices with NumPy; run under mpiexec by test_arithmetic.py.

Every rank compares its own block, replicas included, with fancy indexing of NumPy's result for the same operands. The
first rank prints one line of JSON: for each group the number of cases, and the faults.
"""

import itertools
import json
import math
import operator
import sys
import warnings

import numpy as np
from cases import comm, ctx, dealt

from alchemist_ray.errors import AlchemistError, ArgumentError, ArgumentValueError, LayoutError
from alchemist_ray.layouts.layout import Grid, Layout
from alchemist_ray.layouts.spec import DTYPES
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries import linalg
from alchemist_ray.mpi_backend.libraries.linalg import small_problems

SHAPES = ((7, 5), (1, 9), (9, 1), (2, 3), (1, 1), (23, 17))
OPERATIONS = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
}
GROUPS = []


def group(function):
    GROUPS.append(function)
    return function


def layouts(size):
    """Return distributed, redundant and one-sided layouts, with blocks of several sizes and alignments."""
    square, flat = Grid.of_size(size), Grid(1, size)
    return [
        Layout("MC_MR", square, (2, 3)),
        Layout("MC_MR", flat, (1, 1), (0, size - 1)),
        Layout("MR_MC", square, (1, 2)),
        Layout("VC_STAR", square, (2, 1)),
        Layout("VR_STAR", square, (1, 4), (size - 1, 0)),
        Layout("STAR_VR", square, (3, 2)),
        Layout("STAR_STAR", square),
        Layout("CIRC_CIRC", square, (1, 1), (size - 1, 0)),
        Layout("MD_STAR", square, (1, 1)),
        Layout("STAR_MD", square, (2, 2)),
        Layout("MC_STAR", square, (2, 2)),
        Layout("STAR_MR", square, (1, 2)),
        Layout("STAR_MC", Grid(size, 1), (5, 1)),
    ]


LAYOUTS = layouts(comm.size)


def array(shape, dtype, seed=0):
    """Return an array in which equal numbers are rare, but zeros are not."""
    rng = np.random.default_rng([seed, *shape])
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.startswith("int"):
        return rng.integers(-40, 40, shape).astype(dtype)
    A = rng.integers(-4, 5, shape) * rng.random(shape)
    return (A - 2j * rng.random(shape) if dtype.startswith("complex") else A).astype(dtype)


def spread(A, layout):
    return DistMatrix.from_global(comm, A, layout)


def block_of(A, layout):
    rows, cols = layout.part(A.shape, comm.rank)
    return A[np.ix_(rows.indices(), cols.indices())]


def differs(C, expected, layout=None, rtol=0.0):
    """Return a text if a distributed matrix is wrong on this rank, else None."""
    if layout is not None and C.layout != layout:
        return f"layout {C.layout}"
    if (C.shape, C.dtype) != (expected.shape, expected.dtype):
        return f"{C.shape} {C.dtype}, not {expected.shape} {expected.dtype}"
    mine = block_of(expected, C.layout)
    if rtol:
        scale = max(float(np.abs(expected).max()), 1e-300)
        return None if np.abs(C.local - mine).max(initial=0) <= rtol * scale else "elements"
    return None if np.array_equal(C.local, mine, equal_nan=mine.dtype.kind in "fc") else "elements"


def outcome(act, *arguments):
    """Return the result, or the error class."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return act(*arguments)
    except (AlchemistError, TypeError, OverflowError) as error:
        return type(error)


def compare(got, expected, layout):
    """Return a text if a result is wrong, or if NumPy refuses and we do not, else None."""
    refusals = {TypeError: ArgumentError, OverflowError: ArgumentValueError}
    if isinstance(expected, type):
        return None if got is refusals[expected] else f"NumPy refuses, this gives {got}"
    return differs(got, expected, layout) if isinstance(got, DistMatrix) else f"raised {got}"


# --- entry by entry ---------------------------------------------------------------------------------------------------


@group
def types():
    """All pairs of types, with layouts in turn."""
    pairs = itertools.cycle(itertools.product(LAYOUTS, repeat=2))
    combined = itertools.product(DTYPES, DTYPES, OPERATIONS.items())
    for (a, b, (name, op)), (one, other) in dealt(zip(combined, pairs, strict=False)):
        A, B = array((7, 5), a), array((7, 5), b, 1)
        C = outcome(linalg.elementwise, ctx, name, spread(A, one), spread(B, other))
        yield f"{a} {name} {b}", compare(C, outcome(op, A, B), one)


@group
def places():
    """All pairs of layouts, with shapes in turn; operands must not change."""
    pairs = itertools.product(LAYOUTS, repeat=2)
    for (one, other), shape in dealt(zip(pairs, itertools.cycle(SHAPES), strict=False)):
        A, B = array(shape, "float64"), array(shape, "float64", 1)
        a, b = spread(A, one), spread(B, other)
        label = f"{A.shape} {one} {other}"
        yield label, differs(linalg.elementwise(ctx, "subtract", a, b), A - B, one)
        yield f"{label}, operands", differs(a, A, one) or differs(b, B, other)


@group
def numbers():
    values = (True, 0, 3, -2, 2**40, 2.5, 1e300, math.inf, 1 - 2j)
    combined = itertools.product(DTYPES, OPERATIONS.items(), values)
    for (dtype, (name, op), value), layout in dealt(zip(combined, itertools.cycle(LAYOUTS), strict=False)):
        A = array((7, 5), dtype)
        got = outcome(linalg.elementwise, ctx, name, spread(A, layout), value)
        yield f"{dtype} {name} {value}", compare(got, outcome(op, A, value), layout)
        got = outcome(linalg.elementwise, ctx, name, value, spread(A, layout))
        yield f"{value} {name} {dtype}", compare(got, outcome(op, value, A), layout)


@group
def single_operands():
    functions = {"negative": operator.neg, "conjugate": lambda A: A.conj(), "absolute": abs}
    for dtype, (name, function), layout in dealt(itertools.product(DTYPES, functions.items(), LAYOUTS)):
        A = array((7, 5), dtype)
        got = outcome(linalg.elementwise, ctx, name, spread(A, layout))
        yield f"{name} {dtype} {layout}", compare(got, outcome(function, A), layout)


@group
def rows_and_columns():
    """A matrix and a single row, column or element in another layout; the result of sum fits without a move."""
    others = itertools.cycle(LAYOUTS)
    for layout, (m, n) in dealt(itertools.product(LAYOUTS, SHAPES[::2])):
        A = array((m, n), "float64")
        a = spread(A, layout)
        for shape in ((1, n), (m, 1), (1, 1)):
            B = array(shape, "float32", 1)
            b = spread(B, next(others))
            label = f"{m}x{n} {shape} {layout} {b.layout}"
            kept = layout if shape != (m, n) else None
            yield label, differs(linalg.elementwise(ctx, "subtract", a, b), A - B, kept)
            kept = layout if shape != (m, n) else b.layout
            yield f"{label}, reversed", differs(linalg.elementwise(ctx, "subtract", b, a), B - A, kept)
        sums = linalg.sum(ctx, a, 0)
        yield f"{label}, sums", differs(linalg.elementwise(ctx, "add", a, sums), A + A.sum(0), layout, 1e-13)


@group
def conversions():
    turns = itertools.cycle(LAYOUTS)
    for before, after in itertools.product(DTYPES, repeat=2):
        A, layout = array((7, 5), before), next(turns)
        if before.startswith("float"):
            A[0, 0] = 3e9  # NumPy decides the result in int32; it must not be an error
        expected = outcome(A.astype, after)
        got = linalg.astype(ctx, spread(A, layout), after)
        skipped = 1 if before.startswith("float") and after == "int32" else 0
        if skipped:
            expected[0, 0] = 0
            got.local[block_of(A, layout) == A[0, 0]] = 0
        yield f"{before} to {after}", differs(got, expected, layout)
    A = array((7, 5), "complex64")
    yield "conj", differs(linalg.conj(ctx, spread(A, LAYOUTS[0])), A.conj(), LAYOUTS[0])
    A = array((7, 5), "float64")
    a = spread(A, LAYOUTS[0])
    linalg.conj(ctx, a).local[...] = 0
    linalg.astype(ctx, a, "float64").local[...] = 0
    yield "copies", differs(a, A)


# --- sums and norms ---------------------------------------------------------------------------------------------------


@group
def sums():
    combined = itertools.product(DTYPES, LAYOUTS)
    for (dtype, layout), shape in dealt(zip(combined, itertools.cycle(SHAPES), strict=False)):
        A = array(shape, dtype)
        a, exact = spread(A, layout), A.dtype.kind in "bi"
        rtol = 0.0 if exact else 50 * float(np.finfo(dtype).eps) * (1 + np.abs(A).sum() / max(np.abs(A).max(), 1e-9))
        label = f"{shape} {dtype} {layout}"
        for axis in (0, -1):
            expected = A.sum(axis, keepdims=True)
            yield f"{label} {axis}", differs(linalg.sum(ctx, a, axis), expected, rtol=rtol)
        total, expected = linalg.sum(ctx, a), A.sum()
        bound = rtol * float(np.abs(A).max())
        fits = isinstance(total, (int, float, complex)) and abs(total - expected) <= bound
        yield f"{label} all", None if fits else f"{total}, not {expected}"


@group
def norms():
    orders = {"fro": None, 1: 1, math.inf: np.inf, "max": "max"}
    combined = itertools.product(DTYPES, LAYOUTS, orders.items())
    for (dtype, layout, (order, numpys)), shape in dealt(zip(combined, itertools.cycle(SHAPES), strict=False)):
        A = array(shape, dtype)
        wide = A.astype(complex if A.dtype.kind == "c" else float)
        expected = np.abs(wide).max() if order == "max" else np.linalg.norm(wide, numpys)
        got = linalg.norm(ctx, spread(A, layout), order)
        yield f"{order} {A.shape} {dtype} {layout}", None if math.isclose(got, expected, rel_tol=1e-13) else got


@group
def extreme_norms():
    """Squares overflow or underflow, or there are none."""
    ones = np.ones((9, 7))
    extremes = {
        "huge": (1e300 * ones, 1e300 * math.sqrt(63)),
        "tiny": (1e-300 * ones, 1e-300 * math.sqrt(63)),
        "denormal": (5e-324 * ones, 5e-324 * 8),
        "huge complex": ((1e300 + 1e300j) * ones, 1e300 * math.sqrt(126)),
        "huge float32": (np.full((9, 7), 3e38, np.float32), float(np.float32(3e38)) * math.sqrt(63)),
        "smallest int64": (np.full((9, 7), -(2**63)), 2.0**63 * math.sqrt(63)),
        "zero": (0 * ones, 0.0),
        "mixed": (np.r_[1e200 * ones, ones], 1e200 * math.sqrt(63)),
    }
    for (name, (A, expected)), layout in dealt(itertools.product(extremes.items(), LAYOUTS)):
        got = linalg.norm(ctx, spread(A, layout))
        yield f"{name} {layout}", None if math.isclose(got, expected, rel_tol=1e-14) else f"{got}, not {expected}"
    for value, order, layout in dealt(itertools.product((math.nan, math.inf), ("fro", 1, "inf", "max"), LAYOUTS[::3])):
        A = ones.copy()
        A[8, 6] = value
        got = linalg.norm(ctx, spread(A, layout), order)
        fits = math.isnan(got) if math.isnan(value) else got == math.inf
        yield f"{value} {order} {layout}", None if fits else got
    A = np.arange(40 * 70000, dtype=np.float32).reshape(40, 70000) - 1e6  # more than a tile in both directions
    for (order, numpys), layout in dealt(
        itertools.product(((1, 1), ("inf", np.inf), ("fro", "fro")), (LAYOUTS[0], LAYOUTS[5]))
    ):
        got = linalg.norm(ctx, spread(A, layout), order)
        fits = math.isclose(got, np.linalg.norm(A.astype(float), numpys), rel_tol=1e-12)
        yield f"large {order} {layout}", None if fits else got


# --- other layouts ----------------------------------------------------------------------------------------------------


def wire(layout):
    return {
        "pair": layout.pair,
        "block": list(layout.block),
        "grid": [layout.grid.nprow, layout.grid.npcol],
        "align": list(layout.align),
    }


@group
def transposes():
    combined = itertools.product(DTYPES, LAYOUTS)
    targets = itertools.cycle([*LAYOUTS, LAYOUTS[0]])  # other pairs in the next round
    for (dtype, layout), target, shape in dealt(zip(combined, targets, itertools.cycle(SHAPES), strict=False)):
        A = array(shape, dtype)
        a = spread(A, layout)
        label = f"{A.shape} {dtype} {layout}"
        yield label, differs(linalg.transpose(ctx, a), A.T, layout.transposed())
        conjugate = linalg.transpose(ctx, a, wire(target), conjugate=True)
        yield f"{label} to {target}", differs(conjugate, A.conj().T, target)
        yield f"{label}, operand", differs(a, A, layout)


@group
def copies():
    for one, other in itertools.product(LAYOUTS, LAYOUTS[::3]):
        A = array((7, 5), "int32")
        a = spread(A, one)
        b = linalg.relayout(ctx, a, wire(other))
        yield f"{one} to {other}", differs(b, A, other)
        b.local[...] = 0
        yield f"{one} to {other}, operand", differs(a, A, one)
    c = linalg.relayout(ctx, a, {"pair": "MC_MR"})
    yield "by default", differs(c, A, Layout.of("MC_MR", A.shape, comm.size))


# --- products ---------------------------------------------------------------------------------------------------------


def product_differs(C, A, B):
    """Return a text if A B is wrong, else None; integers must be exact, even if they overflow."""
    with np.errstate(all="ignore"):
        expected = A @ B
    if expected.dtype.kind == "i":
        return differs(C, expected)
    scale = float(np.linalg.norm(A) * np.linalg.norm(B)) / max(float(np.abs(expected).max()), 1e-300)
    return differs(C, expected, rtol=30 * float(np.finfo(expected.dtype).eps) * scale)


@group
def products_of_types():
    pairs = itertools.cycle(itertools.product(LAYOUTS, repeat=2))
    numeric = [name for name in DTYPES if name != "bool"]
    for a, b in itertools.product(numeric, repeat=2):
        A, B = array((11, 7), a), array((7, 9), b, 1)
        one, other = next(pairs)
        C = linalg.gemm(ctx, spread(A, one), spread(B, other))
        yield f"{a} {b} {one} {other}", product_differs(C, A, B)
    big = np.full((3, 4), 2**62)
    yield "overflow", product_differs(linalg.gemm(ctx, spread(big, LAYOUTS[0]), spread(big.T, LAYOUTS[1])), big, big.T)
    for alpha, dtype in ((2, "int32"), (2.5, "float64"), (1j, "complex128")):
        A, B = array((11, 7), "int32"), array((7, 9), "int32", 1)
        C = linalg.gemm(ctx, spread(A, LAYOUTS[0]), spread(B, LAYOUTS[1]), alpha=alpha)
        yield f"int32 times {alpha}", differs(C, (alpha * (A @ B)).astype(dtype), rtol=1e-13)


@group
def conjugates():
    """Every op(A) op(B), by each of the three methods for products."""
    shapes = (((400, 6, 5), "VC_STAR"), ((6, 400, 5), "inner"), ((30, 40, 20), "MC_MR"))
    forms = itertools.product((False, True), repeat=4)
    for dtype, ((m, k, n), pair), (ta, tb, ca, cb) in dealt(
        itertools.product(("complex64", "complex128"), shapes, forms)
    ):
        A, B = array((m, k), dtype), array((k, n), dtype, 1)
        stored = A.T.copy() if ta else A, B.T.copy() if tb else B
        one, other = pair, pair
        if pair == "VC_STAR":
            one, other = "STAR_VC" if ta else "VC_STAR", "MC_MR"
        elif pair == "inner":
            one, other = "VC_STAR" if ta else "STAR_VC", "STAR_VC" if tb else "VC_STAR"
        size = comm.size
        a, b = (spread(X, Layout.of(p, X.shape, size)) for X, p in zip(stored, (one, other), strict=True))
        C = linalg.gemm(ctx, a, b, ta, tb, 2 - 1j, conjugate_a=ca, conjugate_b=cb)
        A, B = A.conj() if ca else A, B.conj() if cb else B
        label = f"{dtype} {pair} {ta} {tb} {ca} {cb}"
        yield label, product_differs(C, A * np.array(2 - 1j, dtype), B)
        yield f"{label}, operands", differs(a, stored[0]) or differs(b, stored[1])


@group
def uneven_inner_products():
    """Ranks without a share of the inner index must use the same method as the others."""
    A, B = array((4, 40000), "float64"), array((4, 2), "float64", 1)
    a, b = (spread(X, Layout.of("VC_STAR", X.shape, comm.size)) for X in (A, B))
    yield "tall result", product_differs(linalg.gemm(ctx, a, b, True), A.T, B)


# --- refusals ---------------------------------------------------------------------------------------------------------


@group
def refusals():
    A = spread(array((7, 5), "float64"), LAYOUTS[0])
    B = spread(array((5, 7), "float64"), LAYOUTS[1])
    row, column = (spread(array(shape, "float64"), LAYOUTS[0]) for shape in ((1, 5), (7, 1)))
    flags = spread(array((5, 5), "bool"), LAYOUTS[0])
    cases = {
        "shapes": (ArgumentValueError, lambda: linalg.elementwise(ctx, "add", A, B), "7x5 and 5x7"),
        "row and column": (ArgumentValueError, lambda: linalg.elementwise(ctx, "add", row, column), "1x5 and 7x1"),
        "operation": (ArgumentValueError, lambda: linalg.elementwise(ctx, "power", A, A), "add, subtract"),
        "one operand": (ArgumentValueError, lambda: linalg.elementwise(ctx, "add", A), "negative, conjugate"),
        "two numbers": (ArgumentError, lambda: linalg.elementwise(ctx, "add", 1, 2), "must be a matrix"),
        "difference of bool": (ArgumentError, lambda: linalg.elementwise(ctx, "subtract", flags, flags), "astype"),
        "product of bool": (ArgumentError, lambda: linalg.gemm(ctx, flags, flags), "astype"),
        "product of a bool": (ArgumentError, lambda: linalg.gemm(ctx, A, flags), "matrix B"),
        "dtype": (ArgumentValueError, lambda: linalg.astype(ctx, A, "float16"), "float64, float32"),
        "axis": (ArgumentValueError, lambda: linalg.sum(ctx, A, 2), "0 or 1"),
        "ord": (ArgumentValueError, lambda: linalg.norm(ctx, A, "two"), "'two'"),
        "ord 3": (ArgumentValueError, lambda: linalg.norm(ctx, A, 3), "but is 3"),
        "pair": (LayoutError, lambda: linalg.relayout(ctx, A, {"pair": "MC_MC"}), "MC_MC"),
        "grid": (LayoutError, lambda: linalg.transpose(ctx, A, {"pair": "MC_MR", "grid": [comm.size + 1, 1]}), "ranks"),
    }
    for name, (error, act, text) in cases.items():
        try:
            act()
            wrong = "not refused"
        except AlchemistError as raised:
            wrong = None if type(raised) is error and text in str(raised) else repr(raised)
        yield name, wrong


class _FullError(MemoryError):
    pass


@group
def no_room():
    """A rank without enough memory for its part fails; the others do not wait for it."""
    A = array((8, 8), "float64")

    def allocate(shape, dtype):
        if comm.rank == comm.size - 1:
            raise _FullError
        return np.empty(shape, dtype)

    poor = TaskContext(comm, "linalg.case", allocate)
    small_problems.LARGEST["gemm"] = 0  # all ranks share the product, as they do that of large matrices
    a = spread(A, LAYOUTS[0])
    a.allocate = allocate
    acts = {
        "gemm": lambda: linalg.gemm(poor, a, a),
        "elementwise": lambda: linalg.elementwise(poor, "add", a, a),
        "sum": lambda: linalg.sum(poor, a, 0),
        "astype": lambda: linalg.astype(poor, a, "int32"),
        "transpose": lambda: linalg.transpose(poor, a),
        "relayout": lambda: linalg.relayout(poor, a, {"pair": "VC_STAR"}),
    }
    for name, act in acts.items():
        try:
            act()
            raised = "nothing"
        except (AlchemistError, _FullError) as error:
            raised = type(error).__name__
        expected = "_FullError" if comm.rank == comm.size - 1 else "PeerFailedError"
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
