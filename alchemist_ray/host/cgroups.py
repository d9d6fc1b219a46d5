"""The limits that control groups put on this process: its own group and all groups above it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def limits(controller: str, name: str, name_v1: str) -> list[str]:
    """Return the texts of a limit in all groups of this process.

    Parameters
    ----------
    controller : str
        The controller of the limit, such as ``memory``.
    name, name_v1 : str
        File of the limit in the second version of control groups, and in the first.
    """
    found = []
    for path in _files(controller, name, name_v1):
        with contextlib.suppress(OSError):  # this group has no such limit
            found.append(path.read_text().strip())
    return found


def _files(controller: str, name: str, name_v1: str) -> Iterator[Path]:
    lines = OWN.read_text().splitlines() if OWN.exists() else []
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top, file = (ROOT / controller, name_v1) if controllers else (ROOT, name)
        group = PurePosixPath(own)
        for each in (group, *group.parents):  # in a container the group's path may lie outside of what is mounted
            yield top / each.relative_to("/") / file
