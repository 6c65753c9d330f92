"""What a detector is: a torch module with phases to learn by and one forward path that returns raw scores.

A detector knows nothing of files, flows, registries or metrics. Learned state is parameters and buffers only.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from components.backbones.extractor import Backbone
from components.core.errors import SettingsError
from components.detectors.facts import MethodInfo
from components.pictures.imaging import at_sizes
from components.pictures.rules import Decoding


class Scores(NamedTuple):
    """Raw scores, higher = more anomalous: not normalised, not clamped, no threshold applied."""

    image: Tensor  # (B,)
    map: Tensor  # (B, 1, H, W), the size of the input images


class Table(Protocol):
    """Inputs that are drawn by index: features (a list of tensors), pixels (one tensor) or several of them.

    A table that holds its pictures in several ``poses``, turned or mirrored, says how many: row ``pose * n + i`` is
    picture i of n, pose 0 the picture as it comes. A one-pass phase sees all rows, an epoch each picture once.
    """

    def __len__(self) -> int: ...

    def take(self, indices: Sequence[int]) -> Any: ...


class Together:
    """Several tables over the same images; a draw gives a tuple."""

    def __init__(self, *tables: Table) -> None:
        self.tables = tables

    @property
    def poses(self) -> int:
        return len(self.tables[0]) // pictures_of(self.tables[0])

    def __len__(self) -> int:
        return len(self.tables[0])

    def take(self, indices: Sequence[int]) -> tuple[Any, ...]:
        return tuple(table.take(indices) for table in self.tables)


@dataclass(frozen=True)
class Chosen:
    """*rows* of *table*, in that order: what made images were before."""

    table: Table
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Sequence[int]) -> Any:
        return self.table.take([self.rows[i] for i in indices])


def pictures_of(table: Table) -> int:
    """How many pictures *table* holds, each in one pose or several: the draws of an epoch."""
    return len(table) // getattr(table, "poses", 1)


def epochs_of(table: Table, epochs: int, draws: int) -> int:
    """*epochs*, or as many as it takes to draw *draws* images from *table*."""
    return max(epochs, -(-draws // pictures_of(table)))


class Labelled(NamedTuple):
    """Real anomalies that were moved out of the test split to be learned from."""

    pixels: Tensor  # (N, 3, size, size) float32 in [0, 1]
    masks: Tensor  # (N, 1, size, size) bool


class Images(Protocol):
    """A fixed set of images, as a detector sees them."""

    def features(self, backbone: Backbone) -> Table:
        """Frozen features, one list of (B, C, h, w) per draw."""
        ...

    def pixels(self, size: int) -> Table:
        """Images, (B, 3, size, size) float32 in [0, 1] per draw."""
        ...

    def clips(self, size: int, frames: int) -> Table:
        """Each image as the last of *frames* of its clip: (B, frames, 3, size, size) float32 in [0, 1] per draw."""
        ...


class Anomalies(Images, Protocol):
    """Synthetic anomalies with their exact masks."""

    def clean(self, size: int) -> Table:
        """The images before: (B, 3, size, size) per draw."""
        ...

    def before(self, backbone: Backbone) -> Table:
        """Frozen features of the images before, one list of (B, C, h, w) per draw."""
        ...

    def masks(self, side: int) -> Table:
        """(B, 1, side, side) float32 per draw, 1 where anything in the cell is anomalous."""
        ...


class TrainingData(Images, Protocol):
    """The fit normals."""

    def anomalies(self, strategies: tuple[str, ...], size: int, copies: int = 1) -> Anomalies:
        """*copies* synthetic anomalies on every fit normal, drawn at *size* pixels.

        Strategy ``extended`` varies what ``labelled`` has.
        """
        ...

    def labelled(self, size: int) -> Labelled | None:
        """The labelled anomalies of the split, if it has any (``split.labelled``)."""
        ...

    def natural(self, size: int, count: int) -> Table:
        """*count* random crops of photographs and textures that are not of the product: (B, 3, size, size) per draw."""
        ...


@dataclass(frozen=True)
class OnePass:
    """A closed-form phase: one pass over *table* in order; its running state lives in the detector's buffers.

    *update* gets each batch; *finish* is called once behind the last. An *optional* phase is undone if it lowers the
    AUROC on synthetic anomalies. *grows* says that row i of *table* is fit picture i and that the state behind any
    number of rows is a matter of these alone: a first phase that grows goes on where an earlier fit of the first
    pictures ended (docs/adr/0030). *sums* says that *update* does nothing but add to what ``scratch`` registered, each
    batch by itself: several processes then take a share of the batches each, and the sums are added. Of a phase that
    says nothing, every process takes all batches in order (docs/adr/0054). *held* pictures at most *finish* has in
    memory at once, where it takes them from the table again.
    """

    name: str
    table: Table
    update: Callable[[Any], None]
    finish: Callable[[], None]
    batch_size: int = 16
    optional: bool = False
    grows: bool = False
    sums: bool = False
    held: int | None = None


@dataclass(frozen=True)
class Player:
    """One side of a gradient phase: its own loss of a batch, minimised by its own optimiser over *parameters*.

    It takes *steps* on a batch before the next one's turn.
    """

    loss: Callable[[Any], Tensor]
    parameters: Sequence[nn.Parameter]
    optimiser: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    clip: float | None = None
    steps: int = 1


@dataclass(frozen=True)
class Optimise:
    """A gradient phase: *loss* of a batch, minimised over *parameters*.

    *schedule* maps the done share of all steps (0..1) to a factor on the learning rate. *average* is the decay of an
    exponential moving average of the weights (0: none). With *select* the epoch with the best synthetic score is kept.
    *rivals* step on every batch behind it, in order; while one player steps, the parameters that only others have are
    frozen. The schedule holds for all players. Modules that hold none of the players' parameters are in eval mode.
    *told* gives figures behind every epoch, for the history and the log.
    """

    name: str
    table: Table
    loss: Callable[[Any], Tensor]
    parameters: Sequence[nn.Parameter]
    optimiser: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    epochs: int
    batch_size: int = 16
    schedule: Callable[[float], float] = lambda done: 1.0  # noqa: ARG005
    clip: float | None = None
    average: float = 0.0
    select: bool = True
    rivals: tuple[Player, ...] = ()
    told: Callable[[], dict[str, float]] = dict

    @property
    def players(self) -> tuple[Player, ...]:
        """All sides in the order in which they step."""
        return (Player(self.loss, self.parameters, self.optimiser, self.clip), *self.rivals)


Phase = OnePass | Optimise


def scratch(module: nn.Module, name: str, value: Tensor) -> None:
    """Register *value* as running state of closed-form phases: it is in checkpoints and not in the finished model."""
    module.register_buffer(name, value)
    module.__dict__.setdefault("_scratch", set()).add(name)


def scratch_keys(module: nn.Module) -> set[str]:
    """The keys of ``module.state_dict()`` that ``scratch`` registered."""
    return {f"{at}.{name}".lstrip(".") for at, part in module.named_modules() for name in getattr(part, "_scratch", ())}


class Counting(nn.Module, ABC):
    """A part whose computation goes by counts in its state, such as how many rows of a bank are filled.

    Run, it reads them anew each time; a graph is traced with what ``read`` last read.
    """

    def counted(self) -> None:
        """Call ``read`` unless a graph is being traced, where state has no values."""
        if not torch.compiler.is_exporting():
            self.read()

    @abstractmethod
    def read(self) -> None:
        """Take the counts out of the state."""


class Detector(nn.Module, ABC):
    """Base of all detectors; see docs/adding-a-detector.md."""

    name: ClassVar[str]
    info: ClassVar[MethodInfo]
    settings_type: ClassVar[type]
    presets: ClassVar[dict[str, Any]]  # "paper", "cpu", "tiny" -> settings; presets.py adds "long"
    averages_sizes: ClassVar[bool] = False  # whether it is trained so fast that several input sizes may be averaged
    turned: ClassVar[bool] = True  # whether moved copies that are as normal are learned too (train.moves: auto)
    clips: ClassVar[bool] = False  # whether it looks at frames of clips, and at no single pictures
    frames: int = 1  # that it looks at together, the last of them the one that it scores
    settings: Any

    def rules(self, rules: Decoding) -> Decoding:
        """*rules* of decoding by which a file gives what it looks at."""
        return replace(rules, window=self.frames if self.frames > 1 else 0)

    def grow(self) -> None:
        """Be as large as it may be once it has learned, for what its passes cost; most detectors never grow."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Side in pixels of the square the images are resized to, and of the maps."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of all the squares it looks at: each is made from the picture itself, none from another."""
        return (self.size,)

    @abstractmethod
    def phases(self, data: TrainingData) -> Iterable[Phase]:
        """How the detector learns, in order."""

    def inputs(self, data: Images) -> Table:
        """What ``score`` needs of *data*, from the store where that is possible."""
        return data.pixels(self.size)

    def prepare(self, pictures: Sequence[Tensor]) -> Any:
        """What ``score`` needs of images, one draw of ``inputs``; *pictures* are the images at each of ``sizes``."""
        return pictures[0]

    def prepared(self, images: Tensor) -> Any:
        """What ``score`` needs of *images*, (B, 3, H, W) of any size."""
        return self.prepare(at_sizes(images, self.sizes))

    @abstractmethod
    def score(self, inputs: Any, size: tuple[int, int]) -> Scores:
        """Scores of one draw of ``inputs``; the map comes at *size* (H, W)."""

    def forward(self, images: Tensor) -> Scores:
        """images: (B, 3, H, W) float32 in [0, 1], RGB, of any size."""
        return self.score(self.prepared(images), (images.shape[-2], images.shape[-1]))


@runtime_checkable
class Early(Protocol):
    """A detector that can also answer before its costly part; the export makes a second graph of it (docs/adr/0014)."""

    def edge(self, inputs: Any, size: tuple[int, int]) -> Scores:
        """The early answer to one draw of ``inputs``, on a scale of its own; the map comes at *size* (H, W)."""
        ...


def answer(detector: Detector, inputs: Any, size: tuple[int, int], early: bool = False) -> Scores:
    """Scores of one draw of inputs, or the early answer to them; the map comes at *size* (H, W)."""
    return detector.edge(inputs, size) if early and isinstance(detector, Early) else detector.score(inputs, size)


class BackboneDetector(Detector):
    """A detector with a frozen backbone, at whose input size it works."""

    def __init__(self, settings: Any, pretrained: bool = True) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = Backbone(settings.backbone, pretrained)

    @property
    def size(self) -> int:
        return int(self.settings.backbone.size)


class PixelDetector(Detector):
    """A detector that learns from pixels alone, at the size its settings name."""

    def __init__(self, settings: Any, pretrained: bool = True) -> None:  # noqa: ARG002  (nothing is pretrained)
        super().__init__()
        self.settings = settings

    @property
    def size(self) -> int:
        return int(self.settings.size)


class ClipDetector(PixelDetector):
    """A detector over clips: the frame that it scores and ``settings.past`` frames before it, oldest first."""

    clips = True

    def __init__(self, settings: Any, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        self.frames = 1 + int(settings.past)

    def rules(self, rules: Decoding) -> Decoding:
        """As of every detector. Raises SettingsError where pictures are cut into squares: frames are seen whole."""
        if rules.tiles:
            raise SettingsError(f"{self.name} sees frames whole: set data.tiles 0")
        return super().rules(rules)

    def inputs(self, data: Images) -> Table:
        return data.clips(self.size, self.frames)

    def prepared(self, images: Tensor) -> Any:
        """What ``score`` needs of clips (B, T, 3, H, W); pictures (B, 3, H, W) are clips in which nothing moves."""
        clips = images if images.ndim == 5 else images[:, None].expand(-1, self.frames, -1, -1, -1)
        return super().prepared(clips)


class FeatureDetector(BackboneDetector):
    """A detector over the features of its backbone alone: one (B, C, h, w) per tap."""

    def inputs(self, data: Images) -> Table:
        return data.features(self.backbone)

    def prepare(self, pictures: Sequence[Tensor]) -> list[Tensor]:
        return list(self.backbone(pictures[0]))
