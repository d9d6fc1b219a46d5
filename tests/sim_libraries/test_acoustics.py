"""Sound in a room: analytic solutions, properties of the scheme, and the same bits on any number of ranks."""

import numpy as np
import pytest
from skips import needs

PROGRAM = "acoustics_cases.py"

pytestmark = needs("cc")


ON_ANY_NUMBER = (
    "dispersion",
    "loudspeakers",
    "observations",
    "episode",
    "without_a_seed",
    "snapshots",
    "other_snapshot",
    "apart",
    "divergence",
    "size",
    "refusals",
)


@pytest.fixture(scope="module", params=[1, 2, 3])
def found(request, cases_of):
    return cases_of(PROGRAM, request.param, *(ON_ANY_NUMBER if request.param == 3 else ()))


@pytest.fixture(scope="module")
def found_on_two(cases_of):
    return cases_of(PROGRAM, 2)


def test_modes_of_a_rigid_room_follow_the_dispersion_relation_of_the_scheme(found):
    assert found["dispersion"] < 1e-12


def test_the_scheme_converges_with_second_order(found_on_two):
    errors = np.array(found_on_two["convergence"])
    assert errors[-1] < 3e-3
    np.testing.assert_allclose(np.log2(errors[:-1] / errors[1:]), 2.0, atol=0.05)


def test_energy_is_conserved_where_all_is_rigid(found_on_two):
    drift, of_mode = found_on_two["energy"]
    assert drift < 1e-13
    assert abs(of_mode) < 1e-12


@pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
def test_a_round_trip_leaves_what_the_wall_does_not_absorb(found_on_two, share):
    errors = np.array(found_on_two["absorption"][str(share)]) - (1 - share)
    assert abs(errors[-1]) < 1e-3
    assert np.all(np.abs(errors[:-1] / errors[1:]) > 3.5)


def test_every_wall_absorbs_alike(found_on_two):
    left = found_on_two["quarters"]
    np.testing.assert_allclose(left, left[0], rtol=1e-13)
    assert left[0] == pytest.approx(0.6, abs=3e-3)


def test_loudspeakers_add_the_specified_amount_of_air(found):
    assert abs(found["loudspeakers"]) < 1e-12


def test_observations_agree_with_the_field(found):
    seen = found["observations"]
    assert seen["microphones"] < 1e-13
    assert seen["history"]
    assert seen["score"] < 1e-12
    assert abs(seen["level"]) < 1e-11
    assert seen["solid"]
    assert seen["wavelength"]


def test_any_number_of_ranks_gives_the_same_bits(found, cases_of):
    assert found["episode"] == cases_of(PROGRAM, 1)["episode"]


def test_the_same_seed_gives_the_same_episode_bit_for_bit(found_on_two):
    assert found_on_two["repeats"]


def test_episodes_without_a_seed_differ_and_the_ranks_agree_on_them(found):
    assert found["without_a_seed"]


def test_a_snapshot_continues_bit_for_bit(found):
    assert found["snapshots"]


def test_the_snapshot_of_another_room_is_refused(found):
    assert "it comes from a simulation with other parameters" in found["other_snapshot"]


def test_simulations_on_other_communicators_do_not_meet(found):
    assert found["apart"]


def test_an_overflow_is_a_divergence_on_all_ranks_and_a_reset_repairs_it(found):
    assert "the pressure is no longer finite" in found["divergence"]


def test_wrong_parameters_are_refused_by_name(found):
    told = found["refusals"]
    expected = {
        "nx": "nx must be within 4..100000, not 3",
        "rows": "height must be a multiple of the cell size",
        "rows_of_ranks": f"the room has {found['size']} rows of cells, but each of the {found['size']} ranks needs two",
        "courant": "courant must be within 0..1, not 1.01",
        "density": "density must be positive, not -1",
        "substeps": "substeps must be within 1..1000000, not 0",
        "settle": "settle must be positive or zero",
        "absorption": "absorption contains 1.5, which is outside 0..1",
        "walls": "absorption must be a list of 4 numbers",
        "obstacle": "obstacle 1, from (5, 4) to (7, 4.2) m, contains no cell or is not inside the room",
        "empty": "obstacle 1, from (5, 4) to (5, 4.2) m, contains no cell",
        "obstacles": "obstacles must be a list of 0 to 32 lists of 4 numbers",
        "loudspeaker": "loudspeaker 2 at (6.5, 1) m is not in the room",
        "reach": "loudspeaker 1 at (2.3, 3) m is less than",
        "loudspeakers": "loudspeakers must be a list of 1 to 32 lists of 2 numbers",
        "many": "microphones must be a list of 1 to 32 lists",
        "microphone": "microphone 1 at (2.45, 3) m is in an obstacle",
        "nan": "microphones contains nan",
        "zone": "quiet_zone, from (5, 1) to (6.5, 2) m, contains no cell or is not inside the room",
        "blocked": "quiet_zone overlaps an obstacle",
        "radius": "radius must be at least a quarter of a cell, 0.00375 m, not 0.001 m",
        "noise": "noise must be 'silence', 'tones', 'pulse' or 'mode', not 'music'",
        "tones": "tones must be within 1..16, not 17",
        "band": "band must ascend within 0..2286.67 Hz",
        "pressure": "pressure must be positive, not 0 Pa",
    }
    assert told.keys() == expected.keys()
    for name, text in expected.items():
        assert text in told[name], name
