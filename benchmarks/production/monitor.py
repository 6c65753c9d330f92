"""How often the drift verdict is wrong beside Evidently's defaults, and how soon it is right on graded drifts.

Writes results/monitor.json, results/monitor.md and docs/drift.png. Champion: that of the demonstration, PatchCore on
288 mono normals; the 300 others are production. False alarms: 200 windows without drift, drawn from the reference
itself (with replacement) and from the unseen normals (without). Delay: streams of unseen normals that change at one
moment. Labels are used to pick normal pictures, for nothing else.
"""

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

from benchmarks.common import project
from benchmarks.common.results import RESULTS
from benchmarks.common.runner import options
from benchmarks.common.streams import Watch, scored
from benchmarks.common.tables import markdown
from benchmarks.production.demo_drift import CONFIG, MODEL, Cells
from components.core.artefacts import read_json, write_json
from components.core.progress import progress
from components.datasets.versions import checkout
from components.monitoring.columns import read_reference, standardised
from components.monitoring.settings import MonitorSettings

mpl.use("Agg")
PICTURE = Path("docs/drift.png")
PROJECT, PRODUCT = Path("runs/monitor"), "new product (poly cells)"
WINDOWS, STREAMS, BEFORE, AFTER = 200, 40, 100, 400
DELAYS = ("drift", "flagged: streams", "pictures, median (latest)", "retrain: streams", "pictures, median (latest)")
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


def false_alarms(reference: pd.DataFrame, unseen: pd.DataFrame, settings: MonitorSettings) -> dict[str, Any]:
    """Shares of drift-free windows that are called drifted, by rule, size and where they were drawn."""
    found: dict[str, Any] = {}
    for origin, pool in (("reference", reference), ("unseen normals", unseen)):
        for n in (50, 100):
            rng, watch = np.random.default_rng(0), Watch(reference, settings)
            again = origin == "reference"
            drawn = [pool.iloc[rng.choice(len(pool), n, replace=again)] for _ in range(WINDOWS)]
            rates = {"Loupe, any column": float(np.mean([bool(watch.judge(w)[0]) for w in drawn]))}
            rates |= library_rates(reference, drawn)
            found[f"{origin}/{n}"] = rates
    return found


def library_rates(reference: pd.DataFrame, drawn: list[pd.DataFrame]) -> dict[str, float]:
    """Evidently's defaults: any column drifted, and at least half of them (its data set rule).

    The tests behind its ValueDrift are called without a report around them, which takes a thousand times longer.
    """
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    rates = {}
    for method in LIBRARY:
        shares = []
        for window in progress(drawn, f"Evidently {method}"):
            pairs = [(reference[c], window[c]) for c in reference.columns]
            tests = [
                get_stattest(r, w, ColumnType.Numerical, method)(r, w, ColumnType.Numerical, None) for r, w in pairs
            ]
            shares.append(np.mean([test.drifted for test in tests]))
        rates[f"{method}, any column"] = float(np.mean([s > 0 for s in shares]))
        rates[f"{method}, half the columns"] = float(np.mean([s >= 0.5 for s in shares]))
    return rates


def retrain_rate(reference: pd.DataFrame, pool: pd.DataFrame, settings: MonitorSettings) -> float:
    """Share of windows of drift-free streams that ask for retraining; no cooldown hides one.

    A stream is the whole pool in a new order, since a pool drawn from again and again differs by chance for ever.
    """
    watch, asked = Watch(reference, replace(settings, cooldown_hours=0.0)), []
    for seed in range(STREAMS):
        order = np.random.default_rng(seed).permutation(len(pool))
        asked += [w.action == "retrain" for w in watch.stream(pool.iloc[order])]
    return float(np.mean(asked))


def delays(watch: Watch, before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any]:
    """Drifted pictures until the first flagged window and until retraining is asked for, over STREAMS streams."""
    flagged, asked = [], []
    for seed in range(STREAMS):
        rng = np.random.default_rng(seed)
        rows = [t.iloc[rng.choice(len(t), n, replace=n > len(t))] for t, n in ((before, BEFORE), (after, AFTER))]
        late = [w for w in watch.stream(pd.concat(rows)) if w.end > BEFORE]
        flagged.append(next((w.end - BEFORE for w in late if w.flagged), None))
        asked.append(next((w.end - BEFORE for w in late if w.action == "retrain"), None))
    return {"first flagged window": _spread(flagged), "retrain": _spread(asked)}


def _spread(values: list[int | None]) -> dict[str, float | None]:
    seen = [v for v in values if v is not None]
    median = float(np.median(seen)) if seen else None
    return {"noticed": len(seen) / len(values), "median": median, "latest": max(seen, default=None)}


def measure() -> dict[str, Any]:
    cells, settings = Cells(checkout("elpv").resolve(), 0), MonitorSettings()
    project.make(PROJECT, MODEL, cells.paths(cells.train), CONFIG)
    bundle, seen = PROJECT / "artefacts" / MODEL / "patchcore" / "bundle", cells.paths(cells.arriving)
    raw = read_reference(bundle)
    reference, unseen = standardised(raw, raw), scored(bundle, seen, "no drift")
    tables = {name: scored(bundle, seen, name, change) for name, change in DRIFTS.items()}
    tables[PRODUCT] = scored(bundle, cells.paths(cells.held["poly"]), PRODUCT)
    watch = Watch(reference, replace(settings, cooldown_hours=0.0))
    return {
        "reference": len(reference),
        "unseen normals": len(unseen),
        "settings": settings.__dict__,
        "false alarms": false_alarms(reference, unseen, settings),
        "retrain asked for without drift": {
            "reference": retrain_rate(reference, reference, settings),
            "unseen normals": retrain_rate(reference, unseen, settings),
        },
        "delay": {name: delays(watch, unseen, table) for name, table in tables.items()},
    }


def write(result: dict[str, Any], out: Path, picture: Path) -> None:
    """The tables as text, the picture beside them."""
    alarms, asked = result["false alarms"], result["retrain asked for without drift"]
    rates = ([kind, *(f"{r[kind]:.1%}" for r in alarms.values())] for kind in sorted(next(iter(alarms.values()))))
    delays = ((name, result["delay"][name]) for name in (*DRIFTS, PRODUCT))
    late = ([name, *_cells(d["first flagged window"]), *_cells(d["retrain"])] for name, d in delays)
    out.write_text(
        "\n\n".join(
            (
                markdown(("rule", *(k.replace("/", ", n = ") for k in alarms)), rates),
                f"Retraining asked for, per window of 100 without drift: {asked['reference']:.1%} (reference), "
                f"{asked['unseen normals']:.1%} (unseen normals).",
                markdown(DELAYS, late),
            )
        )
        + "\n"
    )
    _draw(result, picture)


def _cells(d: dict[str, Any]) -> list[str]:
    return [f"{d['noticed']:.0%}", f"{d['median']:.0f} ({d['latest']})" if d["median"] else "-"]


def _draw(result: dict[str, Any], picture: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    rates = result["false alarms"]["unseen normals/100"]
    left.barh(list(rates), list(rates.values()), color=["tab:green"] + ["tab:grey"] * (len(rates) - 1))
    left.invert_yaxis()
    left.set(xlabel="share of 200 windows without drift that are flagged", xlim=(0, 1))
    for kind, colour in (("first flagged window", "tab:orange"), ("retrain", "tab:red")):
        seen = {n: d for n in (*DRIFTS, PRODUCT) if (d := result["delay"][n][kind])["median"]}
        right.plot([d["median"] for d in seen.values()], list(seen), "o", color=colour, label=kind)
    right.invert_yaxis()
    right.set(xlabel="drifted pictures until noticed (median)", xlim=(0, AFTER))
    right.legend()
    figure.savefig(picture, dpi=80, metadata={"Software": None})


def main(arguments: list[str]) -> None:
    asked, path = options("monitor", __doc__, report=True).parse_args(arguments), RESULTS / "monitor.json"
    if not asked.report:
        write_json(path, measure())
    write(read_json(path), RESULTS / "monitor.md", PICTURE)
