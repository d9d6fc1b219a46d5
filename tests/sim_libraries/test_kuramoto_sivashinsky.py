"""Kuramoto-Sivashinsky: linear growth, published waves, orders, conservation, and the same on any number of ranks."""

import numpy as np
import pytest

WAVES = {
    # Cvitanovic, Davidchack & Siminos, SIAM J. Appl. Dyn. Syst. 9 (2010): energy, speed, leading eigenvalue.
    "E1": (0.2609, 0.0, 0.1308, 0.3341),
    "E2": (0.4382, 0.0, 0.1390, 0.2384),
    "E3": (1.5876, 0.0, 0.0933, 0.0),
    "TW1": (0.4649, 0.73699, 0.1156, 0.8173),
    "TW2": (0.6048, 0.34954, 0.3370, 0.0),
}


@pytest.fixture(scope="module")
def found(cases_of):
    return cases_of("kuramoto_sivashinsky_cases.py", 3)


def test_any_number_of_ranks_gives_the_same_episode_bit_for_bit(found):
    assert found["groupings"] == [True, True]


def test_a_snapshot_continues_bit_for_bit(found):
    assert found["snapshots"] == [True] * 4


def test_the_same_seed_gives_the_same_episode_bit_for_bit(found):
    assert found["repeats"] == [True, True]


def test_the_ranks_agree_also_without_a_seed(found):
    assert found["ranks_agree"]


def test_small_waves_grow_as_linear_theory_says(found):
    on_one_patch, on_three = found["growth_rates"]
    assert on_one_patch < 1e-12
    assert on_three < 1e-12


def test_patches_agree_with_one_transform_over_the_whole(found):
    solution, score = found["patches_against_one"]
    assert solution < 1e-11
    assert score < 1e-12


@pytest.mark.parametrize("name", WAVES)
def test_published_waves_are_waves_of_the_simulation(found, name):
    wave = found["waves"][name]
    seen = [wave[key] for key in ("energy", "speed", "rate", "frequency")]
    np.testing.assert_allclose(seen, WAVES[name], atol=1e-4)
    assert wave["off course"] < 1e-6
    assert wave["growth"] < 1e-4


def test_the_order_in_time_is_four(found):
    longest, *errors = found["time_errors"]
    assert longest < 2e-3
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (orders > 3.6).all()  # the order approaches 4 once dt is below the time scales of the damped modes
    assert orders[-1] > orders[0]


def test_energy_changes_by_power_minus_dissipation(found):
    coarse, fine = found["energy_balance"]
    assert coarse < 1e-5
    assert fine < coarse / 8


def test_the_score_is_minus_dissipation_and_power(found):
    assert found["score"] < 1e-12


def test_the_mean_of_u_is_what_the_forcing_puts_in(found):
    assert max(found["mean_of_u"]) < 1e-12


def test_galilean_and_reflection_symmetry(found):
    galilean, reflection = found["symmetries"]
    assert galilean < 1e-6
    assert reflection < 1e-12


def test_the_uncontrolled_attractor(found):
    score, largest = found["uncontrolled"]
    assert score == pytest.approx(-1.8, abs=0.15)
    assert 2.5 < largest < 3.8


def test_a_picture_shows_u_over_time_and_space(found):
    seen = found["pictures"]
    height, width = seen["shape"]
    assert width == 400
    assert height > 200
    assert seen["nothing before"]
    assert seen["filled"]
    assert seen["now"]
    left, right, bottom, top, time, hold, length = seen["extent"]
    assert (left, right, bottom, top) == (time - 400 * hold, time, 0.0, length)


def test_wrong_parameters_are_refused_by_name(found):
    for name, text in found["refusals"]:
        assert name in text


def test_a_solution_that_is_not_finite_is_refused_on_all_ranks(found):
    assert "no longer finite" in found["divergence"]
