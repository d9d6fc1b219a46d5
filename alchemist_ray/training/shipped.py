"""The experiments that are installed with the package, by name."""

from __future__ import annotations

import difflib
import re
from functools import cache
from pathlib import Path

import yaml

from alchemist_ray.errors import ExperimentError

FOLDER = Path(__file__).parent.parent / "experiments"
"""Where the experiments are: the wheel has them there, and in the source tree it is a link to ``experiments/``."""


@cache
def shipped_experiments() -> dict[str, Path]:
    """Return the files of the shipped experiments, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def find_experiment(given: str | Path) -> Path:
    """Return the file of an experiment.

    Parameters
    ----------
    given : path
        A file, or the name of a shipped experiment, such as ``ppo_cylinder``. An existing file comes first.

    Raises
    ------
    ExperimentError
        If `given` is neither a file nor a shipped experiment, and has the form of a name: no folder and no ending.
    """
    path = Path(given)
    if path.is_file() or path.name != str(given) or path.suffix:
        return path
    shipped = shipped_experiments()
    if str(given) in shipped:
        return shipped[str(given)]
    near = difflib.get_close_matches(str(given), shipped, 1)
    hint = f"did you mean {near[0]}?" if near else f"the shipped experiments are {', '.join(shipped)}"
    raise ExperimentError(str(given), [f"there is no such file and no shipped experiment of this name; {hint}"])


def list_shipped() -> str:
    """Return the names of the shipped experiments, each with the first sentence of its description."""
    shipped = shipped_experiments()
    width = max(map(len, shipped))
    return "\n".join(f"{name:{width}}  {_summary(path)}" for name, path in shipped.items())


def _summary(path: Path) -> str:
    description = str(yaml.safe_load(path.read_text(encoding="utf-8")).get("description", ""))
    return re.split(r"(?<=[.,])\s", " ".join(description.split()), maxsplit=1)[0].rstrip(".,")
