"""MPI jobs that run one program after the other: what a program sees, and what its failure leaves."""

from __future__ import annotations

import pytest
from mpi_jobs import Job

PROGRAM = """
import ctypes, os, sys
import beside
from mpi4py import MPI

if __name__ == "__main__":
    beside.COUNT += 1
    rank = MPI.COMM_WORLD.rank
    print(rank, sys.argv[1:], beside.COUNT, MPI.COMM_WORLD.allreduce(1), os.getpid(), flush=True)
    ctypes.CDLL(None).puts(b"from C %d" % rank)
"""
FAILING = """
from mpi4py import MPI
if MPI.COMM_WORLD.rank == 1:
    raise ValueError("on one rank alone")
MPI.COMM_WORLD.barrier()
"""
CRASHING = """
import os
os.kill(os.getpid(), 11)
"""


@pytest.fixture
def job():
    started = Job(2)
    yield started
    started.close(seconds=0)


@pytest.fixture
def write(tmp_path):
    def save(name, text):
        (tmp_path / "beside.py").write_text("COUNT = 0\n")
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return save


def test_programs_run_in_one_job_and_each_in_modules_of_its_own(job, write):
    program = write("program.py", PROGRAM)
    first, again = (job.run(program, arguments).splitlines() for arguments in (("a", "b"), ()))
    assert [line.rsplit(" ", 1)[0] for line in first] == ["0 ['a', 'b'] 1 2", "from C", "1 ['a', 'b'] 1 2", "from C"]
    assert [line.rsplit(" ", 1)[0] for line in again] == ["0 [] 1 2", "from C", "1 [] 1 2", "from C"]
    assert [line.split()[-1] for line in first] == [line.split()[-1] for line in again]


def test_a_failure_on_one_rank_is_told_while_the_other_waits(job, write):
    with pytest.raises(AssertionError, match=r"failing.py on 2 ranks failed(.|\n)*ValueError: on one rank alone"):
        job.run(write("failing.py", FAILING), ())


@pytest.mark.parametrize(("status", "fails"), [("0", False), ("None", False), ("3", True), ("'a text'", True)])
def test_a_program_may_exit(job, write, status, fails):
    program = write("exiting.py", f"import sys\nprint('printed')\nsys.exit({status})\n")
    if fails:
        with pytest.raises(AssertionError, match=r"exiting.py on 2 ranks failed(.|\n)*printed"):
            job.run(program, ())
    else:
        assert job.run(program, ()) == "printed\n" * 2


def test_a_crash_is_told(job, write):
    with pytest.raises(AssertionError, match=r"crashing.py on 2 ranks ended its job"):
        job.run(write("crashing.py", CRASHING), ())
