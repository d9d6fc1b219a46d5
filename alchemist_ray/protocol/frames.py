"""Frames: how a message lies in the byte stream.

::

    byte 0    protocol version
    byte 1    kind of message
    2..3      reserved, zero
    4..7      length of the header, little endian
    8..15     length of the payload, little endian
    16..      header (msgpack), then payload (raw bytes)

The first byte of a connection tells the version that its sender speaks. The frame of a
:class:`~alchemist_ray.protocol.messages.Failure` keeps this form in all future versions, so that two releases that
cannot work together can still report it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from alchemist_ray.errors import ProtocolVersionError, RemoteProtocolError

VERSION = 1
PREFIX = struct.Struct("<BBHIQ")

MAX_HEADER = 64 * 2**20
"""Largest header that is accepted after the handshake, in bytes."""
MAX_HEADER_UNPROVEN = 4096
"""Largest header that is accepted during the handshake, in bytes."""


class Prefix(NamedTuple):
    """The first 16 bytes of a frame."""

    kind: int
    header_length: int
    payload_length: int


def pack_frame(kind: int, header: bytes, payload_length: int = 0) -> bytes:
    """Return the prefix and the header of a frame; the payload follows them on the wire."""
    return PREFIX.pack(VERSION, kind, 0, len(header), payload_length) + header


def parse_prefix(octets: bytes | bytearray | memoryview, max_header: int) -> Prefix:
    """Return the prefix in the first 16 of `octets`.

    Raises
    ------
    ProtocolVersionError
        If the peer speaks another version.
    RemoteProtocolError
        If the header would be longer than `max_header`.
    """
    version, kind, _, header_length, payload_length = PREFIX.unpack_from(octets)
    if version != VERSION:
        check_version(version)
    if header_length > max_header:
        raise RemoteProtocolError(f"a header has {header_length:,} bytes; at most {max_header:,} are accepted")
    return Prefix(kind, header_length, payload_length)


def check_version(version: int) -> None:
    """Raise :class:`ProtocolVersionError` unless `version`, the first byte of a frame, is ours."""
    if version != VERSION:
        raise ProtocolVersionError(ours=VERSION, theirs=version)
