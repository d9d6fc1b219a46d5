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
from alchemist_ray.training.recording import Recording, Shot, shows_nothing

MIN_WIDTH = 64
MIN_FRAMES = 10

PANEL = 240
"""Width of a picture on a page, in pixels."""

DPI = 100
FONT = 8
LEFT, RIGHT, TOP, BOTTOM, BAR, SMALL = 46, 12, 20, 36, 84, 4
"""Margins of a picture with and without axes, and room for the colour bar, in pixels."""

LEAST_RATIO, GREATEST_RATIO = 0.15, 3.0
"""Bounds of height / width of a picture."""


@dataclass(frozen=True)
class ColourScale:
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
    def of(cls, shots: Iterable[Shot]) -> ColourScale | None:
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
        """Blue to red about zero if both signs occur, else dark to bright; missing values are grey."""
        both = self.low < 0 < self.high
        return mpl.colormaps["RdBu_r" if both else "viridis"].with_extremes(bad="0.45" if both else "0.92")

    @property
    def mappable(self) -> ScalarMappable:
        """What a colour bar is made from."""
        return ScalarMappable(Normalize(self.low, self.high), self.colours)


# --- panels -----------------------------------------------------------------------------------------------------------


def draw_fields(path: Path, recordings: Mapping[str, Recording], count: int) -> list[str]:
    """Draw pictures of an episode at `count` steps, a row for each policy; return remarks about what is not drawn.

    Steps at which every policy's picture has the same value everywhere, or no values, are left out.
    """
    telling = {
        name: {step: shot for step, shot in recording.pictures if not shows_nothing(shot)}
        for name, recording in recordings.items()
    }
    taken = {step for recording in recordings.values() for step, _ in recording.pictures}
    useful = sorted({step for pictures in telling.values() for step in pictures})
    dropped = sorted(taken.difference(useful))
    if not useful:
        path.unlink(missing_ok=True)
        return ["fields.png is not drawn: the field has the same value everywhere at every step."]
    _draw_panels(path, telling, evenly(useful, count))
    if not dropped:
        return []
    which = f"step {dropped[0]}" if len(dropped) == 1 else f"{len(dropped)} of {len(taken)} recorded steps"
    return [f"fields.png leaves out {which}: the field has the same value everywhere, or no values yet."]


def evenly(places: Sequence[int], count: int) -> list[int]:
    """Return `count` of some places, the first and the last among them, or all if there are fewer."""
    if len(places) <= count:
        return list(places)
    return [places[round(each)] for each in np.linspace(0, len(places) - 1, count)]


def _draw_panels(path: Path, telling: Mapping[str, Mapping[int, Shot]], steps: Sequence[int]) -> None:
    shots = [shot for pictures in telling.values() for shot in pictures.values()]
    scale = ColourScale.of(shots)
    figure, panels = _laid_out(len(steps), len(telling), PANEL, shots[0], scale)
    for row, (name, pictures) in zip(panels, telling.items(), strict=True):
        for axes, step in zip(row, steps, strict=True):
            if step in pictures:
                _show(axes, pictures[step], scale)
                axes.set_title(f"{name}, step {step}", fontsize=FONT, pad=3)
            else:
                axes.set_axis_off()
    figure.savefig(path)


def _show(axes: Any, shot: Shot, scale: ColourScale | None) -> Any:
    """Draw a picture into axes; return matplotlib's image."""
    axes.tick_params(labelsize=FONT - 1)
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
    palette = drawing.palette or _common_palette(pictures)
    while True:
        encoded = _gif(pictures, palette, frames_per_second * len(pictures) / len(steps))
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
        self._scale = ColourScale.of(shot for recording in recordings.values() for _, shot in recording.pictures)
        width, count = next(iter(recordings.values())).width, len(recordings)
        columns, rows = (count, 1) if _ratio(first) > 0.5 else (1, count)
        self._figure, panels = _laid_out(columns, rows, width, first, self._scale)
        self._panels = {
            name: (axes, _show(axes, recording.pictures[0][1], self._scale))
            for (name, recording), axes in zip(recordings.items(), panels.flat, strict=True)
        }

    @property
    def palette(self) -> Image.Image | None:
        """The colours of the scale, and greys for the rest; None if the pictures have colours of their own."""
        if self._scale is None:
            return None
        map_colours = self._scale.colours(np.linspace(0, 1, 176), bytes=True)[:, :3]
        bad = self._scale.colours(np.ma.MaskedArray([0.0], mask=True), bytes=True)[:, :3]
        greys = np.repeat(np.linspace(0, 255, 40).astype(np.uint8), 3).reshape(-1, 3)
        palette = Image.new("P", (1, 1))
        palette.putpalette(np.concatenate([map_colours, bad, greys]).tobytes())
        return palette

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


def _laid_out(
    columns: int, rows: int, width: int, first: Shot, scale: ColourScale | None
) -> tuple[Figure, npt.NDArray[Any]]:
    """Return a figure with rows and columns of axes for pictures of a width in pixels. Its sides are even numbers."""
    height = round(width * _ratio(first))
    named = isinstance(first, dict) and bool(first.get("extent"))
    left, bottom = (LEFT, BOTTOM) if named else (SMALL, SMALL)
    tile = left + width + RIGHT, TOP + height + bottom
    whole = _even(columns * tile[0] + (BAR if scale is not None else 0)), _even(rows * tile[1])
    figure = Figure(figsize=(whole[0] / DPI, whole[1] / DPI), dpi=DPI)
    panels = np.empty((rows, columns), object)
    for row, column in np.ndindex(rows, columns):
        x, y = column * tile[0] + left, whole[1] - row * tile[1] - TOP - height
        panels[row, column] = axes = _axes(figure, x, y, width, height)
        if isinstance(first, dict) and named:
            axes.set_xlabel(first["axes"][0], fontsize=FONT, labelpad=1)
            axes.set_ylabel(first["axes"][1], fontsize=FONT, labelpad=1)
    if scale is not None:
        bar = _axes(figure, columns * tile[0] + 2, bottom, 12, whole[1] - TOP - bottom)
        figure.colorbar(scale.mappable, cax=bar, extend=scale.extend)
        bar.tick_params(labelsize=FONT - 1)
        bar.set_ylabel(scale.label, fontsize=FONT)
    return figure, panels


def _axes(figure: Figure, x: int, y: int, width: int, height: int) -> Any:
    """Return axes at a place in pixels, from the lower left corner."""
    across, up = figure.get_size_inches() * DPI
    return figure.add_axes((x / across, y / up, width / across, height / up))


def _even(pixels: int) -> int:
    """Return the next even number: video formats want even sides."""
    return pixels + pixels % 2


def _scaled(picture: Image.Image, factor: float) -> Image.Image:
    size = _even(max(2, round(picture.width * factor) - 1)), _even(max(2, round(picture.height * factor) - 1))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _common_palette(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return one palette for all pictures, so that colours do not flicker."""
    sample = Image.new("RGB", (pictures[0].width, pictures[0].height * min(4, len(pictures))))
    for place, picture in enumerate(pictures[:: max(1, len(pictures) // 4)][:4]):
        sample.paste(picture, (0, place * picture.height))
    return sample.quantize(128)


def _gif(pictures: Sequence[Image.Image], palette: Image.Image, frames_per_second: float) -> bytes:
    """Return pictures as GIF."""
    coloured = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    file = io.BytesIO()
    coloured[0].save(
        file, "GIF", save_all=True, append_images=coloured[1:], duration=round(1000 / frames_per_second), loop=0
    )
    return file.getvalue()
