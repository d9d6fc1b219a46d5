"""Connections, locks and counters that a forked child must not share with its parent.

``os.fork()`` copies file descriptors and locks. A child that used its parent's connection would read the parent's
answers, a lock that another thread held at the fork is never released in the child, and a server does not see that the
parent is dead while a child holds a copy of its socket. So each owner of such things gives them up in a child.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Protocol


class Abandons(Protocol):
    """An object that must not be used in a forked child as it is."""

    def abandon(self) -> None:
        """Give up the parent's connections and locks in a child, without sending anything to a peer."""


_owners: weakref.WeakSet[Abandons] = weakref.WeakSet()


def abandon_in_children(owner: Abandons) -> None:
    """Call ``owner.abandon()`` in every child that this process forks, as long as `owner` exists."""
    _owners.add(owner)


def _abandon_all() -> None:
    for owner in list(_owners):
        with contextlib.suppress(Exception):  # one that fails must not keep the others from letting go
            owner.abandon()


os.register_at_fork(after_in_child=_abandon_all)
