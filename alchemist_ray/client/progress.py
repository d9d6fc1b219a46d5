"""Progress bars for long tasks and transfers, on a terminal and if tqdm is installed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, Protocol

from alchemist_ray.client.transfer.meter import Meter
from alchemist_ray.protocol import messages as m

SHOW_AFTER_SECONDS = 0.5


class ProgressDisplay(Protocol):
    """A display of the progress of one task."""

    def __call__(self, report: m.Progress) -> None:
        """Show a report."""

    def close(self) -> None:
        """Remove the display: the task has ended."""


class ProgressBar:
    """Shows the progress of one task on the terminal; nothing where there is no terminal.

    Parameters
    ----------
    task : str
        Name of the task.
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
            self._bar = _make_bar(
                total=1, desc=self._task, bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} {postfix}"
            )
            self._show = self._bar is not None
        if self._bar is not None:
            self._bar.total = report.total
            self._bar.set_postfix_str(report.text, refresh=False)
            self._bar.update(report.done - self._bar.n)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


@contextlib.contextmanager
def transfer_bar(what: str, nbytes: int, show: bool | None = None) -> Iterator[Meter]:
    """Give a meter that shows the bytes and the rate of a transfer, if the transfer takes longer than a moment.

    Parameters
    ----------
    what : str
        Words for the transfer, e.g. "Sending".
    nbytes : int
        Bytes in total.
    show : bool, optional
        Whether to show it; by default if stderr is a terminal.
    """
    bar = None
    if show or (show is None and sys.stderr.isatty()):
        bar = _make_bar(
            total=nbytes,
            desc=what,
            unit="B",
            unit_scale=True,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {rate_fmt} {elapsed}<{remaining}",
        )
    try:
        yield Meter(None if bar is None else bar.update)
    finally:
        if bar is not None:
            bar.close()


def _make_bar(**options: Any) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(**{"leave": False, "delay": SHOW_AFTER_SECONDS, **options})
