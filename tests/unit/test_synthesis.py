"""Synthetic anomalies: exact masks, controlled area and strength, the same for the same seed."""

import numpy as np
import pytest
from PIL import Image

from components.errors import DataError
from components.synthesis import STRATEGIES, SynthesisSettings, make
from components.synthesis.masks import perlin_noise
from tests.conftest import tile

NAMES = sorted(STRATEGIES)
SETTINGS = SynthesisSettings(size=128)
IMAGE = tile(3, 128)


def drawn(name, seed, settings=SETTINGS):
    return make(name, IMAGE, np.random.default_rng(seed), settings)


@pytest.mark.parametrize("name", NAMES)
def test_mask_is_exactly_what_changed(name):
    for seed in range(5):
        made = drawn(name, seed)
        np.testing.assert_array_equal(made.mask, (made.image != IMAGE).any(-1))
        assert made.area == made.mask.mean()
        assert SETTINGS.area[0] <= made.area <= SETTINGS.area[1]
        assert SETTINGS.strength[0] <= made.strength <= SETTINGS.strength[1]


@pytest.mark.parametrize("name", NAMES)
def test_seed_decides(name):
    one, two, other = drawn(name, 1), drawn(name, 1), drawn(name, 2)
    np.testing.assert_array_equal(one.image, two.image)
    assert (one.image != other.image).any()


@pytest.mark.parametrize("name", NAMES)
def test_strength_is_the_size_of_the_change(name):
    def change(strength):
        fixed = SynthesisSettings(size=128, strength=(strength, strength), area=(0.0005, 0.5))
        made = [drawn(name, seed, fixed) for seed in range(8)]
        return np.mean([np.abs(m.image.astype(int) - IMAGE).sum() for m in made])

    assert change(0.2) < change(0.5) < change(1.0)


def test_folder_of_textures_is_used(tmp_path):
    Image.fromarray(np.full((200, 200, 3), (255, 0, 255), np.uint8)).save(tmp_path / "pink.png")
    settings = SynthesisSettings(size=128, textures=str(tmp_path), strength=(1.0, 1.0))
    made = [drawn("perlin_texture", seed, settings) for seed in range(6)]
    # Augmentation changes tones but leaves a flat colour flat, apart from a rotation's black corners.
    assert any(len(np.unique(m.image[m.mask], axis=0)) <= 2 for m in made)
    with pytest.raises(DataError, match="holds no texture images"):
        drawn("perlin_texture", 0, SynthesisSettings(size=128, textures=str(tmp_path / "none")))


def test_impossible_area_is_an_error():
    with pytest.raises(DataError, match=r"widen synthesis\.area"):
        drawn("cutpaste", 0, SynthesisSettings(size=128, area=(0.99, 0.995)))


def test_perlin_noise_is_smooth_and_centred():
    noise = perlin_noise(128, (4, 4), np.random.default_rng(0))
    assert abs(noise.mean()) < 0.2
    assert np.abs(np.diff(noise, axis=0)).max() < 0.2
    assert 0.4 < np.abs(noise).max() < 1.2
