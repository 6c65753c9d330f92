"""A timm network, frozen, cut behind the last tap, with normalising in front."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from components.backbones.networks import is_transformer, network
from components.backbones.settings import BackboneSettings
from components.backbones.weights import entry, load_into
from components.core.artefacts import values_hash
from components.core.errors import WeightsError

Known = dict[tuple[int, int, int], tuple[Tensor, list[Tensor]]]
KNOWN: ContextVar[Known | None] = ContextVar("known", default=None)


@contextmanager
def computing_once() -> Iterator[None]:
    """Within, a network that is asked for the features of the same tensor and size again answers from memory."""
    token = KNOWN.set({})
    try:
        yield
    finally:
        KNOWN.reset(token)


class Backbone(nn.Module):
    """Frozen features: images (B, 3, size, size) in [0, 1] -> one (B, C, h, w) per tap; BatchNorm is never updated.

    Images of another size are refused: who resizes twice sees other pixels than who resizes once.

    *pretrained* is False when a saved detector is loaded: its weights come with the detector then.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: BackboneSettings, pretrained: bool = True) -> None:
        super().__init__()
        self.settings, self.todays = settings, pretrained  # with the weights that the name has here today
        item = entry(settings.name) if pretrained else {"mean": [0.0] * 3, "std": [1.0] * 3}
        self.net = network(settings.name, features_only=True, out_indices=settings.taps)
        transformer = is_transformer(self.net)
        full: Any = network(settings.name) if pretrained or transformer else None
        if pretrained:
            load_into(full, settings.name)
            self._copy_weights(full.state_dict())
        # A transformer's blocks leave their tokens unnormalised; its own final norm, frozen, belongs to its features.
        self.norm: nn.Module = full.norm if transformer else nn.Identity()
        self.register_buffer("mean", torch.tensor(item["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(item["std"]).view(1, 3, 1, 1))
        taps: Any = self.net.feature_info
        self.channels = tuple(taps.channels())
        self.reductions = tuple(taps.reduction())
        self.picks = tuple(range(len(self.channels)))  # of what the network puts out
        self.graph: Callable[[Tensor], list[Tensor]] | None = None  # that runs in place of it: ``through_graphs``
        for part in self.net.modules():
            if getattr(part, "inplace", False):
                # The same values, and an export to ONNX takes two thirds of the time.
                part.inplace = False  # type: ignore[assignment]
        # Channels last is faster on CPU and GPU alike.
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False)
        self.eval()

    def _copy_weights(self, full: dict[str, Tensor]) -> None:
        target: Any = self.net.model if is_transformer(self.net) else self.net
        wanted = target.state_dict()
        target.load_state_dict({key: value for key, value in full.items() if key in wanted})

    def train(self, mode: bool = True) -> "Backbone":  # noqa: ARG002  (a parent's .train() must not reach BatchNorm)
        return super().train(False)

    @property
    def grids(self) -> tuple[int, ...]:
        """Side of every tap's map."""
        return tuple(self.settings.size // r for r in self.reductions)

    def at(self, size: int) -> "Backbone":
        """The same network and weights at another input size."""
        other = copy.copy(self)  # shares parameters and buffers
        other.settings = replace(self.settings, size=size)
        other.graph = None  # which is of this size and these taps
        return other

    def part(self, taps: tuple[int, ...], size: int) -> "Backbone":
        """The same network and weights at another input size, with only some of its own taps, which are counted up."""
        other, mine = self.at(size), self.settings.taps
        other.settings = replace(other.settings, taps=taps)
        other.picks = tuple(self.picks[mine.index(tap)] for tap in sorted(taps))
        other.channels = tuple(self.channels[mine.index(tap)] for tap in taps)
        other.reductions = tuple(self.reductions[mine.index(tap)] for tap in taps)
        return other

    def normalise(self, images: Tensor) -> Tensor:
        """Images (B, 3, size, size) in [0, 1] in the range the network was trained on. Raises ValueError."""
        if images.shape[-2:] != (self.settings.size, self.settings.size):
            raise ValueError(f"images of {tuple(images.shape[-2:])} pixels; resize them once, to {self.settings.size}")
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> list[Tensor]:
        if self.graph is not None:
            return self.graph(images)
        maps = self._maps(images)
        return [maps[i] for i in self.picks]

    def _maps(self, images: Tensor) -> list[Tensor]:
        """All that the network puts out; within ``computing_once`` from what it has put out already."""
        known = KNOWN.get()
        if known is None:
            return self._computed(images)
        key = (id(self.net), self.settings.size, id(images))
        if key not in known:  # the images are kept as well: while they live nothing else has their id
            known[key] = (images, self._computed(images))
        return known[key][1]

    def _computed(self, images: Tensor) -> list[Tensor]:
        maps = self.net(self.normalise(images))
        return list(maps) if isinstance(self.norm, nn.Identity) else [self._normed(m) for m in maps]

    def _normed(self, maps: Tensor) -> Tensor:
        return self.norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]

    def same(self, other: "Backbone") -> bool:
        """The same network with the same weights, as far as both go: it is cut behind the last tap."""
        if self.settings.name != other.settings.name:
            return False
        if min(*self.settings.taps, *other.settings.taps) < 0:  # counted from the end, taps have no common order
            return False
        mine, theirs = self.state_dict(), other.state_dict()
        return all(torch.equal(mine[key], theirs[key]) for key in mine.keys() & theirs.keys())

    def is_todays(self) -> bool:
        """Whether it has the weights that its name has here today: graphs and features are kept by its name."""
        with suppress(WeightsError):
            self.todays = self.todays or self.same(Backbone(self.settings))
        return self.todays

    def base_key(self) -> str:
        """Identity of the network, its weights and the input size, whatever the taps."""
        return values_hash([self.settings.name, self.settings.size, entry(self.settings.name)["sha256"]])

    def tap_keys(self) -> list[str]:
        """Identity of the features of each tap."""
        return [values_hash([self.base_key(), tap]) for tap in self.settings.taps]

    def key(self) -> str:
        """Identity of the features of all taps."""
        return values_hash(self.tap_keys())
