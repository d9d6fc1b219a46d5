"""The Ray actor that holds a session."""

from __future__ import annotations

from typing import Any

import ray

from alchemist_ray.calls.holder import SessionHolder
from alchemist_ray.on_ray.shared_files import SharedFilesSession
from alchemist_ray.protocol import messages as m


class RaySessionHolder(SessionHolder):
    """A session holder in a Ray actor: ``SessionActor.remote(num_workers=2)``.

    It ends with its last handle or with the Ray job, together with its workers and their matrices.

    Parameters
    ----------
    num_workers : int, optional
        Size of the worker group; by default the number of cores of the actor's node.
    hostname, port, token : optional
        The server, as for :meth:`AlchemistSession.connect`; by default the actor starts one of its own.
    show_progress : bool
        Whether long tasks show a progress bar on the terminal of the Ray driver.
    shares_files : bool
        Whether the workers see the files of the caller, so that relative paths begin in the caller's directory.
    """

    def __init__(
        self,
        num_workers: int | None = None,
        hostname: str | None = None,
        port: int | None = None,
        token: str | None = None,
        show_progress: bool = False,
        shares_files: bool = False,
    ) -> None:
        super().__init__(num_workers, hostname, port, token)
        if shares_files:
            self._session = SharedFilesSession(verbose=False)
        if show_progress:
            self._session.make_progress = RayProgress
        self._session.is_cancelled = _is_cancelled


SessionActor = ray.remote(max_restarts=3)(RaySessionHolder)
"""The session holder as a Ray actor. It takes no CPU of Ray's, which does not schedule its workers."""


def _is_cancelled() -> bool:
    """Whether ``ray.cancel`` was called for the running call of the actor."""
    return bool(ray.get_runtime_context().is_canceled())


class RayProgress:
    """Shows the progress of a task on the terminal of the Ray driver, wherever the task's session is."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._bar: Any = None

    def __call__(self, report: m.Progress) -> None:
        """Show a report."""
        if self._bar is None:
            from ray.experimental import tqdm_ray

            self._bar = tqdm_ray.tqdm(total=100, desc=self._task)
        percent = int(100 * report.done / report.total) if report.total else 0
        self._bar.set_description(f"{self._task} {report.text}".strip())
        self._bar.update(percent - self._bar._x)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
