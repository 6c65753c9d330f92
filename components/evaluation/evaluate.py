"""The evaluation component: labelled pictures scored, measured and drawn. Its labels report and never choose."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.core.artefacts import read_json, recorded, tree_hash, write_json
from components.core.records import SCORE_COLUMNS, kept_score
from components.core.shares import share_interval
from components.datasets.loading import read_decoding, rows
from components.datasets.videos import clip_of
from components.decision.calibration import Calibration
from components.decision.traced import Traced
from components.evaluation import drawing
from components.evaluation.clips import frame_figures
from components.evaluation.extents import add_recall
from components.evaluation.metrics import (
    METRIC_VERSION,
    bootstrap,
    fixed_f1,
    image_metrics,
    pixel_metrics,
)
from components.evaluation.settings import EvaluationSettings
from components.evaluation.truths import read_truths
from components.pictures.decoding import Decoding
from components.pictures.framing import scaled
from components.pictures.heat import squeezed
from components.report.found import lines

log = logging.getLogger("loupe")
SPLIT = "test"


def evaluate(
    model: Path,
    calibration: Path,
    split: Path,
    data: Path,
    out: Path,
    settings: EvaluationSettings,
    seed: int,
    traced: Path | None = None,
) -> Path:
    """Write scores.parquet, metrics.json, curves and the gallery of the test split."""
    table, said = rows(split, SPLIT), {"split": SPLIT}
    return evaluate_rows(table, said, model, calibration, split, data, out, settings, seed, traced)


def evaluate_rows(
    table: pd.DataFrame,
    said: dict[str, Any],
    model: Path,
    calibration: Path,
    split: Path,
    data: Path,
    out: Path,
    settings: EvaluationSettings,
    seed: int,
    traced: Path | None = None,
) -> Path:
    """``evaluate`` of the pictures in *table*; what *said* says of them, their split first, goes to metrics.json.

    *traced* is the folder of the model's graph (``decision.traced``), a bundle or one that has no operating point yet:
    what is measured is then what the line computes. Without it torch scores.
    """
    known, rules = Calibration.read(calibration / "calibration.json"), read_decoding(split)
    inputs = {
        "model": model / "model.safetensors",
        "calibration": calibration / "calibration.json",
        "split": split / "split.parquet",
    }
    with recorded(out, "evaluate", settings, inputs, seed) as scratch:
        paths = [data / i for i in table["image_id"]]
        scores, maps = _through(traced, model, paths, settings.map_size, rules)
        result = _score_table(table, scores, known, model)
        result.to_parquet(scratch / "scores.parquet", index=False)
        truths = read_truths(table, data, settings.map_size, rules)
        counts = scaled(rules.roi, settings.map_size, settings.map_size) if rules.roi else None
        counted = result.drop(index=truths.outside)
        metrics = measure(counted, truths.masks, maps, known.alpha, settings, seed, said["split"], counts)
        curve, seen = metrics["overall"]["pixel"].pop("curve", None), _seen(model, settings)
        add_recall(metrics, counted, truths.marks, maps, known.scale, seen)
        more = {
            "masks": truths.said,
            "defects": truths.defects(seen),
            **_without_labels(model, known),
            **_frames(counted, rules, settings.bootstrap, seed),
            **_outside(table.loc[truths.outside, "image_id"], result.loc[truths.outside, "decision"]),
        }
        about = {**metrics, **said, **more, "split_hash": tree_hash(split / "split.parquet")}
        write_json(scratch / "metrics.json", about)
        drawing.curves(scratch, counted, curve, model / "history.json", known.threshold)
        found = lines(metrics["overall"]["sizes"])
        shown = (data, table, counted, maps, truths.masks, known.scale, settings.gallery, rules, said["split"], found)
        drawing.gallery(scratch / "gallery", *shown)
    _say(out, metrics["overall"]["image"].get("auroc", "not available"), found)
    return out


def _say(out: Path, auroc: float | str, sizes: list[tuple[str, ...]]) -> None:
    log.info("%s: image AUROC %s", out, auroc)
    for line in sizes:
        log.info("%s: defects of %s pixels: %s pictures called anomalous, %s regions shown", out, line[0], *line[1:4:2])


def _frames(counted: pd.DataFrame, rules: Decoding, rounds: int, seed: int) -> dict[str, Any]:
    """Of frames of clips the figures that videos are compared by; every frame of the split is among them."""
    if not rules.stride:
        return {}
    labels = (counted["label"] == "anomalous").to_numpy()
    clips = [clip_of(str(name)) for name in counted["image_id"]]
    return {"frames": frame_figures(labels, counted["score"].to_numpy(), clips, rounds, seed)}


def _outside(names: pd.Series, decisions: pd.Series) -> dict[str, Any]:
    """Pictures that show defects outside the region of interest alone: neither good nor to be found."""
    if names.empty:
        return {}
    said = {"n": len(names), "anomalous": int((decisions == "anomalous").sum()), "images": list(map(str, names))}
    return {"outside_region": said}


def _without_labels(model: Path, known: Calibration) -> dict[str, Any]:
    """What is known of a model without a labelled picture."""
    history = read_json(model / "history.json") if (model / "history.json").exists() else []
    point = {
        "n": known.n,
        "alpha": known.alpha,
        "threshold": known.threshold,
        "false_alarm_interval": list(known.interval),
        "confidence": known.confidence,
    }
    return {"calibration": point, "synthetic_auroc": kept_score(history)}


def _seen(model: Path, settings: EvaluationSettings) -> int:
    """The side at which defects are seen: that of the detector, or of the maps where they are smaller."""
    known = read_json(model / "settings.json")["settings"]
    size = known.get("size") or known.get("backbone", {}).get("size")
    return min(size, settings.map_size) if isinstance(size, int) else settings.map_size


def _through(
    traced: Path | None, model: Path, paths: list[Path], size: int, rules: Decoding
) -> tuple[np.ndarray, np.ndarray]:
    """Scores float64 (N,) and maps (N, size, size) of image files."""
    if not paths:
        return np.zeros(0), np.zeros((0, size, size), np.float32)
    scored = list(Traced.open(traced, model).score(paths, size)) if traced else _in_torch(model, paths, size, rules)
    scores, maps = zip(*scored, strict=True)
    return np.array(scores, np.float64), np.stack(maps)


def _in_torch(model: Path, paths: list[Path], size: int, rules: Decoding) -> list[tuple[float, np.ndarray]]:
    from components.training.model import load_model, score_files

    scored = score_files(load_model(model), paths, rules=rules)
    return [(float(s), squeezed(heat, size)) for part, maps in scored for s, heat in zip(part, maps, strict=True)]


def _score_table(table: pd.DataFrame, scores: np.ndarray, known: Calibration, model: Path) -> pd.DataFrame:
    p_value, decision, threshold = known.decide(scores, list(table["group"]))
    result = table.assign(
        score=scores,
        p_value=p_value,
        decision=decision,
        threshold=threshold,
        model=read_json(model / "settings.json")["detector"],
        model_version=tree_hash(model / "model.safetensors")[:12],
        source="evaluation",
    )
    return result.reindex(columns=list(SCORE_COLUMNS))


def measure(
    result: pd.DataFrame,
    masks: dict[int, np.ndarray],
    maps: np.ndarray,
    alpha: float,
    settings: EvaluationSettings,
    seed: int,
    split: str = SPLIT,
    counts: np.ndarray | None = None,
) -> dict[str, Any]:
    """All figures, overall and per group; uncertain images stand apart and enter no headline figure.

    *counts*, bool (H, W) as the maps, says which pixels are in those of pixels.
    """
    headline = result[result["label"] != "uncertain"]
    groups = {str(g): part for g, part in headline.groupby("group")}
    overall = _figures(headline, masks, maps, settings, seed, split, counts)
    return {
        "metric_version": METRIC_VERSION,
        "split": split,
        "seed": seed,
        "alpha": alpha,
        "overall": overall,
        "groups": {
            g: overall if len(part) == len(headline) else _figures(part, masks, maps, settings, seed, split, counts)
            for g, part in groups.items()
        },
        "uncertain": _uncertain(result[result["label"] == "uncertain"]),
    }


def _figures(
    part: pd.DataFrame,
    masks: dict[int, np.ndarray],
    maps: np.ndarray,
    settings: EvaluationSettings,
    seed: int,
    split: str,
    counts: np.ndarray | None,
) -> dict[str, Any]:
    labels, scores = (part["label"] == "anomalous").to_numpy(), part["score"].to_numpy()
    lacking = [name for name, there in (("normal", (~labels).any()), ("anomalous", labels.any())) if not there]
    image: dict[str, Any] = {"not_available": f"the {split} split has no {' and no '.join(lacking)} images"}
    if not lacking:
        image = {**image_metrics(labels, scores), "interval": bootstrap(labels, scores, settings.bootstrap, seed)}
    return {
        "n": {"normal": int((~labels).sum()), "anomalous": int(labels.sum())},
        "image": image,
        "pixel": _pixel(part, masks, maps, settings, split, counts),
        **_rates(part, labels),
    }


def _rates(part: pd.DataFrame, labels: np.ndarray) -> dict[str, Any]:
    """False-alarm and miss rate at the calibrated threshold, with 95 % intervals."""
    alarm = (part["decision"] == "anomalous").to_numpy()
    rates: dict[str, Any] = {}
    for name, chosen, hit in (("false_alarm_rate", ~labels, alarm), ("miss_rate", labels, ~alarm)):
        n, hits = int(chosen.sum()), int((hit & chosen).sum())
        rates[name] = {"rate": hits / n, "interval": share_interval(hits, n)} if n else {"not_available": "no images"}
    return rates


def _pixel(
    part: pd.DataFrame,
    masks: dict[int, np.ndarray],
    maps: np.ndarray,
    settings: EvaluationSettings,
    split: str,
    counts: np.ndarray | None,
) -> dict[str, Any]:
    chosen = [i for i in part.index if i in masks]
    stack = np.stack([masks[i] for i in chosen]) if chosen else np.zeros((0, 1, 1), bool)
    if not stack.any():
        return {"not_available": f"the {split} split has no masks of anomalies"}
    figures = pixel_metrics(stack, maps[chosen], settings.aupro_limit, counts)
    return {
        **figures,
        "f1_fixed": fixed_f1(stack, maps[chosen], counts),
        "images": len(chosen),
        "size": settings.map_size,
    }


def _uncertain(part: pd.DataFrame) -> dict[str, Any]:
    if part.empty:
        return {"n": 0}
    share = float((part["decision"] == "anomalous").mean())
    return {"n": len(part), "share_anomalous": share, "mean_p_value": float(part["p_value"].mean())}
