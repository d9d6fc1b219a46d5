r"""The ranks of one MPI world and the server that starts them: PMI-1, the line protocol of MPICH, without its sockets.

A rank connects its MPI library to us and asks, one question at a time, by lines like ``cmd=get key=BC-0``. It learns
the names and sizes of its world, puts values (addresses) under keys, waits in a barrier, and gets the values of the
others. The commands of a rank move the state of its connection::

    NEW --init--> READY --finalize--> FINALIZED
                  |   ^
         barrier_in   barrier_out
                  v   |
                 WAITING                       NEW, READY, WAITING --abort--> ABORTED

In READY a rank may also ask what needs no change of state, and say `init` again: MPICH does when a program initializes
MPI a second time. :data:`TRANSITIONS` is the table. A command that is not in it, or a line without a command, raises
:class:`RemoteProtocolError`. After this error the world must be ended, because MPICH waits for an answer. A command
that we understand and cannot carry out (an unknown key, a value that is too long, a spawn) gets the failure answer of
PMI, which MPICH turns into an MPI error.

A :class:`World` holds the ranks of the world on one host. If there are others elsewhere, the barrier is theirs too: the
world says :class:`BarrierReached` with the values that its own ranks have put, and waits for :meth:`World.release`.

We speak version 1.1. MPICH asks for 1.1 and would use barriers of groups and several threads if we answered 1.2.

Source: MPICH 5, ``src/pmi/maint/pmi-1.1.txt`` (commands) and ``src/pmi/src/pmi_wire.c`` (format of a line).
"""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alchemist_ray.errors import LocalProtocolError, RemoteProtocolError

KVSNAME_MAX, KEYLEN_MAX, VALLEN_MAX = 256, 64, 1024
"""The buffers that MPICH allocates for names, keys and values, with their final zero byte. These are Hydra's sizes.

`VALLEN_MAX` must be even: MPICH puts a long value in pieces of (VALLEN_MAX - 2) // 2 octets and gets it in pieces of
(VALLEN_MAX - 1) // 2.
"""

MAX_LINE = 64 * 1024
"""Bytes of a line at most. A put needs 1,400; the lines of a spawn contain the arguments of the program to start."""

MAX_KEYS = 4096
"""Keys of a rank at most, in the life of its world: about 5 MiB. Each time that MPICH initializes, the first rank of a
host needs 1 (libfabric over TCP) to 10 (UCX), and the other ranks none.
"""

MAPPING_KEY = "PMI_process_mapping"
RESERVED = "PMI_"
"""Keys with this prefix are the server's."""


class RankState(enum.Enum):
    """The states of the connection of one rank."""

    NEW = "new"
    READY = "ready"
    WAITING = "waiting"  # in the barrier
    FINALIZED = "finalized"
    ABORTED = "aborted"  # it asked to end the world, or broke the protocol; what it still sends is ignored


ANSWERS = {
    "init": "response_to_init",
    "get_maxes": "maxes",
    "get_appnum": "appnum",
    "get_my_kvsname": "my_kvsname",
    "get_universe_size": "universe_size",
    "put": "put_result",
    "get": "get_result",
    "barrier_in": "barrier_out",
    "finalize": "finalize_ack",
    "spawn": "spawn_result",
    "publish_name": "publish_result",
    "unpublish_name": "unpublish_result",
    "lookup_name": "lookup_result",
    "getbyidx": "getbyidx_results",
}
"""command -> the command of its answer. `abort` has no answer."""

UNSUPPORTED = frozenset({"spawn", "publish_name", "unpublish_name", "lookup_name", "getbyidx"})
"""Commands that always fail. Our worlds do not grow, and no two of them meet."""

TRANSITIONS: dict[tuple[RankState, str], RankState] = {
    (RankState.NEW, "init"): RankState.READY,
    **{(RankState.READY, command): RankState.READY for command in ANSWERS},
    (RankState.READY, "barrier_in"): RankState.WAITING,
    (RankState.READY, "finalize"): RankState.FINALIZED,
    (RankState.NEW, "abort"): RankState.ABORTED,
    (RankState.READY, "abort"): RankState.ABORTED,
    (RankState.WAITING, "abort"): RankState.ABORTED,  # by another thread of the rank
}
"""(state, command) -> next state, if the command succeeds. A failure answer leaves the state unchanged."""

PARTED = {"barrier_in": RankState.FINALIZED, "finalize": RankState.WAITING}
"""What a rank may not say while another rank is in this state, because one of the two would never leave the barrier."""


# --- events -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """Send `octets` to `rank`."""

    rank: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class BarrierReached:
    """All ranks here are in the barrier: tell the other hosts, with the `values` put here since the last barrier."""

    values: dict[str, str]


@dataclass(frozen=True, slots=True)
class Aborted:
    """A rank asks to end the whole world (`MPI_Abort`, or a fatal error of MPI).

    The caller must end all processes, this rank's too: `MPI_Abort` of MPICH 5.0 returns after it has asked.
    """

    rank: int
    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Finalized:
    """A rank ends normally. If its connection ends without this event, the rank has crashed.

    MPICH says so in an exit handler, not in `MPI_Finalize`. A rank that ends by ``os._exit`` does not say it.
    """

    rank: int


Event = Reply | BarrierReached | Aborted | Finalized


# --- the ranks of one host --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Peer:
    rank: int
    state: RankState = RankState.NEW
    inbox: bytes = b""
    keys: int = 0  # keys that this rank was the first to put
    spawn: dict[bytes, bytes] | None = None  # numbers from the lines of a spawn command that has not ended


class World:
    """The ranks of one MPI world that live on this host (or in this process), as PMI-1 sees them.

    Parameters
    ----------
    size : int
        Number of ranks of the whole world.
    ranks : sequence of int
        The ranks that live here.
    name : str
        Name of the world's key-value space. It must be unique: MPICH names its shared memory by a hash of it.
    mapping : str
        Which ranks share a host, from :func:`process_mapping`: the same on all hosts.

    Raises
    ------
    LocalProtocolError
        If the ranks, the name or the mapping are not valid.
    """

    def __init__(self, size: int, ranks: Sequence[int], name: str, mapping: str) -> None:
        if not ranks or len(set(ranks)) < len(ranks) or min(ranks) < 0 or max(ranks) >= size:
            raise LocalProtocolError(f"{list(ranks)} are not ranks of a world of {size}")
        if not _NAME.fullmatch(name) or len(name) >= KVSNAME_MAX:
            raise LocalProtocolError(f"{name[:80]!r} is not a valid name of an MPI world")
        if not re.fullmatch(r"\(vector[0-9,()]+\)", mapping) or len(mapping) >= VALLEN_MAX:
            raise LocalProtocolError(f"{mapping[:80]!r} is not a valid process mapping")
        self.size = size
        self.name = name
        self._peers = {rank: _Peer(rank) for rank in sorted(ranks)}
        self._facts: dict[str, dict[str, str | int]] = {
            "init": {"pmi_version": 1, "pmi_subversion": 1},
            "get_maxes": {"kvsname_max": KVSNAME_MAX, "keylen_max": KEYLEN_MAX, "vallen_max": VALLEN_MAX},
            "get_appnum": {"appnum": 0},
            "get_my_kvsname": {"kvsname": name},
            "get_universe_size": {"size": size},
        }
        self._values = {MAPPING_KEY: mapping}
        self._fresh: dict[str, str] = {}  # put here since the last barrier
        self._foreign_keys = 0
        self._reached = False  # the other hosts have been told, and have not answered

    def state(self, rank: int) -> RankState:
        """Return the state of a rank's connection."""
        return self._peer(rank).state

    def receive(self, rank: int, octets: bytes | bytearray | memoryview) -> list[Event]:
        """Take bytes that have arrived from a rank: parts of a line, or several lines.

        The caller sees the end of a connection itself. It is normal in the states FINALIZED and NEW (a process that
        has not used MPI).

        Raises
        ------
        RemoteProtocolError
            If the rank broke the protocol. The world must be ended: other ranks may wait for this one.
        LocalProtocolError
            If the rank does not live here.
        """
        peer = self._peer(rank)
        *lines, peer.inbox = (peer.inbox + bytes(octets)).split(b"\n")
        events: list[Event] = []
        for line in lines:
            events += self._take_line(peer, line)
        if peer.state is RankState.ABORTED:
            peer.inbox = b""
        elif peer.inbox and peer.state is RankState.FINALIZED:
            raise self._broken(peer, peer.inbox, "after finalize")
        elif len(peer.inbox) > MAX_LINE:
            raise self._broken(peer, peer.inbox, f"a line of more than {MAX_LINE:,} bytes")
        return events

    def release(self, values: Mapping[str, str]) -> list[Event]:
        """Let the local ranks leave the barrier: the other hosts have reached it too, with these values.

        Raises
        ------
        LocalProtocolError
            If there was no :class:`BarrierReached` since the last release.
        RemoteProtocolError
            If the values are not ones that a rank can have put.
        """
        if not self._reached:
            raise LocalProtocolError(f"the ranks of MPI world {self.name} here are not in a barrier with other hosts")
        for key, value in values.items():
            self._foreign_keys += key not in self._values
            misfit = _misfit(key, value)
            if self._foreign_keys > MAX_KEYS * (self.size - len(self._peers)):
                misfit = "too many keys"
            if misfit:
                raise RemoteProtocolError(f"other hosts of MPI world {self.name} sent {key[:80]!r}: {misfit}")
            self._values[key] = value
        self._reached = False
        return self._open_barrier()

    # --- commands in --------------------------------------------------------------------------------------------------

    def _peer(self, rank: int) -> _Peer:
        try:
            return self._peers[rank]
        except KeyError:
            raise LocalProtocolError(f"rank {rank} of MPI world {self.name} does not live here") from None

    def _take_line(self, peer: _Peer, line: bytes) -> list[Event]:
        if peer.state is RankState.ABORTED:
            return []
        if len(line) > MAX_LINE:
            raise self._broken(peer, line, f"a line of more than {MAX_LINE:,} bytes")
        if peer.spawn is not None:
            return self._take_line_of_spawn(peer, line)
        command = _command_of(line)
        if command is None:
            raise self._broken(peer, line, "not a PMI-1 command")
        following = TRANSITIONS.get((peer.state, command))
        if following is None:
            known = command in ANSWERS or command == "abort"
            raise self._broken(peer, line, f"in state {peer.state.value}" if known else "an unknown command")
        try:
            text = line.decode()
        except UnicodeDecodeError:
            raise self._broken(peer, line, "not UTF-8") from None
        if line.startswith(b"mcmd="):
            peer.spawn = {}
            return []
        fields = _fields_of(text)
        if failure := self._failure(peer, command, fields):
            return [_answer(peer, command, rc=-1, msg=failure.replace(" ", "_"))]
        for other in self._peers.values():
            if other.state is PARTED.get(command):
                raise self._broken(peer, line, f"rank {other.rank} is in state {other.state.value}")
        peer.state = following
        return self._obey(peer, command, fields, text)

    def _take_line_of_spawn(self, peer: _Peer, line: bytes) -> list[Event]:
        """Skip a line of a spawn command, and answer its last line.

        The command has a part for each program, up to a line ``endcmd``; the parts count themselves.
        """
        assert peer.spawn is not None
        key, _, value = line.partition(b"=")
        if key in (b"totspawns", b"spawnssofar"):
            peer.spawn[key] = value
        if line != b"endcmd" or peer.spawn.get(b"totspawns") != peer.spawn.get(b"spawnssofar"):
            return []
        peer.spawn = None
        return [_answer(peer, "spawn", rc=-1, msg="spawn_is_not_supported")]

    def _failure(self, peer: _Peer, command: str, fields: Mapping[str, str]) -> str:
        """Return why a command cannot be carried out, or an empty text if it can."""
        if command in UNSUPPORTED:
            return f"{command} is not supported"
        if command == "init" and fields.get("pmi_version") != "1":
            return "only PMI version 1 is supported"
        if command == "barrier_in" and "group" in fields:
            return "barriers of groups are not supported"
        if command not in ("put", "get"):
            return ""
        if fields.get("kvsname", self.name) != self.name:
            return "unknown kvsname"
        key, value = fields.get("key", ""), fields.get("value", "")
        if command == "get":
            return "" if key in self._values else "unknown key"
        if key not in self._values and peer.keys >= MAX_KEYS:
            return "too many keys"
        return _misfit(key, value)

    def _obey(self, peer: _Peer, command: str, fields: Mapping[str, str], text: str) -> list[Event]:
        match command:
            case "abort":
                return [_abort(peer.rank, text)]
            case "barrier_in":
                return self._enter_barrier()
            case "finalize":
                return [_answer(peer, command), Finalized(peer.rank)]
            case "get":
                return [_answer(peer, command, value=self._values[fields["key"]])]
            case "put":
                self._put(peer, fields["key"], fields["value"])
        return [_answer(peer, command, **self._facts.get(command, {}))]

    def _put(self, peer: _Peer, key: str, value: str) -> None:
        peer.keys += key not in self._values
        self._values[key] = value
        if len(self._peers) < self.size:
            self._fresh[key] = value

    def _enter_barrier(self) -> list[Event]:
        if any(peer.state is not RankState.WAITING for peer in self._peers.values()):
            return []
        if len(self._peers) == self.size:
            return self._open_barrier()
        self._reached = True
        values, self._fresh = self._fresh, {}
        return [BarrierReached(values)]

    def _open_barrier(self) -> list[Event]:
        waiting = [peer for peer in self._peers.values() if peer.state is RankState.WAITING]
        for peer in waiting:
            peer.state = RankState.READY
        return [_answer(peer, "barrier_in") for peer in waiting]

    def _broken(self, peer: _Peer, octets: bytes, reason: str) -> RemoteProtocolError:
        peer.state, peer.inbox = RankState.ABORTED, b""
        shown = repr(octets[:80])[1:] + ("..." if len(octets) > 80 else "")
        return RemoteProtocolError(f"rank {peer.rank} of MPI world {self.name} sent {shown}: {reason}")


# --- lines ------------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"(?!0$|singinit)[\w.:-]+", re.ASCII)
"""A name of a world. MPICH takes the two exceptions for a process without a server."""

_WORD = re.compile(r"([^ =]+)(?:=((?:\\.|[^ ])*))?")
"""A key, or a key and its value. In a value, a backslash takes the meaning from the character after it."""


def _command_of(line: bytes) -> str | None:
    """Return the command of a line, or None if it is none. No line has a zero byte, which ends a text in C."""
    found = re.match(rb"(?:cmd=(\w+)|mcmd=(spawn))(?= |$)", line)
    return None if found is None or b"\0" in line else (found[1] or found[2]).decode()


def _fields_of(text: str) -> dict[str, str]:
    """Return the keys and values of a line. The first value of a key counts, as in MPICH."""
    fields: dict[str, str] = {}
    for key, value in _WORD.findall(text):
        fields.setdefault(key, re.sub(r"\\(.)", r"\1", value))
    return fields


def _answer(peer: _Peer, command: str, **fields: str | int) -> Reply:
    words: dict[str, str | int] = {"cmd": ANSWERS[command], "rc": 0, **fields}
    escaped = {key: re.sub(r"([ \\])", r"\\\1", str(value)) for key, value in words.items()}
    return Reply(peer.rank, (" ".join(map("=".join, escaped.items())) + "\n").encode())


def _misfit(key: str, value: str) -> str:
    """Return why no rank may put `value` under `key`, or an empty text."""
    if not key or not value:
        return "missing key or value"  # MPICH cannot read an empty one
    if key.startswith(RESERVED):
        return "reserved key"
    if re.search(r"[\n\0\ud800-\udfff]", key + value):
        return "invalid characters"
    if len(key.encode()) >= KEYLEN_MAX:
        return "key too long"
    return "value too long" if len(value.encode()) >= VALLEN_MAX else ""


def _abort(rank: int, text: str) -> Aborted:
    """Return the event for an abort line. The message is its end, with spaces and all: MPICH does not escape it."""
    code = re.search(r" exitcode=(-?\d{1,10})(?= |$)", text)
    message = re.search(r" (?:message|error_msg)=(.*)$", text)
    printable = "".join(c if c.isprintable() else "?" for c in message[1][:VALLEN_MAX]) if message else ""
    return Aborted(rank, int(code[1]) if code else 1, printable)


# --- which ranks share a host -----------------------------------------------------------------------------------------


def process_mapping(counts: Sequence[int]) -> str:
    """Return the process mapping of a world whose ranks are numbered host by host, `counts[i]` of them on host i.

    Blocks stand for runs of hosts with equal counts: (first host, number of hosts, ranks on each). For [2, 2, 1] the
    result is "(vector,(0,2,2),(2,1,1))". With [1, 1, 1] no ranks share memory.

    Raises
    ------
    LocalProtocolError
        If a host has no ranks, or the mapping is longer than a value may be.
    """
    if not counts or min(counts) < 1:
        raise LocalProtocolError(f"every host of an MPI world needs a rank, but the counts are {list(counts)[:20]}")
    blocks, first = [], 0
    for count, hosts in itertools.groupby(counts):
        length = len(list(hosts))
        blocks.append(f"({first},{length},{count})")
        first += length
    mapping = f"(vector,{','.join(blocks)})"
    if len(mapping) >= VALLEN_MAX:
        raise LocalProtocolError(
            f"MPI must know how many ranks are on each of {len(counts)} hosts, and PMI has {VALLEN_MAX - 1} characters "
            f"for that, but {len(mapping)} are needed. A run of hosts with equal numbers of ranks takes only one entry"
        )
    return mapping
