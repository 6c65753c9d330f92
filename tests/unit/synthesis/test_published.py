"""Strategies of publications, each called by itself: what it changes and what it may not."""

import numpy as np
import pytest
from scipy.ndimage import label

from components.synthesis.confetti import confetti
from components.synthesis.cutpaste import cutpaste, scar
from components.synthesis.draem import perlin_self, perlin_texture
from components.synthesis.settings import SynthesisSettings
from components.synthesis.shade import shade, wide_area
from components.synthesis.smudge import smudge
from tests.conftest import tile

IMAGE = tile(3, 128)
SOLID = SynthesisSettings(size=128, strength=(1.0, 1.0))


def drawn(strategy, seeds=12, settings=SOLID):
    return [strategy(IMAGE, np.random.default_rng(seed), settings) for seed in range(seeds)]


@pytest.mark.parametrize("strategy", [confetti, cutpaste, scar, perlin_texture, perlin_self, shade, smudge])
def test_the_mask_is_what_changed_and_a_seed_gives_it_again(strategy):
    made = drawn(strategy)
    assert sum(one.mask.any() for one in made) > 6
    for one in made:
        np.testing.assert_array_equal(one.mask, (one.image != IMAGE).any(-1))
        assert one.area == one.mask.mean()
    for one, other in zip(made, drawn(strategy), strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_a_cut_patch_holds_pixels_of_the_image_itself_and_a_scar_is_long_and_thin():
    own = set(map(bytes, IMAGE.reshape(-1, 3)))
    for one in drawn(cutpaste):
        assert set(map(bytes, one.image[one.mask])) <= own
    sides = [np.ptp(np.argwhere(one.mask), axis=0) + 1 for one in drawn(scar)]
    areas = [one.mask.sum() for one in drawn(scar)]
    assert max(areas) <= 0.03 * IMAGE.shape[0] * IMAGE.shape[1]
    assert np.median([np.hypot(*side) ** 2 / area for side, area in zip(sides, areas, strict=True)]) > 4


def test_tiles_in_the_wrong_place_are_grey_where_the_image_is_and_foreign_textures_are_not():
    assert all((one.image == one.image[..., :1]).all() for one in drawn(perlin_self))
    assert any((one.image != one.image[..., :1]).any() for one in drawn(perlin_texture))


def test_a_smudge_has_one_colour_and_confetti_many():
    assert {len(np.unique(one.image[one.mask], axis=0)) for one in drawn(smudge) if one.mask.any()} == {1}
    assert min(len(np.unique(one.image[one.mask], axis=0)) for one in drawn(confetti) if one.mask.any()) > 10


def test_a_shade_lies_on_the_product_and_in_few_pieces():
    plate = np.full((128, 128, 3), 200, np.uint8)
    plate[40:100, 30:90] = 80
    for seed in range(20):
        area = wide_area(plate, np.random.default_rng(seed))
        assert area[~((plate < 150).all(-1))].mean() < 0.05
        assert label(wide_area(IMAGE, np.random.default_rng(seed)))[1] < 8
