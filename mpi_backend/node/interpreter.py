"""The Python that runs the ranks: the agent's own, or another one with its own MPI, mpi4py and NumPy.

The other Python need not have this package. It gets the directory of ours at the end of its search path, so that its
own packages win.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import alchemist_ray
from alchemist_ray._version import __version__

CHECK_SECONDS = 60.0
"""Time for an interpreter to import what ranks need; file systems of clusters can be slow."""

_ROOT = str(Path(alchemist_ray.__file__).resolve().parents[1])
_FIND = "import sys; sys.path.append(sys.argv.pop(1))"
_RUN = f"{_FIND}; import runpy; runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
_CHECK = f"""{_FIND}
import json, re, mpi4py
mpi4py.rc.initialize = False
import msgpack, numpy
from mpi4py import MPI
from alchemist_ray._version import __version__
mpi = " ".join(re.split("[\\n,\\0]", MPI.Get_library_version())[0].split())
print(json.dumps(dict(ours=__version__, python=sys.version.partition(" ")[0], mpi=mpi)))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that runs ranks.

    Attributes
    ----------
    path : str
        The program.
    """

    path: str = sys.executable

    @classmethod
    def find(cls, name: str) -> Interpreter:
        """Return the interpreter of that name or path; empty: the one that runs this.

        Raises
        ------
        NodeError
            If the program was not found.
        """
        from alchemist_ray.errors import NodeError  # late: it loads NumPy, and the warm process is started first

        path = shutil.which(name) if name else sys.executable
        if path is None:
            raise NodeError(f"{name} was not found: give --python the path of the Python that runs the ranks")
        return cls(os.path.abspath(path))

    def command(self, module: str, *arguments: str) -> list[str]:
        """Return the command that runs a module of this package."""
        # -P: a file in the current directory, which may belong to anybody, must not replace a module.
        return [self.path, "-P", "-c", _RUN, _ROOT, module, *arguments]

    def check(self, environment: Mapping[str, str]) -> str:
        """Import what ranks need; return in words which Python and which MPI it is.

        Raises
        ------
        NodeError
            If something is missing, or the interpreter has another version of this package.
        """
        from alchemist_ray.errors import NodeError

        try:
            ran = subprocess.run(
                [self.path, "-P", "-c", _CHECK, _ROOT],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=dict(environment),
                timeout=CHECK_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as failure:
            raise NodeError(f"{self.path} cannot run ranks: {failure}") from failure
        if ran.returncode != 0:
            said = ran.stderr.strip().rstrip(".").splitlines() or [f"it ended with status {ran.returncode}"]
            raise NodeError(f"{self.path} cannot run ranks: {said[-1]}. They need mpi4py, NumPy and msgpack")
        found = json.loads(ran.stdout.splitlines()[-1])
        if found["ours"] != __version__:
            raise NodeError(
                f"{self.path} has version {found['ours']} of alchemist-ray, and the node {__version__}: remove it there"
            )
        return f"Python {found['python']}, {found['mpi']}"
