"""Candidate normals: reviewed labels first, the visible defects trimmed, the rest said as an estimate."""

import hashlib
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.core.artefacts import read_json
from components.core.errors import DataError
from components.monitoring.verdict import Verdict
from components.retraining.candidates import gather
from components.retraining.contamination import deviations, estimate
from components.retraining.settings import RetrainSettings
from components.scorelog import table
from components.scorelog.shipper import image_key
from components.storage import LocalStore
from tests.conftest import tile

AT = datetime(2026, 1, 2, tzinfo=UTC)
SETTINGS = RetrainSettings(min_candidates=30, contamination_bank=200)
BAD = 6


def png(seed, scratched=False):
    pixels, stream = tile(seed), io.BytesIO()
    if scratched:
        pixels[20:60, 20:60] = 250
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """60 records of one source, the last 6 of scratched tiles; one defect and one false alarm are reviewed."""
    store, rows, labels = LocalStore(tmp_path_factory.mktemp("store")), [], []
    for i in range(60):
        content = png(i, i >= 60 - BAD)
        sha = hashlib.sha256(content).hexdigest()
        store.put(image_key(sha), content)
        at = (AT + timedelta(seconds=i)).isoformat()
        rows.append(
            {
                "record_id": f"{i:03d}",
                "source": "line-1",
                "scored_at": at,
                "sha256": sha,
                "image_id": f"{i}.png",
                "model_version": "v",
                "image_uri": image_key(sha),
            }
        )
        if i in (58, 59):
            labels.append(
                {
                    "record_id": f"{i:03d}",
                    "source": "line-1",
                    "image_id": f"{i}.png",
                    "sha256": sha,
                    "labelled_at": AT.isoformat(),
                    "reviewer": "",
                    "label": "defect" if i == 59 else "false_alarm",
                }
            )
    table.write(store, table.SCORES, "a", rows)
    table.write(store, table.SCORES, "b", [rows[0] | {"record_id": "again"}])
    table.write(store, table.LABELS, "a", labels)
    return store


def verdict(first=0):
    window = {"n": 60, "first": [(AT + timedelta(seconds=first)).isoformat(), ""], "last": ["", ""]}
    return Verdict("retrain", "line-1-v-00001", "line-1", "m", "v", 1, True, (), window, {}, "", {}, AT.isoformat())


@pytest.fixture(scope="module")
def gathered(log, store, tmp_path_factory):
    root = tmp_path_factory.mktemp("gathered")
    return gather(log, verdict(), root / "candidates", SETTINGS, 0, store.root)


def test_each_picture_once_and_its_bytes_at_hand(gathered):
    chosen = pd.read_parquet(gathered / "candidates.parquet")
    assert len(chosen) == chosen["sha256"].nunique() == 60
    for row in chosen.itertuples():
        assert hashlib.sha256((gathered / row.file).read_bytes()).hexdigest() == row.sha256


def test_reviewers_have_the_first_word(gathered):
    chosen = pd.read_parquet(gathered / "candidates.parquet").set_index("review")
    assert chosen.loc["defect", "part"] == "defect"
    assert chosen.loc["normal", "part"] in ("train", "holdout")  # scratched, and yet a reviewer called it normal


def test_scratched_tiles_are_trimmed_and_counted(gathered):
    chosen = pd.read_parquet(gathered / "candidates.parquet")
    scratched = set(range(60 - BAD, 58))
    trimmed = chosen[(chosen["part"] == "trimmed")]
    hashes = {hashlib.sha256(png(i, True)).hexdigest() for i in scratched}
    held = set(chosen[chosen["part"] == "holdout"]["sha256"])
    assert hashes - held <= set(trimmed["sha256"])
    summary = read_json(gathered / "candidates.json")
    assert 0.02 < summary["contamination"] < 0.15  # 4 of 58 unreviewed ones
    assert summary["reviewed"] == {"none": 58, "normal": 1, "defect": 1}


def test_the_holdout_is_as_the_line_saw_it(gathered):
    chosen = pd.read_parquet(gathered / "candidates.parquet")
    share = (chosen["part"] == "holdout").mean()
    assert 0.05 < share < 0.4
    assert set(chosen["part"]) <= {"train", "holdout", "trimmed", "defect"}


def test_too_few_candidates_are_refused(log, tmp_path):
    with pytest.raises(DataError, match=r"retrain\.min_candidates"):
        gather(log, verdict(40), tmp_path / "out", replace(SETTINGS, min_candidates=30), 0, tmp_path / "features")
    assert not (tmp_path / "out").exists()


def test_deviations_are_read_off_the_lower_half():
    clean = np.random.default_rng(0).normal(size=2000)
    upper = np.concatenate([clean, np.full(300, 50.0)])
    assert deviations(clean).std() == pytest.approx(1.0, abs=0.06)
    assert (deviations(upper) > 10).sum() == 300


def test_the_estimate_takes_off_what_clean_pools_show():
    beyond = np.arange(100) < 10
    assert estimate(beyond, 0.0) == pytest.approx(0.1)
    assert estimate(beyond, 0.04) == pytest.approx(0.0625)
    assert estimate(beyond, 0.2) == 0.0
