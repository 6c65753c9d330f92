"""What calibrates and is measured are the scores of the graph that ships, and the gate still holds it against torch."""

import shutil
import threading

import numpy as np
import onnx
import pandas as pd
import pytest

from components.calibration.calibrate import in_torch, through_graph
from components.core.artefacts import read_json, write_json
from components.core.errors import BundleError
from components.datasets.loading import rows
from components.decision import traced
from components.decision.bundle import Bundle
from components.decision.traced import FILE, GRAPH, Traced, stands
from components.export.trace import restated
from components.pictures.heat import squeezed
from components.pipeline.fit import EvaluateRequest, evaluate_run


@pytest.fixture
def below(patchcore):
    """The folder of the artefacts that the stages of the run left."""
    return patchcore / "work/run/patchcore"


@pytest.fixture
def held(patchcore, product):
    """The calibrate normals."""
    return [product / name for name in rows(patchcore, "calibrate", "normal")["image_id"]]


def test_the_calibration_holds_the_very_scores_of_the_bundle(patchcore, bundle):
    reference = pd.read_parquet(bundle / "reference.parquet")["score"]
    assert sorted(reference) == read_json(patchcore / "calibration.json")["scores"]


def test_each_core_has_a_picture_and_they_stay_in_order(below, held, monkeypatch):
    monkeypatch.setattr(traced, "cores", lambda: 2)
    alone = [next(Traced.open(below / "graph", below / "model").score([path])) for path in held[:4]]
    meeting, seen = threading.Barrier(2, timeout=60), traced.seen

    def together(*given):
        meeting.wait()  # two at a time, or nobody gets past
        return seen(*given)

    monkeypatch.setattr(traced, "seen", together)
    both = list(Traced.open(below / "graph", below / "model").score(held[:4]))
    assert [score for score, _ in both] == [score for score, _ in alone]
    for (_, heat), (_, expected) in zip(both, alone, strict=True):
        np.testing.assert_array_equal(heat, expected)


def test_pictures_that_fill_the_memory_come_one_by_one(below, held, monkeypatch):
    monkeypatch.setattr(traced, "cores", lambda: 2)
    monkeypatch.setattr(traced, "AT_ONCE", 96 * 96)
    alone, seen = threading.Semaphore(1), traced.seen

    def checked(*given):
        assert alone.acquire(blocking=False), "two at once"
        try:
            return seen(*given)
        finally:
            alone.release()

    monkeypatch.setattr(traced, "seen", checked)
    assert len(list(Traced.open(below / "graph", below / "model").score(held[:4]))) == 4


def test_an_evaluation_measures_what_the_bundle_says(patchcore, bundle, product, tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError("the detector was asked")

    monkeypatch.setattr("components.training.model.score_files", never)
    evaluate_run(EvaluateRequest(patchcore, product), tmp_path / "evaluation")
    table = pd.read_parquet(tmp_path / "evaluation/scores.parquet")
    opened = Bundle.open(bundle)
    pictures = [traced.decode(product / name, rules=opened.decoding) for name in table["image_id"]]
    assert len(table) == 16
    assert list(table["score"]) == [float(opened.score([pixels])[0][0]) for pixels in pictures]


def test_torch_and_graph_calibrate_alike(patchcore, below, held):
    (scores, maps), of_graph = (
        in_torch(below / "model", patchcore, held),
        through_graph(below / "graph", below / "model", held),
    )
    np.testing.assert_allclose(of_graph[0], scores, atol=1e-4 * np.ptp(scores))
    assert maps.shape == of_graph[1].shape
    np.testing.assert_allclose(of_graph[1], maps, atol=2e-2 * np.ptp(maps))  # torch's are of the detector's size


def test_no_pixel_that_the_line_shows_of_a_held_out_normal_exceeds_the_limit(patchcore, bundle, held):
    opened = Bundle.open(bundle)
    maps = [opened.score([traced.decode(path, rules=opened.decoding)])[1] for path in held]
    assert max(float(heat.max()) for heat in maps) == read_json(patchcore / "calibration.json")["map"]["1.0"]


def test_what_ships_is_the_graph_that_calibrated(bundle, below, tmp_path):
    shipped = onnx.load(bundle / GRAPH)
    said = {entry.key: entry.value for entry in shipped.metadata_props}
    known = read_json(bundle / "manifest.json")
    assert {key: said[key] for key in ("alpha", "threshold", "model")} == {
        "alpha": str(known["alpha"]),
        "threshold": str(known["threshold"]),
        "model": known["model"],
    }
    without = {entry.key for entry in onnx.load(below / "graph" / GRAPH).metadata_props}
    assert set(said) - without == {"alpha", "threshold"}
    restated(below / "graph" / GRAPH, tmp_path / GRAPH, said)
    assert (tmp_path / GRAPH).read_bytes() == (bundle / GRAPH).read_bytes()


def test_a_graph_of_another_model_is_neither_used_nor_left_standing(bundle, below, tmp_path):
    assert stands(below / "graph", below / "model")
    other = shutil.copytree(below / "graph", tmp_path / "graph")
    write_json(other / FILE, {**read_json(other / FILE), "model": "f" * 64})
    assert not stands(other, below / "model")
    assert not stands(tmp_path / "nowhere", below / "model")
    with pytest.raises(BundleError, match="is of another model than"):
        Traced.open(other, below / "model")
    assert Traced.open(bundle, below / "model").model == read_json(below / "graph" / FILE)["model"]


def test_a_changed_bundle_is_not_measured(patchcore, product, tmp_path):
    run = shutil.copytree(patchcore, tmp_path / "run")
    with (run / "bundle" / GRAPH).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(BundleError, match="missing or changed since export"):
        evaluate_run(EvaluateRequest(run, product), tmp_path / "evaluation")


def test_maps_are_as_the_line_shows_them_squeezed(bundle, below, held):
    opened = Bundle.open(bundle)
    (score, heat), *_ = Traced.open(bundle, below / "model").score(held[:1], 32)
    scores, maps, _ = opened.score([traced.decode(held[0], rules=opened.decoding)])
    assert score == float(scores[0])
    assert heat.shape == (32, 32)
    np.testing.assert_array_equal(heat, squeezed(maps[0, 0], 32))
