"""The recipe of docs/clusters.md for a few machines works as printed. Those for Ray, Slurm and ssh are tested there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from recipes import recipe

pytestmark = pytest.mark.hosts

PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def test_a_few_machines_by_hand(hosts, tmp_path):
    first, *others = made = hosts(3, shared=[tmp_path])
    serve, node, status = (text.replace("10.0.0.1", first.address) for text in recipe("A few machines by hand", "sh"))
    (program,) = recipe("A few machines by hand", "python")
    program = "token = open('token').read().strip()\n" + program.replace("10.0.0.1", first.address)
    options = {"cwd": str(tmp_path), "env": {**os.environ, "PATH": PATH}}
    with contextlib.ExitStack() as running:

        def start(host, command):
            process = host.popen(["sh", "-c", f"exec {command}"], stdout=subprocess.DEVNULL, **options)
            running.callback(process.wait, 20)
            running.callback(process.terminate)

        start(first, serve)
        deadline = time.monotonic() + 20
        while not (tmp_path / "token").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        for host in others:
            start(host, node)
        while True:  # the nodes join
            shown = first.run(["sh", "-c", status], check=False, **options)
            if all(f"{host.name} " in shown.stdout for host in made):
                break
            assert time.monotonic() < deadline, shown.stdout + shown.stderr
            time.sleep(0.2)
        assert shown.stdout.count("zone=lab") == 2
        others[1].run([sys.executable, "-c", program], **options)
