"""Principal components, k-means, ridge regression, CX and norms under real MPI, against scikit-learn and SciPy."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from tests_support import Report

import alchemist_ray

LAYOUTS = ["pca_layouts", "kmeans_from_centers", "ridge", "features", "cx", "norms"]
"""Cases with all types and layouts, which are divided among the runs on 1 to 4 ranks."""

NUMERICS = [
    "pca_shapes",
    "pca_spectra",
    "pca_iterated",
    "kmeans_empty_clusters",
    "kmeans_scales",
    "kmeans_seeding",
    "ridge_hard",
    "random_feature_ridge",
    "extreme_norms",
]
"""Cases with difficult numbers and shapes, on 1 and 3 ranks."""

LARGE = ["digits", "pca_large"]
"""Cases on 2 ranks."""

REPORT = Report(
    "data_analysis_cases.py",
    {(1, 2, 3, 4): [*LAYOUTS, "seeds"], (1, 3): [*NUMERICS, "errors"], (2,): LARGE},
)

ERRORS = {
    "pca k": ("ArgumentValueError", "1..6"),
    "pca one sample": ("ArgumentValueError", "two samples"),
    "pca NaN": ("NonFiniteError", "matrix A"),
    "pca complex": ("ArgumentError", "complex128"),
    "pca int": ("ArgumentError", "int64"),
    "kmeans clusters": ("ArgumentValueError", "1..20"),
    "kmeans init": ("ArgumentValueError", "'random'"),
    "kmeans init shape": ("ArgumentValueError", "3x6"),
    "kmeans n_init": ("ArgumentValueError", "0, 300"),
    "kmeans tol": ("ArgumentValueError", "nan"),
    "kmeans NaN": ("NonFiniteError", "matrix A"),
    "kmeans init NaN": ("NonFiniteError", "matrix init"),
    "kmeans complex": ("ArgumentError", "complex128"),
    "kmeans seed": ("ArgumentValueError", "-1"),
    "predict shape": ("ArgumentValueError", "centers is 20x2"),
    "ridge rows": ("ArgumentValueError", "B is 5x6"),
    "ridge lambda": ("ArgumentValueError", "-1.0"),
    "ridge tol": ("ArgumentValueError", "0.0"),
    "ridge NaN": ("NonFiniteError", "matrix A"),
    "ridge int": ("ArgumentError", "int64"),
    "ridge nothing": ("ArgumentValueError", "20x0"),
    "features count": ("ArgumentValueError", "they are 0"),
    "features sigma": ("ArgumentValueError", "and 0.0"),
    "features seed": ("ArgumentValueError", "-1"),
    "rf complex": ("ArgumentError", "complex128"),
    "rf NaN": ("NonFiniteError", "matrix A"),
    "rf predict NaN": ("NonFiniteError", "matrix A"),
    "cx k": ("ArgumentValueError", "1..6"),
    "cx columns": ("ArgumentValueError", "3..6"),
    "cx method": ("ArgumentValueError", "'best'"),
    "cx NaN": ("NonFiniteError", "matrix A"),
    "norm ord": ("ArgumentValueError", "but is 3"),
    "norm vector ord": ("ArgumentValueError", "'nuc'"),
    "norm axis": ("ArgumentValueError", "but is 2"),
    "norm NaN": ("NonFiniteError", "matrix A"),
    "afterwards": ("nothing", ""),
}


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_type_and_layout(size, name):
    REPORT.check(size, name)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", NUMERICS)
def test_shapes_and_spectra(size, name):
    REPORT.check(size, name)


@pytest.mark.parametrize("name", LARGE)
def test_larger_matrices_and_real_measurements(name):
    REPORT.check(2, name)


def test_the_same_seed_gives_the_same_result_on_any_number_of_ranks():
    results = [REPORT.of(size, "seeds") for size in (1, 2, 3, 4)]
    assert all(each == results[0] for each in results), results


@pytest.mark.parametrize("size", [1, 3])
def test_errors_are_the_same_on_all_ranks(size):
    outcomes = dict(REPORT.of(size, "errors"))
    assert outcomes.keys() == ERRORS.keys()
    for label, (error, text) in ERRORS.items():
        assert len(set(outcomes[label])) == 1, outcomes[label]
        assert outcomes[label][0].startswith(error), outcomes[label]
        assert text in outcomes[label][0], outcomes[label]


def test_through_a_session(session):
    """A pipeline of several tasks takes handles, and returns handles and arrays."""
    A, _ = load_digits(return_X_y=True)
    linalg = session.load_library("linalg")
    handle = session.send_matrix(A)
    found = linalg.pca(handle, n_components=5)
    assert isinstance(found["components"], alchemist_ray.MatrixHandle)
    exact = PCA(5, svd_solver="full").fit(A)
    np.testing.assert_allclose(found["explained_variance"], exact.explained_variance_, rtol=1e-10)
    np.testing.assert_allclose(found["scores"], exact.transform(A), atol=1e-9)
    clusters = linalg.kmeans(found["scores"], 10, seed=1)
    assert clusters["labels"].shape == (len(A), 1)
    again = linalg.kmeans_predict(found["scores"], clusters["centers"])
    assert np.mean(np.asarray(again) == np.asarray(clusters["labels"])) > 0.99
    columns, C, X = linalg.cx(session.send_matrix(scipy.sparse.csr_array(A)), 5, 12)
    np.testing.assert_array_equal(np.asarray(C), A[:, columns])
    assert X.shape == (12, 64)
