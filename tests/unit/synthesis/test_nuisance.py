"""Good pictures as they may come tomorrow."""

import tracemalloc

import numpy as np
import pytest

from components.synthesis.nuisance import NUISANCES
from tests.conftest import tile


@pytest.mark.parametrize("name", NUISANCES)
def test_it_is_seeded_small_and_keeps_grey_pictures_grey(name):
    image = tile(5, 200)[:160]
    one, two = (NUISANCES[name](image, np.random.default_rng(seed)) for seed in (1, 1))
    np.testing.assert_array_equal(one, two)
    assert (one.shape, one.dtype) == (image.shape, np.uint8)
    assert (one == one[..., :1]).all()
    assert 0.2 < np.abs(one.astype(int) - image).mean() < 16


def test_each_does_what_its_name_says():
    image, rng = tile(6, 240), np.random.default_rng
    detail = lambda picture: np.diff(picture[..., 0].astype(float)).std()  # noqa: E731
    assert detail(NUISANCES["blur"](image, rng(0))) < 0.9 * detail(image) < detail(image)
    assert detail(NUISANCES["noise"](image, rng(0))) > 1.1 * detail(image)
    tones = [NUISANCES["gain"](image, rng(seed)).mean() / image.mean() for seed in range(20)]
    assert 0.9 < min(tones) < 0.97
    assert 1.03 < max(tones) < 1.1


@pytest.mark.parametrize("name", NUISANCES)
def test_colours_are_changed_alike(name):
    """Channel by channel is as all at once: each is what the same change makes of a grey picture of it."""
    image = np.stack([tile(7, 90)[..., 0], tile(8, 90)[..., 0], tile(9, 90)[..., 0]], axis=-1)
    changed = NUISANCES[name](image, np.random.default_rng(3))
    for channel in range(3):
        grey = np.repeat(image[..., channel : channel + 1], 3, axis=-1)
        np.testing.assert_array_equal(NUISANCES[name](grey, np.random.default_rng(3))[..., 0], changed[..., channel])


@pytest.mark.parametrize("name", NUISANCES)
def test_a_large_picture_takes_few_of_its_own_sizes(name):
    """Whole in floats it took 24 times its bytes: two at a time, 1.3 GB for a camera of nine million pixels."""
    image = np.zeros((1000, 1000, 3), np.uint8)
    tracemalloc.start()
    try:
        NUISANCES[name](image, np.random.default_rng(0))
        assert tracemalloc.get_traced_memory()[1] < 7 * image.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["moved", "turned"])
def test_a_moved_part_is_whole_and_a_few_pixels_elsewhere(name):
    plate = np.full((200, 200, 3), 200, np.uint8)
    plate[60:140, 60:140] = 40
    for seed in range(6):
        found = NUISANCES[name](plate, np.random.default_rng(seed))
        assert (found < 120).sum() == pytest.approx((plate < 120).sum(), rel=0.02)
        assert 0 < (found != plate).any(-1).mean() < 0.06
