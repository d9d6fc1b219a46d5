"""Memory that a transfer takes beyond the matrix itself, in the sender and in each worker."""

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
    """Measure what is resident at the peak of a transfer, beyond the matrix; against 64 MiB."""
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
    """Return the largest peaks, over layouts and directions, of the sender and of a worker."""
    A, out = scale.matrix, scale.target
    peaks: list[list[int]] = []
    for pair, block in LAYOUTS:
        peaks.append(watch.beyond_the_matrix(partial(send_seconds, session, A, pair, block_size=block)))
        with sent(session, A, pair, block_size=block) as handle:
            peaks.append(watch.beyond_the_matrix(partial(fetch_seconds, session, handle, out)))
    return max(sender for sender, *_ in peaks), max(max(others) for _, *others in peaks)


class PeakWatch:
    """Watches the resident memory of processes, from when it is made.

    The matrix is not counted: what a worker holds lies in shared memory, and so do its pages where the sender maps
    them, and the client's arrays are touched before. So what is watched is what is resident (VmRSS) less the shared
    pages (RssShmem). What a transfer leaves behind counts for the next one too.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._private = {pid: _resident(pid, "VmRSS") - _resident(pid, "RssShmem") for pid in pids}

    def beyond_the_matrix(self, transfer: Callable[[], object]) -> list[int]:
        """Return by how many bytes each process has grown, at its peak during a transfer, since it is watched."""
        for pid in self._private:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # sets VmHWM to what is resident now; see proc(5)
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
    raise RuntimeError(f"the kernel does not tell {field}")
