"""Slurm on hosts that are made of network namespaces, for tests: the controller on the first host, slurmd on each.

The daemons run as root, and munge keeps strangers out. It uses neither accounting nor control groups.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from namespace_hosts import Host, Hosts
from tests_support import end_process, wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
CONFIGURATION = """
ClusterName=tests
SlurmctldHost=h1({controller})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=/tmp/munge.socket
StateSaveLocation=/tmp/slurm-state
SlurmdSpoolDir=/tmp/slurmd-spool
SlurmctldPidFile=/tmp/slurmctld.pid
SlurmdPidFile=/tmp/slurmd.pid
SlurmctldLogFile=/tmp/slurmctld.log
SlurmdLogFile=/tmp/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=pmi2
ReturnToService=2
NodeName=h[1-{nodes}] CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes=h[1-{nodes}] Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
"""


class SlurmCluster:
    """Slurm on some hosts.

    Parameters
    ----------
    hosts : Hosts
        The hosts.
    directory : Path
        A directory that all of them see.
    """

    def __init__(self, hosts: Hosts, directory: Path) -> None:
        self.hosts = hosts
        self.head: Host = hosts[0]
        self.environment = {**os.environ, "SLURM_CONF": str(directory / "slurm.conf")}
        controller = hosts[0].address
        (directory / "slurm.conf").write_text(CONFIGURATION.format(controller=controller, nodes=len(hosts)))
        (directory / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nConstrainCores=no\n")
        self._key = directory / "munge.key"
        self._key.write_bytes(os.urandom(128))
        self._key.chmod(0o400)
        self._opened = contextlib.ExitStack()
        for host in hosts:
            self._start_munge(host)
        self._start(self.head, "slurmctld", "-D", "-i")
        for host in hosts:
            self._start(host, "slurmd", "-D", "-N", host.name)
        assert wait_until(self._all_idle, 30), self.run("sinfo", "-N", check=False).stdout

    def run(self, *command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on the first host; the options are those of :meth:`Host.run`."""
        return self.head.run(command, **{"env": self.environment, **options})

    def state(self, job: str) -> str:
        """Return the state of a job, such as ``RUNNING``."""
        shown = re.search(r"JobState=(\w+)", self.run("scontrol", "show", "job", job).stdout)
        assert shown is not None
        return shown[1]

    def close(self) -> None:
        """End Slurm."""
        self._opened.close()

    def _start_munge(self, host: Host) -> None:
        files = {"socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log", "seed-file": "munge.seed"}
        options = [f"--{option}=/tmp/{name}" for option, name in files.items()]
        self._start(host, "munged", "--foreground", "--force", f"--key-file={self._key}", *options)
        assert wait_until((host.root / "tmp/munge.socket").exists, 10), "munged did not start"

    def _start(self, host: Host, *command: str) -> None:
        program = shutil.which(command[0])
        assert program is not None
        self._opened.callback(end_process, host.popen([program, *command[1:]], env=self.environment))

    def _all_idle(self) -> bool:
        states = self.run("sinfo", "--noheader", "--Node", "--format=%T", check=False).stdout.split()
        return states == ["idle"] * len(self.hosts)
