"""Print flags for ``alchemist_ali.h``: ``mpicc -shared -fPIC $(python -m alchemist_ray.mpi_backend.ali --cflags)``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

_FOLDER = Path(__file__).parent / "c"


def main() -> None:
    """Print the compiler flags or the folder of the examples, as the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m alchemist_ray.mpi_backend.ali", description=__doc__)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--cflags", action="store_true", help="compiler flags for alchemist_ali.h")
    wanted.add_argument("--examples", action="store_true", help="folder of the examples in C and C++")
    asked = parser.parse_args()
    sys.stdout.write(f"-I{_FOLDER / 'include'}\n" if asked.cflags else f"{_FOLDER / 'examples'}\n")


if __name__ == "__main__":
    main()
