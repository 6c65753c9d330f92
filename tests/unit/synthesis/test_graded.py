"""Graded anomalies: difficulty is one number, sizes are pixels of the picture, and no detector learns from them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import find_objects, label

from components.core.errors import SettingsError
from components.synthesis import graded, masks
from components.synthesis.graded import SMALL
from components.synthesis.once import drawn_once
from components.synthesis.settings import SynthesisSettings
from components.synthesis.strategies import GRADED
from components.synthesis.synthesise import make
from components.training.data import draw_anomalies
from tests.conftest import tile


def drawn(name, image, strength, seed=0):
    settings = replace(SynthesisSettings(), strength=(strength, strength))
    return make(name, image, np.random.default_rng(seed), settings)


def change(made, image):
    """Mean grey levels of change over what changed."""
    return np.abs(made.image[made.mask].astype(int) - image[made.mask]).mean()


@pytest.mark.parametrize("name", GRADED)
def test_a_stronger_anomaly_changes_more_and_both_come_again(name):
    image = tile(1, 192)
    for seed in range(4):
        faint, strong = (drawn(name, image, strength, seed) for strength in (0.1, 0.9))
        assert change(strong, image) > 1.5 * change(faint, image)
        np.testing.assert_array_equal(drawn(name, image, 0.9, seed).image, strong.image)


@pytest.mark.parametrize("name", GRADED)
def test_what_the_mask_leaves_out_is_as_it_was(name):
    image = tile(2, 160)
    made = drawn(name, image, 1.0)
    assert made.mask.any()
    np.testing.assert_array_equal(made.image[~made.mask], image[~made.mask])
    assert (made.image[made.mask] != image[made.mask]).any(-1).all()


@pytest.mark.parametrize("side", [256, 768])
def test_a_small_defect_is_as_small_in_a_large_picture(side):
    image = tile(3, side)
    extents = []
    for seed in range(30):
        boxes = find_objects(drawn("graded_small", image, 1.0, seed).mask.astype(int))
        extents.append(max(s.stop - s.start for s in boxes[0]))
    assert max(extents) <= SMALL[1] + 4
    assert min(extents) <= 12


def test_structures_use_the_tones_of_the_product():
    """Both halves of the picture are flat: a bent edge or a foreign half, and no third tone but along edges."""
    image = np.full((128, 128, 3), 80, np.uint8)
    image[:, 64:] = 160
    for seed in range(8):
        made = drawn("graded_structure", image, 1.0, seed)
        assert made.image.min() >= 80
        assert made.image.max() <= 160


def test_wide_and_faint_areas_are_of_their_kind():
    image = tile(4, 256)
    wide = [drawn("graded_wide", image, 1.0, seed) for seed in range(12)]
    faint = [drawn("graded_faint", image, 1.0, seed) for seed in range(12)]
    assert max(made.area for made in wide) > 0.2
    assert max(change(made, image) for made in faint) < 70
    assert all(label(made.mask)[1] >= 1 for made in faint)


@pytest.mark.parametrize("name", GRADED)
def test_no_detector_learns_from_them(name):
    class Never:
        key, __len__ = "x", lambda _: 1

        def pixels(self, *_):
            raise AssertionError("refused before any picture is read")

    with pytest.raises(SettingsError, match=f"{name} is for checking only"):
        draw_anomalies(Never(), replace(SynthesisSettings(), strategies=("shade", name)), 0)


@pytest.mark.parametrize("name", GRADED)
def test_what_is_drawn_once_for_all_strengths_is_the_same_to_the_pixel(name, monkeypatch):
    noises = []
    turned = masks.turned_noise
    monkeypatch.setattr(masks, "turned_noise", lambda *given: noises.append(1) or turned(*given))
    images = [tile(number, 160) for number in range(3)]

    def every():
        return [drawn(name, image, at, seed) for at in (0.1, 0.4, 0.9) for image in images for seed in range(3)]

    anew, count = every(), len(noises)
    with drawn_once():
        once = every()
    for first, second in zip(anew, once, strict=True):
        np.testing.assert_array_equal(first.image, second.image)
    if name == "graded_faint":  # a cloud for each picture and seed, not for each strength
        assert (count, len(noises) - count) == (27, 9)
    before = len(noises)
    every()
    assert len(noises) - before == count  # nothing is kept behind the block


def test_every_point_of_the_product_is_as_likely_and_no_other(monkeypatch):
    """By rows, as by a list of all its points."""
    product = np.zeros((5, 7), bool)
    product[1, 2:4] = product[3, [0, 6]] = product[4, 5] = True
    monkeypatch.setattr(graded, "foreground", lambda _: product)
    asked = iter(range(5))
    rng = SimpleNamespace(integers=lambda count: next(asked) if count == 5 else None)
    found = [graded.point_of(np.zeros((5, 7, 3), np.uint8), rng) for _ in range(5)]
    assert found == [(1, 2), (1, 3), (3, 0), (3, 6), (4, 5)]
