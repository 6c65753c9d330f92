"""The frozen backbone through ONNX Runtime on CPU, where it is several times faster than torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from components.backbones.extractor import Backbone
from components.core.artefacts import aside, locked
from components.core.runtime import session
from components.core.system import replace


class FastBackbone:
    """Callable like the Backbone it wraps, for pixels already at its size; the graph is cached as a file.

    Of several processes that need it at once, one makes it and the others wait.
    """

    def __init__(self, backbone: Backbone, cache: Path, threads: int | None = None) -> None:
        path = graph_of(cache, backbone.key())
        if not path.exists():
            with locked(path.with_suffix(".lock")):
                if not path.exists():
                    _export(backbone, path)
        self.session = session(path, threads)

    def __call__(self, images: Tensor) -> list[np.ndarray]:
        return self.session.run(None, {"image": images.numpy()})


@contextmanager
def through_graphs(module: nn.Module, cache: Path | None) -> Iterator[None]:
    """Within, the frozen backbones of *module* whose graphs *cache* holds are run by these; nothing learns meanwhile.

    One with other weights than its name has today is left alone: the graph is that of the name. On a GPU, and without a
    cache, all is as it was.
    """
    known = _with_graphs(module, cache) if cache and not torch.cuda.is_available() else {}
    for part, graph in known.items():
        part.graph = _answers(graph)
    try:
        yield
    finally:
        for part in known:
            part.graph = None


def _with_graphs(module: nn.Module, cache: Path) -> dict[Backbone, FastBackbone]:
    found = (part for part in backbones(module) if graph_of(cache, part.key()).exists() and part.is_todays())
    return {part: FastBackbone(part, cache) for part in found}


def backbones(module: nn.Module) -> Iterator[Backbone]:
    """The frozen networks of *module*, also those that its parts share and that are no submodules of them."""
    for part in module.modules():
        yield from (one for one in (part, *vars(part).values()) if isinstance(one, Backbone))


def _answers(graph: FastBackbone) -> Callable[[Tensor], list[Tensor]]:
    return lambda images: [torch.from_numpy(tap) for tap in graph(images.contiguous())]


def graph_of(cache: Path, key: str) -> Path:
    """Where the graph of a backbone lies, once it is made."""
    return cache / f"backbone-{key[:16]}.onnx"


def _export(backbone: Backbone, path: Path) -> None:
    from components.backbones.frozen import TRANSLATIONS, as_operators  # with the exporter, which only this needs

    example = torch.rand(2, 3, backbone.settings.size, backbone.settings.size)
    batch = torch.export.Dim("batch", min=1, max=256)
    with as_operators(backbone):
        program = torch.onnx.export(
            backbone,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: batch},),
            input_names=["image"],
            external_data=False,
            verbose=False,
            custom_translation_table=TRANSLATIONS,
        )
    with aside(path) as scratch:
        program.save(scratch)  # type: ignore[union-attr]
        replace(scratch, path)
