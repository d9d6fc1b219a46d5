"""Helpers for the programs of this directory: cases that mpiexec runs, and checks that apply to every simulation.

A program marks functions with :func:`case` and calls ``run()`` at its end. The fixture ``cases_of`` of the tests
returns the results of rank 0, by the name of the case::

    from cases import case, make, repeats_itself, run

    @case
    def determinism():
        return repeats_itself(make(Heat, n=64), actions)

    run()
"""

import json
import sys

import numpy as np
from mpi4py import MPI

from alchemist_ray.errors import AlchemistError
from alchemist_ray.mpi_backend.ali import TaskContext

comm = MPI.COMM_WORLD
_cases = {}


def case(function):
    """Mark `function` as a case. :func:`run` calls it on every rank and takes its value on rank 0 as the result."""
    _cases[function.__name__] = function
    return function


def run():
    """Run the cases named on the command line, or all. Rank 0 prints a JSON line ``[name, result]`` for each case."""
    for name in sys.argv[1:] or _cases:
        result = _cases[name]()
        if comm.rank == 0:
            print(json.dumps([name, result], default=_plain), flush=True)


def _plain(value):
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"no JSON for a {type(value).__name__}")


def make(kind, on=comm, **parameters):
    """Return a simulation on the communicator `on`, made in the way a session makes it. Collective over `on`."""
    simulation = kind.__new__(kind)
    simulation.context = TaskContext(on, f"{kind.__name__}.create")
    simulation.__init__(on, **parameters)
    return simulation


def play(simulation, actions):
    """Take the steps of `actions`. Return on rank 0 a row with the state and the score after each step."""
    rows = []
    for action in actions:
        simulation.step(np.asarray(action, float))
        state, score = simulation.get_state(), simulation.get_score()
        if state is not None and score is not None:
            rows.append(np.append(np.ravel(state), score))
    return np.array(rows)


def episode(simulation, actions, seed=1):
    """Reset and play. Return on rank 0 a row with the first state and a score of 0, then the rows of :func:`play`."""
    simulation.reset(seed)
    first = simulation.get_state()
    rows = play(simulation, actions)
    return np.vstack([np.append(np.ravel(first), 0.0), rows]) if first is not None and len(rows) else rows


def same(one, other):
    """Return whether two arrays are equal bit for bit on rank 0. Collective over the world."""
    return comm.bcast(np.array_equal(one, other))


def repeats_itself(simulation, actions, seed=1):
    """Return whether the same seed gives the same episode bit for bit, and another seed in between a different one."""
    first = episode(simulation, actions, seed)
    other = episode(simulation, actions, seed + 1)
    return same(first, episode(simulation, actions, seed)) and not same(first, other)


def continues(simulation, sibling, actions, seed=1):
    """Return whether a snapshot continues bit for bit, in the simulation and in a `sibling` that was never reset.

    The first half of `actions` is played before the snapshot. The second half, of at least 20 actions, is played three
    times: right after the snapshot, after restoring it, and in the sibling.
    """
    half = len(actions) // 2
    episode(simulation, actions[:half], seed)
    kept = simulation.snapshot()
    first = play(simulation, actions[half:])
    simulation.restore(kept)
    second = play(simulation, actions[half:])
    sibling.restore(kept)
    return same(first, second) and same(first, play(sibling, actions[half:]))


def refusal(call):
    """Return the text of the error that `call` raises on every rank; empty if a rank raises none."""
    try:
        call()
        text = ""
    except (AlchemistError, ValueError, TypeError) as refused:
        text = str(refused)
    texts = comm.allgather(text)
    return texts[0] if all(texts) else ""
