"""Measure the memory of a transfer beyond the matrix itself, in the sender and in each worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from measure import Comparison, Findings
from transfer_sessions import Scale, fetch_seconds, send_seconds, sent, workers

import alchemist_ray as alchemist

LIMIT_MIB = 64
LAYOUTS = (("VC_STAR", None), ("MC_MR", None), ("MC_MR", 1), ("STAR_VC", 1))


def bench_memory(scale: Scale) -> Findings:
    """Measure the peak of the resident memory during a transfer, without the matrix. Limit: 64 MiB."""
    found = Findings()
    for transport, name in (("auto", "shared memory"), ("tcp", "TCP")):
        scale.matrix.sum(), scale.target.sum()
        with workers(transport) as session:
            watch = PeakWatch([os.getpid(), *(int(row["pid"]) for row in session.list_assigned_workers())])
            peaks = [_peaks_of_all(session, watch, scale) for _ in range(scale.repeats)]
        for who, column in (("sender", 0), ("larger of the workers", 1)):
            what = f"memory beyond the matrix, {who}, {name}, largest of {len(LAYOUTS)} layouts, send and fetch"
            ours = [peak[column] / 2**20 for peak in peaks]
            limits = [LIMIT_MIB] * len(ours)
            found.comparisons.append(Comparison(what, f"{LIMIT_MIB} MiB", ours, limits, "<= 1", (1.0, "MiB")))
    return found


def _peaks_of_all(session: alchemist.AlchemistSession, watch: PeakWatch, scale: Scale) -> tuple[int, int]:
    """Return the largest peak of the sender and that of any worker, over all layouts and both directions."""
    A, out = scale.matrix, scale.target
    peaks: list[list[int]] = []
    for pair, block in LAYOUTS:
        peaks.append(watch.beyond_the_matrix(partial(send_seconds, session, A, pair, block_size=block)))
        with sent(session, A, pair, block_size=block) as handle:
            peaks.append(watch.beyond_the_matrix(partial(fetch_seconds, session, handle, out)))
    return max(sender for sender, *_ in peaks), max(max(others) for _, *others in peaks)


class PeakWatch:
    """Measures by how much the resident memory of processes has grown since this object was made.

    The matrix is not counted. Workers keep matrices in shared memory, which the sender may map, and the client's arrays
    have been touched before. So the measure is the resident memory (VmRSS) without the shared pages (RssShmem). Memory
    that one transfer leaves behind also counts for the next.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._private = {pid: _resident(pid, "VmRSS") - _resident(pid, "RssShmem") for pid in pids}

    def beyond_the_matrix(self, transfer: Callable[[], object]) -> list[int]:
        """Run a transfer. Return for each process by how many bytes its peak exceeds its memory at the start."""
        for pid in self._private:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets VmHWM to VmRSS; see proc(5)
        transfer()
        return [
            max(0, _resident(pid, "VmHWM") - _resident(pid, "RssShmem") - private)
            for pid, private in self._private.items()
        ]


def _resident(pid: int, field: str) -> int:
    """Return a field of a process's memory status, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no field {field}")
