"""The tables of a report, as markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alchemist_ray.training.comparison import TrainingSpread, differences_from
from alchemist_ray.training.evaluation import Evaluation
from alchemist_ray.training.statistics import Spread, Statistics


def policies_table(evaluations: Mapping[str, Evaluation]) -> str:
    """Return the means ± standard errors over the evaluation seeds, a row for each policy.

    A column counts the failed episodes, if there are any. There are no changes in percent: a return may have either
    sign, and its zero means nothing.
    """
    infos = _names(found.info for found in evaluations.values())
    counted = any(found.failed for found in evaluations.values())
    rows = [
        [
            name,
            *([f"{len(found.failed)} of {len(found.episodes)} failed"] if counted else []),
            _cell(found.total),
            str(found.reward),
            *[_cell(found.info.get(key)) for key in infos],
        ]
        for name, found in evaluations.items()
    ]
    return as_table(["policy", *(["episodes"] if counted else []), "return", "reward a step", *infos], rows)


def differences_table(evaluations: Mapping[str, Evaluation], reference: str | None) -> str:
    """Return the differences from the reference, paired by seeds: means ± standard errors; empty if there are none."""
    found = differences_from(evaluations, reference)
    infos = _names(row.info for row in found.values())
    rows = [
        [name, str(row.total), str(row.reward), *[_cell(row.info.get(key)) for key in infos]]
        for name, row in found.items()
    ]
    return as_table([f"minus {reference}", "return", "reward a step", *infos], rows) if rows else ""


def spread_table(name: str, trainings: Mapping[str, Evaluation]) -> str:
    """Return the mean ± standard deviation over trainings with different seeds; empty for a single training."""
    if len(trainings) < 2:
        return ""
    spread = TrainingSpread.of(list(trainings.values()))
    cells = [
        f"{name}, {len(trainings)} trainings",
        str(spread.total),
        str(spread.reward),
        *map(str, spread.info.values()),
    ]
    return as_table(["over trainings", "return", "reward a step", *spread.info], [cells])


def whole_info_table(evaluations: Mapping[str, Evaluation]) -> str:
    """Return the means of info over all steps of the episodes ± standard errors over the evaluation seeds."""
    infos = _names(found.whole_info for found in evaluations.values())
    rows = [[name, *[_cell(found.whole_info.get(key)) for key in infos]] for name, found in evaluations.items()]
    return as_table(["policy", *infos], rows)


def as_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in markdown."""
    return "\n".join([_line(head), _line(["---"] * len(head)), *map(_line, rows)])


def ranges_of(numbers: Sequence[int]) -> str:
    """Return numbers as text, three and more that follow one another as a range."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _cell(found: Statistics | Spread | None) -> str:
    return "" if found is None or math.isnan(found.mean) else str(found)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
