"""The parameters of the simulation, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.sim_libraries.lammps_md import systems

SYSTEMS = ("melt", "cluster")
THERMOSTATS = ("csvr", "langevin")


@dataclass(frozen=True)
class Settings:
    """The parameters of :class:`~alchemist_ray.sim_libraries.lammps_md.simulator.LammpsMD`, which documents them."""

    system: str
    atoms: int
    density: float
    depth_ratio: float
    script: str | None
    path: str | None
    variables: dict[str, Any] | None
    group: str
    temperature_low: float
    temperature_high: float
    start_temperature: float | None
    melt_steps: int
    thermostat: str
    damping: float
    steps_per_action: int
    actions: int
    shell_radius: float | None
    reference_energy: float | None
    force_tolerance: float
    score_scale: float
    shaping: bool

    def check(self, task: str) -> None:
        """Check the parameters, each by itself and together.

        Raises
        ------
        ArgumentValueError
            If a parameter is out of range. The error names it.
        """
        for name, least in (("melt_steps", 1), ("steps_per_action", 1), ("actions", 1), ("atoms", 2)):
            if getattr(self, name) < least:
                raise ArgumentValueError(task, f"{name} must be at least {least}, not {getattr(self, name)}")
        positive = ("density", "temperature_low", "damping", "force_tolerance", "score_scale")
        for name in (*positive, *(each for each in _OPTIONAL if getattr(self, each) is not None)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ArgumentValueError(task, f"{name} must be positive, not {value}")
        if not (math.isfinite(self.temperature_high) and self.temperature_high > self.temperature_low):
            raise ArgumentValueError(
                task,
                f"temperature_high must be above temperature_low = {self.temperature_low}, not {self.temperature_high}",
            )
        if not (math.isfinite(self.depth_ratio) and self.depth_ratio >= 1):
            raise ArgumentValueError(task, f"depth_ratio must be at least 1, not {self.depth_ratio}")
        if self.depth_ratio > 1 and not self.is_own_system:
            raise ArgumentValueError(
                task, "depth_ratio needs one of the shipped systems; a script can vary with its variable seed instead"
            )
        if self.reference_energy is not None and not math.isfinite(self.reference_energy):
            raise ArgumentValueError(task, f"reference_energy must be finite, not {self.reference_energy}")
        self._check_choices(task)

    def _check_choices(self, task: str) -> None:
        for name, choices in (("system", SYSTEMS), ("thermostat", THERMOSTATS)):
            given = getattr(self, name)
            if given not in choices:
                raise ArgumentValueError(task, f"{name} must be one of {', '.join(choices)}, not {given!r}")
        if self.script is not None and self.path is not None:
            raise ArgumentValueError(task, "give either script (the text of a script) or path (its file), not both")
        if self.is_own_system and self.system == "melt" and systems.cells_for(self.atoms) < 4:
            raise ArgumentValueError(
                task, f"atoms of the melt must be 4 n^3 with n of at least 4 (256, 500, 864, ...), not {self.atoms}"
            )
        if not self.group.isidentifier():
            raise ArgumentValueError(task, f"group must be the name of a group of the script, not {self.group!r}")
        for name in {"seed", "depth"} & set(self.variables or {}):
            raise ArgumentValueError(task, f"remove {name!r} from variables: reset sets this variable")

    @property
    def is_own_system(self) -> bool:
        """Whether the system is one of the shipped systems, and not a script."""
        return self.script is None and self.path is None

    @property
    def text(self) -> str:
        """The script of a shipped system."""
        return systems.melt(self.atoms, self.density) if self.system == "melt" else systems.cluster(self.atoms)

    @property
    def begin_at(self) -> float:
        """The temperature at which an episode begins."""
        return self.temperature_high if self.start_temperature is None else self.start_temperature

    @property
    def sampling(self) -> tuple[int, int]:
        """Time steps between samples of energy and temperature, and number of samples in an action.

        An action has about twenty samples at equal distances. The last one is at the end of the action.
        """
        every = next(n for n in range(max(1, self.steps_per_action // 20), 0, -1) if self.steps_per_action % n == 0)
        return every, self.steps_per_action // every


_OPTIONAL = ("start_temperature", "shell_radius")
