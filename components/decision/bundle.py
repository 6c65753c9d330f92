"""A bundle opened for scoring: only an ONNX graph whose files match the bundle's manifest is ever loaded."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from components.core.artefacts import file_hash, read_json
from components.core.errors import BundleError, DataError, SettingsError
from components.core.runtime import OWN, Runs, session
from components.core.settings import convert
from components.core.signing import verify
from components.decision.calibration import Calibration
from components.decision.cascade import Exits, early, edge_decision, full_decision
from components.decision.conformal import Decided, decide_one
from components.decision.seeing import Run, seen
from components.pictures.decoding import Decoding
from components.pictures.framing import quiet

IDENTITY = ("detector", "dataset", "groups", "model", "data")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # of a file of a bundle, which has no folders
OUTPUTS = ["score", "map", "embedding"]


@dataclass(frozen=True)
class Answer:
    """What a bundle says of one image, and which graph said it; *score*, *map*, *threshold* are on that one's scale."""

    graph: Literal["edge", "full"]
    score: float
    map: np.ndarray  # (H, W)
    embedding: np.ndarray  # (16,)
    decided: Decided


@dataclass(frozen=True)
class Manifest:
    """manifest.json of a bundle: what was trained on what, and the hash of each *file*.

    *model* and *data* are hashes; *groups* are joined by commas.
    """

    detector: str
    dataset: str
    groups: str
    model: str
    data: str
    decoding: Decoding
    files: Mapping[str, str]
    provider: str = "cpu"  # with which its graph was held against the detector

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """That of the bundle *folder*, without opening the session. Raises BundleError."""
        path = folder / "manifest.json"
        if not path.is_file():
            raise BundleError(f"{folder}: holds no manifest.json; give the bundle folder of a run")
        values = read_json(path)
        if not isinstance(values, Mapping):
            raise BundleError(f"{path}: is no manifest; export the bundle again")
        try:
            known = {key: convert(values[key], str, f"{path}: {key}") for key in IDENTITY}
        except KeyError as error:
            raise BundleError(f"{path}: says nothing of {error}; export the bundle again") from None
        if not known["model"]:
            raise BundleError(f"{path}: says nothing of its model; export the bundle again")
        # Bundles of older versions say nothing of decoding.
        try:
            rules = convert(values.get("decoding", {}), Decoding, f"{path}: decoding")
        except SettingsError as error:
            raise BundleError(f"{error}: a newer Loupe made the bundle; install that one, or export it here") from None
        files = convert(values.get("files", {}), dict[str, str], f"{path}: files")
        if outside := [name for name in files if not NAME.fullmatch(name)]:
            raise BundleError(f"{path}: names the file {outside[0]!r}, which is none in the bundle; export it again")
        provider = convert(values.get("runtime", {}), dict[str, Any], f"{path}: runtime").get("provider", "cpu")
        return cls(**known, decoding=rules, files=files, provider=provider)

    @property
    def version(self) -> str:
        """The model's identity as it stands in score records."""
        return self.model[:12]


def whole(folder: Path) -> Manifest:
    """The manifest of the bundle *folder*, whose files are those that it names. Raises BundleError."""
    manifest = Manifest.read(folder)
    for name, digest in manifest.files.items():
        if not (folder / name).is_file() or file_hash(folder / name) != digest:
            raise BundleError(f"{folder / name}: missing or changed since export; export the bundle again")
    return manifest


def run_of(graph: Any) -> Run:
    """A session as what ``seen`` asks."""
    return lambda images: graph.run(OUTPUTS, {"image": images})  # type: ignore[no-any-return]


class Bundle:
    """Session, calibration and identity of one exported detector."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int | None, runs: Runs = OWN) -> None:
        self.folder, self.manifest = folder, manifest
        self.calibration = Calibration.read(folder / "calibration.json")
        self.provider = runs.of(manifest.provider, folder)
        self.session = session(folder / "model.onnx", threads, self.provider)
        self.threads = threads

    @cached_property
    def narrow(self) -> Any:
        """A session on one thread, for callers that run side by side."""
        return session(self.folder / "model.onnx", 1, self.provider)

    def narrowed(self) -> "Bundle":
        """The same on one thread, for a caller that runs side by side."""
        other = copy.copy(self)
        other.session, other.threads = self.narrow, 1
        vars(other).pop("edge", None)  # opened with all threads
        return other

    @property
    def decoding(self) -> Decoding:
        """How pictures are decoded for this model."""
        return self.manifest.decoding

    @cached_property
    def edge(self) -> tuple[Any, Exits]:
        """The session of the edge graph and its ways out. Raises BundleError where the detector has none."""
        if not (self.folder / "edge.onnx").exists():
            why = "a calibration by folds" if self.calibration.folds else self.manifest.detector
            raise BundleError(f"{self.folder}: {why} has no edge graph; score without --cascade")
        opened = session(self.folder / "edge.onnx", self.threads, self.provider)
        self._require_one_model(opened, "edge.onnx")
        return opened, Exits.read(self.folder / "cascade.json")

    @classmethod
    def open(cls, folder: Path, threads: int | None = None, runs: Runs = OWN) -> "Bundle":
        """Raises BundleError when a file is missing or has other bytes than the manifest says, or *runs* refuses.

        Where the environment names trusted keys (``core.signing``), also unless one of them signed the whole folder.
        """
        verify(folder)
        manifest = whole(folder)
        opened = cls(folder, manifest, threads, runs)
        opened._require_one_model(opened.session, "model.onnx")
        if missing := {*OUTPUTS} - {output.name for output in opened.session.get_outputs()}:
            what = f"{folder / 'model.onnx'}: an older Loupe made it, without {', '.join(sorted(missing))}"
            raise BundleError(f"{what}; fit or export it again")
        return opened

    def _require_one_model(self, graph: Any, name: str) -> None:
        """Each part says which model it is of; a bundle put together from two runs would decide by the wrong table."""
        said = {
            "calibration.json": self.calibration.model,
            name: graph.get_modelmeta().custom_metadata_map.get("model"),
        }
        for part, model in said.items():
            if model not in (None, self.manifest.model):  # None: not said
                what = f"{self.folder / part}: is of model {model[:12]}, manifest.json of {self.manifest.version}"
                raise BundleError(f"{what}; export the bundle again")

    def score(self, pictures: Sequence[np.ndarray], narrow: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Decoded pictures, uint8 (H, W, 3) of one shape -> raw scores (B,), maps (B, 1, H, W), embeddings (B, 16).

        A model of clips takes windows of frames (T, H, W, 3), and says this of the last one of each. Outside the region
        of interest a map holds the lowest value that it has inside. Raises DataError for pictures instead of windows.
        """
        self._require_windows(pictures)
        scores, maps, embeddings = seen(run_of(self.narrow if narrow else self.session), pictures, self.decoding)
        return scores, quiet(maps, self.decoding.roi), embeddings

    def answer(self, pixels: np.ndarray, group: str | None = None, cascade: bool = False) -> Answer:
        """One picture (H, W, 3): by the full graph, or with *cascade* by the edge graph where that is certain."""
        left = None
        if cascade:
            opened, exits = self.edge
            score, heat, embedding = seen(run_of(opened), [pixels], self.decoding)
            left = exits.exit_of(group)
            if decision := early(left, float(score[0])):
                decided = edge_decision(left, float(score[0]), decision)
                heat = quiet(heat, self.decoding.roi)
                return Answer("edge", float(score[0]), heat[0, 0], embedding[0], decided)
        score, heat, embedding = self.score([pixels])
        table, value = self.calibration.table_of(group), float(score[0])
        decided = full_decision(left, table, value) if left else decide_one(table, value)
        return Answer("full", value, heat[0, 0], embedding[0], decided)

    def _require_windows(self, pictures: Sequence[np.ndarray]) -> None:
        wanted = self.decoding.window
        if any(pixels.shape[:-3] != ((wanted,) if wanted else ()) for pixels in pictures):
            what = f"looks at {wanted} frames of a clip together" if wanted else "looks at one picture at a time"
            raise DataError(f"{self.manifest.detector} {what}: give it these; clips are scored by `loupe watch`")

    @property
    def blank(self) -> np.ndarray:
        """Grey that the model can score, to warm it up or to see if it works at all."""
        picture = np.full((64, 64, 3), 128, np.uint8)
        return np.repeat(picture[None], self.decoding.window, 0) if self.decoding.window else picture

    @property
    def version(self) -> str:
        """The model's identity as it stands in score records."""
        return self.manifest.version

    def decide(self, score: float, group: str | None = None) -> Decided:
        """What a raw score means: by the group's own table where there is one."""
        return decide_one(self.calibration.table_of(group), score)

    def require_group(self, group: str | None) -> None:
        """Raises DataError for a group that the calibration does not know: a slip would pick the overall table."""
        if group is not None and group not in (known := self.calibration.groups):
            raise DataError(f"group {group!r} is none of this model's; known are {', '.join(known)}")
