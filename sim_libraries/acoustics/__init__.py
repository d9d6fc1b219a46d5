"""Sound in a room, and loudspeakers that are to silence a part of it: a simulation in C (:file:`acoustics.c`).

Servers offer it as the library ``acoustics``, and compile it when it is first loaded. In one's own process, it is
compiled when its class is first asked for: ``from alchemist_ray.sim_libraries.acoustics import Acoustics``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alchemist_ray.mpi_backend.ali.c.simulators import SimulatorInC

    Acoustics: type[SimulatorInC]

SOURCE = Path(__file__).with_name("acoustics.c")

ENVIRONMENT = {"lib_name": "acoustics", "max_episode_steps": 200}
"""The gymnasium environment that the package registers over this simulation."""


def __getattr__(name: str) -> Any:
    """Return the class of the simulation.

    Raises
    ------
    LibraryLoadError
        If it cannot be compiled.
    """
    if name != "Acoustics":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from alchemist_ray.mpi_backend.ali.c.sources import import_source

    kind = globals()[name] = import_source("acoustics", SOURCE).Acoustics
    return kind
