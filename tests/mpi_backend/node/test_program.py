"""A machine that cannot start MPI jobs says so when its server starts, not when the first session asks for workers."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

import alchemist_ray as alchemist
from alchemist_ray.errors import ServerStartError
from alchemist_ray.mpi_backend.driver.driver import Driver
from alchemist_ray.protocol.server_options import ServerOptions

OPTIONS = ServerOptions(num_workers=1, token="a token of a test")


def test_a_server_without_mpi4py_does_not_start(monkeypatch, tmp_path):
    # Names a package that cannot be found, for all processes of the server.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'mpi4py' else find(name, *more)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ServerStartError, match=r"mpi4py is missing: pip install 'alchemist-ray\[server\]'"):
        alchemist.start_server(1)


def test_a_data_directory_that_does_not_exist_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ServerOptions(num_workers=1, token="a token of a test", data_directories=["missing"])
    with pytest.raises(ServerStartError, match=str(tmp_path / "missing")):
        asyncio.run(Driver(options).start())


def test_the_warm_process_has_one_thread(server):
    """A fork of a process with threads is not safe."""
    found = subprocess.run(
        ["pgrep", "-P", _only_child(server.pid), "-f", "warm_process"], capture_output=True, text=True, check=True
    )
    (warm,) = found.stdout.split()
    with alchemist.AlchemistSession() as session:
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(1)  # so that the warm process has loaded all that it loads
        assert len(os.listdir(f"/proc/{warm}/task")) == 1


def _only_child(pid):
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True)
    (child,) = found.stdout.split()
    return child
