"""The PMI-1 server without sockets: the state table, the exact lines of real starts of MPICH, barriers, bad input."""

import contextlib
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemist_ray.errors import LocalProtocolError, RemoteProtocolError
from alchemist_ray.protocol.pmi import (
    ANSWERS,
    KEYLEN_MAX,
    MAX_KEYS,
    MAX_LINE,
    TRANSITIONS,
    VALLEN_MAX,
    Aborted,
    BarrierReached,
    Finalized,
    RankState,
    Reply,
    World,
    process_mapping,
)

DRAWN = {
    (RankState.NEW, "init"): RankState.READY,
    (RankState.NEW, "abort"): RankState.ABORTED,
    (RankState.READY, "init"): RankState.READY,
    (RankState.READY, "get_maxes"): RankState.READY,
    (RankState.READY, "get_appnum"): RankState.READY,
    (RankState.READY, "get_my_kvsname"): RankState.READY,
    (RankState.READY, "get_universe_size"): RankState.READY,
    (RankState.READY, "put"): RankState.READY,
    (RankState.READY, "get"): RankState.READY,
    (RankState.READY, "spawn"): RankState.READY,
    (RankState.READY, "publish_name"): RankState.READY,
    (RankState.READY, "unpublish_name"): RankState.READY,
    (RankState.READY, "lookup_name"): RankState.READY,
    (RankState.READY, "getbyidx"): RankState.READY,
    (RankState.READY, "barrier_in"): RankState.WAITING,
    (RankState.READY, "finalize"): RankState.FINALIZED,
    (RankState.READY, "abort"): RankState.ABORTED,
    (RankState.WAITING, "abort"): RankState.ABORTED,
}
"""The drawing in the module's docstring, by hand."""

INIT = b"cmd=init pmi_version=1 pmi_subversion=1\n"
BARRIER, FINALIZE = b"cmd=barrier_in\n", b"cmd=finalize\n"
SPAWN = (
    b"mcmd=spawn\nnprocs=1\nexecname=/bin/true\ntotspawns=1\nspawnssofar=1\nargcnt=1\narg1=a b\ninfo_num=0\nendcmd\n"
)
LINES = {
    "init": INIT,
    "get_maxes": b"cmd=get_maxes\n",
    "get_appnum": b"cmd=get_appnum\n",
    "get_my_kvsname": b"cmd=get_my_kvsname\n",
    "get_universe_size": b"cmd=get_universe_size\n",
    "put": b"cmd=put kvsname=w key=k value=v\n",
    "get": b"cmd=get kvsname=w key=PMI_process_mapping\n",
    "barrier_in": BARRIER,
    "finalize": FINALIZE,
    "abort": b"cmd=abort exitcode=7 message=abort\n",
    "spawn": SPAWN,
    "publish_name": b"cmd=publish_name service=s port=p\n",
    "unpublish_name": b"cmd=unpublish_name service=s\n",
    "lookup_name": b"cmd=lookup_name service=s\n",
    "getbyidx": b"cmd=getbyidx kvsname=w idx=0\n",
}
"""A valid command of each kind."""

MAXES = b"cmd=maxes rc=0 kvsname_max=256 keylen_max=64 vallen_max=1024\n"
NO_KEY = b"cmd=get_result rc=-1 msg=unknown_key\n"
OUT = b"cmd=barrier_out rc=0\n"


def world(size=1, ranks=None, ready=True):
    """Return a world named w, its ranks initialized."""
    ranks = range(size) if ranks is None else ranks
    made = World(size, ranks, "w", process_mapping([size]))
    for rank in ranks if ready else ():
        assert len(made.receive(rank, INIT)) == 1
    return made


def world_in(state):
    """Return a world of two ranks whose rank 0 is in `state`, and rank 1 ready."""
    made = world(2, ready=False)
    for rank in (0, 1) if state is not RankState.NEW else (1,):
        made.receive(rank, INIT)
    way = {RankState.WAITING: "barrier_in", RankState.FINALIZED: "finalize", RankState.ABORTED: "abort"}
    if state in way:
        made.receive(0, LINES[way[state]])
    assert made.state(0) is state
    return made


def say(made, octets, rank=0):
    """Return the answer to `octets`, which must be the only event."""
    (reply,) = made.receive(rank, octets)
    assert reply.rank == rank
    return reply.octets


# --- the commands that are allowed in each state ----------------------------------------------------------------------


def test_the_table_is_the_drawing():
    assert TRANSITIONS == DRAWN
    assert set(LINES) == {command for _, command in DRAWN} == {*ANSWERS, "abort"}


@pytest.mark.parametrize("command", LINES)
@pytest.mark.parametrize("state", RankState)
def test_a_rank_says_what_the_table_has_and_nothing_else(state, command):
    made = world_in(state)
    following = DRAWN.get((state, command))
    if following is not None:
        made.receive(0, LINES[command])
        assert made.state(0) is following
    elif state is RankState.ABORTED:
        assert made.receive(0, LINES[command]) == []
        assert made.state(0) is RankState.ABORTED
    else:
        with pytest.raises(
            RemoteProtocolError, match=f"rank 0 of MPI world w sent .*{command}.*: in state {state.value}"
        ):
            made.receive(0, LINES[command])
        assert made.state(0) is RankState.ABORTED
    assert made.state(1) is RankState.READY


# --- real conversations -----------------------------------------------------------------------------------------------


def opening(mapping):
    """Return the first lines of every rank of MPICH 5.0.2 in a world of several ranks, and our answers."""
    return [
        (INIT, b"cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1\n"),
        (b"cmd=get_maxes\n", MAXES),
        (b"cmd=get_appnum\n", b"cmd=appnum rc=0 appnum=0\n"),
        (b"cmd=get_my_kvsname\n", b"cmd=my_kvsname rc=0 kvsname=w\n"),
        (b"cmd=get kvsname=w key=PMI_process_mapping\n", b"cmd=get_result rc=0 value=%b\n" % mapping),
        (b"cmd=get kvsname=w key=PMI_hwloc_xmlfile\n", NO_KEY),
        (b"cmd=get kvsname=w key=PMI_mpi_memory_alloc_kinds\n", NO_KEY),
    ]


UNIVERSE = b"cmd=get_universe_size\n", b"cmd=universe_size rc=0 size=2\n"
END = FINALIZE, b"cmd=finalize_ack rc=0\n"


def test_two_ranks_of_a_host_start_and_end():
    """Recorded from MPICH 5.0.2 with UCX. Ranks that share memory put nothing; the barrier belongs to MPI_Finalize."""
    made = world(2, ready=False)
    for rank in (1, 0):
        for line, answer in [*opening(b"(vector,(0,1,2))"), UNIVERSE]:
            assert say(made, line, rank) == answer
    assert made.receive(0, BARRIER) == []
    assert made.receive(1, BARRIER) == [Reply(0, OUT), Reply(1, OUT)]
    for rank in (0, 1):
        assert made.receive(rank, FINALIZE) == [Reply(rank, END[1]), Finalized(rank)]
        assert made.state(rank) is RankState.FINALIZED


def test_two_ranks_of_two_hosts_start_and_end():
    """Recorded from MPICH 5.0.2 with libfabric over TCP."""
    addresses = {"-allgather-1-0": "020087D57F[2]01[8]", "-allgather-1-1": "0200AED57F[2]01[8]"}
    hosts = [World(2, [rank], "w", process_mapping([1, 1])) for rank in (0, 1)]
    reached = []
    for rank, (made, (key, value)) in enumerate(zip(hosts, addresses.items(), strict=True)):
        for line, answer in opening(b"(vector,(0,2,1))"):
            assert say(made, line, rank) == answer
        assert say(made, f"cmd=put kvsname=w key={key} value={value}\n".encode(), rank) == b"cmd=put_result rc=0\n"
        reached += made.receive(rank, BARRIER)
    assert reached == [BarrierReached({key: value}) for key, value in addresses.items()]
    for rank, made in enumerate(hosts):
        assert made.release(reached[1 - rank].values) == [Reply(rank, OUT)]
        for key, value in addresses.items():
            answer = f"cmd=get_result rc=0 value={value}\n".encode()
            assert say(made, f"cmd=get kvsname=w key={key}\n".encode(), rank) == answer
        assert say(made, UNIVERSE[0], rank) == UNIVERSE[1]
        assert made.receive(rank, FINALIZE) == [Reply(rank, END[1]), Finalized(rank)]


def test_mpi_initializes_a_second_time_by_another_init():
    made = world()
    assert say(made, BARRIER) == OUT
    assert say(made, INIT) == b"cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1\n"
    assert say(made, BARRIER) == OUT


# --- framing ----------------------------------------------------------------------------------------------------------

STREAM = b"".join(LINES[command] for command in LINES if command not in ("finalize", "abort")) + FINALIZE


def answers_to(parts):
    made = world(ready=False)
    return [event for part in parts for event in made.receive(0, part)]


WHOLE = answers_to([STREAM])


def test_a_stream_fed_whole_has_an_answer_for_each_command():
    assert [re.match(rb"cmd=(\w+)", event.octets)[1].decode() for event in WHOLE[:-1]] == [
        ANSWERS[command] for command in (*(c for c in LINES if c not in ("finalize", "abort")), "finalize")
    ]
    assert WHOLE[-1] == Finalized(0)


@pytest.mark.parametrize("split", range(len(STREAM) + 1))
def test_a_stream_fed_in_two_parts_has_the_same_answers(split):
    assert answers_to([STREAM[:split], STREAM[split:]]) == WHOLE


def test_a_stream_fed_byte_by_byte_is_answered_at_the_last_byte_of_each_line():
    made, got = world(ready=False), []
    for octet in STREAM:
        events = made.receive(0, bytes([octet]))
        assert not events or octet == ord("\n")
        got += events
    assert got == WHOLE


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=8), st.sampled_from([bytes, bytearray, memoryview]))
def test_a_stream_fed_in_any_parts_and_buffers_has_the_same_answers(cuts, buffer):
    ends = [0, *sorted(cuts), len(STREAM)]
    assert answers_to(buffer(STREAM[start:stop]) for start, stop in itertools.pairwise(ends)) == WHOLE


def test_the_lines_of_two_ranks_are_kept_apart():
    made = world(2, ready=False)
    assert made.receive(0, INIT[:9]) == made.receive(1, INIT[:20]) == []
    assert say(made, INIT[9:], 0) == say(made, INIT[20:], 1)


def test_the_end_of_a_connection_is_no_event():
    assert world().receive(0, b"") == []


# --- values -----------------------------------------------------------------------------------------------------------


def test_a_value_that_is_put_again_replaces_the_first():
    made = world()
    for value in (b"one", b"two"):
        assert say(made, b"cmd=put kvsname=w key=k value=%b\n" % value) == b"cmd=put_result rc=0\n"
        assert say(made, b"cmd=get kvsname=w key=k\n") == b"cmd=get_result rc=0 value=%b\n" % value


def test_the_kvsname_may_be_omitted():
    made = world()
    assert say(made, b"cmd=put key=k value=v\n") == b"cmd=put_result rc=0\n"
    assert say(made, b"cmd=get key=k\n") == b"cmd=get_result rc=0 value=v\n"


def test_a_rank_sees_the_value_of_another_rank_of_its_host_before_the_barrier():
    made = world(2)
    made.receive(0, b"cmd=put key=k value=v\n")
    assert say(made, b"cmd=get key=k\n", 1) == b"cmd=get_result rc=0 value=v\n"


def parsed(line):
    """Parse an answer as MPICH does: a space ends a value, a backslash takes the meaning from what follows it."""
    words = re.findall(r"([^ =]+)=((?:\\.|[^ \\])*)(?: |\n$)", line.decode())
    return {key: re.sub(r"\\(.)", r"\1", value) for key, value in words}


TEXT = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), min_size=1, max_size=200)


@settings(max_examples=100, deadline=None)
@given(TEXT)
def test_any_value_arrives_when_the_sender_escapes_it(value):
    made = world()
    escaped = re.sub(r"([ \\])", r"\\\1", value)
    assert say(made, f"cmd=put key=k value={escaped}\n".encode()) == b"cmd=put_result rc=0\n"
    assert parsed(say(made, b"cmd=get key=k\n"))["value"] == value


def test_a_space_that_is_not_escaped_ends_a_value():
    made = world()
    made.receive(0, b"cmd=put key=k value=a b=c value=d\n")
    assert say(made, b"cmd=get key=k\n") == b"cmd=get_result rc=0 value=a\n"


def test_answers_escape_spaces_and_backslashes():
    made = world()
    made.receive(0, rb"cmd=put key=k value=a\ b\\c" + b"\n")
    assert say(made, b"cmd=get key=k\n") == rb"cmd=get_result rc=0 value=a\ b\\c" + b"\n"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (b"key=k", b"missing_key_or_value"),
        (b"value=v", b"missing_key_or_value"),
        (b"key=k value=", b"missing_key_or_value"),
        (b"key= value=v", b"missing_key_or_value"),
        (b"", b"missing_key_or_value"),
        (b"kvsname=other key=k value=v", b"unknown_kvsname"),
        (b"key=PMI_process_mapping value=v", b"reserved_key"),
        (b"key=PMI_x value=v", b"reserved_key"),
        (b"key=%b value=v" % (b"k" * KEYLEN_MAX), b"key_too_long"),
        (b"key=k value=%b" % (b"v" * VALLEN_MAX), b"value_too_long"),
        (b"key=k value=%b" % ("é" * (VALLEN_MAX // 2)).encode(), b"value_too_long"),
    ],
)
def test_a_put_that_is_not_possible_fails_and_changes_nothing(fields, reason):
    made = world()
    assert say(made, b"cmd=put %b\n" % fields) == b"cmd=put_result rc=-1 msg=%b\n" % reason
    assert say(made, b"cmd=get key=k\n") == NO_KEY
    assert say(made, b"cmd=get key=PMI_process_mapping\n") == b"cmd=get_result rc=0 value=(vector,(0,1,1))\n"
    assert made.state(0) is RankState.READY


def test_the_longest_key_and_value_fit_into_the_buffers_of_mpich_with_their_zero_byte():
    made = world()
    key, value = b"k" * (KEYLEN_MAX - 1), b"v" * (VALLEN_MAX - 1)
    assert say(made, b"cmd=put key=%b value=%b\n" % (key, value)) == b"cmd=put_result rc=0\n"
    assert say(made, b"cmd=get key=%b\n" % key) == b"cmd=get_result rc=0 value=%b\n" % value


def test_mpich_cuts_long_values_into_pieces_of_one_size():
    assert (VALLEN_MAX - 2) // 2 == (VALLEN_MAX - 1) // 2


@pytest.mark.parametrize(
    ("fields", "reason"), [(b"key=k", b"unknown_key"), (b"", b"unknown_key"), (b"kvsname=o key=k", b"unknown_kvsname")]
)
def test_a_get_that_is_not_possible_fails(fields, reason):
    assert say(world(), b"cmd=get %b\n" % fields) == b"cmd=get_result rc=-1 msg=%b\n" % reason


def test_a_rank_puts_a_limited_number_of_keys():
    made = world(2)
    for number in range(MAX_KEYS):
        assert say(made, b"cmd=put key=%d value=v\n" % number) == b"cmd=put_result rc=0\n"
    assert say(made, b"cmd=put key=more value=v\n") == b"cmd=put_result rc=-1 msg=too_many_keys\n"
    made.receive(0, BARRIER)
    made.receive(1, BARRIER)
    assert say(made, b"cmd=put key=more value=v\n") == b"cmd=put_result rc=-1 msg=too_many_keys\n"
    assert say(made, b"cmd=put key=0 value=again\n") == b"cmd=put_result rc=0\n"
    assert say(made, b"cmd=put key=more value=v\n", 1) == b"cmd=put_result rc=0\n"


# --- commands that fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["spawn", "publish_name", "unpublish_name", "lookup_name", "getbyidx"])
def test_what_is_not_supported_is_answered_with_failure(command):
    answer = f"cmd={ANSWERS[command]} rc=-1 msg={command}_is_not_supported\n".encode()
    assert say(world(), LINES[command]) == answer


def test_a_service_name_with_spaces_does_not_matter():
    assert b"publish_result rc=-1" in say(world(), b"cmd=publish_name service=a b =c port=port 1\n")


def test_a_spawn_of_several_programs_is_answered_after_the_last():
    """As MPICH 5.0.2 writes it for MPI_Comm_spawn_multiple."""
    made = world()
    first = b"mcmd=spawn\nnprocs=1\nexecname=/bin/true\ntotspawns=2\nspawnssofar=1\nargcnt=1\narg1=q\npreput_num=1\n"
    first += b"preput_key_0=PARENT_ROOT_PORT_NAME\npreput_val_0=tag#1$connentry#20[2]$\ninfo_num=0\nendcmd\n"
    assert made.receive(0, first) == []
    second = b"mcmd=spawn\nnprocs=2\nexecname=/bin/echo\ntotspawns=2\nspawnssofar=2\nargcnt=0\ninfo_num=0\nendcmd\n"
    assert say(made, second) == b"cmd=spawn_result rc=-1 msg=spawn_is_not_supported\n"
    assert say(made, b"cmd=get_appnum\n") == b"cmd=appnum rc=0 appnum=0\n"


def test_the_lines_of_a_spawn_are_not_commands_whatever_they_contain():
    made = world()
    odd = b"mcmd=spawn\ntotspawns=1\nspawnssofar=1\ncmd=finalize\n\nexecname=\xff\0\nendcmd\n"
    assert say(made, odd) == b"cmd=spawn_result rc=-1 msg=spawn_is_not_supported\n"
    assert made.state(0) is RankState.READY


@pytest.mark.parametrize("fields", [b"pmi_version=2 pmi_subversion=0", b"pmi_subversion=1", b"pmi_version=x"])
def test_another_version_is_refused_and_mpich_then_aborts(fields):
    made = world(ready=False)
    answer = b"cmd=response_to_init rc=-1 msg=only_PMI_version_1_is_supported\n"
    assert say(made, b"cmd=init %b\n" % fields) == answer
    assert made.state(0) is RankState.NEW
    (aborted,) = made.receive(0, b"cmd=abort exitcode=-1 message=PMI_Init failed\n")
    assert aborted == Aborted(0, -1, "PMI_Init failed")


def test_a_later_subversion_is_answered_with_ours():
    made = world(ready=False)
    assert say(made, b"cmd=init pmi_version=1 pmi_subversion=2\n").endswith(b"rc=0 pmi_version=1 pmi_subversion=1\n")


def test_a_barrier_of_a_group_is_refused():
    made = world()
    answer = b"cmd=barrier_out rc=-1 msg=barriers_of_groups_are_not_supported\n"
    assert say(made, b"cmd=barrier_in group=0,1:7\n") == answer
    assert made.state(0) is RankState.READY


# --- barriers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_last_rank_opens_a_local_barrier_again_and_again(order):
    made = world(3)
    for _ in range(2):
        for rank in order[:-1]:
            assert made.receive(rank, BARRIER) == []
            assert made.state(rank) is RankState.WAITING
        assert made.receive(order[-1], BARRIER) == [Reply(rank, OUT) for rank in range(3)]
        assert {made.state(rank) for rank in range(3)} == {RankState.READY}


def test_a_barrier_with_ranks_elsewhere_waits_for_their_release():
    made = world(4, [1, 3])
    made.receive(1, b"cmd=put key=a value=1\n")
    made.receive(3, b"cmd=put key=b value=3\n")
    assert made.receive(3, BARRIER) == []
    assert made.receive(1, BARRIER) == [BarrierReached({"a": "1", "b": "3"})]
    assert made.state(1) is made.state(3) is RankState.WAITING
    assert made.release({"c": "0", "d": "2"}) == [Reply(1, OUT), Reply(3, OUT)]
    for key, value in {"a": "1", "b": "3", "c": "0", "d": "2"}.items():
        assert parsed(say(made, f"cmd=get key={key}\n".encode(), 1))["value"] == value


def test_a_barrier_tells_only_what_was_put_since_the_last_one():
    made = world(2, [0])
    for number, value in enumerate(("one", "two")):
        made.receive(0, f"cmd=put key=k value={value}\n".encode())
        assert made.receive(0, BARRIER) == [BarrierReached({"k": value})], number
        made.release({})
    assert made.receive(0, BARRIER) == [BarrierReached({})]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=3), st.integers(1, 3), st.randoms(use_true_random=False))
def test_worlds_on_several_hosts_exchange_all_values(counts, rounds, random):
    size = sum(counts)
    ranks = [range(stop - count, stop) for count, stop in zip(counts, itertools.accumulate(counts), strict=True)]
    hosts = [World(size, local, "w", process_mapping(counts)) for local in ranks]
    where = {rank: host for host, local in zip(hosts, ranks, strict=True) for rank in local}
    for rank in range(size):
        where[rank].receive(rank, INIT)
    for number in range(rounds):
        order, reached = random.sample(range(size), size), {}
        for rank in order:
            where[rank].receive(rank, f"cmd=put key=r{rank} value={rank}.{number}\n".encode())
            for event in where[rank].receive(rank, BARRIER):
                reached[where[rank]] = event.values
        for host in hosts:
            others = [values for other, values in reached.items() if other is not host]
            host.release({key: value for values in others for key, value in values.items()})
        for rank, other in itertools.product(range(size), repeat=2):
            answer = parsed(say(where[rank], f"cmd=get key=r{other}\n".encode(), rank))
            assert answer["value"] == f"{other}.{number}"


def test_a_release_that_nobody_waits_for_is_our_own_fault():
    made = world(2, [0])
    with pytest.raises(LocalProtocolError, match="not in a barrier"):
        made.release({})
    made.receive(0, BARRIER)
    made.release({})
    with pytest.raises(LocalProtocolError, match="not in a barrier"):
        made.release({})
    with pytest.raises(LocalProtocolError, match="not in a barrier"):
        world().release({})


@pytest.mark.parametrize(
    "values",
    [
        {"k": ""},
        {"": "v"},
        {"k": "a\ncmd=finalize_ack"},
        {"k\0": "v"},
        {"k": "\ud800"},
        {"PMI_process_mapping": "v"},
        {"k" * KEYLEN_MAX: "v"},
        {"k": "v" * VALLEN_MAX},
        {str(number): "v" for number in range(MAX_KEYS + 1)},
    ],
)
def test_values_of_other_hosts_that_no_rank_can_have_put_are_refused(values):
    made = world(2, [0])
    made.receive(0, BARRIER)
    with pytest.raises(RemoteProtocolError, match="other hosts of MPI world w sent"):
        made.release(values)


def test_a_barrier_that_a_rank_has_left_for_good_is_an_error_not_a_wait():
    made = world(2)
    made.receive(0, FINALIZE)
    with pytest.raises(
        RemoteProtocolError, match=r"rank 1 of MPI world w sent 'cmd=barrier_in': rank 0 is in state fin"
    ):
        made.receive(1, BARRIER)
    made = world(2)
    made.receive(0, BARRIER)
    with pytest.raises(
        RemoteProtocolError, match=r"rank 1 of MPI world w sent 'cmd=finalize': rank 0 is in state wait"
    ):
        made.receive(1, FINALIZE)


# --- aborts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        (b"cmd=abort exitcode=7 message=abort", 7, "abort"),
        (b"cmd=abort exitcode=-1 message=PMI_Init failed = so", -1, "PMI_Init failed = so"),
        (b"cmd=abort exitcode=3", 3, ""),
        (b"cmd=abort exitcode=3 error_msg=why not", 3, "why not"),
        (b"cmd=abort", 1, ""),
        (b"cmd=abort exitcode=" + b"9" * 5000, 1, ""),
        (b"cmd=abort exitcode=x message=\x1b[31mred", 1, "?[31mred"),
        (b"cmd=abort exitcode=1 message=" + b"m" * 9999, 1, "m" * VALLEN_MAX),
    ],
)
def test_an_abort_is_passed_on_with_code_and_message(line, code, message):
    made = world(2)
    assert made.receive(1, line + b"\n") == [Aborted(1, code, message)]
    assert made.state(1) is RankState.ABORTED


def test_a_rank_that_waits_in_a_barrier_can_abort_by_another_thread():
    made = world(3, [0, 1])
    made.receive(0, BARRIER)
    made.receive(1, BARRIER)
    assert made.receive(0, LINES["abort"]) == [Aborted(0, 7, "abort")]
    assert made.release({}) == [Reply(1, OUT)]  # the other hosts did not know yet


def test_after_an_abort_a_rank_is_not_listened_to():
    made = world(2)
    assert made.receive(0, LINES["abort"] + b"cmd=nonsense\n" + BARRIER) == [Aborted(0, 7, "abort")]
    assert made.receive(0, b"x" * (2 * MAX_LINE)) == []
    assert made.receive(1, BARRIER) == []


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "complaint"),
    [
        (b"cmd=dance\n", r"rank 0 of MPI world w sent 'cmd=dance': an unknown command"),
        (b"GET / HTTP/1.1\r\n", r"sent 'GET / HTTP/1.1\\r': not a PMI-1 command"),
        (b"\n", "sent '': not a PMI-1 command"),
        (b" cmd=get_maxes\n", "not a PMI-1 command"),
        (b"cmd=\n", "not a PMI-1 command"),
        (b"cmd=put\0 key=k\n", r"'cmd=put\\x00 key=k': not a PMI-1 command"),
        (b"mcmd=put\n", "not a PMI-1 command"),
        (b"    54cmd=fullinit;pmijobid=1;pmirank=0;threaded=FALSE;\n", "not a PMI-1 command"),
        (b"cmd=put key=k value=\xff\n", r"'cmd=put key=k value=\\xff': not UTF-8"),
        (b"cmd=put key=k value=" + b"v" * MAX_LINE, "a line of more than 65,536 bytes"),
        (b"cmd=put key=k value=" + b"v" * MAX_LINE + b"\n", "a line of more than 65,536 bytes"),
        (SPAWN[:60] + b"a" * MAX_LINE, "a line of more than 65,536 bytes"),
        (FINALIZE + b"c", "sent 'c': after finalize"),
        (FINALIZE + FINALIZE, "in state finalized"),
    ],
)
def test_what_breaks_the_protocol_is_named(octets, complaint):
    made = world(2)
    with pytest.raises(RemoteProtocolError, match=complaint) as caught:
        made.receive(0, octets)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()
    assert made.state(0) is RankState.ABORTED
    assert made.receive(0, INIT) == []
    assert made.state(1) is RankState.READY


def test_an_error_shows_the_start_of_a_long_line():
    with pytest.raises(RemoteProtocolError, match=r"sent 'cmd=dance x{70}'\.\.\.: an unknown"):
        world().receive(0, b"cmd=dance " + b"x" * 5000 + b"\n")


def test_a_line_without_end_is_bounded_however_it_is_fed():
    made = world()
    for _ in range(MAX_LINE // 1024):
        made.receive(0, b"x" * 1024)
    with pytest.raises(RemoteProtocolError, match="a line of more than"):
        made.receive(0, b"x")


def test_only_local_ranks_have_connections():
    made = world(4, [1, 2])
    for use in (lambda: made.receive(0, INIT), lambda: made.state(3)):
        with pytest.raises(LocalProtocolError, match=r"rank \d of MPI world w does not live here"):
            use()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*LINES.values(), b"cmd=put key=a value=b\n", b"cmd= \n", b"x", b"\xff\n", b"="])))
def test_any_input_is_answered_or_refused_line_by_line(parts):
    made = world()
    try:
        events = [event for part in parts for event in made.receive(0, part)]
    except RemoteProtocolError:
        assert made.state(0) is RankState.ABORTED
    else:
        for event in events:
            assert not isinstance(event, Reply) or re.fullmatch(rb"cmd=\w+ rc=(0|-1)( \w+=[^ \n]+)*\n", event.octets)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_after_a_command_give_an_answer_or_a_protocol_error(octets):
    made = world()
    with contextlib.suppress(RemoteProtocolError):
        assert made.receive(0, b"cmd=put " + octets + b"\n")


# --- what a world is made of ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "ranks"), [(2, []), (2, [0, 0]), (2, [2]), (2, [-1]), (0, [0])])
def test_the_ranks_of_a_world_must_be_in_it(size, ranks):
    with pytest.raises(LocalProtocolError, match="are not ranks of a world of"):
        World(size, ranks, "w", process_mapping([2]))


@pytest.mark.parametrize(
    "name", ["", "a b", "a=b", "a/b", "a\\b", "a\n", "é", "0", "singinit", "singinit-7", "n" * 256]
)
def test_the_name_of_a_world_can_stand_in_a_line_and_in_a_file_name(name):
    with pytest.raises(LocalProtocolError, match="not a valid name of an MPI world"):
        World(1, [0], name, process_mapping([1]))


def test_a_usual_name_is_taken():
    for name in ("alchemist_7-1f2e", "a.b:c", "00", "n" * 255):
        assert World(1, [0], name, process_mapping([1])).name == name


@pytest.mark.parametrize(
    "mapping", ["", "(vector)", "(matrix,(0,1,1))", "(vector,(0,1,1))\n", "(vector,%s)" % ("1," * 600)]
)
def test_a_mapping_must_be_one(mapping):
    with pytest.raises(LocalProtocolError, match="not a valid process mapping"):
        World(1, [0], "w", mapping)


@pytest.mark.parametrize(
    ("counts", "mapping"),
    [
        ([1], "(vector,(0,1,1))"),
        ([4], "(vector,(0,1,4))"),
        ([2, 2], "(vector,(0,2,2))"),
        ([2, 2, 1], "(vector,(0,2,2),(2,1,1))"),
        ([1, 2, 2, 1], "(vector,(0,1,1),(1,2,2),(3,1,1))"),
        ([1] * 1000, "(vector,(0,1000,1))"),
    ],
)
def test_a_process_mapping_counts_runs_of_equal_hosts(counts, mapping):
    assert process_mapping(counts) == mapping


@given(st.lists(st.integers(1, 5), min_size=1, max_size=50))
def test_a_process_mapping_gives_each_host_its_ranks(counts):
    hosts = []
    for first, number, each in re.findall(r"\((\d+),(\d+),(\d+)\)", process_mapping(counts)):
        hosts += [host for host in range(int(first), int(first) + int(number)) for _ in range(int(each))]
    assert hosts == [host for host, count in enumerate(counts) for _ in range(count)]


@pytest.mark.parametrize("counts", [[], [0], [2, 0, 1], [1, -1]])
def test_a_host_without_ranks_is_not_part_of_a_world(counts):
    with pytest.raises(LocalProtocolError, match="every host of an MPI world needs a rank"):
        process_mapping(counts)


def test_a_mapping_that_is_too_long_says_how_to_shorten_it():
    with pytest.raises(LocalProtocolError, match=r"on each of 200 hosts.* 1023 characters.* A run of hosts with equal"):
        process_mapping([1, 2] * 100)
    assert process_mapping(sorted([1, 2] * 100)) == "(vector,(0,100,1),(100,100,2))"
