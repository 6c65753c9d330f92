"""The calibration component: scores of the calibrate normals -> calibration.json."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.calibration.settings import CalibrationSettings
from components.core.artefacts import recorded, tree_hash, write_json
from components.core.errors import CalibrationError
from components.decision.calibration import Alike
from components.decision.conformal import beyond, needed, span, threshold

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
RESOLUTION = 1e-4  # of the span of scores; a tenth of what the parity gate lets pass, far above rounding
MAP_QUANTILES = (0.5, 0.99, 0.999, 1.0)


def calibrate(
    model: Path,
    split: Path,
    data: Path,
    out: Path,
    settings: CalibrationSettings,
    traced: Path | None = None,
    alike: Alike | None = None,
    graphs: Path | None = None,
) -> Path:
    """Write calibration.json and scores.parquet, from the scores of the graph *traced*, or without one of torch, whose
    frozen backbones are run by their *graphs*, if there is a folder of them.

    What ships is calibrated through its graph: the table then holds the very scores that the line computes. *alike*:
    of what the calibrate normals are, where they do not stand for themselves. Raises CalibrationError when there are
    too few normals for alpha, BundleError where the graph is of another model.
    """
    from components.datasets.loading import rows

    table = rows(split, "calibrate", "normal")
    require_enough(len(table), settings.alpha, split)
    inputs = {"model": model / "model.safetensors", "split": split / "split.parquet"}
    with recorded(out, "calibrate", settings, inputs) as scratch:
        paths = [data / i for i in table["image_id"]]
        scores, maps = through_graph(traced, model, paths) if traced else in_torch(model, split, paths, graphs)
        result = record(scores, maps, table["group"].to_numpy(), settings)
        known = {"model": tree_hash(model / "model.safetensors"), **result, **kept(alike)}
        write_json(scratch / "calibration.json", known)
        table.assign(score=scores)[["image_id", "group", "score"]].to_parquet(scratch / "scores.parquet", index=False)
    return out


def kept(alike: Alike | None) -> dict[str, Any]:
    """What calibration.json says of pictures that are alike."""
    return {"alike": alike._asdict()} if alike else {}


def record(scores: np.ndarray, maps: np.ndarray, groups: np.ndarray, settings: CalibrationSettings) -> dict[str, Any]:
    """What calibration.json holds beside the model: of scores (N,), map quantiles (N, MAP_QUANTILES), groups (N,)."""
    return {**summary(scores, settings), "groups": _groups(scores, groups, settings), "map": scale(maps)}


def through_graph(traced: Path, model: Path, paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Scores float64 (N,) of image files, and quantiles (N, MAP_QUANTILES) of their maps, by the graph in *traced*."""
    from components.decision.traced import Traced

    graph = Traced.open(traced, model)
    scored = [(score, map_quantiles(graph.values(heat))[0]) for score, heat in graph.score(paths)]
    scores, maps = zip(*scored, strict=True)
    return np.array(scores, np.float64), np.stack(maps)


def in_torch(
    model: Path, split: Path, paths: Sequence[Path], graphs: Path | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """``through_graph`` for a model that does not ship by itself: of a fold, of an ensemble."""
    from components.datasets.loading import read_decoding
    from components.training.model import load_model, map_values, score_files

    rules = read_decoding(split)
    scored = list(score_files(load_model(model), paths, rules=rules, graphs=graphs))
    maps = np.concatenate([map_quantiles(map_values(m, rules)) for _, m in scored])
    return np.concatenate([s for s, _ in scored]).astype(np.float64), maps


def map_quantiles(values: np.ndarray) -> np.ndarray:
    """(N, MAP_QUANTILES) of the values (N, k) of heat maps."""
    return np.asarray(np.quantile(values, MAP_QUANTILES, axis=1).T)


def scale(maps: np.ndarray) -> dict[str, float]:
    """What heat maps are drawn on, from the typical to the largest value seen on normals: *maps* (N, MAP_QUANTILES)."""
    values = [*map(float, np.median(maps[:, :3], 0)), float(maps[:, 3].max())]
    return dict(zip(map(str, MAP_QUANTILES), values, strict=True))


def require_enough(n: int, alpha: float, where: Path, share: float | None = None) -> None:
    """Raises CalibrationError when *n* calibrate normals are too few for *alpha*; *share* of the good ones they are."""
    if n >= needed(alpha):
        return
    total = f" (about {math.ceil(needed(alpha) / share)} good training images)" if share else ""
    raise CalibrationError(
        f"{where}: {n} calibrate normals are too few for a false-alarm rate of {alpha}; {needed(alpha)} are needed"
        f"{total}: add good images, raise split.calibrate_share, or raise alpha"
    )


def summary(scores: np.ndarray, settings: CalibrationSettings) -> dict[str, Any]:
    """Threshold, p-value table and the interval of the false-alarm rate that this many normals allow."""
    from scipy.stats import beta

    n, alpha = len(scores), settings.alpha
    above = beyond(n, alpha)  # the true rate at this threshold is Beta(above, n + 1 - above)
    resolution = RESOLUTION * span(scores)
    tails = (1 - settings.confidence) / 2
    low, high = beta.ppf([tails, 1 - tails], above, n + 1 - above)
    return {
        "rule": "split conformal: anomalous when p <= alpha",
        "alpha": alpha,
        "n": n,
        "threshold": threshold(scores, alpha, resolution),
        "resolution": resolution,
        "false_alarm_interval": [float(low), float(high)],
        "confidence": settings.confidence,
        "quantiles": {str(q): float(np.quantile(scores, q)) for q in QUANTILES},
        "scores": [float(s) for s in np.sort(scores)],
    }


def _groups(scores: np.ndarray, groups: np.ndarray, settings: CalibrationSettings) -> dict[str, Any]:
    return group_tables(by_group(scores, groups), settings)


def by_group(scores: np.ndarray, groups: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of each group."""
    return {str(name): scores[groups == name] for name in sorted(set(groups))}


def group_tables(
    scores: Mapping[str, np.ndarray], settings: CalibrationSettings, apart: bool = False
) -> dict[str, Any]:
    """Per group its own table where there are several and it has enough normals; the overall one decides the rest."""
    apart = apart or len(scores) > 1
    return {str(name): _group(part, settings, apart) for name, part in sorted(scores.items())}


def _group(scores: np.ndarray, settings: CalibrationSettings, apart: bool) -> dict[str, Any]:
    if len(scores) < needed(settings.alpha):
        reason = f"fewer than {needed(settings.alpha)} normals"
        # Kept for `loupe calibrate`: at a larger alpha the group has a table of its own.
        held = {"held": [float(s) for s in np.sort(scores)], "resolution": RESOLUTION * span(scores)} if apart else {}
        return {"n": len(scores), "threshold": None, "reason": reason, **held}
    if apart:
        table = summary(scores, settings)
        return {k: table[k] for k in ("n", "threshold", "resolution", "false_alarm_interval", "quantiles", "scores")}
    return {"n": len(scores), "threshold": threshold(scores, settings.alpha, RESOLUTION * span(scores))}
