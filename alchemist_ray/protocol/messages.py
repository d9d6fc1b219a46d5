"""Every message of the protocol.

A message is a frozen dataclass; its header on the wire is the list of its fields. Each request carries a number, and
its reply repeats the number. So a caller that stopped waiting can recognise a late reply and drop it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from alchemist_ray.errors import AlchemistError, from_wire, to_wire

Fields = dict[str, Any]

PLACEMENTS = ("pack", "spread", "strict_spread")
"""On as few nodes as possible; on as many as possible; each worker on a node of its own."""


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
    """First message of the side that opened the connection: the purpose, the worker group (0: none), and a nonce."""

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
    """Answer to `Challenge`: the proof that the opening side also knows the key."""

    kind = 3
    proof: bytes


@dataclass(frozen=True)
class Welcome(Message):
    """The connection is open. `facts` describe the side that answered."""

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
        """Return the failure that reports `error`. Parts of its texts that are not UTF-8 are escaped."""
        name, details = to_wire(error)
        spoken = {key: _spoken(value) if isinstance(value, str) else value for key, value in details.items()}
        return cls(request, name, spoken, rank, host, _spoken(traceback))

    def to_error(self) -> AlchemistError:
        """Return the error that the failure reports."""
        return from_wire(self.error, self.details).raised_on(self.rank, self.host, self.traceback)


def _spoken(text: str) -> str:
    """Return `text` as valid UTF-8: Python's file names may contain surrogates, which cannot be sent."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class Done(Message):
    """The request was carried out, with this result."""

    kind = 6
    request: int
    result: Any = None


# --- client to driver -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RequestWorkers(Message):
    """Start a worker group of `count` workers for this session. Done: group_id, ticket, workers.

    The driver waits up to `wait` seconds for workers to become free. `placement` is one of :data:`PLACEMENTS`; only
    nodes that have all of `labels` are used.
    """

    kind = 16
    request: int
    count: int
    wait: float = 0.0
    placement: str = "pack"
    labels: Fields = field(default_factory=dict)


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
    """Ask the driver or a worker for its status. Done: a dict."""

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
    """Tell the client that its worker group has died. Sent unasked; `log` has the last lines of the first dead rank."""

    kind = 23
    group_id: int
    reason: str
    log: str = ""


@dataclass(frozen=True)
class RanksStopped(Message):
    """Tell the client which ranks of its group are stopped now, as by SIGSTOP. Sent unasked, also when they go on."""

    kind = 25
    group_id: int
    ranks: list[int]
    host: str


@dataclass(frozen=True)
class AskLogs(Message):
    """Ask for the last `lines` lines of the session's logs. Done: worker's name -> text."""

    kind = 24
    request: int
    lines: int


# --- worker and driver ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerReady(Message):
    """A worker has started and is listening. Sent unasked."""

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
    """Tell a worker, or a node, to end."""

    kind = 33


# --- node agent and driver --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JoinServer(Message):
    """Offer the slots of a node. Done: the server's :class:`~.server_options.WorkerOptions` as JSON.

    `facts` are those of the node: ``cores, memory, address, version, pid, python``.
    """

    kind = 96
    request: int
    name: str
    slots: int
    labels: Fields
    facts: Fields


@dataclass(frozen=True)
class StartRanks(Message):
    """Start this node's ranks of a group: consecutive ranks, the first of them `first_rank`.

    `world` and `mapping` are those of :class:`.pmi.World`; `peer` is the address of another node of the group (empty:
    there is none). Done: their addresses, by rank, once all of them are ready.
    """

    kind = 97
    request: int
    group_id: int
    session_id: int
    ticket: str
    size: int
    first_rank: int
    worker_ids: list[int]
    slots: list[int]
    world: str
    mapping: str
    peer: str


@dataclass(frozen=True)
class EndRanks(Message):
    """End this node's ranks of a group, which get `seconds` to end by themselves. Done: they are gone."""

    kind = 98
    request: int
    group_id: int
    seconds: float


@dataclass(frozen=True)
class RankEnded(Message):
    """A rank has ended or is cut off, and nobody had asked for it. Sent unasked; `log` has its last lines.

    `silent_peer` is the address of another host that does not answer the rank, or empty.
    """

    kind = 99
    group_id: int
    rank: int
    pid: int
    reason: str
    log: str
    silent_peer: str


@dataclass(frozen=True)
class EnterBarrier(Message):
    """All ranks of this node are in the barrier of their MPI world, and have published these values. Sent unasked."""

    kind = 100
    group_id: int
    values: Fields


@dataclass(frozen=True)
class LeaveBarrier(Message):
    """All ranks of the world are in the barrier; these are the values of all nodes."""

    kind = 101
    group_id: int
    values: Fields


@dataclass(frozen=True)
class Heartbeat(Message):
    """A sign of life, sent unasked: by a node all the time, by the driver to a client that waits for an answer.

    `stopped` are the ranks of a node that are stopped: pairs of group and rank.
    """

    kind = 102
    stopped: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class AskGroupStatus(Message):
    """Ask a node for the status of its ranks of a group. Done: a list of rows."""

    kind = 103
    request: int
    group_id: int


@dataclass(frozen=True)
class AskNodeLogs(Message):
    """Ask a node for the last `lines` lines of its logs of a session. Done: worker's name -> text."""

    kind = 104
    request: int
    session_id: int
    lines: int


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
    """Run a task collectively on all workers. Its result matrices are numbered from `first_id` on."""

    kind = 49
    request: int
    library: str
    task: str
    arguments: Fields
    first_id: int


@dataclass(frozen=True)
class TaskDone(Message):
    """A task has run. Rank 0 sends the result; every rank sends its digest and the matrices that it keeps.

    The digest is empty if the rank's task returned None.
    """

    kind = 50
    request: int
    result: Any
    matrices: list[Any]
    seconds: float
    digest: bytes = b""


@dataclass(frozen=True)
class StepSimulation(Message):
    """Run the task ``step`` of a simulation library: a short form of :class:`RunTask`.

    `action` is a C-ordered float64 array of the shape of the simulation's action space.
    """

    kind = 52
    request: int
    library: str
    simulation: int
    action: bytes


@dataclass(frozen=True)
class SimulationStepped(Message):
    """A simulation has advanced by one step. Rank 0 sends its state in C order, with this type and shape.

    The other ranks send :class:`Done`.
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
    """Run the task ``advance_batch`` of a simulation library: a short form of :class:`RunTask`.

    `actions` are C-ordered float64 arrays, each of the shape of the simulations' action space. They are empty if no
    simulation is stepped.
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
    """A batch has advanced: the states of `count` simulations, with this type and shape, and their float64 numbers.

    Every rank that leads simulations sends this message for them; the other ranks send :class:`Done`. Without a state
    the type is empty.
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
    """Ask for the worker's memory; the answer comes with its file descriptor. Done: its size."""

    kind = 64
    request: int


@dataclass(frozen=True)
class CancelTask(Message):
    """Ask the task that was started as command number `command`, and all earlier ones, to stop.

    This message does not use the control connection, as the worker must read it while a task runs.
    """

    kind = 76
    request: int
    command: int


@dataclass(frozen=True)
class CreateMatrix(Message):
    """Make room for this worker's part of a matrix. Done: its offset in the arena (None: the part has no elements).

    With `private` the sender is the only writer: this message claims the whole part, and the matrix is freed if the
    connection ends before the part is committed.
    """

    kind = 65
    request: int
    matrix_id: int
    spec: Fields
    private: bool


@dataclass(frozen=True)
class ClaimBlock(Message):
    """Announce that local rows [i0, i1) and columns [j0, j1) will be written. Done: the part's offset in the arena.

    They are this worker's part of `region`, rows and columns of the whole matrix. Done is None if exactly that region
    has already been committed here: its sender may have died before it reached the other workers. A sender that repeats
    the region does not have to write this part. If the connection ends before the commit, the claim ends with it.
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
    """Write the payload to a claimed block, or to a rectangle of one. Done: seconds to receive and to place it."""

    kind = 67
    request: int
    matrix_id: int
    i0: int
    i1: int
    j0: int
    j1: int


@dataclass(frozen=True)
class CommitBlock(Message):
    """Report that a claimed block has been written, by `WriteBlock` or in place."""

    kind = 68
    request: int
    matrix_id: int
    i0: int
    i1: int
    j0: int
    j1: int


@dataclass(frozen=True)
class ReleaseBlock(Message):
    """Give back a claim: the sender does not write the block now."""

    kind = 69
    request: int
    matrix_id: int
    i0: int
    i1: int
    j0: int
    j1: int


@dataclass(frozen=True)
class ReadBlock(Message):
    """Read local rows [i0, i1) and columns [j0, j1). The answer is a `Block`."""

    kind = 70
    request: int
    matrix_id: int
    i0: int
    i1: int
    j0: int
    j1: int


@dataclass(frozen=True)
class Block(Message):
    """The elements of a `ReadBlock` follow as payload. Gathering them took `seconds`."""

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
    """Ask for the missing parts of this worker's block. Done: rectangles [i0, i1, j0, j1] of the block."""

    kind = 74
    request: int
    matrix_id: int


@dataclass(frozen=True)
class FreeMatrices(Message):
    """Free matrices; matrices that were already freed are ignored. Done: how many were held."""

    kind = 75
    request: int
    matrix_ids: list[int] = field(default_factory=list)
