"""Operators of handles, against NumPy's."""

from __future__ import annotations

import operator

import numpy as np
import pytest

from alchemist_ray import MatrixHandle, errors

OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv]
PAIRS = ["MC_MR", "VC_STAR", "STAR_STAR", "CIRC_CIRC"]


@pytest.fixture
def matrices(rng):
    return rng.standard_normal((31, 17)), 2 + rng.random((31, 17))


def same(handle, expected, **tolerance):
    assert isinstance(handle, MatrixHandle)
    assert handle.dtype == expected.dtype
    np.testing.assert_allclose(np.asarray(handle), expected, **{"rtol": 1e-13, **tolerance})


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("operation", OPERATORS)
def test_two_matrices(session, matrices, operation, pair):
    A, B = matrices
    left, right = session.send_matrix(A, pair), session.send_matrix(B, "MR_MC", block_size=3)
    same(operation(left, right), operation(A, B))
    same(operation(left, B), operation(A, B))
    same(operation(A, right), operation(A, B))


@pytest.mark.parametrize("number", [2, -0.5, 1 + 2j, np.float32(3), np.float64(0.1), True])
@pytest.mark.parametrize("dtype", ["float64", "float32", "complex64", "int32"])
@pytest.mark.parametrize("operation", OPERATORS)
def test_a_matrix_and_a_number(session, operation, dtype, number):
    A = (1 + np.arange(12).reshape(3, 4)).astype(dtype)
    handle = session.send_matrix(A)
    plain = number.item() if isinstance(number, np.generic) else number  # a scalar of NumPy's is a number like others
    same(operation(handle, number), operation(A, plain), rtol=1e-6)
    same(operation(number, handle), operation(plain, A), rtol=1e-6)


def test_products_and_transposes(session, rng):
    A = rng.standard_normal((31, 17)) + 1j * rng.standard_normal((31, 17))
    B = rng.standard_normal((17, 9))
    a, b = session.send_matrix(A), session.send_matrix(B, "VC_STAR")
    same(a @ b, A @ B)
    same(a @ B, A @ B)
    same(A @ b, A @ B)
    same(a.T, A.T)
    same(a.H, A.conj().T)
    same(a.conj(), A.conj())
    same(-a, -A)
    same(abs(a), abs(A))
    same(a.H @ a, A.conj().T @ A)


@pytest.mark.parametrize("pair", PAIRS)
def test_sums_and_norms(session, matrices, pair):
    A, _ = matrices
    handle = session.send_matrix(A, pair)
    assert handle.sum() == pytest.approx(A.sum())
    same(handle.sum(axis=0), A.sum(axis=0, keepdims=True), atol=1e-12)
    same(handle.sum(axis=1), A.sum(axis=1, keepdims=True), atol=1e-12)
    assert handle.norm() == pytest.approx(np.linalg.norm(A))
    assert handle.norm(1) == pytest.approx(np.linalg.norm(A, 1))
    assert handle.norm(np.inf) == pytest.approx(np.linalg.norm(A, np.inf))
    assert handle.norm("max") == np.abs(A).max()


def test_types_and_layouts_are_changed(session, matrices):
    A, _ = matrices
    handle = session.send_matrix(A)
    same(handle.astype(np.float32), A.astype(np.float32))
    other = handle.relayout("STAR_VR", block_size=5)
    assert (other.layout, other.block_size) == ("STAR_VR", (5, 5))
    same(other, A)
    assert handle.relayout("MC_MR", grid=(1, 2)).grid.npcol == 2


@pytest.mark.parametrize(
    ("compute", "error", "complaint"),
    [
        (lambda a: a + a.T, errors.ArgumentValueError, "shape"),
        (lambda a: a @ a, errors.ArgumentValueError, "do not multiply"),
        (lambda a: a + "x", TypeError, "unsupported operand"),
        (lambda a: a @ 3, TypeError, "unsupported operand"),
        (lambda a: a.astype("float16"), errors.AlchemistError, "float16"),
        (lambda a: a.norm("nuclear"), errors.ArgumentValueError, "nuclear"),
        (lambda a: a.sum(axis=2), errors.ArgumentValueError, "axis"),
        (lambda a: a.relayout("MC_VC"), errors.LayoutError, "does not exist"),
        (lambda a: a + np.ones(17), errors.InvalidArrayError, "2 dimensions"),
    ],
)
def test_what_cannot_be_computed_is_refused(session, matrices, compute, error, complaint):
    handle = session.send_matrix(matrices[0])
    with pytest.raises(error, match=complaint):
        compute(handle)
    assert handle.sum() == pytest.approx(matrices[0].sum())


def test_handles_of_two_sessions_do_not_mix(session, connect, matrices):
    other = connect(1)
    with pytest.raises(errors.ForeignMatrixError):
        session.send_matrix(matrices[0]) + other.send_matrix(matrices[1])
