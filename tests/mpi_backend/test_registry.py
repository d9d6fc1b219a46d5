"""Which libraries a client may have, and by which names and paths."""

import importlib.metadata
import sys
from importlib.metadata import EntryPoint

import pytest

from alchemist_ray.errors import LibraryNotFoundError, LibraryRefusedError
from alchemist_ray.mpi_backend.registry import BUILT_IN, ENTRY_POINTS, Registry


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Let the test say which libraries are installed; return the list to fill."""
    points = []

    def entry_points(**wanted):
        assert wanted == {"group": ENTRY_POINTS}
        return points

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return points


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("raise RuntimeError('a registry must not run a library')\n")
    return path


def test_the_built_in_libraries_are_there():
    registry = Registry({})
    assert {row["name"] for row in registry.rows()} == set(BUILT_IN) == {"files", "linalg", "TestLib"}
    assert registry.resolve("linalg", None) == BUILT_IN["linalg"]
    assert {row["provider"] for row in registry.rows()} == {"alchemist-ray"}


def test_the_owners_libraries_are_resolved_by_name(library):
    registry = Registry({"Mine": str(library)})
    assert registry.resolve("Mine", None) == str(library)
    assert registry.resolve("Mine", "") == str(library)
    assert {"name": "Mine", "source": str(library), "provider": "--library"} in registry.rows()


def test_rows_are_in_the_order_of_names():
    names = [row["name"] for row in Registry({"zeta": "z", "Alpha": "a"}).rows()]
    assert names == sorted(names)


def test_installed_packages_register_libraries(installed):
    installed.append(EntryPoint("heat", "heat_library.tasks", ENTRY_POINTS))
    registry = Registry({})
    assert registry.resolve("heat", None) == "heat_library.tasks"
    assert {"name": "heat", "source": "heat_library.tasks", "provider": "installed"} in registry.rows()


def test_the_owner_comes_before_installed_packages_and_those_before_the_built_in(installed):
    installed.append(EntryPoint("linalg", "their.linalg", ENTRY_POINTS))
    assert Registry({}).resolve("linalg", None) == "their.linalg"
    assert Registry({"linalg": "my.linalg"}).resolve("linalg", None) == "my.linalg"


def test_an_unknown_library_is_refused_with_those_there_are():
    with pytest.raises(LibraryNotFoundError) as caught:
        Registry({"Mine": "mine"}).resolve("mine", None)
    assert caught.value.library == "mine"
    assert caught.value.registered == ["Mine", "TestLib", "files", "linalg"]


@pytest.mark.parametrize("path", ["os", "/tmp/evil.py", "mine.py", "../mine.py"])
@pytest.mark.parametrize("name", ["Mine", "other", "linalg"])
def test_a_path_that_the_owner_has_not_named_is_refused(library, name, path):
    with pytest.raises(LibraryRefusedError) as caught:
        Registry({"Mine": str(library)}).resolve(name, path)
    assert (caught.value.library, caught.value.path) == (name, path)
    assert isinstance(caught.value, PermissionError)


def test_the_registered_path_is_allowed(library):
    assert Registry({"Mine": str(library)}).resolve("Mine", str(library)) == str(library)


def test_the_path_of_one_library_does_not_open_another(library):
    with pytest.raises(LibraryRefusedError):
        Registry({"Mine": str(library)}).resolve("other", str(library))
    with pytest.raises(LibraryRefusedError):
        Registry({"Mine": str(library)}).resolve("linalg", str(library))


def test_the_absolute_path_of_a_library_registered_by_a_relative_one_is_allowed(library, monkeypatch):
    monkeypatch.chdir(library.parent)
    assert Registry({"Mine": "mine.py"}).resolve("Mine", str(library)) == "mine.py"


def test_a_module_may_be_named_by_its_file(library, monkeypatch):
    monkeypatch.syspath_prepend(str(library.parent))
    registry = Registry({"Mine": "mine"})
    assert registry.resolve("Mine", str(library)) == "mine"
    assert registry.resolve("Mine", "mine") == "mine"


def test_any_path_is_allowed_when_the_owner_says_so(library):
    registry = Registry({}, allow_paths=True)
    assert registry.resolve("Mine", str(library)) == str(library)
    assert registry.resolve("linalg", "my.linalg") == "my.linalg"
    assert registry.resolve("linalg", None) == BUILT_IN["linalg"]
    with pytest.raises(LibraryNotFoundError):
        registry.resolve("Mine", None)


@pytest.mark.parametrize("source", ["no_such_package", "no_such_package.tasks", "no_such_package.tasks:library"])
def test_a_library_whose_module_is_missing_is_the_workers_to_report(source):
    assert Registry({"Lost": source}).resolve("Lost", None) == source
    with pytest.raises(LibraryRefusedError):
        Registry({"Lost": source}).resolve("Lost", "/tmp/lost.py")


def test_no_code_of_a_library_runs_in_the_driver(tmp_path, monkeypatch):
    package = tmp_path / "loud_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('ran in the driver')\n")
    (package / "tasks.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert Registry({"Loud": "loud_package.tasks"}).resolve("Loud", None) == "loud_package.tasks"
    assert "loud_package" not in sys.modules
