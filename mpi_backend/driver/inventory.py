"""The worker slots of a server on its nodes, and the session that holds each."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from alchemist_ray.errors import ArgumentValueError, NodeError, NotEnoughWorkersError
from alchemist_ray.mpi_backend.node.slots import Slot
from alchemist_ray.protocol.messages import PLACEMENTS

MOST_LABELS = 20
"""Labels that an error names: each node of a large cluster may have one of its own."""


@dataclass(frozen=True)
class Placement:
    """Where the workers of a group shall be.

    Attributes
    ----------
    count : int
        How many there are.
    strategy : {"pack", "spread", "strict_spread"}
        On as few nodes as possible, on as many as possible, or each worker on a node of its own.
    labels : mapping
        Only nodes that have all these labels are used.

    Raises
    ------
    ArgumentValueError
        If the strategy is unknown, or `count` is less than 1.
    """

    count: int
    strategy: str = "pack"
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ArgumentValueError("request_workers", f"{self.count} workers were requested; at least 1 is needed")
        if self.strategy not in PLACEMENTS:
            raise ArgumentValueError(
                "request_workers", f"placement is {self.strategy!r}; it must be one of {', '.join(PLACEMENTS)}"
            )

    def __str__(self) -> str:
        labels = " on nodes with " + ", ".join(f"{k}={v}" for k, v in self.labels.items()) if self.labels else ""
        return labels + (", each on a node of its own" if self.strategy == "strict_spread" else "")


@dataclass
class NodeSlots:
    """The slots of one node.

    Attributes
    ----------
    name : str
        The node.
    slots : list of Slot
        All of them.
    labels : mapping
        The labels of the node.
    free : list of int
        A heap of the indices of those that no session holds.
    is_alone : bool
        Whether a group with ranks here has all its ranks here, because the site's own MPI starts them.
    """

    name: str
    slots: list[Slot]
    labels: Mapping[str, str]
    free: list[int]
    is_alone: bool = False

    def has(self, labels: Mapping[str, str]) -> bool:
        """Whether the node has all these labels."""
        return all(self.labels.get(key) == value for key, value in labels.items())


class Inventory:
    """All slots of a server."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeSlots] = {}
        self._unused: list[int] = []  # a heap of numbers of workers whose nodes have left
        self._next_id = itertools.count(1)
        self._held: dict[int, list[Slot]] = {}  # by session
        self._holders: dict[int, int] = {}  # worker -> session

    # --- nodes --------------------------------------------------------------------------------------------------------

    def add(self, name: str, count: int, labels: Mapping[str, str] | None = None, is_alone: bool = False) -> None:
        """Add the slots of a node; see :class:`NodeSlots`.

        Raises
        ------
        NodeError
            If there is a node of that name.
        """
        if name in self._nodes:
            raise NodeError(
                f"the server has a node called {name} already: give this one another name with --name, or end the other"
            )
        slots = [Slot(self._new_id(), name, index) for index in range(count)]
        self._nodes[name] = NodeSlots(name, slots, dict(labels or {}), list(range(count)), is_alone)

    def _new_id(self) -> int:
        return heapq.heappop(self._unused) if self._unused else next(self._next_id)

    def remove(self, name: str) -> None:
        """Remove the slots of a node that has left; the sessions that hold some of them keep the others."""
        for slot in self._nodes.pop(name).slots:
            if slot.worker_id not in self._holders:
                heapq.heappush(self._unused, slot.worker_id)

    @property
    def slots(self) -> list[Slot]:
        """All slots, node by node."""
        return [slot for node in self._nodes.values() for slot in node.slots]

    def nodes(self) -> Iterable[NodeSlots]:
        """Return the nodes."""
        return self._nodes.values()

    def sessions_on(self, name: str) -> dict[str, int]:
        """Return how many slots of a node each session holds; the keys are the numbers of the sessions."""
        count: dict[str, int] = {}
        for slot in self._nodes[name].slots:
            holder = self._holders.get(slot.worker_id)
            if holder is not None:
                count[str(holder)] = count.get(str(holder), 0) + 1
        return count

    # --- sessions -----------------------------------------------------------------------------------------------------

    def holder(self, slot: Slot) -> int | None:
        """Return the session that holds `slot`, or None."""
        return self._holders.get(slot.worker_id)

    def free_slots(self) -> list[Slot]:
        """Return the slots that no session holds."""
        return [slot for slot in self.slots if slot.worker_id not in self._holders]

    def held_by(self, session_id: int) -> list[Slot]:
        """Return the slots that a session holds."""
        return list(self._held.get(session_id, ()))

    def suitable(self, placement: Placement) -> set[str]:
        """Return the names of the nodes that a group may use."""
        return {node.name for node in self._nodes.values() if node.has(placement.labels)}

    def take(self, placement: Placement, session_id: int, kept: Set[str] = frozenset()) -> list[Slot]:
        """Give free slots to a session; slots of one node stand together.

        Parameters
        ----------
        placement : Placement
            Which slots.
        session_id : int
            The session.
        kept : set of str
            Nodes that are kept for others.

        Raises
        ------
        NotEnoughWorkersError
            If too few slots are free.
        """
        nodes = [node for node in self._nodes.values() if node.free and node.has(placement.labels)]
        shares = _shares_of(placement, [node for node in nodes if node.name not in kept] if kept else nodes)
        if shares is None:
            raise self.refusal(placement)
        # Nodes with equal shares stand together: MPI gets one entry for each run of them (see pmi.process_mapping).
        shares.sort(key=lambda share: share[1], reverse=True)
        taken = []
        for node, count in shares:
            taken += [node.slots[heapq.heappop(node.free)] for _ in range(count)]
        self._held.setdefault(session_id, []).extend(taken)
        self._holders.update((slot.worker_id, session_id) for slot in taken)
        return taken

    def release(self, session_id: int) -> None:
        """Take back all slots of a session."""
        for slot in self._held.pop(session_id, ()):
            del self._holders[slot.worker_id]
            if self.is_here(slot):
                heapq.heappush(self._nodes[slot.node].free, slot.index)
            else:
                heapq.heappush(self._unused, slot.worker_id)

    def is_here(self, slot: Slot) -> bool:
        """Whether the node of a slot has not left; another node of that name may have come since."""
        node = self._nodes.get(slot.node)
        return node is not None and slot.index < len(node.slots) and node.slots[slot.index] is slot

    def refusal(self, placement: Placement) -> NotEnoughWorkersError:
        """Return the error that says why a session cannot have these slots now."""
        nodes = [node for node in self._nodes.values() if node.has(placement.labels)]
        return NotEnoughWorkersError(
            requested=placement.count,
            available=_room(placement, nodes, lambda node: node.free),
            total=_room(placement, nodes, lambda node: node.slots),
            holders=self._holders_on(nodes),
            condition=str(placement) + _loners(placement, nodes),
            nodes=len(self._nodes),
            suitable=len(nodes),
            workers=sum(len(node.slots) for node in self._nodes.values()),
            labels=[] if nodes else self._labels(),
        )

    def _holders_on(self, nodes: list[NodeSlots]) -> list[str]:
        """Return in words which sessions hold how many slots of these nodes."""
        held = {session_id: len(slots) for session_id, slots in self._held.items()}
        if len(nodes) < len(self._nodes):  # to look at each slot takes long on a large server
            names = {node.name for node in nodes}
            held = {session_id: sum(s.node in names for s in slots) for session_id, slots in self._held.items()}
        return [f"session {session_id}: {count}" for session_id, count in sorted(held.items()) if count]

    def _labels(self) -> list[str]:
        """Return the labels of all nodes, or the first of them and how many more there are."""
        labels = sorted({f"{key}={value}" for node in self._nodes.values() for key, value in node.labels.items()})
        more = len(labels) - MOST_LABELS
        return labels if more <= 0 else [*labels[:MOST_LABELS], f"and {more} more"]

    def could(self, placement: Placement) -> bool:
        """Whether the nodes would have room for a group if no session held a slot."""
        nodes = [node for node in self._nodes.values() if node.has(placement.labels)]
        return _room(placement, nodes, lambda node: node.slots) >= placement.count


Shares = list[tuple[NodeSlots, int]]
"""Nodes, and how many slots of each to take."""


def _shares_of(placement: Placement, nodes: list[NodeSlots]) -> Shares | None:
    """Return the shares of the nodes in a group; a node that must be alone has none of them or all."""
    count = placement.count
    shared = [node for node in nodes if not node.is_alone]
    alone = [node for node in nodes if node.is_alone and len(node.free) >= count]
    if placement.strategy == "pack" or count == 1:
        return _SHARES[placement.strategy](shared + alone, count)
    shares = _SHARES[placement.strategy](shared, count)
    if shares is None and alone and placement.strategy == "spread":
        return _pack(alone, count)
    return shares


def _room(placement: Placement, nodes: list[NodeSlots], slots: Callable[[NodeSlots], Sequence[object]]) -> int:
    """Return how large a group can be that is placed like this, if these are the slots of each node."""
    strict = placement.strategy == "strict_spread"
    sizes = [(node.is_alone, min(1, len(slots(node))) if strict else len(slots(node))) for node in nodes]
    shared = sum(size for is_alone, size in sizes if not is_alone)
    return max([shared, *(size for is_alone, size in sizes if is_alone)])


def _loners(placement: Placement, nodes: list[NodeSlots]) -> str:
    """Return in words why slots of several nodes cannot be used together, if this is so."""
    if placement.count == 1 or len(nodes) == 1 or not any(node.is_alone for node in nodes):
        return ""
    names = ", ".join(node.name for node in nodes if node.is_alone)
    return f" (a group with ranks on {names} has all of them there: the site's own MPI starts them)"


def _pack(nodes: list[NodeSlots], count: int) -> Shares | None:
    """Take as few nodes as possible.

    Of the nodes with room for all take the fullest, which leaves room for larger groups. If no node has room for all,
    take the emptiest.
    """
    whole = [node for node in nodes if len(node.free) >= count]
    if whole:
        return [(min(whole, key=lambda node: len(node.free)), count)]
    shares = []
    for node in sorted(nodes, key=lambda node: len(node.free), reverse=True):
        share = min(count, len(node.free))
        shares.append((node, share))
        count -= share
        if count == 0:
            return shares
    return None


def _spread(nodes: list[NodeSlots], count: int) -> Shares | None:
    """Take as many nodes as possible, and about as many slots of each."""
    if count > sum(len(node.free) for node in nodes):
        return None
    ordered = sorted(nodes, key=lambda node: len(node.free))
    shares = []
    for position, node in enumerate(ordered):  # those with little room first: the others take what is left
        share = min(len(node.free), -(-count // (len(ordered) - position)))
        shares.append((node, share))
        count -= share
    return [(node, share) for node, share in shares if share]


def _strict_spread(nodes: list[NodeSlots], count: int) -> Shares | None:
    """Take one slot of each node, of the emptiest first."""
    ordered = sorted(nodes, key=lambda node: len(node.free), reverse=True)
    return [(node, 1) for node in ordered[:count]] if len(ordered) >= count else None


_SHARES = {"pack": _pack, "spread": _spread, "strict_spread": _strict_spread}
