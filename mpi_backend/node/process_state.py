"""What the system says of a process of this host."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, as by SIGSTOP or a debugger; one that is gone is not."""
    return _state_of(pid) in ("T", "t")


def is_gone(pid: int) -> bool:
    """Whether a process has ended; its parent may not have taken note of that."""
    return _state_of(pid) in ("", "Z", "X")


def sockets_of(pid: int) -> Iterator[str]:
    """Yield the inodes of the sockets of a process; none of one that is gone, or that another user owns."""
    directory = f"/proc/{pid}/fd"
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        try:
            target = os.readlink(f"{directory}/{name}")
        except OSError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


def _state_of(pid: int) -> str:
    """Return the letter of a process's state; empty if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]
