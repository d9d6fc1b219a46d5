"""Ranks that ``mpiexec`` starts as new interpreters. Here it is that of the mpich wheel; tests/systems has Open MPI."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import LIBRARIES
from skips import needs
from tests_support import wait_until

import alchemist_ray as alchemist
from alchemist_ray.errors import GroupDiedError, GroupStartError, NotEnoughWorkersError, ServerStartError
from alchemist_ray.mpi_backend.node import site_mpi


@pytest.fixture(scope="module")
def site():
    """A server whose ranks run in an interpreter that has another name."""
    python = str(Path(sys.executable).with_name("python3"))
    libraries = {"faults": str(LIBRARIES / "faults.py")}
    with alchemist.start_server(3, mpi="site", python=python, libraries=libraries) as server:
        yield server


@pytest.fixture
def open_session(site):
    opened = []

    def connect(num_workers=0):
        session = alchemist.AlchemistSession()
        opened.append(session)
        session.connect(site.hostname, site.port, site.token)
        if num_workers:
            session.request_workers(num_workers)
        return session

    yield connect
    for session in opened:
        session.stop()


def pids_of(session):
    return [row["pid"] for row in session.list_assigned_workers()]


def test_matrices_and_tasks_work_as_in_forked_ranks(open_session, rng):
    session = open_session(3)
    A, B = rng.standard_normal((40, 30)), rng.standard_normal((30, 20))
    linalg = session.load_library("linalg")
    np.testing.assert_allclose(np.asarray(linalg.gemm(session.send_matrix(A), session.send_matrix(B))), A @ B)
    assert all(psutil.Process(pid).cmdline()[0].endswith("python3") for pid in pids_of(session))
    (row,) = session.server_status()["sessions"]
    assert [worker["rank"] for worker in row["workers"]] == [0, 1, 2]


def test_what_ranks_print_is_in_their_logs_and_the_configuration_is_not_passed_on(open_session):
    session = open_session(1)
    faults = session.load_library("faults")
    faults.say("hello")
    logs = session.worker_logs()
    assert list(logs) == ["worker-001"]
    assert "hello printed by rank 0" in logs["worker-001"]
    (pid,) = pids_of(session)
    assert not any("ticket" in word for word in psutil.Process(pid).cmdline())


def test_a_killed_rank_ends_the_group_and_a_new_one_can_be_had(open_session):
    session = open_session(2)
    faults = session.load_library("faults")
    pids = pids_of(session)
    os.kill(pids[1], signal.SIGKILL)
    how = "was killed by SIGKILL|mpiexec ended with status 9"  # Hydra may tell of the rank that it kills itself
    with pytest.raises(GroupDiedError, match=rf"rank 1, process {pids[1]} .*({how})"):
        faults.nap(20.0)
    assert wait_until(lambda: not any(map(psutil.pid_exists, pids)))
    session.request_workers(3)
    assert session.load_library("faults").echo(5) == 5


def test_abort_is_told(open_session):
    session = open_session(2)
    with pytest.raises(GroupDiedError, match=r"\(rank 1, .*called MPI_Abort with code 7"):
        session.load_library("faults").abort(1)


def test_a_rank_that_hangs_is_ended_with_what_it_has_started(open_session):
    session = open_session(2)
    pids = pids_of(session)
    (mpiexec,) = {parent.pid for parent in psutil.Process(pids[0]).parents() if parent.name().startswith("mpiexec")}
    os.kill(pids[0], signal.SIGSTOP)
    session.yield_workers()
    assert wait_until(lambda: not any(map(psutil.pid_exists, [*pids, mpiexec])))


def test_nothing_outlives_an_agent_that_is_killed():
    with alchemist.start_server(2, mpi="site") as server, alchemist.AlchemistSession() as session:
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(2)
        job = [psutil.Process(pid) for pid in pids_of(session)]
        job += [parent for parent in job[0].parents() if "mpiexec" in parent.name() or "hydra" in parent.name()]
        assert len(job) == 4
        (agent,) = psutil.Process(server.pid).children()
        agent.kill()
        assert wait_until(lambda: not any(each.is_running() for each in job))


def test_a_group_is_on_one_node(site, open_session):
    with pytest.raises(NotEnoughWorkersError, match=r"4 workers were requested, but .* allows at most 3"):
        open_session(4)
    (node,) = open_session().server_status()["nodes"]
    assert (node["mpi"], node["labels"]) == ("site", {"mpi": "site"})


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a process another host name")
@needs("unshare")
def test_ranks_on_another_host_listen_on_an_address_of_their_own(rng):
    mpiexec = Path(sys.executable).with_name("mpiexec")
    elsewhere = f"unshare --uts sh -c 'hostname localhost && exec {mpiexec} \"$@\"' mpiexec"
    with (
        alchemist.start_server(2, hostname="0.0.0.0", advertise="127.0.0.1", mpi="site", mpiexec=elsewhere) as server,
        alchemist.AlchemistSession() as session,
    ):
        session.connect("127.0.0.1", server.port, server.token)
        session.request_workers(2)
        assert {(end.host, end.address) for end in session.address.endpoints} == {("localhost", "127.0.0.1")}
        A = rng.standard_normal((20, 3))
        np.testing.assert_array_equal(np.asarray(session.send_matrix(A)), A)


def refusal(**options):
    with pytest.raises(ServerStartError) as caught:
        alchemist.start_server(1, **options)
    return str(caught.value)


def test_what_is_missing_is_said_when_the_server_starts(tmp_path):
    assert "no-such-mpiexec was not found" in refusal(mpi="site", mpiexec="no-such-mpiexec --option")
    assert "no-such-python was not found" in refusal(python="no-such-python")
    assert "mpi is 'none'; it must be 'fork' or 'site'" in refusal(mpi="none")
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')  # without site-packages
    bare.chmod(0o755)
    assert f"{bare} cannot run ranks: ModuleNotFoundError: No module named 'mpi4py'" in refusal(python=str(bare))


def test_an_mpiexec_that_fails_is_told_at_once_with_its_output():
    with (
        alchemist.start_server(1, mpi="site", mpiexec="mpiexec --no-such-option") as server,
        alchemist.AlchemistSession() as session,
    ):
        session.connect(server.hostname, server.port, server.token)
        with pytest.raises(GroupStartError, match=r"(?s)mpiexec ended with status 255.*unrecognized argument"):
            session.request_workers(1)


def test_srun_gets_the_options_that_its_user_has_not_given(monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    ours = ["--nodes=1", "--nodelist=n7", "--overlap", "--cpu-bind=none"]
    assert site_mpi._options(["srun"], "slurm-wlm 22.05.8") == ours
    assert site_mpi._options(["srun", "-N2", "--nodelist=a,b"], "slurm 24.05.1") == ours[2:]
    monkeypatch.delenv("SLURMD_NODENAME")  # not in a job
    assert site_mpi._options(["srun"], "slurm-wlm 22.05.8") == []
