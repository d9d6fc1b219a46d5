"""Pictures of fields: panels on a page, and an animation, with axes and one colour scale."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from alchemist_ray.envs.rendering import limits
from alchemist_ray.training.recording import Recording, Shot, is_uniform

DPI = 110
MIN_WIDTH = 64
MIN_FRAMES = 10

# sizes in an animation, in pixels
LEFT, RIGHT, TOP, BOTTOM, BAR, SMALL = 46, 12, 20, 36, 84, 4
FRAME_DPI = 100
FONT = 8

LEAST_RATIO, GREATEST_RATIO = 0.15, 3.0
"""Bounds of height / width of a picture."""


@dataclass(frozen=True)
class Scale:
    """The colours of all pictures of one quantity.

    Attributes
    ----------
    low, high : float
        Values at its ends.
    label : str
        The quantity with its unit.
    extend : {'neither', 'min', 'max', 'both'}
        Whether there are values below and above.
    """

    low: float
    high: float
    label: str
    extend: str

    @classmethod
    def of(cls, shots: Iterable[Shot]) -> Scale | None:
        """Return the scale of some fields; None if they are pictures in colours."""
        fields = [shot for shot in shots if isinstance(shot, dict)]
        if not fields:
            return None
        ends = [limits(each) for each in fields]
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        seen = [each["values"][np.isfinite(each["values"])] for each in fields]
        below = any(values.size and values.min() < low for values in seen)
        above = any(values.size and values.max() > high for values in seen)
        name, unit = fields[0]["name"], fields[0]["unit"]
        extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((below, above), "neither")
        return cls(low, high, f"{name} ({unit})" if unit not in ("", "1") else name, extend)

    @property
    def colours(self) -> Colormap:
        """Blue to red about zero where both signs occur, dark to bright otherwise; grey where there is no value."""
        both = self.low < 0 < self.high
        return mpl.colormaps["RdBu_r" if both else "viridis"].with_extremes(bad="0.45" if both else "0.92")

    @property
    def mappable(self) -> ScalarMappable:
        """What a colour bar is made from."""
        return ScalarMappable(Normalize(self.low, self.high), self.colours)


# --- panels -----------------------------------------------------------------------------------------------------------


def draw_fields(path: Path, recordings: Mapping[str, Recording], count: int) -> list[str]:
    """Draw pictures of an episode at `count` steps, a row for each policy; return remarks about what is not drawn.

    A picture in which everything has the same value shows nothing and is not drawn.
    """
    telling = {
        name: {step: shot for step, shot in recording.pictures if not is_uniform(shot)}
        for name, recording in recordings.items()
    }
    taken = sorted({step for recording in recordings.values() for step, _ in recording.pictures})
    useful = sorted({step for pictures in telling.values() for step in pictures})
    dropped = [step for step in taken if step not in useful]
    if not useful:
        path.unlink(missing_ok=True)
        return ["fields.png is not drawn: the field is uniform at every step."]
    steps = evenly(useful, count)
    _draw_panels(path, telling, steps)
    if not dropped:
        return []
    which = f"step {dropped[0]}" if len(dropped) == 1 else f"{len(dropped)} of {len(taken)} recorded steps"
    return [f"fields.png leaves out {which}: the field has the same value everywhere."]


def evenly(places: Sequence[int], count: int) -> list[int]:
    """Return `count` of some places, the first and the last among them, or all if there are fewer."""
    if len(places) <= count:
        return list(places)
    return [places[round(each)] for each in np.linspace(0, len(places) - 1, count)]


def _draw_panels(path: Path, telling: Mapping[str, Mapping[int, Shot]], steps: Sequence[int]) -> None:
    shots = [shot for pictures in telling.values() for shot in pictures.values()]
    scale, ratio = Scale.of(shots), _ratio(shots[0])
    size = 2.5 * len(steps) + (1.1 if scale else 0.0), (2.5 * ratio + 0.45) * len(telling) + (0.3 if scale else 0.0)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    panels = figure.subplots(len(telling), len(steps), squeeze=False)
    for row, (name, pictures) in zip(panels, telling.items(), strict=True):
        for axes, step in zip(row, steps, strict=True):
            if step in pictures:
                _show(axes, pictures[step], scale)
                axes.set_title(f"{name}, step {step}", fontsize="small")
            else:
                axes.set_axis_off()
    _label_outer(panels, next(iter(shots)))
    if scale is not None:
        figure.colorbar(scale.mappable, ax=panels, label=scale.label, extend=scale.extend, shrink=0.9, aspect=25)
    figure.savefig(path)


def _label_outer(panels: npt.NDArray[Any], shot: Shot) -> None:
    """Name the axes at the left and the bottom of the page only."""
    if not isinstance(shot, dict) or not shot.get("extent"):
        return
    horizontal, vertical = shot["axes"]
    for axes in panels[-1]:
        axes.set_xlabel(horizontal, fontsize="small")
    for axes in panels[:, 0]:
        axes.set_ylabel(vertical, fontsize="small")


def _show(axes: Any, shot: Shot, scale: Scale | None) -> Any:
    """Draw a picture into axes; return matplotlib's image."""
    axes.set_box_aspect(_ratio(shot))
    axes.tick_params(labelsize="x-small")
    if not isinstance(shot, dict) or scale is None:
        axes.set_axis_off()
        return axes.imshow(shot, aspect="auto")
    axes.locator_params(nbins=5)
    if not shot.get("extent"):
        axes.set_xticks([])
        axes.set_yticks([])
    return axes.imshow(
        shot["values"], cmap=scale.colours, vmin=scale.low, vmax=scale.high, extent=shot.get("extent"), aspect="auto"
    )


def _ratio(shot: Shot) -> float:
    height, width = (shot["values"] if isinstance(shot, dict) else shot).shape[:2]
    return float(min(max(height / width, LEAST_RATIO), GREATEST_RATIO))


# --- animation --------------------------------------------------------------------------------------------------------


def write_animation(
    path: Path, recordings: Mapping[str, Recording], *, frames: int, frames_per_second: float, max_bytes: int
) -> None:
    """Write an animation as GIF with the policies beside each other.

    While it has more than `max_bytes`, it loses every other frame, and below :data:`MIN_FRAMES` it gets smaller.
    """
    seen = {name: recording for name, recording in recordings.items() if recording.pictures}
    longest = max(seen.values(), key=lambda recording: recording.pictures[-1][0])
    steps = evenly([step for step, _ in longest.pictures], frames)
    drawing = _Frames(seen)
    pictures = [drawing.frame(step) for step in steps]
    while True:
        encoded = _gif(pictures, frames_per_second * len(pictures) / len(steps))
        if len(encoded) <= max_bytes or (pictures[0].width <= MIN_WIDTH and len(pictures) <= 2):
            break
        if len(pictures) >= 2 * MIN_FRAMES or pictures[0].width <= MIN_WIDTH:
            pictures = pictures[::2]
        else:
            factor = min(0.9, max(0.5, math.sqrt(max_bytes / len(encoded))))  # bytes grow about as the area
            pictures = [_scaled(picture, factor) for picture in pictures]
    path.write_bytes(encoded)


class _Frames:
    """Draws the frames of an animation: the policies beside each other, or above each other if they are wide."""

    def __init__(self, recordings: Mapping[str, Recording]) -> None:
        self._recordings = recordings
        first = next(iter(recordings.values())).pictures[0][1]
        scale = Scale.of(shot for recording in recordings.values() for _, shot in recording.pictures)
        width = next(iter(recordings.values())).width
        size = width, round(width * _ratio(first))
        self._figure, panels = _laid_out(len(recordings), size, scale, first)
        self._panels = {}
        for (name, recording), axes in zip(recordings.items(), panels, strict=True):
            self._panels[name] = axes, _show(axes, recording.pictures[0][1], scale)
            axes.set_box_aspect(None)
            axes.tick_params(labelsize=FONT - 1)

    def frame(self, step: int) -> Image.Image:
        """Return the frame after `step` steps."""
        for name, (axes, image) in self._panels.items():
            shot = self._recordings[name].at(step)
            image.set_data(shot["values"] if isinstance(shot, dict) else shot)
            if isinstance(shot, dict) and shot.get("extent"):
                image.set_extent(shot["extent"])
            axes.set_title(f"{name}, step {step}", fontsize=FONT, pad=3)
        canvas = FigureCanvasAgg(self._figure)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _laid_out(count: int, size: tuple[int, int], scale: Scale | None, first: Shot) -> tuple[Figure, list[Any]]:
    """Return a figure with room for `count` pictures of a size in pixels, and their axes. Its sides are even."""
    width, height = size
    named = isinstance(first, dict) and bool(first.get("extent"))
    left, bottom = (LEFT, BOTTOM) if named else (SMALL, SMALL)
    across = width < 2 * height
    columns, rows = (count, 1) if across else (1, count)
    tile = left + width + RIGHT, TOP + height + bottom
    whole = _even(columns * tile[0] + (BAR if scale is not None else 0)), _even(rows * tile[1])
    figure = Figure(figsize=(whole[0] / FRAME_DPI, whole[1] / FRAME_DPI), dpi=FRAME_DPI)
    panels = []
    for place in range(count):
        column, row = (place, 0) if across else (0, place)
        x, y = column * tile[0] + left, whole[1] - row * tile[1] - TOP - height
        axes = figure.add_axes((x / whole[0], y / whole[1], width / whole[0], height / whole[1]))
        if named and isinstance(first, dict):
            axes.set_xlabel(first["axes"][0], fontsize=FONT, labelpad=1)
            axes.set_ylabel(first["axes"][1], fontsize=FONT, labelpad=1)
        panels.append(axes)
    if scale is not None:
        x, y, length = columns * tile[0] + 2, bottom, whole[1] - TOP - bottom
        bar = figure.add_axes((x / whole[0], y / whole[1], 12 / whole[0], length / whole[1]))
        figure.colorbar(scale.mappable, cax=bar, extend=scale.extend)
        bar.tick_params(labelsize=FONT - 1)
        bar.set_ylabel(scale.label, fontsize=FONT)
    return figure, panels


def _even(pixels: int) -> int:
    """Return the next even number: video formats want even sides."""
    return pixels + pixels % 2


def _scaled(picture: Image.Image, factor: float) -> Image.Image:
    size = _even(max(2, round(picture.width * factor) - 1)), _even(max(2, round(picture.height * factor) - 1))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _gif(pictures: Sequence[Image.Image], frames_per_second: float) -> bytes:
    """Return pictures as GIF, with one palette for all, so that colours do not flicker."""
    sample = Image.new("RGB", (pictures[0].width, pictures[0].height * min(4, len(pictures))))
    for place, picture in enumerate(pictures[:: max(1, len(pictures) // 4)][:4]):
        sample.paste(picture, (0, place * picture.height))
    palette = sample.quantize(128)
    coloured = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    file = io.BytesIO()
    coloured[0].save(
        file, "GIF", save_all=True, append_images=coloured[1:], duration=round(1000 / frames_per_second), loop=0
    )
    return file.getvalue()
