"""PETSc and SLEPc against SciPy if they are installed; if not, the error when they are loaded."""

import importlib.util
import json

import pytest
from tests_support import PROGRAMS, mpirun

from alchemist_ray.errors import LibraryLoadError

PROGRAM = "petsc_cases.py"
INSTALLED = {name: importlib.util.find_spec(f"{name}4py") is not None for name in ("petsc", "slepc")}


@pytest.mark.skipif(not INSTALLED["petsc"], reason="petsc4py is not installed")
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_solutions_and_eigenvalues_equal_those_of_scipy(size):
    found = json.loads(mpirun(size, PROGRAMS / PROGRAM).splitlines()[-1])
    assert len(found) >= 44
    wrong = [f"{name}: {what}" for name, what in found if what]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["petsc", "slepc"])
def test_a_server_without_them_says_what_to_install(name, session):
    if INSTALLED[name]:
        assert session.load_library(name).__name__ == name
        return
    with pytest.raises(LibraryLoadError, match=rf"pip install .*(petsc|{name})4py"):
        session.load_library(name)
