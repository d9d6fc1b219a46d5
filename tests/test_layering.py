"""What may import what: the client loads neither MPI nor Ray, the server no Ray, the protocol no I/O."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

import alchemist_ray

PACKAGE = Path(alchemist_ray.__file__).parent
BACKEND = PACKAGE / "mpi_backend"
HEAVY = ("mpi4py", "ray", "torch", "h5py", "gymnasium")
NEEDS_RAY = {"actor", "remote"}

IO = {
    "asyncio", "ctypes", "fcntl", "http", "io", "mmap", "multiprocessing", "os", "pathlib", "select", "selectors",
    "shutil", "signal", "socket", "socketserver", "ssl", "subprocess", "tempfile", "threading", "urllib",
}  # fmt: skip


def loaded_by(code):
    """Run `code` in a fresh interpreter; return the top-level names of the modules that it loaded."""
    report = "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    ran = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


def imports_of(path):
    """Return the full names of all modules that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def tops(names):
    return {name.partition(".")[0] for name in names}


def own_file(name):
    """Return the file of a module of ours, or None."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if name.startswith("alchemist_ray.") and candidate.is_file():
            return candidate
    return None


def reached_from(path):
    """Return a file and every file of ours that it imports, directly or not."""
    reached, waiting = set(), [path]
    while waiting:
        current = waiting.pop()
        if current not in reached:
            reached.add(current)
            waiting += [file for file in map(own_file, imports_of(current)) if file]
    return reached


def modules_in(folder):
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("code", ["import alchemist_ray", "from alchemist_ray import *"])
def test_importing_the_client_loads_neither_mpi_nor_ray(code):
    loaded = loaded_by(code)
    assert "numpy" in loaded
    assert not loaded & set(HEAVY)


def test_the_check_would_see_a_heavy_module():
    assert "mpi4py" in loaded_by("import alchemist_ray, mpi4py")


def test_every_client_module_but_those_for_ray_loads_neither_mpi_nor_ray():
    names = [f"alchemist_ray.{name}" for name in modules_in(PACKAGE) if name not in NEEDS_RAY]
    assert len(names) > 10
    assert not loaded_by("import " + ", ".join(names)) & set(HEAVY)


def test_the_server_modules_that_need_no_mpi_load_neither_mpi_nor_ray():
    names = [
        f"alchemist_ray.mpi_backend.{name}"
        for name in modules_in(BACKEND)
        if not _runs_on_ranks(BACKEND / f"{name}.py")
    ]
    assert {
        f"alchemist_ray.mpi_backend.{name}" for name in ("driver", "serve", "group", "launchers", "registry")
    } <= set(names)
    assert not loaded_by("import " + ", ".join(names)) & set(HEAVY)


def _runs_on_ranks(path):
    return any("mpi4py" in tops(imports_of(file)) for file in reached_from(path))


@pytest.mark.parametrize(
    "name", ["driver", "serve", "group", "launchers", "registry", "inventory", "async_channel", "store"]
)
def test_the_driver_reaches_no_module_that_imports_mpi(name):
    assert not _runs_on_ranks(BACKEND / f"{name}.py")


@pytest.mark.parametrize("path", sorted(BACKEND.rglob("*.py")), ids=lambda path: str(path.relative_to(BACKEND)))
def test_no_file_of_the_backend_imports_ray(path):
    assert not tops(imports_of(path)) & {"ray", "torch"}
    assert not imports_of(path) & {"alchemist_ray.on_ray.actor", "alchemist_ray.on_ray.remote"}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_no_file_of_the_client_imports_mpi(path):
    assert "mpi4py" not in tops(imports_of(path))


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_only_the_modules_for_ray_import_it_at_their_top(path):
    top_level = {
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in node.names
    }
    assert ("ray" in tops(top_level)) == (path.stem in NEEDS_RAY)


SANS_IO = [
    *sorted((PACKAGE / "protocol").glob("*.py")),
    PACKAGE / "layout.py",
    PACKAGE / "overlap.py",
    PACKAGE / "csr.py",
    PACKAGE / "tiling.py",
    PACKAGE / "spec.py",
]


@pytest.mark.parametrize("path", SANS_IO, ids=lambda path: path.name)
def test_protocol_and_layout_do_no_io(path):
    for file in reached_from(path):
        assert not tops(imports_of(file)) & IO, f"{file} (reached from {path.name})"
        called = {node.func.id for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip  # noqa: E501
        assert not called & {"open", "print", "input", "exec", "eval", "__import__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_pickled_by_name(path):
    allowed = {"actor.py", "remote.py"}  # Ray pickles what it moves
    assert path.name in allowed or not tops(imports_of(path)) & {"pickle", "cloudpickle", "marshal", "shelve", "dill"}


@pytest.mark.parametrize("folder", ["envs", "mpi_backend", "sim_libraries"])
def test_the_backend_folders_are_imported_by_their_full_name(folder):
    for path in PACKAGE.rglob("*.py"):
        assert folder not in tops(imports_of(path)), path
    assert importlib.util.find_spec(f"alchemist_ray.{folder}") is not None


WITHOUT_RAY = "import sys; sys.modules['ray'] = None\nimport alchemist_ray\n"


def test_without_ray_what_needs_it_says_how_to_get_it():
    code = WITHOUT_RAY + (
        "for name in ('svd', 'matmul', 'qr', 'solve', 'init', 'SessionActor'):\n"
        "    try: getattr(alchemist_ray, name)\n"
        "    except ImportError as missing: assert 'alchemist-ray[ray]' in str(missing), missing\n"
        "    else: raise SystemExit(name + ' came without ray')\n"
    )
    loaded_by(code)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = alchemist_ray.no_such_name


def test_names_for_ray_are_listed():
    assert {"svd", "matmul", "qr", "solve", "init", "AlchemistSession"} <= set(dir(alchemist_ray))
