"""Run LAMMPS through the tasks and compare with LAMMPS' own gathering and with theory; run by test_lammps.py.

The first rank prints one line of JSON: the name of each case, and its fault or None.
"""

import json
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

from alchemist_ray.errors import AlchemistError
from alchemist_ray.layouts.layout import Layout
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext
from alchemist_ray.mpi_backend.libraries import lammps as tasks

comm = MPI.COMM_WORLD
folder = Path(sys.argv[1])
ctx = TaskContext(comm, "lammps.case", directories=(folder,))
bare = TaskContext(comm, "lammps.case")
found = []

BOX = "units lj\nregion box block 0 {0} 0 {0} 0 {0}\ncreate_box 1 box\nmass 1 1.0\n"
PAIR = "pair_style lj/cut {}\npair_coeff 1 1 1.0 1.0\nfix 1 all nve\n"
LIQUID = (
    "units lj\nlattice fcc 0.8442\nregion box block 0 4 0 4 0 4\ncreate_box 1 box\ncreate_atoms 1 box\nmass 1 1.0\n"
    "velocity all create ${T} 87287 mom yes\n" + PAIR.format(2.5) + "thermo 10\n"
)


def note(name, wrong):
    """Record a case with the fault of the first rank that has one."""
    said = [each for each in comm.allgather(wrong) if each is not None]
    found.append((name, said[0] if said else None))


def differs(A, B, rtol=1e-12):
    """Return a text on how two arrays differ, or None."""
    if A.shape != B.shape:
        return f"{A.shape}, not {B.shape}"
    error = np.abs(A - B).max(initial=0)
    return None if error <= rtol * max(np.abs(B).max(initial=0), 1) else f"off by {error}"


def of_lammps(number, name):
    """Return a property as LAMMPS itself gathers it, sorted by id."""
    lmp = tasks._simulations[number]._lammps
    kind, width = (1, 3) if name in ("x", "v", "f") else (0, 1)
    ids = np.array(lmp.gather_atoms_concat("id", 0, 1))
    return np.array(lmp.gather_atoms_concat(name, kind, width)).reshape(-1, width)[np.argsort(ids)]


def atoms(number, label):
    """Compare the results of the tasks with LAMMPS' own gathering."""
    for task, name in (("positions", "x"), ("velocities", "v"), ("forces", "f"), ("types", "type"), ("ids", "id")):
        A = getattr(tasks, task)(ctx, number)
        wrong = differs(A.to_global(), of_lammps(number, name), 0)
        note(f"{label} {task}", wrong or (None if A.layout.pair == "VC_STAR" else str(A.layout)))


def liquid():
    number = tasks.create(ctx, LIQUID, variables={"T": 3.0})
    tasks.run(ctx, number, 20)
    atoms(number, "liquid")
    X = tasks.positions(ctx, number)
    start = tasks.positions(ctx, number, unwrapped=True).to_global()
    energy = tasks.thermo(ctx, number)["E_pair"]
    said = tasks.run(ctx, number, 300)
    note("steps", None if (said["step"], said["atoms"]) == (320, 256) else str(said))
    note(
        "every tenth",
        differs(said["thermo"]["Step"], np.arange(20, 321, 10)),
    )
    free_matrix = tasks.positions(ctx, number, unwrapped=True)
    wrapped, free = tasks.positions(ctx, number).to_global(), free_matrix.to_global()
    box = tasks.box(ctx, number)
    turns = (free - wrapped) / (np.array(box["hi"]) - box["lo"])
    note("atoms have left the box", None if np.abs(turns).max() >= 1 else "none")
    note("wrapped by whole boxes", differs(turns, np.round(turns), 1e-9))
    note("the centre of mass rests", differs(free.mean(0), start.mean(0), 1e-10))
    atoms(number, "hot liquid")
    # Move the atoms back, from another layout: they must have their old energy, although they are on other ranks now.
    tasks.set_positions(ctx, number, X.relayout(Layout.of("MC_MR", X.shape, comm.size, block=(3, 2))))
    tasks.run(ctx, number, 0)
    width = np.array(box["hi"])
    offset = (tasks.positions(ctx, number).to_global() - X.to_global()) / width
    note("positions are set", differs(offset, np.round(offset)))
    note("and have their energy", differs(np.array(tasks.thermo(ctx, number)["E_pair"]), np.array(energy), 1e-7))
    tasks.set_positions(ctx, number, free_matrix)
    again = tasks.positions(ctx, number, unwrapped=True).to_global()
    note("positions set unwrapped are so", differs(again, free, 1e-13))
    note("and wrapped", differs(tasks.positions(ctx, number).to_global(), np.mod(free, width), 1e-12))
    tasks.set_positions(ctx, number, X)
    half = width / 2
    moved = X.to_global() + half  # every atom moves half a box, far away from its rank
    tasks.set_positions(ctx, number, DistMatrix.from_global(comm, moved, Layout.of("STAR_VR", moved.shape, comm.size)))
    tasks.run(ctx, number, 0)
    note(
        "atoms that go far are kept", differs(tasks.positions(ctx, number).to_global(), np.mod(moved, 2 * half), 1e-10)
    )
    note("with their energy", differs(np.array(tasks.thermo(ctx, number)["E_pair"]), np.array(energy), 1e-7))
    V = DistMatrix.from_global(comm, np.ones((256, 3), np.float32), Layout.of("CIRC_CIRC", (256, 3), comm.size))
    tasks.set_velocities(ctx, number, V)
    note("velocities are set", differs(tasks.velocities(ctx, number).to_global(), np.ones((256, 3))))
    tasks.command(ctx, number, "group few id 5 17 200:220\ndelete_atoms group few compress no")
    note("ids with gaps", None if tasks.ids(ctx, number).shape == (233, 1) else str(tasks.ids(ctx, number).shape))
    atoms(number, "gaps")
    tasks.run(ctx, number, 10)
    atoms(number, "gaps, moved")
    second = tasks.create(ctx)
    note("two at a time", None if second == number + 1 else str(second))
    lmp = tasks._simulations[second]._lammps
    tasks.command(ctx, second, BOX.format(5))
    setting = lmp.extract_setting
    lmp.extract_setting = lambda name: 8 if name == "imageint" else setting(name)  # as if built with LAMMPS_BIGBIG
    note(
        "wide image flags",
        refusal(lambda: tasks.positions(ctx, second, unwrapped=True), "ArgumentValueError", "BIGBIG"),
    )
    del lmp.extract_setting
    tasks.close(ctx, second)
    tasks.close(ctx, number)
    note("closed", refusal(lambda: tasks.thermo(ctx, number), "ArgumentValueError", f"no simulation {number}"))


def pair_of_atoms():
    """Two atoms at a distance r have the energy and the force of the Lennard-Jones potential."""
    r = 1.3
    script = (
        BOX.format(20) + f"create_atoms 1 single 9.7 10 10\ncreate_atoms 1 single {9.7 + r} 10 10\n" + PAIR.format(5)
    )
    number = tasks.create(ctx, script + "thermo_style custom step pe\nrun 0")
    force = 24 * (2 / r**13 - 1 / r**7)
    expected = np.array([[-force, 0, 0], [force, 0, 0]])
    note("forces of a pair", differs(tasks.forces(ctx, number).to_global(), expected, 1e-13))
    energy = 4 * (r**-12 - r**-6) / 2
    note("energy of a pair", differs(np.array(tasks.thermo(ctx, number)["PotEng"]), np.array(energy), 1e-7))
    note("expression", differs(np.array(tasks.evaluate(ctx, number, "2*pe")), np.array(2 * energy), 1e-13))
    tasks.close(ctx, number)
    empty = tasks.create(ctx, BOX.format(5))
    note("no atoms", None if tasks.positions(ctx, empty).shape == (0, 3) else "some")
    tasks.close(ctx, empty)


def output():
    text = LIQUID.replace("thermo 10", "thermo 5") + "thermo_modify line STYLE format float %15.8g\nrun 10\nrun 5\n"
    said = {
        style: tasks.run_script(ctx, text.replace("STYLE", style), variables={"T": 1.5})
        for style in ("one", "multi", "yaml")
    }
    for style in ("multi", "yaml"):
        for name in ("Temp", "E_pair", "TotEng", "Press"):
            wrong = [
                differs(a[name], b[name], 1e-3) for a, b in zip(said[style]["runs"], said["one"]["runs"], strict=True)
            ]
            note(f"{style} {name}", next((w for w in wrong if w), None))
    note("lengths", None if [len(t["Temp"]) for t in said["one"]["runs"]] == [3, 2] else "others")
    loop = "variable i loop 3\nlabel again\nrun 1\nnext i\njump SELF again\n"
    said = tasks.run_script(ctx, LIQUID + loop, variables={"T": 1})
    note("loops", None if (said["step"], len(said["runs"])) == (3, 3) else str(said))


def files():
    if comm.rank == 0:
        (folder / "liquid.in").write_text(LIQUID + "run 1\nwrite_data liquid.data\nlog sub.log\n")
        (folder / "out").symlink_to("/etc")
    comm.Barrier()
    said = tasks.run_script(ctx, path="liquid.in", variables={"T": [1, 2]})
    note("a script from a file", None if said["step"] == 1 else str(said))
    note("a file is written there", None if (folder / "liquid.data").is_file() else "it is not there")
    number = tasks.create(ctx, "units lj\npair_style lj/cut 2.5\nread_data liquid.data")
    note("and read", None if tasks.positions(ctx, number).shape == (256, 3) else "not all")
    tasks.close(ctx, number)
    if comm.size == 1:  # with more ranks the first fails alone
        note("no directories", refusal(lambda: tasks.run_script(bare, "log x.log"), "ArgumentValueError", "x.log"))
    note(
        "no directories to read",
        refusal(lambda: tasks.run_script(bare, path="liquid.in"), "FileRefusedError", "no files"),
    )
    note("a path out", refusal(lambda: tasks.run_script(ctx, path="out/passwd"), "FileRefusedError", "outside"))
    note("no such file", refusal(lambda: tasks.run_script(ctx, path="x.in"), "FileMissingError", "x.in"))


def refusal(act, error, text):
    """Return a text unless `act` raises `error`, or PeerFailedError on a rank without the fault."""
    try:
        act()
    except AlchemistError as failure:
        name = type(failure).__name__
        if name == "PeerFailedError" or (name == error and text in str(failure)):
            return None
        return f"{name}: {failure}"
    return "nothing was raised"


def mistakes():
    number = tasks.create(ctx, LIQUID, variables={"T": 1})
    for commands, text in (
        ("run 1\nfoo bar\nrun 1", "Unknown command: foo bar"),
        ("pair_style lj/cut nonsense", "at: pair_style lj/cut nonsense"),
        ("jump SELF nowhere", "Label wasn't found"),
        ("run 5 every", "run 5 every"),
    ):
        note(commands, refusal(lambda c=commands: tasks.command(ctx, number, c), "ArgumentValueError", text))
    tasks.command(ctx, number, PAIR.format(2.5).replace("fix", "#"))
    note("it lives on", None if tasks.run(ctx, number, 2)["step"] == 3 else "it has not stepped")
    thin = DistMatrix.from_global(comm, np.ones((256, 2)), Layout.of("VC_STAR", (256, 2), comm.size))
    wild = DistMatrix.from_global(comm, np.full((256, 3), np.inf), Layout.of("VC_STAR", (256, 3), comm.size))
    blank = tasks.create(ctx)
    for name, act, error, text in (
        ("shape", lambda: tasks.set_positions(ctx, number, thin), "ArgumentValueError", "256x3"),
        ("Inf", lambda: tasks.set_positions(ctx, number, wild), "NonFiniteError", "matrix A"),
        ("complex", lambda: tasks.set_velocities(ctx, number, complex_of(wild)), "ArgumentValueError", "complex128"),
        ("no box", lambda: tasks.positions(ctx, blank), "ArgumentValueError", "no box yet"),
        ("box", lambda: tasks.box(ctx, blank), "ArgumentValueError", "no box yet"),
        ("steps", lambda: tasks.run(ctx, number, -1), "ArgumentValueError", "-1"),
        ("neither", lambda: tasks.run_script(ctx), "ArgumentValueError", "either"),
        ("both", lambda: tasks.run_script(ctx, "", path="x"), "ArgumentValueError", "either"),
        ("name", lambda: tasks.create(ctx, variables={"a b": 1}), "ArgumentValueError", "a b"),
        ("value", lambda: tasks.create(ctx, variables={"a": "../x"}), "ArgumentValueError", "../x"),
    ):
        note(name, refusal(act, error, text))
    without = tasks.create(ctx, "atom_modify id no\n" + BOX.format(9) + "create_atoms 1 single 1 1 1")
    note("no ids", refusal(lambda: tasks.ids(ctx, without), "ArgumentValueError", "no ids"))
    for each in (number, blank, without):
        tasks.close(ctx, each)


def complex_of(A):
    return DistMatrix.from_global(comm, np.ones(A.shape, complex), A.layout)


for cases in (pair_of_atoms, liquid, output, files, mistakes):
    cases()
if comm.rank == 0:
    print(json.dumps(found))
