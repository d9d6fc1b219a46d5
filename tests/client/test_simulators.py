"""A simulator as a library: its calls as tasks, many simulations in one session, and what is refused."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from conftest import LIBRARIES

import alchemist_ray as alchemist
from alchemist_ray import errors


@pytest.fixture(scope="module")
def open_ring():
    with alchemist.start_server(
        num_workers=8, memory_per_worker=2**26, libraries={"ring": str(LIBRARIES / "ring.py")}
    ) as server:
        sessions = []

        def open_session(num_workers):
            session = alchemist.AlchemistSession().connect(server.hostname, server.port, server.token)
            sessions.append(session)
            session.request_workers(num_workers)
            return session.load_library("ring")

        yield open_session
        for session in sessions:
            session.stop()


@pytest.fixture(scope="module")
def ring(open_ring):
    return open_ring(3)


def expected(n, seed, actions, diffusivity=0.2):
    """Return the states that the same scheme gives in one process."""
    u, states = np.random.default_rng(seed).standard_normal(n), []
    for first, second in actions:
        u[0] += first
        u[n // 2] += second
        u = u + diffusivity * (np.roll(u, 1) - 2 * u + np.roll(u, -1))
        states.append(u.copy())
    return states


def test_the_calls_of_a_simulator_are_tasks_with_the_parameters_of_its_constructor(ring):
    assert {"create", "reset", "step", "get_state", "get_score", "get_spaces", "close", "version_of_mpi"} <= set(
        dir(ring)
    )
    assert [(p.name, p.default) for p in inspect.signature(ring.create).parameters.values()] == [
        ("n", 16),
        ("diffusivity", 0.2),
    ]
    assert "Heat on a ring" in ring.create.__doc__
    assert ring.version == "0.7"
    assert ring.version_of_mpi()


def test_a_simulation_on_three_ranks_is_that_of_one_process(ring):
    simulation = ring.create(n=17)
    start = ring.reset(simulation, seed=5)
    np.testing.assert_array_equal(start, np.random.default_rng(5).standard_normal(17))
    actions = [(0.5, -1.0), (0.0, 1.0), (-0.25, 0.75), (1.0, 1.0), (0.0, 0.0)]
    for number, (action, state) in enumerate(zip(actions, expected(17, 5, actions), strict=True), 1):
        got, score, finished, _ = ring.step(simulation, np.array(action))
        np.testing.assert_allclose(got, state, rtol=1e-14, atol=1e-14)
        assert score == pytest.approx(-np.sum(state**2))
        assert finished is (number == 5)
        np.testing.assert_array_equal(ring.get_state(simulation), got)
        assert ring.get_score(simulation) == score
    ring.close(simulation)


def test_the_same_seed_begins_the_same_episode(ring):
    simulation = ring.create()
    first = [ring.reset(simulation, 3), ring.step(simulation, [0.1, 0.2])[0]]
    ring.reset(simulation, 4)
    second = [ring.reset(simulation, 3), ring.step(simulation, [0.1, 0.2])[0]]
    np.testing.assert_array_equal(first, second)


def test_simulations_do_not_touch_each_other(ring):
    one, other = ring.create(n=8), ring.create(n=9, diffusivity=0.1)
    ring.reset(one, 1)
    ring.reset(other, 2)
    ring.step(one, [1.0, 0.0])
    np.testing.assert_allclose(ring.step(other, [0.0, 1.0])[0], expected(9, 2, [(0, 1)], 0.1)[0], rtol=1e-14)
    ring.close(one)
    with pytest.raises(errors.ArgumentValueError, match=f"there is no simulation {one}"):
        ring.step(one, [0.0, 0.0])
    assert ring.get_state(other).shape == (9,)


def test_loading_the_library_again_keeps_its_simulations(open_ring):
    ring = open_ring(1)
    simulation = ring.create(n=5)
    ring.reset(simulation, 1)
    again = ring._caller.run.__self__.load_library("ring")
    np.testing.assert_array_equal(again.get_state(simulation), ring.get_state(simulation))


def test_spaces_tell_bounds_names_and_units(ring):
    spaces = ring.get_spaces(ring.create())
    np.testing.assert_array_equal(spaces["action"]["low"], [-1.0, -1.0])
    assert spaces["action"]["names"] == ["first", "second"]
    assert spaces["action"]["units"] == ["K", "K"]
    assert spaces["observation"] is None


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ([0.0, 1.5], r"1\.5 outside -1\.0\.\.1\.0 in component 1 \(second\)"),
        ([np.nan, 0.0], r"NaN in component 0 \(first\)"),
        ([0.0], r"shape \(1,\), not \(2,\)"),
        ([0j, 0j], "dtype complex128"),
        (0.5, r"shape \(\), not \(2,\)"),
    ],
)
def test_an_action_outside_its_space_is_refused_and_changes_nothing(ring, action, text):
    simulation = ring.create()
    before = ring.reset(simulation, 0)
    with pytest.raises(errors.ArgumentValueError, match=text):
        ring.step(simulation, action)
    np.testing.assert_array_equal(ring.get_state(simulation), before)


def test_a_step_before_the_first_reset_is_refused(ring):
    simulation = ring.create()
    for call in (lambda: ring.step(simulation, [0.0, 0.0]), lambda: ring.get_state(simulation)):
        with pytest.raises(errors.ArgumentValueError, match="has not been reset"):
            call()


def test_wrong_parameters_are_refused_by_name(ring):
    with pytest.raises(errors.ArgumentError, match="did you mean 'diffusivity'"):
        ring.create(difusivity=0.1)
    with pytest.raises(errors.RemoteTaskError, match="n must be at least 3"):
        ring.create(n=1)


def test_as_many_ranks_as_there_are_give_the_same(open_ring):
    states = []
    for size in (1, 2):
        ring = open_ring(size)
        simulation = ring.create(n=10)
        ring.reset(simulation, 8)
        states.append(ring.step(simulation, [0.3, -0.3])[0])
    np.testing.assert_allclose(states[0], states[1], rtol=1e-15)
