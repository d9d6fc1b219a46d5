"""What a client gets of a library: functions, documentation, a catalogue, stubs; and which libraries there are."""

from __future__ import annotations

import argparse
import inspect
import os
import pickle
import pydoc
import re
import subprocess
import sys
import time
import typing
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import scipy.sparse

import alchemist_ray as alchemist
from alchemist_ray import cli, errors
from alchemist_ray.cli import arguments as cli_arguments
from alchemist_ray.client.libraries import Library
from alchemist_ray.client.matrices.sparse import SparseMatrixHandle
from alchemist_ray.client.stubs import stub_of
from alchemist_ray.protocol.descriptions import LibraryDescription, ParameterDescription, TaskDescription

LIBRARIES = Path(__file__).parents[1] / "libraries"
ROOT = Path(alchemist.__file__).parent.parent

HEAT = '''
"""Heat, from a package."""
from alchemist_ray.mpi_backend.ali import TaskContext, task

@task
def ranks(ctx: TaskContext) -> int:
    """Return how many ranks there are."""
    return ctx.comm.size
'''


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A directory with an installed package that registers two libraries; one says its version, one does not."""
    site = tmp_path_factory.mktemp("site")
    (site / "heat_tasks").mkdir()
    (site / "heat_tasks" / "__init__.py").write_text("raise RuntimeError('the driver has run this')\n")
    (site / "heat_tasks.py").write_text(HEAT)
    (site / "heat_tasks" / "__init__.py").unlink()
    (site / "heat_tasks").rmdir()
    (site / "versioned_heat.py").write_text('__version__: str = "7.1"\n' + HEAT)
    info = site / "heat_package-4.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: heat-package\nVersion: 4.2\n")
    (info / "entry_points.txt").write_text(
        "[alchemist_ray.libraries]\nheat = heat_tasks\nversioned-heat = versioned_heat\n"
    )
    return site


@pytest.fixture(scope="module")
def own_server(package, tmp_path_factory):
    folder = tmp_path_factory.mktemp("libraries")
    (folder / "broken.py").write_text('__version__ = "0.9"\nraise RuntimeError("imported")\n')
    (folder / "silent.py").write_text(HEAT)
    (folder / "clib.so").write_bytes(b"")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(package), prepend=os.pathsep)
        libraries = {name: str(folder / f"{name}.py") for name in ("broken", "silent")}
        libraries |= {"clib": str(folder / "clib.so"), "everything": str(LIBRARIES / "everything.py")}
        with alchemist.start_server(num_workers=3, libraries=libraries) as server:
            yield server


@pytest.fixture(scope="module")
def own_session(own_server):
    with alchemist.AlchemistSession() as session:
        session.connect(own_server.hostname, own_server.port, own_server.token)
        session.request_workers(2)
        yield session


@pytest.fixture(scope="module")
def everything(own_session):
    return own_session.load_library("everything")


@pytest.fixture
def alchemist_libraries(own_server, monkeypatch, capsys):
    """Return a function that runs ``alchemist libraries``; it returns status, output and errors."""
    monkeypatch.setenv("ALCHEMIST_TOKEN", own_server.token)

    def run(*arguments):
        try:
            status = cli.main(["libraries", *arguments, "--port", str(own_server.port)])
        except SystemExit as refused:
            status = refused.code
        return status, *capsys.readouterr()

    return run


# --- which there are --------------------------------------------------------------------------------------------------


def test_libraries_are_listed_with_versions_and_without_being_imported(own_session):
    rows = {row["name"]: row for row in own_session.list_available_libraries()}
    assert rows["linalg"]["version"] == own_session.load_library("linalg").version != ""
    assert rows["everything"]["version"] == "2.5"
    assert rows["broken"]["version"] == "0.9"
    assert rows["silent"]["version"] == rows["clib"]["version"] == ""
    assert rows["heat"]["version"] == "4.2"
    assert rows["versioned-heat"]["version"] == "7.1"
    assert rows["heat"]["provider"] == "heat-package 4.2"
    assert rows["heat"]["source"] == "heat_tasks"


def test_an_entry_point_of_an_installed_package_is_a_library(own_session):
    heat = own_session.load_library("heat")
    assert heat.ranks() == 2
    assert own_session.load_library("versioned-heat").version == "7.1"
    assert "heat_tasks" not in sys.modules


def test_the_package_of_the_documentation_registers_its_library(tmp_path, monkeypatch):
    import tomllib

    page = (ROOT / "docs" / "wrapping-python.md").read_text()
    (text,) = re.findall(r'^```toml title="pyproject.toml"\n(.*?)^```', page, re.DOTALL | re.MULTILINE)
    project = tomllib.loads(text)["project"]
    (group,) = project["entry-points"]
    ((name, module),) = project["entry-points"][group].items()
    assert (group, name) == ("alchemist_ray.libraries", "power")
    (source,) = re.findall(r'^```python title="power.py"\n(.*?)^```', page, re.DOTALL | re.MULTILINE)
    info = tmp_path / "site" / f"power_iteration-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / f"{module}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    from alchemist_ray.mpi_backend.registry import Registry

    (row,) = [row for row in Registry({}).rows() if row["name"] == "power"]
    assert row == {"name": "power", "version": "1.0", "source": "power", "provider": "power-iteration 1.0"}


def test_a_library_given_as_a_relative_path_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wave.so").write_bytes(b"")
    assert cli_arguments.library("wave=wave.so") == ("wave", str(tmp_path / "wave.so"))
    assert cli_arguments.library("gone=gone.py") == ("gone", str(tmp_path / "gone.py"))
    assert cli_arguments.library("mod=package.module") == ("mod", "package.module")
    for text in ("wave", "=wave.so", "wave="):
        with pytest.raises(argparse.ArgumentTypeError, match="NAME=PATH"):
            cli_arguments.library(text)


# --- functions and their documentation --------------------------------------------------------------------------------


def test_completion_and_help_show_the_tasks(everything):
    assert {"everything", "sums", "twice", "wait", "options", "name", "version"} <= set(dir(everything))
    shown = pydoc.plain(pydoc.render_doc(everything))
    assert "takes one of everything" not in shown
    assert "A library whose tasks take one of everything." in shown
    assert "twice(A: MatrixHandle) -> MatrixHandle" in shown
    assert "    Return 2 A." in shown
    shown = pydoc.plain(pydoc.render_doc(everything.everything))
    assert "mode: Literal['fast', 'exact'] | None = None, *, only: Any = None) -> dict[str, Any]" in shown
    assert "Take one argument of each kind; return the arguments." in shown


def test_annotations_are_types(everything):
    signature = inspect.signature(everything.everything)
    kinds = {name: p.annotation for name, p in signature.parameters.items()}
    assert kinds["A"] is alchemist.MatrixHandle
    assert kinds["S"] == alchemist.MatrixHandle | SparseMatrixHandle | None
    assert kinds["mode"] == typing.Literal["fast", "exact"] | None
    assert (kinds["k"], kinds["tol"], kinds["flag"]) == (int, float, bool)
    assert signature.return_annotation == dict[str, typing.Any]
    assert typing.get_type_hints(everything.everything) == {**kinds, "return": dict[str, typing.Any]}
    assert signature.replace(parameters=[]).parameters == {}
    assert typing.get_type_hints(everything.sums)["return"] == tuple[str, list[typing.Any]]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("tuple[DistMatrix, ndarray, DistMatrix]", "tuple[MatrixHandle, NDArray[Any], MatrixHandle]"),
        ("tuple[int, ...]", "tuple[int, ...]"),
        ("Optional[SparseDistMatrix]", "SparseMatrixHandle | None"),
        ("Union[int, str, None]", "int | str | None"),
        ("Literal['a', 1]", "Literal['a', 1]"),
        ("list", "list[Any]"),
        ("None", "None"),
        ("Wrong", "Any"),
        ("dict[str, Wrong]", "dict[str, Any]"),
        ("__import__('os').getpid()", "Any"),
        ("list[__import__('os')]", "list[Any]"),
        ("Literal[__import__('os')]", "Any"),
        ("not python", "Any"),
        ("", "Any"),
        ("\0", "Any"),
    ],
)
def test_what_a_library_says_of_a_result_is_parsed_and_never_run(written, meant):
    from alchemist_ray.client.annotations import as_type, result_text

    assert result_text(written) == meant
    as_type(meant)


def test_an_unknown_task_is_answered_with_the_nearest(everything):
    with pytest.raises(AttributeError, match=r"has no task 'twise'; did you mean 'twice'\?"):
        everything.twise()
    with pytest.raises(AttributeError, match="it has everything, options, sums, twice, wait"):
        everything.frobnicate()
    with pytest.raises(errors.TaskNotFoundError):
        everything["twise"]
    assert not hasattr(everything, "__len__")


def test_a_task_called_like_an_attribute_is_reached_by_its_name(everything):
    assert everything["options"]() == "mine"
    assert callable(everything.options)
    assert everything["twice"] is everything.twice


def test_options_limit_the_time_of_tasks(everything):
    hasty = everything.options(timeout=0.3)
    started = time.monotonic()
    with pytest.raises(errors.TaskTimeoutError, match=r"everything.wait .* 0.3 s"):
        hasty.wait(20.0)
    assert time.monotonic() - started < 8
    assert everything.wait(0.4) == "waited"
    assert hasty.options(timeout=None).wait(0.4) == "waited"
    for timeout in (0, -1, float("nan")):
        with pytest.raises(errors.ArgumentValueError, match="greater than 0 seconds"):
            everything.options(timeout=timeout)


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_a_library_does_not_pickle_and_says_so(everything, dumps):
    with pytest.raises(TypeError, match=r"does not pickle.*alchemist\.library"):
        dumps(everything)
    with pytest.raises((TypeError, pickle.PicklingError)):
        dumps(everything.twice)


def test_a_wrong_argument_is_refused_before_anything_is_sent(everything, own_session):
    A = own_session.send_matrix(np.eye(4))
    sent = []
    run = everything._caller.run
    spying = Library(everything.description, lambda *call: sent.append(call) or run(*call))
    with pytest.raises(errors.ArgumentValueError, match="did you mean 'fast'"):
        spying.everything(A, mode="fsat")
    with pytest.raises(errors.ArgumentError, match="'k' must be an integer, not float"):
        spying.everything(A, k=2.0)
    assert spying.everything(A, k=2)["layout"] == "STAR_VR"
    assert len(sent) == 3


# --- a client that has nothing of the server --------------------------------------------------------------------------

REFUSING = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mpi4py", "ray", "scipy") or name.startswith("alchemist_ray.mpi_backend"):
            raise ImportError(f"this client has no {name}")

sys.meta_path.insert(0, Refuse())
"""


def test_help_in_a_fresh_interpreter_that_has_nothing_of_the_library(own_server, monkeypatch):
    monkeypatch.setenv("ALCHEMIST_TOKEN", own_server.token)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    script = REFUSING + (
        "try:\n    import alchemist_ray.mpi_backend\nexcept ImportError as refused:\n    print(refused)\n"
        "from alchemist_ray import AlchemistSession\n"
        f"als = AlchemistSession().connect('127.0.0.1', {own_server.port})\n"
        "als.request_workers(1)\n"
        "lib = als.load_library('linalg')\n"
        "help(lib.solve)\n"
        "als.stop()\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "this client has no alchemist_ray.mpi_backend" in ran.stdout
    assert "Help on function solve" in ran.stdout
    assert re.search(r"solve\(A: MatrixHandle, b: MatrixHandle.*\) -> MatrixHandle", ran.stdout)
    assert "Return x such that A x = b" in ran.stdout
    assert "Raises\n" in ran.stdout
    assert "SingularMatrixError" in ran.stdout


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_command_lists_libraries_with_their_versions(alchemist_libraries):
    status, printed, _ = alchemist_libraries()
    assert status == 0
    assert re.search(r"^Library +Loaded from +Version +Provided by$", printed, re.MULTILINE)
    assert re.search(r"^heat +heat_tasks +4\.2 +heat-package 4\.2$", printed, re.MULTILINE)
    assert re.search(r"^everything +/\S+/everything\.py +2\.5 +--library$", printed, re.MULTILINE)


def test_the_command_prints_the_catalogue_and_a_task(alchemist_libraries):
    status, printed, _ = alchemist_libraries("everything")
    assert (status, printed.partition("\n")[0]) == (0, "everything 2.5")
    assert 'It says "quotes", and \\backslashes\\ too.' in printed
    assert "twice(A: MatrixHandle) -> MatrixHandle\n    Return 2 A.\n" in printed
    status, printed, _ = alchemist_libraries("everything", "wait")
    assert status == 0
    assert printed.startswith("wait(seconds: float) -> str\n\nWait, and check")


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["nothing"], 1, "the server has no library 'nothing'; it has .*everything.*heat"),
        (["broken"], 1, "'broken' could not be loaded: RuntimeError: imported"),
        (["everything", "twise"], 1, "has no task 'twise'"),
        (["--pyi", "x.pyi"], 2, "name it"),
        (["everything", "twice", "--pyi", "x.pyi"], 2, "omit TASK"),
        (["everything", "--pyi", "/no/such/folder/x.pyi"], 2, "could not be written.*/no/such/folder"),
    ],
)
def test_the_command_says_what_is_wrong(alchemist_libraries, arguments, status, complaint):
    got, _, complaints = alchemist_libraries(*arguments)
    assert got == status
    assert re.search(complaint, complaints)


def test_the_command_needs_a_free_worker_and_says_so(alchemist_libraries, own_server):
    with alchemist.AlchemistSession() as other:
        other.connect(own_server.hostname, own_server.port, own_server.token)
        other.request_workers(len(other.list_available_workers()))
        status, _, complaints = alchemist_libraries("everything")
        assert status == 1
        assert "0 of the server's 3 are free" in complaints
        assert "needs a free worker" in complaints
        assert alchemist_libraries()[0] == 0


# --- stubs ------------------------------------------------------------------------------------------------------------

CLIENT = """
from typing import TYPE_CHECKING, cast

import numpy as np

from alchemist_ray import AlchemistSession, MatrixHandle

if TYPE_CHECKING:
    from everything import EverythingLibrary
    from linalg import LinalgLibrary


def work(session: AlchemistSession) -> MatrixHandle:
    lib: "EverythingLibrary" = session.load_library("everything")
    same = cast("EverythingLibrary", session.load_library("everything"))
    A = session.send_matrix(np.eye(3))
    came = lib.everything(A, k=4, mode="exact", values=[1.0, 2.0], only=None)
    number: str = came["name"]
    B: MatrixHandle = lib.options(timeout=3.0).twice(same.twice(A))
    linalg: "LinalgLibrary" = session.load_library("linalg")
    U, S, Vt = linalg.truncated_svd(B, k=2)
    largest: float = float(S[0])
    product: MatrixHandle = U @ Vt
    return product
"""

WRONG = {
    'lib.everything(A, mode="slow")': "incompatible type \"Literal\\['slow'\\]\"",
    'lib.everything(A, k="4")': 'incompatible type "str"; expected "int"',
    "lib.everything(np.eye(3))": 'expected "MatrixHandle"',
    "lib.twise(A)": 'no attribute "twise"; maybe "twice"',
    "lib.everything(A, None, 3, 1.0, 1j, True, '', b'', None, [], {}, None, 5)": "Too many positional arguments",
    "text: str = lib.twice(A)": 'variable has type "str"',
}


def type_errors(folder, *files):
    """Return what mypy says about files of `folder`, with the project's settings, and what it knows of the project."""
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", *(str(folder / file) for file in files)],
        cwd=ROOT, env={**os.environ, "MYPYPATH": str(folder)}, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    found = re.findall(r"^\S*?([\w-]+\.pyi?):(\d+): error: (.*)$", ran.stdout, re.MULTILINE)
    return [(file, int(line), complaint) for file, line, complaint in found if file in files]


def test_stubs_are_what_mypy_accepts_and_holds_clients_to(own_session, tmp_path):
    names = ["linalg", "everything", "files", "TestLib"]
    for name in names:
        (tmp_path / f"{name}.pyi").write_text(stub_of(own_session.load_library(name).description))
    wrong = [f"    {line}" for line in WRONG]
    (tmp_path / "client.py").write_text(CLIENT)
    (tmp_path / "wrong.py").write_text(CLIENT.replace("    came =", "\n".join([*wrong, "    came ="])))
    found = type_errors(tmp_path, "client.py", "wrong.py", *(f"{name}.pyi" for name in names))
    assert [error for error in found if error[0] != "wrong.py"] == []
    first = CLIENT[: CLIENT.index("    came =")].count("\n") + 1
    for number, (line, complaint) in enumerate(WRONG.items(), start=first):
        (said,) = [text for file, at, text in found if (file, at) == ("wrong.py", number)]
        assert re.search(complaint, said), line
    assert len(found) == len(WRONG)


def test_a_stub_is_written_to_a_file(alchemist_libraries, tmp_path):
    status, printed, _ = alchemist_libraries("everything", "--pyi", str(tmp_path / "everything.pyi"))
    assert status == 0
    assert printed.strip().endswith("everything.pyi has the class EverythingLibrary")
    compile((tmp_path / "everything.pyi").read_text(), "everything.pyi", "exec")


def test_a_stub_is_printed_as_it_is_written(alchemist_libraries):
    status, printed, _ = alchemist_libraries("everything", "--pyi", "-")
    assert status == 0
    assert printed.startswith('"""Types of the library everything 2.5')
    assert "def options(self, *, timeout: float | None)" in printed
    assert "def options(self) -> str" not in printed
    assert "tol: float = ..., z: complex = 1j" in printed
    compile(printed, "everything.pyi", "exec")


def test_names_that_python_cannot_say_are_left_out_of_a_stub():
    def task(name, *parameters):
        return TaskDescription(name, "", parameters, "None")

    odd = ParameterDescription("x", ("float",), False, None, False)  # a default that its kinds do not have
    library = LibraryDescription("3-d waves", "", "", (task("lambda"), task("run all"), task("good", odd)))
    stub = stub_of(library)
    compile(stub, "waves.pyi", "exec")
    assert "class _3DWavesLibrary(Protocol):" in stub
    assert "def good(self, x: float = ...) -> None: ..." in stub
    assert "lambda" not in stub
    assert "run all" not in stub


# --- the catalogue of Ray functions, without Ray ----------------------------------------------------------------------


def test_arrays_are_held_against_the_description(everything):
    from alchemist_ray.calls.routine import Routine

    routine = Routine.of("everything", everything.task("everything"))
    A = np.ones((3, 4), np.int64)
    assert routine.bind((A,), {"k": 2}) == {"A": A, "k": 2}
    assert routine.operands.layout("A", A.shape) == "STAR_VR"
    assert routine.operands.layout("S", (100, 10)) == "VC_STAR"
    assert routine.operands.convert("A", A).dtype == np.int64
    assert routine.operands.convert("A", np.ones(3, np.float16)).shape == (3, 1)
    sums = Routine.of("everything", everything.task("sums"))
    assert sums.sends("A", [[1, 2]])
    assert not sums.sends("A", 1.5)
    sparse = scipy.sparse.eye_array(3)
    for call, complaint in {
        lambda: routine.bind((sparse,), {}): "'A' is a sparse matrix",
        lambda: sums.bind((1.0, A), {}): "'S' is a dense matrix",
        lambda: routine.bind((A,), {"mode": "slow"}): "one of 'fast', 'exact'",
        lambda: routine.bind((), {}): "'A'",
        lambda: routine.bind((A,), {"kk": 2}): "did you mean 'k'",
        lambda: routine.bind(("A",), {}): "must be a matrix handle, not str",
        lambda: sums.bind((A, None, 3), {}): "too many positional",
    }.items():
        with pytest.raises((errors.ArgumentError, errors.ArgumentValueError), match=complaint):
            call()
    for array, complaint in (
        (np.ones((2, 2, 2)), "a matrix has 2 dimensions, this array has 3"),
        ([[1.0, 2.0], [3.0]], "this is not a matrix: .*inhomogeneous"),
        (np.array([["a"]]), "<U1"),
    ):
        with pytest.raises(errors.InvalidArrayError, match=f"argument A: .*{complaint}"):
            routine.bind((array,), {})
    pending = object()
    assert routine.bind((pending,), {"mode": pending, "k": pending}, lambda value: value is pending)["A"] is pending
