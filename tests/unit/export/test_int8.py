"""8-bit integers in the backbone: which nodes, when they are taken, and a table of calibration of their own."""

import dataclasses
import shutil

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper

from components.core.artefacts import file_hash, read_json
from components.decision.bundle import Bundle
from components.export.export import export
from components.export.int8 import quantisable, ranks_alike, refused
from components.export.settings import ExportSettings, Int8Settings
from components.pictures.kept import decode

GOOD = {
    "rank_correlation": 0.99,
    "synthetic_auroc_float": 0.9,
    "synthetic_auroc": 0.897,
    "score_error": 0.02,
    "map_error": 0.05,
    "times_faster": 1.3,
}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, None),
        ({"rank_correlation": 0.9}, "ranked otherwise"),
        ({"synthetic_auroc": 0.894}, "told apart worse: AUROC lower by 0.0060"),
        ({"map_error": 0.2}, "differs from the detector by 0.200 of the span"),
        ({"score_error": 0.2}, "differs from the detector"),
        ({"times_faster": 1.1}, "only 1.10 times as fast"),
    ],
)
def test_what_is_refused_and_why(changed, why):
    said = refused(GOOD | changed, Int8Settings())
    assert (said is None) if why is None else why in said


def test_ranks():
    assert ranks_alike(np.array([1.0, 2, 3]), np.array([10.0, 20, 30])) == pytest.approx(1)
    assert ranks_alike(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    assert ranks_alike(np.ones(3), np.array([3.0, 2, 1])) == 1


def test_of_a_graph_the_backbone_alone():
    """Two convolutions of the backbone with what lies between, and the clip behind; not the search, nor the resize."""

    def node(kind, inputs, out):
        return helper.make_node(kind, inputs, [out], name=out)

    nodes = [
        node("Resize", ["image"], "resized"),
        node("Conv", ["resized", "detector.backbone.net.a.weight"], "a"),
        node("Clip", ["a"], "clipped"),
        node("Add", ["clipped", "clipped"], "added"),
        node("Conv", ["added", "detector.backbone.net.b.weight"], "b"),
        node("Relu", ["b"], "tap"),
        node("Resize", ["tap"], "up"),
        node("Conv", ["up", "detector.blur.kernel"], "blurred"),
        node("MatMul", ["blurred", "detector.coreset.bank"], "score"),
    ]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("image", TensorProto.FLOAT, None)], [])
    assert quantisable(graph) == ["a", "clipped", "added", "b", "tap"]
    del graph.node[1], graph.node[3]
    assert quantisable(graph) == []


@pytest.fixture(scope="module")
def int8(patchcore, product, tmp_path_factory):
    """The bundle of the shared run exported again in 8-bit integers, at any price."""
    work, out = patchcore / "work" / "run", tmp_path_factory.mktemp("int8") / "bundle"
    made = work / "patchcore"
    wanted = Int8Settings(wanted=True, correlation=-1, loss=1, tolerance=10, faster=0, pictures=6)
    settings = ExportSettings(parity_images=4, int8=wanted)
    data = product
    return export(made / "model", made / "calibration", work / "split", work / "synthetic", data, out, settings)


@pytest.mark.slow
def test_integers_have_a_table_of_their_own(int8, patchcore, product):
    """The reference's scores are those of the graph that ships, and its table is made of exactly these."""
    opened, before = Bundle.open(int8), Bundle.open(patchcore / "bundle")
    kinds = {node.op_type for node in onnx.load(int8 / "model.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} & kinds or "QLinearConv" in kinds
    known = pd.read_parquet(int8 / "reference.parquet")
    np.testing.assert_allclose(sorted(known["score"]), opened.calibration.table.scores, rtol=1e-6)
    assert opened.calibration.threshold != before.calibration.threshold
    alarms = (known["decision"] == "anomalous").mean()
    assert alarms <= opened.calibration.alpha
    pixels = decode(product / "test/good/000.png")
    ours, theirs = opened.score([pixels])[0], before.score([pixels])[0]
    assert ours == pytest.approx(theirs, rel=0.2)


@pytest.mark.slow
def test_no_weight_is_signed(int8):
    """Signed ones overflow on a processor without VNNI: its scores were up to twice those of another machine."""
    held = onnx.load(int8 / "model.onnx").graph.initializer
    kinds = {given.data_type for given in held if given.name.endswith("_quantized")}
    assert TensorProto.UINT8 in kinds
    assert TensorProto.INT8 not in kinds


@pytest.mark.slow
def test_what_was_measured_is_told(int8):
    manifest, card = read_json(int8 / "manifest.json"), (int8 / "MODEL_CARD.md").read_text()
    said = manifest["runtime"]["int8"]
    assert said["taken"]
    assert said["times_faster"] > 0
    assert said.keys() >= GOOD.keys()
    assert manifest["runtime"]["provider"] == "cpu"
    assert "| int8 | the backbone, " in card
    assert "| measured with | provider `cpu` |" in card
    assert read_json(int8 / "parity.json")["tolerance"] == 10
    graph = onnx.load(int8 / "model.onnx")
    told = {entry.key: entry.value for entry in graph.metadata_props}
    assert float(told["threshold"]) == Bundle.open(int8).calibration.threshold


@pytest.mark.slow
def test_a_graph_that_is_refused_leaves_the_float_one(patchcore, product, tmp_path):
    work = patchcore / "work" / "run"
    made, wanted = work / "patchcore", Int8Settings(wanted=True, faster=1000.0, pictures=2)
    settings = ExportSettings(int8=dataclasses.replace(wanted, correlation=-1, loss=1, tolerance=10), parity_images=2)
    out = export(
        made / "model", made / "calibration", work / "split", work / "synthetic", product, tmp_path / "b", settings
    )
    assert file_hash(out / "model.onnx") == file_hash(patchcore / "bundle" / "model.onnx")
    assert file_hash(out / "calibration.json") == file_hash(patchcore / "bundle" / "calibration.json")
    said = read_json(out / "manifest.json")["runtime"]["int8"]
    assert (said["taken"], said["why"][:5]) == (False, "only ")
    assert "tried and not taken: only " in (out / "MODEL_CARD.md").read_text()
    assert not (out / "int8.onnx").exists()
    shutil.rmtree(out)
