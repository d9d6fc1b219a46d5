"""Measure the path from a Ray call to ScaLAPACK and back: ``python experiments/bench/core.py``.

Each figure compares two things that are measured alternately in one run: the median of their ratios, with its spread.
Options choose the benchmarks and the number of measurements; see ``--help``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measure import Comparison, print_table, seconds
from raw_round_trips import echoes, median_of_calls, round_trips

import alchemist_ray as alchemist

ROWS, COLUMNS, RANK = 100_000, 1_000, 20
MATMUL = 4_000
NOOPS = 2_000


# --- opening a session ------------------------------------------------------------------------------------------------


def bench_open(repeats: int) -> list[Comparison]:
    """Open a session with two workers. Baseline: the bare MPI job."""
    mpiexec = str(Path(sys.executable).with_name("mpiexec"))
    bare = [mpiexec, "-n", "2", sys.executable, "-c", "import numpy; from mpi4py import MPI"]
    ours, embedded, theirs = [], [], []
    with alchemist.start_server(num_workers=2) as server:
        for _ in range(repeats):
            session = alchemist.AlchemistSession()

            def connect(session: alchemist.AlchemistSession = session) -> None:
                session.connect(server.hostname, server.port, server.token)
                session.request_workers(2)

            theirs.append(seconds(lambda: subprocess.run(bare, check=True)))
            ours.append(seconds(connect))
            session.stop()
            embedded.append(_seconds_with_a_server_of_its_own())
    against = "mpiexec -n 2, numpy and mpi4py imported"
    return [
        Comparison("open a session, 2 workers", against, ours, theirs, "<= 3"),
        Comparison("the same, with a server of its own to start", against, embedded, theirs, "<= 3"),
    ]


def _seconds_with_a_server_of_its_own() -> float:
    started = time.perf_counter()
    with alchemist.start_server(num_workers=2) as server, alchemist.AlchemistSession() as session:
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(2)
        return time.perf_counter() - started


# --- a task that does nothing -----------------------------------------------------------------------------------------


def bench_noop(repeats: int) -> list[Comparison]:
    """Run a task that does nothing on two workers. Baseline: two socket round trips."""
    found = []
    with alchemist.start_server(num_workers=2) as server:
        for transport, family, name in (("tcp", socket.AF_INET, "TCP"), ("auto", socket.AF_UNIX, "Unix-socket")):
            with alchemist.AlchemistSession(transport=transport) as session, echoes(family, 2) as sockets:
                session.connect(server.hostname, server.port, server.token)
                session.request_workers(2)
                noop = session.load_library("TestLib").noop
                median_of_calls(noop, 200)
                pairs = [
                    (median_of_calls(noop, NOOPS), median_of_calls(lambda: round_trips(sockets), NOOPS))
                    for _ in range(repeats)
                ]
            ours, theirs = zip(*pairs, strict=True)
            what = f"no-op task on 2 workers over {name}s, p50"
            found.append(Comparison(what, f"2 raw {name} round trips", ours, theirs, "<= 3", (1e6, "us")))
    return found


# --- linear algebra ---------------------------------------------------------------------------------------------------


def bench_svd(repeats: int) -> list[Comparison]:
    """Compute a truncated SVD from Ray, arrays in and out. Baselines: NumPy in the process, and Dask."""
    import ray

    A = np.random.default_rng(0).standard_normal((ROWS, COLUMNS))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    alchemist.init(num_workers=2)
    results = []

    def ours() -> None:
        results[:] = ray.get(alchemist.svd.remote(A, RANK))

    ours()
    pairs = [(seconds(ours), seconds(lambda: _numpy_svd(A))) for _ in range(repeats)]
    threads = [(seconds(ours), _dask_seconds(A, scheduler="threads", num_workers=2)) for _ in range(repeats)]
    with _dask_workers(2):
        workers = [(seconds(ours), _dask_seconds(A)) for _ in range(repeats)]
    U, S, Vt = results
    residual = np.linalg.norm(A @ Vt.T - U * S, axis=0).max() / S[0]
    alchemist.shutdown()
    ray.shutdown()
    print(f"svd: largest residual |A v - s u| / s1 = {residual:.1e}", flush=True)
    what = f"alchemist.svd.remote(A, {RANK}), A {ROWS} x {COLUMNS}, arrays in and out"
    dask = "dask svd_compressed, 2 power iterations,"
    return [
        Comparison(what, "NumPy in-process, eigh(A.T @ A), U formed", *zip(*pairs, strict=True), "<= 1.6"),
        Comparison(what, f"{dask} 2 workers", *zip(*workers, strict=True), "<= 0.333"),
        Comparison(what, f"{dask} 2 threads in-process", *zip(*threads, strict=True), ""),
    ]


def _numpy_svd(A: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(A.T @ A)
    S = np.sqrt(values[: -RANK - 1 : -1])
    V = vectors[:, : -RANK - 1 : -1]
    return (A @ V) / S, S, V.T


@contextlib.contextmanager
def _dask_workers(count: int) -> Iterator[None]:
    """Let Dask compute on worker processes that have one thread each."""
    from dask.distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None, memory_limit=0) as cluster,
        Client(cluster),
    ):
        yield


def _dask_seconds(A: np.ndarray, **scheduler: object) -> float:
    """Return the seconds that Dask takes, arrays in and out, with this scheduler (default: the running cluster)."""
    import dask
    import dask.array as da

    def compute() -> None:
        chunked = da.from_array(A, chunks=(ROWS // 4, COLUMNS))
        dask.compute(*da.linalg.svd_compressed(chunked, RANK, n_power_iter=2, seed=0), **scheduler)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dask warns that the graph is large, since it holds the array
        return seconds(compute)


def bench_gemm(repeats: int) -> list[Comparison]:
    """Multiply two matrices that the workers hold, as a speed: higher is better. Baseline: NumPy with two threads."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((MATMUL, MATMUL)), rng.standard_normal((MATMUL, MATMUL))
    with alchemist.start_server(num_workers=2) as server, alchemist.AlchemistSession() as session:
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(2)
        linalg = session.load_library("linalg")
        hA, hB = session.send_matrix(A), session.send_matrix(B)
        C = linalg.gemm(hA, hB)
        error = np.abs(np.asarray(C) - A @ B).max()
        pairs = [(1 / seconds(lambda: linalg.gemm(hA, hB)), 1 / seconds(lambda: A @ B)) for _ in range(repeats)]
    print(f"gemm: largest difference to NumPy = {error:.1e}", flush=True)
    ours, theirs = zip(*pairs, strict=True)
    gigaflop = 2e-9 * MATMUL**3
    what = f"gemm on handles, {MATMUL}^3 float64, 2 ranks"
    return [Comparison(what, "NumPy, 2 threads", ours, theirs, ">= 0.8", (gigaflop, "GFLOP/s"))]


# --- importing --------------------------------------------------------------------------------------------------------


def bench_import(repeats: int) -> list[Comparison]:
    """Import the package in a new interpreter, and also name its main class. Baseline: importing NumPy and msgpack."""

    def fresh(code: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    statements = ["import alchemist_ray", "from alchemist_ray import AlchemistSession", "import numpy, msgpack"]
    for statement in statements:
        fresh(statement)
    rounds = [[fresh(statement) for statement in statements] for _ in range(2 * repeats)]
    package, session, baseline = zip(*rounds, strict=True)
    loaded = subprocess.run(
        [sys.executable, "-c", "import alchemist_ray, sys; print({'ray', 'torch', 'mpi4py'} & set(sys.modules))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    print(f"import: of ray, torch and mpi4py it loads {loaded}", flush=True)
    return [
        Comparison(statements[0], statements[2], package, baseline, "<= 1.3"),
        Comparison(statements[1], statements[2], session, baseline, ""),
    ]


BENCHES = {
    "import": bench_import,
    "open": bench_open,
    "noop": bench_noop,
    "gemm": bench_gemm,
    "svd": bench_svd,
}


def main() -> int:
    """Run the chosen benchmarks and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*BENCHES, []], help="which figures (default: all)")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each (default: %(default)s)")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    table = []
    for name in arguments.what or BENCHES:
        table.extend(BENCHES[name](arguments.repeats))
    print_table(table)
    return 0 if all(comparison.reached for comparison in table) else 1


if __name__ == "__main__":
    sys.exit(main())
