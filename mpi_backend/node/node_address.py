"""Where the ranks of a node listen, and where others reach them."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import psutil

from alchemist_ray.errors import NodeError
from alchemist_ray.transport.routes import address_towards, check_bindable

WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - the owner's choice
"""Addresses that stand for all interfaces."""


@dataclass(frozen=True)
class NodeAddress:
    """The addresses of a node.

    Attributes
    ----------
    advertised : str
        Where clients and other nodes reach its ranks: an address, or a host name.
    bound : str
        Where the ranks listen: the address of an interface of this host, or one of :data:`WILDCARDS`.
    own : str
        The address from which this host reaches the driver.
    """

    advertised: str
    bound: str
    own: str = ""

    @classmethod
    def find(cls, address: str, bind: str, own: str) -> NodeAddress:
        """Return the addresses of this host's node, and make sure that its ranks can listen there.

        Parameters
        ----------
        address, bind : str
            The options of these names: an address, a host name, or the name of a network interface; empty: not given.
        own : str
            The address from which this host reaches the driver.

        Raises
        ------
        NodeError
            If no program can listen there.
        """
        if not bind:
            bound = _address_of(address or own, "--address")
            _check(bound, "--address", address or own)
            return cls(bound if _is_interface(address) else address or own, bound, own)
        bound = _address_of(bind, "--bind")
        _check(bound, "--bind", bind)
        return cls(address or (own if bound in WILDCARDS else bound), bound, own)

    def interface_towards(self, peer: str) -> str:
        """Return the name of the network interface for MPI's messages to another node.

        Raises
        ------
        OSError
            If this host has no route to `peer`.
        """
        address = self.bound
        if address in WILDCARDS:
            address = self.own if peer in WILDCARDS else address_towards(peer)
        found = [name for name, own in _addresses().items() if address in own]
        if not found:
            raise OSError(f"no network interface of this host has the address {address}")
        return found[0]


def _is_interface(name: str) -> bool:
    return name in psutil.net_if_addrs()


def _addresses() -> dict[str, list[str]]:
    """Return the addresses of this host's network interfaces, IPv4 first."""
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        name: [
            each.address.partition("%")[0]
            for each in sorted(rows, key=lambda row: row.family)
            if each.family in families and not each.address.startswith("fe80")
        ]
        for name, rows in psutil.net_if_addrs().items()
    }


def _address_of(given: str, option: str) -> str:
    """Return the address of an interface, of a host name, or the address itself."""
    if given in WILDCARDS:
        return given
    if _is_interface(given):
        addresses = _addresses()[given]
        if not addresses:
            raise NodeError(f"the network interface {given} ({option}) has no address. {_known()}")
        return addresses[0]
    try:
        found = socket.getaddrinfo(given, None, type=socket.SOCK_STREAM)
    except OSError as failure:
        raise NodeError(
            f"{given} ({option}) is not an address, a host name or a network interface of this host "
            f"({failure.strerror}). {_known()}"
        ) from None
    return str(min(found, key=lambda row: row[0])[4][0])  # IPv4 first


def _check(bound: str, option: str, given: str) -> None:
    """Raise NodeError unless a program can listen at an address."""
    try:
        check_bindable(bound)
    except OSError as failure:
        shown = given if given == bound else f"{given} ({bound})"
        inside = " If others reach it by that address, through NAT, name an interface of this host with --bind."
        raise NodeError(
            f"the workers cannot listen at {shown}, which {option} names ({failure.strerror}). {_known()}"
            + (inside if option == "--address" else "")
        ) from None


def _known() -> str:
    named = [f"{name} {', '.join(own)}" for name, own in _addresses().items() if own]
    return f"This host has {'; '.join(named)}."
