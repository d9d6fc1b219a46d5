"""Loading of ScaLAPACK, and the ranks of its grids; the tests of linear algebra cover its results."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parent / "programs" / "linalg_loading.py"


def test_scalapack_is_found_or_missed_by_name() -> None:
    # in a separate process, because it initialises MPI and loaded libraries stay loaded
    done = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
