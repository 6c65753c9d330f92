"""Pictures that are seen square by square, from ``loupe fit`` to the line: one way of cutting everywhere."""

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from components.core.artefacts import read_json
from components.datasets.loading import read_decoding
from components.decision.batch import record, score
from components.decision.bundle import Bundle, Manifest
from components.pictures.tiles import boxes
from components.service import recorder, routes
from components.service.champion import Champion
from components.service.settings import ServiceSettings
from components.storage import open_store
from components.training.model import load_model, score_files
from tests.conftest import SMALL, tile
from tests.e2e.test_fit import loupe


def strip(seed: int, mark: int | None = None) -> np.ndarray:
    """A long surface, uint8 (64, 160, 3), with a bright square at the column *mark*."""
    pixels = tile(seed, 160)[48:112].copy()
    if mark is not None:
        pixels[20:32, mark : mark + 12] = 250
    return pixels


@pytest.fixture(scope="module")
def strips(tmp_path_factory):
    root = tmp_path_factory.mktemp("strips") / "photos"
    drawn = {f"train/good/{i:02d}.png": strip(i) for i in range(30)} | {
        f"test/good/{i}.png": strip(100 + i) for i in range(4)
    }
    for i in range(4):
        mask = np.zeros((64, 160), np.uint8)
        mask[20:32, 30 * i + 20 : 30 * i + 32] = 255
        drawn[f"test/mark/{i}.png"] = strip(200 + i, 30 * i + 20)
        drawn[f"ground_truth/mark/{i}_mask.png"] = mask
    for name, pixels in drawn.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)
    return root


@pytest.fixture(scope="module")
def run(strips):
    out = strips.parent / "run"
    few = ("--set", "evaluation.map_size=64", "--set", "evaluation.bootstrap=20")
    loupe("fit", "patchcore", "--data", strips, "--out", out, *SMALL, *few)
    return out


def test_long_pictures_are_cut_without_being_asked(run):
    for place in (run, *(run / "work" / p for p in ("photos/manifest", "photos/validation", "run/split"))):
        assert read_decoding(place).tiles == 1
    assert Manifest.read(run / "bundle").decoding.tiles == 1
    assert "| squares | 1 across the shorter side |" in (run / "bundle/MODEL_CARD.md").read_text()
    assert {"tiles.py", "framing.py"} <= set(read_json(run / "bundle/manifest.json")["files"])
    parity = read_json(run / "bundle/parity.json")
    assert max(parity["score_error"], parity["map_error"]) < 1e-3


def test_torch_the_bundle_the_runner_and_the_service_agree(run, strips, tmp_path):
    paths = sorted((strips / "test/mark").glob("*.png"))
    table = pd.read_parquet(score(run / "bundle", paths, tmp_path / "t.parquet"))
    in_torch = np.concatenate([s for s, _ in score_files(load_model(run / "model"), paths, rules=read_decoding(run))])
    np.testing.assert_allclose(table["score"], in_torch, rtol=1e-4)
    command = [sys.executable, run / "bundle" / "runner.py", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    alone = [json.loads(line) for line in done.stdout.splitlines()]
    np.testing.assert_allclose(table["score"], [row["score"] for row in alone], rtol=1e-6)
    assert list(table["decision"]) == [row["decision"] for row in alone]
    settings = ServiceSettings(spool=str(tmp_path / "spool"), threads=1)
    kept = recorder.Recorder(open_store(str(tmp_path / "store")), settings)
    served = routes.create_app(Champion(str(run / "bundle"), None, tmp_path / "models", 1), kept, settings)
    with TestClient(served) as client:
        given = {"content": paths[0].read_bytes(), "headers": {"Content-Type": "image/png"}}
        (result,) = client.post("/v1/score", **given).json()["results"]
    assert result["score"] == pytest.approx(table["score"][0], rel=1e-6)


def test_a_defect_is_found_and_shown_where_it_is_in_every_square(run):
    opened = Bundle.open(run / "bundle")
    good = float(opened.score([strip(300)])[0][0])
    for mark in (2, 50, 74, 100, 146):
        (value,), maps, embeddings = opened.score([strip(300, mark)])
        assert value > good
        row, column = np.unravel_index(maps[0, 0].argmax(), maps[0, 0].shape)
        assert 14 <= row <= 38
        assert mark - 6 <= column <= mark + 18
        assert embeddings.shape == (1, 16)


def test_evaluation_finds_the_marks_and_squeezed_pictures_are_another_model(run, strips):
    loupe("evaluate", run, "--data", strips)
    metrics = read_json(run / "evaluation/metrics.json")["overall"]
    assert metrics["image"]["auroc"] == 1
    assert metrics["pixel"]["auroc"] > 0.9
    whole = [next(score_files(load_model(run / "model"), [strips / "test/good/0.png"]))[0]]
    cut = next(score_files(load_model(run / "model"), [strips / "test/good/0.png"], rules=read_decoding(run)))[0]
    assert whole[0] != cut


def test_a_record_of_a_long_picture_has_a_map_of_its_own_size(run, strips, tmp_path):
    made = record(Bundle.open(run / "bundle"), strips / "test/good/0.png", "x.png", "line", tmp_path)
    assert np.load(made["map_uri"]).shape == (64, 160)


@pytest.mark.slow
def test_a_small_defect_on_a_large_picture_within_bounded_memory(run):
    """6000 x 4000 pixels with a defect of 20: seen in squares, where the whole picture squeezed shows nothing."""
    opened = Bundle.open(run / "bundle")
    surface = np.tile(strip(400).repeat(5, 0).repeat(5, 1), (13, 8, 1))[:4000, :6000]  # a square shows 64 of its pixels
    marked = surface.copy()
    marked[1990:2010, 3100:3120] = 250
    opened.manifest = replace(opened.manifest, decoding=replace(opened.decoding, tiles=16))
    tracemalloc.start()
    (found,), maps, _ = opened.score([marked])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    row, column = np.unravel_index(maps[0, 0].argmax(), maps[0, 0].shape)
    assert (abs(row - 2000) < 60, abs(column - 3110) < 60) == (True, True)
    assert found > opened.score([surface])[0][0]
    squares = len(boxes(4000, 6000, 16))
    assert squares > 300
    assert peak < 3 * maps.nbytes  # the map, its squares', and one square as the graph takes it
