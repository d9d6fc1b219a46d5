"""The arena: blocks never overlap, freed space is reused, and no block is released while a view of it exists."""

import gc
import itertools
import mmap
import os
import random
import sys
import threading
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alchemist_ray.errors import MatrixMemoryError
from alchemist_ray.mpi_backend.memory import arena as arena_module
from alchemist_ray.mpi_backend.memory.arena import Arena

PAGE = 4096
BYTE = np.dtype(np.uint8)


def pages(arena, count):
    """Return a block of whole pages."""
    return arena.allocate((count, PAGE), BYTE)


def holes(arena):
    """Return the holes of an arena as (offset, length) in pages, found by filling it."""
    found, blocks = [], []
    try:
        while True:
            blocks.append(pages(arena, 1))
    except MatrixMemoryError:
        pass
    for page in sorted(arena.offset_of(block) // PAGE for block in blocks):
        if found and found[-1][0] + found[-1][1] == page:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((page, 1))
    return found


@pytest.fixture
def arena():
    return Arena(16 * PAGE)


@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128", "int32", "bool"])
def test_a_block_is_a_writable_c_ordered_array_of_what_was_asked(arena, dtype):
    block = arena.allocate((5, 7), np.dtype(dtype))
    assert block.shape == (5, 7)
    assert block.dtype == dtype
    assert block.flags.c_contiguous
    assert block.flags.writeable
    assert block.flags.aligned
    block[...] = 1
    assert (block == 1).all()


def test_blocks_do_not_overlap(arena):
    blocks = [arena.allocate((3, 500), np.dtype(float)) for _ in range(5)]
    for number, block in enumerate(blocks):
        block[...] = number
    for number, block in enumerate(blocks):
        assert (block == number).all()
    offsets = [arena.offset_of(block) for block in blocks]
    assert len(set(offsets)) == 5
    assert all(offset % PAGE == 0 for offset in offsets)


def test_a_block_lies_in_the_file_at_its_offset(arena):
    pages(arena, 2)
    kept = pages(arena, 1)
    block = arena.allocate((2, 3), np.dtype(float))
    block[...] = [[1, 2, 3], [4, 5, 6]]
    with mmap.mmap(arena.fd, 16 * PAGE) as same:
        seen = np.frombuffer(same, float, 6, arena.offset_of(block)).copy()
    assert seen.tolist() == [1, 2, 3, 4, 5, 6]
    assert arena.offset_of(kept) != arena.offset_of(block)


def test_the_file_is_as_large_as_the_arena_and_takes_no_memory_before_it_is_touched():
    arena = Arena(2**30)
    assert os.fstat(arena.fd).st_size == arena.capacity == 2**30
    assert os.fstat(arena.fd).st_blocks == 0


def test_the_file_is_not_inherited_by_programs_that_are_started(arena):
    assert not os.get_inheritable(arena.fd)


def test_the_capacity_is_rounded_down_to_pages():
    assert Arena(3 * PAGE + 5).capacity == 3 * PAGE


def test_what_is_in_use_is_counted_in_whole_pages(arena):
    a = arena.allocate((1, 1), BYTE)
    assert arena.in_use == PAGE
    b = arena.allocate((1, PAGE + 1), BYTE)
    assert arena.in_use == 3 * PAGE
    del a
    assert arena.in_use == 2 * PAGE
    del b
    assert arena.in_use == 0


def test_the_space_of_a_freed_block_is_used_again(arena):
    a = pages(arena, 4)
    offset = arena.offset_of(a)
    del a
    assert arena.offset_of(pages(arena, 4)) == offset


def test_a_hundred_blocks_one_after_the_other_touch_the_same_pages(arena):
    offsets = {arena.offset_of(pages(arena, 10)) for _ in range(100)}
    assert len(offsets) == 1


def test_the_first_hole_that_is_large_enough_is_taken(arena):
    a, b, c, d = (pages(arena, n) for n in (2, 1, 4, 1))
    first, second = arena.offset_of(a), arena.offset_of(c)
    del a, c
    assert arena.offset_of(large := pages(arena, 3)) == second
    assert arena.offset_of(small := pages(arena, 2)) == first
    assert large is not small
    assert b.size == d.size == PAGE


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_neighbouring_holes_become_one_in_whatever_order_they_are_freed(arena, order):
    blocks = [pages(arena, n) for n in (3, 2, 5)]
    rest = pages(arena, 6)
    for index in order:
        blocks[index] = None
    whole = pages(arena, 10)
    assert arena.offset_of(whole) == 0
    assert arena.in_use == 16 * PAGE
    del whole, rest
    assert holes(arena) == [(0, 16)]


def test_a_block_lives_as_long_as_the_last_view_of_it(arena):
    block = pages(arena, 4)
    row, element, other_type, buffer = block[2], block[1:2, 5:6], block.view(np.float64), memoryview(block)
    del block
    for name in ("row", "element", "other_type"):
        assert arena.in_use == 4 * PAGE, name
        if name == "row":
            del row
        elif name == "element":
            del element
        else:
            del other_type
    assert arena.in_use == 4 * PAGE
    buffer.release()
    del buffer
    assert arena.in_use == 0


@pytest.mark.parametrize(
    "derive",
    [
        lambda b: b.T,
        lambda b: b[::2, ::-3],
        lambda b: b.reshape(-1)[10:20],
        lambda b: b.ravel(),
        lambda b: np.lib.stride_tricks.as_strided(b, (2, 2), (1, 1)),
        lambda b: np.frombuffer(b, np.float64),
        lambda b: np.asarray(memoryview(b)),
        lambda b: iter(b),
    ],
)
def test_whatever_is_derived_from_a_block_keeps_it(arena, derive):
    derived = derive(pages(arena, 1))
    gc.collect()
    assert arena.in_use == PAGE
    del derived
    assert arena.in_use == 0


def test_a_copy_does_not_keep_the_block(arena):
    copied = pages(arena, 1).copy()
    assert arena.in_use == 0
    assert arena.offset_of(copied) is None


def test_a_block_in_a_reference_cycle_is_released_by_the_collector(arena):
    cycle = [pages(arena, 16)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert arena.in_use == 0
    pages(arena, 16)


def test_too_large_a_block_is_refused_with_the_three_figures(arena):
    kept = pages(arena, 6)
    with pytest.raises(MatrixMemoryError) as caught:
        arena.allocate((11 * PAGE - 5, 1), BYTE)
    assert (caught.value.needed, caught.value.available, caught.value.limit) == (11 * PAGE, 10 * PAGE, 16 * PAGE)
    assert isinstance(caught.value, MemoryError)
    assert arena.in_use == kept.nbytes
    pages(arena, 10)


def test_a_block_as_large_as_the_arena_fits(arena):
    block = pages(arena, 16)
    with pytest.raises(MatrixMemoryError):
        arena.allocate((1, 1), BYTE)
    del block
    assert holes(arena) == [(0, 16)]


def test_sizes_beyond_64_bits_are_refused(arena):
    with pytest.raises(MatrixMemoryError):
        arena.allocate((2**62, 2**62), np.dtype(float))


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_an_empty_block_takes_nothing_and_lies_nowhere(arena, shape):
    block = arena.allocate(shape, np.dtype(float))
    assert block.shape == shape
    assert arena.in_use == 0
    assert arena.offset_of(block) is None


def test_the_offset_of_a_view_is_where_it_begins(arena):
    pages(arena, 1)
    kept, block = pages(arena, 1), arena.allocate((4, 10), np.dtype(float))
    assert arena.offset_of(block[1, 2:]) == arena.offset_of(block) + 12 * 8
    assert arena.offset_of(kept) == 0


def test_arrays_elsewhere_have_no_offset(arena):
    assert arena.offset_of(np.zeros(10)) is None
    assert arena.offset_of(Arena(PAGE).allocate((1, 1), BYTE)) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.integers(0, 30)), max_size=40))
def test_any_sequence_agrees_with_a_list_of_pages(steps):
    """The model: a list with the owner of each page, and first fit."""
    arena, model, live = Arena(24 * PAGE), [None] * 24, {}
    for number, (allocate, count, which) in enumerate(steps):
        if allocate:
            fits = [i for i in range(25 - count) if all(owner is None for owner in model[i : i + count])]
            if fits:
                block = pages(arena, count)
                assert arena.offset_of(block) == fits[0] * PAGE
                block[...] = number % 251
                live[number] = (block, fits[0], count)
                model[fits[0] : fits[0] + count] = [number] * count
                del block
            else:
                with pytest.raises(MatrixMemoryError) as caught:
                    pages(arena, count)
                runs = [len(list(run)) for page, run in itertools.groupby(model) if page is None]
                assert caught.value.available == max(runs, default=0) * PAGE
                del caught
        elif live:
            key = sorted(live)[which % len(live)]
            _, start, count = live.pop(key)
            model[start : start + count] = [None] * count
            del _
        assert arena.in_use == (24 - model.count(None)) * PAGE
    assert all((block == number % 251).all() for number, (block, _, _) in live.items())


def test_threads_get_blocks_of_their_own():
    arena, wrong = Arena(64 * PAGE), []

    def work(seed):
        rng = random.Random(seed)
        for _ in range(200):
            try:
                block = pages(arena, rng.randint(1, 8))
            except MatrixMemoryError:
                continue
            block[...] = seed
            if not (block == seed).all():
                wrong.append(seed)
            del block

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert arena.in_use == 0
    assert holes(arena) == [(0, 64)]


def interrupted(nth, interrupt, act):
    """Run `act`; run `interrupt` before the nth line of the arena's code in it, as the garbage collector may do.

    Return whether `act` has that many lines.
    """
    seen = 0

    def trace(frame, event, _):
        nonlocal seen
        if frame.f_code.co_filename != arena_module.__file__:
            return None
        if event == "line":
            seen += 1
            if seen == nth:
                interrupt()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return seen >= nth


def five_blocks_and_a_hole():
    arena = Arena(16 * PAGE)
    blocks = [pages(arena, n) for n in (2, 3, 2, 3, 2)]
    blocks[1] = None
    return arena, blocks


def assert_sound(arena, blocks):
    """Assert that no two of `blocks` overlap, that nothing else is in use, and that all their space comes back."""
    spans = sorted((arena.offset_of(block), block.nbytes) for block in blocks if block is not None)
    assert all(start + length <= after for (start, length), (after, _) in itertools.pairwise(spans))
    assert arena.in_use == sum(length for _, length in spans)
    blocks.clear()
    assert arena.in_use == 0
    assert holes(arena) == [(0, 16)]


@pytest.mark.parametrize("victim", [0, 2, 3, 4])
def test_a_block_may_be_released_in_the_middle_of_an_allocation(victim):
    for nth in itertools.count(1):
        arena, blocks = five_blocks_and_a_hole()
        release, allocate = partial(blocks.__setitem__, victim, None), partial(pages, arena, 3)
        reached = interrupted(nth, release, lambda: blocks.append(allocate()))  # noqa: B023 - called at once
        assert_sound(arena, blocks)
        if not reached:
            break


@pytest.mark.parametrize(("first", "second"), [(0, 2), (2, 0), (2, 3), (3, 2), (3, 4), (4, 3)])
def test_a_block_may_be_released_in_the_middle_of_a_release(first, second):
    for nth in itertools.count(1):
        arena, blocks = five_blocks_and_a_hole()
        reached = interrupted(nth, partial(blocks.__setitem__, second, None), partial(blocks.__setitem__, first, None))
        assert_sound(arena, blocks)
        if not reached:
            break
