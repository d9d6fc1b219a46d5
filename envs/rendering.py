"""Pictures of fields: numbers to colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

SOLID = 0.35
"""Grey of what is no number: walls, land, the inside of bodies."""

LONG_SIDE = 512
"""Small fields are magnified by whole numbers, as far as they then have at most so many pixels in a direction."""


def to_rgb(field: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """Return a field, as a library's ``get_field`` describes it, as a picture.

    Blue to red about zero where the scale has both signs, dark to bright otherwise.

    Returns
    -------
    picture : ndarray of uint8, shape (height, width, 3)
    """
    from matplotlib import colormaps  # here, since it takes a while

    values = np.asarray(field["values"], float)
    low, high = limits(field)
    colours = colormaps["RdBu_r" if low < 0 < high else "viridis"]
    scaled = np.clip((values - low) / max(high - low, np.finfo(float).tiny), 0, 1)
    picture = colours(np.nan_to_num(scaled), bytes=True)[..., :3]
    picture[np.isnan(values)] = round(255 * SOLID)
    times = max(1, LONG_SIDE // max(1, *values.shape))
    return np.ascontiguousarray(picture.repeat(times, axis=0).repeat(times, axis=1))


def limits(field: Mapping[str, Any]) -> tuple[float, float]:
    """Return the values that get the ends of the colour scale; about zero, both signs get as much of it."""
    values = np.asarray(field["values"], float)
    finite = values[np.isfinite(values)]
    least, greatest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    low = least if field["low"] is None else float(field["low"])
    high = greatest if field["high"] is None else float(field["high"])
    if low < 0 < high and field["low"] is None and field["high"] is None:
        high = max(-low, high)
        low = -high
    return low, high


def tiled(pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Return pictures of one size side by side, in about as many rows as columns."""
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height, width, _ = pictures[0].shape
    tiles = np.zeros((rows * columns, height, width, 3), np.uint8)
    tiles[: len(pictures)] = pictures
    return tiles.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
