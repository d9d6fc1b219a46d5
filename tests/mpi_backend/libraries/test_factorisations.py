"""Dense factorisations and systems under real MPI: residuals against NumPy and SciPy, every type, bad input.

One launch runs many cases; see ``programs/factorisation_cases.py``.
"""

import pytest
from tests_support import Report

REPORT = Report(
    "factorisation_cases.py",
    {
        (1, 2, 3, 4): ["lu", "lu_solve", "cholesky", "solve", "determinants", "inverse", "condition", "qr", "lstsq"],
        (1, 3): ["rank_revealing_qr"],
        (2,): ["lstsq_by_svd"],
        (1,): ["blas_in_place"],
        (1, 4): ["errors", "one:errors", "small:errors"],
        (3,): [
            f"{how}:{name}"
            for how in ("one", "small")
            for name in ("lu", "lu_solve", "cholesky", "solve", "determinants", "inverse", "condition", "qr", "lstsq")
        ],
    },
)


@pytest.mark.parametrize(("size", "name"), [(size, name) for size, name in REPORT.pairs() if "errors" not in name])
def test_residuals_are_small(size: int, name: str) -> None:
    REPORT.check(size, name)


@pytest.mark.parametrize("name", ["errors", "one:errors", "small:errors"])
@pytest.mark.parametrize("size", [1, 4])
def test_errors_are_the_same_on_all_ranks(size: int, name: str) -> None:
    outcomes = {label: set(result) for label, result in REPORT.of(size, name)}
    assert all(len(texts) == 1 for texts in outcomes.values()), outcomes
    every = ("lu", "lu_factor", "qr", "cholesky", "inv", "det", "slogdet", "condest")
    expected = {
        **{f"{name} NaN": ("NonFiniteError", "matrix A") for name in every},
        **{f"{name} integers": ("ArgumentError", "int64") for name in every},
        **{
            f"{name} not square": ("ArgumentValueError", "20x12")
            for name in every
            if name not in ("lu", "lu_factor", "qr")
        },
        **{f"{name} empty": ("nothing", "") for name in every},
        "indefinite False": ("NotPositiveDefiniteError", "order 14"),
        "indefinite True": ("NotPositiveDefiniteError", "order 14"),
        "solve indefinite": ("NotPositiveDefiniteError", "order 14"),
        "solve singular triangle": ("SingularMatrixError", "pivot 5"),
        "solve structure": ("ArgumentValueError", "'pos'"),
        "solve no columns": ("nothing", ""),
        "inv singular": ("SingularMatrixError", "pivot 2"),
        "lu_solve pivots": ("ArgumentValueError", "20 row numbers"),
        "lu_solve trans": ("ArgumentValueError", "not 3"),
        "lu_solve rows": ("ArgumentValueError", "5x12"),
        "cho_solve singular": ("SingularMatrixError", "pivot 5"),
        "cho_solve lower factor": ("ArgumentValueError", "lower=True"),
        "cho_solve upper factor": ("ArgumentValueError", "lower=False"),
        "cho_solve diagonal": ("nothing", ""),
        "qr mode": ("ArgumentValueError", "'full'"),
        "lstsq rows": ("ArgumentValueError", "5x12"),
        "lstsq NaN": ("NonFiniteError", "matrix b"),
        "lstsq cond": ("ArgumentValueError", "-1.0"),
        "lstsq driver": ("ArgumentValueError", "'gelss'"),
        "lstsq empty": ("nothing", ""),
        "afterwards": ("nothing", ""),
    }
    assert outcomes.keys() == expected.keys()
    for label, (error, text) in expected.items():
        outcome = outcomes[label].pop()
        assert outcome.startswith(error), f"{label}: {outcome}"
        assert text in outcome, f"{label}: {outcome}"
