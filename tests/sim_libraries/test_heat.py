"""The heated plate: analytic solutions, conserved heat, the Riccati equation, and the same on any number of ranks."""

import numpy as np
import pytest

from alchemist_ray.sim_libraries.heat.controller import Controller, Regulator
from alchemist_ray.sim_libraries.heat.model import Integrator, Plate, Stages, random_amplitudes

GROUPINGS = ["two by two", "strip of three", "pairs", "alone"]


@pytest.fixture(scope="module")
def found(cases_of):
    return cases_of("heat_cases.py", 4)


@pytest.mark.parametrize("grouping", range(4), ids=GROUPINGS)
def test_every_mode_follows_the_discretised_system(found, grouping):
    assert found["all_modes"][grouping] < 1e-12


@pytest.mark.parametrize("grouping", range(4), ids=GROUPINGS)
def test_any_number_of_ranks_gives_the_same_episode(found, grouping):
    assert found["episode"][grouping] < 1e-13


@pytest.mark.parametrize("grouping", range(4), ids=GROUPINGS)
def test_the_same_seed_gives_the_same_episode_bit_for_bit(found, grouping):
    assert found["repeats"][grouping]


@pytest.mark.parametrize("grouping", range(4), ids=GROUPINGS)
def test_a_snapshot_continues_bit_for_bit(found, grouping):
    assert found["snapshots"][grouping]


def test_the_ranks_agree_also_without_a_seed(found):
    assert found["ranks_agree"]


def test_a_field_that_is_not_finite_is_refused_on_all_ranks(found):
    assert "the temperature is not finite" in found["divergence"]


def test_the_heat_in_the_plate_is_what_the_actuators_put_in(found):
    assert found["heat_balance"] < 1e-12


def test_equal_fluxes_in_and_out_end_in_the_linear_profile(found):
    assert found["steady_state"] < 1e-10


def test_a_mode_decays_as_the_analytic_solution_with_second_order_in_space(found):
    errors = np.array(found["decay_errors"])
    assert abs(errors[-1]) < 1e-3
    np.testing.assert_allclose(np.log2(errors[:-1] / errors[1:]), 2.0, atol=0.05)


def test_the_error_in_time_falls_with_second_order(found):
    errors = np.array(found["time_errors"])
    orders = np.log2(errors[:-1] / errors[1:])
    assert orders[-1] == pytest.approx(2.0, abs=0.2)
    assert errors[-1] < 1e-4


def test_the_controller_has_the_cost_of_the_riccati_recursion(found):
    costs, predicted, idle = np.array(found["costs"]).T
    np.testing.assert_allclose(costs, predicted, rtol=2e-3)
    assert (idle > 2.5 * costs).all()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n", "n must be at least 6, not 3"),
        ("supersteps", "supersteps must be at least 1, not 0"),
        ("interval", "interval must be positive, and finite, not -1.0"),
        ("max_flux", "max_flux must be positive, and finite, not nan"),
        ("halo", "halo must be at least 1, not 0"),
        ("flux_weight", "flux_weight must be positive or zero, and finite, not -1.0"),
        ("observed_modes", "n must be at least 600, not 512"),
    ],
)
def test_invalid_parameters_are_named(found, name, text):
    assert text in found["refusals"][name]


@pytest.mark.parametrize("s", [3, 5, 11, 43])
def test_the_stages_are_second_order_and_stable_to_their_limit(s):
    stages = Stages.of(s)
    z = np.array([-1e-2, -5e-3])
    errors = np.abs(1 + z * stages.response(z) - np.exp(z))
    assert errors[0] / errors[1] == pytest.approx(8.0, rel=0.01)
    limit = (s**2 + s - 2) / 2
    within, beyond = np.linspace(-limit, -1e-3, 2001), np.array([-1.2 * limit])
    assert np.abs(1 + within * stages.response(within)).max() <= 1
    assert np.abs(1 + beyond * stages.response(beyond)).max() > 1


def test_no_sequence_of_actions_costs_less_than_the_riccati_recursion():
    """Find the least cost over all actions of an episode by linear least squares, without any feedback."""
    regulator, steps, modes = Regulator(Integrator(Plate(n=16)), modes=4), 12, 4
    a, B = regulator.system
    x0 = random_amplitudes(3, 1.0)[:modes, :modes].ravel()
    states = [
        np.hstack([np.diag(a**t) @ B if t >= 0 else 0 * B for t in range(k, k - steps, -1)]) for k in range(steps)
    ]
    root = np.sqrt(regulator.R[0, 0]) * np.eye(steps * 8)
    design = np.vstack([*states, root])
    target = -np.concatenate([*(a ** (k + 1) * x0 for k in range(steps)), np.zeros(steps * 8)])
    u, *_ = np.linalg.lstsq(design, target, rcond=None)
    least = np.sum((design @ u - target) ** 2)
    assert regulator.cost(x0, regulator.horizon(steps)) == pytest.approx(least, rel=1e-10)
    np.testing.assert_allclose(-regulator.gain(regulator.horizon(steps - 1)) @ x0, u[:8], atol=1e-10)
    np.testing.assert_allclose(regulator.horizon(400), regulator.P, rtol=1e-9, atol=1e-12)


def test_the_controller_keeps_to_the_bounds_and_forgets_the_past_at_step_0():
    controller = Controller(Regulator(Integrator(Plate(n=16))), 4, np.full(8, -0.5), np.full(8, 0.5))
    observation = random_amplitudes(1, 0.1)[:4, :4].ravel()
    assert np.abs(controller(100 * observation, 0)).max() == 0.5
    first = controller(observation, 0)
    assert np.abs(first).max() < 0.5
    assert not np.array_equal(controller(observation, 1), first)
    np.testing.assert_array_equal(controller(observation, 0), first)
    with pytest.raises(ValueError, match="must have all 9 observed modes"):
        Controller(Regulator(Integrator(Plate(n=16))), 9, np.full(8, -0.5), np.full(8, 0.5))
