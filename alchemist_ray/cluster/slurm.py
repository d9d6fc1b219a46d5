"""A Slurm job that is an Alchemist server: a driver, a node agent on each node, and a program that uses them.

The job is one bash script for sbatch. The driver and the program run on the job's first node, and ``srun`` starts one
agent on each node. The program finds the server by the environment variables ``ALCHEMIST_SERVER`` and
``ALCHEMIST_TOKEN_FILE``, so a script that works with ``AlchemistSession()`` on a laptop works in the job unchanged.

The token is made in the job, in a file that only the job's owner can read. The file is in a directory of its own on a
file system that all nodes share: by default below the directory from which the job is submitted, where Slurm writes the
job's output, too. So the agents can read it, and also what the program itself starts on other nodes, such as actors of
Ray. The token is in no command line, and the job's environment has the path of the file only. The directory is removed
when the job ends. Slurm may kill the script before that, but the token is worthless without its server.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from alchemist_ray.errors import ClusterError

SIGNAL_SECONDS = 60
"""How long before the end of its time the program gets SIGTERM. It is less in a job of less than four minutes."""
JOIN_SECONDS = 300
"""How long the nodes may take to join. Python starts slowly from a shared file system that many nodes read at once."""

_TIME = re.compile(r"(?:(?P<days>\d+)-(?P<hours>\d+)(?::(?P<minutes>\d+)(?::(?P<seconds>\d+))?)?"
                   r"|(?:(?P<h>\d+):(?=\d+:))?(?P<m>\d+)(?::(?P<s>\d+))?)", re.ASCII)  # fmt: skip


def seconds_of(time: str) -> int:
    """Return a time of Slurm's in seconds; 0 stands for no limit.

    Parameters
    ----------
    time : str
        ``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours``, ``days-hours:minutes`` or
        ``days-hours:minutes:seconds``: see ``--time`` in sbatch(1).

    Raises
    ------
    ValueError
        If it is none of these.
    """
    match = _TIME.fullmatch(time)
    if match is None:
        raise ValueError(
            f"{time!r} is not a valid time: give minutes, mm:ss, hh:mm:ss, d-hh, d-hh:mm or d-hh:mm:ss, e.g. 1:30:00"
        )
    days, hours, minutes, seconds = (int(match[name] or 0) for name in ("days", "hours", "minutes", "seconds"))
    h, m, s = (int(match[name] or 0) for name in "hms")
    return ((days * 24 + hours + h) * 60 + minutes + m) * 60 + seconds + s


@dataclass(frozen=True, kw_only=True)
class SlurmJob:
    """A job that runs a program beside a server with workers on all nodes of the job.

    Attributes
    ----------
    nodes : int
        Number of nodes.
    workers_per_node : int
        Workers (MPI ranks) on each node. The job asks for as many CPUs there.
    program : tuple of str
        The program and its arguments.
    sbatch_options : tuple of str
        Options of sbatch, each as one text, such as ``"--partition=debug"``.
    time : str
        Limit of the run time, in one of the formats of :func:`seconds_of`; empty: that of the partition.
    name : str
        Name of the job.
    port : int
        Port of the driver; 0: one that is free on the first node.
    token_dir : str
        Absolute path of a directory that all nodes share, for the directory with the token; empty: the directory from
        which the job is submitted.
    serve_options, node_options : tuple of str
        Options of ``alchemist serve`` and of ``alchemist node``.
    """

    nodes: int
    workers_per_node: int
    program: tuple[str, ...]
    sbatch_options: tuple[str, ...] = ()
    time: str = ""
    name: str = "alchemist"
    port: int = 0
    token_dir: str = ""
    serve_options: tuple[str, ...] = ()
    node_options: tuple[str, ...] = ()

    def script(self) -> str:
        """Return the script for sbatch."""
        return "\n".join(("#!/bin/bash", *self._directives(), _ABOUT, *self._settings(), _BODY))

    def _directives(self) -> list[str]:
        limit = seconds_of(self.time) if self.time else 0
        ahead = max(1, min(SIGNAL_SECONDS, limit // 4)) if limit else SIGNAL_SECONDS
        options = [
            f"--job-name={shlex.quote(self.name)}",
            f"--nodes={self.nodes}",
            "--ntasks-per-node=1",
            f"--cpus-per-task={self.workers_per_node}",
            *([f"--time={self.time}"] if self.time else []),
            f"--signal=B:TERM@{ahead}",
            *self.sbatch_options,
        ]
        return [f"#SBATCH {option}" for option in options]

    def _settings(self) -> list[str]:
        alchemist = [sys.executable, "-P", "-m", "alchemist_ray.cli"]  # -P: no module of the current directory
        return [
            f"alchemist=({shlex.join(alchemist)})",
            f"program=({shlex.join(self.program)})",
            f"serve_options=({shlex.join(self.serve_options)})",
            f"node_options=({shlex.join(self.node_options)})",
            f"workers_per_node={self.workers_per_node}",
            f"port={self.port}  # 0: a free one",
            f"token_dir={shlex.quote(self.token_dir)}  # empty: the directory from which the job was submitted",
            f"join_seconds={JOIN_SECONDS}",
        ]


def submit(job: SlurmJob, wait: bool, on_submitted: Callable[[str], None]) -> int:
    """Submit a job. The messages of sbatch go to stderr.

    Parameters
    ----------
    job : SlurmJob
        The job.
    wait : bool
        Whether to wait until it has ended.
    on_submitted : callable
        Called with the job's number once Slurm has taken it.

    Returns
    -------
    int
        The exit status of the job, if it was waited for; else 0.

    Raises
    ------
    ClusterError
        If sbatch was not found on this machine, or refuses the job.
    """
    if shutil.which("sbatch") is None:
        raise ClusterError(
            "Slurm's command sbatch was not found: run this on a login node of a cluster that has Slurm (perhaps "
            "after `module load slurm`), or print the script with --print and submit it elsewhere"
        )
    command = ["sbatch", "--parsable", *(["--wait"] if wait else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sbatch:
        assert sbatch.stdin is not None  # both are pipes
        assert sbatch.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended without reading, and has said why
            sbatch.stdin.write(job.script())
            sbatch.stdin.close()
        number = sbatch.stdout.readline().strip().partition(";")[0]  # NUMBER, or NUMBER;CLUSTER
        if number:
            on_submitted(number)
    if not number:
        raise ClusterError(f"sbatch refused the job (exit status {sbatch.returncode}); its own message is above")
    return sbatch.returncode


_ABOUT = """
# Written by `alchemist slurm submit`: a server with workers on all nodes of this job, and a program that uses it.
# The driver and the program run on the first node; srun starts one node agent on each node.

set -euo pipefail
"""

_BODY = r"""
export SLURM_OVERLAP=1  # the agents' step uses the CPUs of the whole job, and so may steps of the program
unset ALCHEMIST_TOKEN ALCHEMIST_SERVER  # of another server, perhaps

directory=${token_dir:-$SLURM_SUBMIT_DIR}/.alchemist-$SLURM_JOB_ID
export ALCHEMIST_TOKEN_FILE=$directory/token
driver='' agents='' running='' interrupted=''

fail() {
    echo "alchemist: $1" >&2
    exit "${2:-1}"
}

# Return whether a process ends within 15 seconds.
ends() {
    for _ in {1..150}; do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    return 1
}

stop() {
    if [ -n "$1" ] && kill -TERM "$1" 2>/dev/null; then
        ends "$1" || kill -KILL "$1" 2>/dev/null || true
    fi
}

# Runs however this script ends. The exit status stays what it was.
finish() {
    trap - EXIT
    trap '' TERM
    stop "$running"
    stop "$driver"  # it tells the agents to end
    [ -z "$agents" ] || ends "$agents" || stop "$agents"
    rm -rf -- "$directory" || true
}
trap finish EXIT

# Slurm sends SIGTERM before the time of the job is over (--signal), and scancel sends it. The program gets it as well.
on_signal() {
    interrupted=yes
    [ -n "$running" ] || exit 143
    kill -TERM "$running" 2>/dev/null || true
}
trap on_signal TERM

# Run a command in the background, since a signal cannot interrupt one in the foreground. Return its exit status.
run() {
    "$@" &
    running=$!
    local status=0
    wait "$running" || status=$?
    while [ -n "$interrupted" ]; do  # that was a signal, not the end of the command
        interrupted='' status=0
        wait "$running" || status=$?
    done
    running=''
    return "$status"
}

command -v srun >/dev/null || fail "Slurm's command srun was not found on $SLURMD_NODENAME: add it to the PATH of jobs"

(umask 077 && mkdir -p -- "$directory" && head -c 32 /dev/urandom | base64 >"$ALCHEMIST_TOKEN_FILE") ||
    fail "$directory cannot be made. Submit the job from a directory that all nodes share, or name one: --token-dir"

# The address of this node as another node sees it: a node may know its own name as an address of its loopback only.
address=$(srun --nodes=1 --ntasks=1 --relative=$((SLURM_JOB_NUM_NODES - 1)) --mpi=none --input=none \
    getent ahosts "$SLURMD_NODENAME" | awk 'NR == 1 { print $1 }') ||
    fail "the nodes of this job cannot look up the name $SLURMD_NODENAME"
if [ "$port" -eq 0 ]; then
    port=$("${alchemist[0]}" -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])')
fi

# The server belongs to one user. So its workers may read and write the user's files and load any library.
"${alchemist[@]}" serve --workers 0 --hostname "$address" --port "$port" --token-file "$ALCHEMIST_TOKEN_FILE" \
    --data-dir "$PWD" --data-dir / --allow-library-paths "${serve_options[@]}" &
driver=$!
until (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null; do
    kill -0 "$driver" 2>/dev/null || fail "the driver did not start"
    sleep 0.2
done

# One agent with all CPUs of the job on each node. It forks the ranks itself, so Slurm must neither bind it to a CPU nor
# set up MPI, and the end of one agent must not end the others.
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
    --cpus-per-task="$SLURM_CPUS_ON_NODE" --cpu-bind=none --mpi=none --kill-on-bad-exit=0 --wait=0 \
    --input=none --export=ALL --label \
    "${alchemist[@]}" node --driver "$address:$port" --slots "$workers_per_node" \
    --token-file "$ALCHEMIST_TOKEN_FILE" --wait "$join_seconds" "${node_options[@]}" &
agents=$!

"${alchemist[@]}" status --hostname "$address" --port "$port" --nodes "$SLURM_JOB_NUM_NODES" --wait "$join_seconds" &
running=$!
status=0
wait -n "$running" "$driver" "$agents" || status=$?
[ -z "$interrupted" ] || exit 143
kill -0 "$driver" 2>/dev/null || fail "the driver ended before all nodes had joined"
kill -0 "$agents" 2>/dev/null || fail "the agents ended before all nodes had joined"
running=''
[ "$status" -eq 0 ] || exit "$status"

export ALCHEMIST_SERVER=$address:$port
run "${program[@]}"
"""
