"""What defines the artificial defects of FMR-Net."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, label
from skimage.measure import regionprops

from components.synthesis import artificial
from components.synthesis.settings import SynthesisSettings
from components.synthesis.strategies import STRATEGIES
from components.synthesis.synthesise import make
from tests.conftest import tile

SETTINGS = SynthesisSettings(size=128)
TEXTURE = tile(3, 128)


def shapes(kind, size=256, seeds=range(25)):
    return [list(kind(size, np.random.default_rng(seed))) for seed in seeds]


@pytest.mark.parametrize("kind", [artificial.strokes, artificial.spots, artificial.patches])
def test_one_to_five_defects(kind):
    counts = {len(s) for s in shapes(kind)}
    assert counts <= set(range(6))
    assert {2, 4} <= counts
    assert max(counts) == 5


@pytest.mark.parametrize("size", [128, 256])
def test_strokes_are_one_to_eight_pixels_wide_and_long(size):
    strokes = [s for drawn_ones in shapes(artificial.strokes, size) for s in drawn_ones if s.any()]
    widths = [2 * distance_transform_edt(np.pad(s, 1)).max() * 256 / size for s in strokes]
    assert max(widths) <= 12  # joints of a bent stroke are a little thicker
    assert min(widths) <= 4 < np.median(widths) + 1
    lengths = [np.linalg.norm(np.ptp(np.argwhere(s), axis=0)) * 256 / size for s in strokes]
    assert 80 < max(lengths) <= 170


def test_spots_are_round_or_cornered_and_compact():
    spots = [s for drawn_ones in shapes(artificial.spots) for s in drawn_ones if s.sum() > 30]
    longest = [np.ptp(np.argwhere(s), axis=0).max() for s in spots]
    assert max(longest) <= 49
    convex = [regionprops(s.astype(np.uint8))[0].solidity > 0.93 for s in spots if s.sum() > 150]
    assert 0.45 < np.mean(convex) < 0.85  # ellipses are, most of the polygons are not


def test_patches_are_single_parts_of_a_perlin_mask():
    for patch in (p for drawn_ones in shapes(artificial.patches) for p in drawn_ones):
        assert label(patch)[1] == 1


def fillings(name, kind, image=TEXTURE, count=8):
    """Anomalies all of whose defects have filling number *kind*."""

    class Fixed:
        def __init__(self, seed):
            self.rng = np.random.default_rng(seed)

        def __getattr__(self, other):
            return getattr(self.rng, other)

        def integers(self, *arguments, **options):
            return kind if arguments == (4,) else self.rng.integers(*arguments, **options)

    return [m for m in (STRATEGIES[name](image, Fixed(s), SETTINGS) for s in range(count)) if m.mask.any()]


def test_fillings_are_tone_noise_own_and_foreign_texture():
    flat = np.full((128, 128, 3), 120, np.uint8)
    tones, noises, own, foreign = (fillings("spot_defect", kind, flat) for kind in range(4))
    assert all((np.ptp(m.image, axis=2) == 0).all() for m in (*tones, *noises))
    assert np.mean([len(np.unique(m.image[m.mask])) for m in noises]) > 20
    assert not own  # a flat image moved is the same image
    assert any((np.ptp(m.image, axis=2) > 0).any() for m in foreign)
    assert fillings("spot_defect", 2)
    shifts = [int(m.image[m.mask][:, 0].astype(int).max()) - 120 for m in tones]
    assert max(shifts) > 8


@pytest.mark.parametrize("name", ["line_defect", "spot_defect", "texture_defect"])
def test_edges_are_soft(name, monkeypatch):
    flat = np.full((128, 128, 3), 120, np.uint8)

    def levels(softness):
        monkeypatch.setattr(artificial, "SOFTNESS", softness)
        return np.mean([len(np.unique(m.image)) for m in fillings(name, 0, flat)])

    assert levels((0.0, 0.0)) + 2 < levels((2.0, 2.0))


@pytest.mark.parametrize("name", ["line_defect", "spot_defect", "texture_defect"])
def test_opacity_is_at_least_two_fifths(name):
    made = [make(name, TEXTURE, np.random.default_rng(seed), SETTINGS) for seed in range(40)]
    strengths = [m.strength for m in made]
    assert 0.4 <= min(strengths) < 0.5
    assert 0.9 < max(strengths) <= 1
