"""Matrices written part by part, by many senders, in any order, and what is refused."""

from __future__ import annotations

import gc
import itertools
import pickle
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from tests_support import memory_in_use, wait_until

from alchemist_ray import errors
from alchemist_ray.layouts.layout import PAIRS
from alchemist_ray.layouts.region import Rectangle


@pytest.fixture(scope="module")
def session(session_by_transport):
    return session_by_transport


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
    gc.collect()  # writers of other tests, which their errors refer to
    before = memory_in_use(session)
    writer = session.matrix_writer((500, 500))
    assert sum(memory_in_use(session)) >= sum(before) + 500 * 500 * 8
    del writer
    assert memory_in_use(session) == before


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
from alchemist_ray.layouts import tiling
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
from alchemist_ray.client.transfer import plane as transfer
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
