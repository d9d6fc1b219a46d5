"""Pictures and curves: what they are drawn from, colour scales, what is left out, and the sizes of animations."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from alchemist_ray.training.evaluation import Episode, Evaluation
from alchemist_ray.training.fields import ColourScale, draw_fields, evenly, write_animation
from alchemist_ray.training.figures import CurveEvaluations, draw_curve, draw_episode, on_common_steps
from alchemist_ray.training.recording import Recording, reduced, shows_nothing


def field_of(values, low=None, high=None, **others):
    return {"values": np.asarray(values, np.float32), "name": "height", "unit": "m", "low": low, "high": high, **others}


@pytest.mark.parametrize("length", [1, 3, 7, 8, 9, 100, 1000])
def test_a_recording_has_evenly_spaced_pictures_however_long_the_episode(length):
    class Painter:
        unwrapped = None

        def render(self):
            return np.zeros((4, 4, 3), np.uint8)

    recording = Recording(wanted=4, width=4)
    for step in range(length + 1):
        recording(Painter(), step)
    steps = [step for step, _ in recording.pictures]
    assert min(4, length + 1) <= len(steps) <= 8
    assert steps[0] == 0
    assert len(set(np.diff(steps))) == 1
    assert steps[-1] + steps[1] > length
    assert len(evenly(steps, 4)) == min(4, length + 1)


def test_blocks_without_a_number_stay_so_and_others_are_means_of_the_rest():
    values = np.full((4, 4), np.nan)
    values[0, 0], values[3, 2:] = 2.0, [1.0, 4.0]
    np.testing.assert_allclose(reduced(field_of(values), 2)["values"], [[2.0, np.nan], [np.nan, 2.5]])
    assert reduced(field_of(values), 9)["values"].shape == (4, 4)
    seen = reduced(field_of(np.arange(24.0).reshape(4, 6), extent=[0, 3, 0, 2]), 3)
    np.testing.assert_allclose(seen["values"], [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]])
    assert (seen["unit"], seen["extent"]) == ("m", [0, 3, 0, 2])


@pytest.mark.parametrize(
    ("shot", "nothing"),
    [
        (field_of(np.ones((3, 3))), True),
        (field_of(np.full((3, 3), np.nan)), True),
        (field_of(np.eye(3)), False),
        (field_of(np.where(np.eye(30), np.arange(30.0), np.nan)), False),
        (np.zeros((3, 3, 3), np.uint8), True),
        (np.arange(27, dtype=np.uint8).reshape(3, 3, 3), False),
    ],
)
def test_a_picture_of_a_constant_shows_nothing(shot, nothing):
    assert shows_nothing(shot) == nothing


def test_all_pictures_have_one_scale_with_the_quantity_and_its_unit():
    scale = ColourScale.of([field_of([[0.0, 1.0]]), field_of([[-3.0, 2.0]])])
    assert (scale.low, scale.high, scale.label, scale.extend) == (-3.0, 3.0, "height (m)", "neither")
    given = ColourScale.of([field_of([[-5.0, 1.0]], low=-2.0, high=2.0), field_of([[0.0, 9.0]], low=-2.0, high=2.0)])
    assert (given.low, given.high, given.extend) == (-2.0, 2.0, "both")
    assert ColourScale.of([{**field_of([[1.0, 4.0]]), "unit": "1"}]).label == "height"
    assert ColourScale.of([np.zeros((2, 2, 3), np.uint8)]) is None


def colours_in(file):
    return {tuple(colour) for colour in np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3)}


def test_panels_of_constants_are_left_out_and_the_page_says_so(tmp_path):
    """Of the steps 0 to 4 the first is uniform for both policies, the third for one of them."""
    ramp = np.linspace(-1, 1, 48).reshape(6, 8)
    shots = [np.zeros((6, 8)), ramp, ramp, 2 * ramp, ramp]
    other = [np.zeros((6, 8)), ramp, np.ones((6, 8)), ramp, ramp]
    recordings = {
        name: Recording(5, 60, [(step, field_of(values)) for step, values in enumerate(seen)])
        for name, seen in (("trained", shots), ("no control", other))
    }
    notes = draw_fields(tmp_path / "fields.png", recordings, 4)
    assert notes == ["fields.png leaves out step 0: the field has the same value everywhere, or no values yet."]
    assert len(colours_in(tmp_path / "fields.png")) > 40
    nothing = {"trained": Recording(5, 60, [(0, field_of(np.zeros((6, 8))))])}
    assert draw_fields(tmp_path / "fields.png", nothing, 4)[0].startswith("fields.png is not drawn: ")
    assert not (tmp_path / "fields.png").exists()


def test_a_number_that_is_constant_or_a_clock_has_no_panel_and_the_page_says_so(tmp_path):
    def episode(seed):
        numbers = np.random.default_rng(seed).standard_normal(9)
        series = [
            {"reward": each, "action push": each, "drag": each, "depth": 2.5, "time": 0.25 * step}
            for step, each in enumerate(numbers)
        ]
        return Episode(seed, series=series)

    episodes = {"trained": episode(1), "zero": episode(2)}
    notes = draw_episode(tmp_path / "episode.png", episodes, "walk", {"push": "N"})
    assert notes == ["episode.png does not show depth (constant, 2.5), time (grows evenly)."]
    height = Image.open(tmp_path / "episode.png").height
    for row in episodes["zero"].series:
        row["depth"] = 3.0 * row["drag"]
    assert (
        draw_episode(tmp_path / "episode.png", episodes, "walk", {})[0]
        == "episode.png does not show time (grows evenly)."
    )
    assert Image.open(tmp_path / "episode.png").height == height  # reward, action and drag had left a place free


def animated(file, recordings, frames, max_bytes):
    write_animation(file, recordings, frames=frames, frames_per_second=10, max_bytes=max_bytes)
    assert file.stat().st_size <= max_bytes
    picture = Image.open(io.BytesIO(file.read_bytes()))
    return picture.width, picture.height, picture.n_frames


@pytest.mark.parametrize("axes", [{}, {"extent": [0, 8, 0, 5], "axes": ["x (m)", "y (m)"]}])
def test_an_animation_is_made_small_enough_and_its_sides_are_even(tmp_path, axes):
    noise = np.random.default_rng(0)
    recordings = {
        name: Recording(30, 81, [(step, field_of(noise.standard_normal((50, 81)), **axes)) for step in range(count)])
        for name, count in (("trained", 24), ("no control", 4))
    }
    sizes = [animated(tmp_path / "whole.gif", recordings, 24, 10**6)]
    whole = (tmp_path / "whole.gif").stat().st_size
    sizes += [animated(tmp_path / "less.gif", recordings, 24, round(share * whole)) for share in (0.8, 0.15)]
    assert sizes[0][2] == 24
    assert all(width % 2 == height % 2 == 0 for width, height, _ in sizes)
    assert sizes[0][:2] == sizes[1][:2]  # frames go first
    assert sizes[1][2] < 24
    assert sizes[2][0] < sizes[1][0]


def test_pictures_in_colours_are_animated_without_a_scale(tmp_path):
    noise = np.random.default_rng(0)
    pictures = [(step, noise.integers(0, 255, (40, 60, 3), np.uint8)) for step in range(3)]
    width, height, frames = animated(tmp_path / "walk.gif", {"walk": Recording(3, 60, pictures)}, 3, 10**6)
    assert (width % 2, height % 2, frames) == (0, 0, 3)
    assert width < 100


# --- curves -----------------------------------------------------------------------------------------------------------


def test_curves_of_several_trainings_are_compared_on_the_steps_that_all_cover():
    curves = [
        (np.array([100.0, 200.0, 300.0]), np.array([0.0, 1.0, 2.0])),
        (np.array([150.0, 250.0, 350.0]), np.array([1.0, 3.0, 5.0])),
        (np.array([]), np.array([])),
    ]
    steps, returns = on_common_steps(curves)
    assert steps.tolist() == [150.0, 200.0, 250.0, 300.0]
    np.testing.assert_allclose(returns, [[0.5, 1.0, 1.5, 2.0], [1.0, 2.0, 3.0, 4.0]])


@pytest.mark.parametrize("banded", [True, False])
@pytest.mark.parametrize("trainings", [1, 3])
def test_a_curve_is_drawn_for_any_number_of_trainings_and_evaluations(tmp_path, banded, trainings):
    rows = [
        {"training": n, "timesteps": 100 * k, "mean_return": n - 9 / k if k > 1 else None, "evaluation_return": None}
        for n in range(trainings)
        for k in range(1, 5)
    ]
    baselines = {"zero": Evaluation([Episode(5, steps=1, total=-4.0)])}
    draw_curve(tmp_path / "a.png", rows, CurveEvaluations([5], baselines, []), "walk", banded=banded)
    draw_curve(tmp_path / "b.png", rows, CurveEvaluations([5], baselines, [(400, -1.0)]), "walk", banded=banded)
    during = [{**row, "evaluation_return": -2.0} for row in rows]
    draw_curve(tmp_path / "c.png", during, CurveEvaluations([5], {}, []), "walk", banded=banded)
    assert len({(tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png")}) == 3
