"""Libraries in C and C++, compiled here: the examples against independent results, every kind of value, every error."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import mpi4py

mpi4py.rc.initialize = False

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from conftest import LIBRARIES  # noqa: E402
from skips import needs  # noqa: E402
from tests_support import memory_in_use, wait_until  # noqa: E402

import alchemist_ray as alchemist  # noqa: E402
from alchemist_ray import errors  # noqa: E402
from alchemist_ray.layouts.layout import PAIRS, Layout  # noqa: E402
from alchemist_ray.mpi_backend.ali.c import types as c_types  # noqa: E402
from alchemist_ray.mpi_backend.ali.library import load  # noqa: E402
from alchemist_ray.mpi_backend.node.process_state import is_gone  # noqa: E402

ALI = Path(alchemist.__file__).parent / "mpi_backend" / "ali" / "c"
EXAMPLES = ALI / "examples"
WARNINGS = ["-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror"]
DTYPES = ("float32", "float64", "complex64", "complex128")
LIMIT = 30

pytestmark = needs("cc", "c++")


def compile_library(source, target, *flags):
    """Compile `source` as C or C++ by its suffix, with warnings as errors; return the shared object."""
    compiler, standard = ("mpicxx", "-std=c++17") if source.suffix == ".cpp" else ("mpicc", "-std=c99")
    command = [Path(sys.executable).with_name(compiler), standard, "-pedantic", *WARNINGS, "-O1", "-shared", "-fPIC"]
    subprocess.run([*command, f"-I{ALI / 'include'}", source, "-o", target, "-lm", *flags], check=True, timeout=60)
    return target


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The shared objects, by name."""
    folder = tmp_path_factory.mktemp("shared-objects")
    sources = [EXAMPLES / name for name in ("statistics.c", "cholesky.cpp", "heat.c")]
    sources += [LIBRARIES / name for name in ("kinds.c", "crashes.c", "broken.c", "odd_simulator.c", "version_1.c")]
    return {s.stem: compile_library(s, folder / f"{s.stem}.so") for s in sources}


@pytest.fixture(scope="module")
def c_server(built, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    (folder / "wrong.c").write_text("#error this is no library\n")
    libraries = {name: str(path) for name, path in built.items()}
    libraries |= {"heat_from_source": str(EXAMPLES / "heat.c"), "wrong": str(folder / "wrong.c")}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ALCHEMIST_CACHE", str(folder / "cache"))
        yield from serving(libraries)


def serving(libraries):
    with alchemist.start_server(num_workers=8, memory_per_worker=64 * 2**20, libraries=libraries) as running:
        yield running


@pytest.fixture
def open_session(c_server):
    opened = []

    def open_one(num_workers):
        session = alchemist.AlchemistSession()
        opened.append(session)
        session.connect(c_server.hostname, c_server.port, c_server.token)
        session.request_workers(num_workers)
        return session

    yield open_one
    for session in opened:
        session.stop()


@pytest.fixture(scope="module")
def pair(c_server):
    """A session with two workers and the library of kinds."""
    with alchemist.AlchemistSession() as session:
        session.connect(c_server.hostname, c_server.port, c_server.token)
        session.request_workers(2)
        yield session, session.load_library("kinds")


@pytest.fixture
def kinds(pair):
    return pair[1]


# --- the examples -----------------------------------------------------------------------------------------------------


def eps(dtype):
    return np.finfo(dtype).eps


def definite(rng, n, dtype, condition=1e3):
    """Return a Hermitian positive definite matrix with a graded spectrum."""
    A = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if np.dtype(dtype).kind == "c" else 0)
    Q, _ = np.linalg.qr(A)
    return ((Q * np.geomspace(1, condition, n)) @ Q.conj().T).astype(dtype)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_examples_on_every_number_of_workers(open_session, rng, workers):
    session = open_session(workers)
    check_statistics(session, rng)
    check_cholesky(session, rng, workers)
    check_heat(session)


def check_statistics(session, rng):
    lib = session.load_library("statistics")
    A = rng.standard_normal((61, 9)) * np.geomspace(1, 1e3, 9) + 5
    for pair, block in (("MC_MR", 3), ("VC_STAR", 1), ("CIRC_CIRC", 7)):
        h = session.send_matrix(A, pair, block_size=block)
        B, mean, deviation = lib.standardized(h)
        np.testing.assert_allclose(mean, A.mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(deviation, A.std(axis=0), rtol=1e-13)
        np.testing.assert_allclose(np.asarray(B), (A - A.mean(axis=0)) / A.std(axis=0), atol=1e-12)
        norm, iterations = lib.spectral_norm(h)
        assert abs(norm - np.linalg.norm(A, 2)) <= LIMIT * eps("float64") * norm
        assert 1 < iterations < 1000
    with pytest.raises(errors.ConvergenceError, match="after 2 steps"):
        lib.spectral_norm(h, maxiter=2)
    with pytest.raises(errors.ArgumentValueError, match="column 4 of A is constant"):
        lib.standardized(session.send_matrix(np.where(np.arange(9) == 4, 1.0, A)))
    A[17, 3] = np.nan
    for task in (lib.standardized, lib.spectral_norm):
        with pytest.raises(errors.NonFiniteError, match="matrix A contains NaN"):
            task(session.send_matrix(A))
    with pytest.raises(errors.ArgumentError, match="A has dtype float32; convert it to float64"):
        lib.spectral_norm(session.send_matrix(A.astype(np.float32)))


def check_cholesky(session, rng, workers):
    lib = session.load_library("cholesky")
    n = 70
    layouts = [("MC_MR", 3), ("STAR_STAR", None), ("MR_MC", 1), ("VC_STAR", 2)]
    for position, dtype in enumerate(DTYPES, workers):  # every type in every layout, each on one number of workers
        A = definite(rng, n, dtype)
        pair, block = layouts[position % len(layouts)]
        L = np.asarray(lib.cholesky(session.send_matrix(A, pair, block_size=block)))
        assert L.dtype == dtype
        assert not np.triu(L, 1).any()
        residual = np.linalg.norm(A - L @ L.conj().T, 1) / (np.linalg.norm(A, 1) * eps(dtype) * n)
        assert residual <= LIMIT, (dtype, pair)
    A, b = definite(rng, n, "float64"), rng.standard_normal((n, 5))
    x = np.asarray(lib.solve(lib.cholesky(session.send_matrix(A)), session.send_matrix(b, "VC_STAR")))
    size = np.linalg.norm(A, 1) * np.linalg.norm(x, 1) + np.linalg.norm(b, 1)
    assert np.linalg.norm(A @ x - b, 1) / (size * eps("float64") * n) <= LIMIT
    original = session.send_matrix(A, "MC_MR", block_size=32)
    lib.cholesky(original)
    np.testing.assert_array_equal(np.asarray(original), A)  # nor is an argument in the wanted layout overwritten
    A[40, 40] = -1
    with pytest.raises(errors.ArgumentValueError, match="leading minor of order 41 is not"):
        lib.cholesky(session.send_matrix(A))
    A[60, 2] = np.inf
    with pytest.raises(errors.NonFiniteError, match="matrix A"):
        lib.cholesky(session.send_matrix(A))
    with pytest.raises(errors.ArgumentValueError, match="2 x 3, not square"):
        lib.cholesky(session.send_matrix(np.ones((2, 3))))


def check_heat(session):
    """In each step every Fourier mode of the ring decays by its own factor; uniform heating changes only the mean."""
    lib = session.load_library("heat")
    n, dt, diffusivity, steps, heating = 48, 1e-3, 0.02, 25, 0.5
    ring = lib.create(n=n, dt=dt, diffusivity=diffusivity, sensors=n, steps=steps)
    start = lib.reset(ring, seed=7)
    assert start.shape == (n,)
    assert np.ptp(start) > 0.1
    decay = 1 - 4 * diffusivity * dt * n**2 * np.sin(np.pi * np.arange(n // 2 + 1) / n) ** 2
    truth = np.fft.irfft(np.fft.rfft(start) * decay**steps, n) + heating * dt * steps
    kept = lib.snapshot(ring)
    told = [lib.step(ring, np.full(4, heating))[2:] for _ in range(steps)]
    assert [finished for finished, _ in told] == [False] * (steps - 1) + [True]
    assert told[-1][1] == pytest.approx({"time": steps * dt, "mean_temperature": np.mean(truth)}, rel=1e-12)
    np.testing.assert_allclose(lib.get_state(ring), truth, atol=1e-13)
    np.testing.assert_allclose(lib.get_field(ring)["values"], [truth], atol=1e-7)
    after = lib.get_state(ring)
    np.testing.assert_array_equal(lib.restore(ring, kept), start)
    assert [lib.step(ring, np.full(4, heating))[2] for _ in range(steps)][-1]
    np.testing.assert_array_equal(lib.get_state(ring), after)
    assert lib.get_score(ring) == pytest.approx(-np.mean(truth**2), rel=1e-12)
    lib.step(ring, [1, 0, 0, 0])
    warmed = lib.get_state(ring) - np.fft.irfft(np.fft.rfft(truth) * decay, n)
    np.testing.assert_allclose(warmed, dt * (np.arange(n) < n // 4), atol=1e-13)
    other = lib.create(n=n, sensors=n)
    np.testing.assert_array_equal(lib.reset(other, seed=7), start)
    assert not np.array_equal(lib.reset(other, seed=8), start)
    spaces = lib.get_spaces(ring)
    assert spaces["action"]["names"][2] == "third quarter"
    assert spaces["action"]["units"] == ["K/s"] * 4
    assert spaces["observation"]["high"].tolist() == [np.inf] * n
    with pytest.raises(errors.ArgumentValueError, match=r"is 1.5 outside -1.0..1.0 in component 1 \(second quarter\)"):
        lib.step(ring, [0, 1.5, 0, 0])
    with pytest.raises(errors.ArgumentValueError, match=r"heat.create: diffusivity dt n.2 is 4.608"):
        lib.create(n=n, dt=0.1, diffusivity=diffusivity)
    with pytest.raises(errors.ArgumentValueError, match="seed has more than 64 bits"):
        lib.reset(ring, seed=2**63)
    lib.close(ring)
    with pytest.raises(errors.ArgumentValueError, match="no simulation"):
        lib.get_state(ring)


def test_a_library_is_compiled_where_the_workers_are(pair):
    session, _ = pair
    heat = session.load_library("heat_from_source")
    assert heat.version == "1.0"
    assert heat.reset(heat.create(sensors=3), seed=1).shape == (3,)
    with pytest.raises(errors.LibraryLoadError, match=r"wrong.c:1:2: error: #error this is no library"):
        session.load_library("wrong")


# --- values -----------------------------------------------------------------------------------------------------------


def test_the_client_gets_signatures_and_documentation(pair):
    session, _ = pair
    lib = session.load_library("statistics")
    assert lib.version == "1.0"
    norm = lib.task("spectral_norm")
    assert [(p.name, p.kinds, p.required, p.default) for p in norm.parameters] == [
        ("A", ("matrix",), True, None),
        ("tol", ("float",), False, 1e-14),
        ("maxiter", ("int",), False, 1000),
    ]
    assert norm.returns == "tuple[float, int]"
    assert norm.parameters[0].layout == "VC_STAR"
    assert "maxiter : int, default 1000\n    Maximum number of steps." in lib.spectral_norm.__doc__
    assert "Returns\n-------\nnorm : float\n    The largest singular value." in lib.spectral_norm.__doc__
    with pytest.raises(errors.ArgumentError, match="did you mean 'maxiter'"):
        lib.spectral_norm(1, max_iter=3)


def test_defaults_cross_as_described(kinds):
    truth, integer, real, number, string, array, left_open = kinds.echo()
    assert (truth, integer, real, number, string, left_open) == (True, -3, 1.0, 1 + 2j, "hä", None)
    assert type(real) is float
    assert array.tolist() == [1, 2]
    assert array.dtype == "int64"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("truth", False),
        ("integer", 2**63 - 1),
        ("integer", -(2**63)),
        ("real", -0.0),
        ("real", float("inf")),
        ("complex", 3 - 4j),
        ("string", ""),
        ("string", "ελληνικά 😀"),
        ("string", "x" * 100_000),
        ("open", 5),
        ("open", "five"),
        ("open", None),
    ],
)
def test_scalars_come_back_as_they_were(kinds, name, value):
    place = ["truth", "integer", "real", "complex", "string", "array", "open"].index(name)
    got = kinds.echo(**{name: value})[place]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    "array",
    [
        *(np.arange(6).reshape(2, 3).astype(t) for t in ("float64", "float32", "complex128", "complex64", "int64")),
        np.arange(3, dtype=np.int32),
        np.array([[True, False]]),
        np.array(3.5),
        np.empty((0, 4)),
        np.zeros((1,) * 8),
        np.arange(12.0).reshape(3, 4)[::2, ::-1],
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_arrays_come_back_as_they_were(kinds, array):
    got = kinds.echo(array=array)[5]
    np.testing.assert_array_equal(got, array)
    assert got.dtype == array.dtype
    assert got.shape == array.shape


@pytest.mark.parametrize(
    ("array", "dtype"),
    [(np.arange(3, dtype=np.int8), "int32"), (np.arange(3, dtype=np.uint64), "int64"), (np.ones(2, ">f8"), "float64")],
)
def test_arrays_of_other_types_are_widened(kinds, array, dtype):
    got = kinds.echo(array=array)[5]
    np.testing.assert_array_equal(got, array)
    assert got.dtype == dtype


def test_getters(kinds):
    arguments = {"truth": False, "integer": 41, "real": 3, "complex": 1j, "string": "s", "array": [1, 2, 3.5]}
    truth, integer, real, number, string, total, left_open = kinds.getters(**arguments)
    assert (truth, integer, real, number, string, left_open) == (True, 42, 6.0, -1j, "s", None)
    np.testing.assert_array_equal(total, [6.5])
    assert kinds.getters(**arguments, open=0)[6] == 0


@pytest.mark.parametrize(
    ("argument", "error", "text"),
    [
        ({"string": "a\0b"}, errors.ArgumentValueError, "contains a zero byte"),
        ({"integer": 2**63}, errors.ArgumentValueError, "more than 64 bits"),
        ({"array": np.array(2**64 - 1, np.uint64)}, errors.ArgumentValueError, "elements too large for int64"),
        ({"array": [[1, 2], [3]]}, errors.ArgumentValueError, "is not an array"),
        ({"array": ["a"]}, errors.ArgumentError, "not an array of <U1"),
        ({"array": np.zeros((1,) * 9)}, errors.ArgumentError, "at most 8 dimensions"),
        ({"real": "x"}, errors.ArgumentError, "must be a number"),
    ],
)
def test_values_that_c_cannot_take(kinds, argument, error, text):
    with pytest.raises(error, match=text):
        kinds.echo(**argument)


def test_complex_numbers_are_not_made_real(kinds):
    with pytest.raises(errors.ArgumentError, match="must be an array of float64"):
        kinds.getters(truth=True, integer=1, real=1.0, complex=1, string="", array=[1j])


# --- matrices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "block"), [(3, 1), (4, 3)])
def test_index_arithmetic_in_every_layout(open_session, workers, block):
    session = open_session(workers)
    lib = session.load_library("kinds")
    m, n = 11, 7
    for pair in PAIRS:
        sources, places = lib.places(session.send_matrix(np.zeros((m, n)), pair, block_size=block))
        np.testing.assert_array_equal(np.asarray(places), np.arange(m * n).reshape(m, n), err_msg=pair)
        assert sources == m * n, pair


def test_what_a_matrix_says_about_itself(pair, kinds):
    session, _ = pair
    for dtype in (*DTYPES, "int64", "int32", "bool"):
        h = session.send_matrix(np.zeros((9, 5), dtype), "MC_MR", block_size=(3, 2), grid=(1, 2), align=(0, 1))
        name, facts = kinds.facts(h)
        flag = c_types.TYPE_FLAGS[np.dtype(dtype)]
        m, n, rows, cols, ld, kind, itemsize, *rest = facts.tolist()
        assert name == "MC_MR"
        assert (m, n, rows, cols, ld) == (9, 5, 9, 2, 2)  # columns 2 and 3: with align 1, rank 0 has the second block
        assert (kind, itemsize) == (flag, np.dtype(dtype).itemsize)
        assert rest == [3, 2, 1, 2, 0, 0, 0, 1, 0, 0, 2]


def test_a_matrix_arrives_in_the_layout_that_is_wanted(pair, kinds, rng):
    session, _ = pair
    for given in ("VC_STAR", "MR_MC"):
        name, facts = kinds.laid_out(session.send_matrix(rng.standard_normal((9, 5)), given))
        assert name == "MR_MC"
        assert facts[7:9].tolist() == [3, 2]
    with pytest.raises(errors.ArgumentError, match="dtype int64; convert it to float64 or complex64"):
        kinds.laid_out(session.send_matrix(np.ones((2, 2), int)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_and_transposes(pair, kinds, rng, dtype):
    session, _ = pair
    A = rng.standard_normal((13, 6)).astype(dtype) * (1 + 2j if dtype.startswith("complex") else 1)
    for layout in ("MC_MR:2", "STAR_VR", "STAR_STAR", "MC_MR:5x1"):
        B = kinds.there_and_back(session.send_matrix(A), layout)
        np.testing.assert_array_equal(np.asarray(B), A)
        assert B.spec.layout.pair == "VC_STAR"


def test_new_matrices_have_the_layout_that_was_asked_for(kinds):
    Z = kinds.zeros(8, 5)
    assert Z.spec.layout == dataclasses.replace(Layout.of("MC_MR", (8, 5), 2), block=(3, 2))
    np.testing.assert_array_equal(np.asarray(Z), np.zeros((8, 5)))
    with pytest.raises(errors.MatrixMemoryError):
        kinds.zeros(10**6, 10**6)
    with pytest.raises(errors.RemoteTaskError, match="asked for a -1x5 matrix"):
        kinds.zeros(-1, 5)


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (1, errors.RemoteTaskError, "kinds.fail raised error 1: code 1, and 100 % of it"),
        (2, errors.ArgumentError, "kinds.fail: code 2"),
        (3, errors.ArgumentValueError, "kinds.fail: code 3"),
        (6, errors.ConvergenceError, "kinds.fail: code 6"),
        (7, errors.LayoutError, "kinds.fail: code 7"),
        (8, errors.RemoteTaskError, "raised MemoryError: code 8"),
        (117, errors.RemoteTaskError, "raised error 117: code 117"),
        (-5, errors.RemoteTaskError, "raised error -5"),
    ],
)
def test_errors_by_code(kinds, code, error, text):
    with pytest.raises(error, match=text) as info:
        kinds.fail(code)
    assert type(info.value) is error
    assert info.value.rank == 0


def test_errors_that_name_a_matrix(kinds):
    with pytest.raises(errors.NonFiniteError, match="matrix Q contains NaN"):
        kinds.fail(4, "Q")
    with pytest.raises(errors.SingularMatrixError, match=r"matrix Q is singular \(pivot 7"):
        kinds.fail(5, "Q")


def test_a_code_without_a_text(kinds):
    with pytest.raises(errors.RemoteTaskError, match="error 117: the library gave no text"):
        kinds.fail(117, silent=True)
    assert kinds.fail(0, silent=True) is None


def test_a_failure_of_one_rank(kinds):
    with pytest.raises(errors.RemoteTaskError, match=r"error 101: on rank 1 alone \[rank 1 on"):
        kinds.fail_on(1)
    assert kinds.fail_on(2) is None


def test_a_rank_that_leaves_the_telling_to_another(kinds):
    with pytest.raises(errors.ArgumentValueError, match=r"rank 1 knows why \[rank 1 on"):
        kinds.fail_together()


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("unknown argument", "asked for the argument 'there is none', which it does not describe"),
        ("argument of another kind", "asked for the argument 'how' as a kind that it does not have"),
        ("unknown result", "returned a result 'there is none' that is not in its description"),
        ("result of another kind", "returned its result 'string' as a kind that is not"),
        ("NULL string", "its result 'string' is NULL"),
        ("NULL array", "its result 'array' is NULL"),
        ("array that lies", "shape \\(2,\\) with 3 elements"),
        ("NULL matrix", "passed a matrix that is NULL"),
        ("unknown type", "2x2 matrix of element type 3"),
        ("no result", "without its result 'string'"),
    ],
)
def test_a_library_that_uses_the_interface_wrongly(kinds, how, text):
    with pytest.raises(errors.RemoteTaskError, match=text):
        kinds.misuse(how)
    assert kinds.misuse("not at all") is not None


def test_a_matrix_of_an_earlier_call_is_not_taken_for_a_new_one(kinds):
    kinds.misuse("stale matrix")
    with pytest.raises(errors.RemoteTaskError, match="passed a matrix that is NULL or belongs to another call"):
        kinds.misuse("stale matrix")


def test_texts_that_are_not_utf8(kinds):
    with pytest.raises(errors.ArgumentValueError, match="caf\N{REPLACEMENT CHARACTER}"):
        kinds.misuse("text that is not UTF-8")
    assert kinds.misuse("result that is not UTF-8")[0] == "caf\N{REPLACEMENT CHARACTER}"


def test_a_library_can_ask_what_the_workers_have(kinds):
    assert kinds.older() is None


def test_an_unknown_layout(kinds):
    with pytest.raises(errors.LayoutError, match="MC_XX"):
        kinds.misuse("unknown layout")


def test_the_surroundings_of_a_task(pair, kinds):
    total, scratch = kinds.surroundings()
    assert total == 1
    assert Path(scratch).is_dir()


def test_a_task_that_never_ends_is_cancelled(pair, kinds):
    session, _ = pair
    pids = [row["pid"] for row in session.list_assigned_workers()]
    with pytest.raises(errors.TaskTimeoutError):
        kinds.options(timeout=0.3).forever()
    assert kinds.fail(0, silent=True) is None
    assert [row["pid"] for row in session.list_assigned_workers()] == pids  # the workers were asked to stop, not killed


def test_matrices_move_while_c_computes(pair, kinds, rng):
    session, _ = pair
    handle = session.send_matrix(A := rng.standard_normal((50, 50)))
    busy = threading.Thread(target=kinds.sleep, args=(2,))
    started = time.monotonic()
    busy.start()
    time.sleep(0.1)
    np.testing.assert_array_equal(np.asarray(handle), A)
    fetched = time.monotonic() - started
    busy.join()
    assert fetched < 1.5 < time.monotonic() - started


# --- simulators -------------------------------------------------------------------------------------------------------


def test_a_simulator_is_stepped_from_outside(pair):
    lib = pair[0].load_library("odd_simulator")
    one, two = lib.create(), lib.create()
    assert lib.reset(one, seed=5) == 5.0
    assert lib.reset(two) == -1.0
    state, living, finished, _ = lib.step(one, [[1, -2]])
    assert (state, finished) == (-14.0, False)
    with pytest.raises(errors.ArgumentValueError, match="shape"):
        lib.step(one, [1, -2])
    with pytest.raises(errors.ArgumentValueError, match=r"outside -2.0..2.0"):
        lib.step(one, [[0, 2.5]])
    spaces = lib.get_spaces(one)
    assert spaces["action"]["low"].tolist() == [[-1.0, -2.0]]
    assert spaces["observation"]["names"] == []
    lib.close(one)
    assert lib.get_score(two) == living - 1
    lib.close(two)


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("create", errors.ArgumentValueError, "odd_simulator.create: told to fail in create"),
        ("spaces", errors.ArgumentValueError, "odd_simulator.create: told to fail in spaces"),
        ("dimensions", errors.RemoteTaskError, "action space has 9 dimensions"),
        ("size", errors.RemoteTaskError, "action space has 2 dimensions, of sizes"),
        ("bounds", errors.RemoteTaskError, "observation space has a lower bound above the upper"),
    ],
)
def test_simulations_that_cannot_be_made(pair, how, error, text):
    lib = pair[0].load_library("odd_simulator")
    fine = lib.create()
    lib.reset(fine)
    living = lib.get_score(fine)
    with pytest.raises(error, match=text):
        lib.create(how=how)
    assert lib.get_score(fine) == living  # the failed simulation has been released
    lib.close(fine)


@pytest.mark.parametrize("how", ["reset", "step", "get_state"])
def test_simulations_that_fail(pair, how):
    lib = pair[0].load_library("odd_simulator")
    odd = lib.create(how=how)

    def run():
        lib.reset(odd)
        lib.step(odd, [[0, 0]])

    with pytest.raises(errors.ArgumentValueError, match=f"odd_simulator.{how}: told to fail in {how}"):
        run()
    lib.close(odd)


def test_matrices_of_a_simulation_go_with_the_call(pair):
    lib = pair[0].load_library("odd_simulator")
    odd = lib.create(n=1000)
    lib.reset(odd)
    used = memory_in_use(pair[0])
    for _ in range(20):  # each takes 8 of 64 MB
        lib.step(odd, [[0, 0]])
    assert memory_in_use(pair[0]) == used
    lib.close(odd)
    large = lib.create(n=3000)
    lib.reset(large)
    with pytest.raises(errors.MatrixMemoryError):
        lib.step(large, [[0, 0]])
    lib.close(large)


def test_simulations_have_the_surroundings_of_a_task(pair, monkeypatch):
    session, heard = pair[0], []

    class Display:
        def __init__(self, task):
            pass

        def __call__(self, report):
            heard.append((report.done, report.total))

        def close(self):
            pass

    monkeypatch.setattr(session, "make_progress", Display)
    lib = session.load_library("odd_simulator")
    fine, forever, lost = lib.create(), lib.create(how="forever"), lib.create(how="scratch")
    for odd in (fine, forever, lost):
        lib.reset(odd)
    lib.step(fine, [[0, 0]])
    assert heard == [(1.0, 1.0)]
    with pytest.raises(errors.TaskTimeoutError):
        lib.options(timeout=0.3).step(forever, [[0, 0]])
    with pytest.raises(errors.RemoteTaskError) as told:
        lib.step(lost, [[0, 0]])
    scratch = Path(re.search(r"scratch=(\S+)", str(told.value))[1])
    assert scratch.is_absolute()
    assert scratch.is_dir()
    for odd in (fine, forever, lost):
        lib.close(odd)


def test_a_simulator_in_c_has_info_pictures_and_snapshots(pair):
    lib = pair[0].load_library("odd_simulator")
    one, two = lib.create(), lib.create(how="flat_field")
    assert lib.get_spaces(one)["can"] == ["snapshot", "field"]
    lib.reset(one, seed=5)
    assert lib.step(one, [[1, 0]])[3] == {"rank": 0.0, "state": 6.0}
    seen = lib.get_field(one)
    np.testing.assert_array_equal(seen["values"], [[6, 7, 8], [9, 10, np.nan]])
    assert (seen["name"], seen["unit"], seen["low"], seen["high"]) == ("oddity", "1", -2.0, 0.0)
    kept = lib.snapshot(one)
    lib.step(one, [[1, 0]])
    assert lib.restore(two, kept) == 6.0  # another simulation, which has never been reset
    assert (lib.get_state(one), lib.get_state(two)) == (7.0, 6.0)
    assert lib.restore(one, kept) == 6.0
    assert (lib.get_field(two)["low"], lib.get_field(two)["high"]) == (None, None)
    longer = lib.create(n=1)
    with pytest.raises(errors.ArgumentValueError, match=r"snapshot has \d+ bytes on this rank, but"):
        lib.restore(longer, kept)
    for simulation in (one, two, longer):
        lib.close(simulation)


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("get_info", errors.ArgumentValueError, "odd_simulator.step: told to fail in get_info"),
        ("describe_field", errors.ArgumentValueError, "odd_simulator.get_field: told to fail in describe_field"),
        ("get_field", errors.ArgumentValueError, "odd_simulator.get_field: told to fail in get_field"),
        ("no_field", errors.RemoteTaskError, "its field is 0 x 3"),
        ("snapshot", errors.ArgumentValueError, "odd_simulator.snapshot: told to fail in snapshot"),
        ("negative_snapshot", errors.RemoteTaskError, "its snapshot has -1 bytes"),
        ("restore", errors.ArgumentValueError, "odd_simulator.restore: told to fail in restore"),
    ],
)
def test_what_a_simulation_has_beside_the_usual_may_fail(pair, how, error, text):
    lib = pair[0].load_library("odd_simulator")
    odd = lib.create(how=how)
    lib.reset(odd)

    def run():
        lib.step(odd, [[0, 0]])
        lib.get_field(odd)
        lib.restore(odd, lib.snapshot(odd))

    with pytest.raises(error, match=text):
        run()
    if how == "restore":
        lib.reset(odd)  # a half-restored simulation must be reset
    assert lib.get_state(odd) == -1.0  # nothing hangs, and the simulation still works
    lib.close(odd)


def test_a_simulation_in_c_that_diverges_must_be_reset(pair):
    lib = pair[0].load_library("odd_simulator")
    odd = lib.create(how="diverge")
    lib.reset(odd)
    with pytest.raises(errors.SimulationDivergedError, match=r"odd_simulator.step.*told to diverge"):
        lib.step(odd, [[0, 0]])
    with pytest.raises(errors.ArgumentValueError, match="has not been reset"):
        lib.get_state(odd)
    lib.reset(odd)
    lib.close(odd)


def test_a_simulator_of_version_1_of_the_header_still_runs(pair):
    lib = pair[0].load_library("version_1")
    assert lib.version == "0.9"
    old = lib.create()
    assert lib.get_spaces(old)["can"] == []
    assert lib.reset(old, seed=5) == 5.0
    assert lib.step(old, 0.5) == (5.5, 5.5, True, {})
    with pytest.raises(errors.ArgumentValueError, match="does not implement it"):
        lib.snapshot(old)
    lib.close(old)


# --- descriptions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("null", "returned NULL"),
        ("abi", f"compiled with version {c_types.ABI_VERSION + 1} of alchemist_ali.h"),
        ("other_mpi", "compiled for another MPI"),
        ("nothing", "neither tasks nor a simulator"),
        ("no_tasks", "neither tasks nor a simulator"),
        ("no_run", "task t: it has no function to run"),
        ("no_name", "task 0 has no name"),
        ("twice", "two tasks have the name 't'"),
        ("keyword", "'class' is not a valid name"),
        ("not_utf8", "is not UTF-8"),
        ("no_kind", "task t: parameter k: unknown kind 0"),
        ("unknown_kind", "unknown kind 1048576"),
        ("nameless", "parameter 0 has no name"),
        ("two_alike", "task t: two parameters have the name 'k'"),
        ("taken", "task t: parameter ctx: this name is reserved"),
        ("no_value", "the default 'fast' is not a value in Python's notation; a string has quotes: 'fast'"),
        ("other_kind", "the default 1.5 is not of the kind"),
        ("long_default", "more than 64 bits"),
        ("order", "parameter k needs a default, since j before it has one"),
        ("layout", "MC_XX"),
        ("layout_text", "not 'MC_MR/64'"),
        ("layout_block", "parameter A: block"),
        ("layout_of_int", "only a matrix has a layout"),
        ("type", "unknown element type 1048576"),
        ("type_of_int", "only a matrix or an array has an element type"),
        ("result_kind", "task t: result r: unknown kind 0"),
        ("result_twice", "two results have the name 'r'"),
        ("simulator", "the simulator: it lacks spaces, reset, step, get_state, get_score"),
        ("short_simulator", "the simulator: it claims to have 8 bytes"),
        ("half_info", "the simulator: it lacks get_info"),
        ("half_field", "the simulator: it lacks describe_field"),
        ("half_snapshot", "the simulator: it lacks snapshot_bytes, restore"),
        ("two_infos", "the simulator: its info has two entries with the same name: a, b, a"),
    ],
)
def test_wrong_descriptions_are_named(built, monkeypatch, case, text):
    monkeypatch.setenv("BROKEN", case)
    with pytest.raises(errors.LibraryLoadError) as info:
        load("lib", str(built["broken"]))
    assert text in info.value.reason
    monkeypatch.setenv("BROKEN", "fine")
    assert list(load("lib", str(built["broken"])).tasks) == ["t"]


LIBRARY = """
#include "alchemist_ali.h"
{declaration}
static int run(alchemist_call *call) {{ return {result} + alchemist_return_none(call, "r"); }}
static const alchemist_result results[] = {{{{"r", ALCHEMIST_NONE, ""}}, ALCHEMIST_END}};
static const alchemist_task tasks[] = {{{{"t", "", NULL, results, run}}, ALCHEMIST_END}};
"""
EXPORT = 'ALCHEMIST_LIBRARY("", "", tasks, NULL)'


def load_source(folder, text, compiler="mpicc"):
    source, target = folder / "lib.c", folder / "lib.so"
    source.write_text(text)
    command = [Path(sys.executable).with_name(compiler), "-w", "-shared", "-fPIC", f"-I{ALI / 'include'}"]
    subprocess.run([*command, source, "-o", target], check=True, timeout=60)
    return load("lib", str(target))


def test_a_library_without_the_entry(tmp_path):
    with pytest.raises(errors.LibraryLoadError, match=r"does not export alchemist_library.*ALCHEMIST_LIBRARY"):
        load_source(tmp_path, LIBRARY.format(declaration="", result="0"))


def test_a_symbol_that_nobody_defines(tmp_path):
    text = LIBRARY.format(declaration="int no_such_routine_(void);", result="no_such_routine_()") + EXPORT
    with pytest.raises(errors.LibraryLoadError, match="undefined symbol: no_such_routine_"):
        load_source(tmp_path, text)


def test_another_mpi(tmp_path):
    if not Path(sys.executable).with_name("mpicc_abi").exists():
        pytest.skip("no second MPI is installed")
    text = LIBRARY.format(declaration="int r;", result="MPI_Comm_rank(call->comm, &r)")
    export = """const alchemist_library_description *alchemist_library(void) {
        static const alchemist_library_description d = {ALCHEMIST_ABI_VERSION, %d, "", "", tasks, NULL}; return &d; }"""
    with pytest.raises(errors.LibraryLoadError, match=r"linked with the MPI library .*libmpi_abi.*mpicc of that"):
        load_source(tmp_path, text + export % 4, "mpicc_abi")


def test_files_that_are_no_shared_objects(tmp_path):
    with pytest.raises(errors.LibraryLoadError, match=r"the file .* does not exist"):
        load("lib", str(tmp_path / "absent.so"))
    (tmp_path / "text.so").write_text("not an object")
    with pytest.raises(errors.LibraryLoadError, match="does not load"):
        load("lib", str(tmp_path / "text.so"))


def test_a_wrong_library_reaches_the_client_by_name(pair):
    session, _ = pair
    with pytest.raises(errors.LibraryLoadError, match=r"library 'broken' could not be loaded: .*returned NULL"):
        session.load_library("broken")


@pytest.mark.parametrize("standard", ["c99", "c11", "c++98", "c++17"])
def test_the_header_is_c_and_cpp(tmp_path, standard):
    source = tmp_path / ("lib.cpp" if "++" in standard else "lib.c")
    source.write_text(LIBRARY.format(declaration="", result="0") + EXPORT)
    compiler = Path(sys.executable).with_name("mpicxx" if "++" in standard else "mpicc")
    pedantic = [] if standard == "c++98" else ["-pedantic"]  # mpi.h itself uses long long
    command = [compiler, f"-std={standard}", *pedantic, *WARNINGS, "-fvisibility=hidden", "-shared", "-fPIC"]
    subprocess.run([*command, f"-I{ALI / 'include'}", source, "-o", tmp_path / "lib.so"], check=True, timeout=60)
    assert list(load("lib", str(tmp_path / "lib.so")).tasks) == ["t"]


STRUCTURES = {
    "array": c_types.CArray,
    "axis": c_types.CAxis,
    "matrix": c_types.CMatrix,
    "value": c_types.CValue,
    "parameter": c_types.CParameter,
    "result": c_types.CResult,
    "call": c_types.CCall,
    "api": c_types.Api,
    "task": c_types.CTask,
    "box": c_types.CBox,
    "field": c_types.CField,
    "simulator": c_types.CSimulator,
    "library_description": c_types.CLibraryDescription,
}


def test_structures_and_constants_are_those_of_the_header(tmp_path):
    ours = {f"sizeof({kind})": ctypes.sizeof(structure) for kind, structure in STRUCTURES.items()}
    for kind, structure in STRUCTURES.items():
        ours |= {f"offsetof({kind}, {name})": getattr(structure, name).offset for name, _ in structure._fields_}
    constants = {member.name: member.value for closed in (c_types.Kind, c_types.Status) for member in closed}
    constants |= {f"{dtype.name.upper()}": flag for flag, dtype in c_types.ELEMENT_TYPES.items()}
    constants |= {"BOOL": 2, "BOOL8": constants["BOOL"]}  # the element type and the kind have different names
    constants |= {"ABI_VERSION": c_types.ABI_VERSION, "MAX_DIMENSIONS": c_types.MAX_DIMENSIONS}
    ours |= constants
    lines = [
        expression.replace("(", "(alchemist_", 1) if "(" in expression else f"ALCHEMIST_{expression}"
        for expression in ours
    ]
    text = "".join(f'    printf("%d\\n", (int)({line}));\n' for line in lines)
    (tmp_path / "facts.c").write_text(f'#include "alchemist_ali.h"\nint main(void)\n{{\n{text}}}\n')
    compiler = [Path(sys.executable).with_name("mpicc"), f"-I{ALI / 'include'}", tmp_path / "facts.c"]
    subprocess.run([*compiler, "-o", tmp_path / "facts"], check=True, timeout=60)
    ran = subprocess.run([tmp_path / "facts"], check=True, capture_output=True, text=True, timeout=60)
    assert dict(zip(ours, map(int, ran.stdout.split()), strict=True)) == ours


# --- crashes and leaks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["segfault", "exit", "abort", "MPI_Abort", "stack"])
def test_what_dies_in_c_takes_nobody_along(open_session, pair, rng, how):
    session, (bystander, kinds) = open_session(2), pair
    lib = session.load_library("crashes")
    kept = bystander.send_matrix(A := rng.standard_normal((30, 30)))
    pids = [row["pid"] for row in session.list_assigned_workers()]
    with pytest.raises(errors.GroupDiedError, match=r"crashes.crash|rank [01], process"):
        lib.crash(how, rank=1)
    assert wait_until(lambda: all(map(is_gone, pids)))
    np.testing.assert_array_equal(np.asarray(kinds.there_and_back(kept, "VC_STAR")), A)
    session.request_workers(2)
    assert session.load_library("kinds").fail(0, silent=True) is None


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_two_thousand_calls_leave_nothing(open_session, rng):
    session = open_session(1)
    kinds = session.load_library("kinds")
    A = session.send_matrix(rng.standard_normal((60, 50)))
    pids = [row["pid"] for row in session.list_assigned_workers()]

    def call(times):
        for _ in range(times):
            kinds.there_and_back(A, "MC_MR:3")
            kinds.echo(string="x" * 10_000, array=np.zeros(10_000))
            with pytest.raises(errors.RemoteTaskError):
                kinds.fail(117)

    call(100)
    used, before = memory_in_use(session), [resident(pid) for pid in pids]
    call(667)
    assert memory_in_use(session) <= used
    for pid, size in zip(pids, before, strict=True):
        assert resident(pid) < size + 4 * 2**20  # one array per call would be 10 MB or more
