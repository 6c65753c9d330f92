"""Synthetic anomalies and nuisances where a region of interest is looked at."""

import numpy as np
import pytest
from PIL import Image

from components.core.errors import DataError
from components.pictures.decoding import Decoding
from components.pictures.framing import OUTSIDE, framed, scaled
from components.pictures.roi import written
from components.synthesis.blending import Synthetic, made
from components.synthesis.nuisance import NUISANCES
from components.synthesis.placing import cut, on_picture
from components.synthesis.settings import SynthesisSettings
from components.synthesis.strategies import GRADED
from components.synthesis.synthesise import on_whole
from components.training.data import FileImages, draw_anomalies
from components.training.evidence import _drawn
from tests.conftest import tile

REGION = np.zeros((96, 96), bool)
REGION[10:70, 60:90] = True
ROI = written(REGION, (96, 96))


@pytest.mark.parametrize("name", GRADED)
def test_anomalies_lie_inside_and_are_as_large_as_what_is_left(name):
    picture = framed(tile(1), ROI)
    for seed in range(4):
        found = on_whole(name, picture, np.random.default_rng(seed), SynthesisSettings(), REGION)
        assert found.mask.any()
        assert not (found.mask & ~REGION).any()
        np.testing.assert_array_equal(found.mask, (found.image != picture).any(-1))
        assert found.area == pytest.approx(found.mask.mean())


def test_an_anomaly_is_drawn_again_until_half_of_it_lies_inside():
    picture, starts = tile(2), iter([0, 55, 62, 50])

    def blot():
        result, left = picture.copy(), next(starts)
        result[20:30, left : left + 10] ^= 255
        return made(picture, result, 1.0)

    found = cut(picture, blot, REGION)
    assert np.flatnonzero(found.mask.any(0))[[0, -1]].tolist() == [60, 64]  # the second: half is enough
    assert found.area == found.mask.mean()


def test_where_nothing_lies_inside_it_is_said():
    picture = tile(2)
    nowhere = Synthetic(picture, ~REGION, 1.0, 0.5)
    with pytest.raises(DataError, match="no anomaly lay inside the region of interest in 10 tries"):
        cut(picture, lambda: nowhere, REGION)


def test_squares_are_of_the_box_around_the_region():
    sides = []

    def blot(square):
        sides.append(len(square))
        return made(square, square ^ np.uint8(255), 1.0)

    found = on_picture(tile(3), blot, 96, np.random.default_rng(0), REGION)
    assert set(sides) == {64}  # 60 x 30 are too few to draw in
    assert not (found.mask & ~REGION).any()


def test_anomalies_to_learn_from_lie_inside(tmp_path):
    for number in range(3):
        Image.fromarray(tile(number)).save(tmp_path / f"{number}.png")
    paths = tuple(sorted(tmp_path.glob("*.png")))
    images = FileImages(paths, tuple(p.name for p in paths), Decoding(roi=ROI))
    found = draw_anomalies(images, SynthesisSettings(size=64, strategies=("perlin_texture", "cutpaste")), 0, 2)
    outside = ~scaled(ROI, 64, 64)
    assert found.marked.any((1, 2)).all()
    assert not found.marked[:, outside].any()
    clean = (images.pixels(range(3), 64) * 255).round().byte().permute(0, 2, 3, 1).numpy().repeat(2, 0)
    np.testing.assert_array_equal(found.drawn[~found.marked], clean[~found.marked])


def test_a_square_that_the_region_only_touches_stays_as_it_is(tmp_path):
    """A whole picture with as little of a region would end the training with an error, and should."""
    region = np.zeros((96, 288), bool)
    region[:, :90] = region[0, 287] = True
    Image.fromarray(np.concatenate([tile(number) for number in range(3)], 1)).save(tmp_path / "long.png")
    images = FileImages((tmp_path / "long.png",), ("long",), Decoding(roi=written(region, (288, 96)), tiles=1))
    found = draw_anomalies(images, SynthesisSettings(size=64, strategies=("cutpaste",)), 0)
    assert len(found) == len(images) == 3  # of four squares one lies outside
    assert found.marked.any((1, 2)).tolist() == [True, True, False]
    clean = (images.pixels([2], 64) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(found.drawn[2:], clean)


@pytest.mark.parametrize("kind", NUISANCES)
def test_nuisances_move_the_picture_and_not_the_region(kind, tmp_path):
    Image.fromarray(tile(5)).save(tmp_path / "a.png")
    rules = Decoding(roi=ROI)
    found = _drawn(kind, tmp_path / "a.png", rules, 0)
    assert (found[~REGION] == OUTSIDE).all()
    whole = _drawn(kind, tmp_path / "a.png", rules.whole, 0)
    np.testing.assert_array_equal(found[REGION], whole[REGION])
