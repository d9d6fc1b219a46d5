"""Who frees a matrix on the workers, and when."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any

from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.transfer.plane import forget_plane, plane_of
from alchemist_ray.errors import FreedMatrixError, GroupDiedError, GroupEndedError


class Ownership:
    """The right of this process to a matrix; shared by a handle and its copies.

    An owner frees the matrix when the last handle that shares it is garbage collected. The handle of another process
    owns nothing, but can free the matrix by name.

    Parameters
    ----------
    matrix_id : int
        The matrix's number in the session.
    address : GroupAddress
        Where its workers are.
    owned : bool
        Whether the matrix is freed with this object.
    """

    def __init__(self, matrix_id: int, address: GroupAddress, owned: bool) -> None:
        self._matrix_id = matrix_id
        self._address = address
        self.freed = False
        self._finalizer: weakref.finalize[Any, Any] | None = None
        if owned:
            self._finalizer = weakref.finalize(self, plane_of(address).drop, matrix_id)
            self._finalizer.atexit = False

    def check(self) -> None:
        """Raise :class:`FreedMatrixError` if the matrix was freed through this object."""
        if self.freed:
            raise FreedMatrixError(self._matrix_id)

    def free(self) -> None:
        """Free the matrix on its workers now. Freeing it twice has no effect."""
        if self.freed:
            return
        self.freed = True
        self.disown()
        try:
            plane_of(self._address).free([self._matrix_id])
        except GroupEndedError:  # the matrix was freed with its workers
            pass
        except GroupDiedError:
            forget_plane(self._address)
        except BaseException:  # it may be freed or not; the next request frees it
            with contextlib.suppress(GroupEndedError):
                plane_of(self._address).drop(self._matrix_id)
            raise

    def drop(self) -> None:
        """Have the matrix freed with the next request to its workers; dead workers are not an error."""
        if not self.freed:
            self.freed = True
            self.disown()
            with contextlib.suppress(GroupEndedError):
                plane_of(self._address).drop(self._matrix_id)

    def disown(self) -> None:
        """Leave it to another owner to free the matrix."""
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
