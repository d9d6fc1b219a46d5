"""What starts the ranks of a node: a warm process, or the site's own MPI.

Agents call :func:`launcher_of` before they import anything else, as the warm process takes longest to start. So this
module imports little, and the rest only after the warm process has been started.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from typing import TYPE_CHECKING

from alchemist_ray.host.loading import loading_modules
from alchemist_ray.mpi_backend.node.interpreter import Interpreter
from alchemist_ray.mpi_backend.node.warm_process import WarmProcess

if TYPE_CHECKING:
    from alchemist_ray.mpi_backend.node.local_group import RankLauncher

log = logging.getLogger("alchemist")


def launcher_of(mpi: str, mpiexec: str = "", python: str = "") -> RankLauncher:
    """Return what starts the ranks.

    Parameters
    ----------
    mpi, mpiexec, python : str
        As in :class:`.NodeSettings`.

    Raises
    ------
    NodeError
        If the interpreter or mpiexec is missing, or lacks something that ranks need.
    """
    environment = _environment_of_ranks()
    warm = None
    # The word is FORK of protocol.server_options, which takes longer to import than all that is here.
    if mpi == "fork" and not python and importlib.util.find_spec("mpi4py") is not None:
        warm = WarmProcess(Interpreter(), environment)
    with loading_modules():
        from alchemist_ray.errors import NodeError
        from alchemist_ray.mpi_backend.node.forked_ranks import ForkLauncher
        from alchemist_ray.mpi_backend.node.site_mpi import SiteLauncher

    if warm is not None:
        return ForkLauncher(warm)
    if not python and importlib.util.find_spec("mpi4py") is None:
        raise NodeError("mpi4py is missing: pip install 'alchemist-ray[server]'")
    interpreter = Interpreter.find(python)
    if mpi == SiteLauncher.mpi:
        launcher = SiteLauncher.find(mpiexec, interpreter, environment)
        log.info("%s starts the ranks: %s", launcher.name, interpreter.check(environment))
        return launcher
    log.info("The ranks run in another Python: %s", interpreter.check(environment))
    return ForkLauncher(WarmProcess(interpreter, environment))


def _environment_of_ranks() -> dict[str, str]:
    """Return this process's environment without the server's token, which libraries must not see."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ALCHEMIST_TOKEN")}
