"""Pictures of an episode as it goes by: a limited number, evenly spaced, of an episode of any length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from PIL import Image

from alchemist_ray.envs.rendering import even
from alchemist_ray.errors import AlchemistError
from alchemist_ray.training.policies import Environment

Picture = npt.NDArray[np.uint8]


@dataclass
class Recording:
    """Pictures of an episode.

    The distance between them starts at one step. When there are twice as many as wanted, every other is given up and
    the distance doubled, so that nobody has to know how long the episode will be.

    Attributes
    ----------
    wanted : int
        How many there should be at least, if the episode has as many steps.
    width : int
        Of a picture, in pixels; greater ones are made smaller. An odd width or height becomes even, for video players.
    pictures : list of (int, ndarray)
        After how many steps each was taken, and the picture, (height, width, 3).
    reason : str
        Why there are none.
    """

    wanted: int
    width: int
    pictures: list[tuple[int, Picture]] = field(default_factory=list)
    reason: str = ""
    _stride: int = 1

    def __call__(self, environment: Environment, step: int) -> None:
        """Take a picture, if one is due; step 0 begins the episode, perhaps anew."""
        if step == 0:
            self.pictures, self._stride = [], 1
        if self.reason or self.wanted == 0 or step % self._stride:
            return
        try:
            taken: Any = environment.render()
        except (AlchemistError, gymnasium.error.Error, ImportError, NotImplementedError) as failure:
            self.reason = str(failure)
            return
        if not isinstance(taken, np.ndarray):
            self.reason = f"render() returned {type(taken).__name__}, no picture"
            return
        self.pictures.append((step, _fitted(taken, self.width)))
        if len(self.pictures) > 2 * self.wanted:
            self._stride *= 2
            self.pictures = [(at, picture) for at, picture in self.pictures if at % self._stride == 0]

    def evenly(self, count: int) -> list[tuple[int, Picture]]:
        """Return `count` of the pictures, the first and the last among them, or all if there are fewer."""
        if len(self.pictures) <= count:
            return self.pictures
        return [self.pictures[round(place)] for place in np.linspace(0, len(self.pictures) - 1, count)]

    def at(self, step: int) -> Picture:
        """Return the last picture that was taken by a step."""
        return next((picture for at, picture in reversed(self.pictures) if at <= step), self.pictures[0][1])


def _fitted(taken: npt.NDArray[Any], width: int) -> Picture:
    picture = np.ascontiguousarray(taken, np.uint8)
    height_there, width_there = picture.shape[:2]
    if width_there == width:
        return even(picture)
    height = max(1, round(height_there * width / width_there))
    how = Image.Resampling.BOX if width < width_there else Image.Resampling.NEAREST
    return even(np.asarray(Image.fromarray(picture).resize((width, height), how)))
