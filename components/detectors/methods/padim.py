"""PaDiM: a Gaussian over patch features at each position (Defard et al., ICPR Workshops 2020, arXiv 2011.08785).

A second reference baseline beside PatchCore. Closed form: mean and covariance from running sums, in one pass. Ours (a
setting each): positions of a coarser grid than the finest tap's, and one Gaussian for the whole picture where parts lie
at any angle.
Memory after fit: positions x dims^2 float32, e.g. 32^2 x 100^2 x 4 B = 41 MB, dims^2 with one Gaussian; while fitting
three times as much, in float64.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from components.backbones.extractor import BackboneSettings
from components.core.errors import SettingsError
from components.detectors.contract import FeatureDetector, MethodInfo, OnePass, Phase, Scores, TrainingData, scratch
from components.detectors.parts.blocks import GaussianBlur, upsample

BLOCK = 16  # positions whose covariances are inverted at a time


@dataclass(frozen=True)
class PaDiMSettings:
    """Settings; *gaussian* says what is one distribution: a position (the paper's), or all of the picture.

    auto begins with one for the picture and keeps those of the positions unless synthetic anomalies speak against them.
    """

    backbone: BackboneSettings = BackboneSettings(taps=(1, 2, 3))
    dims: int = 100  # channels that are drawn of those of all taps (paper, section 3.1 and table 1)
    stride: int = 8  # input pixels between positions; the paper's is that of its finest tap, 4
    epsilon: float = 0.01  # added to the diagonal of every covariance (paper, eq. 1)
    gaussian: Literal["auto", "position", "picture"] = "auto"
    blur: float = 4.0  # sigma in input pixels (the authors' code; the paper does not say)


class PaDiM(FeatureDetector):
    """Map: the Mahalanobis distance of every position, blurred; raw image score: its largest value."""

    name = "padim"
    settings_type = PaDiMSettings
    averages_sizes = True
    presets = {
        "paper": PaDiMSettings(BackboneSettings("resnet18", (1, 2, 3), 224), stride=4, gaussian="position"),
        "cpu": PaDiMSettings(),
        "tiny": PaDiMSettings(BackboneSettings(taps=(1, 2, 3), size=64), dims=20, blur=1.0),
    }
    info = MethodInfo(
        title="PaDiM",
        paper="Defard, Setkov, Loesch, Audigier: PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection "
        "and Localization",
        year=2020,
        venue="ICPR Workshops",
        family="Gaussian of features",
        needs=("frozen backbone",),
        reconstructed=(
            "positions every 8 pixels in place of the finest tap's 4, for memory",
            "one Gaussian for the whole picture where synthetic anomalies prefer it",
            "sigma 4 of the blur",
        ),
    )
    chosen: Tensor
    mean: Tensor
    whitening: Tensor
    sums: Tensor
    products: Tensor
    seen: Tensor
    settings: PaDiMSettings

    def __init__(self, settings: PaDiMSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        self.side = _side(settings, self.backbone.grids)
        channels, places = sum(self.backbone.channels), self.side**2
        d = min(settings.dims, channels)
        self.register_buffer("chosen", torch.randperm(channels)[:d].sort().values)
        self._hold(torch.zeros(1, d), torch.eye(d)[None])
        scratch(self, "sums", torch.zeros(places, d, dtype=torch.float64))
        scratch(self, "products", torch.zeros(places, d, d, dtype=torch.float64))
        scratch(self, "seen", torch.zeros((), dtype=torch.int64))
        self.blur = GaussianBlur(settings.blur)

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        yield OnePass("statistics", data.features(self.backbone), self._add, self._whole_picture, sums=True)
        if (kind := self.settings.gaussian) != "picture":  # from the sums that are there: no second pass over images
            places = Places(self.side**2)
            yield OnePass("positions", places, self._each_position, lambda: None, BLOCK, optional=kind == "auto")

    def grow(self) -> None:
        """A Gaussian at every position, unless there is one for the picture anyway."""
        if self.settings.gaussian != "picture":
            self._hold_room(self.side**2)

    def embed(self, features: list[Tensor]) -> Tensor:
        """The chosen channels of all taps at every position: (h * w, B, d)."""
        maps = torch.cat([self._placed(f) for f in features], 1).index_select(1, self.chosen)
        return maps.flatten(2).permute(2, 0, 1)

    def distances(self, features: list[Tensor]) -> Tensor:
        """Mahalanobis distance of every position to its Gaussian: (B, 1, h, w) (paper, eq. 2)."""
        centred = self.embed(features) - self.mean[:, None]
        # |W x| with W W' the inverse covariance: one batch of matrix products over all positions.
        found = (centred @ self.whitening).square().sum(2).sqrt()
        return found.T.reshape(-1, 1, self.side, self.side)

    def score(self, features: list[Tensor], size: tuple[int, int]) -> Scores:
        maps = self.blur(self.distances(features), (self.size, self.size))
        return Scores(maps.flatten(1).amax(1), upsample(maps, size))

    def _placed(self, maps: Tensor) -> Tensor:
        """One tap on the grid of positions: averaged where it is finer, else repeated (paper, section 3.1)."""
        if maps.shape[-1] > self.side:
            return F.avg_pool2d(maps, maps.shape[-1] // self.side)
        return maps if maps.shape[-1] == self.side else F.interpolate(maps, size=(self.side, self.side))

    def _add(self, features: list[Tensor]) -> None:
        rows = self.embed(features).double()
        self.sums += rows.sum(1)
        self.products.baddbmm_(rows.transpose(1, 2), rows)
        self.seen += rows.shape[1]

    def _whole_picture(self) -> None:
        self._hold_room(1)
        self._settle(
            torch.zeros(1, dtype=torch.int64), self.sums.sum(0)[None], self.products.sum(0)[None], len(self.sums)
        )

    def _each_position(self, places: Tensor) -> None:
        if len(self.mean) != len(self.sums):
            self._hold_room(len(self.sums))
        self._settle(places, self.sums[places], self.products[places], 1)

    def _settle(self, at: Tensor, sums: Tensor, products: Tensor, each: int) -> None:
        """The Gaussians *at*, from sums (P, d) and sums of outer products (P, d, d) of *each* rows of every image."""
        count = int(self.seen) * each
        mean = sums / count
        self.mean[at] = mean.float()
        self.whitening[at] = _whitening(products, mean, count, self.settings.epsilon).float()

    def _hold_room(self, count: int) -> None:
        d = self.mean.shape[1]
        with torch.inference_mode(False):  # what is made within a pass could never be loaded into
            self._hold(self.mean.new_zeros(count, d), self.mean.new_zeros(count, d, d))

    def _hold(self, mean: Tensor, whitening: Tensor) -> None:
        """The state that scores: of one Gaussian (1, d), (1, d, d), or of one at each position."""
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Saved state says which variant it is of; its shape is taken over before it is copied."""
        given = state.get(f"{prefix}mean")
        if given is not None and len(given) in (1, self.side**2) and len(given) != len(self.mean):
            self._hold_room(len(given))
        super()._load_from_state_dict(state, prefix, *rest)


@dataclass(frozen=True)
class Places:
    """The numbers of all positions, as a table to draw from."""

    count: int

    def __len__(self) -> int:
        return self.count

    def take(self, indices: Sequence[int]) -> Tensor:
        return torch.as_tensor(list(indices))


def _side(settings: PaDiMSettings, grids: tuple[int, ...]) -> int:
    """Positions in a row. Raises SettingsError where a finer tap's cells do not fill them."""
    side = settings.backbone.size // settings.stride
    if settings.dims < 1 or side < 1 or any(grid > side and grid % side for grid in grids):
        raise SettingsError(
            f"padim: stride {settings.stride} does not fit taps of {', '.join(map(str, grids))} cells a side at "
            f"{settings.backbone.size} pixels, or dims is below 1; give a stride that makes whole cells, such as 8"
        )
    return side


def _whitening(products: Tensor, mean: Tensor, count: int, epsilon: float) -> Tensor:
    """W (P, d, d), upper triangular, with W W' the inverse of covariance + epsilon I (paper, eq. 1), in float64."""
    spread = (products - count * mean[:, :, None] * mean[:, None]) / max(1, count - 1)
    one = torch.eye(mean.shape[1], dtype=mean.dtype, device=mean.device)
    factor = torch.linalg.cholesky(spread + epsilon * one)
    return torch.linalg.solve_triangular(factor, one.expand_as(factor), upper=False).transpose(1, 2)
