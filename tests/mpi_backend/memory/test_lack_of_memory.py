"""Linear algebra with too little memory on one rank: all ranks learn of it."""

from tests_support import PROGRAMS, mpirun


def test_no_task_fails_on_one_rank_alone() -> None:
    *alone, failures = mpirun(1, PROGRAMS / "lack_of_memory.py").splitlines()
    assert not alone, "\n".join(alone)
    assert int(failures) > 200
