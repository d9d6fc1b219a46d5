"""The first process of a host: it gives the host its own files, says that it is ready, and waits until its owner ends.

:mod:`namespaces` runs this file in new namespaces, with a Python that imports no ``site``. The host ends with this
process, because the kernel kills every process of a PID namespace whose first process ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

PRIVATE = {"/tmp": "mode=1777", "/dev/shm": "mode=1777", "/run": "mode=755"}
"""The directories that each host has for itself, empty at the start -> options of their file systems."""
MS_BIND, MS_REC = 0x1000, 0x4000

libc = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind="", flags=0, options=""):
    """Call mount(2), and raise an OSError if it fails."""
    if libc.mount(*(os.fsencode(text) for text in (source, target, kind)), ctypes.c_ulong(flags), options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def bind(directory, target):
    """Show an open directory, also one that a later mount has covered, at the path `target`."""
    mount(f"/proc/self/fd/{directory}", target, flags=MS_BIND | MS_REC)


def make_private_directories(visible):
    """Give the host its own empty directories, and show those directories below them that are `visible`."""
    covered = {path: os.open(path, os.O_PATH) for path in visible if any(map(Path(path).is_relative_to, PRIVATE))}
    for path, options in PRIVATE.items():
        mount("tmpfs", path, "tmpfs", options=options)
    for path, directory in covered.items():
        os.makedirs(path, exist_ok=True)
        bind(directory, path)
        os.close(directory)


def replace_file(path, text):
    """Give the host its own text of a file. A file that is not there stays away."""
    if os.path.exists(path):
        mine = Path("/tmp/replacement")
        mine.write_text(text)
        mount(mine, path, flags=MS_BIND)
        mine.unlink()


def show_own_devices():
    """Show the host's own network devices in /sys, and the control groups that were there before."""
    groups = os.open("/sys/fs/cgroup", os.O_PATH)
    with contextlib.suppress(OSError):  # a container may forbid it; then /sys shows the devices of its owner
        mount("sysfs", "/sys", "sysfs")
        bind(groups, "/sys/fs/cgroup")
    os.close(groups)


def main(name, addresses, visible, owner):
    seen_by_owner = os.readlink("/proc/self")  # as long as /proc is that of the owner
    os.chdir("/")
    socket.sethostname(name)
    mount("proc", "/proc", "proc")
    make_private_directories(visible)
    replace_file("/etc/hosts", addresses)
    replace_file("/etc/resolv.conf", "")
    show_own_devices()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the orphans
    print(seen_by_owner, flush=True)
    select.select([owner], [], [])  # a pidfd is readable when its process has ended, however it ended


main(**json.loads(sys.argv[1]))
