"""Turn the fields of a header into a message. Everything is checked, as a peer can send anything."""

from __future__ import annotations

import dataclasses
import functools
import typing
from types import NoneType, UnionType
from typing import Any

from alchemist_ray.errors import RemoteProtocolError
from alchemist_ray.protocol.messages import Message


def _admitted(annotation: Any) -> frozenset[type] | None:
    """Return the exact types that a field with this annotation may have on the wire, or None for any type."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, UnionType):
        return frozenset().union(*(_admitted(member) or () for member in typing.get_args(annotation)))
    if annotation is Any:
        return None
    if annotation is float:
        return frozenset({float, int})
    return frozenset({NoneType if annotation is None else origin or annotation})


MESSAGES: dict[int, type[Message]] = {cls.kind: cls for cls in Message.__subclasses__()}
_HINTS = {cls: typing.get_type_hints(cls) for cls in MESSAGES.values()}
_NAMES = {cls: tuple(f.name for f in dataclasses.fields(cls)) for cls in MESSAGES.values()}
_ADMITTED = {cls: tuple(_admitted(_HINTS[cls][name]) for name in _NAMES[cls]) for cls in MESSAGES.values()}
_LISTS_OF_INT = {cls: [n for n, name in enumerate(_NAMES[cls]) if _HINTS[cls][name] == list[int]] for cls in _NAMES}


@functools.lru_cache(maxsize=1024)
def _check_types(kind: int, types: tuple[type, ...]) -> None:
    """Raise unless the fields of a message may have these types. The cache keeps valid types only, not errors."""
    cls = MESSAGES[kind]
    for admitted, found in zip(_ADMITTED[cls], types, strict=True):
        if admitted is not None and found not in admitted:
            wanted = " or ".join(sorted(t.__name__ for t in admitted))
            raise RemoteProtocolError(f"the peer sent a {cls.__name__} with a {found.__name__} in place of {wanted}")


def to_message(kind: int, values: Any) -> Message:
    """Return the message of this kind with these field values.

    Raises
    ------
    RemoteProtocolError
        If the kind is unknown, or the values do not fit the fields of the message.
    """
    cls = MESSAGES.get(kind)
    if cls is None:
        raise RemoteProtocolError(f"the peer sent a message of unknown kind {kind}")
    if type(values) is not list or len(values) != len(_NAMES[cls]):
        raise RemoteProtocolError(f"the peer sent a {cls.__name__} with fields other than {_NAMES[cls]}")
    _check_types(kind, tuple(map(type, values)))
    for position in _LISTS_OF_INT[cls]:
        if not set(map(type, values[position])) <= {int}:
            raise RemoteProtocolError(f"the peer sent a {cls.__name__} with a list that may contain only integers")
    # The same as the generated __init__, without its cost for each field: every task goes through here.
    message = object.__new__(cls)
    message.__dict__.update(zip(_NAMES[cls], values))  # noqa: B905 - the lengths were compared above
    return message
