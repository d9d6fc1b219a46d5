"""The page on libraries in C runs as printed: its files are compiled, served and called."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from skips import needs
from test_docs import DOCS, free_ports, program_of


@needs("cc", "c++")
def test_the_code_of_the_page_runs_as_printed(tmp_path, monkeypatch):
    text = (DOCS / "wrapping-c.md").read_text()
    assert set(re.findall(r"\b2496\d\b", text)) == {"24960"}
    text = text.replace("24960", *free_ports(1))  # others may be using this port on this machine
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    command = [sys.executable, "-c", program_of(text)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "order must be at least 1, not 0" in ran.stdout
    assert "leading minor of order 1 is not" in ran.stdout
    assert "order : int, default 1" in ran.stdout
    assert "\n(1, 64)\n" in ran.stdout
    assert "warning" not in ran.stderr.lower()
