"""Dense factorisations and systems under real MPI: residuals against NumPy and SciPy, every type, bad input.

One launch runs many cases; see ``programs/factorisation_cases.py``.
"""

from functools import partial

import pytest
from tests_support import check_cases, run_cases

run, check = partial(run_cases, "factorisation_cases.py"), partial(check_cases, "factorisation_cases.py")


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_lu_cholesky_and_systems(size: int) -> None:
    check(size, "lu", "lu_solve", "cholesky", "solve")


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_determinants_inverses_and_condition_numbers(size: int) -> None:
    check(size, "determinants", "inverse", "condition")


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_qr_and_least_squares(size: int) -> None:
    check(size, "qr", "lstsq")


@pytest.mark.parametrize("size", [1, 3])
def test_pivoted_qr_reveals_the_rank_as_lapack_does(size: int) -> None:
    check(size, "rank_revealing_qr")


def test_least_squares_over_several_hosts() -> None:
    check(2, "lstsq_by_svd")


def test_blas_on_parts_of_arrays_of_either_order() -> None:
    check(1, "blas_in_place")


@pytest.mark.parametrize("size", [1, 4])
def test_errors_are_raised_on_all_ranks_alike(size: int) -> None:
    outcomes = {label: set(result) for _, label, result in run(size, "errors")}
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
        "lstsq empty": ("ArgumentValueError", "3x0"),
        "afterwards": ("nothing", ""),
    }
    assert outcomes.keys() == expected.keys()
    for label, (error, text) in expected.items():
        outcome = outcomes[label].pop()
        assert outcome.startswith(error), f"{label}: {outcome}"
        assert text in outcome, f"{label}: {outcome}"
