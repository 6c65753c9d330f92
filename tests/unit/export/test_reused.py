"""A graph taken for other weights: what two exports teach, and all that must not be taken."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from components.backbones import kinds
from components.core import cache
from components.core.cache import graphs_folder
from components.export import reused
from components.export.embedding import Described
from components.export.graph import write_graph
from components.pictures.decoding import Decoding
from components.training.descriptors import descriptors_of
from components.training.model import load_model
from tests.given import parted_tiles, trained_tiny

EXAMPLE = torch.rand(2, 4)


def described(model) -> Described:
    detector = load_model(model)
    return Described(detector, descriptors_of(model, detector, [], Decoding())).eval()


class Linear(nn.Module):
    """x @ weight + steady, by a *scale* that no tensor of the state holds."""

    def __init__(self, seed, steady=0.0, scale=1.0, rows=3):
        super().__init__()
        drawn = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(4, rows, generator=drawn))
        self.register_buffer("steady", torch.full((rows,), steady))
        self.scale = scale

    def forward(self, x):
        return (self.scale * (x @ self.weight) + self.steady,)


def graph(**constants) -> onnx.ModelProto:
    """x @ weight + steady, with these values."""
    held = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()]
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"]), helper.make_node("Add", ["y", "steady"], ["z"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "k"]) for name in ("x", "z")]
    made = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


class Exporter:
    """Writes the graph of a model and counts how often it is asked; *bake* makes of a model what else is in it."""

    def __init__(self, bake=lambda _: {}):
        self.calls, self.bake = 0, bake

    def __call__(self, model):
        def export():
            self.calls += 1
            held = {name: value.detach().numpy() for name, value in model.state_dict().items()}
            return graph(**held | self.bake(model))

        return reused.reused(model.eval(), 20, EXAMPLE, export)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LOUPE_CACHE", str(tmp_path / "cache"))


def values(found):
    return {one.name: numpy_helper.to_array(one) for one in found.graph.initializer}


def test_the_third_model_of_a_kind_is_filled_in_and_has_the_bytes_of_an_export():
    export = Exporter()
    export(Linear(0))
    export(Linear(1))
    third = Linear(2)
    found = export(third)
    assert export.calls == 2
    np.testing.assert_array_equal(values(found)["weight"], third.weight.detach())
    assert found.SerializeToString() == graph(weight=third.weight.detach(), steady=np.zeros(3)).SerializeToString()


def test_what_is_kept_holds_no_tensor_of_a_model():
    """The frozen network would else lie in the cache once for each kind."""
    Exporter()(Linear(0, steady=7.0))
    (kept,) = graphs_folder().glob(f"*/{reused.GRAPH}")
    assert {one.name: one.raw_data for one in onnx.load(kept).graph.initializer} == {"weight": b"", "steady": b""}


def test_a_value_that_is_computed_from_the_weights_is_exported_each_time():
    export = Exporter(lambda model: {"steady": np.full(3, model.weight.sum().item())})
    for seed in range(4):
        found = export(Linear(seed))
        assert values(found)["steady"][0] == pytest.approx(Linear(seed).weight.sum().item())
    assert export.calls == 4


def test_a_tensor_that_was_equal_in_both_has_to_be_equal_in_the_third():
    """Something may have been computed from it, which two equal ones cannot tell."""
    export = Exporter(lambda model: {"half": model.steady.numpy() / 2})
    export(Linear(0, steady=1.0))
    export(Linear(1, steady=1.0))
    export(Linear(2, steady=1.0))
    assert export.calls == 2
    for calls in (3, 4):  # and stays so: the constant says that it is computed from it
        assert values(export(Linear(3, steady=5.0)))["half"][0] == 2.5
        assert export.calls == calls
    export(Linear(4, steady=1.0))
    assert export.calls == 4, "with the value of before the graph stays ready"


def test_a_tensor_that_the_graph_does_not_depend_on_is_learned_from_a_third_export():
    export = Exporter()
    for seed, steady in enumerate((1.0, 1.0, 2.0, 3.0)):
        assert values(export(Linear(seed, steady=steady)))["steady"][0] == steady
    assert export.calls == 3


def test_a_graph_that_does_not_answer_as_the_model_is_not_taken():
    """A way through the model that the first two did not go."""

    class Branching(Linear):
        def forward(self, x):
            (answer,) = super().forward(x)
            return (answer if self.weight[0, 0] < 9 else answer + 1,)

    export = Exporter()
    export(Branching(0))
    export(Branching(1))
    third = Branching(2)
    with torch.no_grad():
        third.weight[0, 0] = 10.0
    export(third)
    assert export.calls == 3


@pytest.mark.parametrize(
    "other", [Linear(2, scale=2.0), Linear(2, rows=5), nn.Sequential(Linear(2))], ids=["value", "shape", "module"]
)
def test_models_of_another_kind(other):
    assert reused.kind(other, 20, EXAMPLE) != reused.kind(Linear(0), 20, EXAMPLE)
    assert reused.kind(Linear(1), 20, EXAMPLE) == reused.kind(Linear(0), 20, EXAMPLE)


def test_another_program_or_opset_is_another_kind(monkeypatch):
    before = reused.kind(Linear(0), 20, EXAMPLE)
    assert reused.kind(Linear(0), 21, EXAMPLE) != before
    for name in ("code_hash", "version"):  # of Loupe; of each library whose code is in the way
        with monkeypatch.context() as patch:
            patch.setattr(kinds, name, lambda *_: "another")
            assert reused.kind(Linear(0), 20, EXAMPLE) != before


@pytest.mark.parametrize("damage", ["{", '{"status": "ready"}', "[]", '{"status": "once", "more": 1}'])
def test_a_damaged_record_is_learned_anew(damage):
    export = Exporter()
    export(Linear(0))
    (known,) = graphs_folder().glob(f"*/{reused.KNOWN}")
    known.write_text(damage)
    for seed in (1, 2, 3):
        export(Linear(seed))
    assert export.calls == 3
    assert json.loads(known.read_text())["status"] == reused.READY


@pytest.mark.parametrize("damage", [b"", b"\x00", b"no graph", onnx.ModelProto().SerializeToString()])
def test_a_damaged_graph_is_not_taken(damage):
    export = Exporter()
    for seed in (0, 1):
        export(Linear(seed))
    (kept,) = graphs_folder().glob(f"*/{reused.GRAPH}")
    kept.write_bytes(damage)
    third = Linear(2)
    np.testing.assert_array_equal(values(export(third))["weight"], third.weight.detach())
    assert export.calls == 3


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "cache").write_text("a file, where the folder should be")
    export = Exporter()
    for seed in range(3):
        export(Linear(seed))
    assert export.calls == 3


def test_of_many_kinds_the_newest_stay(monkeypatch):
    monkeypatch.setattr(cache, "GRAPHS", 2)
    for rows in (1, 2, 3, 4):
        Exporter()(Linear(0, rows=rows))
    kept = {path.parent.name for path in graphs_folder().glob(f"*/{reused.KNOWN}")}
    assert len(kept) == 2
    assert reused.kind(Linear(0, rows=4), 20, EXAMPLE) in kept


@pytest.mark.slow
def test_a_detector_is_exported_twice_and_then_filled_in(tmp_path, monkeypatch):
    """PatchCore's graph holds its bank, and folds what is computed from it."""
    data = tmp_path / "data"
    data.mkdir()
    parted_tiles(data, 12, 6)
    models = [described(trained_tiny(data, tmp_path / str(seed), "patchcore", (), seed)) for seed in range(3)]
    asked = []
    exporter = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *a, **k: asked.append(a) or exporter(*a, **k))
    for number, model in enumerate(models):
        write_graph(model, tmp_path / f"{number}.onnx", 20, {"of": "the test"})
    assert [isinstance(model, Described) for (model, *_) in asked] == [True, True], "the network is traced by now"
    shutil.rmtree(graphs_folder())
    write_graph(models[2], tmp_path / "anew.onnx", 20, {"of": "the test"})
    assert [isinstance(model, Described) for (model, *_) in asked[2:]] == [False, True]
    assert (tmp_path / "anew.onnx").read_bytes() == (tmp_path / "2.onnx").read_bytes()
