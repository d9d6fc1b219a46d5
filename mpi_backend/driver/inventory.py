"""The worker slots of a server on its hosts, and the session that holds each."""

from __future__ import annotations

from collections.abc import Iterable

from alchemist_ray.errors import ArgumentValueError, NotEnoughWorkersError
from alchemist_ray.mpi_backend.node.slots import Slot


class Inventory:
    """All slots of a server.

    Parameters
    ----------
    hosts : iterable of (str, int)
        Host name and number of slots, for each host.
    """

    def __init__(self, hosts: Iterable[tuple[str, int]]) -> None:
        names = [host for host, count in hosts for _ in range(count)]
        self.slots = [Slot(number, host) for number, host in enumerate(names, 1)]
        self._holders: dict[int, int] = {}

    def holder(self, slot: Slot) -> int | None:
        """Return the session that holds `slot`, or None."""
        return self._holders.get(slot.worker_id)

    def free_slots(self) -> list[Slot]:
        """Return the slots that no session holds."""
        return [slot for slot in self.slots if slot.worker_id not in self._holders]

    def held_by(self, session_id: int) -> list[Slot]:
        """Return the slots that a session holds."""
        return [slot for slot in self.slots if self._holders.get(slot.worker_id) == session_id]

    def take(self, count: int, session_id: int) -> list[Slot]:
        """Give `count` free slots to a session, on as few hosts as possible.

        Raises
        ------
        ArgumentValueError
            If `count` is less than 1.
        NotEnoughWorkersError
            If fewer than `count` slots are free.
        """
        if count < 1:
            raise ArgumentValueError("request_workers", f"{count} workers were requested; at least 1 is needed")
        free = self.free_slots()
        if count > len(free):
            raise NotEnoughWorkersError(count, len(free), len(self.slots), self._describe_holders())
        by_host: dict[str, list[Slot]] = {}
        for slot in free:
            by_host.setdefault(slot.host, []).append(slot)
        # Of the hosts with room for the whole group take the fullest, which leaves room for larger groups. If no host
        # has room for all, take the emptiest hosts.
        whole = [slots for slots in by_host.values() if len(slots) >= count]
        order = [min(whole, key=len)] if whole else sorted(by_host.values(), key=len, reverse=True)
        chosen = [slot for slots in order for slot in slots][:count]
        taken = sorted(chosen, key=lambda slot: slot.worker_id)
        self._holders.update({slot.worker_id: session_id for slot in taken})
        return taken

    def release(self, session_id: int) -> None:
        """Take back all slots of a session."""
        for slot in self.held_by(session_id):
            del self._holders[slot.worker_id]

    def _describe_holders(self) -> list[str]:
        held: dict[int, int] = {}
        for session_id in self._holders.values():
            held[session_id] = held.get(session_id, 0) + 1
        return [f"session {session_id}: {count}" for session_id, count in sorted(held.items())]
