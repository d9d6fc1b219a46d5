"""Eigenvalues, singular values and matrix functions under real MPI: residuals against NumPy and SciPy, bad input."""

import numpy as np
import pytest
import scipy.linalg
from tests_support import Report

EIGENVALUES = Report(
    "spectral_cases.py",
    {
        (1, 2, 3, 4): ["symmetric", "tight_clusters", "general", "every_type_on_all_ranks"],
        (2,): ["others_sleep"],
        (1, 2): ["in_a_child_process", "in_parts"],
        (1, 3): ["errors", "one:errors", "small:errors", "stopped"],
    },
)
SINGULAR_VALUES = Report("spectral_cases.py", {(1, 2, 3, 4): ["singular_values", "leading", "randomised"]})
SMALL = Report(
    "spectral_cases.py",
    {
        (2,): [
            f"{how}:{name}"
            for how in ("one", "small")
            for name in (
                "symmetric",
                "tight_clusters",
                "general",
                "singular_values",
                "leading",
                "exponential",
                "pseudoinverse",
                "polar_factors",
            )
        ]
    },
)
FUNCTIONS = Report("spectral_cases.py", {(1, 2, 3, 4): ["exponential", "pseudoinverse", "polar_factors"]})


@pytest.mark.parametrize(
    ("size", "name"),
    [(size, name) for size, name in EIGENVALUES.pairs() if "errors" not in name and name != "stopped"],
)
def test_eigenvalues(size: int, name: str) -> None:
    """Includes the processor time of ranks that wait for the working one."""
    EIGENVALUES.check(size, name)


@pytest.mark.parametrize(("size", "name"), SINGULAR_VALUES.pairs())
def test_singular_values(size: int, name: str) -> None:
    SINGULAR_VALUES.check(size, name)


@pytest.mark.parametrize(("size", "name"), FUNCTIONS.pairs())
def test_matrix_functions(size: int, name: str) -> None:
    FUNCTIONS.check(size, name)


@pytest.mark.parametrize(("size", "name"), SMALL.pairs())
def test_small_problems_on_one_rank(size: int, name: str) -> None:
    SMALL.check(size, name)


@pytest.mark.parametrize("name", ["errors", "one:errors", "small:errors"])
@pytest.mark.parametrize("size", [1, 3])
def test_errors_are_the_same_on_all_ranks(size: int, name: str) -> None:
    outcomes = dict(EIGENVALUES.of(size, name))
    for label, text in (
        ("convergence", "ConvergenceError: linalg.case: it did not converge"),
        ("convergence in a child", "ConvergenceError: linalg.case: it did not converge"),
        ("killed child", "TaskKilledError: linalg.case: the child process in which it computed died (SIGKILL)"),
    ):
        failure = outcomes.pop(label)
        assert isinstance(failure, list)
        assert failure[0].startswith(text)
        assert all(text.startswith("PeerFailedError") for text in failure[1:])
    expected = {
        "both subsets": ("ArgumentError", "exclude each other"),
        "indices": ("ArgumentValueError", "first <= last < 6"),
        "three indices": ("ArgumentValueError", "[1, 2, 3]"),
        "interval": ("ArgumentValueError", "low < high"),
        "side": ("ArgumentValueError", "'top'"),
        "rtol": ("ArgumentValueError", "rtol"),
        "method": ("ArgumentValueError", "'magic'"),
        "oversampling": ("ArgumentValueError", "oversampling"),
        "krylov without room": ("ConvergenceError", "'krylov'"),
        "gram, inaccurate": ("ConvergenceError", "'gram'"),
        "afterwards": ("nothing", ""),
    }
    for name in ("eigh", "eigvalsh", "eigvals", "eig", "expm", "svd", "pinv", "polar"):
        expected[f"{name} NaN"] = ("NonFiniteError", "matrix A")
        expected[f"{name} int"] = ("ArgumentError", "int64")
        expected[f"{name} empty"] = ("nothing", "")
        if name not in ("svd", "pinv", "polar"):
            expected[f"{name} wide"] = ("ArgumentValueError", "4x6")
    assert outcomes.keys() == expected.keys()
    for label, (error, text) in expected.items():
        assert isinstance(outcomes[label], list)
        (outcome,) = set(outcomes[label])
        assert outcome.startswith(error), f"{label}: {outcome}"
        assert text in outcome, f"{label}: {outcome}"


@pytest.mark.parametrize("size", [1, 3])
def test_cancelled_tasks_stop_on_all_ranks(size: int) -> None:
    outcomes = dict(EIGENVALUES.of(size, "stopped"))
    assert len(outcomes) == 3
    for label, outcome in outcomes.items():
        assert outcome == ["TaskCancelledError: linalg.case was cancelled"] * size, label


def test_results_through_a_session_equal_those_of_scipy(session) -> None:
    linalg = session.load_library("linalg")
    rng = np.random.default_rng(5)
    A = rng.standard_normal((60, 40)) + 1j * rng.standard_normal((60, 40))
    H = A.conj().T @ A
    handle, hermitian = session.send_matrix(A), session.send_matrix(H)
    w, V = linalg.eigh(hermitian, subset_by_index=[30, 39])
    assert np.allclose(H @ np.asarray(V), np.asarray(V) * w)
    U, s, Vt = linalg.svd(handle)
    assert np.allclose((np.asarray(U) * s) @ np.asarray(Vt), A)
    assert np.allclose(np.asarray(linalg.pinv(handle)), scipy.linalg.pinv(A))
    U, P = linalg.polar(handle)
    assert np.allclose(np.asarray(U) @ np.asarray(P), A)
    E = linalg.expm(session.send_matrix(H / 100))
    assert np.allclose(np.asarray(E), scipy.linalg.expm(H / 100))
    assert np.allclose(np.sort(linalg.eigvals(hermitian).real), np.linalg.eigvalsh(H))
