"""Curves of an experiment: returns against steps, and an episode step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from alchemist_ray.training.evaluation import ACTION, Episode, Evaluation
from alchemist_ray.training.tables import ranges_of

Array = npt.NDArray[Any]
Row = Mapping[str, Any]

DPI = 110
MAX_PANELS = 8
MAX_IN_LEGEND = 8

SAME = 1e-6
"""Relative difference up to which numbers count as equal."""

_STYLES = ["--", ":", "-.", (0, (1, 4)), (0, (6, 3, 1, 3, 1, 3))]


@dataclass(frozen=True)
class CurveEvaluations:
    """The evaluations in a curve: trained policies and baselines on the same seeds, without exploration.

    Attributes
    ----------
    seeds : sequence of int
    baselines : mapping
        Name of a baseline -> its evaluation.
    final : sequence of (int, float)
        Steps and mean return of each policy that was evaluated after the training; empty if there were evaluations
        during the training, which the rows of the curve contain.
    """

    seeds: Sequence[int]
    baselines: Mapping[str, Evaluation]
    final: Sequence[tuple[int, float]]


def draw_curve(path: Path, rows: Sequence[Row], evaluated: CurveEvaluations, title: str, *, banded: bool) -> None:
    """Draw returns against steps.

    Parameters
    ----------
    path : Path
    rows : sequence of mapping
        The iterations of all trainings, as in curve.csv.
    evaluated : CurveEvaluations
    title : str
    banded : bool
        Whether the trainings differ in their seeds only: then the mean is drawn, in a band from the least to the
        greatest, over a thin line for each. Otherwise there is a line for each.
    """
    figure = Figure(figsize=(7, 4.2), dpi=DPI, layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="steps of the environment", ylabel="return of an episode")
    trainings = [[row for row in rows if row["training"] == n] for n in dict.fromkeys(row["training"] for row in rows)]
    explored = [_points(mine, "mean_return") for mine in trainings]
    without = [_points(mine, "evaluation_return") for mine in trainings]
    colours = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    if banded and len(trainings) > 1:
        _draw_band(axes, explored, colours[0], "training episodes, with exploration")
        if any(steps.size for steps, _ in without):
            _draw_band(axes, without, colours[1], "evaluation, without exploration")
    else:
        _draw_lines(axes, explored, without, colours)
    if evaluated.final:
        axes.plot(*zip(*evaluated.final, strict=True), "D", ms=5, color=colours[1], label="evaluation of the result")
    for place, (name, found) in enumerate(evaluated.baselines.items()):
        axes.axhline(found.total.mean, color="0.35", ls=_STYLES[place % len(_STYLES)], lw=1, label=name)
    axes.grid(alpha=0.25)
    which = f"evaluations and baselines: mean over\nseeds {_short(evaluated.seeds)}"
    axes.legend(fontsize="small", title=which, title_fontsize="small")
    figure.savefig(path)


def _short(seeds: Sequence[int]) -> str:
    text = ranges_of(seeds)
    return text if len(text) <= 40 else f"{seeds[0]}, ... ({len(seeds)} in all)"


def _points(rows: Sequence[Row], name: str) -> tuple[Array, Array]:
    known = [row for row in rows if row[name] is not None and np.isfinite(row[name])]
    return np.array([row["timesteps"] for row in known], float), np.array([row[name] for row in known], float)


def _draw_lines(axes: Any, explored: Sequence[Any], without: Sequence[Any], colours: Sequence[str]) -> None:
    for place, (line, dots) in enumerate(zip(explored, without, strict=True)):
        colour, first = colours[place % len(colours)], place == 0
        axes.plot(*line, color=colour, label="training episodes, with exploration" if first else None)
        if dots[0].size:
            axes.plot(*dots, "o", ms=3.5, color=colour, label="evaluation, without exploration" if first else None)


def _draw_band(axes: Any, curves: Sequence[tuple[Array, Array]], colour: str, label: str) -> None:
    for steps, returns in curves:
        axes.plot(steps, returns, color=colour, lw=0.6, alpha=0.6)
    steps, returns = on_common_steps(curves)
    axes.fill_between(steps, returns.min(axis=0), returns.max(axis=0), color=colour, alpha=0.2, lw=0)
    count = len(returns)
    axes.plot(steps, returns.mean(axis=0), color=colour, lw=1.8, label=f"{label}:\nmean and range of {count} seeds")


def on_common_steps(curves: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return curves on the steps that all of them cover, interpolated linearly where they have no point.

    Returns
    -------
    steps : ndarray, shape (n,)
    returns : ndarray, shape (curves, n)
    """
    known = [(steps, returns) for steps, returns in curves if steps.size]
    start, end = max(steps[0] for steps, _ in known), min(steps[-1] for steps, _ in known)
    every = np.unique(np.concatenate([steps for steps, _ in known]))
    common = every[(every >= start) & (every <= end)]
    return common, np.array([np.interp(common, steps, returns) for steps, returns in known])


# --- an episode -------------------------------------------------------------------------------------------------------


def draw_episode(path: Path, episodes: Mapping[str, Episode], title: str, units: Mapping[str, str]) -> list[str]:
    """Draw rewards and the numbers in `info`, a line for each policy, and the actions of the first policy.

    Parameters
    ----------
    path : Path
    episodes : mapping
        Name of a policy -> its episode.
    title : str
    units : mapping
        Name of a component of the action -> its unit.

    Returns
    -------
    list of str
        Remarks about the numbers that are not drawn: constants, and clocks that grow evenly, show nothing.
    """
    names = dict.fromkeys(name for episode in episodes.values() for row in episode.series for name in row)
    numbers = [name for name in names if not name.startswith(ACTION) and name != "reward"]
    dull = {name: text for name in numbers if (text := _dull(name, episodes))}
    shown = ["reward", "action", *[name for name in numbers if name not in dull]][:MAX_PANELS]
    rows = -(-len(shown) // 2)
    figure = Figure(figsize=(10, 2.3 * rows + 0.5), dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize="medium")
    panels = figure.subplots(rows, 2, squeeze=False, sharex=True)
    for name, axes in zip(shown, panels.flat, strict=False):
        if name == "action":
            _draw_actions(axes, *next(iter(episodes.items())), units)
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
    return (
        [f"episode.png does not show {', '.join(f'{name} ({text})' for name, text in dull.items())}."] if dull else []
    )


def _dull(name: str, episodes: Mapping[str, Episode]) -> str:
    """Return why a number is not worth a panel; empty if it is."""
    curves = [np.array([row[name] for row in episode.series if name in row]) for episode in episodes.values()]
    whole = np.concatenate(curves)
    if not whole.size:
        return "without values"
    if np.ptp(whole) <= SAME * np.abs(whole).max():
        return f"constant, {whole[0]:.4g}"
    rates = np.concatenate([np.diff(curve) for curve in curves])
    if rates.size > 2 and np.ptp(rates) <= SAME * np.abs(rates).max():
        return "grows evenly"
    return ""


def _draw_number(axes: Any, name: str, episodes: Mapping[str, Episode]) -> None:
    for policy, episode in episodes.items():
        steps = [step for step, row in enumerate(episode.series, 1) if name in row]
        marker = "o" if len(steps) == 1 else None
        axes.plot(steps, [row[name] for row in episode.series if name in row], lw=1, marker=marker, label=policy)
    axes.set_title(name, fontsize="small")


def _draw_actions(axes: Any, policy: str, episode: Episode, units: Mapping[str, str]) -> None:
    names = [name for name in (episode.series[0] if episode.series else {}) if name.startswith(ACTION)]
    steps = range(1, len(episode.series) + 1)
    shared = {units.get(name.removeprefix(ACTION), "") for name in names}
    for name in names:
        axes.plot(steps, [row[name] for row in episode.series], lw=1, label=name.removeprefix(ACTION))
    unit = f" ({next(iter(shared))})" if len(shared) == 1 and shared != {""} else ""
    axes.set_title(f"actions of {policy}{unit}", fontsize="small")
    if len(names) <= MAX_IN_LEGEND:
        axes.legend(fontsize="xx-small", ncols=2)
