"""Temporary directories whose names contain the process that owns them: for logs of servers, for scratch of workers.

The process that makes a directory removes it at its end. A killed process cannot do that, so the next process that
makes a directory also removes those of dead processes.
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
    """Return a new directory that only this user can read; remove those that dead processes have left."""
    remove_stale()
    return tempfile.mkdtemp(prefix=f"{LOGS}{os.getpid()}-")


def name_scratch() -> Path:
    """Return a path that nobody can guess; workers make the directory when they first need it."""
    return Path(tempfile.gettempdir(), f"{SCRATCH}{os.getpid()}-{secrets.token_hex(16)}")


def remove_stale() -> None:
    """Remove the directories of dead processes of this user."""
    for prefix in (LOGS, SCRATCH):
        for path in Path(tempfile.gettempdir()).glob(f"{prefix}*-*"):
            pid = path.name.removeprefix(prefix).partition("-")[0]
            with contextlib.suppress(OSError):  # another process was faster
                if pid.isdigit() and not Path("/proc", pid).exists() and path.stat().st_uid == os.getuid():
                    shutil.rmtree(path, ignore_errors=True)
