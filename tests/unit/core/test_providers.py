"""Which provider computes a graph, and what follows where it is not the one that a bundle was measured with."""

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from components.core.errors import BundleError, SettingsError
from components.core.openvino import metadata_of
from components.core.runtime import Runs, require_provider, session
from components.export import runner

HERE = Path("bundle")


@pytest.fixture
def graph(tmp_path):
    """Twice its input and the sum of it, with metadata; the weights are longer than one byte tells."""
    weights = helper.make_tensor("two", TensorProto.FLOAT, [1, 300], [2.0] * 300)
    nodes = [
        helper.make_node("Mul", ["image", "two"], ["map"]),
        helper.make_node("ReduceSum", ["map"], ["score"], keepdims=0),
    ]
    shape = ["batch", 300]
    put = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    out = [
        helper.make_tensor_value_info("score", TensorProto.FLOAT, []),
        helper.make_tensor_value_info("map", TensorProto.FLOAT, shape),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [put], out, [weights]), ir_version=10)
    model.opset_import[0].version = 20
    helper.set_model_props(model, {"model": "abc", "threshold": "", "long": "x" * 500})
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_openvino_answers_as_onnx_runtime_does(graph):
    pytest.importorskip("openvino", reason="needs OpenVINO")
    ours, theirs = session(graph, 1), session(graph, 1, "openvino")
    image = np.random.default_rng(0).random((3, 300), np.float32)
    for names in (["score", "map"], ["map"], None):
        for one, other in zip(ours.run(names, {"image": image}), theirs.run(names, {"image": image}), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)
    kept = theirs.run(["map"], {"image": image})[0]
    theirs.run(["map"], {"image": 0 * image})
    assert kept.max() > 0  # an answer is the caller's own
    assert theirs.get_modelmeta().custom_metadata_map == ours.get_modelmeta().custom_metadata_map


@pytest.mark.parametrize("shape", [(9, 40), (8, 8), (3, 100), (64, 5)], ids=str)
def test_openvino_makes_pictures_smaller_as_onnx_runtime_does(shape, tmp_path):
    """It reads that a Resize is antialiased, and by itself computes it without."""
    pytest.importorskip("openvino", reason="needs OpenVINO")
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [4], [2, 3, 8, 8])
    how = {"mode": "linear", "antialias": 1, "exclude_outside": 1, "coordinate_transformation_mode": "half_pixel"}
    node = helper.make_node("Resize", ["image", "", "", "sizes"], ["map"], **how)
    put = helper.make_tensor_value_info("image", TensorProto.FLOAT, [2, 3, "height", "width"])
    out = helper.make_tensor_value_info("map", TensorProto.FLOAT, [2, 3, 8, 8])
    model = helper.make_model(helper.make_graph([node], "g", [put], [out], [sizes]), ir_version=10)
    model.opset_import[0].version = 20
    onnx.save(model, path := tmp_path / "model.onnx")
    image = np.random.default_rng(0).random((2, 3, *shape), np.float32)
    ours, theirs = (session(path, 1, provider).run(["map"], {"image": image})[0] for provider in ("cpu", "openvino"))
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_metadata_are_read_from_the_bytes(graph):
    assert metadata_of(graph.read_bytes()) == {"model": "abc", "threshold": "", "long": "x" * 500}


def test_openvino_that_is_not_installed(graph, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(SettingsError, match=r"pip install 'loupe\[openvino\]'"):
        session(graph, 1, "openvino")


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_this_build_lacks(provider):
    with pytest.raises(SettingsError, match=f"provider {provider}: .* onnxruntime-gpu"):
        require_provider(provider, ["CPUExecutionProvider"])
    require_provider(provider, ["TensorrtExecutionProvider", "CUDAExecutionProvider"])


def test_a_provider_that_is_none(graph):
    with pytest.raises(SettingsError, match="choose one of cpu, cuda, tensorrt, openvino"):
        session(graph, 1, "gpu")


def test_a_library_that_is_left_out_without_a_word_is_told(graph, monkeypatch):
    """ONNX Runtime names a provider that it was built with, and computes without it where its library is missing."""
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(SettingsError, match="provider cuda: this ONNX Runtime cannot use it here"):
        session(graph, 1, "cuda")


def test_what_a_bundle_was_measured_with_is_what_it_runs_with(caplog):
    caplog.set_level(logging.WARNING)
    assert Runs().of("openvino", HERE) == "openvino"
    assert Runs("cpu", "refuse").of("cpu", HERE) == "cpu"
    assert caplog.messages == []
    assert Runs("openvino").of("cpu", HERE) == "openvino"
    assert "was held against its detector with provider cpu, and openvino is asked for" in caplog.text
    with pytest.raises(BundleError, match=r"export it with export\.provider openvino"):
        Runs("openvino", "refuse").of("cpu", HERE)


@pytest.mark.parametrize(
    ("asked", "measured", "available", "first", "said"),
    [
        (None, "cpu", ["CPUExecutionProvider"], "CPUExecutionProvider", ""),
        (None, "cuda", ["CUDAExecutionProvider"], "CUDAExecutionProvider", ""),
        (None, "openvino", ["CPUExecutionProvider"], "CPUExecutionProvider", "was measured with openvino"),
        ("cuda", "cpu", ["CUDAExecutionProvider"], "CUDAExecutionProvider", "cuda computes"),
    ],
)
def test_what_computes_in_the_runner_of_a_bundle(asked, measured, available, first, said, monkeypatch, capsys):
    monkeypatch.setattr(runner.onnxruntime, "get_available_providers", lambda: available)
    monkeypatch.setenv("LOUPE_PROVIDER", asked) if asked else monkeypatch.delenv("LOUPE_PROVIDER", raising=False)
    assert runner.providers(measured)[0] == first
    told = capsys.readouterr().err
    assert said in told if said else not told


@pytest.mark.parametrize("asked", ["cuda", "openvino", "gpu"])
def test_the_runner_refuses_what_it_cannot_use(asked, monkeypatch):
    monkeypatch.setattr(runner.onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setenv("LOUPE_PROVIDER", asked)
    with pytest.raises(SystemExit, match=f"LOUPE_PROVIDER {asked}: this ONNX Runtime cannot use it"):
        runner.providers("cpu")
