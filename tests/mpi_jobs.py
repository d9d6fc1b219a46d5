"""MPI jobs that run one program after the other: starting an MPI job costs more than most programs of the tests.

There is one job for each number of ranks, started on first use. Between programs its ranks read from a pipe, where they
use no processor. A program is a file that ends in ``if __name__ == "__main__"``; it finds its arguments in ``sys.argv``
and its own folder on ``sys.path``. Modules of that folder are imported again for each program. A program that fails
ends its job, so that no other program meets the state that the failure left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import re
import runpy
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

SECONDS = 110
"""How long a program may take."""


def mpi_environment(size: int) -> dict[str, str]:
    """Return the environment of a job: one thread a rank. More ranks than cores sleep where others spin."""
    throttle = "1" if size > (os.cpu_count() or 1) else "0"
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return os.environ | threads | {"MPIR_CVAR_CH4_PROGRESS_THROTTLE": throttle}


# --- the side of the tests --------------------------------------------------------------------------------------------


class Job:
    """An MPI job that waits for programs.

    Parameters
    ----------
    size
        The number of ranks.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._number = 0
        self._folder = Path(tempfile.mkdtemp(prefix="alchemist-tests-"))
        for name in ("outcomes", *map(str, range(size))):
            os.mkfifo(self._folder / name)
        # Opened for both directions, so that opening waits for nobody. The ranks end when these files are closed.
        self._orders = [os.open(self._folder / str(rank), os.O_RDWR) for rank in range(size)]
        self._outcomes = os.open(self._folder / "outcomes", os.O_RDWR)
        mpiexec = Path(sys.executable).with_name("mpiexec")
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [mpiexec, "-n", str(size), sys.executable, "-m", "mpi4py", __file__, self._folder],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=mpi_environment(size),
            )  # fmt: skip

    def run(self, program: Path, arguments: tuple[str, ...]) -> str:
        """Run a program on all ranks; return what it has printed, rank by rank.

        Raises
        ------
        AssertionError
            If it fails on a rank, takes too long, or ends the job.
        """
        self._number += 1
        order = json.dumps({"number": self._number, "program": str(program), "arguments": arguments})
        for pipe in self._orders:
            os.write(pipe, order.encode() + b"\n")
        deadline, text, done = time.monotonic() + SECONDS, b"", 0
        while done < self._size:
            if select.select([self._outcomes], [], [], 0.2)[0]:
                text += os.read(self._outcomes, 4096)
                *lines, text = text.split(b"\n")
                done += len(lines)
                assert all(line == b"done" for line in lines), self._said("failed", program)
            else:
                assert self._process.poll() is None, self._said("ended its job", program)
                assert time.monotonic() < deadline, self._said(f"did not end within {SECONDS} s", program)
        return self._read("out")

    def _said(self, what: str, program: Path) -> str:
        """Return what there is to say about a failure; other ranks may have more to print of it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        log = (self._folder / "log").read_text(errors="replace")
        printed = self._read("out")[-2000:] + self._read("err")[-4000:] + log[-2000:]
        return f"{program.name} on {self._size} ranks {what}\n{printed}"

    def _read(self, kind: str) -> str:
        files = (self._folder / f"{self._number}.{rank}.{kind}" for rank in range(self._size))
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def close(self, seconds: float = 10) -> None:
        """End the job; kill it if it does not end within `seconds`."""
        for pipe in (*self._orders, self._outcomes):
            os.close(pipe)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self._process.terminate()  # mpiexec then ends the ranks
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


_jobs: dict[int, Job] = {}


def run_program(size: int, program: Path, *arguments: str) -> str:
    """Run a program on `size` ranks of a job that is kept; return what it prints."""
    job = _jobs.pop(size, None) or Job(size)
    try:
        printed = job.run(program, arguments)
    except BaseException:
        job.close(seconds=0)
        raise
    _jobs[size] = job
    return printed


def close_jobs() -> None:
    """End all jobs that are kept."""
    while _jobs:
        _jobs.popitem()[1].close()


# --- the side of the ranks --------------------------------------------------------------------------------------------


def _serve(folder: Path) -> None:
    from mpi4py import MPI

    rank = MPI.COMM_WORLD.rank
    _remove_names_of_shared_memory(MPI.COMM_WORLD)
    with (folder / str(rank)).open() as orders, (folder / "outcomes").open("wb", buffering=0) as outcomes:
        for line in orders:
            order = json.loads(line)
            name = f"{order['number']}.{rank}"
            done = _run_here(order, folder / f"{name}.out", folder / f"{name}.err")
            outcomes.write(b"done\n" if done else b"failed\n")


def _remove_names_of_shared_memory(comm: Any) -> None:
    """Remove the names of the job's segments once all ranks have mapped them: a killed job would leave them behind."""
    comm.barrier()
    maps = Path("/proc/self/maps").read_text()
    comm.barrier()
    for name in set(re.findall(r"/dev/shm/mpich\S+", maps)):
        Path(name).unlink(missing_ok=True)


def _run_here(order: dict[str, Any], out: Path, err: Path) -> bool:
    """Run a program in this process, with files in place of its output; return whether it ended well."""
    folder, arguments, path = str(Path(order["program"]).parent), sys.argv, sys.path.copy()
    sys.argv, sys.path[:0] = [order["program"], *order["arguments"]], [folder]
    with _redirected(1, out), _redirected(2, err):
        try:
            runpy.run_path(order["program"], run_name="__main__")
            done = True
        except SystemExit as end:
            done = not end.code
        except BaseException:  # noqa: BLE001 - a program of a test can raise anything
            traceback.print_exc()
            done = False
    sys.argv, sys.path[:] = arguments, path
    for name, module in list(sys.modules.items()):
        if str(Path(getattr(module, "__file__", None) or "/").parent) == folder:
            del sys.modules[name]
    gc.collect()
    return done


@contextlib.contextmanager
def _redirected(descriptor: int, target: Path):
    """Have a file take what Python and C write to a file descriptor."""
    _flush()
    saved = os.dup(descriptor)
    with target.open("wb") as file:
        os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        _flush()
        os.dup2(saved, descriptor)
        os.close(saved)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
