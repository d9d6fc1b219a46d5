"""LAMMPS scripts that set up the shipped systems, in reduced Lennard-Jones units.

The variable ``depth`` is the depth of the potential. Energies and temperatures scale with it.

melt
    Atoms on a face-centred cubic lattice in a periodic cube, which is melted before an episode begins. The potential is
    cut off and force-shifted at 2.5. Energy and force vanish there, so the crystal's energy does not jump where a shell
    of neighbours meets the cutoff (Toxvaerd & Dyre, J. Chem. Phys. 134, 2011, 081102).
cluster
    A few atoms in empty space that interact without a cutoff, as in the Cambridge Cluster Database (Wales & Doye, J.
    Phys. Chem. A 101, 1997, 5111). A spherical container keeps evaporated atoms. Its wall is a spring that acts on
    atoms less than 1 away from it. A cluster in the middle does not touch the wall.
"""

from __future__ import annotations

_MELT = """
units lj
atom_style atomic
lattice fcc {density}
region box block 0 {cells} 0 {cells} 0 {cells}
create_box 1 box
create_atoms 1 box
mass 1 1.0
pair_style lj/smooth/linear 2.5
pair_coeff 1 1 ${{depth}} 1.0
neighbor 0.3 bin
neigh_modify every 2 delay 4 check yes
timestep 0.01
"""

_CLUSTER = """
units lj
atom_style atomic
boundary f f f
region box block -{half} {half} -{half} {half} -{half} {half}
create_box 1 box
region container sphere 0 0 0 {radius}
region inner sphere 0 0 0 {inner}
create_atoms 1 random {atoms} 4711 inner overlap 0.8 maxtry 10000
mass 1 1.0
pair_style lj/cut {cutoff}
pair_coeff 1 1 ${{depth}} 1.0
neighbor 1.0 nsq
neigh_modify every 1 delay 20 check yes
timestep 0.01
fix container all wall/region container harmonic 20.0 1.0 1.0
fix_modify container energy yes
min_style cg
minimize 0.0 1.0e-4 1000 10000
"""

SHELL = {"melt": 1.40, "cluster": 1.45}
"""Distance up to which atoms are neighbours. For the melt it is in units of the density to the power -1/3."""


def cells_for(atoms: int) -> int:
    """Return the number of cells, of four atoms each, along an edge of a cube of `atoms`; 0 if no such cube exists."""
    cells = round((atoms / 4) ** (1 / 3))
    return cells if 4 * cells**3 == atoms else 0


def melt(atoms: int, density: float) -> str:
    """Return the script of the melt. `atoms` must be 4 n^3."""
    return _MELT.format(density=density, cells=cells_for(atoms))


def cluster(atoms: int) -> str:
    """Return the script of the cluster."""
    radius = 1.0 + 2.5 * (atoms / 38) ** (1 / 3)
    return _CLUSTER.format(atoms=atoms, radius=radius, inner=radius - 1.0, half=radius + 1.5, cutoff=2 * radius + 1.0)
