"""Measure the costs of a transfer apart from its elements: planning, and the messages."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
from measure import Comparison, Findings, alternate, seconds
from transfer_sessions import COLUMNS, WORKERS, Scale, fetch_seconds, send_seconds, sent, workers

from alchemist_ray.client.transfer.parts import Part
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.layouts.region import Rectangle
from alchemist_ray.layouts.spec import MatrixSpec

TINY = (16, 16)
CALLS = 200
MANY_RANKS, MANY_ROWS = 10**5, 10**12
LAYOUTS = (("VC_STAR", None), ("MC_MR", None), ("MC_MR", 1))


def bench_planning(scale: Scale) -> Findings:
    """Plan a transfer, and move a tiny matrix. Baseline: the transfer of 0.1 GB."""
    planned = Scale(max(1, scale.megabytes // 8), scale.repeats)
    found = Findings()
    with workers("auto") as session:
        for pair, block in LAYOUTS:
            A, out, tiny = planned.matrix, planned.target, np.ones(TINY)
            what = f"{pair}, {'default block' if block is None else f'block {block}'}, shared memory"
            plan = partial(_median_seconds, partial(_plan, A.shape, pair, block))
            send = partial(send_seconds, session, A, pair, block_size=block)
            send_tiny = partial(_median, partial(send_seconds, session, tiny, pair, block_size=block))
            found.comparisons += [
                _share(f"plan the send of {planned}, {what}", f"the send of {planned}", planned, plan, send, "<= 0.05"),
                _share(f"send {TINY[0]} x {TINY[1]}, {what}", f"the send of {planned}", planned, send_tiny, send),
            ]
            with (
                sent(session, A, pair, block_size=block) as handle,
                sent(session, tiny, pair, block_size=block) as tiny_handle,
            ):
                fetch = partial(fetch_seconds, session, handle, out)
                fetch_tiny = partial(_median, partial(fetch_seconds, session, tiny_handle, np.empty(TINY)))
                found.comparisons.append(
                    _share(
                        f"fetch {TINY[0]} x {TINY[1]}, {what}", f"the fetch of {planned}", planned, fetch_tiny, fetch
                    )
                )
    found.comparisons.append(_many_ranks(scale))
    return found


def _share(
    what: str, baseline: str, scale: Scale, ours: Callable[[], float], theirs: Callable[[], float], asked: str = ""
) -> Comparison:
    return Comparison(what, baseline, *alternate(scale.repeats, ours, theirs), asked, (1e3, "ms"))


def _plan(shape: tuple[int, int], pair: str, block: int | None) -> list[Part]:
    """Find which rank holds which part of a matrix, as a send does before the first element moves."""
    layout = Layout.of(pair, shape, WORKERS, block=block)
    spec = MatrixSpec(shape, np.dtype(np.float64), layout)
    whole = Rectangle(0, shape[0], 0, shape[1])
    ranks = layout.ranks_of(shape, (0, shape[0]), (0, shape[1]))
    return [Part.of(spec, rank, whole) for rank in ranks.tolist()]


def _many_ranks(scale: Scale) -> Comparison:
    """Plan for the largest numbers of ranks and rows that the layouts are designed for."""
    shape = (MANY_ROWS, COLUMNS)

    def plan() -> None:
        layout = Layout.of("MC_MR", shape, MANY_RANKS)
        layout.local_shapes(shape)
        layout.ranks_of(shape, (0, MANY_ROWS), (0, COLUMNS))

    times = [seconds(plan) for _ in range(scale.repeats)]
    what = f"shapes of all blocks and their ranks, MC_MR, 10^12 x {COLUMNS} on 10^5 ranks"
    return Comparison(what, "0.5 s", times, [0.5] * len(times), "<= 1", (1e3, "ms"))


def _median(timed: Callable[[], float]) -> float:
    return statistics.median(timed() for _ in range(CALLS))


def _median_seconds(action: Callable[[], object]) -> float:
    return _median(partial(seconds, action))
