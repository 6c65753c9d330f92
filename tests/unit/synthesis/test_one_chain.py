"""A check anomaly differs from its picture by the anomaly alone, at every size and from every kind of file."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from components.core.errors import DataError
from components.datasets.loading import read_decoding
from components.pictures import kept
from components.pictures.decoding import Decoding, decode
from components.pictures.imaging import load_sizes
from components.synthesis import strategies, synthesise
from components.synthesis.blending import made, unchanged
from components.synthesis.placing import on_picture
from components.synthesis.settings import SynthesisSettings
from tests.conftest import tile

SIZES = (64, 128, 256)


@pytest.fixture
def changeless(monkeypatch):
    """A strategy that changes nothing."""
    monkeypatch.setitem(strategies.STRATEGIES, "nothing", lambda image, *_: unchanged(image, 1.0))
    monkeypatch.setitem(strategies.AREAS, "nothing", (0.0, 0.0))
    return SynthesisSettings(strategies=("nothing",))


def noise(height, width, top=256, channels=()):
    return np.random.default_rng(height + top).integers(0, top, (height, width, *channels))


def turned(path):
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(noise(90, 160, channels=(3,)).astype(np.uint8)).save(path, exif=exif)


PICTURES = {  # by the file's name: how it is written, and the white of its data set
    "cell.png": (lambda p: Image.fromarray(noise(300, 300).astype(np.uint8)).save(p), None),
    "wide.jpg": (lambda p: Image.fromarray(noise(500, 1250).astype(np.uint8)).save(p), None),
    "line.png": (lambda p: Image.fromarray(noise(16, 512).repeat(32, 0).repeat(32, 1).astype(np.uint8)).save(p), None),
    "colour.png": (lambda p: Image.fromarray(noise(1024, 1024, channels=(3,)).astype(np.uint8)).save(p), None),
    "ten.png": (lambda p: Image.fromarray(noise(120, 130, 1024).astype(np.uint16)).save(p), 1023.0),
    "twelve.tif": (lambda p: Image.fromarray(noise(120, 130, 4096).astype(np.uint16)).save(p), 4095.0),
    "sixteen.png": (lambda p: Image.fromarray(noise(120, 130, 65536).astype(np.uint16)).save(p), None),
    "turned.jpg": (turned, None),
}


def split_of(folder, names, white=None):
    """A split whose calibrate normals are *names*."""
    split = folder / "split"
    split.mkdir()
    rows = [{"image_id": name, "split": "calibrate", "label": "normal", "group": "g"} for name in names]
    pd.DataFrame(rows).to_parquet(split / "split.parquet")
    (split / "decoding.json").write_text(json.dumps({"white": white, "max_pixels": 120_000_000}))
    return split


def written(folder, names, settings, white=None):
    out = synthesise.synthesise(split_of(folder, names, white), folder, folder / "synthetic", settings, 0)
    return out, pd.read_parquet(out / "synthetic.parquet")


@pytest.mark.parametrize("name", PICTURES)
def test_a_copy_without_anomaly_is_the_picture_at_every_size(name, changeless, tmp_path):
    write, white = PICTURES[name]
    write(tmp_path / name)
    out, table = written(tmp_path, [name], changeless, white)
    copy, rules = out / table["image_id"][0], read_decoding(tmp_path / "split")
    assert rules == Decoding(white)
    np.testing.assert_array_equal(decode(copy, rules=rules), decode(tmp_path / name, rules=rules))
    assert len(np.unique(decode(copy, rules=rules))) > 200  # no range was lost: scaled once, and not again
    for ours, theirs in zip(load_sizes(copy, SIZES, rules), load_sizes(tmp_path / name, SIZES, rules), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["wide.jpg", "ten.png", "turned.jpg"])
def test_picture_and_mask_are_of_the_original_size_and_differ_within_one_square(name, tmp_path):
    write, white = PICTURES[name]
    write(tmp_path / name)
    settings = SynthesisSettings(per_image=4)
    out, table = written(tmp_path, [name], settings, white)
    original = decode(tmp_path / name, rules=Decoding(white))
    side = min(original.shape[:2])
    assert len(table) == 4
    for row in table.itertuples():
        image, mask = decode(out / row.image_id), np.asarray(Image.open(out / row.mask))
        np.testing.assert_array_equal(mask, (image != original).any(-1))
        assert row.area == pytest.approx(mask.mean())
        low, high = strategies.AREAS.get(row.strategy, settings.area)
        assert low <= mask.sum() / side**2 <= high  # the share is the square's
        assert np.ptp(np.argwhere(mask), axis=0).max() < side


def test_squares_lie_anywhere_along_a_long_picture():
    picture = np.full((40, 400, 3), 100, np.uint8)

    def blot(square):
        assert square.shape == (40, 40, 3)
        return made(square, square + np.uint8(50), 1.0)

    starts = [on_picture(picture, blot, 64, np.random.default_rng(i)).mask.any(0).argmax() for i in range(60)]
    assert min(starts) < 60
    assert max(starts) > 300


def test_a_large_square_is_drawn_on_reduced_and_its_change_enlarged():
    picture, seen = tile(0, 160), []

    def blot(square):
        seen.append(square.shape)
        result = square.copy()
        result[10:20, 10:30] //= 2
        return made(square, result, 1.0)

    found = on_picture(picture, blot, 40, np.random.default_rng(0))
    assert seen == [(40, 40, 3)]
    np.testing.assert_array_equal(found.mask, (found.image != picture).any(-1))
    assert found.mask[44:76, 44:116].mean() > 0.99
    assert found.area == pytest.approx(200 / 1600, rel=0.2)
    fine, blotted = picture[44:76, 44:116].astype(int), found.image[44:76, 44:116].astype(int)
    assert np.abs(np.diff(fine, axis=1)).mean() * 0.7 < np.abs(np.diff(blotted, axis=1)).mean()  # its grain stays


def test_a_square_where_nothing_can_be_drawn_is_given_up_for_another():
    picture = np.zeros((64, 640, 3), np.uint8)
    picture[:, 250:450] = noise(64, 200)[..., None]
    settings = SynthesisSettings()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        found = on_picture(picture, lambda square, r=rng: synthesise.make("cutpaste", square, r, settings), 64, rng)
        assert found.mask.any()
    with pytest.raises(DataError, match="no anomaly of area"):
        on_picture(picture * 0, lambda square: synthesise.make("cutpaste", square, rng, settings), 64, rng)


def test_each_picture_is_decoded_once_and_none_is_held(tmp_path, monkeypatch):
    asked, cells = [], []
    for i in range(12):
        Image.fromarray(tile(i, 200)).save(tmp_path / f"{i}.png")
    monkeypatch.setattr(synthesise, "decode", lambda path, **rest: asked.append(path) or kept.decode(path, **rest))
    drawn = synthesise.Grid.drawn
    monkeypatch.setattr(synthesise.Grid, "drawn", lambda grid: cells.append(grid.cells) or drawn(grid))
    written(tmp_path, [f"{i}.png" for i in range(12)], SynthesisSettings(per_image=4))
    assert len(asked) == 12
    assert {len(small) for small in cells[0].values()} == {9}
    assert {cell.shape for small in cells[0].values() for cell in small} == {(synthesise.CELL, synthesise.CELL, 3)}
