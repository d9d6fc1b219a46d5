"""Linear algebra under real MPI: residuals against NumPy, every layout, bad input. One launch runs many cases."""

import pytest
from tests_support import LIMIT, Report

REPORT = Report(
    "linalg_cases.py",
    {
        (1, 2, 3, 4): ["gemm", "gemm_shapes", "qr", "solve", "svd_layouts", "svd_spectra"],
        (1, 2, 4): ["contexts"],
        (1, 3): ["svd_methods", "errors", "test_library"],
        (2,): ["svd_large"],
    },
)
RESIDUALS = [(size, name) for size, name in REPORT.pairs() if name not in ("errors", "test_library")]


@pytest.mark.parametrize(("size", "name"), RESIDUALS)
def test_residuals_are_small(size: int, name: str) -> None:
    REPORT.check(size, name)


@pytest.mark.parametrize("size", [1, 3])
def test_errors_are_the_same_on_all_ranks(size: int) -> None:
    outcomes = {label: set(result) for label, result in REPORT.of(size, "errors")}
    assert all(len(texts) == 1 for texts in outcomes.values()), outcomes
    expected = {
        "gemm shapes": ("ArgumentValueError", "A is 20x12, B is 20x20"),
        "gemm transposed shapes": ("ArgumentValueError", "A^T is 12x20, B^T is 12x20"),
        "gemm bool": ("ArgumentError", "bool"),
        "svd k = 0": ("ArgumentValueError", "1..12"),
        "svd k = 13": ("ArgumentValueError", "1..12"),
        "svd tol": ("ArgumentValueError", "-1.0"),
        "svd NaN": ("NonFiniteError", "matrix A"),
        "svd int": ("ArgumentError", "int64"),
        "qr NaN": ("NonFiniteError", "matrix A"),
        "solve not square": ("ArgumentValueError", "20x12"),
        "solve rows": ("ArgumentValueError", "5x12"),
        "solve Inf": ("NonFiniteError", "matrix A"),
        "solve NaN": ("NonFiniteError", "matrix b"),
        "solve singular": ("SingularMatrixError", "exactly zero"),
        "TestLib rank": ("ArgumentValueError", "1..12"),
        "afterwards": ("nothing", ""),
    }
    assert outcomes.keys() == expected.keys()
    for label, (error, text) in expected.items():
        outcome = outcomes[label].pop()
        assert outcome.startswith(error), f"{label}: {outcome}"
        assert text in outcome, f"{label}: {outcome}"


@pytest.mark.parametrize("size", [1, 3])
def test_the_test_library(size: int) -> None:
    results = dict(REPORT.of(size, "test_library"))
    assert results.pop("greet") == f"Hello Ada, from {size} worker{'s' if size > 1 else ''}"
    assert results.pop("fail") == ["returned"] * (size - 1) + ["as asked"]
    for label, residuals in results.items():
        assert isinstance(residuals, dict)
        assert max(residuals.values()) <= LIMIT, label
