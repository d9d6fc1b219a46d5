"""What each folder may import, and what importing the package loads.

The table is the layering of the code: a folder may import the folders that it names, the folders that these may import,
``errors`` and ``_version``. The real folders are checked; the symbolic links below ``alchemist_ray`` lead there too.
"""

import ast
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import alchemist_ray

pytestmark = pytest.mark.quick

PACKAGE = Path(alchemist_ray.__file__).resolve().parent
ROOT = PACKAGE.parent
TOPS = ("alchemist_ray", "mpi_backend", "envs", "sim_libraries")
ANYTHING = "anything"

LAYERS = {
    "layouts": (),
    "protocol": (),
    "host": (),
    "transport": ("protocol",),
    "cluster": ("transport", "protocol", "host"),
    "client": ("transport", "layouts", "host"),
    "calls": ("client",),
    "on_ray": ("calls",),
    "envs": ("client", "on_ray"),
    "training": ("envs", "on_ray"),
    "cli": ANYTHING,
    "mpi_backend.logs": (),
    "mpi_backend.registry": ("protocol",),
    "mpi_backend.node": ("mpi_backend.worker", "mpi_backend.logs", "transport", "host"),
    "mpi_backend.driver": ("mpi_backend.node", "mpi_backend.registry", "mpi_backend.logs", "transport", "host"),
    "mpi_backend.memory": (),
    "mpi_backend.matrices": ("layouts",),
    "mpi_backend.scalapack": ("mpi_backend.matrices",),
    "mpi_backend.ali": ("mpi_backend.matrices", "mpi_backend.scalapack", "protocol"),
    "mpi_backend.worker": (
        "mpi_backend.ali",
        "mpi_backend.memory",
        "mpi_backend.registry",
        "mpi_backend.logs",
        "transport",
    ),
    "mpi_backend.libraries": ("mpi_backend.ali", "host"),
    "sim_libraries": ("mpi_backend.libraries",),
}

FRAMEWORKS = {"ray": {"on_ray", "envs", "training"}, "torch": {"training"}, "mpi4py": {"mpi_backend", "sim_libraries"}}
"""Third-party packages that only some folders may import."""

NUMPY_ONLY = {"layouts", "protocol"}
"""Folders without I/O, threads and sockets."""

IO = {
    "asyncio", "ctypes", "fcntl", "http", "io", "mmap", "multiprocessing", "os", "pathlib", "select", "selectors",
    "shutil", "signal", "socket", "socketserver", "ssl", "subprocess", "tempfile", "threading", "urllib",
}  # fmt: skip


def files_of(top):
    return sorted(path for path in (ROOT / top).rglob("*.py") if not path.is_symlink())


FILES = [path for top in TOPS for path in files_of(top)]


def layer_of(path):
    """Return the layer of a file, or None for the package's own modules (``errors``, ``__init__`` and so on)."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "alchemist_ray":
        return parts[1] if len(parts) > 2 else None
    if parts[0] == "mpi_backend":
        return None if parts[1] == "__init__" else f"mpi_backend.{parts[1]}"
    return parts[0]


def layer_of_module(name):
    """Return the layer of a module of ours; None for ``alchemist_ray``, its ``errors`` and ``_version``."""
    parts = name.split(".")[1:]
    if not parts or parts[0] in ("errors", "_version"):
        return None
    if parts[0] == "mpi_backend":
        return f"mpi_backend.{parts[1]}" if len(parts) > 1 else None
    return parts[0]


def imports_of(path):
    """Return the names of all modules that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= full if node.module in ("alchemist_ray", "alchemist_ray.mpi_backend") else {node.module}
    return names


def allowed(layer):
    """Return all layers that a layer may import."""
    if LAYERS[layer] == ANYTHING:
        return set(LAYERS)
    found, waiting = {layer}, list(LAYERS[layer])
    while waiting:
        found.add(current := waiting.pop())
        waiting += LAYERS[current]
    return found


def test_the_folders_are_real_and_all_in_the_table():
    assert not any(path.is_symlink() for top in TOPS for path in (ROOT / top,))
    assert {layer for path in FILES if (layer := layer_of(path))} == set(LAYERS)
    assert len(FILES) > 250


@pytest.mark.parametrize("layer", LAYERS)
def test_a_folder_imports_what_lies_below_it(layer):
    wrong = defaultdict(list)
    for path in FILES:
        if layer_of(path) == layer:
            for name in imports_of(path):
                if name.startswith("alchemist_ray") and layer_of_module(name) not in {None, *allowed(layer)}:
                    wrong[str(path.relative_to(ROOT))].append(name)
    assert not wrong


def test_the_layers_have_no_circle():
    for layer, below in LAYERS.items():
        if below != ANYTHING:
            assert all(layer not in allowed(other) for other in below), layer


@pytest.mark.parametrize("package", FRAMEWORKS)
def test_a_framework_is_imported_where_it_belongs(package):
    users = {
        path.relative_to(ROOT).parts[1 if path.relative_to(ROOT).parts[0] == "alchemist_ray" else 0]
        for path in FILES
        if package in {name.partition(".")[0] for name in imports_of(path)}
    }
    assert users <= FRAMEWORKS[package]


def test_the_layouts_and_the_protocol_do_no_io():
    for path in FILES:
        if layer_of(path) in NUMPY_ONLY:
            assert not {name.partition(".")[0] for name in imports_of(path)} & IO, path
            called = {
                node.func.id
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            }
            assert not called & {"open", "print", "input", "exec", "eval", "__import__"}, path


def test_a_socket_is_touched_in_transport_only():
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("sock", "_sock")
    }
    assert {name.rsplit("/", 1)[0] for name in users} == {"alchemist_ray/transport"}


def test_a_socket_is_made_in_transport_only():
    """The driver's listener is asyncio's."""
    makers = {f"socket.{name}" for name in ("socket", "create_connection", "create_server", "fromfd", "socketpair")}
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in makers
    }
    assert {name.rsplit("/", 1)[0] for name in users} == {"alchemist_ray/transport"}


def test_nothing_is_pickled_by_name():
    pickles = {"pickle", "cloudpickle", "marshal", "dill"}
    users = {
        path.relative_to(ROOT).as_posix() for path in FILES if {n.partition(".")[0] for n in imports_of(path)} & pickles
    }
    assert users <= {
        "mpi_backend/ali/simulations/batches.py",  # states that the ranks of one job send each other
        "mpi_backend/ali/child_process.py",  # what a rank's own fork returns to it
    }


def test_the_linked_folders_are_imported_by_their_full_name():
    for path in FILES:
        assert not {name.partition(".")[0] for name in imports_of(path)} & set(TOPS[1:]), path


def test_a_class_name_stands_for_one_class():
    found = defaultdict(set)
    for path in [*FILES, *files_of("experiments")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name.lstrip("_")].add(str(path.relative_to(ROOT)))
    assert not {name: paths for name, paths in found.items() if len(paths) > 1}


# --- what importing loads ---------------------------------------------------------------------------------------------


def loaded_by(code):
    """Run `code` in a fresh interpreter; return the names of the modules that it has loaded."""
    report = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


HEAVY = {"mpi4py", "ray", "torch", "h5py", "gymnasium"}


def test_the_package_loads_none_of_its_modules():
    loaded = loaded_by("import alchemist_ray")
    assert {name for name in loaded if name.startswith("alchemist_ray.")} == {"alchemist_ray._version"}
    assert "numpy" not in loaded


def test_all_names_of_the_client_load_neither_mpi_nor_ray():
    loaded = loaded_by("from alchemist_ray import *\nAlchemistSession, MatrixHandle, start_server")
    assert "numpy" in loaded
    assert not loaded & HEAVY


def test_the_check_would_see_a_heavy_module():
    assert "mpi4py" in loaded_by("import alchemist_ray, mpi4py")


@pytest.mark.parametrize("layer", ["protocol", "layouts"])
def test_the_lowest_layers_work_alone(layer):
    modules = [path.stem for path in files_of(f"alchemist_ray/{layer}") if path.stem != "__init__"]
    names = [f"alchemist_ray.{layer}", *(f"alchemist_ray.{layer}.{name}" for name in modules)]
    loaded = loaded_by("import " + ", ".join(names))
    ours = {name for name in loaded if name.startswith("alchemist_ray.")}
    assert ours - {"alchemist_ray._version", "alchemist_ray.errors"} == set(names)
    assert not loaded & {"socket", "ssl", "asyncio", "subprocess", "multiprocessing"}


def test_neither_the_driver_nor_the_node_agent_loads_mpi():
    """Only the warm process does, and its forks."""
    names = [
        f"alchemist_ray.mpi_backend.{folder}.{path.stem}"
        for folder in ("driver", "node")
        for path in files_of(f"mpi_backend/{folder}")
        if path.stem not in ("__init__", "rank_starter")
    ]
    assert not loaded_by("import " + ", ".join(names)) & HEAVY


def test_a_client_loads_no_code_of_the_server():
    loaded = loaded_by("from alchemist_ray import *\nimport alchemist_ray.calls.holder")
    assert not {name for name in loaded if name.startswith(("alchemist_ray.mpi_backend", "alchemist_ray.sim"))}


def test_without_ray_what_needs_it_says_how_to_get_it():
    loaded_by(
        "import sys; sys.modules['ray'] = None\n"
        "import alchemist_ray\n"
        "for name in ('svd', 'matmul', 'qr', 'solve', 'init', 'SessionActor'):\n"
        "    try: getattr(alchemist_ray, name)\n"
        "    except ImportError as missing: assert 'alchemist-ray[ray]' in str(missing), missing\n"
        "    else: raise SystemExit(name + ' came without ray')\n"
    )


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = alchemist_ray.no_such_name


def test_all_names_are_listed_and_loaded():
    listed = set(dir(alchemist_ray))
    assert {"svd", "matmul", "qr", "solve", "init", "AlchemistSession", "HPCSimulator", "errors"} <= listed
    for name in (*alchemist_ray._MODULES, "errors"):
        assert getattr(alchemist_ray, name) is not None
