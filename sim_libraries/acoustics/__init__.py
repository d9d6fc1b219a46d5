"""Sound in a room with loudspeakers that make a part of it quiet: a simulation in C (:file:`acoustics.c`).

A server offers it as the library ``acoustics`` and compiles it when it is first loaded. To use the class in your own
process, import it, which compiles it as well: ``from alchemist_ray.sim_libraries.acoustics import Acoustics``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alchemist_ray.mpi_backend.ali.c.simulators import SimulatorInC

    Acoustics: type[SimulatorInC]

SOURCE = Path(__file__).with_name("acoustics.c")

ENVIRONMENT = {"lib_name": "acoustics", "max_episode_steps": 200}
"""The gymnasium environment that the package registers for this simulation."""


def __getattr__(name: str) -> Any:
    """Compile the simulation when ``Acoustics`` is imported, and return its class.

    Raises
    ------
    LibraryLoadError
        If the source cannot be compiled.
    """
    if name != "Acoustics":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from alchemist_ray.mpi_backend.ali.c.sources import import_source

    kind = globals()[name] = import_source("acoustics", SOURCE).Acoustics
    return kind
