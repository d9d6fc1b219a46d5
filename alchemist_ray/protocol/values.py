"""The values that the header of a frame may contain: msgpack's own types and three more.

====  ===========================  ======================================================
code  Python                       bytes
====  ===========================  ======================================================
1     numpy.ndarray                msgpack of (dtype, shape), then the elements, C-ordered
2     complex                      real and imaginary part, float64 little endian
3     MatrixReference              matrix id, uint64 little endian
====  ===========================  ======================================================

Nothing is pickled in either direction: a peer can send values, but no code.
"""

from __future__ import annotations

import functools
import math
import re
import struct
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from alchemist_ray.errors import InvalidArrayError, RemoteProtocolError

_ARRAY, _COMPLEX, _MATRIX = 1, 2, 3
_KINDS_OF_DTYPE = "biufc"
_DTYPE = re.compile(r"[<>|=]?[biufc][0-9]{1,2}")


@dataclass(frozen=True, slots=True)
class MatrixReference:
    """A reference to a distributed matrix of the session, in the arguments or results of a task."""

    matrix_id: int


def encode(value: Any) -> bytes:
    """Return `value` as msgpack.

    Raises
    ------
    TypeError
        If it contains something that cannot cross the wire.
    OverflowError
        If it contains an integer of more than 64 bits.
    """
    packed: bytes = msgpack.packb(value, default=_encode_extension, use_bin_type=True)
    return packed


def decode(octets: bytes | bytearray | memoryview) -> Any:
    """Return the value that :func:`encode` wrote.

    Raises
    ------
    RemoteProtocolError
        If `octets` do not encode such a value.
    """
    try:
        return msgpack.unpackb(octets, ext_hook=_decode_extension, raw=False, strict_map_key=False)
    except (ValueError, TypeError, struct.error, msgpack.exceptions.UnpackException) as failure:
        raise RemoteProtocolError(f"the peer sent a header that is not msgpack ({failure})") from failure


def _encode_extension(value: Any) -> Any:
    match value:
        case MatrixReference():
            return msgpack.ExtType(_MATRIX, struct.pack("<Q", value.matrix_id))
        case np.ndarray():
            return msgpack.ExtType(_ARRAY, _encode_array(value))
        case complex() | np.complexfloating():
            return msgpack.ExtType(_COMPLEX, struct.pack("<dd", value.real, value.imag))
        case np.generic():
            return value.item()
        case int():
            raise OverflowError(f"the integer {value} has more than 64 bits")
    raise TypeError(f"a value of type {type(value).__name__} cannot cross the wire")


def _encode_array(array: np.ndarray[Any, Any]) -> bytes:
    if array.dtype.kind not in _KINDS_OF_DTYPE:
        raise InvalidArrayError(f"an array of dtype {array.dtype} cannot cross the wire; only numbers and bool can")
    head: bytes = msgpack.packb((array.dtype.str, array.shape))
    return head + array.tobytes()


def array_of(octets: bytes, dtype: str, shape: list[int]) -> np.ndarray[Any, Any]:
    """Return `octets` as an array of this type and shape.

    Raises
    ------
    RemoteProtocolError
        If the type is invalid, or the number of bytes does not fit.
    """
    try:
        array = np.frombuffer(octets, _named(dtype))
        return array if [array.size] == shape else array.reshape(shape)
    except (ValueError, TypeError) as misfit:
        raise RemoteProtocolError(f"{len(octets)} bytes are not an array of {dtype} of shape {shape}") from misfit


@functools.lru_cache(maxsize=64)
def _named(dtype: str) -> np.dtype[Any]:
    if not _DTYPE.fullmatch(dtype):
        raise ValueError(f"an array cannot have dtype {dtype!r}")
    return np.dtype(dtype)


def _decode_extension(code: int, octets: bytes) -> Any:
    match code:
        case 1:
            return _decode_array(octets)
        case 2:
            return complex(*struct.unpack("<dd", octets))
        case 3:
            return MatrixReference(struct.unpack("<Q", octets)[0])
    raise ValueError(f"unknown extension type {code}")


def _decode_array(octets: bytes) -> np.ndarray[Any, Any]:
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(octets[:1024])
    name, shape = unpacker.unpack()
    start = unpacker.tell()
    if not _DTYPE.fullmatch(name):
        raise ValueError(f"an array cannot have dtype {name!r}")
    dtype = np.dtype(name)
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"an array of dtype {dtype} cannot have shape {shape}")
    count = math.prod(shape)
    if len(octets) - start != count * dtype.itemsize:
        raise ValueError(f"{len(octets) - start} bytes are not an array of {dtype} of shape {shape}")
    return np.frombuffer(octets, dtype, count, start).reshape(shape).copy()
