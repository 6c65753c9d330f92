"""The backbone of a graph in 8-bit integers, where that is faster and as accurate (docs/adr/0052).

Statically quantised: unsigned, weights per channel, ranges from good pictures of the fit side. With signed weights a
processor without VNNI (AVX2 alone) adds two products in 16 bits, which overflow: scores would be others there, and a
bundle is made on one machine and run on another.
What scores (banks, flows, distances) stays float: in integers it is slower and ranks pictures otherwise.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from components.core.progress import progress
from components.core.runtime import session
from components.decision.bundle import run_of
from components.decision.seeing import seen, tensor
from components.export.settings import Int8Settings
from components.pictures.decoding import Decoding
from components.pictures.kept import decode
from components.pictures.tiles import pieces
from components.training.select import against

BACKBONE = "backbone."  # in the name of a frozen network's weights in the graph
HEAVY = ("Conv", "Gemm", "MatMul")
BEHIND = ("Clip", "Relu")  # part of the convolution before it, once quantised
ROUNDS = 9  # of both graphs in turns


class Seen(NamedTuple):
    """Scores (N,) of pictures by one graph, and their maps, (1, 1, H, W) each."""

    scores: np.ndarray
    maps: list[np.ndarray]


class Material(NamedTuple):
    """Image files: *learned* give the ranges, *good* (calibrate normals) and *made* (anomalies on them) judge."""

    learned: Sequence[Path]
    good: Sequence[Path]
    made: Sequence[Path]
    rules: Decoding


def quantisable(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that are of a frozen network: those with its weights, what lies between them, and what is
    clipped right behind."""
    heavy = {i for i, node in enumerate(graph.node) if _of_backbone(node)}
    users: dict[str, list[int]] = {}
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output}
    for i, node in enumerate(graph.node):
        for name in node.input:
            users.setdefault(name, []).append(i)
    below = _reached(heavy, lambda i: [user for name in graph.node[i].output for user in users.get(name, [])])
    above = _reached(heavy, lambda i: [makers[name] for name in graph.node[i].input if name in makers])
    inside = heavy | (below & above)
    behind = {
        user
        for i in inside
        for name in graph.node[i].output
        for user in users.get(name, [])
        if graph.node[user].op_type in BEHIND
    }
    return [graph.node[i].name for i in sorted(inside | behind)]


def _of_backbone(node: onnx.NodeProto) -> bool:
    return node.op_type in HEAVY and any(BACKBONE in name for name in node.input)


def _reached(starts: set[int], step: Callable[[int], list[int]]) -> set[int]:
    """All nodes that are reached from *starts* by at least one step."""
    found: set[int] = set()
    waiting = [other for start in starts for other in step(start)]
    while waiting:
        if (node := waiting.pop()) not in found:
            found.add(node)
            waiting += step(node)
    return found


def quantise(graph: Path, out: Path, given: Material) -> int:
    """Write the quantised graph to *out*; how many nodes of it are in integers, 0: there is no frozen network."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = out.with_suffix(".prepared.onnx")
    quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
    model = onnx.load(prepared)
    _name(model, prepared)
    if names := quantisable(model.graph):
        quantize_static(
            str(prepared),
            str(out),
            _Reader(given),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QUInt8,
            nodes_to_quantize=names,
        )
        _restated(graph, out)
    prepared.unlink(missing_ok=True)
    return len(names)


def _name(model: onnx.ModelProto, path: Path) -> None:
    """Every node needs a name to be chosen by."""
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"
    onnx.save(model, path)


def _restated(graph: Path, out: Path) -> None:
    """Give *out* the metadata of *graph*, in its order, so that the same inputs give the same bytes."""
    model, known = onnx.load(out), onnx.load(graph, load_external_data=False)
    del model.metadata_props[:]
    model.metadata_props.extend(known.metadata_props)
    onnx.save(model, out)


class _Reader:
    """What ``quantize_static`` asks for the pictures that give the ranges."""

    def __init__(self, given: Material) -> None:
        self.squares = _squares(given)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(({"image": square} for square in self.squares), None)


def _squares(given: Material) -> Iterator[np.ndarray]:
    for path in progress(given.learned, "ranges for int8"):
        for square in pieces(decode(path, rules=given.rules), given.rules.tiles, given.rules.roi):
            yield tensor(square)[None]


def scored(graph: Path, paths: Sequence[Path], rules: Decoding, what: str, provider: str = "cpu") -> Seen:
    """What a graph says of image files."""
    run = run_of(session(graph, provider=provider))
    found = [seen(run, [decode(path, rules=rules)], rules) for path in progress(paths, what)]
    return Seen(np.concatenate([score for score, *_ in found]).astype(np.float64), [heat for _, heat, _ in found])


def compared(graph: Path, other: Path, given: Material) -> tuple[dict[str, float], Seen]:
    """What *other* (int8) loses against *graph*, and how much sooner it answers; what it says of the good pictures."""
    good = [scored(one, given.good, given.rules, what) for one, what in ((graph, "float"), (other, "int8"))]
    made = [scored(one, given.made, given.rules, what) for one, what in ((graph, "float"), (other, "int8"))]
    before, after = (against(g.scores, m.scores) for g, m in zip(good, made, strict=True))
    found = {
        "rank_correlation": ranks_alike(good[0].scores, good[1].scores),
        "synthetic_auroc_float": before,
        "synthetic_auroc": after,
        "times_faster": times_faster(graph, other, given),
    }
    return found, good[1]


def ranks_alike(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Spearman's correlation; 1 where all of one side are alike, as nothing is ranked there."""
    from scipy.stats import spearmanr

    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return 1.0
    return float(spearmanr(ours, theirs).statistic)


def times_faster(graph: Path, other: Path, given: Material) -> float:
    """The median ratio of the processor's seconds for one picture on one thread, both in turns."""
    pictures = [decode(given.good[0], rules=given.rules)]
    sides = [run_of(session(one, 1)) for one in (graph, other)]
    rounds = []
    for number in range(1 + ROUNDS):
        spent = [0.0, 0.0]
        for side in (0, 1) if number % 2 else (1, 0):
            started = time.process_time()
            seen(sides[side], pictures, given.rules)
            spent[side] = time.process_time() - started
        rounds.append(spent[0] / max(spent[1], 1e-9))
    return float(np.median(rounds[1:]))  # the first one allocates


def refused(found: dict[str, float], settings: Int8Settings) -> str | None:
    """Why int8 is not taken; None where it is."""
    lost = found["synthetic_auroc_float"] - found["synthetic_auroc"]
    if found["rank_correlation"] < settings.correlation:
        return f"good pictures are ranked otherwise: correlation {found['rank_correlation']:.4f}"
    if lost > settings.loss:
        return f"synthetic anomalies are told apart worse: AUROC lower by {lost:.4f}"
    if (worst := max(found["score_error"], found["map_error"])) > settings.tolerance:
        return f"differs from the detector by {worst:.3f} of the span"
    if found["times_faster"] < settings.faster:
        return f"only {found['times_faster']:.2f} times as fast"
    return None
