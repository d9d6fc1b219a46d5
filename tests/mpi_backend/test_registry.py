"""The libraries that a client may load, and the names and paths for them."""

import importlib.metadata
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from alchemist_ray.errors import LibraryNotFoundError, LibraryRefusedError
from alchemist_ray.mpi_backend.registry import ENTRY_POINTS, Registry

LINALG = "alchemist_ray.mpi_backend.libraries.linalg"


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Return a list that the test fills with the installed libraries, in addition to our own."""
    points = list(importlib.metadata.entry_points(group=ENTRY_POINTS))

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
    assert {row["name"] for row in registry.rows()} >= {"files", "linalg", "TestLib", "heat", "acoustics"}
    assert registry.resolve("linalg", None) == LINALG
    assert Path(registry.resolve("acoustics", None)).is_file()
    assert {row["provider"] for row in registry.rows()} == {"alchemist-ray"}


def test_a_package_may_register_a_file_that_lies_in_it(installed, tmp_path, monkeypatch):
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('ran in the driver')\n")
    (package / "fast.c").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    installed.append(EntryPoint("fast", "their_package:fast.c", ENTRY_POINTS))
    assert Registry({}).resolve("fast", None) == str(package / "fast.c")


def test_the_owners_libraries_are_resolved_by_name(library):
    registry = Registry({"Mine": str(library)})
    assert registry.resolve("Mine", None) == str(library)
    assert registry.resolve("Mine", "") == str(library)
    row = {"name": "Mine", "version": "", "source": str(library), "provider": "--library"}
    assert row in registry.rows()


def test_rows_are_in_the_order_of_names():
    names = [row["name"] for row in Registry({"zeta": "z", "Alpha": "a"}).rows()]
    assert names == sorted(names)


def test_installed_packages_register_libraries(installed):
    installed.append(EntryPoint("power", "power_library.tasks", ENTRY_POINTS))
    registry = Registry({})
    assert registry.resolve("power", None) == "power_library.tasks"
    row = {"name": "power", "version": "", "source": "power_library.tasks", "provider": "installed"}
    assert row in registry.rows()


def test_the_owner_comes_before_installed_packages_and_those_before_the_built_in(installed):
    installed.append(EntryPoint("linalg", "their.linalg", ENTRY_POINTS))
    assert Registry({}).resolve("linalg", None) == "their.linalg"
    assert Registry({"linalg": "my.linalg"}).resolve("linalg", None) == "my.linalg"


def test_an_unknown_library_is_refused_with_those_there_are():
    with pytest.raises(LibraryNotFoundError) as caught:
        Registry({"Mine": "mine"}).resolve("mine", None)
    assert caught.value.library == "mine"
    assert caught.value.registered == sorted(["Mine", *Registry({}).names()])


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
    assert registry.resolve("linalg", None) == LINALG
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


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('__version__ = "1.2"\nraise RuntimeError\n', "1.2"),
        ("import numpy\n__version__: str = '3'\n", "3"),
        ('__version__ = "1"\n__version__ = "2"\n', "2"),
        ("__version__ = make_version()\n", ""),
        ("__version__ = 3\n", ""),
        ('def f():\n    __version__ = "1"\n', ""),
        ('version = "1"\n', ""),
        ("this is not Python\n", ""),
        ("\0", ""),
        (None, ""),
    ],
)
def test_the_version_of_a_library_is_read_and_not_run(tmp_path, text, version):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    (row,) = [row for row in Registry({"Mine": str(path)}).rows() if row["name"] == "Mine"]
    assert row["version"] == version


def test_the_version_of_a_built_in_library_is_what_it_says_or_that_of_the_package():
    rows = {row["name"]: row["version"] for row in Registry({}).rows()}
    assert rows["TestLib"] == "1.0"
    assert all(rows.values())


def test_the_version_of_a_shared_object_is_for_the_loader_to_tell(tmp_path):
    (tmp_path / "mine.so").write_bytes(b'__version__ = "1"')
    (row,) = [row for row in Registry({"Mine": str(tmp_path / "mine.so")}).rows() if row["name"] == "Mine"]
    assert row["version"] == ""
