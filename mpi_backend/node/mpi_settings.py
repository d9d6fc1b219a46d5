"""The settings of MPICH for the ranks of a group: how they talk on one host, and between hosts."""

from __future__ import annotations

import os

ONE_HOST = {"MPIR_CVAR_CH4_NETMOD": "ucx", "UCX_TLS": "self,posix,cma"}
"""Ranks on one host talk through MPICH's own shared memory. The network module is only started. With these transports
it listens on no network; by default it listens on all of them. OFI with its provider ``shm`` starts a little faster.
But it needs files in /dev/shm. A killed group leaves them behind, and MPI_Abort hangs once their names are removed.
"""

BETWEEN_HOSTS = {"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp"}
"""UCX loses messages when a rank receives from any source while several send: see tests/hosts/test_groups.py."""


def mpi_environment(interface: str) -> dict[str, str]:
    """Return environment variables for the ranks of a group; those that the agent's owner has set stay as they are.

    Parameters
    ----------
    interface : str
        Name of the network interface that carries the messages between hosts; empty: the whole group is on this host.
    """
    chosen = {**BETWEEN_HOSTS, "FI_TCP_IFACE": interface} if interface else ONE_HOST
    return {name: value for name, value in chosen.items() if name not in os.environ}
