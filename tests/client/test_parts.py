"""Matrices sent as blocks of rows, read part by part, in layouts that the caller chooses."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from tests_support import memory_in_use

import alchemist_ray as alchemist
from alchemist_ray import errors


@pytest.fixture(scope="module")
def session(session_by_transport):
    return session_by_transport


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
        ([np.ones((3, 4))], (5, 4), "3 rows together, but the matrix needs 5"),
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
    with pytest.raises(errors.InvalidArrayError, match="give these for an iterator"):
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
    monkeypatch.setattr("alchemist_ray.client.matrices.indexing.STRIDED_BYTES", 1000)
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
from alchemist_ray.client.transfer.plane import plane_of
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
        ({"layout": "VC_VR"}, "layout 'VC_VR' does not exist"),
        ({"layout": "MC_MR", "grid": (3, 2)}, "a 3x2 grid has 6 ranks, but the worker group has 4"),
        ({"layout": "MC_MR", "grid": (0, 4)}, "has no ranks"),
        ({"layout": "MC_MR", "grid": "2x2"}, "grid must be two integers"),
        ({"layout": "MC_MR", "block_size": 0}, "must be at least 1"),
        ({"layout": "MC_MR", "align": (2, 0)}, "alignment"),
        ({"layout": alchemist.Layout("VC_STAR", alchemist.Grid(2, 2)), "block_size": 3}, "already contains block_size"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(session, options, complaint):
    with pytest.raises(errors.LayoutError, match=complaint):
        session.send_matrix(np.eye(4), **options)
    with pytest.raises(errors.LayoutError, match=complaint):
        session.matrix_writer((4, 4), np.float64, **options)
