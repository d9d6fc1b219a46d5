"""The 16 bytes before each header: their form, their limits, and the side to blame when they are wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemist_ray.errors import ProtocolVersionError, RemoteProtocolError
from alchemist_ray.protocol.frames import (
    MAX_HEADER,
    MAX_HEADER_UNPROVEN,
    PREFIX,
    VERSION,
    Prefix,
    check_version,
    pack_frame,
    parse_prefix,
)


def test_a_frame_has_the_documented_bytes():
    frame = pack_frame(66, b"\x93\x01\x02\x03", payload_length=0x0102030405060708)
    assert frame == bytes([VERSION, 66, 0, 0, 4, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]) + b"\x93\x01\x02\x03"


def test_the_prefix_is_16_bytes_without_padding():
    assert PREFIX.size == 16
    assert len(pack_frame(1, b"")) == 16


@settings(max_examples=50, deadline=None)
@given(kind=st.integers(0, 255), header=st.binary(max_size=64), payload=st.integers(0, 2**64 - 1))
def test_parsing_a_packed_frame_gives_its_lengths_back(kind, header, payload):
    assert parse_prefix(pack_frame(kind, header, payload), 64) == Prefix(kind, len(header), payload)


def test_bytes_after_the_prefix_do_not_matter():
    assert parse_prefix(pack_frame(7, b"abc", 9) + b"\xff" * 50, 3) == Prefix(7, 3, 9)


@pytest.mark.parametrize("octets_type", [bytes, bytearray, memoryview])
def test_any_buffer_is_parsed(octets_type):
    assert parse_prefix(octets_type(pack_frame(7, b"abc")), 3) == Prefix(7, 3, 0)


@pytest.mark.parametrize("limit", [0, 1, 4096])
def test_a_header_as_long_as_the_limit_is_accepted_and_one_byte_more_is_not(limit):
    assert parse_prefix(PREFIX.pack(VERSION, 1, 0, limit, 0), limit).header_length == limit
    with pytest.raises(RemoteProtocolError, match=f"{limit + 1:,} bytes"):
        parse_prefix(PREFIX.pack(VERSION, 1, 0, limit + 1, 0), limit)


def test_a_peer_that_has_not_proven_itself_gets_little_memory():
    assert MAX_HEADER_UNPROVEN == 4096 < MAX_HEADER == 64 * 2**20


@pytest.mark.parametrize("first", sorted({0, VERSION + 1, ord("G"), ord("H"), 0x16, 0xFF} - {VERSION}))
def test_another_version_is_refused_with_both_numbers(first):
    with pytest.raises(ProtocolVersionError) as caught:
        check_version(first)
    assert (caught.value.ours, caught.value.theirs) == (VERSION, first)
    with pytest.raises(ProtocolVersionError):
        parse_prefix(bytes([first]) + pack_frame(1, b"")[1:], MAX_HEADER)


def test_the_version_is_checked_before_the_length():
    with pytest.raises(ProtocolVersionError):
        parse_prefix(PREFIX.pack(VERSION + 1, 1, 0, 2**32 - 1, 0), 10)


def test_our_own_version_is_accepted():
    check_version(VERSION)
