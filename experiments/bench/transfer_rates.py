"""Measure the rates of sending, fetching and relayout. Baselines: a copy in memory, and a bare socket."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from measure import Comparison, Findings, alternate
from transfer_baselines import RawSocket, copy_seconds
from transfer_sessions import WORKERS, Scale, fetch_seconds, same, send_seconds, sent, workers

import alchemist_ray as alchemist
from alchemist_ray.layouts.layout import PAIRS

TRANSPORTS = {"auto": "shared memory", "tcp": "TCP"}
COPY = "np.copyto into touched pages, 1 thread"
SOCKET = "raw loopback socket, 1 stream"


def bench_shared_memory(scale: Scale) -> Findings:
    """Send and fetch over shared memory. Baseline: a copy in memory."""
    A, out = scale.matrix, scale.target
    copy = partial(copy_seconds, out, A)
    found = Findings()
    with workers("auto") as session:
        for pair, asked in (("VC_STAR", ">= 0.7"), ("MC_MR", ">= 0.35")):
            what = f"{pair}, default block, shared memory, {scale}"
            times = alternate(scale.repeats, partial(send_seconds, session, A, pair), copy)
            found.comparisons.append(Comparison.of_rates(f"send {what}", COPY, A.nbytes, times, asked))
            with sent(session, A, pair) as handle:
                times = alternate(scale.repeats, partial(fetch_seconds, session, handle, out), copy)
            found.comparisons.append(Comparison.of_rates(f"fetch(out=) {what}", COPY, A.nbytes, times, asked))
    return found


def bench_tcp(scale: Scale) -> Findings:
    """Send and fetch over TCP. Baseline: a bare socket."""
    A, out = scale.matrix, scale.target
    what = f"VC_STAR, default block, TCP, {scale}"
    with workers("tcp") as session, RawSocket(A.nbytes) as raw:
        sending = alternate(scale.repeats, partial(send_seconds, session, A, "VC_STAR"), partial(raw.send_seconds, A))
        with sent(session, A, "VC_STAR") as handle:
            fetch = partial(fetch_seconds, session, handle, out)
            fetching = alternate(scale.repeats, fetch, partial(raw.fetch_seconds, out))
    return Findings(
        [
            Comparison.of_rates(f"send {what}", SOCKET, A.nbytes, sending, ">= 0.85"),
            Comparison.of_rates(f"fetch(out=) {what}", SOCKET, A.nbytes, fetching, ">= 0.85"),
        ]
    )


def bench_layouts(scale: Scale) -> Findings:
    """Send and fetch every layout with a block size of 1, over both transports. Baseline: a bare socket."""
    columns: list[Sequence[Comparison]] = []
    with RawSocket(scale.nbytes) as raw:
        for transport in TRANSPORTS:
            with workers(transport) as session:
                columns.extend(zip(*(_layout(scale, session, raw, pair) for pair in PAIRS), strict=True))
    slowest = [min(column, key=lambda comparison: comparison.ratio) for column in columns]
    head = ["layout", *(f"{direction}, {name}" for name in TRANSPORTS.values() for direction in ("send", "fetch"))]
    rows = [[pair, *map(_rate_cell, row)] for pair, *row in zip(PAIRS, *columns, strict=True)]
    return Findings(
        [replace(worst, what=f"slowest layout: {worst.what}") for worst in slowest],
        {f"Each layout with a block size of 1, {scale}, and its rate over that of the {SOCKET}": [head, *rows]},
    )


def _rate_cell(comparison: Comparison) -> str:
    return f"{statistics.median(comparison.ours) / 1e9:.2f} GB/s, {comparison.ratio:.2f}"


def _layout(
    scale: Scale, session: alchemist.AlchemistSession, raw: RawSocket, pair: str
) -> tuple[Comparison, Comparison]:
    """Send and fetch one layout with a block size of 1."""
    A, out = scale.matrix, scale.target
    send: Callable[[], float] = partial(send_seconds, session, A, pair, block_size=1)
    sending = alternate(scale.repeats, send, partial(raw.send_seconds, A))
    with sent(session, A, pair, block_size=1) as handle:
        fetch = partial(fetch_seconds, session, handle, out)
        fetching = alternate(scale.repeats, fetch, partial(raw.fetch_seconds, out))
    what = f"{pair}, block 1, {TRANSPORTS[session.address.transport]}, {scale}"
    return (
        Comparison.of_rates(f"send {what}", SOCKET, A.nbytes, sending, ">= 0.25"),
        Comparison.of_rates(f"fetch(out=) {what}", SOCKET, A.nbytes, fetching, ">= 0.25"),
    )


def bench_relayout(scale: Scale) -> Findings:
    """Change the layout inside the group. Baseline: a copy in memory."""
    A, out = scale.matrix, scale.target
    with workers("auto") as session, sent(session, A, "MC_MR") as handle:
        if not same(session.fetch_matrix(handle.relayout("VC_STAR")), A):
            raise RuntimeError("the matrix changed when its layout was changed")
        times = alternate(scale.repeats, partial(_relayout_seconds, handle, "VC_STAR"), partial(copy_seconds, out, A))
    what = f"relayout MC_MR to VC_STAR in the group, {WORKERS} ranks, {scale}"
    return Findings([Comparison.of_rates(what, COPY, A.nbytes, times, ">= 0.3")])


def _relayout_seconds(handle: alchemist.MatrixHandle, pair: str) -> float:
    started = time.perf_counter()
    other = handle.relayout(pair)
    elapsed = time.perf_counter() - started
    other.free()
    return elapsed
