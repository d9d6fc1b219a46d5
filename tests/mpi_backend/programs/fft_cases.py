"""Compare distributed Fourier transforms with NumPy's; run under mpiexec by test_fft.py.

The first rank prints one line of JSON: the name of each case and its result, a scaled residual or a text.
"""

import itertools
import json
import math
import sys

import numpy as np
from cases import comm, dealt

from alchemist_ray.errors import AlchemistError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries import fft
from alchemist_ray.mpi_backend.libraries.fft import cluster

ctx = TaskContext(comm, "fft.case")
TYPES = ("float32", "float64", "complex64", "complex128")
SHAPES = ((8, 8), (97, 89), (30, 42), (5, 60), (60, 5), (4, 4), (3, 2), (1, 7), (7, 1), (1, 1), (127, 64))
LAYOUTS = (("VC_STAR", None), ("MC_MR", 1), ("MC_MR", 3), ("STAR_VR", None), ("MR_MC", None), ("STAR_STAR", None),
           ("CIRC_CIRC", None), ("VC_STAR", 2), ("STAR_VC", None), ("MD_STAR", 1))  # fmt: skip
found = []


def matrix(shape, dtype, seed=0):
    rng = np.random.default_rng([seed, *shape])
    A = rng.standard_normal(shape)
    return (A + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else A).astype(dtype)


def spread(A, pair="VC_STAR", block=None):
    return DistMatrix.from_global(comm, A, Layout.of(pair, A.shape, comm.size, block=block and (block, block)))


def residual(got, expected, layout):
    """Return the error in units of the rounding errors of such a transform; a text if something else is wrong."""
    single = got.dtype in (np.float32, np.complex64)
    if got.shape != expected.shape or got.layout.pair != layout.pair:
        return f"{got.shape} in {got.layout}, not {expected.shape} in {layout}"
    if got.dtype.kind != expected.dtype.kind:
        return f"{got.dtype}, not {expected.dtype}"
    eps = np.finfo(np.float32 if single else np.float64).eps
    whole = got.to_global().astype(expected.dtype)
    size = max(np.linalg.norm(expected), 1e-300)
    return float(np.linalg.norm(whole - expected) / (size * eps * (1 + math.log2(max(expected.size, 2)))))


def note(name, value):
    """Record the worst result of the ranks."""
    values = comm.allgather(value)
    texts = [each for each in values if isinstance(each, str)]
    found.append((name, texts[0] if texts else max(values)))


def combined():
    """Yield every transform for each type and shape, with layouts, norms and lengths in turn."""
    layouts, norms = itertools.cycle(LAYOUTS), itertools.cycle((None, "backward", "ortho", "forward", None))
    planar, linear = itertools.cycle(("ifft2", "rfft2", "irfft2")), itertools.cycle(("fft", "ifft", "rfft", "irfft"))
    turns = itertools.cycle((-2, 0, 1, -1, 0))
    for dtype, shape in itertools.product(TYPES, SHAPES):
        for name in ("fft2", next(planar), next(linear)):
            if not (name.startswith("rfft") and dtype.startswith("complex")):
                yield dtype, shape, name, next(layouts), next(norms), next(turns)


def against_numpy():
    for dtype, shape, name, (pair, block), norm, axis in dealt(combined()):
        A = matrix(shape, dtype)
        wide = A.astype(np.result_type(A, np.float64))
        how = {"axis": axis, "n": max(shape[axis] + axis, 1)}
        if name.endswith("2"):
            how = {"s": list(shape)} if name == "irfft2" else {}
        D = spread(A, pair, block)
        got = getattr(fft, name)(ctx, D, norm=norm, **how)
        error = residual(got, getattr(np.fft, name)(wide, norm=norm, **how), D.layout)
        kept = np.array_equal(D.local, spread(A, pair, block).local)
        note(f"{name} {dtype} {shape} {pair} {block} {norm} {how}", error if kept else "the argument is changed")


def precision():
    for dtype in (*TYPES, "int64", "bool"):
        expected = "complex64" if dtype in ("float32", "complex64") else "complex128"
        A = spread(matrix((9, 8), "float64").astype(dtype))
        for name in ("fft", "fft2", "ifft2"):
            got = getattr(fft, name)(ctx, A).dtype.name
            note(f"{name} of {dtype}", 0.0 if got == expected else got)


def identities():
    for dtype, shape in itertools.product(("complex64", "complex128"), ((64, 48), (101, 97))):
        A = matrix(shape, dtype)
        D = spread(A, "MC_MR", 3)
        F = fft.fft2(ctx, D)
        note(f"Parseval {dtype} {shape}", parseval(A, F))
        note(f"there and back {dtype} {shape}", residual(fft.ifft2(ctx, F), A, D.layout))
    delta = np.zeros((12, 10))
    delta[3, 4] = 1
    waves = np.exp(-2j * np.pi * (3 * np.arange(12)[:, None] / 12 + 4 * np.arange(10) / 10))
    note("a point is a wave", residual(fft.fft2(ctx, spread(delta)), waves, Layout.of("VC_STAR", (12, 10), comm.size)))
    rows = fft.rfft(ctx, spread(matrix((9, 7), "float64")))
    back = fft.irfft(ctx, rows, 7)
    note("odd length", residual(back, matrix((9, 7), "float64"), rows.layout))
    cut = np.fft.fft2(matrix((9, 7), "float64"), s=(5, 11))
    note("s", residual(fft.fft2(ctx, spread(matrix((9, 7), "float64"), "MC_MR", 1), [5, 11]), cut,
                       Layout.of("MC_MR", (5, 11), comm.size)))  # fmt: skip
    note("cluster", 0.0 if cluster.applies(spread(np.ones((comm.size, 4)))) or sys.platform != "linux" else "not used")


def parseval(A, F):
    here = np.vdot(F.local, F.local).real if comm.size == F.layout.grid.size else 0.0
    total = comm.allreduce(float(here)) / A.size
    return float(abs(total / np.vdot(A, A).real - 1) / np.finfo(A.dtype).eps)


def refusals():
    A = spread(matrix((6, 6), "float64"))
    bad = matrix((6, 6), "float64")
    bad[5, 5] = np.nan
    acts = {
        "empty ArgumentValueError is empty": lambda: fft.fft2(ctx, spread(np.zeros((0, 4)))),
        "empty row ArgumentValueError is empty": lambda: fft.fft(ctx, spread(np.zeros((4, 0)))),
        "NaN NonFiniteError matrix A": lambda: fft.fft2(ctx, spread(bad)),
        "NaN row NonFiniteError matrix A": lambda: fft.ifft(ctx, spread(bad)),
        "norm ArgumentValueError backward, ortho, forward": lambda: fft.fft2(ctx, A, norm="none"),
        "axis ArgumentValueError 0 (columns)": lambda: fft.fft(ctx, A, axis=2),
        "length ArgumentValueError 1 or more": lambda: fft.fft(ctx, A, 0),
        "shape ArgumentValueError two integers": lambda: fft.fft2(ctx, A, [3]),
        "complex ArgumentError use fft": lambda: fft.rfft2(ctx, spread(matrix((6, 6), "complex64"))),
        "short ArgumentValueError length of the result": lambda: fft.irfft(ctx, spread(matrix((4, 1), "float64"))),
    }
    for name, act in acts.items():
        label, _, text = name.rpartition("Error ")
        try:
            act()
            outcome = "nothing was raised"
        except AlchemistError as error:
            fits = type(error).__name__ == label.split()[-1] + "Error" and text in str(error)
            outcome = 0.0 if fits else f"{type(error).__name__}: {error}"
        note(name, outcome)


def no_room():
    def allocate(shape, dtype):
        if comm.rank == comm.size - 1:
            raise MemoryError
        return np.empty(shape, dtype)

    poor = TaskContext(comm, "fft.case", allocate)
    for name in ("fft", "fft2"):
        try:
            getattr(fft, name)(poor, spread(matrix((6, 6), "complex128")))
            outcome = "nothing was raised"
        except (AlchemistError, MemoryError) as error:
            outcome = type(error).__name__
        expected = "MemoryError" if comm.rank == comm.size - 1 else "PeerFailedError"
        note(f"no room {name}", 0.0 if outcome == expected else outcome)


for cases in (against_numpy, precision, identities, refusals, no_room):
    cases()
if comm.rank == 0:
    print(json.dumps(found))
