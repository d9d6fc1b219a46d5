"""Pictures of an episode, taken while it runs: a limited number, evenly spaced, for an episode of any length.

Of a simulation the field is kept, which is numbers with a name, a unit and coordinates, so that all pictures of an
experiment get one colour scale and axes. Other environments give colours only.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from PIL import Image

from alchemist_ray.envs import HPCSimulator
from alchemist_ray.envs.rendering import even
from alchemist_ray.errors import AlchemistError
from alchemist_ray.training.policies import Environment

Picture = npt.NDArray[np.uint8]

Shot = Picture | dict[str, Any]
"""A picture in colours, (height, width, 3), or a field: ``values`` (ny, nx), ``name, unit, low, high``, ``extent``."""


@dataclass
class Recording:
    """Pictures of an episode.

    At first every step is taken. When there are more than twice as many pictures as wanted, every other one is dropped
    and the distance doubled. So the length of the episode need not be known.

    Attributes
    ----------
    wanted : int
        How many pictures there should be at least, if the episode has as many steps.
    width : int
        Width of a picture in pixels; wider ones are reduced. Both sides become even, for video players.
    pictures : list of (int, Shot)
        The number of steps before each picture, and the picture.
    reason : str
        Why no pictures can be taken; empty while they can.
    """

    wanted: int
    width: int
    pictures: list[tuple[int, Shot]] = field(default_factory=list)
    reason: str = ""
    _stride: int = 1

    def __call__(self, environment: Environment, step: int) -> None:
        """Take a picture if one is due; step 0 starts an episode, so earlier pictures are dropped."""
        if step == 0:
            self.pictures, self._stride = [], 1
        if self.reason or self.wanted == 0 or step % self._stride:
            return
        try:
            taken = _shot(environment, self.width)
        except (AlchemistError, gymnasium.error.Error, ImportError, NotImplementedError, _NotAPicture) as failure:
            self.reason = str(failure)
            return
        self.pictures.append((step, taken))
        if len(self.pictures) > 2 * self.wanted:
            self._stride *= 2
            self.pictures = [(at, picture) for at, picture in self.pictures if at % self._stride == 0]

    def at(self, step: int) -> Shot:
        """Return the last picture that was taken up to a step, or the first one."""
        return next((picture for at, picture in reversed(self.pictures) if at <= step), self.pictures[0][1])


LEAST_SHARE = 0.02
"""Share of a picture that must have values, so that one sees something."""


def shows_nothing(shot: Shot) -> bool:
    """Whether a picture has one value or colour everywhere, or hardly any values."""
    if not isinstance(shot, dict):
        return bool((shot == shot[0, 0]).all())
    seen = shot["values"][np.isfinite(shot["values"])]
    return seen.size < LEAST_SHARE * shot["values"].size or bool(np.ptp(seen) == 0)


class _NotAPicture(Exception):
    """The environment's render() returned something else."""


def _shot(environment: Environment, width: int) -> Shot:
    if isinstance(environment.unwrapped, HPCSimulator):
        return reduced(environment.unwrapped.field(), width)
    taken: Any = environment.render()
    if not isinstance(taken, np.ndarray):
        raise _NotAPicture(f"render() returned {type(taken).__name__}, which is not a picture")
    return _fitted(taken, width)


def reduced(said: Mapping[str, Any], width: int) -> dict[str, Any]:
    """Return a field whose values are means over square blocks, so many that it is at most about `width` wide."""
    values = np.asarray(said["values"], np.float32)
    block = max(1, round(values.shape[1] / width))
    ny, nx = (max(1, size // block) for size in values.shape)
    whole = values[: ny * block, : nx * block]
    if block > 1 and whole.size == ny * nx * block * block:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of blocks without a number
            values = np.nanmean(whole.reshape(ny, block, nx, block), axis=(1, 3))
    return {**said, "values": values}


def _fitted(taken: npt.NDArray[Any], width: int) -> Picture:
    picture = np.ascontiguousarray(taken, np.uint8)
    height_there, width_there = picture.shape[:2]
    if width_there == width:
        return even(picture)
    height = max(1, round(height_there * width / width_there))
    how = Image.Resampling.BOX if width < width_there else Image.Resampling.NEAREST
    return even(np.asarray(Image.fromarray(picture).resize((width, height), how)))
