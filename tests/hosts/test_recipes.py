"""The recipes of docs/clusters.md for a laptop and for a few machines work as printed: only the address is replaced.

Those for Ray, Slurm and ssh are tested there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from recipes import recipe
from tests_support import wait_until

pytestmark = pytest.mark.hosts

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
OF_A_USER = ("ALCHEMIST_TOKEN", "ALCHEMIST_TOKEN_FILE", "ALCHEMIST_SERVER", "XDG_RUNTIME_DIR")


class Terminals:
    """The terminals of a user with an empty home directory, who begins in that directory on each host."""

    def __init__(self, home: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if name not in OF_A_USER}
        self._options = {"cwd": str(home), "env": {**kept, "PATH": PATH, "HOME": str(home)}}
        self._running = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._running.close()

    def start(self, host, command):
        """Enter a command that runs until the end of the test."""
        process = host.popen(["sh", "-c", f"exec {command}"], stdout=subprocess.DEVNULL, **self._options)
        self._running.callback(process.wait, 20)
        self._running.callback(process.terminate)

    def run(self, host, command, **options):
        """Enter a command; return it when it has ended."""
        return host.run(["sh", "-c", command], **options, **self._options)

    def run_program(self, host, program):
        """Run a program; return what it prints."""
        return host.run([sys.executable, "-c", program], **self._options).stdout


@pytest.fixture
def terminals(tmp_path):
    with Terminals(tmp_path) as opened:
        yield opened


def test_a_laptop(hosts, terminals, tmp_path):
    """The host keeps the port of the page apart from other servers on this machine."""
    (laptop,) = hosts(1, shared=[tmp_path])
    serve, node = recipe("A laptop", "sh")
    program, on_both_nodes = recipe("A laptop", "python")
    terminals.start(laptop, serve)
    assert wait_until(lambda: list(tmp_path.glob(".alchemist/token-*")), 20)
    assert terminals.run_program(laptop, program) == "(10,)\n"
    terminals.start(laptop, node)
    assert terminals.run_program(laptop, on_both_nodes) == f"{sorted([laptop.name, 'second'])}\n"


def test_a_few_machines_by_hand(hosts, terminals, tmp_path):
    first, *others = made = hosts(3, shared=[tmp_path])
    serve, node, status = (text.replace("10.0.0.1", first.address) for text in recipe("A few machines by hand", "sh"))
    (program,) = recipe("A few machines by hand", "python")
    terminals.start(first, serve)
    assert wait_until((tmp_path / "token").exists, 20)
    for host in others:
        terminals.start(host, node)
    shown = ""

    def all_have_joined():
        nonlocal shown
        shown = terminals.run(first, status, check=False).stdout
        return all(f"{host.name} " in shown for host in made)

    assert wait_until(all_have_joined, 20), shown
    assert shown.count("zone=lab") == 2
    terminals.run_program(others[1], program.replace("10.0.0.1", first.address))
