"""ONNX Script's optimiser, as graphs go through it."""

from types import SimpleNamespace

from onnxscript.rewriter.rules.common import slice_split_rule

from components.export.graph import slices_alone


def test_the_rule_of_two_slices_is_asked_of_slices_alone(monkeypatch):
    """It lists the whole graph at each question: of three thousand nodes, most of the optimiser's time."""
    asked = []
    monkeypatch.setattr(slice_split_rule, "match", lambda _, __, node, **more: asked.append(node.op_type) or more)
    before = slice_split_rule.match
    nodes = [SimpleNamespace(op_type=name) for name in ("Conv", "Slice", "Relu")]
    with slices_alone():
        found = [slice_split_rule.match(None, None, node, verbose=1) for node in nodes]
    assert asked == ["Slice"]
    assert found == [None, {"verbose": 1}, None]
    assert slice_split_rule.match is before
