"""The progress of a training: a line for each iteration, and the wish to stop."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune import Callback

from alchemist_ray.training.schema import Experiment, StopKeys

STOP_KEYS = {
    "timesteps": "timesteps",
    "iterations": "training_iteration",
    "seconds": "time_total_s",
    "reward": "mean_return",
}
"""Under which keys of a result the conditions of `stop` are found."""

_HEAD = "training iteration       steps  mean return  evaluation   steps/s  time left"


class TrainingProgress(Callback):  # type: ignore[misc]  # Ray has no types here
    """Shows how trainings go on.

    Parameters
    ----------
    experiment : Experiment
    say : callable
        Is given one line at a time.

    Attributes
    ----------
    stopping, ended : bool
        Whether the trainings are to stop, and whether they have been stopped before their end.
    """

    def __init__(self, experiment: Experiment, say: Callable[[str], None]) -> None:
        self._stop = experiment.stop
        self._say = say
        self._first: dict[str, tuple[float, float]] = {}
        self._last: dict[str, tuple[float, int]] = {}
        self._saving: set[str] = set()
        self._headed = False
        self.stopping = False
        self.ended = False

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Begin to count the time of a trial, which ends as is said now, not as it was when it was first begun."""
        trial.stopping_criterion = stop_conditions(self._stop)
        before = trial.last_result or {}
        self._last[trial.trial_id] = time.monotonic(), int(before.get("timesteps", 0))
        self._first[trial.trial_id] = time.monotonic(), self._done(before)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Show an iteration; ask for a checkpoint if the training is to stop."""
        if not self._headed:
            self._say(_HEAD)
            self._headed = True
        self._say(self._line(trial.trial_id, result))
        if self.stopping and not result.get("done"):
            result["should_checkpoint"] = True  # Tune looks for it here
            self._saving.add(trial.trial_id)

    def on_trial_save(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End when all that run have saved."""
        running = {other.trial_id for other in trials if other.status == "RUNNING"}
        if self.stopping and trial.trial_id in self._saving and running <= self._saving:
            self.end_now()

    def stop(self) -> None:
        """Have the trainings stop after the present iteration."""
        self.stopping = True
        self._say("Stopping after this iteration, with a checkpoint (Ctrl-C again: at once)")

    def end_now(self) -> None:
        """End the trainings."""
        if signal.getsignal(signal.SIGUSR1) in (signal.SIG_DFL, None):
            raise KeyboardInterrupt  # Tune is not there yet
        self.ended = True
        os.kill(os.getpid(), signal.SIGUSR1)  # what Tune has a handler for

    def _line(self, trial: str, result: Mapping[str, Any]) -> str:
        now, steps = time.monotonic(), int(result["timesteps"])
        then, before = self._last.get(trial, (now, steps))
        self._last[trial] = now, steps
        rate = (steps - before) / max(now - then, 1e-9)
        evaluated = result.get("evaluation_return")
        return (
            f"{_number(trial):>8} {result['training_iteration']:>9} {steps:>11,} {_shown(result['mean_return']):>12} "
            f"{'' if evaluated is None else _shown(evaluated):>11} {rate:>9,.0f}  {self._time_left(trial, result)}"
        )

    def _time_left(self, trial: str, result: Mapping[str, Any]) -> str:
        """Return the time until the first of the conditions that can be foreseen, at the mean speed so far."""
        now, done = time.monotonic(), self._done(result)
        start, at_start = self._first.get(trial, (now, done))
        if done <= at_start:
            return "?"
        return duration((now - start) * max(0.0, 1 - done) / (done - at_start))

    def _done(self, result: Mapping[str, Any]) -> float:
        """Return which part of a training is done, as far as that can be foreseen."""
        conditions = (
            ("timesteps", self._stop.timesteps),
            ("training_iteration", self._stop.iterations),
            ("time_total_s", self._stop.seconds),
        )
        return max((result.get(key, 0) / wanted for key, wanted in conditions if wanted is not None), default=0.0)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_say": None}  # Tune keeps its callbacks in a file


def stop_conditions(stop: StopKeys) -> dict[str, float]:
    """Return what a result must reach for the training to end, by its keys."""
    return {STOP_KEYS[name]: value for name, value in stop.model_dump().items() if value is not None}


def duration(seconds: float) -> str:
    """Return a time in words: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _number(trial: str) -> int:
    return int(trial.rpartition("_")[2])


def _shown(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"
