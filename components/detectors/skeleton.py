"""``loupe new-detector NAME``: the files of a new method, which pass their tests before anything is filled in."""

import re
from pathlib import Path
from string import Template

from components.core.errors import SettingsError
from components.detectors.catalogue import CATALOGUE

NAME = re.compile(r"[a-z][a-z0-9_]{1,30}")
METHOD = Template('''"""$title: in one line what it does (authors, venue and year, arXiv number).

Begun by `loupe new-detector`: how far features are from the mean of their position. Put your method in its place.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from components.backbones.extractor import BackboneSettings
from components.detectors.contract import FeatureDetector, OnePass, MethodInfo, Scores, Phase, TrainingData, scratch
from components.detectors.parts.blocks import GaussianBlur, upsample


@dataclass(frozen=True)
class ${title}Settings:
    """Each knob has a comment that says its unit and where in the paper it stands, or that it is reconstructed."""

    backbone: BackboneSettings = BackboneSettings(taps=(2,))
    blur: float = 4.0  # sigma in input pixels; reconstructed


class $title(FeatureDetector):
    """Raw image score: the largest deviation; map: deviations from the mean feature of each position."""

    name = "$name"
    settings_type = ${title}Settings
    presets = {
        "paper": ${title}Settings(),
        "cpu": ${title}Settings(),
        "tiny": ${title}Settings(BackboneSettings(taps=(2,), size=64), blur=1.0),
    }
    info = MethodInfo(
        title="$title",
        paper="Authors: Title",
        year=$year,
        venue="Venue",
        family="Family in the surveys' taxonomies",
        needs=("frozen backbone",),
        reconstructed=("name what the paper leaves open",),
    )
    mean: Tensor
    spread: Tensor
    sums: Tensor

    def __init__(self, settings: ${title}Settings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        # What is learned is a buffer or a parameter; running sums are scratch: in checkpoints, not in the model.
        side = settings.backbone.size // 2 ** (settings.backbone.taps[0] + 1)
        shape = (self.backbone.channels[0], side, side)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("spread", torch.ones(shape))
        scratch(self, "sums", torch.zeros(2, *shape, dtype=torch.float64))
        scratch(self, "seen", torch.zeros((), dtype=torch.int64))
        self.blur = GaussianBlur(settings.blur)

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        yield OnePass("statistics", data.features(self.backbone), self._add, self._finish)

    def score(self, features: list[Tensor], size: tuple[int, int]) -> Scores:
        deviation = ((features[0] - self.mean) / self.spread).square().mean(1, keepdim=True).sqrt()
        own = self.blur(upsample(deviation, (self.size, self.size)))  # sigma is of this size, whatever is asked for
        return Scores(deviation.flatten(1).amax(1), upsample(own, size))

    def _add(self, features: list[Tensor]) -> None:
        rows = features[0].double()
        self.sums += torch.stack([rows.sum(0), rows.square().sum(0)])
        self.seen += len(rows)

    def _finish(self) -> None:
        mean = self.sums[0] / self.seen
        self.mean.copy_(mean)
        self.spread.copy_((self.sums[1] / self.seen - mean.square()).clamp_min(1e-4).sqrt())
''')
TEST = Template('''"""What must be present for a detector to be $title."""

import torch

from components.detectors.catalogue import create, settings_for


def test_a_feature_that_deviates_raises_the_map_there():
    """One test for each point that makes the method what it is; it fails when the point is taken out."""
    detector = create("$name", settings_for("$name", "tiny"), pretrained=False).eval()
    features = [torch.zeros(1, *detector.mean.shape)]
    features[0][0, :, 1, 1] = 5.0
    found = detector.score(features, (8 * detector.mean.shape[1],) * 2).map[0, 0]
    assert found[12, 12] > found[-1, -1]
''')
MUTANTS = Template("""file = "components/detectors/methods/$name.py"
tests = "tests/unit/detectors/methods/test_$name.py"

[[mutant]]
breaks = "features are compared with their mean"
old = "((features[0] - self.mean) / self.spread)"
new = "(0 * features[0] + self.mean)"
fails = "test_a_feature_that_deviates_raises_the_map_there"

[[mutant]]
breaks = "what is above the mean counts"
old = ".square().mean(1, keepdim=True).sqrt()"
new = ".clamp_max(0).square().mean(1, keepdim=True).sqrt()"
fails = "test_a_feature_that_deviates_raises_the_map_there"

[[mutant]]
breaks = "deviations raise the map"
old = "upsample(deviation,"
new = "upsample(-deviation,"
fails = "test_a_feature_that_deviates_raises_the_map_there"
""")
PAGE = Template("""# $title

Authors: Title, venue and year. One sentence on what kind of method it is.

**How it works here.** In the words of this house.

**Reconstructed.** What the paper leaves open.

**What makes it $title**, each point with a test in `tests/unit/detectors/methods/test_$name.py`: name the points.

<!-- Below this line: loupe bench methods -->
""")
CATALOGUE_FILE, PARAMS = Path("components/detectors/catalogue.py"), Path("params.yaml")


def new_detector(name: str, project: Path, year: int) -> list[Path]:
    """Write the files of method *name* into the checkout *project*; returns them. Raises SettingsError."""
    if not NAME.fullmatch(name):
        raise SettingsError(f"{name!r}: a detector's name is 2 to 31 of a to z, 0 to 9 and _, a letter first")
    if name in CATALOGUE:
        raise SettingsError(f"{name}: is in the catalogue already; choose another name")
    if not (project / CATALOGUE_FILE).exists() or not (project / PARAMS).exists():
        raise SettingsError(f"{project.resolve()}: is no checkout of Loupe; run this in the folder of its README")
    words = {"name": name, "title": "".join(word.capitalize() for word in name.split("_")), "year": str(year)}
    made = {
        Path("components/detectors/methods") / f"{name}.py": METHOD,
        Path("tests/unit/detectors/methods") / f"test_{name}.py": TEST,
        Path("tests/mutants") / f"{name}.toml": MUTANTS,
        Path("docs/methods") / f"{name}.md": PAGE,
    }
    if there := [path for path in made if (project / path).exists()]:
        raise SettingsError(f"{there[0]}: exists already; remove it or choose another name")
    for path, text in made.items():
        (project / path).write_text(text.substitute(words))
    line = f'    "{name}": "components.detectors.methods.{name}:{words["title"]}",\n'
    _insert(project / CATALOGUE_FILE, line, '    "', "}\n")
    _insert(project / PARAMS, f"    {name}: {{}}\n", "    ", "\n", after="  detectors: #")
    return [*made, CATALOGUE_FILE, PARAMS]


def _insert(path: Path, line: str, start: str, end: str, after: str = "CATALOGUE = {") -> None:
    """Put *line* into the sorted lines that begin with *start* behind the one that begins with *after*, until *end*."""
    lines = path.read_text().splitlines(keepends=True)
    at = next(i for i, text in enumerate(lines) if text.startswith(after)) + 1
    while lines[at] != end and lines[at].startswith(start) and lines[at] < line:
        at += 1
    path.write_text("".join([*lines[:at], line, *lines[at:]]))
