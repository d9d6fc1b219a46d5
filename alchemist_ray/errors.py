"""Every error that a caller of Alchemist can meet.

::

    AlchemistError
     +-- ServerUnreachableError (ConnectionError)      no Alchemist server answers at that address
     +-- AuthenticationError (PermissionError)         the token is missing or wrong, on either side
     +-- ProtocolError                                 bytes that break the protocol
     |    +-- LocalProtocolError                       ... sent by this program: a bug on this side
     |    +-- RemoteProtocolError                      ... received from the peer
     |    +-- ProtocolVersionError                     the peer speaks another version
     +-- DeadlineError (TimeoutError)                  an answer did not come in time
     +-- SessionError
     |    +-- NotConnectedError                        the session has no server, or has been stopped
     |    +-- ForkedSessionError                       the session belongs to the parent of this process
     |    +-- NoWorkersError                           the session has no workers yet, or has given them back
     |    +-- NotEnoughWorkersError                    more workers were asked for than are free, or than there are
     |    +-- GroupStartError                          the MPI job of a worker group did not start
     |    +-- GroupDiedError                           the MPI job of the session's workers ended
     |    |    +-- GroupEndedError                     the session has given the workers of a matrix back
     |    +-- ConnectionLostError (ConnectionError)    a connection to a worker broke, but the worker lives
     |    +-- ServerStartError                         the embedded server did not start
     |    +-- NodeError                                a node cannot offer its workers, or has left the server
     |    +-- ClusterError                             Ray, Slurm or ssh did not start a server or its nodes
     +-- MatrixError
     |    +-- LayoutError (ValueError)                 no such layout, or one that does not fit
     |    +-- InvalidArrayError (ValueError)           not a matrix that Alchemist can hold
     |    +-- MatrixMemoryError (MemoryError)          the workers have no room for it
     |    +-- FreedMatrixError (LookupError)           the matrix has been freed, or never existed
     |    +-- ForeignMatrixError                       the handle belongs to another session
     |    +-- DetachedHandleError                      the handle cannot compute: it has left its session's process
     |    +-- IncompleteMatrixError                    parts of it have not been written
     |    +-- RegionError (IndexError)                 a part lies outside, or was written twice
     |    +-- FileError (OSError)                      something is wrong with a file on the server or here
     |         +-- FileRefusedError (PermissionError)  outside the directories that the server's owner has named
     |         +-- FileMissingError (FileNotFoundError)  no such file
     |         +-- DatasetMissingError (LookupError)   the file has no such dataset, array or column
     |         +-- FileContentError (ValueError)       the file does not contain a matrix that we can hold
     |         +-- FileWriteError                      the file could not be written; the old file is unchanged
     +-- LibraryError
     |    +-- LibraryNotFoundError (LookupError)       no library of that name is registered
     |    +-- LibraryRefusedError (PermissionError)    the server does not load libraries by path
     |    +-- LibraryLoadError                         the library cannot be imported, or its description is wrong
     |    +-- TaskNotFoundError (LookupError)          the library has no such task
     |    +-- ArgumentError (TypeError)                an argument is missing, unknown or of the wrong type
     |    +-- ArgumentValueError (ValueError)          an argument is out of range, or shapes do not fit
     +-- ExperimentError (ValueError)                  an experiment's YAML is wrong, or it cannot be run
     +-- TaskError                                     raised while a task ran
          +-- RemoteTaskError                          an exception of the library on one rank
          +-- NonFiniteError (ValueError)              NaN or Inf in a matrix of a routine that needs finite numbers
          +-- SingularMatrixError (LinAlgError)        a matrix that must be inverted is singular
          +-- NotPositiveDefiniteError (LinAlgError)   a matrix that must be positive definite is not
          +-- ConvergenceError (LinAlgError)           an iteration did not reach its tolerance
          +-- TaskCancelledError                       the caller has cancelled it
          +-- TaskTimeoutError (TimeoutError)          it took longer than the caller allowed
          +-- TaskKilledError                          the child process in which it computed died
          +-- SimulationDivergedError (ArithmeticError)  the numbers of a simulation no longer make sense
          +-- StateMisfitError (ValueError)            a simulation's state does not fit the space that it declares
          +-- ResultMismatchError                      the ranks returned different results
          +-- PeerFailedError                          another rank failed; its own error gives the reason

An error is a dataclass. It takes fields and makes its own text, which tells what happened, to what, and what to do. It
can be pickled (Ray moves it), and it crosses Alchemist's own wire as its class name and fields. An error that was
raised on a worker has `rank`, `host` and, as a note, the remote traceback.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np


class _ErrorType(type):
    """The class of the error classes: an error can also be made from nothing but its text.

    Other packages copy exceptions by ``type(error)(text)``: gymnasium does when an environment cannot be made, and its
    ``AsyncVectorEnv`` does with errors of other processes. Such a copy has the text, and None for each field.
    """

    def __new__(mcs, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **keywords: Any) -> _ErrorType:
        if "__init__" not in namespace:  # an error class of another package, such as Ray's, looks after itself
            namespace.setdefault("__repr__", _representation)  # before the one that dataclass makes, without a text
        return super().__new__(mcs, name, bases, namespace, **keywords)

    if not TYPE_CHECKING:  # a type checker shall look at the fields

        def __call__(cls, *args: Any, **fields: Any) -> Any:
            is_text = len(args) == 1 and not fields and isinstance(args[0], (str, BaseException))
            is_text = is_text and "__dataclass_fields__" in cls.__dict__  # else the class has its own constructor
            if not is_text or (isinstance(args[0], str) and cls._takes_one_text()):
                return super().__call__(*args, **fields)
            return _from_text(cls, str(args[0]))

        def _takes_one_text(cls) -> bool:
            """Whether a single text is what the constructor takes anyway."""
            own = [f for f in dataclasses.fields(cls) if f.init]
            required = [f for f in own if f.default is f.default_factory is dataclasses.MISSING]
            return bool(own) and required == own[:1] and own[0].type in ("str", str)


def _representation(error: AlchemistError) -> str:
    if error._own_text is not None:
        return f"{type(error).__name__}({error._own_text!r})"
    return f"{type(error).__name__}({', '.join(f'{name}={value!r}' for name, value in error.fields().items())})"


@dataclass(eq=False)
class AlchemistError(Exception, metaclass=_ErrorType):
    """Base class of all errors of Alchemist.

    Attributes
    ----------
    rank : int or None
        Rank of the worker on which the error was raised; None if it was raised in this process or by the driver.
    host : str or None
        Host name of that worker.
    cost : str
        What was lost beside the task, and how to go on; empty if nothing was.
    """

    rank = None
    host = None
    cost = ""
    _own_text: ClassVar[str | None] = None

    def _text(self) -> str:
        """Return the text made of the fields."""
        return type(self).__doc__ or type(self).__name__

    def __str__(self) -> str:
        place = "" if self.rank is None else f" [rank {self.rank} on {self.host}]"
        text = self._text() if self._own_text is None else self._own_text
        return text + place + (f". {self.cost}" if self.cost else "")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__.copy())

    def fields(self) -> dict[str, Any]:
        """Return the fields by name; of an error that was made from its text, the text."""
        if self._own_text is not None:
            return {_TEXT: self._own_text}
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def raised_on(self, rank: int | None, host: str | None, traceback: str = "") -> Self:
        """Record the worker on which the error was raised; return the error itself."""
        self.rank, self.host = rank, host
        if traceback:
            self.add_note(f"\nTraceback on rank {rank} ({host}):\n{traceback.rstrip()}")
        return self


_TEXT = "text"
"""The one field of an error that was made from its text; no class has a field of this name."""


def _blank(cls: type[AlchemistError]) -> AlchemistError:
    """Return an error whose constructor has not run."""
    for base in cls.__mro__:
        if "__new__" in vars(base):
            make: Any = base.__new__
            with contextlib.suppress(TypeError):  # of several builtin bases, one lays out the object
                error: AlchemistError = make(cls)
                return error
    raise AssertionError(cls)


def _from_text(cls: type[AlchemistError], text: str) -> AlchemistError:
    error = _blank(cls)
    error.args = (text,)
    error.__dict__.update({f.name: None for f in dataclasses.fields(cls)}, _own_text=text)
    return error


def _rebuild(cls: type[AlchemistError], state: dict[str, Any]) -> AlchemistError:
    error = _blank(cls)
    error.__dict__.update(state)
    return error


# --- the connection ---------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class ServerUnreachableError(AlchemistError, ConnectionError):
    """Nothing answers at that address, or the process that answers is not an Alchemist server."""

    hostname: str
    port: int
    reason: str

    def _text(self) -> str:
        return (
            f"no Alchemist server answers at {self.hostname}:{self.port} ({self.reason}). Check the address, or start "
            f"a server there with: alchemist serve --port {self.port}"
        )


@dataclass(eq=False)
class AuthenticationError(AlchemistError, PermissionError):
    """The two sides do not share the same token."""

    reason: str
    advice: str = (
        "Give the token of that server: --token-file FILE on the command line, token=... in Python, or the environment "
        "variable ALCHEMIST_TOKEN, or ALCHEMIST_TOKEN_FILE with the name of a file"
    )

    def _text(self) -> str:
        return f"authentication failed: {self.reason}. {self.advice}"


@dataclass(eq=False)
class ProtocolError(AlchemistError):
    """Bytes or messages that break the protocol."""

    reason: str

    def _text(self) -> str:
        return f"protocol error: {self.reason}"


@dataclass(eq=False)
class LocalProtocolError(ProtocolError):
    """Our own program was about to break the protocol."""


@dataclass(eq=False)
class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol."""


@dataclass(eq=False)
class ProtocolVersionError(ProtocolError):
    """The peer speaks another version of the protocol, or another protocol altogether."""

    reason: str = dataclasses.field(init=False, default="")
    ours: int
    theirs: int

    def __post_init__(self) -> None:
        self.reason = f"this side speaks version {self.ours}, the peer version {self.theirs}"

    def _text(self) -> str:
        return (
            f"{self.reason} of the Alchemist protocol. Install the same release of alchemist-ray on both sides "
            "(and check that the address is that of an Alchemist server)"
        )


@dataclass(eq=False)
class DeadlineError(AlchemistError, TimeoutError):
    """An answer did not come in time."""

    waited_for: str
    seconds: float
    advice: str = ""

    def _text(self) -> str:
        return f"{self.waited_for} did not come within {self.seconds:g} s" + (f". {self.advice}" if self.advice else "")


# --- the session ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class SessionError(AlchemistError):
    """The session cannot do what was asked of it."""


@dataclass(eq=False)
class NotConnectedError(SessionError):
    """The session is not connected to a server."""

    reason: str = ""

    def _text(self) -> str:
        if self.reason:
            return (
                f"the session has lost its server ({self.reason}), and with it its workers and matrices: call "
                "connect() to begin again, with this server or another"
            )
        return "the session is not connected to a server (or has been stopped): call connect() first"


@dataclass(eq=False)
class ForkedSessionError(SessionError):
    """The session was opened by the process that forked this one, which alone can use it."""

    parent: int

    def _text(self) -> str:
        return (
            f"this session belongs to process {self.parent}, which forked this process: two processes cannot share its "
            "connections. Open a session in this process; or read matrices through their handles, which works here"
        )


@dataclass(eq=False)
class NoWorkersError(SessionError):
    """The session has no workers."""

    def _text(self) -> str:
        return "the session has no workers: call request_workers(n) first"


@dataclass(eq=False)
class NotEnoughWorkersError(SessionError):
    """More workers were asked for than are free, or than the server's nodes have.

    Attributes
    ----------
    requested : int
        How many were asked for.
    available, total : int
        How many the session could have had in this way, and how many if no other session had any.
    holders : list of str
        The sessions that hold some of them.
    condition : str
        What was asked of them, in words.
    nodes, suitable : int
        Number of the server's nodes, and of those that have the labels that were asked for.
    workers : int
        Number of all workers of the server; 0: `total`.
    labels : list of str
        The labels that there are, if no node has those that were asked for.
    """

    requested: int
    available: int
    total: int
    holders: list[str]
    condition: str = ""
    nodes: int = 1
    suitable: int = 1
    workers: int = 0
    labels: list[str] = dataclasses.field(default_factory=list)

    def _text(self) -> str:
        wish = f"{self.requested} worker{' was' if self.requested == 1 else 's were'} requested{self.condition}"
        return f"{wish}, but {self._obstacle()}"

    def _obstacle(self) -> str:
        """Return in words what is in the way, and what to do."""
        if not self.nodes:
            return (
                "the server has no node, and so no workers. Add a node with: alchemist node --driver HOST:PORT (or "
                "start the server with --workers). request_workers(n, wait=seconds) waits for nodes"
            )
        if not self.suitable:
            return (
                f"no node of the server has these labels. Its nodes have {', '.join(self.labels) or 'no labels'}. Ask "
                "for labels that a node has, or add a node that has these, with: alchemist node --label KEY=VALUE"
            )
        if self.requested > self.total:
            most = f"Request at most {self.total}, or add" if self.total else "Add"
            return (
                f"{self._suitable_nodes()} at most {self.total}. {most} nodes (alchemist node) or workers (alchemist "
                "serve --workers)"
            )
        whose = "the server's" if self.workers in (0, self.total) else "the possible"
        held = f" (held: {'; '.join(self.holders)})" if self.holders else ""
        return f"{self.available} of {whose} {self.total} are free{held}. {self._advice_to_wait()}"

    def _suitable_nodes(self) -> str:
        """Return the nodes that could have been used, as the subject of a sentence."""
        if self.suitable < self.nodes:
            have = "one has" if self.suitable == 1 else f"{self.suitable} have"
            return f"of the server's {self.nodes} nodes {have} these labels and {_allow(self.suitable)}"
        return f"the server's {'one node' if self.nodes == 1 else f'{self.nodes} nodes'} {_allow(self.nodes)}"

    def _advice_to_wait(self) -> str:
        if self.available >= self.requested:  # yet the session did not get them
            return "Those who wait are served first: wait, too, with request_workers(n, wait=seconds)"
        fewer = f", or request at most {self.available}" if self.available else ""
        return f"Wait for the others with request_workers(n, wait=seconds){fewer}"


def _allow(count: int) -> str:
    return "allows" if count == 1 else "allow"


@dataclass(eq=False)
class GroupStartError(SessionError):
    """The MPI job of a worker group did not start."""

    reason: str
    log: str = ""

    def _text(self) -> str:
        tail = f"\nThe end of its log:\n{self.log}" if self.log else ""
        return f"the worker group did not start: {self.reason}{tail}"


@dataclass(eq=False)
class GroupDiedError(SessionError):
    """The MPI job of the session's workers ended, and its matrices with it."""

    session_id: int
    reason: str
    log: str = ""

    def _text(self) -> str:
        tail = f"\nThe end of its log:\n{self.log}" if self.log else ""
        return (
            f"the workers of session {self.session_id} are gone ({self.reason}), and their matrices with them. Call "
            f"request_workers(n) for new ones and send the matrices again{tail}"
        )


@dataclass(eq=False)
class GroupEndedError(GroupDiedError):
    """The session gave back the workers of a matrix, or was stopped. This freed the matrix."""

    reason: str = "the session has given them back, or was stopped"

    def _text(self) -> str:
        return (
            f"the workers of session {self.session_id} are gone ({self.reason}), and this matrix was freed with them. "
            "Send it again to a session that has workers"
        )


@dataclass(eq=False)
class ConnectionLostError(SessionError, ConnectionError):
    """A connection to a worker broke in the middle of a transfer. The worker and its matrices are still there."""

    worker: str
    reason: str

    def _text(self) -> str:
        return (
            f"the connection to {self.worker} broke in the middle of a transfer ({self.reason}). The worker lives and "
            "keeps its matrices: try the transfer again"
        )


@dataclass(eq=False)
class ServerStartError(SessionError):
    """The embedded server did not start."""

    reason: str

    def _text(self) -> str:
        return f"the Alchemist server did not start: {self.reason}"


@dataclass(eq=False)
class ClusterError(SessionError):
    """A server, or its nodes, could not be started in a cluster."""

    reason: str

    def _text(self) -> str:
        return self.reason


@dataclass(eq=False)
class NodeError(SessionError):
    """A node cannot join a server, or has left it."""

    reason: str

    def _text(self) -> str:
        return self.reason


# --- matrices ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class MatrixError(AlchemistError):
    """Something is wrong with a matrix or a handle."""


@dataclass(eq=False)
class LayoutError(MatrixError, ValueError):
    """The layout does not exist, or does not fit the matrix or the group."""

    reason: str

    def _text(self) -> str:
        return self.reason


@dataclass(eq=False)
class InvalidArrayError(MatrixError, ValueError):
    """The array is not a matrix that Alchemist can hold."""

    reason: str

    def _text(self) -> str:
        return self.reason


@dataclass(eq=False)
class MatrixMemoryError(MatrixError, MemoryError):
    """The workers have no room for the matrix."""

    needed: int
    available: int
    limit: int

    def _text(self) -> str:
        return (
            f"a worker would need {self.needed:,} bytes for its part of the matrix, but its largest free piece of "
            f"memory has {self.available:,} of its {self.limit:,} bytes. Free matrices, request more workers, or start "
            "the server with a larger --memory-per-worker"
        )


@dataclass(eq=False)
class FreedMatrixError(MatrixError, LookupError):
    """The workers do not hold the matrix (any more)."""

    matrix_id: int

    def _text(self) -> str:
        return f"matrix {self.matrix_id} has been freed (or was lost with its workers): send or compute it again"


@dataclass(eq=False)
class ForeignMatrixError(MatrixError):
    """The handle belongs to another session."""

    matrix_id: int
    owner: str
    session: str

    def _text(self) -> str:
        return (
            f"matrix {self.matrix_id} belongs to session {self.owner}, not to session {self.session}: fetch it there "
            "and send it here, or run the task in its own session"
        )


@dataclass(eq=False)
class DetachedHandleError(MatrixError):
    """The handle has left the process of its session, and only that process can run tasks."""

    def _text(self) -> str:
        return (
            "this handle has left the process of its session (it was pickled, or comes from a Ray actor), and only "
            "that process can run tasks: compute there, call functions such as alchemist.matmul.remote(A, B), or fetch "
            "the matrix"
        )


@dataclass(eq=False)
class IncompleteMatrixError(MatrixError):
    """Parts of the matrix have not been written."""

    matrix_id: int
    missing: str

    def _text(self) -> str:
        return f"matrix {self.matrix_id} is not complete ({self.missing}): write the missing parts first"


@dataclass(eq=False)
class RegionError(MatrixError, IndexError):
    """A part of a matrix lies outside it, or was written twice."""

    matrix_id: int
    region: str
    reason: str

    def _text(self) -> str:
        return f"{self.region} of matrix {self.matrix_id}: {self.reason}"


# --- files ------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class FileError(MatrixError, OSError):
    """Something is wrong with a file that a matrix is read from or written to."""

    path: str

    def _text(self) -> str:
        return f"{self.path}: something is wrong with this file"


@dataclass(eq=False)
class FileRefusedError(FileError, PermissionError):
    """The file is outside the directories that the server's owner has named, or it may not be read or written there."""

    reason: str

    def _text(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(eq=False)
class FileMissingError(FileError, FileNotFoundError):
    """The file does not exist on that host."""

    where: str = "on the server's host (use send_hdf5() or send_matrix() for a file on the client's machine)"

    def _text(self) -> str:
        return f"there is no file {self.path} {self.where}"


@dataclass(eq=False)
class DatasetMissingError(FileError, LookupError):
    """The file has no such dataset, array or column."""

    dataset: str
    found: list[str]

    def _text(self) -> str:
        return f"{self.path} has no {self.dataset!r}; it has {', '.join(self.found) or 'none'}"


@dataclass(eq=False)
class FileContentError(FileError, ValueError):
    """The file does not contain a matrix that Alchemist can hold, or it ends early."""

    reason: str

    def _text(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(eq=False)
class FileWriteError(FileError):
    """The file could not be written. An old file of that name is unchanged."""

    reason: str

    def _text(self) -> str:
        return f"{self.path} could not be written: {self.reason}. An old file of that name is unchanged"


# --- libraries --------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class LibraryError(AlchemistError):
    """Something is wrong with a library or a call into it."""


@dataclass(eq=False)
class LibraryNotFoundError(LibraryError, LookupError):
    """No library of that name is registered with the server."""

    library: str
    registered: list[str]

    def _text(self) -> str:
        near = difflib.get_close_matches(self.library, self.registered, 1)
        hint = f"did you mean {near[0]!r}? It has" if near else "it has"
        known = ", ".join(self.registered) or "none"
        return (
            f"the server has no library {self.library!r}; {hint} {known}. To register a library: "
            f"alchemist serve --library {self.library}=MODULE_OR_PATH"
        )


@dataclass(eq=False)
class LibraryRefusedError(LibraryError, PermissionError):
    """The server does not load libraries from a client's path."""

    library: str
    path: str

    def _text(self) -> str:
        return (
            f"the server does not load library {self.library!r} from {self.path!r}: only its owner may name paths. Ask "
            f"the owner to start it with: alchemist serve --library {self.library}={self.path} (or "
            "--allow-library-paths)"
        )


@dataclass(eq=False)
class LibraryLoadError(LibraryError):
    """The library cannot be imported, or its description of itself is wrong."""

    library: str
    reason: str

    def _text(self) -> str:
        return f"library {self.library!r} could not be loaded: {self.reason}"


@dataclass(eq=False)
class TaskNotFoundError(LibraryError, LookupError):
    """The library has no such task."""

    library: str
    task: str
    tasks: list[str]

    def _text(self) -> str:
        near = difflib.get_close_matches(self.task, self.tasks, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"library {self.library!r} has no task {self.task!r}; it has {', '.join(self.tasks)}{hint}"


@dataclass(eq=False)
class ArgumentError(LibraryError, TypeError):
    """An argument of a task is missing, unknown, or of the wrong type."""

    task: str
    reason: str

    def _text(self) -> str:
        return f"{self.task}: {self.reason}"


@dataclass(eq=False)
class ArgumentValueError(LibraryError, ValueError):
    """An argument of a task is out of range, or the shapes of its matrices do not fit."""

    task: str
    reason: str

    def _text(self) -> str:
        return f"{self.task}: {self.reason}"


# --- experiments ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class ExperimentError(AlchemistError, ValueError):
    """An experiment cannot be run: its file is wrong, or something that it needs is missing."""

    experiment: str
    problems: list[str]

    def _text(self) -> str:
        if len(self.problems) == 1:
            return f"{self.experiment}: {self.problems[0]}"
        return "\n  ".join([f"{self.experiment}: {len(self.problems)} problems", *self.problems])


# --- tasks ------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class TaskError(AlchemistError):
    """A task failed while it ran."""


@dataclass(eq=False)
class RemoteTaskError(TaskError):
    """The library raised an exception."""

    task: str
    exception: str
    message: str

    def _text(self) -> str:
        return f"{self.task} raised {self.exception}: {self.message}"


@dataclass(eq=False)
class NonFiniteError(TaskError, ValueError):
    """A matrix contains NaN or Inf, and the routine cannot handle that."""

    task: str
    argument: str

    def _text(self) -> str:
        return f"{self.task}: matrix {self.argument} contains NaN or Inf, which this routine cannot handle"


@dataclass(eq=False)
class SingularMatrixError(TaskError, np.linalg.LinAlgError):
    """A matrix that must be inverted is singular."""

    task: str
    argument: str
    pivot: int

    def _text(self) -> str:
        return (
            f"{self.task}: matrix {self.argument} is singular (pivot {self.pivot} of its LU factorisation is exactly "
            "zero)"
        )


@dataclass(eq=False)
class NotPositiveDefiniteError(TaskError, np.linalg.LinAlgError):
    """A matrix that must be positive definite is not."""

    task: str
    argument: str
    order: int

    def _text(self) -> str:
        return (
            f"{self.task}: matrix {self.argument} is not positive definite: its leading minor of order {self.order} is "
            "not positive"
        )


@dataclass(eq=False)
class ConvergenceError(TaskError, np.linalg.LinAlgError):
    """An iteration did not reach its tolerance."""

    task: str
    reason: str

    def _text(self) -> str:
        return f"{self.task}: {self.reason}"


@dataclass(eq=False)
class TaskCancelledError(TaskError):
    """The caller has cancelled the task."""

    task: str

    def _text(self) -> str:
        return f"{self.task} was cancelled"


@dataclass(eq=False)
class TaskTimeoutError(TaskError, TimeoutError):
    """A task took longer than its caller allowed."""

    task: str
    seconds: float
    reason: str = ""

    def _text(self) -> str:
        text = f"{self.task} did not end within its timeout of {self.seconds:g} s"
        return f"{text}: {self.reason}" if self.reason else text


@dataclass(eq=False)
class TaskKilledError(TaskError):
    """The child process in which a rank computed died; the rank, its matrices and the group live on."""

    task: str
    cause: str

    def _text(self) -> str:
        advice = {
            "SIGKILL": "The system kills where memory runs out: use a smaller matrix, or a machine with more memory",
        }.get(self.cause, "The library's compiled code has failed: the end of worker_logs() may say where")
        return (
            f"{self.task}: the child process in which it computed died ({self.cause}). {advice}. The session's workers "
            "and matrices are still there"
        )


@dataclass(eq=False)
class SimulationDivergedError(TaskError, ArithmeticError):
    """The numbers of a simulation no longer make sense; it must be reset."""

    task: str
    reason: str

    def _text(self) -> str:
        return f"{self.task}: the simulation has diverged: {self.reason}. Reset it; a shorter time step may help"


@dataclass(eq=False)
class StateMisfitError(TaskError, ValueError):
    """The state of a simulation does not fit its observation space: a fault of the library."""

    task: str
    reason: str

    def _text(self) -> str:
        return f"{self.task}: the state {self.reason}. States must fit observation_space: fix the library"


@dataclass(eq=False)
class ResultMismatchError(TaskError):
    """The ranks returned different results, but one common result is expected."""

    task: str
    ranks: list[int]

    def _text(self) -> str:
        return (
            f"the results of {self.task} differ: rank {', '.join(map(str, self.ranks))} did not return the same as "
            "rank 0. A task must return the same value on every rank, or None on all ranks except 0. All ranks must "
            "return the matrices"
        )


@dataclass(eq=False)
class PeerFailedError(TaskError):
    """Another rank failed; its own error gives the reason."""

    failed_rank: int

    def _text(self) -> str:
        return f"rank {self.failed_rank} failed; its own error gives the reason"


# --- crossing the wire ------------------------------------------------------------------------------------------------


def _subclasses(cls: type[AlchemistError]) -> dict[str, type[AlchemistError]]:
    found = {cls.__name__: cls}
    for sub in cls.__subclasses__():
        found.update(_subclasses(sub))
    return found


def to_wire(error: AlchemistError) -> tuple[str, dict[str, Any]]:
    """Return the class name and the fields of `error`, all of types that can cross the wire."""
    return type(error).__name__, error.fields()


def from_wire(name: str, fields: Mapping[str, Any]) -> AlchemistError:
    """Return the error that :func:`to_wire` described; an unknown name or unknown fields make a RemoteTaskError."""
    cls = _subclasses(AlchemistError).get(name)
    if cls is not None and fields.keys() == {_TEXT}:
        return _from_text(cls, str(fields[_TEXT]))
    if cls is not None:
        wanted = {f.name for f in dataclasses.fields(cls) if f.init}
        try:
            return cls(**{key: value for key, value in fields.items() if key in wanted})
        except TypeError:
            pass  # the fields are those of another release: use the plain text below
    detail = ", ".join(f"{key}={value!r}" for key, value in fields.items())
    return RemoteTaskError(task="the server", exception=name, message=detail)
