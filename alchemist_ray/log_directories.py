"""Temporary directories for the logs of servers that keep none.

A server removes its own when it stops. One that is killed cannot, so whoever makes the next directory removes those
whose process is no more; the name says which process that is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "alchemist-logs-"


def make_log_dir() -> str:
    """Return a new directory that only this user can read, having removed what dead processes have left."""
    remove_stale()
    return tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")


def remove_stale() -> None:
    """Remove the directories of this user's processes that are no more."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        pid = path.name.removeprefix(PREFIX).partition("-")[0]
        with contextlib.suppress(OSError):  # somebody else was faster
            if pid.isdigit() and not Path("/proc", pid).exists() and path.stat().st_uid == os.getuid():
                shutil.rmtree(path, ignore_errors=True)
