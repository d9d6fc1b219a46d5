"""Turn an HDF5 file that is larger than the client's memory into a distributed matrix, and check its singular values.

Another process writes the file: a product of three matrices whose singular values are known, because the columns of the
outer two are orthonormal (columns of the discrete cosine transform, type II). First the workers read the file
themselves (``read_hdf5``), then this process sends it in chunks (``send_hdf5``). The peak memory of this process is
printed for both.

Run with ``python experiments/larger_than_memory.py [--gigabytes 4] [--directory DIR]``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import alchemist_ray as alchemist

COLUMNS = 1000
RANK = 20
SINGULAR_VALUES = np.geomspace(1000.0, 1.0, RANK)
LIMIT = 300e6
"""Limit of the client's peak memory in bytes."""


def cosines(start: int, stop: int, extent: int) -> np.ndarray:
    """Return rows ``start .. stop-1`` of columns 1 to ``RANK`` of the orthonormal DCT-II (column 0 is constant)."""
    i, j = np.arange(start, stop)[:, np.newaxis], np.arange(1, RANK + 1)
    return np.sqrt(2 / extent) * np.cos(np.pi * (2 * i + 1) * j / (2 * extent))


def make_file(path: str, rows: int) -> None:
    """Write a rows x COLUMNS matrix that has the singular values SINGULAR_VALUES."""
    import h5py

    Vt = (cosines(0, COLUMNS, COLUMNS) * SINGULAR_VALUES).T
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("A", (rows, COLUMNS), np.float64)
        for start in range(0, rows, 10_000):
            stop = min(start + 10_000, rows)
            dataset[start:stop] = cosines(start, stop, rows) @ Vt


def peak() -> float:
    """Return the peak memory of this process in bytes. getrusage may report the peak of its parent instead."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def measure(what: str, session: alchemist.AlchemistSession, make: Callable[[], alchemist.MatrixHandle]) -> bool:
    """Make the matrix, compute its SVD, and print time and memory. Return whether values and memory are right."""
    started = time.perf_counter()
    A = make()
    made = time.perf_counter() - started
    started = time.perf_counter()
    _, S, _ = session.run_task("linalg", "truncated_svd", A=A, k=RANK)
    error = float(np.max(np.abs(S / SINGULAR_VALUES - 1)))
    print(
        f"{what}: {A.nbytes / 1e9:.2f} GB in {made:.1f} s ({A.nbytes / made / 1e9:.2f} GB/s), SVD in "
        f"{time.perf_counter() - started:.1f} s, singular values to {error:.1e}, client's peak {peak() / 1e6:.0f} MB",
        flush=True,
    )
    A.free()
    return error < 1e-10 and peak() < LIMIT


def main() -> int:
    """Make the file, read it, and send it. Return 0 if values and memory are right."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the file (default: %(default)s)")
    parser.add_argument("--directory", help="folder for the file (default: a temporary folder)")
    arguments = parser.parse_args()
    rows = int(arguments.gigabytes * 1e9) // (COLUMNS * 8)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        path = str(Path(directory) / "matrix.h5")
        maker = multiprocessing.get_context("spawn").Process(target=make_file, args=(path, rows))
        maker.start()
        maker.join()
        print(f"{Path(path).stat().st_size / 1e9:.2f} GB in the file, this process at {peak() / 1e6:.0f} MB")
        share = int(arguments.gigabytes * 0.65e9) + 2**28
        with (
            alchemist.start_server(2, memory_per_worker=share, data_directories=[directory]) as server,
            alchemist.AlchemistSession() as session,
        ):
            session.connect(server.hostname, server.port, server.token).request_workers(2)
            read = measure("read by the workers", session, lambda: session.read_hdf5("matrix.h5", "A", "VC_STAR"))
            sent = measure("sent from here", session, lambda: session.send_hdf5(path, "A", "VC_STAR"))
    return 0 if read and sent else 1


if __name__ == "__main__":
    sys.exit(main())
