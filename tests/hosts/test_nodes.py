"""Node agents: how they join and leave, what is refused, and what listens where."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from node_cluster import TOKEN, Cluster
from tests_support import wait_until

import alchemist_ray as alchemist
from alchemist_ray import errors

pytestmark = pytest.mark.hosts


@pytest.fixture(scope="module")
def cluster(module_hosts):
    """Two hosts with two slots each."""
    made = Cluster(module_hosts(2))
    yield made
    made.close()


def run_agent(cluster, *options, token=TOKEN, seconds=20):
    """Run an agent on the second host until it ends; return its exit status and what it says."""
    agent = cluster.hosts[1].popen(
        cluster.agent_command(*options),
        env={**os.environ, "ALCHEMIST_TOKEN": token},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = agent.communicate(timeout=seconds)
    finally:
        agent.kill()
    return agent.returncode, said


# --- joining and leaving ----------------------------------------------------------------------------------------------


def test_the_server_knows_what_its_nodes_have(cluster):
    rows = cluster.nodes()
    assert sorted(rows) == ["h1", "h2"]
    for host in cluster.hosts:
        row = rows[host.name]
        assert row["address"] == host.address
        assert (row["slots"], row["free"]) == (2, 2)
        assert row["labels"] == {"host": host.name}
        assert row["cores"] == len(os.sched_getaffinity(0))
        assert row["memory"] > 2**30


def test_the_status_shows_each_node_and_who_uses_it(cluster, tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    with cluster.session(3) as session:
        command = [sys.executable, "-m", "alchemist_ray.cli", "status", "--hostname", cluster.server.hostname,
                   "--port", str(cluster.server.port), "--token-file", str(token)]  # fmt: skip
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        holder = f"session {session.session_id}"
    lines = {line.split()[0]: line for line in shown.splitlines() if line.startswith(("h1 ", "h2 "))}
    for host in cluster.hosts:
        assert host.address in lines[host.name]
        assert f"host={host.name}" in lines[host.name]
    assert sorted(line.partition(holder)[2] for line in lines.values()) == [": 1", ": 2"]
    assert sorted(line.split()[2:4] for line in lines.values()) == [["2", "0"], ["2", "1"]]


def test_a_node_that_is_ended_leaves_with_its_ranks(cluster):
    agent = cluster.start_agent(cluster.hosts[1], "--name", "short", "--slots", "3", "--label", "kind=short")
    with cluster.session(3, wait=20, labels={"kind": "short"}) as session:
        agent.terminate()
        assert agent.wait(10) == 0
        with pytest.raises(errors.GroupDiedError, match="node short has left"):
            session.run_task("TestLib", "noop")
    assert "short" not in cluster.nodes()


def test_sessions_wait_for_nodes_and_for_each_other(cluster):
    first = cluster.session(4)
    second = cluster.session()
    begun = time.monotonic()
    with pytest.raises(errors.NotEnoughWorkersError, match=r"with a wait of 0.5 s"):
        second.request_workers(2, wait=0.5)
    assert 0.4 < time.monotonic() - begun < 5
    with contextlib.ExitStack() as stack:
        import threading

        later = threading.Timer(0.5, first.yield_workers)
        later.start()
        stack.callback(later.join)
        assert len(second.request_workers(2, wait=20)) == 2
    second.stop()


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_wrong_address_is_an_error_after_a_while(cluster):
    command = [sys.executable, "-m", "alchemist_ray.cli", "node", "--driver", f"{cluster.hosts[0].address}:1",
               "--wait", "1"]  # fmt: skip
    ran = cluster.hosts[1].run(command, check=False, env={**os.environ, "ALCHEMIST_TOKEN": TOKEN})
    assert ran.returncode == 1
    assert f"no Alchemist server answers at {cluster.hosts[0].address}:1" in ran.stderr


def test_a_wrong_token_is_refused_at_once(cluster):
    status, said = run_agent(cluster, "--name", "thief", token="not the token of the test")
    assert status == 1
    assert "token" in said
    assert "thief" not in cluster.nodes()


def test_two_nodes_of_one_name_are_refused(cluster):
    status, said = run_agent(cluster)
    assert status == 1
    assert "the server has a node called h2 already: give this one another name with --name" in said
    assert cluster.nodes()["h2"]["slots"] == 2


def test_an_agent_of_another_version_is_refused(cluster):
    program = (
        "import alchemist_ray._version as version; version.__version__ = '99.1';"
        "import sys; from alchemist_ray.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, *cluster.agent_command("--name", "future")[3:]]
    ran = cluster.hosts[1].run(command, check=False, env={**os.environ, "ALCHEMIST_TOKEN": TOKEN})
    assert ran.returncode == 1
    assert f"the node has version 99.1 of alchemist-ray, and the server {alchemist.__version__}" in ran.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "10.9.9.9"], r"cannot listen at 10\.9\.9\.9, which --address names .*--bind"),
        (["--address", "eth77"], r"eth77 \(--address\) is not an address, a host name or a network interface"),
        (["--bind", "eth77"], r"eth77 \(--bind\) is not an address, a host name or a network interface"),
    ],
)
def test_an_interface_that_does_not_exist_is_refused(cluster, options, message):
    status, said = run_agent(cluster, "--name", "odd", *options)
    assert status == 1
    assert re.search(message, said)
    assert "odd" not in cluster.nodes()


def test_an_address_that_clients_cannot_reach_is_told_with_the_address(cluster):
    options = ["--name", "odd", "--slots", "1", "--label", "odd=yes", "--address", "10.9.9.9", "--bind", "0.0.0.0"]
    agent = cluster.start_agent(cluster.hosts[1], *options)
    try:
        message = r"cannot reach them: .*10\.9\.9\.9.*--address"
        with cluster.session() as session, pytest.raises(errors.GroupStartError, match=message):
            session.request_workers(1, wait=20, labels={"odd": "yes"})
    finally:
        agent.terminate()
        agent.wait(10)
    assert wait_until(lambda: sum(row["free"] for row in cluster.nodes().values()) == 4, 5)


def test_a_node_behind_another_address_takes_part_in_groups_over_several_hosts(cluster):
    """MPI needs the address of an interface. What others call the host does not matter to it."""
    host = cluster.hosts[1]
    common = "--slots 1 --label group=mixed"
    options = f"{common} --name inside --bind eth0 --address {host.address}".split()
    other = f"{common} --name other --bind 0.0.0.0".split()
    agents = [cluster.start_agent(host, *options), cluster.start_agent(cluster.hosts[0], *other)]
    try:
        with cluster.session() as session:
            session.request_workers(2, wait=20, labels={"group": "mixed"}, placement="strict_spread")
            A = np.arange(12.0).reshape(6, 2)
            At, A_sent = session.send_matrix(A.T.copy()), session.send_matrix(A)
            np.testing.assert_allclose(session.load_library("linalg").gemm(At, A_sent), A.T @ A)
    finally:
        for agent in agents:
            agent.terminate()
            agent.wait(10)
    assert wait_until(lambda: sum(row["free"] for row in cluster.nodes().values()) == 4, 5)


def test_a_label_that_no_node_has_is_told_with_those_that_there_are(cluster):
    session = cluster.session()
    with pytest.raises(errors.NotEnoughWorkersError, match=r"zone=north, .* Its nodes have host=h1, host=h2\."):
        session.request_workers(1, labels={"zone": "north"})


def test_a_node_that_leaves_while_ranks_start_is_named(cluster):
    """Its agent is stopped, so that it never answers, and then killed."""
    import signal
    import threading

    agent = cluster.start_agent(cluster.hosts[1], "--name", "brief", "--slots", "3", "--label", "kind=brief")
    assert wait_until(lambda: "brief" in cluster.nodes(), 20)
    agent.send_signal(signal.SIGSTOP)
    killing = threading.Timer(1.0, agent.kill)
    killing.start()
    with cluster.session() as session:
        with pytest.raises(errors.GroupStartError, match="node brief has left"):
            session.request_workers(3, labels={"kind": "brief"})
        assert len(session.request_workers(2)) == 2
    killing.join()


def test_more_slots_than_cores_are_allowed_and_told(cluster):
    agent = cluster.start_agent(
        cluster.hosts[1], "--name", "full", "--slots", "50", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = b""
    while b"more than" not in said:
        line = agent.stdout.readline()
        assert line, said
        said += line
    agent.terminate()
    assert agent.wait(10) == 0


# --- what listens where -----------------------------------------------------------------------------------------------


def test_a_group_on_one_host_opens_no_listener_but_those_of_its_workers(hosts):
    """A server on loopback, in a host of its own: nobody else can reach anything there."""
    (host,) = hosts(1)
    program = (
        "import alchemist_ray as alchemist\n"
        "server = alchemist.start_server(2)\n"
        "session = alchemist.AlchemistSession().connect(server.hostname, server.port, server.token)\n"
        "session.request_workers(2)\n"
        "session.run_task('TestLib', 'noop')\n"
        "print(server.port, *(e.port for e in session.address.endpoints), flush=True)\n"
        "input()\n"
    )
    client = host.popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ports = {int(port) for port in client.stdout.readline().split()}
    listeners = host.listeners()
    assert {(one.protocol, one.address) for one in listeners} == {("tcp", "127.0.0.1")}
    assert {one.port for one in listeners} == ports
    assert len(ports) == 3
    client.communicate("\n", timeout=20)
    assert host.listeners() == []
    assert host.shared_memory() == set()


def test_a_group_between_hosts_listens_on_the_interface_of_the_nodes_only(cluster):
    with cluster.session(4) as session:
        np.testing.assert_array_equal(np.asarray(session.send_matrix(np.eye(4))), np.eye(4))
        for host in cluster.hosts:
            assert {listener.address for listener in host.listeners()} == {host.address}
            assert len(host.listeners()) == 4  # the data plane's and MPI's, for each of two ranks
