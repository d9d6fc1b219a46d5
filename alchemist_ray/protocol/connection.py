r"""One connection, without its socket: bytes in, messages out, and the reverse.

Both sides run the same state machine. The messages of both sides move it::

    NEW --Hello--> GREETED --Challenge--> CHALLENGED --Proof--> PROVEN --Welcome--> OPEN
     \________________\______________________\____ Failure ____\_________________> CLOSED

The side that opened the connection (INITIATOR) says `Hello` and `Proof`; the other (ACCEPTOR) says `Challenge` and
`Welcome`. In OPEN, the purpose of the connection decides which messages each side may send (:data:`VOCABULARY`). Any
other message is a :class:`LocalProtocolError` if we were about to send it, and a :class:`RemoteProtocolError` if the
peer sent it.

Payloads do not pass through this module. A message that announces a payload is returned as soon as its header is
complete. The caller then reads :attr:`Connection.payload_left` bytes: first the bytes that have already arrived
(:meth:`take_payload`), then the rest from its socket straight into their place. It reports the latter with
:meth:`payload_received`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from alchemist_ray.errors import AuthenticationError, LocalProtocolError, RemoteProtocolError
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.decoding import to_message
from alchemist_ray.protocol.frames import (
    MAX_HEADER,
    MAX_HEADER_UNPROVEN,
    PREFIX,
    check_version,
    pack_frame,
    parse_prefix,
)
from alchemist_ray.protocol.handshake import ACCEPTOR, INITIATOR, NONCE_BYTES, Transcript, new_nonce
from alchemist_ray.protocol.values import decode, encode


class Side(enum.Enum):
    """The two sides of a connection."""

    INITIATOR = INITIATOR
    ACCEPTOR = ACCEPTOR

    @property
    def other(self) -> Side:
        """The other side."""
        return Side.ACCEPTOR if self is Side.INITIATOR else Side.INITIATOR


class State(enum.Enum):
    """The states of a connection, from its first message to its end."""

    NEW = "new"
    GREETED = "greeted"
    CHALLENGED = "challenged"
    PROVEN = "proven"
    OPEN = "open"
    CLOSED = "closed"


class Purpose(enum.StrEnum):
    """The purposes of a connection."""

    SESSION = "session"  # client to driver: holds a session
    MONITOR = "monitor"  # client to driver: only asks
    NODE = "node"  # node agent to driver: offers slots, starts ranks
    LINK = "link"  # worker to its node agent, or to the driver if the site's own MPI has started it
    CONTROL = "control"  # client to worker: tasks, in order; one for each group
    MATRICES = "matrices"  # client to worker: parts of matrices; one for each sender


_I, _A = Side.INITIATOR, Side.ACCEPTOR

TRANSITIONS: dict[tuple[State, Side, type[m.Message]], State] = {
    (State.NEW, _I, m.Hello): State.GREETED,
    (State.GREETED, _A, m.Challenge): State.CHALLENGED,
    (State.CHALLENGED, _I, m.Proof): State.PROVEN,
    (State.PROVEN, _A, m.Welcome): State.OPEN,
    (State.NEW, _A, m.Failure): State.CLOSED,
    (State.GREETED, _A, m.Failure): State.CLOSED,
    (State.CHALLENGED, _A, m.Failure): State.CLOSED,
    (State.CHALLENGED, _I, m.Failure): State.CLOSED,
    (State.PROVEN, _A, m.Failure): State.CLOSED,
}
"""(state, sender, message) -> next state, up to OPEN."""

VOCABULARY: dict[tuple[Purpose, Side], frozenset[type[m.Message]]] = {
    (Purpose.SESSION, _I): frozenset(
        {
            m.RequestWorkers,
            m.YieldWorkers,
            m.ListWorkers,
            m.ListLibraries,
            m.AskStatus,
            m.EndGroup,
            m.AskLogs,
        }
    ),
    (Purpose.SESSION, _A): frozenset({m.Done, m.Failure, m.GroupDied, m.RanksStopped, m.Heartbeat}),
    (Purpose.MONITOR, _I): frozenset({m.ListWorkers, m.ListLibraries, m.AskStatus}),
    (Purpose.MONITOR, _A): frozenset({m.Done, m.Failure}),
    (Purpose.NODE, _I): frozenset({m.JoinServer, m.RankEnded, m.EnterBarrier, m.Heartbeat, m.Done, m.Failure}),
    (Purpose.NODE, _A): frozenset(
        {
            m.Done,
            m.Failure,
            m.StartRanks,
            m.EndRanks,
            m.LeaveBarrier,
            m.AskGroupStatus,
            m.AskNodeLogs,
            m.Shutdown,
        }
    ),
    (Purpose.LINK, _I): frozenset({m.WorkerReady, m.Done, m.Failure}),
    (Purpose.LINK, _A): frozenset({m.AskStatus, m.Shutdown}),
    (Purpose.CONTROL, _I): frozenset({m.LoadLibrary, m.RunTask, m.StepSimulation, m.AdvanceBatch}),
    (Purpose.CONTROL, _A): frozenset(
        {
            m.Done,
            m.TaskDone,
            m.SimulationStepped,
            m.BatchAdvanced,
            m.Progress,
            m.Failure,
        }
    ),
    (Purpose.MATRICES, _I): frozenset(
        {
            m.MapArena,
            m.CreateMatrix,
            m.ClaimBlock,
            m.WriteBlock,
            m.CommitBlock,
            m.ReleaseBlock,
            m.ReadBlock,
            m.PinMatrix,
            m.UnpinMatrix,
            m.CheckMatrix,
            m.FreeMatrices,
            m.CancelTask,
        }
    ),
    (Purpose.MATRICES, _A): frozenset({m.Done, m.Block, m.Failure}),
}
"""The messages that each side may send once a connection of this purpose is open."""

CARRIES_PAYLOAD = (m.WriteBlock, m.Block)


@dataclass(frozen=True, slots=True)
class Key:
    """The secret of a connection: a server's token or a session's ticket."""

    secret: bytes

    @classmethod
    def of(cls, text: str) -> Key:
        """Return the key for `text`, a token or ticket.

        Raises
        ------
        AuthenticationError
            If it is empty: everybody would know that key.
        """
        if not text:
            raise AuthenticationError("the token is empty")
        return cls(text.encode())

    def __repr__(self) -> str:
        return "Key(...)"


FindKey = Callable[[m.Hello], Key | None]


class Connection:
    """The protocol state of one connection.

    Parameters
    ----------
    side : Side
        Which side this is.
    find_key : callable
        For the acceptor: the key that the sender of this `Hello` must prove, or None to refuse it.
    """

    def __init__(self, side: Side, find_key: FindKey | None = None) -> None:
        self.side = side
        self._other = side.other
        self.state = State.NEW
        self.payload_left = 0
        self.hello: m.Hello | None = None
        self._purpose: Purpose | None = None
        self._find_key = find_key
        self._key: Key | None = None
        self._transcript: Transcript | None = None
        self._verified = False
        self._vocabulary: dict[bool, frozenset[type[m.Message]]] = {}  # of this side, and of the other
        self._inbox = bytearray()

    @classmethod
    def opened(cls, side: Side, purpose: Purpose) -> Connection:
        """Return a connection that needs no handshake, because a process inherited its socket from the peer."""
        connection = cls(side)
        connection._purpose = purpose
        connection._open()
        return connection

    @property
    def purpose(self) -> Purpose:
        """The purpose of the connection, known after the greeting."""
        if self._purpose is None:
            raise LocalProtocolError("the connection has not been greeted")
        return self._purpose

    # --- messages out -------------------------------------------------------------------------------------------------

    def send(self, message: m.Message, payload_length: int = 0) -> bytes:
        """Return the bytes of `message`; `payload_length` bytes of payload must follow them.

        Raises
        ------
        LocalProtocolError
            If this side may not send the message now, or the message contains a value that cannot cross the wire.
        """
        open_before = self.state is State.OPEN
        if not self._step(message, self.side):
            raise LocalProtocolError(self._describe(message, self.side))
        if payload_length and not isinstance(message, CARRIES_PAYLOAD):
            raise LocalProtocolError(f"a {type(message).__name__} cannot have a payload")
        try:
            header = encode(message.fields())
        except (TypeError, ValueError, OverflowError) as misfit:
            raise LocalProtocolError(str(misfit)) from misfit
        if len(header) > (MAX_HEADER if open_before else MAX_HEADER_UNPROVEN):
            raise LocalProtocolError(
                f"a {type(message).__name__} of {len(header):,} bytes is larger than the peer accepts: "
                "send large arrays with send_matrix() instead"
            )
        return pack_frame(message.kind, header, payload_length)

    def greet(self, purpose: Purpose, group_id: int, key: Key, software: str) -> bytes:
        """Return the first bytes that the initiator sends."""
        hello = m.Hello(purpose.value, group_id, new_nonce(), software)
        self._key = key
        self._note_hello(hello)
        return self.send(hello)

    # --- bytes in -----------------------------------------------------------------------------------------------------

    def receive(self, octets: bytes | bytearray | memoryview) -> None:
        """Take bytes from the peer; :meth:`next_message` returns the messages that they complete."""
        self._inbox += octets

    def next_message(self) -> m.Message | None:
        """Return the next complete message, or None until more bytes have been received.

        Raises
        ------
        ProtocolVersionError
            If the peer speaks another version.
        RemoteProtocolError
            If the peer sent something that is not a message, or a message that it may not send now.
        """
        inbox = self._inbox
        if self.payload_left or not inbox:
            return None
        if len(inbox) < PREFIX.size:
            check_version(inbox[0])
            return None
        limit = MAX_HEADER if self.state is State.OPEN else MAX_HEADER_UNPROVEN
        kind, header_length, payload_length = parse_prefix(inbox, limit)
        end = PREFIX.size + header_length
        if len(inbox) < end:
            return None
        values = decode(inbox[PREFIX.size : end])
        del inbox[:end]
        message = to_message(kind, values)
        if payload_length:
            if not isinstance(message, CARRIES_PAYLOAD):
                raise RemoteProtocolError(f"the peer sent a {type(message).__name__} with a payload")
            self.payload_left = payload_length
        if not self._step(message, self._other):
            raise RemoteProtocolError(self._describe(message, self._other))
        return message

    @property
    def holds_bytes(self) -> bool:
        """Whether received bytes are left that belong to no message yet."""
        return bool(self._inbox)

    def take_payload(self, target: memoryview) -> int:
        """Move payload bytes that have already arrived into `target` (bytes); return how many."""
        count = min(len(target), len(self._inbox), self.payload_left)
        target[:count] = self._inbox[:count]
        del self._inbox[:count]
        self.payload_left -= count
        return count

    def payload_received(self, count: int) -> None:
        """Note that the caller has read `count` bytes of payload itself."""
        if count > self.payload_left:
            raise LocalProtocolError(f"{count} bytes of payload were read, but only {self.payload_left} were left")
        self.payload_left -= count

    # --- the handshake ------------------------------------------------------------------------------------------------

    def answer(self, message: m.Message) -> bytes | None:
        """Return our next bytes of the handshake after `message`, or None if it needs no answer.

        After `Proof` the caller of the acceptor sends `Welcome` (or `Failure`) itself.

        Raises
        ------
        AuthenticationError
            If the peer does not know the key, or the acceptor has no key for this peer.
        """
        match message:
            case m.Hello():
                return self._challenge(message)
            case m.Challenge():
                return self._prove(message)
            case m.Proof():
                self._verify(message.proof, INITIATOR, "the client's token is wrong")
        return None

    def _challenge(self, hello: m.Hello) -> bytes:
        self._note_hello(hello)
        self._key = self._find_key(hello) if self._find_key else None
        # A random key stands in for one that does not exist, so that a peer cannot find out which keys exist.
        key = self._key or Key(new_nonce())
        self._transcript = Transcript(hello, new_nonce())
        return self.send(m.Challenge(self._transcript.nonce, self._transcript.proof(ACCEPTOR, key.secret)))

    def _prove(self, challenge: m.Challenge) -> bytes:
        if self.hello is None or self._key is None:
            raise LocalProtocolError("a challenge came before our greeting")
        self._transcript = Transcript(self.hello, challenge.nonce)
        self._verify(challenge.proof, ACCEPTOR, "the server does not know this token")
        return self.send(m.Proof(self._transcript.proof(INITIATOR, self._key.secret)))

    def _verify(self, proof: bytes, label: bytes, complaint: str) -> None:
        known = (
            self._key is not None
            and self._transcript is not None
            and self._transcript.verify(label, self._key.secret, proof)
        )
        if not known:
            self.state = State.CLOSED if self.side is Side.INITIATOR else self.state
            raise AuthenticationError(complaint)
        self._verified = True

    def _note_hello(self, hello: m.Hello) -> None:
        try:
            self._purpose = Purpose(hello.purpose)
        except ValueError:
            raise RemoteProtocolError(f"a connection has the unknown purpose {hello.purpose[:40]!r}") from None
        if len(hello.nonce) != NONCE_BYTES:
            raise RemoteProtocolError(f"the peer sent a nonce of {len(hello.nonce)} bytes instead of {NONCE_BYTES}")
        self.hello = hello

    # --- the state machine --------------------------------------------------------------------------------------------

    def _step(self, message: m.Message, speaker: Side) -> bool:
        """Go to the next state for `message`; return False if the message is not allowed here."""
        if self.state is State.OPEN:
            return type(message) in self._vocabulary[speaker is self.side]  # the path of every task
        following = TRANSITIONS.get((self.state, speaker, type(message)))
        unproven = isinstance(message, m.Welcome) and self.side is Side.ACCEPTOR and not self._verified
        if following is None or unproven:
            return False
        self.state = following
        if following is State.OPEN:
            self._open()
        return True

    def _open(self) -> None:
        self.state = State.OPEN
        self._vocabulary = {
            True: VOCABULARY[self.purpose, self.side],
            False: VOCABULARY[self.purpose, self.side.other],
        }

    def _describe(self, message: m.Message, speaker: Side) -> str:
        purpose = self._purpose.value if self._purpose else "new"
        return (
            f"the {speaker.value.decode()} of a {purpose} connection may not send {type(message).__name__} "
            f"in state {self.state.value}"
        )
