"""Host files: which hosts offer how many slots, in the manner of ``mpiexec``.

Each line names one host. The slots stand after a colon or after ``slots=``, and labels after ``label=``. Without slots,
a host offers as many as it has cores::

    # the machines of our group
    node1 slots=16 label=gpu=yes label=rack=2
    ada@node2:8
    node3
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from alchemist_ray.errors import ClusterError

_SLOTS_AFTER_COLON = re.compile(r"(?P<host>\[[^\]]*\]|[^:]+):(?P<slots>[^:]*)")


@dataclass(frozen=True)
class HostLine:
    """A host of a host file.

    Attributes
    ----------
    host : str
        Its name or address, perhaps with ``user@`` before it, as ssh takes it.
    slots : int or None
        MPI ranks that it offers; None: as many as it has cores.
    labels : tuple of str
        Labels of its node, each as ``KEY=VALUE``.
    """

    host: str
    slots: int | None = None
    labels: tuple[str, ...] = ()


def read_host_file(path: Path) -> list[HostLine]:
    """Return the hosts of a host file.

    Raises
    ------
    ClusterError
        If the file cannot be read, names no host or one host twice, or has a line that is wrong.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as failure:
        raise ClusterError(f"the host file {path} cannot be read ({failure})") from failure
    found: dict[str, HostLine] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            entry = _host_line(words)
            if entry.host in found:
                raise ValueError(f"{entry.host} is named twice: give all its slots in one line, with slots=N")
        except ValueError as wrong:
            raise ClusterError(f"{path}, line {number}: {wrong}") from wrong
        found[entry.host] = entry
    if not found:
        raise ClusterError(f"the host file {path} names no host")
    return list(found.values())


def _host_line(words: list[str]) -> HostLine:
    """Return the host of a line; raise ValueError if the line is wrong."""
    host, slots, labels = words[0], "", []
    if match := _SLOTS_AFTER_COLON.fullmatch(host):
        host, slots = match["host"], match["slots"]
        _check_slots(slots)
    host = host.removeprefix("[").removesuffix("]")
    if not host or host.startswith("-"):
        raise ValueError(f"{words[0]!r} is not a valid host")  # ssh would take it for an option
    for word in words[1:]:
        key, _, value = word.partition("=")
        if key == "slots" and not slots:
            _check_slots(slots := value)
        elif key == "label" and "=" in value and not value.startswith("="):
            labels.append(value)
        else:
            raise ValueError(f"{word!r} is not understood: give HOST [slots=N] [label=KEY=VALUE ...], or HOST:N")
    return HostLine(host, int(slots) if slots else None, tuple(labels))


def _check_slots(text: str) -> None:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise ValueError(f"{text!r} is not a valid number of slots: give 1 or more")
