"""A matrix larger than what its client may take: read by the workers, and sent in chunks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "larger_than_memory.py"


@pytest.mark.systems
def test_half_a_gigabyte_of_hdf5_with_a_client_of_less_than_300_mb(tmp_path):
    command = [sys.executable, str(SCRIPT), "--gigabytes", "0.5", "--directory", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("singular values to") == 2
    assert list(tmp_path.iterdir()) == []
