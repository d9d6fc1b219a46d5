"""The code of the documentation runs as printed.

A page becomes one program: its Python blocks in their order, between them the files that it shows, written where they
are shown, and its shell commands. A command that ends in ``&`` is a server, which is waited for until it is ready.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(page.name for page in DOCS.glob("*.md") if "```python" in page.read_text())
ELSEWHERE = {"wrapping-c.md", "experiments.md", "clusters.md"}  # have tests of their own: compilers, trainings, hosts

NOISY = {"environments.md"}  # RLlib warns of itself
LONG = {"environments.md", "vector-environments.md"}  # RLlib takes longer to start than all other pages to run

PRINTED = {
    "environments.md": [
        r"^mean return of an episode: -\d",
        r"^reward -\d",
        r"^decayed to \[0\.904",
        r"^Component\(name='flux_\w+', unit='kW/m2', low=-6\.0, high=6\.0\)$",
        r"^picture \(\d+, \d+, 3\)$",
        r"^the same again: True$",
    ],
    "wrapping-python.md": [
        r"^power +/\S+/power\.py +1\.0 +--library$",
        r"^power_types\.pyi has the class PowerLibrary$",
        r"^dominant\(A: MatrixHandle, tol: float = 1e-09, .*\) -> tuple\[float, MatrixHandle\]$",
        r"^499\.\d+ \d\.\d+e-(0[89]|1\d)$",
        r"^499\.\d+ \(500, 1\)$",
        r"must be a number, not str$",
        r"not 'one'; did you mean 'ones'\?$",
        r"unknown argument 'tolerance'",
        r"after 1 iterations .*\| rank 0$",
        r"did not end within its timeout of 0\.5 s",
        r"^-0\.\d+ \['heating'\]$",
    ],
}
"""What the code of a page prints, among other things."""
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)

PREAMBLE = """
import atexit as _atexit
import pathlib as _pathlib
import subprocess as _subprocess

def _shell(command):
    print("$", command, flush=True)
    if not command.rstrip().endswith("&"):
        _subprocess.run(["sh", "-ec", command], check=True)
        return
    server = _subprocess.Popen(["sh", "-c", "exec " + command.rstrip()[:-1]], stdout=_subprocess.PIPE, text=True)
    _atexit.register(server.wait, 20)
    _atexit.register(server.terminate)
    for line in server.stdout:
        if "Accepting connections" in line:
            return
    raise SystemExit("the server did not start")

"""


def program_of(page):
    """Return the code of a page as one program."""
    pieces = [PREAMBLE]
    blocks = BLOCK.findall(page)
    assert blocks
    for language, file, text in blocks:
        if file:
            pieces.append(f"_pathlib.Path({file!r}).write_text({text!r})\n")
        elif language == "python":
            pieces.append(text)
        elif language == "sh":
            pieces.append(f"_shell({text!r})\n")
        else:
            raise AssertionError(f"nobody runs a block of {language}")
    return "".join(pieces)


def free_ports(count):
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.systems] * (page in LONG)) for page in PAGES if page not in ELSEWHERE],
)
def test_the_code_of_a_page_runs_as_printed(page, tmp_path, monkeypatch):
    text = (DOCS / page).read_text()
    printed = sorted(set(re.findall(r"\b2496\d\b", text)))  # others may be using these ports on this machine
    for port, free in zip(printed, free_ports(len(printed)), strict=True):
        text = text.replace(port, free)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    ran = subprocess.run(
        [sys.executable, "-c", program_of(text)],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Warning" not in ran.stderr or page in NOISY
    for line in PRINTED.get(page, []):
        assert re.search(line, ran.stdout, re.MULTILINE), f"{line} is not in\n{ran.stdout}"


@pytest.mark.quick
def test_no_page_is_forgotten():
    assert {"matrices.md", "files.md", "wrapping-python.md"} <= set(PAGES) - ELSEWHERE
