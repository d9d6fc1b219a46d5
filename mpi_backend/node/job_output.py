"""What the programs that start MPI jobs print about the end of a rank.

The agent is not the parent of ranks that the site's own MPI has started. Only ``mpiexec`` or ``srun`` learns how a rank
has ended, and it says so in its own words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from alchemist_ray.mpi_backend.node.signals import end_in_words


@dataclass(frozen=True)
class Saying:
    """What was said about the end of a rank.

    Attributes
    ----------
    reason : str
        How it has ended.
    rank, pid : int or None
        Which rank it was, or which process, if it was said.
    """

    reason: str
    rank: int | None = None
    pid: int | None = None


_FORMS = tuple(
    re.compile(form, re.MULTILINE)
    for form in (
        r"MPI_ABORT was invoked on rank (?P<rank>\d+)[^-]*?error\s?code:? (?P<code>-?\d+)",  # Open MPI 4
        r"MPI_ABORT was invoked on rank (?P<rank>\d+)[\s\S]*?Errorcode: (?P<code>-?\d+)",  # Open MPI 5
        r"^Abort\((?P<code>-?\d+)\) on node (?P<rank>\d+) \(rank \d+ in comm \d+\): application called",  # MPICH, Intel
        r"process rank (?P<rank>\d+) with PID \d+ on\s+node \S+\s+exited\s+on\s+signal (?P<signal>\d+)",  # Open MPI
        r"Process name: \[.*,(?P<rank>\d+)\]\s+Exit code:\s+(?P<status>\d+)",  # Open MPI
        r"PID (?P<pid>\d+) RUNNING AT [\s\S]*EXIT STRING: .*\(signal (?P<signal>\d+)\)",  # Hydra
        r"PID (?P<pid>\d+) RUNNING AT .*\n=\s+EXIT CODE: (?P<status>\d+)",  # Hydra
        r"RANK (?P<rank>\d+) PID (?P<pid>\d+) RUNNING AT [\s\S]*KILLED BY SIGNAL: (?P<signal>\d+)",  # Intel
        r"^srun: error: \S+: task (?P<rank>\d+): Exited with exit code (?P<status>\d+)",  # Slurm
        r"^srun: error: \S+: task (?P<rank>\d+): (?P<text>\w[\w ]*)",  # Slurm
    )
)
_ERROR = re.compile(r"^\[.*\] \[error\] (.*)$|^((?:\w+\.)*\w*(?:Error|Exception)\b.*)$", re.MULTILINE)


def find_saying(output: str) -> Saying | None:
    """Return what was said about the first rank that ended; None if nothing was understood."""
    for form in _FORMS:
        found = form.search(output)
        if found is not None:
            named = found.groupdict()
            return Saying(_reason(named), *(int(named[key]) if named.get(key) else None for key in ("rank", "pid")))
    return None


def _reason(named: dict[str, str | None]) -> str:
    match named:
        case {"code": str(code)}:
            return f"called MPI_Abort with code {code}"
        case {"signal": str(number)}:
            return end_in_words(-int(number))
        case {"status": str(status)}:
            return end_in_words(int(status))
        case _:
            return f"ended ({named['text']})"


def find_error(output: str) -> str:
    """Return the last error that a rank has logged or raised before it was ready; empty if there is none."""
    found = _ERROR.findall(output)
    return "".join(found[-1]) if found else ""
