"""The hosts that do not answer the ranks of this node.

A link between two hosts can fail while both still reach the driver. MPI then waits for as long as TCP tries, a quarter
of an hour. The system's table of TCP connections tells how often it has sent the same bytes again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
TRIES = 5
"""After so many unanswered transmissions, 6 s on a fast network, the peer is silent."""

_ESTABLISHED = "01"


def silent_peers(pids: Iterable[int]) -> dict[int, str]:
    """Return the processes with a connection whose peer is silent, and the address of that peer."""
    silent = {inode: address for table in TABLES if table.exists() for inode, address in _silent_in(table)}
    if not silent:
        return {}
    return {pid: silent[inode] for pid in pids for inode in _sockets_of(pid) if inode in silent}


def _silent_in(table: Path) -> Iterator[tuple[str, str]]:
    """Yield the inode and the peer's address of each silent connection in a table."""
    for line in table.read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == _ESTABLISHED and int(fields[6], 16) >= TRIES:
            yield fields[9], _address(fields[2].partition(":")[0])


def _address(text: str) -> str:
    """Return an address from its form in the table: words of 32 bits in the byte order of the machine."""
    octets = b"".join(bytes.fromhex(text[i : i + 8])[::-1] for i in range(0, len(text), 8))
    return socket.inet_ntop(socket.AF_INET6 if len(octets) > 4 else socket.AF_INET, octets)


def _sockets_of(pid: int) -> Iterator[str]:
    """Yield the inodes of the sockets of a process."""
    directory = f"/proc/{pid}/fd"
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        try:
            target = os.readlink(f"{directory}/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]
