"""The settings of MPICH for the ranks of a group: how they talk on one host, and between hosts."""

from __future__ import annotations

import os

import psutil

from alchemist_ray.transport.routes import address_towards

ONE_HOST = {"MPIR_CVAR_CH4_NETMOD": "ucx", "UCX_TLS": "self,posix,cma"}
"""Ranks on one host talk through MPICH's own shared memory. The network module is only started. With these transports
it listens on no network; by default it listens on all of them. OFI with its provider ``shm`` starts a little faster.
But it needs files in /dev/shm. A killed group leaves them behind, and MPI_Abort hangs once their names are removed.
"""

BETWEEN_HOSTS = {"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp"}
"""UCX loses messages when a rank receives from any source while several send: see tests/hosts/test_groups.py."""


WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - the owner's choice
"""Addresses that stand for all interfaces."""


def mpi_environment(address: str, peer: str) -> dict[str, str]:
    """Return environment variables for the ranks of a group; those that the agent's owner has set stay as they are.

    Parameters
    ----------
    address : str
        Address of this node. Its interface carries the messages between hosts.
    peer : str
        Address of another node of the group; empty: the whole group is on this host.

    Raises
    ------
    OSError
        If no interface of this host has the address.
    """
    chosen = ONE_HOST
    if peer:
        interface = interface_of(address_towards(peer) if address in WILDCARDS else address)
        chosen = {**BETWEEN_HOSTS, "FI_TCP_IFACE": interface}
    return {name: value for name, value in chosen.items() if name not in os.environ}


def interface_of(address: str) -> str:
    """Return the name of the network interface that has an address; raise OSError if none has it."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address.partition("%")[0] == address for each in addresses):
            return name
    raise OSError(f"no network interface of this host has the address {address}: give the node another --address")
