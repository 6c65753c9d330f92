"""The drift verdict on real scores: `python -m benchmarks.monitor` writes results/monitor.json, docs/drift.md's table
and its picture.

Champion: PatchCore on elpv-mono, as `dvc repro` leaves it. False alarms: 200 windows without drift, drawn from the
reference itself and from test normals that neither model nor reference has seen. Delay: streams of unseen normals that
change at one moment. Labels are used to pick normal pictures, for nothing else.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from PIL import Image, ImageFilter

from benchmarks.streams import Watch, scored
from components.artefacts import read_json, write_json
from components.monitoring.columns import read_reference, standardised
from components.monitoring.settings import MonitorSettings
from components.progress import progress

mpl.use("Agg")
ROOT = Path(__file__).parent
VIEWS = Path("artefacts")
WINDOWS, STREAMS, BEFORE, AFTER = 200, 40, 150, 400
LIBRARY = ("ks", "psi", "wasserstein")  # Evidently's methods, at its own default thresholds


def brighter(pixels: np.ndarray, share: float) -> np.ndarray:
    return np.clip(pixels.astype(np.float32) * (1 + share), 0, 255).round().astype(np.uint8)


def blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


DRIFTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "brightness +5 %": partial(brighter, share=0.05),
    "brightness +10 %": partial(brighter, share=0.10),
    "brightness +20 %": partial(brighter, share=0.20),
    "blur 0.5 px": partial(blurred, sigma=0.5),
    "blur 1 px": partial(blurred, sigma=1.0),
    "blur 2 px": partial(blurred, sigma=2.0),
}


def normals(view: str) -> list[Path]:
    """Test normals of a view."""
    rows = pd.read_parquet(VIEWS / view / "split" / "split.parquet")
    return [Path("data/elpv") / i for i in rows[(rows["split"] == "test") & (rows["label"] == "normal")]["image_id"]]


def false_alarms(reference: pd.DataFrame, unseen: pd.DataFrame, settings: MonitorSettings) -> dict[str, Any]:
    """Shares of drift-free windows that are called drifted, by rule, size and where they were drawn."""
    found: dict[str, Any] = {}
    for origin, pool in (("reference", reference), ("unseen normals", unseen)):
        for n in (50, 100):
            rng, watch = np.random.default_rng(0), Watch(reference, settings)
            drawn = [pool.iloc[rng.integers(0, len(pool), n)] for _ in range(WINDOWS)]
            rates = {"loupe window": float(np.mean([bool(watch.judge(w)[0]) for w in drawn]))}
            rates |= library_rates(reference, drawn)
            found[f"{origin}/{n}"] = rates
    return found


def library_rates(reference: pd.DataFrame, drawn: list[pd.DataFrame]) -> dict[str, float]:
    """Evidently's defaults: any column drifted, and at least half of them (its data set rule)."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    definition = DataDefinition(numerical_columns=list(reference.columns))
    base, rates = Dataset.from_pandas(reference, data_definition=definition), {}
    for method in LIBRARY:
        shares = []
        for window in progress(drawn, f"Evidently {method}"):
            report = Report([ValueDrift(column=c, method=method) for c in reference.columns], include_tests=True)
            done = report.run(Dataset.from_pandas(window, data_definition=definition), base).dict()
            shares.append(np.mean([test["status"] != "SUCCESS" for test in done["tests"]]))
        rates[f"{method}, any column"] = float(np.mean([s > 0 for s in shares]))
        rates[f"{method}, half the columns"] = float(np.mean([s >= 0.5 for s in shares]))
    return rates


def retrain_rate(reference: pd.DataFrame, pool: pd.DataFrame, settings: MonitorSettings) -> float:
    """Share of windows of one long drift-free stream that ask for retraining; no cooldown hides one."""
    rng, watch = np.random.default_rng(1), Watch(reference, replace(settings, cooldown_hours=0.0))
    rows = settings.window + settings.stride * (WINDOWS - 1)
    judged = list(watch.stream(pool.iloc[rng.integers(0, len(pool), rows)]))
    return float(np.mean([w.action == "retrain" for w in judged if w.end >= settings.window]))


def delays(watch: Watch, before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any]:
    """Drifted pictures until the first flagged window and until retraining is asked for, over STREAMS streams."""
    flagged, asked = [], []
    for seed in range(STREAMS):
        rng = np.random.default_rng(seed)
        rows = [t.iloc[rng.integers(0, len(t), n)] for t, n in ((before, BEFORE), (after, AFTER))]
        late = [w for w in watch.stream(pd.concat(rows)) if w.end > BEFORE]
        flagged.append(next((w.end - BEFORE for w in late if w.flagged), None))
        asked.append(next((w.end - BEFORE for w in late if w.action == "retrain"), None))
    return {"first flagged window": _spread(flagged), "retrain": _spread(asked)}


def _spread(values: list[int | None]) -> dict[str, float | None]:
    seen = [v for v in values if v is not None]
    median = float(np.median(seen)) if seen else None
    return {"noticed": len(seen) / len(values), "median": median, "latest": max(seen, default=None)}


def measure() -> dict[str, Any]:
    settings, bundle = MonitorSettings(), VIEWS / "elpv-mono" / "patchcore" / "bundle"
    raw = read_reference(bundle)
    reference, unseen = standardised(raw, raw), scored(bundle, normals("elpv-mono"), "no drift")
    tables = {name: scored(bundle, normals("elpv-mono"), name, change) for name, change in DRIFTS.items()}
    tables["new product (poly cells)"] = scored(bundle, normals("elpv-poly"), "new product")
    watch, began = Watch(reference, settings), time.perf_counter()
    found = {name: delays(watch, unseen, table) for name, table in tables.items()}
    return {
        "reference": len(reference), "unseen normals": len(unseen), "settings": settings.__dict__,
        "false alarms": false_alarms(reference, unseen, settings),
        "retrain asked for without drift": {
            "reference": retrain_rate(reference, reference, settings),
            "unseen normals": retrain_rate(reference, unseen, settings),
        },
        "delay": found, "seconds of all delays": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def write(result: dict[str, Any], out: Path, picture: Path) -> None:
    """The tables as text, the picture beside them."""
    kinds = list(next(iter(result["false alarms"].values())))
    lines = ["| rule | " + " | ".join(f"{k.replace('/', ', n = ')}" for k in result["false alarms"]) + " |",
             "| --- |" + " --- |" * len(result["false alarms"])]  # fmt: skip
    lines += [
        f"| {kind} | " + " | ".join(f"{r[kind]:.1%}" for r in result["false alarms"].values()) + " |" for kind in kinds
    ]
    asked = result["retrain asked for without drift"]
    lines += ["", f"Retraining asked for, per window of 100 without drift: {asked['reference']:.1%} (reference), "
              f"{asked['unseen normals']:.1%} (unseen normals).", "",
              "| drift | flagged: streams | pictures, median (latest) | retrain: streams | pictures, median (latest) |",
              "| --- | --- | --- | --- | --- |"]  # fmt: skip
    lines += [f"| {name} | {_cells(d['first flagged window'])} | {_cells(d['retrain'])} |"
              for name, d in result["delay"].items()]  # fmt: skip
    out.write_text("\n".join(lines) + "\n")
    _draw(result, picture)


def _cells(d: dict[str, Any]) -> str:
    return f"{d['noticed']:.0%} | " + (f"{d['median']:.0f} ({d['latest']})" if d["median"] else "-")


def _draw(result: dict[str, Any], picture: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    rates = result["false alarms"]["unseen normals/100"]
    left.barh(list(rates), list(rates.values()), color=["tab:green"] + ["tab:grey"] * (len(rates) - 1))
    left.invert_yaxis()
    left.set(xlabel="share of 200 windows without drift that are flagged", xlim=(0, 1))
    for kind, colour in (("first flagged window", "tab:orange"), ("retrain", "tab:red")):
        seen = {n: d[kind] for n, d in result["delay"].items() if d[kind]["median"]}
        right.plot([d["median"] for d in seen.values()], list(seen), "o", color=colour, label=kind)
    right.invert_yaxis()
    right.set(xlabel="drifted pictures until noticed (median)", xlim=(0, AFTER))
    right.legend()
    figure.savefig(picture, dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", action="store_true", help="only write the table and the picture again")
    path = ROOT / "results" / "monitor.json"
    if not parser.parse_args().draw:
        write_json(path, measure())
    write(read_json(path), ROOT / "results" / "monitor.md", ROOT.parent / "docs" / "drift.png")
