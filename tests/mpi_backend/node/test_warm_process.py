"""The warm process: what it cannot load, how many ranks fit, and what happens when it does not answer."""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from node_agents import Agents, warm_process_of
from tests_support import wait_until

import alchemist_ray as alchemist
from alchemist_ray import errors
from alchemist_ray.mpi_backend.node import warm_process
from alchemist_ray.mpi_backend.node.forked_ranks import ForkLauncher
from alchemist_ray.mpi_backend.node.interpreter import Interpreter
from alchemist_ray.mpi_backend.node.local_group import LocalGroup
from alchemist_ray.mpi_backend.node.mpi_settings import mpi_environment
from alchemist_ray.mpi_backend.node.warm_process import WarmProcess
from alchemist_ray.protocol.handshake import new_token
from alchemist_ray.protocol.pmi import process_mapping
from alchemist_ray.protocol.server_options import WorkerOptions
from alchemist_ray.protocol.worker_config import WorkerConfig

END_SECONDS = 5.0
"""A driver gives up a node that has not ended a group after this time."""


# --- what cannot be loaded --------------------------------------------------------------------------------------------


@pytest.fixture
def broken_mpi4py(tmp_path, monkeypatch):
    """Return the MPI module of an mpi4py that comes before the real one."""
    package = tmp_path / "mpi4py"
    package.mkdir()
    (package / "__init__.py").write_text("class rc: pass\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return package / "MPI.py"


def test_an_mpi_that_cannot_be_loaded_is_told_and_loaded_again_for_the_next_group(broken_mpi4py):
    reason = "libmpi.so.12: cannot open shared object file: No such file or directory"
    broken_mpi4py.write_text(f"raise ImportError({reason!r})\n")
    with alchemist.start_server(1) as server, alchemist.AlchemistSession() as session:
        session.connect(server.hostname, server.port, server.token)
        for _ in range(2):
            with pytest.raises(errors.GroupStartError, match=reason) as caught:
                session.request_workers(1)
            assert "ended together with its parent" not in str(caught.value)
        shutil.rmtree(broken_mpi4py.parent)
        assert len(session.request_workers(1)) == 1


def test_an_mpi_that_kills_its_process_is_told(broken_mpi4py):
    broken_mpi4py.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    with alchemist.start_server(1) as server, alchemist.AlchemistSession() as session:
        session.connect(server.hostname, server.port, server.token)
        with pytest.raises(errors.GroupStartError, match=r"SIGSEGV.*log of the node"):
            session.request_workers(1)


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def agents():
    made = Agents()
    yield made
    made.close()


def test_a_low_soft_limit_of_descriptors_does_not_limit_the_ranks(agents):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    agent = agents.start("low", 16, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, most)))
    session = agents.session(16, "low")
    assert np.asarray(session.send_matrix(np.eye(16))).sum() == 16
    assert resource.prlimit(warm_process_of(agent.pid), resource.RLIMIT_NOFILE) == (most, most)


def test_too_low_a_hard_limit_is_told_and_other_groups_go_on(agents):
    agents.start("hard", 30, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
    small = agents.session(1, "hard")
    with pytest.raises(errors.GroupStartError, match="Too many open files"):
        agents.session(29, "hard")
    assert np.asarray(small.send_matrix(np.eye(3))).sum() == 3


FORK_AT_TIMES = """
import os
fork = os.fork

def fork_at_times():
    if os.path.exists({path!r}):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()

os.fork = fork_at_times
"""


def test_a_process_that_cannot_be_forked_is_told_and_other_groups_go_on(agents, tmp_path):
    """As when the limit of a control group is reached."""
    full = tmp_path / "full"
    (tmp_path / "sitecustomize.py").write_text(FORK_AT_TIMES.format(path=str(full)))
    agents.start("full", 2, env={"PYTHONPATH": str(tmp_path)})
    first = agents.session(1, "full")
    full.touch()
    with pytest.raises(errors.GroupStartError, match="temporarily unavailable"):
        agents.session(1, "full")
    assert np.asarray(first.send_matrix(np.eye(3))).sum() == 3
    full.unlink()
    assert np.asarray(agents.session(1, "full").send_matrix(np.eye(3))).sum() == 3


# --- a warm process that does not answer ------------------------------------------------------------------------------


def test_groups_live_on_and_others_start_while_the_warm_process_is_stopped(agents):
    agent = agents.start("stopped", 3)
    first = agents.session(1, "stopped")
    warm = warm_process_of(agent.pid)
    os.kill(warm, signal.SIGSTOP)
    second = agents.session(1, "stopped")
    os.kill(warm, signal.SIGCONT)
    third = agents.session(1, "stopped")
    for session in (first, second, third):
        assert np.asarray(session.send_matrix(np.eye(3))).sum() == 3
    agent.terminate()
    assert agent.wait(10) == 0
    assert not os.path.exists(f"/proc/{warm}")


def config_of(tmp_path, number):
    """Return the configuration of a group of one rank."""
    return WorkerConfig(
        group_id=number,
        ticket=new_token(),
        world=f"test-{number}-{secrets.token_hex(8)}",
        size=1,
        first_rank=0,
        worker_ids=[number],
        slots=[number],
        bind="127.0.0.1",
        advertise="127.0.0.1",
        memory=2**26,
        threads=1,
        environment=mpi_environment(""),
        options=WorkerOptions(),
        log_dir=str(tmp_path / "logs"),
        scratch=str(tmp_path / f"scratch-{number}"),
    )


def group_of(launcher, tmp_path, number):
    """Return a group of one rank, whose processes this process starts."""
    config = config_of(tmp_path, number)
    return LocalGroup(config, launcher.processes(config, process_mapping([1])), lambda message: None)


def test_a_group_whose_starter_never_answered_is_ended_in_time(tmp_path, monkeypatch):
    """The warm process is stopped just after the agent has looked whether it is."""

    async def run(launcher, warm):
        first = group_of(launcher, tmp_path, 1)
        await first.start()
        os.kill(warm, signal.SIGSTOP)
        with monkeypatch.context() as patched:
            patched.setattr(warm_process, "is_stopped", lambda pid: False, raising=False)
            second = group_of(launcher, tmp_path, 2)
            starting = asyncio.ensure_future(second.start())
            await asyncio.sleep(0.5)
            await asyncio.wait_for(second.end(0), END_SECONDS)
        with pytest.raises(errors.GroupStartError):
            await starting
        third = group_of(launcher, tmp_path, 3)
        await third.start()
        os.kill(warm, signal.SIGCONT)  # it has the order of the second group, which is not to be started any more
        assert await first.status()
        assert await third.status()
        for group in (first, third):
            await group.end(0)
        assert not (tmp_path / "logs" / "worker-002.log").exists()

    launcher = ForkLauncher(WarmProcess(Interpreter(), dict(os.environ)))
    try:
        asyncio.run(run(launcher, warm_process_of(os.getpid())))
    finally:
        launcher.stop()


def test_a_group_whose_processes_cannot_be_killed_is_given_up_in_time(tmp_path):
    """As those that wait for a file server in the kernel."""

    class Immortal:
        async def start(self, group):
            pass

        async def kill(self):
            pass

        def last_words(self):
            return ""

    async def run():
        group = LocalGroup(config_of(tmp_path, 1), Immortal(), lambda message: None)
        await asyncio.wait_for(group.end(0), END_SECONDS)

    asyncio.run(run())


def test_stopping_ends_a_warm_process_that_is_stopped():
    warm = WarmProcess(Interpreter(), dict(os.environ))
    pid = warm_process_of(os.getpid())
    os.kill(pid, signal.SIGSTOP)
    warm.stop()
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists())
