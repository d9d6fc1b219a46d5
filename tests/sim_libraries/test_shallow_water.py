"""Shallow water under real MPI: exact solutions, the same on any number of ranks, snapshots, and a calmer harbour."""

from __future__ import annotations

import numpy as np
import pytest

PROGRAM = "shallow_water_cases.py"
ON_THREE = (
    "the_same_on_any_number_of_ranks",
    "a_snapshot_continues",
    "the_same_seed_is_the_same_episode",
    "each_rank_may_have_its_own",
    "water_at_rest",
    "what_is_refused",
    "divergence",
)
"""Cases that also run on three ranks. An odd number of ranks gets uneven numbers of columns."""


def results(cases_of, size):
    return cases_of(PROGRAM, size, *(ON_THREE if size > 2 else ()))


@pytest.fixture(scope="module", params=(1, 2), ids=lambda size: f"{size} ranks")
def found(request, cases_of):
    return results(cases_of, request.param)


@pytest.fixture(scope="module", params=(1, 2, 3), ids=lambda size: f"{size} ranks")
def found_anywhere(request, cases_of):
    return results(cases_of, request.param)


def test_water_at_rest_stays_at_rest_over_islands(found_anywhere):
    rest = found_anywhere["water_at_rest"]
    assert rest["dry"] > 50
    assert rest["speed"] < 1e-13
    assert rest["change"] < 1e-14


@pytest.mark.parametrize(("kind", "largest"), [("wet", 0.007), ("dry", 0.006)])
def test_dam_breaks_converge_to_the_solutions_of_stoker_and_ritter(found, kind, largest):
    (coarse, _), (fine, volume) = found["dams_break"][kind]
    assert coarse < largest
    assert fine < 0.62 * coarse
    assert volume < 1e-14


def test_a_standing_wave_has_its_frequency_to_second_order(found):
    coarse, fine = map(abs, found["a_standing_wave"])
    assert coarse < 8e-3
    assert fine < 0.3 * coarse


def test_the_shore_moves_as_in_thackers_bowl_and_no_water_is_lost(found):
    bowl = found["thackers_bowl"]
    assert bowl["error"] < 0.02
    assert bowl["volume"] < 1e-14
    assert bowl["lowest"] >= 0


def test_waves_leave_through_the_open_side(found):
    assert found["waves_leave_through_the_west"] < 1e-3


def test_an_episode_is_the_same_on_any_number_of_ranks(cases_of):
    one, *others = (results(cases_of, size)["the_same_on_any_number_of_ranks"] for size in (1, 2, 3))
    rows = np.array(one["rows"])
    assert rows.shape == (41, 37)
    for other in others:
        np.testing.assert_array_equal(np.array(other["rows"])[:, :-1], rows[:, :-1])
        np.testing.assert_allclose(np.array(other["rows"])[:, -1], rows[:, -1], rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(other["field"], one["field"])
        assert other["info"] == pytest.approx(one["info"], rel=1e-12)


def test_seeds_and_snapshots_give_the_same_bit_for_bit(found_anywhere):
    assert found_anywhere["the_same_seed_is_the_same_episode"]
    assert found_anywhere["a_snapshot_continues"]


def test_simulations_on_other_communicators_do_not_meet(found_anywhere):
    first = found_anywhere["each_rank_may_have_its_own"]
    np.testing.assert_array_equal(first["alone"], first["whole"])


def test_the_harbour_is_calmer_when_the_wave_makers_push_against_the_flow(found):
    nothing, absorbing = found["calmer_with_absorbers"]
    assert nothing > 0.02
    assert absorbing < 0.8 * nothing


def test_wrong_parameters_are_named_on_every_rank(found_anywhere):
    for name, text in found_anywhere["what_is_refused"].items():
        assert name in text


def test_all_ranks_raise_divergence(found_anywhere):
    assert found_anywhere["divergence"] == {"told": True, "again": True}
