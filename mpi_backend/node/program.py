"""The node agent beside a driver, as a process of its own: ``python -m alchemist_ray.mpi_backend.node.program``.

Its arguments are the process id of the driver, and how to start ranks (:func:`.launching.launcher_of`). What starts the
ranks is started first, and loads its modules while this process loads those of the agent (:mod:`.beside_driver`).
"""

from __future__ import annotations

import json
import signal
import sys

from alchemist_ray.host.loading import loading_modules
from alchemist_ray.mpi_backend.node.launching import launcher_of
from alchemist_ray.mpi_backend.worker.parent_death import die_with_parent


def main(parent: int, mpi: str, mpiexec: str, python: str) -> int:
    """Run the agent of the driver `parent`; return the exit status."""
    die_with_parent(parent)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the driver decides when it ends
    try:
        launcher = launcher_of(mpi, mpiexec, python)
    except Exception as failure:  # noqa: BLE001 - the classes of our errors are not loaded yet
        sys.stdout.write(json.dumps({"error": str(failure)}) + "\n")
        return 1
    with loading_modules():
        from alchemist_ray.mpi_backend.node.beside_driver import serve_driver

    return serve_driver(launcher)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
