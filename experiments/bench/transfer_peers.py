"""Other ways to move a matrix to another process: Ray's object store, Dask's scatter, Arrow Flight.

Each peer is a context manager. It starts the processes it needs, yields a function, and ends the processes. The
function moves a matrix once and returns the seconds until the other process has it. Run as a program, this module is
the Flight server.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from measure import Comparison, Findings, alternate
from transfer_sessions import WORKERS, Scale, send_seconds, workers

Move = Callable[[np.ndarray], float]

FLIGHT_BATCH_BYTES = 4 * 2**20
"""The size at which Flight was fastest; 1, 4, 16 and 64 MiB were tried."""


def bench_peers(scale: Scale) -> Findings:
    """Move one matrix to other processes. Baselines: Ray, Dask and Arrow Flight."""
    A = scale.matrix
    what = f"send VC_STAR, shared memory, {scale}"
    found = Findings()
    with workers("auto") as session:
        for name, peer in PEERS.items():
            with peer(A.nbytes) as move:
                times = alternate(scale.repeats, partial(send_seconds, session, A, "VC_STAR"), partial(move, A))
            found.comparisons.append(Comparison.of_rates(what, name, A.nbytes, times, ">= 3"))
    return found


@contextlib.contextmanager
def ray_actor(nbytes: int) -> Iterator[Move]:
    """Put a matrix into Ray's object store, and let an actor get it."""
    import ray

    class Receiver:
        def take(self, matrix: np.ndarray) -> float:
            return float(matrix[0, 0] + matrix[-1, -1])

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=max(5 * nbytes, 10**8))
    receiver = ray.remote(Receiver).remote()

    def move(A: np.ndarray) -> float:
        started = time.perf_counter()
        got = ray.get(receiver.take.remote(ray.put(A)))
        elapsed = time.perf_counter() - started
        _check(got == A[0, 0] + A[-1, -1])
        return elapsed

    try:
        yield move
    finally:
        ray.shutdown()


@contextlib.contextmanager
def dask_scatter(nbytes: int, **options: Any) -> Iterator[Move]:
    """Scatter a matrix to one of two Dask workers."""
    from dask.distributed import Client, LocalCluster

    def corners(matrix: np.ndarray) -> float:
        return float(matrix[0, 0] + matrix[-1, -1])

    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None, memory_limit=0) as cluster,
        Client(cluster) as client,
    ):

        def move(A: np.ndarray) -> float:
            started = time.perf_counter()
            future = client.scatter(A, **options)
            elapsed = time.perf_counter() - started
            _check(client.submit(corners, future).result() == A[0, 0] + A[-1, -1])
            future.release()
            return elapsed

        yield move


@contextlib.contextmanager
def arrow_flight(nbytes: int) -> Iterator[Move]:
    """Put a matrix into an Arrow Flight server, as record batches that are views of the matrix."""
    import pyarrow
    from pyarrow import flight

    server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    schema = pyarrow.schema([("elements", pyarrow.float64())])
    batch = FLIGHT_BATCH_BYTES // 8
    try:
        port = int(server.stdout.readline())
        with flight.connect(("127.0.0.1", port)) as client:

            def move(A: np.ndarray) -> float:
                elements = A.reshape(-1)
                started = time.perf_counter()
                writer, _ = client.do_put(flight.FlightDescriptor.for_path("A"), schema)
                for start in range(0, elements.size, batch):
                    column = pyarrow.array(elements[start : start + batch])
                    writer.write_batch(pyarrow.record_batch([column], schema))
                writer.close()
                elapsed = time.perf_counter() - started
                (held,) = client.do_action(flight.Action("held", b""))
                _check(int(held.body.to_pybytes()) == A.nbytes)
                return elapsed

            yield move
    finally:
        server.stdin.close()
        server.wait()


PEERS: dict[str, Callable[[int], contextlib.AbstractContextManager[Move]]] = {
    "Ray: put, get in an actor": ray_actor,
    "Dask: scatter": dask_scatter,
    "Dask: scatter(direct=True, hash=False)": partial(dask_scatter, direct=True, hash=False),
    "Arrow Flight: do_put": arrow_flight,
}


def _check(arrived: bool) -> None:
    if not arrived:
        raise RuntimeError("the matrix did not arrive, or arrived changed")


def serve_flight() -> None:
    """Print a port and serve Arrow Flight on it until standard input is closed. The last table put is kept."""
    from pyarrow import flight

    class FlightServer(flight.FlightServerBase):
        table = None

        def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
            self.table = None
            self.table = reader.read_all()

        def do_action(self, context: Any, action: Any) -> list[bytes]:
            return [str(self.table.nbytes).encode()]

    server = FlightServer("grpc://127.0.0.1:0")
    print(server.port, flush=True)
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    serve_flight()
