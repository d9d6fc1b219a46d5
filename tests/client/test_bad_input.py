"""Bad input gets a clear, typed error within a second, and the session works on."""

from __future__ import annotations

import socket
import struct
import threading
import time
import traceback

import numpy as np
import pytest

import alchemist_ray as alchemist
from alchemist_ray import errors
from alchemist_ray.client.address import GroupAddress
from alchemist_ray.client.matrices.handle import MatrixHandle
from alchemist_ray.protocol import frames


@pytest.fixture(autouse=True)
def _quick(request):
    """Every error here comes at once: on a busy machine too, it comes before any time limit has run out."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 20


@pytest.fixture
def works_on(session):
    """Check, after the error, that the session and its matrices are as they were."""
    A = np.arange(12.0).reshape(3, 4)
    handle = session.send_matrix(A)
    yield session
    np.testing.assert_array_equal(session.fetch_matrix(handle), A)
    assert session.run_task("faults", "echo", value="alive") == "alive"


# --- the server -------------------------------------------------------------------------------------------------------


def test_wrong_token(server):
    with pytest.raises(errors.AuthenticationError, match=r"token is wrong|does not know this token"):
        alchemist.AlchemistSession().connect(server.hostname, server.port, "not the token")


def test_no_token(server, monkeypatch, tmp_path):
    for name in ("ALCHEMIST_TOKEN", "ALCHEMIST_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(errors.AuthenticationError, match="no token was given"):
        alchemist.AlchemistSession().connect(server.hostname, server.port)


@pytest.mark.parametrize("hostname", ["no-such-host.invalid", "127.0.0.1"])
def test_a_server_that_is_not_there_is_reported_before_a_missing_token(hostname, monkeypatch, tmp_path):
    for name in ("ALCHEMIST_TOKEN", "ALCHEMIST_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(errors.ServerUnreachableError, match=hostname):
        alchemist.AlchemistSession().connect(hostname, port)


def test_port_where_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(errors.ServerUnreachableError, match=f"127.0.0.1:{port}.*alchemist serve --port {port}"):
        alchemist.AlchemistSession().connect("127.0.0.1", port, "token")


def test_host_that_does_not_exist():
    with pytest.raises(errors.ServerUnreachableError, match=r"no-such-host\.invalid"):
        alchemist.AlchemistSession().connect("no-such-host.invalid", 24960, "token")


def _serve_once(reply):
    """Listen on a port where somebody else than Alchemist answers `reply`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(reply)
        time.sleep(0.5)
        connection.close()
        listener.close()

    threading.Thread(target=answer, daemon=True).start()
    return listener.getsockname()[1]


def test_server_of_another_protocol_version():
    port = _serve_once(struct.pack("<BBHIQ", frames.VERSION + 1, 5, 0, 0, 0))
    with pytest.raises(errors.ProtocolVersionError, match=f"speaks version {frames.VERSION}, the peer version 2"):
        alchemist.AlchemistSession().connect("127.0.0.1", port, "token")


def test_server_of_another_protocol():
    port = _serve_once(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(errors.ProtocolVersionError, match="is that of an Alchemist server"):
        alchemist.AlchemistSession().connect("127.0.0.1", port, "token")


def test_client_of_another_protocol_version_is_told(server):
    with socket.create_connection((server.hostname, server.port)) as sock:
        sock.sendall(struct.pack("<BBHIQ", frames.VERSION + 1, 1, 0, 0, 0))
        answer = sock.recv(1000)
    assert answer[0] == frames.VERSION
    assert b"ProtocolVersionError" in answer


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x01" * 100, b"\x01\x01\0\0\xff\xff\xff\xff" + b"\0" * 8]
)
def test_garbage_does_not_hurt_the_server(server, works_on, garbage):
    with socket.create_connection((server.hostname, server.port)) as sock:
        sock.sendall(garbage)
        sock.settimeout(5)
        while sock.recv(1000):
            pass


# --- workers ----------------------------------------------------------------------------------------------------------


def test_more_workers_than_are_free(connect, works_on):
    session = connect()
    with pytest.raises(
        errors.NotEnoughWorkersError, match=r"99 workers were requested, but the server's .* at most 12"
    ) as info:
        session.request_workers(99)
    assert info.value.total == 12
    assert any(holder.startswith(f"session {works_on.session_id}: 2") for holder in info.value.holders)
    session.request_workers(1)


@pytest.mark.parametrize("count", [0, -1])
def test_no_workers_requested(connect, count):
    with pytest.raises(errors.ArgumentValueError, match="at least 1"):
        connect().request_workers(count)


def test_commands_without_workers(connect):
    session = connect()
    for command in (
        lambda: session.send_matrix(np.eye(2)),
        lambda: session.load_library("TestLib"),
        lambda: session.run_task("TestLib", "greet", name="you"),
        session.yield_workers,
    ):
        with pytest.raises(errors.NoWorkersError, match="request_workers"):
            command()


# --- matrices ---------------------------------------------------------------------------------------------------------

NO_MATRICES = {
    "objects": (np.array([[1, "a"]], dtype=object), "dtype object"),
    "strings": (np.array([["a", "b"]]), "dtype <U1"),
    "dates": (np.array([["2026-01-01"]], dtype="M8[D]"), "dtype datetime64"),
    "float16": (np.ones((2, 2), np.float16), r"astype\(np.float64\)"),
    "3-D": (np.ones((2, 2, 2)), "has 3"),
    "0-D": (np.float64(1), "has 0"),
    "ragged": ([[1, 2], [3]], "not a matrix"),
    "masked": (np.ma.masked_greater([[1.0, 2.0, 9999.0]], 100), "1 of its elements are masked.*filled"),
    "masked in a list": ([np.ma.masked_greater([1.0, 9999.0], 100), [1.0, 2.0]], "1 of its elements are masked"),
    "masked rows": (np.ma.masked_invalid([[np.nan, 2.0], [1.0, np.nan]]), "2 of its elements are masked"),
}


@pytest.mark.parametrize("case", NO_MATRICES)
def test_what_is_no_matrix(works_on, case):
    array, complaint = NO_MATRICES[case]
    with pytest.raises(errors.InvalidArrayError, match=complaint):
        works_on.send_matrix(array)


def test_masked_elements_are_refused_by_writers_and_block_by_block_too(works_on):
    masked = np.ma.masked_greater([[1.0, 2.0, 9999.0]], 100)
    with pytest.raises(errors.InvalidArrayError, match="masked"):
        works_on.send_matrix(iter([masked]), shape=(1, 3))
    writer = works_on.matrix_writer((1, 3))
    with pytest.raises(errors.InvalidArrayError, match="masked"):
        writer.write(masked)
    with pytest.raises(errors.InvalidArrayError, match="masked"):
        writer.write(masked[0])
    writer.abort()


def test_a_masked_array_without_masked_elements_is_a_matrix(works_on):
    assert works_on.send_matrix(np.ma.array([[1.0, 2.0]])).sum() == 3.0


def test_a_vector_is_one_column(works_on):
    handle = works_on.send_matrix(np.arange(5.0))
    np.testing.assert_array_equal(np.asarray(handle), np.arange(5.0)[:, None])


def test_a_data_frame_is_a_matrix_if_its_columns_are_numbers(works_on):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    np.testing.assert_array_equal(np.asarray(works_on.send_matrix(frame)), frame.to_numpy())
    with pytest.raises(errors.InvalidArrayError, match="dtype object"):
        works_on.send_matrix(pandas.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}))


def test_blocks_are_not_converted_to_another_kind_of_number(works_on):
    with pytest.raises(errors.InvalidArrayError, match="complex128 would lose more than digits as float64"):
        works_on.send_matrix(iter([np.ones((2, 2), complex)]), shape=(2, 2), dtype=float)
    with pytest.raises(errors.InvalidArrayError, match="float64 would lose more than digits as int64"):
        works_on.send_matrix(iter([np.full((2, 2), 1.5)]), shape=(2, 2), dtype=np.int64)
    with pytest.raises(errors.InvalidArrayError, match="int64 do not fit into int32"):
        works_on.send_matrix(iter([np.full((2, 2), 2**40)]), shape=(2, 2), dtype=np.int32)


@pytest.mark.parametrize("value", [1.7, 2.0, "2", True, None])
def test_a_number_of_workers_that_is_not_an_integer(connect, value):
    session = connect()
    with pytest.raises(errors.ArgumentError, match="num_workers must be an integer"):
        session.request_workers(value)
    with pytest.raises(errors.ArgumentError, match="lines must be an integer"):
        session.worker_logs(value)


@pytest.mark.parametrize("row", [0.5, "0", None])
def test_a_place_of_a_block_that_is_not_an_integer(works_on, row):
    writer = works_on.matrix_writer((4, 3))
    with pytest.raises(TypeError):
        writer.write(np.ones((1, 3)), row=row)
    writer.abort()


@pytest.mark.parametrize("action", [np.array([1j]), np.array(["0.5"]), [None]])
def test_an_action_that_is_not_real(works_on, action):
    with pytest.raises(errors.ArgumentError, match="real numbers"):
        works_on.step_simulation("heat", 1, action)
    with pytest.raises(errors.ArgumentError, match="real numbers"):
        works_on.advance_batch("heat", 1, b"", action)


def test_an_unknown_option_of_a_layout_is_named_with_the_one_that_was_meant(works_on):
    with pytest.raises(TypeError, match="unknown option 'blocksize' of a layout; did you mean 'block_size'"):
        works_on.send_matrix(np.eye(3), blocksize=2)


@pytest.mark.parametrize(("given", "meant"), [("VC_STARS", "VC_STAR"), ("mc_mr", "MC_MR"), ("VC,*", "VC_STAR")])
def test_a_layout_is_named_that_was_meant(works_on, given, meant):
    with pytest.raises(errors.LayoutError, match=f"did you mean '{meant}'"):
        works_on.send_matrix(np.eye(3), given)


def test_a_library_is_named_that_was_meant(works_on):
    with pytest.raises(errors.LibraryNotFoundError, match="did you mean 'linalg'"):
        works_on.load_library("lineag")


def test_layout_that_does_not_exist(works_on):
    with pytest.raises(errors.LayoutError, match=r"layout 'VC_VC' does not exist.*VC_STAR"):
        works_on.send_matrix(np.eye(3), layout="VC_VC")


def test_grid_that_does_not_fit_the_workers(works_on):
    with pytest.raises(errors.LayoutError, match="6 ranks, but the worker group has 2"):
        works_on.send_matrix(np.eye(3), layout=alchemist.Layout("MC_MR", alchemist.Grid(2, 3)))


def test_matrix_larger_than_the_workers_memory(works_on):
    huge = np.broadcast_to(1.0, (100_000, 100_000))  # 80 GB that are not there: nothing can have been sent
    with pytest.raises(errors.MatrixMemoryError, match="memory-per-worker") as info:
        works_on.send_matrix(huge)
    assert info.value.limit <= 256 * 2**20
    assert info.value.needed > info.value.limit
    assert works_on.server_status()["sessions"][0]["workers"][0]["memory_in_use"] < 2**20


def test_result_larger_than_one_workers_memory(works_on):
    with pytest.raises(MemoryError):
        works_on.run_task("faults", "one_sided", bytes_on_last=2**30)
    np.asarray(works_on.run_task("faults", "one_sided", bytes_on_last=800))


def test_freed_handle(works_on):
    handle = works_on.send_matrix(np.eye(3))
    handle.free()
    assert "freed" in repr(handle)
    for use in (
        lambda: np.asarray(handle),
        lambda: works_on.fetch_matrix(handle),
        lambda: works_on.run_task("faults", "scale", A=handle, factor=1),
    ):
        with pytest.raises(errors.FreedMatrixError, match=f"matrix {handle.matrix_id} has been freed"):
            use()


def test_matrix_freed_behind_the_sessions_back_on_one_worker(works_on):
    """The ranks agree before a task starts: the one that has lost the matrix does not leave the other in MPI."""
    from alchemist_ray.client.transfer.plane import plane_of
    from alchemist_ray.protocol import messages as m

    handle = works_on.send_matrix(np.eye(30), layout="VC_STAR")
    plane_of(handle.address).connections[1].request(lambda n: m.FreeMatrices(n, [handle.matrix_id]))
    with pytest.raises(errors.FreedMatrixError, match="rank 1"):
        works_on.run_task("faults", "total", A=handle)


def test_incomplete_matrix(works_on):
    from alchemist_ray.client.transfer.plane import plane_of
    from alchemist_ray.layouts.spec import spec_of

    spec = spec_of(np.eye(30), "VC_STAR", 2)
    plane = plane_of(works_on.address)
    plane.create(777_777, spec)
    plane.write(777_777, spec, np.eye(30)[:15], 0, 0)
    handle = MatrixHandle(777_777, spec, works_on.address, owned=True)
    with pytest.raises(errors.IncompleteMatrixError, match="450 of the 450 elements of rank 1"):
        works_on.run_task("faults", "total", A=handle)
    with pytest.raises(errors.RegionError, match=r"rows 0\.\.14, columns 0\.\.29 of matrix 777777: has been written"):
        plane.write(777_777, spec, np.eye(30), 0, 0)
    plane.write(777_777, spec, np.eye(30)[15:], 15, 0)
    assert works_on.run_task("faults", "total", A=handle) == 30


def test_handle_of_another_session(connect, works_on):
    other = connect(1)
    foreign = other.send_matrix(np.eye(3))
    with pytest.raises(
        errors.ForeignMatrixError, match=f"belongs to session {other.name}, not to session {works_on.name}"
    ):
        works_on.run_task("faults", "scale", A=foreign, factor=1)
    with pytest.raises(errors.ForeignMatrixError):
        works_on.fetch_matrix(foreign)


def test_ticket_of_another_session(connect, works_on):
    """A client cannot reach another session's workers with its own ticket."""
    other = connect(1)
    forged = GroupAddress(other.address.group_id, other.name, works_on.address.ticket, other.address.endpoints, "auto")
    handle = MatrixHandle(1, other.send_matrix(np.eye(2)).spec, forged, owned=False)
    with pytest.raises(errors.AuthenticationError):
        np.asarray(handle)


def test_out_that_does_not_fit(works_on):
    handle = works_on.send_matrix(np.eye(3))
    for out in (np.empty((2, 3)), np.empty((3, 3), np.float32)):
        with pytest.raises(errors.InvalidArrayError, match=r"shape \(3, 3\) and dtype float64"):
            works_on.fetch_matrix(handle, out=out)


# --- libraries and arguments ------------------------------------------------------------------------------------------


def test_library_that_does_not_exist(works_on):
    for call in (lambda: works_on.load_library("Nope"), lambda: works_on.run_task("Nope", "task")):
        with pytest.raises(errors.LibraryNotFoundError, match=r"no library 'Nope'; it has TestLib, .*faults, fft,"):
            call()


def test_library_from_a_path_is_refused(works_on, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("")
    with pytest.raises(errors.LibraryRefusedError, match="only its owner may name paths"):
        works_on.load_library("mine", str(path))


def test_library_may_be_named_with_its_registered_path(works_on):
    (row,) = [row for row in works_on.list_available_libraries() if row["name"] == "faults"]
    assert works_on.load_library("faults", row["source"]).name == "faults"


def test_library_that_does_not_import(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import a_module_that_is_not_there\n")
    with (
        alchemist.start_server(
            num_workers=2, libraries={"broken": str(broken), "gone": str(tmp_path / "no.py")}
        ) as server,
        alchemist.AlchemistSession() as session,
    ):
        session.connect(server.hostname, server.port, server.token)
        session.request_workers(2)
        with pytest.raises(errors.LibraryLoadError, match="No module named 'a_module_that_is_not_there'"):
            session.load_library("broken")
        with pytest.raises(errors.LibraryLoadError, match=r"the file .*no\.py does not exist"):
            session.load_library("gone")


def test_task_that_does_not_exist(works_on):
    with pytest.raises(errors.TaskNotFoundError, match=r"no task 'fly'; it has abort, choose, "):
        works_on.run_task("faults", "fly")
    with pytest.raises(AttributeError, match="no task 'fly'"):
        works_on.load_library("faults").fly  # noqa: B018


BAD_ARGUMENTS = {
    "missing": ({}, "missing a required argument: 'A'"),
    "unknown": ({"k": 1, "tl": 2}, "unknown argument 'tl': did you mean 'tol'"),
    "type": ({"k": "three"}, "argument 'k' must be an integer, not str"),
    "bool for int": ({"k": True}, "argument 'k' must be an integer, not bool"),
    "float for int": ({"k": 1.5}, "argument 'k' must be an integer, not float"),
    "none": ({"k": None}, "argument 'k' must be an integer, not NoneType"),
    "array": ({"k": 1, "A": np.eye(2)}, "argument 'A' must be a matrix handle, not ndarray: send the array first"),
    "union": ({"k": 1, "name": 7}, "argument 'name' must be a str or None, not int"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments(works_on, case):
    arguments, complaint = BAD_ARGUMENTS[case]
    if case != "missing":
        arguments = {"A": works_on.send_matrix(np.eye(2)), **arguments}
    with pytest.raises(errors.ArgumentError, match=complaint):
        works_on.run_task("faults", "typed", **arguments)


def test_argument_that_cannot_cross_the_wire(works_on):
    with pytest.raises(errors.ArgumentError, match="set cannot cross the wire"):
        works_on.run_task("faults", "echo", value={1, 2})


def test_result_that_cannot_cross_the_wire(works_on):
    with pytest.raises(errors.RemoteTaskError, match="set cannot cross the wire"):
        works_on.run_task("faults", "unspeakable")


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, -1, 6])
def test_rank_out_of_range(works_on, k):
    A = works_on.send_matrix(np.random.default_rng(0).random((8, 5)))
    with pytest.raises(errors.ArgumentValueError, match=r"k.*5"):
        works_on.run_task("linalg", "truncated_svd", A=A, k=k)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("layout", ["MC_MR", "VC_STAR"])
def test_nan_and_inf(works_on, bad, layout):
    A = np.random.default_rng(0).random((8, 8))
    A[7, 7] = bad  # on the last rank alone
    handle, b = works_on.send_matrix(A, layout=layout), works_on.send_matrix(np.ones((8, 1)))
    with pytest.raises(errors.NonFiniteError, match="matrix A contains NaN or Inf"):
        works_on.run_task("linalg", "truncated_svd", A=handle, k=2)
    with pytest.raises(errors.NonFiniteError, match="matrix A contains NaN or Inf"):
        works_on.run_task("linalg", "solve", A=handle, b=b)


def test_shapes_that_do_not_multiply(works_on):
    A, B = (works_on.send_matrix(np.ones(shape)) for shape in ((3, 4), (5, 6)))
    with pytest.raises(errors.ArgumentValueError, match=r"3.*4.*5.*6"):
        works_on.run_task("linalg", "gemm", A=A, B=B)


def test_system_that_is_not_square_or_does_not_fit(works_on):
    A, S, b = (works_on.send_matrix(np.ones(shape)) for shape in ((3, 4), (3, 3), (4, 1)))
    for left in (A, S):
        with pytest.raises(errors.ArgumentValueError):
            works_on.run_task("linalg", "solve", A=left, b=b)


def test_singular_system(works_on):
    A, b = works_on.send_matrix(np.ones((6, 6))), works_on.send_matrix(np.ones((6, 1)))
    with pytest.raises(errors.SingularMatrixError, match="matrix A is singular"):
        works_on.run_task("linalg", "solve", A=A, b=b)


def test_type_that_the_routine_does_not_take(works_on):
    A = works_on.send_matrix(np.ones((3, 3), np.int64))
    with pytest.raises(errors.LibraryError, match="int64"):
        works_on.run_task("linalg", "qr", A=A)


# --- lost connections -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "yield_workers"])
def test_a_handle_of_workers_that_were_given_back_says_so_in_few_lines(connect, end):
    session = connect(1)
    handle = session.send_matrix(np.eye(3))
    getattr(session, end)()
    for use in (lambda: np.asarray(handle), lambda: handle[0, 0], lambda: next(handle.rows())):
        with pytest.raises(errors.GroupEndedError, match="given them back, or was stopped") as caught:
            use()
        assert len("".join(traceback.format_exception(caught.value)).splitlines()) < 30
    with pytest.raises(errors.SessionError):
        handle.norm()
    handle.free()  # it is freed already
