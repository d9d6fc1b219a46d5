"""Experiments: a YAML file that says what is trained on which simulation, and what is measured of it.

``alchemist run experiments/ppo_cylinder.yaml`` runs one; from Python, :func:`load_experiment` with
:func:`run_experiment` does. docs/experiments.md has every key. What the modules do:

- ``schema``: the keys, their types, units, defaults and documentation
- ``loading``: a file to an experiment; what is wrong with it, by line and key
- ``descriptions``: the keys as a table
- ``environments``, ``algorithms``: the environment, and RLlib's configuration, of an experiment
- ``policies``, ``evaluation``: the trained policy and the baselines, and how they fare on seeds not trained on
- ``training``: Ray Tune; stopping, checkpoints, resuming
- ``results``, ``figures``, ``report``: what is kept
- ``runner``: all of it in order

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
