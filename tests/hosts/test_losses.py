"""Processes that are killed or stopped, and links that are cut without a word: who hears of it, when, and what is left.

Each test gives the seconds within which the client must know.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from node_cluster import TOKEN, Cluster
from tests_support import wait_until

from alchemist_ray import errors

pytestmark = pytest.mark.hosts

LIBRARIES = Path(__file__).parents[1] / "libraries"
DEATH_SECONDS = 2.0
"""A process that dies is noticed within this time."""
CUT_SECONDS = 15.0
"""A link that is cut without a word is noticed within this time."""
STOP_SECONDS = 5.0
"""Time for ``stop()``, whatever has happened."""


@pytest.fixture
def cluster(hosts):
    """Three hosts with three slots each, for a test that breaks something."""
    made = Cluster(hosts(3), slots=3, libraries={"faults": str(LIBRARIES / "faults.py")})
    yield made
    made.close()


@pytest.fixture
def spread(cluster):
    """Return a session of three workers, one on each host."""
    session = cluster.session(3, placement="strict_spread")
    session.load_library("faults")
    return session


@contextlib.contextmanager
def within(seconds):
    """Check that the code in it takes at most so many seconds."""
    begun = time.monotonic()
    yield
    took = time.monotonic() - begun
    assert took <= seconds, f"it took {took:.1f} s instead of {seconds:g} s at most"


def ranks_on(host):
    """Return the processes of ranks on a host: grandchildren of the warm process, which all have its command line."""
    warm = {pid for pid, command in host.processes().items() if "warm_process" in command}
    return {pid for pid in warm if parent_of(pid) in warm and parent_of(parent_of(pid)) in warm}


def parent_of(pid):
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def warm_process_of(host):
    """Return the warm process of a host: its parent is the agent."""
    warm = {pid for pid, command in host.processes().items() if "warm_process" in command}
    (found,) = {pid for pid in warm if parent_of(pid) not in {0, *warm}}
    return found


def assert_nothing_is_left(cluster, seconds=3.0, but=()):
    """No rank is alive on any host, and no shared memory has a name."""
    watched = [host for host in cluster.hosts if host not in but]
    assert wait_until(lambda: not any(ranks_on(host) for host in watched), seconds), [ranks_on(h) for h in watched]
    assert not any(host.shared_memory() for host in watched)


def run_in_thread(function):
    """Run a function in a thread; return a function that waits for it and returns its error and how long it took."""
    outcome = {}

    def run():
        begun = time.monotonic()
        try:
            function()
        except Exception as error:  # noqa: BLE001 - whatever the caller would have got
            outcome["error"] = error
        outcome["seconds"] = time.monotonic() - begun

    thread = threading.Thread(target=run)
    thread.start()

    def wait():
        thread.join(60)
        assert not thread.is_alive()
        return outcome.get("error"), outcome["seconds"]

    return wait


# --- processes that die -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["rank", "starter", "warm process", "agent"])
def test_whatever_single_process_is_killed_no_rank_outlives_its_group(cluster, spread, victim):
    host, other = cluster.host_of(spread, 1), cluster.host_of(spread, 2)
    bystander = cluster.session(2, labels={"host": other.name})
    (rank,) = ranks_on(host)
    warm = warm_process_of(host)
    pids = {"rank": rank, "starter": parent_of(rank), "warm process": warm, "agent": parent_of(warm)}
    waiting = run_in_thread(lambda: spread.run_task("faults", "nap", seconds=60))
    cluster.wait_for_task("faults.nap")
    begun = time.monotonic()
    os.kill(pids[victim], signal.SIGKILL)
    error, _ = waiting()
    assert time.monotonic() - begun < DEATH_SECONDS
    assert isinstance(error, errors.GroupDiedError)
    assert host.name in str(error)
    assert wait_until(lambda: len(ranks_on(other)) == 2, 3)
    assert np.asarray(bystander.send_matrix(np.eye(3))).sum() == 3
    bystander.yield_workers()
    assert_nothing_is_left(cluster)
    if victim != "agent":
        spread.request_workers(3, wait=5, placement="strict_spread")
        assert np.asarray(spread.send_matrix(np.eye(3))).sum() == 3


def test_ranks_on_all_hosts_end_when_the_driver_is_killed(cluster, spread):
    waiting = run_in_thread(lambda: spread.run_task("faults", "nap", seconds=60))
    cluster.wait_for_task("faults.nap")
    os.kill(cluster.server.pid, signal.SIGKILL)
    with within(DEATH_SECONDS + 0.5):
        error, _ = waiting()
    assert isinstance(error, errors.GroupDiedError)
    assert "server is gone" in str(error)
    assert_nothing_is_left(cluster)
    with pytest.raises(errors.NotConnectedError, match=r"lost its server \(10\."):
        spread.request_workers(1)
    with within(STOP_SECONDS):
        spread.stop()


@pytest.mark.parametrize("wait", ["10", "1", "0"])
def test_ranks_go_on_for_the_grace_of_their_node(hosts, wait):
    """Also if the node looks for the driver for a shorter time at its start."""
    with contextlib.closing(Cluster(hosts(1), slots=1, libraries={"faults": str(LIBRARIES / "faults.py")})) as cluster:
        (host,) = cluster.hosts
        options = f"--name patient --slots 2 --label kind=patient --driver-grace 4 --wait {wait}".split()
        cluster.start_agent(host, *options)
        cluster.session(2, wait=20, labels={"kind": "patient"})
        os.kill(cluster.server.pid, signal.SIGKILL)
        killed = time.monotonic()
        time.sleep(3)
        assert len(ranks_on(host)) == 2
        assert wait_until(lambda: not ranks_on(host), 5)
        assert time.monotonic() - killed > 3.5


# --- links that are cut -----------------------------------------------------------------------------------------------


def test_a_host_that_is_cut_off_is_named_in_time_whatever_the_client_does(cluster):
    """Four sessions have a worker each on the host that is cut off from all others."""
    sessions = [cluster.session(3, placement="strict_spread") for _ in range(3)]
    running, commanding, moving = sessions
    for session in (running, commanding):
        session.load_library("faults")
    handle = moving.send_matrix(np.ones((2000, 1000)))
    sending = pickle.loads(pickle.dumps(handle))
    host = cluster.host_of(running, 1)
    waiting = {"a running task": run_in_thread(lambda: running.run_task("faults", "nap", seconds=60))}
    cluster.wait_for_task("faults.nap")
    cluster.hosts.cut(host)
    waiting |= {
        "a command": run_in_thread(lambda: commanding.run_task("faults", "echo", value=1)),
        "a fetch": run_in_thread(lambda: np.asarray(sending)),
        "a send": run_in_thread(lambda: moving.send_matrix(np.ones((3000, 1000)))),
    }
    for what, wait in waiting.items():
        error, seconds = wait()
        assert isinstance(error, errors.GroupDiedError), (what, error)
        assert host.name in str(error), (what, error)
        assert "network" in str(error), (what, error)
        assert seconds <= CUT_SECONDS, (what, seconds)
    for session in sessions:
        with within(STOP_SECONDS):
            session.stop()
    assert_nothing_is_left(cluster, seconds=CUT_SECONDS)


def test_stop_ends_in_time_though_a_host_was_just_cut_off(cluster, spread):
    cluster.hosts.cut(cluster.host_of(spread, 1))
    with within(STOP_SECONDS):
        spread.stop()
    assert_nothing_is_left(cluster, seconds=CUT_SECONDS)


def test_other_groups_do_not_notice_and_the_node_comes_back(cluster, spread):
    host, other = cluster.host_of(spread, 1), cluster.host_of(spread, 2)
    bystander = cluster.session(2, labels={"host": other.name})
    handle = bystander.send_matrix(np.eye(50))
    cluster.hosts.cut(host)
    assert wait_until(lambda: host.name not in cluster.nodes(), CUT_SECONDS)
    assert np.asarray(handle @ handle).sum() == 50
    cluster.hosts.restore(host)
    assert wait_until(lambda: host.name in cluster.nodes(), CUT_SECONDS)
    assert np.asarray(handle @ handle).sum() == 50
    with cluster.session(2, wait=5, labels={"host": host.name}) as again:
        assert np.asarray(again.send_matrix(np.eye(3))).sum() == 3


def test_a_cut_between_two_hosts_of_workers_is_told_though_the_server_reaches_both(cluster, spread):
    one, other = (cluster.host_of(spread, rank) for rank in (0, 1))
    cluster.hosts.cut(one, other)
    error, seconds = run_in_thread(lambda: spread.run_task("faults", "receive_from_any", rounds=10))()
    assert isinstance(error, errors.GroupDiedError), error
    assert "the network between the two hosts failed" in str(error)
    assert {one.name, other.name} <= {word.strip("():;,") for word in str(error).split()}
    assert seconds <= CUT_SECONDS
    assert_nothing_is_left(cluster)


FIRST_WORDS = """
import numpy as np

from alchemist_ray.mpi_backend.ali import TaskContext, task

__version__ = "1"


@task
def speak(ctx: TaskContext, source: int, dest: int) -> None:
    \"\"\"Send something from one rank to another, in C.\"\"\"
    if ctx.comm.rank == source:
        ctx.comm.Send(np.zeros(1), dest=dest)
    if ctx.comm.rank == dest:
        ctx.comm.Recv(np.zeros(1), source=source)
"""


def test_a_cut_before_the_first_message_between_two_hosts_is_told_too(hosts, tmp_path):
    """MPI opens the connection of two ranks with their first message, and the cut was there before.

    Some ranks have met in a reduction before: those whose numbers differ in one bit.
    """
    library = tmp_path / "first_words.py"
    library.write_text(FIRST_WORDS)
    made = hosts(2, shared=[tmp_path])
    with contextlib.closing(Cluster(made, slots=4, libraries={"first_words": str(library)})) as cluster:
        session = cluster.session(8)
        session.load_library("first_words")
        one, other = (cluster.host_of(session, rank) for rank in (1, 6))
        time.sleep(1)  # until nothing is under way between ranks that have met
        cluster.hosts.cut(one, other)
        error, seconds = run_in_thread(lambda: session.run_task("first_words", "speak", source=1, dest=6))()
        assert isinstance(error, errors.GroupDiedError), error
        assert "the network between the two hosts failed" in str(error)
        assert {one.name, other.name} <= {word.strip("():;,") for word in str(error).split()}
        assert seconds <= CUT_SECONDS
        assert_nothing_is_left(cluster)


CLIENT = """
import os, sys, time
import numpy as np
import alchemist_ray as alchemist
from alchemist_ray import errors

session = alchemist.AlchemistSession()
session.connect(sys.argv[1], int(sys.argv[2]))
session.request_workers(3, labels={"host": sys.argv[3]})
session.load_library("faults")
print("ready", flush=True)
begun = time.monotonic()
try:
    session.run_task("faults", "nap", seconds=60)
except errors.AlchemistError as error:
    print(f"{time.monotonic() - begun:.1f} {type(error).__name__} {error}", flush=True)
begun = time.monotonic()
try:
    session.request_workers(1)
except errors.AlchemistError as error:
    print(f"{time.monotonic() - begun:.1f} {type(error).__name__} {error}", flush=True)
begun = time.monotonic()
session.stop()
print(f"{time.monotonic() - begun:.1f} stopped", flush=True)
"""


def test_a_client_that_is_cut_off_hears_of_it_and_its_workers_are_given_to_others(cluster):
    here, there = cluster.hosts[0], cluster.hosts[1]
    client = here.popen(
        [sys.executable, "-c", CLIENT, cluster.server.hostname, str(cluster.server.port), there.name],
        env={**os.environ, "ALCHEMIST_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout.readline() == "ready\n"
    cluster.wait_for_task("faults.nap")
    cluster.hosts.cut(here)
    lines = client.stdout.read().splitlines()
    assert client.wait() == 0
    for line, kinds in zip(lines, (["GroupDiedError", "NotConnectedError"], ["NotConnectedError"]), strict=False):
        seconds, kind, text = line.split(maxsplit=2)
        assert float(seconds) <= CUT_SECONDS
        assert kind in kinds
        assert "network" in text
    assert float(lines[2].split()[0]) <= STOP_SECONDS
    with cluster.session(3, wait=CUT_SECONDS, labels={"host": there.name}) as following:
        assert following.num_workers == 3


# --- processes that are stopped ---------------------------------------------------------------------------------------


def _stop_rank(cluster, session, rank):
    (pid,) = ranks_on(cluster.host_of(session, rank))
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_rank_that_is_stopped_is_reported_and_the_task_goes_on_with_it(cluster, spread, caplog):
    waiting = run_in_thread(lambda: spread.run_task("faults", "receive_from_any", rounds=50_000))
    pid = _stop_rank(cluster, spread, 1)
    try:
        assert wait_until(lambda: "rank 1 is stopped" in caplog.text, 10), caplog.text
        assert cluster.host_of(spread, 1).name in caplog.text
    finally:
        os.kill(pid, signal.SIGCONT)
    error, _ = waiting()
    assert error is None


def test_a_group_with_a_stopped_rank_is_ended_if_the_client_wants_it(cluster):
    session = cluster.session(3, placement="strict_spread", on_stopped="end")
    session.load_library("faults")
    waiting = run_in_thread(lambda: session.run_task("faults", "nap", seconds=60))
    cluster.wait_for_task("faults.nap")
    _stop_rank(cluster, session, 1)
    error, seconds = waiting()
    assert isinstance(error, errors.GroupDiedError)
    assert "rank 1 is stopped" in str(error)
    assert seconds <= 10.5
    assert_nothing_is_left(cluster)


def test_a_rank_that_computes_in_c_with_the_interpreter_locked_is_not_reported(cluster, spread, caplog):
    assert spread.run_task("faults", "hold_lock", seconds=12) is None
    assert "stopped" not in caplog.text


def test_a_node_whose_agent_is_stopped_is_lost(cluster, spread):
    host = cluster.host_of(spread, 1)
    agent = parent_of(warm_process_of(host))
    waiting = run_in_thread(lambda: spread.run_task("faults", "nap", seconds=60))
    os.kill(agent, signal.SIGSTOP)
    try:
        error, seconds = waiting()
        assert isinstance(error, errors.GroupDiedError)
        assert host.name in str(error)
        assert seconds <= CUT_SECONDS
    finally:
        os.kill(agent, signal.SIGCONT)
    assert_nothing_is_left(cluster, seconds=5)
    assert wait_until(lambda: host.name in cluster.nodes(), 10)
