"""Linear algebra from Ray: real Ray, real actors, real MPI workers."""

from __future__ import annotations

import dataclasses
import inspect
import os
import pydoc
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import ray
import scipy.sparse
from tests_support import wait_until

import alchemist_ray as alchemist
from alchemist_ray import errors
from alchemist_ray.calls.catalogue import ROUTINES


@pytest.fixture(scope="module", autouse=True)
def _ray():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    alchemist.shutdown()
    ray.shutdown()


def check_svd(A, U, S, Vt, k):
    """Hold a truncated SVD against the definition and NumPy's singular values."""
    assert (U.shape, S.shape, Vt.shape) == ((A.shape[0], k), (k,), (k, A.shape[1]))
    reference = np.linalg.svd(A, compute_uv=False)
    np.testing.assert_allclose(S, reference[:k], rtol=1e-9, atol=1e-12 * reference[0])
    assert np.all(np.diff(S) <= 0)
    assert np.linalg.norm(A @ Vt.T - U * S, axis=0).max() <= 1e-10 * reference[0]
    np.testing.assert_allclose(U.T @ U, np.eye(k), atol=1e-10)
    np.testing.assert_allclose(Vt @ Vt.T, np.eye(k), atol=1e-10)


@pytest.mark.parametrize("shape", [(2000, 50), (50, 2000), (300, 300)])
def test_svd_of_an_array(shape, rng):
    A = rng.standard_normal(shape)
    check_svd(A, *ray.get(alchemist.svd.remote(A, k=7)), 7)


def test_svd_without_k_is_full(rng):
    A = rng.standard_normal((60, 20))
    check_svd(A, *ray.get(alchemist.svd.remote(A)), 20)


def test_svd_of_a_reference(rng):
    A = rng.standard_normal((3000, 40))
    check_svd(A, *ray.get(alchemist.svd.remote(ray.put(A), 5)), 5)


def test_svd_of_the_result_of_a_task():
    @ray.remote
    def load():
        return np.random.default_rng(1).standard_normal((400, 30))

    U, S, Vt = ray.get(alchemist.svd.remote(load.remote(), k=3))
    check_svd(np.random.default_rng(1).standard_normal((400, 30)), U, S, Vt, 3)


def test_handles_in_handles_out(rng):
    A = rng.standard_normal((500, 40))
    handle = alchemist.put(A)
    U, S, Vt = ray.get(alchemist.svd.remote(handle, k=4))
    assert isinstance(U, alchemist.MatrixHandle)
    assert isinstance(Vt, alchemist.MatrixHandle)
    check_svd(A, np.asarray(U), S, np.asarray(Vt), 4)
    projected = ray.get(alchemist.matmul.remote(handle, ray.get(alchemist.qr.remote(alchemist.put(A.T)))[0]))
    assert isinstance(projected, alchemist.MatrixHandle)
    for result in (handle, U, Vt, projected):
        result.free()
    with pytest.raises(errors.FreedMatrixError):
        ray.get(alchemist.svd.remote(_stale(handle), 2))


def _stale(handle):
    """Return a handle that does not know that its matrix has been freed."""
    return alchemist.MatrixHandle(handle.matrix_id, handle.spec, handle.address, owned=False)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_matmul_qr_solve(dtype, rng):
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if dtype == np.float64 else {"rtol": 1e-3, "atol": 1e-3}
    A, B = rng.standard_normal((120, 80)).astype(dtype), rng.standard_normal((80, 60)).astype(dtype)
    C = ray.get(alchemist.matmul.remote(A, B))
    assert C.dtype == dtype
    np.testing.assert_allclose(C, A @ B, **tolerance)
    Q, R = ray.get(alchemist.qr.remote(A))
    np.testing.assert_allclose(Q @ R, A, **tolerance)
    np.testing.assert_allclose(Q.T @ Q, np.eye(80), **tolerance)
    np.testing.assert_array_equal(R, np.triu(R))
    M = A[:60, :60] + 20 * np.eye(60, dtype=dtype)
    for b in (B[:60, 0], B[:60]):
        x = ray.get(alchemist.solve.remote(M, b))
        assert x.shape == b.shape
        np.testing.assert_allclose(M @ x, b, **tolerance)


def test_sparse_matrices(rng):
    A = scipy.sparse.random_array((500, 400), density=0.05, rng=rng, format="csr")
    check_svd(A.toarray(), *ray.get(alchemist.svd.remote(A, k=5)), 5)
    np.testing.assert_allclose(ray.get(alchemist.matmul.remote(A, np.eye(400))), A.toarray())
    handle = alchemist.put(A)
    U, _, _ = ray.get(alchemist.svd.remote(handle, k=5))
    assert U.shape == (500, 5)
    assert (handle.fetch()[0] != A).nnz == 0


def test_integers_are_converted():
    A = np.arange(12).reshape(4, 3)
    np.testing.assert_allclose(ray.get(alchemist.matmul.remote(A, A.T)), A @ A.T)


def test_large_array_does_not_cross_the_object_store(rng):
    A = rng.standard_normal((20_000, 100))  # 16 MB

    before = _object_store_bytes()
    U, S, Vt = ray.get(alchemist.svd.remote(A, k=2))
    grown = _object_store_bytes() - before
    check_svd(A, U, S, Vt, 2)
    assert grown < A.nbytes / 4  # what came back is 0.3 MB


def _object_store_bytes():
    """Return the bytes of shared memory that Ray's object store has mapped in this process."""
    total = 0
    mapped = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0] and ":" not in line.split(" ")[0]:
            mapped = "plasma" in line
        elif mapped and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def test_calls_are_asynchronous_and_in_order(rng):
    arrays = [rng.standard_normal((200, 30)) for _ in range(6)]
    references = [alchemist.svd.remote(A, k=1) for A in arrays]
    for A, (_, S, _) in zip(arrays, ray.get(references), strict=True):
        np.testing.assert_allclose(S[0], np.linalg.norm(A, 2))


def test_from_within_a_ray_task_the_same_session_is_used(rng):
    A = rng.standard_normal((100, 10))
    mine = ray.get(alchemist.svd.remote(alchemist.put(A), k=1))[0].address

    @ray.remote
    def inner(A):
        U, _, _ = ray.get(alchemist.svd.remote(alchemist.put(A), k=1))
        return U.address, np.asarray(U).shape

    address, shape = ray.get(inner.remote(A))
    assert address == mine
    assert shape == (100, 1)


def test_sessions_side_by_side(rng):
    A = rng.standard_normal((300, 40))
    actor = alchemist.SessionActor.options(name="mine").remote(num_workers=1)
    one = alchemist.svd.options(session=actor)
    three = alchemist.svd.options(num_workers=3)
    references = [svd.remote(A, k=3) for svd in (one, three, alchemist.svd, alchemist.svd.options(session="mine"))]
    for U, S, Vt in ray.get(references):
        check_svd(A, U, S, Vt, 3)
    assert len(ray.get(actor.call.remote("list_assigned_workers"))) == 1
    handle = alchemist.put(A, session=actor)
    with pytest.raises(errors.ForeignMatrixError):
        ray.get(three.remote(handle, 2))
    U, _, _ = ray.get(alchemist.svd.remote(handle, 2))  # finds its session by itself
    assert U.address == handle.address
    ray.kill(actor)


def test_any_library_through_the_actor():
    actor = alchemist.SessionActor.remote(num_workers=2)
    assert "2" in ray.get(actor.run_task.remote("TestLib", "greet", {"name": "you"}))
    ray.kill(actor)


def test_relative_paths_follow_the_callers_directory(tmp_path, monkeypatch):
    """The actor has a working directory of its own; the paths are the caller's."""
    monkeypatch.chdir(tmp_path)
    written = ray.get(alchemist.library("files").write_npy.remote(np.eye(3), "A.npy"))
    assert written == str(tmp_path / "A.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "A.npy"), np.eye(3))


def test_server_elsewhere(server, rng):
    actor = alchemist.init(num_workers=3, hostname=server.hostname, port=server.port, token=server.token)
    try:
        A = rng.standard_normal((100, 10))
        check_svd(A, *ray.get(alchemist.svd.remote(A, 2)), 2)
        assert len(ray.get(actor.call.remote("list_assigned_workers"))) == 3
    finally:
        alchemist.shutdown()


def test_init_with_a_wrong_token(server):
    with pytest.raises(errors.AuthenticationError):
        alchemist.init(num_workers=1, hostname=server.hostname, port=server.port, token="wrong")


def test_init_with_too_many_workers(server):
    with pytest.raises(errors.NotEnoughWorkersError):
        alchemist.init(num_workers=100, hostname=server.hostname, port=server.port, token=server.token)


def test_worker_killed_between_calls_is_replaced(rng):
    A = rng.standard_normal((5000, 40))  # large enough to be written by the caller itself
    actor = alchemist.init(num_workers=2)
    check_svd(A, *ray.get(alchemist.svd.remote(A, 2)), 2)
    os.kill(ray.get(actor.call.remote("list_assigned_workers"))[1]["pid"], signal.SIGKILL)
    time.sleep(0.5)

    def works_again():
        try:
            check_svd(A, *ray.get(alchemist.svd.remote(A, 2)), 2)
        except errors.GroupDiedError:
            return False
        return True

    assert wait_until(works_again, 20)


BAD_CALLS = {
    "k too small": (lambda: alchemist.svd.remote(np.ones((4, 3)), 0), errors.ArgumentValueError, "k"),
    "k too large": (lambda: alchemist.svd.remote(np.ones((4, 3)), 4), errors.ArgumentValueError, "3"),
    "k of another type": (lambda: alchemist.svd.remote(np.ones((4, 3)), "two"), errors.ArgumentError, "'k' must be an"),
    "1-D": (lambda: alchemist.svd.remote(np.ones(4), 1), errors.InvalidArrayError, "argument A: a matrix has 2"),
    "3-D": (lambda: alchemist.svd.remote(np.ones((2, 2, 2)), 1), errors.InvalidArrayError, "has 3"),
    "strings": (lambda: alchemist.qr.remote(np.array([["a"]])), errors.InvalidArrayError, "argument A.*<U1"),
    "referenced strings": (
        lambda: alchemist.qr.remote(ray.put(np.array([["a"]]))),
        errors.InvalidArrayError,
        "argument A.*<U1",
    ),
    "nan": (lambda: alchemist.svd.remote(np.full((3, 3), np.nan), 1), errors.NonFiniteError, "NaN or Inf"),
    "shapes": (lambda: alchemist.matmul.remote(np.ones((2, 3)), np.ones((4, 5))), errors.ArgumentValueError, "4"),
    "singular": (lambda: alchemist.solve.remote(np.ones((3, 3)), np.ones(3)), errors.SingularMatrixError, "singular"),
    "missing": (lambda: alchemist.solve.remote(np.ones((3, 3))), TypeError, "missing a required argument: 'b'"),
    "unknown": (lambda: alchemist.svd.remote(np.ones((3, 3)), K=1), TypeError, "svd: unknown argument 'K': it takes"),
    "twice": (lambda: alchemist.svd.remote(np.ones((3, 3)), A=1), TypeError, "multiple values for argument 'A'"),
    "called": (lambda: alchemist.svd(np.ones((3, 3))), TypeError, "alchemist.svd.remote"),
    "both": (lambda: alchemist.svd.options(session="x", num_workers=1), ValueError, "not both"),
    "no time": (lambda: alchemist.svd.options(timeout=0.0), ValueError, "greater than 0 seconds"),
    "no workers": (lambda: alchemist.svd.options(num_workers=0), ValueError, "at least 1"),
    "no such session": (lambda: alchemist.svd.options(session="nobody").remote(np.eye(2)), ValueError, "nobody"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls(case):
    call, error, complaint = BAD_CALLS[case]
    with pytest.raises(error, match=complaint):
        ray.get(call())
    np.testing.assert_allclose(ray.get(alchemist.matmul.remote(np.eye(3), np.eye(3))), np.eye(3))


def test_documentation_and_repr():
    assert "k : int, optional" in alchemist.svd.__doc__
    assert alchemist.svd.__doc__.startswith("svd(A: ArrayLike | MatrixHandle | ObjectRef, k: int | None = None, ")
    assert repr(alchemist.svd) == "<remote function alchemist.svd(A, k, tol)>"
    assert list(inspect.signature(alchemist.svd).parameters) == ["A", "k", "tol"]


# --- any library ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything():
    """A server with a library that takes one of everything, as the default session's; that library."""
    path = Path(__file__).parents[1] / "libraries" / "everything.py"
    with alchemist.start_server(num_workers=3, libraries={"everything": str(path)}) as server:
        alchemist.init(num_workers=2, hostname=server.hostname, port=server.port, token=server.token)
        yield alchemist.library("everything")
        alchemist.shutdown()


def test_any_library_is_remote_functions(everything, rng):
    A = rng.standard_normal((50, 30))
    for given in (A, ray.put(A), A.tolist()):
        np.testing.assert_array_equal(ray.get(everything.twice.remote(given)), 2 * A)
    assert ray.get(everything.sums.remote(np.ones((3, 2), np.int32))) == ("int32", [3.0, 3.0])
    assert ray.get(everything.sums.remote(1.5)) == ("number", [1.5])
    assert ray.get(everything.sums.remote(ray.put(A[:1]), None))[1] == pytest.approx(A[0].tolist())
    large = rng.standard_normal((400, 200))  # large enough to be written by the caller itself
    assert ray.get(everything.everything.remote(large, k=ray.put(5), mode="fast"))["k"] == 5
    np.testing.assert_array_equal(ray.get(everything.twice.remote(large)), 2 * large)


def test_a_vector_is_a_column_and_comes_back_as_a_vector(everything, rng):
    for x in (rng.standard_normal(20), rng.standard_normal(50_000)):
        y = ray.get(everything.twice.remote(x))
        np.testing.assert_array_equal(y, 2 * x)
    assert ray.get(everything.twice.remote(x[:7, np.newaxis])).shape == (7, 1)


def test_handles_in_any_library(everything, rng):
    A = rng.standard_normal((60, 10))
    handle = alchemist.put(A)
    twice = ray.get(everything.twice.remote(handle))
    assert isinstance(twice, alchemist.MatrixHandle)
    four = ray.get(everything.twice.remote(everything.twice.remote(handle)))  # a reference to a handle
    np.testing.assert_array_equal(np.asarray(four), 4 * A)
    with pytest.raises(errors.DetachedHandleError, match=r"alchemist\.matmul\.remote"):
        _ = twice @ twice
    sparse = alchemist.put(scipy.sparse.eye_array(5))
    with pytest.raises(errors.ArgumentError, match="'A' is a sparse matrix"):
        everything.twice.remote(sparse)
    for matrix in (handle, twice, four, sparse):
        matrix.free()


def test_a_remote_library_documents_itself(everything):
    assert {"twice", "wait"} <= set(dir(everything))
    shown = pydoc.plain(pydoc.render_doc(everything))
    assert "A library whose tasks take one of everything." in shown
    assert "twice(A: ArrayLike | MatrixHandle | ObjectRef) -> ObjectRef" in shown
    assert "Return 2 A." in pydoc.plain(pydoc.render_doc(everything.twice))
    assert str(inspect.signature(everything.wait)) == "(seconds: float) -> ObjectRef"
    assert repr(everything.twice) == '<remote function alchemist.library("everything").twice(A)>'
    with pytest.raises(AttributeError, match=r"did you mean 'twice'\?"):
        _ = everything.twise
    assert ray.get(everything["options"].remote()) == "mine"
    with pytest.raises(TypeError, match=r"everything\"\)\.twice\.remote"):
        everything.twice(np.eye(2))
    with pytest.raises(errors.LibraryNotFoundError, match="everything"):
        alchemist.library("nothing")


def test_wrong_arguments_are_refused_before_anything_is_submitted(everything):
    for call, complaint in {
        lambda: everything.twice.remote(): "missing a required argument: 'A'",
        lambda: everything.twice.remote("A"): "'A' must be a matrix handle, not str",
        lambda: everything.everything.remote(np.eye(2), mode="fsat"): "did you mean 'fast'",
        lambda: everything.twice.remote(scipy.sparse.eye_array(5)): "'A' is a sparse matrix",
        lambda: everything.wait.remote("long"): "'seconds' must be a number",
    }.items():
        with pytest.raises(errors.LibraryError, match=complaint):
            call()


def test_a_limit_to_the_time_of_a_remote_function(everything):
    hasty = everything.options(timeout=0.3)
    with pytest.raises(errors.TaskTimeoutError, match=r"everything.wait .* 0.3 s"):
        ray.get(hasty.wait.remote(20.0))
    assert ray.get(hasty.wait.options(timeout=30.0).remote(0.4)) == "waited"
    with pytest.raises(errors.TaskTimeoutError):
        ray.get(everything.wait.options(timeout=0.3).remote(20.0))


def test_a_remote_function_is_cancelled(everything):
    reference = everything.wait.remote(60.0)
    time.sleep(1)
    started = time.monotonic()
    ray.cancel(reference)
    with pytest.raises((ray.exceptions.TaskCancelledError, errors.TaskCancelledError)):
        ray.get(reference)
    assert ray.get(everything.wait.remote(0.1)) == "waited"
    assert time.monotonic() - started < 30


def test_a_library_in_a_session_of_its_own(everything, rng):
    A = rng.standard_normal((10, 3))
    alone = alchemist.library("everything", num_workers=1)
    np.testing.assert_array_equal(ray.get(alone.twice.remote(A)), 2 * A)
    elsewhere = everything.twice.options(num_workers=1, timeout=20.0)
    np.testing.assert_array_equal(ray.get(elsewhere.remote(A)), 2 * A)

    @ray.remote
    def inner(function, A):
        return ray.get(function.remote(A))

    np.testing.assert_array_equal(ray.get(inner.remote(alone.twice, A)), 2 * A)


def test_what_the_four_say_without_a_session_is_what_the_library_says():
    linalg = alchemist.library("linalg").description
    for routine in ROUTINES.values():
        (task,) = [task for task in linalg.tasks if task.name == routine.task.name]
        theirs = {p.name: p for p in task.parameters}
        for parameter in routine.task.parameters:
            if parameter.name != routine.smaller_side:
                assert parameter == dataclasses.replace(theirs[parameter.name], layout="")
        assert [name for name in theirs if name in routine.operands.layouts] == list(routine.operands.layouts)


def test_factorisations_of_the_four_with_options(rng):
    A = rng.standard_normal((30, 20)) + 1j * rng.standard_normal((30, 20))
    Q, R, p = ray.get(alchemist.qr.remote(A, pivoting=True))
    np.testing.assert_allclose(Q @ R, A[:, p], atol=1e-12)
    M = A.conj().T @ A
    x = ray.get(alchemist.solve.remote(M, A[0], assume_a="pos"))
    np.testing.assert_allclose(M @ x, A[0], rtol=1e-8)


NAMED = ["lu", "cholesky", "lstsq", "inv", "det", "eigh", "eigvals", "expm", "pinv", "polar", "condest", "norm", "pca"]


@pytest.mark.parametrize("name", [*NAMED, "kmeans"])
def test_the_named_functions_are_tasks_of_the_library(name):
    function = getattr(alchemist, name)
    assert function.__name__ == name
    assert name in dir(alchemist)
    linalg = alchemist.library("linalg")
    assert linalg[name].__doc__.startswith(f"{name}(A: ArrayLike | MatrixHandle | ObjectRef")
    with pytest.raises(errors.ArgumentError, match="unknown argument 'nonsense'"):
        function.remote(np.eye(3), nonsense=1)
    assert function.__doc__ == linalg[name].__doc__


def test_named_functions_compute(rng):
    A = rng.standard_normal((40, 40))
    M = A @ A.T + np.eye(40)
    L = ray.get(alchemist.cholesky.remote(M, lower=True))
    np.testing.assert_allclose(L @ L.T, M)
    np.testing.assert_allclose(ray.get(alchemist.inv.remote(M)), np.linalg.inv(M))
    assert ray.get(alchemist.det.remote(A)) == pytest.approx(np.linalg.det(A))
    w, V = ray.get(alchemist.eigh.remote(M))
    np.testing.assert_allclose(M @ V, V * w, atol=1e-9)
    assert ray.get(alchemist.norm.remote(np.arange(12).reshape(3, 4), ord=1)) == 21.0
    x = ray.get(alchemist.lstsq.remote(A[:, :5], A[:, 7]))[0]
    np.testing.assert_allclose(x, np.linalg.lstsq(A[:, :5], A[:, 7])[0])


def test_five_lines_with_nothing_started_before():
    script = (
        "import numpy as np, ray\n"
        "import alchemist_ray as alchemist\n"
        "A = np.random.default_rng(0).standard_normal((1000, 30))\n"
        "U, S, Vt = ray.get(alchemist.svd.remote(A, k=3))\n"
        "print('S =', *S)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("S =")]
    A = np.random.default_rng(0).standard_normal((1000, 30))
    np.testing.assert_allclose([float(x) for x in line.split()[2:]], np.linalg.svd(A, compute_uv=False)[:3])


def test_default_session_outlives_the_one_who_used_it_first(rng):
    """Whoever made the default session may end; the next call has one all the same."""
    alchemist.shutdown()
    A = rng.standard_normal((100, 10))

    @ray.remote
    class First:
        def use(self, A):
            return ray.get(alchemist.svd.remote(A, 1))[1]

    first = First.remote()
    np.testing.assert_allclose(ray.get(first.use.remote(A)), np.linalg.norm(A, 2))
    check_svd(A, *ray.get(alchemist.svd.remote(A, 2)), 2)
    before = alchemist.put(A).address
    ray.kill(first)

    def replaced():
        try:
            return alchemist.put(A).address != before
        except ray.exceptions.RayActorError:  # it is just dying
            return False

    assert wait_until(replaced, 20)
    check_svd(A, *ray.get(alchemist.svd.remote(A, 2)), 2)


def test_operand_is_given_back_when_another_does_not_fit(server, rng):
    actor = alchemist.init(num_workers=2, hostname=server.hostname, port=server.port, token=server.token)
    A, huge = rng.standard_normal((500, 500)), np.broadcast_to(1.0, (500, 200_000))
    for _ in range(2):
        with pytest.raises(errors.MatrixMemoryError):
            alchemist.matmul.remote(A, huge)
    ray.get(alchemist.matmul.remote(A, A))
    mine = ray.get(actor.call.remote("list_assigned_workers"))[0]["session"]
    (row,) = [s for s in ray.get(actor.call.remote("server_status"))["sessions"] if s["id"] == mine]
    assert [worker["memory_in_use"] for worker in row["workers"]] == [0, 0]
    alchemist.shutdown()


def test_a_long_eigenproblem_is_cancelled_and_nothing_is_lost(server, connect, rng):
    actor = alchemist.init(num_workers=2, hostname=server.hostname, port=server.port, token=server.token)
    n = 2500  # the eigenvalues take far longer than this test
    A = rng.standard_normal((n, n))
    kept, large = alchemist.put(A[:50, :50]), alchemist.put(A)
    mine = ray.get(actor.call.remote("list_assigned_workers"))[0]["session"]
    watcher = connect()

    def runs():
        (row,) = [row for row in watcher.server_status()["sessions"] if row["id"] == mine]
        return row["workers"][0]["task"] == "linalg.eigvals"

    reference = alchemist.eigvals.remote(large)
    assert wait_until(runs, 60)
    started = time.monotonic()
    ray.cancel(reference)
    with pytest.raises((ray.exceptions.TaskCancelledError, errors.TaskCancelledError)):
        ray.get(reference)
    found = ray.get(alchemist.eigvals.remote(kept))  # by the same workers, which still have the matrix
    assert time.monotonic() - started < 30
    np.testing.assert_allclose(np.sort(found), np.sort(np.linalg.eigvals(A[:50, :50])), atol=1e-8)
    np.testing.assert_array_equal(large[:2, :], A[:2])
    alchemist.shutdown()
