"""The matrices of one worker: the written parts, and refusals that name the part."""

import threading

import numpy as np
import pytest

from alchemist_ray.errors import (
    FreedMatrixError,
    IncompleteMatrixError,
    LayoutError,
    MatrixMemoryError,
    RegionError,
)
from alchemist_ray.layouts.layout import Grid, Layout
from alchemist_ray.layouts.region import Rectangle
from alchemist_ray.layouts.spec import MatrixSpec
from alchemist_ray.mpi_backend.memory.arena import Arena
from alchemist_ray.mpi_backend.worker.store import Store

PAGE = 4096
SHAPE = (10, 7)
SPEC = MatrixSpec(SHAPE, np.dtype(float), Layout("MC_MR", Grid(2, 2), (2, 3)))
"""Rank 3 of its 2 x 2 grid holds rows 2, 3, 6, 7 and columns 3, 4, 5."""
WHOLE = Rectangle(0, 4, 0, 3)


@pytest.fixture
def store():
    return Store(Arena(64 * PAGE), size=4, rank=3)


def write(store, matrix_id, part):
    stored, view = store.claim(matrix_id, part)
    view[...] = 1
    store.written(stored, part)
    return stored


def test_a_new_matrix_has_this_ranks_block_in_the_arena(store):
    stored = store.create(1, SPEC)
    assert stored.local.shape == (4, 3)
    assert stored.local.dtype == float
    assert stored.rows.indices().tolist() == [2, 3, 6, 7]
    assert stored.cols.indices().tolist() == [3, 4, 5]
    assert store.arena.offset_of(stored.local) is not None
    assert store.get(1) is stored
    assert not stored.complete


def test_a_matrix_is_complete_when_all_its_parts_are_written(store):
    store.create(1, SPEC)
    parts = [Rectangle(0, 2, 0, 3), Rectangle(2, 4, 0, 1), Rectangle(2, 4, 1, 3)]
    for part in parts:
        with pytest.raises(IncompleteMatrixError):
            store.get_complete(1)
        write(store, 1, part)
    assert store.get_complete(1).complete
    assert (store.get(1).local == 1).all()


def test_a_claimed_part_counts_only_once_it_is_written(store):
    store.create(1, SPEC)
    stored, _ = store.claim(1, WHOLE)
    with pytest.raises(IncompleteMatrixError):
        store.get_complete(1)
    store.written(stored, WHOLE)
    assert store.get_complete(1) is stored


def test_an_incomplete_matrix_is_refused_with_how_much_is_missing(store):
    store.create(1, SPEC)
    write(store, 1, Rectangle(0, 2, 0, 3))
    with pytest.raises(IncompleteMatrixError, match=r"6 of the 12 elements of rank 3") as caught:
        store.get_complete(1)
    assert caught.value.matrix_id == 1


def test_the_claimed_view_is_the_part_of_the_block(store):
    stored = store.create(1, SPEC)
    stored.local[...] = 0
    _, view = store.claim(1, Rectangle(1, 3, 2, 3))
    assert view.shape == (2, 1)
    view[...] = 5
    assert stored.local.tolist() == [[0, 0, 0], [0, 0, 5], [0, 0, 5], [0, 0, 0]]


OVERLAPPING = [Rectangle(0, 1, 0, 1), Rectangle(1, 3, 1, 2), Rectangle(0, 4, 0, 3), Rectangle(1, 2, 1, 3)]


@pytest.mark.parametrize("part", OVERLAPPING)
@pytest.mark.parametrize("finished", [True, False])
def test_a_part_that_overlaps_a_written_or_claimed_one_is_refused(store, part, finished):
    store.create(1, SPEC)
    first = Rectangle(0, 2, 0, 2)
    stored, _ = store.claim(1, first)
    if finished:
        store.written(stored, first)
    with pytest.raises(RegionError, match="written before"):
        store.claim(1, part)
    write(store, 1, Rectangle(2, 4, 0, 3))
    write(store, 1, Rectangle(0, 2, 2, 3))


def test_an_overlap_is_named_in_the_indices_of_the_whole_matrix(store):
    store.create(1, SPEC)
    write(store, 1, Rectangle(1, 3, 1, 3))
    with pytest.raises(RegionError) as caught:
        store.claim(1, Rectangle(1, 3, 0, 2))
    assert caught.value.matrix_id == 1
    assert caught.value.region == "rows 3..6, columns 3..4"
    assert isinstance(caught.value, IndexError)


def test_a_part_of_a_complete_matrix_cannot_be_written_again(store):
    store.create(1, SPEC)
    write(store, 1, WHOLE)
    for part in (WHOLE, Rectangle(3, 4, 2, 3)):
        with pytest.raises(RegionError, match="written before"):
            store.claim(1, part)


def test_a_part_whose_writer_failed_can_be_written_again(store):
    store.create(1, SPEC)
    stored, _ = store.claim(1, WHOLE)
    store.disclaim(stored, WHOLE)
    with pytest.raises(IncompleteMatrixError):
        store.get_complete(1)
    write(store, 1, WHOLE)
    assert store.get_complete(1).complete


def test_giving_one_part_back_leaves_the_others_claimed(store):
    store.create(1, SPEC)
    top, bottom = Rectangle(0, 2, 0, 3), Rectangle(2, 4, 0, 3)
    stored, _ = store.claim(1, top)
    store.claim(1, bottom)
    store.disclaim(stored, top)
    with pytest.raises(RegionError):
        store.claim(1, bottom)
    store.claim(1, top)


@pytest.mark.parametrize(
    "part",
    [
        Rectangle(0, 5, 0, 3),
        Rectangle(0, 4, 0, 4),
        Rectangle(-1, 2, 0, 3),
        Rectangle(0, 2, -1, 3),
        Rectangle(3, 2, 0, 3),
        Rectangle(0, 2, 3, 1),
        Rectangle(10**15, 10**15 + 1, 0, 1),
        Rectangle(-4, -2, 0, 3),
    ],
    ids=repr,
)
def test_a_part_outside_the_block_is_refused_by_its_indices_and_the_shape_of_the_block(store, part):
    stored = store.create(1, SPEC)
    for refused in (lambda: store.claim(1, part), lambda: store.view(stored, part)):
        with pytest.raises(RegionError, match="outside the 4 x 3 block of rank 3") as caught:
            refused()
        assert str(part.i0) in caught.value.region
        assert caught.value.matrix_id == 1
    write(store, 1, WHOLE)


def test_a_freed_matrix_is_gone_and_its_memory_is_back(store):
    store.create(1, SPEC)
    store.create(2, SPEC)
    in_use = store.arena.in_use
    assert store.free([1, 7]) == 1
    assert store.arena.in_use == in_use // 2
    for use in (store.get, store.get_complete, lambda key: store.claim(key, WHOLE)):
        with pytest.raises(FreedMatrixError) as caught:
            use(1)
        assert caught.value.matrix_id == 1
    assert store.free([1]) == 0
    assert store.get(2)


def test_freeing_the_same_matrix_twice_in_one_go_counts_once(store):
    store.create(1, SPEC)
    assert store.free([1, 1]) == 1


def test_a_matrix_that_is_still_being_written_keeps_its_memory_when_freed(store):
    store.create(1, SPEC)
    stored, view = store.claim(1, WHOLE)
    store.free([1])
    assert store.arena.in_use > 0
    view[...] = 3
    store.written(stored, WHOLE)
    del stored, view
    assert store.arena.in_use == 0


def test_an_id_is_used_once(store):
    store.create(1, SPEC)
    in_use = store.arena.in_use
    for again in (lambda: store.create(1, SPEC), lambda: store.adopt(1, SPEC, np.zeros((4, 3)))):
        with pytest.raises(LayoutError, match="matrix 1 already"):
            again()
    assert store.arena.in_use == in_use
    store.free([1])
    store.create(1, SPEC)


def test_a_layout_for_another_number_of_ranks_is_refused(store):
    spec = MatrixSpec(SHAPE, np.dtype(float), Layout("MC_MR", Grid(2, 3), (2, 3)))
    with pytest.raises(LayoutError, match="has 6 ranks, but the worker group has 4"):
        store.create(1, spec)
    with pytest.raises(FreedMatrixError):
        store.get(1)


def test_a_matrix_that_does_not_fit_is_refused_and_leaves_nothing(store):
    spec = MatrixSpec((10**6, 10**6), np.dtype(float), Layout("VC_STAR", Grid(2, 2), (1, 1)))
    with pytest.raises(MatrixMemoryError) as caught:
        store.create(1, spec)
    assert caught.value.limit == 64 * PAGE
    assert store.arena.in_use == 0
    with pytest.raises(FreedMatrixError):
        store.get(1)


def test_a_rank_that_holds_nothing_of_a_matrix_is_complete_at_once(store):
    stored = store.create(1, MatrixSpec((2, 2), np.dtype(float), Layout("CIRC_CIRC", Grid(2, 2))))
    assert stored.local.shape == (0, 0)
    assert store.get_complete(1) is stored


def test_a_result_in_the_arena_is_taken_in_as_it_is(store):
    local = store.arena.allocate((4, 3), np.dtype(float))
    local[...] = 2
    in_use = store.arena.in_use
    stored = store.adopt(5, SPEC, local)
    assert store.arena.offset_of(stored.local) == store.arena.offset_of(local)
    assert store.arena.in_use == in_use
    assert store.get_complete(5).local.tolist() == local.tolist()


@pytest.mark.parametrize("where", ["heap", "fortran in the arena", "strided in the arena"])
def test_a_result_that_lies_elsewhere_or_otherwise_is_copied_into_the_arena(store, where):
    values = np.arange(12.0).reshape(4, 3)
    if where == "heap":
        local = values.copy()
    elif where == "fortran in the arena":
        local = store.arena.allocate((3, 4), np.dtype(float)).T
    else:
        local = store.arena.allocate((4, 6), np.dtype(float))[:, ::2]
    local[...] = values
    stored = store.adopt(5, SPEC, local)
    assert store.arena.offset_of(stored.local) is not None
    assert stored.local.flags.c_contiguous
    assert not np.shares_memory(stored.local, local)
    local[...] = -1
    np.testing.assert_array_equal(store.get_complete(5).local, values)


def test_a_result_can_be_read_and_freed_like_any_other(store):
    store.adopt(5, SPEC, np.ones((4, 3)))
    with pytest.raises(RegionError):
        store.claim(5, WHOLE)
    assert store.free([5]) == 1
    assert store.arena.in_use == 0


def test_the_status_names_every_matrix(store):
    store.create(1, SPEC)
    store.adopt(2, SPEC, np.ones((4, 3)))
    rows = {row["id"]: row for row in store.describe()}
    assert {key: row["complete"] for key, row in rows.items()} == {1: False, 2: True}
    assert rows[1]["local_bytes"] == 12 * 8
    assert rows[1]["shape"] == [10, 7]
    assert rows[1]["pair"] == "MC_MR"


def test_of_many_threads_that_claim_the_same_part_exactly_one_gets_it(store):
    store.create(1, SPEC)
    barrier, got, refused = threading.Barrier(8), [], []

    def claim():
        barrier.wait()
        for row in range(4):
            try:
                stored, _ = store.claim(1, Rectangle(row, row + 1, 0, 3))
            except RegionError:
                refused.append(row)
            else:
                got.append(row)
                store.written(stored, Rectangle(row, row + 1, 0, 3))

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [0, 1, 2, 3]
    assert len(refused) == 28
    assert store.get_complete(1)


def test_what_is_missing_is_what_is_not_written_yet(store):
    store.create(1, SPEC)
    assert store.missing(1) == [WHOLE]
    write(store, 1, Rectangle(0, 2, 0, 3))
    store.claim(1, Rectangle(2, 3, 0, 3))
    assert sorted(store.missing(1), key=str) == [Rectangle(2, 3, 0, 3), Rectangle(3, 4, 0, 3)]
    store.free([1])
    with pytest.raises(FreedMatrixError):
        store.missing(1)


def test_of_ranks_with_the_same_elements_only_the_source_is_written_to():
    spec = MatrixSpec((4, 4), np.dtype(float), Layout("STAR_STAR", Grid(2, 2)))
    source, other = (Store(Arena(64 * PAGE), size=4, rank=rank) for rank in (0, 3))
    assert not source.create(1, spec).complete
    copy = other.create(1, spec)
    assert copy.complete
    assert copy.local.shape == (4, 4)
    assert not copy.replicated
    with pytest.raises(RegionError, match="written before"):
        other.claim(1, Rectangle(0, 4, 0, 4))
    assert other.missing(1) == []
    assert source.adopt(2, spec, np.ones((4, 4))).replicated
