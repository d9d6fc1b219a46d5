"""The end of a process in words."""

from __future__ import annotations

import signal


def end_in_words(status: int) -> str:
    """Return how a process has ended: `status` is its exit status, or minus the signal that killed it."""
    return f"was killed by {signal_name(-status)}" if status < 0 else f"ended with status {status}"


def signal_name(number: int) -> str:
    """Return the name of a signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
