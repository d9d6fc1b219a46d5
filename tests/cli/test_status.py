"""``alchemist status --nodes``: wait until nodes have joined."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from alchemist_ray import cli


@pytest.fixture
def named(server, monkeypatch):
    """Return the options that name the server."""
    monkeypatch.setenv("ALCHEMIST_TOKEN", server.token)
    return ["status", "--hostname", server.hostname, "--port", str(server.port)]


def test_the_names_of_the_nodes_are_shown(named, capsys):
    assert cli.main([*named, "--nodes", "1"]) == 0
    assert capsys.readouterr().out == f"1 nodes have joined the server: {os.uname().nodename}\n"


def test_nodes_that_do_not_come_are_counted(named, capsys):
    began = time.monotonic()
    assert cli.main([*named, "--nodes", "3", "--wait", "1"]) == 1
    assert 1 <= time.monotonic() - began < 5
    said = capsys.readouterr().err
    assert f"after 1 s, 1 of 3 nodes have joined the server at {named[2]}:{named[4]}: {os.uname().nodename}." in said


def test_a_server_that_does_not_come_is_named(capsys):
    assert cli.main(["status", "--port", "1", "--nodes", "1", "--wait", "0.5"]) == 1
    assert "no Alchemist server answers at 127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.quick
def test_no_nodes_are_not_waited_for(capsys):
    with pytest.raises(SystemExit):
        cli.main(["status", "--nodes", "0"])
    assert "not a valid number of nodes: give 1 or more" in capsys.readouterr().err


def test_a_node_whose_stdin_has_no_end(server):
    command = ["node", "--driver", f"{server.hostname}:{server.port}", "--name", "endless", "--until-stdin-ends"]
    ran = subprocess.run(
        [sys.executable, "-m", "alchemist_ray.cli", *command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
        env={**os.environ, "ALCHEMIST_TOKEN": server.token},
    )  # fmt: skip
    assert ran.returncode == 1
    assert "--until-stdin-ends needs a stdin that another program holds open" in ran.stderr
