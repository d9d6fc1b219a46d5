"""Measure many senders that write one matrix at once: threads of one process, and processes with several threads.

There are two baselines: one sender that writes the same parts one after the other, and one sender that writes the whole
matrix at once. They differ because each part costs two exchanges with a worker, and because many short copies are
slower than two long ones.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import threading
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection

import numpy as np
from measure import Comparison, Findings, alternate
from transfer_sessions import COLUMNS, Scale, same, workers

import alchemist_ray as alchemist
from alchemist_ray.client.matrices.writer import MatrixWriter

SENDERS = 64
PROCESSES = 16


def bench_senders(scale: Scale) -> Findings:
    """Write one matrix from 64 senders at once. Baselines: one sender, with the same parts or the whole matrix."""
    rows = scale.matrix.shape[0]
    A = _rows_of(0, rows)
    found = Findings()
    with workers("auto") as session, _sender_processes(rows) as senders:
        baselines = [
            (f"1 sender, the same {SENDERS} parts", ">= 1", partial(_one_sender, session, A, SENDERS)),
            ("1 sender, the whole matrix at once", "", partial(_one_sender, session, A, 1)),
        ]
        ways = {
            f"{SENDERS} senders at once, threads": partial(_threads, session, A),
            f"{SENDERS} senders at once, {PROCESSES} processes": partial(_processes, session, A, senders),
        }
        for name, ours in ways.items():
            what = f"{name}, VC_STAR, shared memory, {scale}"
            for baseline, asked, one in baselines:
                times = alternate(scale.repeats, ours, one)
                found.comparisons.append(Comparison.of_rates(what, baseline, A.nbytes, times, asked))
    return found


def _rows_of(start: int, stop: int) -> np.ndarray:
    """Return rows of the matrix that is sent. All elements differ, so that one in the wrong place is found."""
    return np.arange(start * COLUMNS, stop * COLUMNS, dtype=np.float64).reshape(-1, COLUMNS)


def _shares(start: int, stop: int, count: int) -> list[tuple[int, int]]:
    """Divide rows into `count` ranges of about the same length."""
    cuts = [start + (stop - start) * k // count for k in range(count + 1)]
    return list(itertools.pairwise(cuts))


def _one_sender(session: alchemist.AlchemistSession, A: np.ndarray, parts: int) -> float:
    """Write `A` in parts, one after the other. Return the seconds until the matrix is complete."""
    writer = session.matrix_writer(A.shape, A.dtype, "VC_STAR")
    started = time.perf_counter()
    for start, stop in _shares(0, A.shape[0], parts):
        writer.write(A[start:stop], row=start)
    handle = writer.close()
    elapsed = time.perf_counter() - started
    handle.free()
    return elapsed


def _threads(session: alchemist.AlchemistSession, A: np.ndarray) -> float:
    """Write `A` from threads that each have some rows. Return the seconds until the matrix is complete."""
    writer = session.matrix_writer(A.shape, A.dtype, "VC_STAR")
    ready = threading.Barrier(SENDERS + 1)

    def send(start: int, stop: int) -> None:
        ready.wait()
        writer.write(A[start:stop], row=start)

    threads = [threading.Thread(target=send, args=share) for share in _shares(0, A.shape[0], SENDERS)]
    for thread in threads:
        thread.start()
    started = time.perf_counter()
    ready.wait()
    for thread in threads:
        thread.join()
    return _complete(session, A, writer, started)


def _processes(session: alchemist.AlchemistSession, A: np.ndarray, senders: list[Connection]) -> float:
    """Write the same matrix from processes that hold its rows. Return the seconds until the matrix is complete."""
    writer = session.matrix_writer(A.shape, A.dtype, "VC_STAR")
    started = time.perf_counter()
    for sender in senders:
        sender.send(writer)
    for sender in senders:
        failure = sender.recv()
        if failure is not None:
            raise failure
    return _complete(session, A, writer, started)


def _complete(session: alchemist.AlchemistSession, A: np.ndarray, writer: MatrixWriter, started: float) -> float:
    """Close the writer, take the time, and check that the workers hold the elements of `A`."""
    handle = writer.close()
    elapsed = time.perf_counter() - started
    if not same(session.fetch_matrix(handle), A):
        raise RuntimeError("the matrix that many senders wrote differs from the one they sent")
    handle.free()
    return elapsed


@contextlib.contextmanager
def _sender_processes(rows: int) -> Iterator[list[Connection]]:
    """Yield connections to processes. Each process holds some rows and writes them when it receives a writer."""
    context = multiprocessing.get_context("spawn")
    senders, processes = [], []
    for start, stop in _shares(0, rows, PROCESSES):
        near, far = context.Pipe()
        process = context.Process(target=_send_rows, args=(far, start, stop), daemon=True)
        process.start()
        far.close()
        senders.append(near)
        processes.append(process)
    for sender in senders:
        sender.recv()
    try:
        yield senders
    finally:
        for sender in senders:
            sender.close()
        for process in processes:
            process.join()


def _send_rows(orders: Connection, start: int, stop: int) -> None:
    """Write rows `start` to `stop` with several threads, each time a writer arrives."""
    block = _rows_of(start, stop)
    orders.send(None)
    with contextlib.suppress(EOFError):
        while True:
            writer = orders.recv()
            failures: list[BaseException] = []
            threads = [
                threading.Thread(target=_write, args=(writer, block[i - start : j - start], i, failures))
                for i, j in _shares(start, stop, SENDERS // PROCESSES)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            orders.send(failures[0] if failures else None)


def _write(writer: MatrixWriter, rows: np.ndarray, row: int, failures: list[BaseException]) -> None:
    try:
        writer.write(rows, row=row)
    except BaseException as failure:  # noqa: BLE001 - sent to the process that waits for it
        failures.append(failure)
