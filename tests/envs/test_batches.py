"""Batches of simulations as tasks of a library: how ranks are divided, what a step returns, what is refused."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import alchemist_ray as alchemist
from alchemist_ray import errors

LEAVE, STEP, RESET, RESET_ENDED = 0, 1, 2, 4
FINISHED, FAILED, ENDED, INFORMED = 1, 2, 4, 8


@pytest.fixture(scope="module")
def session(env_server):
    with alchemist.AlchemistSession() as shared:
        shared.connect(env_server.hostname, env_server.port, env_server.token)
        shared.request_workers(3)
        yield shared


@pytest.fixture(scope="module")
def ring(session):
    return session.load_library("ring")


@pytest.fixture(scope="module")
def walks(session):
    return session.load_library("walks")


ACTIONS = np.random.default_rng(0).uniform(-1, 1, (3, 2))


@pytest.fixture(scope="module")
def alone(env_server):
    """Return a function that gives the first state and the steps of a simulation alone on so many ranks."""

    @functools.cache
    def episode(num_workers):
        with alchemist.AlchemistSession() as session:
            session.connect(env_server.hostname, env_server.port, env_server.token)
            session.request_workers(num_workers)
            single = session.load_library("ring")
            simulation = single.create(n=13)
            return single.reset(simulation, 5), [single.step(simulation, action) for action in ACTIONS]

    return episode


@pytest.mark.parametrize(("count", "ranks_each", "divided"), [(1, 0, 3), (2, 0, 1), (7, 0, 1), (4, 2, 2), (2, 3, 3)])
def test_simulations_are_those_of_as_many_ranks_alone_however_the_group_is_divided(
    ring, alone, count, ranks_each, divided
):
    batch = ring.create_batch(count, ranks_each, {"n": 13})
    assert ring.get_batch_spaces(batch)["ranks_each"] == divided
    start, steps = alone(divided)
    states, *_ = ring.advance_batch(batch, bytes([RESET] * count), None, [10] * (count - 1) + [5])
    np.testing.assert_array_equal(states[-1], start)
    others = np.zeros((count - 1, 2))
    for last, (state, score, _, _) in zip(ACTIONS, steps, strict=True):
        action = np.vstack([others, last])
        states, numbers, names, notes = ring.advance_batch(batch, bytes([STEP] * count), action)
        np.testing.assert_array_equal(states[-1], state)
        assert numbers[-1].tolist() == [score, INFORMED]
        assert (states.shape, names, notes) == ((count, 13), [], [])
    ring.close_batch(batch)
    with pytest.raises(errors.ArgumentValueError, match=f"there is no batch {batch} .*: call create_batch"):
        ring.get_batch_spaces(batch)


def test_each_simulation_gets_its_own_order(walks):
    batch = walks.create_batch(4, 1, {"chance": 1.0})
    before, *_ = walks.advance_batch(batch, bytes([RESET] * 4), None, [1, 2, 3, 4])
    orders = bytes([LEAVE, STEP, RESET, STEP | RESET_ENDED])
    states, numbers, names, notes = walks.advance_batch(batch, orders, np.zeros((4, 2)), [9, 9, 1, 2])
    np.testing.assert_array_equal(states[0], before[0])
    np.testing.assert_array_equal(states[2], before[0])
    np.testing.assert_array_equal(states[3], before[1])
    assert numbers[:, 1].tolist() == [0, FINISHED | INFORMED, 0, FINISHED | ENDED | INFORMED]
    assert names == ["steps", "y"]
    ((kind, simulation, last),) = notes
    assert (kind, simulation) == ("state", 3)
    assert numbers[3, 0] == last.sum()
    assert numbers[3, 2:].tolist() == [1, last[1]]


def test_the_short_way_is_the_task(session, walks):
    results = []
    for way in (walks.advance_batch, lambda *arguments: session.advance_batch("walks", *arguments)):
        batch = walks.create_batch(3, 1)
        way(batch, bytes([RESET] * 3), None, [1, 2, 3])
        results.append([way(batch, bytes([STEP] * 3), np.full((3, 2), [0.5, fault])) for fault in (0, 1, 0)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
        assert list(one[2:]) == list(other[2:])
    with pytest.raises(errors.ArgumentValueError, match="bytes are not 3 actions of shape"):
        session.advance_batch("walks", batch, bytes([STEP] * 3), np.zeros((3, 3)))
    with pytest.raises(errors.LibraryNotFoundError):
        session.advance_batch("fragile", 1, b"\1")


def test_a_simulation_that_was_not_reset_or_has_failed_is_told_by_number(walks):
    batch = walks.create_batch(3, 1)
    states, numbers, _, notes = walks.advance_batch(batch, bytes([STEP] * 3), np.zeros((3, 2)))
    assert states is None
    assert numbers[:, 1].tolist() == [FAILED] * 3
    assert [note[:4] for note in notes] == [["failure", i, "step", "ArgumentValueError"] for i in range(3)]
    assert "simulation 2 has not been reset" in notes[2][4]["reason"]
    walks.advance_batch(batch, bytes([RESET] * 3), None, [1, 2, 3])
    walks.advance_batch(batch, bytes([STEP] * 3), np.array([[0, 0], [0, 1], [0, 0]]))
    _, numbers, _, notes = walks.advance_batch(batch, bytes([STEP] * 3), np.zeros((3, 2)))
    assert [note[1:4] for note in notes] == [[1, "step", "ArgumentValueError"]]
    _, numbers, _, notes = walks.advance_batch(batch, bytes([LEAVE, RESET, LEAVE]))
    assert (numbers[:, 1].tolist(), notes) == ([0, 0, 0], [])


def test_what_makes_no_sense_is_refused_before_anything_happens(walks):
    for arguments, text in (
        ((0,), "at least 1 simulation, not 0"),
        ((2, 4), "cannot have 4 ranks: the group has 3 in all"),
        ((2, -1), "cannot have -1 ranks"),
    ):
        with pytest.raises(errors.ArgumentValueError, match=text):
            walks.create_batch(*arguments)
    for parameters, error, text in (
        ({"chanse": 1}, errors.ArgumentError, "did you mean 'chance'"),
        ({"chance": "often"}, errors.ArgumentError, "'chance' must be a number, not str"),
        ({"chance": 7.0}, errors.RemoteTaskError, "chance must be between 0 and 1"),
    ):
        with pytest.raises(error, match=text):
            walks.create_batch(2, 0, parameters)
    batch = walks.create_batch(2, 1)
    before, *_ = walks.advance_batch(batch, bytes([RESET] * 2), None, [1, 2])
    for arguments, text in (
        ((bytes([STEP]), np.zeros((2, 2))), "there are 1 orders and 0 seeds for 2 simulations"),
        ((bytes([STEP] * 2), np.zeros((2, 2)), [1]), "2 orders and 1 seeds"),
        ((bytes([STEP] * 2),), "simulations to step, but no actions"),
        ((bytes([STEP] * 2), np.zeros((2, 3))), r"have shape \(2, 3\)"),
        ((bytes([STEP] * 2), np.array([[0, 0], [-1.5, 0]])), r"simulation 1 is -1.5 outside .* \(drift\)"),
    ):
        with pytest.raises(errors.ArgumentValueError, match=text):
            walks.advance_batch(batch, *arguments)
    after, *_ = walks.advance_batch(batch, bytes([LEAVE] * 2))
    np.testing.assert_array_equal(after, before)


def test_snapshots_that_do_not_fit_are_refused(walks):
    narrow, wide = walks.create_batch(3, 1), walks.create_batch(1, 3)
    walks.advance_batch(narrow, bytes([RESET] * 3), None, [1, 2, 3])
    first, *others = walks.snapshot_batch(narrow)
    with pytest.raises(errors.ArgumentValueError, match="is of a simulation on 1 ranks, and these have 3"):
        walks.restore_batch(wide, [first])
    with pytest.raises(errors.ArgumentValueError, match="2 snapshots for 3 simulations"):
        walks.restore_batch(narrow, others)
    with pytest.raises(errors.ArgumentValueError, match="no simulation 3 in a batch of 3"):
        walks.restore_batch(narrow, [first], [3])
    with pytest.raises(errors.ArgumentValueError, match="named twice"):
        walks.snapshot_batch(narrow, [1, 1])
    walks.drop_batch_snapshots([first, first])
    with pytest.raises(errors.ArgumentValueError, match=f"there is no snapshot {first}"):
        walks.restore_batch(narrow, [first])


def test_what_the_simulator_does_not_implement_is_told(ring):
    batch = ring.create_batch(2)
    with pytest.raises(errors.ArgumentValueError, match="simulation 0 has not been reset"):
        ring.get_batch_fields(batch)
    ring.advance_batch(batch, bytes([RESET] * 2))
    for call in (ring.snapshot_batch, ring.get_batch_fields):
        with pytest.raises(errors.ArgumentValueError, match="Ring does not implement it"):
            call(batch)
