"""Sparse matrices from the client's side: there and back, and what is refused before a library sees it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
from tests_support import memory_in_use

import alchemist_ray as alchemist
from alchemist_ray import errors
from alchemist_ray.client.matrices.sparse import SparseMatrixHandle

DTYPES = ["float64", "float32", "complex128", "complex64", "int64", "int32", "bool"]


@pytest.fixture(scope="module", params=[("auto", 3), ("tcp", 3), ("auto", 1)], ids=str)
def session(request, server):
    transport, workers = request.param
    with alchemist.AlchemistSession(transport=transport) as opened:
        opened.connect(server.hostname, server.port, server.token)
        opened.request_workers(workers)
        yield opened


def matrix(rng, shape, density, dtype):
    A = sp.random_array(shape, density=density, rng=rng, format="csr")
    if np.dtype(dtype).kind == "c":
        A = A + 1j * A.sqrt()
    return (A * 100).astype(dtype) if np.dtype(dtype).kind in "iu" else A.astype(dtype)


def same(A, B):
    return A.shape == B.shape and A.dtype == B.dtype and (A != B).nnz == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "density"), [((100, 70), 0.1), ((1, 50), 0.5), ((50, 1), 0.5), ((2, 2), 1.0), ((301, 5), 0.0)]
)
def test_a_sparse_matrix_comes_back_as_it_went(session, rng, shape, density, dtype):
    A = matrix(rng, shape, density, dtype)
    handle = session.send_matrix(A)
    assert isinstance(handle, SparseMatrixHandle)
    assert (handle.shape, handle.dtype, handle.nnz) == (A.shape, A.dtype, A.nnz)
    got = session.fetch_matrix(handle)
    assert isinstance(got, sp.csr_array)
    assert same(got, A)
    np.testing.assert_array_equal(np.asarray(handle), A.toarray())


@pytest.mark.parametrize("make", [sp.csc_array, sp.coo_array, sp.csr_matrix, sp.lil_matrix, sp.dok_array])
def test_every_format_of_scipy_is_sent(session, rng, make):
    A = matrix(rng, (40, 30), 0.2, "float64")
    assert same(session.fetch_matrix(session.send_matrix(make(A))), A)


def test_rows_without_entries_and_ranks_without_rows(session):
    A = sp.csr_array(([1.0, 2.0, 3.0], ([0, 0, 199], [5, 6, 0])), (200, 9))
    assert same(session.fetch_matrix(session.send_matrix(A)), A)
    B = sp.csr_array(np.array([[0.0, 4.0]]))
    assert same(session.fetch_matrix(session.send_matrix(B)), B)


def test_wide_indices_and_views_are_sent(session, rng):
    A = matrix(rng, (100, 70), 0.1, "float64")
    wide = sp.csr_array((A.data, A.indices.astype(np.int64), A.indptr.astype(np.int64)), A.shape)
    assert same(session.fetch_matrix(session.send_matrix(wide)), A)
    assert same(session.fetch_matrix(session.send_matrix(A[10:90:3])), A[10:90:3])


def test_parts_and_pickles(session, rng):
    A = matrix(rng, (100, 70), 0.1, "float64")
    handle = session.send_matrix(A)
    assert same(handle[10:20], A[10:20])
    copy = pickle.loads(pickle.dumps(handle))
    assert isinstance(copy, SparseMatrixHandle)
    assert same(copy.fetch()[0], A)
    assert "700 entries" in repr(handle)
    handle.free()
    assert "freed" in repr(handle)
    with pytest.raises(errors.FreedMatrixError):
        copy.fetch()


BROKEN = {
    "column too large": (lambda c: c.indices.__setitem__(3, 70), r"must lie in 0\.\.69, but go from \d+ to 70"),
    "column negative": (lambda c: c.indices.__setitem__(3, -1), "go from -1 to"),
    "pointers descend": (lambda c: c.indptr.__setitem__(5, c.indptr[6] + 1), "must ascend"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_arrays_that_are_no_matrix_are_refused_before_any_library_sees_them(session, rng, fault):
    A = matrix(rng, (100, 70), 0.1, "float64")
    before = memory_in_use(session)
    broken = A.copy()
    breaking, complaint = BROKEN[fault]
    breaking(broken)
    with pytest.raises(errors.InvalidArrayError, match=complaint):
        session.send_matrix(broken)
    assert memory_in_use(session) == before
    assert same(session.fetch_matrix(session.send_matrix(A)), A)


def test_pointers_past_the_entries_are_refused_here(session, rng):
    A = matrix(rng, (100, 70), 0.1, "float64")
    A.indptr[-1] += 30_000_000  # copying by it would end this process
    with pytest.raises(errors.InvalidArrayError, match="must go from 0 to its"):
        session.send_matrix(A)


def test_rows_come_block_by_block(session, rng):
    A = matrix(rng, (100, 70), 0.1, "float64")
    blocks = list(session.send_matrix(A).rows(block=30))
    assert [block.shape[0] for block in blocks] == [30, 30, 30, 10]
    assert same(sp.csr_array(sp.vstack(blocks)), A)


def test_a_layout_and_an_out_are_not_for_sparse_matrices(session, rng):
    A = matrix(rng, (100, 70), 0.1, "float64")
    with pytest.raises(errors.LayoutError, match="always distributed by rows"):
        session.send_matrix(A, "STAR_VR")
    handle = session.send_matrix(A, "VC_STAR")
    with pytest.raises(errors.InvalidArrayError, match="omit out"):
        session.fetch_matrix(handle, out=np.empty(A.shape))
    with pytest.raises(errors.InvalidArrayError, match="int16"):
        session.send_matrix(A.astype(np.int16))


def test_a_task_that_takes_dense_matrices_is_not_given_a_sparse_one(session, rng):
    handle = session.send_matrix(matrix(rng, (100, 70), 0.1, "float64"))
    with pytest.raises(errors.ArgumentError, match="sparse"):
        session.run_task("faults", "total", A=handle)


def test_arithmetic_of_sparse_handles(session, rng):
    A = matrix(rng, (100, 70), 0.1, "float64")
    X, Y = rng.standard_normal((70, 6)), rng.standard_normal((100, 4))
    handle = session.send_matrix(A)
    np.testing.assert_allclose(np.asarray(handle @ X), A @ X, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(np.asarray(handle.T @ Y), A.T @ Y, rtol=1e-13, atol=1e-13)
    assert same((2 * handle).fetch()[0], 2 * A)
    assert handle.norm() == pytest.approx(sp.linalg.norm(A))
    np.testing.assert_array_equal(np.asarray(handle.to_dense()), A.toarray())


def test_truncated_svd_of_a_sparse_matrix(session, rng):
    A = matrix(rng, (400, 300), 0.05, "float64")
    U, S, Vt = session.run_task("linalg", "truncated_svd", A=session.send_matrix(A), k=5)
    expected = np.linalg.svd(A.toarray(), compute_uv=False)[:5]
    np.testing.assert_allclose(S, expected, rtol=1e-10)
    np.testing.assert_allclose(A @ np.asarray(Vt).T, np.asarray(U) * S, atol=1e-9)
