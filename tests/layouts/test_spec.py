"""Matrix specifications: the way over the wire, and invalid ones."""

import numpy as np
import pytest
from elemental_definitions import layouts, shapes
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemist_ray.errors import InvalidArrayError, LayoutError
from alchemist_ray.layouts.layout import Grid, Layout
from alchemist_ray.layouts.spec import DTYPES, MatrixSpec, check_dtype, check_shape


@settings(max_examples=50, deadline=None)
@given(layouts(), shapes, st.sampled_from(DTYPES))
def test_a_specification_crosses_the_wire(layout, shape, dtype):
    spec = MatrixSpec(shape, np.dtype(dtype), layout)
    assert MatrixSpec.from_wire(spec.to_wire()) == spec
    assert spec.nbytes == shape[0] * shape[1] * np.dtype(dtype).itemsize


GOOD = MatrixSpec((6, 5), np.dtype("float64"), Layout("MC_MR", Grid(2, 3), (2, 2))).to_wire()


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [6]},
        {"shape": [6, 5, 4]},
        {"shape": [-1, 5]},
        {"shape": [2**63, 5]},
        {"shape": None},
        {"shape": ["six", "five"]},
        {"shape": [float("inf"), 5]},
        {"dtype": "object"},
        {"dtype": "float16"},
        {"dtype": "no such type"},
        {"dtype": "(,)f8"},
        {"dtype": None},
        {"pair": "MC_MC"},
        {"pair": None},
        {"grid": [2]},
        {"grid": [2, 3, 4]},
        {"grid": [0, 3]},
        {"grid": 6},
        {"block": [2, 2, 2]},
        {"block": [2]},
        {"block": [0, 2]},
        {"block": "xy"},
        {"align": [2, 0]},
        {"align": [0, 0, 0]},
    ],
    ids=repr,
)
def test_a_specification_from_the_wire_that_is_not_one_is_refused(change):
    with pytest.raises((InvalidArrayError, LayoutError)):
        MatrixSpec.from_wire({**GOOD, **change})


@pytest.mark.parametrize("missing", GOOD)
def test_a_specification_from_the_wire_without_a_field_is_refused(missing):
    with pytest.raises(InvalidArrayError, match=missing):
        MatrixSpec.from_wire({key: value for key, value in GOOD.items() if key != missing})


@pytest.mark.parametrize("dtype", [*DTYPES, ">f8", "<i4", np.float32, complex, bool, int])
def test_the_element_types_are_accepted_in_native_byte_order(dtype):
    got = check_dtype(dtype)
    assert got == np.dtype(dtype).newbyteorder("=")
    assert got.isnative


@pytest.mark.parametrize(
    "dtype", ["object", "U3", "S3", "float16", "uint8", "int8", "datetime64[s]", "f8,f8", "longdouble"]
)
def test_other_element_types_are_refused_with_advice(dtype):
    with pytest.raises(InvalidArrayError, match=r"astype"):
        check_dtype(dtype)


@pytest.mark.parametrize("shape", [(), (3,), (3, 3, 3), (-1, 3), (3, -1), (2**63, 1), (1, 2**63)])
def test_shapes_that_are_not_those_of_a_matrix_are_refused(shape):
    with pytest.raises(InvalidArrayError) as caught:
        check_shape(shape)
    assert str(shape) in str(caught.value)


def test_a_vector_is_refused_with_advice():
    with pytest.raises(InvalidArrayError, match="newaxis"):
        check_shape((3,))
