"""A machine that cannot start MPI jobs says so when its server starts, not when the first session asks for workers."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys

import pytest

from alchemist_ray.errors import ServerStartError
from alchemist_ray.mpi_backend.driver.driver import Driver
from alchemist_ray.mpi_backend.node import launchers
from alchemist_ray.protocol.server_options import ServerOptions

OPTIONS = ServerOptions(num_workers=1, token="a token of a test")


def test_a_server_without_mpi4py_does_not_start(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "mpi4py" else find(name, *more)
    )
    with pytest.raises(ServerStartError, match=r"mpi4py is missing: pip install 'alchemist-ray\[server\]'"):
        asyncio.run(Driver(OPTIONS).start())


def test_a_server_without_mpiexec_does_not_start(monkeypatch, tmp_path):
    monkeypatch.delenv(launchers.MPIEXEC, raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ServerStartError, match="mpiexec"):
        asyncio.run(Driver(OPTIONS).start())


def test_a_data_directory_that_does_not_exist_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ServerOptions(num_workers=1, token="a token of a test", data_directories=["missing"])
    with pytest.raises(ServerStartError, match=str(tmp_path / "missing")):
        asyncio.run(Driver(options).start())
