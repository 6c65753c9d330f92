"""Parts of a bundle that need no graph: exits of the cascade, the reference, copies, the card's numbers."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.core.artefacts import write_json
from components.core.records import SCORE_COLUMNS
from components.decision.cascade import Exits
from components.decision.conformal import Decided
from components.export import reference
from components.export.edge import calibrating, exit_of
from components.export.reference import write_reference
from components.export.repoint import clone
from components.pictures.decoding import Decoding


def way(low, high, **more):
    return {"alpha": 0.1, "scores": [0.0, 1.0], "resolution": 0.0, "share": 0.2, "low": low, "high": high, **more}


def test_an_edge_score_takes_the_way_out_of_its_group():
    exits = Exits.of(way(1.0, 3.0, groups={"b": {"low": 10.0, "high": None}}))
    found = exit_of(exits, np.array([1.0, 2.0, 3.5, 3.5, 99.0, 0.5]), ["a", "a", "a", "b", "b", ""])
    assert found == ["normal", None, "anomalous", "normal", None, "normal"]


def test_the_exits_are_set_by_calibrate_normals_and_anomalies_of_their_groups(tmp_path):
    rows = {
        "image_id": ["fit.png", "a.png", "b.png", "bad.png"],
        "split": ["fit", "calibrate", "calibrate", "calibrate"],
        "label": ["normal", "normal", "normal", "anomalous"],
        "group": ["x", "x", "y", "y"],
    }
    pd.DataFrame(rows).to_parquet(tmp_path / "split.parquet")
    write_json(tmp_path / "decoding.json", {"max_pixels": 77})
    made = {"image_id": ["images/1.png", "images/2.png"], "origin": ["b.png", "a.png"]}
    pd.DataFrame(made).to_parquet(tmp_path / "synthetic.parquet")
    normals, anomalies = calibrating(tmp_path, tmp_path / "data", tmp_path)
    assert normals.paths == [tmp_path / "data/a.png", tmp_path / "data/b.png"]
    assert list(normals.groups) == ["x", "y"]
    assert anomalies.paths == [tmp_path / "images/1.png", tmp_path / "images/2.png"]
    assert list(anomalies.groups) == ["y", "x"]
    assert normals.rules == anomalies.rules == Decoding(max_pixels=77)


def test_a_score_that_is_given_stands_in_the_reference_and_latency_does_not(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    seen = dict.fromkeys(SCORE_COLUMNS) | {"score": 1.0, "decision": "normal", "latency_ms": 5.0}
    monkeypatch.setattr(reference, "record_of", lambda _, __, name, ___: {**seen, "image_id": name})
    bundle = SimpleNamespace(decoding=Decoding(), decide=lambda _: Decided(0.01, "anomalous", 2.0))
    out = write_reference(bundle, tmp_path, {"a.png": None, "b.png": 7.0}, tmp_path / "reference.parquet")
    first, second = pq.read_table(out).to_pylist()
    assert (first["image_id"], first["score"], first["decision"]) == ("a.png", 1.0, "normal")
    assert (second["score"], second["p_value"], second["decision"], second["threshold"]) == (
        7.0,
        0.01,
        "anomalous",
        2.0,
    )
    assert first["latency_ms"] is None
    assert second["latency_ms"] is None


@pytest.mark.parametrize("link", [True, False])
def test_a_copy_leaves_out_what_it_is_told_and_shares_bytes_only_when_asked(link, tmp_path):
    (tmp_path / "run/work").mkdir(parents=True)
    (tmp_path / "run/a").write_text("a")
    (tmp_path / "run/work/b").write_text("b")
    clone(tmp_path / "run", tmp_path / "copy", link, leave=("work",))
    assert [path.name for path in (tmp_path / "copy").rglob("*")] == ["a"]
    assert (tmp_path / "copy/a").read_text() == "a"
    assert (tmp_path / "copy/a").samefile(tmp_path / "run/a") is link


def test_where_the_disk_knows_no_links_bytes_are_copied(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/a").write_text("a")
    monkeypatch.setattr("pathlib.Path.hardlink_to", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    clone(tmp_path / "run", tmp_path / "copy", link=True)
    assert (tmp_path / "copy/a").read_text() == "a"
    assert not (tmp_path / "copy/a").samefile(tmp_path / "run/a")
