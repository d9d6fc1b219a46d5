"""What mpiexec and srun say about the end of a rank, as they said it."""

import pytest

from alchemist_ray.mpi_backend.node.job_output import Saying, find_error, find_saying

pytestmark = pytest.mark.quick

OPEN_MPI_4_ABORT = """\
--------------------------------------------------------------------------
MPI_ABORT was invoked on rank 1 in communicator MPI COMMUNICATOR 3 DUP FROM 0
with errorcode 7.

NOTE: invoking MPI_ABORT causes Open MPI to kill all MPI processes.
"""
OPEN_MPI_5_ABORT = """\
--------------------------------------------------------------------------
MPI_ABORT was invoked on rank 3 in communicator MPI_COMM_WORLD
  Proc: [[42171,1],3]
  Errorcode: -7

NOTE: invoking MPI_ABORT causes Open MPI to kill all MPI processes.
--------------------------------------------------------------------------
prterun has exited due to process rank 3 with PID 12410 on node vm calling
"abort". This may have caused other processes in the application to be
"""
OPEN_MPI_4_SIGNAL = "mpiexec noticed that process rank 1 with PID 0 on node vm exited on signal 9 (Killed).\n"
OPEN_MPI_5_SIGNAL = """\
prterun noticed that process rank 12 with PID 12361 on node vm exited on
signal 11 (Segmentation fault).
"""
OPEN_MPI_4_STATUS = """\
mpiexec detected that one or more processes exited with non-zero status, thus causing
the job to be terminated. The first process to do so was:

  Process name: [[23622,1],1]
  Exit code:    3
"""
OPEN_MPI_5_STATUS = """\
   Process name: [prterun-vm-12455@1,0]
   Exit code:    3
"""
MPICH_ABORT = "Abort(7) on node 1 (rank 0 in comm 496): application called MPI_Abort(comm=0x84000003, 7) - process 1\n"
HYDRA_SIGNAL = """\
===================================================================================
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 23515 RUNNING AT vm
=   EXIT CODE: 11
=   CLEANING UP REMAINING PROCESSES
=   YOU CAN IGNORE THE BELOW CLEANUP MESSAGES
===================================================================================
YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Segmentation fault (signal 11)
"""
INTEL_SIGNAL = """\
===================================================================================
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   RANK 1 PID 23515 RUNNING AT vm
=   KILLED BY SIGNAL: 9 (Killed)
===================================================================================
"""


@pytest.mark.parametrize(
    ("output", "saying"),
    [
        (OPEN_MPI_4_ABORT, Saying("called MPI_Abort with code 7", rank=1)),
        (OPEN_MPI_5_ABORT, Saying("called MPI_Abort with code -7", rank=3)),
        (OPEN_MPI_4_SIGNAL, Saying("was killed by SIGKILL", rank=1)),
        (OPEN_MPI_5_SIGNAL, Saying("was killed by SIGSEGV", rank=12)),
        (OPEN_MPI_4_STATUS, Saying("ended with status 3", rank=1)),
        (OPEN_MPI_5_STATUS, Saying("ended with status 3", rank=0)),
        (MPICH_ABORT, Saying("called MPI_Abort with code 7", rank=1)),
        (HYDRA_SIGNAL, Saying("was killed by SIGSEGV", pid=23515)),
        (INTEL_SIGNAL, Saying("was killed by SIGKILL", rank=1, pid=23515)),
        ("srun: error: n1: task 1: Killed\n", Saying("ended (Killed)", rank=1)),
        ("srun: error: n1: task 0: Exited with exit code 3\n", Saying("ended with status 3", rank=0)),
        (f"something else\n{OPEN_MPI_4_ABORT}{OPEN_MPI_4_STATUS}", Saying("called MPI_Abort with code 7", rank=1)),
    ],
)
def test_the_end_of_a_rank_is_understood(output, saying):
    assert find_saying(output) == saying


@pytest.mark.parametrize("output", ["", "rank 1 is fine\n", "\0\0", "Exit code: 3\n"])
def test_other_output_is_not(output):
    assert find_saying(output) is None


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("", ""),
        (
            "Traceback (most recent call last):\n  File\nModuleNotFoundError: No module named 'numpy'\n",
            "ModuleNotFound",
        ),
        ("ImportError: first\nmpi4py.MPI.Exception: MPI_ERR_OTHER\nand more\n", "mpi4py.MPI.Exception: MPI_ERR_OTHER"),
        ("[2026-12-01 00:36:15.733] [worker] [error] the MPI library\n-----\n", "the MPI library"),
    ],
)
def test_the_last_error_before_a_rank_was_ready_is_found(output, error):
    found = find_error(output)
    assert found.startswith(error)
    assert bool(found) == bool(error)
