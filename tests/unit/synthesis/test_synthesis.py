"""Synthetic anomalies: exact masks, controlled area and strength, the same for the same seed."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.quality import synthesis
from components.core.artefacts import read_json, write_json
from components.core.errors import DataError
from components.synthesis import synthesise as made_by
from components.synthesis.blending import Synthetic
from components.synthesis.masks import perlin_noise
from components.synthesis.settings import SynthesisSettings
from components.synthesis.strategies import AREAS, STRATEGIES
from components.synthesis.synthesise import make
from tests.conftest import tile

NAMES = sorted(STRATEGIES)
SETTINGS = SynthesisSettings(size=128)
# Strategies that keep the published range of strength, or their own, whatever the settings say.
PUBLISHED = {"saliency": (0.1, 1), "natural": (1, 1), "shade": (0.5, 1)} | dict.fromkeys(
    ("line_defect", "spot_defect", "texture_defect"), (0.4, 1)
)
IMAGE = tile(3, 128)


def drawn(name, seed, settings=SETTINGS):
    return make(name, IMAGE, np.random.default_rng(seed), settings)


@pytest.mark.parametrize("name", NAMES)
def test_mask_is_exactly_what_changed(name):
    for seed in range(5):
        made = drawn(name, seed)
        np.testing.assert_array_equal(made.mask, (made.image != IMAGE).any(-1))
        assert made.area == made.mask.mean()
        least, most = AREAS.get(name, SETTINGS.area)
        assert least <= made.area <= most
        low, high = PUBLISHED.get(name, SETTINGS.strength)
        assert low <= made.strength <= high


@pytest.mark.parametrize("name", NAMES)
def test_seed_decides(name):
    one, two, other = drawn(name, 1), drawn(name, 1), drawn(name, 2)
    np.testing.assert_array_equal(one.image, two.image)
    assert (one.image != other.image).any()


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(PUBLISHED)))
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


def entries(real, **synthetic):
    """What the benchmark keeps of made-up detectors."""
    columns = [dict(zip(synthetic, values, strict=True)) for values in zip(*synthetic.values(), strict=True)]
    pairs = enumerate(zip(real, columns, strict=True))
    return {f"d{i}": {"of": ["x", 4], "real": r, "synthetic": s} for i, (r, s) in pairs}


def test_rank_correlation_over_detectors():
    made = entries([0.6, 0.7, 0.8, 0.9], same=[0.5, 0.51, 0.8, 0.99], turned=[0.9, 0.8, 0.7, 0.6], alike=[1.0] * 4)
    found = synthesis.correlations(made, 100)
    assert found["same"]["rho"] == pytest.approx(1)
    assert found["turned"]["rho"] == pytest.approx(-1)
    assert "alike" not in found
    text = synthesis.ranking("mtd", made, 100)
    assert "over 4 detectors (d0, d1, d2, d3)" in text
    assert "| same | 1.00 (1.00 to 1.00), p 0.083 | 0.500, 0.655, 0.990 |" in text
    assert "| alike | none: all alike | 1.000, 1.000, 1.000 |" in text


def test_rank_correlation_tells_how_sure_it_is():
    rng = np.random.default_rng(0)
    real = rng.uniform(0.6, 1, 40)
    noisy, unrelated = (real + rng.normal(0, 0.1, 40)).tolist(), rng.uniform(0.6, 1, 40).tolist()
    found = synthesis.correlations(entries(real, noisy=noisy, unrelated=unrelated), 200)
    assert found["noisy"]["low"] < found["noisy"]["rho"] < found["noisy"]["high"]
    assert found["noisy"]["p"] < 0.02
    assert found["unrelated"]["p"] > 0.1
    assert synthesis.correlations(entries([0.6, 0.7, 0.8], s=[0.6, 0.7, 0.8]), 200)["s"]["p"] == pytest.approx(1 / 3)


def test_two_detectors_have_no_rank_correlation():
    made = entries([0.6, 0.7], s=[0.5, 0.6])
    assert synthesis.correlations(made) == {}
    assert "No correlation is told: it takes 3 detectors" in synthesis.ranking("mtd", made)
    assert "over 0 detectors (none)" in synthesis.ranking("mtd", {})


class Brightness:
    """Scores an image by its mean, times a sign."""

    name = "brightness"

    def __init__(self, sign):
        self.sign = sign

    def __call__(self, images):
        return SimpleNamespace(image=self.sign * images.mean((1, 2, 3)))


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Folders as ``loupe bench fit`` leaves them, of four detectors; one is not evaluated yet."""
    loaded = []

    def load(folder):
        loaded.append(folder.parent.name)
        return Brightness(-1 if folder.parent.name == "b" else 1)

    for name, real in (("a", 0.9), ("b", 0.2), ("c", 0.8), ("unfinished", None)):
        (tmp_path / "mtd" / name / "model").mkdir(parents=True)
        (tmp_path / "mtd" / name / "model" / "model.safetensors").write_text(name)
        if real is not None:
            (tmp_path / "mtd" / name / "evaluation").mkdir()
            write_json(tmp_path / "mtd" / name / "evaluation" / "metrics.json", {"overall": {"image": {"auroc": real}}})
    monkeypatch.setattr(synthesis, "load_model", load)
    monkeypatch.setattr(synthesis, "RESULTS", tmp_path / "synthesis.json")
    monkeypatch.setattr(synthesis, "normals", lambda *_: [tile(i, 64) for i in range(6)])
    monkeypatch.setattr(synthesis, "STRATEGIES", {"smudge": None})
    bright = Synthetic(np.full((64, 64, 3), 255, np.uint8), np.ones((64, 64), bool), 1.0, 1.0)
    monkeypatch.setattr(synthesis, "drawn", lambda *_: bright)
    return tmp_path, loaded


def test_rank_reads_trained_detectors_and_keeps_what_is_known(trained):
    work, loaded = trained
    results = {"rank": {"mtd": {"gone": {"real": 1, "synthetic": {}}}}}
    synthesis.rank(work, "mtd", 6, results)
    found = results["rank"]["mtd"]
    assert {n: (e["real"], e["synthetic"]) for n, e in found.items()} == {
        "a": (0.9, {"smudge": 1.0}),
        "b": (0.2, {"smudge": 0.0}),
        "c": (0.8, {"smudge": 1.0}),
    }
    assert read_json(synthesis.RESULTS) == results
    (work / "mtd" / "a" / "model" / "model.safetensors").write_text("trained anew")
    synthesis.rank(work, "mtd", 6, results)
    assert loaded == ["a", "b", "c", "a"]


def test_gallery_has_a_row_of_originals_and_one_of_each_strategy():
    sheet = synthesis.gallery([tile(i, 64) for i in range(2)])
    assert sheet.size == (synthesis.NAMES + 2 * synthesis.CELL, (1 + len(NAMES)) * synthesis.CELL)
    figures = synthesis.measured("smudge", [tile(i, 64) for i in range(3)])
    assert 0.1 <= figures["area"] <= 10
    assert "| `smudge` |" in synthesis.statistics({"smudge": figures})


def test_identity_changes_with_the_code(tmp_path, monkeypatch):
    """Features of anomalies made by older code are another entry of the store."""
    before = made_by.identity()
    for path in Path(made_by.__file__).parent.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(made_by, "__file__", str(tmp_path / "synthesise.py"))
    made_by.identity.cache_clear()
    assert made_by.identity() == before
    (tmp_path / "masks.py").write_text("# another recipe")
    made_by.identity.cache_clear()
    assert made_by.identity() != before
    made_by.identity.cache_clear()


def test_long_names_and_equal_names_keep_files_of_their_own(tmp_path):
    names = ["train/good/a/b.png", "train/good/a-b.png", "train/good/a/b.jpg", "train/good/" + "ü" * 120 + ".png"]
    split = tmp_path / "split"
    split.mkdir()
    rows = [{"image_id": name, "split": "calibrate", "label": "normal", "group": "g"} for name in names]
    pd.DataFrame(rows).to_parquet(split / "split.parquet")
    for seed, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tile(seed)).save(tmp_path / name)
    out = made_by.synthesise(split, tmp_path, tmp_path / "synthetic", SynthesisSettings(size=64), 0)
    table = pd.read_parquet(out / "synthetic.parquet")
    assert list(table["origin"]) == names
    assert table["image_id"].is_unique
    assert all((out / name).is_file() for name in (*table["image_id"], *table["mask"]))
