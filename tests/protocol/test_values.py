"""Values that can cross the wire, values that cannot, and bytes with a false description."""

import contextlib
import pickle
import struct

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemist_ray.errors import InvalidArrayError, RemoteProtocolError
from alchemist_ray.protocol.values import MatrixReference, decode, encode

ARRAY, COMPLEX, MATRIX = 1, 2, 3


def assert_same(got, wanted):
    """Assert equality of nested values, arrays by dtype, shape and elements; tuples come back as lists."""
    if isinstance(wanted, np.ndarray):
        assert isinstance(got, np.ndarray)
        assert got.dtype == wanted.dtype
        assert got.shape == wanted.shape
        np.testing.assert_array_equal(got, wanted)
    elif isinstance(wanted, (list, tuple)):
        assert isinstance(got, list)
        assert len(got) == len(wanted)
        for g, w in zip(got, wanted, strict=True):
            assert_same(g, w)
    elif isinstance(wanted, dict):
        assert isinstance(got, dict)
        assert list(got) == list(wanted)
        for key in wanted:
            assert_same(got[key], wanted[key])
    else:
        assert type(got) is type(wanted)
        assert got == wanted


def array_extension(dtype, shape, elements=b""):
    """Return an array on the wire with the bytes `elements` that claims to have this `dtype` and `shape`."""
    return msgpack.packb(msgpack.ExtType(ARRAY, msgpack.packb((dtype, shape)) + elements))


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.complex_numbers(allow_nan=False)
    | st.builds(MatrixReference, st.integers(0, 2**64 - 1))
)
small_arrays = st.builds(
    lambda dtype, shape: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype),
    st.sampled_from(["<f8", "<f4", "<c16", "<c8", "<i8", "<i4", "|b1", "<u2", ">f8"]),
    st.lists(st.integers(0, 3), max_size=3),
)
nested = st.recursive(
    scalars | small_arrays,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(nested)
def test_nested_values_come_back_as_they_were(value):
    assert_same(decode(encode(value)), value)


@pytest.mark.parametrize(
    "dtype",
    ["float64", "float32", "float16", "complex128", "complex64", "int64", "int32", "uint8", "bool", ">f8", ">i4"],
)
def test_arrays_keep_their_type(dtype):
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    assert_same(decode(encode(array)), array)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 3), (3, 0), (2, 0, 4), (2, 3, 4), (1,) * 8])
def test_arrays_keep_their_shape(shape):
    array = np.arange(np.prod(shape, dtype=int), dtype=float).reshape(shape)
    assert_same(decode(encode(array)), array)


BASE = np.arange(60.0).reshape(6, 10)


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(BASE),
        BASE.T,
        BASE[::2, 1::3],
        BASE[::-1],
        BASE[:, ::-2],
        BASE[2],
        BASE[:, 3],
        np.broadcast_to(BASE[0], (4, 10)),
    ],
    ids=["fortran", "transpose", "strided", "reversed", "negative columns", "row", "column", "broadcast"],
)
def test_arrays_of_any_strides_arrive_in_c_order(array):
    got = decode(encode(array))
    assert_same(got, array)
    assert got.flags.c_contiguous


def test_a_received_array_can_be_written_to_and_shares_no_memory_with_the_frame():
    octets = bytearray(encode(np.zeros(4)))
    got = decode(octets)
    octets[:] = b"\xff" * len(octets)
    got += 1
    assert got.tolist() == [1.0] * 4


def test_nan_and_infinities_cross():
    got = decode(encode([float("nan"), float("inf"), complex("nan+infj"), np.array([np.nan, -np.inf])]))
    assert np.isnan(got[0])
    assert got[1] == float("inf")
    assert np.isnan(got[2].real)
    assert got[2].imag == float("inf")
    np.testing.assert_array_equal(got[3], [np.nan, -np.inf])


@pytest.mark.parametrize(
    ("scalar", "plain"),
    [
        (np.float64(1.5), 1.5),
        (np.float32(1.5), 1.5),
        (np.int64(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.int8(7), 7),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.complex128(1 + 2j), 1 + 2j),
        (np.complex64(1 + 2j), 1 + 2j),
    ],
    ids=lambda value: type(value).__name__,
)
def test_numpy_scalars_arrive_as_python_numbers(scalar, plain):
    got = decode(encode({"x": [scalar]}))["x"][0]
    assert got == plain
    assert type(got) is type(plain)


def test_a_matrix_reference_is_one_at_the_other_end():
    assert decode(encode({"A": MatrixReference(7)})) == {"A": MatrixReference(7)}


def test_keys_need_not_be_text():
    assert decode(encode({1: "a", b"k": 2})) == {1: "a", b"k": 2}


@pytest.mark.parametrize(
    "array",
    [
        np.array([object()]),
        np.array([[1, "a"]], dtype=object),
        np.array(["text"]),
        np.array([b"bytes"]),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.zeros(2, dtype=[("x", "f8"), ("y", "i4")]),
    ],
    ids=lambda array: str(array.dtype),
)
def test_arrays_of_anything_but_numbers_are_refused(array):
    with pytest.raises(InvalidArrayError, match="cannot cross the wire"):
        encode({"A": array})


class Thing:
    def __reduce__(self):
        raise AssertionError("something tried to pickle this")


@pytest.mark.parametrize("value", [{1, 2}, frozenset(), range(3), Thing(), Thing, len, np.float64, (x for x in ())])
def test_values_that_are_not_plain_are_refused_by_the_name_of_their_type(value):
    with pytest.raises(TypeError, match=f"type {type(value).__name__} cannot cross the wire"):
        encode([value])


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_an_integer_of_more_than_64_bits_is_an_overflow(number):
    with pytest.raises(OverflowError):
        encode([number])


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\xc1",
        b"\x93\x01\x02",
        b"\x01\x02",
        b"\xa1\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x81\x90\x01",
        b"\x81\x80\x01",
        b"\x91" * 5000 + b"\x90",
        b"\xc7\x0c\xff" + b"\xff" * 12,
        msgpack.packb(msgpack.ExtType(9, b"")),
        msgpack.packb(msgpack.ExtType(COMPLEX, b"\0" * 15)),
        msgpack.packb(msgpack.ExtType(MATRIX, b"\0" * 9)),
    ],
    ids=[
        "nothing", "reserved byte", "ends early", "goes on", "not UTF-8", "huge array", "huge map", "huge bytes",
        "list as key", "dict as key", "nested deeply", "bad time stamp", "unknown extension", "short complex",
        "long reference",
    ],
)  # fmt: skip
def test_bytes_that_are_no_value_are_the_peers_fault(octets):
    with pytest.raises(RemoteProtocolError):
        decode(octets)


@pytest.mark.parametrize(
    ("dtype", "shape", "count"),
    [
        ("<f8", [2, 2], 31),
        ("<f8", [2, 2], 33),
        ("<f8", [2, 2], 0),
        ("<f8", [2**62, 2**62], 8),
        ("<f8", [2**40], 8),
        ("<f8", [-1], 8),
        ("<f8", [-1, -1], 8),
        ("<f8", [1.0], 8),
        ("<f8", ["1"], 8),
        ("<f8", 1, 8),
        ("<f8", None, 8),
        ("<f8", [0, 2**63], 0),
        ("<f8", [1] * 70, 8),
        ("|O", [1], 8),
        ("O", [0], 0),
        ("<U2", [1], 8),
        ("|S8", [1], 8),
        ("|V8", [1], 8),
        ("<M8[ns]", [1], 8),
        ("f8,f8", [1], 16),
        ("nonsense", [1], 8),
        (17, [1], 8),
        ({"a": 1}, [1], 8),
        ([["a", "O"]], [1], 8),
        (b"\xff\xfe", [1], 8),
        ("(,)f8", [1], 8),
        ("(01)f4,f4", [1], 8),
        ("f8,(1,f4", [1], 8),
    ],
    ids=repr,
)
def test_an_array_that_lies_about_itself_is_the_peers_fault(dtype, shape, count):
    with pytest.raises(RemoteProtocolError):
        decode(array_extension(dtype, shape, b"\0" * count))


WHOLE_ARRAY = msgpack.packb(("<f8", (4,))) + np.arange(4.0).tobytes()


@pytest.mark.parametrize("length", range(len(WHOLE_ARRAY)))
def test_a_truncated_array_extension_is_the_peers_fault(length):
    with pytest.raises(RemoteProtocolError):
        decode(msgpack.packb(msgpack.ExtType(ARRAY, WHOLE_ARRAY[:length])))


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a value from the wire was unpickled",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_ever_unpickled(protocol):
    bomb = pickle.dumps(Bomb(), protocol)
    assert decode(encode(bomb)) == bomb
    for octets in (bomb, *(msgpack.packb(msgpack.ExtType(code, bomb)) for code in range(10))):
        with pytest.raises(RemoteProtocolError):
            decode(octets)
    body = bomb + b"\0" * (-len(bomb) % 8)
    with pytest.raises(RemoteProtocolError):
        decode(array_extension("|O", [len(body) // 8], body))


def test_the_elements_of_an_array_lie_on_the_wire_as_documented():
    octets = encode(np.array([[1.0, 2.0]]))
    extension = msgpack.unpackb(octets)
    assert extension.code == ARRAY
    head = msgpack.packb(("<f8", (1, 2)))
    assert extension.data == head + struct.pack("<dd", 1.0, 2.0)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes_are_a_value_or_the_peers_fault(octets):
    with contextlib.suppress(RemoteProtocolError):
        decode(octets)


@settings(max_examples=100, deadline=None)
@given(st.text("<>=|()[]{},0123456789 bifucOSUVMm:", max_size=10), st.lists(st.integers(-1, 3), max_size=3))
def test_random_array_heads_are_an_array_or_the_peers_fault(dtype, shape):
    with contextlib.suppress(RemoteProtocolError):
        decode(array_extension(dtype, shape, b"\0" * 8))
