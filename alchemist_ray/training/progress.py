"""The progress of a training: a line for each iteration, and stopping on request."""

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
"""The keys of a result that the limits in `stop` apply to."""

_HEAD = "training iteration       steps  mean return  evaluation   steps/s  time left"


class TrainingProgress(Callback):  # type: ignore[misc]  # Ray has no types here
    """Prints the progress of trainings.

    Parameters
    ----------
    experiment : Experiment
    say : callable
        Is called with one line at a time.

    Attributes
    ----------
    stopping, ended : bool
        Whether the trainings should stop, and whether they were stopped before their end.
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
        """Start the clock of a trial, and set the current limits: a resumed trial has those of its first start."""
        trial.stopping_criterion = stop_conditions(self._stop)
        before = trial.last_result or {}
        self._last[trial.trial_id] = time.monotonic(), int(before.get("timesteps", 0))
        self._first[trial.trial_id] = time.monotonic(), self._done(before)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Print an iteration; request a checkpoint if the training should stop."""
        if not self._headed:
            self._say(_HEAD)
            self._headed = True
        self._say(self._line(trial.trial_id, result))
        if self.stopping and not result.get("done"):
            result["should_checkpoint"] = True  # Tune looks for it here
            self._saving.add(trial.trial_id)

    def on_trial_save(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """End when all running trials have saved."""
        running = {other.trial_id for other in trials if other.status == "RUNNING"}
        if self.stopping and trial.trial_id in self._saving and running <= self._saving:
            self.end_now()

    def stop(self) -> None:
        """Stop the trainings after the current iteration."""
        self.stopping = True
        self._say("Stopping after this iteration, with a checkpoint (Ctrl-C again: at once)")

    def end_now(self) -> None:
        """End the trainings."""
        if signal.getsignal(signal.SIGUSR1) in (signal.SIG_DFL, None):
            raise KeyboardInterrupt  # Tune has not started yet
        self.ended = True
        os.kill(os.getpid(), signal.SIGUSR1)  # Tune's handler ends it

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
        """Return the time until the first limit on steps, iterations or seconds, at the mean speed so far."""
        now, done = time.monotonic(), self._done(result)
        start, at_start = self._first.get(trial, (now, done))
        if done <= at_start:
            return "?"
        return duration((now - start) * max(0.0, 1 - done) / (done - at_start))

    def _done(self, result: Mapping[str, Any]) -> float:
        """Return the share of a training that is done, by steps, iterations or seconds."""
        conditions = (
            ("timesteps", self._stop.timesteps),
            ("training_iteration", self._stop.iterations),
            ("time_total_s", self._stop.seconds),
        )
        return max((result.get(key, 0) / wanted for key, wanted in conditions if wanted is not None), default=0.0)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_say": None}  # Tune pickles its callbacks


def stop_conditions(stop: StopKeys) -> dict[str, float]:
    """Return what a result must reach for the training to end, by its keys."""
    return {STOP_KEYS[name]: value for name, value in stop.model_dump().items() if value is not None}


def duration(seconds: float) -> str:
    """Return a time as text: 42 s, 3 min 20 s, 2 h 05 min."""
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
