"""A bundle with two graphs: what the edge graph may decide, and that the false-alarm rate is kept."""

import json
import logging
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from components.calibration.exits import Scored, exits
from components.calibration.settings import CascadeSettings
from components.core.artefacts import read_json
from components.core.errors import BundleError, ParityError, SettingsError
from components.datasets.loading import rows
from components.decision.batch import score
from components.decision.bundle import Bundle, Manifest
from components.decision.calibration import Calibration, Group
from components.decision.cascade import Exit, early, edge_decision, full_decision
from components.decision.conformal import Table, p_values
from components.decision.seeing import tensor
from components.export.export import Graphs, export
from components.export.settings import ExportSettings
from components.pictures.decoding import decode
from components.pictures.imaging import to_tensor
from components.training.model import load_model

ALPHA = 0.2


@pytest.fixture(scope="module")
def run(product, tmp_path_factory):
    from components.pipeline.fit import FitRequest, fit_folder

    out = tmp_path_factory.mktemp("fmr_net") / "run"
    few = {"epochs": 2, "restore_epochs": 1}
    plain = {"synthesis": {"strategies": ["perlin_texture", "natural"]}}  # so plain that a tiny model finds some
    request = FitRequest("fmr_net", product, preset="tiny", alpha=ALPHA, overrides=few, sections=plain)
    return fit_folder(request, out)


@pytest.fixture(scope="module")
def opened(run):
    return Bundle.open(run / "bundle")


@pytest.fixture
def images(product):
    return sorted((product / "test").rglob("*.png"))


def with_exits(run, folder, **changes) -> Bundle:
    """A copy of the bundle whose cascade.json says otherwise, without a manifest to tell."""
    shutil.copytree(run / "bundle", folder)
    known = read_json(folder / "cascade.json")
    (folder / "cascade.json").write_text(json.dumps({**known, "groups": {}, **changes}))
    return Bundle(folder, Manifest.read(folder), 1)


NONE = Scored(np.zeros(0), np.zeros(0, object))


def calibrated(alpha: float = 0.05, **groups: Group) -> Calibration:
    """The full graph's; of its scores nothing is asked here."""
    return Calibration(Table(np.zeros(0), alpha, 0.0), 0, (0.0, 1.0), 0.95, groups, {})


def table(scores: np.ndarray, made: Scored = NONE, **settings):
    normals = Scored(scores, np.array(["a"] * len(scores)))
    return exits(normals, made, calibrated(), CascadeSettings(**settings))


# The rule


def test_the_exits_are_those_of_the_edge_graph_s_own_p_values():
    rng = np.random.default_rng(0)
    known = Exit.of(table(rng.normal(size=150)))
    for value in rng.normal(size=300):
        p = float(p_values(known.table, np.array([value]))[0])
        expected = "normal" if p >= 0.5 else "anomalous" if p <= 0.2 * 0.05 else None
        assert early(known, value) == expected


def test_too_few_normals_leave_all_of_alpha_to_the_full_graph():
    known = Exit.of(table(np.arange(60.0)))  # 0.2 * 0.05 needs 99
    assert known.high is None
    assert known.share == 0
    assert early(known, 1e9) is None
    full = Table(np.arange(60.0), 0.05, 57.0)
    assert full_decision(known, full, 57.5) == (pytest.approx(3 / 61), "anomalous", 57.0)
    assert edge_decision(known, 0.0, "normal").p_value == 1.0


def test_each_graph_is_held_against_its_share_of_alpha():
    known = Exit.of(table(np.arange(199.0)))
    full = Table(np.arange(199.0), 0.05, 0.0)
    assert full_decision(known, full, 191.5)[:2] == (pytest.approx(8 / 200 / 0.8), "anomalous")
    assert full_decision(known, full, 190.5)[:2] == (pytest.approx(9 / 200 / 0.8), "normal")  # alone: p = 0.045
    assert full_decision(known, full, 0)[2] == 191
    assert edge_decision(known, 500.0, "anomalous") == (pytest.approx(1 / 200 / 0.2), "anomalous", known.high)


@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.9])
def test_no_more_false_alarms_than_asked_for_and_p_values_that_hold(correlation):
    """Over many calibrations, whatever the two graphs have to do with each other."""
    rng, alarms, small = np.random.default_rng(1), [], []
    for _ in range(1500):
        edge = rng.normal(size=200)
        full = correlation * edge + (1 - correlation**2) ** 0.5 * rng.normal(size=200)
        known = Exit.of(table(edge[:199]))
        own = Table(np.sort(full[:199]), 0.05, 0.0)
        decision = early(known, edge[199])
        said = edge_decision(known, edge[199], decision) if decision else full_decision(known, own, full[199])
        alarms.append(said.decision == "anomalous")
        small.append(said.p_value <= 0.3)
        assert (said.p_value <= 0.05 + 1e-12) == alarms[-1]
    assert np.mean(alarms) < 0.05 + 3 * (0.05 * 0.95 / 1500) ** 0.5
    assert np.mean(small) < 0.3 + 3 * (0.3 * 0.7 / 1500) ** 0.5


def test_a_group_with_a_table_of_its_own_has_exits_of_its_own():
    scores, groups = np.arange(40.0), np.array(["a", "b"] * 20)
    scores[groups == "b"] += 100
    own = calibrated(0.2, a=Group(20, 0.0, Table(np.zeros(0), 0.2, 0.0)), b=Group(3, None))
    known = exits(Scored(scores, groups), NONE, own, CascadeSettings())
    assert set(known["groups"]) == {"a"}
    assert known["groups"]["a"]["low"] < 40 < known["low"]
    made = Scored(np.array([3.0, 50.0]), np.array(["b", "a"]))
    assert exits(Scored(scores, groups), made, own, CascadeSettings())["groups"] == known["groups"] | {
        "a": known["groups"]["a"] | {"leave": {**known["groups"]["a"]["leave"], "found_synthetic": 0.0, "of": 1}}
    }


@pytest.mark.parametrize(("missed", "let_out"), [(0.0, 0), (0.05, 1), (0.1, 2), (1.0, 10)])
def test_few_of_the_anomalies_that_the_full_graph_finds_leave_as_normal(missed, let_out):
    """Ten of twenty lie among the lower half of the normals, where all of them could leave."""
    scores = np.arange(200.0)
    made = Scored(np.concatenate([10.0 * np.arange(10), 150.0 + np.arange(10)]), np.array(["a"] * 20))
    known = table(scores, made, missed=missed)
    assert sum(early(Exit.of(known), value) == "normal" for value in made.scores) == let_out
    assert known["leave"]["found_synthetic"] == let_out / 20
    assert known["leave"]["of"] == 20
    assert known["leave"]["normals"] == np.mean([early(Exit.of(known), value) == "normal" for value in scores])
    assert table(scores, missed=0.0)["low"] == table(scores, made, missed=1.0)["low"]


@pytest.mark.parametrize("slip", [{"normal": 0.05}, {"normal": 1.5}, {"share": 0.9}, {"missed": 1.1}])
def test_settings_that_cannot_hold_are_refused(slip):
    with pytest.raises(SettingsError, match=r"export\.cascade"):
        table(np.arange(60.0), **slip)


# The bundle


def test_the_edge_graph_answers_as_torch_does(run, opened, images):
    detector = load_model(run / "model")
    graph, _ = opened.edge
    for path in images[::4]:
        pixels = decode(path)
        image = to_tensor(pixels)[None]
        with torch.inference_mode():
            own = detector.edge(detector.prepared(image), (96, 96))
        score_, heat, embedding = graph.run(["score", "map", "embedding"], {"image": image.numpy()})
        np.testing.assert_allclose(score_, own.image, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(heat, own.map, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(embedding, opened.score([pixels])[2], rtol=1e-3, atol=1e-3)


def test_the_edge_graph_has_no_decoder(run):
    import onnx

    edge, full = (onnx.load(run / "bundle" / name) for name in ("edge.onnx", "model.onnx"))
    sizes = [{tuple(weights.dims) for weights in graph.graph.initializer} for graph in (edge, full)]
    detector = load_model(run / "model")
    decoder = {tuple(p.shape) for p in detector.decoder.parameters() if p.ndim == 4}
    own = decoder - {tuple(p.shape) for p in detector.encoder.parameters()}
    assert own & sizes[1]
    assert not own & sizes[0]
    assert len(edge.graph.node) < len(full.graph.node) / 2


def test_the_thresholds_are_from_the_calibrate_normals(run, opened, product):
    known = read_json(run / "bundle/cascade.json")
    split = pd.read_parquet(run / "split.parquet")
    names = split[(split["split"] == "calibrate") & (split["label"] == "normal")]["image_id"]
    graph, _ = opened.edge
    pixels = [tensor(decode(product / name))[None] for name in names]
    scores = np.sort([float(graph.run(["score"], {"image": image})[0][0]) for image in pixels])
    np.testing.assert_allclose(known["scores"], scores, rtol=1e-5)
    assert known["n"] == len(names)
    assert known["low"] < scores[-1]
    assert known["leave"]["normals"] == np.mean(scores <= known["low"])


def test_the_way_out_is_narrowed_by_anomalies_on_the_calibrate_normals(run, opened):
    graph, known = opened.edge[0], read_json(run / "bundle/cascade.json")
    synthetic = run / "work" / "run" / "synthetic"
    made = [decode(synthetic / name) for name in pd.read_parquet(synthetic / "synthetic.parquet")["image_id"]]
    found = [pixels for pixels in made if opened.decide(float(opened.score([pixels])[0][0])).decision == "anomalous"]
    assert 0 < len(found) < len(made)
    scores = np.sort([float(graph.run(["score"], {"image": tensor(pixels)[None]})[0][0]) for pixels in found])
    assert known["leave"]["of"] == len(found)
    assert known["leave"]["found_synthetic"] == pytest.approx(np.mean(scores <= known["low"]))
    assert np.mean(scores <= known["low"]) <= 0.05
    half = known["scores"][known["n"] - math.ceil(known["normal"] * (known["n"] + 1)) + 1]
    assert known["low"] == pytest.approx(min(half, scores[len(found) // 20]), abs=3 * known["resolution"])
    assert read_json(run / "bundle" / "run.json")["inputs"].keys() >= {"synthetic", "split", "model"}


def test_the_parity_gate_covers_the_edge_graph(run, product, tmp_path, monkeypatch):
    parity = read_json(run / "bundle" / "parity.json")["edge"]
    assert parity["decision_agreement"] == 1.0
    assert 0 < max(parity["score_error"], parity["map_error"]) < 1e-3
    from components.detectors.methods.fmr_net import FMRNet

    plain = FMRNet.edge

    def drifting(self, inputs, size):
        scores = plain(self, inputs, size)
        return scores if torch.compiler.is_compiling() else scores._replace(image=2 * scores.image)

    write = Graphs._write

    def short(self, name, described, more):  # the full graph takes seconds and is not what is looked at
        if name == "model.onnx":
            shutil.copy2(run / "bundle" / name, self.folder)
        else:
            write(self, name, described, more)

    monkeypatch.setattr(Graphs, "_write", short)
    monkeypatch.setattr(FMRNet, "edge", drifting)
    below = run / "work" / "run" / "fmr_net"
    given = [below.parent / "split", below.parent / "synthetic", product.parent / product.name]
    few = ExportSettings(parity_images=2)
    with pytest.raises(ParityError, match="edge graph"):
        export(below / "model", below / "calibration", *given, tmp_path / "bundle", few)


def test_hashes_cover_both_files_of_the_cascade(run, tmp_path):
    for name in ("edge.onnx", "cascade.json"):
        folder = tmp_path / name
        shutil.copytree(run / "bundle", folder)
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
        with pytest.raises(BundleError, match=name):
            Bundle.open(folder)


def test_without_the_option_nothing_changes(opened, run, images, tmp_path):
    found = pd.read_parquet(score(run / "bundle", images, tmp_path / "plain.parquet"))
    assert "graph" not in found
    for path, row in zip(images, found.to_dict("records"), strict=True):
        value = float(opened.score([decode(path)])[0][0])
        assert row["score"] == value
        assert (row["p_value"], row["decision"], row["threshold"]) == opened.decide(value)


def test_a_bundle_with_one_graph_refuses_the_cascade(bundle, images, tmp_path):
    assert not (bundle / "edge.onnx").exists()
    with pytest.raises(BundleError, match="no edge graph"):
        score(bundle, images, tmp_path / "x.parquet", cascade=True)


def test_who_answers_follows_the_edge_score_and_the_record_says_who(run, images, tmp_path, caplog):
    opened = Bundle.open(run / "bundle")
    graph, _ = opened.edge
    values = {str(p): float(graph.run(["score"], {"image": tensor(decode(p))[None]})[0][0]) for p in images}
    low, high = np.quantile(list(values.values()), [0.3, 0.8])
    edited = with_exits(run, tmp_path / "bundle", low=float(low), high=float(high), share=0.2)
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.INFO, "loupe"):
        patch.setattr(Bundle, "open", lambda *_, **__: edited)
        found = pd.read_parquet(score(tmp_path / "bundle", images, tmp_path / "t.parquet", cascade=True))
    normal, anomalous = (sum(v <= low for v in values.values()), sum(v > high for v in values.values()))
    assert normal
    assert anomalous
    assert f"answered {normal + anomalous} of {len(images)}: {normal} normal, {anomalous} anomalous" in caplog.text
    for row in found.to_dict("records"):
        value = values[row["image_id"]]
        if low < value <= high:
            assert row["graph"] == "full"
            assert row["score"] == float(opened.score([decode(row["image_id"])])[0][0])
        else:
            assert row["graph"] == "edge"
            assert row["score"] == pytest.approx(value)
            assert row["threshold"] == pytest.approx(low if value <= low else high)
            assert row["decision"] == ("normal" if value <= low else "anomalous")


def test_an_early_answer_does_not_run_the_full_graph(run, images, tmp_path, monkeypatch):
    edited = with_exits(run, tmp_path / "bundle", low=1e9)
    monkeypatch.setattr(edited, "session", None)
    answer = edited.answer(decode(images[0]), cascade=True)
    assert answer.graph == "edge"
    assert answer.map.shape == (96, 96)
    assert answer.embedding.shape == (16,)


def test_cascade_on_the_command_line(run, images, tmp_path):
    from typer.testing import CliRunner

    from components.cli import app

    arguments = ["score", run / "bundle", *images[:3], "--out", tmp_path / "t.parquet", "--cascade"]
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert set(pd.read_parquet(tmp_path / "t.parquet")["graph"]) <= {"edge", "full"}


def test_the_benchmark_counts_early_exits_and_ranks_across_graphs(run, product):
    from benchmarks.mechanisms.cascade import measured, ranked

    answers = pd.DataFrame(
        {
            "graph": ["full", "edge", "full", "edge"],
            "decision": ["normal", "anomalous", "anomalous", "normal"],
            "score": [1.0, 0.2, 5.0, 9.0],
        }
    )
    assert list(np.argsort(ranked(answers))) == [3, 0, 2, 1]
    found = measured(run / "bundle", run / "work" / "run" / "split", product, limit=8)
    assert found["images"] == {"normal": 4, "anomalous": 4}
    assert found["early"]["all"] == pytest.approx(
        found["early"]["normal_at_once"] + found["early"]["anomalous_at_once"], abs=1e-3
    )
    assert 0 <= found["of_them_found_by_full"] <= found["defects_let_out_early"]
    test = rows(run / "work" / "run" / "split", "test").iloc[np.linspace(0, 15, 8).astype(int)]
    graph, _ = Bundle.open(run / "bundle").edge
    scores = [float(graph.run(["score"], {"image": tensor(decode(product / n))[None]})[0][0]) for n in test["image_id"]]
    assert found["edge_auroc"] == pytest.approx(roc_auc_score(test["label"] == "anomalous", scores), abs=1e-4)
    assert {"auroc", "false_alarms", "misses"} == set(found["full"]) == set(found["cascade"])
