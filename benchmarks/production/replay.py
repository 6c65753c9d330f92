"""When slow wear of a real machine is noticed as drift.

Writes results/replay.json and docs/replay.png. Ball-screw drives (bsdata), fifteen positions photographed 57 times in
ten days until pitting spread. The champion learns the first 24 rounds; the other rounds arrive in the order of their
time stamps. The drive as a whole is one source; each position is looked at by itself as well, against its own part of
the reference. Labels are drawn beside the verdicts and choose nothing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.common import project
from benchmarks.common.results import RESULTS
from benchmarks.common.runner import options
from benchmarks.common.streams import Watch, scored
from components.core.artefacts import write_json
from components.datasets.adapters import bsdata_read
from components.monitoring.columns import read_reference, standardised
from components.monitoring.settings import MonitorSettings

mpl.use("Agg")
DATA, PROJECT, MODEL = Path("data/bsdata"), Path("runs/bsdata"), "drive"
LEARNED, CONTROL = 24, "477500_315"
LEAST = 15  # rows of the reference; near-duplicate frames stay on one side, so some positions have next to none
CONFIG = project.config(MODEL, split={"calibrate_share": 0.5})
WHOLE = MonitorSettings(window=70, stride=14, min_n=70, cooldown_hours=1e6)  # five rounds, judged after every one
SINGLE = MonitorSettings(window=10, stride=1, min_n=10, cooldown_hours=1e6)


def rounds() -> pd.DataFrame:
    """path, position, at, defect and round of every frame, in the order of time."""
    table = pd.DataFrame(
        [
            {
                "path": DATA / r.image_id,
                "position": r.group,
                "defect": r.label == "anomalous",
                "at": datetime.strptime(Path(r.image_id).stem.rpartition("_")[2], "%y%m%d%H%M%S").replace(tzinfo=UTC),
            }
            for r in bsdata_read(DATA).rows
        ]
    ).sort_values("at")
    table["round"] = table.groupby("position").cumcount()
    return table.reset_index(drop=True)


def replay(frames: pd.DataFrame, reference: pd.DataFrame, settings: MonitorSettings) -> list[dict[str, Any]]:
    """The verdicts on *frames* (meta data and monitored columns), each with the true rate in its window."""
    columns = list(reference.columns)
    found = []
    for window in Watch(reference, settings).stream(frames[columns]):
        rows = frames.iloc[window.end - settings.window : window.end]
        found.append(
            {
                "at": rows["at"].iloc[-1].isoformat(),
                "action": window.action,
                "flagged": window.flagged,
                "excess": window.excess,
                "pitting": float(rows["defect"].mean()),
                "reasons": window.reasons[:3],
            }
        )
    return found


def summary(verdicts: Sequence[dict[str, Any]], frames: pd.DataFrame) -> dict[str, Any]:
    first = frames[frames["defect"]]["at"]
    asked = [v["at"] for v in verdicts if v["action"] == "retrain"]
    return {
        "windows": len(verdicts),
        "flagged": sum(v["flagged"] for v in verdicts),
        "first flagged": next((v["at"] for v in verdicts if v["flagged"]), None),
        "retrain asked for": asked[0] if asked else None,
        "first pitting": first.min().isoformat() if len(first) else None,
    }


def measure() -> dict[str, Any]:
    table = rounds()
    early = table[table["round"] < LEARNED]
    if early["defect"].any():
        raise SystemExit("pitting among the frames to be learned; lower LEARNED")
    project.make(PROJECT, MODEL, list(early["path"]), CONFIG)
    bundle = PROJECT / "artefacts" / MODEL / "patchcore" / "bundle"
    raw = read_reference(bundle)
    reference, late = standardised(raw, raw), table[table["round"] >= LEARNED].reset_index(drop=True)
    frames = pd.concat([late, scored(bundle, late["path"], "production")], axis=1)
    split = pd.read_parquet(PROJECT / "artefacts" / MODEL / "split" / "split.parquet")
    names = split[split["split"] == "calibrate"]["image_id"]
    if len(names) != len(reference):
        raise SystemExit("the reference is not the calibrate split")
    owner = [Path(name).stem.rpartition("_")[0] for name in names]
    others = frames[frames["position"] != CONTROL]
    return {
        "learned": len(early),
        "reference": len(reference),
        "whole": {"the drive without the control": replay(others, reference, WHOLE)},
        "single": {
            p: replay(frames[frames["position"] == p], reference[[o == p for o in owner]], SINGLE)
            for p in sorted(set(owner))
            if owner.count(p) >= LEAST
        },
        "reference rows": {p: owner.count(p) for p in sorted(set(owner))},
        "summary": {},
        "frames": frames,
    }


def draw(result: dict[str, Any], out: Path) -> None:
    figure, axes = plt.subplots(2, 1, figsize=(10, 6.4), sharex=True, layout="constrained")
    (whole,) = result["whole"].values()
    _lines(axes[0], whole, "tab:red", "the drive, 14 positions")
    rate = axes[0].twinx()
    rate.fill_between(_times(whole), [v["pitting"] for v in whole], alpha=0.2, color="tab:grey", step="mid")
    rate.set(ylim=(0, 1), ylabel="true pitting rate (grey)")
    for position, verdicts in result["single"].items():
        if position != CONTROL:
            axes[1].plot(_times(verdicts), [v["excess"] for v in verdicts], color="tab:grey", linewidth=0.7)
    _lines(axes[1], result["single"][CONTROL], "tab:green", f"{CONTROL}, free of pitting")
    for axis in axes:
        axis.axhline(1, color="black", linewidth=0.8, linestyle="--")
        axis.set(yscale="log", ylabel="distance over its limit")
        axis.legend(loc="upper left")
    figure.savefig(out, dpi=80, metadata={"Software": None})


def _times(verdicts: Sequence[dict[str, Any]]) -> list[datetime]:
    return [datetime.fromisoformat(v["at"]) for v in verdicts]


def _lines(axis: Axes, verdicts: Sequence[dict[str, Any]], colour: str, label: str) -> None:
    times, excess = np.array(_times(verdicts)), np.array([v["excess"] for v in verdicts])
    axis.plot(times, excess, color=colour, marker=".", label=label)
    asked = np.array([v["action"] == "retrain" for v in verdicts])
    axis.plot(times[asked], excess[asked], "v", color="black", markersize=9, label="retraining asked for")


def main(arguments: list[str]) -> None:
    options("replay", __doc__).parse_args(arguments)
    result = measure()
    frames = result.pop("frames")
    for kind, settings in (("whole", WHOLE), ("single", SINGLE)):
        for name, verdicts in result[kind].items():
            rows = frames[frames["position"] == name] if kind == "single" else frames
            result["summary"][name] = summary(verdicts, rows) | {"window": settings.window}
    write_json(RESULTS / "replay.json", result)
    draw(result, Path("docs/replay.png"))
