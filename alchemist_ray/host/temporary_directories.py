"""Temporary directories whose names contain a process: scratch of workers, logs of servers without a log directory.

The process that makes a directory removes it at its end. A killed process cannot, so each process that makes a log
directory first removes the directories of dead processes. Hosts and containers may share the directory for temporary
files, and a process id means something on one of them only. So a name also tells where the process is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import socket
import tempfile
from pathlib import Path

LOGS = "alchemist-logs-"
SCRATCH = "alchemist-scratch-"


def make_log_dir() -> str:
    """Remove the directories of dead processes, and return a new directory that only this user can read."""
    remove_stale()
    return tempfile.mkdtemp(prefix=f"{LOGS}{_place()}-{os.getpid()}-")


def name_scratch() -> Path:
    """Return an unguessable path. Workers make the directory when they first need it."""
    return Path(tempfile.gettempdir(), f"{SCRATCH}{_place()}-{os.getpid()}-{secrets.token_hex(16)}")


def remove_stale() -> None:
    """Remove the directories of this user's processes that have ended, of this host and this container only."""
    for prefix in (f"{LOGS}{_place()}-", f"{SCRATCH}{_place()}-"):
        for path in Path(tempfile.gettempdir()).glob(f"{prefix}*-*"):
            pid = path.name.removeprefix(prefix).partition("-")[0]
            with contextlib.suppress(OSError):  # another process removed it first
                if pid.isdigit() and not Path("/proc", pid).exists() and path.stat().st_uid == os.getuid():
                    shutil.rmtree(path, ignore_errors=True)


def _place() -> str:
    """Return a name of where process ids have the meaning that they have here: this host, since it was started.

    Containers of one host, which may have the same host name, have different namespaces of processes.
    """
    facts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            facts.append(os.readlink(path) if os.path.islink(path) else Path(path).read_text().strip())
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:12]
