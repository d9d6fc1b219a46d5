"""Measure the speed and the accuracy of the linear algebra: ``python experiments/bench/linalg.py``.

Two workers and SciPy with two threads run alternately. The workers hold the matrices before the clock starts, and they
keep the results. Each ratio is the median over such pairs. Small matrices are measured against SciPy plus a task that
does nothing, because every task costs that. Another table has the scaled residuals of every dense
routine for matrices that are difficult in different ways. LAPACK's own tests accept residuals up to 30.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from linalg_cases import CASES, FAMILIES, ORDER, RIGHT_HAND_SIDES, SINGULAR, SMALL_ORDERS, Case, matrix
from measure import Comparison, print_rows, print_table, seconds

import alchemist_ray as alchemist

RANK = 20
RESIDUAL = 30.0
LOADS = 20
SMALL_REPEATS = 15
SETTLE_SECONDS = 0.1
"""Pause after SciPy's turn with small matrices: the threads of its BLAS spin for a while on the cores that we need."""


@contextlib.contextmanager
def two_workers() -> Iterator[alchemist.AlchemistSession]:
    """Yield a session of two workers."""
    with alchemist.start_server(num_workers=2) as server, alchemist.AlchemistSession() as session:
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(2)
        yield session


@contextlib.contextmanager
def sent(session: alchemist.AlchemistSession, *matrices: Any) -> Iterator[list[alchemist.MatrixHandle]]:
    """Send matrices, yield their handles, and free them at the end."""
    handles = [session.send_matrix(A) for A in matrices]
    yield handles
    for handle in handles:
        handle.free()


def as_arrays(result: Any) -> Any:
    """Return a result with each handle replaced by its array."""
    if isinstance(result, tuple):
        return tuple(as_arrays(member) for member in result)
    return np.asarray(result) if isinstance(result, alchemist.MatrixHandle) else result


# --- dense routines ---------------------------------------------------------------------------------------------------


def bench_dense(session: alchemist.AlchemistSession, names: list[str], repeats: int) -> list[Comparison]:
    """Compare the times of the dense routines with SciPy's."""
    lib = session.load_library("linalg")
    found = []
    for case in CASES:
        if names and case.name not in names:
            continue
        print(f"{case.name} ...", file=sys.stderr, flush=True)
        rng = np.random.default_rng(0)
        A = matrix(case.kind, rng.standard_normal((case.order, case.order)))
        b = rng.standard_normal((case.order, RIGHT_HAND_SIDES))
        with sent(session, A, b) as (on_workers, right):
            case.ours(lib, on_workers, right)  # touches its memory for the first time
            pairs = [
                (seconds(lambda: case.ours(lib, on_workers, right)), seconds(lambda: case.theirs(A, b)))  # noqa: B023
                for _ in range(repeats)
            ]
        what = f"{case.name}, {case.order} x {case.order}"
        found.append(Comparison(what, "SciPy, 2 threads", *zip(*pairs, strict=True), case.asked))
    return found


def bench_small(
    session: alchemist.AlchemistSession, names: list[str], orders: list[int], repeats: int
) -> list[Comparison]:
    """Time the dense routines on small matrices against SciPy's and a task that does nothing."""
    lib, testlib = session.load_library("linalg"), session.load_library("TestLib")
    found = []
    for case in CASES:
        if names and case.name not in names:
            continue
        print(f"{case.name}, small ...", file=sys.stderr, flush=True)
        for order in orders:
            if order < case.least_order:
                continue
            rng = np.random.default_rng(0)
            A = matrix(case.kind, rng.standard_normal((order, order)))
            b = rng.standard_normal((order, RIGHT_HAND_SIDES))
            with sent(session, A, b) as (on_workers, right):
                pairs = []
                for _ in range(repeats + 1):
                    time.sleep(SETTLE_SECONDS)
                    nothing = seconds(testlib.noop)
                    ours = seconds(lambda: case.ours(lib, on_workers, right))  # noqa: B023
                    pairs.append((ours, nothing + seconds(lambda: case.theirs(A, b))))  # noqa: B023
            del pairs[0]
            what = f"{case.name}, {order} x {order}"
            times = zip(*pairs, strict=True)
            found.append(Comparison(what, "SciPy + a no-op task", *times, "<= 2", (1e3, "ms")))
    return found


def accuracy(session: alchemist.AlchemistSession, names: list[str], order: int) -> tuple[list[list[str]], bool]:
    """Return a table of scaled residuals, and whether all are within the limit."""
    lib = session.load_library("linalg")
    rows, fine = [["residual", *FAMILIES]], True
    for case in CASES:
        if case.residual is None or (names and case.name not in names):
            continue
        row = [case.name]
        for family, make in FAMILIES.items():
            if family in SINGULAR and not case.singular:
                row.append("-")
                continue
            residual = _residual(session, lib, case, make(np.random.default_rng(1), order))
            fine = fine and residual <= RESIDUAL
            row.append(f"{residual:.2g}" + ("" if residual <= RESIDUAL else " !"))
        rows.append(row)
    return rows, fine


def _residual(session: alchemist.AlchemistSession, lib: Any, case: Case, A: np.ndarray) -> float:
    A = matrix(case.kind, A)
    b = np.random.default_rng(2).standard_normal((len(A), RIGHT_HAND_SIDES))
    with sent(session, A, b) as (on_workers, right):
        result = as_arrays(case.ours(lib, on_workers, right))
    return case.residual(A, b, result)


# --- truncated SVD ----------------------------------------------------------------------------------------------------


def bench_truncated(session: alchemist.AlchemistSession, repeats: int) -> list[Comparison]:
    """Compare the time of the truncated SVD with SciPy's in the process."""
    lib = session.load_library("linalg")
    rng = np.random.default_rng(0)
    tall = rng.standard_normal((100_000, 1000))
    sparse = scipy.sparse.random_array((20_000, 20_000), density=1e-3, format="csr", rng=rng)
    square = rng.standard_normal((ORDER, ORDER))
    found = []
    for name, A, asked in (
        ("100,000 x 1,000", tall, "<= 0.2"),
        ("20,000 x 20,000 sparse, density 1e-3", sparse, "<= 1"),
        ("4,000 x 4,000", square, "<= 1"),
    ):
        print(f"truncated_svd, {name} ...", file=sys.stderr, flush=True)
        with sent(session, A) as (on_workers,):
            lib.truncated_svd(on_workers, RANK)
            pairs = [
                (
                    seconds(lambda: lib.truncated_svd(on_workers, RANK)),
                    seconds(lambda: scipy.sparse.linalg.svds(A, RANK)),  # noqa: B023
                )
                for _ in range(repeats)
            ]
            U, S, Vt = as_arrays(lib.truncated_svd(on_workers, RANK))
        residual = np.linalg.norm(A @ Vt.T - U * S, axis=0).max() / S[0]
        print(f"truncated_svd, {name}: largest |A v - s u| / s1 = {residual:.1e}", flush=True)
        found.append(Comparison(f"truncated_svd, {RANK} of {name}", "scipy svds", *zip(*pairs, strict=True), asked))
    return found


# --- loading ----------------------------------------------------------------------------------------------------------


def bench_load(session: alchemist.AlchemistSession, repeats: int) -> list[Comparison]:
    """Load a library that is imported already: what loading costs beyond the import; against 50 ms."""
    for name in ("linalg", "TestLib"):
        session.load_library(name)
    ours = [seconds(lambda: session.load_library("linalg")) for _ in range(LOADS * repeats)]
    return [Comparison("load a library, beyond its import", "50 ms", ours, [0.05] * len(ours), "<= 1", (1e3, "ms"))]


def main() -> int:
    """Run the benchmarks that were asked for and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "what", nargs="*", help="names of dense routines, 'small', 'truncated_svd', 'load' (default: all)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each (default: %(default)s)")
    parser.add_argument("--accuracy", type=int, default=600, metavar="N", help="order for residuals; 0 to skip them")
    parser.add_argument("--orders", type=int, nargs="+", default=SMALL_ORDERS, help="of 'small' (default: %(default)s)")
    arguments = parser.parse_args()
    known = {case.name for case in CASES} | {"small", "truncated_svd", "load"}
    if unknown := set(arguments.what) - known:
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; choose from {', '.join(sorted(known))}")
    names, everything = arguments.what, not arguments.what
    dense = [name for name in names if name not in ("small", "truncated_svd", "load")]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    table, residuals, fine = [], [], True
    with two_workers() as session:
        if everything or "small" in names:
            table += bench_small(session, dense, arguments.orders, max(arguments.repeats, SMALL_REPEATS))
        if everything or (dense and "small" not in names):
            table += bench_dense(session, dense, arguments.repeats)
            if arguments.accuracy:
                residuals, fine = accuracy(session, dense, arguments.accuracy)
        if everything or "truncated_svd" in names:
            table += bench_truncated(session, arguments.repeats)
        if everything or "load" in names:
            table += bench_load(session, arguments.repeats)
    print_table(table)
    if residuals:
        print(f"\nScaled residuals at order {arguments.accuracy}; they should be at most {RESIDUAL:g}:\n")
        print_rows(residuals)
    return 0 if fine and all(comparison.reached for comparison in table) else 1


if __name__ == "__main__":
    sys.exit(main())
