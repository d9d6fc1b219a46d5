"""Every message of the protocol.

A message is a frozen dataclass; its header on the wire is the list of its fields. Requests carry a number, and
replies repeat it, so that a caller that gave up on an answer recognises and drops it when it comes late.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from alchemist_ray.errors import AlchemistError, from_wire, to_wire

Fields = dict[str, Any]


@dataclass(frozen=True)
class Message:
    """Base class of all messages."""

    kind: ClassVar[int]

    def fields(self) -> list[Any]:
        """Return the values of the fields, in order."""
        return list(self.__dict__.values())


# --- the handshake ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello(Message):
    """First message of whoever opened the connection: what for, with which worker group (0: none), and a nonce."""

    kind = 1
    purpose: str
    group_id: int
    nonce: bytes
    software: str


@dataclass(frozen=True)
class Challenge(Message):
    """Answer to `Hello`: a nonce, and the proof that this side knows the key."""

    kind = 2
    nonce: bytes
    proof: bytes


@dataclass(frozen=True)
class Proof(Message):
    """Answer to `Challenge`: the proof that the opening side knows the key too."""

    kind = 3
    proof: bytes


@dataclass(frozen=True)
class Welcome(Message):
    """The connection is open. `facts` says who has answered."""

    kind = 4
    facts: Fields


@dataclass(frozen=True)
class Failure(Message):
    """A request, or the handshake (request 0), failed with this error."""

    kind = 5
    request: int
    error: str
    details: Fields
    rank: int | None = None
    host: str | None = None
    traceback: str = ""

    @classmethod
    def of(
        cls, request: int, error: AlchemistError, rank: int | None = None, host: str | None = None, traceback: str = ""
    ) -> Failure:
        """Return the failure that tells `error`, with what is no UTF-8 in its texts escaped."""
        name, details = to_wire(error)
        spoken = {key: _spoken(value) if isinstance(value, str) else value for key, value in details.items()}
        return cls(request, name, spoken, rank, host, _spoken(traceback))

    def to_error(self) -> AlchemistError:
        """Return the error that the failure tells."""
        return from_wire(self.error, self.details).raised_on(self.rank, self.host, self.traceback)


def _spoken(text: str) -> str:
    """Return a text that can be sent; Python's names of files may contain what cannot."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class Done(Message):
    """The request was carried out; `result` says what there is to say."""

    kind = 6
    request: int
    result: Any = None


# --- client to driver -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RequestWorkers(Message):
    """Start a worker group of `count` workers for this session. Done: group_id, ticket, workers."""

    kind = 16
    request: int
    count: int


@dataclass(frozen=True)
class YieldWorkers(Message):
    """Give the session's workers back."""

    kind = 17
    request: int


@dataclass(frozen=True)
class ListWorkers(Message):
    """Ask for all workers of the server. Done: a list of rows."""

    kind = 18
    request: int


@dataclass(frozen=True)
class ListLibraries(Message):
    """Ask for the registered libraries. Done: a list of rows."""

    kind = 19
    request: int


@dataclass(frozen=True)
class AskStatus(Message):
    """Ask driver or worker how it is. Done: a dict."""

    kind = 21
    request: int


@dataclass(frozen=True)
class EndGroup(Message):
    """Kill the session's worker group, because of `reason`."""

    kind = 22
    request: int
    reason: str


@dataclass(frozen=True)
class GroupDied(Message):
    """Tell the client, unasked, that its worker group is gone; `log` is what the first rank to go has said last."""

    kind = 23
    group_id: int
    reason: str
    log: str = ""


@dataclass(frozen=True)
class AskLogs(Message):
    """Ask for the last `lines` lines of the session's logs. Done: worker's name -> text."""

    kind = 24
    request: int
    lines: int


# --- worker and driver ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerReady(Message):
    """A worker has started and listens. Sent unasked."""

    kind = 32
    rank: int
    pid: int
    host: str
    address: str
    port: int
    socket_name: str
    memory: int


@dataclass(frozen=True)
class Shutdown(Message):
    """Tell a worker to end."""

    kind = 33


# --- client to worker: control ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LoadLibrary(Message):
    """Load library `name`, from `path` if the server allows that. Done: its description (from rank 0)."""

    kind = 48
    request: int
    name: str
    path: str | None


@dataclass(frozen=True)
class RunTask(Message):
    """Run a task, collectively on all workers. Its result matrices are numbered from `first_id`."""

    kind = 49
    request: int
    library: str
    task: str
    arguments: Fields
    first_id: int


@dataclass(frozen=True)
class TaskDone(Message):
    """A task has run. Rank 0 gives the result; every rank its digest, and which matrices it has kept.

    The digest is empty if a rank has returned None.
    """

    kind = 50
    request: int
    result: Any
    matrices: list[Any]
    seconds: float
    digest: bytes = b""


@dataclass(frozen=True)
class StepSimulation(Message):
    """Run the task ``step`` of a simulation library: what :class:`RunTask` can do too, in a short form.

    `action` is float64, C-ordered, of the shape of the simulation's action space.
    """

    kind = 52
    request: int
    library: str
    simulation: int
    action: bytes


@dataclass(frozen=True)
class SimulationStepped(Message):
    """A simulation has advanced by a step. Rank 0 says how it stands: its state, of this type and shape, in C order.

    The others say :class:`Done`.
    """

    kind = 53
    request: int
    state: bytes
    dtype: str
    shape: list[int]
    score: float
    finished: bool
    info: Fields


@dataclass(frozen=True)
class AdvanceBatch(Message):
    """Run the task ``advance_batch`` of a simulation library: what :class:`RunTask` can do too, in a short form.

    `actions` are float64, C-ordered, each of the shape of the simulations' action space; empty if nothing is stepped.
    """

    kind = 54
    request: int
    library: str
    batch: int
    orders: bytes
    actions: bytes
    seeds: list[Any]


@dataclass(frozen=True)
class BatchAdvanced(Message):
    """A batch has advanced: the states of `count` simulations, of this type and shape, and their numbers, float64.

    Every rank that leads simulations says it of these, the others :class:`Done`. Without a state there is no type.
    """

    kind = 55
    request: int
    states: bytes
    dtype: str
    shape: list[int]
    numbers: bytes
    count: int
    names: list[Any]
    notes: list[Any]


@dataclass(frozen=True)
class Progress(Message):
    """A running task is at `done` of `total`. Sent by rank 0, unasked."""

    kind = 51
    request: int
    done: float
    total: float
    text: str


# --- client to worker: matrices ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MapArena(Message):
    """Ask for the worker's memory, as a file descriptor beside the answer. Done: its size."""

    kind = 64
    request: int


@dataclass(frozen=True)
class CancelTask(Message):
    """Ask the task that was started as command number `command` to stop, and those before it.

    Here, and not among the commands, since it must be heard while a task runs.
    """

    kind = 76
    request: int
    command: int


@dataclass(frozen=True)
class CreateMatrix(Message):
    """Make room for this worker's part of a matrix. Done: its offset in the arena (None: it holds no element).

    With `private` the sender is the only one who will write it: it has claimed all of the part by this, and the matrix
    goes with the connection if that ends before the part is committed.
    """

    kind = 65
    request: int
    matrix_id: int
    spec: Fields
    private: bool


@dataclass(frozen=True)
class ClaimBlock(Message):
    """Announce that local rows [i0, i1) and columns [j0, j1) will be written. Done: the part's offset in the arena.

    They are this worker's part of `region`, rows and columns of the whole matrix. Done is None if just that region has
    been committed here: its sender may have died before it had told the other workers, and who sends it again need not
    write this part. A claim goes with the connection if that ends before it is committed.
    """

    kind = 66
    request: int
    matrix_id: int
    i0: int
    i1: int
    j0: int
    j1: int
    region: list[int]


@dataclass(frozen=True)
class WriteBlock(Message):
    """Write the payload to a block, or a rectangle of one, that was claimed. Done: seconds to receive, to place."""

    kind = 67
    request: int
    matrix_id: int
    i0: int
    i1: int
    j0: int
    j1: int


@dataclass(frozen=True)
class CommitBlock(Message):
    """Say that a block that was claimed is written, by `WriteBlock` or in place."""

    kind = 68
    request: int
    matrix_id: int
    i0: int
    i1: int
    j0: int
    j1: int


@dataclass(frozen=True)
class ReleaseBlock(Message):
    """Give back a claim: the block will not be written, not now."""

    kind = 69
    request: int
    matrix_id: int
    i0: int
    i1: int
    j0: int
    j1: int


@dataclass(frozen=True)
class ReadBlock(Message):
    """Read local rows [i0, i1) and columns [j0, j1). Answered by `Block`."""

    kind = 70
    request: int
    matrix_id: int
    i0: int
    i1: int
    j0: int
    j1: int


@dataclass(frozen=True)
class Block(Message):
    """The elements that were asked for follow as payload. `seconds` were spent gathering them."""

    kind = 71
    request: int
    seconds: float


@dataclass(frozen=True)
class PinMatrix(Message):
    """Keep the matrix where it is while this connection reads it in place. Done: its offset in the arena."""

    kind = 72
    request: int
    matrix_id: int


@dataclass(frozen=True)
class UnpinMatrix(Message):
    """The reader is done."""

    kind = 73
    request: int
    matrix_id: int


@dataclass(frozen=True)
class CheckMatrix(Message):
    """Ask what is missing of this worker's part. Done: rectangles [i0, i1, j0, j1] of its block."""

    kind = 74
    request: int
    matrix_id: int


@dataclass(frozen=True)
class FreeMatrices(Message):
    """Free matrices. Those already freed are passed over; Done: how many were held."""

    kind = 75
    request: int
    matrix_ids: list[int] = field(default_factory=list)
