"""Temporary directories that name the process they belong to: logs of servers that keep none, scratch of workers.

Whoever makes one removes it in the end. A process that is killed cannot, so the next one that makes a directory removes
those whose process is no more.
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
    """Return a new directory that only this user can read, having removed what dead processes have left."""
    remove_stale()
    return tempfile.mkdtemp(prefix=f"{LOGS}{os.getpid()}-")


def name_scratch() -> Path:
    """Return a path that nobody can guess, for workers to make when they first need it."""
    return Path(tempfile.gettempdir(), f"{SCRATCH}{os.getpid()}-{secrets.token_hex(16)}")


def remove_stale() -> None:
    """Remove the directories of this user's processes that are no more."""
    for prefix in (LOGS, SCRATCH):
        for path in Path(tempfile.gettempdir()).glob(f"{prefix}*-*"):
            pid = path.name.removeprefix(prefix).partition("-")[0]
            with contextlib.suppress(OSError):  # somebody else was faster
                if pid.isdigit() and not Path("/proc", pid).exists() and path.stat().st_uid == os.getuid():
                    shutil.rmtree(path, ignore_errors=True)
