"""Register the detectors of one view and make the chosen one champion; test labels have no part in the choice."""

from pathlib import Path
from typing import Any

from components.core.artefacts import read_json
from components.registry.choice import REFERENCE, choose, synthetic_score
from components.registry.curves import points
from components.registry.locations import noted
from components.registry.mlflow import Registry
from components.registry.settings import RegistrySettings

DATA_PIN = "data_pin"  # tag of a version that knows data of its own, of production mostly: their pin file


def register_best(settings: RegistrySettings, name: str, detectors: dict[str, Path], reference: str = REFERENCE) -> str:
    """Register each detector's bundle under *name* and promote the one that ``choose`` takes; returns one sentence.

    A champion with data of its own stays: it has learned from production, which what is trained here has not seen.
    """
    registry = Registry(settings)
    choice = choose(detectors, reference)
    versions = {detector: register_run(registry, name, detector, at, {}) for detector, at in detectors.items()}
    best, reasons = choice.detector, choice.reasons
    evidence = {d: at / "model" / _evidence(at) for d, at in detectors.items()}
    champion = registry.champion(name)
    if champion and registry.tags(name, champion).get(DATA_PIN):
        said = f"champion {champion} has learned from data of its own since; `loupe promote` replaces it all the same"
        registry.refuse(name, versions[best], (said, *reasons), evidence)
        return f"version {versions[best]} is registered and not promoted: {said}"
    registry.promote(name, versions[best], (f"{best} is taken", *reasons), evidence)
    return f"{best}, version {versions[best]} ({'; '.join(reasons)})"


def _evidence(at: Path) -> str:
    """The file that told of a model what it is worth."""
    return "check.json" if (at / "model" / "check.json").exists() else "history.json"


def register_run(registry: Registry, name: str, detector: str, at: Path, tags: dict[str, str]) -> str:
    """Register the bundle below *at* with its figures; returns the version."""
    run = read_json(at / "model" / "run.json")
    params: dict[str, Any] = {
        "detector": detector,
        "seed": run["seed"],
        "settings": str(run["settings"]["settings"])[:500],
    }
    known = {"detector": detector, "split": run["inputs"]["split"], **tags}
    figures = {**_test_figures(at / "evaluation" / "metrics.json"), "synthetic_auroc": synthetic_score(at)}
    training = training_of(registry, at), list(points(read_json(at / "model" / "history.json")))
    return registry.register(name, at / "bundle", params, figures, known, training)


def training_of(registry: Registry, at: Path) -> str:
    """The folder *at* of a detector, as runs of MLflow name it: it may move with the project."""
    return noted(at, registry.folder)


def _test_figures(path: Path) -> dict[str, float]:
    """Figures of the test split; none where there are no test images."""
    if not path.exists():
        return {}
    metrics = read_json(path)["overall"]
    figures = {f"test_image_{k}": v for k, v in metrics["image"].items() if isinstance(v, float)}
    return figures | {k: metrics[k]["rate"] for k in ("false_alarm_rate", "miss_rate") if "rate" in metrics[k]}
