"""Temporary directories whose names contain a process id: scratch of workers, logs of servers without a log directory.

The process that makes a directory removes it at its end. A killed process cannot, so each process that makes a log
directory first removes the directories of dead processes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path

LOGS = "alchemist-logs-"
SCRATCH = "alchemist-scratch-"


def make_log_dir() -> str:
    """Remove the directories of dead processes, and return a new directory that only this user can read."""
    remove_stale()
    return tempfile.mkdtemp(prefix=f"{LOGS}{os.getpid()}-")


def name_scratch() -> Path:
    """Return an unguessable path. Workers make the directory when they first need it."""
    return Path(tempfile.gettempdir(), f"{SCRATCH}{os.getpid()}-{secrets.token_hex(16)}")


def remove_stale() -> None:
    """Remove the directories of this user's processes that have ended."""
    for prefix in (LOGS, SCRATCH):
        for path in Path(tempfile.gettempdir()).glob(f"{prefix}*-*"):
            pid = path.name.removeprefix(prefix).partition("-")[0]
            with contextlib.suppress(OSError):  # another process removed it first
                if pid.isdigit() and not Path("/proc", pid).exists() and path.stat().st_uid == os.getuid():
                    shutil.rmtree(path, ignore_errors=True)
