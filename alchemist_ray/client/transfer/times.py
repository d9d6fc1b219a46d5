"""How long the parts of a transfer took, and a table of the times."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TransferTimes:
    """Seconds that one worker's part of a transfer took, as in Figure 3 of the CUG 2019 paper.

    Over shared memory nothing is serialised or received; the whole time is that of writing (or reading) in place.
    """

    worker_id: int
    serialization: float = 0.0
    send: float = 0.0
    receive: float = 0.0
    deserialization: float = 0.0

    def __add__(self, other: TransferTimes) -> TransferTimes:
        """Return the sums of the times of two transfers with the same worker."""
        return TransferTimes(
            self.worker_id,
            self.serialization + other.serialization,
            self.send + other.send,
            self.receive + other.receive,
            self.deserialization + other.deserialization,
        )


def print_times_of(what: str, seconds: float, times: list[TransferTimes]) -> None:
    """Print how long a transfer took, as in Figure 3 of the CUG 2019 paper."""
    rule = "-" * 88
    lines = [
        f"{what} ... done ({seconds:.4e}s)",
        "",
        "Data transfer times breakdown",
        rule,
        "Worker | Serialization time |  Send time  | Receive time | Deserialization time",
        rule,
    ]
    for row in times:
        lines.append(
            f"{row.worker_id:6d} | {row.serialization:18.4e} | {row.send:11.4e} | {row.receive:12.4e} | "
            f"{row.deserialization:20.4e}"
        )
    print("\n".join([*lines, rule]))  # noqa: T201 - asked for
