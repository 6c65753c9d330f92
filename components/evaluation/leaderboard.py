"""The leaderboard: one row per view and detector, from the metrics on disk."""

from pathlib import Path
from typing import Any

import pandas as pd

from components.core.artefacts import atomic_dir, read_json, seconds_of

NONE = "not available"
NOBODY = "No view has labelled test pictures to rank by; the champion is chosen by synthetic anomalies, as ever.\n"


def table(evaluations: dict[str, Path]) -> list[dict[str, Any]]:
    """Rows for ``view/detector`` -> evaluation artefact, best image AUROC first within a view."""
    rows = [_row(name, read_json(path / "metrics.json"), path) for name, path in evaluations.items()]
    return sorted(rows, key=lambda r: (r["view"], -r["image AUROC"] if isinstance(r["image AUROC"], float) else 1.0))


def _row(name: str, metrics: dict[str, Any], path: Path) -> dict[str, Any]:
    view, _, detector = name.partition("/")
    overall = metrics["overall"]
    trained = seconds_of(path.parent / "model")
    return {
        "view": view,
        "detector": detector,
        "image AUROC": overall["image"].get("auroc", NONE),
        "95 %": " to ".join(f"{v:.3f}" for v in overall["image"].get("interval", {}).get("auroc", [])) or NONE,
        "image AP": overall["image"].get("ap", NONE),
        "F1-max": overall["image"].get("f1_max", NONE),
        "pixel AUROC": overall["pixel"].get("auroc", NONE),
        "pixel AP": overall["pixel"].get("ap", NONE),
        "AUPRO": overall["pixel"].get("aupro", NONE),
        "false alarms": overall["false_alarm_rate"].get("rate", NONE),
        "misses": overall["miss_rate"].get("rate", NONE),
        "alpha": metrics["alpha"],
        "fit s": NONE if trained is None else trained,
        "split": metrics["split"],
    }


def leaderboard(evaluations: dict[str, Path], out: Path) -> Path:
    """Write leaderboard.csv, .md and .html."""
    rows = table(evaluations)
    texts = [{k: f"{v:.3f}" if isinstance(v, float) else str(v) for k, v in row.items()} for row in rows]
    with atomic_dir(out) as scratch:
        pd.DataFrame(rows).to_csv(scratch / "leaderboard.csv", index=False)
        (scratch / "leaderboard.md").write_text(_markdown(texts) if texts else NOBODY)
        page = pd.DataFrame(texts).to_html(index=False) if texts else f"<p>{NOBODY}</p>"
        (scratch / "leaderboard.html").write_text(page)
    return out


def _markdown(rows: list[dict[str, str]]) -> str:
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *(list(row.values()) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
