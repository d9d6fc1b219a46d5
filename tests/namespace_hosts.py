"""Hosts on one machine, made of Linux namespaces, for tests of programs that run on several machines.

``Hosts(3)`` makes h1, h2 and h3 in about 0.3 s. Each has its own network interface, host name, PIDs, /tmp, /dev/shm and
/run; see :mod:`namespaces`. All hosts know the names of the others. A switch connects them with each other and with the
test process, which is at :attr:`Hosts.outside_address`. The hosts reach no other network and no name server.

>>> with Hosts(2) as hosts:
...     server = hosts[0].popen([sys.executable, "-m", "http.server"])
...     hosts.cut(hosts[0], hosts[1])

The switch is a bridge of the kernel. With a delay it is a program (:mod:`userspace_switch`), because many kernels have
no netem. Rules of nftables at the ports of the switch drop packets: for loss, and for links that are cut. The switch
has a network namespace of its own. One interface, ``alchemist<number>``, is all that appears on the machine itself. It
disappears with the test process.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from namespaces import Namespaces

SWITCH = Path(__file__).with_name("userspace_switch.py")
PROGRAMS = ("ip", "nft", "nsenter", "unshare")
TRIAL = """
ip link add name bridge0 type bridge && ip link add name port0 type veth peer name port1 &&
nft 'add table netdev trial; add chain netdev trial port { type filter hook egress device port0 priority 0; }'
"""


@functools.cache
def why_impossible() -> str:
    """Return why this machine cannot make hosts, or an empty text if it can."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"needs {', '.join(missing)}: try `make system-packages`"
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    own = ("--net", "--uts", "--ipc", "--mount", "--pid", "--fork")
    trial = subprocess.run(["unshare", *own, "sh", "-c", TRIAL], capture_output=True, text=True, check=False)
    return f"namespaces are not permitted here: {trial.stderr.strip()}" if trial.returncode else ""


def skip_without_hosts():
    """Skip the test, with the reason, if this machine cannot make hosts."""
    if reason := why_impossible():
        pytest.skip(reason)


@dataclass(frozen=True)
class Port:
    """A port of the switch and what is plugged in: a host, or the test process, which has the name ``outside``."""

    name: str
    address: str
    mac: str
    interface: str


class Host(Namespaces):
    """One host: see :class:`Namespaces` for what can be done inside."""

    def __init__(self, port: Port, addresses: str, shared: Sequence[os.PathLike | str]):
        super().__init__(port.name, addresses, shared)
        self.address = port.address
        self.interface = port.interface


class Hosts(Sequence):
    """Hosts on a switch; a context manager.

    Parameters
    ----------
    n
        How many. Their names are h1, h2, ...
    delay
        How many seconds each packet travels. A round trip takes twice as long. With any delay, also 0.0, the program is
        the switch; it carries about half of the bytes per second.
    loss
        The share of the packets that the switch drops. A packet of TCP has up to 64 KiB here.
    shared
        Directories below /tmp, /dev/shm or /run that all hosts shall see.
    """

    def __init__(self, n: int, *, delay: float | None = None, loss: float = 0.0, shared=()):
        self._loss = loss
        self._cuts: set[frozenset[str]] = set()
        with contextlib.ExitStack() as stack:
            self._switch = Namespaces("switch")
            stack.callback(self._switch.close)
            subnet = _claim_subnet(self._switch.init_pid)
            self._ports = [_port(subnet, number, f"h{number}", "eth0") for number in range(1, n + 1)]
            self.outside = _outside(subnet)
            stack.callback(subprocess.run, ["ip", "link", "delete", self.outside.interface], capture_output=True)
            addresses = "".join(f"{port.address} {port.name}\n" for port in (*self._ports, self.outside))
            self._hosts = []
            for port in self._ports:
                self._hosts.append(Host(port, f"127.0.0.1 localhost\n::1 localhost\n{addresses}", shared))
                stack.callback(self._hosts[-1].close)
            self._connect(delay)
            self._apply_rules()
            self._stack = stack.pop_all()

    def __len__(self):
        return len(self._hosts)

    def __getitem__(self, index):
        return self._hosts[index]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def outside_address(self) -> str:
        """The address at which hosts reach the test process, and from which it reaches them."""
        return self.outside.address

    def cut(self, *ends: Host | Port):
        """Drop all packets from and to one host, or those between two hosts. Nobody is told, and interfaces stay up.

        An end may also be :attr:`outside`, which stands for the test process.
        """
        self._cuts.add(_cut(ends))
        self._apply_rules()

    def restore(self, *ends: Host | Port):
        """Undo the :meth:`cut` with the same ends."""
        self._cuts.remove(_cut(ends))
        self._apply_rules()

    def close(self):
        """Kill all processes on the hosts, and remove the hosts and their network."""
        self._stack.close()

    def _connect(self, delay):
        """Lay the cables, give each end its addresses, and start the switch."""
        ports = [*self._ports, self.outside]
        if delay is None:
            plug = "master bridge up"
            _ip("link add name bridge type bridge", "link set bridge up", inside=self._switch)
        else:
            plug = "up"
        cables = [
            f"link add name {host.name} type veth peer name {port.interface} address {port.mac} netns {host.init_pid}"
            for host, port in zip(self._hosts, self._ports, strict=True)
        ]
        plugs = [f"link set {port.name} addrgenmode none {plug}" for port in ports]
        _ip(*cables, *plugs, inside=self._switch)
        for port, host in zip(ports, [*self._hosts, None], strict=True):
            # Neighbours are known, so that a cut is never reported as "No route to host".
            neighbours = [
                f"neighbour add {other.address} lladdr {other.mac} dev {port.interface} nud permanent"
                for other in ports
                if other is not port
            ]
            _ip(
                *(["link set lo up"] if host else []),
                f"link set {port.interface} addrgenmode none up",
                f"address add {port.address}/24 dev {port.interface}",
                *neighbours,
                inside=host,
            )
        if delay is not None:
            command = [sys.executable, "-S", "-E", SWITCH, str(delay), *(port.name for port in ports)]
            with self._switch.popen(command, stdout=subprocess.PIPE, text=True).stdout as output:
                if output.readline() != "ready\n":
                    raise OSError("the switch did not start; its error output says why")

    def _apply_rules(self):
        """Replace the rules that drop packets, all at once."""
        alive = [port for port, host in zip(self._ports, self._hosts, strict=True) if host.is_alive()]
        ports = [*alive, self.outside]
        commands = ["add table netdev hosts", "delete table netdev hosts", "add table netdev hosts"]
        for receiver in ports:  # its chain sees the packets that leave the switch towards it
            chain = f"netdev hosts {receiver.name}"
            commands.append(f"add chain {chain} {{ type filter hook egress device {receiver.name} priority 0; }}")
            if senders := [port.mac for port in ports if self._is_cut(port, receiver)]:
                commands.append(f"add rule {chain} ether saddr {{ {', '.join(senders)} }} drop")
            if self._loss:
                commands.append(f"add rule {chain} numgen random mod 1000000 < {round(self._loss * 1e6)} drop")
        _run(["nft", "-f", "-"], "\n".join(commands), self._switch)

    def _is_cut(self, one, other):
        return any(cut <= {one.name, other.name} for cut in self._cuts)


def _cut(ends):
    if len(ends) not in (1, 2):
        raise ValueError(f"a cut has one or two ends, not {len(ends)}")
    return frozenset(end.name for end in ends)


def _port(subnet, number, name, interface):
    return Port(name, f"10.77.{subnet}.{number}", f"02:00:0a:4d:{subnet:02x}:{number:02x}", interface)


def _outside(subnet):
    return _port(subnet, 254, "outside", f"alchemist{subnet}")


def _claim_subnet(switch):
    """Connect this network namespace with that of the switch. Return the number of a free subnet 10.77.<number>.0/24.

    The number is in the name of the interface. Names are unique, so no other test run has the same number.
    """
    listed = subprocess.run(["ip", "-json", "-4", "route"], capture_output=True, text=True, check=True).stdout
    routes = [ipaddress.ip_network(route["dst"]) for route in json.loads(listed) if route["dst"] != "default"]
    for number in range(256):
        if not any(route.overlaps(ipaddress.ip_network(f"10.77.{number}.0/24")) for route in routes):
            try:
                port = _outside(number)
                _ip(f"link add name {port.interface} address {port.mac} type veth peer name outside netns {switch}")
            except OSError as error:
                if "File exists" not in str(error):
                    raise
            else:
                return number
    raise OSError("all subnets 10.77.<number>.0/24 are in use")


def _ip(*commands, inside=None):
    """Run commands of the program ip, in the network namespace of a host or in that of this process."""
    _run(["ip", "-batch", "-"], "\n".join(commands), inside)


def _run(command, text, inside):
    """Run a program of this machine in the network namespace of a host or in that of this process."""
    if inside is not None:
        command = ["nsenter", f"--target={inside.init_pid}", "--net", "--", *command]
    ran = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise OSError(f"{' '.join(command)} failed: {ran.stderr.strip()}\n{text}")
