"""A frozen network is traced once, and written into each graph by its template with the weights of the model."""

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from components.backbones import frozen
from components.backbones.extractor import Backbone, BackboneSettings
from components.backbones.kinds import kind
from components.core import cache
from components.core.cache import graphs_folder
from components.core.runtime import session

SIDE = 64


class Sums(nn.Module):
    """Mean of each tap, so that something stands behind the network in the graph."""

    def __init__(self, *sizes):
        super().__init__()
        self.backbone = Backbone(BackboneSettings(taps=(1, 2), size=sizes[0]))
        self.others = nn.ModuleList(self.backbone.at(size) for size in sizes[1:])

    def forward(self, images):
        found = self.backbone(images)
        for other in self.others:
            found += other(nn.functional.interpolate(images, (other.settings.size, other.settings.size)))
        return torch.stack([tap.mean((1, 2, 3)) for tap in found], 1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LOUPE_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def templates():
    """By size, the graph of the network: tracing takes seconds, and it is the same in all tests."""
    return {}


@pytest.fixture
def traced(monkeypatch, templates):
    """The sizes of the networks that were traced."""
    sizes, trace = [], frozen._traced

    def counted(net, example):
        size = example.shape[-1]
        sizes.append(size)
        known = templates[size] if size in templates else templates.setdefault(size, trace(net, example))
        return copy.deepcopy(known)

    monkeypatch.setattr(frozen, "_traced", counted)
    return sizes


def exported(model, side=SIDE):
    with frozen.as_operators(model):
        program = torch.onnx.export(
            model,
            (torch.rand(2, 3, side, side),),
            dynamo=True,
            verbose=False,
            input_names=["image"],
            custom_translation_table=frozen.TRANSLATIONS,
        )
    return program.model_proto


@torch.inference_mode()
def agree(graph, model, side=SIDE):
    pictures = torch.rand(2, 3, side, side)
    (found,) = session(graph.SerializeToString()).run(None, {"image": pictures.numpy()})
    np.testing.assert_allclose(found, model(pictures).numpy(), rtol=1e-4, atol=1e-5)


def test_a_network_is_traced_once_and_answers_with_the_weights_of_the_model(traced):
    model = Sums(SIDE).eval()
    first = exported(model)
    agree(first, model)
    with torch.no_grad():
        for weight in model.backbone.parameters():
            weight *= 1.01
    second = exported(model)
    agree(second, model)
    assert traced == [SIDE]
    assert all(not node.domain for node in second.graph.node)
    (kept,) = graphs_folder().glob("network-*.onnx")
    assert kept.stat().st_size < 2e5, "the template holds no weights"


def test_each_input_size_has_a_template_of_its_own(traced):
    model = Sums(SIDE, 32, SIDE).eval()
    agree(exported(model), model)
    assert traced == [32, SIDE]


def test_within_the_network_still_answers_and_behind_it_all_is_as_it_was():
    model, pictures = Sums(SIDE).eval(), torch.rand(2, 3, SIDE, SIDE)
    before, parts = model(pictures), [id(part) for part in model.modules()]
    with frozen.as_operators(model):
        torch.testing.assert_close(model(pictures), before, rtol=1e-4, atol=1e-5)
        assert kind(model, 18, pictures) != kind(Sums(32), 18, pictures)
    with pytest.raises(ValueError, match="in vain"), frozen.as_operators(model):
        raise ValueError("in vain")
    assert [id(part) for part in model.modules()] == parts
    torch.testing.assert_close(model(pictures), before, rtol=0, atol=0)


def test_an_operator_says_its_shapes_and_changes_nothing_that_it_is_given():
    model = Sums(SIDE).eval()
    with torch.inference_mode(False), frozen.as_operators(model):
        net = model.backbone.net
        held = dict(net.net.named_parameters()) | dict(net.net.named_buffers())
        weights = [held[name].detach() for name in net.templates[SIDE].named]
        given = torch.rand(2, 3, SIDE, SIDE), weights, id(net), SIDE
        torch.library.opcheck(frozen.frozen_network, given, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("damage", [b"", b"no graph"])
def test_a_damaged_template_is_traced_anew(traced, damage):
    model = Sums(SIDE).eval()
    exported(model)
    (kept,) = graphs_folder().glob("network-*.onnx")
    kept.write_bytes(damage)
    agree(exported(model), model)
    assert traced == [SIDE, SIDE]
    assert kept.read_bytes() != damage


def test_the_newest_templates_stay(traced, monkeypatch):
    monkeypatch.setattr(cache, "GRAPHS", 2)
    for size in (32, 48, SIDE):
        exported(Sums(size).eval(), size)
    assert len(list(graphs_folder().glob("network-*.onnx"))) == 2
    exported(Sums(SIDE).eval())
    assert traced == [32, 48, SIDE]


def test_without_a_folder_to_keep_it_a_network_is_traced_each_time(traced):
    graphs_folder().write_text("in the way of the folder")
    model = Sums(SIDE).eval()
    agree(exported(model), model)
    agree(exported(model), model)
    assert traced == [SIDE, SIDE]


def test_a_network_with_branches_or_foreign_operators_is_traced_with_the_model(monkeypatch):
    end = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])]
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "branch", [], end)
    choice = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    foreign = helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft")
    for node in (choice, foreign):
        assert frozen.Template.of(helper.make_graph([node], "g", [], end), set()) is None
    monkeypatch.setattr(frozen, "_templates", lambda *_: {})
    model = Sums(SIDE).eval()
    agree(exported(model), model)


def test_a_template_whose_outputs_have_no_fixed_shape_is_none():
    loose = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, "height", 4])]
    graph: onnx.GraphProto = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [], loose)
    assert frozen.Template.of(graph, set()) is None
