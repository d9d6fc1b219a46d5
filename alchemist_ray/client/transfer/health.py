"""What a process knows of the life of a worker group. All its connections to the workers share it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from alchemist_ray.errors import GroupDiedError

RETRY_SECONDS = 5.0
"""A group that was found dead is not looked for again for so long: others may wait for the same connections."""

log = logging.getLogger("alchemist.session")


class GroupHealth:
    """The life of a worker group, as this process has seen it. Thread-safe.

    The ranks of a group die together. So what one connection finds out holds for all of them, and nobody has to find
    out once more for each rank of a host that is gone.

    Parameters
    ----------
    session_id : int
        Number of the session, for messages.

    Attributes
    ----------
    look : callable or None
        In the process of the session: hears what the driver says, as :meth:`.commands.Watch.look`.
    """

    def __init__(self, session_id: int) -> None:
        self.look: Callable[[], str] | None = None
        self._session_id = session_id
        self._reason, self._since = "", 0.0
        self._told = ""

    def note_death(self, reason: str) -> GroupDiedError:
        """Note that the group is dead; return the error that says so."""
        self._reason, self._since = reason, time.monotonic()
        return GroupDiedError(self._session_id, reason)

    def check(self) -> None:
        """Raise GroupDiedError if the group was found dead a short time ago."""
        if self._reason and time.monotonic() - self._since < RETRY_SECONDS:
            raise GroupDiedError(self._session_id, self._reason)

    def tick(self) -> None:
        """Look whether to wait any longer for a worker; tell the caller of ranks that are stopped.

        Raises
        ------
        GroupDiedError
            If the group is dead, or shall be ended because a rank is stopped.
        """
        self.check()
        if self.look is not None:
            text = self.look()
            if text and text != self._told:
                log.warning("%s", text)
            self._told = text
