"""Pictures: colours, and a height and width that every video player takes."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from alchemist_ray.envs.rendering import blank, even, labelled, limits, tiled, to_rgb
from alchemist_ray.training.recording import Recording


def field(values, low=None, high=None):
    return {"values": np.asarray(values, float), "name": "", "unit": "", "low": low, "high": high}


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 6), (171, 7), (511, 513), (600, 3)])
def test_pictures_have_an_even_height_and_width(shape):
    picture = to_rgb(field(np.arange(np.prod(shape)).reshape(shape)))
    assert picture.dtype == np.uint8
    assert [size % 2 for size in picture.shape[:2]] == [0, 0]
    assert picture.flags.c_contiguous
    times = max(1, 512 // max(shape))
    assert picture.shape[0] - shape[0] * times in (0, 1)
    np.testing.assert_array_equal(picture[-1, -1], picture[shape[0] * times - 1, shape[1] * times - 1])
    assert [size % 2 for size in tiled([picture] * 3).shape[:2]] == [0, 0]


def test_an_even_picture_stays_as_it_is():
    picture = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    np.testing.assert_array_equal(even(picture), picture)
    np.testing.assert_array_equal(even(picture[:3, :5])[:3, :5], picture[:3, :5])
    assert [size % 2 for size in blank().shape[:2]] == [0, 0]


@pytest.mark.parametrize(
    ("width", "taken"), [(33, (50, 70, 3)), (33, (20, 33, 3)), (64, (31, 64, 3)), (96, (33, 48, 3))]
)
def test_recorded_pictures_are_even_too(width, taken):
    class Drawn(gymnasium.Env):
        def render(self):
            return np.zeros(taken, np.uint8)

    recording = Recording(wanted=1, width=width)
    recording(Drawn(), 0)
    ((_, picture),) = recording.pictures
    assert [size % 2 for size in picture.shape[:2]] == [0, 0]
    assert picture.shape[1] in (width, width + 1)


@pytest.mark.parametrize("shape", [(3, 5), (300, 7), (7, 300)])
def test_a_labelled_picture_has_the_picture_over_its_scale(shape):
    drawn = field(np.linspace(0, 3, np.prod(shape)).reshape(shape)) | {"name": "temperature", "unit": "K"}
    plain, picture = to_rgb(drawn), labelled(drawn)
    height, width = plain.shape[:2]
    left = (picture.shape[1] - width) // 2
    np.testing.assert_array_equal(picture[:height, left : left + width], plain)
    assert [size % 2 for size in picture.shape[:2]] == [0, 0]
    scale = picture[height + 10, 12 : picture.shape[1] - 12]
    np.testing.assert_array_equal(scale[[0, -1]], [plain[0, 0], plain[height - 1, width - 1]])
    words = picture[height + 20 :].min(axis=2) < 128
    third = picture.shape[1] // 3
    assert [bool(words[:, part].any()) for part in (slice(third), slice(third, -third), slice(-third, None))] == [
        True
    ] * 3


def test_zero_is_in_the_middle_of_a_scale_with_both_signs():
    assert limits(field([[-1.0, 3.0, np.nan]])) == (-3.0, 3.0)
    assert limits(field([[1.0, 3.0]])) == (1.0, 3.0)
    assert limits(field([[-1.0, 3.0]], -2.0, 1.0)) == (-2.0, 1.0)
    assert limits(field([[np.nan]])) == (0.0, 1.0)
    solid = to_rgb(field([[np.nan, 1.0], [0.0, 1.0]]))
    assert solid[0, 0].tolist() == [89, 89, 89]
