"""Connections, locks and counters that a forked child must not share with its parent.

``os.fork()`` copies file descriptors and locks. A child that used its parent's connection would read the parent's
answers, a lock that another thread held at the fork is never released in the child, and a server does not see that the
parent is dead while a child holds a copy of its socket. So each owner of such things says what happens in a child.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Abandons(Protocol):
    """An object that must not be used in a forked child as it is."""

    def abandon(self) -> None:
        """Let go of the parent's connections and locks, in a child, without a word to any peer."""


_owners: weakref.WeakSet[Abandons] = weakref.WeakSet()


def abandon_in_children(owner: Abandons) -> None:
    """Have ``owner.abandon()`` called in every child that this process forks, for as long as `owner` lives."""
    _owners.add(owner)


def _abandon_all() -> None:
    for owner in list(_owners):
        owner.abandon()


os.register_at_fork(after_in_child=_abandon_all)
