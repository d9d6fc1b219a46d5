"""Measure an MPI program on two hosts with one rank each: as a task of a session, and under a bare ``mpiexec``.

Both use the same settings of MPICH, the same level of thread support and one BLAS thread. ``mpiexec`` runs on h1 with
the launcher ``manual``: it prints the commands that start its proxies, and we start them on their hosts. The proxies
are those that it would start with ssh. A script in the place of ssh would not do, since a process cannot enter the PID
namespace of another host from its own.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from measure import Comparison, Findings
from nodes_hosts import Hosts, cluster, ended, program_environment

import alchemist_ray as alchemist

PROGRAM = Path(__file__).with_name("nodes_mpi_program.py")
MPICH = {"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp", "FI_TCP_IFACE": "eth0"}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
LAUNCH = "HYDRA_LAUNCH: "
SECONDS = 120.0


def bench_mpi(repeats: int) -> Findings:
    """Run the same MPI program over two hosts. Baseline: a bare ``mpiexec``."""
    with (
        Hosts(2) as hosts,
        cluster(hosts, list(hosts), libraries={PROGRAM.stem: str(PROGRAM)}) as server,
        alchemist.AlchemistSession(verbose=False) as session,
    ):
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(len(hosts), placement="strict_spread")
        library = session.load_library(PROGRAM.stem)
        library.measure_all(), bare_mpiexec(hosts)
        pairs = [(library.measure_all(), bare_mpiexec(hosts)) for _ in range(repeats)]
    ours, theirs = zip(*pairs, strict=True)
    found = Findings()
    for name in ours[0]:
        task, bare = ([times[name] for times in side] for side in (ours, theirs))
        what = f"{name}, 2 hosts, 1 rank each, as a task"
        found.comparisons.append(Comparison(what, "bare mpiexec, same settings", task, bare, "<= 1.1", (1e3, "ms")))
    return found


def bare_mpiexec(hosts: Hosts) -> dict[str, float]:
    """Run the program under ``mpiexec`` with one rank on each host; return what it has measured."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    names = ",".join(host.name for host in hosts)
    command = [mpiexec, "-launcher", "manual", "-hosts", names, "-n", str(len(hosts)), sys.executable, PROGRAM]
    with contextlib.ExitStack() as opened:
        job = hosts[0].popen(
            command,
            env=program_environment({**MPICH, **ONE_THREAD}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        opened.enter_context(ended(job))
        timer = threading.Timer(SECONDS, job.kill)
        timer.start()
        opened.callback(timer.cancel)
        waiting = iter(hosts)  # the proxies come in the order of their hosts
        printed = []
        for line in job.stdout:
            if line.startswith(LAUNCH):
                proxy = next(waiting).popen(shlex.split(line.removeprefix(LAUNCH)), stdin=subprocess.DEVNULL)
                opened.enter_context(ended(proxy))
            else:
                printed.append(line)
        if job.wait():
            raise RuntimeError(f"mpiexec ended with status {job.returncode}: {''.join(printed)}")
    measured: dict[str, Any] = json.loads(printed[-1])
    return measured
