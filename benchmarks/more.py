"""What more would buy: ``python -m benchmarks.more [--jobs N] [--again] [VIEW/DETECTOR ...]``.

Preset ``cpu``, seed 0, beside itself with more epochs, more pixels, another backbone or without what is ours (ASKED).
The epoch is chosen by synthetic anomalies as in any training; test labels are read once, at the end, and choose
nothing. Each training is a process on one thread and is stored at once; one whose settings are unchanged is skipped.
Writes results/more.json, results/more.md and, where epochs are asked about, synthetic AUROC by epoch: results/more.png.
"""

import argparse
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot as plt

from benchmarks.fit import prepare, stored
from benchmarks.studies import Overrides, label
from benchmarks.table import markdown
from benchmarks.variant import KEPT, View, apart, figures, trained
from components.core.artefacts import git_commit, read_json, values_hash, write_json
from components.core.records import kept_score
from components.core.runtime import keep_freed_memory
from components.core.settings import plain
from components.detectors.catalogue import create, settings_for
from components.detectors.contract import Detector
from components.training.select import SyntheticAUROC

RESULTS = Path(__file__).parent / "results"
LOCK = threading.Lock()
PLAIN, SHORT = {"positions": False}, {"draws": 0}
DEEPER, LARGER = {"backbone.name": "tf_efficientnet_lite1"}, {"backbone.size": 320}
PUBLISHED: Overrides = {  # SGSF without what is ours
    "guidance": "self", "strategies": ["saliency"], "copies": 3, "epochs": 10, "draws": 0,
}  # fmt: skip
ASKED: dict[str, tuple[Overrides, ...]] = {
    "screw/uniad": (SHORT, {"epochs": 72}),
    "screw/sivt": (SHORT, {"epochs": 60}),
    "mtd/uniad": (PLAIN, DEEPER, LARGER, {"epochs": 36}),
    "mtd/sivt": (PLAIN, DEEPER, {"epochs": 30}),
    "mtd/adtr": (PLAIN,),
    "mtd/msfi": (PLAIN, {"search": "images", "entropy": 0.01, "search_rate": 0.03}, {"search_epochs": 0}),
    "mtd/pni": (PLAIN, DEEPER, LARGER, {"backbone.taps": [2, 3]}),
    "mtd/nln": ({"share": 0.6, "blur": 0.0, "top": 1.0, "positions": False}, {"blur": 0.0, "top": 1.0}),
    "mtd/alps": ({"top": 1.0},),
    "mtd/paedid": (PLAIN, {"brightness": False}, {"patch": 8}),
    "mtd/cma_ae": ({"epochs": 12}, {"blur": 4.0}, {"image": "deviation"}, {"standardise": "scale"}),
    "mtd/sgsf": (PUBLISHED, {"guidance": "self"}, {"strategies": ["saliency"]}),
    "screw/sgsf": ({"draws": 0}, {"strategies": ["saliency"]}),
    "mtd/fastflow": (DEEPER, LARGER, {"epochs": 24}),
}
HEAD = ("view", "detector", "changed", "image AUROC (95 %)", "pixel AP", "synthetic AUROC", "CPU s")
ABOUT = """Preset `cpu`, seed 0, test split; *changed* is on top of the preset. *Synthetic AUROC* is what a site could
choose by. *CPU s*: training on one thread, with the features that the store did not have yet."""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.more")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="also what was measured with these very settings")
    parser.add_argument("--train", metavar="VARIANT", help="one training in this process, by its name")
    parser.add_argument("names", nargs="*", default=list(ASKED))
    asked = parser.parse_args(arguments)
    if asked.train:
        run(asked.train)
        return
    for view in {name.split("/")[0] for name in asked.names}:
        if not (View.of(view).split.exists() and View.of(view).synthetic.exists()):
            prepare(view, 0)
    with ThreadPoolExecutor(asked.jobs) as pool:
        wanted = (variant for name in asked.names for variant in variants(name))
        list(pool.map(record, [v for v in wanted if asked.again or not stands(v)]))
    found = kept()
    (RESULTS / "more.md").write_text(page(found))
    draw({name: runs for name, runs in found.items() if any(_longer(what) and _judged(runs[what]) for what in runs)})


def variants(name: str) -> dict[str, Overrides]:
    """The preset and everything asked about it, by VIEW/DETECTOR/LABEL."""
    return {f"{name}/{label(overrides)}": overrides for overrides in ({}, *ASKED[name])}


def _made(variant: str) -> Path:
    return KEPT / f"more-{variant.replace('/', '-')}.json"


def kept() -> dict[str, Any]:
    return stored(RESULTS / "more.json")


def settings(variant: str) -> Any:
    name = variant.rpartition("/")[0]
    return settings_for(name.partition("/")[2], "cpu", variants(name)[variant])


def stands(variant: str) -> bool:
    """True where it was measured with the settings of today."""
    name, _, what = variant.rpartition("/")
    return bool(kept().get(name, {}).get(what, {}).get("settings") == identity(variant))


def identity(variant: str) -> str:
    return str(values_hash(plain(settings(variant)))[:16])


def record(variant: str) -> None:
    """One training in a process of its own; its entry goes to results/more.json."""
    if not apart("more", "--train", variant):
        return
    entry = read_json(_made(variant))
    name, _, what = variant.rpartition("/")
    with LOCK:
        found = kept()
        write_json(RESULTS / "more.json", found | {name: {**found.get(name, {}), what: entry}})
    sys.stderr.write(f"{variant}: image AUROC {entry['test']['auroc']:.3f}, {entry['seconds']:.0f} CPU s\n")


def run(variant: str) -> None:
    name = variant.rpartition("/")[0]
    entry, _ = measured(name, settings(variant))
    write_json(_made(variant), {**entry, "settings": identity(variant)})


def measured(name: str, settings: Any) -> tuple[dict[str, Any], Detector]:
    """One training of VIEW/DETECTOR in this process: CPU seconds, history and the figures of the test split."""
    torch.set_num_threads(1)
    keep_freed_memory()
    view_name, _, kind = name.partition("/")
    view, started = View.of(view_name), time.process_time()
    torch.manual_seed(0)
    made = create(kind, settings)
    loop = trained(made, view.fit(), 0, SyntheticAUROC(view.check()))
    seconds = round(time.process_time() - started, 1)
    test, _ = figures(made, made.inputs(view.test()), view)
    return {"test": test, "history": loop.history, "seconds": seconds, "commit": git_commit()}, made


def page(found: dict[str, Any]) -> str:
    """results/more.md."""
    lines = [_cells(name, what, entry) for name, runs in sorted(found.items()) for what, entry in runs.items()]
    return f"# What more would buy\n\n{ABOUT}\n\n{markdown(HEAD, lines)}\n"


def _cells(name: str, what: str, entry: dict[str, Any]) -> list[str]:
    return [*name.split("/"), changed(what), *quality(entry), f"{entry['seconds']:.0f}"]


def changed(what: str) -> str:
    """The label of a variant, as it stands in a table."""
    return "nothing" if what == "full" else f"`{what}`"


def quality(entry: dict[str, Any]) -> tuple[str, str, str]:
    """Image AUROC with its interval, pixel AP and the synthetic AUROC of the epoch that was kept."""
    test = entry["test"]
    low, high = test["interval"]
    best = kept_score(entry["history"]) or 0.0
    return (
        f"{test['auroc']:.3f} ({low:.3f} to {high:.3f})",
        "no masks" if test["pixel_ap"] is None else f"{test['pixel_ap']:.3f}",
        f"{best:.3f}",
    )


def draw(found: dict[str, Any]) -> None:
    """Synthetic AUROC by epoch, one panel per method; the legend says what the chosen epoch has on the test split."""
    figure, axes = plt.subplots(1, len(found), figsize=(4.2 * len(found), 3.2), layout="constrained", squeeze=False)
    for axis, (name, runs) in zip(axes.flat, sorted(found.items()), strict=True):
        for what, entry in runs.items():
            if what == "full" or _longer(what):
                _curve(axis, "preset" if what == "full" else what, entry)
        axis.set(title=name, xlabel="epoch", ylabel="image AUROC on synthetic anomalies")
        axis.legend(fontsize=7)
    figure.savefig(RESULTS / "more.png", dpi=90, metadata={"Software": None})
    plt.close(figure)


def _longer(what: str) -> bool:
    """True for a variant that asks about the length of the training and nothing else."""
    return {part.partition("=")[0] for part in what.split(";")} <= {"epochs", "draws"}


def _curve(axis: Any, what: str, entry: dict[str, Any]) -> None:
    low, high = entry["test"]["interval"]
    text = f"{what}: test {entry['test']['auroc']:.3f} ({low:.3f} to {high:.3f})"
    axis.plot(*zip(*_judged(entry), strict=True), marker=".", label=text)


def _judged(entry: dict[str, Any]) -> list[tuple[int, float]]:
    """The epochs that synthetic anomalies judged, and how; none where the last one stands in any case."""
    steps = [record for record in entry["history"] if "loss" in record]
    return [(e, r["synthetic_auroc"]) for e, r in enumerate(steps, 1) if "synthetic_auroc" in r]


if __name__ == "__main__":
    main(sys.argv[1:])
