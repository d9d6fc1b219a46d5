"""Matrices written and read part by part: by many senders, in any order, larger than memory, and what is refused."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from tests_support import wait_until

import alchemist_ray as alchemist
from alchemist_ray import errors, progress
from alchemist_ray.layout import PAIRS
from alchemist_ray.region import Rectangle
from alchemist_ray.transfer import plane_of


@pytest.fixture(scope="module", params=["auto", "tcp"])
def session(request, server):
    with alchemist.AlchemistSession(transport=request.param) as opened:
        opened.connect(server.hostname, server.port, server.token)
        opened.request_workers(4)
        yield opened


def blocks_of(A, heights, widths):
    """Yield the rectangles of a matrix that is cut along both axes, with where they begin."""
    rows, cols = np.cumsum([0, *heights]), np.cumsum([0, *widths])
    for (i0, i1), (j0, j1) in itertools.product(itertools.pairwise(rows), itertools.pairwise(cols)):
        yield int(i0), int(j0), A[i0:i1, j0:j1]


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [None, 1, (3, 2)])
@pytest.mark.parametrize("pair", PAIRS)
def test_parts_in_any_order_make_the_matrix(session, rng, pair, block_size):
    A = rng.standard_normal((41, 23))
    writer = session.matrix_writer(A.shape, A.dtype, pair, block_size=block_size)
    parts = list(blocks_of(A, [1, 17, 20, 3], [5, 18]))
    for number in rng.permutation(len(parts)):
        row, column, block = parts[number]
        writer.write(block, row=row, column=column)
    handle = writer.close()
    np.testing.assert_array_equal(np.asarray(handle), A)
    assert handle.layout == pair
    assert session.run_task("faults", "total", A=handle) == pytest.approx(A.sum())


def test_a_task_sees_every_copy_of_a_redundant_matrix(session, rng):
    A = rng.standard_normal((30, 20))
    for pair in ("STAR_STAR", "MC_STAR", "STAR_MR", "MR_STAR"):
        handle = session.send_matrix(A, pair)
        sums = session.run_task("faults", "local_sums", A=handle)
        layout = handle.spec.layout
        for rank, total in enumerate(sums):
            rows, cols = layout.part(A.shape, rank)
            assert total == pytest.approx(A[np.ix_(rows.indices(), cols.indices())].sum())


@pytest.mark.parametrize("dtype", ["float32", "complex128", "int64", "bool"])
def test_blocks_are_cast_only_safely(session, dtype):
    writer = session.matrix_writer((4, 6), dtype, "VC_STAR")
    writer.write(np.ones((2, 6), bool))
    writer.write(np.ones(6, bool), row=2)
    wider = {"float32": "float64", "complex128": "complex256", "int64": "float64", "bool": "int32"}[dtype]
    with pytest.raises(errors.InvalidArrayError, match=f"not safely cast to the {dtype} of the matrix"):
        writer.write(np.ones((1, 6), wider), row=3)
    writer.write([[True] * 6], row=3)
    np.testing.assert_array_equal(np.asarray(writer.close()), np.ones((4, 6), dtype))


@pytest.mark.parametrize(
    ("row", "column", "shape", "region"),
    [
        (8, 0, (3, 5), r"rows 8\.\.10, columns 0\.\.4"),
        (-1, 0, (3, 5), r"rows -1\.\.1, columns 0\.\.4"),
        (0, 3, (2, 3), r"rows 0\.\.1, columns 3\.\.5"),
        (0, -2, (2, 3), r"rows 0\.\.1, columns -2\.\.0"),
        (10**9, 0, (1, 1), r"rows 1000000000\.\.1000000000"),
    ],
)
def test_a_part_outside_the_matrix_is_refused_by_its_region(session, row, column, shape, region):
    writer = session.matrix_writer((10, 5), np.float64)
    with pytest.raises(errors.RegionError, match=region + r".*lies outside the 10 x 5 matrix"):
        writer.write(np.ones(shape), row=row, column=column)
    assert writer.missing() == [Rectangle(0, 10, 0, 5)]
    writer.abort()


def test_a_part_written_twice_is_refused_and_changes_nothing(session, rng):
    A = rng.standard_normal((40, 8))
    writer = session.matrix_writer(A.shape, A.dtype, "VC_STAR", block_size=3)
    writer.write(A[:20])
    for start, stop in ((0, 20), (19, 40), (5, 6)):
        with pytest.raises(errors.RegionError, match="has been written before") as caught:
            writer.write(np.zeros((stop - start, 8)), row=start)
        assert "rows" in caught.value.region
    assert writer.missing() == [Rectangle(20, 40, 0, 8)]
    writer.write(A[20:], row=20)
    np.testing.assert_array_equal(np.asarray(writer.close()), A)
    with pytest.raises(errors.RegionError, match="the writer is closed"):
        writer.write(A[:1])


@pytest.mark.parametrize(("pair", "block_size"), [("VC_STAR", None), ("VC_STAR", 1), ("MC_MR", 4), ("STAR_VR", 2)])
def test_what_is_missing_at_close_is_named_and_can_be_written_then(session, rng, pair, block_size):
    A = rng.standard_normal((60, 50))
    writer = session.matrix_writer(A.shape, A.dtype, pair, block_size=block_size)
    writer.write(A[:16])
    writer.write(A[32:], row=32)
    with pytest.raises(errors.IncompleteMatrixError, match=r"rows 16\.\.31, columns 0\.\.49 not written"):
        writer.close()
    with pytest.raises(errors.IncompleteMatrixError):
        session.run_task("faults", "total", A=writer._handle)
    writer.write(A[16:32], row=16)
    assert writer.missing() == []
    handle = writer.close()
    assert writer.close() is handle
    np.testing.assert_array_equal(np.asarray(handle), A)


def test_interleaved_rows_that_are_missing_are_named_one_by_one(session):
    writer = session.matrix_writer((6, 4), np.float64, "VC_STAR", block_size=1)
    for row in (1, 3, 4, 5):
        writer.write(np.ones((1, 4)), row=row)
    assert writer.missing() == [Rectangle(0, 1, 0, 4), Rectangle(2, 3, 0, 4)]
    for region in writer.missing():
        writer.write(np.ones(region.shape), row=region.i0, column=region.j0)
    assert writer.close().sum() == 24


def test_a_matrix_that_no_machine_holds_is_refused_and_the_session_goes_on(session):
    handle = session.send_matrix(np.eye(3))
    for shape in ((2**62, 1), (2**40, 2**40)):
        with pytest.raises(errors.AlchemistError) as caught:
            session.matrix_writer(shape)
        assert not isinstance(caught.value, errors.GroupDiedError)
    np.testing.assert_array_equal(np.asarray(handle), np.eye(3))


def test_a_writer_is_a_context_manager(session, rng):
    A = rng.standard_normal((6, 4))
    with session.matrix_writer(A.shape) as writer:
        writer.write(A)
    np.testing.assert_array_equal(np.asarray(writer.close()), A)
    writer = session.matrix_writer(A.shape)
    with pytest.raises(errors.RegionError), writer:
        writer.write(A[:1], row=6)
    with pytest.raises(errors.FreedMatrixError):
        writer.write(A[1:], row=1)


def test_a_writer_that_nobody_refers_to_gives_its_memory_back(session):
    before = memory_in_use(session)
    writer = session.matrix_writer((500, 500))
    assert sum(memory_in_use(session)) >= sum(before) + 500 * 500 * 8
    del writer
    assert memory_in_use(session) == before


def memory_in_use(session):
    """Return the bytes that each worker has in use, what was dropped before being freed."""
    plane_of(session.address).free_dropped()
    (row,) = [s for s in session.server_status()["sessions"] if s["id"] == session.session_id]
    return [worker["memory_in_use"] for worker in row["workers"]]


# --- many senders -----------------------------------------------------------------------------------------------------


def test_64_threads_write_one_matrix(session, rng):
    A = rng.standard_normal((640, 33))
    writer = session.matrix_writer(A.shape, A.dtype, "MC_MR", block_size=7)
    failures = []

    def write(number):
        try:
            writer.write(A[10 * number : 10 * number + 10], row=10 * number)
        except errors.AlchemistError as failure:
            failures.append(failure)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    np.testing.assert_array_equal(np.asarray(writer.close()), A)


SHARE = """
import pickle, sys
import numpy as np
writer, first, last = pickle.loads(sys.stdin.buffer.read())
rows = np.arange(first, last)
writer.write(rows[:, np.newaxis] * 1000.0 + np.arange(writer.shape[1]), row=first)
"""


def test_processes_write_one_matrix(session):
    writer = session.matrix_writer((80, 30), np.float64, "VC_STAR", block_size=3)
    senders = [subprocess.Popen([sys.executable, "-c", SHARE], stdin=subprocess.PIPE) for _ in range(4)]
    for number, sender in enumerate(senders):
        sender.stdin.write(pickle.dumps((writer, 20 * number, 20 * number + 20)))
        sender.stdin.close()
    assert [sender.wait(30) for sender in senders] == [0] * 4
    expected = np.arange(80)[:, np.newaxis] * 1000.0 + np.arange(30)
    np.testing.assert_array_equal(np.asarray(writer.close()), expected)


DYING = """
import os, pickle, signal, sys
import numpy as np
from alchemist_ray import tiling
writer = pickle.loads(sys.stdin.buffer.read())
writer.write(np.ones((10, 30)))
scatter = tiling.scatter
def die(*args, **kwargs):
    scatter(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
tiling.scatter = die
writer.write(np.full((30, 30), 7.0)[:, ::-1], row=10)
"""


def test_the_part_of_a_sender_that_dies_half_way_is_missing_and_can_be_written_again(session):
    writer = session.matrix_writer((60, 30), np.float64, "MC_MR", block_size=4)
    died = subprocess.run([sys.executable, "-c", DYING], input=pickle.dumps(writer), timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    writer.write(np.full((20, 30), 2.0), row=40)
    assert wait_until(lambda: writer.missing() == [Rectangle(10, 40, 0, 30)])
    with pytest.raises(errors.IncompleteMatrixError, match=r"rows 10\.\.39, columns 0\.\.29"):
        writer.close()
    wait_until(lambda: resumed(writer))
    got = np.asarray(writer.close())
    np.testing.assert_array_equal(got[:, 3], np.repeat([1.0, 3.0, 2.0], [10, 30, 20]))


HALF_COMMITTED = """
import os, pickle, signal, sys
import numpy as np
from alchemist_ray import transfer
from alchemist_ray.protocol import messages as m
writer = pickle.loads(sys.stdin.buffer.read())
ask = transfer._ask_parts
def ask_and_die(make, matrix_id, parts):
    if make is not m.CommitBlock:
        return ask(make, matrix_id, parts)
    ask(make, matrix_id, parts[:1])
    os.kill(os.getpid(), signal.SIGKILL)
transfer._ask_parts = ask_and_die
writer.write(np.full((60, 30), 7.0))
"""


def test_a_part_whose_sender_dies_when_not_all_workers_know_that_it_is_written_can_be_written_again(session):
    writer = session.matrix_writer((60, 30), np.float64, "MC_MR", block_size=4)
    died = subprocess.run([sys.executable, "-c", HALF_COMMITTED], input=pickle.dumps(writer), timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    assert 0 < sum(region.area for region in writer.missing()) < 60 * 30

    def written():
        try:
            writer.write(np.full((60, 30), 7.0))
        except errors.RegionError:  # a worker has not noticed yet that the sender is gone
            return False
        return True

    with pytest.raises(errors.RegionError):
        writer.write(np.full((59, 30), 8.0))
    assert wait_until(written)
    np.testing.assert_array_equal(np.asarray(writer.close()), np.full((60, 30), 7.0))


def resumed(writer):
    try:
        writer.write(np.full((30, 30), 3.0), row=10)
    except errors.RegionError:  # a worker has not noticed yet that the sender is gone
        return False
    return True


# --- blocks of rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", ["VC_STAR", "MC_MR", "STAR_VR"])
def test_an_iterator_of_row_blocks_is_a_matrix(session, rng, pair):
    A = rng.standard_normal((57, 11))
    blocks = (A[start : start + 10] for start in range(0, 57, 10))
    handle = session.send_matrix(blocks, pair, shape=A.shape)
    np.testing.assert_array_equal(np.asarray(handle), A)
    rows = session.send_matrix(iter(A.tolist()), shape=A.shape)
    np.testing.assert_array_equal(np.asarray(rows), A)
    floats = session.send_matrix((block for block in [np.ones((2, 3), int)]), shape=(2, 3), dtype=np.float32)
    assert floats.dtype == np.float32


@pytest.mark.parametrize(
    ("blocks", "shape", "complaint"),
    [
        ([np.ones((3, 4))], None, r"needs its shape: send_matrix\(blocks, shape=\(m, n\)\)"),
        ([np.ones((3, 4))], (5, 4), "3 rows together, but the matrix was to have 5"),
        ([np.ones((3, 4)), np.ones((3, 4))], (5, 4), r"a block of shape \(3, 4\) at row 3 does not fit"),
        ([np.ones((3, 4)), np.ones((2, 5))], (5, 4), r"a block of shape \(2, 5\) at row 3 does not fit"),
        ([np.ones((3, 4)), np.ones((2, 4), complex)], (5, 4), "complex128 is not safely cast to the float64"),
        ([], (5, 4), "0 rows together"),
    ],
)
def test_blocks_that_do_not_make_the_matrix_are_refused_and_leave_nothing(session, blocks, shape, complaint):
    before = memory_in_use(session)
    with pytest.raises(errors.InvalidArrayError, match=complaint):
        session.send_matrix(iter(blocks), shape=shape)
    assert memory_in_use(session) == before


def test_an_error_of_the_iterator_itself_comes_through(session):
    def blocks():
        yield np.ones((2, 3))
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        session.send_matrix(blocks(), shape=(4, 3))
    assert np.asarray(session.send_matrix(np.eye(2))).sum() == 2


def test_shape_is_for_iterators(session):
    with pytest.raises(errors.InvalidArrayError, match="give them for an iterator"):
        session.send_matrix(np.eye(3), shape=(3, 3))


# --- reading parts ----------------------------------------------------------------------------------------------------

KEYS = [
    np.s_[3:9],
    np.s_[3:9, :],
    np.s_[:, 2:5],
    np.s_[-5:, -1],
    np.s_[7],
    np.s_[-1],
    np.s_[4, 6],
    np.s_[...],
    np.s_[..., 3],
    np.s_[2, ...],
    np.s_[::3],
    np.s_[::-1, ::-2],
    np.s_[30:2:-7, 1:8:3],
    np.s_[5:5],
    np.s_[100:, :],
    np.s_[3:4, 20:2:-1],
    np.s_[np.int64(4), 2:],
]


@pytest.mark.parametrize("pair", ["MC_MR", "VC_STAR", "STAR_VC", "CIRC_CIRC", "MD_STAR", "STAR_STAR"])
def test_a_part_is_what_numpy_says(session, rng, pair):
    A = rng.standard_normal((37, 23)).astype(np.float32)
    handle = session.send_matrix(A, pair, block_size=3)
    for key in KEYS:
        part = handle[key]
        np.testing.assert_array_equal(part, A[key])
        assert np.shape(part) == np.shape(A[key])
        assert part.dtype == A.dtype


def test_parts_with_steps_are_read_a_bounded_piece_at_a_time(session, rng, monkeypatch):
    monkeypatch.setattr("alchemist_ray.indexing.STRIDED_BYTES", 1000)
    A = rng.standard_normal((200, 30))
    handle = session.send_matrix(A)
    for key in (np.s_[::2], np.s_[::-3, 1::4], np.s_[::150], np.s_[5::7, ::29]):
        np.testing.assert_array_equal(handle[key], A[key])


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        (37, "index 37 is out of bounds for 37"),
        (np.s_[0, -24], "index -24 is out of bounds for 23"),
        (np.s_[1, 2, 3], "2 dimensions, but 3 were indexed"),
        ([1, 2], "integers and slices, not by list"),
        (True, "not by a bool"),
        ("x", "not by str"),
        (np.s_[..., ...], "were indexed"),
        (1.5, "not by float"),
    ],
)
def test_keys_that_name_no_part_are_refused(session, key, complaint):
    handle = session.send_matrix(np.zeros((37, 23)))
    with pytest.raises(IndexError, match=complaint):
        handle[key]


def test_rows_come_block_by_block(session, rng):
    A = rng.standard_normal((37, 5))
    handle = session.send_matrix(A, "MC_MR", block_size=2)
    blocks = list(handle.rows(block=10))
    assert [len(block) for block in blocks] == [10, 10, 10, 7]
    np.testing.assert_array_equal(np.concatenate(blocks), A)
    np.testing.assert_array_equal(np.concatenate(list(handle.rows(5, -3, block=4))), A[5:-3])
    assert len(list(handle.rows())) == 1
    np.testing.assert_array_equal(np.stack(list(handle)), A)
    with pytest.raises(ValueError, match="at least 1 row"):
        next(handle.rows(block=0))


def test_fetch_fills_an_array_of_any_strides(session, rng):
    A = rng.standard_normal((37, 23))
    handle = session.send_matrix(A, "MC_MR", block_size=4)
    for out in (np.empty((37, 23), order="F"), np.empty((74, 46))[::2, ::2], np.empty((37, 23))[::-1, ::-1]):
        assert session.fetch_matrix(handle, out=out) is out
        np.testing.assert_array_equal(out, A)
    read_only = np.empty((37, 23))
    read_only.flags.writeable = False
    with pytest.raises(errors.InvalidArrayError, match="writeable"):
        session.fetch_matrix(handle, out=read_only)


def test_a_pickled_handle_reads_parts(session, rng):
    A = rng.standard_normal((37, 23))
    handle = session.send_matrix(A)
    copy = pickle.loads(pickle.dumps(handle))
    np.testing.assert_array_equal(copy[3:5], A[3:5])
    with pytest.raises(errors.DetachedHandleError, match="left the process of its session"):
        copy + copy


LIMITED = """
import pickle, resource, sys
import numpy as np
from alchemist_ray.transfer import plane_of
handle, writer = pickle.loads(sys.stdin.buffer.read())
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, used + 2**27))
A = np.asarray(handle)
assert all(connection._mapped() is None for connection in plane_of(handle.address).connections)
writer.write(2 * A)
"""


def test_a_process_that_cannot_map_the_workers_memory_reads_and_writes_over_its_socket(session, rng):
    A = rng.standard_normal((400, 300))
    handle, writer = session.send_matrix(A), session.matrix_writer(A.shape, A.dtype, "VC_STAR", block_size=1)
    given = pickle.dumps((handle, writer))
    ran = subprocess.run([sys.executable, "-c", LIMITED], input=given, capture_output=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
    np.testing.assert_array_equal(np.asarray(writer.close()), 2 * A)


# --- layouts chosen by the caller -------------------------------------------------------------------------------------


def test_grid_block_and_alignment_are_the_callers(session, rng):
    A = rng.standard_normal((37, 23))
    handle = session.send_matrix(A, "MC_MR", grid=(1, 4), block_size=(5, 2), align=(0, 3))
    layout = handle.spec.layout
    assert (layout.grid, layout.block, layout.align) == (alchemist.Grid(1, 4), (5, 2), (0, 3))
    np.testing.assert_array_equal(np.asarray(handle), A)
    again = session.matrix_writer(A.shape, A.dtype, handle.spec.layout)
    again.write(A)
    assert again.close().spec.layout == layout


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"layout": "VC_VR"}, "there is no layout 'VC_VR'; the layouts are CIRC_CIRC"),
        ({"layout": "MC_MR", "grid": (3, 2)}, "a 3x2 grid has 6 ranks, but the worker group has 4"),
        ({"layout": "MC_MR", "grid": (0, 4)}, "has no ranks"),
        ({"layout": "MC_MR", "grid": "2x2"}, "grid must be two integers"),
        ({"layout": "MC_MR", "block_size": 0}, "must be at least 1"),
        ({"layout": "MC_MR", "align": (2, 0)}, "alignment"),
        ({"layout": alchemist.Layout("VC_STAR", alchemist.Grid(2, 2)), "block_size": 3}, "says all of block_size"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(session, options, complaint):
    with pytest.raises(errors.LayoutError, match=complaint):
        session.send_matrix(np.eye(4), **options)
    with pytest.raises(errors.LayoutError, match=complaint):
        session.matrix_writer((4, 4), np.float64, **options)


# --- memory and progress ----------------------------------------------------------------------------------------------


def resident(pid):
    """Return the resident memory of a process in bytes."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_200_sends_and_frees_leave_memory_where_it_was_after_the_tenth(session, rng):
    A = rng.standard_normal((700, 500))
    pids = [os.getpid(), *(row["pid"] for row in session.list_assigned_workers())]
    levels = {}
    pairs = ["MC_MR", "VC_STAR", "STAR_VR", "STAR_STAR", "CIRC_CIRC"]  # the first ten sends are all there are
    for number in range(1, 201):
        handle = session.send_matrix(A, pairs[number % 5], block_size=number % 2 or None)
        if number % 50 == 0:
            np.testing.assert_array_equal(np.asarray(handle), A)
        handle.free()
        if number in (10, 200):
            levels[number] = memory_in_use(session), [resident(pid) for pid in pids]
    assert levels[10][0] == levels[200][0]
    assert all(late - early < 2**23 for early, late in zip(levels[10][1], levels[200][1], strict=True))


def test_long_transfers_show_bytes_and_rate(session, rng, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SHOW_AFTER_SECONDS", 0)
    A = rng.standard_normal((2000, 500))
    monkeypatch.setattr(session, "show_progress", True)
    handle = session.send_matrix(iter([A[:1000], A[1000:]]), shape=A.shape)
    session.fetch_matrix(handle)
    shown = capsys.readouterr().err
    assert "Sending" in shown
    assert "Fetching" in shown
    assert "8.00M" in shown
    assert "B/s" in shown
    monkeypatch.setattr(session, "show_progress", None)
    session.fetch_matrix(handle)
    assert capsys.readouterr().err == ""


def interrupt_main_thread(stop):
    """Interrupt the main thread again and again, at moments of its own, until told to stop."""
    rng = np.random.default_rng(1)
    while not stop.wait(rng.uniform(0.002, 0.02)):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def test_interrupts_harm_neither_the_session_nor_what_other_threads_write(session, rng):
    """The main thread is interrupted in the middle of anything, while other threads write on the same connections."""
    A = rng.standard_normal((600, 500))
    handle = session.send_matrix(A, "MC_MR", block_size=16)
    before = memory_in_use(session)
    done, stop, wrong = threading.Event(), threading.Event(), []

    def write_and_read(number):
        try:
            while not done.is_set():
                writer = session.matrix_writer((400, 50), np.float64, "MC_MR", block_size=16)
                for row in range(0, 400, 50):
                    writer.write(np.full((50, 50), number + row), row=row)
                got = np.asarray(writer.close())
                if not (got == number + np.repeat(np.arange(0, 400, 50), 50)[:, np.newaxis]).all():
                    wrong.append(np.unique(got))
        except errors.AlchemistError as failure:
            wrong.append(failure)

    threads = [threading.Thread(target=write_and_read, args=(number,)) for number in (0.25, 0.5)]
    threads.append(threading.Thread(target=interrupt_main_thread, args=(stop,)))
    interrupts, deadline = 0, time.monotonic() + 1.5
    try:
        for thread in threads:
            thread.start()
        while time.monotonic() < deadline:
            try:
                while time.monotonic() < deadline:
                    if not (handle[3:500] == A[3:500]).all():
                        wrong.append("read")
                    session.send_matrix(A, "STAR_VR", block_size=1)
            except KeyboardInterrupt:
                interrupts += 1
    finally:
        stopped = False
        while not stopped:
            try:
                stop.set()
                threads[-1].join()
                stopped = True
            except KeyboardInterrupt:
                pass
        done.set()
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert interrupts > 3
    gc.collect()
    assert wait_until(lambda: memory_in_use(session) == before)
    np.testing.assert_array_equal(np.asarray(handle), A)
