"""The names of the shared memory that MPICH makes for the ranks of a host.

The ranks remove the names as soon as all of them have mapped the memory (:mod:`..worker.worker`). Ranks that are killed
while MPI starts do not get there. Then their parent removes the names here.
"""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path("/dev/shm")  # noqa: S108 - POSIX shared memory


def _segment_of(world: str) -> str:
    """Return how the name of a world's segment begins; MPICH 5 hashes the name that PMI gives the world."""
    number = 2166136261  # FNV-1a with 32 bits
    for octet in world.encode():
        number = (number ^ octet) * 16777619 % 2**32
    return f"mpich_shm_{number:x}_"


def remove_of_world(world: str) -> None:
    """Remove the segment of a world, if it still has a name on this host."""
    for path in DIRECTORY.glob(f"{_segment_of(world)}*"):
        path.unlink(missing_ok=True)
