"""The check of a call against the description of a task, and the description's way over the wire."""

import inspect

import numpy as np
import pytest

from alchemist_ray.errors import ArgumentError
from alchemist_ray.protocol.descriptions import LibraryDescription, ParameterDescription, TaskDescription
from alchemist_ray.protocol.values import MatrixReference, decode, encode


def parameter(name, *kinds, default=inspect.Parameter.empty, keyword_only=False):
    required = default is inspect.Parameter.empty
    return ParameterDescription(name, kinds, required, None if required else default, keyword_only)


SVD = TaskDescription(
    name="truncated_svd",
    doc="Return U, S, Vt.",
    parameters=(
        parameter("A", "matrix"),
        parameter("k", "int"),
        parameter("tolerance", "float", default=1e-10),
        parameter("method", "str", "none", default=None),
        parameter("seed", "int", default=0, keyword_only=True),
    ),
    returns="tuple[DistMatrix, ndarray, DistMatrix]",
)
NOTHING = TaskDescription("greet", "", (), "str")
A = MatrixReference(1)


def refusal(*args, description=SVD, **kwargs):
    with pytest.raises(ArgumentError) as caught:
        description.bind("linalg.truncated_svd", args, kwargs)
    assert caught.value.task == "linalg.truncated_svd"
    assert str(caught.value).startswith("linalg.truncated_svd: ")
    return caught.value.reason


def accepts(*kinds):
    one = TaskDescription("t", "", (parameter("x", *kinds),), "None")

    def admitted(value):
        try:
            return one.bind("t", (value,), {}) == {"x": value}
        except ArgumentError:
            return False

    return admitted


def test_arguments_are_bound_by_name_and_defaults_are_left_to_the_worker():
    assert SVD.bind("t", (A, 20), {}) == {"A": A, "k": 20}
    assert SVD.bind("t", (A,), {"k": 20, "seed": 3}) == {"A": A, "k": 20, "seed": 3}
    assert SVD.bind("t", (), {"k": 20, "A": A, "method": None}) == {"A": A, "k": 20, "method": None}


def test_a_missing_argument_is_named_and_the_signature_shown():
    reason = refusal(A)
    assert "'k'" in reason
    assert "truncated_svd(A: matrix, k: int, tolerance: float = 1e-10" in reason.replace("'", "")


def test_the_first_missing_argument_is_named_when_nothing_is_given():
    assert "'A'" in refusal()


def test_an_unknown_argument_is_named_with_the_nearest_one():
    reason = refusal(A, 20, tolerence=1e-3)
    assert "'tolerence'" in reason
    assert "did you mean 'tolerance'?" in reason


def test_an_unknown_argument_like_no_other_is_named_with_all_of_them():
    reason = refusal(A, 20, frobnicate=1)
    assert "'frobnicate'" in reason
    assert "A, k, tolerance, method, seed" in reason


def test_an_argument_to_a_task_without_any_is_refused():
    assert "no arguments" in refusal(description=NOTHING, x=1)
    assert "too many positional" in refusal(1, description=NOTHING)


def test_too_many_arguments_are_refused():
    assert "too many positional" in refusal(A, 1, 1e-3, None, 5)


def test_an_argument_given_twice_is_named():
    assert "'k'" in refusal(A, 20, k=20)


@pytest.mark.parametrize(
    ("call", "name", "wanted", "got"),
    [
        ({"A": A, "k": 2.0}, "k", "an integer", "float"),
        ({"A": A, "k": "20"}, "k", "an integer", "str"),
        ({"A": A, "k": True}, "k", "an integer", "bool"),
        ({"A": A, "k": np.True_}, "k", "an integer", "bool"),
        ({"A": A, "k": None}, "k", "an integer", "NoneType"),
        ({"A": 1, "k": 2}, "A", "a matrix handle", "int"),
        ({"A": None, "k": 2}, "A", "a matrix handle", "NoneType"),
        ({"A": A, "k": 2, "tolerance": True}, "tolerance", "a number", "bool"),
        ({"A": A, "k": 2, "tolerance": 1j}, "tolerance", "a number", "complex"),
        ({"A": A, "k": 2, "method": 3}, "method", "None", "int"),
    ],
)
def test_an_argument_of_the_wrong_type_is_named_with_both_types(call, name, wanted, got):
    reason = refusal(**call)
    assert f"argument {name!r}" in reason
    assert wanted in reason
    assert reason.endswith(f"not {got}")


def test_an_array_for_a_matrix_is_refused_with_advice():
    assert "send_matrix()" in refusal(np.eye(3), 2)


@pytest.mark.parametrize(
    ("kinds", "good", "bad"),
    [
        (["int"], [0, -(2**70), np.int32(3), np.uint8(1)], [1.0, np.float64(1), True, "1", None, A]),
        (["float"], [0, 1.5, np.float32(2), np.int64(2), float("nan")], [1j, True, np.bool_(False), "1", None]),
        (["complex"], [0, 1.5, 1j, np.complex64(1), np.float32(1)], [True, "1", None]),
        (["bool"], [True, False, np.bool_(True)], [0, 1, 1.0, "True", None]),
        (["str"], ["", "x", np.str_("x")], [b"x", 1, None]),
        (["bytes"], [b""], ["x", 1]),
        (["dict"], [{}], [[], "x"]),
        (["list"], [[], (1, 2)], [{}, "x", {1}]),
        (["none"], [None], [0, False, ""]),
        (["int", "none"], [None, 3], [3.5, True]),
        (["str", "bool"], ["x", True], [1, None]),
        (["matrix"], [A], [np.eye(2), 1, None]),
        (["any"], [None, True, 3, "x", A, [1]], []),
    ],
)
def test_a_kind_takes_its_values_and_no_others(kinds, good, bad):
    takes = accepts(*kinds)
    assert [value for value in good if not takes(value)] == []
    assert [value for value in bad if takes(value)] == []


@pytest.mark.parametrize("value", [np.arange(3), [1, 2], (1, 2)])
def test_an_array_parameter_takes_arrays_and_sequences(value):
    assert parameter("x", "array").admits(value)
    assert not parameter("x", "array").admits(3)


def test_arguments_by_name_are_checked_again_on_the_worker():
    SVD.check_bound("t", {"A": A, "k": 3})
    NOTHING.check_bound("t", {})
    for arguments in ({"A": A}, {"A": A, "k": 3, "x": 1}, {"A": A, "k": "3"}):
        with pytest.raises(ArgumentError):
            SVD.check_bound("t", arguments)
    with pytest.raises(ArgumentError):
        NOTHING.check_bound("t", {"x": 1})


def test_the_signature_is_one_that_python_shows():
    shown = str(SVD.signature).replace("'", "")
    assert shown == (
        "(A: matrix, k: int, tolerance: float = 1e-10, method: str | None = None, *, seed: int = 0)"
        " -> tuple[DistMatrix, ndarray, DistMatrix]"
    )


LIBRARY = LibraryDescription("linalg", "1.0", "Linear algebra.", (SVD, NOTHING))


def test_a_description_crosses_the_wire():
    got = LibraryDescription.from_wire(decode(encode(LIBRARY.to_wire())))
    assert got == LIBRARY
    assert got.tasks[0].signature == SVD.signature


@pytest.mark.parametrize("default", [None, True, 0, 1.5, 1j, "x", b"x", [1, 2], {"a": 1}])
def test_defaults_cross_the_wire(default):
    task = TaskDescription("t", "", (parameter("x", "any", default=default),), "None")
    library = LibraryDescription("l", "", "", (task,))
    got = LibraryDescription.from_wire(decode(encode(library.to_wire()))).tasks[0].parameters[0]
    assert got.default == default
    assert type(got.default) is type(default)
    assert not got.required


def test_a_parameter_whose_default_is_none_is_not_a_required_one():
    task = TaskDescription("t", "", (parameter("x", "int", "none", default=None),), "None")
    assert task.bind("t", (), {}) == {}
    assert task.signature.parameters["x"].default is None
