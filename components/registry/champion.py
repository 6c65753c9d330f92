"""Register the detectors of one view and make the best one champion; test labels have no part in the choice."""

from pathlib import Path
from typing import Any

from components.artefacts import read_json
from components.registry.store import Registry, RegistrySettings


def register_best(settings: RegistrySettings, name: str, detectors: dict[str, Path]) -> str:
    """Register each detector's bundle under *name* and promote the best by synthetic AUROC; returns one sentence."""
    registry = Registry(settings)
    scores = {detector: _synthetic(at) for detector, at in detectors.items()}
    versions = {
        detector: _register(registry, name, detector, at, scores[detector]) for detector, at in detectors.items()
    }
    best = max(scores, key=lambda detector: scores[detector])
    reasons = tuple(f"{d}: image AUROC on synthetic anomalies {s:.4f}" for d, s in sorted(scores.items()))
    evidence = {d: at / "model" / "history.json" for d, at in detectors.items()}
    registry.promote(name, versions[best], (f"{best} is best", *reasons), evidence)
    return f"{best}, version {versions[best]} ({'; '.join(reasons)})"


def _synthetic(at: Path) -> float:
    return max(record.get("synthetic_auroc", 0.0) for record in read_json(at / "model" / "history.json"))


def _register(registry: Registry, name: str, detector: str, at: Path, synthetic: float) -> str:
    metrics = read_json(at / "evaluation" / "metrics.json")["overall"]
    run = read_json(at / "model" / "run.json")
    image = metrics["image"]
    figures = {f"test_image_{k}": v for k, v in image.items() if isinstance(v, float)}
    figures |= {k: metrics[k]["rate"] for k in ("false_alarm_rate", "miss_rate") if "rate" in metrics[k]}
    params: dict[str, Any] = {
        "detector": detector,
        "seed": run["seed"],
        "settings": str(run["settings"]["settings"])[:500],
    }
    tags = {"detector": detector, "split": run["inputs"]["split"]}
    return registry.register(name, at / "bundle", params, {**figures, "synthetic_auroc": synthetic}, tags)
