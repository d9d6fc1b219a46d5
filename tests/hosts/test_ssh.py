"""``alchemist ssh-nodes``: node agents that real ssh starts on hosts, and that end with it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ssh_hosts
from namespace_hosts import Hosts, skip_without_hosts
from recipes import recipe
from skips import needs
from tests_support import wait_until

pytestmark = [pytest.mark.hosts, needs(*ssh_hosts.PROGRAMS)]

ALCHEMIST = [sys.executable, "-P", "-m", "alchemist_ray.cli"]
TOKEN = "the token of the test of ssh"
PORT = 24960
COMMANDS = recipe("ssh", "sh")
(HOSTS,), (SCRIPT,) = recipe("ssh", "text"), recipe("ssh", "python")
PROGRAM = """
import json
import numpy as np
from alchemist_ray import AlchemistSession

with AlchemistSession() as session:
    endpoints = session.request_workers(4)
    A = np.arange(10000.0).reshape(100, 100)
    handle = session.send_matrix(A)
    np.testing.assert_allclose(np.asarray(handle @ handle), A @ A)
    labels = {row["name"]: row["labels"] for row in session.server_status()["nodes"]}
print(json.dumps([sorted({endpoint.host for endpoint in endpoints}), labels]))
"""


class SshCluster:
    """Three hosts with ssh; a server on the first one."""

    def __init__(self, hosts, directory):
        self.hosts = hosts
        self.head = hosts[0]
        self.directory = directory
        self.ssh = ssh_hosts.SshHosts(hosts, directory)
        self.token_file = directory / "token"
        self.token_file.write_text(TOKEN)
        self.token_file.chmod(0o600)
        self.client = {**os.environ, "ALCHEMIST_SERVER": f"h1:{PORT}", "ALCHEMIST_TOKEN_FILE": str(self.token_file)}
        self.server = self.popen("serve", "--workers", "0", "--hostname", "h1", "--port", PORT)
        for line in self.server.stdout:
            if "Accepting connections" in line:
                break

    def popen(self, *arguments, **options):
        """Start a command of Alchemist's on the first host."""
        return self.head.popen(
            [*ALCHEMIST, *map(str, arguments), "--token-file", str(self.token_file)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=str(self.directory), **options,
        )  # fmt: skip

    @contextlib.contextmanager
    def nodes(self, text, *options):
        """Run ``alchemist ssh-nodes`` with a host file."""
        (self.directory / "hosts.txt").write_text(text)
        process = self.popen("ssh-nodes", "hosts.txt", "--driver", f"h1:{PORT}", "--ssh", self.ssh.command, *options)
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=30)

    def wait_for(self, count, seconds=30):
        """Wait until the server has as many nodes; return what the command says."""
        server = ("--hostname", "h1", "--port", str(PORT), "--token-file", str(self.token_file))
        command = [*ALCHEMIST, "status", *server, "--nodes", str(count), "--wait", str(seconds)]
        return self.head.run(command, check=False)

    def agents(self):
        """Return the agents, and what they have started, of all hosts."""
        return [command for host in self.hosts for command in host.processes().values() if is_of_agent(command)]


def is_of_agent(command):
    return "warm_process" in command or (" node --" in command and "ssh" not in command.split()[0])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    skip_without_hosts()
    directory = tmp_path_factory.mktemp("ssh")
    with Hosts(3, shared=[directory]) as hosts:
        made = SshCluster(hosts, directory)
        yield made
        made.server.terminate()
        made.server.communicate(timeout=20)


@pytest.fixture(autouse=True)
def _nothing_is_left_of_a_test(cluster):
    yield
    assert wait_until(lambda: not cluster.agents(), 10), cluster.agents()


def test_the_recipe_works_as_printed(tmp_path):
    """Here ssh gets the keys of the test by an option; a user has them in the home directory."""
    skip_without_hosts()
    with Hosts(3, shared=[tmp_path]) as hosts:
        ssh = tmp_path / "bin" / "ssh"
        ssh.parent.mkdir()
        client_file = ssh_hosts.SshHosts(hosts, tmp_path).client_file
        ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {client_file} "$@"\n')
        ssh.chmod(0o755)
        (tmp_path / "hosts.txt").write_text(HOSTS)
        (tmp_path / "script.py").write_text(SCRIPT)
        path = f"{ssh.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        options = {"cwd": str(tmp_path), "env": {**os.environ, "PATH": path}}
        serve, nodes, program = (text.replace("10.0.0.1", hosts[0].address) for text in COMMANDS)
        server = hosts[0].popen(["sh", "-c", f"exec {serve}"], **options)
        assert wait_until((tmp_path / "token").exists, 20)
        agents = hosts[0].popen(["sh", "-c", f"exec {nodes}"], **options)
        printed = hosts[0].run(["sh", "-c", program], **options).stdout
        assert printed == "(10,) ['h1', 'h2', 'h3']\n"
        for process in (agents, server):
            process.terminate()
            assert process.wait(20) == 0


def test_hosts_of_a_file_offer_their_workers(cluster):
    with cluster.nodes("h1 slots=1\nh2:2  # as mpiexec\n\nh3 slots=1 label=kind=fast label=rack=7\n") as process:
        assert "3 nodes have joined" in cluster.wait_for(3).stdout
        hosts, labels = json.loads(cluster.head.python(PROGRAM, env=cluster.client).stdout)
        assert hosts == ["h1", "h2", "h3"]
        assert labels == {"h1": {}, "h2": {}, "h3": {"kind": "fast", "rack": "7"}}
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    for host, slots in (("h1", 1), ("h2", 2), ("h3", 1)):
        assert re.search(
            rf"^{host}: .* Joined the server at h1:{PORT} as {host}: {slots} slots$", printed, re.MULTILINE
        )


def test_the_token_is_in_no_command_line_and_in_no_output(cluster):
    with cluster.nodes("h1 slots=1\nh2 slots=1\n") as process:
        cluster.wait_for(2)
        commands = [command for host in cluster.hosts for command in host.processes().values()]
        assert any("ssh-nodes" in command for command in commands)
        assert any(is_of_agent(command) for command in commands)
        assert not [command for command in commands if TOKEN in command]
        process.terminate()
        assert TOKEN not in process.communicate(timeout=20)[0]


def test_a_host_that_fails_is_named_and_the_others_go_on(cluster):
    with cluster.nodes("h2 slots=1\nh9 slots=1\nh3 slots=1\n") as process:
        assert "2 nodes have joined the server: h" in cluster.wait_for(2).stdout
        process.terminate()
        printed, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert re.search("^h9: ssh: Could not resolve hostname h9", printed, re.MULTILINE)
    assert re.search(r"^h9: ssh failed \(exit status 255\)$", printed, re.MULTILINE)
    assert "1 of 3 hosts failed: h9" in printed


def test_a_host_without_alchemist_is_named(cluster):
    with cluster.nodes("h2\n", "--remote-command", "/nowhere/alchemist") as process:
        printed, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert re.search("^h2: .*/nowhere/alchemist: No such file", printed, re.MULTILINE)
    assert "h2: its node agent failed (exit status 127)" in printed


def test_an_ssh_that_does_not_exist_is_named(cluster):
    with cluster.nodes("h2\n", "--ssh", "no-such-ssh -v") as process:
        printed, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "h2: no-such-ssh -v cannot be run" in printed


@pytest.mark.parametrize("victim", ["ssh-nodes", "ssh"])
def test_agents_end_with_the_ssh_that_started_them(cluster, victim):
    """Also if it is killed, or the command that has started it."""
    with cluster.nodes("h2 slots=1\nh3 slots=1\n") as process:
        assert "2 nodes" in cluster.wait_for(2).stdout
        for pid, command in cluster.head.processes().items():
            is_ssh = command.startswith("ssh ") and "h2" in command
            if is_ssh if victim == "ssh" else pid == process.pid:
                os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        (host, rest) = (cluster.hosts[1], 1) if victim == "ssh" else (cluster.hosts[2], 0)
        assert wait_until(lambda: not any(map(is_of_agent, host.processes().values())), 10)
        assert time.monotonic() - killed < 5
        assert wait_until(lambda: len(cluster.agents()) == 2 * rest, 5)  # an agent and its warm process


def test_ssh_nodes_ends_when_all_agents_have_ended(cluster):
    """They end with exit status 0 when the server ends."""
    with cluster.nodes("h2 slots=1\nh3 slots=1\n") as process:
        cluster.wait_for(2)
        cluster.server.terminate()
        printed, _ = process.communicate(timeout=20)
        assert process.returncode == 0, printed
    cluster.server.communicate(timeout=20)
    cluster.server = cluster.popen("serve", "--workers", "0", "--hostname", "h1", "--port", PORT)


def test_an_agent_takes_the_token_from_stdin(cluster):
    command = [*ALCHEMIST, "node", "--driver", f"h1:{PORT}", "--slots", "1", "--token-file", "-", "--until-stdin-ends"]
    empty = cluster.head.run(command, input="\n", check=False)
    assert (empty.returncode, "first line of stdin is empty" in empty.stderr) == (1, True)
    closed = cluster.head.run(command, stdin=subprocess.DEVNULL, check=False)
    assert (closed.returncode, "first line of stdin is empty" in closed.stderr) == (1, True)
    joined = cluster.head.run([*command, "--name", "typed"], input=f"{TOKEN}\n")  # which ends at once
    assert joined.returncode == 0
