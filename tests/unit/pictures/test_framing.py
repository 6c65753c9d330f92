"""The region of interest: how it is drawn, where it lies in a picture, and what is measured of it."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from components.core.errors import DataError
from components.core.settings import build
from components.datasets.manifest import make_manifest, measure
from components.datasets.settings import DataSettings
from components.datasets.splits import _joined_rules
from components.pictures.decoding import Decoding, decode
from components.pictures.framing import OUTSIDE, ShapeError, inside, outline, quiet, scaled, values_inside
from components.pictures.heat import BORDER, overlay
from components.pictures.masks import truth
from components.pictures.roi import region_text, written
from components.training.data import FileImages
from tests.conftest import tile

HALF = np.arange(96) >= 40  # columns that count
MASK = np.broadcast_to(HALF, (60, 96)).copy()


def drawn(path, values):
    path.write_text(json.dumps(values))
    return region_text(str(path))


def box(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def png(pixels, **how):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png", **how)
    return stream.getvalue()


@pytest.mark.parametrize(
    "values",
    [
        {"size": [96, 60], "polygon": box(40, 0, 96, 60)},
        {"size": [96, 60], "polygons": [box(40, 0, 96, 30), box(40, 30, 96, 60)]},
        box(40 / 96, 0, 1, 1),
        [box(40 / 96, 0, 1, 0.7), box(40 / 96, 0.5, 1, 1)],
    ],
    ids=["pixels", "two of pixels", "relative", "two that overlap"],
)
def test_polygons_are_read_in_every_way_they_may_be_written(values, tmp_path):
    roi = drawn(tmp_path / "roi.json", values)
    np.testing.assert_array_equal(inside(roi, 60, 96), MASK)
    assert region_text(roi) == roi  # what was read once is not a file's name


@pytest.mark.parametrize("level", [1, 255])
def test_a_mask_image_says_the_same(level, tmp_path):
    Image.fromarray(MASK.astype(np.uint8) * level).save(tmp_path / "roi.png")
    np.testing.assert_array_equal(inside(region_text(str(tmp_path / "roi.png")), 60, 96), MASK)


def test_a_large_mask_is_kept_small_and_grows_with_the_picture(tmp_path):
    Image.fromarray(MASK.repeat(50, 0).repeat(50, 1)).save(tmp_path / "roi.png")
    roi = region_text(str(tmp_path / "roi.png"))
    assert roi.startswith("4800x3000:")
    assert len(roi) < 3000
    for factor in (1, 3, 50):
        expected = MASK.repeat(factor, 0).repeat(factor, 1)
        assert (inside(roi, 60 * factor, 96 * factor) != expected).mean() < 0.002


WRONG = {
    "nothing.json": ("{", "is no JSON"),
    "few.json": ([[0, 0], [1, 1]], "polygon 1 is no list of three or more points"),
    "far.json": ([[0, 0], [1, 1], [7, 0]], r"point 3 of polygon 1 is \[7, 0\], outside 0 to 1; pixels need a size"),
    "beyond.json": ({"size": [9, 9], "polygon": box(0, 0, 10, 9)}, "outside the 9 x 9 pixels of size"),
    "odd.json": ([[0, 0], [1, "a"], [1, 1]], r"point 2 of polygon 1 is \[1, 'a'\]"),
    "key.json": ({"points": []}, "knows no 'points'"),
    "both.json": ({"polygon": [], "polygons": []}, "both of polygon and polygons"),
    "size.json": ({"size": [0, 4], "polygon": box(0, 0, 1, 1)}, r"size is \[0, 4\]"),
    "whole.json": (box(0, 0, 1, 1), "marks the whole picture"),
    "none.json": ([[0, 0], [1, 1], [0.5, 0.5]], "marks nothing"),
    "roi.txt": ("x", "is no region of interest"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_draws_no_region_is_told_with_its_place(name, tmp_path):
    values, said = WRONG[name]
    (tmp_path / name).write_text(values if isinstance(values, str) else json.dumps(values))
    with pytest.raises(DataError, match=said) as error:
        region_text(str(tmp_path / name))
    assert str(tmp_path / name) in str(error.value)
    with pytest.raises(DataError, match=r"roi\.png: not found"):
        region_text(str(tmp_path / "roi.png"))


def test_what_lies_outside_is_one_grey_in_the_picture_as_it_is_shown():
    roi, picture = written(MASK, (96, 60)), tile(1)[:60]
    exif = Image.Exif()
    exif[0x112] = 3  # stored upside down
    turned = png(np.ascontiguousarray(picture[::-1, ::-1]), exif=exif)
    for content in (png(picture), turned):
        found = decode(content, "x", Decoding(roi=roi))
        np.testing.assert_array_equal(found[:, HALF], picture[:, HALF])
        assert (found[:, ~HALF] == OUTSIDE).all()
        np.testing.assert_array_equal(decode(content, "x"), picture)


def test_a_picture_of_another_shape_is_refused():
    rules = Decoding(roi=written(MASK, (96, 60)))
    assert decode(png(np.zeros((61, 96), np.uint8)), "x", rules).shape == (61, 96, 3)  # within rounding
    with pytest.raises(DataError, match=r"^x: has another shape than the region of interest \(60 x 96, not like 96 x"):
        decode(png(np.zeros((96, 60), np.uint8)), "x", rules)
    with pytest.raises(ShapeError):
        inside(rules.roi, 96, 60)
    assert scaled(rules.roi, 64, 64).mean() == pytest.approx(56 / 96, abs=0.01)  # what was resized has any shape


def test_a_region_finer_than_the_grid_does_not_vanish():
    thin = np.zeros((96, 96), bool)
    thin[50, 50] = True
    assert scaled(written(thin, (96, 96)), 16, 16).sum() == 1


def test_measures_are_of_the_region_and_the_hash_of_the_whole():
    roi, one, other = written(MASK, (96, 60)), tile(1)[:60], tile(1)[:60].copy()
    other[:, ~HALF] = tile(9)[:60, ~HALF] // 3
    ours, theirs = measure(one, roi), measure(other, roi)
    assert ours.pop("phash") != theirs.pop("phash")
    assert ours == theirs
    assert ours["brightness"] == pytest.approx(measure(one[:, HALF])["brightness"], rel=1e-5)
    assert ours["sharpness"] == pytest.approx(measure(one[:, HALF])["sharpness"], rel=0.05)
    assert (ours["width"], ours["height"]) == (96, 60)


def test_masks_and_maps_are_of_the_region(tmp_path):
    roi, marked = written(MASK, (96, 60)), np.zeros((60, 96), np.uint8)
    marked[10:20, 30:50] = 255
    Image.fromarray(marked).save(tmp_path / "m.png")
    np.testing.assert_array_equal(truth(tmp_path, "m.png", None, Decoding(roi=roi)), (marked > 0) & MASK)
    maps = np.random.default_rng(0).normal(size=(2, 60, 96)).astype(np.float32)
    found = quiet(maps, roi)
    np.testing.assert_array_equal(found[:, MASK], maps[:, MASK])
    for calm, heat in zip(found, maps, strict=True):
        assert (calm[~MASK] == heat[MASK].min()).all()
    np.testing.assert_array_equal(values_inside(maps, roi), maps[:, MASK])


def test_heat_maps_show_the_outside_as_it_is_behind_a_line():
    roi, picture, line = written(MASK, (96, 60)), tile(1)[:60], outline(MASK)
    assert set(np.nonzero(line)[1]) == {40}
    shown = overlay(picture, np.full((60, 96), 9.0), {"0.99": 1.0, "1.0": 2.0}, roi)
    found = np.asarray(Image.open(io.BytesIO(shown)))
    np.testing.assert_array_equal(found[~MASK], picture[~MASK])
    assert (found[line] == BORDER).all()
    assert (found[MASK & ~line] != picture[MASK & ~line]).any(-1).all()


def test_keys_of_features_change_with_the_region_and_stay_without(tmp_path):
    plain, framed = (FileImages((tmp_path,), ("a",), Decoding(roi=r)) for r in (None, written(MASK, (96, 60))))
    other = FileImages((tmp_path,), ("a",), Decoding(roi=written(~MASK, (96, 60))))
    assert len({plain.key, framed.key, other.key}) == 3
    assert plain.key == FileImages((tmp_path,), ("a",)).key
    assert "roi" not in plain.rules.kept
    assert Decoding(**framed.rules.kept) == framed.rules
    # A retraining hands the champion's rules on as settings of its data set.
    again = build(
        DataSettings,
        {"adapter": "collected", "name": "live", **replace(framed.rules, stride=2, window=3).of_pictures},
        "data",
    )
    assert region_text(again.roi) == framed.rules.roi


def test_views_of_differing_regions_are_not_joined(tmp_path):
    roi = written(MASK, (96, 60))
    assert _joined_rules({"a": Decoding(roi=roi), "b": Decoding(4095.0, roi=roi)}, tmp_path) == Decoding(
        4095.0, roi=roi
    )
    with pytest.raises(DataError, match=r"differ in their region of interest \(a has one, b none\)"):
        _joined_rules({"a": Decoding(roi=roi), "b": Decoding()}, tmp_path)


def test_pictures_that_do_not_fit_the_region_stop_the_work(tmp_path):
    folder = tmp_path / "photos"
    (folder / "train/good").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(tile(number)[: 96 if number == 2 else 60]).save(folder / f"train/good/{number}.png")
    (folder / "roi.json").write_text(json.dumps(box(0.5, 0, 1, 1)))
    settings = DataSettings("folder", "photos", roi=str(folder / "roi.json"))
    with pytest.raises(DataError, match=r"1 of 3 pictures do not fit .*2\.png: .* \(96 x 96, not like 96 x 60\)"):
        make_manifest(folder, tmp_path / "manifest", settings)
    (folder / "train/good/2.png").unlink()
    out = make_manifest(folder, tmp_path / "manifest", settings)
    assert json.loads((out / "decoding.json").read_text())["roi"].startswith("96x60:")  # that of the first picture
