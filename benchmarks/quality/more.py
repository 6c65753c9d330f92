"""What more epochs, more pixels or another backbone would buy, or what is ours.

Preset ``cpu``, seed 0, beside itself with more epochs, more pixels, another backbone or without what is ours (ASKED).
The epoch is chosen by synthetic anomalies as in any training; test labels are read once, at the end, and choose
nothing. Each training is a process on one thread and is stored at once; one whose settings are unchanged is skipped.
Writes results/more.json, results/more.md and, where epochs are asked about, synthetic AUROC by epoch: results/more.png.
"""

import sys
from typing import Any

from matplotlib import pyplot as plt

from benchmarks.common.asked import SGSF_PUBLISHED, Overrides
from benchmarks.common.images import KEPT, View
from benchmarks.common.results import RESULTS, add, stored
from benchmarks.common.runner import apart, beside, options
from benchmarks.common.short import changed, kept_at, learned, quality, variants
from benchmarks.common.tables import joined, markdown, within
from benchmarks.common.views import prepare
from components.core.artefacts import read_json, values_hash, write_json
from components.core.settings import plain
from components.detectors.catalogue import settings_for

PLAIN, SHORT = {"positions": False}, {"draws": 0}
DEEPER, LARGER = {"backbone.name": "tf_efficientnet_lite1"}, {"backbone.size": 320}
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
    "mtd/sgsf": (SGSF_PUBLISHED, {"guidance": "self"}, {"strategies": ["saliency"]}),
    "screw/sgsf": ({"draws": 0}, {"strategies": ["saliency"]}),
    "mtd/fastflow": (DEEPER, LARGER, {"epochs": 24}),
}
HEAD = ("view", "detector", "changed", "image AUROC (95 %)", "pixel AP", "synthetic AUROC", "CPU s")
ABOUT = """Preset `cpu`, seed 0, test split; *changed* is on top of the preset. *Synthetic AUROC* is what a site could
choose by. *CPU s*: training on one thread, with the features that the store did not have yet."""


def main(arguments: list[str]) -> None:
    parser = options("more", __doc__, jobs=True, report=True)
    parser.add_argument("--again", action="store_true", help="also what was measured with these very settings")
    parser.add_argument("--train", metavar="VARIANT", help="one training in this process, by its name")
    parser.add_argument("names", nargs="*", default=list(ASKED), metavar="VIEW/DETECTOR")
    asked = parser.parse_args(arguments)
    if asked.train:
        run(asked.train)
        return
    if not asked.report:
        measure(asked.names, asked.jobs, asked.again)
    found = stored(RESULTS / "more.json")
    (RESULTS / "more.md").write_text(page(found))
    draw({name: runs for name, runs in found.items() if any(_longer(what) and _judged(runs[what]) for what in runs)})


def measure(names: list[str], jobs: int, again: bool) -> None:
    """Train what is asked of VIEW/DETECTOR and not known yet."""
    for view in {name.split("/")[0] for name in names}:
        if not (View.of(view).split.exists() and View.of(view).synthetic.exists()):
            prepare(view)
    wanted = (variant for name in names for variant in asked_of(name))
    beside(jobs, record, [v for v in wanted if again or not stands(v)])


def asked_of(name: str) -> dict[str, Overrides]:
    """The preset and everything asked about it, by VIEW/DETECTOR/LABEL."""
    return variants({name: ({}, *ASKED[name])})


def settings(variant: str) -> Any:
    name = variant.rpartition("/")[0]
    return settings_for(name.partition("/")[2], "cpu", asked_of(name)[variant])


def stands(variant: str) -> bool:
    """True where it was measured with the settings of today."""
    name, _, what = variant.rpartition("/")
    return bool(stored(RESULTS / "more.json").get(name, {}).get(what, {}).get("settings") == identity(variant))


def identity(variant: str) -> str:
    return str(values_hash(plain(settings(variant)))[:16])


def record(variant: str) -> None:
    """One training in a process of its own; its entry goes to results/more.json."""
    if not apart("more", "--train", variant, KEPT):
        return
    entry = read_json(kept_at("more", variant))
    name, _, what = variant.rpartition("/")
    add(RESULTS / "more.json", {what: entry}, name)
    sys.stderr.write(f"{variant}: image AUROC {entry['test']['auroc']:.3f}, {entry['seconds']:.0f} CPU s\n")


def run(variant: str) -> None:
    name = variant.rpartition("/")[0]
    entry, _ = learned(name, settings(variant))
    write_json(kept_at("more", variant), {**entry, "settings": identity(variant)})


def page(found: dict[str, Any]) -> str:
    """results/more.md."""
    runs = [(name, what, entry) for name, several in sorted(found.items()) for what, entry in several.items()]
    shown, notes = changed((what for _, what, _ in runs), 46)
    lines = [[*n.split("/"), shown[what], *quality(e), f"{e['seconds']:.0f}"] for n, what, e in runs]
    return joined("# What more would buy", ABOUT, markdown(HEAD, lines), notes)


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
    text = f"{what}: test {within(entry['test']['auroc'], entry['test']['interval'])}"
    axis.plot(*zip(*_judged(entry), strict=True), marker=".", label=text)


def _judged(entry: dict[str, Any]) -> list[tuple[int, float]]:
    """The epochs that synthetic anomalies judged, and how; none where the last one stands in any case."""
    steps = [record for record in entry["history"] if "loss" in record]
    return [(e, r["synthetic_auroc"]) for e, r in enumerate(steps, 1) if "synthetic_auroc" in r]
