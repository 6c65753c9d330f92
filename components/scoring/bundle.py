"""A bundle opened for scoring: only an ONNX graph whose files match the bundle's manifest is ever loaded."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from components.artefacts import file_hash, read_json
from components.calibration.conformal import decide, p_values
from components.errors import BundleError
from components.runtime import session


class Bundle:
    """Session, calibration and identity of one exported detector."""

    def __init__(self, folder: Path, manifest: dict[str, Any], threads: int | None) -> None:
        self.folder, self.manifest = folder, manifest
        self.calibration: dict[str, Any] = read_json(folder / "calibration.json")
        self.session = session(folder / "model.onnx", threads)

    @cached_property
    def narrow(self) -> Any:
        """A session on one thread, for callers that run side by side."""
        return session(self.folder / "model.onnx", 1)

    @classmethod
    def open(cls, folder: Path, threads: int | None = None) -> "Bundle":
        """Raises BundleError when a file is missing or has other bytes than the manifest says."""
        manifest = cls.identify(folder)
        for name, digest in manifest["files"].items():
            if not (folder / name).exists() or file_hash(folder / name) != digest:
                raise BundleError(f"{folder / name}: missing or changed since export; export the bundle again")
        return cls(folder, manifest, threads)

    @staticmethod
    def identify(folder: Path) -> dict[str, Any]:
        """The manifest alone, without opening the session. Raises BundleError."""
        if not (folder / "manifest.json").exists():
            raise BundleError(f"{folder}: holds no manifest.json; give the bundle folder of a run")
        return dict(read_json(folder / "manifest.json"))

    def score(self, images: np.ndarray, narrow: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(B, 3, H, W) float32 in [0, 1] -> raw image scores (B,), maps (B, 1, H, W), embeddings (B, 16)."""
        run = (self.narrow if narrow else self.session).run
        scores, maps, embeddings = run(["score", "map", "embedding"], {"image": images})
        return scores, maps, embeddings

    @property
    def version(self) -> str:
        """The model's identity as it stands in score records."""
        return str(self.manifest["model"])[:12]

    def judge(self, scores: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """p-values and decisions of raw scores."""
        return p_values(self.calibration, scores), decide(self.calibration, scores)
