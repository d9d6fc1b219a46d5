"""A host that is cut off with many ranks on it: who talks to all of them hears of it as soon as with one rank."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest
from node_cluster import Cluster
from tests_support import in_background

from alchemist_ray import errors

pytestmark = pytest.mark.hosts

CUT_SECONDS = 15.0
"""A link that is cut without a word is noticed within this time."""
RANKS = 6


def test_many_ranks_take_no_longer_than_one(hosts):
    with contextlib.closing(Cluster(hosts(2), slots=3 * RANKS)) as cluster:
        host = cluster.hosts[0]
        checked, fetched, sent = (cluster.session(RANKS, labels={"host": host.name}) for _ in range(3))
        A = np.ones((3000, 1000))
        handle = fetched.send_matrix(A)
        sent.send_matrix(A)
        checked.check_workers()
        cluster.hosts.cut(host)
        begun = time.monotonic()
        waiting = {
            "a check": in_background(checked.check_workers),
            "a fetch": in_background(lambda: fetched.fetch_matrix(handle)),
            "a send": in_background(lambda: sent.send_matrix(A)),
        }
        for what, wait in waiting.items():
            error = wait(3 * CUT_SECONDS)
            assert isinstance(error, errors.GroupDiedError), (what, error)
            assert host.name in str(error), (what, error)
            assert time.monotonic() - begun <= CUT_SECONDS, what
