"""What the programs of this directory share: cases that mpiexec runs, and what is asked of every simulation.

A program marks functions with :func:`case` and ends in ``run()``. The fixture ``cases_of`` of the tests gets what they
have returned on rank 0, by name::

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
    """Have :func:`run` call `function`, on every rank; what it returns on rank 0 is the result."""
    _cases[function.__name__] = function
    return function


def run():
    """Run the cases named on the command line, or all; rank 0 prints a line ``[name, result]`` of JSON for each."""
    for name in sys.argv[1:] or _cases:
        result = _cases[name]()
        if comm.rank == 0:
            print(json.dumps([name, result], default=_plain), flush=True)


def _plain(value):
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"no JSON for a {type(value).__name__}")


def make(kind, on=comm, **parameters):
    """Return a simulation as a session would make it, on the communicator `on`. Collective over it."""
    simulation = kind.__new__(kind)
    simulation.context = TaskContext(on, f"{kind.__name__}.create")
    simulation.__init__(on, **parameters)
    return simulation


def play(simulation, actions):
    """Step through `actions`; return on rank 0 what an agent sees after each: a row of the state and the score."""
    rows = []
    for action in actions:
        simulation.step(np.asarray(action, float))
        state, score = simulation.get_state(), simulation.get_score()
        if state is not None and score is not None:
            rows.append(np.append(np.ravel(state), score))
    return np.array(rows)


def episode(simulation, actions, seed=1):
    """Reset and play; return on rank 0 the rows of :func:`play`, that of the first state with a score of 0 before."""
    simulation.reset(seed)
    first = simulation.get_state()
    rows = play(simulation, actions)
    return np.vstack([np.append(np.ravel(first), 0.0), rows]) if first is not None and len(rows) else rows


def same(one, other):
    """Whether two arrays are equal bit for bit on rank 0. Collective over the world."""
    return comm.bcast(np.array_equal(one, other))


def repeats_itself(simulation, actions, seed=1):
    """Whether the same seed gives the same episode bit for bit, also after one with another seed, which differs."""
    first = episode(simulation, actions, seed)
    other = episode(simulation, actions, seed + 1)
    return same(first, episode(simulation, actions, seed)) and not same(first, other)


def continues(simulation, sibling, actions, seed=1):
    """Whether a snapshot continues bit for bit, in the simulation and in a `sibling` that was never reset.

    The first half of `actions` comes before the snapshot; the second half, which should be 20 at least, is played once
    to go on, again after going back, and in the sibling.
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
    """Return the text of the error with which `call` is refused on every rank; empty if it is not, on any."""
    try:
        call()
        text = ""
    except (AlchemistError, ValueError, TypeError) as refused:
        text = str(refused)
    texts = comm.allgather(text)
    return texts[0] if all(texts) else ""
