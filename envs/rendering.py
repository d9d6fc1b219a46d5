"""Pictures of fields: numbers to colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

SOLID = 0.35
"""Grey of NaN: walls, land, the inside of bodies."""

LONG_SIDE = 512
"""Small fields are magnified by whole numbers, as long as they have at most this many pixels in each direction."""

BLANK = 128
"""Grey of a picture that could not be drawn."""

STRIP, MARGIN, LEAST_WIDTH, FONT = 40, 12, 256, 12
"""Pixels: height of the strip with the colour scale, its margins, its least width, and the size of its text."""


def to_rgb(field: Mapping[str, Any]) -> Picture:
    """Return a field, as a library's ``get_field`` describes it, as a picture.

    Blue to red about zero where the scale has both signs, dark to bright otherwise.

    Returns
    -------
    picture : ndarray of uint8, shape (height, width, 3)
        Height and width are even.
    """
    from matplotlib import colormaps  # here, since importing it takes long

    values = np.asarray(field["values"], float)
    low, high = limits(field)
    scaled = np.clip((values - low) / max(high - low, np.finfo(float).tiny), 0, 1)
    picture = colormaps[colour_map(low, high)](np.nan_to_num(scaled), bytes=True)[..., :3]
    picture[np.isnan(values)] = round(255 * SOLID)
    times = max(1, LONG_SIDE // max(1, *values.shape))
    return even(picture.repeat(times, axis=0).repeat(times, axis=1))


def labelled(field: Mapping[str, Any]) -> Picture:
    """Return the picture of a field over a strip with its colour scale, the quantity, its unit, and the limits."""
    from matplotlib import colormaps
    from PIL import Image, ImageDraw, ImageFont

    picture, (low, high) = to_rgb(field), limits(field)
    height, own_width = picture.shape[:2]
    width = max(own_width, LEAST_WIDTH)
    canvas = np.full((height + STRIP, width, 3), 255, np.uint8)
    left = (width - own_width) // 2
    canvas[:height, left : left + own_width] = picture
    scale = np.linspace(0, 1, width - 2 * MARGIN)
    canvas[height + 6 : height + 18, MARGIN:-MARGIN] = colormaps[colour_map(low, high)](scale, bytes=True)[:, :3]
    image = Image.fromarray(canvas)
    draw, font, top = ImageDraw.Draw(image), ImageFont.load_default(FONT), height + 20
    quantity = f"{field['name']} [{field['unit']}]" if field["unit"] else str(field["name"])
    for text, x, anchor in (
        (f"{low:.3g}", MARGIN, "la"),
        (quantity, width / 2, "ma"),
        (f"{high:.3g}", width - MARGIN, "ra"),
    ):
        draw.text((x, top), text, fill=(0, 0, 0), font=font, anchor=anchor)
    return even(np.asarray(image))


def limits(field: Mapping[str, Any]) -> tuple[float, float]:
    """Return the values at the ends of the colour scale. If they have both signs, zero is in the middle."""
    values = np.asarray(field["values"], float)
    finite = values[np.isfinite(values)]
    least, greatest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    low = least if field["low"] is None else float(field["low"])
    high = greatest if field["high"] is None else float(field["high"])
    if low < 0 < high and field["low"] is None and field["high"] is None:
        high = max(-low, high)
        low = -high
    return low, high


def colour_map(low: float, high: float) -> str:
    """Return matplotlib's name of the colours between two limits."""
    return "RdBu_r" if low < 0 < high else "viridis"


def even(picture: npt.NDArray[Any]) -> Picture:
    """Return a picture with an even height and width, its last row and column repeated where that is needed.

    Most players show no video (H.264, yuv420p) with an odd height or width.
    """
    height, width = picture.shape[:2]
    missing = ((0, height % 2), (0, width % 2), *[(0, 0)] * (picture.ndim - 2))
    return np.ascontiguousarray(np.pad(picture, missing, "edge") if height % 2 or width % 2 else picture, np.uint8)


def blank() -> Picture:
    """Return a small grey picture, for a state that cannot be drawn."""
    return np.full((2, 2, 3), BLANK, np.uint8)


def tiled(pictures: Sequence[Picture]) -> Picture:
    """Return pictures of one size side by side, in about as many rows as columns."""
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height, width, _ = pictures[0].shape
    tiles = np.zeros((rows * columns, height, width, 3), np.uint8)
    tiles[: len(pictures)] = pictures
    return tiles.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
