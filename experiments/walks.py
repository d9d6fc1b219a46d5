"""List the modules that run when ``svd.remote(A, k)`` is called, and when an environment takes a step.

A newcomer who follows such a call opens about these modules; ``docs/architecture.md`` has the lists. Everything that is
done once (starting the server and the workers, loading the library) happens before, in a first call.

Run with ``python experiments/walks.py [svd|step]``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RECORDER = """
import atexit, json, os, sys, threading, time

seen = {}

def note(frame, event, argument):
    if event == "call":
        name = frame.f_globals.get("__name__", "")
        if name.startswith("alchemist_ray"):
            seen[name] = time.time()
            if name.endswith("commands") or "holder" in name:
                write()

def write():
    with open(os.path.join(os.environ["ALCHEMIST_WALK"], str(os.getpid())), "w") as file:
        json.dump(seen, file)

threading.setprofile(note)
sys.setprofile(note)
threading.Thread(target=lambda: [(time.sleep(0.2), write()) for _ in iter(int, 1)], daemon=True).start()
"""
"""Notes in each process when a function of a module was last called; Python runs it at its start (sitecustomize)."""


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("walk", choices=["svd", "step"])
    walk = parser.parse_args().walk
    if "ALCHEMIST_WALK" not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "sitecustomize.py").write_text(RECORDER)
            environment = {**os.environ, "ALCHEMIST_WALK": folder, "PYTHONPATH": folder}
            return os.spawnve(os.P_WAIT, sys.executable, [sys.executable, __file__, walk], environment)
    started = svd() if walk == "svd" else step()
    time.sleep(1.0)  # the recorders write
    found: dict[str, Any] = {}
    for path in Path(os.environ["ALCHEMIST_WALK"]).glob("[0-9]*"):
        found |= {name: when for name, when in json.loads(path.read_text()).items() if when >= started}
    print(f"{len(found)} modules")
    print("\n".join(sorted(found)))
    return 0


def svd() -> float:
    """Call ``svd.remote`` twice; return when the second call began."""
    import ray

    import alchemist_ray as alchemist

    A = np.random.default_rng(0).standard_normal((20_000, 50))
    alchemist.init(num_workers=2)
    ray.get(alchemist.svd.remote(A, k=5))
    time.sleep(1.0)  # what the first call leaves behind has run
    started = time.time()
    ray.get(alchemist.svd.remote(A, k=5))
    return started


def step() -> float:
    """Take two steps of an environment; return when the second began."""
    from alchemist_ray import HPCSimulator

    env = HPCSimulator({"lib_name": "heat", "num_workers": 2, "params": {"n": 32}})
    env.reset(seed=1)
    env.step(env.action_space.sample())
    action = env.action_space.sample()
    started = time.time()
    env.step(action)
    return started


if __name__ == "__main__":
    sys.exit(main())
