"""Temporary directories of processes that have ended are removed, and those of other hosts are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alchemist_ray.host import temporary_directories

DIE = """
import os
from alchemist_ray.host.temporary_directories import make_log_dir, name_scratch
os.mkdir(name_scratch())
make_log_dir()
os._exit(0)
"""
NO_PROCESS = 2**22 + 1


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """Return the directory for temporary files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def leave(shared):
    """Have a process of this host leave its directories; return them."""
    before = set(shared.iterdir())
    subprocess.run([sys.executable, "-c", DIE], check=True)
    made = set(shared.iterdir()) - before
    assert len(made) == 2
    return made


def test_the_directories_of_a_process_that_has_ended_are_removed(shared):
    left = leave(shared)
    ours = temporary_directories.make_log_dir()
    scratch = temporary_directories.name_scratch()
    scratch.mkdir()
    temporary_directories.remove_stale()
    assert set(shared.iterdir()) == {Path(ours), scratch}
    assert not left & set(shared.iterdir())


def test_the_directories_of_another_host_are_not_touched(shared, monkeypatch):
    """Their processes are not in this host's table of processes, whether they live or not."""
    left = leave(shared)
    monkeypatch.setattr("socket.gethostname", lambda: "another-host")
    temporary_directories.remove_stale()
    assert set(shared.iterdir()) == left


CONTAINER = """
import os, sys
from alchemist_ray.host.temporary_directories import make_log_dir
while os.getpid() < 50:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os._exit(0)
print(make_log_dir(), flush=True)
sys.stdin.read()
"""
REMOVE = "from alchemist_ray.host.temporary_directories import remove_stale; remove_stale()"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a namespace of processes")
def test_the_directories_of_another_container_are_not_touched(shared):
    """It has the same host name, and shares the directory; process 50 is there only."""
    python = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c"]
    inside = subprocess.Popen([*python, CONTAINER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        made = Path(inside.stdout.readline().strip())
        assert made.parent == shared
        subprocess.run([*python, REMOVE], check=True)
        assert made.exists()
    finally:
        inside.communicate("")


@pytest.mark.parametrize("name", [f"alchemist-logs-{NO_PROCESS}-x", f"alchemist-scratch-{NO_PROCESS}-x"])
def test_directories_of_which_nobody_knows_the_host_are_not_touched(shared, name):
    (shared / name).mkdir()
    temporary_directories.remove_stale()
    assert (shared / name).exists()
