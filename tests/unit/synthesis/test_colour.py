"""An anomaly has no more colour than the picture that it is on."""

import numpy as np
import pytest

from components.synthesis.blending import made
from components.synthesis.colour import MOST, colour_of, colourfulness, within_colour
from components.synthesis.extended import extended
from components.synthesis.settings import SynthesisSettings
from components.synthesis.strategies import AREAS, STRATEGIES
from components.synthesis.synthesise import make
from tests.conftest import tile

SETTINGS = SynthesisSettings()
GREY = tile(3)
TINTED = np.clip(GREY + np.random.default_rng(0).integers(-2, 3, GREY.shape), 0, 255).astype(np.uint8)
PAINTED = (GREY * np.array([1.0, 0.6, 0.3])).astype(np.uint8)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_on_a_grey_picture_there_is_no_colour(name):
    for seed in range(4):
        found = make(name, GREY, np.random.default_rng(seed), SETTINGS)
        assert (found.image == found.image[..., :1]).all()
        np.testing.assert_array_equal(found.mask, (found.image != GREY).any(-1))
        low, high = AREAS.get(name, SETTINGS.area)
        assert low <= found.area <= high  # of what is left, not of what was drawn


@pytest.mark.parametrize("name", ["perlin_texture", "confetti", "smudge", "natural", "texture_defect"])
def test_a_grey_product_before_a_colour_camera_keeps_to_its_few_levels(name):
    limit = colour_of(TINTED)
    assert 3 <= limit <= 4
    for seed in range(4):
        found = make(name, TINTED, np.random.default_rng(seed), SETTINGS)
        assert colourfulness(found.image).max() <= limit + 1  # rounded


def test_a_coloured_product_has_coloured_anomalies():
    drawn = [make("smudge", PAINTED, np.random.default_rng(seed), SETTINGS) for seed in range(12)]
    other = [m for m in drawn if (m.image[m.mask][:, 2] > m.image[m.mask][:, 0]).any()]  # bluish on an orange product
    assert other
    assert all(colourfulness(m.image[m.mask]).max() <= colour_of(PAINTED) + 1 for m in drawn)


def test_a_speck_of_colour_makes_no_coloured_product():
    speckled = GREY.copy()
    speckled[5, 5:8] = 255, 0, 0
    assert colour_of(speckled) == 0
    speckled[:20, :20] = 255, 0, 0
    assert colour_of(speckled) == 255


def test_muted_colours_keep_their_brightness_and_others_stay_as_they_are():
    image = np.full((4, 4, 3), 100, np.uint8)
    result = image.copy()
    result[0], result[1] = (200, 50, 0), (60, 60, 60)
    found = within_colour(image, made(image, result, 1.0), 20.0)
    weighed = np.array([0.299, 0.587, 0.114]) @ [200, 50, 0]
    assert found.image[0] @ np.array([0.299, 0.587, 0.114]) == pytest.approx(np.full(4, weighed), abs=0.6)
    assert colourfulness(found.image[0]).tolist() == pytest.approx([20] * 4, abs=1)
    assert found.image[0, 0, 0] > found.image[0, 0, 1] > found.image[0, 0, 2]
    np.testing.assert_array_equal(found.image[1:], result[1:])


def test_what_has_the_brightness_of_the_picture_is_no_anomaly_without_its_colour():
    image = np.full((4, 4, 3), 100, np.uint8)
    result = image.copy()
    result[0, 0] = 160, 71, 92  # as bright
    assert not within_colour(image, made(image, result, 1.0), 0.0).mask.any()


def test_labelled_anomalies_are_held_to_it():
    mask = np.zeros((96, 96), bool)
    mask[30:50, 30:60] = True
    defect = np.where(mask[..., None], np.uint8([250, 60, 30]), tile(8))
    grey, painted = (extended(i, defect, mask, np.random.default_rng(0), SETTINGS) for i in (GREY, PAINTED))
    assert (grey.image == grey.image[..., :1]).all()
    assert colourfulness(painted.image[painted.mask]).max() > 60


@pytest.mark.parametrize("seed", range(40))
def test_the_limit_is_a_quantile_of_the_colour_to_the_last_bit(seed):
    rng = np.random.default_rng(seed)
    shape = (*rng.integers(1, 80, 2), 3)
    image = rng.integers(0, rng.integers(2, 256), shape).astype(np.uint8)
    assert colour_of(image) == np.quantile(colourfulness(image), MOST)
