"""The knobs of a data set: how it is read, its contract, how it is split."""

from dataclasses import dataclass
from typing import Literal

from components.datasets.rows import GOOD, Naming
from components.pictures.decoding import MAX_PIXELS
from components.pictures.masks import Masks, MaskTurn


@dataclass(frozen=True)
class DataSettings:
    """Which adapter reads the data set called *name*; larger images than *max_pixels* are never decoded.

    *white* is the value of files with more than 8 bits that is shown as white; None: what the files themselves show.
    *good* and *defect* declare names of folders, *groups* makes the first folder below them a group. *masks* says what
    the masks mark, *mask_turn* whether they are turned as pictures are stored or as they are shown. *roi* is a file
    that draws the region of interest (docs/region.md), or what decoding.json holds of one. *tiles* is how many squares
    lie across a picture's shorter side (docs/tiles.md): 0 squeezes the whole into one, auto: 1 where pictures are long.
    *stride*: every so manieth frame of a clip is looked at, where the adapter's pictures are frames (docs/video.md).
    """

    adapter: str
    name: str
    max_pixels: int = MAX_PIXELS
    white: float | None = None
    good: tuple[str, ...] = (GOOD,)
    defect: tuple[str, ...] = ()
    groups: Literal["none", "folder"] = "none"
    masks: Masks = "auto"
    mask_turn: MaskTurn = "auto"
    roi: str | None = None
    tiles: int | Literal["auto"] = "auto"
    stride: int = 1

    @property
    def naming(self) -> Naming:
        return Naming(self.good, self.defect, self.groups)


@dataclass(frozen=True)
class ValidationSettings:
    """The data contract. Sizes in pixels, brightness in [0, 1]; *expect_masks* True: anomalous images need a mask.

    *min_contrast* is the least standard deviation of a picture that is nearly black or white: less shows nothing.
    """

    modes: tuple[str, ...] = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I")
    min_side: int = 32
    max_side: int = 20_000
    brightness: tuple[float, float] = (0.0, 1.0)
    min_contrast: float = 0.01
    min_train_normals: int = 20
    expect_masks: bool = False
    max_quarantined_share: float = 0.05


@dataclass(frozen=True)
class SplitSettings:
    """*calibrate_share* of the training normals is held out; *likeness* says when two pictures are one exposure.

    *together* ``group``: the pictures of a group stay on one side, as several pictures of one part should. Of a set of
    classes *normal* are the good ones and all others anomalous, or the other way round by *anomalous*.
    """

    groups: tuple[str, ...] | None = None
    calibrate_share: float = 0.2
    together: Literal["picture", "group"] = "picture"
    likeness: float = 0.25  # correlation of the noise from which two pictures may be one exposure; docs/data.md
    labelled: int = 0  # anomalous images with a mask that move from test to fit, for detectors that learn from some
    normal: tuple[str, ...] | None = None
    anomalous: tuple[str, ...] | None = None

    @property
    def classes(self) -> bool:
        """Whether groups are classes, some of which are normal."""
        return self.normal is not None or self.anomalous is not None
