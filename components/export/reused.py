"""A graph that was exported before, filled with other weights: torch's exporter takes seconds for each model.

What differs between two models of one kind is learned from two exports and never assumed. The first leaves its graph
without the tensors that are those of the model, the second is held against it. Where both agree in all else the graph
is *ready*: the next model of this kind is filled in. Where they do not it *differs*, and is exported each time. A
tensor that was equal in both models has to be equal in the third too, as something may have been computed from it
(docs/adr/0059).
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from components.backbones.kinds import digest, kind, tensors
from components.core.artefacts import atomic_dir, locked, write_json
from components.core.cache import graphs_folder, superseded
from components.core.errors import LoupeError
from components.core.runtime import session

log = logging.getLogger("loupe")
GRAPH, KNOWN = "graph.onnx", "known.json"
ONCE, READY, DIFFERS = "once", "ready", "differs"
NEAR = 1e-3  # of the span of an output, between the filled graph and the model on a drawn picture
Arrays = Mapping[str, np.ndarray]


def reused(model: nn.Module, opset: int, example: Tensor, export: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
    """The graph of *model*, eval mode: one of its kind filled in, or what *export* gives, which is learned from.

    A cache that cannot be used is done without.
    """
    state = {name: value.detach().cpu().numpy() for name, value in tensors(model).items()}
    place = graphs_folder() / kind(model, opset, example)
    if (known := _filled(place, state)) is not None and agrees(known, model, example):
        return known
    graph = export()
    try:
        with locked(place.with_suffix(".lock")):
            _learn(place, graph, state)
    except (OSError, LoupeError) as error:
        log.debug("graphs are not kept: %s", error)
    return graph


def agrees(graph: onnx.ModelProto, model: nn.Module, example: Tensor) -> bool:
    """Whether *graph* answers as *model* does on *example*; one that is damaged does not."""
    with torch.inference_mode():
        asked = [value.numpy() for value in model(example)]
    try:
        found = session(graph.SerializeToString()).run(None, {graph.graph.input[0].name: example.numpy()})
    except Exception as error:  # of many kinds, by the runtime and by what is damaged
        log.debug("a graph in the cache cannot be run: %s", error)
        return False
    return len(found) == len(asked) and all(
        np.abs(one - other).max() <= NEAR * max(float(np.ptp(other)), float(np.abs(other).max()), 1e-6)
        for one, other in zip(found, asked, strict=True)
    )


@dataclass(frozen=True)
class Known:
    """What was learned of a graph: *named* initialisers are tensors of the model; *digests* are those of the tensors of
    the first model, later of those that must not change."""

    status: str
    named: list[str]
    digests: dict[str, str]


def _read(place: Path) -> tuple[Known, onnx.ModelProto] | None:
    """What is known of the graph in *place*; None where there is nothing, or nothing that can be read."""
    try:
        return Known(**json.loads((place / KNOWN).read_text())), onnx.load(place / GRAPH)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged cache is no reason to fail, whatever its reader says
        log.debug("%s: %s", place, error)
        return None


def _write(place: Path, known: Known, graph: onnx.ModelProto) -> None:
    with atomic_dir(place) as scratch:
        onnx.save(graph, str(scratch / GRAPH))
        write_json(scratch / KNOWN, vars(known))


def _filled(place: Path, state: Arrays) -> onnx.ModelProto | None:
    """The graph of *place* with the tensors of *state*; None where it is not ready for them."""
    found = _read(place)
    if found is None or found[0].status != READY:
        return None
    known, graph = found
    if any(digest(state[name]) != before for name, before in known.digests.items()):
        return None
    for one in graph.graph.initializer:
        if one.name in known.named:
            one.raw_data = state[one.name].tobytes()
    return graph


def _learn(place: Path, graph: onnx.ModelProto, state: Arrays) -> None:
    """Keep the first *graph* of a kind, or hold a later one against it; of many kinds the newest stay."""
    before = _read(place)
    if before is None:
        _write(place, *_first(graph, state))
        for old in superseded(place.parent.glob(f"*/{KNOWN}")):
            shutil.rmtree(old.parent, ignore_errors=True)
    elif before[0].status != DIFFERS:
        now = _second(*before, graph, state)
        # One that was exported though a graph was ready: with a tensor that had been equal so far.
        if now.status == READY or before[0].status == ONCE:
            _write(place, now, before[1])


def _first(graph: onnx.ModelProto, state: Arrays) -> tuple[Known, onnx.ModelProto]:
    """What a first export says, and its graph without the tensors of the model."""
    bare, named = onnx.ModelProto(), []
    bare.CopyFrom(graph)
    for one in bare.graph.initializer:
        if one.raw_data and one.name in state and one.raw_data == state[one.name].tobytes():
            named.append(one.name)
            one.raw_data = b""
    return Known(ONCE, named, {name: digest(value) for name, value in state.items()}), bare


def _second(known: Known, first: onnx.ModelProto, graph: onnx.ModelProto, state: Arrays) -> Known:
    """What both exports say together."""
    ours, bare = _first(graph, state)
    if ours.named != known.named or bare != first:
        return Known(DIFFERS, [], {})
    return Known(READY, known.named, dict(known.digests.items() & ours.digests.items()))
