"""Figures of an experiment: curves, pictures of fields, an animation."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from alchemist_ray.training.evaluation import ACTION, Episode, Evaluation
from alchemist_ray.training.recording import Picture, Recording

DPI = 110
MAX_PANELS = 8
MAX_IN_LEGEND = 8
BANNER = 18
"""Height of the line of text above a frame, in pixels."""

MIN_WIDTH = 64


def draw_curve(path: Path, rows: Sequence[Mapping[str, Any]], baselines: Mapping[str, Evaluation], title: str) -> None:
    """Draw returns against steps, a line for each training, with the mean returns of the baselines across."""
    figure = Figure(figsize=(7, 4.2), dpi=DPI, layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="steps of the environment", ylabel="return of an episode")
    colours = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    for place, number in enumerate(dict.fromkeys(row["training"] for row in rows)):
        mine = [row for row in rows if row["training"] == number]
        colour = colours[place % len(colours)]
        label = "training" if place == 0 else None
        axes.plot(*_points(mine, "mean_return"), color=colour, label=label)
        evaluated = _points(mine, "evaluation_return")
        if evaluated[0]:
            axes.plot(*evaluated, "o", ms=3.5, color=colour, label="evaluation" if place == 0 else None)
    for (name, found), style in zip(baselines.items(), _STYLES * (1 + len(baselines) // len(_STYLES)), strict=False):
        axes.axhline(found.total.mean, color="0.35", ls=style, lw=1, label=name)
    axes.grid(alpha=0.25)
    axes.legend(fontsize="small")
    figure.savefig(path)


_STYLES = ["--", ":", "-.", (0, (1, 4)), (0, (6, 3, 1, 3, 1, 3))]


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    known = [row for row in rows if row[name] is not None and np.isfinite(row[name])]
    return [row["timesteps"] for row in known], [row[name] for row in known]


def draw_episode(path: Path, episodes: Mapping[str, Episode], title: str) -> None:
    """Draw rewards and what the environment says in `info`, a line for each policy, and the actions of the first."""
    names = dict.fromkeys(name for episode in episodes.values() for row in episode.series for name in row)
    numbers = [name for name in names if not name.startswith(ACTION)]
    shown = ["reward", "action", *[name for name in numbers if name != "reward"]][:MAX_PANELS]
    rows = -(-len(shown) // 2)
    figure = Figure(figsize=(10, 2.3 * rows + 0.5), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize="medium")
    panels = figure.subplots(rows, 2, squeeze=False, sharex=True)
    for name, axes in zip(shown, panels.flat, strict=False):
        if name == "action":
            _draw_actions(axes, *next(iter(episodes.items())))
        else:
            _draw_number(axes, name, episodes)
        axes.grid(alpha=0.25)
    for axes in panels.flat[len(shown) :]:
        axes.set_axis_off()
    for axes in panels.flat[: len(shown)][-2:]:  # the last of each column
        axes.set_xlabel("step")
        axes.tick_params(labelbottom=True)
    panels.flat[0].legend(fontsize="x-small")
    figure.savefig(path)


def _draw_number(axes: Any, name: str, episodes: Mapping[str, Episode]) -> None:
    for policy, episode in episodes.items():
        steps = [step for step, row in enumerate(episode.series, 1) if name in row]
        axes.plot(steps, [row[name] for row in episode.series if name in row], lw=1, label=policy)
    axes.set_title(name, fontsize="small")


def _draw_actions(axes: Any, policy: str, episode: Episode) -> None:
    names = [name for name in (episode.series[0] if episode.series else {}) if name.startswith(ACTION)]
    steps = range(1, len(episode.series) + 1)
    for name in names:
        axes.plot(steps, [row[name] for row in episode.series], lw=1, label=name.removeprefix(ACTION))
    axes.set_title(f"actions of {policy}", fontsize="small")
    if len(names) <= MAX_IN_LEGEND:
        axes.legend(fontsize="xx-small", ncols=2)


def draw_fields(path: Path, recordings: Mapping[str, Recording], count: int) -> None:
    """Draw pictures of an episode at `count` times, a row for each policy."""
    columns = {name: recording.evenly(count) for name, recording in recordings.items() if recording.pictures}
    most = max(len(pictures) for pictures in columns.values())
    height, width = next(iter(columns.values()))[0][1].shape[:2]
    size = (2.4 * most, (2.4 * height / width + 0.35) * len(columns))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    panels = figure.subplots(len(columns), most, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for line, (name, pictures) in zip(panels, columns.items(), strict=True):
        for axes, (step, picture) in zip(line, pictures, strict=False):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(f"{name}, step {step}", fontsize="x-small")
    figure.savefig(path)


# --- animation --------------------------------------------------------------------------------------------------------


def write_animation(
    path: Path, recordings: Mapping[str, Recording], *, frames: int, frames_per_second: float, max_bytes: int
) -> None:
    """Write an animation as GIF, the policies beside each other; smaller until it has at most `max_bytes`."""
    seen = {name: recording for name, recording in recordings.items() if recording.pictures}
    longest = max(seen.values(), key=lambda recording: recording.pictures[-1][0])
    steps = [step for step, _ in longest.evenly(frames)]
    pictures = [_frame({name: recording.at(step) for name, recording in seen.items()}, step) for step in steps]
    while True:
        encoded = _gif(pictures, frames_per_second * len(pictures) / len(steps))
        if len(encoded) <= max_bytes or (pictures[0].width <= MIN_WIDTH and len(pictures) <= 2):
            break
        if pictures[0].width > MIN_WIDTH:
            factor = min(0.9, max(0.5, math.sqrt(max_bytes / len(encoded))))  # bytes go with the area, about
            pictures = [_scaled(picture, factor) for picture in pictures]
        else:
            pictures = pictures[::2]
    path.write_bytes(encoded)


def _frame(pictures: Mapping[str, Picture], step: int) -> Image.Image:
    """Return pictures beside each other, or above each other if they are wide, each under its name."""
    tiles = [_titled(picture, f"{name}, step {step}") for name, picture in pictures.items()]
    across = tiles[0].width < 2 * tiles[0].height
    width = sum(tile.width for tile in tiles) if across else max(tile.width for tile in tiles)
    height = max(tile.height for tile in tiles) if across else sum(tile.height for tile in tiles)
    whole = Image.new("RGB", (width, height), "white")
    x = y = 0
    for tile in tiles:
        whole.paste(tile, (x, y))
        x, y = (x + tile.width, y) if across else (x, y + tile.height)
    return whole


def _titled(picture: Picture, title: str) -> Image.Image:
    height, width = picture.shape[:2]
    tile = Image.new("RGB", (width, height + BANNER), "white")
    tile.paste(Image.fromarray(picture), (0, BANNER))
    ImageDraw.Draw(tile).text((4, 3), title, fill="black", font=ImageFont.load_default(11))
    return tile


def _scaled(picture: Image.Image, factor: float) -> Image.Image:
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
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
