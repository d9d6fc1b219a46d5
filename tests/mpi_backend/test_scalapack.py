"""How ScaLAPACK is found, and where its grids have their ranks; what it computes is tested with linear algebra."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent / "programs" / "linalg_loading.py"


def test_scalapack_is_found_or_missed_by_name() -> None:
    # in a process of its own: MPI is initialised there, and libraries that are loaded stay loaded
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
