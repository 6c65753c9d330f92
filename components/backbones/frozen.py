"""A frozen network as one operator of the graph that it is part of: traced once, not again with each model.

While a graph is made each frozen network is an operator without an inside. How it is written in ONNX is its *template*,
traced by itself and kept in the cache folder without weights; these come from the model at hand, by their names
(docs/adr/0061).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import onnx
import torch
from onnx import helper
from onnxscript import opset18
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from components.backbones.extractor import Backbone
from components.backbones.kinds import kind, tensors
from components.core.artefacts import aside
from components.core.cache import graphs_folder, superseded
from components.core.system import replace

log = logging.getLogger("loupe")
IMAGE, NAME = "image", "network-"


@dataclass(frozen=True)
class Template:
    """How a network is written: its graph, which tensors of it are the *named* ones of the network, and the shapes of
    its outputs but for the batch."""

    graph: onnx.GraphProto
    named: list[str]
    shapes: list[list[int]]

    @classmethod
    def of(cls, graph: onnx.GraphProto, known: set[str]) -> "Template | None":
        """None where *graph* holds what cannot be written into another one: branches, loops, foreign operators."""
        plain = all(
            not node.domain and not any(one.HasField("g") or one.graphs for one in node.attribute)
            for node in graph.node
        )
        shapes = [[d.dim_value for d in out.type.tensor_type.shape.dim][1:] for out in graph.output]
        named = [one.name for one in graph.initializer if one.name in known]
        return cls(graph, named, shapes) if plain and all(map(all, shapes)) else None


class Network(nn.Module):
    """*net* as an operator where it is exported at an input size of *templates*, and as it is elsewhere."""

    def __init__(self, net: nn.Module, templates: dict[int, Template]) -> None:
        super().__init__()
        self.net, self.templates = net, templates
        NETWORKS[id(self)] = self

    def forward(self, images: Tensor) -> list[Tensor]:
        template = self.templates.get(images.shape[-1])
        if template is None or not torch.compiler.is_exporting():
            return list(self.net(images))
        held = tensors(self.net)
        return frozen_network(images, [held[name] for name in template.named], id(self), images.shape[-1])


NETWORKS: WeakValueDictionary[int, Network] = WeakValueDictionary()


@torch.library.custom_op("loupe::frozen_network", mutates_args=())
def frozen_network(images: Tensor, weights: list[Tensor], network: int, side: int) -> list[Tensor]:  # noqa: ARG001
    """The maps of a ``Network``, by its number, of images (B, 3, side, side)."""
    return [found.contiguous() for found in NETWORKS[network].net(images)]  # as the exporter takes them to be


@frozen_network.register_fake
def _(images: Tensor, weights: list[Tensor], network: int, side: int) -> list[Tensor]:  # noqa: ARG001
    return [images.new_empty((images.shape[0], *shape)) for shape in NETWORKS[network].templates[side].shapes]


def _written(images: Any, weights: Sequence[Any], network: int, side: int) -> tuple[Any, ...]:
    """``frozen_network`` in the operators of its template."""
    template = NETWORKS[network].templates[side]
    values = {IMAGE: images, **dict(zip(template.named, weights, strict=True))}
    values |= {one.name: opset18.Constant(value=one) for one in template.graph.initializer if one.name not in values}
    for node in template.graph.node:
        given = {one.name: _attribute(one) for one in node.attribute}
        found = getattr(opset18, node.op_type)(*[values[name] if name else None for name in node.input], **given)
        values |= zip(node.output, found if isinstance(found, Sequence) else [found], strict=False)
    return tuple(values[out.name] for out in template.graph.output)


def _attribute(one: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(one)
    return value.decode() if isinstance(value, bytes) else value


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {torch.ops.loupe.frozen_network.default: _written}


@contextmanager
def as_operators(model: nn.Module) -> Iterator[None]:
    """Within, the networks of the backbones in *model* are operators, their norms folded; *model* in eval mode."""
    with norms_folded(model):
        backbones = [part for part in model.modules() if isinstance(part, Backbone)]
        before = [(part, part.net) for part in backbones]
        made: dict[int, Network] = {}
        for _, net in before:
            sizes = {part.settings.size for part, its in before if its is net}
            made[id(net)] = made.get(id(net)) or Network(net, _templates(net, sizes))
        try:
            for part, net in before:
                part.net = made[id(net)]
            yield
        finally:
            for part, net in before:
                part.net = net


def _templates(net: nn.Module, sizes: set[int]) -> dict[int, Template]:
    """By input size, those that are kept or can be made."""
    found = {size: _template(net, size) for size in sorted(sizes)}
    return {size: template for size, template in found.items() if template}


def _template(net: nn.Module, size: int) -> Template | None:
    held, example = tensors(net), torch.rand(2, 3, size, size)
    place = graphs_folder() / f"{NAME}{kind(net, opset18.version, example)}.onnx"
    graph = _kept(place)
    if graph is None:
        graph = _traced(net, example)
        for one in graph.graph.initializer:
            if one.name in held:
                one.raw_data = b""
        _keep(graph, place)
    return Template.of(graph.graph, set(held))


def _kept(place: Path) -> onnx.ModelProto | None:
    try:
        graph = onnx.load(place)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged cache is no reason to fail, whatever its reader says
        log.debug("%s: %s", place, error)
        return None
    return graph if graph.graph.output else None


def _traced(net: nn.Module, example: Tensor) -> onnx.ModelProto:
    """The graph of *net* by torch's exporter, for any batch of square images."""
    program = torch.onnx.export(
        net,
        (example,),
        dynamo=True,
        opset_version=opset18.version,
        optimize=False,
        external_data=False,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=256)},),
        input_names=[IMAGE],
    )
    graph: onnx.ModelProto = program.model_proto  # type: ignore[union-attr]
    return graph


def _keep(graph: onnx.ModelProto, place: Path) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with aside(place) as scratch:
            onnx.save(graph, str(scratch))
            replace(scratch, place)
        for old in superseded(place.parent.glob(f"{NAME}*")):
            old.unlink(missing_ok=True)
    except OSError as error:
        log.debug("graphs are not kept: %s", error)


@contextmanager
def norms_folded(model: nn.Module) -> Iterator[None]:
    """Within, the convolutions of EfficientNet's blocks in *model* hold the norms behind them.

    The exporter folds them as well, but has traced and matched them first, a quarter of its time.
    """
    found = [(block, *pair) for block in model.modules() for pair in _pairs(block)]
    before = [(block, name, getattr(block, name)) for block, *names in found for name in names]
    try:
        for block, conv, norm in found:
            after = getattr(block, norm)
            setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), after))
            setattr(block, norm, nn.Sequential(after.drop, after.act))
        yield
    finally:
        for block, name, kept in before:
            setattr(block, name, kept)


def _pairs(block: nn.Module) -> list[tuple[str, str]]:
    """Names of the convolutions of *block* and of the norm that each feeds: in these blocks the next one defined."""
    if block.training or not type(block).__module__.startswith("timm."):
        return []
    from timm.layers import BatchNormAct2d
    from timm.models._efficientnet_blocks import ConvBnAct, DepthwiseSeparableConv, InvertedResidual

    if not isinstance(block, (ConvBnAct, DepthwiseSeparableConv, InvertedResidual)):
        return []
    parts = [(name, part) for name, part in block.named_children() if isinstance(part, (nn.Conv2d, BatchNormAct2d))]
    return [
        (conv, norm)
        for (conv, one), (norm, other) in pairwise(parts)
        if isinstance(one, nn.Conv2d) and isinstance(other, BatchNormAct2d)
    ]
