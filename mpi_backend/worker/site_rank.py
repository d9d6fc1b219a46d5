"""The program of a rank that the site's own MPI starts: ``mpiexec -n N python -m ...worker.site_rank``.

It captures its output before MPI starts. What it prints before its log has a name goes to the output of mpiexec.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

from alchemist_ray.mpi_backend.worker.output import Output, capture
from alchemist_ray.mpi_backend.worker.parent_death import die_with_parent
from alchemist_ray.protocol.worker_config import ENVIRONMENT, WorkerConfig

log = logging.getLogger("alchemist")


def main() -> int:
    """Run this rank; return the exit status."""
    die_with_parent(os.getppid())
    with contextlib.suppress(PermissionError):  # it is the leader of its session
        os.setpgid(0, 0)  # so that it can be killed together with what it has started
    return _run(capture(), WorkerConfig.from_json(os.environ.pop(ENVIRONMENT)))


def _run(output: Output, config: WorkerConfig) -> int:
    from alchemist_ray.errors import AlchemistError  # these imports take long, and their errors must be captured
    from alchemist_ray.mpi_backend.logs import configure_logging
    from alchemist_ray.mpi_backend.worker import worker
    from alchemist_ray.protocol import Key
    from alchemist_ray.protocol.connection import Purpose
    from alchemist_ray.transport.channel import Channel

    configure_logging("worker")
    comm = worker.start_mpi()
    if comm.size != config.size:
        log.error(
            "the MPI library (%s) made a world of %d ranks instead of %d, since the mpiexec of another MPI has "
            "started them: give --mpiexec that of this MPI library",
            worker.library_version(),
            comm.size,
            config.size,
        )
        worker.unname_shared_memory()  # that mpiexec does not clean up
        worker.end_mpi()
        return 1
    agent = config.agent or ("", 0)  # the agent has set it
    config = _placed(config, agent[0])
    output.name(Path(config.log_of(comm.rank)))
    configure_logging(config.name_of(comm.rank))
    try:
        link = Channel.open(agent, Purpose.LINK, Key.of(config.ticket), config.group_id)
    except (AlchemistError, OSError) as failure:
        log.error("The worker could not reach its node agent: %s", failure)
        comm.Abort(1)
        raise
    return worker.run_rank(config, comm, link)


def _placed(config: WorkerConfig, agent: str) -> WorkerConfig:
    """Return the configuration for this host: one that is not the agent's listens on an address of its own."""
    from alchemist_ray.transport.routes import address_towards

    if socket.gethostname() == config.agent_host:
        return config
    for directory in (config.log_dir, config.scratch):
        Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    here = address_towards(agent)
    return replace(config, bind=here, advertise=here)


if __name__ == "__main__":
    sys.exit(main())
