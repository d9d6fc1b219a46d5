"""Processes in namespaces of their own: own network, host name, PIDs, IPC, /tmp, /dev/shm and /run.

A process that is started inside is a real child of the test process: ``Popen.pid``, signals, exit codes and ``wait``
work as they always do. All PIDs here are those that the test process sees. When the test process ends, also by SIGKILL,
the kernel ends all that is inside.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import json
import os
import signal
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from alchemist_ray.mpi_backend.node.process_state import sockets_of

INIT = Path(__file__).with_name("namespace_init.py")
CHECKOUT = Path(__file__).parent.parent
CLONE_NEWPID = 0x20000000
LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}
"""Table in /proc/net -> state of a socket that waits for peers."""

libc = ctypes.CDLL(None, use_errno=True)


class Listener(NamedTuple):
    """A socket that waits for connections or packets. `pid` is None if no process inside has it open."""

    protocol: str
    address: str
    port: int
    pid: int | None


class Namespaces:
    """One set of namespaces, kept by its first process.

    The whole file system is visible inside, except what is below /tmp, /dev/shm and /run. There only the checkout, the
    Python environment and the `shared` directories are visible, at their usual paths.
    """

    def __init__(self, name, addresses="", shared=()):
        self.name = name
        self._processes = []
        visible = [str(Path(path).resolve()) for path in (CHECKOUT, sys.prefix, sys.base_prefix, *shared)]
        owner = os.pidfd_open(os.getpid())
        settings = json.dumps({"name": name, "addresses": addresses, "visible": visible, "owner": owner})
        own = ("--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child")
        self._starter = subprocess.Popen(
            ["unshare", *own, sys.executable, "-S", "-E", INIT, settings],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=[owner], start_new_session=True, text=True,
        )  # fmt: skip
        os.close(owner)

    @cached_property
    def init_pid(self) -> int:
        """The first process inside. Reading it waits until the namespaces are ready."""
        with self._starter.stdout as output:
            line = output.readline()
            if not line.strip().isdigit():
                raise OSError(f"{self.name} did not start: {line}{output.read()}")
        return int(line)

    @property
    def root(self) -> Path:
        """The path at which the test process sees the files inside: ``host.root / "tmp/log"``."""
        return Path(f"/proc/{self.init_pid}/root")

    def popen(self, argv, *, cwd="/tmp", **options) -> subprocess.Popen:
        """Start a process inside, in a session of its own. `cwd` is an absolute path inside.

        The options are those of :class:`subprocess.Popen`. A program that is not found exits with 127.
        """
        own = ("--net", "--uts", "--ipc", "--mount", f"--wd={self.root}{cwd}")
        command = ["nsenter", f"--target={self.init_pid}", *own, "--", *map(str, argv)]
        # In the parent's session, "kill my process group" inside would kill the tests: all groups outside are number 0.
        with _children_inside(self.init_pid):
            process = subprocess.Popen(command, start_new_session=True, **options)
        self._processes.append(process)
        return process

    def run(self, argv, *, input=None, timeout=60, check=True, **options) -> subprocess.CompletedProcess:  # noqa: A002
        """Run a process inside and return its output as text. The options are those of :meth:`popen`."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with self.popen(argv, **pipes | options) as process:
            try:
                output, errors = process.communicate(input, timeout)
            except BaseException:
                process.kill()
                raise
        if check and process.returncode:
            failure = subprocess.CalledProcessError(process.returncode, argv, output, errors)
            failure.add_note(f"on {self.name}: {errors}")
            raise failure
        return subprocess.CompletedProcess(argv, process.returncode, output, errors)

    def python(self, source: str | Path, *arguments, **options) -> subprocess.CompletedProcess:
        """Run Python code (a string) or a Python file (a Path) inside. The options are those of :meth:`run`."""
        program = [source] if isinstance(source, Path) else ["-c", source]
        return self.run([sys.executable, *program, *arguments], **options)

    def processes(self) -> dict[int, str]:
        """Return the processes inside with their command lines, without the first process."""
        found = {}
        inside = os.readlink(f"/proc/{self.init_pid}/ns/pid")
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # it has just ended
                if entry.name.isdigit() and os.readlink(entry / "ns/pid") == inside:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    found[int(entry.name)] = command or f"[{(entry / 'comm').read_text().strip()}]"
        found.pop(self.init_pid, None)
        return found

    def listeners(self) -> list[Listener]:
        """Return the TCP sockets that listen inside, and the UDP sockets that are not connected."""
        holders = {inode: pid for pid in self.processes() for inode in sockets_of(pid)}
        found = []
        for table, listening in LISTENING.items():
            for line in Path(f"/proc/{self.init_pid}/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == listening:
                    address, port = local.split(":")
                    found.append(Listener(table[:3], _address(address), int(port, 16), holders.get(inode)))
        return found

    def shared_memory(self) -> set[str]:
        """Return the names in /dev/shm inside."""
        return set(os.listdir(self.root / "dev/shm"))

    def is_alive(self) -> bool:
        """Return whether the first process runs."""
        return self._starter.poll() is None

    def close(self):
        """Kill all that is inside, and wait until it is gone. This is a power failure: no peer is told."""
        with contextlib.suppress(OSError):  # it did not start
            if self.is_alive():
                os.kill(self.init_pid, signal.SIGKILL)
        for process in self._processes:  # the namespace ends when its last process is reaped
            process.wait()
        self._starter.wait()


@contextlib.contextmanager
def _children_inside(init_pid):
    """Put the children that this thread starts into the PID namespace of another process."""
    theirs, ours = (os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY) for pid in (init_pid, "self"))
    try:
        _join_for_children(theirs)
        yield
    finally:
        _join_for_children(ours)
        os.close(theirs)
        os.close(ours)


def _join_for_children(namespace):
    if libc.setns(namespace, CLONE_NEWPID):
        raise OSError(ctypes.get_errno(), "setns of a PID namespace failed")


def _address(text):
    """Return the address that /proc/net writes as 32-bit words, each with its lowest byte first."""
    raw = bytes.fromhex(text)
    return str(ipaddress.ip_address(b"".join(raw[word : word + 4][::-1] for word in range(0, len(raw), 4))))
