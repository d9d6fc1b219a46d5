"""``alchemist slurm submit`` on real Slurm: a controller and three nodes, on hosts made of network namespaces."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import time
from pathlib import Path

import pytest
import slurm_cluster
from namespace_hosts import Hosts, skip_without_hosts
from recipes import recipe
from skips import needs
from slurm_cluster import SlurmCluster
from tests_support import wait_until

pytestmark = [pytest.mark.hosts, pytest.mark.systems, needs(*slurm_cluster.PROGRAMS)]

SUBMIT = [sys.executable, "-P", "-m", "alchemist_ray.cli", "slurm", "submit"]
(COMMAND,), (SCRIPT,) = recipe("Slurm", "sh"), recipe("Slurm", "python")
MULTIPLY = """
import json, sys
import numpy as np
from alchemist_ray import AlchemistSession

np.save("matrix.npy", np.eye(7))
with AlchemistSession() as session:
    endpoints = session.request_workers(int(sys.argv[1]))
    A = np.random.default_rng(0).standard_normal((300, 200))
    np.testing.assert_allclose(np.asarray(session.send_matrix(A.T) @ session.send_matrix(A)), A.T @ A)
    np.testing.assert_array_equal(np.asarray(session.read_npy("matrix.npy")), np.eye(7))
print("hosts", json.dumps(sorted(endpoint.host for endpoint in endpoints)))
"""
SLEEP = """
import os, signal, sys, time

def end(number, frame):
    print("the program saves its work", flush=True)
    sys.exit(7)

signal.signal(signal.SIGTERM, end)
open("environment", "w").write(repr(dict(os.environ)))
print("the program sleeps", flush=True)
time.sleep(60)
"""


class Jobs:
    """Jobs in a directory that all hosts see."""

    def __init__(self, cluster: SlurmCluster, directory: Path):
        self.cluster = cluster
        self.directory = directory

    def submit(self, *arguments, **options):
        """Submit a job from the directory; return what the command said."""
        return self.cluster.run(*SUBMIT, *arguments, cwd=str(self.directory), timeout=100, check=False, **options)

    def output(self, job):
        path = self.directory / f"slurm-{job}.out"
        return path.read_text() if path.exists() else ""

    def left(self):
        """Return what is left of jobs: processes on all hosts, and directories of tokens."""
        commands = [command for host in self.cluster.hosts for command in host.processes().values()]
        ours = [command for command in commands if re.search(r"alchemist|srun|slurmstepd|python|warm_process", command)]
        return ours + [str(path) for path in self.directory.glob(".alchemist*")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    skip_without_hosts()
    directory = tmp_path_factory.mktemp("slurm")
    with Hosts(3, shared=[directory]) as hosts:
        made = SlurmCluster(hosts, directory)
        yield made, directory
        made.close()


@pytest.fixture
def jobs(cluster, request):
    made, directory = cluster
    own = directory / re.sub(r"\W", "-", request.node.name)
    own.mkdir()
    found = Jobs(made, own)
    yield found
    assert wait_until(lambda: not found.left(), 20), found.left()


def number_of(submitted):
    match = re.fullmatch(r"Submitted job (\d+)\n", submitted.stdout)
    assert match is not None, submitted
    return match[1]


def test_the_recipe_works_as_printed(jobs):
    (jobs.directory / "script.py").write_text(SCRIPT)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**jobs.cluster.environment, "PATH": path}
    submitted = jobs.cluster.run("sh", "-c", COMMAND, cwd=str(jobs.directory), env=environment, check=False)
    output = jobs.output(number_of(submitted))
    assert submitted.returncode == 0, output
    assert "(10,) ['h1', 'h2', 'h3']" in output


TWO_GROUPS = """
import json
import numpy as np
from alchemist_ray import AlchemistSession

hosts = []
with AlchemistSession() as one, AlchemistSession() as other:
    for session in (one, other):
        hosts.append(sorted(endpoint.host for endpoint in session.request_workers(2, labels={"mpi": "site"})))
        A = np.random.default_rng(0).standard_normal((300, 200))
        np.testing.assert_allclose(np.asarray(session.send_matrix(A.T) @ session.send_matrix(A)), A.T @ A)
print("hosts", json.dumps(sorted(hosts)))
"""


def test_srun_starts_the_ranks_of_each_node_on_that_node(jobs):
    (jobs.directory / "script.py").write_text(TWO_GROUPS)
    options = ("--node-option=--mpi=site", "--node-option=--mpiexec=srun --mpi=pmi2")
    command = ("--nodes", "2", "--workers-per-node", "2", *options, "--wait", "--", sys.executable, "script.py")
    submitted = jobs.submit(*command)
    output = jobs.output(number_of(submitted))
    assert submitted.returncode == 0, output
    assert json.loads(re.search("^hosts (.*)$", output, re.MULTILINE)[1]) == [["h1", "h1"], ["h2", "h2"]]


def test_a_program_multiplies_on_workers_of_three_nodes(jobs):
    (jobs.directory / "script.py").write_text(MULTIPLY)
    command = ("--nodes", "3", "--workers-per-node", "2", "--wait", "--", sys.executable, "script.py", "6")
    submitted = jobs.submit(*command)
    output = jobs.output(number_of(submitted))
    assert submitted.returncode == 0, output
    assert json.loads(re.search("^hosts (.*)$", output, re.MULTILINE)[1]) == ["h1", "h1", "h2", "h2", "h3", "h3"]
    for host in ("h1", "h2", "h3"):
        assert re.search(rf"^\d: .*Joined the server at \S+ as {host}: 2 slots$", output, re.MULTILINE)
    assert "Traceback" not in output
    assert "error" not in output


def test_one_node_is_enough(jobs):
    (jobs.directory / "a script.py").write_text(MULTIPLY)
    options = ("--job-name", "it's #1", "--sbatch-option", "comment='a # b'", "--port", "24960")
    submitted = jobs.submit(
        *options, "--nodes", "1", "--workers-per-node", "2", "--", sys.executable, "a script.py", "2"
    )
    job = number_of(submitted)
    assert wait_until(lambda: jobs.cluster.state(job) == "COMPLETED", 30), jobs.output(job)
    assert 'hosts ["h' in jobs.output(job)
    shown = jobs.cluster.run("scontrol", "show", "job", job).stdout
    assert "JobName=it's #1\n" in shown
    assert "Comment=a # b " in shown


def test_the_status_of_a_program_that_fails_arrives(jobs):
    submitted = jobs.submit("--nodes", "2", "--workers-per-node", "1", "--wait", "--", "sh", "-c", "exit 42")
    assert submitted.returncode == 42, jobs.output(number_of(submitted))


def test_a_program_that_is_not_there_has_the_status_of_a_shell(jobs):
    submitted = jobs.submit("--nodes", "1", "--workers-per-node", "1", "--wait", "--", "no-such-program")
    assert submitted.returncode == 127
    assert "no-such-program: command not found" in jobs.output(number_of(submitted))


def start_sleeping(jobs, *options):
    (jobs.directory / "script.py").write_text(SLEEP)
    command = ("--nodes", "3", "--workers-per-node", "1", *options, "--", sys.executable, "script.py")
    job = number_of(jobs.submit(*command))
    assert wait_until(lambda: "the program sleeps" in jobs.output(job), 40), jobs.output(job)
    return job


def test_a_signal_before_the_end_of_the_time_reaches_the_program(jobs):
    """Slurm sends it to the batch script alone, as scancel does here. At the earliest it does so after a minute."""
    job = start_sleeping(jobs, "--time", "5")
    assert "TimeLimit=00:05:00" in jobs.cluster.run("scontrol", "show", "job", job).stdout
    jobs.cluster.run("scancel", "--signal=TERM", "--batch", job)
    assert wait_until(lambda: jobs.cluster.state(job) == "FAILED", 20), jobs.output(job)
    assert "ExitCode=7:0" in jobs.cluster.run("scontrol", "show", "job", job).stdout
    assert "the program saves its work" in jobs.output(job)
    assert "Alchemist has stopped" in jobs.output(job)


def test_a_job_that_is_cancelled_ends_at_once(jobs):
    job = start_sleeping(jobs)
    began = time.monotonic()
    jobs.cluster.run("scancel", job)
    assert wait_until(lambda: not jobs.left(), 20), jobs.left()
    assert time.monotonic() - began < 15  # and not after KillWait, 30 seconds
    assert wait_until(lambda: jobs.cluster.state(job) == "CANCELLED", 20)
    assert "the program saves its work" in jobs.output(job)


def test_the_token_is_in_a_file_that_only_its_owner_can_read_and_nowhere_else(jobs):
    job = start_sleeping(jobs)
    (directory,) = jobs.directory.glob(".alchemist*")
    file = directory / "token"
    assert (directory.name, stat.S_IMODE(directory.stat().st_mode)) == (f".alchemist-{job}", 0o700)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = file.read_text().strip()
    assert len(token) > 40
    assert not [command for host in jobs.cluster.hosts for command in host.processes().values() if token in command]
    assert token not in jobs.cluster.run("scontrol", "show", "job", job).stdout
    assert token not in jobs.cluster.run("scontrol", "write", "batch_script", job, "-").stdout
    assert token not in (jobs.directory / "environment").read_text()
    assert token not in jobs.output(job)
    jobs.cluster.run("scancel", job)


def test_the_token_may_be_in_another_directory(jobs):
    shared = jobs.directory / "shared with all"
    job = start_sleeping(jobs, "--token-dir", str(shared))
    assert (shared / f".alchemist-{job}" / "token").exists()
    assert not list(jobs.directory.glob(".alchemist*"))
    jobs.cluster.run("scancel", job)
    assert wait_until(lambda: not list(shared.iterdir()), 20)


def test_a_driver_that_does_not_start_ends_the_job(jobs):
    options = ("--serve-option=--memory-per-worker=4apples", "--nodes", "2", "--workers-per-node", "1")
    submitted = jobs.submit(*options, "--wait", "--", "true")
    assert submitted.returncode == 1
    output = jobs.output(number_of(submitted))
    assert "'4apples' is not a valid size" in output
    assert "alchemist: the driver did not start" in output


def submit_without_an_agent(jobs, join_seconds, *options):
    """Submit a job whose agent on h2 does not start: what is to be its interpreter fails there."""
    broken = jobs.directory / "python"
    broken.write_text(
        f'#!/bin/sh\n[ "$(hostname)" != h2 ] || case "$*" in *" node "*) exit 3;; esac\nexec {sys.executable} "$@"\n'
    )
    broken.chmod(0o755)
    script = jobs.cluster.run(*SUBMIT, "--print", "--nodes", "3", "--workers-per-node", "1", "--", "true").stdout
    script = script.replace(f"({sys.executable} ", f"({broken} ")
    script = script.replace("join_seconds=300", f"join_seconds={join_seconds}")
    where = str(jobs.directory)
    return jobs.cluster.run("sbatch", "--parsable", *options, cwd=where, input=script, check=False)


def test_a_node_that_does_not_join_ends_the_job(jobs):
    ran = submit_without_an_agent(jobs, 5, "--wait")
    output = jobs.output(ran.stdout.strip())
    assert ran.returncode == 1, output
    assert re.search(r"alchemist: after 5 s, 2 of 3 nodes have joined the server at \S+: h[13], h[13]\.", output)


def test_a_signal_ends_a_job_that_waits_for_its_nodes(jobs):
    job = submit_without_an_agent(jobs, 100).stdout.strip()
    assert wait_until(lambda: jobs.output(job).count("Joined the server") == 2, 20), jobs.output(job)
    jobs.cluster.run("scancel", "--signal=TERM", "--batch", job)
    assert wait_until(lambda: jobs.cluster.state(job) == "FAILED", 20), jobs.output(job)
    assert "ExitCode=143:0" in jobs.cluster.run("scontrol", "show", "job", job).stdout


def test_what_sbatch_refuses_is_an_error_with_its_reason(jobs):
    refused = jobs.submit("--nodes", "9", "--workers-per-node", "1", "--partition", "no-such", "--", "true")
    assert refused.returncode == 1
    assert "sbatch: error: invalid partition specified: no-such" in refused.stderr
    assert "alchemist: sbatch refused the job" in refused.stderr
