"""Linear algebra near the limits of the range of numbers, and with matrices without rows or columns.

One launch runs many cases, with all ranks and with one rank; see ``programs/extreme_cases.py``.
"""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from tests_support import Report

import alchemist_ray as alchemist

SYSTEMS = ["systems_at_extreme_scales", "factors_at_extreme_scales", "graded"]
VALUES = [
    "spectra_at_extreme_scales",
    "inverses_at_extreme_scales",
    "least_squares_at_extreme_scales",
    "exponential",
]
SHARED_SYSTEMS = Report("extreme_cases.py", {(1, 2, 3): SYSTEMS})
SHARED_VALUES = Report("extreme_cases.py", {(1, 2): VALUES})
SMALL = Report("extreme_cases.py", {(1, 2): [f"small:{name}" for name in SYSTEMS + VALUES]})
EMPTY = Report("extreme_cases.py", {(1, 2, 3): ["empty", "one:empty"]})


@pytest.mark.parametrize(("size", "name"), SHARED_SYSTEMS.pairs())
def test_systems_at_extreme_scales(size: int, name: str) -> None:
    SHARED_SYSTEMS.check(size, name)


@pytest.mark.parametrize(("size", "name"), SHARED_VALUES.pairs())
def test_values_at_extreme_scales(size: int, name: str) -> None:
    SHARED_VALUES.check(size, name)


@pytest.mark.parametrize(("size", "name"), SMALL.pairs())
def test_small_problems_at_extreme_scales(size: int, name: str) -> None:
    SMALL.check(size, name)


@pytest.mark.parametrize(("size", "name"), EMPTY.pairs())
def test_results_without_rows_or_columns_have_scipys_shapes(size: int, name: str) -> None:
    outcomes = EMPTY.of(size, name)
    assert len(outcomes) > 40
    wrong = [f"{label}: {found}, not {expected}" for label, (found, expected) in outcomes if found != expected]
    assert not wrong, "\n".join(wrong)


LAYOUTS = ("MC_MR", "VC_STAR", "STAR_VR", "STAR_STAR", "CIRC_CIRC")


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_matrices_without_rows_or_columns_travel(session_by_transport, shape) -> None:
    for layout, dtype in zip(LAYOUTS, ("float64", "float32", "complex128", "int64", "bool"), strict=True):
        handle = session_by_transport.send_matrix(np.zeros(shape, dtype), layout)
        assert handle.shape == shape
        assert handle.nbytes == 0
        fetched = np.asarray(handle)
        assert (fetched.shape, fetched.dtype) == (shape, np.dtype(dtype))
        assert handle[:, :].shape == shape
        assert sum(len(block) for block in handle.rows()) == shape[0]
        assert np.asarray(handle.T).shape == shape[::-1]
        handle.free()
        with pytest.raises(alchemist.errors.FreedMatrixError):
            np.asarray(handle)
    writer = session_by_transport.matrix_writer(shape)
    assert np.asarray(writer.close()).shape == shape
    sparse = session_by_transport.send_matrix(scipy.sparse.csr_array(shape))
    assert sparse.nnz == 0
    assert np.asarray(sparse.to_dense()).shape == shape


def test_an_interval_without_eigenvalues_gives_none(session) -> None:
    linalg = session.load_library("linalg")
    w, V = linalg.eigh(session.send_matrix(np.eye(6)), subset_by_value=[5, 6])
    expected = scipy.linalg.eigh(np.eye(6), subset_by_value=[5, 6])
    assert w.shape == expected[0].shape == (0,)
    assert V.shape == np.asarray(V).shape == expected[1].shape == (6, 0)
    assert np.asarray(V @ V.T).tolist() == np.zeros((6, 6)).tolist()
    assert np.asarray(V.T @ V).shape == (0, 0)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_matrices_without_rows_or_columns_in_files(session, shape) -> None:
    handle = session.send_matrix(np.zeros(shape))
    stem = f"empty_{shape[0]}_{shape[1]}"
    handle.write_npy(f"{stem}.npy")
    handle.write_hdf5(f"{stem}.h5", "x")
    handle.write_zarr(f"{stem}.zarr")
    found = [session.read_npy(f"{stem}.npy"), session.read_hdf5(f"{stem}.h5", "x"), session.read_zarr(f"{stem}.zarr")]
    if shape[1]:
        handle.write_parquet(f"{stem}.parquet")
        found.append(session.read_parquet(f"{stem}.parquet"))
    else:
        with pytest.raises(alchemist.errors.ArgumentValueError, match="at least one column"):
            handle.write_parquet(f"{stem}.parquet")
    assert [np.asarray(each).shape for each in found] == [shape] * len(found)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_a_system_of_subnormal_numbers_is_solved(session, dtype) -> None:
    linalg = session.load_library("linalg")
    A = (np.array([[2.0, 1.0], [1.0, 3.0]]) * np.finfo(dtype).smallest_subnormal * 2**12).astype(dtype)
    x = np.array([[1.0], [-2.0]], dtype)
    found = np.asarray(linalg.solve(session.send_matrix(A), session.send_matrix(A @ x)))
    assert np.allclose(found, x, rtol=1e-5)
