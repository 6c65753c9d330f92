"""A bundle opened for scoring: only an ONNX graph whose files match the bundle's manifest is ever loaded."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from components.core.artefacts import file_hash, read_json
from components.core.errors import BundleError, DataError
from components.core.runtime import session
from components.core.settings import build
from components.decision.cascade import early, edge_verdict, full_verdict
from components.decision.conformal import judge, of_group
from components.pictures.decoding import Decoding

OUTPUTS = ["score", "map", "embedding"]


@dataclass(frozen=True)
class Answer:
    """What a bundle says of one image, and which graph said it; *score*, *map*, *threshold* are on that one's scale."""

    graph: Literal["edge", "full"]
    score: float
    map: np.ndarray  # (H, W)
    embedding: np.ndarray  # (16,)
    verdict: tuple[float, str, float]  # p-value, decision, threshold


class Bundle:
    """Session, calibration and identity of one exported detector."""

    def __init__(self, folder: Path, manifest: dict[str, Any], threads: int | None) -> None:
        self.folder, self.manifest = folder, manifest
        self.calibration: dict[str, Any] = read_json(folder / "calibration.json")
        self.session = session(folder / "model.onnx", threads)
        self.threads = threads

    @cached_property
    def narrow(self) -> Any:
        """A session on one thread, for callers that run side by side."""
        return session(self.folder / "model.onnx", 1)

    @cached_property
    def decoding(self) -> Decoding:
        """How pictures are decoded for this model; the default where the bundle is older than such rules."""
        return _decoding(self.manifest, self.folder)

    @cached_property
    def edge(self) -> tuple[Any, dict[str, Any]]:
        """The session of the edge graph and cascade.json. Raises BundleError where the detector has none."""
        if not (self.folder / "edge.onnx").exists():
            raise BundleError(f"{self.folder}: {self.manifest['detector']} has no edge graph; score without --cascade")
        opened = session(self.folder / "edge.onnx", self.threads)
        self._require_one_model(opened, "edge.onnx")
        return opened, read_json(self.folder / "cascade.json")

    @classmethod
    def open(cls, folder: Path, threads: int | None = None) -> "Bundle":
        """Raises BundleError when a file is missing or has other bytes than the manifest says."""
        manifest = cls.identify(folder)
        for name, digest in manifest["files"].items():
            if not (folder / name).exists() or file_hash(folder / name) != digest:
                raise BundleError(f"{folder / name}: missing or changed since export; export the bundle again")
        opened = cls(folder, manifest, threads)
        opened._require_one_model(opened.session, "model.onnx")
        return opened

    def _require_one_model(self, graph: Any, name: str) -> None:
        """Each part says which model it is of; a bundle put together from two runs would decide by the wrong table."""
        said = {
            "calibration.json": self.calibration.get("model"),
            name: graph.get_modelmeta().custom_metadata_map.get("model"),
        }
        for part, model in said.items():
            if model not in (None, self.manifest["model"]):  # None: not said
                what = f"{self.folder / part}: is of model {model[:12]}, manifest.json of {self.manifest['model'][:12]}"
                raise BundleError(f"{what}; export the bundle again")

    @staticmethod
    def identify(folder: Path) -> dict[str, Any]:
        """The manifest alone, without opening the session. Raises BundleError."""
        if not (folder / "manifest.json").exists():
            raise BundleError(f"{folder}: holds no manifest.json; give the bundle folder of a run")
        return dict(read_json(folder / "manifest.json"))

    @classmethod
    def rules_of(cls, folder: Path) -> Decoding:
        """How pictures are decoded for the model of *folder*, without opening the session."""
        return _decoding(cls.identify(folder), folder)

    def score(self, images: np.ndarray, narrow: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B, 3, H, W) float32 in [0, 1] -> raw image scores (B,), maps (B, 1, H, W), embeddings (B, 16)."""
        run = (self.narrow if narrow else self.session).run
        scores, maps, embeddings = run(OUTPUTS, {"image": images})
        return scores, maps, embeddings

    def answer(self, image: np.ndarray, group: str | None = None, cascade: bool = False) -> Answer:
        """One image (1, 3, H, W): by the full graph, or with *cascade* by the edge graph where that is certain."""
        left = None
        if cascade:
            opened, exits = self.edge
            score, heat, embedding = opened.run(OUTPUTS, {"image": image})
            left = of_group(exits, group)
            if decision := early(left, float(score[0])):
                verdict = edge_verdict(left, float(score[0]), decision)
                return Answer("edge", float(score[0]), heat[0, 0], embedding[0], verdict)
        score, heat, embedding = self.score(image)
        known = of_group(self.calibration, group)
        verdict = full_verdict(left, known, float(score[0])) if left else self.judge(float(score[0]), group)
        return Answer("full", float(score[0]), heat[0, 0], embedding[0], verdict)

    @property
    def version(self) -> str:
        """The model's identity as it stands in score records."""
        return str(self.manifest["model"])[:12]

    def judge(self, score: float, group: str | None = None) -> tuple[float, str, float]:
        """p-value, decision and threshold of a raw score: by the group's own table where there is one."""
        p, decision, threshold = judge(self.calibration, np.array([score]), [group])
        return float(p[0]), decision[0], float(threshold[0])

    def require_group(self, group: str | None) -> None:
        """Raises DataError for a group that the calibration does not know: a slip would pick the overall table."""
        if group is not None and group not in (known := self.calibration.get("groups", {})):
            raise DataError(f"group {group!r} is none of this model's; known are {', '.join(known)}")


def _decoding(manifest: dict[str, Any], folder: Path) -> Decoding:
    return build(Decoding, manifest.get("decoding", {}), f"{folder / 'manifest.json'}: decoding")
