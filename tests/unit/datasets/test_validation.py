"""The data contract, fed with what plants really deliver."""

import struct
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.core.artefacts import read_json
from components.core.errors import DataError
from components.datasets.manifest import make_manifest
from components.datasets.settings import DataSettings, ValidationSettings
from components.datasets.validation.validate import validate
from tests.conftest import tile

SETTINGS = ValidationSettings(min_train_normals=5, max_quarantined_share=0.9)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "part"
    for i in range(6):
        save(root / "train/good" / f"{i}.png", tile(i, 64))
    save(root / "test/good/7.png", tile(7, 64))
    save(root / "test/hole/8.png", tile(8, 64))
    save(root / "ground_truth/hole/8_mask.png", np.pad(np.full((20, 20), 255, np.uint8), 22))
    return root


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def checked(folder, settings=SETTINGS):
    out = folder.parent / "artefacts"
    make_manifest(folder, out / "manifest", DataSettings("folder", "part"))
    return validate(out / "manifest", folder, out / "validation", settings)


def reasons(out):
    return pd.read_parquet(out / "quarantine.parquet").set_index("image_id")["reason"]


def png(width, height):
    """A PNG whose header claims a size; its few bytes decompress to nothing of the kind."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_clean_folder_passes_and_says_what_it_can_measure(folder):
    out = checked(folder)
    summary = read_json(out / "summary.json")
    assert summary["quarantined"] == []
    assert summary["unavailable"] == {}
    assert all(check["success"] for check in summary["expectations"])


def test_broken_files_are_quarantined_with_the_reason(folder):
    good = (folder / "train/good/0.png").read_bytes()
    bad = folder / "train/good"
    (bad / "truncated.png").write_bytes(good[: len(good) // 2])
    (bad / "empty.png").write_bytes(b"")
    (bad / "text.png").write_text("good part, trust me")
    (bad / "bomb.png").write_bytes(png(30_000, 30_000))
    Image.new("CMYK", (64, 64), (0, 99, 20, 30)).save(bad / "cmyk.jpg")
    Image.fromarray(tile(9, 64)[..., 0].astype(np.uint16) * 256).save(bad / "sixteen.png")
    found = reasons(checked(folder))
    assert "cannot be decoded" in found["train/good/truncated.png"]
    assert "is not an image" in found["train/good/empty.png"]
    assert "is not an image" in found["train/good/text.png"]
    assert "more pixels than the limit" in found["train/good/bomb.png"]
    assert "mode CMYK" in found["train/good/cmyk.jpg"]
    assert "train/good/sixteen.png" not in found  # 16-bit grey is within the default contract
    assert len(found) == 5


def test_repeats_are_left_out_with_a_count_and_break_nothing(folder):
    (folder / "train/good/copy.png").write_bytes((folder / "test/good/7.png").read_bytes())
    for i in range(9):
        (folder / "train/good" / f"frame{i}.png").write_bytes((folder / "train/good/1.png").read_bytes())
    out = checked(folder, ValidationSettings(min_train_normals=5))
    clean, summary = pd.read_parquet(out / "clean.parquet"), read_json(out / "summary.json")
    assert len(reasons(out)) == 0
    assert len(summary["repeats"]) == 10
    assert "train/good/copy.png: the same bytes as test/good/7.png" in summary["repeats"]
    assert sorted(clean["image_id"]) == [
        *(f"test/{n}.png" for n in ("good/7", "hole/8")),
        *(f"train/good/{i}.png" for i in range(6)),
    ]


def test_the_same_bytes_with_two_labels_are_quarantined_on_both_sides(folder):
    (folder / "test/hole/twin.png").write_bytes((folder / "test/good/7.png").read_bytes())
    found = reasons(checked(folder))
    assert list(found.index) == ["test/good/7.png", "test/hole/twin.png"]
    assert "test/good/7.png (normal), test/hole/twin.png (anomalous); keep the right one" in found.iloc[0]


def test_mask_of_the_wrong_size(folder):
    save(folder / "ground_truth/hole/8_mask.png", np.zeros((32, 64), np.uint8))
    out = checked(folder)
    assert len(reasons(out)) == 0
    assert read_json(out / "summary.json")["masks"]["unknown"] == {"size differs from the picture": ["test/hole/8.png"]}
    strict = ValidationSettings(min_train_normals=5, max_quarantined_share=0.9, expect_masks=True)
    assert "size differs from the picture (64 x 32, not 64 x 64)" in reasons(checked(folder, strict))["test/hole/8.png"]


def test_missing_mask_breaks_the_contract_only_where_masks_are_expected(folder):
    (folder / "ground_truth/hole/8_mask.png").unlink()
    out = checked(folder)
    assert "no masks" in read_json(out / "summary.json")["unavailable"]["pixel AUROC, AP, F1, AUPRO"]
    strict = ValidationSettings(min_train_normals=5, max_quarantined_share=0.9, expect_masks=True)
    assert "without a mask" in reasons(checked(folder, strict))["test/hole/8.png"]


def test_empty_train_good_stops_with_a_sentence_and_leaves_the_report(folder):
    for path in (folder / "train/good").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="0 readable good training images, 5 are needed"):
        checked(folder)
    assert (folder.parent / "artefacts/validation/docs/index.html").exists()


def test_too_many_broken_files_stop_the_flow(folder):
    for i in range(3):
        (folder / "train/good" / f"bad{i}.png").write_bytes(b"")
    with pytest.raises(DataError, match="3 of 11 files broke the contract, more than 5%"):
        checked(folder, ValidationSettings(min_train_normals=5))


def test_no_anomalous_test_images_is_no_error(folder):
    for name in ("test/hole/8.png", "ground_truth/hole/8_mask.png"):
        (folder / name).unlink()
    assert "no anomalous test images" in read_json(checked(folder) / "summary.json")["unavailable"].values()


def test_docs_read_offline(folder):
    docs = checked(folder) / "docs"
    pages = list(docs.rglob("*.html"))
    assert len(pages) >= 3
    for page in pages:
        text = page.read_text()
        assert "<script src=" not in text
        assert '<link rel="stylesheet" href="http' not in text
    assert "expect_column_values_to_be_unique" in (docs / "index.html").read_text()


def test_a_dark_field_shows_something_and_a_covered_lens_does_not(folder):
    dark = np.zeros((64, 64, 3), np.uint8)
    dark[30, ::8] = 255  # bright edges, mean below 0.004
    noise = np.random.default_rng(0)
    save(folder / "train/good/dark.png", dark)
    save(folder / "train/good/covered.png", noise.integers(0, 3, (64, 64, 3)).astype(np.uint8))
    save(folder / "train/good/blown.png", noise.integers(253, 256, (64, 64, 3)).astype(np.uint8))
    save(folder / "train/good/off.png", np.full((64, 64), 128, np.uint8))
    save(folder / "train/good/film.png", noise.normal(180, 0.8, (64, 64)).round().astype(np.uint8))
    found = reasons(checked(folder))
    assert sorted(found.index) == [f"train/good/{name}.png" for name in ("blown", "covered", "off")]
    assert "shows nothing" in found.iloc[0]
    assert "--set validation.min_contrast=" in found.iloc[0]


def test_every_advice_of_the_contract_names_its_setting(folder):
    strict = replace(SETTINGS, modes=("L",), max_quarantined_share=0.0)
    save(folder / "train/good/small.png", tile(9, 20)[..., 0])
    save(folder / "train/good/long.png", tile(9, 40)[:, :1, 0].repeat(40, 1).repeat(600, 0))
    with pytest.raises(DataError, match=r"`loupe fit --set validation\.max_quarantined_share=\.\.\.`"):
        checked(folder, replace(strict, max_side=20_000))
    found = reasons(folder.parent / "artefacts/validation")
    assert "--set validation.modes=" in found["train/good/0.png"]
    assert "--set validation.min_side=" in found["train/good/small.png"]
    assert "--set validation.max_side=" in found["train/good/long.png"]


def test_line_scans_are_within_the_contract(folder):
    save(folder / "train/good/scan.png", np.tile(tile(3, 64), (256, 1, 1)))  # 16,384 lines
    assert len(reasons(checked(folder))) == 0
