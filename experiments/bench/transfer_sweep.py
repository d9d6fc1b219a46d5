"""Measure transfer rates by layout and size, for a plot like Figure 11 of the CUG 2019 paper."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from transfer_baselines import RawSocket, copy_seconds
from transfer_sessions import COLUMNS, WORKERS, Scale, fetch_seconds, send_seconds, sent, workers

import alchemist_ray as alchemist
from alchemist_ray.layouts.layout import PAIRS

SMALLEST = 1_000
LEAST, MOST, BYTES_A_POINT = 3, 30, 10**8
"""Least and largest number of measurements of a point; in between, as many as move `BYTES_A_POINT` in total."""


def sizes(largest: int) -> list[int]:
    """Return the sizes to measure, in bytes: powers of ten from 1 KB, then the largest."""
    powers = [10**k for k in range(3, 12) if SMALLEST <= 10**k < largest]
    return [*powers, largest]


def sweep(scale: Scale) -> dict[str, Any]:
    """Return rates in GB/s by size: sends and fetches in every layout, and the baselines."""
    matrices = [_matrix(nbytes) for nbytes in sizes(scale.nbytes)]
    targets = [np.ones_like(A) for A in matrices]
    curves = []
    for transport in ("auto", "tcp"):
        with workers(transport) as session:
            for pair in PAIRS:
                for block in (None, 1):
                    curves += _curves(session, matrices, targets, pair, block)
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {WORKERS} workers",
        "bytes": [A.nbytes for A in matrices],
        "copy": [_rate(A, partial(copy_seconds, B, A)) for A, B in zip(matrices, targets, strict=True)],
        "socket": _socket_rates(matrices),
        "curves": curves,
    }


def _matrix(nbytes: int) -> np.ndarray:
    elements = nbytes // 8
    columns = next(n for n in range(min(COLUMNS, isqrt(elements)), 0, -1) if elements % n == 0)
    return np.random.default_rng(0).standard_normal((elements // columns, columns))


def _curves(
    session: alchemist.AlchemistSession,
    matrices: list[np.ndarray],
    targets: list[np.ndarray],
    pair: str,
    block: int | None,
) -> list[dict[str, Any]]:
    """Return the rates of one layout by size, as one curve for sending and one for fetching."""
    sends, fetches = [], []
    for A, out in zip(matrices, targets, strict=True):
        sends.append(_rate(A, partial(send_seconds, session, A, pair, block_size=block)))
        with sent(session, A, pair, block_size=block) as handle:
            fetches.append(_rate(A, partial(fetch_seconds, session, handle, out)))
    about = {"transport": session.address.transport, "pair": pair, "block": "default" if block is None else str(block)}
    return [about | {"direction": "send", "rates": sends}, about | {"direction": "fetch", "rates": fetches}]


def _socket_rates(matrices: list[np.ndarray]) -> list[float]:
    with RawSocket(max(A.nbytes for A in matrices)) as raw:
        return [_rate(A, partial(raw.send_seconds, A)) for A in matrices]


def _rate(A: np.ndarray, timed: Callable[[], float]) -> float:
    """Return the median rate in GB/s of a move of `A`, after one move that does not count."""
    timed()
    repeats = min(max(BYTES_A_POINT // A.nbytes, LEAST), MOST)
    return round(A.nbytes / statistics.median(timed() for _ in range(repeats)) / 1e9, 6)


def save(measured: dict[str, Any], path: Path) -> None:
    """Write the result of :func:`sweep` as JSON, with one curve on each line."""
    head = {name: value for name, value in measured.items() if name != "curves"}
    lines = [json.dumps(head)[:-1] + ', "curves": [', ",\n".join(map(json.dumps, measured["curves"])), "]}"]
    path.write_text("\n".join(lines) + "\n")
