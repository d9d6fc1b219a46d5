"""Arguments and results that would be converted silently are refused, and nothing has happened then."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from libraries.odd_values import ODD

import alchemist_ray as alchemist
from alchemist_ray import errors
from alchemist_ray.envs import Bounds

NOT_REAL = {
    "complex": ([0.5 + 0j, 0], "complex128"),
    "text": (["0.5", "0"], "<U"),
    "bytes": ([b"1", b"0"], r"\|S"),
    "bool": ([True, False], "bool"),
    "a bool among numbers": ([0.5, True], "bool"),
    "array of bool": (np.array([True, False]), "bool"),
    "object": (np.array([0.5, None], object), "object"),
    "date": (np.array(["2026-01-01", "2026-01-02"], "M8[D]"), "datetime64"),
    "masked": (np.ma.masked_greater([0.0, 0.05], 0.01), "masked elements"),
    "list of masked": ([np.ma.masked, 0.0], "masked elements"),
    "ragged": ([[0.0], [0.0, 0.0]], "not an array of real numbers"),
    "none": (None, "object"),
    "huge integer": ([2**70, 0], "object"),
}


@pytest.mark.parametrize("kind", NOT_REAL)
def test_an_action_that_is_not_made_of_real_numbers_is_refused(kind):
    action, text = NOT_REAL[kind]
    bounds = Bounds.unbounded((2,))
    with pytest.raises(errors.ArgumentValueError, match=f"step: the action .*{text}"):
        bounds.admit("step", action)
    batch = np.ma.stack([action, action]) if kind == "masked" else [action, action]
    with pytest.raises(errors.ArgumentValueError, match="the action"):
        bounds.admit("step", batch, 2)


def test_an_infinite_action_is_in_no_space():
    bounds = Bounds(np.array([-np.inf, 0.0]), np.array([np.inf, 1.0]), ("push",))
    with pytest.raises(errors.ArgumentValueError, match=r"is inf outside the finite numbers in component 0 \(push\)"):
        bounds.admit("step", [np.inf, 0])
    with pytest.raises(errors.ArgumentValueError, match="of simulation 1 is -inf outside the finite numbers"):
        bounds.admit("step", [[0, 0], [-np.inf, 0]], 2)


@pytest.mark.parametrize("action", [[1, 0], np.array([1, 0], np.int8), np.array([1.0, 0.0], np.float16), (0.5, 0)])
def test_real_numbers_of_any_type_are_admitted(action):
    taken = Bounds(np.zeros(2), np.ones(2)).admit("step", action)
    assert taken.dtype == np.float64
    np.testing.assert_array_equal(taken, np.asarray(action, float))


BAD_SEEDS = [1.7, True, "12", -1, [1], np.float64(3.0), np.bool_(True)]


@pytest.mark.parametrize("seed", BAD_SEEDS, ids=repr)
def test_a_seed_that_is_not_an_integer_is_refused_before_anything_happens(make_env, seed):
    env = make_env()
    env.reset(seed=5)
    with pytest.raises((errors.ArgumentError, errors.ArgumentValueError), match="a seed must be"):
        env.reset(seed=seed)
    assert not env.step([0, 0])[3]  # the episode goes on
    following = env.reset()[1]
    env.reset(seed=5)
    assert env.reset()[1] == following  # and so do the seeds


def test_options_are_checked_before_the_seed_is_taken(make_env):
    env = make_env()
    env.reset(seed=5)
    for options, text in (
        ({"snapshto": 1}, "did you mean 'snapshot'"),
        ({"snapshot": 3}, "must be a Snapshot, not 3"),
        ([1], "options must be a mapping"),
    ):
        with pytest.raises(errors.ArgumentError, match=text):
            env.reset(seed=9, options=options)
    following = env.reset()[1]
    env.reset(seed=5)
    assert env.reset()[1] == following


def test_numpy_integers_are_seeds(make_env):
    env = make_env()
    assert env.reset(seed=np.int64(5))[1] == env.reset(seed=5)[1]


@pytest.mark.parametrize("n", [0, 1.5, True, "2"])
def test_a_number_of_forks_is_an_integer(make_env, n):
    env = make_env()
    env.reset(seed=1)
    with pytest.raises((errors.ArgumentError, errors.ArgumentValueError), match="n must be"):
        env.fork(n)


def test_the_arguments_of_many_simulations_are_checked_before_the_first_is_touched(make_envs):
    envs = make_envs(3, params={"chance": 0.0})
    envs.reset(seed=5)
    before = [seeds.bit_generator.state for seeds in envs.np_random]
    mask = np.array([True, False, True])
    for arguments, text in (
        ({"seed": [1.7, 2, 3]}, r"a seed must be an integer, not 1\.7"),
        ({"seed": [1, 2, True]}, "a seed must be an integer, not True"),
        ({"seed": [1, 2, -3]}, "at least 0, not -3"),
        ({"seed": 1.7}, "must be a list, not 1.7"),
        ({"seed": True}, "not True"),
        ({"seed": "123"}, "must be a list, not '123'"),
        ({"seed": {1, 2, 3}}, "must be a list"),
        ({"seed": np.ma.masked_greater([1, 2, 3], 2)}, "must be a list"),
        ({"seed": np.array([1.0, 2.0, 3.0])}, "a seed must be an integer"),
        ({"seed": 9, "options": {"reset_mask": np.ma.array(mask, mask=~mask)}}, "array of bool"),
        ({"seed": 9, "options": {"reset_mask": mask.astype(int)}}, "array of bool"),
        ({"seed": 9, "options": "reset_mask"}, "options must be a mapping"),
    ):
        with pytest.raises((errors.ArgumentError, errors.ArgumentValueError), match=text):
            envs.reset(**arguments)
    assert [seeds.bit_generator.state for seeds in envs.np_random] == before
    for indices, text in (
        ([1.7], "an index must be an integer"),
        ([True], "an index must be an integer"),
        ("01", "indices must be a list"),
        ([3], "different ones of 0..2"),
    ):
        with pytest.raises((errors.ArgumentError, errors.ArgumentValueError), match=text):
            envs.snapshot(indices)
    taken = envs.snapshot()
    with pytest.raises(errors.ArgumentError, match="each snapshot must be a Snapshot, not 1"):
        envs.restore([taken[0], 1, taken[2]])
    assert envs.step(np.zeros((3, 2)))[4]["steps"].tolist() == [1, 1, 1]


def test_a_reset_with_a_numpy_array_of_seeds_is_one_with_a_list(make_envs):
    envs = make_envs(3)
    np.testing.assert_array_equal(envs.reset(seed=np.array([4, 5, 6]))[0], envs.reset(seed=[4, 5, 6])[0])
    assert envs.np_random_seed == (4, 5, 6)


def test_a_snapshot_of_other_workers_restores_no_simulation_at_all(make_envs):
    envs = make_envs(2, num_groups=2, num_workers=1, params={"chance": 0.0})
    envs.reset(seed=1)
    first, second = envs.snapshot()
    stepped = envs.step(np.zeros((2, 2)))[0]
    with pytest.raises(errors.ArgumentValueError, match="the workers that run simulation 1"):
        envs.restore([first, first])
    observations, _ = envs.restore([second], [1])
    np.testing.assert_array_equal(observations[0], stepped[0])


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"port": 70_000}, errors.ArgumentValueError, "port must be at most 65535, not 70000"),
        ({"hostname": ""}, errors.ArgumentValueError, "hostname is empty"),
        ({"lib_path": ""}, errors.ArgumentValueError, "lib_path is empty"),
        ({"token": ""}, errors.ArgumentValueError, "token is empty"),
        ({"params": {1: 2}}, errors.ArgumentError, "names in params must be str, not 1"),
    ],
)
def test_settings_that_would_be_replaced_silently_are_refused(settings, error, text):
    with pytest.raises(error, match=text):
        alchemist.HPCSimulator({"lib_name": "heat", **settings})


def test_an_env_config_is_a_mapping():
    with pytest.raises(errors.ArgumentError, match="env_config must be a mapping of keys, not 'heat'"):
        alchemist.HPCSimulator("heat")


# --- on the workers ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd(env_server):
    with alchemist.AlchemistSession() as session:
        session.connect(env_server.hostname, env_server.port, env_server.token)
        session.request_workers(2)
        yield session.load_library("odd_values")


REFUSED = {
    "complex_state": "dtype complex128, which is not real",
    "text_state": "dtype <U1, which is not real",
    "masked_state": "masked elements",
    "text_score": "get_score returned '1.5' on rank 0, which is not a real number",
    "complex_score": r"get_score returned \(1.5\+0j\)",
    "bool_score": "get_score returned True",
    "text_finished": "is_finished returned 'False' on rank 0, which is not a bool",
    "no_finished": "is_finished returned None",
}


@pytest.mark.parametrize("what", ODD)
def test_odd_values_of_a_simulator_are_refused_by_name(odd, what):
    simulation, batch = odd.create(what=what), odd.create_batch(2, 1, {"what": what})
    odd.reset(simulation)
    odd.advance_batch(batch, b"\2\2")
    if what.endswith("field"):
        for call in (lambda: odd.get_field(simulation), lambda: odd.get_batch_fields(batch)):
            with pytest.raises(errors.RemoteTaskError, match="get_field returned"):
                call()
        return
    _, numbers, _, notes = odd.advance_batch(batch, b"\1\1", np.zeros((2, 2)))
    if what not in REFUSED:
        _, score, finished, info = odd.step(simulation, [0, 0])
        assert (score, finished) == (1.5 if what == "array_score" else 0.5, False)
        assert numbers[:, 0].tolist() == [score, score]
        if what == "bool_info":  # not the number 1.0
            assert info == {"wet": True}
            assert notes == [["info", 0, info], ["info", 1, info]]
        return
    with pytest.raises(errors.TaskError, match=REFUSED[what]):
        odd.step(simulation, [0, 0])
    failures = [errors.from_wire(name, fields) for kind, _, _, name, fields in notes if kind == "failure"]
    with pytest.raises(errors.TaskError, match=REFUSED[what]):
        raise failures[1]


def test_arguments_of_the_tasks_are_checked_before_anything_happens(odd):
    simulation, batch = odd.create(), odd.create_batch(2, 1)
    odd.reset(simulation)
    odd.advance_batch(batch, b"\2\2")
    actions = np.zeros((2, 2))
    for action, text in (
        (np.array([0.5j, 0]), "dtype complex128"),
        (np.array(["1", "2"]), "."),
        (np.array([True, False]), "dtype bool"),
        ([np.inf, 0.0], "not finite"),
    ):
        with pytest.raises((errors.ArgumentValueError, errors.ArgumentError), match=text):
            odd.step(simulation, action)
        with pytest.raises((errors.ArgumentValueError, errors.ArgumentError), match=text):
            odd.advance_batch(batch, b"\1\1", np.stack([action, action]))
    for arguments, text in (
        ((b"\1\10", actions), "there is no order 8"),
        ((b"\2\2", None, [1.7, 2]), r"seeds must be integers, not 1\.7"),
        ((b"\2\2", None, [1, True]), "seeds must be integers, not True"),
        ((b"\2\2", None, ["1", 2]), "seeds must be integers, not '1'"),
    ):
        with pytest.raises((errors.ArgumentValueError, errors.ArgumentError), match=text):
            odd.advance_batch(batch, *arguments)
    for call, text in (
        (lambda: odd.get_batch_fields(batch, [0.0]), "simulations must be integers, not 0.0"),
        (lambda: odd.get_batch_fields(batch, [True]), "simulations must be integers, not True"),
        (lambda: odd.drop_snapshots([1.0]), "snapshots must be integers"),
        (lambda: odd.drop_batch_snapshots(["1"]), "snapshots must be integers"),
        (lambda: odd.restore_batch(batch, [True]), "snapshots must be integers"),
        (lambda: odd.create_batch(2, 1, {1: 2}), "names of parameters must be str|text"),
    ):
        with pytest.raises((errors.ArgumentError, errors.ArgumentValueError), match=text):
            call()


@pytest.mark.parametrize(
    "action", [[0.5j, 0], ["1", "2"], [True, False], [[0], [0, 0]], np.ma.masked_greater([0, 2], 1)]
)
def test_the_short_way_refuses_what_the_task_refuses(odd, action):
    session = odd._caller.run.__self__
    simulation = odd.create()
    odd.reset(simulation)
    with pytest.raises(errors.ArgumentError, match="action"):
        session.step_simulation("odd_values", simulation, action)
    with pytest.raises(errors.ArgumentError, match="action"):
        session.advance_batch("odd_values", 1, b"\1\1", action)


def test_reset_needed_is_what_gymnasium_calls_it(make_env):
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call reset\(\) before the first step"):
        make_env().step([0, 0])
