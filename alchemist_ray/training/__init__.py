"""Experiments: a YAML file describes a training on a simulation and its evaluation.

``alchemist run experiments/ppo_cylinder.yaml`` runs one. From Python, use :func:`load_experiment` and
:func:`run_experiment`. docs/experiments.md has every key. The modules:

- ``schema``: the keys, their types, units, defaults and documentation
- ``loading``: read a file as an experiment; report errors by line and key
- ``descriptions``: the keys as a table
- ``environments``, ``algorithms``, ``seeds``: the environment and RLlib's configuration of an experiment
- ``policies``, ``evaluation``: the trained policy and the baselines, and their evaluation
- ``statistics``, ``comparison``: means with errors; differences between policies, spread over trainings
- ``training``, ``progress``: Ray Tune; stopping, checkpoints, resuming
- ``recording``, ``fields``, ``figures``: pictures and curves
- ``results``, ``tables``, ``report``: the files of the results
- ``after_training``, ``runner``: all steps in order

Importing this package loads neither Ray nor PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alchemist_ray.training.loading import load_experiment as load_experiment
    from alchemist_ray.training.runner import run_experiment as run_experiment

_PLACES = {"load_experiment": "loading", "run_experiment": "runner"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
