"""A region of interest from ``loupe fit --roi`` to the line: what lies outside changes nothing, to the last bit."""

import base64
import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from components.core.artefacts import read_json
from components.core.errors import DataError
from components.datasets.loading import read_decoding
from components.decision.batch import record, score
from components.decision.bundle import Bundle, Manifest
from components.pictures.decoding import decode
from components.pictures.framing import inside
from components.pictures.measuring import grey
from components.pictures.roi import region_text
from components.pipeline.fit import FitRequest, asked, drawn
from components.service import recorder, routes
from components.service.champion import Champion
from components.service.settings import ServiceSettings
from components.storage import open_store
from components.training.model import load_model, score_files
from tests.conftest import SMALL, tile
from tests.e2e.test_fit import loupe

POLYGON = [[40, 0], [96, 0], [96, 80], [40, 96]]
DETECTORS = ("patchcore", "padim")


@pytest.fixture(scope="module")
def photos(product, tmp_path_factory):
    """The tiles, one of them with a scratch outside the region; and the region."""
    root = tmp_path_factory.mktemp("region")
    shutil.copytree(product, root / "photos")
    scratched, mask = tile(900), np.zeros((96, 96), np.uint8)
    mask[60:80, 5:25] = 255
    scratched[mask > 0] = 250
    Image.fromarray(scratched).save(root / "photos/test/scratch/900.png")
    Image.fromarray(mask).save(root / "photos/ground_truth/scratch/900_mask.png")
    (root / "roi.json").write_text(json.dumps({"size": [96, 96], "polygon": POLYGON}))
    return root


@pytest.fixture(scope="module", params=DETECTORS)
def run(request, photos):
    out = photos / request.param
    few = ("--set", "evaluation.map_size=64", "--set", "evaluation.bootstrap=20")
    loupe("fit", request.param, "--data", photos / "photos", "--out", out, "--roi", photos / "roi.json", *SMALL, *few)
    return out


@pytest.fixture(scope="module")
def pair(photos):
    """A picture, and the same with all else outside the region."""
    roi = region_text(str(photos / "roi.json"))
    first, second = photos / "one" / "x.png", photos / "other" / "x.png"
    changed = np.where(inside(roi, 96, 96)[..., None], tile(300), 255 - tile(7))
    for path, pixels in ((first, tile(300)), (second, changed)):
        path.parent.mkdir()
        Image.fromarray(pixels).save(path)
    return first, second


def test_rules_go_with_every_artefact_and_the_bundle(run, photos):
    roi = region_text(str(photos / "roi.json"))
    for place in (run, *(run / "work" / p for p in ("photos/manifest", "photos/validation", "run/split"))):
        assert read_decoding(place).roi == roi
    assert Manifest.read(run / "bundle").decoding.roi == roi
    assert "| region of interest | 5" in (run / "bundle/MODEL_CARD.md").read_text()
    assert {"framing.py", "decoding.py"} <= set(read_json(run / "bundle/manifest.json")["files"])


def test_loupe_score_and_torch_see_nothing_of_the_outside(run, pair, tmp_path):
    rows = []
    for number, path in enumerate(pair):
        table = pd.read_parquet(score(run / "bundle", [path], tmp_path / f"{number}.parquet", tmp_path / str(number)))
        rows.append(table.drop(columns=["image_id", "latency_ms", "map_uri"]).iloc[0])
        heat = np.load(table["map_uri"][0])
        outside = ~inside(Manifest.read(run / "bundle").decoding.roi, 96, 96)
        assert (heat[outside] == heat[~outside].min()).all()
        rows[-1]["heat"] = heat.tobytes()
    for key in rows[0].index:
        np.testing.assert_array_equal(rows[0][key], rows[1][key], err_msg=key)
    detector, rules = load_model(run / "model"), read_decoding(run)
    (ours,), (theirs,) = (list(score_files(detector, [path], rules=rules)) for path in pair)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])
    whole = [next(score_files(detector, [path], rules=rules.whole))[0] for path in pair]
    assert whole[0] != whole[1]  # it is the region that does it


def test_the_runner_sees_nothing_of_the_outside(run, pair):
    command = [sys.executable, run / "bundle" / "runner.py", *pair]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ours, theirs = map(json.loads, done.stdout.splitlines())
    assert ours | {"image": ""} == theirs | {"image": ""}
    assert ours["score"] == pytest.approx(record(Bundle.open(run / "bundle"), pair[0], "x", "line")["score"], rel=1e-6)
    long = pair[0].parent / "long.png"
    Image.fromarray(tile(1)[:40]).save(long)
    refused = subprocess.run([sys.executable, run / "bundle/runner.py", long], capture_output=True, text=True)
    assert "has another shape than the region of interest (96 x 40, not like 96 x 96)" in refused.stderr


def test_the_service_sees_nothing_of_the_outside_and_shows_it(run, pair, tmp_path):
    settings = ServiceSettings(spool=str(tmp_path / "spool"), threads=1)
    kept = recorder.Recorder(open_store(str(tmp_path / "store")), settings)
    served = routes.create_app(Champion(str(run / "bundle"), None, tmp_path / "models", 1), kept, settings)
    answers, shown = [], []
    with TestClient(served) as client:
        for path in pair:
            given = {"content": path.read_bytes(), "headers": {"Content-Type": "image/png"}}
            (result,) = client.post("/v1/score?heatmap=map", **given).json()["results"]
            answers.append({k: v for k, v in result.items() if k not in ("record_id", "latency_ms")})
            (drawn_,) = client.post("/v1/score?heatmap=overlay", **given).json()["results"]
            shown.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn_["overlay_png"])))))
    assert answers[0] == answers[1]
    outside = ~inside(Manifest.read(run / "bundle").decoding.roi, 96, 96)
    for path, picture in zip(pair, shown, strict=True):
        np.testing.assert_array_equal(picture[outside], decode(path)[outside])


def test_anomalies_and_references_are_of_the_region(run, photos):
    made = pd.read_parquet(run / "work/run/synthetic/synthetic.parquet")
    outside = ~inside(read_decoding(run).roi, 96, 96)
    assert len(made)
    for row in made.itertuples():
        mask = np.asarray(Image.open(run / "work/run/synthetic" / row.mask))
        assert mask.any()
        assert not mask[outside].any()
        assert row.extent == pytest.approx(np.sqrt(mask.sum()))
    reference = pd.read_parquet(run / "bundle/reference.parquet").iloc[0]
    shade = grey(decode(photos / "photos" / reference["image_id"]))
    assert reference["brightness"] == pytest.approx(float(shade[~outside].mean()), rel=1e-6)


def test_defects_outside_are_in_no_figure_and_named(run, photos):
    loupe("evaluate", run, "--data", photos / "photos")
    found = read_json(run / "evaluation/metrics.json")
    assert found["outside_region"]["images"] == ["test/scratch/900.png"]
    assert found["overall"]["n"] == {"normal": 8, "anomalous": 8}
    assert found["masks"]["region"] == {"cut": 8, "outside": 1}  # all but one reach into it
    assert found["masks"]["used"] == 8
    assert len(pd.read_parquet(run / "evaluation/scores.parquet")) == 17
    assert "900.png" not in (run / "evaluation/gallery/index.html").read_text()


def test_another_region_is_another_request_and_slips_are_told_at_once(photos, tmp_path):
    (tmp_path / "roi.json").write_text((photos / "roi.json").read_text())
    request = FitRequest("patchcore", photos / "photos", sections={"data": {"roi": str(tmp_path / "roi.json")}})
    before = asked(drawn(request))
    assert asked(drawn(request)) == before
    (tmp_path / "roi.json").write_text(json.dumps({"size": [96, 96], "polygon": [[0, 0], [50, 0], [50, 96]]}))
    assert asked(drawn(request)) != before
    (tmp_path / "roi.json").unlink()
    with pytest.raises(DataError, match=r"roi\.json: not found"):
        drawn(request)
