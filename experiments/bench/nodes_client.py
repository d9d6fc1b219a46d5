"""The client of the benchmarks between hosts: ``nodes_client.py JSON``, run on the host of the client.

The argument says what to do: ``kind`` is ``transfer`` or ``step``; ``server`` is the address and the token of a server
with workers on another host; ``streams`` are the addresses of the far ends of raw streams on that host. The program
prints one line of JSON: a name -> the seconds of ours and those of theirs, measured alternately.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from measure import alternate
from nodes_streams import RawStreams
from raw_round_trips import median_of_calls, round_trips
from transfer_sessions import COLUMNS, WORKERS, fetch_seconds, send_seconds, sent

import alchemist_ray as alchemist

WARM_STEPS = 200

Times = dict[str, tuple[list[float], list[float]]]


@contextlib.contextmanager
def _session(hostname: str, port: int, token: str) -> Iterator[alchemist.AlchemistSession]:
    with alchemist.AlchemistSession(verbose=False) as session:
        session.connect(hostname, port, token)
        session.request_workers(WORKERS)
        session.show_progress = False
        yield session


def transfer(order: dict[str, Any]) -> Times:
    """Move a matrix to the workers and back in each layout, and as many bytes over raw streams."""
    repeats = order["repeats"]
    A = np.random.default_rng(0).standard_normal((order["nbytes"] // (8 * COLUMNS), COLUMNS))
    out = np.ones_like(A)
    found: Times = {}
    with _session(*order["server"]) as session, RawStreams(order["streams"]) as raw:
        for layout in order["layouts"]:
            send = partial(send_seconds, session, A, layout)
            found[f"send, {layout}"] = alternate(repeats, send, partial(raw.send_seconds, A))
            with sent(session, A, layout) as handle:
                fetch = partial(fetch_seconds, session, handle, out)
                found[f"fetch, {layout}"] = alternate(repeats, fetch, partial(raw.fetch_seconds, out))
    return found


def step(order: dict[str, Any]) -> Times:
    """Step each simulation, and exchange messages with as many echoing processes."""
    found: Times = {}
    hostname, port, token = order["server"]
    with RawStreams(order["streams"]) as raw:
        sockets = raw.echoes()
        for name, params in order["simulations"].items():
            env = alchemist.HPCSimulator(
                lib_name=name, params=params, num_workers=WORKERS, hostname=hostname, port=port, token=token
            )
            env.reset(seed=0)
            action = np.zeros(env.action_space.shape, env.action_space.dtype)
            do_step = partial(env.step, action)
            median_of_calls(do_step, WARM_STEPS)
            found[name] = alternate(
                order["repeats"],
                partial(median_of_calls, do_step, order["steps"]),
                partial(median_of_calls, partial(round_trips, sockets), order["steps"]),
            )
            env.close()
    return found


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps({"transfer": transfer, "step": step}[given["kind"]](given)))
