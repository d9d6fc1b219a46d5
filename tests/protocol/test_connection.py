"""The state machine of a connection: framing, the messages allowed in each state, the handshake, hostile peers."""

import dataclasses
import itertools
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemist_ray.errors import (
    AuthenticationError,
    LocalProtocolError,
    ProtocolError,
    ProtocolVersionError,
    RemoteProtocolError,
)
from alchemist_ray.protocol import VERSION, Connection, Key, Side, State
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.connection import TRANSITIONS, VOCABULARY, Purpose
from alchemist_ray.protocol.decoding import MESSAGES
from alchemist_ray.protocol.frames import MAX_HEADER, MAX_HEADER_UNPROVEN, PREFIX, pack_frame
from alchemist_ray.protocol.handshake import ACCEPTOR, INITIATOR, Transcript, new_nonce, new_token
from alchemist_ray.protocol.values import encode

I, A = Side.INITIATOR, Side.ACCEPTOR  # noqa: E741 - as in the table
KEY = Key.of("the token of this server")
CLASSES = sorted(MESSAGES.values(), key=lambda cls: cls.kind)
EXAMPLES = {
    int: 1,
    str: "session",
    bytes: b"n" * 32,
    bool: True,
    float: 0.5,
    Any: None,
    dict[str, Any]: {},
    list[Any]: [],
    list[int]: [1],
    str | None: None,
    int | None: None,
}

DRAWN = {
    (State.NEW, I, m.Hello): State.GREETED,
    (State.GREETED, A, m.Challenge): State.CHALLENGED,
    (State.CHALLENGED, I, m.Proof): State.PROVEN,
    (State.PROVEN, A, m.Welcome): State.OPEN,
    (State.NEW, A, m.Failure): State.CLOSED,
    (State.GREETED, A, m.Failure): State.CLOSED,
    (State.CHALLENGED, A, m.Failure): State.CLOSED,
    (State.CHALLENGED, I, m.Failure): State.CLOSED,
    (State.PROVEN, A, m.Failure): State.CLOSED,
}
"""The drawing in the module's docstring, by hand."""

HANDSHAKE_STATES = [state for state in State if state is not State.OPEN]


def example(cls):
    hints = typing.get_type_hints(cls)
    return cls(*(EXAMPLES[hints[f.name]] for f in dataclasses.fields(cls)))


def frame(message, payload_length=0):
    return pack_frame(message.kind, encode(message.fields()), payload_length)


def next_of(connection, octets):
    connection.receive(octets)
    return connection.next_message()


def pair(state=State.OPEN, purpose=Purpose.CONTROL):
    """Return an initiator and an acceptor that have reached `state` by real messages."""
    client, server = Connection(I), Connection(A, lambda hello: KEY)
    if state is State.NEW:
        return client, server
    hello = next_of(server, client.greet(purpose, 7, KEY, "test"))
    if state is State.GREETED:
        return client, server
    if state is State.CLOSED:
        assert isinstance(next_of(client, server.send(example(m.Failure))), m.Failure)
        return client, server
    challenge = next_of(client, server.answer(hello))
    if state is State.CHALLENGED:
        return client, server
    proof = next_of(server, client.answer(challenge))
    assert server.answer(proof) is None
    if state is State.PROVEN:
        return client, server
    next_of(client, server.send(m.Welcome({"pid": 1})))
    return client, server


def of(side, state=State.OPEN, purpose=Purpose.CONTROL):
    """Return the connection of one side in a state."""
    connection = pair(state, purpose)[0 if side is I else 1]
    assert connection.state is state
    return connection


# --- the messages that each side may send in each state ---------------------------------------------------------------


def test_the_table_is_the_drawing():
    assert TRANSITIONS == DRAWN


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("state", HANDSHAKE_STATES)
def test_before_open_a_side_sends_what_the_table_has_and_nothing_else(state, side, cls):
    connection = of(side, state)
    following = DRAWN.get((state, side, cls))
    if following is not None:
        assert connection.send(example(cls)) == frame(example(cls))
        assert connection.state is following
    else:
        with pytest.raises(LocalProtocolError, match=f"may not send {cls.__name__} in state {state.value}"):
            connection.send(example(cls))
        assert connection.state is state


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("state", HANDSHAKE_STATES)
def test_before_open_a_side_receives_what_the_table_has_and_nothing_else(state, side, cls):
    connection = of(side, state)
    following = DRAWN.get((state, side.other, cls))
    connection.receive(frame(example(cls)))
    if following is not None:
        assert connection.next_message() == example(cls)
        assert connection.state is following
    else:
        with pytest.raises(RemoteProtocolError, match=f"may not send {cls.__name__} in state {state.value}"):
            connection.next_message()
        assert connection.state is state


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("purpose", Purpose)
def test_once_open_a_side_sends_and_receives_the_vocabulary_of_the_purpose(purpose, side, cls):
    sender, receiver = pair(purpose=purpose) if side is I else reversed(pair(purpose=purpose))
    message = example(cls)
    if cls in VOCABULARY[purpose, side]:
        assert next_of(receiver, sender.send(message)) == message
    else:
        with pytest.raises(LocalProtocolError, match=f"{purpose.value} connection may not send {cls.__name__}"):
            sender.send(message)
        receiver.receive(frame(message))
        with pytest.raises(RemoteProtocolError, match=f"{purpose.value} connection may not send {cls.__name__}"):
            receiver.next_message()
    assert sender.state is receiver.state is State.OPEN


def test_no_message_of_the_handshake_but_failure_is_said_again():
    for vocabulary in VOCABULARY.values():
        assert not vocabulary & {m.Hello, m.Challenge, m.Proof, m.Welcome}


def test_a_monitor_can_take_nothing_and_only_control_runs_tasks():
    takes = {m.RequestWorkers, m.YieldWorkers, m.EndGroup, m.EndGroup}
    assert not VOCABULARY[Purpose.MONITOR, I] & takes
    assert [key for key, said in VOCABULARY.items() if m.RunTask in said] == [(Purpose.CONTROL, I)]
    assert [key for key, said in VOCABULARY.items() if m.StartRanks in said] == [(Purpose.NODE, A)]
    assert [key for key, said in VOCABULARY.items() if m.Shutdown in said] == [(Purpose.NODE, A), (Purpose.LINK, A)]


def test_every_message_can_be_said_somewhere_and_every_purpose_has_two_vocabularies():
    said = set().union(*VOCABULARY.values(), {cls for _, _, cls in TRANSITIONS})
    assert said == set(CLASSES)
    assert set(VOCABULARY) == set(itertools.product(Purpose, Side))


def test_a_payload_on_a_message_that_has_none_is_refused_on_both_sides():
    client, server = pair(purpose=Purpose.MATRICES)
    with pytest.raises(LocalProtocolError, match="CheckMatrix cannot have a payload"):
        client.send(m.CheckMatrix(1, 1), payload_length=8)
    server.receive(frame(m.CheckMatrix(1, 1), 8))
    with pytest.raises(RemoteProtocolError, match="CheckMatrix with a payload"):
        server.next_message()


def test_a_payload_before_open_is_refused():
    server = Connection(A, lambda hello: KEY)
    server.receive(frame(example(m.Hello), payload_length=2**40))
    with pytest.raises(RemoteProtocolError):
        server.next_message()


def test_the_purpose_is_known_once_greeted():
    client, server = pair(State.NEW)
    for connection in (client, server):
        with pytest.raises(LocalProtocolError):
            _ = connection.purpose
    server.answer(next_of(server, client.greet(Purpose.LINK, 0, KEY, "test")))
    assert client.purpose is server.purpose is Purpose.LINK
    assert server.hello.software == "test"


# --- framing ----------------------------------------------------------------------------------------------------------

MESSAGES = [
    m.LoadLibrary(1, "linalg", "module"),
    m.RunTask(2, "linalg", "gemm", {"k": [1, 2.5]}, 4),
    m.LoadLibrary(3, "é", ""),
]
STREAM = b"".join(frame(message) for message in MESSAGES)


def drain(connection):
    return list(iter(connection.next_message, None))


def test_a_stream_fed_whole_gives_its_messages_in_order():
    server = of(A)
    server.receive(STREAM)
    assert drain(server) == MESSAGES


def test_a_stream_fed_byte_by_byte_gives_each_message_at_its_last_byte():
    server = of(A)
    ends = list(itertools.accumulate(len(frame(message)) for message in MESSAGES))
    for count, octet in enumerate(STREAM, 1):
        message = next_of(server, bytes([octet]))
        assert (message is not None) == (count in ends)
        if message is not None:
            assert message == MESSAGES[ends.index(count)]
            assert server.next_message() is None


@pytest.mark.parametrize("split", range(len(STREAM) + 1))
def test_a_stream_fed_in_two_parts_gives_the_same_messages(split):
    server = of(A)
    server.receive(STREAM[:split])
    early = drain(server)
    server.receive(STREAM[split:])
    assert early + drain(server) == MESSAGES


@pytest.mark.parametrize("extra", range(1, len(frame(MESSAGES[1]))))
def test_trailing_bytes_of_the_next_message_wait_for_the_rest(extra):
    server, second = of(A), frame(MESSAGES[1])
    assert next_of(server, frame(MESSAGES[0]) + second[:extra]) == MESSAGES[0]
    assert server.next_message() is None
    assert next_of(server, second[extra:]) == MESSAGES[1]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=8), st.sampled_from([bytes, bytearray, memoryview]))
def test_a_stream_fed_in_any_parts_and_buffers_gives_the_same_messages(cuts, buffer):
    server, got = of(A), []
    for start, stop in itertools.pairwise([0, *sorted(cuts), len(STREAM)]):
        server.receive(buffer(STREAM[start:stop]))
        got += drain(server)
    assert got == MESSAGES


def test_the_handshake_works_byte_by_byte():
    client, server = Connection(I), Connection(A, lambda hello: KEY)
    for octet in client.greet(Purpose.SESSION, 0, KEY, "test"):
        message = next_of(server, bytes([octet]))
    for octet in server.answer(message):
        message = next_of(client, bytes([octet]))
    for octet in client.answer(message):
        message = next_of(server, bytes([octet]))
    assert server.answer(message) is None
    for octet in server.send(m.Welcome({"pid": 1})):
        message = next_of(client, bytes([octet]))
    assert message == m.Welcome({"pid": 1})
    assert client.answer(message) is None
    assert client.state is server.state is State.OPEN


def test_the_buffer_that_was_received_may_be_reused():
    server, octets = of(A), bytearray(STREAM)
    server.receive(octets)
    octets[:] = bytes(len(octets))
    assert drain(server) == MESSAGES


# --- payloads ---------------------------------------------------------------------------------------------------------

PAYLOAD = bytes(range(100, 111))
WRITE, CHECK = m.WriteBlock(1, 2, 0, 1, 0, 11), m.CheckMatrix(2, 2)
WITH_PAYLOAD = frame(WRITE, len(PAYLOAD)) + PAYLOAD + frame(CHECK)


def test_a_message_with_payload_is_handed_out_before_its_payload_and_nothing_after_it():
    server = of(A, purpose=Purpose.MATRICES)
    assert next_of(server, WITH_PAYLOAD[: -len(PAYLOAD) - len(frame(CHECK))]) == WRITE
    assert server.payload_left == len(PAYLOAD)
    assert server.next_message() is None
    server.payload_received(len(PAYLOAD))
    assert server.payload_left == 0
    assert next_of(server, frame(CHECK)) == CHECK


@pytest.mark.parametrize("split", range(len(WITH_PAYLOAD) + 1))
def test_a_payload_arrives_whole_however_the_stream_is_split(split):
    server = of(A, purpose=Purpose.MATRICES)
    incoming = iter([WITH_PAYLOAD[:split], WITH_PAYLOAD[split:]])
    got, payload = [], bytearray(len(PAYLOAD))
    for chunk in incoming:
        server.receive(chunk)
        while (message := server.next_message()) is not None or server.payload_left:
            if message is not None:
                got.append(message)
                continue
            filled = len(PAYLOAD) - server.payload_left
            if server.take_payload(memoryview(payload)[filled:]) == 0:
                break
    assert got == [WRITE, CHECK]
    assert bytes(payload) == PAYLOAD
    assert server.payload_left == 0


@pytest.mark.parametrize("split", range(len(frame(WRITE)), len(frame(WRITE)) + len(PAYLOAD) + 1))
def test_what_the_shell_reads_itself_continues_what_had_arrived(split):
    server = of(A, purpose=Purpose.MATRICES)
    assert next_of(server, WITH_PAYLOAD[:split]) == WRITE
    target = bytearray(len(PAYLOAD))
    taken = server.take_payload(memoryview(target))
    assert taken == split - len(frame(WRITE))
    rest = WITH_PAYLOAD[split : len(frame(WRITE)) + len(PAYLOAD)]
    target[taken:] = rest
    server.payload_received(len(rest))
    assert bytes(target) == PAYLOAD
    assert next_of(server, frame(CHECK)) == CHECK


@pytest.mark.parametrize("size", range(1, len(PAYLOAD) + 1))
def test_a_payload_is_taken_into_small_targets_piece_by_piece(size):
    server = of(A, purpose=Purpose.MATRICES)
    assert next_of(server, WITH_PAYLOAD) == WRITE
    pieces = b""
    while server.payload_left:
        target = bytearray(size)
        count = server.take_payload(memoryview(target))
        pieces += bytes(target[:count])
    assert pieces == PAYLOAD
    assert server.next_message() == CHECK


def test_taking_a_payload_never_takes_from_the_next_message():
    server = of(A, purpose=Purpose.MATRICES)
    next_of(server, WITH_PAYLOAD)
    target = bytearray(len(WITH_PAYLOAD))
    assert server.take_payload(memoryview(target)) == len(PAYLOAD)
    assert bytes(target[: len(PAYLOAD)]) == PAYLOAD
    assert not any(target[len(PAYLOAD) :])
    assert server.take_payload(memoryview(target)) == 0
    assert server.next_message() == CHECK


def test_reporting_more_payload_than_was_left_is_our_own_fault():
    server = of(A, purpose=Purpose.MATRICES)
    next_of(server, frame(WRITE, 3))
    with pytest.raises(LocalProtocolError):
        server.payload_received(4)
    assert server.payload_left == 3


# --- the handshake ----------------------------------------------------------------------------------------------------


def test_both_sides_end_open_when_they_share_the_key():
    client, server = pair()
    assert client.state is server.state is State.OPEN


def test_the_key_itself_never_crosses_the_wire():
    client, server = Connection(I), Connection(A, lambda hello: KEY)
    said = [client.greet(Purpose.SESSION, 0, KEY, "test")]
    said.append(server.answer(next_of(server, said[-1])))
    said.append(client.answer(next_of(client, said[-1])))
    assert KEY.secret not in b"".join(said)
    assert "token" not in repr(KEY)


def test_a_client_refuses_a_server_that_does_not_know_the_token_and_proves_nothing_to_it():
    client, server = Connection(I), Connection(A, lambda hello: Key.of("another token"))
    challenge = next_of(client, server.answer(next_of(server, client.greet(Purpose.SESSION, 0, KEY, "test"))))
    with pytest.raises(AuthenticationError, match="server does not know this token"):
        client.answer(challenge)
    assert client.state is State.CLOSED
    with pytest.raises(LocalProtocolError):
        client.send(m.Proof(b"p" * 32))


def wrong_proof(server):
    """Let a client that does not know the token of `server` answer its challenge; return the error it meets."""
    client = Connection(I)
    challenge = next_of(client, server.answer(next_of(server, client.greet(Purpose.SESSION, 3, KEY, "test"))))
    proof = Transcript(client.hello, challenge.nonce).proof(INITIATOR, KEY.secret)
    with pytest.raises(AuthenticationError) as caught:
        server.answer(next_of(server, frame(m.Proof(proof))))
    return challenge, str(caught.value)


def test_a_server_refuses_a_client_that_does_not_know_the_token_and_can_still_say_so():
    server = Connection(A, lambda hello: Key.of("another token"))
    _, text = wrong_proof(server)
    assert "the client's token is wrong" in text
    refusal = server.send(m.Failure.of(0, AuthenticationError("the client's token is wrong")))
    assert server.state is State.CLOSED
    assert len(refusal) < MAX_HEADER_UNPROVEN


def test_an_acceptor_without_a_key_cannot_be_told_from_one_with_another_key():
    with_key, without_key = Connection(A, lambda hello: Key.of("other")), Connection(A, lambda hello: None)
    no_lookup = Connection(A)
    (known, text), *others = (wrong_proof(server) for server in (with_key, without_key, no_lookup))
    for challenge, other_text in others:
        assert other_text == text
        assert [len(value) for value in challenge.fields()] == [len(value) for value in known.fields()]
    assert with_key.state is without_key.state is no_lookup.state


@pytest.mark.parametrize("guess", [b"", b"\0" * 32, b"p" * 32, b"p" * 31, b"p" * 1000])
def test_an_acceptor_without_a_key_accepts_no_proof_at_all(guess):
    client, server = Connection(I), Connection(A, lambda hello: None)
    server.answer(next_of(server, client.greet(Purpose.SESSION, 0, KEY, "test")))
    with pytest.raises(AuthenticationError):
        server.answer(next_of(server, frame(m.Proof(guess))))


def test_the_key_is_looked_up_by_what_the_hello_says():
    asked = []
    client, server = Connection(I), Connection(A, lambda hello: asked.append(hello))
    server.answer(next_of(server, client.greet(Purpose.CONTROL, 7, KEY, "test 1.0")))
    assert [(hello.purpose, hello.group_id, hello.software) for hello in asked] == [("control", 7, "test 1.0")]


def test_a_recorded_handshake_cannot_be_replayed_to_the_server():
    client, server = Connection(I), Connection(A, lambda hello: KEY)
    hello = client.greet(Purpose.SESSION, 0, KEY, "test")
    proof = client.answer(next_of(client, server.answer(next_of(server, hello))))
    server.answer(next_of(server, proof))

    again = Connection(A, lambda hello: KEY)
    again.answer(next_of(again, hello))
    with pytest.raises(AuthenticationError):
        again.answer(next_of(again, proof))


def test_a_recorded_challenge_cannot_be_replayed_to_the_client():
    client, server = Connection(I), Connection(A, lambda hello: KEY)
    challenge = server.answer(next_of(server, client.greet(Purpose.SESSION, 0, KEY, "test")))
    again = Connection(I)
    again.greet(Purpose.SESSION, 0, KEY, "test")
    with pytest.raises(AuthenticationError):
        again.answer(next_of(again, challenge))


def test_the_servers_own_proof_cannot_be_reflected_at_it():
    client, server = Connection(I), Connection(A, lambda hello: KEY)
    challenge = next_of(client, server.answer(next_of(server, client.greet(Purpose.SESSION, 0, KEY, "test"))))
    with pytest.raises(AuthenticationError):
        server.answer(next_of(server, frame(m.Proof(challenge.proof))))


def test_a_nonce_reflected_at_the_client_with_its_own_words_proves_nothing():
    client = Connection(I)
    client.greet(Purpose.SESSION, 0, KEY, "test")
    proof = Transcript(client.hello, client.hello.nonce).proof(INITIATOR, KEY.secret)
    with pytest.raises(AuthenticationError):
        client.answer(next_of(client, frame(m.Challenge(client.hello.nonce, proof))))


@pytest.mark.parametrize("change", [{"purpose": "monitor"}, {"group_id": 8}, {"nonce": b"x" * 32}])
def test_a_proof_is_for_one_purpose_one_group_and_one_nonce(change):
    hello, nonce = m.Hello("session", 7, b"n" * 32, "test"), new_nonce()
    proof = Transcript(hello, nonce).proof(INITIATOR, KEY.secret)
    assert Transcript(hello, nonce).verify(INITIATOR, KEY.secret, proof)
    assert not Transcript(dataclasses.replace(hello, **change), nonce).verify(INITIATOR, KEY.secret, proof)
    assert not Transcript(hello, new_nonce()).verify(INITIATOR, KEY.secret, proof)
    assert not Transcript(hello, nonce).verify(ACCEPTOR, KEY.secret, proof)
    assert not Transcript(hello, nonce).verify(INITIATOR, b"another", proof)


def test_a_hello_changed_on_its_way_is_noticed():
    client, server = Connection(I), Connection(A, lambda hello: KEY)
    client.greet(Purpose.MONITOR, 0, KEY, "test")
    forged = dataclasses.replace(client.hello, purpose="session")
    with pytest.raises(AuthenticationError):
        client.answer(next_of(client, server.answer(next_of(server, frame(forged)))))


def test_nonces_and_tokens_are_never_the_same_twice():
    assert len({new_nonce() for _ in range(100)}) == len({new_token() for _ in range(100)}) == 100
    assert len(new_nonce()) == 32
    assert len(new_token()) >= 43


def test_every_greeting_has_a_new_nonce():
    nonces = set()
    for _ in range(20):
        client = Connection(I)
        client.greet(Purpose.SESSION, 0, KEY, "test")
        nonces.add(client.hello.nonce)
    assert len(nonces) == 20


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_nonce_of_another_length_is_the_peers_fault(length):
    server = Connection(A, lambda hello: KEY)
    hello = next_of(server, frame(m.Hello("session", 0, b"n" * length, "test")))
    with pytest.raises(RemoteProtocolError, match=f"nonce of {length} bytes"):
        server.answer(hello)


@pytest.mark.parametrize("purpose", ["", "SESSION", "root", "x" * 1000])
def test_an_unknown_purpose_is_the_peers_fault_and_is_not_repeated_at_length(purpose):
    server = Connection(A, lambda hello: KEY)
    hello = next_of(server, frame(m.Hello(purpose, 0, b"n" * 32, "test")))
    with pytest.raises(RemoteProtocolError) as caught:
        server.answer(hello)
    assert len(str(caught.value)) < 200


def test_an_acceptor_that_has_verified_nothing_cannot_welcome():
    client, server = Connection(I), Connection(A, lambda hello: KEY)
    server.answer(next_of(server, client.greet(Purpose.SESSION, 0, KEY, "test")))
    forged = next_of(server, frame(m.Proof(b"p" * 32)))
    with pytest.raises(AuthenticationError):
        server.answer(forged)
    with pytest.raises(LocalProtocolError):
        server.send(m.Welcome({}))


# --- versions, lengths and rubbish ------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, VERSION + 1, ord("H"), 0x16, 255])
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("state", [State.NEW, State.GREETED, State.CHALLENGED, State.PROVEN, State.OPEN])
def test_another_version_is_told_from_the_first_byte(state, side, first):
    connection = of(side, state)
    connection.receive(bytes([first]))
    with pytest.raises(ProtocolVersionError) as caught:
        connection.next_message()
    assert (caught.value.ours, caught.value.theirs) == (VERSION, first)


def test_a_web_browser_is_told_from_its_first_byte():
    with pytest.raises(ProtocolVersionError, match="Alchemist server"):
        next_of(Connection(A, lambda hello: KEY), b"GET / HTTP/1.1\r\n\r\n")


def test_our_own_version_alone_is_waited_on():
    assert next_of(Connection(A), bytes([VERSION])) is None


@pytest.mark.parametrize(
    ("state", "side", "kind"),
    [
        (State.NEW, A, m.Hello),
        (State.GREETED, I, m.Challenge),
        (State.CHALLENGED, A, m.Proof),
        (State.PROVEN, I, m.Welcome),
    ],
)
def test_before_proof_a_header_over_4096_bytes_is_refused_before_it_arrives(state, side, kind):
    assert next_of(of(side, state), PREFIX.pack(VERSION, kind.kind, 0, 4096, 0)) is None
    with pytest.raises(RemoteProtocolError, match="4,097 bytes"):
        next_of(of(side, state), PREFIX.pack(VERSION, kind.kind, 0, 4097, 0))


@pytest.mark.parametrize("side", Side)
def test_once_open_a_header_over_64_mib_is_refused_before_it_arrives(side):
    kind = m.RunTask.kind if side is A else m.Done.kind
    assert next_of(of(side), PREFIX.pack(VERSION, kind, 0, MAX_HEADER, 0)) is None
    with pytest.raises(RemoteProtocolError, match=f"{MAX_HEADER + 1:,} bytes"):
        next_of(of(side), PREFIX.pack(VERSION, kind, 0, MAX_HEADER + 1, 0))


def test_what_the_peer_would_refuse_for_its_length_is_refused_here_first():
    client = of(I)
    with pytest.raises(LocalProtocolError):
        client.send(m.RunTask(1, "linalg", "task", {"octets": bytes(MAX_HEADER + 1)}, 1))


@pytest.mark.parametrize("header", [b"", b"\xc1", b"\x94\x01", b"\x90\x90", b"\xd9\xff", b"\xc7\x04\x01abcd"])
@pytest.mark.parametrize(("state", "side"), [(State.NEW, A), (State.GREETED, I), (State.OPEN, A), (State.OPEN, I)])
def test_a_header_that_is_not_msgpack_is_the_peers_fault(state, side, header):
    with pytest.raises(RemoteProtocolError, match="not msgpack"):
        next_of(of(side, state), pack_frame(m.Hello.kind, header))


@pytest.mark.parametrize("header", [None, 1, "x", {}, [], [1], [b"n", 0, b"n", "x"], ["session", "0", b"n", "x"]])
def test_a_header_with_other_fields_is_the_peers_fault(header):
    with pytest.raises(RemoteProtocolError, match="Hello"):
        next_of(Connection(A, lambda hello: KEY), pack_frame(m.Hello.kind, encode(header)))


@pytest.mark.parametrize("kind", [0, 7, 255])
@pytest.mark.parametrize("state", [State.NEW, State.OPEN])
def test_an_unknown_kind_is_the_peers_fault(state, kind):
    with pytest.raises(RemoteProtocolError, match=f"unknown kind {kind}"):
        next_of(of(A, state), pack_frame(kind, encode([])))


def survives(connection, octets):
    """Feed `octets` to a connection as a channel does; it may raise only errors that blame the peer."""
    try:
        connection.receive(octets)
        while (message := connection.next_message()) is not None:
            connection.payload_received(connection.payload_left)
            if connection.state is not State.OPEN:
                connection.answer(message)
    except (RemoteProtocolError, ProtocolVersionError, AuthenticationError):
        pass


STARTS = [
    (State.NEW, A),
    (State.GREETED, I),
    (State.CHALLENGED, A),
    (State.PROVEN, I),
    (State.OPEN, A),
    (State.OPEN, I),
]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(STARTS), st.binary(max_size=80))
def test_random_bytes_only_ever_blame_the_peer(start, octets):
    state, side = start
    survives(of(side, state), octets)


PLAIN = st.none() | st.booleans() | st.integers(-5, 2**63) | st.text(max_size=4) | st.binary(max_size=33)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(STARTS),
    st.sampled_from([cls.kind for cls in CLASSES] + [0, 99]),
    st.binary(max_size=40) | st.builds(encode, st.lists(PLAIN, max_size=7)),
    st.sampled_from([0, 0, 0, 1, 2**64 - 1]),
    st.binary(max_size=4),
)
def test_random_headers_only_ever_blame_the_peer(start, kind, header, payload, rest):
    state, side = start
    survives(of(side, state), pack_frame(kind, header, payload) + rest)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(STARTS), st.data())
def test_a_damaged_message_only_ever_blames_the_peer(start, data):
    state, side = start
    octets = bytearray(frame(example(data.draw(st.sampled_from(CLASSES)))))
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    survives(of(side, state), octets)


def test_protocol_errors_say_who_is_to_blame():
    assert issubclass(LocalProtocolError, ProtocolError)
    assert issubclass(RemoteProtocolError, ProtocolError)
    assert not issubclass(LocalProtocolError, RemoteProtocolError)
