"""The flow past a cylinder: exact solutions, the benchmark of Schaefer and Turek, the same on any number of ranks."""

import numpy as np
import pytest

PROGRAM = "cylinder_flow_cases.py"
CODE = ("rotating", "blowing", "repeats", "snapshots", "ranks_agree", "apart")
TRUTH = (*CODE, "poiseuille", "shear_decay", "steady", "street", "refusals", "divergence")


@pytest.fixture(scope="module")
def alone(cases_of):
    return cases_of(PROGRAM, 1, *TRUTH)


@pytest.fixture(scope="module", params=[1, 2, 3])
def found(request, cases_of, alone):
    return alone if request.param == 1 else cases_of(PROGRAM, request.param, *CODE)


@pytest.mark.parametrize("name", ["rotating", "blowing"])
def test_any_number_of_ranks_gives_the_same_episode(found, alone, name):
    ours, theirs = (each[name] if name == "rotating" else each[name][0] for each in (found, alone))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


def test_the_field_is_the_same_on_any_number_of_ranks_and_solid_where_the_cylinder_is(found, alone):
    _, field, solid, _ = found["blowing"]
    np.testing.assert_allclose(field, alone["blowing"][1], rtol=0, atol=1e-9)
    assert solid == pytest.approx(np.pi * 10**2, rel=0.02)


def test_the_same_seed_gives_the_same_episode_bit_for_bit(found):
    assert found["repeats"]


def test_a_snapshot_continues_bit_for_bit(found):
    assert found["snapshots"]


def test_the_ranks_agree_also_without_a_seed(found):
    same, jump = found["ranks_agree"]
    assert same
    assert jump < 0.01


def test_simulations_on_other_communicators_do_not_meet(found):
    assert found["apart"] < 1e-9


def test_the_error_of_poiseuille_flow_falls_with_second_order(alone):
    coarse, fine = alone["poiseuille"]
    assert fine < 2e-3
    assert coarse / fine == pytest.approx(4, rel=0.2)


def test_shear_decays_with_second_order_and_no_mass_is_lost(alone):
    errors, masses = np.array(alone["shear_decay"]).T
    np.testing.assert_allclose(np.log2(errors[:-1] / errors[1:]), 2.0, atol=0.3)
    assert masses.max() < 1e-13


def test_drag_and_lift_of_the_steady_benchmark(alone):
    drag, lift = alone["steady"]
    assert drag == pytest.approx(5.58, rel=0.01)
    assert 0.0100 < lift < 0.0114


def test_the_vortex_street_is_that_of_the_benchmark(alone):
    drag, lift, strouhal, (mean_drag, mean_lift) = alone["street"]
    assert drag == pytest.approx(3.20, rel=0.04)  # the mean of FEATFLOW's results on its finest grid
    assert lift == pytest.approx(1.0, rel=0.08)
    assert strouhal == pytest.approx(0.30, abs=0.005)
    assert mean_drag == pytest.approx(drag, rel=0.01)
    assert abs(mean_lift) < 0.2


def test_jets_take_power_but_little(alone):
    assert 0 < alone["blowing"][3]["power"] < 0.1


def test_a_lattice_too_coarse_for_the_flow_is_named(alone):
    assert "the drag is not finite" in alone["divergence"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resolution", "resolution must be a multiple of 10 from 20 to 200, not 25"),
        ("reynolds", "reynolds must be above 0 and at most 400, not 0.0"),
        ("length", "length must be from 8 to 100, not 3.0"),
        ("u_max", "u_max must be above 0 and at most 0.15, not 0.3"),
        ("actuation", "actuation must be 'rotation' or 'jets', not 'magic'"),
        ("amplitude", "amplitude must be above 0 and at most 5, not -1.0"),
        ("action_time", "action_time must be from 0.01 to 10, not 0.0"),
        ("lift_penalty", "lift_penalty must be from 0 to 10, not nan"),
        ("start_time", "start_time must be from 0 to 1000, not -1.0"),
    ],
)
def test_invalid_parameters_are_named(alone, name, text):
    assert text in alone["refusals"][name]
