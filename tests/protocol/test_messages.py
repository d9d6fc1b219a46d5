"""Every message: its round trip, and headers that do not fit its fields."""

import dataclasses
import typing
from types import NoneType
from typing import Any

import pytest

from alchemist_ray.errors import (
    AuthenticationError,
    MatrixMemoryError,
    NotEnoughWorkersError,
    RemoteProtocolError,
    RemoteTaskError,
)
from alchemist_ray.protocol import messages as m
from alchemist_ray.protocol.decoding import MESSAGES, to_message
from alchemist_ray.protocol.values import decode, encode

CLASSES = sorted(MESSAGES.values(), key=lambda cls: cls.kind)
EXAMPLES = {
    int: 3,
    str: "text",
    bytes: b"\x00\xff" * 16,
    bool: True,
    float: 0.5,
    Any: [1, {"a": None}],
    dict[str, Any]: {"a": 1, "b": [2.5, "x"]},
    list[Any]: [1, "two"],
    list[int]: [1, 2],
    str | None: "some text",
    int | None: 1,
}


def example(cls):
    """Return a message of this class with a value in each field."""
    hints = typing.get_type_hints(cls)
    return cls(*(EXAMPLES[hints[f.name]] for f in dataclasses.fields(cls)))


def admitted(annotation):
    """Return the plain types of an annotation, or None if it allows any type."""
    if annotation is Any:
        return None
    members = typing.get_args(annotation) if NoneType in typing.get_args(annotation) else (annotation,)
    plain = {typing.get_origin(member) or member for member in members}
    return plain | {int} if float in plain else plain


def misfits():
    """Yield every (class, field index, value) where the value is not of the field's type."""
    values = [None, 1, 0.5, "text", b"bytes", [1], {"a": 1}]
    for cls in CLASSES:
        hints = typing.get_type_hints(cls)
        for index, f in enumerate(dataclasses.fields(cls)):
            types = admitted(hints[f.name])
            for value in values:
                if types is not None and type(value) not in types:
                    yield pytest.param(cls, index, value, id=f"{cls.__name__}.{f.name}={value!r}")


def test_every_message_class_has_a_kind_of_its_own_that_fits_a_byte():
    kinds = [cls.kind for cls in m.Message.__subclasses__()]
    assert len(kinds) == len(set(kinds)) == len(MESSAGES)
    assert all(0 < kind < 256 for kind in kinds)


def test_the_kind_of_failure_never_changes():
    assert m.Failure.kind == 5


@pytest.mark.parametrize("cls", CLASSES)
def test_a_message_comes_back_as_it_was(cls):
    message = example(cls)
    got = to_message(cls.kind, decode(encode(message.fields())))
    assert type(got) is cls
    assert got == message


@pytest.mark.parametrize("cls", CLASSES)
def test_fields_are_in_the_order_of_the_class(cls):
    message = example(cls)
    assert message.fields() == [getattr(message, f.name) for f in dataclasses.fields(cls)]


@pytest.mark.parametrize("cls", CLASSES)
def test_messages_cannot_be_changed(cls):
    message = example(cls)
    with pytest.raises(dataclasses.FrozenInstanceError):
        message.request = 1


@pytest.mark.parametrize(("cls", "index", "value"), list(misfits()))
def test_a_field_of_the_wrong_type_is_the_peers_fault(cls, index, value):
    fields = example(cls).fields()
    fields[index] = value
    with pytest.raises(RemoteProtocolError, match=f"a {cls.__name__} with a {type(value).__name__}"):
        to_message(cls.kind, fields)


@pytest.mark.parametrize("cls", CLASSES)
def test_another_number_of_fields_is_the_peers_fault(cls):
    fields = example(cls).fields()
    with pytest.raises(RemoteProtocolError, match=cls.__name__):
        to_message(cls.kind, [*fields, 1])
    if fields:
        with pytest.raises(RemoteProtocolError, match=cls.__name__):
            to_message(cls.kind, fields[:-1])


@pytest.mark.parametrize("values", [None, 1, "text", b"bytes", {"request": 1}, 2.5])
def test_a_header_that_is_no_list_is_the_peers_fault(values):
    with pytest.raises(RemoteProtocolError):
        to_message(m.AskStatus.kind, values)


@pytest.mark.parametrize("kind", sorted(set(range(256)) - set(MESSAGES)))
def test_an_unknown_kind_is_the_peers_fault(kind):
    with pytest.raises(RemoteProtocolError, match=f"unknown kind {kind}"):
        to_message(kind, [])


def test_optional_fields_may_be_none():
    message = m.LoadLibrary(1, "linalg", None)
    assert to_message(message.kind, message.fields()) == message


def test_a_whole_number_will_do_where_a_float_is_due():
    assert to_message(m.Progress.kind, [1, 2, 3, ""]) == m.Progress(1, 2, 3, "")


def test_a_failure_tells_the_error_with_its_fields_place_and_traceback():
    error = MatrixMemoryError(needed=10, available=5, limit=20)
    failure = m.Failure.of(9, error, 2, "node7", "Traceback ...\n  line 3")
    got = to_message(failure.kind, decode(encode(failure.fields()))).to_error()
    assert type(got) is MatrixMemoryError
    assert got.fields() == error.fields()
    assert (got.rank, got.host) == (2, "node7")
    assert str(got) == f"{error} [rank 2 on node7]"
    assert "line 3" in "".join(got.__notes__)
    assert failure.request == 9


def test_a_failure_of_the_driver_has_no_rank():
    error = NotEnoughWorkersError(4, 1, 3, ["session 1: 2"])
    got = m.Failure.of(1, error).to_error()
    assert type(got) is NotEnoughWorkersError
    assert got.rank is None
    assert str(got) == str(error)


def test_a_failure_of_a_class_that_this_release_does_not_know_is_still_told():
    got = m.Failure(1, "QuotaError", {"used": 3}, 0, "node1").to_error()
    assert isinstance(got, RemoteTaskError)
    assert "QuotaError" in str(got)
    assert "used=3" in str(got)


def test_a_failure_cannot_name_a_class_that_is_no_error_of_ours():
    got = m.Failure(1, "SystemExit", {"code": 1}).to_error()
    assert type(got) is RemoteTaskError


def test_a_failure_of_the_handshake_is_an_authentication_error_again():
    assert type(m.Failure.of(0, AuthenticationError("wrong")).to_error()) is AuthenticationError
