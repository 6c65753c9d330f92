"""Masks as other tools write them: which picture, which pixels, what cannot be true, and the working size."""

import io
import unicodedata

import numpy as np
import pytest
from PIL import Image

from components.core.errors import DataError
from components.datasets.adapters import folder_rows
from components.datasets.manifest import make_manifest
from components.datasets.settings import DataSettings
from components.pictures.decoding import DEFAULT, stored
from components.pictures.masks import (
    Region,
    at_size,
    is_known,
    load,
    mask_paths,
    read_as,
    regions,
    sizes,
    tiny_defects,
    truth,
)

HOLE = np.zeros((40, 60), bool)
HOLE[5:15, 20:40] = True


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    image.save(path, **options)
    return path


def touched(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")  # an adapter opens nothing
    return root


def masks(root):
    return {row.image_id: row.mask for row in folder_rows(root) if row.label == "anomalous"}


# Which file belongs to which picture


@pytest.mark.parametrize(
    "mask",
    [
        "ground_truth/hole/a_mask.png",
        "ground_truth/hole/a.png",
        "ground_truth/hole/a.bmp",
        "ground_truth/hole/a_mask.PNG",
        "Ground_Truth/hole/a_gt.tif",
        "groundtruth/hole/a_label.png",
        "gt/hole/a_seg.png",
        "masks/hole/a-mask.png",
        "mask/hole/a.mask.png",
        "labels/hole/a_groundtruth.png",
        "annotations/hole/mask_a.png",
        "masks/hole/gt_a.png",
        "masks/Hole/a.png",
        "masks/test/hole/a.png",
        "ground_truth/hole/a/000.png",
        "ground_truth/a_mask.png",
        "ground_truth/hole/a_mask_0.png",
        "ground_truth/hole/a_1.png",
        "test/hole/a_mask.png",
        "test/hole/masks/a.png",
        "ground_truth/hole/a.png.png",
        "ground_truth/a/0.png",
        "test/ground_truth/hole/a.png",
        "ground_truth/png/a_mask.png",
    ],
)
def test_a_mask_is_found_by_its_name(mask, tmp_path):
    root = touched(tmp_path, "train/good/a.png", "test/good/a.png", "test/hole/a.png", "test/hole/b.png", mask)
    assert masks(root) == {"test/hole/a.png": mask, "test/hole/b.png": None}


def test_several_files_are_one_mask(tmp_path):
    files = [
        "ground_truth/hole/a_mask_0.png",
        "ground_truth/hole/a_mask_1.png",
        "ground_truth/hole/a_2.png",
        "ground_truth/hole/b/0.png",
        "ground_truth/hole/b/1.png",
    ]
    found = masks(touched(tmp_path, "train/good/a.png", "test/hole/a.png", "test/hole/b.png", *files))
    assert mask_paths(found["test/hole/a.png"]) == tuple(sorted(files[:3]))
    assert mask_paths(found["test/hole/b.png"]) == tuple(files[3:])


def test_the_longer_name_goes_first(tmp_path):
    root = touched(
        tmp_path,
        "train/good/a.png",
        "test/hole/a.png",
        "test/hole/a_1.png",
        "ground_truth/hole/a_1.png",
        "ground_truth/hole/a_1_mask.png",
        "ground_truth/hole/a_mask.png",
    )
    assert masks(root) == {
        "test/hole/a.png": "ground_truth/hole/a_mask.png",
        "test/hole/a_1.png": "ground_truth/hole/a_1.png|ground_truth/hole/a_1_mask.png",
    }


def test_names_match_however_a_system_writes_accents(tmp_path):
    name = "Prüfling"
    picture, mask = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    root = touched(tmp_path, "train/good/a.png", f"test/hole/{picture}.png", f"ground_truth/hole/{mask}_mask.png")
    assert masks(root) == {f"test/hole/{picture}.png": f"ground_truth/hole/{mask}_mask.png"}


@pytest.mark.parametrize(
    "mask",
    [
        "ground_truth/hole/task-1-annotation-7-by-1-tag-hole-0.png",  # names no picture
        "ground_truth/a_mask.png",  # fits two
        "ground_truth/hole/c_mask.png",  # its picture is not there, that of another defect is not meant
        "ground_truth/hole/gone/a.png",  # a part of another picture
        "ground_truth/hole/a|b.png",
    ],
)
def test_what_may_be_another_picture_s_is_named_and_not_matched(mask, tmp_path, caplog):
    pictures = ("test/hole/a.png", "test/hole/b.png", "test/cut/a.png", "test/cut/c.png")
    root = touched(tmp_path, "train/good/a.png", *pictures, mask)
    make_manifest(root, tmp_path / "out", DataSettings("folder", "part"))
    assert set(masks(root).values()) == {None}
    assert f"1 masks match no picture: {mask}; name them after their pictures, or list them in" in caplog.text


def test_a_table_names_masks_of_any_tool(tmp_path):
    root = touched(
        tmp_path,
        "train/good/a.png",
        "test/hole/a.png",
        "test/cut/a.png",
        "test/cut/c.png",
        *(f"ground_truth/task-{i}.png" for i in range(4)),
        "ground_truth/a.png",
    )
    table = root / "ground_truth/masks.csv"
    table.write_text(
        "image,mask\ntest/hole/a.png,task-2.png\ncut/a.png,ground_truth/task-0.png\ncut/a.png,task-1.png\n"
        "c.png,task-3.png\n"
    )
    assert masks(root) == {
        "test/hole/a.png": "ground_truth/task-2.png",
        "test/cut/a.png": "ground_truth/task-0.png|ground_truth/task-1.png",
        "test/cut/c.png": "ground_truth/task-3.png",
    }
    (root / "ground_truth/linked.png").symlink_to("task-2.png")  # as into an archive
    table.write_text("image,mask\nhole/a.png,../ground_truth/linked.png\n")
    assert masks(root)["test/hole/a.png"] == "ground_truth/linked.png"
    table.write_text("\ufeffMask; Image\r\ntask-2.png;hole\\a.png\r\n", encoding="utf-8")  # as a spreadsheet saves it
    assert masks(root)["test/hole/a.png"] == "ground_truth/task-2.png"
    for text, said in (
        ("image,mask\nhole/x.png,task-2.png\n", "line 2: there is no test picture hole/x.png"),
        ("image,mask\nhole/a.png,task-9.png\n", "line 2: there is no file task-9.png"),
        ("picture,file\n", "no columns image and mask"),
    ):
        table.write_text(text)
        with pytest.raises(DataError, match=said):
            folder_rows(root)


def test_masks_beside_pictures_are_no_pictures(tmp_path):
    root = touched(
        tmp_path,
        "train/good/a.png",
        "test/hole/a.png",
        "test/hole/a_mask.png",
        "test/hole/b.png",
        "test/hole/gone_mask.png",
        "test/cut/my_mask.png",
    )
    assert masks(root) == {
        "test/hole/a.png": "test/hole/a_mask.png",
        "test/hole/b.png": None,
        "test/cut/my_mask.png": None,
    }


# Which pixels count


def palette():
    image = Image.fromarray(HOLE.astype(np.uint8) * 2, "P")
    image.putpalette([0, 0, 0, 9, 9, 9, 0, 0, 0] + [0] * 759)
    return image


def anti_aliased():
    soft = np.zeros((40, 60), np.uint8)
    soft[4:16, 19:41] = np.linspace(1, 127, 22).astype(np.uint8)
    return np.where(HOLE, 255, soft).astype(np.uint8)


def faint_background():
    """A screenshot: a dark picture below the mark, no alpha used."""
    return np.dstack([np.zeros((40, 60)), HOLE * 40, np.zeros((40, 60))]).astype(np.uint8)


WAYS = {
    "white": HOLE * np.uint8(255),
    "one": HOLE.astype(np.uint8),
    "bits": Image.fromarray(HOLE),
    "classes": np.where(HOLE, np.arange(60) % 3 + 1, 0).astype(np.uint8),
    "sixteen": HOLE.astype(np.uint16) * 3,
    "palette": palette(),
    "colour": faint_background(),
    "opacity": np.dstack([np.full((40, 60, 3), 255), HOLE * 255]).astype(np.uint8),
    "grey and opacity": np.dstack([np.full((40, 60), 9), HOLE * 1]).astype(np.uint8),
    "opaque": np.dstack([HOLE * 7, HOLE * 0, HOLE * 0, HOLE * 0 + 255]).astype(np.uint8),
    "white below the transparent": np.dstack([np.where(HOLE, 200, 255)] * 3 + [HOLE * 255]).astype(np.uint8),
    "anti-aliased": anti_aliased(),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_mark_is_read(way, tmp_path):
    save(tmp_path / "m.png", WAYS[way])
    np.testing.assert_array_equal(truth(tmp_path, "m.png"), HOLE)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("m.jpg", {"quality": 75}),
        ("m.webp", {"quality": 60}),
        ("m.jp2", {}),
        ("m.tif", {}),
        ("m.bmp", {}),
        ("m.gif", {}),
    ],
)
def test_lossy_masks_count_from_half_of_the_brightest(name, options, tmp_path):
    save(tmp_path / name, HOLE * np.uint8(255), **options)
    assert (truth(tmp_path, name) != HOLE).mean() < 0.01


def test_class_numbers_in_a_jpeg_are_not_guessed(tmp_path):
    save(tmp_path / "m.jpg", HOLE * np.uint8(3), quality=95)
    found = read_as([tmp_path / "m.jpg"], (60, 40), 1, "auto", "auto", DEFAULT)
    assert "export the mask as PNG" in found.rule
    assert not is_known("m.jpg", found.rule)


def test_class_numbers_in_a_lossless_webp_are(tmp_path):
    save(tmp_path / "m.webp", HOLE * np.uint8(1), lossless=True)
    np.testing.assert_array_equal(truth(tmp_path, "m.webp"), HOLE)


def test_many_classes_are_not_taken_for_grey_edges(tmp_path):
    numbers = np.where(HOLE, np.arange(60) % 30 + 1, 0).astype(np.uint8)  # 30 instances, none near white
    save(tmp_path / "m.png", numbers)
    np.testing.assert_array_equal(truth(tmp_path, "m.png"), HOLE)


def test_several_files_are_united(tmp_path):
    save(tmp_path / "1.png", HOLE * np.uint8(255))
    save(tmp_path / "2.png", np.roll(HOLE, 20, 0) * np.uint8(1))
    np.testing.assert_array_equal(truth(tmp_path, "1.png|2.png"), HOLE | np.roll(HOLE, 20, 0))


# The working size


@pytest.mark.parametrize(
    ("shape", "size"), [((7, 13), 4), ((100, 33), 32), ((64, 64), 64), ((9, 200), 16), ((5, 5), 12)]
)
def test_a_cell_is_anomalous_when_any_pixel_it_touches_is(shape, size):
    mask = np.random.default_rng(0).random(shape) < 0.1
    found = at_size(mask, size)
    for y in range(size):
        for x in range(size):
            assert found[y, x] == _cell(mask, y, x, size)


def _cell(mask, y, x, size):
    """The literal definition: the pixels under the cell, or the nearest one where pixels are larger."""
    spans = []
    for at, count in zip((y, x), mask.shape, strict=True):
        if count <= size:
            spans.append(slice(int((at + 0.5) * count / size), int((at + 0.5) * count / size) + 1))
        else:
            spans.append(slice(at * count // size, -(-(at + 1) * count // size)))
    return bool(mask[spans[0], spans[1]].any())


def test_the_smallest_defect_stays(tmp_path):
    mask = np.zeros((1000, 1500), np.uint8)
    mask[777, 999] = 255
    save(tmp_path / "m.png", mask)
    assert load(tmp_path, "m.png", None, 64).sum() == 1
    assert load(tmp_path, "m.png", "unknown: looks inverted", 64) is None
    assert load(tmp_path, None, None, 64) is None


def test_tiny_defects_are_told_in_pixels_of_both_sizes():
    mask = np.zeros((4000, 6000), bool)
    mask[100:120, 100:120] = True
    found = regions(mask)
    assert found == (Region(20.0, 20 / 6000),)
    assert tiny_defects(sizes(found), 256) == (
        "defects of about 20 pixels become 0.9 of the 256 x 256 that the detector sees (the smallest 0.9); crop or "
        "tile the pictures"
    )
    assert tiny_defects(sizes(regions(HOLE)), 256) is None
    assert tiny_defects(sizes(()), 256) is None


# What cannot be true


def rule(tmp_path, mask, masks="auto", shown=(60, 40), turn=1, mask_turn="auto"):
    return read_as([save(tmp_path / "m.png", mask)], shown, turn, masks, mask_turn, DEFAULT).rule


def test_implausible_masks_are_unknown(tmp_path):
    white = np.full((40, 60), 255, np.uint8)
    assert rule(tmp_path, HOLE * white) is None
    assert rule(tmp_path, 0 * white) == "unknown: empty mask"
    assert rule(tmp_path, white) == "unknown: marks the whole picture"
    assert rule(tmp_path, ~HOLE * white) == "unknown: looks inverted"
    assert (
        rule(tmp_path, HOLE * white, shown=(60, 41)) == "unknown: size differs from the picture (60 x 40, not 60 x 41)"
    )
    large = np.zeros((40, 60), np.uint8)
    large[:30] = 255  # three quarters, as uneven tiles are
    assert rule(tmp_path, large) is None
    (tmp_path / "m.png").write_bytes(b"no picture")
    assert read_as([tmp_path / "m.png"], (60, 40), 1, "auto", "auto", DEFAULT).rule.startswith(
        "unknown: cannot be read"
    )


def test_declared_masks_are_read_so(tmp_path):
    white = np.full((40, 60), 255, np.uint8)
    assert rule(tmp_path, ~HOLE * white, "inverted") == "inverted"
    np.testing.assert_array_equal(truth(tmp_path, "m.png", "inverted"), HOLE)
    assert rule(tmp_path, ~HOLE * white, "marked") is None
    assert rule(tmp_path, white, "marked") is None
    assert rule(tmp_path, HOLE * white, "inverted") == "unknown: looks inverted"  # this one is not


@pytest.mark.parametrize("turn", range(2, 9))
def test_masks_of_turned_pictures(turn, tmp_path):
    """The picture is stored 60 x 40; orientations 5 to 8 show it 40 x 60."""
    stored = HOLE * np.uint8(255)
    shown = (40, 60) if turn >= 5 else (60, 40)
    with Image.open(save(tmp_path / "p.png", stored, exif=orientation(turn))) as image:
        from PIL import ImageOps

        upright = np.asarray(ImageOps.exif_transpose(image)) > 0
    told = f"turn={turn}"
    assert rule(tmp_path, stored, shown=shown, turn=turn) == (
        told if turn >= 5 else "unknown: may or may not be turned as the picture is"
    )
    assert rule(tmp_path, stored, shown=shown, turn=turn, mask_turn="stored") == told
    np.testing.assert_array_equal(truth(tmp_path, "m.png", told), upright)
    assert rule(tmp_path, upright * np.uint8(255), shown=shown, turn=turn, mask_turn="shown") is None
    if turn >= 5:
        assert rule(tmp_path, upright * np.uint8(255), shown=shown, turn=turn) is None
    square = np.pad(stored, ((0, 20), (0, 0)))
    assert rule(tmp_path, square, shown=(60, 60), turn=turn).startswith("unknown: may or may not")


def orientation(turn):
    exif = Image.Exif()
    exif[0x112] = turn
    return exif


def test_a_mask_with_an_orientation_of_its_own_follows_it(tmp_path):
    save(tmp_path / "m.png", HOLE * np.uint8(255), exif=orientation(6))
    assert truth(tmp_path, "m.png").shape == (60, 40)
    assert read_as([tmp_path / "m.png"], (40, 60), 6, "auto", "auto", DEFAULT).rule is None


def test_a_broken_mask_is_told_and_not_taken_for_an_empty_one(tmp_path):
    mask = np.zeros((96, 96), np.uint8)
    mask[30:60, 20:70] = np.random.default_rng(0).integers(1, 255, (30, 50))
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "png")
    content = stream.getvalue()
    (tmp_path / "x.png").write_bytes(content[:60] + bytes(b ^ 255 for b in content[60:120]) + content[120:])
    with pytest.raises(DataError, match="cannot be decoded"):
        stored(tmp_path / "x.png")
