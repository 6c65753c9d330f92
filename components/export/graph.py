"""The ONNX graph of a detector: any batch, any image size, resize and normalise inside, metadata inside."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxscript import optimizer
from onnxscript.rewriter.rules.common import slice_split_rule

from components.backbones.frozen import as_operators
from components.detectors.contract import Counting
from components.export.embedding import Described
from components.export.operators import TRANSLATIONS
from components.export.reused import reused


def write_graph(model: Described, path: Path, opset: int, metadata: dict[str, str]) -> None:
    """Input ``image`` (B, 3, H, W) in [0, 1], of clips (B, T, 3, H, W) with a fixed T; outputs ``score`` (B,), ``map``
    (B, 1, H, W), ``embedding`` (B, 16)."""
    frames = [model.detector.frames] if model.detector.frames > 1 else []
    example = torch.rand(2, *frames, 3, 300, 403)
    for part in model.modules():
        if isinstance(part, Counting):
            part.read()
    with as_operators(model):
        graph = reused(model, opset, example, lambda: exported(model, opset, example))
    with slices_alone():
        graph = optimizer.optimize(graph)  # of the whole graph, as weights are folded into others
    _strip(graph)
    say(graph, metadata)
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


def exported(model: Described, opset: int, example: torch.Tensor) -> onnx.ModelProto:
    """The graph of *model* by torch's exporter, *example* (2, [T,] 3, H, W), with all its tensors as they are."""
    sizes = {
        name: torch.export.Dim(name, min=1 if name == "batch" else 16, max=limit) for name, limit in LIMITS.items()
    }
    at = example.ndim - 2  # of the height
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        opset_version=opset,
        verbose=False,
        optimize=False,
        external_data=False,
        dynamic_shapes=({0: sizes["batch"], at: sizes["height"], at + 1: sizes["width"]},),
        input_names=["image"],
        output_names=["score", "map", "embedding"],
        custom_translation_table=TRANSLATIONS,
    )
    graph: onnx.ModelProto = program.model_proto  # type: ignore[union-attr]
    _strip(graph)
    return graph


@contextmanager
def slices_alone() -> Iterator[None]:
    """Within, ONNX Script's rule for two slices is asked of slices alone.

    It lists the whole graph for each node that it is asked of, which takes the square of the nodes.
    """
    match = slice_split_rule.match

    def quick(model: Any, graph: Any, node: Any, **more: Any) -> Any:
        return match(model, graph, node, **more) if node.op_type == "Slice" else None

    slice_split_rule.match = quick  # type: ignore[method-assign]
    try:
        yield
    finally:
        slice_split_rule.match = match  # type: ignore[method-assign]


LIMITS = {"batch": 256, "height": 32768, "width": 32768}


def say(graph: onnx.ModelProto, metadata: dict[str, str]) -> None:
    """Make *metadata* all that *graph* says of itself."""
    del graph.metadata_props[:]
    for key, value in sorted(metadata.items()):
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value


def _strip(model: onnx.ModelProto) -> None:
    """Drop notes of the exporter: they hold paths of this machine and change the bytes from run to run."""
    del model.metadata_props[:]
    for graph in (model.graph, *model.functions):
        del graph.metadata_props[:]
        graph.doc_string = ""
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
