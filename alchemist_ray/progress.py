"""A progress bar for long tasks, where there is somebody to see it and tqdm is installed."""

from __future__ import annotations

import sys
from typing import Any, Protocol

from alchemist_ray.protocol import messages as m

SHOW_AFTER_SECONDS = 0.5


class ProgressDisplay(Protocol):
    """What shows the progress of one task."""

    def __call__(self, report: m.Progress) -> None:
        """Show a report."""

    def close(self) -> None:
        """Take the display away: the task has ended."""


class ProgressBar:
    """Shows the progress of one task on the terminal; nothing where there is no terminal.

    Parameters
    ----------
    task : str
        What runs.
    show : bool, optional
        Whether to show it; by default if stderr is a terminal.
    """

    def __init__(self, task: str, show: bool | None = None) -> None:
        self._task = task
        self._show = show
        self._bar: Any = None

    def __call__(self, report: m.Progress) -> None:
        """Show a report."""
        if self._show is None:
            self._show = sys.stderr.isatty()
        if not self._show:
            return
        if self._bar is None:
            self._bar = _make_bar(self._task)
            self._show = self._bar is not None
        if self._bar is not None:
            self._bar.total = report.total
            self._bar.set_postfix_str(report.text, refresh=False)
            self._bar.update(report.done - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


def _make_bar(task: str) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(
        total=1,
        desc=task,
        leave=False,
        delay=SHOW_AFTER_SECONDS,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} {postfix}",
    )
