"""The hosts that do not answer the ranks of this node.

A link between two hosts can fail while both still reach the driver. MPI then waits for as long as TCP tries, a quarter
of an hour; or for two minutes if it is just opening the connection, which it does with the first message between two
ranks. The system's table of TCP connections tells how often it has sent the same bytes again.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from alchemist_ray.mpi_backend.node.process_state import sockets_of

TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
TRIES = 5
"""After so many unanswered transmissions, 6 s on a fast network, the peer is silent."""
LINEAR_TIMEOUTS = Path("/proc/sys/net/ipv4/tcp_syn_linear_timeouts")
"""How many requests to open a connection the system sends a second after the last one; later it waits twice as long
each time. Linux before 6.5 has no such file, and waits twice as long from the beginning."""

_ESTABLISHED, _SYN_SENT = "01", "02"


def silent_peers(pids: Iterable[int]) -> dict[int, str]:
    """Return the processes with a connection whose peer is silent, and the address of that peer."""
    silent = {inode: address for table in TABLES if table.exists() for inode, address in _silent_in(table)}
    if not silent:
        return {}
    return {pid: silent[inode] for pid in pids for inode in sockets_of(pid) if inode in silent}


def _silent_in(table: Path) -> Iterator[tuple[str, str]]:
    """Yield the inode and the peer's address of each silent connection in a table."""
    tries = {_ESTABLISHED: TRIES, _SYN_SENT: _tries_to_open()}
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[6], 16) >= tries.get(fields[3], math.inf):
            yield fields[9], _address(fields[2].partition(":")[0])


def _tries_to_open() -> int:
    """Return the number of unanswered requests to open a connection after which the peer is silent: 4 to 7 s."""
    try:
        linear = int(LINEAR_TIMEOUTS.read_text())
    except (OSError, ValueError):
        linear = 0
    return max(3, min(TRIES, linear + 1))


def _address(text: str) -> str:
    """Return an address from its form in the table: words of 32 bits in the byte order of the machine."""
    octets = b"".join(bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8))
    return socket.inet_ntop(socket.AF_INET6 if len(octets) > 4 else socket.AF_INET, octets)
